"""What the installed runtime's XNNPACK takes over, in a process of its own."""

import dataclasses
import json
import os
import subprocess
import sys

from keras_mobilevit.tflite.interpreter import divide

_TIMEOUT = 120  # seconds
_SAID = "keras-mobilevit "

# A damaged file can take the process down with it, so it is not this one.
_SCRIPT = f"""
import importlib.metadata, json, sys
from ai_edge_litert.interpreter import Interpreter

said = {{"runtime": importlib.metadata.version("ai-edge-litert")}}
print({_SAID!r} + json.dumps(said), flush=True)
try:
    interpreter = Interpreter(sys.argv[1], num_threads=1)
    interpreter.allocate_tensors()
    said["ops"] = [
        {{
            "index": op["index"],
            "op_name": op["op_name"],
            "inputs": [int(t) for t in op["inputs"]],
            "outputs": [int(t) for t in op["outputs"]],
        }}
        for op in interpreter._get_ops_details()
    ]
except (RuntimeError, ValueError) as error:
    said["error"] = str(error)
print({_SAID!r} + json.dumps(said), flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Measured:
    """How the installed runtime has divided the main graph of a file.

    Attributes:
        runtime: its name and version.
        error: why it does not run the file; `""` if it does.
        inside: the indices of the operations that XNNPACK runs.
        partitions: in how many parts; `None` after an error.
    """

    runtime: str
    error: str = ""
    inside: frozenset[int] = frozenset()
    partitions: int | None = None


def measure(path: str | os.PathLike) -> Measured:
    """Loads a file into the installed runtime and looks what XNNPACK took.

    Args:
        path: a `.tflite` file.

    Returns:
        What was measured; a file that the runtime refuses, or that kills it,
        is a result too.

    Raises:
        RuntimeError: the runtime itself does not start.
    """
    command = [sys.executable, "-c", _SCRIPT, os.fspath(path)]
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT
        )
        out, code, err = child.stdout, child.returncode, child.stderr
    except subprocess.TimeoutExpired as late:
        out = (late.stdout or b"").decode()
        code, err = -1, f"it took longer than {_TIMEOUT} s"
    lines = [line for line in out.splitlines() if line.startswith(_SAID)]
    if not lines:
        raise RuntimeError(
            f"The LiteRT runtime did not start: {err.strip()[-500:]}"
        )
    said = json.loads(lines[-1].removeprefix(_SAID))
    runtime = f"ai-edge-litert {said['runtime']}"
    if "ops" not in said:
        reason = said.get("error", f"it ended with code {code}: {err[-200:]}")
        return Measured(runtime, " ".join(reason.split()))
    found = divide(said["ops"])
    return Measured(runtime, "", found.inside, found.partitions)
