"""Exact equalisation: one int8 scale then suits every channel of a tensor.

An int8 file has one scale for a whole activation tensor. In a trained
MobileViT the channels between an expanding convolution, its SiLU and the
depthwise convolution differ by orders of magnitude, so the small ones vanish
in the rounding. A factor `s` for each channel mends that: the layer before is
multiplied by `s`, the gate of the SiLU undoes it (`x * sigmoid(x / s)` is
`s * SiLU(x / s)`), the layer behind is divided by `s`. The function of the
network stays what it was.
"""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_mobilevit import reports
from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import InvertedResidual
from keras_mobilevit.layers import LayerNorm
from keras_mobilevit.layers import MobileViTBlock
from keras_mobilevit.layers import MultiHeadSelfAttention
from keras_mobilevit.layers import TransformerBlock
from keras_mobilevit.layers.base import GATE_RANGE
from keras_mobilevit.layers.base import PROBABILITIES
from keras_mobilevit.quantization import graph
from keras_mobilevit.quantization.rounding import round_activations
from keras_mobilevit.quantization.rounding import round_kernel
from keras_mobilevit.quantization.rounding import signal_to_noise

MAX_FACTOR = 1000.0
BATCH = 16
#: Rows of each tensor that the errors are measured on.
ROWS = 2048
#: How far to go towards full equalisation.
STRENGTHS = (0.5, 1.0)
#: How symmetric a gate's tensors may become.
BALANCES = (0.0, 0.1, 0.3, 1.0)


@dataclasses.dataclass(frozen=True)
class Site:
    """What was done at one place.

    Attributes:
        layer: path of the layer.
        kind: `"gate"`, `"feed-forward"`, `"query-key"`, `"value-project"` or
            `"norm"`.
        strength: 0 (left as it is) to 1 (fully equalised).
        median_factor: of the channels' factors, in size.
        max_factor: likewise.
        before: dB, signal to rounding noise behind the place, as it was.
        after: dB, as it is now.
        added_ops: operations more (or, negative, fewer) in a file.
    """

    layer: str
    kind: str
    strength: float
    median_factor: float
    max_factor: float
    before: float
    after: float
    added_ops: int


@dataclasses.dataclass(frozen=True)
class Equalization(reports.Report):
    """What `equalize` did, one row a place."""

    sites: tuple[Site, ...]

    @property
    def added_ops(self) -> int:
        """Operations more in a file."""
        return sum(site.added_ops for site in self.sites)

    def __str__(self) -> str:
        return reports.table(
            ("layer", "kind", "strength", "factor", "max", "dB", "now", "ops"),
            [
                (
                    site.layer,
                    site.kind,
                    site.strength,
                    f"{site.median_factor:.1f}",
                    f"{site.max_factor:.1f}",
                    f"{site.before:.1f}",
                    f"{site.after:.1f}",
                    f"{site.added_ops:+d}",
                )
                for site in self.sites
            ],
        )


