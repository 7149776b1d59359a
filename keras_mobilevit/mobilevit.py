"""MobileViT: light-weight, general-purpose, mobile-friendly transformer.

Reference:
  - [MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision
    Transformer](https://arxiv.org/abs/2110.02178) (ICLR 2022)
"""

import os
from typing import Any

import keras

from keras_mobilevit import arguments
from keras_mobilevit import weights as published
from keras_mobilevit.configs import MOBILEVIT
from keras_mobilevit.configs import MobileViTConfig
from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import InvertedResidual
from keras_mobilevit.layers import MobileViTBlock

_DOCSTRING = """Instantiates the {name} architecture.

    Reference:
    - [MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision
      Transformer](https://arxiv.org/abs/2110.02178) (ICLR 2022)

    {name} has {parameters:,} trainable parameters and reaches {top1} % top-1
    on ImageNet-1k at 256x256 pixels (as published).

    With the default `include_preprocessing=True` the model takes RGB pixels
    as floats or integers in [0, 255] and scales them itself;
    `preprocess_input` then changes nothing. With `False` it takes RGB in
    [0, 1]. MobileViT uses no mean and no standard deviation.

    Args:
        include_top: whether the network ends in a classifier.
        weights: `None` (random initialization), `"imagenet"`
            (pre-training on ImageNet-1k), or the path of a weights file:
            `.weights.h5`, `.safetensors` (timm or transformers naming), or
            `.pt`, `.pth`, `.bin` if PyTorch is installed.
        input_tensor: a KerasTensor to use as input of the model, or `None`.
        input_shape: `(height, width, channels)`, each side at least 32.
            `None` for `(256, 256, 3)` with the classifier and
            `(None, None, 3)` without, which runs at any size.
        pooling: with `include_top=False`, `None` for a 4-D feature map,
            `"avg"` or `"max"` for a vector per picture.
        classes: number of classes of the classifier; 1000 for `"imagenet"`.
        classifier_activation: activation of the classifier; `None` for
            logits. With pretrained weights `None` or `"softmax"`.
        include_preprocessing: whether the scaling to [0, 1] is part of the
            model.
        dropout: dropout rate before the classifier.
        output_stride: 8, 16 or 32: how many times smaller than the input the
            last feature map is. Below 32 late strides become 1, which dense
            prediction needs; the weights are the same.
        name: name of the model.

    Returns:
        A `keras.Model`. The layers `stem`, `block1` ... `block5` and
        `conv_1x1_exp` are its endpoints: `model.get_layer("block4").output`.

    Raises:
        ValueError: an argument is wrong, or a weights file does not fit.
    """


def _build(
    variant: str,
    *,
    include_top: bool,
    weights: str | os.PathLike | None,
    input_tensor: Any,
    input_shape: tuple | list | None,
    pooling: str | None,
    classes: int,
    classifier_activation: Any,
    include_preprocessing: bool,
    dropout: float,
    output_stride: int,
    name: str,
) -> keras.Model:
    config = MOBILEVIT[variant]
    arguments.check(
        include_top=include_top,
        weights=weights,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        dropout=dropout,
        output_stride=output_stride,
    )
    x, inputs = arguments.resolve_input(
        input_tensor=input_tensor,
        input_shape=input_shape,
        include_top=include_top,
        weights=weights,
        default_size=config.default_size,
    )
    if include_preprocessing:
        x = keras.layers.Rescaling(1 / 255.0, name="rescaling")(x)
    x = _backbone(x, config, output_stride)
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
        if dropout > 0:
            x = keras.layers.Dropout(dropout, name="top_dropout")(x)
        x = keras.layers.Dense(
            classes,
            activation=classifier_activation,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="predictions",
        )(x)
    elif pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    elif pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(name="max_pool")(x)

    model = keras.Model(inputs, x, name=name)
    if weights is not None:
        published.load_weights(model, variant, weights, include_top)
    return model


def _backbone(x: Any, config: MobileViTConfig, output_stride: int) -> Any:
    """Stem, five stages and the last 1x1 convolution (the paper's Table 4).

    The last layer of stage i is named `block{i}`.
    """
    # Strides of the stages; dilation replaces those beyond the output stride.
    # A block gets the dilation of the stage before it, as in the reference.
    strides, dilations, total, dilation = [], [], 2, 1
    for stride in (1, 2, 2, 2, 2):
        dilations.append(dilation)
        if total * stride > output_stride:
            dilation *= stride
            stride = 1
        total *= stride
        strides.append(stride)
    repeats = (1, 3, 1, 1, 1)

    x = ConvNormAct(config.stem_channels, 3, strides=2, name="stem")(x)
    for i in range(5):
        stage, is_vit = f"block{i + 1}", i >= 2
        for j in range(repeats[i]):
            is_last = j == repeats[i] - 1 and not is_vit
            x = InvertedResidual(
                config.channels[i],
                strides=strides[i] if j == 0 else 1,
                expansion=config.expansion,
                dilation_rate=dilations[i],
                name=stage if is_last else f"{stage}_mv2_{j + 1}",
            )(x)
        if is_vit:
            x = MobileViTBlock(
                config.transformer_dims[i - 2],
                config.transformer_depths[i - 2],
                heads=config.heads,
                patch_size=config.patch_size,
                dropout=config.transformer_dropout,
                name=stage,
            )(x)
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
    """Instantiates MobileViT-XXS; `_DOCSTRING` replaces this."""
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
    """Instantiates MobileViT-XS; `_DOCSTRING` replaces this."""
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
    """Instantiates MobileViT-S; `_DOCSTRING` replaces this."""
    return _build("mobilevit_s", **locals())


for _builder, _name, _parameters in (
    (MobileViT_XXS, "mobilevit_xxs", 1_272_024),
    (MobileViT_XS, "mobilevit_xs", 2_317_848),
    (MobileViT_S, "mobilevit_s", 5_578_632),
):
    _builder.__doc__ = _DOCSTRING.format(
        name=_builder.__name__,
        parameters=_parameters,
        top1=published.PUBLISHED[_name].top1,
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
