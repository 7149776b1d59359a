"""A page that runs TFLite files in the browser, put together and served."""

import contextlib
import dataclasses
import functools
import http.server
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

from keras_mobilevit import reports
from keras_mobilevit.tflite.inspect import inspect

#: The npm package that runs TFLite files in browsers. Its licence is
#: Apache-2.0.
RUNTIME = "@litertjs/core@2.5.3"

_SCOPE = "@litertjs"
# Of the four builds of the runtime, those that the page may load.
_BUILDS = ("", "_compat", "_threaded")
_PARTS = (
    "wasm-utils/dist/index.js",
    "core/dist/index.js",
    *(
        f"core/wasm/litert_wasm{build}_internal{suffix}"
        for build in _BUILDS
        for suffix in (".js", ".wasm")
    ),
)
# A folder of its own, since a service worker stays in the browser: at "/" it
# would meet whatever is served at this port later.
_HOME = "/demo/"
# Without these a browser gives a page no memory that threads share.
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-cache",
}


@dataclasses.dataclass(frozen=True)
class Demo(reports.Report):
    """What `assemble_demo` put together.

    Attributes:
        folder: what a static server serves.
        url: where `serve_demo` does, until it ends; else `None`.
        files: the names of the TFLite files; the page begins with the first.
        megabytes: what the folder takes on disk, runtime included.
    """

    folder: str
    url: str | None
    files: tuple[str, ...]
    megabytes: float

    def __str__(self) -> str:
        return reports.table(
            ("page", "megabytes", "files"),
            [
                (
                    self.url or self.folder,
                    f"{self.megabytes:.1f}",
                    ", ".join(self.files),
                )
            ],
        )


