"""From the operations of a file back to the layers of the Keras model."""

import re
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

from keras_mobilevit.tflite import flatbuffer

# What these read second is a kernel, which is named after its layer.
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def layers_of_ops(model: Any, trails: Collection[str]) -> list[str]:
    """Names the layer whose output each operation of a file computes.

    Args:
        model: object tree of `flatbuffer.read_model`.
        trails: the layers to choose from, as names on the way to them:
            `"block1/expand"`.

    Returns:
        For each operation of the main graph the longest of `trails` that
        leads to it, or `""`: the first of what `layers_in_ops` returns.
    """
    return [found[0] if found else "" for found in layers_in_ops(model, trails)]


def layers_in_ops(model: Any, trails: Collection[str]) -> list[list[str]]:
    """Names the layers that each operation of a file was made from.

    A converter names a tensor after the calls that led to it,
    `model_1/block1_1/expand_1/convolution`, with a number behind each name.
    Of operations that it merged it joins the names by `;`, the last one first.

    Args:
        model: object tree of `flatbuffer.read_model`.
        trails: the layers to choose from, as of `layers_of_ops`.

    Returns:
        For each operation of the main graph the longest of `trails` that lead
        to what was merged into it. Operations without a name of their own,
        such as the last, belong to the layer of their kernel, or else to that
        of their first input.
    """
    tree = {}
    for trail in trails:
        node = tree
        for name in trail.split("/"):
            node = node.setdefault(name, {})
        node[None] = trail
    graph = model.subgraphs[0]
    makers, found = {}, []
    for node, op in zip(flatbuffer.nodes(model), graph.operators):
        name = graph.tensors[node.outputs[0]].name.decode()
        if "/" not in name and node.name in _WEIGHTED:
            name = graph.tensors[op.inputs[1]].name.decode()
        ways = [_follow(tree, part) for part in name.split(";")]
        layers = list(dict.fromkeys(filter(None, ways)))
        if "/" not in name and node.inputs:
            layers = makers.get(node.inputs[0], [])
        found.append(layers)
        makers.update(dict.fromkeys(node.outputs, layers))
    return found


def _follow(tree, name):
    """Returns the trail at the end of the longest way into `tree`."""
    best = ""
    # Neither the whole model nor the operation itself is a layer in it.
    for scope in name.split("/")[1:-1]:
        tree = tree.get(_layer_name(scope))
        if tree is None:
            break
        best = tree.get(None, best)
    return best


def _layer_name(scope):
    """Returns the name of the layer that a scope is named after.

    Keras opens a layer's scope twice a call, for what it builds and for what
    it computes, and TensorFlow numbers all but the first of a name. So there
    is one number more than in the layer's own name, whatever that ends in:
    `conv_1` computes in `conv_1_2` or, if there is no `conv`, in `conv_1_1`.
    """
    return re.sub(r"_\d+$", "", scope)


def edges(model: Any) -> list[tuple[str, Sequence[int], Sequence[int]]]:
    """Returns what `outermost_layers` takes of an object tree."""
    tensors = model.subgraphs[0].tensors
    return [
        (tensors[node.outputs[0]].name.decode(), node.inputs, node.outputs)
        for node in flatbuffer.nodes(model)
    ]


def outermost_layers(
    ops: Iterable[tuple[str, Sequence[int], Sequence[int]]],
) -> list[str]:
    """Names the outermost layer of each operation, from the file alone.

    Args:
        ops: of each the name of its first output, the tensors that it reads
            and those that it writes.

    Returns:
        A name for each; `"all"` if no tensor is named after a layer.
    """
    ops = list(ops)
    readers = {t: i for i, (_, inputs, _) in enumerate(ops) for t in inputs}
    owners = []
    for name, _, _ in ops:
        parts = name.split(";")[0].split("/")
        found = _layer_name(parts[1]) if len(parts) > 2 else None
        owners.append(found)
    # What has no such name belongs to what reads it, or, at the end, to what
    # it reads.
    for index in reversed(range(len(ops))):
        for tensor in ops[index][2][:1]:
            if owners[index] is None and tensor in readers:
                owners[index] = owners[readers[tensor]]
    known = [owner for owner in owners if owner] or ["all"]
    return [owner or known[-1] for owner in owners]
