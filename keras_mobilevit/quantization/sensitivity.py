"""Which layer loses how much in int8."""

import dataclasses
import os
from typing import Any

import keras
import numpy as np

from keras_mobilevit import files
from keras_mobilevit import reports
from keras_mobilevit.layers import LayerNorm
from keras_mobilevit.layers import MultiHeadSelfAttention
from keras_mobilevit.layers import TransformerBlock
from keras_mobilevit.layers.base import PROBABILITIES
from keras_mobilevit.quantization import calibration
from keras_mobilevit.quantization import graph
from keras_mobilevit.quantization import quantize
from keras_mobilevit.quantization import refine
from keras_mobilevit.quantization.quantizers import RoundedActivation
from keras_mobilevit.quantization.quantizers import Rounding
from keras_mobilevit.quantization.quantizers import is_quantized
from keras_mobilevit.quantization.rounding import signal_to_noise

#: What an int8_mixed file computes in float: the activations of these.
FLOAT_IN_MIXED = (LayerNorm, MultiHeadSelfAttention, TransformerBlock)
PRECISIONS = ("int8", "int8_mixed")
#: Pictures to measure on; more change the order of the layers little.
PICTURES = 32
SHOWN = 25


@dataclasses.dataclass(frozen=True)
class LayerSensitivity:
    """One layer.

    Attributes:
        layer: names on the way to it.
        kind: its class.
        alone: dB, signal to noise of the outputs if only this layer is int8.
        gain: dB that the outputs win if only this layer stays float.
        gain_int16: dB that they win if only its activations have 16 bits.
        saturated: share of the values of its tensors that lie outside of
            their ranges, 0..1.
        imbalance: the largest over the median range of the channels of its
            tensors, the worst of them.
    """

    layer: str
    kind: str
    alone: float
    gain: float
    gain_int16: float
    saturated: float
    imbalance: float