def equalize(
    model: keras.Model, pictures: np.ndarray
) -> tuple[keras.Model, Equalization]:
    """Evens out the ranges of channels without changing the function.

    Each where the rounding error that it leaves on the pictures is smaller:
    factors through the gate of an inverted residual's first SiLU and of a
    feed-forward part's SiLU; factors between query and key, and between value
    and the projection behind it; the affine part of a norm absorbed by the
    layers that read it.

    Args:
        model: a functional or sequential model with layers of this package,
            at any depth. It is not changed.
        pictures: array `(n, height, width, channels)` as the model takes
            them; some hundred are enough.

    Returns:
        The equalised model, whose float outputs are the same but for
        rounding, and a report.

    Raises:
        ValueError: the model cannot be rebuilt from its config, or a layer
            computes NaN or infinity on the pictures; it is named.
    """
    holders = ("InvertedResidual", "TransformerBlock", "MobileViTBlock")

    def flag(config):
        for node in graph.own_layers(config):
            if node["class_name"] in holders:
                node["config"]["equalized"] = True

    model = graph.copy_with(model, flag)
    seen = _observe(model, pictures)
    sites = []
    for block in graph.find(model, InvertedResidual):
        if block.equalized:
            sites.append(_gate(block, seen))
    for block in graph.find(model, TransformerBlock):
        if block.equalized:
            sites.append(_feed_forward(block, seen))
        readers = [getattr(block.attention, n) for n in _READERS]
        sites.append(_absorb_norm(block.norm1, readers, seen))
        sites.append(_absorb_norm(block.norm2, [block.ffn_expand], seen))
    for layer in graph.find(model, MultiHeadSelfAttention):
        sites.append(_query_key(layer, seen))
        sites.append(_value_project(layer, seen))
    for block in graph.find(model, MobileViTBlock):
        sites.append(_absorb_norm(block.norm, [block.project], seen))
    return model, Equalization(tuple(sites))


_READERS = ("query", "key", "value")


class _Seen:
    """The values of one tensor: the range of each channel, and some rows."""

    def __init__(self):
        self.low = self.high = None
        self.kept = []

    def add(self, values: np.ndarray, batches: int, rng: Any) -> None:
        rows = values.reshape(-1, values.shape[-1])
        low, high = rows.min(0), rows.max(0)
        if self.low is not None:
            low, high = np.minimum(low, self.low), np.maximum(high, self.high)
        self.low, self.high = low, high
        wanted = max(1, ROWS // batches)
        self.kept.append(rows[rng.integers(0, len(rows), wanted)])

    @property
    def rows(self) -> np.ndarray:
        return np.concatenate(self.kept)

    @property
    def size(self) -> np.ndarray:
        """The largest absolute value of each channel, never quite zero."""
        return np.maximum(np.maximum(-self.low, self.high), 1e-12)


def _observe(model, pictures):
    """Runs the model and keeps what it sees.

    Returns:
        `{(id(layer), "inputs" or "outputs"): _Seen}`.
    """
    layers = graph.find(model, LayerNorm)
    for block in graph.find(model, InvertedResidual):
        layers.append(block.expand.act)
    for block in graph.find(model, TransformerBlock):
        layers.append(block.ffn_expand.act)
    for layer in graph.find(model, MultiHeadSelfAttention):
        layers.extend(getattr(layer, n) for n in (*_READERS, "project"))
    seen = {}
    rng = np.random.default_rng(0)
    batches = -(-len(pictures) // BATCH)
    faults = []

    def record(layer, inputs, outputs):
        if not np.isfinite(outputs).all():
            faults.append(layer.path)
        for name, values in (("inputs", inputs), ("outputs", outputs)):
            key = (id(layer), name)
            seen.setdefault(key, _Seen()).add(values, batches, rng)

    with graph.watching(layers, record):
        for start in range(0, len(pictures), BATCH):
            model(pictures[start : start + BATCH], training=False)
            if faults:
                raise ValueError(
                    "The model computes NaN or infinity on the calibration "
                    f"pictures, first seen in the layer {faults[0]!r}. Check "
                    "its weights and the pictures."
                )
    return seen


def _factors(
    tensors: list[_Seen], mirror: bool, balance: float = 0.0
) -> np.ndarray:
    """Returns the largest factors that keep every channel in the range.

    Args:
        tensors: all that the factors multiply.
        mirror: whether a factor may be negative, where that gives more room.
        balance: the share of a tensor's wider side that its narrower side is
            taken to have at least. A SiLU's output reaches far up and hardly
            below zero: at 0 the range stays as it is, and a channel that
            reaches its lowest value has no room; at 1 the range becomes
            symmetric and every channel can fill it.
    """
    tiny = 1e-12
    upright = np.full(tensors[0].low.shape, MAX_FACTOR)
    mirrored = upright.copy()
    for tensor in tensors:
        below = np.maximum(-tensor.low, tiny)
        above = np.maximum(tensor.high, tiny)
        widest = balance * max(below.max(), above.max())
        room_below = max(below.max(), widest)
        room_above = max(above.max(), widest)
        upright = np.minimum(upright, room_below / below)
        upright = np.minimum(upright, room_above / above)
        mirrored = np.minimum(mirrored, room_below / above)
        mirrored = np.minimum(mirrored, room_above / below)
    upright = np.maximum(upright, 1.0)
    if not mirror:
        return upright
    return np.where(mirrored > upright, -mirrored, upright)


def _rounded_silu(x, factors):
    """The int8 value of `factors * SiLU(x)`, gate included."""
    scaled = gate = round_activations(x * factors)
    if not np.all(factors == 1.0):
        gate = round_activations(np.clip(scaled / factors, *GATE_RANGE))
    gate = round_activations(_sigmoid(gate), PROBABILITIES)
    return round_activations(scaled * gate)


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0)))


