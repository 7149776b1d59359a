"""What the commands read: pictures, models and the names of classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    import keras

    from keras_mobilevit.data import Dataset


class UsageError(ValueError):
    """The command line itself is wrong."""


def load_data(values: flags.FlagValues, image_size: int) -> "Dataset":
    """Loads the pictures that `--data_dir` or `--dataset` names."""
    from keras_mobilevit import data

    if not (values.data_dir or values.dataset):
        raise UsageError(
            "Pictures are needed: pass --data_dir or --dataset. "
            "Received: neither"
        )
    return data.load(
        values.dataset,
        values.data_dir,
        image_size=image_size,
        batch_size=values.batch_size,
        seed=values.seed,
        download=values.download,
    )


def load_model(path: str) -> tuple["keras.Model", tuple[int | None, ...]]:
    """Loads a model, and the shape of its pictures without the batch."""
    from keras_mobilevit import tflite

    model = tflite.load_model(path)
    inputs = getattr(model, "inputs", None)
    return model, tuple(inputs[0].shape[1:]) if inputs else ()


def side(path: str, shape: Sequence[int | None]) -> int:
    """Returns the side of the pictures that a model or file takes.

    Args:
        path: the model or file, for the error.
        shape: of its pictures.
    """
    if len(shape) != 3 or not shape[0] or shape[0] != shape[1]:
        raise UsageError(
            "Pictures are loaded as squares of a fixed size, so the model "
            f"must take such. Received: {path}, which takes {shape}"
        )
    return int(shape[0])


def read_labels(path: str | Path) -> list[str]:
    """Reads the names of classes, one a line."""
    try:
        # Some editors put a mark in front, which is no part of a name.
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "The labels must be a text file in UTF-8 with a class a line. "
            f"Received: {path}, which cannot be read: {error}"
        ) from error


def labels_beside(path: str) -> list[str] | None:
    """Reads the labels that `train` wrote beside a model, if it did."""
    file = Path(path).parent / "labels.txt"
    return read_labels(file) if file.is_file() else None


def check_classes(
    path: str, labels: Sequence[str] | None, dataset: "Dataset"
) -> None:
    """Raises where numbers would be compared that mean different classes.

    Args:
        path: the model or file, for the error.
        labels: its classes, if they are known.
        dataset: the pictures that it is to see.
    """
    if labels and tuple(labels) != dataset.class_names:
        raise UsageError(
            "The classes of the pictures must be those of the model, in the "
            f"same order. Received: {_few(dataset.class_names)}, but {path} "
            f"has {_few(labels)}"
        )


def _few(names):
    more = ", ..." * (len(names) > 5)
    return f"{len(names)} ({', '.join(names[:5])}{more})"
