"""What the networks have in common: arguments, stages, head and weights."""

import os
from collections.abc import Callable
from typing import Any

import keras

from keras_mobilevit import arguments
from keras_mobilevit import weights as published
from keras_mobilevit.configs import MobileViTConfig
from keras_mobilevit.configs import MobileViTV2Config
from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import InvertedResidual

DOCSTRING = """Instantiates the {name} architecture.

    Reference:
    - {reference}

    {name} has {parameters:,} trainable parameters and reaches {top1} % top-1
    on ImageNet-1k at 256x256 pixels (as published).

    With the default `include_preprocessing=True` the model takes RGB pixels
    as floats or integers in [0, 255] and scales them itself;
    `preprocess_input` then changes nothing. With `False` it takes RGB in
    [0, 1]. It uses no mean and no standard deviation.

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
        A `keras.Model`. The layers `stem`, `block1` ... `block5`{endpoints}
        are its endpoints: `model.get_layer("block4").output`.

    Raises:
        ValueError: an argument is wrong, or a weights file does not fit.
    """


def build(
    variant: str,
    config: MobileViTConfig | MobileViTV2Config,
    backbone: Callable[[Any, Any, int], Any],
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
    """Builds one network; the arguments are those of its builder.

    Args:
        variant: its key in the tables of configurations and weights.
        config: its configuration.
        backbone: makes the layers from the pixels of [0, 1] to the last
            feature map, from a tensor, the configuration and the output
            stride.
        include_top, weights, input_tensor, input_shape, pooling, classes,
            classifier_activation, include_preprocessing, dropout,
            output_stride, name: see `DOCSTRING`.

    Raises:
        ValueError: an argument is wrong, or a weights file does not fit.
    """
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
    x = backbone(x, config, output_stride)
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


def stages(
    x: Any,
    config: MobileViTConfig | MobileViTV2Config,
    output_stride: int,
    repeats: tuple[int, int, int, int, int],
    block: Callable[[int, int, str], keras.layers.Layer],
) -> Any:
    """The stem and the five stages; the last layer of stage i is `block{i}`.

    Args:
        x: pixels of [0, 1].
        config: the numbers of the network.
        output_stride: 8, 16 or 32; dilation replaces strides beyond it.
        repeats: inverted residuals of each stage.
        block: makes the layer that ends stages 3 to 5, from the position of
            its stage among them, the dilation there and its name.
    """
    # An inverted residual gets the dilation of the stage before it, as in
    # the reference.
    total, dilation = 2, 1
    x = ConvNormAct(config.stem_channels, 3, strides=2, name="stem")(x)
    for i, stride in enumerate((1, 2, 2, 2, 2)):
        stage, is_vit, before = f"block{i + 1}", i >= 2, dilation
        if total * stride > output_stride:
            dilation *= stride
            stride = 1
        total *= stride
        for j in range(repeats[i]):
            is_last = j == repeats[i] - 1 and not is_vit
            x = InvertedResidual(
                config.channels[i],
                strides=stride if j == 0 else 1,
                expansion=config.expansion,
                dilation_rate=before,
                name=stage if is_last else f"{stage}_mv2_{j + 1}",
            )(x)
        if is_vit:
            x = block(i - 2, dilation, stage)(x)
    return x


def document(builder: Callable, **facts: Any) -> None:
    """Gives a builder its docstring: `DOCSTRING` with these facts."""
    builder.__doc__ = DOCSTRING.format(name=builder.__name__, **facts)
