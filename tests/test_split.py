"""A file is cut where an Edge TPU's part ends; both halves give the whole."""

import json

import keras
import numpy as np
import pytest
from graphs import O
from graphs import T
from graphs import build

from keras_mobilevit import MobileViT_XXS
from keras_mobilevit import cli
from keras_mobilevit import tflite
from keras_mobilevit.tflite import metadata
from keras_mobilevit.tflite.interpreter import open_interpreter


def run(path, feeds):
    """Runs a file with TFLite's own kernels, fed and read by name."""
    interpreter = open_interpreter(path, 2, use_delegate=False)
    return interpreter.get_signature_runner()(**feeds)


def chained(first, second, feeds):
    between = run(first, feeds)
    details = open_interpreter(second, 1, use_delegate=False)
    wanted = details.get_signature_runner().get_input_details()
    known = {**feeds, **between}
    return run(second, {name: known[name] for name in wanted}) | {
        name: value for name, value in between.items() if name not in wanted
    }


def assert_chains(path, first, second, pictures):
    told_apart = []
    for picture in pictures:
        feeds = {"image": picture[np.newaxis]}
        whole = run(path, feeds)
        parts = chained(first, second, feeds)
        assert whole.keys() == parts.keys()
        for name, value in whole.items():
            np.testing.assert_array_equal(parts[name], value)
        told_apart.append(value)
    assert np.ptp(np.concatenate(told_apart), axis=0).max() > 0


@pytest.mark.parametrize("name", ["uint8_io", "int8_io", "int8"])
def test_parts_chain_bit_for_bit(tiny_files, tiny_pictures, name, tmp_path):
    path = tiny_files[name]
    first, second = tmp_path / "a.tflite", tmp_path / "b.tflite"
    report = tflite.split(path, first, second)
    dtype = tflite.inspect(path).inputs[0].dtype
    pictures = tiny_pictures[:8].astype("float32")
    pictures = (pictures - 128 * (dtype == "int8")).astype(dtype)
    assert_chains(path, first, second, pictures)

    whole, start, rest = map(tflite.inspect, (path, first, second))
    assert start.ops and rest.ops
    assert len(start.ops) + len(rest.ops) == len(whole.ops)
    assert [op.name for op in start.ops] + [op.name for op in rest.ops] == [
        op.name for op in sorted(whole.ops, key=lambda op: op.index)
    ]
    assert report.first.inputs == ("image",)
    assert report.first.outputs == report.second.inputs
    assert report.second.outputs == ("predictions",)
    assert start.min_runtime == rest.min_runtime == whole.min_runtime
    for tensor, same in zip(start.outputs, rest.inputs):
        assert (tensor.dtype, tensor.scale, tensor.zero_point) == (
            same.dtype,
            same.scale,
            same.zero_point,
        )
    assert json.loads(report.to_json())["first"]["ops"] == len(start.ops)
    assert "cut_0" in str(report)


def test_nothing_is_stored_twice(tiny_int8_file, tmp_path):
    first, second = tmp_path / "a.tflite", tmp_path / "b.tflite"
    tflite.split(tiny_int8_file, first, second)
    whole, start, rest = map(tflite.inspect, (tiny_int8_file, first, second))
    # Shapes and axes that several operations share stand in both.
    shared = start.weight_bytes + rest.weight_bytes - whole.weight_bytes
    assert 0 <= shared < 0.02 * whole.weight_bytes
    assert 0 < start.weight_bytes < whole.weight_bytes


def test_the_first_part_maps_alone(tiny_files, tmp_path):
    for name in ("uint8_io", "int8"):
        first, second = tmp_path / f"{name}1", tmp_path / f"{name}2"
        tflite.split(tiny_files[name], first, second)
        whole = tflite.inspect(tiny_files[name]).check("edgetpu", False)
        part = tflite.inspect(first).check("edgetpu", False)
        assert part.mapped == whole.mapped
        # With float ends the QUANTIZE of the input joins it.
        assert part.total - part.mapped == (name == "int8")


def test_a_full_size_file(tmp_path):
    """MobileViT-XXS at 256, all of its variables random."""
    model = MobileViT_XXS(weights=None)
    generator = np.random.default_rng(0)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if variable.name == "kernel":
            fan = np.prod(shape[:-1] if shape[-1] > 1 else shape[:2])
            variable.assign(generator.normal(0, (2 / fan) ** 0.5, shape))
        else:
            centre = variable.name in ("gamma", "moving_variance")
            change = generator.uniform(-0.3, 0.3, shape)
            variable.assign(centre + change)
    pictures = generator.integers(0, 256, (4, 32, 32, 3), "uint8")
    pictures = pictures.repeat(8, axis=1).repeat(8, axis=2)
    path = tmp_path / "xxs.tflite"
    with pytest.warns(UserWarning, match="only 4 pictures"):
        report = tflite.convert(
            model,
            path,
            target="edgetpu",
            calibration_data=pictures,
            split=True,
        )
    first, second = report.parts
    assert first == str(tmp_path / "xxs_first.tflite")
    assert second == str(tmp_path / "xxs_rest.tflite")
    assert_chains(path, first, second, pictures[:2])
    start = tflite.inspect(first)
    kernels = [
        op.input_shapes[1] for op in start.ops if op.name == "DEPTHWISE_CONV_2D"
    ]
    # The stem's MV2 blocks; those of 1x1 are the factors of gates.
    assert sum(shape[1:3] == (3, 3) for shape in kernels) == 5
    assert "BATCH_MATMUL" not in start.op_counts
    sizes = [tflite.inspect(part).size for part in report.parts]
    assert sum(sizes) < 1.05 * report.size


