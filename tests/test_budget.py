"""Files that keep an accuracy budget, and which layers an op came from."""

import keras
import numpy as np
import pytest

from keras_mobilevit import quantization
from keras_mobilevit import tflite
from keras_mobilevit.layers import InvertedResidual
from keras_mobilevit.quantization import graph
from keras_mobilevit.tflite import budget
from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite.origins import layers_of_ops


@pytest.fixture(scope="module")
def broken_model(tiny_pictures):
    """A classifier with one channel so large that plain int8 loses the rest.

    The large channel passes the gate of the expansion and is undone behind.
    """
    keras.utils.set_random_seed(3)
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Rescaling(1 / 255.0)(image)
    x = InvertedResidual(8, strides=2, expansion=4, name="block1")(x)
    x = InvertedResidual(16, strides=2, expansion=4, name="block2")(x)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = keras.layers.Dense(7, activation="softmax", name="predictions")(x)
    model = keras.Model(image, x)
    pictures = tiny_pictures.astype("float32")
    block = model.get_layer("block2")
    gamma = block.expand.norm.gamma.numpy()
    block.expand.norm.gamma.assign(np.r_[400 * gamma[0], gamma[1:]])
    kernel = block.depthwise.kernel.numpy()
    kernel[:, :, 0] /= 400
    block.depthwise.kernel.assign(kernel)
    head = model.get_layer("predictions")
    pooled = keras.Model(image, head.input).predict(pictures, verbose=0)
    kernel = head.kernel.numpy() / (pooled @ head.kernel.numpy()).std(axis=0)
    head.kernel.assign(4 * kernel)
    head.bias.assign(-4 * (pooled @ kernel).mean(axis=0))
    return model


def test_the_fewest_layers_stay_in_float(broken_model, tiny_pictures, tmp_path):
    pictures = tiny_pictures.astype("float32")
    options = {"precision": "int8", "calibration_data": pictures}
    path = tmp_path / "a.tflite"
    plain = tflite.convert(broken_model, path, equalize=False, **options)
    labels = broken_model.predict(pictures, verbose=0).argmax(axis=1)
    before = tflite.evaluate(path, (tiny_pictures, labels), progress=False)
    report = tflite.convert(
        broken_model,
        path,
        equalize=False,
        max_drop=5.0,
        validation_data=(tiny_pictures, labels),
        overwrite=True,
        **options,
    )
    after = tflite.evaluate(path, (tiny_pictures, labels), progress=False)
    found = report.budget
    assert found.unkept == pytest.approx(100 * (1 - before.top1), abs=0.1)
    assert found.found == pytest.approx(100 * (1 - after.top1), abs=0.1)
    assert found.unkept > 20 and found.found <= 5
    layers = quantization.sensitivity(broken_model, pictures, progress=False)
    assert 0 < len(found.kept) < len(layers.layers) / 2
    assert any(name.startswith("block2/expand") for name in found.kept)
    assert report.float_ops and plain.float_ops == 0
    assert found.size_ratio == round(report.size / plain.size, 3)
    assert found.kept[0] in str(report)


def test_a_model_without_classes_keeps_its_signal(
    broken_model, tiny_pictures, tmp_path
):
    features = keras.Model(
        broken_model.input, broken_model.get_layer("block2").output
    )
    report = tflite.convert(
        features,
        tmp_path / "a.tflite",
        precision="int8",
        calibration_data=tiny_pictures,
        equalize=False,
        min_sqnr=30,
        validation_data=tiny_pictures[:16],
    )
    found = report.budget
    assert found.unit == "dB" and found.n == 16
    assert found.unkept < 20 and found.found >= 30 and found.kept
    assert "of 30 wanted" in str(found)


def test_nothing_is_kept_where_nothing_is_lost(
    tiny_model, tiny_pictures, tmp_path
):
    report = tflite.convert(
        tiny_model,
        tmp_path / "a.tflite",
        precision="int8_mixed",
        calibration_data=tiny_pictures,
        max_drop=60,
        validation_data=tiny_pictures,
    )
    assert report.budget.kept == () and report.budget.n == 48


def test_an_impossible_budget_says_the_best(
    tiny_model, tiny_pictures, tmp_path, monkeypatch
):
    def random_outputs(data, pictures):
        return np.random.default_rng(0).uniform(size=(len(pictures), 7))

    monkeypatch.setattr(budget, "_outputs", random_outputs)
    path = tmp_path / "a.tflite"
    with pytest.raises(tflite.BudgetError, match="best found, .* has"):
        tflite.convert(
            tiny_model,
            path,
            precision="int8",
            calibration_data=tiny_pictures,
            max_drop=0.5,
            validation_data=tiny_pictures,
        )
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drop": 1}, "needs `validation_data`"),
        ({"max_drop": -1, "validation_data": []}, "from 0 to 100"),
        ({"max_drop": True, "validation_data": []}, "from 0 to 100"),
        ({"validation_data": []}, "pass one of them too"),
        ({"max_drop": 1, "min_sqnr": 20}, "one of `max_drop` and `min_sqnr`"),
        ({"min_sqnr": "much", "validation_data": []}, "decibels from 0 to 120"),
        ({"min_sqnr": 20}, "`min_sqnr` needs `validation_data`"),
        ({"min_sqnr": 20, "validation_data": []}, "must hold pictures"),
        ({"max_drop": 1, "precision": "float16"}, "is for `precision`"),
        ({"max_drop": 1, "validation_data": []}, "must hold pictures"),
    ],
)
def test_bad_budgets(tiny_model, tiny_pictures, tmp_path, options, message):
    options = {"precision": "int8", **options}
    if options["precision"] == "int8":
        options["calibration_data"] = tiny_pictures
    with pytest.raises(ValueError, match=message):
        tflite.convert(tiny_model, tmp_path / "a.tflite", **options)


def test_ops_belong_to_their_layers(tiny_model, tmp_path):
    path = tmp_path / "a.tflite"
    tflite.convert(tiny_model, path, precision="float32")
    model = flatbuffer.read_model(path.read_bytes())
    trails = [trail for trail, _ in graph.walk(tiny_model)]
    owners = layers_of_ops(model, trails)
    names = [node.name for node in flatbuffer.nodes(model)]
    assert all(owners)
    found = set(zip(names, owners))
    assert ("CONV_2D", "block1/expand") in found or (
        "CONV_2D",
        "block1/expand/norm",
    ) in found
    assert ("SOFTMAX", "predictions") in found
    assert ("RSQRT", "block2/transformer_0/norm1") in found
    assert ("FULLY_CONNECTED", "predictions") in found
