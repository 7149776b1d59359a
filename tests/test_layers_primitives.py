"""The primitives of the layers equal their definition."""

import keras
import numpy as np
import pytest
from keras import ops
from variables import scatter

from keras_mobilevit import layers
from keras_mobilevit.configs import make_divisible
from keras_mobilevit.layers.mobilevit_block import fold
from keras_mobilevit.layers.mobilevit_block import resize_bilinear
from keras_mobilevit.layers.mobilevit_block import unfold


@pytest.mark.parametrize("shape", ((2, 8), (2, 3, 8), (2, 4, 5, 8)))
def test_layer_norm_is_that_of_keras(shape):
    x = np.random.default_rng(0).normal(3, 5, shape).astype("float32")
    ours = layers.LayerNorm(epsilon=1e-5)
    theirs = keras.layers.LayerNormalization(epsilon=1e-5)
    ours.build(shape)
    theirs.build(shape)
    scatter(ours, seed=1)
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(x), theirs(x), atol=2e-6, rtol=2e-6)


def test_layer_norm_of_large_half_precision_numbers():
    """Squares beyond float16's 65504 must not overflow."""
    x = np.random.default_rng(0).normal(0, 2000, (2, 4, 8)).astype("float16")
    half = layers.LayerNorm(dtype="mixed_float16")(x)
    exact = layers.LayerNorm()(x.astype("float32"))
    assert np.all(np.isfinite(half))
    np.testing.assert_allclose(half, exact, atol=2e-3)


def test_silu():
    x = np.linspace(-8, 8, 33, dtype="float32").reshape(1, 33)
    expected = x / (1 + np.exp(-x))
    np.testing.assert_allclose(layers.SiLU()(x), expected, atol=1e-6)


def definition_of_unfold(x, p):
    """The pixels at (row % p, column % p) of each patch, by loops."""
    count, height, width, channels = x.shape
    w = width // p
    result = np.zeros((count, p * p, height // p * w, channels), x.dtype)
    for row in range(height):
        for column in range(width):
            position = (row % p) * p + column % p
            patch = (row // p) * w + column // p
            result[:, position, patch] = x[:, row, column]
    return result


@pytest.mark.parametrize("patch_size", (1, 2, 3))
@pytest.mark.parametrize("size", ((6, 6), (6, 12), (12, 6)))
def test_unfold_is_the_reference_up_to_an_order(patch_size, size):
    """Each position is a set of the same tokens; `fold` undoes it."""
    x = np.arange(2 * size[0] * size[1] * 3, dtype="float32")
    x = x.reshape(2, *size, 3)
    tokens = ops.convert_to_numpy(unfold(x, patch_size))
    expected = definition_of_unfold(x, patch_size)
    assert tokens.shape == expected.shape
    np.testing.assert_array_equal(fold(tokens, patch_size, *size), x)

    def sets(tokens):
        return {frozenset(map(tuple, position.tolist())) for position in tokens}

    for ours, reference in zip(tokens, expected):
        assert sets(ours) == sets(reference)


@pytest.mark.parametrize("kernel_size", (1, 3, 5))
@pytest.mark.parametrize("size", ((8, 8), (7, 9), (8, 5)))
@pytest.mark.parametrize("depthwise", (False, True))
@pytest.mark.parametrize("strides", (1, 2))
def test_padding_is_symmetric(kernel_size, size, depthwise, strides):
    """Against a sum over the window of a map padded alike on all sides."""
    x = np.random.default_rng(0).normal(size=(1, *size, 2)).astype("float32")
    plain = dict(use_norm=False, activation=None, strides=strides)
    if depthwise:
        layer = layers.DepthwiseConvNormAct(kernel_size, **plain)
    else:
        layer = layers.ConvNormAct(3, kernel_size, **plain)
    actual = ops.convert_to_numpy(layer(x))
    kernel = ops.convert_to_numpy(layer.kernel)
    edge = kernel_size // 2
    padded = np.pad(x[0], ((edge, edge), (edge, edge), (0, 0)))
    rows, columns = (
        range(0, side + 2 * edge - kernel_size + 1, strides) for side in size
    )
    assert actual.shape[1:3] == (len(rows), len(columns))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = padded[
                row : row + kernel_size, column : column + kernel_size
            ]
            if depthwise:
                expected = np.einsum("hwc,hwc->c", window, kernel[..., 0])
            else:
                expected = np.einsum("hwc,hwcd->d", window, kernel)
            np.testing.assert_allclose(
                actual[0, i, j], expected, rtol=1e-4, atol=1e-5
            )


def test_dilation_keeps_the_size_and_spreads_the_kernel():
    layer = layers.DepthwiseConvNormAct(
        dilation_rate=2, use_norm=False, activation=None
    )
    x = np.zeros((1, 9, 9, 1), "float32")
    x[0, 4, 4] = 1
    output = ops.convert_to_numpy(layer(x))
    assert output.shape == x.shape
    rows, columns = np.nonzero(output[0, ..., 0])
    assert set(rows) == set(columns) == {2, 4, 6}


def test_resize_leaves_an_equal_size_alone():
    x = ops.ones((1, 4, 6, 2))
    assert resize_bilinear(x, 4, 6) is x
    assert resize_bilinear(x, 6, 6).shape == (1, 6, 6, 2)


@pytest.mark.parametrize(
    ("value", "expected"),
    ((32, 32), (33, 32), (36, 40), (11, 16), (3, 8), (64.0, 64)),
)
def test_make_divisible(value, expected):
    assert make_divisible(value) == expected
    assert make_divisible(value) >= 0.9 * value


def test_attention_stays_within_a_position():
    """Tokens of one pixel position do not see those of another."""
    layer = layers.MultiHeadSelfAttention(heads=2)
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 8)).astype("float32")
    before = ops.convert_to_numpy(layer(x))
    x[0, 2] += 1
    changed = np.abs(ops.convert_to_numpy(layer(x)) - before).max(axis=(2, 3))
    assert changed[0, 2] > 1e-4
    assert changed[0, [0, 1, 3]].max() < 1e-6
