"""What a target runs of a file: verdicts by operation, and what they add to.

The prediction for the Edge TPU is held to what Google's compiler did with
published files (`coral/` in the folder of KERAS_MOBILEVIT_DATA).
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from graphs import O
from graphs import T
from graphs import axes
from graphs import build

from keras_mobilevit import cli
from keras_mobilevit.tflite import compiler
from keras_mobilevit.tflite import targets
from keras_mobilevit.tflite.inspect import Inspection
from keras_mobilevit.tflite.inspect import inspect
from keras_mobilevit.tflite.interpreter import delegation
from keras_mobilevit.tflite.interpreter import open_interpreter

MAPS, MAPS_NOT, UNKNOWN = "maps", "does not map", "unknown"
PAIRS = 5


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    """The machine may have one; a test that wants one puts it there."""
    monkeypatch.setattr(compiler, "PROGRAM", "no_such_edgetpu_compiler")


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


def verdicts(report):
    return [verdict.verdict for verdict in report.verdicts]


def adds_up(report):
    """The numbers of a report are those of its verdicts."""
    each = verdicts(report)
    assert report.total == len(each)
    assert report.mapped == each.count(MAPS)
    assert sum(report.cpu_ops.values()) == each.count(MAPS_NOT)
    assert report.unknown == each.count(UNKNOWN)
    counted = [f for f in report.findings if f.verdict != "note"]
    found = sum(sum(finding.ops.values()) for finding in counted)
    assert found == report.total - report.mapped
    for verdict in report.verdicts:
        assert (verdict.reason == "") == (verdict.verdict == MAPS)
    json.loads(report.to_json())
    assert str(report.mapped) in str(report)
    return report


# The Edge TPU


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
        assert len(report.verdicts) == 6 and str(report)
    gpu = adds_up(inspect(path).check("gpu"))
    assert verdicts(gpu) == [MAPS, MAPS_NOT, *[UNKNOWN] * 4]
    cpu = adds_up(inspect(path).check("cpu"))
    assert "MyOwnOp" in cpu.refused


# The GPU


@pytest.mark.parametrize("name", ["float32", "float16", "uint8_io"])
def test_gpu_takes_all(tiny_files, name):
    report = adds_up(inspect(tiny_files[name]).check("gpu"))
    assert report.mapped == report.total and report.findings == ()
    assert report.basis == "predicted"
    assert report.fits is None and report.cached_bytes == ()


@pytest.mark.parametrize(
    "name, shape, dtype, expected",
    [
        ("TANH", (1, 2, 2, 8), "float32", MAPS),
        ("TANH", (1, 2, 2, 2, 8), "float32", MAPS_NOT),
        ("TANH", (2, 2, 2, 8), "float32", UNKNOWN),
        ("TANH", (2, 8), "float32", MAPS),
        ("TANH", (1, 8), "int16", UNKNOWN),
        ("L2_NORMALIZATION", (1, 8), "float32", MAPS_NOT),
        ("WHERE", (1, 8), "float32", UNKNOWN),
        ("MyOwnOp", (1, 8), "float32", MAPS_NOT),
    ],
)
def test_rules_of_the_gpu(name, shape, dtype, expected, tmp_path):
    tensors = [T(shape, dtype)] * 2
    path = build(tmp_path / "a.tflite", tensors, [O(name, (0,), (1,))])
    assert verdicts(adds_up(inspect(path).check("gpu"))) == [expected]


# The CPU


@pytest.mark.parametrize("name", ["float32", "float16", "int8", "uint8_io"])
def test_cpu_is_measured(tiny_files, name):
    report = adds_up(inspect(tiny_files[name]).check("cpu"))
    measured = delegation(open_interpreter(tiny_files[name], 1))
    assert report.cpu_ops == measured.outside
    assert report.partitions == measured.partitions
    assert report.unknown == 0
    assert re.search(r"measured with ai-edge-litert \d+\.\d+", report.basis)


def test_cpu_verdicts(tiny_files):
    report = inspect(tiny_files["float32"]).check("cpu")
    assert (report.mapped, report.partitions) == (report.total, 1)
    report = inspect(tiny_files["uint8_io"]).check("cpu")
    assert report.cpu_ops["RSQRT"] > 0
    (finding,) = [f for f in report.findings if "RSQRT" in f.ops]
    assert "int8_mixed" in finding.remedy


def test_a_file_that_kills_the_runtime(tiny_float_file, monkeypatch):
    """The process that runs it dies, and this one tells."""
    from keras_mobilevit.tflite import delegates

    script = delegates._SCRIPT.replace(
        "interpreter.allocate", "import os; os.abort(); interpreter.allocate"
    )
    monkeypatch.setattr(delegates, "_SCRIPT", script)
    report = adds_up(inspect(tiny_float_file).check("cpu"))
    assert "ended with code -6" in report.refused
    assert report.mapped == 0
    monkeypatch.setattr(delegates, "_SCRIPT", "import no_such_runtime")
    with pytest.raises(RuntimeError, match="(?s)did not start.*no_such_run"):
        inspect(tiny_float_file).check("cpu")


# The others


@pytest.mark.parametrize("target", ["web", "mediapipe"])
def test_who_reads_which_ends(tiny_files, target):
    report = adds_up(inspect(tiny_files["int8_io"]).check(target))
    assert "is int8" in report.refused and report.mapped == 0
    assert "input_dtype='uint8'" in report.findings[0].remedy
    for name in ("uint8_io", "float32"):
        report = adds_up(inspect(tiny_files[name]).check(target))
        assert report.refused == "" and report.unknown == report.total


def test_nnapi_is_not_judged(tiny_float_file):
    report = adds_up(inspect(tiny_float_file).check("nnapi"))
    assert report.unknown == report.total
    assert "deprecated" in str(report)


def test_unknown_targets(tiny_float_file):
    found = inspect(tiny_float_file)
    with pytest.raises(ValueError, match="`target`.*edgetpu.*'npu'"):
        found.check("npu")
    with pytest.raises(ValueError, match="`compile_it`.*'gpu'"):
        found.check("gpu", compile_it=True)
    with pytest.raises(ValueError, match="needs `edgetpu_compiler`"):
        found.check("edgetpu", compile_it=True)


def test_every_rule_has_a_source():
    for row in {**targets.TARGETS, **targets.READERS}.values():
        limits = [*row.limits, *(r for own in row.ops.values() for r in own)]
        assert row.source or row.basis == targets.MEASURED
        assert all(limit.source and limit.text for limit in limits)


# The compiler

HEAD = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.
"""
SUMMARY = """
Model compiled successfully in 557 ms.

Input model: {path}
Input size: 1.58MiB
Output model: {stem}_edgetpu.tflite
Output size: 1.72MiB
On-chip memory used for caching model parameters: 43.75KiB
On-chip memory remaining for caching model parameters: 7.43MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: {total}
Operation log: {stem}_edgetpu.log
"""
PARTLY = """
Model successfully compiled but not all operations are supported by the \
Edge TPU. A percentage of the model will instead run on the CPU, which is \
slower. If possible, consider updating your model to use only operations \
supported by the Edge TPU. For details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: {mapped}
Number of operations that will run on CPU: {left}
"""
TAIL = """Compilation child process completed within timeout period.
Compilation succeeded! 
"""
AFTER = "More than one subgraph is not supported"
VAGUE = (
    "Operation is otherwise supported, but not mapped due to some "
    "unspecified limitation"
)


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Puts a compiler on the PATH that prints a text."""

    def put(text, code=0):
        monkeypatch.undo()
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "said.txt").write_text(text)
        program = folder / "edgetpu_compiler"
        program.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/asked.txt\n'
            f"cat {folder}/said.txt\nexit {code}\n"
        )
        program.chmod(0o755)
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        monkeypatch.setenv("PATH", path)
        return folder / "asked.txt"

    return put


def listing(rows):
    lines = ["", "Operator                       Count      Status", ""]
    lines += [f"{name:<31}{count:<11}{status}" for name, count, status in rows]
    return "\n".join(lines) + "\n"


@pytest.fixture
def branched(tmp_path):
    """TANH, TANH, TRANSPOSE, TANH, MyOwnOp in a row."""
    names = ("TANH", "TANH", "TRANSPOSE", "TANH", "MyOwnOp")
    ops = [O(name, (i,), (i + 1,)) for i, name in enumerate(names)]
    return build(tmp_path / "a.tflite", [T((1, 8))] * 6, ops)


def test_the_compiler_is_run(install, branched):
    rows = [
        ("TRANSPOSE", 1, VAGUE),
        ("TANH", 1, AFTER),
        ("TANH", 2, "Mapped to Edge TPU"),
        ("CUSTOM", 1, "Operation is working on an unsupported data type"),
    ]
    text = HEAD + SUMMARY.format(path=branched, stem="a", total=5)
    asked = install(
        text + PARTLY.format(mapped=2, left=3) + listing(rows) + TAIL
    )
    report = adds_up(inspect(branched).check("edgetpu"))
    assert report.basis == "compiled by edgetpu_compiler 16.0.384591198"
    assert verdicts(report) == [MAPS, MAPS, MAPS_NOT, MAPS_NOT, MAPS_NOT]
    assert report.verdicts[2].reason == VAGUE
    assert report.verdicts[3].reason == AFTER
    assert report.cpu_ops == {"TRANSPOSE": 1, "TANH": 1, "MyOwnOp": 1}
    assert report.cached_bytes == (44_800, 44_800)
    assert report.memory[0] == 44_800 + round(7.43 * 2**20)
    assert report.fits and report.partitions == 1
    assert not [f for f in report.findings if f.verdict == "note"]
    arguments = asked.read_text().split()
    assert "-s" in arguments and arguments[-1] == str(branched)
    predicted = inspect(branched).check("edgetpu", compile_it=False)
    assert predicted.basis == "predicted, compiler not run"
    assert predicted.unknown == 2


def test_the_compiler_has_the_last_word(install, branched):
    """What it maps against the prediction is told."""
    rows = [
        (name, count, "Mapped to Edge TPU")
        for name, count in (("TANH", 3), ("TRANSPOSE", 1), ("CUSTOM", 1))
    ]
    text = HEAD + SUMMARY.format(path=branched, stem="a", total=5)
    install(text + listing(rows) + TAIL)
    report = inspect(branched).check("edgetpu")
    assert report.mapped == report.total == 5
    (note,) = report.findings
    assert note.verdict == "note" and note.ops == {"MyOwnOp": 1}


REFUSALS = {
    "version '6'": """Edge TPU Compiler version 16.0.384591198
