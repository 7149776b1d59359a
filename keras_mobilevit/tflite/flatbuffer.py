"""Reading and changing the graph inside a TFLite file."""

import copy
import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

SIGNATURE = "serving_default"
#: The metadata that describe the ends of a whole file.
DESCRIPTION = b"TFLITE_METADATA"


@functools.cache
def schema() -> Any:
    """Returns the classes of the TFLite schema."""
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


@functools.cache
def _op_names() -> dict[int, str]:
    return {
        value: name
        for name, value in vars(schema().BuiltinOperator).items()
        if isinstance(value, int)
    }


def read_model(data: bytes) -> Any:
    """Returns the mutable object tree (`ModelT`) of a TFLite file."""
    from ai_edge_litert.tools import flatbuffer_utils

    # It also fetches buffers that lie behind the flatbuffer.
    return flatbuffer_utils.read_model_from_bytearray(bytearray(data))


def write_model(model: Any) -> bytes:
    """Serialises an object tree of `read_model` to a TFLite file."""
    import flatbuffers

    class Builder(flatbuffers.Builder):
        """Aligns the bytes of weights to 16, as the schema demands."""

        def StartVector(self, elemSize, numElems, alignment):  # noqa: N802,N803
            alignment = 16 if elemSize == 1 else alignment
            return super().StartVector(elemSize, numElems, alignment)

    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)
    builder = Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation of a graph: its name and the tensors it touches."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def nodes(model: Any) -> list[Node]:
    """Returns the operations of the main graph; constants are left out."""
    graph = model.subgraphs[0]
    constant = {
        index
        for index, tensor in enumerate(graph.tensors)
        if model.buffers[tensor.buffer].data is not None
    }
    found = []
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        name = _op_names()[max(code.builtinCode, code.deprecatedBuiltinCode)]
        inputs = (t for t in op.inputs if t >= 0 and t not in constant)
        found.append(
            Node(name, tuple(map(int, inputs)), tuple(map(int, op.outputs)))
        )
    return found


def constant(model: Any, tensor: int) -> np.ndarray:
    """Returns the numbers of a constant tensor."""
    described = model.subgraphs[0].tensors[tensor]
    data = bytes(model.buffers[described.buffer].data)
    return np.frombuffer(data, dtype(described)).reshape(described.shape)


# The kernels of these have no fast int8 form on a CPU.
_SEEDS = {"SOFTMAX", "RSQRT"}
# Islands end at these: int8 makes them fast, or they only move values.
_SHORES = {
    "BATCH_MATMUL",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "LOGISTIC",
    "CONCATENATION",
    "RESHAPE",
    "TRANSPOSE",
}


def float_islands(graph: list[Node]) -> set[int]:
    """Finds the operations that an int8_mixed file computes in float.

    These are softmax and the normalizations, found by what they are and not
    by name: the connected groups of element-wise operations and means that
    hold a `SOFTMAX` or an `RSQRT`. Layers with weights, products of
    activations, SiLU gates and pure data movement bound them and stay int8.

    Args:
        graph: the operations, as `nodes` returns them.

    Returns:
        The positions of the float operations in `graph`.
    """
    gates = {
        t for node in graph if node.name == "LOGISTIC" for t in node.outputs
    }

    def is_shore(node):
        return node.name in _SHORES or (
            node.name == "MUL" and any(t in gates for t in node.inputs)
        )

    touching = {}
    for index, node in enumerate(graph):
        if not is_shore(node):
            for tensor in node.inputs + node.outputs:
                touching.setdefault(tensor, []).append(index)
    island = set()
    frontier = [i for i, node in enumerate(graph) if node.name in _SEEDS]
    while frontier:
        index = frontier.pop()
        if index in island:
            continue
        island.add(index)
        for tensor in graph[index].inputs + graph[index].outputs:
            frontier.extend(touching[tensor])
    return island


def is_float(tensor: Any) -> bool:
    """Whether a tensor of an object tree holds float32."""
    return tensor.type == schema().TensorType.FLOAT32


def dtype(tensor: Any) -> np.dtype:
    """Returns NumPy's type for the numbers in a tensor of an object tree."""
    from ai_edge_litert.tools import flatbuffer_utils

    return np.dtype(flatbuffer_utils.type_to_name(tensor.type).lower())


