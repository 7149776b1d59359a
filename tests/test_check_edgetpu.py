"""What the Edge TPU runs of a file, predicted.

The prediction is held to what Google's compiler did with published files
(`coral/` in the folder of KERAS_MOBILEVIT_DATA).
"""

import json
import os
import pathlib
import re

import numpy as np
import pytest
from graphs import O
from graphs import T
from graphs import axes
from graphs import build
from target_reports import MAPS
from target_reports import MAPS_NOT
from target_reports import UNKNOWN
from target_reports import adds_up
from target_reports import verdicts

from keras_mobilevit.tflite import targets
from keras_mobilevit.tflite.inspect import Inspection
from keras_mobilevit.tflite.inspect import inspect

PAIRS = 5
pytestmark = pytest.mark.usefixtures("no_edgetpu_compiler")


def coral():
    """Folder and contents of the ground truth, if it is there."""
    default = pathlib.Path(__file__).parents[1].parent / "shared" / "data"
    root = os.environ.get("KERAS_MOBILEVIT_DATA", default)
    folder = pathlib.Path(root) / "coral"
    table = folder / "compiled.json"
    return folder, json.loads(table.read_text()) if table.exists() else {}


FOLDER, TRUTH = coral()
needs_truth = pytest.mark.skipif(
    not TRUTH, reason="needs the data set coral (KERAS_MOBILEVIT_DATA)"
)


@needs_truth
@pytest.mark.parametrize("name", sorted(TRUTH) or ["-"])
def test_what_googles_compiler_did(name):
    truth = TRUTH[name]
    report = adds_up(inspect(FOLDER / name).check("edgetpu"))
    assert report.basis == "predicted, compiler not run"
    assert report.total == truth["ops"]
    assert report.mapped == truth["mapped"]
    assert report.cpu_ops == truth["cpu_ops"]
    assert report.unknown == 0
    assert report.partitions == 1
    low, high = report.cached_bytes
    assert low <= truth["cached_bytes"] <= high < 1.3 * low
    assert report.fits


@needs_truth
def test_the_documentation_says_what_the_truth_covers():
    """Every kind of operation in the pairs is named, and no other."""
    assert len(TRUTH) == PAIRS
    ops = [op for name in TRUTH for op in inspect(FOLDER / name).ops]
    held = {op.name for op in ops if not op.is_custom}
    told = re.sub(r"\s+", " ", Inspection.check.__doc__)
    told = re.search("They hold (.*?);", told)[1]
    assert set(re.split(", | and ", told)) == held


def test_attention_is_left_on_the_cpu(tiny_files):
    for name in ("uint8_io", "int8_io"):
        found = inspect(tiny_files[name])
        report = adds_up(found.check("edgetpu"))
        attention = found.op_counts["BATCH_MATMUL"]
        assert report.cpu_ops["BATCH_MATMUL"] == attention
        assert report.cpu_ops["SOFTMAX"] >= attention / 2
        # From the input through the convolutional blocks.
        first = verdicts(report).index(UNKNOWN)
        mapped = [op.name for op in found.ops[:first]]
        assert report.mapped == first
        assert mapped.count("DEPTHWISE_CONV_2D") == 1
        assert mapped.count("CONV_2D") >= 5
        assert found.ops[first].name in ("RESHAPE", "TRANSPOSE")
        assert report.partitions == 1
        (finding,) = [f for f in report.findings if "BATCH_MATMUL" in f.ops]
        assert "split=True" in finding.remedy and "Google" in finding.source


def test_layers_are_named(tiny_files):
    report = inspect(tiny_files["uint8_io"]).check("edgetpu")
    text, layers = str(report), report.layers
    assert sum(mapped for mapped, _ in layers.values()) == report.mapped
    assert sum(total for _, total in layers.values()) == report.total
    for name in ("stem", "block1"):
        assert layers[name][0] == layers[name][1] > 2
    assert 0 < layers["block2"][0] < layers["block2"][1]
    assert layers["predictions"][0] == 0
    rows = [
        [cell.strip() for cell in row.split("|")] for row in text.split("\n")
    ]
    found = {row[1]: row[2].split(", ") for row in rows if len(row) == 4}
    assert {"stem", "block1"} <= set(found["layers that map"])
    assert found["in part"] == ["block2"]
    assert "predictions" in found["not"]
    (finding,) = [f for f in report.findings if "BATCH_MATMUL" in f.ops]
    assert finding.layer == "block2"
    assert f"from #{finding.first} in block2" in text


