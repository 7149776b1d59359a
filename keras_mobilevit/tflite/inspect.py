"""What is inside a TFLite file, read from its flatbuffer alone."""

import dataclasses
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from keras_mobilevit import reports
from keras_mobilevit.tflite import metadata
from keras_mobilevit.tflite.reader import Op
from keras_mobilevit.tflite.reader import Reader
from keras_mobilevit.tflite.reader import Signature
from keras_mobilevit.tflite.reader import Tensor

if TYPE_CHECKING:
    from keras_mobilevit.tflite.verdicts import Check

_IDENTIFIER = b"TFL3"


@dataclasses.dataclass(frozen=True)
class Inspection(reports.Report):
    """What `inspect` found.

    Attributes:
        path: the file.
        size: bytes.
        description: what the converter wrote of itself.
        min_runtime: the oldest runtime that runs the file, as its metadata
            says; `"unknown"` if it says nothing.
        min_runtime_version: the same as integers, `(2, 5, 0)`; `()` if
            unknown.
        inputs, outputs: those of the main graph, in its order. Programs
            should go by the names of `signatures`.
        signatures: the named entry points.
        ops: every operation, of all subgraphs.
        op_counts: `{op name: count}`, most frequent first.
        op_dtypes: `{dtype: count}` of the operations by their first output.
        float_ops: `{op name: count}` of the operations that read or write
            floating-point activations. Three kinds are not counted, since
            they compute nothing inside: a QUANTIZE that reads an input of
            the graph, a DEQUANTIZE that writes an output of it, and a
            DEQUANTIZE that only unpacks constant weights (float16 files).
        max_rank: the most axes that a tensor has, constants included.
        dynamic_tensors: names of the tensors with a size known only at run
            time.
        weight_bytes: bytes of all constants.
        metadata: names of the metadata entries.
        about: what the TFLite metadata say, or `None` without any.
        labels: the class names that the file carries, or `()`.
    """

    path: str
    size: int
    description: str
    min_runtime: str
    min_runtime_version: tuple[int, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    signatures: tuple[Signature, ...]
    ops: tuple[Op, ...]
    op_counts: dict[str, int]
    op_dtypes: dict[str, int]
    float_ops: dict[str, int]
    max_rank: int
    dynamic_tensors: tuple[str, ...]
    weight_bytes: int
    metadata: tuple[str, ...]
    about: metadata.Description | None
    labels: tuple[str, ...]

    def __str__(self) -> str:
        kernels = [op for op in self.ops if op.per_channel is not None]
        labels = ", ".join(self.labels[:3]) + ", ..." * (len(self.labels) > 3)
        facts = [
            ("size", f"{self.size / 1e6:.3f} MB"),
            ("weights", f"{self.weight_bytes / 1e6:.3f} MB"),
            ("operations", len(self.ops)),
            ("multiply-accumulates", f"{self.macs / 1e6:.1f} M"),
            ("float operations", sum(self.float_ops.values())),
            (
                "quantized kernels",
                f"{len(kernels)}, "
                f"{sum(op.per_channel for op in kernels)} per channel",
            ),
            ("most axes", self.max_rank),
            ("dynamic tensors", len(self.dynamic_tensors)),
            ("oldest runtime", self.min_runtime),
            ("description", self.description or None),
            ("metadata", ", ".join(self.metadata) or None),
            ("labels", f"{len(self.labels)}: {labels}" if labels else None),
        ]
        if self.about is not None:
            for field, value in dataclasses.asdict(self.about).items():
                if isinstance(value, tuple):
                    value = ", ".join(f"{number:g}" for number in value)
                if value:
                    facts.append((f"metadata {field}", value))
        for signature in self.signatures:
            ends = map(", ".join, (signature.inputs, signature.outputs))
            facts.append((f"signature {signature.key}", " -> ".join(ends)))
        ends = [("input", tensor) for tensor in self.inputs]
        ends += [("output", tensor) for tensor in self.outputs]
        return "\n\n".join(
            (
                reports.table((self.path, ""), facts),
                reports.table(
                    ("", "tensor", "shape", "dtype", "scale", "zero point"),
                    [
                        (
                            end,
                            tensor.name,
                            "x".join(map(str, tensor.shape)),
                            tensor.dtype,
                            tensor.scale and f"{tensor.scale:.6g}",
                            tensor.zero_point,
                        )
                        for end, tensor in ends
                    ],
                ),
                reports.table(
                    ("operation", "count", "float", "versions"),
                    [
                        (
                            name,
                            count,
                            self.float_ops.get(name, 0),
                            ", ".join(self._versions(name)),
                        )
                        for name, count in self.op_counts.items()
                    ],
                ),
            )
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run, of layers and matrix products."""
        total = 0
        for op in self.ops:
            out = math.prod(op.output_shapes[0]) if op.output_shapes else 0
            if op.name == "CONV_2D":
                total += out * math.prod(op.input_shapes[1][1:])
            elif op.name == "DEPTHWISE_CONV_2D":
                total += out * math.prod(op.input_shapes[1][1:3])
            elif op.name == "FULLY_CONNECTED":
                total += out * op.input_shapes[1][-1]
            elif op.name == "BATCH_MATMUL":
                # b products of (m, k) and (k, n), however they are laid.
                b = math.prod(op.output_shapes[0][:-2])
                sizes = math.prod(map(math.prod, op.input_shapes)) * out
                # A damaged file may claim negative sizes.
                total += math.isqrt(max(sizes // max(b, 1), 0))
        return total

    def check(self, target: str, compile_it: bool | None = None) -> "Check":
        """Tells which operations a target runs, and why not the others.

        - `"cpu"`: measured: the installed runtime loads the file, and what
          XNNPACK takes over is counted.
        - `"gpu"`: predicted from what LiteRT's GPU delegates are known to
          take.
        - `"edgetpu"`: predicted from Google's table of operations, and
          from published pairs of a file and what the compiler made of it. For
          five such pairs the prediction is exact. They hold ADD, ARG_MAX,
          AVERAGE_POOL_2D, CONCATENATION, CONV_2D, DEPTHWISE_CONV_2D,
          FULLY_CONNECTED, PAD, QUANTIZE, RESHAPE, RESIZE_BILINEAR and
          SOFTMAX; on every other operation, among them LOGISTIC, MEAN,
          MUL, RSQRT, SUB and TRANSPOSE, the verdict rests on documents
          alone. Where `edgetpu_compiler` is on the PATH it is run, and its
          log takes the place of the prediction.
        - `"mediapipe"`, `"web"`, `"nnapi"`: whether the file is read; no
          claim is made for single operations.

        Args:
            target: the name of the target.
            compile_it: for `"edgetpu"`: whether to run the compiler; `None`
                to run it if it is there.

        Returns:
            The verdicts, and what they add up to.

        Raises:
            ValueError: there is no such target, or no compiler to run.
        """
        from keras_mobilevit.tflite import check

        return check.check(self, target, compile_it)

    def _versions(self, name: str) -> list[str]:
        return sorted({str(op.version) for op in self.ops if op.name == name})


def inspect(path: str | os.PathLike) -> Inspection:
    """Reads what a TFLite file holds, without running it.

    Args:
        path: a `.tflite` file.

    Returns:
        Its inputs, outputs, operations, types, versions and labels.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the file is no TFLite file, or it is damaged.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(
            "`path` must be the path of a TFLite file. "
            f"Received: {type(path).__name__}"
        )
    if not Path(path).exists():
        raise FileNotFoundError(
            f"There is no file at this path. Received: path={path}"
        )
    if not Path(path).is_file():
        raise ValueError(
            f"`path` must be a file, not a folder. Received: path={path}"
        )
    data = Path(path).read_bytes()
    if not data:
        raise ValueError(f"The file is empty. Received: path={path}")
    if data[4:8] != _IDENTIFIER:
        raise ValueError(
            "`path` must be a TFLite file, which holds 'TFL3' at its fifth "
            f"byte. Received: path={path}"
        )
    try:
        found = Reader(data).read()
        labels = metadata.read_labels(path)
    # On damaged bytes the generated reader and zipfile raise all sorts.
    except Exception as error:
        raise ValueError(
            f"The TFLite file is damaged or truncated: {error}. "
            f"Received: path={path}"
        ) from error
    return Inspection(path=str(path), size=len(data), labels=labels, **found)
