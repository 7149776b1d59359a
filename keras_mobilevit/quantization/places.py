"""The places where channels can be evened out exactly, and how."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import InvertedResidual
from keras_mobilevit.layers import LayerNorm
from keras_mobilevit.layers import LinearSelfAttention
from keras_mobilevit.layers import LinearTransformerBlock
from keras_mobilevit.layers import MultiHeadSelfAttention
from keras_mobilevit.layers import TransformerBlock
from keras_mobilevit.layers.base import GATE_RANGE
from keras_mobilevit.layers.base import PROBABILITIES
from keras_mobilevit.layers.conv import live_inputs
from keras_mobilevit.quantization.rounding import round_activations
from keras_mobilevit.quantization.rounding import round_kernel
from keras_mobilevit.quantization.rounding import signal_to_noise

MAX_FACTOR = 1000.0
#: Rows of each tensor that the errors are measured on.
ROWS = 2048
#: dB that a place must win if it adds an operation to the file.
LEAST_GAIN = 3.0
#: How far to go towards full equalisation.
STRENGTHS = (0.5, 1.0)
#: How symmetric a gate's tensors may become.
BALANCES = (0.0, 0.1, 0.3, 1.0)


@dataclasses.dataclass(frozen=True)
class Site:
    """What was done at one place.

    Attributes:
        layer: path of the layer.
        kind: `"gate"`, `"feed-forward"`, `"query-key"`, `"key-project"`,
            `"value-project"` or `"norm"`.
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


class Seen:
    """The values of one tensor: the range of each channel, and some rows."""

    def __init__(self):
        self.low = self.high = None
        self.kept = []

    def add(self, values: np.ndarray, batches: int, rng: Any) -> None:
        """Takes in one batch, channels last, of `batches` in all."""
        rows = values.reshape(-1, values.shape[-1])
        low, high = rows.min(0), rows.max(0)
        if self.low is not None:
            low, high = np.minimum(low, self.low), np.maximum(high, self.high)
        self.low, self.high = low, high
        wanted = max(1, ROWS // batches)
        self.kept.append(rows[rng.integers(0, len(rows), wanted)])

    def live(self, gate_scale: np.ndarray) -> "Seen":
        """Returns what an int8 gate lets through, see `live_inputs`."""
        seen = Seen()
        seen.low, seen.high, *seen.kept = (
            live_inputs(values, gate_scale, np)
            for values in (self.low, self.high, *self.kept)
        )
        return seen

    @property
    def rows(self) -> np.ndarray:
        """Some rows of the tensor, `(rows, channels)`."""
        return np.concatenate(self.kept)

    @property
    def size(self) -> np.ndarray:
        """The largest absolute value of each channel, never quite zero."""
        return np.maximum(np.maximum(-self.low, self.high), 1e-12)


def _factors(
    tensors: Sequence[Seen], mirror: bool, balance: float = 0.0
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


def _rounded_silu(tensors, scale, factors):
    """The int8 value of `factors * x * sigmoid(scale * x)`."""
    bounds = [_bounds(tensor, factors) for tensor in tensors]
    scaled = gate = round_activations(tensors[0].rows * factors, bounds[0])
    if not np.all(scale / factors == 1.0):
        gate = round_activations(scaled * scale / factors, GATE_RANGE)
    gate = round_activations(_sigmoid(gate), PROBABILITIES)
    return round_activations(scaled * gate, bounds[1])


def _bounds(tensor, factors):
    """The range of a tensor whose channels are multiplied by factors."""
    ends = np.stack([tensor.low * factors, tensor.high * factors])
    return ends.min(), ends.max()


def _silu(act, seen):
    """Returns a SiLU's live inputs and outputs, its scale, its exact rows."""
    x, scale = seen[id(act), "inputs"], to_numpy(act.gate_scale)
    exact = x.rows * _sigmoid(scale * x.rows)
    return (x.live(scale), seen[id(act), "outputs"]), scale, exact


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0)))


