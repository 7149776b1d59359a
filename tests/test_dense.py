"""Dense layers as convolutions."""

import keras
import numpy as np
import pytest

from keras_mobilevit import tflite
from keras_mobilevit.tflite import dense
from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite.interpreter import Runner


@pytest.fixture(scope="module")
def path(tiny_pictures, tmp_path_factory):
    """A file with one dense layer behind a mean and one behind a dense one."""
    keras.utils.set_random_seed(0)
    image = keras.Input(tiny_pictures.shape[1:])
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(6, activation="relu")(x)
    model = keras.Model(image, keras.layers.Dense(5)(x))
    path = tmp_path_factory.mktemp("dense") / "a.tflite"
    tflite.convert(
        model, path, precision="int8", calibration_data=tiny_pictures
    )
    return path


def test_they_compute_the_same(path, tiny_pictures, tmp_path):
    model = flatbuffer.read_model(path.read_bytes())
    dense.to_convolutions(model)
    flatbuffer.state_versions(model)
    turned = tmp_path / "turned.tflite"
    turned.write_bytes(flatbuffer.write_model(model))
    before, after = tflite.inspect(path), tflite.inspect(turned)
    assert before.op_counts["FULLY_CONNECTED"] == 2
    assert "FULLY_CONNECTED" not in after.op_counts
    assert after.op_counts["SQUEEZE"] == 2
    # Only the second needs one: the mean before the first keeps its axes.
    assert after.op_counts["RESHAPE"] == 1
    assert after.check("edgetpu", compile_it=False).mapped == len(after.ops)
    expected, actual = (Runner(f)(tiny_pictures[:8]) for f in (path, turned))
    np.testing.assert_array_equal(actual, expected)


def test_float_ones_stay(tiny_float_file):
    model = flatbuffer.read_model(tiny_float_file.read_bytes())
    before = flatbuffer.nodes(model)
    dense.to_convolutions(model)
    assert flatbuffer.nodes(model) == before
