"""tfmot's quantizers inside Keras 3 layers."""

import functools
import os
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mobilevit.layers.base import EXACT
from keras_mobilevit.layers.base import PACKAGE
from keras_mobilevit.quantization import graph
from keras_mobilevit.quantization.rounding import symmetric_range

#: Narrower ranges than this have no 8-bit grid.
NARROWEST = 1e-5


@keras.saving.register_keras_serializable(PACKAGE)
class Int8:
    """The `quantization` of a layer that is trained for an int8 file.

    Activations are rounded to 8 bits with one asymmetric range a tensor,
    kernels symmetrically with one range an output channel, as TFLite does.

    Args:
        baked: whether the kernels already hold rounded values, as they do
            when a file is written; they are then left alone.
        freeze_batch_norm: whether batch normalizations keep their statistics
            and parameters in training.
    """

    def __init__(self, baked: bool = False, freeze_batch_norm: bool = False):
        self.baked = baked
        self.freeze_batch_norm = freeze_batch_norm

    def activation(
        self,
        name: str,
        bounds: tuple[float, float] | None = None,
        averaged: bool = False,
    ) -> "RoundedActivation":
        """Returns the layer that rounds a tensor.

        Args:
            name: name of the layer.
            bounds: the range where it is known beforehand.
            averaged: whether only means of the values are used.
        """
        return RoundedActivation(bounds, averaged, name=name)

    def kernel(self, name: str, axis: int | None) -> Any:
        """Returns the layer that rounds a weight.

        Args:
            name: name of the layer.
            axis: the axis of its output channels; `None` for one range.
        """
        return EXACT if self.baked else RoundedKernel(axis, name=name)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "baked": self.baked,
            "freeze_batch_norm": self.freeze_batch_norm,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Int8":
        """Returns the object of a config."""
        return cls(**config)


