"""How fast and how large TFLite files are on this machine."""

import dataclasses
import functools
import os
import tempfile
import time
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_mobilevit import files
from keras_mobilevit import reports
from keras_mobilevit.tflite import profile as profiles
from keras_mobilevit.tflite.interpreter import delegation
from keras_mobilevit.tflite.interpreter import open_interpreter
from keras_mobilevit.tflite.kernels import kernel_times
from keras_mobilevit.tflite.memory import resident_memory
from keras_mobilevit.tflite.profile import Profile

_MIN_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class FileFacts:
    """What does not depend on the number of threads.

    Attributes:
        path: the file.
        size: bytes.
        memory: bytes by which loading the file and running it once makes a
            fresh process grow (resident memory, 1 thread); `None` where the
            system does not tell (it is read from /proc).
        ops: operations in the main graph.
        ops_outside: `{op name: count}` of those that XNNPACK does not run.
        partitions: how many pieces of the graph XNNPACK runs; 1 is best.
    """

    path: str
    size: int
    memory: int | None
    ops: int
    ops_outside: dict[str, int]
    partitions: int


@dataclasses.dataclass(frozen=True)
class Timing:
    """How fast one file is with one number of threads.

    Attributes:
        path: the file.
        threads: CPU threads.
        median_ms, min_ms, p90_ms: milliseconds of one run: the median, the
            smallest and the 90th percentile.
        ratio: the median over the rounds of this file's time divided by the
            first file's time in the same round, so that what slows the
            machine for a while does not count.
        runs: how often it was timed.
    """

    path: str
    threads: int
    median_ms: float
    min_ms: float
    p90_ms: float
    ratio: float
    runs: int


