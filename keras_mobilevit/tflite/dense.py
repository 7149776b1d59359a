"""Dense layers as convolutions, which an Edge TPU takes per channel."""

import collections
from typing import Any

import numpy as np

from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite.additions import operation
from keras_mobilevit.tflite.additions import twin


def to_convolutions(model: Any) -> None:
    """Turns int8 dense layers on one vector into 1x1 convolutions, in place.

    `FULLY_CONNECTED` from `(1, n)` to `(1, m)` becomes `CONV_2D` from `(1, 1,
    1, n)` to `(1, 1, 1, m)` and a `SQUEEZE`: the same numbers, with the scale
    of each channel. A mean over a map before it keeps its axes; after
    anything else a `RESHAPE` gives them.

    Args:
        model: object tree of `flatbuffer.read_model`.
    """
    graph = model.subgraphs[0]
    nodes = flatbuffer.nodes(model)
    makers = {t: i for i, node in enumerate(nodes) for t in node.outputs}
    readers = collections.Counter(t for node in nodes for t in node.inputs)
    readers.update(int(t) for t in graph.outputs)
    operators = []
    for op, node in zip(graph.operators, nodes):
        operators.append(op)
        if node.name != "FULLY_CONNECTED" or len(node.inputs) != 1:
            continue
        source, result = int(op.inputs[0]), int(op.outputs[0])
        shapes = [list(graph.tensors[t].shape) for t in (source, result)]
        is_vector = all(len(s) == 2 and s[0] == 1 for s in shapes)
        if not is_vector or flatbuffer.is_float(graph.tensors[source]):
            continue
        maker = makers.get(source)
        is_mean = maker is not None and nodes[maker].name == "MEAN"
        if is_mean and readers[source] == 1:
            graph.operators[maker].builtinOptions.keepDims = True
            graph.tensors[source].shape = [1, 1, *shapes[0]]
        else:
            column = twin(model, source, [1, 1, *shapes[0]], "column")
            operators.insert(-1, _reshape(model, source, column))
            op.inputs = [column, *op.inputs[1:]]
        _to_convolution(model, op)
        row = twin(model, result, [1, 1, *shapes[1]], "row")
        op.outputs = [row]
        operators.append(_squeeze(model, row, result))
    graph.operators = operators


def _reshape(model, source, result):
    shape = model.subgraphs[0].tensors[result].shape
    options = {"options": "ReshapeOptions", "newShape": shape}
    return operation(model, "RESHAPE", [source], result, **options)


def _squeeze(model, source, result):
    options = {"options": "SqueezeOptions", "squeezeDims": [0, 1]}
    return operation(model, "SQUEEZE", [source], result, **options)


def _to_convolution(model, op):
    schema = flatbuffer.schema()
    graph = model.subgraphs[0]
    kernel = graph.tensors[op.inputs[1]]
    kernel.shape = [kernel.shape[0], 1, 1, kernel.shape[1]]
    bias = [int(t) for t in op.inputs[2:] if t >= 0]
    bias = bias or [_zero_bias(model, op.inputs[0], kernel)]
    op.inputs = [*op.inputs[:2], *bias]
    options = schema.Conv2DOptionsT()
    options.padding = schema.Padding.VALID
    options.strideH = options.strideW = 1
    options.dilationHFactor = options.dilationWFactor = 1
    options.fusedActivationFunction = op.builtinOptions.fusedActivationFunction
    op.builtinOptions = options
    op.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
    op.opcodeIndex = flatbuffer.add_code(model, "CONV_2D")


def _zero_bias(model, source, kernel):
    """Adds a bias of zeros: a convolution must have one."""
    schema = flatbuffer.schema()
    graph = model.subgraphs[0]
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data = np.zeros(kernel.shape[0], np.int32).view(np.uint8)
    model.buffers.append(buffer)
    scale = graph.tensors[source].quantization.scale[0]
    tensor.name = kernel.name + b"_bias"
    tensor.shape, tensor.type = kernel.shape[:1], schema.TensorType.INT32
    tensor.buffer = len(model.buffers) - 1
    tensor.quantization = schema.QuantizationParametersT()
    scales = [scale * factor for factor in kernel.quantization.scale]
    tensor.quantization.scale = scales
    tensor.quantization.zeroPoint = [0] * len(scales)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
