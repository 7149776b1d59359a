"""`inspect` tells what is in a file, and survives what is none."""

import json
import random
import subprocess
import sys

import pytest

from keras_mobilevit.tflite import metadata
from keras_mobilevit.tflite.inspect import inspect

FLIPS = 200
TRUNCATIONS = 200


def test_float_file(tiny_float_file):
    found = inspect(tiny_float_file)
    assert found.size == tiny_float_file.stat().st_size
    assert found.inputs[0].shape == (1, 32, 32, 3)
    assert found.inputs[0].dtype == found.outputs[0].dtype == "float32"
    assert found.inputs[0].scale is None
    assert found.outputs[0].shape == (1, 7)
    (signature,) = found.signatures
    assert signature.key == "serving_default"
    assert signature.inputs == ("image",)
    assert signature.outputs == ("predictions",)
    assert found.float_ops == found.op_counts
    assert sum(found.op_counts.values()) == len(found.ops)
    assert found.op_dtypes == {"float32": len(found.ops)}
    assert found.max_rank == 4
    assert found.dynamic_tensors == ()
    assert found.min_runtime_version >= (1, 5)
    assert found.labels == ()
    assert "min_runtime_version" in found.metadata


def test_weight_bytes_are_those_of_the_model(tiny_model, tiny_float_file):
    weights = 4 * sum(v.numpy().size for v in tiny_model.trainable_variables)
    # Batch normalization is folded; shapes and axes are constants too.
    assert 0.8 * weights < inspect(tiny_float_file).weight_bytes < 1.2 * weights


def test_multiply_accumulates(tiny_float_file, tiny_int8_file):
    """Counted by hand, from the layers of the tiny model."""
    stem = 16 * 16 * 8 * 27
    inverted = 16 * 16 * 8 * 16 + 8 * 8 * 16 * 9 + 8 * 8 * 16 * 8
    convolutions = 8 * 8 * 8 * (72 + 8 + 8 + 144)
    # Query, key, value and projection; feed-forward; 2 heads of 4 numbers
    # for 16 tokens at 4 positions, twice.
    tokens = 64 * 8 * 8 * 4 + 64 * 8 * 16 * 2 + 2 * 4 * 2 * 16 * 16 * 4
    expected = stem + inverted + convolutions + tokens + 8 * 7
    for file in (tiny_float_file, tiny_int8_file):
        assert inspect(file).macs == expected


@pytest.mark.parametrize("name", ["int8", "uint8_io", "int8_io"])
def test_integer_files_have_no_float_op(tiny_files, name):
    found = inspect(tiny_files[name])
    ends = "float32" if name == "int8" else name.removesuffix("_io")
    assert found.float_ops == {}
    assert found.inputs[0].dtype == found.outputs[0].dtype == ends
    assert found.min_runtime_version <= (2, 5, 0)
    assert found.min_runtime == ".".join(map(str, found.min_runtime_version))
    kernels = [op for op in found.ops if op.per_channel is not None]
    assert kernels and all(
        op.per_channel for op in kernels if "CONV" in op.name
    )
    assert {op.name for op in kernels} >= {"CONV_2D", "DEPTHWISE_CONV_2D"}


def test_quantization_of_the_ends(tiny_int8_file):
    found = inspect(tiny_int8_file)
    assert found.inputs[0].scale == pytest.approx(1, rel=0.05)
    assert found.inputs[0].zero_point == 0
    assert found.outputs[0].scale == pytest.approx(1 / 256)


def test_float16_weights_are_unpacked_by_no_float_op(tiny_files):
    found = inspect(tiny_files["float16"])
    assert found.op_counts["DEQUANTIZE"] > 0
    assert "DEQUANTIZE" not in found.float_ops
    assert found.float_ops["CONV_2D"] == found.op_counts["CONV_2D"]


