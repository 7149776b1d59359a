"""One set of weights as files of several picture sizes, side by side."""

import dataclasses
import os
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_mobilevit import files
from keras_mobilevit import reports
from keras_mobilevit.tflite.benchmark import benchmark
from keras_mobilevit.tflite.convert import convert
from keras_mobilevit.tflite.evaluate import evaluate
from keras_mobilevit.tflite.sources import load_model


@dataclasses.dataclass(frozen=True)
class SizedFile:
    """A file of one size.

    Attributes:
        path: the file.
        height, width: of its pictures, in pixels.
        size: bytes.
        median_ms: milliseconds of one run on this machine's CPU, one thread.
        ratio: its time over that of the first file, in the same rounds.
        top1: share of the pictures that it classifies rightly; `None` if
            there are none to measure on.
        interval: 95 % interval of `top1`.
    """

    path: str
    height: int
    width: int
    size: int
    median_ms: float
    ratio: float
    top1: float | None = None
    interval: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Sizes(reports.Report):
    """What `convert_sizes` wrote.

    Attributes:
        precision: that of all files.
        files: one row for each size, in the order that was asked for.
    """

    precision: str
    files: tuple[SizedFile, ...]

    def __str__(self) -> str:
        return reports.table(
            ("file", "pixels", "MB", "median ms", "ratio", "top-1 %", "95 %"),
            [
                (
                    row.path,
                    f"{row.height}x{row.width}",
                    f"{row.size / 1e6:.2f}",
                    f"{row.median_ms:.2f}",
                    f"{row.ratio:.2f}",
                    None if row.top1 is None else f"{100 * row.top1:.2f}",
                    row.interval
                    and " to ".join(f"{100 * x:.1f}" for x in row.interval),
                )
                for row in self.files
            ],
        )


def convert_sizes(
    model: keras.Model | str | os.PathLike,
    path: str | os.PathLike,
    sizes: Sequence[int | tuple[int, int]],
    data: Callable[[int, int], tuple[Any, Any]] | None = None,
    runs: int = 30,
    progress: bool = True,
    overwrite: bool = False,
    **options: Any,
) -> Sizes:
    """Writes a model as one file for each size, and compares the files.

    Weights of a MobileViT fit any size. Accuracy away from the size of the
    training falls slowly, time falls or grows with the area.

    Args:
        model: as of `convert`.
        path: `name.tflite` becomes `name_160x160.tflite` and so on.
        sizes: the sides of square pictures in pixels, or `(height, width)`.
        data: returns, for a height and a width, the pictures to calibrate on
            and the labelled ones to measure on (or `None`), both as of
            `convert` and `evaluate`.
        runs: how often each file is timed.
        progress: whether to show progress bars.
        overwrite: whether existing files may be replaced.
        **options: further arguments of `convert`.

    Raises:
        ValueError: `sizes` is empty or holds what is no size; or as of
            `convert`.
        FileExistsError: a file exists and `overwrite` is `False`.
    """
    shapes = [_shape(size) for size in sizes]
    if not shapes or len(set(shapes)) < len(shapes):
        raise ValueError(
            "`sizes` must hold one size or more, each once. "
            f"Received: sizes={list(sizes)}"
        )
    start = Path(path)
    paths = [
        start.with_name(f"{start.stem}_{height}x{width}{start.suffix}")
        for height, width in shapes
    ]
    for file in paths:
        files.check_writable(file, overwrite)
    model = load_model(model)
    written, measured = [], []
    for file, shape in zip(paths, shapes):
        calibration, validation = data(*shape) if data else (None, None)
        written.append(
            convert(
                model,
                file,
                calibration_data=calibration,
                input_shape=shape,
                overwrite=overwrite,
                **options,
            )
        )
        measured.append(
            None
            if validation is None
            else evaluate(file, validation, progress=progress)
        )
    timings = benchmark(paths, threads=[1], runs=runs, progress=progress)
    return Sizes(
        written[0].precision,
        tuple(
            SizedFile(
                path=str(file),
                height=shape[0],
                width=shape[1],
                size=report.size,
                median_ms=timing.median_ms,
                ratio=timing.ratio,
                top1=found and found.top1,
                interval=found and found.interval,
            )
            for file, shape, report, found, timing in zip(
                paths, shapes, written, measured, timings.timings
            )
        ),
    )


def _shape(size):
    shape = (size, size) if isinstance(size, int) else tuple(size)
    if len(shape) != 2 or not all(
        isinstance(side, int) and not isinstance(side, bool) and side >= 32
        for side in shape
    ):
        raise ValueError(
            "Each of `sizes` must be a side of at least 32 pixels, or "
            f"(height, width). Received: {size!r}"
        )
    return shape