def assemble_demo(
    paths: Sequence[str | os.PathLike],
    folder: str | os.PathLike,
    runtime: str | os.PathLike | None = None,
    overwrite: bool = False,
) -> Demo:
    """Puts page, runtime and files into a folder for any static server.

    Args:
        paths: classifier files `(1, height, width, 3)` -> `(1, classes)` of
            type float32 or uint8 at both ends.
        folder: where to. It appears when all is in it.
        runtime: a folder `node_modules` that holds LiteRT.js; `None` fetches
            it with npm, once.
        overwrite: whether a demo that is there already may be replaced.

    Raises:
        FileExistsError: there is something at `folder`.
        FileNotFoundError: one of `paths`, the page or the runtime is not
            there.
        RuntimeError: npm is not there, or cannot fetch the runtime.
        ValueError: a file is damaged or not fit for the page.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise ValueError("`paths` must hold a TFLite file. Received: none")
    names = tuple(path.name for path in paths)
    if len(set(names)) < len(names):
        raise ValueError(
            "The files in `paths` must have different names. "
            f"Received: {', '.join(names)}"
        )
    for path in paths:
        _check_fit(path)
    folder = Path(folder)
    _check_replaceable(folder, overwrite)
    source = Path(runtime) if runtime else _fetch_runtime()
    _check_runtime(source)
    with tempfile.TemporaryDirectory(
        prefix=".tmp-", dir=folder.absolute().parent
    ) as temporary:
        made = Path(temporary) / "demo"
        shutil.copytree(_page(), made, ignore=shutil.ignore_patterns("*.md"))
        for part in _PARTS:
            target = made / "litert" / part
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / _SCOPE / part, target)
        (made / "models").mkdir()
        for path in paths:
            shutil.copyfile(path, made / "models" / path.name)
        listed = [
            {"name": path.name, "bytes": path.stat().st_size} for path in paths
        ]
        (made / "models.json").write_text(json.dumps(listed), "utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(made, folder)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    return Demo(str(folder), None, names, size / 1e6)


@contextlib.contextmanager
def serve_demo(
    demo: Demo, port: int = 8000
) -> Iterator[tuple[Demo, http.server.HTTPServer]]:
    """Opens a server for a demo, for this machine only.

    Args:
        demo: what `assemble_demo` gave.
        port: of this machine; 0 for one that is free.

    Yields:
        The demo with its `url`, and a server: call its `serve_forever`.

    Raises:
        ValueError: the port cannot be had.
    """
    handler = functools.partial(_Handler, directory=demo.folder)
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"`port` must be one that is free, or 0: {error}. "
            f"Received: port={port}"
        ) from error
    with server:
        url = f"http://127.0.0.1:{server.server_port}{_HOME}"
        yield dataclasses.replace(demo, url=url), server


class _Handler(http.server.SimpleHTTPRequestHandler):
    # Not those of the machine, which may know nothing of WebAssembly.
    extensions_map = {
        "": "application/octet-stream",
        ".css": "text/css",
        ".html": "text/html",
        ".js": "text/javascript",
        ".json": "application/json",
        ".wasm": "application/wasm",
    }

    def send_head(self):
        if self.path.startswith(_HOME):
            return super().send_head()
        self.send_response(http.HTTPStatus.FOUND)
        self.send_header("Location", _HOME)
        self.end_headers()
        return None

    def translate_path(self, path):
        return super().translate_path(path.removeprefix(_HOME))

    def end_headers(self):
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_):
        pass


def _check_fit(path):
    """Raises if the page cannot run a file."""
    found = inspect(path)
    (image, *more), (scores, *others) = found.inputs, found.outputs
    is_picture = len(image.shape) == 4 and tuple(image.shape)[::3] == (1, 3)
    is_row = len(scores.shape) == 2 and scores.shape[0] == 1
    if more or others or not is_picture or not is_row:
        raise ValueError(
            "The page takes classifiers from (1, height, width, 3) to "
            f"(1, classes). Received: {path}, from {image.shape} to "
            f"{scores.shape}"
        )
    if not {image.dtype, scores.dtype} <= {"float32", "uint8"}:
        raise ValueError(
            "Browsers run files of type uint8 or float32 at both ends: "
            "convert with `input_dtype` (`--input_dtype`). "
            f"Received: {path}, from {image.dtype} to {scores.dtype}"
        )


def _check_replaceable(folder, overwrite):
    if not folder.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"The folder of the output does not exist. Received: {folder}"
        )
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "models.json").is_file():
        raise FileExistsError(
            "The output must be a new folder or an older demo, which this is "
            f"not. Received: {folder}"
        )
    if not overwrite:
        raise FileExistsError(
            f"{folder} exists already. Pass `overwrite=True` (`--overwrite` "
            "on the command line) to replace it, or choose another path."
        )


def _page():
    """The folder of the page: as the wheel has it, or in a clone."""
    package = Path(__file__).parent
    places = (package / "web", package.parent.parent / "tflite" / "web")
    for place in places:
        if (place / "index.html").is_file():
            return place
    raise FileNotFoundError(
        "The page of the demo is not installed; it is the folder tflite/web "
        f"of the sources. Received: {' and '.join(map(str, places))}"
    )


def _check_runtime(folder):
    missing = [p for p in _PARTS if not (folder / _SCOPE / p).is_file()]
    if missing:
        raise FileNotFoundError(
            "`runtime` must be the folder node_modules that `npm install "
            f"{RUNTIME}` makes. Received: {folder}, without "
            f"{_SCOPE}/{missing[0]}"
        )


def _fetch_runtime():
    """Returns a `node_modules` with the runtime, fetched once with npm."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = Path(cache) / "keras_mobilevit" / RUNTIME.replace("/", "-")
    if home.is_dir():
        return home / "node_modules"
    otherwise = (
        f"or run `npm install {RUNTIME}` elsewhere and pass its folder "
        "node_modules as `runtime` (`--runtime`)"
    )
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            f"The page needs LiteRT.js, {RUNTIME}, and there is no npm to "
            f"fetch it: install Node.js (https://nodejs.org), {otherwise}."
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as temporary:
        made = Path(temporary) / "made"
        command = [
            *(npm, "install", "--prefix", made, "--no-save", RUNTIME),
            *("--ignore-scripts", "--no-audit", "--no-fund"),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-3:]
            raise RuntimeError(
                f"npm could not fetch LiteRT.js, {RUNTIME}: look at the "
                f"network, {otherwise}. npm says: {' '.join(last)}"
            )
        with contextlib.suppress(OSError):  # another process was faster
            os.replace(made, home)
    return home / "node_modules"
