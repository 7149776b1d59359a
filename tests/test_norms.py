"""The forms of a norm in a file of integers."""

import keras
import numpy as np
import pytest

from keras_mobilevit import tflite
from keras_mobilevit.layers import LayerNorm
from keras_mobilevit.quantization import graph
from keras_mobilevit.quantization.rounding import signal_to_noise
from keras_mobilevit.tflite.interpreter import Runner

# What is written for a norm, of the operations that only one form has.
BY_LENGTH = {"L2_NORMALIZATION": 1}
BY_PEAK = {"ABS": 1, "REDUCE_MAX": 1, "RSQRT": 2}
FORMS = {
    ("cpu", "int8"): BY_LENGTH,
    ("edgetpu", "int8"): BY_LENGTH,
    ("gpu", "int8"): BY_PEAK,
    ("cpu", "int16x8"): BY_PEAK,
}


@pytest.mark.parametrize("target, precision", FORMS)
def test_each_target_gets_its_form(
    convert, target, precision, tiny_model, tmp_path
):
    norms = sum(
        isinstance(layer, LayerNorm) for _, layer in graph.walk(tiny_model)
    )
    convert(tmp_path / "a.tflite", target=target, precision=precision)
    found = tflite.inspect(tmp_path / "a.tflite")
    assert not found.float_ops
    counts = {
        name: count
        for name, count in found.op_counts.items()
        if name in BY_LENGTH | BY_PEAK
    }
    form = FORMS[target, precision]
    assert counts == {name: norms * n for name, n in form.items()}
    assert found.min_runtime == "2.5.0"


def test_norms_stay_in_float_beside_int8(convert, tmp_path):
    convert(tmp_path / "a.tflite", precision="int8_mixed")
    counts = tflite.inspect(tmp_path / "a.tflite").op_counts
    assert "RSQRT" in counts
    assert not {"L2_NORMALIZATION", "ABS"} & set(counts)


@pytest.mark.parametrize("target, precision", FORMS)
def test_small_vectors_keep_their_direction(target, precision, tmp_path):
    """Where one position is 30 times another, and one is nothing at all."""
    image = keras.Input((4, 8, 3))
    x = keras.layers.Conv2D(48, 1, use_bias=False)(image)
    model = keras.Model(image, LayerNorm(affine=False)(x))
    generator = np.random.default_rng(0)
    pictures = generator.uniform(0, 255, (64, 4, 8, 3))
    pictures *= 30.0 ** -np.linspace(0, 1, 8)[:, np.newaxis]
    pictures[:, 0, 0] = 0
    pictures[0, 1, 0] = 255
    path = tmp_path / "a.tflite"
    tflite.convert(
        model,
        path,
        target=target,
        precision=precision,
        calibration_data=pictures,
        # Corrected biases would make something of nothing in 16 bits.
        refine=precision == "int8",
        input_dtype="float32",
    )
    actual = Runner(path)(pictures)
    assert not np.any(actual[:, 0, 0])
    # What exact norms of rounded vectors have.
    vectors = keras.Model(image, x).predict(pictures, verbose=0)
    vectors -= vectors.mean(axis=-1, keepdims=True)
    step = np.ptp(vectors) / 255
    exact, rounded = (
        x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-5)
        for x in (vectors, step * np.rint(vectors / step))
    )
    for column in range(8):
        at = np.s_[1:, 1:, column]
        limit = signal_to_noise(exact[at], rounded[at]) - 7
        if precision == "int16x8":  # the kernel of the convolution has 8
            limit = max(limit, 35)
        assert signal_to_noise(exact[at], actual[at]) > limit, column