def test_files_that_name_no_layers(tmp_path):
    tensors = [T((1, 8))] * 3
    ops = [O("TANH", (0,), (1,)), O("MyOwnOp", (1,), (2,))]
    report = inspect(build(tmp_path / "a.tflite", tensors, ops)).check(
        "edgetpu"
    )
    assert report.layers == {"all": (1, 2)}
    assert "in part" not in str(report) and "in all" not in str(report)


def test_float_ends_are_left_on_the_cpu(tiny_files):
    """The QUANTIZE of the input does not end the part: it starts behind."""
    found = inspect(tiny_files["int8"])
    report = adds_up(found.check("edgetpu"))
    bare = inspect(tiny_files["int8_io"]).check("edgetpu")
    assert found.ops[0].name == "QUANTIZE"
    assert verdicts(report)[0] == MAPS_NOT
    assert "input_dtype='uint8'" in report.verdicts[0].remedy
    assert report.mapped == bare.mapped > 0


def test_float_files_do_not_map(tiny_float_file):
    report = adds_up(inspect(tiny_float_file).check("edgetpu"))
    assert (report.mapped, report.unknown) == (0, 0)
    assert report.partitions == 0
    assert "precision='int8'" in report.findings[0].remedy


def conv(shape):
    kernel = T((8, 1, 1, shape[-1]), data=np.ones(8 * shape[-1], "i1"))
    bias = T((8,), "int32", np.ones(8, "<i4"))
    return [T(shape), kernel, bias, T((*shape[:-1], 8))]


def unary(before, after=None, *more):
    after = before if after is None else after
    return [T(before), *more, T(after)]


