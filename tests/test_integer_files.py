"""What is done to the ranges and biases of integer files."""

from pathlib import Path

import keras
import numpy as np
import pytest

from keras_mobilevit import tflite
from keras_mobilevit.layers.conv import live_inputs
from keras_mobilevit.quantization import clipping
from keras_mobilevit.quantization.rounding import signal_to_noise
from keras_mobilevit.tflite import bias
from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite import silu
from keras_mobilevit.tflite import writers
from keras_mobilevit.tflite.interpreter import Runner
from keras_mobilevit.tflite.origins import layers_of_ops


@pytest.fixture(scope="module")
def pictures(tiny_pictures):
    return tiny_pictures.astype("float32")


@pytest.fixture(scope="module")
def files(tiny_model, pictures, tmp_path_factory):
    """The tiny model, not equalised: `{precision: path}`."""
    folder = tmp_path_factory.mktemp("files")
    paths = {name: folder / f"{name}.tflite" for name in ("float32", "int8")}
    for precision, path in paths.items():
        tflite.convert(
            tiny_model,
            path,
            precision=precision,
            calibration_data=pictures,
            equalize=False,
            input_dtype="float32",
        )
    return paths


def test_shifted_biases_are_found(tiny_saved_model, pictures, tmp_path):
    writer = writers.IntegerWriter(
        Path(tiny_saved_model), pictures, "float32", "int8", refine=True
    )
    data = writer.write()
    model = flatbuffer.read_model(data)
    generator = np.random.default_rng(0)
    for index, output in bias._layers(model):
        step = model.subgraphs[0].tensors[output].quantization.scale[0]
        channels = model.subgraphs[0].tensors[output].shape[-1]
        shift = 10 * step * generator.normal(size=channels)
        bias._add_to_bias(model, index, shift)
    shifted = flatbuffer.write_model(model)
    bias.correct_biases(model, writer.model, pictures)
    corrected = flatbuffer.write_model(model)
    results = []
    for name, written in enumerate((data, shifted, corrected)):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(written)
        results.append(Runner(path)(pictures))
    wanted = results[0]
    assert signal_to_noise(wanted, results[1]) < 10
    assert signal_to_noise(wanted, results[2]) > 20


def test_a_file_of_floats_has_no_biases_to_correct(files, pictures):
    data = files["float32"].read_bytes()
    model = flatbuffer.read_model(data)
    before = flatbuffer.write_model(model)
    bias.correct_biases(model, flatbuffer.read_model(data), pictures)
    assert flatbuffer.write_model(model) == before


@pytest.mark.parametrize("low", [0.0, -8.0])
def test_a_range_is_narrowed_where_that_gains(low):
    generator = np.random.default_rng(0)
    rare = np.clip(generator.normal(size=1_000_000), low, None)
    rare[0] = 30.0
    counts = clipping.Counts({0: (min(rare), 30.0), 1: (-1.0, 1.0), 2: (0, 0)})
    counts.add(0, rare)
    counts.add(1, generator.uniform(-1, 1, 100_000))
    counts.add(2, np.zeros(5))
    found = counts.best(0)
    assert 0.4 * min(rare) >= found[0] >= min(rare)
    assert 10 < found[1] < 25
    assert counts.best(1) == (-1.0, 1.0)
    assert counts.best(2) == (0.0, 0.0)


@pytest.mark.parametrize("scale", [1.0, 0.01, -0.2, -3.0])
def test_what_a_gate_does_not_let_through_does_not_count(scale):
    x = np.linspace(-2000, 2000, 4001)[:, np.newaxis]

    def gate(x):
        return 1 / (1 + np.exp(-np.clip(scale * x, -50, 50)))

    live = np.asarray(live_inputs(x, np.array([scale])))
    cut = live != x
    assert cut.any()
    assert np.all(np.rint(256 * gate(x[cut])) == 0)
    assert np.all(np.rint(256 * gate(live[cut])) <= 1)