def _gate(block, seen):
    """Expanding convolution, SiLU, depthwise convolution."""
    act = block.expand.act
    tensors = [seen[id(act), "inputs"], seen[id(act), "outputs"]]
    x = tensors[0].rows
    exact = x * _sigmoid(x)
    # Each channel counts by itself: the depthwise kernel and the norm behind
    # it bring the small ones to the size of the others.
    size = np.sqrt(np.square(exact).mean(0)) + 1e-12

    def noise(factors):
        rounded = _rounded_silu(x, factors) / factors
        return signal_to_noise(exact / size, rounded / size)

    ones = np.ones(x.shape[-1])
    trials = [_factors(tensors, True, balance) for balance in BALANCES]
    factors = max(trials, key=noise)
    before, after = noise(ones), noise(factors)
    if after <= before:
        return _site(act, "gate", 0.0, ones, before, before)
    _scale_outputs(block.expand, factors)
    act.gate_scale.assign(1.0 / factors)
    _scale_inputs(block.depthwise, 1.0 / factors)
    return _site(act, "gate", 1.0, factors, before, after, added_ops=1)


def _feed_forward(block, seen):
    """Dense, SiLU, dense: the second sums over the channels."""
    act = block.ffn_expand.act
    tensors = [seen[id(act), "inputs"], seen[id(act), "outputs"]]
    x = tensors[0].rows
    kernel = _numpy(block.ffn_project.kernel)[0, 0]
    exact = (x * _sigmoid(x)) @ kernel

    def noise(factors):
        weights = round_kernel(kernel / factors[:, np.newaxis])
        return signal_to_noise(exact, _rounded_silu(x, factors) @ weights)

    strength, factors, before, after = _best(
        [_factors(tensors, False, balance) for balance in BALANCES], noise
    )
    if strength:
        _scale_outputs(block.ffn_expand, factors)
        act.gate_scale.assign(1.0 / factors)
        _scale_inputs(block.ffn_project, 1.0 / factors)
    return _site(
        act,
        "feed-forward",
        strength,
        factors,
        before,
        after,
        added_ops=int(strength > 0),
    )


def _query_key(layer, seen):
    """Scores are products of query and key: a factor cancels."""
    query, key = (
        seen[id(layer.query), "outputs"],
        seen[id(layer.key), "outputs"],
    )
    a, b = (
        tensor.rows.reshape(-1, layer.heads, layer.key_dim)[:512]
        for tensor in (query, key)
    )
    a, b = a.transpose(1, 0, 2), b.transpose(1, 2, 0)
    exact = a @ b

    def noise(factors):
        factors = factors.reshape(layer.heads, 1, layer.key_dim)
        scores = round_activations(a * factors) @ round_activations(
            b / factors.transpose(0, 2, 1)
        )
        return signal_to_noise(exact, scores)

    strength, factors, before, after = _best(
        [np.sqrt(key.size / query.size)], noise
    )
    _scale_outputs(layer.query, factors)
    _scale_outputs(layer.key, 1.0 / factors)
    return _site(layer, "query-key", strength, factors, before, after)


