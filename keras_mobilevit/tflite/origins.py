"""From the operations of a file back to the layers of the Keras model."""

import re
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

from keras_mobilevit.tflite import flatbuffer


def layers_of_ops(model: Any, trails: Collection[str]) -> list[str]:
    """Names the layer that each operation of a file was made from.

    A converter names a tensor after the calls that led to it,
    `model_1/block1_1/expand_1/convolution`, with a number behind each name.

    Args:
        model: object tree of `flatbuffer.read_model`.
        trails: the layers to choose from, as names on the way to them:
            `"block1/expand"`.

    Returns:
        For each operation of the main graph the longest of `trails` that
        leads to it, or `""`. Operations without a name of their own, such as
        the last, belong to the layer of their first input.
    """
    tree = {}
    for trail in trails:
        node = tree
        for name in trail.split("/"):
            node = node.setdefault(name, {})
        node[None] = trail
    tensors = model.subgraphs[0].tensors
    makers, found = {}, []
    for node in flatbuffer.nodes(model):
        name = tensors[node.outputs[0]].name.decode().split(";")[0]
        trail = _follow(tree, name.split("/")[1:])
        if "/" not in name and node.inputs:
            trail = makers.get(node.inputs[0], "")
        found.append(trail)
        makers.update(dict.fromkeys(node.outputs, trail))
    return found


def _follow(tree, names):
    """Returns the trail at the end of the longest way into `tree`."""
    best = ""
    for name in names:
        # Layers are called "block_1" too: the whole name counts first.
        tree = tree.get(name) or tree.get(re.sub(r"_\d+$", "", name))
        if tree is None:
            break
        best = tree.get(None, best)
    return best


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
        found = re.sub(r"_\d+$", "", parts[1]) if len(parts) > 2 else None
        owners.append(found)
    # What has no such name belongs to what reads it, or, at the end, to what
    # it reads.
    for index in reversed(range(len(ops))):
        for tensor in ops[index][2][:1]:
            if owners[index] is None and tensor in readers:
                owners[index] = owners[readers[tensor]]
    known = [owner for owner in owners if owner] or ["all"]
    return [owner or known[-1] for owner in owners]
