"""A case of every public layer, and what the tests of layers share."""

import keras
import numpy as np
import pytest

from keras_mobilevit import layers

# name | arguments, none of them a default | input without its batch axis
CASES = {
    "ConvNormAct": (
        dict(
            filters=6,
            kernel_size=5,
            strides=2,
            use_norm=False,
            use_bias=True,
            activation=None,
            kernel_initializer="glorot_uniform",
        ),
        (9, 12, 4),
    ),
    "DepthwiseConvNormAct": (
        dict(
            kernel_size=5,
            dilation_rate=2,
            use_norm=False,
            use_bias=True,
            activation=None,
            kernel_initializer="glorot_uniform",
        ),
        (9, 12, 4),
    ),
    "GroupNorm": (dict(epsilon=1e-3), (5, 7, 8)),
    "InvertedResidual": (dict(filters=4, expansion=2), (9, 12, 4)),
    "LayerNorm": (dict(epsilon=1e-3), (5, 7, 8)),
    "LinearSelfAttention": (dict(dropout=0.1), (4, 6, 8)),
    "LinearTransformerBlock": (
        dict(ffn_dim=12, dropout=0.2, attention_dropout=0.1),
        (4, 6, 8),
    ),
    "MobileViTBlock": (
        dict(
            transformer_dim=8,
            depth=2,
            ffn_dim=12,
            heads=2,
            patch_size=3,
            dropout=0.2,
            attention_dropout=0.1,
            ffn_dropout=0.3,
        ),
        (7, 12, 4),
    ),
    "MobileViTV2Block": (
        dict(
            transformer_dim=8,
            depth=2,
            ffn_dim=12,
            patch_size=3,
            dilation_rate=2,
            dropout=0.2,
            attention_dropout=0.1,
        ),
        (7, 12, 4),
    ),
    "MultiHeadSelfAttention": (dict(heads=2, dropout=0.1), (4, 6, 8)),
    "SiLU": (dict(), (5, 7, 8)),
    "TransformerBlock": (
        dict(
            ffn_dim=12,
            heads=2,
            dropout=0.2,
            attention_dropout=0.1,
            ffn_dropout=0.3,
        ),
        (4, 6, 8),
    ),
}
each_layer = pytest.mark.parametrize("name", CASES)


def make(case, /, **extra):
    arguments, _ = CASES[case]
    return getattr(layers, case)(**arguments, **extra)


def batch(name, size=2):
    generator = np.random.default_rng(0)
    return generator.normal(size=(size, *CASES[name][1])).astype("float32")


def flatten(layer):
    return [
        child
        for child in layer._flatten_layers()
        if isinstance(child, keras.layers.Layer)
    ]
