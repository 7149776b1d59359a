"""Google's `edgetpu_compiler`, where it is installed, and its log."""

import dataclasses
import os
import re
import shutil
import subprocess
import tempfile

PROGRAM = "edgetpu_compiler"
MAPPED = "Mapped to Edge TPU"

_TIMEOUT = 600  # seconds; the compiler itself gives up after 180
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_ROW = re.compile(r"^([A-Za-z][\w-]*) +(\d+) +(\S.*?) *$", re.MULTILINE)
_COMPLAINT = re.compile(
    r"^(ERROR:.*|Invalid model.*|Model .*not .*|Internal compiler error.*|"
    r"Compilation failed.*|.*timed out.*)$",
    re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Log:
    """What the compiler said.

    Attributes:
        version: its version, `"16.0.384591198"`; `"unknown"` if it is silent.
        error: why it compiled nothing; `""` if it did.
        rows: `(op name, count, status)`.
        subgraphs: how many parts run on the Edge TPU.
        cached, remaining, streamed: bytes of weights kept on the chip, bytes
            left there, and bytes fetched for each picture; `None` if the log
            does not say.
    """

    version: str
    error: str
    rows: tuple[tuple[str, int, str], ...]
    subgraphs: int | None
    cached: int | None
    remaining: int | None
    streamed: int | None


def find() -> str | None:
    """Returns the path of the compiler, or `None` if it is not installed."""
    return shutil.which(PROGRAM)


def run(program: str, path: str | os.PathLike) -> Log:
    """Compiles a file, throws the result away and returns the log.

    Args:
        program: the path of the compiler.
        path: a `.tflite` file.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [program, "-s", "-o", folder, os.path.abspath(path)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            return parse(f"Compilation timed out after {_TIMEOUT} s")
    log = parse(done.stdout)
    if done.returncode and not log.error:
        error = f"it ended with code {done.returncode}"
        return dataclasses.replace(log, error=error)
    return log


def parse(text: str) -> Log:
    """Reads what `edgetpu_compiler -s` prints.

    Args:
        text: its standard output and error.
    """
    version = re.search(r"Edge TPU Compiler version (\S+)", text)
    error = ""
    if "Model compiled successfully" not in text:
        lines = _COMPLAINT.findall(text) or text.strip().split("\n")[-1:]
        said = " ".join(line.strip() for line in lines).strip()
        error = said or "it compiled nothing and did not say why"
    subgraphs = re.search(r"Number of Edge TPU subgraphs: (\d+)", text)
    _, _, listing = text.partition("Operator  ")
    return Log(
        version=version[1] if version else "unknown",
        error=error,
        rows=tuple(
            (name, int(count), status)
            for name, count, status in _ROW.findall(listing)
        ),
        subgraphs=int(subgraphs[1]) if subgraphs else None,
        cached=_size(text, "On-chip memory used for caching"),
        remaining=_size(text, "On-chip memory remaining for caching"),
        streamed=_size(text, "Off-chip memory used for streaming"),
    )


def _size(text: str, label: str) -> int | None:
    found = re.search(re.escape(label) + r"[^:]*: ([\d.]+)([KMG]?i?B)", text)
    if not found or found[2] not in _UNITS:
        return None
    return round(float(found[1]) * _UNITS[found[2]])
