"""The times of kernels, from LiteRT's own profiler."""

import json

import pytest

from keras_mobilevit import tflite
from keras_mobilevit.tflite import kernels

# As LiteRT 2.3 prints it, shortened.
TEXT = """
         Delegate/Add (ND)  0.1  0.1  9.0%  9.0%  0.0  4  [Delegate]:1
===== Summary by node type =====
  [Node type]  [count]  [avg ms]  [avg %]  [cdf %]  [mem KB]  [times called]
    Delegate/Add (ND)         3   0.008   24.500%    24.500%    0.000   12
    QUANTIZE                  1   0.021    5.250%    29.750%    0.000    4
    Delegate/Invalid Unary Op 2   0.034   70.250%   100.000%    0.000    8

===== Delegate Statistics =====
Op Name                    Count    Avg(us)    Min(us)    Max(us)  Total(us)
Delegate/Add (ND)             12       1.36          0         74        286
"""


def test_the_summary_is_read():
    found = kernels.parse(TEXT, 4, 10.0)
    assert found == (
        kernels.KernelTime("Unary by table (X8)", True, 2, 7.025, 0.7025),
        kernels.KernelTime("Add (ND)", True, 3, 2.45, 0.245),
        kernels.KernelTime("QUANTIZE", False, 1, 0.525, 0.0525),
    )
    assert kernels.parse("something else", 4, 10.0) == ()


@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_of_a_file(threads, tiny_files):
    path = tiny_files["uint8_io"]
    found = kernels.kernel_times(path, threads, 20, 3.0)
    assert sum(row.share for row in found) == pytest.approx(1, abs=1e-3)
    assert sum(row.ms for row in found) == pytest.approx(3, abs=1e-2)
    shares = [row.share for row in found]
    assert shares == sorted(shares, reverse=True)
    rows = {row.kernel: row for row in found}
    counts = tflite.inspect(path).op_counts
    # XNNPACK has no int8 softmax.
    assert rows["SOFTMAX"].count == counts["SOFTMAX"]
    assert not rows["SOFTMAX"].in_xnnpack
    depthwise = [name for name in rows if "DWConv" in name]
    assert (
        sum(rows[name].count for name in depthwise)
        == (counts["DEPTHWISE_CONV_2D"])
    )
    assert all(rows[name].in_xnnpack for name in depthwise)


def test_benchmark_tells_them(tiny_float_file):
    found = tflite.benchmark(
        tiny_float_file, threads=(1,), runs=5, progress=False, profile=True
    )
    (profile,) = found.profiles
    assert "SOFTMAX" not in str(profile) and "Softmax" in str(profile)
    assert sum(row.ms for row in profile.kernels) == pytest.approx(
        profile.total_ms, rel=0.02
    )
    said = json.loads(found.to_json())["profiles"][0]["kernels"]
    assert said[0]["kernel"] == profile.kernels[0].kernel


@pytest.mark.parametrize(
    "line",
    ["raise RuntimeError('LiteRtStartProfiler: status 3')", "os.abort()"],
)
def test_a_runtime_without_a_profiler(line, monkeypatch, tmp_path):
    """An error or a crash of the other process costs the answer only."""
    script = tmp_path / "kernels.py"
    script.write_text(f"import os\n{line}\n")
    monkeypatch.setattr(kernels, "__file__", str(script))
    assert kernels.kernel_times("a.tflite", 1, 5, 1.0) == ()


def test_a_process_that_hangs(monkeypatch, tmp_path):
    script = tmp_path / "kernels.py"
    script.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(kernels, "__file__", str(script))
    monkeypatch.setattr(kernels, "_TIMEOUT", 0.5)
    assert kernels.kernel_times("a.tflite", 1, 5, 1.0) == ()
