"""Layer normalization, written so that every delegate takes it."""

import math
from typing import Any

import keras
from keras import ops

from keras_mobilevit.layers.base import EXACT
from keras_mobilevit.layers.base import PACKAGE
from keras_mobilevit.layers.base import UNIT_RANGE
from keras_mobilevit.layers.base import QuantizableLayer
from keras_mobilevit.layers.base import at_least_float32
from keras_mobilevit.layers.base import known_channels


@keras.saving.register_keras_serializable(PACKAGE)
class LayerNorm(QuantizableLayer):
    """Layer normalization over the last axis (arXiv 1607.06450).

    The same function as `keras.layers.LayerNormalization`, as the chain mean,
    subtract, square, mean, add, rsqrt, multiply: Keras' own leaves a float
    `NEG` in a file that should be all int8. Half-precision inputs are
    normalized in float32. An int8 file divides by the deviation in another
    form, in which a small variance is not lost (`tflite/norms.py`).

    Input and output: float tensors of equal shape, any rank.

    Args:
        epsilon: added to the variance; positive.
        affine: whether a factor and an offset for each channel follow. The
            layers behind can absorb them, as
            `keras_mobilevit.quantization.equalize` has them do.
        quantization: see `QuantizableLayer`.
        **kwargs: `name`, `dtype`, `trainable`.

    Attributes:
        subtract_mean: `False` skips the mean, for a file whose model is known
            to have inputs of mean zero. It is not part of the config.

    Raises:
        ValueError: `epsilon` is not positive.
    """

    _axes = -1

    def __init__(
        self,
        epsilon: float = 1e-5,
        affine: bool = True,
        quantization: Any = None,
        **kwargs,
    ):
        super().__init__(quantization=quantization, **kwargs)
        if not epsilon > 0:
            raise ValueError(
                f"`epsilon` of `{type(self).__name__}` must be positive. "
                f"Received: epsilon={epsilon!r}"
            )
        self.epsilon = epsilon
        self.affine = affine
        self.subtract_mean = True
        self.mean = self.rounding("activation", "mean")
        self.centered = self.rounding("activation", "centered")
        self.normalized = EXACT  # its range depends on the channels
        if affine:
            self.rounded_gamma = self.rounding(
                "kernel", "rounded_gamma", axis=None
            )
            self.rounded_beta = self.rounding(
                "kernel", "rounded_beta", axis=None
            )
            self.scaled = self.rounding("activation", "scaled")
            self.outputs = self.rounding("activation", "outputs")

    def build(self, input_shape):
        channels = known_channels(input_shape, type(self).__name__, rank=None)
        self.normalized = self.rounding(
            "activation", "normalized", **self._result_range(channels)
        )
        for step in (self.mean, self.centered, self.normalized):
            step.build(input_shape)
        if self.affine:
            shape = (channels,)
            self.gamma = self.add_weight(
                name="gamma", shape=shape, initializer="ones"
            )
            self.beta = self.add_weight(
                name="beta", shape=shape, initializer="zeros"
            )
            self.rounded_gamma.build(shape)
            self.rounded_beta.build(shape)
            self.scaled.build(input_shape)
            self.outputs.build(input_shape)
        self.built = True

    def call(self, inputs):
        x = at_least_float32(inputs)
        if self.subtract_mean:
            mean = self.mean(ops.mean(x, axis=self._axes, keepdims=True))
            x = self.centered(x - mean)
        x = self._divide(x)
        if self.affine:
            gamma = self.rounded_gamma(ops.cast(self.gamma, x.dtype))
            beta = self.rounded_beta(ops.cast(self.beta, x.dtype))
            x = self.outputs(self.scaled(x * gamma) + beta)
        return ops.cast(x, self.compute_dtype)

    def _divide(self, x):
        variance = ops.mean(x * x, axis=-1, keepdims=True)
        return self.normalized(x * ops.rsqrt(variance + self.epsilon))

    def _result_range(self, channels):
        length = math.sqrt(channels)
        return {"bounds": (UNIT_RANGE[0] * length, UNIT_RANGE[1] * length)}

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "epsilon": self.epsilon,
            "affine": self.affine,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class GroupNorm(LayerNorm):
    """Group normalization with one group (arXiv 1803.08494).

    One mean and one variance for all of a picture's numbers, a factor and an
    offset for each channel: the norm of MobileViTv2.

    Input and output: `(batch, height, width, channels)`.

    Args:
        epsilon: added to the variance; positive.
        affine: whether a factor and an offset for each channel follow.
        quantization: see `QuantizableLayer`.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: `epsilon` is not positive.
    """

    _axes = (1, 2, 3)
    _STEPS = ("squares", "variance", "deviation", "reciprocal")

    def __init__(
        self,
        epsilon: float = 1e-5,
        affine: bool = True,
        quantization: Any = None,
        **kwargs,
    ):
        super().__init__(epsilon, affine, quantization, **kwargs)
        # Of all but the first there is one for a picture: 8 bits are enough.
        for name in self._STEPS:
            averaged = name == "squares"
            step = self.rounding("activation", name, averaged=averaged)
            setattr(self, name, step)

    def build(self, input_shape):
        known_channels(input_shape, "GroupNorm")
        for name in self._STEPS:
            getattr(self, name).build(input_shape)
        super().build(input_shape)

    def _divide(self, x):
        squares = self.squares(x * x)
        variance = ops.mean(squares, axis=self._axes, keepdims=True)
        variance = self.deviation(self.variance(variance) + self.epsilon)
        return self.normalized(x * self.reciprocal(ops.rsqrt(variance)))

    def _result_range(self, channels):
        return {}