def lift_ranges(model: Any) -> dict[int, tuple[float, float]]:
    """Removes each `QUANTIZE` and `DEQUANTIZE` of float tensors, in place.

    Returns:
        For the tensors that were rounded, the range of their 8-bit grid. A
        tensor that was rounded twice keeps the first.
    """
    graph = model.subgraphs[0]
    kinds = schema().TensorType
    lowest = {kinds.UINT8: 0, kinds.INT8: -128}
    alias, lifted, kept = {}, {}, []
    for op, node in zip(graph.operators, nodes(model)):
        op.inputs = [alias.get(int(t), int(t)) for t in op.inputs]
        if node.name not in ("QUANTIZE", "DEQUANTIZE"):
            kept.append(op)
            continue
        source, (result,) = op.inputs[0], op.outputs
        alias[int(result)] = source
        grid = graph.tensors[result]
        if node.name == "QUANTIZE" and source not in lifted:
            scale = float(grid.quantization.scale[0])
            first = lowest[grid.type] - int(grid.quantization.zeroPoint[0])
            lifted[source] = (first * scale, (first + 255) * scale)
    graph.operators = kept
    graph.outputs = [alias.get(int(t), int(t)) for t in graph.outputs]
    for signature in model.signatureDefs or []:
        for named in signature.outputs:
            index = int(named.tensorIndex)
            named.tensorIndex = alias.get(index, index)
    places = drop_unused_tensors(model)
    return {places[t]: bounds for t, bounds in lifted.items() if t in places}


def excerpt(
    model: Any,
    indices: Iterable[int],
    inputs: Iterable[int],
    outputs: Iterable[int],
) -> Any:
    """Returns a model with some of the operations of another, as they are.

    Args:
        model: object tree of a file; it is not changed. The excerpt shares
            its weights.
        indices: positions of the operations.
        inputs: tensors that the excerpt is given.
        outputs: tensors that it gives.

    Returns:
        An object tree without signatures and description.
    """
    part, graph = copy.copy(model), copy.copy(model.subgraphs[0])
    graph.operators = [copy.copy(graph.operators[i]) for i in sorted(indices)]
    graph.tensors = [copy.copy(tensor) for tensor in graph.tensors]
    graph.inputs, graph.outputs = list(inputs), list(outputs)
    part.subgraphs, part.signatureDefs = [graph], None
    part.metadata = [
        copy.copy(entry)
        for entry in model.metadata or []
        if entry.name != DESCRIPTION
    ]
    drop_unused_tensors(part)
    _drop_unused_codes(part)
    _drop_unused_buffers(part)
    return part


def _drop_unused_codes(model: Any) -> None:
    operators = model.subgraphs[0].operators
    used = sorted({op.opcodeIndex for op in operators})
    places = {old: new for new, old in enumerate(used)}
    model.operatorCodes = [model.operatorCodes[i] for i in used]
    for op in operators:
        op.opcodeIndex = places[op.opcodeIndex]


def _drop_unused_buffers(model: Any) -> None:
    owners = [*model.subgraphs[0].tensors, *model.metadata]
    # The first buffer is the empty one of all activations.
    used = sorted({0, *(owner.buffer for owner in owners)})
    places = {old: new for new, old in enumerate(used)}
    model.buffers = [copy.copy(model.buffers[i]) for i in used]
    for owner in owners:
        owner.buffer = places[owner.buffer]
    model.metadataBuffer = None


def drop_unused_tensors(model: Any) -> dict[int, int]:
    """Removes tensors that nothing touches; returns the others' new places."""
    graph = model.subgraphs[0]
    lists = [(op, name) for op in graph.operators for name in _TENSOR_LISTS]
    lists += [(graph, "inputs"), (graph, "outputs")]
    used = {
        int(t)
        for owner, name in lists
        for t in (() if getattr(owner, name) is None else getattr(owner, name))
        if t >= 0
    }
    places = {old: new for new, old in enumerate(sorted(used))}
    graph.tensors = [graph.tensors[t] for t in sorted(used)]
    for owner, name in lists:
        if getattr(owner, name) is not None:
            kept = [places.get(int(t), -1) for t in getattr(owner, name)]
            setattr(owner, name, kept)
    for signature in model.signatureDefs or []:
        for named in signature.inputs + signature.outputs:
            named.tensorIndex = places[int(named.tensorIndex)]
    return places