def gate(block: InvertedResidual, seen: dict) -> Site:
    """Expanding convolution, SiLU, depthwise convolution."""
    act = block.expand.act
    tensors, scale, exact = _silu(act, seen)
    # Each channel counts by itself: the depthwise kernel and the norm behind
    # it bring the small ones to the size of the others.
    size = np.sqrt(np.square(exact).mean(0)) + 1e-12

    def noise(factors):
        rounded = _rounded_silu(tensors, scale, factors) / factors
        return signal_to_noise(exact / size, rounded / size)

    ones = np.ones(exact.shape[-1])
    trials = [_factors(tensors, True, balance) for balance in BALANCES]
    factors = max(trials, key=noise)
    before, after = noise(ones), noise(factors)
    if after < before + LEAST_GAIN:
        return make_site(act, "gate", 0.0, ones, before, before)
    scale_outputs(block.expand, factors)
    act.gate_scale.assign(scale / factors)
    scale_inputs(block.depthwise, 1.0 / factors)
    return make_site(act, "gate", 1.0, factors, before, after, added_ops=1)


def feed_forward(
    blocks: list[TransformerBlock | LinearTransformerBlock], seen: dict
) -> list[Site]:
    """Dense, SiLU, dense: the second sums over the channels.

    All blocks of a stage or none, so that it can be built without.
    """
    found = [_best_feed_forward(block, seen) for block in blocks]
    gains = [after - before for _, _, before, after in found]
    wanted = np.mean(gains) >= LEAST_GAIN
    sites = []
    for block, (strength, factors, before, after) in zip(blocks, found):
        act = block.ffn_expand.act
        if wanted:
            scale_outputs(block.ffn_expand, factors)
            act.gate_scale.assign(to_numpy(act.gate_scale) / factors)
            scale_inputs(block.ffn_project, 1.0 / factors)
        else:
            strength, factors, after = 0.0, np.ones_like(factors), before
        result = (strength, factors, before, after, int(wanted))
        sites.append(make_site(act, "feed-forward", *result))
    return sites


def _best_feed_forward(block, seen):
    tensors, scale, outputs = _silu(block.ffn_expand.act, seen)
    kernel = to_numpy(block.ffn_project.kernel)[0, 0]
    exact = outputs @ kernel

    def noise(factors):
        weights = round_kernel(kernel / factors[:, np.newaxis])
        rounded = _rounded_silu(tensors, scale, factors)
        return signal_to_noise(exact, rounded @ weights)

    return _best(
        [_factors(tensors, False, balance) for balance in BALANCES], noise
    )


def query_key(layer: MultiHeadSelfAttention, seen: dict) -> Site:
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
    scale_outputs(layer.query, factors)
    scale_outputs(layer.key, 1.0 / factors)
    return make_site(layer, "query-key", strength, factors, before, after)


def value_project(layer: MultiHeadSelfAttention, seen: dict) -> Site:
    """Attention averages values, so a channel's factor passes through it."""
    value = seen[id(layer.value), "outputs"]
    x = seen[id(layer.project), "inputs"].rows
    kernel = to_numpy(layer.project.kernel)[0, 0]
    exact = x @ kernel

    def noise(factors):
        weights = round_kernel(kernel / factors[:, np.newaxis])
        return signal_to_noise(exact, round_activations(x * factors) @ weights)

    strength, factors, before, after = _best(
        [value.size.max() / value.size], noise
    )
    scale_outputs(layer.value, factors)
    scale_inputs(layer.project, 1.0 / factors)
    return make_site(layer, "value-project", strength, factors, before, after)


