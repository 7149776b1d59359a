"""Normalizations of a graph of integers, written so that little is rounded.

As the float file has it, `x * rsqrt(mean(x * x) + epsilon)`, a norm does not
survive 8 bits, and suffers in 16: squares have one step for all positions,
and those with a small variance, often a thousandth of the largest and in flat
parts of a picture less, are lost.
"""

import math
from collections.abc import Collection
from typing import Any

from keras_mobilevit.layers.base import UNIT_RANGE
from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite.additions import bits
from keras_mobilevit.tflite.additions import bounds
from keras_mobilevit.tflite.additions import int8_constant
from keras_mobilevit.tflite.additions import integer_tensor
from keras_mobilevit.tflite.additions import operation

# How much smaller the peak of a vector may be than the largest of all, by the
# bits of its numbers; of smaller ones `_by_peak` brings less to 1.
_PEAKS = {8: 64.0, 16: 512.0}


def find(model: Any) -> list[list[int]]:
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


def ranges(model: Any) -> dict[int, tuple[float, float]]:
    """Returns the ranges that the tensors of the chains must have.

    A vector of `n` numbers with the root mean square 1 has the length
    `sqrt(n)`, which bounds its numbers. What lies within a chain is replaced,
    and any range will do.

    Args:
        model: object tree of a float file.
    """
    found = {}
    operators = model.subgraphs[0].operators
    for *inner, product in find(model):
        for index in inner:
            found[int(operators[index].outputs[0])] = (0.0, 1.0)
        result = int(operators[product].outputs[0])
        length = math.sqrt(_channels(model, result))
        found[result] = (UNIT_RANGE[0] * length, UNIT_RANGE[1] * length)
    return found


def rewrite(model: Any, refused: Collection[str] = ()) -> None:
    """Replaces each chain by a form that keeps its precision, in place.

    The first form is `L2_NORMALIZATION`, whose kernel adds the squares up in
    32 bits and takes the root of that; there is none for 16 bits. The other
    one needs nothing but what every delegate has: it divides each vector by
    its largest number, and then by a variance that cannot be small.

    Neither adds `epsilon`, which in 8 bits is below a step of the variance.

    Args:
        model: object tree of a file of int8 activations whose tensors have
            `ranges`, or of int16 ones. Chains that stayed in float are left
            so.
        refused: operations that the file must not have.
    """
    graph = model.subgraphs[0]
    chains = [
        chain
        for chain in find(model)
        if not any(
            flatbuffer.is_float(graph.tensors[t])
            for t in graph.operators[chain[0]].outputs
        )
    ]

    def form(chain):
        wide = bits(graph.tensors[graph.operators[chain[0]].inputs[0]]) == 16
        by_peak = wide or "L2_NORMALIZATION" in refused
        return (_by_peak if by_peak else _by_length)(model, chain)

    added = {chain[-1]: form(chain) for chain in chains}
    gone = {index for chain in chains for index in chain}
    graph.operators = [
        op
        for index, old in enumerate(graph.operators)
        for op in added.get(index, [] if index in gone else [old])
    ]
    flatbuffer.drop_unused_tensors(model)


def _by_length(model, chain):
    """Returns a unit vector, and its product with the length it shall have."""
    source, result, _ = _ends(model, chain)
    name = _name(model, chain)
    shape = model.subgraphs[0].tensors[source].shape
    unit = integer_tensor(model, f"{name}_unit", shape, UNIT_RANGE)
    length = int8_constant(model, f"{name}_length", math.sqrt(shape[-1]))
    return [
        operation(model, "L2_NORMALIZATION", [source], unit, "L2NormOptions"),
        operation(model, "MUL", [unit, length], result, "MulOptions"),
    ]


def _by_peak(model, chain):
    """Returns operations that bring each vector to its peak, then its length.

    With `p = max(|x|)` the variance of `z = x / p` is `mean(z * z)`, 1 / n to
    1 whatever the size of `x`, and `z * rsqrt(mean(z * z))` is the norm.
    Roots keep more of their precision in 8 bits, so that of `1 / p` is
    applied twice. What is wrong about `p` cancels out.
    """
    source, result, axes = _ends(model, chain)
    name = _name(model, chain)
    described = model.subgraphs[0].tensors[source]
    shape = list(described.shape)
    top, width = max(map(abs, bounds(described))), bits(described)

    def add(suffix, axes, high, low=0.0):
        return integer_tensor(
            model, f"{name}_{suffix}", axes, (low, high), width
        )

    each, one = shape, [*shape[:-1], 1]
    low, high = UNIT_RANGE
    size = add("size", each, top)
    peak = add("peak", one, top)
    root = add("root", one, math.sqrt(_PEAKS[width] / top))
    half = add("half", each, high * math.sqrt(top), low * math.sqrt(top))
    scaled = add("scaled", each, high, low)
    square = add("square", each, 1.0)
    variance = add("variance", one, 1.0)
    factor = add("factor", one, math.sqrt(shape[-1]))
    reduce = {"options": "ReducerOptions", "keepDims": True}
    multiply = {"options": "MulOptions"}
    return [
        operation(model, kind, inputs, output, **options)
        for kind, inputs, output, options in (
            ("ABS", [source], size, {"options": "AbsOptions"}),
            ("REDUCE_MAX", [size, axes], peak, reduce),
            ("RSQRT", [peak], root, {}),
            ("MUL", [source, root], half, multiply),
            ("MUL", [half, root], scaled, multiply),
            ("MUL", [scaled, scaled], square, multiply),
            ("MEAN", [square, axes], variance, reduce),
            ("RSQRT", [variance], factor, {}),
            ("MUL", [scaled, factor], result, multiply),
        )
    ]


def _ends(model, chain):
    """Returns the tensors that a chain reads and makes, and its axes."""
    square, mean, _, _, product = (
        model.subgraphs[0].operators[index] for index in chain
    )
    return int(square.inputs[0]), int(product.outputs[0]), int(mean.inputs[1])


def _name(model, chain):
    """Returns a name that leads to the layer of a chain."""
    graph = model.subgraphs[0]
    tensor = graph.operators[chain[0]].outputs[0]
    return graph.tensors[tensor].name.decode().split(";")[0]


def _channels(model, tensor):
    return int(model.subgraphs[0].tensors[tensor].shape[-1])
