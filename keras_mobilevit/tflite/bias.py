"""Bias correction: an integer file whose layers have the right means.

Rounded kernels and ranges shift the mean of what a layer computes, and the
layers behind carry the shift on. The mean of each channel is known from the
float file, so the difference goes into the bias (Nagel et al.,
arXiv 1906.04721, section 4.2), layer after layer: each is corrected for what
the corrected ones before it leave.
"""

import copy
import functools
from typing import Any

import numpy as np

from keras_mobilevit.layers.base import GATE_RANGE
from keras_mobilevit.layers.conv import live_inputs
from keras_mobilevit.quantization.calibration import MEAN_PICTURES
from keras_mobilevit.quantization.calibration import channel_means
from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite import silu
from keras_mobilevit.tflite.interpreter import as_input
from keras_mobilevit.tflite.interpreter import run_graph

_BIASED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def correct_biases(model: Any, float_model: Any, pictures: np.ndarray) -> None:
    """Gives each channel of each layer its mean in the float file, in place.

    Of what only a SiLU or a sigmoid reads, the mean is that of what has an
    effect in int8: what a gate shuts out, or what lies beyond the range of its
    input, is not the same in both files.

    Args:
        model: object tree of an integer file. Layers in float stay as they
            are.
        float_model: that of the float file that it was made from.
        pictures: float32 array `(n, height, width, channels)`, as the model
            takes them.
    """
    pictures = pictures[:MEAN_PICTURES]
    effects = _effects(float_model)
    means = _float_means(float_model, pictures, effects)
    graph = model.subgraphs[0]
    source = graph.tensors[graph.inputs[0]]
    file = _Stepwise(model, as_input(source, pictures))
    for index, output in _layers(model):
        tensor = graph.tensors[output]
        if tensor.name not in means or flatbuffer.is_float(tensor):
            continue
        file.up_to(index)
        grid = tensor.quantization
        effect = effects.get(tensor.name, np.asarray)
        found = _mean(
            effect(
                (values.astype("float32") - grid.zeroPoint[0]) * grid.scale[0]
            )
            for values in file.output(index)
        )
        _add_to_bias(model, index, means[tensor.name] - found)
    flatbuffer.drop_unused_tensors(model)


def _effects(model):
    """Returns `{name: what counts of a tensor}`, where it is not all of it."""
    names = [tensor.name for tensor in model.subgraphs[0].tensors]
    gates = {
        names[tensor]: functools.partial(
            live_inputs, gate_scale=scale, library=np
        )
        for tensor, scale in silu.gate_scales(model).items()
    }
    logits = {
        names[tensor]: lambda values: np.clip(values, *GATE_RANGE)
        for tensor in silu.logits(flatbuffer.nodes(model))
    }
    return {**gates, **logits}


def _layers(model):
    """Returns `(operation, tensor that it computes)` of layers with biases."""
    operators = model.subgraphs[0].operators
    return [
        (index, int(operator.outputs[0]))
        for index, (node, operator) in enumerate(
            zip(flatbuffer.nodes(model), operators)
        )
        if node.name in _BIASED
        and len(operator.inputs) > 2
        and operator.inputs[2] >= 0
    ]


def _float_means(model, pictures, effects):
    """Returns `{name: mean of each channel}` of what the layers compute."""
    graph = model.subgraphs[0]
    outputs = [output for _, output in _layers(model)]
    operations = range(len(graph.operators))
    whole = flatbuffer.excerpt(model, operations, graph.inputs, outputs)
    names = [graph.tensors[output].name for output in outputs]
    rows = [
        [
            _mean([effects.get(name, np.asarray)(values)])
            for name, values in zip(names, results)
        ]
        for results in run_graph(whole, [[p[np.newaxis] for p in pictures]])
    ]
    return {name: np.mean(means, 0) for name, means in zip(names, zip(*rows))}


class _Stepwise:
    """Runs a file piece by piece, each operation once for all pictures."""

    def __init__(self, model, inputs):
        graph = model.subgraphs[0]
        self._model = model
        self._done = 0
        self._values = {int(graph.inputs[0]): inputs}
        end = len(graph.operators)
        self._last_reader = {
            int(tensor): index
            for index, operator in enumerate(graph.operators)
            for tensor in operator.inputs
        } | {int(tensor): end for tensor in graph.outputs}

    def up_to(self, index):
        """Runs what comes before an operation and has not been run."""
        if index > self._done:
            self._values.update(self._run(range(self._done, index)))
            self._done = index
        self._values = {
            tensor: values
            for tensor, values in self._values.items()
            if self._last_reader[tensor] >= index
        }

    def output(self, index):
        """Returns what the next operation computes, and stays before it."""
        (values,) = self._run([index]).values()
        return values

    def _run(self, indices):
        operators = [self._model.subgraphs[0].operators[i] for i in indices]
        read = {int(t) for op in operators for t in op.inputs}
        inputs = sorted(read & set(self._values))
        outputs = [
            int(t)
            for op in operators
            for t in op.outputs
            if self._last_reader.get(int(t), -1) > indices[-1]
        ]
        piece = flatbuffer.excerpt(self._model, indices, inputs, outputs)
        rows = run_graph(piece, [self._values[tensor] for tensor in inputs])
        return dict(zip(outputs, zip(*rows)))


def _mean(arrays):
    """Returns the mean of each channel over some arrays of one shape."""
    return np.mean([channel_means(array) for array in arrays], 0)


def _add_to_bias(model, index, shift):
    """Moves the bias of a layer, which gets its own if it was shared."""
    graph = model.subgraphs[0]
    operator = graph.operators[index]
    tensor = copy.copy(graph.tensors[operator.inputs[2]])
    data = bytes(model.buffers[tensor.buffer].data)
    limits = np.iinfo(flatbuffer.dtype(tensor))
    bias = np.frombuffer(data, limits.dtype)
    bias = np.rint(bias + shift / np.asarray(tensor.quantization.scale))
    buffer = flatbuffer.schema().BufferT()
    bias = np.clip(bias, limits.min, limits.max).astype(limits.dtype)
    buffer.data = bias.view(np.uint8)
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)
    operator.inputs = [*operator.inputs[:2], len(graph.tensors)]
    graph.tensors.append(tensor)
