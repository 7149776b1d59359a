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
from keras import ops

from keras_mobilevit import reports
from keras_mobilevit.layers import InvertedResidual
from keras_mobilevit.layers import LayerNorm
from keras_mobilevit.layers import LinearSelfAttention
from keras_mobilevit.layers import LinearTransformerBlock
from keras_mobilevit.layers import MobileViTBlock
from keras_mobilevit.layers import MobileViTV2Block
from keras_mobilevit.layers import MultiHeadSelfAttention
from keras_mobilevit.layers import TransformerBlock
from keras_mobilevit.quantization import calibration
from keras_mobilevit.quantization import graph
from keras_mobilevit.quantization import places
from keras_mobilevit.quantization.quantizers import is_quantized

BATCH = 16
# Blocks with the attribute `transformer`, and what stands in it.
_STAGES = (MobileViTBlock, MobileViTV2Block)
_BLOCKS = (TransformerBlock, LinearTransformerBlock)


@dataclasses.dataclass(frozen=True)
class Equalization(reports.Report):
    """What `equalize` did, one row a place."""

    sites: tuple[places.Site, ...]

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
    model: keras.Model, calibration_data: Any
) -> tuple[keras.Model, Equalization]:
    """Evens out the ranges of channels without changing the function.

    Each where the rounding error that it leaves on the pictures is smaller:
    factors through the gate of an inverted residual's first SiLU and of a
    feed-forward part's SiLU; factors between query and key, and between value
    (in linear attention also key) and the projection behind it; the affine
    part of a norm absorbed by the layers that read it.

    Args:
        model: a functional or sequential model with layers of this package,
            at any depth. It is not changed.
        calibration_data: some hundred typical pictures as the model takes
            them: an array `(n, height, width, channels)`, or a
            `tf.data.Dataset` or another iterable of batches, with or without
            labels.

    Returns:
        The equalised model, whose float outputs are the same but for
        rounding, and a report.

    Raises:
        ValueError: the model cannot be rebuilt from its config, the pictures
            are unusable, or a layer computes NaN or infinity on them; it is
            named.
    """
    graph.check_model(model)
    if is_quantized(model):
        raise ValueError(
            "`model` is quantized already, and was equalised before. "
            f"Received: {model.name!r}; `quantization.strip` undoes it"
        )
    holders = (InvertedResidual, *_STAGES, *_BLOCKS)
    names = {holder.__name__ for holder in holders}

    def flag(config):
        for node in graph.own_layers(config):
            if node["class_name"] in names:
                node["config"]["equalized"] = True

    model = graph.copy_with(model, flag)
    pictures = calibration.calibration_pictures(
        calibration_data, graph.picture_shape(model)
    )
    seen = _observe(model, pictures)
    sites = []
    for block in graph.find(model, InvertedResidual):
        if block.equalized:
            sites.append(places.gate(block, seen))
    for stage in _stages(model):
        sites.extend(places.feed_forward(stage, seen))
    for layer in graph.find(model, MultiHeadSelfAttention):
        sites.append(places.query_key(layer, seen))
        sites.append(places.value_project(layer, seen))
    for layer in graph.find(model, LinearSelfAttention):
        sites.extend(places.key_value_project(layer, seen))
    model, norms = _absorb_norms(model, seen)
    return _without_idle_gates(model), Equalization((*sites, *norms))


def _stages(model):
    """Returns the transformer blocks whose gates stay or go together."""
    stages = [
        block.transformer for block in _find(model, _STAGES) if block.equalized
    ]
    inner = {id(block) for stage in stages for block in stage}
    alone = [
        [block]
        for block in _find(model, _BLOCKS)
        if block.equalized and id(block) not in inner
    ]
    return stages + alone


def _without_idle_gates(model):
    """Builds the blocks whose gates all have the factor 1 without gates."""
    idle, trails = set(), set()
    for trail, layer in graph.walk(model):
        if not getattr(layer, "equalized", False):
            continue
        scales = [w for w in layer.weights if w.name == "gate_scale"]
        if all(np.all(scale.numpy() == 1.0) for scale in scales):
            idle.update(map(id, scales))
            trails.add(trail)

    def drop(config):
        for trail, node in graph.own_places(config):
            if trail in trails:
                node["config"]["equalized"] = False

    return graph.copy_with(
        model, drop, lambda place, variable: id(variable) in idle
    )


