"""Damaged files give a verdict or a ValueError: no crash, and no hang."""

import contextlib
import dataclasses
import random
import signal
import struct
import time

import pytest
from graphs import O
from graphs import T
from graphs import build

from keras_mobilevit.tflite import metadata
from keras_mobilevit.tflite.inspect import inspect

TRUNCATIONS = 500
FLIPS = 1200
WORDS = 500
LONGEST = 5  # seconds
HEADER = 8


@contextlib.contextmanager
def time_limit():
    """Raises in what runs longer, so that a hang is a failure with a place."""

    def late(*unused):
        raise TimeoutError(f"longer than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def survives(path, data):
    """Whether a file is read; what is read must also be judged and shown.

    `ValueError` of `inspect` alone is an answer; all else fails the test.
    """
    path.write_bytes(data)
    with time_limit():
        try:
            found = inspect(path)
        except ValueError as error:
            assert str(path) in str(error)
            return False
        str(found)
        for target in ("edgetpu", "gpu", "web"):
            report = found.check(target, compile_it=None)
            assert report.total == len(found.ops) and str(report)
            report.to_json()
    return True


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    monkeypatch.setattr("keras_mobilevit.tflite.compiler.PROGRAM", "none")


@pytest.fixture(scope="module")
def data(tiny_int8_file):
    """A whole file, with labels behind the flatbuffer."""
    labels = [f"class {i}" for i in range(7)]
    return metadata.append_labels(tiny_int8_file.read_bytes(), labels)


def test_the_whole_file(data, tmp_path):
    assert survives(tmp_path / "a.tflite", data)


def test_truncations(data, tmp_path):
    """Only behind the flatbuffer is there something that can be spared."""
    generator = random.Random(0)
    ends = [generator.randrange(len(data)) for _ in range(TRUNCATIONS)]
    alive = [end for end in ends if survives(tmp_path / "a.tflite", data[:end])]
    labels = len(data) - data.rindex(b"PK\x03\x04")
    assert all(end >= len(data) - labels for end in alive)


@pytest.mark.parametrize("end", [200, 4000, None])
def test_flipped_bytes(end, data, tmp_path):
    """One to twenty bytes anywhere, or all near the root of the file."""
    generator = random.Random(end or 0)
    alive = 0
    for case in range(FLIPS // 3):
        damaged = bytearray(data)
        for _ in range(1 + case % 20):
            place = generator.randrange(HEADER, end or len(data))
            damaged[place] = generator.randrange(256)
        alive += survives(tmp_path / "a.tflite", damaged)
    assert 0 < alive < FLIPS // 3


def test_negative_sizes(data, tmp_path):
    path = tmp_path / "a.tflite"
    path.write_bytes(data)
    found = inspect(path)
    shapes = tuple((1, -2, 3) for _ in range(3))
    ops = tuple(
        dataclasses.replace(op, input_shapes=shapes, output_shapes=shapes[:1])
        for op in found.ops
    )
    assert any(op.name == "BATCH_MATMUL" for op in ops)
    assert isinstance(dataclasses.replace(found, ops=ops).macs, int)


def test_extreme_numbers(data, tmp_path):
    """Lengths and offsets at the ends of what 32 bits hold."""
    generator = random.Random(3)
    extremes = [0, 1, -1, 2**31 - 1, -(2**31), len(data), 2**30, 0x7F7F7F7F]
    alive = 0
    for case in range(WORDS):
        damaged = bytearray(data)
        # The tables of a flatbuffer stand at multiples of four.
        end = (2000, len(data) - 4)[case % 2]
        place = generator.randrange(HEADER, end) // 4 * 4
        struct.pack_into("<i", damaged, place, generator.choice(extremes))
        alive += survives(tmp_path / "a.tflite", damaged)
    assert 0 < alive < WORDS


def test_there_are_enough_cases():
    assert TRUNCATIONS + FLIPS + WORDS >= 2000


def test_unusual_files_are_judged(tmp_path):
    """Several graphs, operations of one's own, an unknown batch."""
    ops = [O("MyOwnOp", (0,), (1,)), O("TANH", (1,), (2,))]
    for batch in (1, -1):
        path = build(
            tmp_path / f"{batch}.tflite", [T((batch, 8))] * 3, ops, graphs=2
        )
        started = time.perf_counter()
        found = inspect(path)
        assert found.op_counts == {"MyOwnOp": 2, "TANH": 2}
        for target in ("cpu", "gpu", "edgetpu", "web", "mediapipe", "nnapi"):
            report = found.check(target)
            assert report.mapped <= 1 and report.total == 4
            assert report.findings
        assert time.perf_counter() - started < LONGEST * 4


def test_an_empty_graph_is_judged(tmp_path):
    path = build(tmp_path / "a.tflite", [T((1, 8))], [], outputs=(0,))
    for target in ("cpu", "gpu", "edgetpu"):
        report = inspect(path).check(target)
        assert report.total == report.mapped == 0
        assert str(report)
