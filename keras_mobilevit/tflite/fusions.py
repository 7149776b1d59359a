"""Several operations of an int8 graph that one computes more exactly."""

import collections
import math
from typing import Any

import numpy as np

from keras_mobilevit.layers.base import UNIT_RANGE
from keras_mobilevit.tflite import flatbuffer


def gates(model: Any) -> dict[int, np.ndarray]:
    """Finds the tensors that nothing but a SiLU reads.

    Args:
        model: object tree of a float file.

    Returns:
        For each tensor the SiLU's `gate_scale`, one for each channel.
    """
    graph = flatbuffer.nodes(model)
    makers = {t: i for i, node in enumerate(graph) for t in node.outputs}
    readers = collections.Counter(t for node in graph for t in node.inputs)
    found = {}
    for node in graph:
        if node.name != "LOGISTIC":
            continue
        (source,) = node.inputs
        scale = np.ones(_channels(model, source), "float32")
        if readers[source] == 1 and source in makers:
            scaling = makers[source]
            if graph[scaling].name != "DEPTHWISE_CONV_2D":
                continue
            (source,) = graph[scaling].inputs
            kernel, *offset = (
                flatbuffer.constant(model, t)
                for t in model.subgraphs[0].operators[scaling].inputs[1:]
            )
            if kernel.shape[1:3] != (1, 1) or np.any(offset):
                continue
            scale = kernel.reshape(-1)
        is_product = any(
            other.name == "MUL" and set(other.inputs) == {source, *node.outputs}
            for other in graph
        )
        if is_product and readers[source] == 2:
            found[source] = scale
    return found


def norms(model: Any) -> list[list[int]]:
    """Finds the chains that divide vectors by their root mean square.

    `x * rsqrt(mean(x * x) + epsilon)`, the second half of a layer
    normalization, over the last axis.

    Args:
        model: object tree of `flatbuffer.read_model`.

    Returns:
        For each the positions of its five operations, in their order: square,
        mean, sum, root, product.
    """
    graph = flatbuffer.nodes(model)
    tensors = model.subgraphs[0].tensors
    makers = {t: i for i, node in enumerate(graph) for t in node.outputs}
    readers = {}
    for index, node in enumerate(graph):
        for tensor in set(node.inputs):
            readers.setdefault(tensor, []).append(index)
    found = []
    for root, node in enumerate(graph):
        if node.name != "RSQRT":
            continue
        chain = [root]
        for name in ("ADD", "MEAN", "MUL"):
            inputs = graph[chain[0]].inputs
            maker = makers.get(inputs[0]) if len(inputs) == 1 else None
            if maker is None or graph[maker].name != name:
                break
            if readers[graph[maker].outputs[0]] != [chain[0]]:
                break
            chain.insert(0, maker)
        users = readers.get(node.outputs[0], [])
        if len(chain) != 4 or len(users) != 1:
            continue
        squares = graph[chain[0]].inputs
        inputs = {*squares, node.outputs[0]}
        square, variance = (
            tensors[graph[i].outputs[0]].shape for i in chain[:2]
        )
        if (
            len(set(squares)) == 1
            and graph[users[0]].name == "MUL"
            and set(graph[users[0]].inputs) == inputs
            and list(variance) == [*square[:-1], 1]
        ):
            found.append([*chain, users[0]])
    return found


def norm_ranges(model: Any) -> dict[int, tuple[float, float]]:
    """Returns the ranges that the tensors of fused norms must have.

    A vector of `n` numbers with the root mean square 1 has the length
    `sqrt(n)`, which bounds its numbers. What lies within a chain goes, and
    any range will do.

    Args:
        model: object tree of a float file.
    """
    ranges = {}
    operators = model.subgraphs[0].operators
    for *inner, product in norms(model):
        for index in inner:
            ranges[int(operators[index].outputs[0])] = (0.0, 1.0)
        result = int(operators[product].outputs[0])
        length = math.sqrt(_channels(model, result))
        ranges[result] = (UNIT_RANGE[0] * length, UNIT_RANGE[1] * length)
    return ranges


def fuse_norms(model: Any) -> None:
    """Replaces each chain of `norms` by `L2_NORMALIZATION`, in place.

    Its kernel adds the squares up in 32 bits and takes the root of that. In
    8 bits a mean of squares has one step for all positions, and those with a
    small variance, often a thousandth of the largest, are lost.

    Args:
        model: object tree of an int8 file whose tensors have the ranges of
            `norm_ranges`. Chains that stayed in float are left so.
    """
    schema = flatbuffer.schema()
    graph = model.subgraphs[0]
    chains = [
        chain
        for chain in norms(model)
        if not any(
            flatbuffer.is_float(graph.tensors[t])
            for t in graph.operators[chain[0]].outputs
        )
    ]
    if not chains:
        return
    code = flatbuffer.add_code(model, "L2_NORMALIZATION")
    gone = set()
    for square, *rest, product in chains:
        op, last = graph.operators[square], graph.operators[product]
        source = op.inputs[0]
        op.opcodeIndex, op.inputs = code, [source]
        op.builtinOptionsType = schema.BuiltinOptions.L2NormOptions
        op.builtinOptions = schema.L2NormOptionsT()
        unit = graph.tensors[op.outputs[0]]
        unit.quantization.scale = [1.0 / 128.0]
        unit.quantization.zeroPoint = [0]
        # The product gives the unit vector its length; no code changes.
        length = math.sqrt(_channels(model, source))
        last.inputs = [op.outputs[0], _add_constant(model, length)]
        gone.update(rest)
    graph.operators = [
        op for i, op in enumerate(graph.operators) if i not in gone
    ]
    flatbuffer.drop_unused_tensors(model)


def _channels(model, tensor):
    return int(model.subgraphs[0].tensors[tensor].shape[-1])


def _add_constant(model, value):
    """Adds an int8 scalar that holds `value` exactly."""
    schema = flatbuffer.schema()
    buffer = schema.BufferT()
    buffer.data = np.array([127], np.int8).view(np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name = f"length_{len(model.buffers)}".encode()
    tensor.shape = [1]
    tensor.type = schema.TensorType.INT8
    tensor.buffer = len(model.buffers) - 1
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = [value / 127.0]
    tensor.quantization.zeroPoint = [0]
    tensors = model.subgraphs[0].tensors
    tensors.append(tensor)
    return len(tensors) - 1