def key_value_project(layer: LinearSelfAttention, seen: dict) -> list[Site]:
    """Linear attention is linear in its keys and in positive values.

    `relu(value) * key` keeps a factor of each that is positive, so the
    projection can undo both. Rows of the two are paired as they come.
    """
    value, key = (
        seen[id(part), "outputs"] for part in (layer.value, layer.key)
    )
    rows = min(len(value.rows), len(key.rows))
    values, keys = value.rows[:rows], key.rows[:rows]
    kernel = to_numpy(layer.project.kernel)[0, 0]
    exact = (values * keys) @ kernel

    def noise(pair):
        rounded = [
            round_activations(x * factors, _bounds(tensor, factors))
            for x, tensor, factors in zip((values, keys), (value, key), pair)
        ]
        weights = round_kernel(kernel / (pair[0] * pair[1])[:, np.newaxis])
        return signal_to_noise(
            exact, round_activations(rounded[0] * rounded[1]) @ weights
        )

    ones = np.ones(kernel.shape[0])
    before = after = noise((ones, ones))
    strengths, best = (0.0, 0.0), (ones, ones)
    fullest = [
        np.minimum(tensor.size.max() / tensor.size, MAX_FACTOR)
        for tensor in (value, key)
    ]
    for trial in itertools.product((0.0, *STRENGTHS), repeat=2):
        pair = [full**power for full, power in zip(fullest, trial)]
        result = noise(pair)
        if result > after:
            strengths, best, after = trial, pair, result
    scale_outputs(layer.value, best[0])
    scale_outputs(layer.key, best[1])
    scale_inputs(layer.project, 1.0 / (best[0] * best[1]))
    kinds = ("value-project", "key-project")
    return [
        make_site(layer, kind, strength, factors, before, after)
        for kind, strength, factors in zip(kinds, strengths, best)
    ]


def norm_noise(
    norm: LayerNorm, readers: list[ConvNormAct], seen: dict
) -> tuple[float, float]:
    """The dB of what the readers compute: with the affine part, and without.

    A file rounds three times with it (normalized, scaled, shifted), else once.
    """
    gamma, beta = to_numpy(norm.gamma), to_numpy(norm.beta)
    y = seen[id(norm), "outputs"].rows
    # A channel whose factor is zero carries its offset and nothing else.
    x = np.where(gamma, (y - beta) / np.where(gamma, gamma, 1.0), 0.0)
    kernel = np.concatenate([to_numpy(r.kernel)[0, 0] for r in readers], -1)
    exact, rounded = y @ kernel, round_activations(x)
    kept = round_activations(round_activations(rounded * gamma) + beta)
    moved = round_kernel(gamma[:, np.newaxis] * kernel)
    return (
        signal_to_noise(exact, kept @ round_kernel(kernel)),
        signal_to_noise(exact, rounded @ moved + beta @ kernel),
    )


def absorb(norm: LayerNorm, readers: list[ConvNormAct]) -> None:
    """Moves a norm's factors and offsets into the layers that read it."""
    gamma, beta = to_numpy(norm.gamma), to_numpy(norm.beta)
    for reader in readers:
        shift = beta @ to_numpy(reader.kernel)[0, 0]
        scale_inputs(reader, gamma)
        if reader.bias is not None:
            reader.bias.assign(to_numpy(reader.bias) + shift)
        else:  # what is added before a batch norm moves its mean
            mean = reader.norm.moving_mean
            mean.assign(to_numpy(mean) - shift)
    norm.gamma.assign(np.ones_like(gamma))
    norm.beta.assign(np.zeros_like(beta))


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


def make_site(
    layer: keras.layers.Layer,
    kind: str,
    strength: float,
    factors: np.ndarray,
    before: float,
    after: float,
    added_ops: int = 0,
) -> Site:
    """Returns the row of a report about one place."""
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


def scale_outputs(conv: ConvNormAct, factors: np.ndarray) -> None:
    """Multiplies the output channels of a convolution with its norm."""
    last = (conv.kernel, conv.bias)
    if conv.norm is not None:
        last = (conv.norm.gamma, conv.norm.beta)
    for variable in last:
        if variable is not None:
            variable.assign(to_numpy(variable) * factors)


def scale_inputs(conv: keras.layers.Layer, factors: np.ndarray) -> None:
    """Multiplies the input channels of a kernel."""
    conv.kernel.assign(to_numpy(conv.kernel) * factors[:, np.newaxis])


def to_numpy(variable: keras.Variable) -> np.ndarray:
    """Returns the values of a variable."""
    return variable.numpy()
