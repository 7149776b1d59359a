"""How often a TFLite file is right, measured on the file itself."""

import dataclasses
import math
import os
import time
import warnings
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mobilevit import reports
from keras_mobilevit.tflite.interpreter import Runner
from keras_mobilevit.tflite.interpreter import check_pictures

#: Pictures at a time.
BATCH = 32
_TOP = 5
#: Of the standard normal distribution, 95 % lies within plus or minus this.
NORMAL_95 = 1.959964


@dataclasses.dataclass(frozen=True)
class Evaluation(reports.Report):
    """What `evaluate` measured.

    Attributes:
        path: the file.
        n: pictures.
        classes: outputs of the file.
        top1: share of the pictures whose label has the highest score. Equal
            scores, which integers make likely, go to the lower class.
        interval: the 95 % Wilson interval of `top1`.
        top5: share of the pictures whose label is among the five highest;
            `None` with five classes or fewer.
        ms_per_picture: mean time to feed and run a picture. To compare files
            use `benchmark`.
    """

    path: str
    n: int
    classes: int
    top1: float
    interval: tuple[float, float]
    top5: float | None
    ms_per_picture: float

    def __str__(self) -> str:
        low, high = (f"{100 * end:.2f}" for end in self.interval)
        return reports.table(
            ("file", "n", "top-1 %", "95 % interval", "top-5 %", "ms"),
            [
                (
                    self.path,
                    self.n,
                    f"{100 * self.top1:.2f}",
                    f"{low} to {high}",
                    None if self.top5 is None else f"{100 * self.top5:.2f}",
                    f"{self.ms_per_picture:.2f}",
                )
            ],
        )


def evaluate(
    path: str | os.PathLike,
    data: Any,
    num_threads: int | None = None,
    progress: bool = True,
    output: str | None = None,
) -> Evaluation:
    """Measures the accuracy of a classifier file.

    Args:
        path: a `.tflite` file with one input `(1, height, width, 3)`.
        data: a finite `tf.data.Dataset` or another iterable of
            `(pictures, labels)` batches, or one tuple of two arrays.
            Pictures `(n, height, width, 3)`, RGB: uint8 pixels, or numbers
            in the range that the model was trained on. Labels as integers
            `(n,)` or one-hot `(n, classes)`.
        num_threads: CPU threads; `None` for all cores.
        progress: whether to show a progress bar.
        output: the name of the output, if the file has several.

    Returns:
        Top-1 with its interval, top-5 and the number of pictures.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the file is no classifier, `data` is empty or does not
            fit it, or the file computes NaN.
    """
    from tqdm import tqdm

    runner = Runner(path, num_threads, output=output)
    classes = number_of_classes(runner)
    n, hits1, hits5, seconds = 0, 0, 0, 0.0
    batches = tqdm(
        _batches(data),
        total=_length(data),
        desc=f"evaluating {os.path.basename(path)}",
        disable=not progress,
        unit="batch",
    )
    with batches:
        for pictures, labels in batches:
            pictures = check_pictures(pictures, runner.input_shape, "data")
            labels = checked_labels(labels, len(pictures), classes)
            if not len(pictures):
                continue
            if n == 0:
                _warn_of_range(pictures, runner)
            started = time.perf_counter()
            scores = scores_of(runner, pictures)
            seconds += time.perf_counter() - started
            # A stable sort: equal scores stay in the order of the classes.
            order = np.argsort(-scores, axis=1, kind="stable")
            hit = order == labels[:, np.newaxis]
            n += len(labels)
            hits1 += int(hit[:, 0].sum())
            hits5 += int(hit[:, :_TOP].sum())
            batches.set_postfix_str(f"top-1 {100 * hits1 / n:.2f} %")
    if not n:
        raise ValueError("`data` must hold pictures. Received: none")
    return Evaluation(
        path=str(path),
        n=n,
        classes=classes,
        top1=hits1 / n,
        interval=wilson_interval(hits1, n),
        top5=hits5 / n if classes > _TOP else None,
        ms_per_picture=1000 * seconds / n,
    )


