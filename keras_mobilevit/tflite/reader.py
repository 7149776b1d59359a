"""Reading the flatbuffer of a TFLite file of which no byte is trusted."""

import collections
import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite import metadata

_FLOATS = {"float16", "bfloat16", "float32", "float64"}
_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
_WITHOUT_OUTPUT = {"ASSIGN_VARIABLE", "CALL_ONCE"}
_INTEGERS = {"int32": "<i4", "int64": "<i8"}
_MOST_VALUES = 16

# By operation the table of the schema that holds its settings, and of these
# the ones to read.
_DILATION = {"dilation_w": "DilationWFactor", "dilation_h": "DilationHFactor"}
_ACTIVATION = {"activation": "FusedActivationFunction"}
_OPTIONS = {
    "AVERAGE_POOL_2D": ("Pool2DOptions", _ACTIVATION),
    "CONCATENATION": ("ConcatenationOptions", _ACTIVATION),
    "CONV_2D": ("Conv2DOptions", _DILATION),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", _DILATION),
    "FULLY_CONNECTED": (
        "FullyConnectedOptions",
        {"weights_format": "WeightsFormat"},
    ),
    "MAX_POOL_2D": ("Pool2DOptions", _ACTIVATION),
    "PACK": ("PackOptions", {"axis": "Axis"}),
    "STRIDED_SLICE": (
        "StridedSliceOptions",
        {"ellipsis_mask": "EllipsisMask", "new_axis_mask": "NewAxisMask"},
    ),
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    Attributes:
        name: its name in the graph.
        shape: its static shape; `-1` for a dimension known only at run time.
        dtype: `"float32"`, `"int8"`, ...
        scale: real value of one step; `None` if it is not quantized, or
            quantized by channel.
        zero_point: the integer that stands for zero; `None` likewise.
        channels: how many scales it has: 0 if it is not quantized, 1 for
            one scale per tensor, more for one per channel.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None
    channels: int = 0


@dataclasses.dataclass(frozen=True)
class Signature:
    """A named entry point of a file, with the names a program feeds it by."""

    key: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Op:
    """An operation of the graph.

    Attributes:
        index: its position in its subgraph.
        subgraph: 0 for the main graph.
        name: `"CONV_2D"`, ..., or the name of a custom operation.
        version: the version of the operation.
        is_custom: whether it is not a builtin (Flex operations are custom).
        is_float: whether it reads or writes floating-point activations; see
            `Inspection.float_ops`.
        per_channel: for a CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED with
            quantized weights whether these have a scale per channel; `None`
            for all else.
        input_names, input_dtypes, input_shapes: of its inputs, constants
            included; an optional input that is absent is left out.
        output_names, output_dtypes, output_shapes: of its outputs.
        input_tensors, output_tensors: their numbers in the subgraph.
        constant_bytes: for each input the bytes that the file holds of it,
            also where a DEQUANTIZE unpacks them; 0 for an activation.
        values: for each input that is a constant of a few integers, such as
            the axes of a MEAN, these; `()` for the others.
        options: those of its settings that the rules of `targets` ask for,
            as integers; none stands for the default of the format.
    """

    index: int
    subgraph: int
    name: str
    version: int
    is_custom: bool
    is_float: bool
    per_channel: bool | None
    input_names: tuple[str, ...]
    input_dtypes: tuple[str, ...]
    input_shapes: tuple[tuple[int, ...], ...]
    output_names: tuple[str, ...]
    output_dtypes: tuple[str, ...]
    output_shapes: tuple[tuple[int, ...], ...]
    input_tensors: tuple[int, ...]
    output_tensors: tuple[int, ...]
    constant_bytes: tuple[int, ...]
    values: tuple[tuple[int, ...], ...]
    options: dict[str, int]


class Reader:
    """Walks one file, once.

    Lengths in a damaged file may be anything, so each item read is paid for
    from a budget that an intact file cannot exceed: every item of a vector
    takes at least one byte of the file.
    """

    def __init__(self, data: bytes):
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.data = data
        self.budget = len(data)
        self.model = schema.Model.GetRootAs(data, 0)
        self.op_names = _names(schema.BuiltinOperator)
        self.dtypes = _names(schema.TensorType)
        self.custom = schema.BuiltinOperator.CUSTOM

    def items(self, count: int, get: Callable[[int], Any]) -> list:
        """Returns the `count` items that `get` gives, if the file has room."""
        self.budget -= count
        if count < 0 or self.budget < 0:
            raise ValueError("a length exceeds the file")
        return [get(i) for i in range(count)]

    def read(self) -> dict[str, Any]:
        """Returns the fields of an `Inspection` that stand in the file."""
        model = self.model
        self.buffers = self.items(model.BuffersLength(), self.buffer)
        codes = self.items(model.OperatorCodesLength(), self.code)
        tensors, ops, mains = [], [], []
        graphs = self.items(model.SubgraphsLength(), model.Subgraphs)
        if not graphs:
            raise ValueError("it holds no graph")
        for number, graph in enumerate(graphs):
            own = self.items(
                graph.TensorsLength(), lambda i: self.tensor(graph.Tensors(i))
            )
            ends = [
                self.items(graph.InputsLength(), graph.Inputs),
                self.items(graph.OutputsLength(), graph.Outputs),
            ]
            operators = self.items(graph.OperatorsLength(), graph.Operators)
            ops += self.ops(number, operators, codes, own, *ends)
            tensors += own
            mains.append([_pick(own, end) for end in ends])
        entries = self.items(model.MetadataLength(), model.Metadata)
        entries = {_text(e.Name()): self.buffers[e.Buffer()] for e in entries}
        about = entries.get(flatbuffer.DESCRIPTION.decode())
        if about is not None:
            about = metadata.read_description(about)
        runtime, version = _runtime(entries.get("min_runtime_version", b""))
        return {
            "description": _text(model.Description()),
            "min_runtime": runtime,
            "min_runtime_version": version,
            "inputs": tuple(t for t, _ in mains[0][0]),
            "outputs": tuple(t for t, _ in mains[0][1]),
            "signatures": tuple(
                self.items(model.SignatureDefsLength(), self.signature)
            ),
            "ops": tuple(ops),
            "op_counts": _count(op.name for op in ops),
            "op_dtypes": _count(
                op.output_dtypes[0] for op in ops if op.output_dtypes
            ),
            "float_ops": _count(op.name for op in ops if op.is_float),
            "max_rank": max((len(t.shape) for t, _ in tensors), default=0),
            "dynamic_tensors": tuple(
                t.name for t, _ in tensors if any(n < 0 for n in t.shape)
            ),
            "weight_bytes": sum(map(len, self.buffers))
            - sum(map(len, entries.values())),
            "metadata": tuple(entries),
            "about": about,
        }

    def buffer(self, index: int) -> Any:
        """Returns the bytes of a buffer; it raises if they are not there."""
        buffer = self.model.Buffers(index)
        # Files beyond 2 GB keep the bytes behind the flatbuffer.
        start, size = buffer.Offset(), buffer.Size()
        if start > 1:
            if start + size > len(self.data):
                raise ValueError("the bytes of a tensor are missing")
            return memoryview(self.data)[start : start + size]
        return buffer.DataAsNumpy() if buffer.DataLength() else b""

    def code(self, index: int) -> tuple[str, int, bool]:
        """Returns name, version and whether it is custom, of a kind of op."""
        code = self.model.OperatorCodes(index)
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if number == self.custom:
            return _text(code.CustomCode()), code.Version(), True
        # The schema installed here may be older than the file.
        name = self.op_names.get(number, f"UNKNOWN_{number}")
        return name, code.Version(), False

    def tensor(self, tensor: Any) -> tuple[Tensor, Any]:
        """Returns a tensor and its bytes, none if it is no constant."""
        shape = self.items(tensor.ShapeLength(), tensor.Shape)
        if tensor.ShapeSignatureLength():
            shape = self.items(
                tensor.ShapeSignatureLength(), tensor.ShapeSignature
            )
        scales, scale, zero = 0, None, None
        quantization = tensor.Quantization()
        if quantization is not None:
            scales = quantization.ScaleLength()
            if scales == 1:
                scale = float(quantization.Scale(0))
                zero = 0
                if quantization.ZeroPointLength():
                    zero = int(quantization.ZeroPoint(0))
        dtype = self.dtypes.get(tensor.Type(), f"unknown_{tensor.Type()}")
        return Tensor(
            name=_text(tensor.Name()),
            shape=tuple(map(int, shape)),
            dtype=dtype.lower(),
            scale=scale,
            zero_point=zero,
            channels=scales,
        ), self.buffers[tensor.Buffer()]

    def ops(
        self,
        number: int,
        operators: list,
        codes: list[tuple[str, int, bool]],
        tensors: list[tuple[Tensor, Any]],
        graph_inputs: list[int],
        graph_outputs: list[int],
    ) -> Iterator[Op]:
        """Yields the operations of subgraph `number`."""
        unpacked = {}
        for index, op in enumerate(operators):
            name, version, is_custom = codes[op.OpcodeIndex()]
            sources = self.items(op.InputsLength(), op.Inputs)
            targets = self.items(op.OutputsLength(), op.Outputs)
            inputs = _pick(tensors, sources)
            outputs = _pick(tensors, targets)
            if not outputs and name not in _WITHOUT_OUTPUT:
                raise ValueError(f"operation {index} has no output")
            if name == "DEQUANTIZE" and inputs and len(inputs[0][1]):
                unpacked.update(dict.fromkeys(targets, inputs[0][1]))
            moving = [
                tensors[i][0].dtype
                for i in (*sources, *targets)
                if i >= 0 and not len(tensors[i][1]) and i not in unpacked
            ]
            at_border = (
                name == "QUANTIZE" and set(sources) <= set(graph_inputs)
            ) or (name == "DEQUANTIZE" and set(targets) <= set(graph_outputs))
            kernel = inputs[1][0] if len(inputs) > 1 else None
            quantized = name in _WEIGHTED and kernel and kernel.channels
            yield Op(
                index=index,
                subgraph=number,
                name=name,
                version=version,
                is_custom=is_custom,
                is_float=not at_border and not _FLOATS.isdisjoint(moving),
                per_channel=kernel.channels > 1 if quantized else None,
                input_names=tuple(t.name for t, _ in inputs),
                input_dtypes=tuple(t.dtype for t, _ in inputs),
                input_shapes=tuple(t.shape for t, _ in inputs),
                output_names=tuple(t.name for t, _ in outputs),
                output_dtypes=tuple(t.dtype for t, _ in outputs),
                output_shapes=tuple(t.shape for t, _ in outputs),
                input_tensors=tuple(int(i) for i in sources if i >= 0),
                output_tensors=tuple(int(i) for i in targets if i >= 0),
                constant_bytes=tuple(
                    len(unpacked.get(i, tensors[i][1]))
                    for i in sources
                    if i >= 0
                ),
                values=tuple(_integers(t, data) for t, data in inputs),
                options=self.options(name, op),
            )

    def options(self, name: str, op: Any) -> dict[str, int]:
        """Returns the settings of an operation that `_OPTIONS` lists."""
        kind, wanted = _OPTIONS.get(name, ("NONE", {}))
        table = op.BuiltinOptions()
        number = getattr(self.schema.BuiltinOptions, kind)
        if not wanted or table is None or op.BuiltinOptionsType() != number:
            return {}
        found = getattr(self.schema, kind)()
        found.Init(table.Bytes, table.Pos)
        return {key: int(getattr(found, get)()) for key, get in wanted.items()}

    def signature(self, index: int) -> Signature:
        """Returns a named entry point."""
        entry = self.model.SignatureDefs(index)
        inputs = self.items(entry.InputsLength(), entry.Inputs)
        outputs = self.items(entry.OutputsLength(), entry.Outputs)
        return Signature(
            key=_text(entry.SignatureKey()),
            inputs=tuple(_text(named.Name()) for named in inputs),
            outputs=tuple(_text(named.Name()) for named in outputs),
        )


def _pick(tensors: list, indices: Sequence[int]) -> list:
    """The tensors at these indices; -1 stands for an absent optional one."""
    for index in indices:
        if not -1 <= index < len(tensors):
            raise ValueError(f"there is no tensor {index}")
    return [tensors[index] for index in indices if index >= 0]


def _integers(tensor: Tensor, data: Any) -> tuple[int, ...]:
    """The numbers in a small constant of integers."""
    kind = _INTEGERS.get(tensor.dtype)
    size = int(kind[-1]) if kind else 1
    if kind is None or len(data) % size or len(data) > size * _MOST_VALUES:
        return ()
    import numpy as np

    return tuple(np.frombuffer(bytes(data), kind).tolist())


def _names(enumeration: Any) -> dict[int, str]:
    return {
        value: name
        for name, value in vars(enumeration).items()
        if isinstance(value, int)
    }


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", errors="replace")


def _runtime(entry: Any) -> tuple[str, tuple[int, ...]]:
    text = bytes(entry).split(b"\0")[0].decode("ascii", errors="replace")
    parts = text.split(".")
    # isdigit alone admits characters, such as superscripts, that int refuses.
    if not (text.isascii() and all(part.isdigit() for part in parts)):
        return "unknown", ()
    return text, tuple(map(int, parts))


def _count(names: Any) -> dict[str, int]:
    return dict(collections.Counter(names).most_common())
