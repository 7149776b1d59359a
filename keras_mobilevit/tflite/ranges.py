"""The ranges of a float file's tensors: measured, or trained and lifted."""

import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_mobilevit.layers.conv import live_inputs
from keras_mobilevit.quantization import clipping
from keras_mobilevit.quantization.rounding import symmetric_range
from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite import norms
from keras_mobilevit.tflite import silu


def activation_ranges(
    float_file: str | os.PathLike,
    pictures: np.ndarray,
    narrow: bool = False,
) -> dict[str, dict[str, np.ndarray]]:
    """Measures the smallest and largest value of every activation of a file.

    Constants are left out: the quantizer would take their one range for that
    of every channel of a kernel.

    Minima and maxima over all pictures: the moving average that the
    quantizer would take clips what is rare. With `narrow` they are narrowed
    where that lowers the squared error of 8 bits on the pictures, see
    `clipping`, and what only a SiLU reads counts as far as an int8 gate lets
    it through.

    Args:
        float_file: a float32 TFLite file.
        pictures: float32 array `(n, height, width, channels)`.
        narrow: whether ranges are narrowed for 8 bits.

    Returns:
        For each tensor name `{"min": ..., "max": ...}`, in the form that
        `litert_quantizer.Quantizer.quantize` takes.

    Raises:
        ValueError: a tensor becomes NaN or infinite; it is named.
    """
    from ai_edge_litert.interpreter import Interpreter
    from tqdm import tqdm

    with warnings.catch_warnings():
        # It warns that keeping all tensors costs memory, which is meant here.
        warnings.simplefilter("ignore")
        interpreter = Interpreter(
            str(float_file),
            experimental_preserve_all_tensors=True,
            num_threads=os.cpu_count(),
        )
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    model = flatbuffer.read_model(Path(float_file).read_bytes())
    graph = flatbuffer.nodes(model)
    gates = silu.gate_scales(model) if narrow else {}
    computed = {tensor for node in graph for tensor in node.outputs}
    names = {
        detail["index"]: detail["name"]
        for detail in interpreter.get_tensor_details()
        if detail["index"] in computed | {source}
        and detail["dtype"] == np.float32
    }

    def values(picture, reduce):
        interpreter.set_tensor(source, picture[np.newaxis])
        interpreter.invoke()
        for tensor in names:
            rows = interpreter.get_tensor(tensor)
            rows = reduce(rows.reshape(-1, rows.shape[-1]))
            if tensor in gates:
                rows = live_inputs(rows, gates[tensor], np)
            yield tensor, rows

    bounds = dict.fromkeys(names, (np.inf, -np.inf))
    for picture in tqdm(pictures, desc="calibrating", leave=False):
        for tensor, ends in values(picture, _ends):
            low, high = bounds[tensor]
            bounds[tensor] = (
                np.minimum(low, ends.min()),
                np.maximum(high, ends.max()),
            )
    for tensor, ends in bounds.items():
        if not np.all(np.isfinite(ends)):
            raise ValueError(
                "The model computes NaN or infinity on `calibration_data`, "
                f"first seen in {names[tensor]!r}. Check its weights and the "
                "pictures."
            )
    if narrow:
        whole = _pooled(graph) | {t for t in names if _is_number(model, t)}
        counts = clipping.Counts(
            {t: bounds[t] for t in names if t not in whole}
        )
        chosen = pictures[: clipping.PICTURES]
        for picture in tqdm(chosen, desc="narrowing", leave=False):
            for tensor, rows in values(picture, clipping.sample):
                if tensor not in whole:
                    counts.add(tensor, rows)
        narrowed = {t: counts.best(t) for t in names if t not in whole}
        bounds = {**bounds, **narrowed, source: bounds[source]}
    ranks = {t: len(model.subgraphs[0].tensors[t].shape) for t in names}
    return {name: _range(*bounds[t], ranks[t]) for t, name in names.items()}


def _pooled(graph):
    """Returns the tensors of which only sums or maxima over maps are taken.

    Rounding errors cancel in a sum, what is clipped does not; and the largest
    values are what a maximum is made of.
    """
    readers = {}
    for node in graph:
        for tensor in node.inputs:
            readers.setdefault(tensor, set()).add(node.name)
    pooling = {"MEAN", "SUM", "REDUCE_MAX"}
    return {t for t, names in readers.items() if names <= pooling}


