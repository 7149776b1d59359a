"""`serve_demo`, and its page: in the browser it gives what Python gives.

The command needs no browser. The page needs `node` and Chromium, LiteRT.js and
playwright-core: `tests/web.sh FOLDER`, whose node_modules
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
from web_tools import LABELS
from web_tools import NODE
from web_tools import TESTS

from keras_mobilevit import cli
from keras_mobilevit import tflite
from keras_mobilevit.tflite import demo
from keras_mobilevit.tflite import flatbuffer

MODULES = os.environ.get("KERAS_MOBILEVIT_NODE_MODULES", "")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

needs_runtime = pytest.mark.skipif(
    not os.path.isdir(MODULES),
    reason="needs LiteRT.js: tests/web.sh, and KERAS_MOBILEVIT_NODE_MODULES",
)
needs_browser = pytest.mark.skipif(
    not (NODE and CHROMIUM), reason="needs node and chromium on the PATH"
)


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
