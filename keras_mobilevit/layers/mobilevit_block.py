"""The MobileViT block: convolutions around a transformer over patches."""

from typing import Any

import keras
from keras import ops

from keras_mobilevit.layers.attention import TransformerBlock
from keras_mobilevit.layers.base import PACKAGE
from keras_mobilevit.layers.base import QuantizableLayer
from keras_mobilevit.layers.base import known_channels
from keras_mobilevit.layers.base import positive_integer
from keras_mobilevit.layers.conv import ConvNormAct
from keras_mobilevit.layers.norm import LayerNorm


def resize_bilinear(x: Any, height: Any, width: Any) -> Any:
    """Resizes a channels-last map, pixel centres at half, no antialias.

    Args:
        x: `(batch, height, width, channels)`.
        height: rows of the result, an integer or a scalar tensor.
        width: columns of the result, likewise.
    """
    if isinstance(height, int) and isinstance(width, int):
        if x.shape[1:3] == (height, width):
            return x
        return ops.image.resize(x, (height, width), data_format="channels_last")
    # Sizes are tensors only in a TensorFlow graph traced without them, and
    # `keras.ops.image.resize` takes none.
    import tensorflow as tf

    resized = tf.image.resize(x, tf.stack([height, width]))
    return ops.cast(resized, x.dtype)


def unfold(x: Any, patch_size: int) -> Any:
    """Splits a map into patches: `(B, H, W, C)` to `(B, P, N, C)`.

    `P = patch_size ** 2` positions inside a patch, `N` patches in row-major
    order. `H` and `W` must be multiples of `patch_size`. No tensor on the
    way has more than four axes.
    """
    _, height, width, channels = ops.shape(x)
    p, h, w = patch_size, height // patch_size, width // patch_size
    x = ops.reshape(x, (-1, h, p, width * channels))
    x = ops.transpose(x, (0, 2, 1, 3))  # row in patch | patch row
    x = ops.reshape(x, (-1, p * h * w, p, channels))
    x = ops.transpose(x, (0, 2, 1, 3))  # column in patch | row in patch ...
    return ops.reshape(x, (-1, p * p, h * w, channels))


def fold(x: Any, patch_size: int, height: Any, width: Any) -> Any:
    """Undoes `unfold`: `(B, P, N, C)` to `(B, height, width, C)`."""
    channels = x.shape[-1]
    p, h, w = patch_size, height // patch_size, width // patch_size
    x = ops.reshape(x, (-1, p, p * h * w, channels))
    x = ops.transpose(x, (0, 2, 1, 3))
    x = ops.reshape(x, (-1, p, h, width * channels))
    x = ops.transpose(x, (0, 2, 1, 3))
    return ops.reshape(x, (-1, height, width, channels))


@keras.saving.register_keras_serializable(PACKAGE)
class MobileViTBlock(QuantizableLayer):
    """Local convolution, transformer over patches, fusion with the input.

    MobileViT, section 3.1 and figure 1b. A map whose sides are no multiples
    of `patch_size` is resized up before the transformer and back after it.

    Input and output: `(batch, height, width, channels)`.

    Args:
        transformer_dim: width of the tokens.
        depth: number of transformer blocks.
        ffn_dim: hidden width of their feed-forward part; `None` for twice
            `transformer_dim`.
        heads: attention heads; they must divide `transformer_dim`.
        patch_size: side of a patch in pixels of the map.
        dropout: dropout rate after attention and after feed-forward.
        attention_dropout: dropout rate of the attention weights.
        ffn_dropout: dropout rate inside the feed-forward part.
        equalized: whether the SiLUs of the transformer have a factor for
            each channel.
        affine_norms: whether the norms have factors and offsets.
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
        heads: int = 4,
        patch_size: int = 2,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        ffn_dropout: float = 0.0,
        equalized: bool = False,
        affine_norms: bool = True,
        quantization: Any = None,
        **kwargs,
    ):
        super().__init__(quantization=quantization, **kwargs)
        # Config
        owner = "MobileViTBlock"
        self.transformer_dim = positive_integer(
            "transformer_dim", transformer_dim, owner
        )
        self.depth = positive_integer("depth", depth, owner)
        self.ffn_dim = ffn_dim
        self.heads = heads
        self.patch_size = positive_integer("patch_size", patch_size, owner)
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.ffn_dropout = ffn_dropout
        self.equalized = equalized
        self.affine_norms = affine_norms
        # Layers
        inherited = self.inherited()
        self.local_project = ConvNormAct(
            transformer_dim,
            1,
            use_norm=False,
            activation=None,
            name="local_project",
            **inherited,
        )
        self.transformer = [
            TransformerBlock(
                2 * transformer_dim if ffn_dim is None else ffn_dim,
                heads,
                dropout,
                attention_dropout,
                ffn_dropout,
                equalized,
                affine_norms,
                name=f"transformer_{i}",
                **inherited,
            )
            for i in range(depth)
        ]
        self.norm = LayerNorm(affine=affine_norms, name="norm", **inherited)
        self.concatenated = self.rounding("activation", "concatenated")

    def build(self, input_shape):
        channels = known_channels(input_shape, "MobileViTBlock")
        batch, height, width, _ = input_shape
        # These return to the width of the input, known only here.
        self.local_conv, self.project, self.fusion = (
            ConvNormAct(channels, size, name=name, **self.inherited())
            for name, size in (("local_conv", 3), ("project", 1), ("fusion", 3))
        )
        self.local_conv.build(input_shape)
        self.local_project.build(input_shape)
        token_shape = (batch, self.patch_size**2, None, self.transformer_dim)
        for layer in (*self.transformer, self.norm):
            layer.build(token_shape)
        self.project.build((batch, height, width, self.transformer_dim))
        self.concatenated.build((batch, height, width, 2 * channels))
        self.fusion.build((batch, height, width, 2 * channels))
        self.built = True

    def call(self, inputs, training=None):
        _, height, width, _ = ops.shape(inputs)
        p = self.patch_size
        even_height, even_width = -(-height // p) * p, -(-width // p) * p

        x = self.local_conv(inputs, training=training)
        x = self.local_project(x)
        x = unfold(resize_bilinear(x, even_height, even_width), p)
        for block in self.transformer:
            x = block(x, training=training)
        x = fold(self.norm(x), p, even_height, even_width)
        x = resize_bilinear(x, height, width)
        x = self.project(x, training=training)
        # One range for both: a concatenation cannot change one.
        x = ops.concatenate(self.concatenated([inputs, x]), axis=-1)
        return self.fusion(x, training=training)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "transformer_dim": self.transformer_dim,
            "depth": self.depth,
            "ffn_dim": self.ffn_dim,
            "heads": self.heads,
            "patch_size": self.patch_size,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "ffn_dropout": self.ffn_dropout,
            "equalized": self.equalized,
            "affine_norms": self.affine_norms,
        }
