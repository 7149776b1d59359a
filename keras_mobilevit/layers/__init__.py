"""The layers of MobileViT, usable in any Keras 3 model."""

from keras_mobilevit.layers.attention import MultiHeadSelfAttention
from keras_mobilevit.layers.attention import TransformerBlock
from keras_mobilevit.layers.conv import ConvNormAct
from keras_mobilevit.layers.conv import DepthwiseConvNormAct
from keras_mobilevit.layers.conv import InvertedResidual
from keras_mobilevit.layers.conv import SiLU
from keras_mobilevit.layers.linear_attention import LinearSelfAttention
from keras_mobilevit.layers.linear_attention import LinearTransformerBlock
from keras_mobilevit.layers.mobilevit_block import MobileViTBlock
from keras_mobilevit.layers.mobilevit_v2_block import MobileViTV2Block
from keras_mobilevit.layers.norm import GroupNorm
from keras_mobilevit.layers.norm import LayerNorm

__all__ = [
    "ConvNormAct",
    "DepthwiseConvNormAct",
    "GroupNorm",
    "InvertedResidual",
    "LayerNorm",
    "LinearSelfAttention",
    "LinearTransformerBlock",
    "MobileViTBlock",
    "MobileViTV2Block",
    "MultiHeadSelfAttention",
    "SiLU",
    "TransformerBlock",
]
