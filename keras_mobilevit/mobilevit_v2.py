"""MobileViTv2: MobileViT with attention whose cost is linear in the tokens.

Reference:
  - [Separable Self-attention for Mobile Vision
    Transformers](https://arxiv.org/abs/2206.02680) (TMLR 2023)
"""

import os
from typing import Any

import keras

from keras_mobilevit import network
from keras_mobilevit import weights as published
from keras_mobilevit.configs import MOBILEVIT_V2
from keras_mobilevit.configs import MobileViTV2Config
from keras_mobilevit.layers import MobileViTV2Block
from keras_mobilevit.mobilevit import decode_predictions
from keras_mobilevit.mobilevit import preprocess_input

__all__ = ["decode_predictions", "preprocess_input"]

_REFERENCE = """[Separable Self-attention for Mobile Vision
      Transformers](https://arxiv.org/abs/2206.02680) (TMLR 2023)"""


def _build(variant: str, **options) -> keras.Model:
    return network.build(variant, MOBILEVIT_V2[variant], _backbone, **options)


def _backbone(x: Any, config: MobileViTV2Config, output_stride: int) -> Any:
    """Stem and five stages (the paper's Table 5)."""

    def block(i, dilation, name):
        return MobileViTV2Block(
            config.transformer_dims[i],
            config.transformer_depths[i],
            patch_size=config.patch_size,
            dilation_rate=dilation,
            name=name,
        )

    return network.stages(x, config, output_stride, (1, 2, 1, 1, 1), block)


def MobileViTV2_050(
    include_top: bool = True,
    weights: str | os.PathLike | None = "imagenet",
    input_tensor: Any = None,
    input_shape: tuple | list | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    include_preprocessing: bool = True,
    dropout: float = 0.0,
    output_stride: int = 32,
    name: str = "mobilevitv2_050",
) -> keras.Model:
    """Instantiates MobileViTv2 of width 0.5; see `network.DOCSTRING`."""
    return _build("mobilevitv2_050", **locals())


def MobileViTV2_075(
    include_top: bool = True,
    weights: str | os.PathLike | None = "imagenet",
    input_tensor: Any = None,
    input_shape: tuple | list | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    include_preprocessing: bool = True,
    dropout: float = 0.0,
    output_stride: int = 32,
    name: str = "mobilevitv2_075",
) -> keras.Model:
    """Instantiates MobileViTv2 of width 0.75; see `network.DOCSTRING`."""
    return _build("mobilevitv2_075", **locals())


def MobileViTV2_100(
    include_top: bool = True,
    weights: str | os.PathLike | None = "imagenet",
    input_tensor: Any = None,
    input_shape: tuple | list | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    include_preprocessing: bool = True,
    dropout: float = 0.0,
    output_stride: int = 32,
    name: str = "mobilevitv2_100",
) -> keras.Model:
    """Instantiates MobileViTv2 of width 1.0; see `network.DOCSTRING`."""
    return _build("mobilevitv2_100", **locals())


def MobileViTV2_125(
    include_top: bool = True,
    weights: str | os.PathLike | None = "imagenet",
    input_tensor: Any = None,
    input_shape: tuple | list | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    include_preprocessing: bool = True,
    dropout: float = 0.0,
    output_stride: int = 32,
    name: str = "mobilevitv2_125",
) -> keras.Model:
    """Instantiates MobileViTv2 of width 1.25; see `network.DOCSTRING`."""
    return _build("mobilevitv2_125", **locals())


def MobileViTV2_150(
    include_top: bool = True,
    weights: str | os.PathLike | None = "imagenet",
    input_tensor: Any = None,
    input_shape: tuple | list | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    include_preprocessing: bool = True,
    dropout: float = 0.0,
    output_stride: int = 32,
    name: str = "mobilevitv2_150",
) -> keras.Model:
    """Instantiates MobileViTv2 of width 1.5; see `network.DOCSTRING`."""
    return _build("mobilevitv2_150", **locals())


def MobileViTV2_175(
    include_top: bool = True,
    weights: str | os.PathLike | None = "imagenet",
    input_tensor: Any = None,
    input_shape: tuple | list | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    include_preprocessing: bool = True,
    dropout: float = 0.0,
    output_stride: int = 32,
    name: str = "mobilevitv2_175",
) -> keras.Model:
    """Instantiates MobileViTv2 of width 1.75; see `network.DOCSTRING`."""
    return _build("mobilevitv2_175", **locals())


def MobileViTV2_200(
    include_top: bool = True,
    weights: str | os.PathLike | None = "imagenet",
    input_tensor: Any = None,
    input_shape: tuple | list | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    include_preprocessing: bool = True,
    dropout: float = 0.0,
    output_stride: int = 32,
    name: str = "mobilevitv2_200",
) -> keras.Model:
    """Instantiates MobileViTv2 of width 2.0; see `network.DOCSTRING`."""
    return _build("mobilevitv2_200", **locals())


for _builder, _parameters in (
    (MobileViTV2_050, 1_370_593),
    (MobileViTV2_075, 2_866_009),
    (MobileViTV2_100, 4_901_841),
    (MobileViTV2_125, 7_478_089),
    (MobileViTV2_150, 10_594_753),
    (MobileViTV2_175, 14_251_833),
    (MobileViTV2_200, 18_449_329),
):
    network.document(
        _builder,
        reference=_REFERENCE,
        parameters=_parameters,
        top1=published.PUBLISHED[_builder.__name__.lower()].top1,
        endpoints="",
    )