def _is_number(model, tensor):
    """Whether it holds one number: all of its values are as likely."""
    return math.prod(model.subgraphs[0].tensors[tensor].shape) == 1


def _ends(rows):
    """The smallest and the largest value of each column."""
    return np.stack([rows.min(0), rows.max(0)])


def _range(low, high, rank):
    """A range in the form that the quantizer takes."""
    if low == high == 0:
        high = 1.0  # A scale of next to nothing is none that XNNPACK takes.
    return {
        "min": np.full((1,) * rank, low, "float32"),
        "max": np.full((1,) * rank, high, "float32"),
    }


# They move values and nothing else.
_MOVING = {"RESHAPE", "TRANSPOSE"}
# They only move values; the converter moves rounding across them.
_CARRYING = {
    "AVERAGE_POOL_2D",
    "CONCATENATION",
    "EXPAND_DIMS",
    "GATHER",
    "MAX_POOL_2D",
    "MAXIMUM",
    "PAD",
    "PADV2",
    "REDUCE_MAX",
    "RESHAPE",
    "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR",
    "SLICE",
    "SPACE_TO_DEPTH",
    "SPLIT",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TILE",
    "TRANSPOSE",
}


def symmetric_ranges(
    graph: list, known: dict, tensors: list
) -> Iterator[tuple[int, tuple[float, float]]]:
    """Widens the range of each second factor of a product to be symmetric.

    XNNPACK multiplies int8 activations only if the second has the zero point
    0 (measured with LiteRT 2.3: of the products of trained networks it takes
    just those that have it by chance). What moves the factor there has its
    range.

    Args:
        graph: the operations, as `flatbuffer.nodes` returns them.
        known: what `activation_ranges` returns.
        tensors: those of the graph.

    Yields:
        `(tensor, (low, high))`, which make a grid of 8 bits with 0 in the
        middle.
    """
    makers = {t: node for node in graph for t in node.outputs}
    for node in graph:
        if node.name != "BATCH_MATMUL" or len(node.inputs) < 2:
            continue
        way = [node.inputs[1]]
        while way[-1] in makers and makers[way[-1]].name in _MOVING:
            way.append(makers[way[-1]].inputs[0])
        rows = [known[tensors[tensor].name.decode()] for tensor in way]
        low = min(float(row["min"].min()) for row in rows)
        high = max(float(row["max"].max()) for row in rows)
        for tensor in way:
            yield tensor, symmetric_range(low, high)


def trained_ranges(
    model: Any,
) -> dict[str, dict[str, np.ndarray]] | None:
    """Takes the ranges out of a float file that rounds to 8 bits.

    A quantization-aware model is converted as it is: each place where it
    rounds becomes a `QUANTIZE` and a `DEQUANTIZE`. These are removed from the
    graph, in place, and what they knew is returned.

    Args:
        model: object tree of `flatbuffer.read_model`.

    Returns:
        The ranges of all computed tensors as `activation_ranges` gives them;
        `None` if the file rounds nothing.

    Raises:
        ValueError: a tensor has no range.
    """
    lifted = flatbuffer.lift_ranges(model)
    if not lifted:
        return None
    for tensor, bounds in norms.ranges(model).items():
        lifted.setdefault(tensor, bounds)
    tensors = model.subgraphs[0].tensors
    graph = flatbuffer.nodes(model)
    carriers = [node for node in graph if node.name in _CARRYING]
    for node in carriers:
        _spread(lifted, node.inputs, node.outputs)
    for node in reversed(carriers):
        _spread(lifted, node.outputs, node.inputs)
    computed = {t for node in graph for t in node.outputs + node.inputs}
    missing = [
        tensors[t].name.decode()
        for t in sorted(computed - set(lifted))
        if flatbuffer.is_float(tensors[t])
    ]
    if missing:
        raise ValueError(
            "The quantized model computes tensors that it does not round: "
            f"{', '.join(missing[:3])}, {len(missing)} in all. Only models of "
            "`quantization.quantize_model` can be written as int8."
        )
    return {
        tensors[t].name.decode(): _range(*bounds, len(tensors[t].shape))
        for t, bounds in lifted.items()
    }


def _spread(lifted, sources, places):
    """Gives tensors without a range that of the first source with one."""
    for source in sources:
        if source in lifted:
            for place in places:
                lifted.setdefault(place, lifted[source])
            return
