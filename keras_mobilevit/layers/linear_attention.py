"""Attention whose cost grows with the tokens, not with their square."""

from typing import Any

import keras
from keras import ops

from keras_mobilevit.layers.base import PACKAGE
from keras_mobilevit.layers.base import PROBABILITIES
from keras_mobilevit.layers.base import QuantizableLayer
from keras_mobilevit.layers.base import at_least_float32
from keras_mobilevit.layers.base import known_channels
from keras_mobilevit.layers.base import positive_integer
from keras_mobilevit.layers.conv import ConvNormAct
from keras_mobilevit.layers.norm import GroupNorm


def positions(x: Any, patch_size: int) -> list:
    """Splits a map by the place of its pixels inside their patches.

    Args:
        x: `(batch, height, width, channels)`, both sizes multiples of
            `patch_size`.
        patch_size: side of a patch.

    Returns:
        `patch_size ** 2` maps, row by row, of one pixel a patch.
    """
    p = patch_size
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # An Edge TPU takes no slices with strides.
        return ops.split(tf.nn.space_to_depth(x, p), p * p, axis=-1)
    return [x[:, i::p, j::p] for i in range(p) for j in range(p)]


def pointwise(units: int, **kwargs) -> ConvNormAct:
    """Returns a 1x1 convolution with a bias and no normalization."""
    return ConvNormAct(
        units, kernel_size=1, use_norm=False, use_bias=True, **kwargs
    )


@keras.saving.register_keras_serializable(PACKAGE)
class LinearSelfAttention(QuantizableLayer):
    """Separable self-attention (MobileViTv2, section 3.2, figure 3c).

    Every token is weighed once: `softmax(query)` over the patches. The
    weighed mean of the keys is one context for each pixel position, which
    multiplies `relu(value)` of every token. The mean is taken before the
    linear map to keys, which gives the same and leaves that map one token.

    Input and output: `(batch, positions, patches, channels)`, or with
    `layer(inputs, patch_size=p)` a map `(batch, height, width, channels)`
    whose sizes are known multiples of `p`. That computes the same without
    unfolding the map, in operations that an Edge TPU has: one softmax, over
    one row, for each position.

    Args:
        dropout: dropout rate of the weights.
        quantization: see `QuantizableLayer`.
        **kwargs: `name`, `dtype`, `trainable`.
    """

    def __init__(
        self, dropout: float = 0.0, quantization: Any = None, **kwargs
    ):
        super().__init__(quantization=quantization, **kwargs)
        self.dropout = dropout
        self.attention_dropout = keras.layers.Dropout(
            dropout, name="attention_dropout", dtype=self.dtype_policy
        )
        self.weighting = self.rounding(
            "activation", "weighting", bounds=PROBABILITIES
        )
        self.weighed = self.rounding("activation", "weighed", averaged=True)
        self.mean = self.rounding("activation", "mean")
        self.outputs = self.rounding("activation", "outputs")

    def build(self, input_shape):
        channels = known_channels(input_shape, "LinearSelfAttention")
        # The reference has one kernel for the three, whose fan-out is theirs.
        deviation = (2 / (1 + 2 * channels)) ** 0.5
        inherited = self.inherited()
        for name, units, activation in (
            ("query", 1, None),
            ("key", channels, None),
            ("value", channels, "relu"),
        ):
            layer = pointwise(
                units,
                activation=activation,
                # One initializer would give all three the same numbers.
                kernel_initializer=keras.initializers.RandomNormal(
                    stddev=deviation
                ),
                name=name,
                **inherited,
            )
            layer.build(input_shape)
            setattr(self, name, layer)
        self.project = pointwise(
            channels, activation=None, name="project", **inherited
        )
        self.project.build(input_shape)
        for step in (self.weighting, self.weighed, self.mean, self.outputs):
            step.build(input_shape)
        self.built = True

    def call(self, inputs, patch_size=None, training=None):
        scores = self.query(inputs)
        if patch_size is None:
            _, places, patches, _ = ops.shape(inputs)
            shapes = ((-1, places, 1, patches), (-1, places, patches, 1))
            mean = self._weighed_mean(scores, inputs, shapes, 2, training)
            context = self.key(mean)
        else:
            context = self._map_context(scores, inputs, patch_size, training)
        return self.project(self.outputs(self.value(inputs) * context))

    def _map_context(self, scores, inputs, p, training):
        """Returns the contexts of the positions, in the order of the map."""
        h, w = scores.shape[1] // p, scores.shape[2] // p
        shapes = ((-1, h * w), (-1, h, w, 1))
        means = [
            self._weighed_mean(*pair, shapes, (1, 2), training)
            for pair in zip(positions(scores, p), positions(inputs, p))
        ]
        rows = [
            ops.concatenate(means[i : i + p], axis=2)
            for i in range(0, p * p, p)
        ]
        context = self.key(ops.concatenate(rows, axis=1))
        row = ops.concatenate([context] * w, axis=2)
        return ops.concatenate([row] * h, axis=1)

    def _weighed_mean(self, scores, inputs, shapes, axes, training):
        """Returns the mean of the inputs over `axes`, weighed by the scores.

        The key of the mean is the mean of the keys: the weights add up to 1.

        Args:
            shapes: those of the weights, in the softmax, whose axis must be
                the last, and beside the inputs.
        """
        scores = at_least_float32(ops.reshape(scores, shapes[0]))
        is_single = isinstance(scores.shape[-1], int) and scores.shape[-1] == 1
        weights = ops.ones_like(scores) if is_single else ops.softmax(scores)
        weights = ops.cast(weights, self.compute_dtype)
        weights = self.weighting(weights)
        weights = self.attention_dropout(weights, training=training)
        weighed = self.weighed(inputs * ops.reshape(weights, shapes[1]))
        return self.mean(ops.sum(weighed, axis=axes, keepdims=True))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "dropout": self.dropout}


