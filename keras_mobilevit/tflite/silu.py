"""The gates of a file: what sigmoids read, and what SiLUs let through."""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mobilevit.tflite import flatbuffer


def logits(graph: Sequence[flatbuffer.Node]) -> list[int]:
    """Returns the tensors that nothing but a sigmoid reads."""
    readers = collections.Counter(t for node in graph for t in node.inputs)
    sources = [n.inputs[0] for n in graph if n.name == "LOGISTIC"]
    return [tensor for tensor in sources if readers[tensor] == 1]


def gate_scales(model: Any) -> dict[int, np.ndarray]:
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


def _channels(model, tensor):
    return int(model.subgraphs[0].tensors[tensor].shape[-1])
