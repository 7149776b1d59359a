"""The report of `benchmark_peers.py`: tables, plot, and lines for a page."""

import dataclasses
import os
import re
from collections.abc import Iterable

from peers.cards import CARDS
from peers.cards import Card

from keras_mobilevit import files
from keras_mobilevit import reports
from keras_mobilevit.tflite.benchmark import Timing

OURS = "ours"
#: What the peak is measured with, for files of each kind of arithmetic.
PEAK = "peak"
#: Those of our precisions that are held against the best of the others.
COMPARED = ("float32", "int8_mixed", "int8_mixed_ungated", "int8")
START, END = "<!-- measured: start -->", "<!-- measured: end -->"


@dataclasses.dataclass(frozen=True)
class Row:
    """One file.

    Attributes:
        model: a key of `CARDS`, or `PEAK`.
        exporter: `"ours"`, `"timm"`, `"onnx"` ...
        precision: `"float32"`, `"int8"`, `"int8_mixed"` ...
        size: bytes.
        memory: bytes of resident memory, measured in a process of its own.
        macs: multiply-accumulates, counted in the file; `None` for ONNX.
        ops: operations; `None` for ONNX.
        accelerated: `{target: operations that it runs}`; `{}` for ONNX. That
            of `"cpu"` is measured, the others are predicted.
        timings: one for each number of threads.
    """

    model: str
    exporter: str
    precision: str
    size: int
    memory: int | None
    macs: int | None
    ops: int | None
    accelerated: dict[str, int]
    timings: tuple[Timing, ...]

    @property
    def is_integer(self) -> bool:
        """Whether layers compute in int8."""
        return self.precision.startswith("int8")

    def median(self, threads: int) -> float:
        """Milliseconds of one run."""
        (found,) = (t for t in self.timings if t.threads == threads)
        return found.median_ms


