"""The report of `examples/benchmark_peers.py`, on made-up measurements."""

import json
from pathlib import Path

import pytest

from keras_mobilevit.tflite.benchmark import Timing


@pytest.fixture
def comparison(monkeypatch):
    """Three files of one network and what shows the peak."""
    examples = Path(__file__).parents[1] / "examples"
    monkeypatch.syspath_prepend(str(examples))
    from peers import comparison

    def row(model, exporter, precision, milliseconds, memory=2_000_000):
        accelerated = {"cpu": 9, "gpu": 10, "edgetpu": 5}
        if exporter == "onnx":
            accelerated = {}
        times = [
            Timing(exporter, n, milliseconds / n, milliseconds / n, 9.0, 1.0, 5)
            for n in (1, 2)
        ]
        is_tflite = bool(accelerated)
        return comparison.Row(
            *(model, exporter, precision, 1_000_000, memory),
            *(60_000_000 if is_tflite else None, 10 if is_tflite else None),
            *(accelerated, tuple(times)),
        )

    return comparison.Comparison(
        "a processor, 2 cores",
        (1, 2),
        (
            row("mobilevit_s", "ours", "float32", 9.0),
            row("mobilevit_s", "timm", "float32", 12.0, 1_000_000),
            row("mobilevit_s", "onnx", "float32", 10.0),
            row("mobilenet_v2", "keras", "float32", 4.0),
            row("peak", "ours", "float32", 2.0),
        ),
        {"pit_xs.timm.int8.tflite": "ValueError: a | b"},
    )


def test_compares_with_the_fastest_other_file(comparison):
    first, second = comparison.ratios()
    assert first[:5] == ("mobilevit_s", "float32", 1, "onnx", "float32")
    # Time against the fastest; memory against that, and the smallest.
    assert first[5:] == pytest.approx((0.9, 1.0, 2.0))
    assert second[2] == 2
    # 60 M in 10 ms of the 30 M a ms that the peak reaches, counted in the
    # TFLite file, since ONNX has no count of its own.
    assert comparison.share(comparison.rows[2], 1) == pytest.approx(0.2)


def test_page_says_what_is_measured_and_what_is_missing(comparison, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- measured: start -->\nold\n<!-- measured: end -->\nafter\n"
    )
    comparison.write_into(page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "old" not in text
    assert "1.00 is the float32 file of MobileNetV2 (keras), 4.00 ms" in text
    assert "float32 30 with 1 thread, float32 60 with 2 threads" in text
    assert "2.25" in text and "2.50 (onnx)" in text
    assert "9 of 10" in text
    assert "ValueError: a / b" in text
    assert "a processor" in str(comparison)
    page.write_text("no marks")
    with pytest.raises(ValueError, match="Received"):
        comparison.write_into(page)


def test_json_and_plot(comparison, tmp_path):
    assert len(json.loads(comparison.to_json())["rows"]) == 5
    comparison.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[1:4] == b"PNG"
