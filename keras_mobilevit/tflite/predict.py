"""What a TFLite file sees in a picture."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mobilevit import reports
from keras_mobilevit.data.pictures import fit_picture
from keras_mobilevit.data.pictures import load_picture
from keras_mobilevit.tflite.inspect import inspect
from keras_mobilevit.tflite.interpreter import Runner


@dataclasses.dataclass(frozen=True)
class Score:
    """A class and its score, as the file gives it (dequantized)."""

    index: int
    label: str
    score: float


@dataclasses.dataclass(frozen=True)
class Prediction(reports.Report):
    """What `predict` found in one picture.

    Attributes:
        picture: its path, or its position among the arrays given.
        scores: the best classes, best first.
    """

    picture: str
    scores: tuple[Score, ...]

    def __str__(self) -> str:
        return reports.table(
            (self.picture, "score"),
            [(row.label, f"{row.score:.4f}") for row in self.scores],
        )


def predict(
    path: str | os.PathLike,
    pictures: Any,
    top: int = 5,
    labels: Sequence[str] | None = None,
    num_threads: int | None = None,
) -> tuple[Prediction, ...]:
    """Classifies pictures with a TFLite file.

    Args:
        path: a classifier file that takes RGB pixels of [0, 255].
        pictures: the path of a picture; a uint8 array `(height, width, 3)`
            or `(n, height, width, 3)`, RGB; or a list or tuple of these. Any
            size: see `fit_picture`.
        top: how many classes to return for each picture.
        labels: the names of the classes; `None` for those in the file, or
            the numbers of the classes if it has none.
        num_threads: CPU threads; `None` for all cores.

    Returns:
        One `Prediction` for each picture.

    Raises:
        FileNotFoundError: there is no file at `path`, or no picture at one
            of `pictures`.
        ValueError: a picture cannot be read, the file is no classifier, or
            `labels` or `top` do not fit it.
    """
    if not isinstance(top, int) or isinstance(top, bool) or top < 1:
        raise ValueError(
            f"`top` must be a positive integer. Received: top={top!r}"
        )
    runner = Runner(path, num_threads)
    if len(runner.output_shape) != 1:
        raise ValueError(
            "The file must be a classifier with an output (1, classes). "
            f"Received: path={path}, with an output "
            f"{(1, *runner.output_shape)}"
        )
    classes = runner.output_shape[0]
    if labels is None:
        labels = inspect(path).labels or tuple(map(str, range(classes)))
    if isinstance(labels, str) or len(labels) != classes:
        raise ValueError(
            f"`labels` must hold one string for each of the {classes} classes "
            f"of the file. Received: {len(labels)} labels"
        )
    height, width, _ = runner.input_shape
    found = []
    for name, picture in _named(pictures):
        scores = runner(fit_picture(picture, height, width))[0]
        # A stable sort: equal scores stay in the order of the classes.
        best = np.argsort(-scores, kind="stable")[:top]
        found.append(
            Prediction(
                name,
                tuple(Score(int(i), labels[i], float(scores[i])) for i in best),
            )
        )
    if not found:
        raise ValueError("`pictures` must hold a picture. Received: none")
    return tuple(found)


def _named(pictures: Any) -> Any:
    """Yields the name and the pixels of each picture."""
    if isinstance(pictures, (str, os.PathLike)):
        pictures = [pictures]
    elif getattr(pictures, "ndim", None) == 3:
        pictures = [pictures]
    elif not isinstance(pictures, (list, tuple, np.ndarray)):
        raise ValueError(
            "`pictures` must be a path, a uint8 array, or a list of these. "
            f"Received: {type(pictures).__name__}"
        )
    for number, picture in enumerate(pictures):
        if isinstance(picture, (str, os.PathLike)):
            yield str(picture), load_picture(picture)
            continue
        picture = np.asarray(picture)
        is_rgb = picture.ndim == 3 and picture.shape[-1] == 3
        if picture.dtype != np.uint8 or not is_rgb or not picture.size:
            raise ValueError(
                "Each array of `pictures` must be of type uint8 and of shape "
                f"(height, width, 3). Received: dtype={picture.dtype}, "
                f"shape={picture.shape}"
            )
        yield f"picture {number}", picture
