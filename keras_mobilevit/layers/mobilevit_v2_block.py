"""The MobileViTv2 block: attention whose cost grows with the tokens only."""

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
from keras_mobilevit.layers.conv import DepthwiseConvNormAct
from keras_mobilevit.layers.mobilevit_block import fold
from keras_mobilevit.layers.mobilevit_block import unfold
from keras_mobilevit.layers.norm import GroupNorm


def resize_corners(x: Any, height: Any, width: Any) -> Any:
    """Resizes a channels-last map bilinearly, corner pixels on corner pixels.

    Args:
        x: `(batch, height, width, channels)`.
        height: rows of the result, an integer; with TensorFlow also a scalar
            tensor.
        width: columns of the result, likewise.
    """
    if x.shape[1:3] == (height, width):
        return x
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        size = tf.stack([height, width])
        resized = tf.compat.v1.image.resize_bilinear(
            x, size, align_corners=True
        )
        return ops.cast(resized, x.dtype)
    for axis, size in ((1, height), (2, width)):
        old = x.shape[axis]
        places = [i * (old - 1) / max(size - 1, 1) for i in range(size)]
        low = [min(int(place), old - 1) for place in places]
        high = [min(i + 1, old - 1) for i in low]
        shape = [1, 1, 1, 1]
        shape[axis] = size
        share = ops.reshape(
            ops.convert_to_tensor(
                [place - i for place, i in zip(places, low)], x.dtype
            ),
            shape,
        )
        below, above = ops.take(x, low, axis), ops.take(x, high, axis)
        x = below + (above - below) * share
    return x


def pointwise(units: int, **kwargs) -> ConvNormAct:
    """Returns a 1x1 convolution with a bias and no normalization."""
    return ConvNormAct(
        units, kernel_size=1, use_norm=False, use_bias=True, **kwargs
    )