@functools.cache
def _tfmot_quantizers() -> Any:
    """Imports tfmot's quantizers and leaves the process as it was."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Quantization-aware training needs Keras on TensorFlow: set "
            "KERAS_BACKEND=tensorflow. Received: "
            f"KERAS_BACKEND={keras.backend.backend()}"
        )
    import tensorflow as tf

    # tfmot asks for the legacy Keras; loaded first, `tf.keras` stays Keras 3.
    getattr(tf, "keras").version()
    legacy = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        from tensorflow_model_optimization.python.core.quantization.keras import (  # noqa: E501
            quantizers,
        )
    finally:
        os.environ.pop("TF_USE_LEGACY_KERAS", None)
        if legacy is not None:
            os.environ["TF_USE_LEGACY_KERAS"] = legacy
    return quantizers


class _Host:
    """What a tfmot quantizer takes for its legacy Keras layer."""

    def __init__(self, layer):
        self.layer = layer

    def add_weight(self, name, initializer, trainable, shape=None):
        shape = () if shape is None else shape
        return self.layer.add_weight(
            name=name,
            shape=shape if isinstance(shape, tuple) else (shape,),
            initializer=keras.initializers.Constant(initializer.value),
            trainable=trainable,
            dtype="float32",
            autocast=False,
        )


class Rounding(keras.layers.Layer):
    """A layer around a quantizer. Its weights are the ranges."""

    def __init__(self, **kwargs):
        kwargs.pop("dtype", None)
        super().__init__(dtype="float32", autocast=False, **kwargs)
        self._ranges = None
        #: A boolean tensor: whether to round at all. `None` for always.
        self.switch = None

    def _add_ranges(self, shape):
        self._ranges = self.quantizer.build(shape, "range", _Host(self)) or {}
        self.built = True

    def _round(self, x, training):
        ranges = {name: v.value for name, v in self._ranges.items()}
        exact = ops.cast(x, "float32")
        rounded = self.quantizer(exact, bool(training), ranges)
        if self.switch is not None:
            rounded = ops.where(self.switch, rounded, exact)
        return ops.cast(rounded, x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class RoundedActivation(Rounding):
    """Rounds a tensor, or several with one common range, to 8 bits.

    A range that is not fixed follows the minima and maxima of the training
    batches (tfmot's `MovingAverageQuantizer`), from the calibrated one on.

    Args:
        bounds: the range, fixed; `None` to measure it.
        averaged: whether only means of the values are used. Rounding errors
            cancel there, what is clipped does not, so the range stays whole.
        **kwargs: `name`.
    """

    def __init__(
        self,
        bounds: tuple[float, float] | None = None,
        averaged: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.bounds = None if bounds is None else tuple(bounds)
        self.averaged = averaged
        self._part = None
        if bounds is None:
            self._follow_values(symmetric=False)
        else:
            self.quantizer = _tfmot_quantizers().FixedQuantizer(
                8, float(bounds[0]), float(bounds[1]), narrow_range=False
            )

    def _follow_values(self, symmetric):
        self.quantizer = _tfmot_quantizers().MovingAverageQuantizer(
            num_bits=8, per_axis=False, symmetric=symmetric, narrow_range=False
        )

    def build(self, input_shape=None):
        self._add_ranges(None)

    def follow(self, part: Callable[[Any], Any]) -> None:
        """Lets the range follow a part of the values only.

        Args:
            part: gives the values that matter, the others cut to them.
        """
        self._part = part

    def center(self) -> None:
        """Keeps a measured range symmetric: 0 is in the middle of its grid."""
        if self.bounds is None:
            self._follow_values(symmetric=True)

    def call(self, inputs, training=None):
        if training and self._part is not None:
            inputs = self._part(inputs)
        if not isinstance(inputs, (list, tuple)):
            return self._round(inputs, training)
        if training and self.bounds is None:
            # One step of the common range, over all tensors together.
            self._round(
                ops.concatenate([ops.reshape(x, (-1,)) for x in inputs]), True
            )
        return [self._round(x, False) for x in inputs]

    def followed(self, inputs: Any) -> list:
        """Returns the tensors whose values the range follows."""
        several = isinstance(inputs, (list, tuple))
        tensors = inputs if several else [inputs]
        return [x if self._part is None else self._part(x) for x in tensors]

    def range(self) -> tuple[float, float]:
        """Returns the range, measured or fixed."""
        if self.bounds is not None:
            return self.bounds
        return tuple(
            float(self._ranges[name].numpy()) for name in ("min_var", "max_var")
        )

    def set_range(self, low: float, high: float) -> None:
        """Sets the measured range, widened so that it holds zero."""
        if self.bounds is None:
            low, high = min(low, 0.0), max(high, 0.0)
            if low == high:
                high = 1.0  # as in a file, see `tflite.ranges`
            high = max(high, low + NARROWEST)
            if self.quantizer.symmetric:
                low, high = symmetric_range(low, high)
            self._ranges["min_var"].assign(low)
            self._ranges["max_var"].assign(high)

    def get_config(self):
        return {
            **super().get_config(),
            "bounds": self.bounds,
            "averaged": self.averaged,
        }


def is_quantized(model: keras.Model) -> bool:
    """Whether a model comes from `quantize_model`."""
    return bool(graph.find(model, RoundedActivation))


@keras.saving.register_keras_serializable(PACKAGE)
class RoundedKernel(Rounding):
    """Rounds a weight to 8 bits, symmetrically (tfmot's `LastValueQuantizer`).

    Its ranges are those of the weight's present values, in inference too: a
    file's grid is laid out by them.

    Args:
        axis: the axis of the output channels, the last or, of a depthwise
            kernel, the last but one; `None` for one range.
        **kwargs: `name`.
    """

    def __init__(self, axis: int | None, **kwargs):
        super().__init__(**kwargs)
        self.axis = axis
        self.quantizer = _tfmot_quantizers().LastValueQuantizer(
            num_bits=8,
            per_axis=axis is not None,
            symmetric=True,
            narrow_range=True,
        )

    def build(self, input_shape):
        self._add_ranges(self._channels_last(tuple(input_shape)))

    def _channels_last(self, shape):
        """The shape with all channels on the last axis, as tfmot wants it."""
        if self.axis is None or self.axis == len(shape) - 1:
            return shape
        return (*shape[: self.axis], 1, shape[-2] * shape[-1])

    def call(self, inputs):
        shape = tuple(inputs.shape)
        x = ops.reshape(inputs, self._channels_last(shape))
        return ops.reshape(self._round(x, True), shape)

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}