def test_gates_are_found_with_their_scales(tiny_model, files):
    model = flatbuffer.read_model(files["float32"].read_bytes())
    count = sum(n.name == "LOGISTIC" for n in flatbuffer.nodes(model))
    gates = silu.gate_scales(model)
    assert len(gates) == count > 3
    for tensor, scale in gates.items():
        channels = model.subgraphs[0].tensors[tensor].shape[-1]
        assert np.array_equal(scale, np.ones(channels))


@pytest.fixture(scope="module")
def equalised_file(tiny_model, pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("equalised") / "int8.tflite"
    options = {"precision": "int8", "calibration_data": pictures}
    tflite.convert(tiny_model, path, **options)
    return path


def test_layers_of_a_file_follow_those_of_the_model(
    tiny_model, equalised_file, pictures, tmp_path
):
    report = tflite.compare_layers(equalised_file, tiny_model, pictures)
    rows = {row.layer: row for row in report.layers}
    assert {"stem/act", "block1/depthwise/act", "predictions"} <= set(rows)
    assert all(row.dtype == "int8" for row in rows.values())
    assert min(row.sqnr_db for row in rows.values()) > 15
    assert rows["stem/act"].sqnr_db > rows["block2/fusion/act"].sqnr_db
    assert "block1/depthwise" in str(report)
    report.plot(tmp_path / "layers.png")
    assert (tmp_path / "layers.png").stat().st_size > 1000


def test_no_layer_of_a_float_file_seems_to_lose(tiny_model, files, pictures):
    report = tflite.compare_layers(files["float32"], tiny_model, pictures)
    rows = {row.layer: row for row in report.layers}
    # Without its mean over the channels in the file.
    assert "block2/transformer_0/ffn_project" in rows
    assert min(row.sqnr_db for row in rows.values()) > 90


def test_numbered_layers_are_compared_with_themselves(pictures, tmp_path):
    image = keras.Input((32, 32, 3), name="image")
    x = image
    for name in ("conv", "conv_1", "conv_2"):  # as Keras names them itself
        x = keras.layers.Conv2D(3, 3, activation="relu", name=name)(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, keras.layers.Dense(4, name="logits")(x))
    path = tmp_path / "a.tflite"
    tflite.convert(model, path, precision="float32")
    rows = tflite.compare_layers(path, model, pictures).layers
    names = [row.layer for row in rows]
    assert names == ["conv", "conv_1", "conv_2", "pool", "logits"]
    assert min(row.sqnr_db for row in rows) > 90


def test_the_layer_that_spoils_a_file_is_seen(
    tiny_model, equalised_file, pictures, tmp_path
):
    model = flatbuffer.read_model(equalised_file.read_bytes())
    owners = layers_of_ops(model, ["block1/depthwise"])
    (index,) = [
        i
        for i, node in enumerate(flatbuffer.nodes(model))
        if node.name == "DEPTHWISE_CONV_2D" and owners[i]
    ]
    generator = np.random.default_rng(0)
    kernel = model.subgraphs[0].operators[index].inputs[1]
    buffer = model.buffers[model.subgraphs[0].tensors[kernel].buffer]
    buffer.data = generator.permutation(np.asarray(buffer.data, np.uint8))
    path = tmp_path / "spoilt.tflite"
    path.write_bytes(flatbuffer.write_model(model))
    found = [
        {row.layer: row.sqnr_db for row in report.layers}
        for report in (
            tflite.compare_layers(file, tiny_model, pictures)
            for file in (equalised_file, path)
        )
    ]
    assert found[0]["block1/expand/act"] == found[1]["block1/expand/act"]
    assert (
        found[1]["block1/depthwise/norm"]
        < found[0]["block1/depthwise/norm"] - 10
    )


def test_another_model_is_refused(equalised_file, pictures):
    other = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.Conv2D(3, 3, name="own")]
    )
    with pytest.raises(ValueError, match="the one that the file was made from"):
        tflite.compare_layers(equalised_file, other, pictures)
