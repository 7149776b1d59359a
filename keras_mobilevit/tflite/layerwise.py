"""Where in a file the signal is lost, layer by layer of the Keras model."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mobilevit import files
from keras_mobilevit import reports
from keras_mobilevit.quantization import calibration
from keras_mobilevit.quantization import graph
from keras_mobilevit.quantization.rounding import signal_to_noise
from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite.inspect import inspect
from keras_mobilevit.tflite.interpreter import as_input
from keras_mobilevit.tflite.interpreter import run_graph
from keras_mobilevit.tflite.origins import layers_of_ops

#: Pictures to measure on; more change the numbers little.
PICTURES = 16


@dataclasses.dataclass(frozen=True)
class LayerNoise:
    """One layer in the file.

    Attributes:
        layer: names on the way to it in the Keras model.
        op: the operation whose output is the layer's.
        dtype: of that output in the file.
        sqnr_db: dB, signal to noise of that output, all before it included.
        saturated: share of its values at an end of the integer range that
            does not stand for 0, 0..1.
        imbalance: the largest over the median range of its channels.
    """

    layer: str
    op: str
    dtype: str
    sqnr_db: float
    saturated: float
    imbalance: float


@dataclasses.dataclass(frozen=True)
class LayerComparison(reports.Report):
    """What `compare_layers` found, in the file's order.

    Attributes:
        path: the file.
        n: pictures that it was measured on.
        layers: one row a layer whose output is a tensor of the file.
    """

    path: str
    n: int
    layers: tuple[LayerNoise, ...]

    def __str__(self) -> str:
        header = ("layer", "op", "type", "SQNR dB", "saturated %", "imbalance")
        rows = [
            (
                row.layer,
                row.op,
                row.dtype,
                f"{row.sqnr_db:.1f}",
                f"{100 * row.saturated:.3f}",
                f"{row.imbalance:.1f}",
            )
            for row in self.layers
        ]
        return reports.table(header, rows)

    def plot(self, path: str | os.PathLike, overwrite: bool = False) -> None:
        """Draws the signal to noise along the network, as a PNG.

        Args:
            path: where to write.
            overwrite: whether an existing file may be replaced.
        """
        from matplotlib.figure import Figure

        places = range(len(self.layers))
        width = max(6, 0.16 * len(self.layers))
        figure = Figure((width, 5), layout="constrained")
        axes = figure.subplots()
        axes.plot(places, [row.sqnr_db for row in self.layers], ".-")
        names = [row.layer for row in self.layers]
        axes.set_xticks(places, names, rotation=90, fontsize=6)
        axes.set(ylabel="signal to noise, dB", title=self.path)
        axes.grid(alpha=0.3)
        with files.atomic_path(path, overwrite) as temporary:
            figure.savefig(temporary, dpi=120)


def compare_layers(
    path: str | os.PathLike, model: keras.Model, pictures: Any
) -> LayerComparison:
    """Measures how close each layer in a file is to its Keras original.

    A file of `convert` may hold other factors and offsets for each channel
    than the model, which equalisation and absorbed norms moved; so the best
    ones are taken out before the noise is measured. What norms read may lack
    its mean over the channels, which they would subtract: it is then compared
    with the original less that mean.

    Args:
        path: a `.tflite` file of `convert`.
        model: the model that it was made from.
        pictures: some pictures as the model takes them, see `convert`.

    Returns:
        A report in the order of the file's operations. Where a layer is
        spread over several of them, the one that follows it best counts.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the pictures do not fit, or no layer of the model is in
            the file.
    """
    inspect(path)  # whether it is one, and intact
    file = flatbuffer.read_model(Path(path).read_bytes())
    main = file.subgraphs[0]
    shape = tuple(map(int, main.tensors[main.inputs[0]].shape))
    pictures = calibration.calibration_pictures(
        pictures, shape, PICTURES, "pictures"
    )
    trails = {t: layer for t, layer in graph.walk(model) if t}
    exact = _layer_outputs(model, pictures)
    nodes = flatbuffer.nodes(file)
    owners = layers_of_ops(file, trails)
    ends = _last_ops(owners)
    outputs = {}
    for i, (node, owner) in enumerate(zip(nodes, owners)):
        tensor = main.tensors[node.outputs[0]]
        size = int(np.prod(tensor.shape[1:]))
        if ends.get(owner, i) != i or owner not in exact:
            continue
        if size == exact[owner][0].size:
            outputs[node.outputs[0]] = node.name, owner
    if not outputs:
        raise ValueError(
            "`model` must be the one that the file was made from: none of its "
            f"layers is in the file. Received: path={path}"
        )
    tensors = list(outputs)
    whole = flatbuffer.excerpt(file, range(len(nodes)), main.inputs, tensors)
    source = main.tensors[main.inputs[0]]
    runs = list(run_graph(whole, [as_input(source, pictures)]))
    best: dict[str, LayerNoise] = {}
    for values, index in zip(zip(*runs), tensors):
        op, trail = outputs[index]
        row = _row(trail, op, main.tensors[index], values, exact[trail])
        if trail not in best or row.sqnr_db > best[trail].sqnr_db:
            best[trail] = row
    return LayerComparison(str(path), len(pictures), tuple(best.values()))


def _layer_outputs(model, pictures):
    """Returns `{trail: outputs}` of all layers that are called once."""
    leaves = list(graph.computing(model))
    names = {id(layer): trail for trail, layer in leaves}
    calls: dict[str, list] = {}

    def record(layer, inputs, outputs):
        calls.setdefault(names[id(layer)], []).append(outputs)

    with graph.watching((layer for _, layer in leaves), record):
        model(pictures, training=False)
    return {
        trail: found[0]
        for trail, found in calls.items()
        if len(found) == 1 and found[0].ndim > 1
    }


def _last_ops(owners):
    """Returns `{trail: its last operation}` of layers that hold others."""
    found = {}
    for i, owner in enumerate(owners):
        names = owner.split("/")
        for end in range(1, len(names)):
            found["/".join(names[:end])] = i
    return {
        trail: max(last, len(owners) - 1 - owners[::-1].index(trail))
        for trail, last in found.items()
        if trail in owners
    }


def _row(trail, op, tensor, values, exact):
    values = np.concatenate(values)
    dtype = values.dtype
    saturated = 0.0
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        zero, scale = (
            getattr(tensor.quantization, name)[0]
            for name in ("zeroPoint", "scale")
        )
        # An end that stands for 0, as behind a ReLU, clips nothing.
        ends = [end for end in (limits.min, limits.max) if end != zero]
        saturated = float(np.isin(values, ends).mean())
        values = (values.astype("float64") - zero) * scale
    values = values.reshape(-1, values.shape[-1]).astype("float64")
    exact = exact.reshape(-1, exact.shape[-1]).astype("float64")
    sizes = np.ptp(values, axis=0)
    imbalance = float(sizes.max() / max(np.median(sizes), 1e-12))
    noise = 0.0
    if values.shape == exact.shape:
        forms = exact, exact - exact.mean(1, keepdims=True)
        noise = max(signal_to_noise(x, _fitted(values, x)) for x in forms)
    return LayerNoise(
        trail,
        op,
        dtype.name,
        round(float(noise), 2),
        round(saturated, 6),
        round(min(imbalance, 1e6), 2),
    )


def _fitted(values, exact):
    """Returns each column as close to the exact one as a line brings it."""
    mean, wanted = values.mean(0), exact.mean(0)
    centred = values - mean
    power = np.square(centred).mean(0)
    slope = (centred * (exact - wanted)).mean(0) / np.where(power, power, 1.0)
    return slope * centred + wanted