@keras.saving.register_keras_serializable(PACKAGE)
class LinearSelfAttention(QuantizableLayer):
    """Separable self-attention (MobileViTv2, section 3.2, figure 3c).

    Every token is weighed once: `softmax(query)` over the patches. The
    weighed sum of the keys is one context for each pixel position, which
    multiplies `relu(value)` of every token.

    Input and output: `(batch, positions, patches, channels)`.

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
        self.weighed = self.rounding("activation", "weighed")
        self.context = self.rounding("activation", "context")
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
        for step in (self.weighting, self.weighed, self.context, self.outputs):
            step.build(input_shape)
        self.built = True

    def call(self, inputs, training=None):
        _, positions, patches, _ = ops.shape(inputs)
        # The axis of a softmax must be the last.
        scores = ops.reshape(self.query(inputs), (-1, positions, 1, patches))
        is_single = isinstance(patches, int) and patches == 1
        scores = at_least_float32(scores)
        weights = ops.ones_like(scores) if is_single else ops.softmax(scores)
        weights = ops.cast(weights, self.compute_dtype)
        weights = self.weighting(weights)
        weights = self.attention_dropout(weights, training=training)
        weights = ops.reshape(weights, (-1, positions, patches, 1))
        context = self.weighed(self.key(inputs) * weights)
        context = self.context(ops.sum(context, axis=2, keepdims=True))
        return self.project(self.outputs(self.value(inputs) * context))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "dropout": self.dropout}


@keras.saving.register_keras_serializable(PACKAGE)
class LinearTransformerBlock(QuantizableLayer):
    """A pre-norm transformer block with separable self-attention.

    `x += Dropout(Attention(Norm(x)))`, `x += Dropout(Conv(SiLU(Conv(Norm(
    x)))))`. Input and output: `(batch, positions, patches, channels)`.

    Args:
        ffn_dim: hidden width of the feed-forward part.
        dropout: dropout rate after attention and after feed-forward.
        attention_dropout: dropout rate of the attention weights.
        equalized: whether the SiLU has a factor for each channel.
        quantization: see `QuantizableLayer`.
        **kwargs: `name`, `dtype`, `trainable`.
    """

    def __init__(
        self,
        ffn_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        equalized: bool = False,
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

        inherited = self.inherited()
        self.norm1 = GroupNorm(name="norm1", **inherited)
        self.attention = LinearSelfAttention(
            attention_dropout, name="attention", **inherited
        )
        self.attention_sum = self.rounding("activation", "attention_sum")
        self.norm2 = GroupNorm(name="norm2", **inherited)
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

    def call(self, inputs, training=None):
        x = self.attention(self.norm1(inputs), training=training)
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
        }


@keras.saving.register_keras_serializable(PACKAGE)
class MobileViTV2Block(QuantizableLayer):
    """Depthwise convolution, then a transformer with separable attention.

    MobileViTv2, section 3.3. There is no fusion with the input. A map whose
    sides are no multiples of `patch_size` is resized up, and stays so.

    Input: `(batch, height, width, channels)`; output: the same, with height
    and width rounded up to multiples of `patch_size`.

    Args:
        transformer_dim: width of the tokens.
        depth: number of transformer blocks.
        ffn_dim: hidden width of their feed-forward part; `None` for twice
            `transformer_dim`, rounded down to a multiple of 16.
        patch_size: side of a patch in pixels of the map.
        dilation_rate: of the depthwise convolution.
        dropout: dropout rate after attention and after feed-forward.
        attention_dropout: dropout rate of the attention weights.
        equalized: whether the SiLUs of the transformer have a factor for
            each channel.
        quantization: see `QuantizableLayer`.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        transformer_dim: int,
        depth: int,
        ffn_dim: int | None = None,
        patch_size: int = 2,
        dilation_rate: int = 1,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        equalized: bool = False,
        quantization: Any = None,
        **kwargs,
    ):
        super().__init__(quantization=quantization, **kwargs)
        # Config
        owner = "MobileViTV2Block"
        self.transformer_dim = positive_integer(
            "transformer_dim", transformer_dim, owner
        )
        self.depth = positive_integer("depth", depth, owner)
        self.ffn_dim = ffn_dim
        self.patch_size = positive_integer("patch_size", patch_size, owner)
        self.dilation_rate = dilation_rate
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.equalized = equalized
        # Layers
        inherited = self.inherited()
        self.local_conv = DepthwiseConvNormAct(
            kernel_size=3,
            dilation_rate=dilation_rate,
            name="local_conv",
            **inherited,
        )
        self.local_project = ConvNormAct(
            transformer_dim,
            1,
            use_norm=False,
            activation=None,
            name="local_project",
            **inherited,
        )
        if ffn_dim is None:
            ffn_dim = max(2 * transformer_dim // 16 * 16, 16)
        self.transformer = [
            LinearTransformerBlock(
                ffn_dim,
                dropout,
                attention_dropout,
                equalized,
                name=f"transformer_{i}",
                **inherited,
            )
            for i in range(depth)
        ]
        self.norm = GroupNorm(name="norm", **inherited)

    def build(self, input_shape):
        channels = known_channels(input_shape, "MobileViTV2Block")
        batch, height, width, _ = self.compute_output_shape(input_shape)
        self.project = ConvNormAct(
            channels, 1, activation=None, name="project", **self.inherited()
        )
        self.local_conv.build((batch, height, width, channels))
        self.local_project.build((batch, height, width, channels))
        token_shape = (batch, self.patch_size**2, None, self.transformer_dim)
        for layer in (*self.transformer, self.norm):
            layer.build(token_shape)
        self.project.build((batch, height, width, self.transformer_dim))
        self.built = True

    def call(self, inputs, training=None):
        _, height, width, _ = ops.shape(inputs)
        p = self.patch_size
        height, width = -(-height // p) * p, -(-width // p) * p
        x = resize_corners(inputs, height, width)
        x = self.local_project(self.local_conv(x, training=training))
        x = unfold(x, p)
        for block in self.transformer:
            x = block(x, training=training)
        x = fold(self.norm(x), p, height, width)
        return self.project(x, training=training)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        p = self.patch_size
        height, width = (
            None if size is None else -(-size // p) * p
            for size in (height, width)
        )
        return (batch, height, width, channels)

    def get_config(self):
        return {
            **super().get_config(),
            "transformer_dim": self.transformer_dim,
            "depth": self.depth,
            "ffn_dim": self.ffn_dim,
            "patch_size": self.patch_size,
            "dilation_rate": self.dilation_rate,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "equalized": self.equalized,
        }
