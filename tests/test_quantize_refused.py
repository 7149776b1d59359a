"""Models and calibration data that quantize_model refuses."""

import keras
import numpy as np
import pytest

from keras_mobilevit import quantization


def model_of(*layers, shape=(8, 8, 4)):
    image = x = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return keras.Model(image, x)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [keras.layers.LayerNormalization(name="a")],
            "'a' .*keras_mobilevit.layers.LayerNorm",
        ),
        ([keras.layers.Conv1D(3, 3, name="a")], "'a' \\(Conv1D\\)"),
        (
            [keras.layers.Conv2DTranspose(3, 3, name="a")],
            "'a' \\(Conv2DTranspose\\)",
        ),
        (
            [keras.layers.BatchNormalization(name="a")],
            "'a' .*does not follow a convolution",
        ),
        (
            [keras.layers.Conv2D(3, 3, activation="gelu", name="a")],
            "'a' .*activation must be one of",
        ),
        (
            [
                keras.layers.Conv2D(3, 3, activation="relu", name="a"),
                keras.layers.BatchNormalization(name="b"),
            ],
            "'b' .*follows the activation of 'a'.*behind 'b'",
        ),
        (
            [keras.layers.Conv2D(4, 3, groups=2, name="a")],
            "'a' .*groups must be 1",
        ),
        ([keras.layers.UpSampling2D(name="a")], "'a' .*'bilinear'"),
        (
            [keras.layers.Conv2D(3, 3), lambda x: x + 1.0],
            "operation and no layer",
        ),
        (
            [
                keras.layers.PReLU(name="first"),
                keras.layers.EinsumDense("abcd,de->abce", (8, 8, 5), name="b"),
            ],
            "'first'.*'b'",
        ),
    ],
)
def test_unsupported_layers_are_named(layers, message):
    shape = (8, 4) if isinstance(layers[0], keras.layers.Conv1D) else (8, 8, 4)
    data = np.zeros((32, *shape), "float32")
    with pytest.raises(ValueError, match=message):
        quantization.quantize_model(model_of(*layers, shape=shape), data)


def test_subclassed_models_are_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="functional or sequential"):
        quantization.quantize_model(Own(), np.zeros((32, 8, 8, 3)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "`calibration_data` is needed"),
        (np.zeros((0, 32, 32, 3)), "must hold pictures"),
        (np.zeros((40, 16, 16, 3)), "must have the shape"),
        (np.full((40, 32, 32, 3), np.nan), "must hold finite"),
        ("pictures", "must be an array"),
    ],
)
def test_bad_calibration_data(tiny_model, data, message):
    with pytest.raises(ValueError, match=message):
        quantization.quantize_model(tiny_model, data)
