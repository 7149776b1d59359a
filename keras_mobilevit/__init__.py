"""MobileViT for Keras 3, from fine-tuning to a measured int8 TFLite file."""

from keras_mobilevit import mobilevit
from keras_mobilevit import mobilevit_v2
from keras_mobilevit.layers import InvertedResidual
from keras_mobilevit.layers import LayerNorm
from keras_mobilevit.layers import MobileViTBlock
from keras_mobilevit.layers import MobileViTV2Block
from keras_mobilevit.layers import TransformerBlock
from keras_mobilevit.mobilevit import MobileViT_S
from keras_mobilevit.mobilevit import MobileViT_XS
from keras_mobilevit.mobilevit import MobileViT_XXS
from keras_mobilevit.mobilevit_v2 import MobileViTV2_050
from keras_mobilevit.mobilevit_v2 import MobileViTV2_075
from keras_mobilevit.mobilevit_v2 import MobileViTV2_100
from keras_mobilevit.mobilevit_v2 import MobileViTV2_125
from keras_mobilevit.mobilevit_v2 import MobileViTV2_150
from keras_mobilevit.mobilevit_v2 import MobileViTV2_175
from keras_mobilevit.mobilevit_v2 import MobileViTV2_200
from keras_mobilevit.version import __version__

__all__ = [
    "InvertedResidual",
    "LayerNorm",
    "MobileViTBlock",
    "MobileViTV2Block",
    "MobileViTV2_050",
    "MobileViTV2_075",
    "MobileViTV2_100",
    "MobileViTV2_125",
    "MobileViTV2_150",
    "MobileViTV2_175",
    "MobileViTV2_200",
    "MobileViT_S",
    "MobileViT_XS",
    "MobileViT_XXS",
    "TransformerBlock",
    "__version__",
    "mobilevit",
    "mobilevit_v2",
]