@dataclasses.dataclass(frozen=True)
class Benchmark(reports.Report):
    """What `benchmark` measured.

    Attributes:
        files: one row for each file.
        timings: one row for each number of threads and file.
        profiles: with `profile=True`, where each file's time goes.
    """

    files: tuple[FileFacts, ...]
    timings: tuple[Timing, ...]
    profiles: tuple[Profile, ...] = ()

    def __str__(self) -> str:
        return "\n\n".join(
            (
                *map(str, self.profiles),
                reports.table(
                    ("file", "threads", "median ms", "min", "p90", "ratio"),
                    [
                        (
                            row.path,
                            row.threads,
                            f"{row.median_ms:.3f}",
                            f"{row.min_ms:.3f}",
                            f"{row.p90_ms:.3f}",
                            f"{row.ratio:.2f}",
                        )
                        for row in self.timings
                    ],
                ),
                reports.table(
                    (
                        "file",
                        "MB",
                        "memory MB",
                        "ops",
                        "outside XNNPACK",
                        "partitions",
                    ),
                    [
                        (
                            row.path,
                            f"{row.size / 1e6:.2f}",
                            row.memory and f"{row.memory / 1e6:.1f}",
                            row.ops,
                            sum(row.ops_outside.values()),
                            row.partitions,
                        )
                        for row in self.files
                    ],
                ),
            )
        )

    def plot(self, path: str | os.PathLike, overwrite: bool = False) -> None:
        """Draws the median times as horizontal bars.

        Args:
            path: the PNG file to write.
            overwrite: whether `path` may be replaced.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        threads = sorted({row.threads for row in self.timings})
        height = 0.8 / len(threads)
        # A figure of its own, so that the caller's pyplot is not touched.
        figure = Figure(
            (8, 1.2 + 0.5 * len(self.timings)), layout="constrained"
        )
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for i, count in enumerate(threads):
            rows = [row for row in self.timings if row.threads == count]
            bars = axes.barh(
                np.arange(len(rows)) + i * height,
                [row.median_ms for row in rows],
                height,
                label=f"{count} thread{'s' * (count > 1)}",
            )
            axes.bar_label(
                bars,
                [f"{row.median_ms:.2f} ms ({row.ratio:.2f}x)" for row in rows],
                padding=3,
            )
        axes.set_yticks(
            np.arange(len(self.files)) + 0.4 - height / 2,
            [Path(row.path).name for row in self.files],
        )
        axes.invert_yaxis()
        axes.margins(x=0.25)
        axes.set_xlabel("milliseconds for a picture, median")
        figure.legend(loc="outside upper right", ncols=len(threads))
        with files.atomic_path(path, overwrite) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def benchmark(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    threads: Sequence[int] | None = None,
    runs: int = 50,
    warmup: int = 5,
    seconds: float | None = None,
    progress: bool = True,
    profile: bool = False,
    loads: int = 3,
) -> Benchmark:
    """Measures TFLite files against each other on this machine's CPU.

    The files take turns: each round runs every file once, and each round
    starts with another one, so that all of them see the same machine. Where in
    memory a file comes to lie is worth some per cent, so they are loaded anew
    several times, in another order. The milliseconds hold for this processor
    only; other processors have other kernels.

    Args:
        paths: the `.tflite` files. The first is the one to compare with.
        threads: the numbers of CPU threads to measure with; `None` for 1 and
            all cores.
        runs: rounds to time, of all loads together.
        warmup: rounds before these, after each load.
        seconds: stop timing after so many seconds for each number of threads,
            though not before 3 rounds of each load; `None` for no limit.
        progress: whether to show a progress bar.
        profile: whether to measure too how long each Keras layer and each
            kind of kernel takes, with the first number of threads.
        loads: how often the files are loaded.

    Returns:
        Times, sizes, memory, and how much of each file XNNPACK runs.

    Raises:
        FileNotFoundError: there is no file at one of the paths.
        ValueError: a file is damaged or cannot be run, or an argument is out
            of its range.
    """
    from tqdm import tqdm

    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    paths = [os.fspath(path) for path in paths]
    if not paths:
        raise ValueError("`paths` must name a file. Received: none")
    if threads is None:
        threads = (1, os.cpu_count())
    threads = tuple(dict.fromkeys(threads))
    if not threads:
        raise ValueError(
            f"`threads` must hold a positive integer. Received: {threads}"
        )
    for name, value, least in (
        ("runs", runs, 1),
        ("warmup", warmup, 0),
        ("loads", loads, 1),
        *(("threads", count, 1) for count in threads),
    ):
        if not isinstance(value, int) or value < least:
            raise ValueError(
                f"`{name}` must be an integer of at least {least}. "
                f"Received: {value!r}"
            )
    if seconds is not None and not seconds > 0:
        raise ValueError(
            f"`seconds` must be positive or `None`. Received: {seconds!r}"
        )

    timings = []
    facts = tuple(_facts(path, load(path, threads[0])) for path in paths)
    loads = min(loads, runs)
    total = len(threads) * (runs + loads * warmup)
    with tqdm(total=total, desc="benchmark", disable=not progress) as bar:
        for count in threads:
            times = take_turns_anew(
                [functools.partial(_invoke_of, path, count) for path in paths],
                *(loads, warmup, runs, seconds, bar.update),
            )
            timings += [
                timing(path, count, own, times[0])
                for path, own in zip(paths, times)
            ]
    profiled = ()
    if profile:
        profiled = tuple(
            _profile(path, threads[0], runs, progress) for path in paths
        )
    return Benchmark(facts, tuple(timings), profiled)


def _profile(path: str, threads: int, runs: int, progress: bool) -> Profile:
    """Times a file and all of its beginnings in turns."""
    from tqdm import tqdm

    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=runs + 2, desc="profile", disable=not progress) as bar,
    ):
        layers, beginnings = profiles.write_beginnings(path, folder)
        interpreters = [load(file, threads) for file in beginnings]
        invokes = [interpreter.invoke for interpreter in interpreters]
        take_turns(invokes, 2, None, bar.update)
        times = take_turns(invokes, runs, None, bar.update)
    median = float(np.median(times[-1]))
    found = kernel_times(path, threads, runs, median)
    return profiles.from_times(path, threads, layers, times, found)


def _invoke_of(path, threads):
    return load(path, threads).invoke


def load(path: str, threads: int) -> Any:
    """Returns what `open_interpreter` does, with noise at the inputs."""
    interpreter = open_interpreter(path, threads)
    generator = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        pixels = generator.integers(0, 256, detail["shape"])
        if detail["dtype"] == np.int8:
            pixels -= 128
        interpreter.set_tensor(detail["index"], pixels.astype(detail["dtype"]))
    return interpreter


def _facts(path: str, interpreter: Any) -> FileFacts:
    found = delegation(interpreter)
    return FileFacts(
        path=path,
        size=os.path.getsize(path),
        memory=resident_memory(path),
        ops=found.ops,
        ops_outside=found.outside,
        partitions=found.partitions,
    )


def take_turns(
    invokes: Sequence[Callable[[], Any]],
    rounds: int,
    seconds: float | None = None,
    progress: Callable[[int], Any] = lambda rounds: None,
) -> np.ndarray:
    """Times what takes turns, each round starting with another one.

    Args:
        invokes: each runs one thing once.
        rounds: how often each is run.
        seconds: stop after so many, though not before 3 rounds.
        progress: called with the number of rounds that are done.

    Returns:
        Milliseconds, a row for each thing and a column for each round.
    """
    begun = time.perf_counter()
    times = np.zeros((len(invokes), rounds))
    for number in range(rounds):
        late = seconds is not None and time.perf_counter() - begun > seconds
        if late and number >= _MIN_ROUNDS:
            progress(rounds - number)
            return times[:, :number]
        for turn in range(len(invokes)):
            i = (number + turn) % len(invokes)
            started = time.perf_counter()
            invokes[i]()
            times[i, number] = 1000 * (time.perf_counter() - started)
        progress(1)
    return times


def take_turns_anew(
    openers: Sequence[Callable[[], Callable[[], Any]]],
    loads: int,
    warmup: int,
    rounds: int,
    seconds: float | None = None,
    progress: Callable[[int], Any] = lambda rounds: None,
) -> np.ndarray:
    """Times what takes turns, opened several times in another order.

    Args:
        openers: each opens one thing and returns what runs it once.
        loads: how often they are opened, at most `rounds` times.
        warmup: rounds that do not count, after each opening.
        rounds: rounds that do, of all openings together.
        seconds: stop after so many, though not before 3 rounds of each.
        progress: called with the number of rounds that are done.

    Returns:
        Milliseconds, as of `take_turns`.
    """
    generator = np.random.default_rng(0)
    found = []
    for share in np.array_split(np.arange(rounds), loads):
        order = generator.permutation(len(openers))
        invokes = [openers[i]() for i in order]
        take_turns(invokes, warmup, None, progress)
        limit = None if seconds is None else seconds / loads
        times = take_turns(invokes, len(share), limit, progress)
        found.append(times[np.argsort(order)])
        del invokes  # before the next are opened
    return np.concatenate(found, axis=1)


def timing(
    path: str, threads: int, times: np.ndarray, first: np.ndarray
) -> Timing:
    """Returns one row of a report.

    Args:
        path: the file.
        threads: CPU threads.
        times: its row of `take_turns`.
        first: the row of the file that it is compared with.
    """
    return Timing(
        path=path,
        threads=threads,
        median_ms=float(np.median(times)),
        min_ms=float(times.min()),
        p90_ms=float(np.percentile(times, 90)),
        ratio=float(np.median(times / first)),
        runs=len(times),
    )
