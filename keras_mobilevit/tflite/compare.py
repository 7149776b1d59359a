"""How close a TFLite file is to what it was made from."""

import dataclasses
import math
import os
from typing import Any

import numpy as np

from keras_mobilevit import reports
from keras_mobilevit.tflite.evaluate import BATCH
from keras_mobilevit.tflite.evaluate import NORMAL_95
from keras_mobilevit.tflite.evaluate import checked_labels
from keras_mobilevit.tflite.evaluate import number_of_classes
from keras_mobilevit.tflite.evaluate import scores_of
from keras_mobilevit.tflite.interpreter import Runner
from keras_mobilevit.tflite.interpreter import check_pictures


@dataclasses.dataclass(frozen=True)
class Comparison(reports.Report):
    """What `compare` measured.

    Attributes:
        path: the file.
        n: pictures.
        agreement: share of the pictures with the same best class.
        sqnr_db: signal-to-quantization-noise ratio of the outputs in
            decibels; `None` if they are equal to the last bit.
        max_error: the largest difference of an output.
        top1: share of the pictures that the file gets right, 0..1; this and
            the rest are `None` without labels.
        won: pictures that only the file gets right.
        lost: pictures that only the reference gets right.
        change: top-1 of the file less that of the reference, -1..1.
        interval: the 95 % interval of `change`, from `won` and `lost`: far
            narrower than two accuracies with an interval each.
    """

    path: str
    n: int
    agreement: float
    sqnr_db: float | None
    max_error: float
    top1: float | None = None
    won: int | None = None
    lost: int | None = None
    change: float | None = None
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        header = ["file", "n", "agreement %", "SQNR dB", "largest error"]
        row = [
            self.path,
            self.n,
            f"{100 * self.agreement:.2f}",
            None if self.sqnr_db is None else f"{self.sqnr_db:.1f}",
            f"{self.max_error:.3g}",
        ]
        if self.change is not None:
            low, high = (f"{100 * end:+.2f}" for end in self.interval)
            header += ["top-1 %", "won", "lost", "points", "95 % interval"]
            row += [f"{100 * self.top1:.2f}", self.won, self.lost]
            row += [f"{100 * self.change:+.2f}", f"{low} to {high}"]
        return reports.table(header, [row])


def compare(
    path: str | os.PathLike,
    reference: Any,
    pictures: Any,
    num_threads: int | None = None,
    labels: Any = None,
) -> Comparison:
    """Measures how close a file is to what it was made from.

    With labels also what that costs in accuracy. The file and its reference
    answer to the same pictures, so only those count that one of the two gets
    right.

    Args:
        path: a `.tflite` file.
        reference: the outputs that it should give, `(n, classes)`; or the
            path of another `.tflite` file; or a Keras model.
        pictures: `(n, height, width, 3)`, as `evaluate` takes them.
        num_threads: CPU threads; `None` for all cores.
        labels: integers `(n,)` or one-hot `(n, classes)`, or `None`.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the pictures, the reference or the labels do not fit the
            file.
    """
    runner = Runner(path, num_threads)
    classes = number_of_classes(runner)
    pictures = check_pictures(pictures, runner.input_shape, "pictures")
    if not len(pictures):
        raise ValueError("`pictures` must hold pictures. Received: none")
    if labels is not None:
        labels = checked_labels(labels, len(pictures), classes, "`labels`")
    if isinstance(reference, (str, os.PathLike)):
        expected = scores_of(Runner(reference, num_threads), pictures)
    elif callable(reference):
        expected = np.concatenate(
            [
                np.asarray(
                    reference(
                        pictures[i : i + BATCH].astype("float32"),
                        training=False,
                    )
                )
                for i in range(0, len(pictures), BATCH)
            ]
        )
    else:
        expected = np.asarray(reference)
    actual = scores_of(runner, pictures)
    if expected.shape != actual.shape:
        raise ValueError(
            f"`reference` must give outputs of the shape {actual.shape}. "
            f"Received: shape={expected.shape}"
        )
    error = actual.astype("float64") - expected
    noise, signal = np.square(error).sum(), np.square(expected).sum()
    answer, wanted = actual.argmax(axis=1), expected.argmax(axis=1)
    n, judged = len(pictures), ()
    if labels is not None:
        is_right, was_right = answer == labels, wanted == labels
        won = int((is_right & ~was_right).sum())
        lost = int((was_right & ~is_right).sum())
        judged = (
            float(is_right.mean()),
            won,
            lost,
            (won - lost) / n,
            paired_interval(won, lost, n),
        )
    return Comparison(
        str(path),
        n,
        float((answer == wanted).mean()),
        float(10 * np.log10(signal / noise)) if noise else None,
        float(np.abs(error).max()),
        *judged,
    )


def paired_interval(won: int, lost: int, n: int) -> tuple[float, float]:
    """Returns the 95 % interval of `(won - lost) / n`, a change of accuracy.

    Wald's, with one picture added to each of `won` and `lost`, so that it is
    right for few, or none, of them too (Bonett and Price, "Adjusted Wald
    confidence interval for a difference of binomial proportions based on
    paired data", 2012).

    Args:
        won: pictures that only the new is right on.
        lost: pictures that only the old is right on.
        n: all pictures that both have seen.
    """
    gain, loss = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    centre = gain - loss
    half = NORMAL_95 * math.sqrt((gain + loss - centre**2) / (n + 2))
    return max(-1.0, centre - half), min(1.0, centre + half)
