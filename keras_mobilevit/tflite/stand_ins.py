"""Operations that runtimes have in integers, but the quantizer leaves float.

While it works, an operation that it knows stands in the place of each, with
the same inputs and the same options.
"""

from collections.abc import Collection
from typing import Any

from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite.additions import bits
from keras_mobilevit.tflite.additions import bounds
from keras_mobilevit.tflite.additions import integer_tensor
from keras_mobilevit.tflite.additions import operation
from keras_mobilevit.tflite.additions import twin

STAND_INS = {"RELU6": "RELU", "REDUCE_MAX": "MEAN"}


def put(model: Any, kept: Collection[int] = ()) -> dict[bytes, str]:
    """Puts the stand-ins into a float file, in place.

    Args:
        model: object tree of the file.
        kept: positions of operations that stay in float, as they are.

    Returns:
        What they stand for, by the name of the output, for `resolve`.
    """
    graph = model.subgraphs[0]
    names = {}
    for index, node in enumerate(flatbuffer.nodes(model)):
        if node.name in STAND_INS and index not in kept:
            op = graph.operators[index]
            op.opcodeIndex = flatbuffer.add_code(model, STAND_INS[node.name])
            names[graph.tensors[node.outputs[0]].name] = node.name
    return names


def resolve(model: Any, names: dict[bytes, str]) -> None:
    """Puts back what the stand-ins stand for, in place.

    A RELU6 stays a RELU: its range ends at 6 or below, where integers
    saturate. A REDUCE_MAX has the range of its input. What reads them may have
    asked for another range, as a concatenation does; then a QUANTIZE follows.

    Args:
        model: object tree of the integer file.
        names: what `put` returned.
    """
    graph = model.subgraphs[0]
    operators = []
    for op, node in zip(graph.operators, flatbuffer.nodes(model)):
        operators.append(op)
        tensor = graph.tensors[node.outputs[0]]
        name = names.get(tensor.name)
        if node.name != STAND_INS.get(name):
            continue
        if name == "RELU6":
            low, high = bounds(tensor)
            if high <= 6 + (high - low) / 255:  # a step
                continue
            inner = integer_tensor(
                model,
                f"{tensor.name.decode()}_up_to_6",
                tensor.shape,
                (0.0, 6.0),
                bits(tensor),
            )
        else:
            op.opcodeIndex = flatbuffer.add_code(model, name)
            source = node.inputs[0]
            if _grid(tensor) == _grid(graph.tensors[source]):
                continue
            inner = twin(model, source, tensor.shape, "largest")
        op.outputs = [inner]
        operators.append(operation(model, "QUANTIZE", [inner], node.outputs[0]))
    graph.operators = operators


def _grid(tensor):
    grid = tensor.quantization
    return float(grid.scale[0]), int(grid.zeroPoint[0])
