"""The layer that loses most is named."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_mobilevit import quantization
from keras_mobilevit.quantization import graph
from keras_mobilevit.quantization import refine
from keras_mobilevit.quantization.quantizers import RoundedActivation
from keras_mobilevit.quantization.rounding import signal_to_noise
from keras_mobilevit.quantization.sensitivity import PICTURES


@pytest.fixture(scope="module")
def pictures(tiny_pictures):
    return tiny_pictures.astype("float32")


@pytest.fixture(scope="module")
def spoilt(tiny_model, pictures):
    """A quantized model, one tensor of which has a far too wide range."""
    model = quantization.quantize_model(tiny_model, pictures)
    model.get_layer("block1").depthwise.outputs.set_range(-300.0, 300.0)
    return model


@pytest.fixture(scope="module")
def report(spoilt, pictures):
    return quantization.sensitivity(spoilt, pictures, progress=False)


def test_the_worst_layer_comes_first(report):
    worst = report.layers[0]
    assert worst.layer == "block1/depthwise"
    assert worst.kind == "DepthwiseConvNormAct"
    assert worst.gain == max(row.gain for row in report.layers) > 3
    assert worst.gain_int16 == pytest.approx(worst.gain, abs=1)
    alone = [row.alone for row in report.layers]
    assert alone == sorted(alone)
    # All together lose at least as much as the worst one, or nearly so.
    assert report.total < worst.alone + 3


def test_a_float_model_is_what_its_rounding_is_compared_with(
    tiny_model, pictures
):
    found = quantization.sensitivity(tiny_model, pictures, progress=False)
    rounding = quantization.quantize_model(tiny_model, pictures, refine=False)
    refine.narrow_ranges(rounding, pictures)
    softmax = rounding.get_layer("predictions")
    softmax.rounded_outputs.switch = tf.constant(False)
    seen = pictures[:PICTURES]
    exact, rounded = (
        np.log(np.maximum(model.predict(seen, verbose=0), 1 / 512))
        for model in (tiny_model, rounding)
    )
    exact, rounded = (x - x.mean(-1, keepdims=True) for x in (exact, rounded))
    assert found.total == pytest.approx(
        signal_to_noise(exact, rounded), abs=0.02
    )


def test_the_steps_of_a_last_softmax_are_left_out(tiny_model, pictures):
    def without_softmax(config):
        config["layers"][-1]["config"]["activation"] = "linear"

    logits = graph.copy_with(tiny_model, without_softmax)
    for precision in "int8", "int8_mixed":
        found, expected = (
            quantization.sensitivity(model, pictures, precision, progress=False)
            for model in (tiny_model, logits)
        )
        assert found.total == pytest.approx(expected.total, abs=0.05)
        for row, other in zip(found.layers, expected.layers):
            assert row.layer == other.layer
            assert row.alone == pytest.approx(other.alone, abs=0.05)


def test_every_layer_that_rounds_has_a_row(report, spoilt):
    named = {row.layer for row in report.layers}
    for trail, layer in graph.walk(spoilt):
        if isinstance(layer, RoundedActivation):
            owner = trail.rsplit("/", 1)[0]
            assert owner in named or trail in named


def test_ranges_that_cut_and_channels_that_differ_are_seen(
    tiny_model, pictures
):
    model = quantization.quantize_model(tiny_model, pictures, equalize=False)
    depthwise = model.get_layer("block1").depthwise
    gamma = depthwise.norm.gamma.numpy()
    gamma[0] *= 100
    depthwise.norm.gamma.assign(gamma)
    rows = quantization.sensitivity(model, pictures, progress=False).layers
    (row,) = [row for row in rows if row.layer == "block1/depthwise"]
    assert row.saturated > 0.01 and row.imbalance > 10


def test_mixed_leaves_norms_and_attention_out(spoilt, report, pictures):
    mixed = quantization.sensitivity(
        spoilt, pictures, "int8_mixed", progress=False
    )
    kinds = {row.kind for row in mixed.layers}
    assert "ConvNormAct" in kinds
    assert not kinds & {"LayerNorm", "MultiHeadSelfAttention"}
    assert {"LayerNorm", "MultiHeadSelfAttention"} <= {
        row.kind for row in report.layers
    }


def test_the_model_is_as_it_was(spoilt, report, pictures):
    rounded = spoilt.predict(pictures, verbose=0)
    assert len(np.unique(rounded)) <= 256
    assert all(
        layer.switch is None for layer in graph.find(spoilt, RoundedActivation)
    )


def test_report_as_table_json_and_picture(report, tmp_path):
    assert "block1/depthwise" in str(report)
    assert json.loads(report.to_json())["layers"][0]["alone"]
    report.plot(tmp_path / "bars.png")
    assert Image.open(tmp_path / "bars.png").size[0] > 800


def test_unknown_precision(spoilt, pictures):
    with pytest.raises(ValueError, match="`precision` must be one of.*int4"):
        quantization.sensitivity(spoilt, pictures, "int4")


@pytest.mark.parametrize(
    "rounded, expected",
    [([3.0, 4.0], 200), ([3.0, 4.5], 20), ([3.0, np.nan], -200)],
)
def test_signal_to_noise(rounded, expected):
    found = signal_to_noise(np.array([3.0, 4.0]), np.array(rounded))
    assert found == pytest.approx(expected)