def test_a_float_op_inside_an_integer_file_is_found(tmp_path):
    """DEQUANTIZE, NEG, QUANTIZE in the middle count, all three."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.BuiltinOperator
    names = ("QUANTIZE", "DEQUANTIZE", "NEG", "QUANTIZE", "DEQUANTIZE")
    dtypes = ("FLOAT32", "INT8", "FLOAT32", "FLOAT32", "INT8", "FLOAT32")
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers = 3, [schema.BufferT()]
    graph.tensors, graph.operators, model.operatorCodes = [], [], []
    for i, dtype in enumerate(dtypes):
        tensor = schema.TensorT()
        tensor.name, tensor.shape = f"t{i}", [1, -1 if i == 3 else 4]
        tensor.type = getattr(schema.TensorType, dtype)
        graph.tensors.append(tensor)
    for i, name in enumerate(names):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(kinds, name)
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = i, [i], [i + 1]
        model.operatorCodes.append(code)
        graph.operators.append(op)
    graph.inputs, graph.outputs = [0], [5]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path = tmp_path / "island.tflite"
    path.write_bytes(bytes(builder.Output()))

    found = inspect(path)
    assert found.float_ops == {"DEQUANTIZE": 1, "NEG": 1, "QUANTIZE": 1}
    assert [op.is_float for op in found.ops] == [False, True, True, True, False]
    assert found.dynamic_tensors == ("t3",)
    assert found.min_runtime == "unknown" and found.min_runtime_version == ()
    assert found.signatures == ()


def test_labels_are_read_from_the_end_of_the_file(tiny_int8_file, tmp_path):
    labels = tuple(f"Blume {i} é" for i in range(7))
    path = tmp_path / "labelled.tflite"
    path.write_bytes(
        metadata.append_labels(tiny_int8_file.read_bytes(), labels)
    )
    assert inspect(path).labels == labels
    assert inspect(path).ops == inspect(tiny_int8_file).ops
    assert "Blume 0 é" in str(inspect(path))


def test_report(tiny_int8_file):
    found = inspect(tiny_int8_file)
    text = str(found)
    for part in ("serving_default", "CONV_2D", "uint8", "2.5.0"):
        assert part in text
    stored = json.loads(found.to_json())
    assert len(stored["ops"]) == len(found.ops)
    assert stored["ops"][0]["name"] == found.ops[0].name


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="path=.*none.tflite"):
        inspect(tmp_path / "none.tflite")


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "empty"),
        (b"\0" * 100, "must be a TFLite file"),
        (b"PK\x03\x04 no model", "must be a TFLite file"),
        (b"\xff\xff\xff\xffTFL3" + b"\xff" * 500, "damaged"),
        (b"\x08\0\0\0TFL3", "damaged"),
    ],
)
def test_files_that_are_no_models(tmp_path, data, message):
    path = tmp_path / "bad.tflite"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        inspect(path)


def test_a_folder_and_a_number_are_no_paths(tmp_path):
    with pytest.raises(ValueError, match="folder"):
        inspect(tmp_path)
    with pytest.raises(ValueError, match="`path`.*int"):
        inspect(3)


def test_truncated_files_raise_value_error(tiny_int8_file, tmp_path):
    data = tiny_int8_file.read_bytes()
    path = tmp_path / "cut.tflite"
    for i in range(TRUNCATIONS):
        path.write_bytes(data[: i * (len(data) - 8) // TRUNCATIONS])
        with pytest.raises(ValueError):
            inspect(path)


def test_flipped_bytes_raise_value_error_or_nothing(tiny_int8_file, tmp_path):
    data = tiny_int8_file.read_bytes()
    generator = random.Random(0)
    path = tmp_path / "flipped.tflite"
    refused = 0
    for i in range(FLIPS):
        damaged = bytearray(data)
        # A tenth of them hit the first bytes, where the roots of all lie.
        end = 200 if i % 10 == 0 else len(data)
        for _ in range(1 + i % 20):
            damaged[generator.randrange(8, end)] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            str(inspect(path))
        except ValueError:
            refused += 1
    assert 0 < refused < FLIPS


def test_the_module_does_not_load_the_runtime():
    code = (
        "import sys; from keras_mobilevit.tflite.inspect import inspect; "
        "print([m for m in sys.modules if m.startswith('ai_edge_litert')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.stdout.strip().endswith("[]"), done.stderr
