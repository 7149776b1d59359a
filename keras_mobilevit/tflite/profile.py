"""Where a file's time goes, by Keras layer and by kind of kernel."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from keras_mobilevit import reports
from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite.kernels import KernelTime
from keras_mobilevit.tflite.origins import edges
from keras_mobilevit.tflite.origins import outermost_layers
from keras_mobilevit.tflite.split import cut


@dataclasses.dataclass(frozen=True)
class LayerTime:
    """One of the outermost layers.

    Attributes:
        layer: its name.
        ops: operations of the file that were made from it.
        ms: milliseconds that they take.
        share: of the file's time, 0..1.
    """

    layer: str
    ops: int
    ms: float
    share: float


@dataclasses.dataclass(frozen=True)
class Profile(reports.Report):
    """Where one file's time goes.

    Attributes:
        path: the file.
        threads: CPU threads.
        total_ms: milliseconds of one run.
        layers: one row for each layer, in the order of their last operation.
        kernels: one row for each kind of kernel, slowest first; `()` if the
            runtime does not tell.
    """

    path: str
    threads: int
    total_ms: float
    layers: tuple[LayerTime, ...]
    kernels: tuple[KernelTime, ...] = ()

    def __str__(self) -> str:
        layers = reports.table(
            ("layer", "operations", "ms", "share %"),
            [
                (row.layer, row.ops, f"{row.ms:.3f}", f"{100 * row.share:.1f}")
                for row in self.layers
            ],
        )
        kernels = "Of its kernels this runtime does not tell."
        if self.kernels:
            kernels = reports.table(
                ("kernel", "runs", "ms", "share %"),
                [
                    (
                        row.kernel
                        if row.in_xnnpack
                        else f"{row.kernel}, outside XNNPACK",
                        row.count,
                        f"{row.ms:.3f}",
                        f"{100 * row.share:.1f}",
                    )
                    for row in self.kernels
                ],
            )
        title = f"{self.path}, {self.threads} thread(s)"
        return f"{title}\n{layers}\n\n{kernels}"


def write_beginnings(
    path: str | os.PathLike, folder: str | os.PathLike
) -> tuple[list[tuple[str, int]], list[str]]:
    """Writes a file for each layer that ends with it.

    XNNPACK runs a whole graph as one operation and does not tell what of it
    takes how long; but a file that ends with a layer can be timed, and the
    one that ends with the layer before.

    Args:
        path: a `.tflite` file of `convert`.
        folder: where to write.

    Returns:
        The layers with the number of their operations, and for each layer
        the file that ends with it; the last is `path` itself.
    """
    data = Path(path).read_bytes()
    model = flatbuffer.read_model(data)
    owners = outermost_layers(edges(model))
    last = {layer: i for i, layer in enumerate(owners)}
    layers = sorted(last, key=last.get)
    files = []
    for i, layer in enumerate(layers[:-1]):
        kept = set(layers[: i + 1])
        part, _ = cut(data, [i for i, own in enumerate(owners) if own in kept])
        files.append(os.path.join(folder, f"{i}_{layer}.tflite"))
        Path(files[-1]).write_bytes(part)
    counts = [(layer, owners.count(layer)) for layer in layers]
    return counts, [*files, os.fspath(path)]


def from_times(
    path: str | os.PathLike,
    threads: int,
    layers: list[tuple[str, int]],
    times: np.ndarray,
    kernels: tuple[KernelTime, ...] = (),
) -> Profile:
    """Turns the times of a file's beginnings into times of its layers.

    Args:
        path: the file.
        threads: CPU threads that it was timed with.
        layers: what `write_beginnings` returned.
        times: milliseconds of its files, `(files, rounds)`.
        kernels: what `kernel_times` returned.

    Returns:
        Milliseconds by layer; a layer that takes next to nothing may come
        out slightly below zero.
    """
    # Per round, so that what slows the machine for a while does not count.
    own = np.diff(times, axis=0, prepend=0)
    shares = np.median(own / times[-1], axis=1)
    total = float(np.median(times[-1]))
    return Profile(
        path=os.fspath(path),
        threads=threads,
        total_ms=round(total, 4),
        layers=tuple(
            LayerTime(
                layer, ops, round(float(share) * total, 4), round(share, 4)
            )
            for (layer, ops), share in zip(layers, shares.tolist())
        ),
        kernels=kernels,
    )
