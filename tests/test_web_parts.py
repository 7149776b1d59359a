"""The page's files, and its parts against Python, without a browser.

The parts need `node`.
"""

import json
import re
import subprocess

import numpy as np
import pytest
from test_android import with_labels
from test_android import with_normalization
from web_tools import LABELS
from web_tools import NODE
from web_tools import TESTS

from keras_mobilevit import tflite
from keras_mobilevit.data.pictures import fit_picture

PAGE = TESTS.parent / "tflite" / "web"

needs_node = pytest.mark.skipif(NODE is None, reason="needs node on the PATH")


# The page's files.


def test_page_works_without_a_network():
    """The service worker keeps each file, and nothing is from elsewhere."""
    worker = (PAGE / "sw.js").read_text()
    kept = set(re.findall(r'^  "(.+)",$', worker, re.M))
    files = {
        file.relative_to(PAGE).as_posix()
        for file in PAGE.rglob("*")
        if file.suffix in {".css", ".js"} and file.name != "sw.js"
    }
    assert kept == {"./", *files}
    for file in (*PAGE.rglob("*.js"), PAGE / "style.css", PAGE / "index.html"):
        assert not re.search(r"https?://\w", file.read_text()), file


def test_page_finds_its_elements():
    html = (PAGE / "index.html").read_text()
    app = (PAGE / "js" / "app.js").read_text()
    ids = set(re.findall(r'id="([\w-]+)"', html))
    (listed,) = re.findall(r"= \[\n(.+?)\n\]\.map\(element\)", app, re.S)
    named = set(re.findall(r'"(\w+)"', listed))
    named |= set(re.findall(r'element\("([\w-]+)"\)', app))
    assert named <= ids


# Its parts against Python.


@pytest.fixture
def node(tmp_path):
    """A function that runs tasks of web_parts.mjs in a folder."""

    def run(tasks):
        (tmp_path / "tasks.json").write_text(json.dumps(tasks))
        done = subprocess.run(
            [NODE, TESTS / "web_parts.mjs", PAGE, tmp_path],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "results.json").read_text())

    return run


@needs_node
def test_pictures_are_fitted_bit_for_bit(node, tmp_path):
    generator = np.random.default_rng(0)
    tasks, expected = [], []
    for width, height in (
        *((64, 48), (48, 64), (101, 67), (320, 240)),
        *((32, 32), (20, 16), (1, 1), (31, 33)),
    ):
        picture = generator.integers(0, 256, (height, width, 4), np.uint8)
        (tmp_path / f"{width}x{height}").write_bytes(picture.tobytes())
        for to in ((32, 32), (40, 24)):
            task = {"task": "fit", "picture": f"{width}x{height}"}
            tasks.append({**task, "width": width, "height": height, "to": to})
            expected.append(fit_picture(picture[..., :3], to[1], to[0]))
    for task, fitted, picture in zip(tasks, node(tasks), expected, strict=True):
        fitted = np.array(fitted).reshape(picture.shape)
        np.testing.assert_array_equal(fitted, picture, err_msg=str(task))


@needs_node
def test_files_are_read_as_python_reads_them(node, tiny_files, tmp_path):
    uint8, floats = (
        tiny_files[name].read_bytes() for name in ("uint8_io", "float32")
    )
    mean, std = [120, 110, 100], [60.5, 50, 40]
    files = {
        "plain": uint8,
        "labelled": with_labels(uint8, LABELS),
        "normalized": with_normalization(floats, mean, std),
        "float": floats,
        "few": with_labels(uint8, LABELS[:3]),
        "int8": tiny_files["int8_io"].read_bytes(),
        "cut": uint8[: len(uint8) // 2],
        "noise": uint8[:8] + bytes(range(256)) * 9,
        "text": b"no model at all",
        "empty": b"",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    rgb = [0, 1, 255, 7, 128, 200]
    encode = [
        {"task": "encode", "file": name, "rgb": rgb}
        for name in ("plain", "float", "normalized")
    ]
    found = node([{"task": "describe", "file": f} for f in files] + encode)
    *described, plain, raw, normalized = found
    facts = dict(zip(files, described, strict=True))
    (image,) = tflite.inspect(tiny_files["uint8_io"]).inputs
    for name, labels in (
        ("plain", [f"class {i}" for i in range(7)]),
        ("labelled", LABELS),
    ):
        row = facts[name]
        assert (row["labels"], row["labelled"]) == (labels, labels == LABELS)
        assert row["assumed"] and (row["height"], row["width"]) == (32, 32)
        assert row["input"]["type"] == image.dtype
        assert row["input"]["scale"] == pytest.approx(image.scale)
        assert row["input"]["zeroPoint"] == image.zero_point
    assert not facts["normalized"]["assumed"]
    assert plain == raw == rgb
    steps = (np.reshape(rgb, (2, 3)) - mean) / std
    np.testing.assert_allclose(normalized, steps.ravel(), rtol=1e-6)
    for name, message in (
        ("few", "The file has 3 labels for 7 classes"),
        ("int8", "int8 at an end"),
        ("cut", "damaged or cut off"),
        ("noise", "damaged or cut off"),
        ("text", "no .tflite file"),
        ("empty", "no .tflite file"),
    ):
        assert facts[name]["error"].startswith("Problem: "), facts[name]
        assert message in facts[name]["error"]
