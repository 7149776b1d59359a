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
from keras_mobilevit.quantization import calibration
from keras_mobilevit.quantization.rounding import signal_to_noise
from keras_mobilevit.quantization.sensitivity import PRECISIONS
from keras_mobilevit.tflite.benchmark import benchmark
from keras_mobilevit.tflite.evaluate import BATCH
from keras_mobilevit.tflite.evaluate import labelled_pictures
from keras_mobilevit.tflite.interpreter import Runner
from keras_mobilevit.tflite.origins import layers_in_ops
from keras_mobilevit.tflite.writers import IntegerWriter

#: Into how many pieces the kept layers are cut, to give pieces back.
_PIECES = (4, 12)
_RUNS = 30


class BudgetError(RuntimeError):
    """No choice of layers meets the budget."""


@dataclasses.dataclass(frozen=True)
class Budget(reports.Report):
    """What it took to keep the accuracy of the float model.

    Attributes:
        limit: what was allowed.
        unit: `"points"` (0..100) lost: of top-1, or of agreement with the
            float model where no labels were given; or `"dB"`: signal to noise
            of the outputs against the float model.
        n: pictures that it was measured on.
        unkept: what the file has with no layer kept in float.
        found: what it has as it was written.
        kept: names on the way to each layer that stays in float, the most
            harmful first.
        size_ratio: bytes of the file over those with no layer kept.
        latency_ratio: its time on this machine's CPU, one thread, over the
            time with no layer kept.
    """

    limit: float
    unit: str
    n: int
    unkept: float
    found: float
    kept: tuple[str, ...] = ()
    size_ratio: float = 1.0
    latency_ratio: float = 1.0

    def __str__(self) -> str:
        what = {"points": "points lost", "dB": "dB of signal to noise"}
        bound = {"points": "allowed", "dB": "wanted"}
        lines = [
            f"{what[self.unit]} on {self.n} pictures: {self.found:.2f}, of "
            f"{self.limit:g} {bound[self.unit]}; {self.unkept:.2f} with no "
            "layer in float",
            f"layers kept in float: {len(self.kept)}, for {self.size_ratio:.2f}"
            f" times the bytes and {self.latency_ratio:.2f} times the time",
        ]
        return "\n".join([*lines, *(f"  {name}" for name in self.kept)])


def check_budget(
    max_drop: Any, min_sqnr: Any, validation_data: Any, precision: str
) -> None:
    """Raises `ValueError` unless the arguments of `convert` go together."""
    if max_drop is not None and min_sqnr is not None:
        raise ValueError(
            "Pass one of `max_drop` and `min_sqnr`. "
            f"Received: max_drop={max_drop!r}, min_sqnr={min_sqnr!r}"
        )
    name, limit, top, unit = "max_drop", max_drop, 100, "points"
    if min_sqnr is not None:
        name, limit, top, unit = "min_sqnr", min_sqnr, 120, "decibels"
    if limit is None:
        if validation_data is not None:
            raise ValueError(
                "`validation_data` is what `max_drop` or `min_sqnr` is "
                "measured on: pass one of them too. Received: max_drop=None"
            )
        return
    if precision not in PRECISIONS:
        raise ValueError(
            f"`{name}` is for `precision` "
            f"{' or '.join(map(repr, PRECISIONS))}. "
            f"Received: precision={precision!r}"
        )
    is_number = isinstance(limit, (int, float, np.number))
    if isinstance(limit, bool) or not is_number or not 0 <= limit <= top:
        raise ValueError(
            f"`{name}` must be a number of {unit} from 0 to {top}. "
            f"Received: {name}={limit!r}"
        )
    if validation_data is None:
        raise ValueError(
            f"`{name}` needs `validation_data` to measure on: pictures, and "
            "labels if there are any. Received: validation_data=None"
        )


class _Drop:
    """Points of top-1 that a file loses; of agreement without labels."""

    unit, limit_name = "points", "max_drop"

    def __init__(self, model, validation_data):
        self.pictures, labels = labelled_pictures(
            validation_data,
            model.inputs[0].shape,
            model.outputs[0].shape[-1],
            "validation_data",
        )
        expected = model.predict(self.pictures, batch_size=BATCH, verbose=0)
        expected = expected.argmax(axis=1)
        self._truth = expected if labels is None else labels
        self._hits = 100 * float((expected == self._truth).mean())

    def __call__(self, data):
        found = _outputs(data, self.pictures).argmax(axis=1)
        return self._hits - 100 * float((found == self._truth).mean())

    def meets(self, value, limit):
        return value <= limit


