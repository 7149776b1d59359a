"""`benchmark` measures files in turn, on the runtime that is installed."""

import functools
import json
import sys
import time

import numpy as np
import pytest
from PIL import Image

from keras_mobilevit import tflite
from keras_mobilevit.tflite import profile
from keras_mobilevit.tflite.benchmark import benchmark

# The package's attribute of this name is the function.
module = sys.modules["keras_mobilevit.tflite.benchmark"]


@pytest.fixture(scope="module")
def measured(tiny_float_file, tiny_int8_file):
    """Two files, one and two threads."""
    return benchmark(
        [tiny_float_file, tiny_int8_file],
        threads=(1, 2),
        runs=7,
        warmup=1,
        progress=False,
    )


def test_timings(measured, tiny_float_file, tiny_int8_file):
    assert [(row.path, row.threads) for row in measured.timings] == [
        (str(path), threads)
        for threads in (1, 2)
        for path in (tiny_float_file, tiny_int8_file)
    ]
    for row in measured.timings:
        assert 0 < row.min_ms <= row.median_ms <= row.p90_ms < 1000
        assert row.runs == 7
    assert measured.timings[0].ratio == measured.timings[2].ratio == 1
    assert measured.timings[1].ratio > 0


def test_facts(measured, tiny_float_file):
    plain, integer = measured.files
    assert plain.size == tiny_float_file.stat().st_size
    # The softmax of the attention has no int8 kernel in XNNPACK.
    assert integer.ops_outside["SOFTMAX"] >= 1
    assert sum(plain.ops_outside.values()) < sum(integer.ops_outside.values())
    assert 1 <= plain.partitions < integer.partitions
    for row in measured.files:
        assert row.memory is None or 0 < row.memory < 500e6
        assert row.ops > sum(row.ops_outside.values())


def test_report(measured, tmp_path):
    assert "outside XNNPACK" in str(measured)
    stored = json.loads(measured.to_json())
    assert len(stored["timings"]) == 4 and len(stored["files"]) == 2
    path = tmp_path / "bars.png"
    measured.plot(path)
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10
    with pytest.raises(FileExistsError):
        measured.plot(path)


def test_files_take_turns_and_the_first_one_rotates():
    order = []
    invokes = [functools.partial(order.append, name) for name in "abc"]
    times = module.take_turns(invokes, 4, None, lambda n: order.append("|"))
    assert "".join(order) == "abc|bca|cab|abc|"
    assert times.shape == (3, 4)


def test_files_are_opened_anew_in_another_order():
    orders, counts = [], {name: [] for name in "abc"}

    def open_it(name):
        orders.append(name)
        counts[name].append(0)

        def run():
            counts[name][-1] += 1
            time.sleep(1e-4 * (1 + "abc".index(name)))

        return run

    openers = [functools.partial(open_it, name) for name in "abc"]
    done = []
    times = module.take_turns_anew(openers, 3, 2, 10, None, done.append)
    assert times.shape == (3, 10) and sum(done) == 3 * 2 + 10
    # Each row is that of its own file, whatever the order.
    assert np.all(np.diff(times.min(axis=1)) > 5e-2)
    assert all(runs == [6, 5, 5] for runs in counts.values())
    found = {"".join(orders[i : i + 3]) for i in (0, 3, 6)}
    assert len(orders) == 9 and len(found) > 1
    assert all(sorted(order) == list("abc") for order in found)


def test_ratio_is_the_median_of_the_rounds():
    first, own = np.array([1.0, 10.0, 100.0]), np.array([2.0, 20.0, 100.0])
    row = module.timing("a", 1, own, first)
    assert row.ratio == 2 and row.median_ms == 20 and row.min_ms == 2


@pytest.mark.parametrize("loads", [1, 3])
def test_seconds_end_the_rounds(loads, tiny_float_file):
    found = benchmark(
        str(tiny_float_file),
        threads=[1],
        runs=100_000,
        seconds=1e-6,
        progress=False,
        loads=loads,
    )
    assert found.timings[0].runs == loads * module._MIN_ROUNDS


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"paths": []}, "`paths`"),
        ({"threads": ()}, "`threads`"),
        ({"threads": (0,)}, "`threads`.*at least 1"),
        ({"runs": 0}, "`runs`.*at least 1"),
        ({"warmup": -1}, "`warmup`.*at least 0"),
        ({"loads": 0}, "`loads`.*at least 1"),
        ({"seconds": 0}, "`seconds`"),
    ],
)
def test_bad_arguments(tiny_float_file, arguments, message):
    with pytest.raises(ValueError, match=message):
        benchmark(**{"paths": [tiny_float_file], **arguments})


def test_bad_files(tiny_float_file, tmp_path):
    with pytest.raises(FileNotFoundError):
        benchmark([tiny_float_file, tmp_path / "none.tflite"])
    path = tmp_path / "text.tflite"
    path.write_text("this is no model")
    with pytest.raises(ValueError, match="must be a TFLite file"):
        benchmark([path])


def test_profile_by_layer(tiny_files):
    """The layers hold all operations and all of the time."""
    names = ("float32", "float16", "int8", "uint8_io")
    paths = [tiny_files[name] for name in names]
    report = tflite.benchmark(paths, [1], 5, profile=True, progress=False)
    assert len(report.profiles) == len(paths)
    for path, found in zip(paths, report.profiles):
        layers = [row.layer for row in found.layers]
        assert {"stem", "block1", "block2", "predictions"} <= set(layers)
        assert layers.index("block1") < layers.index("block2")
        assert sum(row.ops for row in found.layers) == len(
            tflite.inspect(path).ops
        )
        assert found.total_ms > 0
        assert max(row.share for row in found.layers) > 0.2
        assert "block2" in str(report)


def test_profile_of_times():
    times = np.array([[1.0, 2.0], [4.0, 8.0]])
    found = profile.from_times("a", 1, [("x", 3), ("y", 4)], times)
    assert [row.share for row in found.layers] == [0.25, 0.75]
    assert found.total_ms == 6 and found.layers[1].ms == 4.5
