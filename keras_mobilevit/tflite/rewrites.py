"""Exact rewrites of a model for a file: the same function, less to compute."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import LayerNorm
from keras_mobilevit.layers import MobileViTBlock
from keras_mobilevit.quantization import graph
from keras_mobilevit.quantization import places
from keras_mobilevit.quantization.equalize import norm_holders
from keras_mobilevit.quantization.equalize import norms_and_readers


def simplify(
    model: keras.Model,
    absorb_norms: bool = True,
    fold_rescaling: bool = True,
) -> keras.Model:
    """Returns a copy of a model that computes the same with fewer operations.

    - The mean of what a layer normalization of a MobileViT block reads
      becomes zero, so that none need be subtracted: see `_center`.
    - The factors and offsets of norms move into the layers that read them.
    - A scaling of the pixels moves into the convolution that reads them,
      which pads with zeros, so that borders stay what they are.

    Weights of the copy are changed and its layers told what they may skip. A
    copy made from its config computes the same again, without the skipping.

    Args:
        model: a functional or sequential model; it is not changed.
        absorb_norms: whether factors and offsets of norms move.
        fold_rescaling: whether the scaling of pixels moves.

    Raises:
        ValueError: the model cannot be rebuilt from its config.
    """
    model = graph.copy_with(model, lambda config: None)
    for block in graph.find(model, MobileViTBlock):
        _center(block)
    if absorb_norms:
        for _, holder in norm_holders(model):
            for norm, readers in norms_and_readers(holder):
                places.absorb(norm, readers)
                norm.affine = False
    if fold_rescaling:
        for rescaling, conv in _scaled_convolutions(model):
            places.scale_inputs(conv, np.full(3, rescaling.scale))
            rescaling.scale = 1.0
    return model


def _center(block: MobileViTBlock) -> None:
    """Makes the mean over the channels of the residual stream zero.

    `norm(x)` is the same for `x` and `x - mean(x)`. All that is added up in
    the stream comes from layers without an activation; with the mean over
    the outputs taken from their kernels and biases, so is it from the sum.
    Moving or interpolating pixels keeps a mean of zero.
    """
    for part in block.transformer:
        _center_outputs(part.attention.project)
        _center_outputs(part.ffn_project)
    _center_outputs(block.local_project)
    for norm in graph.find(block, LayerNorm):
        norm.subtract_mean = False


def _center_outputs(conv: ConvNormAct) -> None:
    for variable in (conv.kernel, conv.bias):
        if variable is not None:
            values = places.to_numpy(variable)
            variable.assign(values - values.mean(axis=-1, keepdims=True))


def _scaled_convolutions(
    model: keras.Model,
) -> list[tuple[keras.layers.Rescaling, ConvNormAct]]:
    """Returns each plain scaling whose one reader is a convolution of ours."""
    found = []
    for _, inner in graph.walk(model):
        if not isinstance(inner, keras.Model):
            continue
        config = inner.get_config()
        if "output_layers" not in config:
            continue
        for layer in inner.layers:
            if not isinstance(layer, keras.layers.Rescaling):
                continue
            readers = [
                node["name"]
                for node in config["layers"]
                if layer.name in _sources(node["inbound_nodes"])
            ]
            is_output = layer.name in str(config["output_layers"])
            is_plain = np.ndim(layer.scale) == 0 and layer.offset == 0
            if len(readers) != 1 or is_output or not is_plain:
                continue
            reader = inner.get_layer(readers[0])
            if isinstance(reader, ConvNormAct):
                found.append((layer, reader))
    return found


def _sources(nodes: Any) -> Iterator[str]:
    """Yields the layers that serialised calls take their tensors from."""
    if isinstance(nodes, dict):
        if "keras_history" in nodes:
            yield nodes["keras_history"][0]
        nodes = nodes.values()
    elif not isinstance(nodes, (list, tuple)):
        return
    for value in nodes:
        yield from _sources(value)