@dataclasses.dataclass(frozen=True)
class Sensitivity(reports.Report):
    """What `sensitivity` found, the most harmful layer first.

    Attributes:
        precision: `"int8"` or `"int8_mixed"`.
        total: dB, signal to noise of the outputs with all layers in int8.
        layers: one row a layer that rounds.
    """

    precision: str
    total: float
    layers: tuple[LayerSensitivity, ...]

    def __str__(self) -> str:
        rows = [
            (
                row.layer,
                row.kind,
                f"{row.alone:.1f}",
                f"{row.gain:+.2f}",
                f"{row.gain_int16:+.2f}",
                f"{100 * row.saturated:.3f}",
                f"{row.imbalance:.1f}",
            )
            for row in self.layers
        ]
        return (
            f"{self.precision}, all layers: {self.total:.1f} dB\n\n"
            + reports.table(
                (
                    "layer",
                    "kind",
                    "alone dB",
                    "gain dB",
                    "in int16",
                    "saturated %",
                    "imbalance",
                ),
                rows,
            )
        )

    def plot(self, path: str | os.PathLike, overwrite: bool = False) -> None:
        """Draws the most harmful layers as bars, as a PNG.

        Args:
            path: where to write.
            overwrite: whether an existing file may be replaced.
        """
        from matplotlib.figure import Figure

        rows = self.layers[:SHOWN][::-1]
        figure = Figure((9, 1 + 0.26 * len(rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        names = [row.layer for row in rows]
        left.barh(names, [row.alone for row in rows], color="tab:blue")
        left.axvline(self.total, color="black", linestyle=":")
        left.set(xlabel="dB if only this layer is int8 (dotted: all are)")
        right.barh(names, [row.gain for row in rows], color="tab:orange")
        right.set(xlabel="dB won if only this layer stays float")
        figure.suptitle(f"Sensitivity, {self.precision}")
        with files.atomic_path(path, overwrite) as temporary:
            figure.savefig(temporary, dpi=120)


def sensitivity(
    model: keras.Model,
    data: Any,
    precision: str = "int8",
    progress: bool = True,
) -> Sensitivity:
    """Measures what each layer loses in int8, on the rounding model.

    The model of `quantize_model`, which agrees with its file to some 30 dB,
    is run for each layer with only that one rounding, with all others, and
    with all but its activations. The noise is that of the outputs'
    logarithms, if they are probabilities, else of the outputs. The steps of
    1/256 in which an int8 file gives probabilities are left out: they change
    no answer but a tie, and in logarithms would hide what the layers lose.

    A float model is equalised and its ranges are measured here. Its biases
    stay, so that all is compared with `model` itself; a file, whose biases
    restore the means of the channels, has less noise than `total`. What each
    layer of a file loses, `keras_mobilevit.tflite.compare_layers` measures.

    Args:
        model: a float model, or one of `quantize_model`, which is compared
            with itself without rounding.
        data: pictures to calibrate and measure on, as of `quantize_model`.
        precision: `"int8"` or `"int8_mixed"`.
        progress: whether to show a progress bar.

    Returns:
        A report, the most harmful layer first.

    Raises:
        ValueError: `precision` is unknown, or as of `quantize_model`.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"`precision` must be one of {PRECISIONS}; for the layers of a "
            "file call `keras_mobilevit.tflite.compare_layers`. "
            f"Received: precision={precision!r}"
        )
    graph.check_model(model)
    import tensorflow as tf
    from tqdm import tqdm

    pictures = calibration.calibration_pictures(
        data, graph.picture_shape(model)
    )
    if not is_quantized(model):
        model = quantize.quantize_model(model, pictures, refine=False)
        refine.narrow_ranges(model, pictures)
    model = graph.copy_with(model, lambda config: None)  # it gets switches
    pictures = pictures[:PICTURES]
    last = _last_steps(model, pictures)
    roundings, owners = [], {}
    for trail, layer in graph.walk(model):
        for rounding in vars(layer).values():
            if (
                isinstance(rounding, Rounding)
                and rounding is not last
                and _is_int8(layer, rounding, precision)
            ):
                owners.setdefault(trail, (layer, []))[1].append(len(roundings))
                roundings.append(rounding)
    for layer in model.layers:  # those that round the inputs
        if isinstance(layer, Rounding):
            owners[layer.name] = (layer, [len(roundings)])
            roundings.append(layer)
    others = [
        layer
        for layer in graph.find(model, Rounding)
        if not any(layer is known for known in roundings)
    ]
    for rounding in others:
        rounding.switch = tf.constant(False)

    @tf.function
    def outputs(switches):
        for rounding, switch in zip(roundings, tf.unstack(switches)):
            rounding.switch = switch
        return model(pictures, training=False)

    def logits(chosen):
        switches = np.zeros(len(roundings), bool)
        switches[chosen] = True
        found = outputs(tf.constant(switches))
        return _logits(keras.tree.flatten(found)[0].numpy())

    def noise_without(chosen):
        rest = [i for i in everything if i not in chosen]
        return signal_to_noise(exact, logits(rest))

    everything = list(range(len(roundings)))
    activations = [
        i
        for i, rounding in enumerate(roundings)
        if isinstance(rounding, RoundedActivation)
    ]
    exact = logits([])
    if not np.isfinite(exact).all():
        raise ValueError(
            "`model` must give finite numbers. Received: NaN or infinity on "
            "the pictures of `data`"
        )
    total = signal_to_noise(exact, logits(everything))
    seen = _observe(model, owners, pictures)
    rows = []
    for trail, (layer, own) in tqdm(
        owners.items(), "sensitivity", leave=False, disable=not progress
    ):
        # Beside 8 bits, the rounding of activations to 16 bits is none.
        coarse = [i for i in own if i in activations]
        rows.append(
            LayerSensitivity(
                trail,
                type(layer).__name__,
                round(signal_to_noise(exact, logits(own)), 2),
                *(round(noise_without(i) - total, 2) for i in (own, coarse)),
                *seen.get(trail, (0.0, 1.0)),
            )
        )
    rows.sort(key=lambda row: row.alone)
    return Sensitivity(precision, round(total, 2), tuple(rows))


def _is_int8(layer, rounding, precision):
    is_float = isinstance(layer, FLOAT_IN_MIXED) and precision == "int8_mixed"
    return not (is_float and isinstance(rounding, RoundedActivation))


def _last_steps(model, pictures):
    """Returns what rounds the probabilities that a model gives, if it does."""
    given = {}

    def record(rounding, inputs, outputs):
        given[rounding] = outputs

    hooks = [
        rounding
        for rounding in graph.find(model, RoundedActivation)
        if rounding.bounds == PROBABILITIES
    ]
    with graph.watching(hooks, record):
        outputs = model(pictures, training=False)
    outputs = keras.tree.flatten(outputs)[0].numpy()
    for rounding, values in given.items():
        if np.array_equal(values, outputs):
            return rounding
    return None


def _logits(values):
    if values.min() >= 0 and np.allclose(values.sum(-1), 1, atol=0.1):
        # Below half a step of an int8 softmax the logarithm means nothing.
        values = np.log(np.maximum(values, 1 / 512))
    return values - values.mean(-1, keepdims=True)


def _observe(model, owners, pictures):
    """Returns `{trail: (share saturated, imbalance of the channels)}`."""
    watched, found = {}, {}
    for trail, (layer, _) in owners.items():
        hooks = [layer] if isinstance(layer, Rounding) else vars(layer).values()
        for hook in hooks:
            if isinstance(hook, RoundedActivation):
                watched[id(hook)] = trail

    def record(hook, inputs, outputs):
        if isinstance(inputs, (list, tuple)) or np.ndim(inputs) == 0:
            return
        low, high = hook.range()
        step = (high - low) / 255
        beyond = (inputs < low - step) | (inputs > high + step)
        sizes = np.abs(inputs).max(tuple(range(inputs.ndim - 1)))
        ratio = float(sizes.max() / max(np.median(sizes), 1e-12))
        share, worst = found.get(watched[id(hook)], (0.0, 1.0))
        found[watched[id(hook)]] = (
            max(share, round(float(beyond.mean()), 6)),
            max(worst, round(min(ratio, 1e6), 2)),
        )

    hooks = [
        h for h in graph.find(model, RoundedActivation) if id(h) in watched
    ]
    for rounding in graph.find(model, Rounding):
        rounding.switch = None
    with graph.watching(hooks, record):
        model(pictures, training=False)
    return found
