"""Operations and tensors that are added to the graph of a file."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mobilevit.tflite import flatbuffer


def operation(
    model: Any,
    name: str,
    inputs: Sequence[int],
    output: int,
    options: str | None = None,
    **fields: Any,
) -> Any:
    """Returns an operation for a graph, which it is not put into.

    Args:
        model: object tree of `flatbuffer.read_model`; it gets the code.
        name: of the operation, as in `BuiltinOperator` of the schema.
        inputs: tensors that it reads.
        output: the tensor that it computes.
        options: the kind of its options, as in `BuiltinOptions`.
        **fields: values of these options.
    """
    schema = flatbuffer.schema()
    op = schema.OperatorT()
    op.opcodeIndex = flatbuffer.add_code(model, name)
    op.inputs, op.outputs = list(inputs), [output]
    if options is not None:
        op.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        op.builtinOptions = getattr(schema, f"{options}T")()
        for field, value in fields.items():
            setattr(op.builtinOptions, field, value)
    return op


def integer_tensor(
    model: Any,
    name: str,
    shape: Sequence[int],
    bounds: tuple[float, float],
    bits: int = 8,
) -> int:
    """Adds a tensor of integers to the main graph and returns its place.

    Args:
        model: object tree of `flatbuffer.read_model`.
        name: of the tensor.
        shape: of the tensor.
        bounds: the least and the largest number that it can hold. With 16
            bits, where zero lies in the middle, it holds minus the largest.
        bits: 8 or 16.
    """
    schema = flatbuffer.schema()
    tensor = schema.TensorT()
    tensor.name, tensor.shape = name.encode(), list(shape)
    if bits == 16:
        tensor.type = schema.TensorType.INT16
        scale, zero = max(map(abs, bounds)) / 32767, 0
    else:
        tensor.type = schema.TensorType.INT8
        scale = (bounds[1] - bounds[0]) / 255
        zero = round(-128 - bounds[0] / scale)
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = [scale]
    tensor.quantization.zeroPoint = [zero]
    tensors = model.subgraphs[0].tensors
    tensors.append(tensor)
    return len(tensors) - 1


def twin(model: Any, tensor: int, shape: Sequence[int], suffix: str) -> int:
    """Adds a tensor like another, of a different shape; returns its place.

    Args:
        model: object tree of `flatbuffer.read_model`.
        tensor: the other one; it lends its name, its type and its grid.
        shape: of the new one.
        suffix: what is added to the name.
    """
    tensors = model.subgraphs[0].tensors
    source = tensors[tensor]
    added = flatbuffer.schema().TensorT()
    added.name = source.name + b"_" + suffix.encode()
    added.shape, added.type = list(shape), source.type
    added.quantization = source.quantization
    tensors.append(added)
    return len(tensors) - 1


def int8_constant(model: Any, name: str, value: float) -> int:
    """Adds an int8 scalar that holds a positive number exactly."""
    steps = 127
    place = integer_tensor(model, name, [1], (-128 * value / steps, value))
    tensor = model.subgraphs[0].tensors[place]
    buffer = flatbuffer.schema().BufferT()
    buffer.data = np.array([steps], np.int8).view(np.uint8)
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)
    return place


def bits(tensor: Any) -> int:
    """Returns how many bits the numbers of a tensor have: 8 or 16."""
    return 16 if tensor.type == flatbuffer.schema().TensorType.INT16 else 8


def bounds(tensor: Any) -> tuple[float, float]:
    """Returns the least and the largest number of a tensor of integers."""
    scale = float(tensor.quantization.scale[0])
    zero = int(tensor.quantization.zeroPoint[0])
    most = 2 ** (bits(tensor) - 1)
    return (-most - zero) * scale, (most - 1 - zero) * scale
