"""Keeping the fewest layers in float that an accuracy budget asks for."""

import dataclasses
import tempfile
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mobilevit import quantization
from keras_mobilevit import reports
from keras_mobilevit.quantization.sensitivity import PRECISIONS
from keras_mobilevit.tflite.benchmark import benchmark
from keras_mobilevit.tflite.evaluate import labelled_pictures
from keras_mobilevit.tflite.interpreter import Runner
from keras_mobilevit.tflite.origins import layers_of_ops
from keras_mobilevit.tflite.writers import IntegerWriter

#: Into how many pieces the kept layers are cut, to give pieces back.
_PIECES = (4, 12)
_BATCH = 32
_RUNS = 30


class BudgetError(RuntimeError):
    """No choice of layers meets the budget."""


@dataclasses.dataclass(frozen=True)
class Budget(reports.Report):
    """What it took to keep the accuracy of the float model.

    Attributes:
        max_drop: what was allowed, in points (0..100) of top-1; of agreement
            with the float model, where no labels were given.
        n: pictures that it was measured on.
        unkept_drop: points that the file loses with no layer kept in float.
        drop: points that it loses as it was written.
        kept: names on the way to each layer that stays in float, the most
            harmful first.
        size_ratio: bytes of the file over those with no layer kept.
        latency_ratio: its time on this machine's CPU, one thread, over the
            time with no layer kept.
    """

    max_drop: float
    n: int
    unkept_drop: float
    drop: float
    kept: tuple[str, ...] = ()
    size_ratio: float = 1.0
    latency_ratio: float = 1.0

    def __str__(self) -> str:
        lines = [
            f"points lost on {self.n} pictures: {self.drop:.2f}, of "
            f"{self.max_drop:g} allowed; {self.unkept_drop:.2f} with no layer "
            "in float",
            f"layers kept in float: {len(self.kept)}, for {self.size_ratio:.2f}"
            f" times the bytes and {self.latency_ratio:.2f} times the time",
        ]
        return "\n".join([*lines, *(f"  {name}" for name in self.kept)])


def check_budget(max_drop: Any, validation_data: Any, precision: str) -> None:
    """Raises `ValueError` unless the arguments of `convert` go together."""
    if max_drop is None:
        if validation_data is not None:
            raise ValueError(
                "`validation_data` is what `max_drop` is measured on: pass "
                "`max_drop` too. Received: max_drop=None"
            )
        return
    if precision not in PRECISIONS:
        raise ValueError(
            "`max_drop` is for `precision` "
            f"{' or '.join(map(repr, PRECISIONS))}. "
            f"Received: precision={precision!r}"
        )
    is_number = isinstance(max_drop, (int, float, np.number))
    if isinstance(max_drop, bool) or not is_number or not 0 <= max_drop <= 100:
        raise ValueError(
            "`max_drop` must be a number of points from 0 to 100. "
            f"Received: max_drop={max_drop!r}"
        )
    if validation_data is None:
        raise ValueError(
            "`max_drop` needs `validation_data` to measure the drop on: "
            "pictures and labels. Received: validation_data=None"
        )


def write_within(
    max_drop: float,
    writer: IntegerWriter,
    model: keras.Model,
    ranking: Callable[[np.ndarray], quantization.Sensitivity],
    validation_data: Any,
) -> tuple[bytes, Budget]:
    """Writes the file with the fewest layers in float that keeps a budget.

    The layers are ranked by what each loses if it alone is int8; the shortest
    start of that list which is enough is found by bisection, and layers that
    turn out needless are given back.

    Args:
        max_drop: points, see `Budget`.
        writer: writes the file.
        model: the float model, a classifier, whose accuracy to keep.
        ranking: measures the layers on pictures; called only if needed.
        validation_data: as of `convert`.

    Returns:
        The file, and what it took.

    Raises:
        BudgetError: the file drops more even with every layer in float.
    """
    pictures, labels = labelled_pictures(
        validation_data, model.inputs[0].shape, model.outputs[0].shape[-1]
    )
    expected = model.predict(pictures, batch_size=_BATCH, verbose=0)
    expected = expected.argmax(axis=1)
    truth = expected if labels is None else labels
    hits = 100 * float((expected == truth).mean())
    tried: dict[tuple[str, ...], tuple[float, bytes]] = {}
    owners = []

    def drop(kept: Sequence[str]) -> float:
        kept = tuple(kept)
        if kept not in tried:
            ops = [i for i, layer in enumerate(owners) if layer in kept]
            data = writer.write(ops)
            found = _classes(data, pictures, writer.input_dtype)
            tried[kept] = hits - 100 * float((found == truth).mean()), data
        return tried[kept][0]

    unkept = drop(())
    if unkept <= max_drop:
        return tried[()][1], Budget(
            max_drop, len(pictures), round(unkept, 3), round(unkept, 3)
        )
    # In the report's order, by what each layer alone loses: where several
    # are bad, what one of them alone would gain hardly differs.
    rows = ranking(pictures).layers
    owners += layers_of_ops(writer.model, [row.layer for row in rows])
    ranked = [row.layer for row in rows if row.layer in owners]
    few, many = 0, 1  # few are too few; many may be enough
    while drop(ranked[:many]) > max_drop:
        if many >= len(ranked):
            best = min(tried, key=lambda kept: tried[kept][0])
            raise BudgetError(
                f"No choice of layers keeps the drop within max_drop="
                f"{max_drop:g} points: the best found, {len(best)} layers in "
                f"float, loses {tried[best][0]:.2f}. Allow more, or write "
                "precision='float16'."
            )
        few, many = many, min(2 * many, len(ranked))
    while many - few > 1:
        middle = (few + many) // 2
        if drop(ranked[:middle]) > max_drop:
            few = middle
        else:
            many = middle
    kept = ranked[:many]
    for pieces in _PIECES:
        for piece in np.array_split(kept[::-1], min(pieces, len(kept))):
            without = [name for name in kept if name not in piece]
            if drop(without) <= max_drop:
                kept = without
    data = tried[tuple(kept)][1]
    return data, Budget(
        max_drop=max_drop,
        n=len(pictures),
        unkept_drop=round(unkept, 3),
        drop=round(drop(kept), 3),
        kept=tuple(kept),
        size_ratio=round(len(data) / len(tried[()][1]), 3),
        latency_ratio=_latency_ratio(tried[()][1], data),
    )


def _classes(data, pictures, input_dtype):
    """Returns the best class of each picture, as a file sees it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candidate.tflite"
        path.write_bytes(data)
        return Runner(path)(pictures).argmax(axis=1)


def _latency_ratio(first, second):
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("a.tflite", "b.tflite")]
        for path, data in zip(paths, (first, second)):
            path.write_bytes(data)
        report = benchmark(paths, threads=[1], runs=_RUNS, progress=False)
    return round(report.timings[1].ratio, 3)
