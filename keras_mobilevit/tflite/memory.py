"""How much memory a file takes, in a process of its own."""

import os
import subprocess
import sys

_CHILD_TIMEOUT = 120

# Run in a process of its own, so that nothing else has touched its memory.
_MEMORY_SCRIPT = """
import os, sys
{imports}

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

before = resident()
{load_and_run}
print("resident", resident() - before)
"""
_LITERT = (
    "from ai_edge_litert.interpreter import Interpreter",
    """
interpreter = Interpreter(sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
interpreter.invoke()
""",
)


def resident_memory(
    path: str, imports: str = _LITERT[0], load_and_run: str = _LITERT[1]
) -> int | None:
    """Returns by how much a fresh process grows when it runs a file once.

    Args:
        path: the file; the process finds it in `sys.argv[1]`.
        imports: Python code before memory is looked at.
        load_and_run: the code that loads the file and runs it.

    Returns:
        Bytes of resident memory; `None` where the system does not tell.

    Raises:
        RuntimeError: the process failed.
    """
    if not os.path.exists("/proc/self/statm"):
        return None
    script = _MEMORY_SCRIPT.format(imports=imports, load_and_run=load_and_run)
    child = subprocess.run(
        [sys.executable, "-c", script, path],
        capture_output=True,
        text=True,
        timeout=_CHILD_TIMEOUT,
    )
    lines = child.stdout.split("\n")
    found = [line.split()[1] for line in lines if line.startswith("resident")]
    if child.returncode or not found:
        raise RuntimeError(
            f"The process that measures the memory of {path} failed: "
            f"{child.stderr.strip()[-500:]}"
        )
    return int(found[0])