@dataclasses.dataclass(frozen=True)
class Comparison(reports.Report):
    """What `benchmark_peers.py` measured.

    Attributes:
        machine: processor and cores.
        threads: the numbers of threads.
        rows: one for each file, in the order of `CARDS`.
        missing: `{file name: reason}` of what could not be measured.
    """

    machine: str
    threads: tuple[int, ...]
    rows: tuple[Row, ...]
    missing: dict[str, str]

    def cards(self) -> dict[str, Card]:
        """Returns the networks of which there is a file."""
        present = {row.model for row in self.rows}
        return {name: CARDS[name] for name in CARDS if name in present}

    def peak(self, row: Row, threads: int) -> float | None:
        """Multiply-accumulates a ms of large products in a file's precision."""
        for other in self.rows:
            if other.model == PEAK and other.is_integer == row.is_integer:
                return other.macs / other.median(threads)
        return None

    def share(self, row: Row, threads: int) -> float | None:
        """How much of the peak a file reaches, 0..1.

        The part of an `int8_mixed` file that computes in float is held
        against the peak of int8 too.
        """
        macs = row.macs
        if macs is None:  # the same network as a TFLite file
            same = [r.macs for r in self.rows if r.model == row.model]
            macs = next((m for m in same if m), None)
        peak = self.peak(row, threads)
        return macs and peak and macs / row.median(threads) / peak

    def best(self, rows: Iterable[Row], threads: int = 1) -> Row | None:
        """Returns the fastest of some files."""
        return min(rows, key=lambda row: row.median(threads), default=None)

    def peers(self, model: str, integer: bool) -> list[Row]:
        """Returns the files of others of one network."""
        return [
            row
            for row in self.rows
            if row.model == model
            and row.exporter != OURS
            and row.is_integer == integer
        ]

    def own(self, model: str, precision: str) -> Row | None:
        """Returns this package's file of one network."""
        for row in self.rows:
            key = (row.model, row.exporter, row.precision)
            if key == (model, OURS, precision):
                return row
        return None

    def __str__(self) -> str:
        return "\n\n".join(
            (
                *(self.machine, self._peaks(), self._files(), self._ratios()),
                *self._missing(),
            )
        )

    def _peaks(self):
        """What the processor can do at most, as far as this run shows."""
        peaks = [
            f"{row.precision} {self.peak(row, n) / 1e6:.0f}"
            + f" with {n} thread{'s' * (n > 1)}"
            for row in self.rows
            if row.model == PEAK
            for n in self.threads
        ]
        return (
            "Large products in the same run, 10^9 multiply-accumulates a "
            f"second: {', '.join(peaks) or 'not measured'}."
        )

    def _missing(self):
        lines = [(name, _short(why)) for name, why in self.missing.items()]
        return [reports.table(("missing", "reason"), lines)] * bool(lines)

    def _files(self):
        heads = [f"ms, {n} thread{'s' * (n > 1)}" for n in self.threads]
        return reports.table(
            (
                *("network", "exporter", "precision", *heads, "of peak %"),
                *("MB", "memory MB", "MMACs", "ops", "outside XNNPACK"),
            ),
            [
                (
                    *(row.model, row.exporter, row.precision),
                    *(f"{row.median(n):.2f}" for n in self.threads),
                    _percent(self.share(row, self.threads[0])),
                    f"{row.size / 1e6:.2f}",
                    row.memory and f"{row.memory / 1e6:.1f}",
                    row.macs and f"{row.macs / 1e6:.0f}",
                    row.ops,
                    row.ops and row.ops - row.accelerated["cpu"],
                )
                for row in self.rows
            ],
        )

    def ratios(self) -> list[tuple]:
        """Compares our files with the best of the others.

        Returns:
            For each network, precision and number of threads: `(network,
            precision, threads, best exporter, its precision, ratio of the
            median times, ratio of resident memory to that file's, and to the
            smallest)`.
        """
        found = []
        for model in CARDS:
            for precision in COMPARED:
                own = self.own(model, precision)
                others = own and self.peers(model, own.is_integer)
                for threads in self.threads if others else ():
                    best = self.best(others, threads)
                    memory = min(r.memory for r in others)
                    found.append(
                        (
                            *(model, precision, threads),
                            *(best.exporter, best.precision),
                            own.median(threads) / best.median(threads),
                            own.memory / best.memory,
                            own.memory / memory,
                        )
                    )
        return found

    def _ratios(self):
        return reports.table(
            (
                *("network", "ours", "threads", "fastest other"),
                *("time ratio", "memory ratio", "to the smallest"),
            ),
            [
                (
                    *(CARDS[model].name, precision, threads),
                    f"{exporter} {other}",
                    *(f"{ratio:.2f}" for ratio in ratios),
                )
                for model, precision, threads, exporter, other, *ratios in (
                    self.ratios()
                )
            ],
        )

    def markdown(self) -> str:
        """Returns the tables of a page."""
        one = self.yardstick()
        threads = self.threads[0]
        return "\n\n".join(
            (
                self._networks(),
                f"Time of a picture, {threads} thread{'s' * (threads > 1)} on "
                f"{self.machine}; 1.00 is the {one.precision} file of "
                f"{CARDS[one.model].name} ({one.exporter}), "
                f"{one.median(threads):.2f} ms. {self._peaks()}",
                self._latencies(),
                "Our files against the fastest of the others:",
                self._ratios(),
                *self._missing(),
            )
        )

    def yardstick(self) -> Row:
        """Returns what times are given in: MobileNetV2, as in the papers."""
        networks = [row for row in self.rows if row.model in CARDS]
        return (*self.peers("mobilenet_v2", False), *networks)[0]

    def _networks(self):
        """What does not depend on the machine, one line a network."""
        lines = []
        for model, card in self.cards().items():
            floating = self.own(model, "float32")
            integer = self.own(model, "int8_edgetpu")
            if not floating:
                floating, integer = (
                    next((r for r in self.peers(model, kind) if r.macs), None)
                    for kind in (False, True)
                )
            mixed = self.own(model, "int8_mixed") or integer
            lines.append(
                (
                    *(card.name, f"{card.parameters:.1f}"),
                    floating and f"{floating.macs / 1e6:.0f}",
                    f"{card.top1:.1f}",
                    *(r and f"{r.size / 1e6:.1f}" for r in (floating, integer)),
                    *(
                        row and f"{row.accelerated[target]} of {row.ops}"
                        for row, target in (
                            *((floating, "cpu"), (mixed, "cpu")),
                            *((floating, "gpu"), (integer, "edgetpu")),
                        )
                    ),
                )
            )
        return reports.table(
            (
                *("network", "M parameters", "MMACs", "top-1 %"),
                *("float32 MB", "int8 MB", "CPU float32"),
                *("CPU mixed or int8", "GPU float32", "Edge TPU int8"),
            ),
            lines,
        )

    def _latencies(self):
        lines = []
        for model, card in self.cards().items():
            own = [
                self.own(model, precision)
                for precision in ("float32", "float16", "int8_mixed", "int8")
            ]
            others = [
                self.best(self.peers(model, integer), self.threads[0])
                for integer in (False, True)
            ]
            best = own[2] or others[1]
            lines.append(
                (
                    *(card.name, f"{card.top1:.1f}"),
                    *map(self._time, own),
                    *(
                        row and f"{self._time(row)} ({row.exporter})"
                        for row in others
                    ),
                    *(
                        row and _percent(self.share(row, self.threads[0]))
                        for row in (own[0] or others[0], best)
                    ),
                )
            )
        return reports.table(
            (
                *("network", "top-1 %", "float32", "float16"),
                *("int8_mixed", "int8", "best other float32"),
                *("best other int8", "of float peak %", "of int8 peak %"),
            ),
            lines,
        )

    def _time(self, row):
        one = self.yardstick().median(self.threads[0])
        return row and f"{row.median(self.threads[0]) / one:.2f}"

    def write_into(self, page: str | os.PathLike) -> None:
        """Puts `markdown()` between the marks of a page.

        Raises:
            ValueError: the page has no such marks.
        """
        with open(page) as file:
            text = file.read()
        before, start, rest = text.partition(START)
        _, end, after = rest.partition(END)
        if not start or not end:
            raise ValueError(
                f"The page must hold {START!r} and {END!r}. Received: {page}"
            )
        with files.atomic_path(page, True) as temporary:
            temporary.write_text(
                f"{before}{start}\n\n{self.markdown()}\n\n{end}{after}"
            )

    def plot(self, path: str | os.PathLike, overwrite: bool = False) -> None:
        """Draws published top-1 against the time of one picture."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure((9, 6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        threads = self.threads[0]
        kinds = {
            "ours, float32": lambda m: self.own(m, "float32"),
            "ours, int8_mixed": lambda m: self.own(m, "int8_mixed"),
            "others, float32": lambda m: self.best(
                self.peers(m, False), threads
            ),
            "others, int8": lambda m: self.best(self.peers(m, True), threads),
        }
        spans = {}
        for (label, choose), marker in zip(kinds.items(), "oD^v"):
            rows = [row for row in map(choose, CARDS) if row]
            times = [row.median(threads) for row in rows]
            tops = [CARDS[row.model].top1 for row in rows]
            axes.scatter(times, tops, marker=marker, label=label)
            for row, time in zip(rows, times):
                spans.setdefault(row.model, []).append(time)
        heights = []
        for model, times in spans.items():
            card = CARDS[model]
            ends = (min(times), max(times))
            axes.plot(ends, [card.top1] * 2, "lightgrey", zorder=0)
            # Networks of the same accuracy: one name above the other.
            lift = 10 * heights.count(card.top1)
            heights.append(card.top1)
            axes.annotate(
                f"{card.name}  ",
                (ends[0], card.top1),
                (0, lift),
                textcoords="offset points",
                fontsize=8,
                horizontalalignment="right",
                verticalalignment="center",
            )
        axes.margins(x=0.2)
        axes.set_xscale("log", subs=(2, 3, 5))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel(
            f"milliseconds for a picture, {threads} thread{'s' * (threads > 1)}"
        )
        axes.set_ylabel("ImageNet-1k top-1 %, as published")
        axes.legend()
        with files.atomic_path(path, overwrite) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def _short(reason):
    # Without folders, which say nothing on another machine.
    line = re.sub(r"/\S*/", "", " ".join(reason.split()))
    return line[:90].replace("|", "/")


def _percent(value):
    return None if value is None else f"{100 * value:.0f}"