_TENSOR_LISTS = ("inputs", "outputs", "intermediates")


def int8_ends_to_uint8(model: Any) -> None:
    """Turns the int8 inputs and outputs of a model into uint8 ones, in place.

    `uint8 = int8 + 128` with equal scales: a QUANTIZE operation at each end
    moves the zero point, nothing is rounded.
    """
    graph = model.subgraphs[0]
    code = add_code(model, "QUANTIZE")
    graph.inputs, graph.outputs = list(graph.inputs), list(graph.outputs)
    for ends in (graph.inputs, graph.outputs):
        for position, inner in enumerate(ends):
            if graph.tensors[inner].type != schema().TensorType.INT8:
                continue
            outer = _add_uint8_twin(graph, inner)
            op = schema().OperatorT()
            op.opcodeIndex = code
            if ends is graph.inputs:
                op.inputs, op.outputs = [outer], [inner]
                graph.operators.insert(0, op)
            else:
                op.inputs, op.outputs = [inner], [outer]
                graph.operators.append(op)
            ends[position] = outer
            for signature in model.signatureDefs or []:
                for named in signature.inputs + signature.outputs:
                    if named.tensorIndex == inner:
                        named.tensorIndex = outer


# The operator versions that introduced int8, from TensorFlow's op_version.cc;
# every one of them is part of TensorFlow 2.5.
_INT8_VERSIONS = {
    "ABS": 2,
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "BATCH_MATMUL": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "DEPTH_TO_SPACE": 2,
    "DEQUANTIZE": 2,
    "FULLY_CONNECTED": 4,
    "GATHER": 2,
    "L2_NORMALIZATION": 2,
    "LOGISTIC": 2,
    "MAXIMUM": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MINIMUM": 2,
    "MIRROR_PAD": 2,
    "MUL": 2,
    "PAD": 2,
    "PADV2": 2,
    "REDUCE_MAX": 2,
    "RELU": 2,
    "RESIZE_BILINEAR": 2,
    "RESIZE_NEAREST_NEIGHBOR": 2,
    "RSQRT": 2,
    "SLICE": 2,
    "SOFTMAX": 2,
    "SPACE_TO_DEPTH": 2,
    "SPLIT": 2,
    "STRIDED_SLICE": 2,
    "SUB": 2,
    "SUM": 2,
    "TANH": 2,
    "TRANSPOSE": 2,
    "TRANSPOSE_CONV": 2,
}
_INT8_RUNTIME = "2.5.0"


def state_versions(model: Any) -> None:
    """Writes the operator versions and the runtime that int8 needs.

    The quantizer leaves those of the float file, which old runtimes and the
    Edge TPU compiler would take at their word.
    """
    for code in model.operatorCodes:
        name = _op_names()[max(code.builtinCode, code.deprecatedBuiltinCode)]
        code.version = max(code.version, _INT8_VERSIONS.get(name, 1))
    for entry in model.metadata or []:
        if entry.name == b"min_runtime_version":
            text = bytes(model.buffers[entry.buffer].data)
            stated = text.split(b"\0")[0].decode()
            newest = max(
                (stated, _INT8_RUNTIME),
                key=lambda version: [int(part) for part in version.split(".")],
            )
            padded = newest.encode().ljust(len(text), b"\0")
            model.buffers[entry.buffer].data = padded


def add_code(model: Any, name: str) -> int:
    """Returns the index of an operator code, which is added if need be."""
    builtin = getattr(schema().BuiltinOperator, name)
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == builtin:
            return index
    code = schema().OperatorCodeT()
    code.builtinCode = builtin
    # Older runtimes read this one.
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _add_uint8_twin(graph, index):
    source = graph.tensors[index]
    twin = schema().TensorT()
    twin.name = source.name
    source.name = source.name + b"_int8"
    twin.shape = source.shape
    twin.type = schema().TensorType.UINT8
    twin.quantization = schema().QuantizationParametersT()
    twin.quantization.scale = source.quantization.scale
    twin.quantization.zeroPoint = [
        int(point) + 128 for point in source.quantization.zeroPoint
    ]
    graph.tensors.append(twin)
    return len(graph.tensors) - 1
