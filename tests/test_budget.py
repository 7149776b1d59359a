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
from keras_mobilevit.tflite.origins import layers_in_ops
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


def test_a_layer_is_kept_under_its_own_name(tiny_pictures, tmp_path):
    # As Keras numbers unnamed layers. One channel is large between the first
    # two, so that the output of one and the kernel of the other are bad.
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Rescaling(1 / 255.0)(image)
    for i, end in enumerate(("", "_1", "_2", "_3")):
        strides = 2 if i < 2 else 1
        conv = keras.layers.Conv2D(8, 3, strides, "same", name=f"conv{end}")
        x = keras.layers.ReLU(name=f"relu{end}")(conv(x))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    first, second = (model.get_layer(name) for name in ("conv", "conv_1"))
    factors = np.r_[2000.0, np.ones(7)]
    first.kernel.assign(first.kernel.numpy() * factors)
    second.kernel.assign(second.kernel.numpy() / factors[:, np.newaxis])
    path = tmp_path / "a.tflite"
    report = tflite.convert(
        model,
        path,
        precision="int8",
        calibration_data=tiny_pictures,
        equalize=False,
        min_sqnr=28,
        validation_data=tiny_pictures,
    )
    # Of a convolution and the activation merged with it the worse is named.
    assert report.budget.kept == ("relu", "conv_1")
    assert report.budget.unkept < 25 and report.budget.found >= 28
    file = flatbuffer.read_model(path.read_bytes())
    trails = [trail for trail, _ in graph.walk(model)]
    tensors = file.subgraphs[0].tensors
    in_float = [
        owners
        for node, owners in zip(
            flatbuffer.nodes(file), layers_in_ops(file, trails)
        )
        if node.name == "CONV_2D"
        and flatbuffer.is_float(tensors[node.outputs[0]])
    ]
    assert in_float == [["relu", "conv"], ["relu_1", "conv_1"]]


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


def _numbered_model(kind):
    """A model of convolutions whose names look like those of their scopes."""
    image = keras.Input((8, 8, 2), name="image")

    def conv(name):
        return keras.layers.Conv2D(2, 3, padding="same", name=name)

    def nested(name, names):
        source = keras.Input((8, 8, 2))
        x = source
        for layer in map(conv, names):
            x = layer(x)
        return keras.Model(source, x, name=name)

    layers = [conv(name) for name in ("a", "a_1", "a_1_1", "A", "b_1", "b")]
    if kind == "called twice":
        layers = [layers[i] for i in (0, 1, 0, 2, 1, 0)]
    if kind == "nested":
        layers = [nested("m", ("a", "a_1")), nested("m_1", ("a_1", "a"))]
        layers = [*layers, conv("m_2"), layers[0]]
    head = [keras.layers.Flatten(name="f"), keras.layers.Dense(5, name="f_1")]
    if kind == "sequential":
        return keras.Sequential([image, *layers, *head])
    x = image
    for layer in [*layers, *head]:
        x = layer(x)
    return keras.Model(image, x)


@pytest.mark.parametrize(
    "kind", ["functional", "sequential", "called twice", "nested"]
)
def test_an_operation_belongs_to_the_layer_of_its_weights(kind, tmp_path):
    model = _numbered_model(kind)
    kernels = {
        trail: layer.kernel
        for trail, layer in graph.walk(model)
        if hasattr(layer, "kernel")
    }
    for value, kernel in enumerate(kernels.values()):
        kernel.assign(np.full(kernel.shape, 1.0 + value))
    path = tmp_path / "a.tflite"
    tflite.convert(model, path, precision="float32")
    file = flatbuffer.read_model(path.read_bytes())
    trails = [trail for trail, _ in graph.walk(model)]
    found, wanted = [], []
    for owner, op in zip(
        layers_of_ops(file, trails), file.subgraphs[0].operators
    ):
        if len(op.inputs) > 2:
            kernel = flatbuffer.constant(file, op.inputs[1])
            found.append(owner)
            wanted.append(list(kernels)[int(kernel.max()) - 1])
    assert set(wanted) == set(kernels)
    assert found == wanted


def test_what_is_merged_into_one_operation_is_ranked_once():
    owners = [["relu", "conv"], ["relu", "conv_1"], ["dense"], []]
    layers = ["conv_1", "absent", "relu", "dense", "conv"]
    assert budget._ranked(layers, owners) == ["conv_1", "relu", "dense", "conv"]
    owners = [["relu", "conv"], ["dense"]]
    assert budget._ranked(layers, owners) == ["relu", "dense"]