def labelled_pictures(
    data: Any,
    input_shape: Sequence[int],
    classes: int,
    argument: str = "data",
) -> tuple[np.ndarray, np.ndarray | None]:
    """Collects pictures to measure on, with their labels if there are any.

    Args:
        data: as of `evaluate`; or an array of pictures alone.
        input_shape: shape of the model's input, batch first.
        classes: how many there are.
        argument: the name of the user's argument, for the messages.

    Returns:
        Pictures `(n, height, width, channels)` and labels `(n,)` or `None`.

    Raises:
        ValueError: there are no pictures, or they do not fit.
    """
    has_labels = not hasattr(data, "ndim")
    what = f"The labels of `{argument}`"
    pictures, labels = [], []
    for batch, found in (
        _batches(data, argument) if has_labels else [(data, None)]
    ):
        pictures.append(check_pictures(batch, input_shape[1:], argument))
        if has_labels:
            n = len(pictures[-1])
            labels.append(checked_labels(found, n, classes, what))
    if not sum(map(len, pictures)):
        raise ValueError(f"`{argument}` must hold pictures. Received: none")
    return (
        np.concatenate(pictures),
        np.concatenate(labels) if has_labels else None,
    )


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Returns the 95 % Wilson score interval of the share `hits / n`.

    Unlike the normal approximation it stays in [0, 1] and is right for shares
    near 1, which is where accuracies lie.
    """
    z2 = NORMAL_95**2
    share = hits / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    half /= 1 + z2 / n
    return max(0.0, centre - half), min(1.0, centre + half)


def number_of_classes(runner: Runner) -> int:
    """Returns how many classes a file tells apart, or raises `ValueError`."""
    shape = runner.output_shape
    if len(shape) != 1 or shape[0] < 2:
        raise ValueError(
            "The file must be a classifier with an output (1, classes), two "
            f"classes or more. Received: path={runner.path}, with an output "
            f"{(1, *shape)}"
        )
    return shape[0]


def scores_of(runner: Runner, pictures: np.ndarray) -> np.ndarray:
    """Returns a file's outputs, `(n, classes)`; raises `ValueError` at NaN."""
    scores = runner(pictures)
    if not np.isfinite(scores).all():
        raise ValueError(
            "The file computes NaN or infinity: the model that it was made "
            f"from is broken. Received: path={runner.path}"
        )
    return scores


def _batches(data: Any, argument: str = "data") -> Iterator[tuple[Any, Any]]:
    if _is_pair_of_arrays(data):
        pictures, labels = data
        if len(pictures) != len(labels):
            raise ValueError(
                f"`{argument}` must hold a label for each picture. Received: "
                f"{len(pictures)} pictures and {len(labels)} labels"
            )
        for i in range(0, len(pictures), BATCH):
            yield pictures[i : i + BATCH], labels[i : i + BATCH]
        return
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes, dict)):
        raise ValueError(
            f"`{argument}` must be a `tf.data.Dataset`, an iterable of "
            "(pictures, labels) batches, or a tuple of two arrays. "
            f"Received: {type(data).__name__}"
        )
    if getattr(data, "cardinality", None) and int(data.cardinality()) == -1:
        raise ValueError(
            f"`{argument}` must end. Received: an infinite dataset; drop its "
            "`repeat()` or add `take(n)`"
        )
    for item in data:
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise ValueError(
                f"Each item of `{argument}` must be a pair (pictures, labels). "
                f"Received: {type(item).__name__}"
            )
        yield item[0], item[1]


def _is_pair_of_arrays(data: Any) -> bool:
    return (
        isinstance(data, (tuple, list))
        and len(data) == 2
        and all(hasattr(part, "shape") for part in data)
    )


def _length(data: Any) -> int | None:
    if _is_pair_of_arrays(data):
        return math.ceil(len(data[0]) / BATCH)
    try:
        return len(data)
    except TypeError:  # generators, and datasets of unknown length
        return None


def checked_labels(
    labels: Any, n: int, classes: int, what: str = "The labels of `data`"
) -> np.ndarray:
    """Returns integer labels `(n,)`, or raises a `ValueError`.

    Args:
        labels: integers `(n,)` or one-hot `(n, classes)`.
        n: number of pictures.
        classes: number of classes.
        what: how the message calls them.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "uifb":
        raise ValueError(
            f"{what} must be numbers. Received: dtype={labels.dtype}"
        )
    if not np.isfinite(labels).all():
        raise ValueError(
            f"{what} must be finite numbers. Received: NaN or infinity"
        )
    is_single = n == 1 and labels.shape == (classes,)
    if labels.shape == (n, classes) or is_single:
        return labels.reshape(n, classes).argmax(axis=1)
    if labels.size != n or labels.ndim > 2:
        raise ValueError(
            f"{what} must be integers ({n},) or one-hot "
            f"({n}, {classes}), as the file has {classes} classes. "
            f"Received: shape={labels.shape}"
        )
    labels = labels.reshape(n)
    wrong = labels[
        (labels != np.floor(labels)) | (labels < 0) | (labels >= classes)
    ]
    if wrong.size:
        raise ValueError(
            f"{what} must be integers from 0 to {classes - 1}, "
            f"as the file has {classes} classes. Received: {wrong[0]}"
        )
    return labels.astype("int64")


def _warn_of_range(pictures: np.ndarray, runner: Runner) -> None:
    """Warns, or raises, if the pictures are not in the range of the file."""
    if runner.takes_pixels is False and pictures.dtype != np.uint8:
        if pictures.max() > 2:
            raise ValueError(
                "The file takes numbers of [0, 1], so the pictures of `data` "
                "must be uint8, or scaled so. Received: numbers up to "
                f"{pictures.max():g}"
            )
    elif runner.takes_pixels is not False and pictures.max() <= 1:
        warnings.warn(
            "The pictures of `data` lie in [0, 1], but a model with "
            "`include_preprocessing=True`, the default, takes RGB pixels of "
            "[0, 255]: pass them unscaled.",
            stacklevel=3,
        )
