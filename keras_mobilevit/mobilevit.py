"""MobileViT: light-weight, general-purpose, mobile-friendly transformer.

Reference:
  - [MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision
    Transformer](https://arxiv.org/abs/2110.02178) (ICLR 2022)
"""

import os
from typing import Any

import keras

from keras_mobilevit import network
from keras_mobilevit import weights as published
from keras_mobilevit.configs import MOBILEVIT
from keras_mobilevit.configs import MobileViTConfig
from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import MobileViTBlock

_REFERENCE = """[MobileViT: Light-weight, General-purpose, and Mobile-friendly
      Vision Transformer](https://arxiv.org/abs/2110.02178) (ICLR 2022)"""


def _build(variant: str, **options) -> keras.Model:
    return network.build(variant, MOBILEVIT[variant], _backbone, **options)


def _backbone(x: Any, config: MobileViTConfig, output_stride: int) -> Any:
    """Stem, five stages and the last 1x1 convolution (the paper's Table 4)."""

    def block(i, dilation, name):
        del dilation  # that of a block's convolutions is 1 in the reference
        return MobileViTBlock(
            config.transformer_dims[i],
            config.transformer_depths[i],
            heads=config.heads,
            patch_size=config.patch_size,
            dropout=config.transformer_dropout,
            name=name,
        )

    x = network.stages(x, config, output_stride, (1, 3, 1, 1, 1), block)
    return ConvNormAct(config.head_channels, 1, name="conv_1x1_exp")(x)


def MobileViT_XXS(
    include_top: bool = True,
    weights: str | os.PathLike | None = "imagenet",
    input_tensor: Any = None,
    input_shape: tuple | list | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    include_preprocessing: bool = True,
    dropout: float = 0.1,
    output_stride: int = 32,
    name: str = "mobilevit_xxs",
) -> keras.Model:
    """Instantiates MobileViT-XXS; see `network.DOCSTRING`."""
    return _build("mobilevit_xxs", **locals())


def MobileViT_XS(
    include_top: bool = True,
    weights: str | os.PathLike | None = "imagenet",
    input_tensor: Any = None,
    input_shape: tuple | list | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    include_preprocessing: bool = True,
    dropout: float = 0.1,
    output_stride: int = 32,
    name: str = "mobilevit_xs",
) -> keras.Model:
    """Instantiates MobileViT-XS; see `network.DOCSTRING`."""
    return _build("mobilevit_xs", **locals())


def MobileViT_S(
    include_top: bool = True,
    weights: str | os.PathLike | None = "imagenet",
    input_tensor: Any = None,
    input_shape: tuple | list | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    include_preprocessing: bool = True,
    dropout: float = 0.1,
    output_stride: int = 32,
    name: str = "mobilevit_s",
) -> keras.Model:
    """Instantiates MobileViT-S; see `network.DOCSTRING`."""
    return _build("mobilevit_s", **locals())


for _builder, _name, _parameters in (
    (MobileViT_XXS, "mobilevit_xxs", 1_272_024),
    (MobileViT_XS, "mobilevit_xs", 2_317_848),
    (MobileViT_S, "mobilevit_s", 5_578_632),
):
    network.document(
        _builder,
        reference=_REFERENCE,
        parameters=_parameters,
        top1=published.PUBLISHED[_name].top1,
        endpoints=" and `conv_1x1_exp`",
    )


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Returns the pictures unchanged: the model scales them itself.

    It exists so that code written for `keras.applications` runs as it is.

    Args:
        x: pictures, RGB in [0, 255].
        data_format: ignored.
    """
    return x


def decode_predictions(preds: Any, top: int = 5) -> list:
    """Decodes the predictions of a 1000-class ImageNet model.

    Args:
        preds: array of shape `(batch, 1000)`.
        top: how many classes to return for each picture.

    Returns:
        For each picture a list of `(wnid, name, score)`, best first.

    Raises:
        ValueError: `preds` has another shape.
    """
    return keras.applications.imagenet_utils.decode_predictions(preds, top=top)
