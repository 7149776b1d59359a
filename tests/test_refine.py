"""Where a rounding model starts: its ranges and its biases."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mobilevit import quantization
from keras_mobilevit import tflite
from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import InvertedResidual
from keras_mobilevit.layers.linear_attention import GroupNorm
from keras_mobilevit.quantization import graph
from keras_mobilevit.quantization import refine
from keras_mobilevit.quantization.quantizers import RoundedActivation
from keras_mobilevit.quantization.rounding import signal_to_noise


@pytest.fixture(scope="module")
def pictures(tiny_pictures):
    return tiny_pictures.astype("float32")


def chain(*layers):
    """A model of these layers on pictures of 32 pixels."""
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Rescaling(1 / 255, name="rescaling")(image)
    for layer in layers:
        x = layer(x)
    return keras.Model(image, x)


def unrefined(model, pictures):
    return quantization.quantize_model(
        model, pictures, equalize=False, refine=False
    )


def ranges(model):
    return {
        trail: layer.range()
        for trail, layer in graph.walk(model)
        if isinstance(layer, RoundedActivation)
    }


def sqnr(model, rounding, pictures):
    exact = model.predict(pictures, verbose=0)
    return signal_to_noise(exact, rounding.predict(pictures, verbose=0))


def test_ranges_narrow_where_values_are_rare(pictures):
    conv = ConvNormAct(8, name="conv", activation=None)
    model = chain(conv)
    conv.kernel.assign(conv.kernel.numpy() * np.float32([40] + 7 * [1]))
    rounding = unrefined(model, pictures)
    before = ranges(rounding)
    low, high = before["conv/outputs"]
    refine.narrow_ranges(rounding, pictures)
    after = ranges(rounding)
    assert after["rounded_image"] == before["rounded_image"] == (0, 255)
    narrow_low, narrow_high = after["conv/outputs"]
    assert low <= narrow_low <= 0 <= narrow_high <= high
    assert narrow_high - narrow_low < 0.97 * (high - low)


def test_what_is_averaged_keeps_its_range(pictures):
    model = chain(ConvNormAct(8, strides=4), GroupNorm(name="norm"))
    rounding = unrefined(model, pictures)
    before = ranges(rounding)
    refine.narrow_ranges(rounding, pictures)
    after = ranges(rounding)
    for step in GroupNorm._STEPS:
        assert after[f"norm/{step}"] == before[f"norm/{step}"], step
    assert after["norm/outputs"] != before["norm/outputs"]


@pytest.mark.parametrize("kind", ["Average", "Max"])
@pytest.mark.parametrize("is_read", [False, True])
def test_what_is_pooled_keeps_its_range(pictures, kind, is_read):
    """As in a file that is quantized after training."""
    inputs = keras.Input((32, 32, 3), name="image")
    x = chain(ConvNormAct(8, strides=4, name="conv"))(inputs)
    pool = getattr(keras.layers, f"Global{kind}Pooling2D")
    outputs = [pool(name="pool")(keras.layers.Dropout(0.1)(x))]
    if is_read:
        outputs.append(keras.layers.Flatten(name="flat")(x))
    rounding = unrefined(keras.Model(inputs, outputs), pictures)
    (conv,) = graph.find(rounding, ConvNormAct)
    tensor = conv.act.outputs
    before = tensor.range()
    refine.narrow_ranges(rounding, pictures)
    assert (tensor.range() == before) != is_read


def test_biases_restore_the_means(pictures):
    model = chain(
        ConvNormAct(8, strides=2, name="stem"),
        InvertedResidual(16, strides=2, name="block"),
        keras.layers.GlobalAveragePooling2D(name="pool"),
        keras.layers.Dense(5, name="head"),
    )
    rounding = unrefined(model, pictures)
    tensor = rounding.get_layer("stem").outputs
    low, high = tensor.range()
    tensor.set_range(low, 0.3 * high)  # clipping shifts the means
    exact = model.predict(pictures, verbose=0).mean(0)

    def shift():
        return np.abs(rounding.predict(pictures, verbose=0).mean(0) - exact)

    before = shift().max()
    refine.correct_biases(rounding, pictures)
    assert shift().max() < before / 4


def test_a_layer_that_is_called_twice_is_left_alone(pictures):
    shared = ConvNormAct(3, 1, name="shared")
    rounding = unrefined(chain(shared, shared), pictures)
    before = rounding.get_layer("shared").norm.beta.numpy()
    refine.correct_biases(rounding, pictures)
    np.testing.assert_array_equal(
        rounding.get_layer("shared").norm.beta.numpy(), before
    )


def uneven(seed=0):
    """A net whose gates close at very different values."""
    keras.utils.set_random_seed(seed)
    model = chain(
        ConvNormAct(16, strides=2, equalized=True, name="stem"),
        InvertedResidual(16, equalized=True, name="block1"),
        InvertedResidual(16, strides=2, equalized=True, name="block2"),
        keras.layers.GlobalAveragePooling2D(name="pool"),
        keras.layers.Dense(5, name="head"),
    )
    generator = np.random.default_rng(seed)
    for layer in graph.find(model, ConvNormAct):
        if layer.equalized:
            scale = np.exp(generator.normal(0, 1.0, layer.filters))
            layer.act.gate_scale.assign(scale)
            layer.norm.gamma.assign(8 * np.ones(layer.filters))
    return model


def test_refining_lowers_the_noise(pictures):
    model = uneven()
    plain = sqnr(model, unrefined(model, pictures), pictures)
    rounding = quantization.quantize_model(model, pictures, equalize=False)
    assert sqnr(model, rounding, pictures) > plain + 1


def test_what_gates_shut_out_shifts_no_bias(pictures, tmp_path):
    """Else the mean of values that have no effect would move the others."""
    model, found = uneven(), {}
    for is_refined in (False, True):
        path = tmp_path / f"{is_refined}.tflite"
        tflite.convert(
            *(model, path),
            precision="int8",
            calibration_data=pictures,
            equalize=False,
            refine=is_refined,
            input_dtype="float32",
        )
        found[is_refined] = tflite.compare(path, model, pictures).sqnr_db
    assert found[True] > found[False] + 1


def test_the_model_computes_in_float_what_it_did(pictures):
    """But for the biases, and those move by less than a step."""
    model = uneven()
    rounding = quantization.quantize_model(model, pictures, equalize=False)
    plain = quantization.strip(rounding)
    for before, after in zip(model.weights, plain.weights, strict=True):
        assert before.shape == after.shape
        if not before.path.endswith(("beta", "bias")):
            np.testing.assert_array_equal(
                ops.convert_to_numpy(before), ops.convert_to_numpy(after)
            )
