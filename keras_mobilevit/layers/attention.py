"""Self-attention and the transformer block on patches of a feature map."""

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
from keras_mobilevit.layers.norm import LayerNorm


def token_dense(
    units: int, activation: str | None = None, **kwargs
) -> ConvNormAct:
    """Returns a dense layer over the channels of tokens.

    It is a 1x1 convolution: on the four axes of tokens every delegate takes
    that as it stands, while `Dense` adds reshapes.
    """
    return ConvNormAct(
        units,
        kernel_size=1,
        use_norm=False,
        use_bias=True,
        activation=activation,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
        **kwargs,
    )


@keras.saving.register_keras_serializable(PACKAGE)
class MultiHeadSelfAttention(QuantizableLayer):
    """Scaled dot-product attention among tokens of one pixel position.

    Tokens are `(batch, positions, patches, channels)`: each pixel position
    inside a patch attends to the same position in all patches (MobileViT,
    section 3.1). Heads and positions share one axis, so that no tensor has
    more than four axes and the first one stays the batch.

    Args:
        heads: number of heads; it must divide the channels.
        dropout: dropout rate of the attention weights.
        quantization: see `QuantizableLayer`.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: `heads` does not divide the channels.
    """

    def __init__(
        self,
        heads: int = 4,
        dropout: float = 0.0,
        quantization: Any = None,
        **kwargs,
    ):
        super().__init__(quantization=quantization, **kwargs)
        owner = "MultiHeadSelfAttention"
        self.heads = positive_integer("heads", heads, owner)
        self.dropout = dropout
        self.attention_dropout = keras.layers.Dropout(
            dropout, name="attention_dropout", dtype=self.dtype_policy
        )
        self.scaled_query = self.rounding("activation", "scaled_query")
        self.scores = self.rounding("activation", "scores")
        self.weighting = self.rounding(
            "activation", "weighting", bounds=PROBABILITIES
        )
        self.context = self.rounding("activation", "context")

    def build(self, input_shape):
        channels = known_channels(input_shape, "MultiHeadSelfAttention")
        if channels % self.heads:
            raise ValueError(
                "`heads` of `MultiHeadSelfAttention` must divide the "
                f"channels. Received: heads={self.heads}, channels={channels}"
            )
        self.key_dim = channels // self.heads
        for name in ("query", "key", "value", "project"):
            layer = token_dense(channels, name=name, **self.inherited())
            layer.build(input_shape)
            setattr(self, name, layer)
        # XNNPACK multiplies int8 numbers if 0 is midway in the second ones.
        self.key.outputs.center()
        self.value.outputs.center()
        self.scaled_query.build(input_shape)
        batch, positions, patches, _ = input_shape
        groups = None if positions is None else positions * self.heads
        self.scores.build((batch, groups, patches, patches))
        self.weighting.build((batch, groups, patches, patches))
        self.context.build((batch, groups, patches, self.key_dim))
        self.built = True

    def call(self, inputs, training=None):
        _, positions, patches, channels = ops.shape(inputs)
        tokens = positions * patches

        def split_heads(x):
            x = ops.reshape(x, (-1, tokens, self.heads, self.key_dim))
            x = ops.transpose(x, (0, 2, 1, 3))
            return ops.reshape(
                x, (-1, self.heads * positions, patches, self.key_dim)
            )

        query = self.scaled_query(self.query(inputs) * self.key_dim**-0.5)
        query = split_heads(query)
        key = split_heads(self.key(inputs))
        value = split_heads(self.value(inputs))
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
        scores = at_least_float32(self.scores(scores))
        # Over a single patch a softmax is 1, and Keras warns of it. In a graph
        # of unknown sizes `patches` is a tensor.
        is_single = isinstance(patches, int) and patches == 1
        weights = ops.ones_like(scores) if is_single else ops.softmax(scores)
        weights = ops.cast(weights, self.compute_dtype)
        weights = self.weighting(weights)
        weights = self.attention_dropout(weights, training=training)
        x = self.context(ops.matmul(weights, value))
        x = ops.reshape(x, (-1, self.heads, tokens, self.key_dim))
        x = ops.transpose(x, (0, 2, 1, 3))
        x = ops.reshape(x, (-1, positions, patches, channels))
        return self.project(x)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class TransformerBlock(QuantizableLayer):
    """A pre-norm transformer block: attention, then feed-forward with SiLU.

    `x += Dropout(Attention(Norm(x)))`, `x += Dropout(Dense(SiLU(Dense(Norm(
    x)))))`. Input and output: `(batch, positions, patches, channels)`, as of
    `MultiHeadSelfAttention`.

    Args:
        ffn_dim: hidden width of the feed-forward part.
        heads: attention heads; they must divide the channels.
        dropout: dropout rate after attention and after feed-forward.
        attention_dropout: dropout rate of the attention weights.
        ffn_dropout: dropout rate inside the feed-forward part.
        equalized: whether the SiLU has a factor for each channel.
        affine_norms: whether the norms have factors and offsets.
        quantization: see `QuantizableLayer`.
        **kwargs: `name`, `dtype`, `trainable`.
    """

    def __init__(
        self,
        ffn_dim: int,
        heads: int = 4,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        ffn_dropout: float = 0.0,
        equalized: bool = False,
        affine_norms: bool = True,
        quantization: Any = None,
        **kwargs,
    ):
        super().__init__(quantization=quantization, **kwargs)
        self.ffn_dim = positive_integer("ffn_dim", ffn_dim, "TransformerBlock")
        self.heads = heads
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.ffn_dropout = ffn_dropout
        self.equalized = equalized
        self.affine_norms = affine_norms

        inherited = self.inherited()

        def drop(rate, name):
            return keras.layers.Dropout(
                rate, name=name, dtype=self.dtype_policy
            )

        self.norm1 = LayerNorm(affine=affine_norms, name="norm1", **inherited)
        self.attention = MultiHeadSelfAttention(
            heads, attention_dropout, name="attention", **inherited
        )
        self.drop1 = drop(dropout, "drop1")
        self.attention_sum = self.rounding("activation", "attention_sum")
        self.norm2 = LayerNorm(affine=affine_norms, name="norm2", **inherited)
        self.ffn_expand = token_dense(
            ffn_dim,
            "silu",
            equalized=equalized,
            name="ffn_expand",
            **inherited,
        )
        self.ffn_drop = drop(ffn_dropout, "ffn_drop")
        self.ffn_project = None  # its width is that of the input
        self.drop2 = drop(dropout, "drop2")
        self.ffn_sum = self.rounding("activation", "ffn_sum")

    def build(self, input_shape):
        channels = known_channels(input_shape, "TransformerBlock")
        self.ffn_project = token_dense(
            channels, name="ffn_project", **self.inherited()
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
        y = self.ffn_expand(self.norm2(x))
        y = self.ffn_project(self.ffn_drop(y, training=training))
        return self.ffn_sum(x + self.drop2(y, training=training))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "ffn_dim": self.ffn_dim,
            "heads": self.heads,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "ffn_dropout": self.ffn_dropout,
            "equalized": self.equalized,
            "affine_norms": self.affine_norms,
        }