def _find(model, kinds):
    return [layer for kind in kinds for layer in graph.find(model, kind)]


_READERS = ("query", "key", "value")


def _observe(model, pictures):
    """Runs the model and keeps what it sees.

    Returns:
        `{(id(layer), "inputs" or "outputs"): Seen}`.
    """
    layers = graph.find(model, LayerNorm)
    for block in graph.find(model, InvertedResidual):
        layers.append(block.expand.act)
    for block in _find(model, _BLOCKS):
        layers.append(block.ffn_expand.act)
    for layer in _find(model, (MultiHeadSelfAttention, LinearSelfAttention)):
        layers.extend(getattr(layer, n) for n in (*_READERS, "project"))
    seen = {}
    rng = np.random.default_rng(0)
    batches = -(-len(pictures) // BATCH)
    all_finite = True

    def record(layer, inputs, outputs):
        nonlocal all_finite
        all_finite = all_finite and bool(np.isfinite(outputs).all())
        for name, values in (("inputs", inputs), ("outputs", outputs)):
            key = (id(layer), name)
            seen.setdefault(key, places.Seen()).add(values, batches, rng)

    for start in range(0, len(pictures), BATCH):
        batch = pictures[start : start + BATCH]
        with graph.watching(layers, record):
            outputs = keras.tree.flatten(model(batch, training=False))
        for values in outputs:
            all_finite = all_finite and bool(ops.all(ops.isfinite(values)))
        if not all_finite:
            graph.check_finite(model, batch)
    return seen


def _absorb_norms(model, seen):
    """Moves the factors and offsets of norms into the layers behind.

    All norms of a block or none, so that the block can be built without.
    """
    sites, absorbed, plain = [], set(), set()
    for trail, holder in norm_holders(model):
        pairs = norms_and_readers(holder)
        noises = [
            places.norm_noise(norm, readers, seen) for norm, readers in pairs
        ]
        wanted = sum(after - before for before, after in noises) >= 0
        for (norm, readers), (before, after) in zip(pairs, noises):
            factors = norm.gamma.numpy() if wanted else np.ones(1)
            if wanted:
                places.absorb(norm, readers)
                plain.update((id(norm.gamma), id(norm.beta)))
            after, ops = (after, -2) if wanted else (before, 0)
            sites.append(
                places.make_site(
                    norm, "norm", float(wanted), factors, before, after, ops
                )
            )
        if wanted:
            absorbed.add(trail)

    def drop(config):
        # By the way to it: blocks in two branches may share a name.
        for trail, node in graph.own_places(config):
            if trail in absorbed:
                node["config"]["affine_norms"] = False

    model = graph.copy_with(
        model, drop, lambda place, variable: id(variable) in plain
    )
    return model, sites


def norm_holders(
    model: keras.Model,
) -> list[tuple[str, keras.layers.Layer]]:
    """Returns the outermost blocks with affine norms, and their trails."""
    holders = []
    for trail, layer in graph.walk(model):
        if not isinstance(layer, (*_STAGES, *_BLOCKS)):
            continue
        is_inner = any(trail.startswith(f"{t}/") for t, _ in holders)
        if layer.affine_norms and not is_inner:
            holders.append((trail, layer))
    return holders


def norms_and_readers(
    holder: keras.layers.Layer,
) -> list[tuple[LayerNorm, list[keras.layers.Layer]]]:
    """Returns `(norm, the layers that read it)` of a block."""
    pairs, blocks = [], [holder]
    if isinstance(holder, _STAGES):
        pairs, blocks = [(holder.norm, [holder.project])], holder.transformer
    for block in blocks:
        readers = [getattr(block.attention, name) for name in _READERS]
        pairs.append((block.norm1, readers))
        pairs.append((block.norm2, [block.ffn_expand]))
    return pairs
