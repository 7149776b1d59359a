"""The page that runs TFLite files in the browser gives what Python gives.

Parts without a browser need `node`. The whole page needs Chromium too, and
LiteRT.js and playwright-core: `tests/web.sh FOLDER`, whose node_modules
KERAS_MOBILEVIT_NODE_MODULES names.
"""

import functools
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading
import urllib.request

import numpy as np
import pytest
from PIL import Image
from PIL import ImageOps
from test_android import with_labels
from test_android import with_normalization

from keras_mobilevit import cli
from keras_mobilevit import tflite
from keras_mobilevit.data.pictures import fit_picture
from keras_mobilevit.tflite import demo
from keras_mobilevit.tflite import flatbuffer

TESTS = pathlib.Path(__file__).parent
PAGE = TESTS.parent / "tflite" / "web"
MODULES = os.environ.get("KERAS_MOBILEVIT_NODE_MODULES", "")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LABELS = ["daisy", "rose, red", "Löwenzahn", "d", "e", "f", "蒲公英"]
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="needs node on the PATH")
needs_runtime = pytest.mark.skipif(
    not os.path.isdir(MODULES),
    reason="needs LiteRT.js: tests/web.sh, and KERAS_MOBILEVIT_NODE_MODULES",
)
needs_browser = pytest.mark.skipif(
    not (NODE and CHROMIUM), reason="needs node and chromium on the PATH"
)


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


# The command.