class _Noise:
    """Signal to noise of a file's output, in dB."""

    unit, limit_name = "dB", "min_sqnr"

    def __init__(self, model, validation_data):
        self.pictures = calibration.calibration_pictures(
            validation_data,
            model.inputs[0].shape,
            argument="validation_data",
        )
        self._expected = model.predict(
            self.pictures, batch_size=BATCH, verbose=0
        )

    def __call__(self, data):
        return signal_to_noise(self._expected, _outputs(data, self.pictures))

    def meets(self, value, limit):
        return value >= limit


def write_within(
    max_drop: float | None,
    min_sqnr: float | None,
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
        max_drop: points that may be lost; `None` for `min_sqnr`.
        min_sqnr: dB that are wanted.
        writer: writes the file.
        model: the float model whose outputs to keep.
        ranking: measures the layers on pictures; called only if needed.
        validation_data: as of `convert`.

    Returns:
        The file, and what it took.

    Raises:
        BudgetError: the file misses it even with every layer in float.
    """
    limit = min_sqnr if max_drop is None else max_drop
    measure = (_Noise if max_drop is None else _Drop)(model, validation_data)
    tried: dict[tuple[str, ...], tuple[float, bytes]] = {}
    owners = []

    def value(kept: Sequence[str]) -> float:
        kept = tuple(kept)
        if kept not in tried:
            ops = [i for i, own in enumerate(owners) if set(own) & set(kept)]
            data = writer.write(ops)
            tried[kept] = measure(data), data
        return tried[kept][0]

    def is_enough(kept: Sequence[str]) -> bool:
        return measure.meets(value(kept), limit)

    def report(kept: Sequence[str], **cost: float) -> Budget:
        return Budget(
            limit=limit,
            unit=measure.unit,
            n=len(measure.pictures),
            unkept=round(value(()), 3),
            found=round(value(kept), 3),
            kept=tuple(kept),
            **cost,
        )

    if is_enough(()):
        return tried[()][1], report(())
    # In the report's order, by what each layer alone loses: where several
    # are bad, what one of them alone would gain hardly differs.
    rows = ranking(measure.pictures).layers
    owners += layers_in_ops(writer.model, [row.layer for row in rows])
    ranked = _ranked([row.layer for row in rows], owners)
    few, many = 0, 1  # few are too few; many may be enough
    while not is_enough(ranked[:many]):
        if many >= len(ranked):
            pick = max if max_drop is None else min
            best = pick(tried, key=lambda kept: tried[kept][0])
            raise BudgetError(
                f"No choice of layers keeps {measure.limit_name}={limit:g} "
                f"{measure.unit}: the best found, {len(best)} layers in "
                f"float, has {tried[best][0]:.2f}. Allow more, or write "
                "precision='float16'."
            )
        few, many = many, min(2 * many, len(ranked))
    while many - few > 1:
        middle = (few + many) // 2
        if is_enough(ranked[:middle]):
            many = middle
        else:
            few = middle
    kept = ranked[:many]
    for pieces in _PIECES:
        for piece in np.array_split(kept[::-1], min(pieces, len(kept))):
            without = [name for name in kept if name not in piece]
            if is_enough(without):
                kept = without
    data = tried[tuple(kept)][1]
    return data, report(
        kept,
        size_ratio=round(len(data) / len(tried[()][1]), 3),
        latency_ratio=_latency_ratio(tried[()][1], data),
    )


def _ranked(layers, owners):
    """Returns the layers to keep, one for those with the same operations.

    A convolution and the activation merged with it are kept together, so the
    worse of them stands for both.
    """
    found = {}
    for layer in layers:
        ops = tuple(i for i, own in enumerate(owners) if layer in own)
        if ops:
            found.setdefault(ops, layer)
    return list(found.values())


def _outputs(data, pictures):
    """Returns the output of a file for each picture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candidate.tflite"
        path.write_bytes(data)
        return Runner(path)(pictures)


def _latency_ratio(first, second):
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("a.tflite", "b.tflite")]
        for path, data in zip(paths, (first, second)):
            path.write_bytes(data)
        report = benchmark(paths, threads=[1], runs=_RUNS, progress=False)
    return round(report.timings[1].ratio, 3)
