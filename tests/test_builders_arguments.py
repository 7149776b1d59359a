"""Arguments of the builders: taken and refused as `keras.applications` does."""

import os

import keras
import numpy as np
import pytest
from builders import BUILDERS
from builders import TINY
from builders import each_builder

from keras_mobilevit import mobilevit
from keras_mobilevit.configs import MOBILEVIT


def outcome(builder, arguments):
    """Returns the output shape, or the type of the exception."""
    arguments = dict(arguments)
    tensor_shape = arguments.pop("tensor_shape", None)
    if tensor_shape is not None:
        arguments["input_tensor"] = keras.Input(tensor_shape)
    try:
        return builder(**arguments).output_shape
    except Exception as error:
        return type(error)


GOOD_ARGUMENTS = {
    "defaults": {"weights": None},
    "classes": {**TINY, "classes": 7},
    "shape as list": {**TINY, "input_shape": [64, 64, 3]},
    "smallest": {**TINY, "input_shape": (32, 32, 3)},
    "one channel": {**TINY, "input_shape": (32, 32, 1)},
    "four channels": {**TINY, "input_shape": (32, 32, 4)},
    "logits": {**TINY, "classifier_activation": None},
    "sigmoid": {**TINY, "classifier_activation": "sigmoid"},
    "tensor": {"weights": None, "tensor_shape": (64, 64, 3)},
    "open tensor": {"weights": None, "tensor_shape": (None, None, 3)},
    "tensor and shape": {
        "weights": None,
        "tensor_shape": (64, 64, 3),
        "input_shape": (64, 64, 3),
    },
    "average pooling": {**TINY, "include_top": False, "pooling": "avg"},
    "maximum pooling": {**TINY, "include_top": False, "pooling": "max"},
}


@each_builder
@pytest.mark.parametrize("case", GOOD_ARGUMENTS)
def test_good_arguments_build_as_in_keras(variant, case):
    arguments = GOOD_ARGUMENTS[case]
    expected = outcome(keras.applications.MobileNetV2, arguments)
    if "pooling" in arguments:  # the widths of the networks differ
        expected = (None, MOBILEVIT[variant].head_channels)
    assert isinstance(expected, tuple)
    assert outcome(BUILDERS[variant], arguments) == expected