def _value_project(layer, seen):
    """Attention averages values, so a channel's factor passes through it."""
    value = seen[id(layer.value), "outputs"]
    x = seen[id(layer.project), "inputs"].rows
    kernel = _numpy(layer.project.kernel)[0, 0]
    exact = x @ kernel

    def noise(factors):
        weights = round_kernel(kernel / factors[:, np.newaxis])
        return signal_to_noise(exact, round_activations(x * factors) @ weights)

    strength, factors, before, after = _best(
        [value.size.max() / value.size], noise
    )
    _scale_outputs(layer.value, factors)
    _scale_inputs(layer.project, 1.0 / factors)
    return _site(layer, "value-project", strength, factors, before, after)


def _absorb_norm(norm, readers, seen):
    """Moves a norm's factors and offsets into the layers that read it."""
    gamma, beta = _numpy(norm.gamma), _numpy(norm.beta)
    y = seen[id(norm), "outputs"].rows
    # A channel whose factor is zero carries its offset and nothing else.
    x = np.where(gamma, (y - beta) / np.where(gamma, gamma, 1.0), 0.0)
    kernel = np.concatenate([_numpy(r.kernel)[0, 0] for r in readers], -1)
    exact, offset = y @ kernel, beta @ kernel
    moved_kernel = gamma[:, np.newaxis] * kernel
    before = signal_to_noise(exact, round_activations(y) @ round_kernel(kernel))
    after = signal_to_noise(
        exact, round_activations(x) @ round_kernel(moved_kernel) + offset
    )
    if after < before:
        return _site(norm, "norm", 0.0, np.ones(1), before, before)
    for reader in readers:
        shift = beta @ _numpy(reader.kernel)[0, 0]
        _scale_inputs(reader, gamma)
        if reader.bias is not None:
            reader.bias.assign(_numpy(reader.bias) + shift)
        else:  # what is added before a batch norm moves its mean
            mean = reader.norm.moving_mean
            mean.assign(_numpy(mean) - shift)
    norm.gamma.assign(np.ones_like(gamma))
    norm.beta.assign(np.zeros_like(beta))
    return _site(norm, "norm", 1.0, gamma, before, after, added_ops=-2)


def _best(candidates, noise):
    """Tries how far to go: `(strength, factors, dB before, dB after)`."""
    before = after = noise(np.ones_like(candidates[0]))
    best, strength = np.ones_like(candidates[0]), 0.0
    for full in candidates:
        full = np.clip(full, 1.0 / MAX_FACTOR, MAX_FACTOR)
        for trial in STRENGTHS:
            result = noise(full**trial)
            if result > after:
                best, strength, after = full**trial, trial, result
    return strength, best, before, after


def _site(layer, kind, strength, factors, before, after, added_ops=0):
    size = np.abs(factors)
    return Site(
        layer.path,
        kind,
        strength,
        round(float(np.median(size)), 2),
        round(float(size.max()), 2),
        round(before, 1),
        round(after, 1),
        added_ops,
    )


def _scale_outputs(conv: ConvNormAct, factors: np.ndarray) -> None:
    """Multiplies the output channels of a convolution with its norm."""
    last = (conv.kernel, conv.bias)
    if conv.norm is not None:
        last = (conv.norm.gamma, conv.norm.beta)
    for variable in last:
        if variable is not None:
            variable.assign(_numpy(variable) * factors)


def _scale_inputs(conv: keras.layers.Layer, factors: np.ndarray) -> None:
    """Multiplies the input channels of a kernel."""
    conv.kernel.assign(_numpy(conv.kernel) * factors[:, np.newaxis])


def _numpy(variable):
    return variable.numpy()