SINGLE = [
    ("CONV_2D", conv((1, 8, 8, 4)), (), MAPS),
    ("CONV_2D", conv((2, 8, 8, 4)), (), MAPS_NOT),
    (
        "CONV_2D",
        conv((1, 8, 8, 4)),
        ("Conv2DOptions", {"dilationWFactor": 2, "dilationHFactor": 2}),
        MAPS,
    ),
    (
        "CONV_2D",
        conv((1, 8, 8, 4)),
        ("Conv2DOptions", {"dilationWFactor": 2}),
        MAPS_NOT,
    ),
    (
        "CONV_2D",
        [T((1, 8, 8, 4)), T((8, 1, 1, 4)), T((1, 8, 8, 8))],
        (),
        MAPS_NOT,
    ),
    ("LOGISTIC", unary((1, 8, 8, 4)), (), MAPS),
    ("LOGISTIC", [T((1, 4), "int16"), T((1, 4), "int16")], (), MAPS_NOT),
    ("LOGISTIC", unary((8, 1, 1, 4)), (), MAPS_NOT),
    ("AVERAGE_POOL_2D", unary((1, 8, 8, 4), (1, 4, 4, 4)), (), MAPS),
    (
        "MAX_POOL_2D",
        unary((1, 8, 8, 4), (1, 4, 4, 4)),
        ("Pool2DOptions", {"fusedActivationFunction": 1}),
        MAPS_NOT,
    ),
    ("MEAN", unary((1, 8, 8, 4), (1, 4), axes(1, 2)), (), MAPS),
    ("MEAN", unary((1, 8, 8, 4), (1, 8, 8, 1), axes(3)), (), MAPS),
    ("MEAN", unary((1, 8, 8, 4), (1, 8, 8, 1), axes(-1)), (), MAPS),
    ("MEAN", unary((1, 8, 8, 6), (1, 8, 8, 1), axes(-1)), (), MAPS_NOT),
    ("MEAN", unary((1, 8, 8, 4), (8, 8, 4), axes(0)), (), MAPS_NOT),
    ("MEAN", unary((1, 256, 128, 4), (1, 4), axes(1, 2)), (), MAPS_NOT),
    ("MEAN", unary((1, 128, 128, 4), (1, 4), axes(1, 2)), (), UNKNOWN),
    ("MEAN", unary((1, 8, 8, 4), (1, 4), T((2,), "int32")), (), MAPS_NOT),
    ("SUM", unary((1, 8, 8, 6), (1, 8, 8, 1), axes(-1)), (), MAPS),
    ("SOFTMAX", unary((1, 1000)), (), MAPS),
    ("SOFTMAX", unary((1, 16_001)), (), MAPS_NOT),
    ("SOFTMAX", unary((1, 8, 8)), (), MAPS_NOT),
    ("RESIZE_BILINEAR", unary((1, 8, 8, 4), (1, 16, 16, 4)), (), MAPS),
    ("RESIZE_BILINEAR", unary((1, 8, 8, 4), (1, 40, 16, 4)), (), UNKNOWN),
    ("RESIZE_BILINEAR", unary((1, 8, 8, 4), (1, 4, 4, 4)), (), UNKNOWN),
    ("RESIZE_BILINEAR", unary((1, 1, 1, 4), (1, 15, 15, 4)), (), MAPS_NOT),
    ("RESIZE_NEAREST_NEIGHBOR", unary((1, 1, 1, 4), (1, 9, 9, 4)), (), UNKNOWN),
    ("RESHAPE", unary((1, 1, 1, 1001), (1, 1001)), (), MAPS),
    ("RESHAPE", unary((1, 8, 8, 64), (1, 64, 64)), (), UNKNOWN),
    ("TRANSPOSE", unary((1, 8, 4), (1, 4, 8), axes(0, 2, 1)), (), UNKNOWN),
    (
        "PAD",
        unary((1, 8, 8, 4), (1, 9, 9, 4), axes(0, 0, 0, 1, 0, 1, 0, 0)),
        (),
        MAPS,
    ),
    (
        "PAD",
        unary((1, 8, 8, 4), (2, 8, 8, 4), axes(0, 1, 0, 0, 0, 0, 0, 0)),
        (),
        MAPS_NOT,
    ),
    ("SQUEEZE", unary((1, 1, 5, 4), (5, 4)), (), MAPS),
    ("SQUEEZE", unary((1, 5, 1, 4), (5, 4)), (), MAPS_NOT),
    (
        "STRIDED_SLICE",
        unary((8, 4), (4, 4), axes(0, 0), axes(4, 4), axes(1, 1)),
        (),
        MAPS,
    ),
    (
        "STRIDED_SLICE",
        unary((8, 4), (4, 4), axes(0, 0), axes(8, 4), axes(2, 1)),
        (),
        MAPS_NOT,
    ),
    ("PACK", unary((8, 4), (1, 8, 4)), (), MAPS),
    ("PACK", unary((8, 8, 4), (1, 8, 8, 4)), (), MAPS_NOT),
    ("HARD_SWISH", unary((1, 8, 8, 4)), (), MAPS_NOT),
    ("GATHER", unary((1, 8, 8, 4)), (), MAPS_NOT),
    ("MyOwnOp", unary((1, 8, 8, 4)), (), MAPS_NOT),
]


