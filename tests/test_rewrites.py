"""Exact rewrites before a file is written."""

import keras
import numpy as np
import pytest

from keras_mobilevit import tflite
from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import MobileViTBlock
from keras_mobilevit.layers import MobileViTV2Block
from keras_mobilevit.tflite import rewrites


@pytest.fixture(scope="module", params=[MobileViTBlock, MobileViTV2Block])
def block_model(request):
    """A model whose one map is odd, so that the block resizes it."""
    image = keras.Input((10, 14, 3), name="image")
    x = keras.layers.Rescaling(1 / 255.0)(image)
    x = ConvNormAct(8, strides=2)(x)
    x = request.param(8, 2, name="block")(x)
    model = keras.Model(image, x)
    generator = np.random.default_rng(0)
    for variable in model.weights:
        shift = generator.uniform(0.3, 1, variable.shape)
        variable.assign(variable.numpy() + shift)
    return model


def test_the_function_stays(block_model, tiny_pictures):
    pictures = tiny_pictures[:2, :10, :14].astype("float32")
    before = [weight.numpy() for weight in block_model.weights]
    expected = block_model.predict(pictures, verbose=0)
    simple = rewrites.simplify(block_model)
    found = simple.predict(pictures, verbose=0)
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() < 1e-5 * scale
    for weight, old in zip(block_model.weights, before):
        np.testing.assert_array_equal(weight.numpy(), old)
    # A copy from the config has the weights but skips nothing.
    copy = keras.models.clone_model(simple)
    copy.set_weights(simple.get_weights())
    again = copy.predict(pictures, verbose=0)
    assert np.abs(again - expected).max() < 1e-5 * scale


def test_operations_go(tiny_model, tiny_pictures, tmp_path):
    counts = {}
    for precision in ("float32", "float16", "int8_mixed"):
        data = tiny_pictures if precision == "int8_mixed" else None
        path = tmp_path / f"{precision}.tflite"
        tflite.convert(
            tiny_model, path, precision=precision, calibration_data=data
        )
        counts[precision] = tflite.inspect(path).op_counts
        # No norm subtracts its mean: one mean each, and that of the head.
        assert "SUB" not in counts[precision]
        assert counts[precision]["MEAN"] == 4
    # Two for each of three norms, one for each of six SiLUs, two residuals
    # and the epsilons; half precision keeps the scaling of the pixels.
    silus = counts["float32"]["LOGISTIC"]
    assert counts["float32"]["MUL"] == 2 * 3 + silus
    assert counts["float32"]["ADD"] == 3 + 2
    assert counts["float16"]["MUL"] == counts["float32"]["MUL"] + 1


def test_a_scaling_that_others_read_stays(tiny_pictures):
    image = keras.Input((32, 32, 3))
    scaled = keras.layers.Rescaling(1 / 255.0, name="scaled")(image)
    x = ConvNormAct(4, name="conv")(scaled)
    skipped = keras.layers.Concatenate()([x, scaled])
    pictures = tiny_pictures[:1]
    for outputs in (skipped, [x, scaled]):
        model = keras.Model(image, outputs)
        simple = rewrites.simplify(model)
        assert simple.get_layer("scaled").scale == 1 / 255.0
        for a, b in zip(
            *(
                keras.tree.flatten(m.predict(pictures, verbose=0))
                for m in (model, simple)
            )
        ):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_nested_models(tiny_model, tiny_pictures):
    image = keras.Input((32, 32, 3))
    model = keras.Model(image, tiny_model(image))
    simple = rewrites.simplify(model)
    inner = simple.get_layer(tiny_model.name)
    assert inner.get_layer("rescaling").scale == 1.0
    pictures = tiny_pictures[:4]
    np.testing.assert_allclose(
        simple.predict(pictures, verbose=0),
        model.predict(pictures, verbose=0),
        atol=1e-5,
    )
