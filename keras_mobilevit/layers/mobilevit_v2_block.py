"""The MobileViTv2 block: a convolution, then linear attention."""

from typing import Any

import keras
from keras import ops

from keras_mobilevit.layers.base import PACKAGE
from keras_mobilevit.layers.base import QuantizableLayer
from keras_mobilevit.layers.base import known_channels
from keras_mobilevit.layers.base import positive_integer
from keras_mobilevit.layers.conv import ConvNormAct
from keras_mobilevit.layers.conv import DepthwiseConvNormAct
from keras_mobilevit.layers.linear_attention import LinearTransformerBlock
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
        affine_norms: whether the norms have factors and offsets.
        unfolds: whether the transformer works on unfolded patches, which is
            faster on a CPU, or on the map as it lies, which an Edge TPU can
            do. The function is the same.
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
        affine_norms: bool = True,
        unfolds: bool = True,
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
        self.affine_norms = affine_norms
        self.unfolds = unfolds
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
                affine_norms,
                name=f"transformer_{i}",
                **inherited,
            )
            for i in range(depth)
        ]
        self.norm = GroupNorm(affine=affine_norms, name="norm", **inherited)

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
        # As it lies only if its size is known: each pixel gets its context.
        unfolds = self.unfolds or not isinstance(height * width, int)
        x = unfold(x, p) if unfolds else x
        for block in self.transformer:
            x = block(x, patch_size=None if unfolds else p, training=training)
        x = self.norm(x)
        x = fold(x, p, height, width) if unfolds else x
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
            "affine_norms": self.affine_norms,
            "unfolds": self.unfolds,
        }