@keras.saving.register_keras_serializable(PACKAGE)
class LinearTransformerBlock(QuantizableLayer):
    """A pre-norm transformer block with separable self-attention.

    `x += Dropout(Attention(Norm(x)))`, `x += Dropout(Conv(SiLU(Conv(Norm(
    x)))))`. Input, output and `patch_size` of a call: see
    `LinearSelfAttention`.

    Args:
        ffn_dim: hidden width of the feed-forward part.
        dropout: dropout rate after attention and after feed-forward.
        attention_dropout: dropout rate of the attention weights.
        equalized: whether the SiLU has a factor for each channel.
        affine_norms: whether the norms have factors and offsets.
        quantization: see `QuantizableLayer`.
        **kwargs: `name`, `dtype`, `trainable`.
    """

    def __init__(
        self,
        ffn_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        equalized: bool = False,
        affine_norms: bool = True,
        quantization: Any = None,
        **kwargs,
    ):
        super().__init__(quantization=quantization, **kwargs)
        self.ffn_dim = positive_integer(
            "ffn_dim", ffn_dim, "LinearTransformerBlock"
        )
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.equalized = equalized
        self.affine_norms = affine_norms

        inherited = self.inherited()
        self.norm1 = GroupNorm(affine=affine_norms, name="norm1", **inherited)
        self.attention = LinearSelfAttention(
            attention_dropout, name="attention", **inherited
        )
        self.attention_sum = self.rounding("activation", "attention_sum")
        self.norm2 = GroupNorm(affine=affine_norms, name="norm2", **inherited)
        self.ffn_expand = pointwise(
            ffn_dim,
            activation="silu",
            equalized=equalized,
            name="ffn_expand",
            **inherited,
        )
        self.ffn_project = None  # its width is that of the input
        self.ffn_sum = self.rounding("activation", "ffn_sum")
        self.drop1, self.drop2 = (
            keras.layers.Dropout(dropout, name=name, dtype=self.dtype_policy)
            for name in ("drop1", "drop2")
        )

    def build(self, input_shape):
        channels = known_channels(input_shape, "LinearTransformerBlock")
        self.ffn_project = pointwise(
            channels, activation=None, name="ffn_project", **self.inherited()
        )
        for layer in (
            self.norm1,
            self.attention,
            self.attention_sum,
            self.norm2,
            self.ffn_expand,
            self.ffn_sum,
        ):
            layer.build(input_shape)
        self.ffn_project.build((*input_shape[:-1], self.ffn_dim))
        self.built = True

    def call(self, inputs, patch_size=None, training=None):
        x = self.attention(
            self.norm1(inputs), patch_size=patch_size, training=training
        )
        x = self.attention_sum(inputs + self.drop1(x, training=training))
        y = self.ffn_project(self.ffn_expand(self.norm2(x)))
        return self.ffn_sum(x + self.drop2(y, training=training))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "ffn_dim": self.ffn_dim,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "equalized": self.equalized,
            "affine_norms": self.affine_norms,
        }
