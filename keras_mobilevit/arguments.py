"""The rules for the arguments of builders, once for all of them.

The rules and wordings are those of `keras.applications`; where it accepts a
mistake in silence (`pooling="bad"`, an `input_shape` that contradicts
`input_tensor`), this module raises.
"""

import operator
import os
from typing import Any

import keras

MIN_SIZE = 32
OUTPUT_STRIDES = (8, 16, 32)
IMAGENET_CLASSES = 1000


def check(
    *,
    include_top: bool,
    weights: str | os.PathLike | None,
    pooling: str | None,
    classes: int,
    classifier_activation: Any,
    dropout: float,
    output_stride: int,
) -> None:
    """Checks the arguments that say nothing of the input.

    Raises:
        ValueError: names the argument, what was received and what would be
            right.
    """
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "MobileViT supports only the 'channels_last' data format. Call "
            "`keras.config.set_image_data_format('channels_last')`. Received: "
            f"image_data_format={keras.config.image_data_format()!r}"
        )
    if not _is_known(weights):
        raise ValueError(
            "The `weights` argument should be either `None` (random "
            "initialization), `imagenet` (pre-training on ImageNet), or the "
            "path to the weights file to be loaded. Received: "
            f"weights={weights}"
        )
    if weights == "imagenet" and include_top and classes != IMAGENET_CLASSES:
        raise ValueError(
            "If using `weights='imagenet'` with `include_top=True`, `classes` "
            f"should be {IMAGENET_CLASSES}. Received classes={classes}"
        )
    if pooling not in (None, "avg", "max"):
        raise ValueError(
            "The `pooling` argument should be `None`, 'avg' or 'max'. "
            f"Received: pooling={pooling!r}"
        )
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(
            f"The `output_stride` argument should be one of {OUTPUT_STRIDES}. "
            f"Received: output_stride={output_stride!r}"
        )
    if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(
            "The `dropout` argument should be at least 0 and below 1. "
            f"Received: dropout={dropout!r}"
        )
    if not include_top:
        return
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
        raise ValueError(
            "The `classes` argument should be a positive integer. "
            f"Received: classes={classes!r}"
        )
    allowed = (keras.activations.get("softmax"), keras.activations.get(None))
    if (
        weights is not None
        and keras.activations.get(classifier_activation) not in allowed
    ):
        raise ValueError(
            "Only `None` and `softmax` activations are allowed for the "
            "`classifier_activation` argument when using pretrained weights, "
            "with `include_top=True`; Received: "
            f"classifier_activation={classifier_activation}"
        )


def resolve_input(
    *,
    input_tensor: Any,
    input_shape: tuple | list | None,
    include_top: bool,
    weights: str | os.PathLike | None,
    default_size: int,
) -> tuple[Any, Any]:
    """Finds where the network starts.

    Args:
        input_tensor: a KerasTensor to start from, or `None`.
        input_shape: `(height, width, channels)`, or `None` for the default:
            the size of the weights with a top, any size without.
        include_top: whether the network ends in a classifier.
        weights: as passed to the builder.
        default_size: side of the picture that the weights were trained at.

    Returns:
        The tensor to build on, and the inputs of the model.

    Raises:
        ValueError: names the argument, what was received and what would be
            right.
    """
    if input_tensor is not None:
        if not isinstance(input_tensor, keras.KerasTensor):
            raise ValueError(
                "The `input_tensor` argument should be a KerasTensor, such as "
                "the output of `keras.layers.Input()`. Received: "
                f"input_tensor={input_tensor!r}"
            )
        tensor_shape = tuple(input_tensor.shape[1:])
        if input_shape is not None and not _agree(
            _three_integers(input_shape), tensor_shape
        ):
            raise ValueError(
                "`input_shape` and `input_tensor` disagree: pass only one. "
                f"Received: input_shape={tuple(input_shape)}, and an "
                f"`input_tensor` of shape {tuple(input_tensor.shape)}"
            )
        _check_shape(_three_integers(tensor_shape), weights == "imagenet")
        sources = keras.utils.get_source_inputs(input_tensor)
        # A list of one makes Keras warn at every call with a plain tensor.
        return input_tensor, sources[0] if len(sources) == 1 else sources
    default_shape = (default_size, default_size, 3)
    if input_shape is None:
        input_shape = default_shape if include_top else (None, None, 3)
    input_shape = _three_integers(input_shape)
    # A tensor is free of these two rules, as in Keras.
    if include_top and weights == "imagenet" and input_shape != default_shape:
        raise ValueError(
            "When setting `include_top=True` and loading `imagenet` weights, "
            f"`input_shape` should be {default_shape}. "
            f"Received: input_shape={input_shape}"
        )
    _check_shape(input_shape, weights == "imagenet")
    if include_top and None in input_shape:
        raise ValueError(
            "If `include_top` is True, you should specify a static "
            f"`input_shape`. Received: input_shape={input_shape}"
        )
    inputs = keras.layers.Input(shape=input_shape, name="image")
    return inputs, inputs


def _three_integers(input_shape):
    try:
        shape = tuple(
            size if size is None else operator.index(size)
            for size in input_shape
        )
    except TypeError:
        shape = ()
    if len(shape) != 3:
        raise ValueError(
            "`input_shape` must be a tuple of three integers. "
            f"Received: input_shape={input_shape}"
        )
    return shape


def _check_shape(input_shape, pretrained):
    *sides, channels = input_shape
    if pretrained and channels != 3:
        raise ValueError(
            f"The input must have 3 channels; Received `input_shape="
            f"{input_shape}`"
        )
    if any(size is not None and size < MIN_SIZE for size in sides):
        raise ValueError(
            f"Input size must be at least {MIN_SIZE}x{MIN_SIZE}; Received: "
            f"input_shape={input_shape}"
        )
    if channels is None or channels < 1:
        raise ValueError(
            "The last entry of `input_shape`, the channels, must be a "
            f"positive integer. Received: input_shape={input_shape}"
        )


def _agree(shape, other):
    return len(shape) == len(other) and all(
        None in (a, b) or a == b for a, b in zip(shape, other)
    )


def _is_known(weights):
    if weights is None:
        return True
    is_path = isinstance(weights, (str, os.PathLike))
    return is_path and (weights == "imagenet" or os.path.isfile(weights))