def test_labels_follow_the_classes(tiny_int8_file, tmp_path):
    path = tmp_path / "labelled.tflite"
    labels = tuple(f"class {i}" for i in range(7))
    path.write_bytes(
        metadata.append_labels(tiny_int8_file.read_bytes(), labels)
    )
    first, second = tmp_path / "a.tflite", tmp_path / "b.tflite"
    tflite.split(path, first, second)
    assert tflite.inspect(second).labels == labels
    assert tflite.inspect(first).labels == ()


def branches(path):
    """Two inputs and three outputs, one of each that passes the cut by."""
    tensors = [T((1, 8))] * 8
    ops = [
        O("TANH", (0,), (2,)),
        O("LOGISTIC", (2,), (3,)),
        O("NEG", (2,), (4,)),
        O("MAXIMUM", (4, 1), (5,)),
        O("ADD", (5, 3), (6,)),
        O("TANH", (3,), (7,)),
    ]
    ends = {"inputs": (0, 1), "outputs": (6, 3, 7)}
    return build(path, tensors, ops, signature=True, **ends)


def test_ends_that_pass_the_cut_by(tmp_path):
    path = branches(tmp_path / "whole.tflite")
    first, second = tmp_path / "a.tflite", tmp_path / "b.tflite"
    report = tflite.split(path, first, second)
    assert report.first.inputs == ("in_0",)
    assert set(report.first.outputs) == {"cut_0", "out_3", "out_7"}
    assert set(report.second.inputs) == {"cut_0", "out_3", "in_1"}
    assert report.second.outputs == ("out_6",)
    kinds = [[op.name for op in tflite.inspect(p).ops] for p in (first, second)]
    assert kinds == [["TANH", "LOGISTIC", "TANH"], ["NEG", "MAXIMUM", "ADD"]]


@pytest.mark.parametrize("overwrite", [False, True])
def test_existing_files(overwrite, tiny_int8_file, tmp_path):
    first, second = tmp_path / "a.tflite", tmp_path / "b.tflite"
    second.write_bytes(b"old")
    if overwrite:
        tflite.split(tiny_int8_file, first, second, overwrite=True)
        assert tflite.inspect(second).ops
    else:
        with pytest.raises(FileExistsError, match="b.tflite exists"):
            tflite.split(tiny_int8_file, first, second)
        assert second.read_bytes() == b"old" and not first.exists()


def test_files_that_cannot_be_divided(tiny_float_file, tmp_path):
    ends = tmp_path / "a.tflite", tmp_path / "b.tflite"

    def refused(path, message, ends=ends):
        with pytest.raises(ValueError, match=message):
            tflite.split(path, *ends)
        assert not any(end.exists() for end in ends)

    refused(tiny_float_file, "no operation maps.*float32.tflite")
    tensors, ops = [T((1, 8))] * 2, [O("TANH", (0,), (1,))]
    whole = build(tmp_path / "w.tflite", tensors, ops, signature=True)
    refused(whole, "all operations map")
    several = build(tmp_path / "s", tensors, ops, signature=True, graphs=2)
    refused(several, "one graph.*2 graphs")
    refused(build(tmp_path / "n", tensors, ops), "one signature.*0 signatures")
    refused(tiny_float_file, "must differ", (ends[0], ends[0]))
    (tmp_path / "text").write_text("no model")
    refused(tmp_path / "text", "must be a TFLite file")
    with pytest.raises(FileNotFoundError):
        tflite.split(tmp_path / "none", *ends)


def test_convert_splits(tiny_model, tiny_pictures, tmp_path, capsys):
    path, source = tmp_path / "m.tflite", tmp_path / "m.keras"
    tiny_model.save(source)
    common = ("--precision", "float32", "--split")
    assert cli.main(["convert", str(source), str(path), *common]) == 1
    assert "`split=True` is for" in capsys.readouterr().err
    (tmp_path / "m_rest.tflite").write_bytes(b"old")
    arguments = {"target": "edgetpu", "calibration_data": tiny_pictures}
    with pytest.raises(FileExistsError, match="m_rest"):
        tflite.convert(tiny_model, path, split=True, **arguments)
    report = tflite.convert(
        tiny_model, path, split=True, overwrite=True, **arguments
    )
    assert_chains(path, *report.parts, tiny_pictures[:3])
    assert all(part in str(report) for part in report.parts)
    report = tflite.convert(tiny_model, path, overwrite=True, **arguments)
    assert report.parts == ()


def test_convert_with_nothing_to_divide(tiny_pictures, tmp_path):
    """All of a convolution maps: the file stays whole."""
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(image)
    x = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    path = tmp_path / "m.tflite"
    result = tflite.convert(
        keras.Model(image, x),
        path,
        target="edgetpu",
        calibration_data=tiny_pictures,
        split=True,
    )
    assert result.parts == () and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="all operations map"):
        tflite.split(path, tmp_path / "a.tflite", tmp_path / "b.tflite")
