"""From a SavedModel to the bytes of a TFLite file, by precision."""

import re
import warnings
from collections.abc import Callable
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from keras_mobilevit.layers.base import GATE_RANGE
from keras_mobilevit.layers.base import PROBABILITIES
from keras_mobilevit.tflite import bias
from keras_mobilevit.tflite import dense
from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite import norms
from keras_mobilevit.tflite import ranges
from keras_mobilevit.tflite import silu
from keras_mobilevit.tflite import stand_ins
from keras_mobilevit.tflite.promises import ConversionError


def floating(saved_model: Path, precision: str) -> bytes:
    """Writes a file whose activations are floats, with TensorFlow's converter.

    Args:
        saved_model: the folder of the SavedModel.
        precision: `"float32"`, `"float16"` or `"dynamic_int8"`.

    Raises:
        ConversionError: the converter cannot write the model.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(saved_model), signature_keys=[flatbuffer.SIGNATURE]
    )
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        return converter.convert()
    except Exception as error:  # It has no class of errors of its own.
        reason = " ".join(str(error).split())[:300]
        raise ConversionError(
            "TensorFlow's converter cannot write this model. The layer that "
            f"it names has no form in TFLite; replace it. Received: {reason}"
        ) from error


class IntegerWriter:
    """Writes files with integer activations, with LiteRT's quantizer.

    The quantizer takes the ranges as they are given, so what is known of a
    range beforehand can be fixed; TensorFlow's own calibration cannot.

    Args:
        saved_model: the folder of the SavedModel; a file is left beside it.
        pictures: float32 array of pictures to calibrate on; not needed for a
            quantization-aware model, which brings its ranges.
        input_dtype: `"uint8"`, `"int8"` or `"float32"`, of both ends.
        precision: `"int8"`, `"int8_mixed"` (softmax and norms stay float) or
            `"int16x8"` (weights of 8 bits, activations of 16).
        refine: whether ranges of 8 bits are narrowed, see `ranges`, and layers
            get the means that they have in float, see `bias`. It needs
            `pictures`.
        refused: operations that the device does not run, for which norms
            have another form, see `norms`.
        dense_as_conv: whether dense layers on one vector are written as
            convolutions, see `dense`.
        finish: what is done to the bytes of each file.

    Attributes:
        model: object tree of the float file.
    """

    def __init__(
        self,
        saved_model: Path,
        pictures: np.ndarray | None,
        input_dtype: str,
        precision: str,
        refine: bool = False,
        refused: Collection[str] = (),
        dense_as_conv: bool = False,
        finish: Callable[[bytes], bytes] = bytes,
    ):
        self._dense_as_conv, self._finish = dense_as_conv, finish
        self._refused = refused
        self.input_dtype, self.precision = input_dtype, precision
        self._pictures = pictures if refine else None
        self._float_file = saved_model.with_name("float.tflite")
        data = floating(saved_model, "float32")
        self.model = flatbuffer.read_model(data)
        known = ranges.trained_ranges(self.model)
        if known is None:
            self._float_file.write_bytes(data)
            known = ranges.activation_ranges(
                self._float_file, pictures, refine and precision != "int16x8"
            )
        else:
            self._float_file.write_bytes(flatbuffer.write_model(self.model))
        self._graph = flatbuffer.nodes(self.model)
        tensors = self.model.subgraphs[0].tensors
        fixed = {}
        if precision != "int16x8":
            fixed.update(_fixed_ranges(self._graph, known, tensors))
        if precision == "int8":
            fixed.update(norms.ranges(self.model))
        for tensor, (low, high) in fixed.items():
            bounds = known[tensors[tensor].name.decode()]
            bounds["min"] = np.full_like(bounds["min"], low)
            bounds["max"] = np.full_like(bounds["max"], high)
        for node in self._graph:
            # Its integer kernel rescales nothing.
            if node.name == "REDUCE_MAX":
                source, result = (
                    known[tensors[t].name.decode()]
                    for t in (node.inputs[0], node.outputs[0])
                )
                for end in ("min", "max"):
                    result[end] = np.full_like(result[end], source[end].item())
        self._ranges = known

    def write(self, kept: Collection[int] = ()) -> bytes:
        """Returns a file.

        Args:
            kept: positions of operations that stay in floating point.
        """
        from litert_quantizer import quantizer
        from litert_quantizer import recipe

        if self.precision == "int16x8":
            rules = recipe.static_wi8_ai16()
        else:
            rules = recipe.static_wi8_ai8()
        quantized = rules[0]
        exact = {"algorithm_key": "no_quantize", "op_config": {}}
        if self.precision == "int8_mixed":
            kept = {*kept, *flatbuffer.float_islands(self._graph)}
        tensors = self.model.subgraphs[0].tensors
        for index in kept:
            outputs = self._graph[index].outputs
            names = [tensors[t].name.decode() for t in outputs]
            # A rule's pattern is searched in the names of an op's outputs.
            pattern = "^" + re.escape(";".join(names)) + ";$"
            rules.append({**exact, "regex": pattern, "operation": "*"})
        # Later rules win, and the last operation may be one that is kept.
        ends = exact if self.input_dtype == "float32" else quantized
        for end in ("INPUT", "OUTPUT"):
            rules.append({**ends, "regex": "", "operation": end})
        source = flatbuffer.read_model(self._float_file.read_bytes())
        stood_for = stand_ins.put(source, kept)
        with warnings.catch_warnings():
            # Of the memory that its own interpreter takes.
            warnings.simplefilter("ignore", UserWarning)
            result = quantizer.Quantizer(
                flatbuffer.write_model(source), rules
            ).quantize(
                self._ranges,
                enable_progress_bar=False,
                enable_progress_report=False,
            )
        model = flatbuffer.read_model(bytes(result.quantized_model))
        stand_ins.resolve(model, stood_for)
        if self.precision != "int8_mixed":
            norms.rewrite(model, self._refused)
        if self._pictures is not None:
            bias.correct_biases(model, self.model, self._pictures)
        if self._dense_as_conv:
            dense.to_convolutions(model)
        if self.input_dtype == "uint8":
            flatbuffer.int8_ends_to_uint8(model)
        flatbuffer.state_versions(model)
        return self._finish(flatbuffer.write_model(model))


def _fixed_ranges(graph: list, known: dict, tensors: list) -> Any:
    """Yields `(tensor, (low, high))` where more is known than was measured."""
    yield from ranges.symmetric_ranges(graph, known, tensors)
    for node in graph:
        if node.name in ("SOFTMAX", "LOGISTIC"):
            yield node.outputs[0], PROBABILITIES
    # Without equalisation a tensor is also what the gate multiplies, and
    # needs its whole range.
    for tensor in silu.logits(graph):
        measured = known[tensors[tensor].name.decode()]
        low = max(GATE_RANGE[0], float(measured["min"].min()))
        high = min(GATE_RANGE[1], float(measured["max"].max()))
        yield tensor, (low, high)
