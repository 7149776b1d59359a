"""The layers of MobileViT, usable in any Keras 3 model."""

from keras_mobilevit.layers.attention import MultiHeadSelfAttention
from keras_mobilevit.layers.attention import TransformerBlock
from keras_mobilevit.layers.conv import ConvNormAct
from keras_mobilevit.layers.conv import DepthwiseConvNormAct
from keras_mobilevit.layers.conv import InvertedResidual
from keras_mobilevit.layers.conv import SiLU
from keras_mobilevit.layers.mobilevit_block import MobileViTBlock
from keras_mobilevit.layers.norm import LayerNorm

__all__ = [
    "ConvNormAct",
    "DepthwiseConvNormAct",
    "InvertedResidual",
    "LayerNorm",
    "MobileViTBlock",
    "MultiHeadSelfAttention",
    "SiLU",
    "TransformerBlock",
]
