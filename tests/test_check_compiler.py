"""What `edgetpu_compiler` says of a file, where there is one."""

import os

import pytest
from graphs import O
from graphs import T
from graphs import build
from target_reports import MAPS
from target_reports import MAPS_NOT
from target_reports import adds_up
from target_reports import verdicts

from keras_mobilevit.tflite.inspect import inspect

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
    "a thing never seen": "Starting\na thing never seen\n\n",
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
