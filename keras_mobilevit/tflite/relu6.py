"""ReLU6 of its own: in integers a RELU whose range ends at 6."""

from collections.abc import Collection
from typing import Any

from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite.additions import bits
from keras_mobilevit.tflite.additions import bounds
from keras_mobilevit.tflite.additions import integer_tensor
from keras_mobilevit.tflite.additions import operation


def to_relu(model: Any, kept: Collection[int] = ()) -> list[bytes]:
    """Turns each `RELU6` of a float file into a `RELU`, in place.

    The quantizer leaves a `RELU6` that no operation before it merges in
    float. What was measured behind it ends at 6 or below, so integers of that
    range saturate there.

    Args:
        model: object tree of a float file.
        kept: positions of operations that stay in float, as they are.

    Returns:
        The names of their outputs, for `saturate`.
    """
    graph = model.subgraphs[0]
    chosen = [
        graph.operators[index]
        for index, node in enumerate(flatbuffer.nodes(model))
        if node.name == "RELU6" and index not in kept
    ]
    for op in chosen:
        op.opcodeIndex = flatbuffer.add_code(model, "RELU")
    return [graph.tensors[op.outputs[0]].name for op in chosen]


def saturate(model: Any, names: Collection[bytes]) -> None:
    """Ends the ranges of `to_relu`'s outputs at 6 where they go on, in place.

    What reads them may have asked for its own range, as a concatenation does.

    Args:
        model: object tree of the integer file.
        names: what `to_relu` returned.
    """
    graph = model.subgraphs[0]
    operators = []
    for op, node in zip(list(graph.operators), flatbuffer.nodes(model)):
        operators.append(op)
        tensor = graph.tensors[node.outputs[0]]
        if node.name != "RELU" or tensor.name not in names:
            continue
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
        op.outputs = [inner]
        operators.append(operation(model, "QUANTIZE", [inner], node.outputs[0]))
    graph.operators = operators