@pytest.mark.parametrize(
    "name, tensors, options, expected",
    SINGLE,
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rules_of_the_edge_tpu(name, tensors, options, expected, tmp_path):
    last = len(tensors) - 1
    op = O(name, tuple(range(last)), (last,), options=options)
    inputs = [i for i, t in enumerate(tensors[:-1]) if t.data is None]
    path = build(tmp_path / "one.tflite", tensors, [op], inputs)
    report = adds_up(inspect(path).check("edgetpu"))
    assert report.refused == ""
    assert verdicts(report) == [expected], report


def dense(scales, format=0):
    kernel = T((8, 4), data=np.ones(32, "i1"), scales=scales)
    return [T((1, 4)), kernel, T((1, 8))], (
        "FullyConnectedOptions",
        {"weightsFormat": format},
    )


@pytest.mark.parametrize(
    "scales, format, rows, expected",
    [
        (1, 0, 1, MAPS),
        (8, 0, 1, UNKNOWN),
        (1, 1, 1, MAPS_NOT),
        (1, 0, 3, MAPS_NOT),
    ],
)
def test_dense_layers_on_the_edge_tpu(scales, format, rows, expected, tmp_path):
    tensors, options = dense(scales, format)
    tensors[0].shape, tensors[-1].shape = (rows, 4), (rows, 8)
    op = O("FULLY_CONNECTED", (0, 1), (2,), options=options)
    path = build(tmp_path / "one.tflite", tensors, [op])
    assert verdicts(inspect(path).check("edgetpu")) == [expected]


@pytest.mark.parametrize(
    "constants, expected", [(0, MAPS), (1, UNKNOWN), (2, MAPS_NOT)]
)
def test_constant_parts_of_a_concatenation(constants, expected, tmp_path):
    zeros = T((1, 4), data=np.zeros(4, "i1"))
    tensors = [T((1, 4)), *[zeros] * constants, T((1, 8))]
    last = len(tensors) - 1
    op = O("CONCATENATION", tuple(range(last)), (last,))
    path = build(tmp_path / "one.tflite", tensors, [op])
    assert verdicts(inspect(path).check("edgetpu")) == [expected]


def test_one_part_from_the_input_on(tmp_path):
    """Two branches: what depends on an unmapped operation stays behind."""
    tensors = [T((1, 8, 8, 4))] * 7
    ops = [
        O("LOGISTIC", (0,), (1,)),
        O("NEG", (1,), (2,)),
        O("TANH", (1,), (3,)),
        O("TRANSPOSE", (3,), (4,)),
        O("RELU", (4,), (5,)),
        O("ADD", (2, 5), (6,)),
    ]
    report = adds_up(
        inspect(build(tmp_path / "a.tflite", tensors, ops)).check("edgetpu")
    )
    assert verdicts(report) == [
        *(MAPS, MAPS_NOT, MAPS),
        *(UNKNOWN, UNKNOWN, MAPS_NOT),
    ]
    assert report.cpu_ops == {"NEG": 1, "ADD": 1}


def test_only_the_quantize_of_an_input_may_come_before_the_part(tmp_path):
    tensors = [T((1, 8), "float32"), T((1, 8)), T((1, 8))]
    quantize = [O("QUANTIZE", (0,), (1,)), O("TANH", (1,), (2,))]
    report = inspect(build(tmp_path / "a.tflite", tensors, quantize))
    assert verdicts(report.check("edgetpu")) == [MAPS_NOT, MAPS]
    neg = [O("NEG", (0,), (1,)), O("TANH", (1,), (2,))]
    report = inspect(build(tmp_path / "b.tflite", [T((1, 8))] * 3, neg))
    assert verdicts(report.check("edgetpu")) == [MAPS_NOT, MAPS_NOT]


@pytest.mark.parametrize("name, version", [("TRANSPOSE", 6), ("QUANTIZE", 3)])
def test_newer_versions_are_refused(name, version, tmp_path):
    """In the compiler's own words: it does not read the file at all."""
    tensors = [T((1, 8))] * 3
    ops = [O("TANH", (0,), (1,)), O(name, (1,), (2,), version=version)]
    found = inspect(build(tmp_path / "a.tflite", tensors, ops))
    report = adds_up(found.check("edgetpu"))
    assert f"{name} version {version}" in report.refused
    assert report.mapped == 0 and "keras_mobilevit" in str(report)
    ops[1].version -= 1
    found = inspect(build(tmp_path / "b.tflite", tensors, ops))
    assert found.check("edgetpu").refused == ""


def test_version_table_covers_what_is_mapped():
    row = targets.TARGETS["edgetpu"]
    assert set(row.ops) <= set(row.max_versions)


def test_dynamic_sizes_are_refused(tmp_path):
    tensors = [T((-1, 8)), T((-1, 8))]
    path = build(tmp_path / "a.tflite", tensors, [O("TANH", (0,), (1,))])
    for target in ("edgetpu", "gpu", "web"):
        report = inspect(path).check(target)
        assert "known only at run time" in report.refused
        assert report.mapped == 0
    assert inspect(path).check("cpu").total == 1


def test_several_graphs_and_custom_operations(tmp_path):
    tensors = [T((1, 8), "float32")] * 3
    ops = [O("TANH", (0,), (1,)), O("MyOwnOp", (1,), (2,))]
    path = build(tmp_path / "a.tflite", tensors, ops, graphs=3)
    for target in {**targets.TARGETS, **targets.READERS}:
        report = inspect(path).check(target)
        assert report.total == 6
        assert sum(total for _, total in report.layers.values()) == 2
        assert len(report.verdicts) == 6 and str(report)
    gpu = adds_up(inspect(path).check("gpu"))
    assert verdicts(gpu) == [MAPS, MAPS_NOT, *[UNKNOWN] * 4]
    cpu = adds_up(inspect(path).check("cpu"))
    assert "MyOwnOp" in cpu.refused