@pytest.fixture(scope="module")
def models(tiny_files, tmp_path_factory):
    """Files that the page takes, with labels: `{name: path}`."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("float32", "float16", "uint8_io"):
        data = with_labels(tiny_files[name].read_bytes(), LABELS)
        (folder / f"{name}.tflite").write_bytes(data)
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture
def runtime(tmp_path):
    """A stand-in for node_modules."""
    for part in demo._PARTS:
        file = tmp_path / "modules" / "@litertjs" / part
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"//")
    return tmp_path / "modules"


def test_demo_is_a_folder_for_any_server(models, runtime, tmp_path, capsys):
    files = [str(models[name]) for name in ("uint8_io", "float32")]
    command = ["serve_demo", *files, "--runtime", str(runtime)]
    target = tmp_path / "demo"
    command += ["--output_dir", str(target), "--noserve", "--json"]
    assert cli.main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == ["uint8_io.tflite", "float32.tflite"]
    assert report["folder"] == str(target) and report["url"] is None
    listed = json.loads((target / "models.json").read_text())
    for row, path in zip(listed, files, strict=True):
        copy = (target / "models" / row["name"]).read_bytes()
        assert copy == pathlib.Path(path).read_bytes()
        assert row["bytes"] == len(copy)
    assert (target / "index.html").is_file()
    assert (target / "litert" / "core" / "dist" / "index.js").is_file()
    assert not list(tmp_path.glob(".tmp-*"))
    assert cli.main(command) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main([*command, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no file", "serve_demo takes FILE.tflite"),
        ("int8", "type uint8 or float32 at both ends"),
        ("missing", "is no file|does not exist|There is no"),
        ("twice", "must have different names"),
        ("folder", "a new folder or an older demo"),
        ("runtime", "node_modules that `npm install @litertjs/core@"),
        ("npm", "there is no npm to fetch it"),
        ("page", "tflite/web of the sources"),
        ("port", "`port` must be one that is free"),
    ],
)
def test_demo_explains_what_is_wrong(
    name, message, models, tiny_files, runtime, tmp_path, capsys, monkeypatch
):
    file = str(models["uint8_io"])
    target = tmp_path / "demo"
    files = {
        "no file": [],
        "int8": [str(tiny_files["int8_io"])],
        "missing": [str(tmp_path / "none.tflite")],
        "twice": [file, file],
    }.get(name, [file])
    flags = ["--runtime", str(runtime), "--output_dir", str(target)]
    if name == "folder":
        (target / "holiday").mkdir(parents=True)
    elif name == "runtime":
        shutil.rmtree(runtime / "@litertjs" / "core" / "wasm")
    elif name == "npm":
        flags = flags[2:]
        monkeypatch.setenv("PATH", "")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    elif name == "page":
        monkeypatch.setattr(demo, "__file__", str(tmp_path / "a" / "b" / "c"))
    elif name == "port":
        flags += ["--port", "99999"]
    if name != "port":
        flags.append("--noserve")
    assert cli.main(["serve_demo", *files, *flags]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1
    if name != "port":
        assert not (target / "index.html").exists()


def test_server_sends_what_threads_need(
    models, runtime, tmp_path, capsys, monkeypatch
):
    answers = {}

    def serve(server):
        """Answers two requests, then Ctrl-C comes."""
        thread = threading.Thread(target=ask, args=[server.server_port])
        thread.start()
        for _ in names:
            server.handle_request()
        thread.join()
        raise KeyboardInterrupt

    def ask(port):
        for name in names:
            url = f"http://127.0.0.1:{port}/{name}"
            with urllib.request.urlopen(url, timeout=60) as answer:
                answers[name] = answer.headers

    wasm = "litert/core/wasm/litert_wasm_internal.wasm"
    names = ["demo/", f"demo/{wasm}"]
    monkeypatch.setattr(http.server.ThreadingHTTPServer, "serve_forever", serve)
    file = str(models["float32"])
    command = ["serve_demo", file, "--runtime", str(runtime), "--port", "0"]
    assert cli.main(command) == 0
    assert re.search(r"http://127.0.0.1:\d+/demo/ ", capsys.readouterr().out)
    for headers, kind in zip(
        answers.values(), ("text/html", "application/wasm"), strict=True
    ):
        assert headers["Content-Type"] == kind
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"


# The page in a browser.


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """One photograph in several guises: `{file name: path}`."""
    samples = pytest.importorskip(
        "sklearn.datasets", reason="needs scikit-learn's photographs"
    )
    folder = tmp_path_factory.mktemp("pictures")
    photo = Image.fromarray(samples.load_sample_image("flower.jpg"))
    photo.save(folder / "photo.png")
    photo.save(folder / "photo.jpg", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    photo.save(folder / "turned.jpg", exif=exif, quality=95)
    grey = np.asarray(photo.convert("L"), "uint16") * 257
    Image.fromarray(grey).save(folder / "grey16.png")
    half = photo.copy()
    half.putalpha(ImageOps.invert(photo.convert("L")))
    half.save(folder / "clear.png")
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def wrong(models, tiny_files, tmp_path_factory):
    """What the page must refuse: `[(id of the input, path)]`."""
    folder = tmp_path_factory.mktemp("wrong")
    uint8 = tiny_files["uint8_io"].read_bytes()
    future = flatbuffer.read_model(uint8)
    for code in future.operatorCodes:
        code.version = 99
    for name, content in (
        ("cut.tflite", uint8[: len(uint8) // 2]),
        ("text.tflite", b"no model at all"),
        ("few.tflite", with_labels(uint8, LABELS[:3])),
        ("int8.tflite", tiny_files["int8_io"].read_bytes()),
        ("future.tflite", flatbuffer.write_model(future)),
        ("notes.png", b"no picture at all"),
    ):
        (folder / name).write_bytes(content)
    return [
        ("file" if path.suffix == ".tflite" else "picture", str(path))
        for path in sorted(folder.iterdir())
    ]


def start(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def seen(models, pictures, wrong, tmp_path_factory):
    """What web_page.mjs saw."""
    folder = tmp_path_factory.mktemp("page")
    names = ["uint8_io", "float32", "float16"]
    local = folder / "local.tflite"
    shutil.copy(models["float32"], local)
    made = demo.assemble_demo(
        [models[name] for name in names], folder / "demo", MODULES
    )
    plain = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0),
        functools.partial(
            http.server.SimpleHTTPRequestHandler, directory=made.folder
        ),
    )
    with demo.serve_demo(made, 0) as (served, server), plain:
        start(server)
        start(plain)
        plan = {
            "url": served.url,
            "plain": f"http://127.0.0.1:{plain.server_port}/",
            "modules": MODULES,
            "chromium": CHROMIUM,
            "models": [f"{name}.tflite" for name in names],
            "pictures": [str(path) for _, path in sorted(pictures.items())],
            "wrong": wrong,
            "local": str(local),
            "shots": str(folder),
        }
        (folder / "plan.json").write_text(json.dumps(plan))
        with subprocess.Popen(
            [NODE, TESTS / "web_page.mjs", folder / "plan.json"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            said = process.stdout.readline()
            server.shutdown()
            server.server_close()
            rest, errors = process.communicate("go on\n", timeout=180)
        plain.shutdown()
    assert process.returncode == 0, errors
    assert said == "offline?\n"
    return json.loads(rest)


@needs_browser
@needs_runtime
class TestBrowser:
    def test_scores_are_pythons(self, seen, models, pictures):
        for name, rows in seen["models"].items():
            path = models[name.removesuffix(".tflite")]
            best = set()
            for picture, shown in rows.items():
                (wanted,) = tflite.predict(path, pictures[picture])
                where = f"{name}, {picture}"
                assert shown["message"] == ""
                error = np.subtract(
                    shown["scores"], [row.score for row in wanted.scores]
                )
                # Browsers decode JPEG a little differently from Pillow.
                limit = 0.02 if picture.endswith(".jpg") else 1e-3
                assert np.abs(error).max() <= limit, where
                if limit == 1e-3:
                    labels = [row.label for row in wanted.scores]
                    assert shown["labels"] == labels, where
                assert shown["best"] == wanted.scores[0].label, where
                best.add(shown["best"])
            assert len(best) > 1

    def test_page_says_what_it_does(self, seen):
        assert seen["start"]["isolated"]
        shown = seen["models"]["uint8_io.tflite"]["photo.png"]
        assert "32 × 32, uint8" in shown["facts"]
        assert "assumed" in shown["facts"]
        assert "7, with names" in shown["facts"]
        assert re.match(r"[\d.]+ ms a picture", shown["timing"])
        cores = min(os.cpu_count(), 8)
        threads = list(map(str, range(1, cores + 1)))
        assert seen["start"]["threads"] == threads
        assert seen["threads"]["message"] == ""

    def test_wrong_files_are_explained(self, seen, wrong):
        said = {name: row["message"] for name, row in seen["wrong"].items()}
        assert len(said) == len(wrong)
        assert "damaged or cut off" in said["cut.tflite"]
        assert "no .tflite file" in said["text.tflite"]
        assert "3 labels for 7 classes" in said["few.tflite"]
        assert "--input_dtype" in said["int8.tflite"]
        assert "cannot run this file" in said["future.tflite"]
        assert "notes.png is no picture" in said["notes.png"]
        assert seen["noCamera"]["message"] == "No camera was found."
        for row in seen["wrong"].values():  # the last good one stays
            assert row["model"] == "float16.tflite"
            assert row["scores"] == seen["threads"]["scores"]

    def test_opened_file_is_used(self, seen):
        assert seen["local"]["model"] == "local.tflite"
        expected = seen["models"]["float32.tflite"]["clear.png"]["scores"]
        assert seen["local"]["scores"] == expected

    def test_works_without_a_network(self, seen):
        offline = seen["offline"]
        assert offline["model"] == "uint8_io.tflite"
        expected = seen["models"]["uint8_io.tflite"]["clear.png"]
        assert offline["scores"] == expected["scores"]
        assert offline["isolated"]

    def test_plain_server_and_camera(self, seen):
        assert seen["plain"]["isolated"]
        assert seen["camera"]["message"] == ""
        assert seen["camera"]["labels"]

    def test_fits_a_phone(self, seen):
        assert seen["narrow"]["message"] == ""
        assert not seen["narrow"]["overflows"]
