"""Which kernels take a file's time, as LiteRT's own profiler tells.

XNNPACK runs a whole graph as one operation, fuses some and splits others; the
profiler looks inside. LiteRT's Python package does not offer it, but the C
library that it comes with does (`litert/c/litert_profiler.h`, `litert_model.h`,
`litert_compiled_model.h`). It is called in a process of its own, so that a
release with another interface costs the answer and nothing else.
"""

import ctypes
import dataclasses
import importlib.util
import os
import re
import subprocess
import sys

_LIBRARY = "libLiteRt.so"
_CPU = 1  # of LiteRtHwAccelerators
_WARMUP = 3
_TIMEOUT = 300  # seconds
# Rows of the summary: name, count, milliseconds, share, sum of shares, memory,
# times called. The count is of one of several parts in XNNPACK.
_ROW = re.compile(
    r"^ *(\S.*?) +\d+ +[\d.]+ +([\d.]+)% +[\d.]+% +[\d.]+ +(\d+) *$",
    re.MULTILINE,
)
_DELEGATE = "Delegate/"
# XNNPACK's name for what it does with a table of 256 results: int8 SiLU.
_NAMES = {"Invalid Unary Op": "Unary by table (X8)"}


@dataclasses.dataclass(frozen=True)
class KernelTime:
    """One kind of kernel.

    Attributes:
        kernel: its name in XNNPACK, or that of the operation outside.
        in_xnnpack: whether XNNPACK has it.
        count: how many of them run for one picture.
        ms: milliseconds that they take.
        share: of the file's time, 0..1.
    """

    kernel: str
    in_xnnpack: bool
    count: int
    ms: float
    share: float


def kernel_times(
    path: str | os.PathLike, threads: int, runs: int, total_ms: float
) -> tuple[KernelTime, ...]:
    """Measures what share of a file's time each kind of kernel takes.

    Args:
        path: a `.tflite` file with a signature.
        threads: CPU threads.
        runs: how often it is run.
        total_ms: milliseconds of one run, measured without the profiler,
            which slows it.

    Returns:
        The kernels, slowest first; `()` if this runtime does not tell.
    """
    arguments = (os.fspath(path), str(threads), str(runs))
    try:
        child = subprocess.run(
            # -P: this folder has a module `inspect` of its own.
            [sys.executable, "-P", __file__, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return ()
    return () if child.returncode else parse(child.stdout, runs, total_ms)


def parse(text: str, runs: int, total_ms: float) -> tuple[KernelTime, ...]:
    """Reads the profiler's summary.

    Args:
        text: what `LiteRtGetProfileSummary` says.
        runs: how often the file was run.
        total_ms: milliseconds of one run.
    """
    _, _, text = text.partition("Summary by node type")
    text, _, _ = text.partition("Delegate Statistics")
    found = []
    for name, percent, calls in _ROW.findall(text):
        kernel = name.removeprefix(_DELEGATE)
        share = float(percent) / 100
        found.append(
            KernelTime(
                _NAMES.get(kernel, kernel),
                name.startswith(_DELEGATE),
                int(calls) // runs,
                round(share * total_ms, 4),
                round(share, 5),
            )
        )
    return tuple(sorted(found, key=lambda row: -row.share))


class _LiteRT:
    """The C functions of LiteRT; one that fails raises `RuntimeError`."""

    def __init__(self):
        spec = importlib.util.find_spec("ai_edge_litert")
        folder = os.path.dirname(spec.origin)
        self._library = ctypes.CDLL(os.path.join(folder, _LIBRARY))
        self._alive = []

    def __call__(self, name, *arguments):
        function = getattr(self._library, f"LiteRt{name}")
        function.restype = ctypes.c_int
        status = function(*arguments)
        if status:
            raise RuntimeError(f"LiteRt{name}: status {status}")

    def make(self, name, *arguments, kind=ctypes.c_void_p):
        """Returns what a function writes behind its last argument."""
        result = kind()
        self(name, *arguments, ctypes.byref(result))
        return result

    def options(self, name, text):
        """Returns options of one part of LiteRT, which are written in TOML."""
        payload = ctypes.create_string_buffer(text.encode())
        destroy = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda payload: None)
        self._alive += [payload, destroy]
        address = ctypes.cast(payload, ctypes.c_void_p)
        return self.make("CreateOpaqueOptions", name.encode(), address, destroy)


def _summary(path, threads, runs):
    """Runs a file under the profiler and returns what that says."""
    litert = _LiteRT()
    none, first = None, ctypes.c_size_t(0)
    environment = litert.make("CreateEnvironment", 0, none)
    model = litert.make("CreateModelFromFile", environment, path.encode())
    options = litert.make("CreateOptions")
    litert("SetOptionsHardwareAccelerators", options, _CPU)
    for name, text in (
        ("runtime_options_string", "enable_profiling = true"),
        ("xnnpack", f"num_threads = {threads}"),
    ):
        litert("AddOpaqueOptions", options, litert.options(name, text))
    compiled = litert.make("CreateCompiledModel", environment, model, options)
    profiler = litert.make("CompiledModelGetProfiler", compiled)
    if not profiler:
        raise RuntimeError("LiteRT has no profiler for this model")
    signature = litert.make("GetModelSignature", model, first)

    def buffers(end):
        count = litert.make(
            f"GetNumSignature{end}s", signature, kind=ctypes.c_size_t
        )
        found = (ctypes.c_void_p * count.value)()
        for i in range(count.value):
            index = ctypes.c_size_t(i)
            tensor = litert.make(
                f"GetSignature{end}TensorByIndex", signature, index
            )
            ranked = ctypes.create_string_buffer(1024)  # a struct of 100 bytes
            litert("GetRankedTensorType", tensor, ranked)
            needs = litert.make(
                f"GetCompiledModel{end}BufferRequirements",
                *(compiled, first, index),
            )
            found[i] = litert.make(
                "CreateManagedTensorBufferFromRequirements",
                *(environment, ranked, needs),
            ).value
        return ctypes.c_size_t(len(found)), found

    ends = (*buffers("Input"), *buffers("Output"))
    for _ in range(_WARMUP):
        litert("RunCompiledModel", compiled, first, *ends)
    litert("StartProfiler", profiler)
    for _ in range(runs):
        litert("RunCompiledModel", compiled, first, *ends)
    litert("StopProfiler", profiler)
    text = litert.make(
        "GetProfileSummary", profiler, compiled, kind=ctypes.c_char_p
    )
    return text.value.decode(errors="replace")


if __name__ == "__main__":
    print(_summary(sys.argv[1], *map(int, sys.argv[2:])))