ERROR: Didn't find op for builtin opcode 'TRANSPOSE' version '6'. An older \
version of this builtin might be supported. Are you using an old TFLite \
binary with a newer model?

ERROR: Registration failed.

Invalid model: a.tflite
Model could not be parsed
""",
    "Please ensure model can be loaded": HEAD
    + """ERROR: Attempting to use a delegate that only supports static-sized \
tensors with a graph that has dynamic-sized tensors.
Compilation failed: Model failed in Tflite interpreter. Please ensure model \
can be loaded/run in Tflite interpreter.
Compilation child process completed within timeout period.
Compilation failed! 
""",
    "not quantized": """Edge TPU Compiler version 15.0.340273435
Invalid model: a.tflite
Model not quantized
""",
    "Internal compiler error": """Edge TPU Compiler version 15.0.340273435

Internal compiler error. Aborting! 
""",
    "did not say why": "",
}


@pytest.mark.parametrize("message", REFUSALS)
def test_the_compiler_refuses(message, install, branched):
    install(REFUSALS[message], code=1)
    report = adds_up(inspect(branched).check("edgetpu"))
    assert message in report.refused
    assert report.mapped == 0 and report.total == 5
    assert message in str(report)


def test_the_compiler_fails_without_a_word(install, branched):
    install(HEAD + SUMMARY.format(path=branched, stem="a", total=5), code=3)
    report = inspect(branched).check("edgetpu")
    assert report.refused == "it ended with code 3"


# The command line


def call(capsys, *arguments):
    capsys.readouterr()
    code = cli.main(list(map(str, arguments)))
    return code, *capsys.readouterr()


def test_command(tiny_int8_file, capsys):
    command = ("inspect", tiny_int8_file, "--target", "edgetpu")
    code, out, err = call(capsys, *command)
    assert code == 0, err
    assert "predicted, compiler not run" in out and "BATCH_MATMUL" in out
    code, out, _ = call(capsys, *command, "--json")
    expected = inspect(tiny_int8_file).check("edgetpu")
    assert json.loads(out) == json.loads(expected.to_json())
    code, out, err = call(capsys, *command[:-1], "npu")
    assert (code, out) == (1, "") and "'npu'" in err


def test_the_rules_need_no_runtime():
    code = (
        "import sys; from keras_mobilevit.tflite import check; "
        "print([m for m in sys.modules if m.startswith('ai_edge_litert')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.stdout.strip().endswith("[]"), done.stderr