# arguments | the beginning of our message
BAD_ARGUMENTS = {
    "weights": (
        {"weights": "no/such/file"},
        "The `weights` argument should be either `None` (random "
        "initialization), `imagenet` (pre-training on ImageNet), or the path "
        "to the weights file to be loaded. Received: weights=no/such/file",
    ),
    "classes of imagenet": (
        {"weights": "imagenet", "classes": 10},
        "If using `weights='imagenet'` with `include_top=True`, `classes` "
        "should be 1000. Received classes=10",
    ),
    "open shape with top": (
        {"weights": None, "input_shape": (None, None, 3)},
        "If `include_top` is True, you should specify a static `input_shape`."
        " Received: ",
    ),
    "half open shape with top": (
        {"weights": None, "input_shape": (None, 64, 3)},
        "If `include_top` is True, you should specify a static `input_shape`."
        " Received: ",
    ),
    "rank 2": (
        {"weights": None, "input_shape": (64, 64)},
        "`input_shape` must be a tuple of three integers.",
    ),
    "rank 4": (
        {"weights": None, "input_shape": (1, 64, 64, 3)},
        "`input_shape` must be a tuple of three integers.",
    ),
    "rank 4 without top": (
        {"weights": None, "input_shape": (1, 64, 64, 3), "include_top": False},
        "`input_shape` must be a tuple of three integers.",
    ),
    "too small": (
        {"weights": None, "input_shape": (16, 16, 3)},
        "Input size must be at least 32x32; Received: input_shape=(16, 16, 3)",
    ),
    "too small without top": (
        {"weights": None, "input_shape": (64, 31, 3), "include_top": False},
        "Input size must be at least 32x32; Received: input_shape=(64, 31, 3)",
    ),
    "size of imagenet": (
        {"weights": "imagenet", "input_shape": (64, 64, 3)},
        "When setting `include_top=True` and loading `imagenet` weights, "
        "`input_shape` should be (256, 256, 3). Received: "
        "input_shape=(64, 64, 3)",
    ),
    "channels of imagenet": (
        {
            "weights": "imagenet",
            "input_shape": (64, 64, 4),
            "include_top": False,
        },
        "The input must have 3 channels; Received `input_shape=(64, 64, 4)`",
    ),
    "activation of imagenet": (
        {"weights": "imagenet", "classifier_activation": "relu"},
        "Only `None` and `softmax` activations are allowed for the "
        "`classifier_activation` argument when using pretrained weights, with "
        "`include_top=True`; Received: classifier_activation=relu",
    ),
    "no classes": (
        {**TINY, "classes": 0},
        "The `classes` argument should be a positive integer. "
        "Received: classes=0",
    ),
    "classes as text": (
        {**TINY, "classes": "10"},
        "The `classes` argument should be a positive integer. "
        "Received: classes='10'",
    ),
    "unknown argument": (
        {**TINY, "widht": 2},
        "{builder}() got an unexpected keyword argument 'widht'",
    ),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_raise_as_in_keras(case):
    arguments, _ = BAD_ARGUMENTS[case]
    expected = outcome(keras.applications.EfficientNetV2B0, arguments)
    assert issubclass(expected, Exception)
    for builder in BUILDERS.values():
        assert outcome(builder, arguments) is expected


@each_builder
@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_are_explained(variant, case):
    arguments, message = BAD_ARGUMENTS[case]
    arguments = dict(arguments)
    builder = BUILDERS[variant]
    if "tensor_shape" in arguments:
        shape = arguments.pop("tensor_shape")
        arguments["input_tensor"] = keras.Input(shape)
    with pytest.raises((ValueError, TypeError)) as caught:
        builder(**arguments)
    expected = message.format(builder=builder.__name__)
    assert str(caught.value).startswith(expected)


# Where Keras is silent or obscure, a ValueError that names the argument.
STRICTER = {
    "pooling": {"pooling": "bad", "include_top": False},
    "output_stride": {"output_stride": 4},
    "dropout": {"dropout": 1.0},
    "dropout text": {"dropout": "half"},
    "dropout nan": {"dropout": float("nan")},
    "weights number": {"weights": 1},
    "weights folder": {"weights": os.path.dirname(__file__)},
    "weights array": {"weights": np.zeros(2)},
    "classes bool": {"classes": True},
    "classes negative": {"classes": -1},
    "input_shape number": {"input_shape": 64},
    "input_shape text": {"input_shape": ("64", "64", "3")},
    "input_shape floats": {"input_shape": (64.0, 64.0, 3)},
    "input_shape without channels": {
        "input_shape": (64, 64, None),
        "include_top": False,
    },
    "input_shape no channel": {"input_shape": (64, 64, 0)},
    "input_tensor array": {"input_tensor": np.zeros((1, 64, 64, 3))},
    "input_tensor text": {"input_tensor": "image"},
}


@each_builder
@pytest.mark.parametrize("case", STRICTER)
def test_stricter_than_keras(variant, case):
    arguments = {**TINY, **STRICTER[case]}
    if "input_tensor" in arguments:
        del arguments["input_shape"]
    with pytest.raises(ValueError, match="Received") as caught:
        BUILDERS[variant](**arguments)
    assert f"`{case.split()[0]}" in str(caught.value)


@each_builder
@pytest.mark.parametrize("shape", ((96, 64, 3), (64, 64, 1), (64, 64), 64))
def test_input_shape_and_input_tensor_may_not_disagree(variant, shape):
    tensor = keras.Input((64, 64, 3))
    with pytest.raises(ValueError, match="`input_shape`"):
        BUILDERS[variant](weights=None, input_tensor=tensor, input_shape=shape)


def test_a_shape_may_hold_numpy_integers():
    model = mobilevit.MobileViT_XXS(
        **{**TINY, "input_shape": np.array([32, 32, 3])}
    )
    assert model.input_shape == (None, 32, 32, 3)


@each_builder
def test_channels_first_is_refused(variant):
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="channels_last"):
            BUILDERS[variant](weights=None)
    finally:
        keras.config.set_image_data_format("channels_last")
