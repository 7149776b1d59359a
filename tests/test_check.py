"""What a target runs of a file: the GPU, the CPU and the others."""

import json
import re
import subprocess
import sys

import pytest
from graphs import O
from graphs import T
from graphs import build
from target_reports import MAPS
from target_reports import MAPS_NOT
from target_reports import UNKNOWN
from target_reports import adds_up
from target_reports import verdicts

from keras_mobilevit import cli
from keras_mobilevit.tflite import targets
from keras_mobilevit.tflite.inspect import inspect
from keras_mobilevit.tflite.interpreter import delegation
from keras_mobilevit.tflite.interpreter import open_interpreter

pytestmark = pytest.mark.usefixtures("no_edgetpu_compiler")


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
