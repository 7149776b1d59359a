"""MobileViT for Keras 3, from fine-tuning to a measured int8 TFLite file."""

from keras_mobilevit import mobilevit
from keras_mobilevit.layers import InvertedResidual
from keras_mobilevit.layers import LayerNorm
from keras_mobilevit.layers import MobileViTBlock
from keras_mobilevit.layers import TransformerBlock
from keras_mobilevit.mobilevit import MobileViT_S
from keras_mobilevit.mobilevit import MobileViT_XS
from keras_mobilevit.mobilevit import MobileViT_XXS
from keras_mobilevit.version import __version__

__all__ = [
    "InvertedResidual",
    "LayerNorm",
    "MobileViTBlock",
    "MobileViT_S",
    "MobileViT_XS",
    "MobileViT_XXS",
    "TransformerBlock",
    "__version__",
    "mobilevit",
]
