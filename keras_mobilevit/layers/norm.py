"""Layer normalization, written so that every delegate takes it."""

from typing import Any

import keras
from keras import ops

from keras_mobilevit.layers.base import PACKAGE
from keras_mobilevit.layers.base import QuantizableLayer
from keras_mobilevit.layers.base import at_least_float32
from keras_mobilevit.layers.base import known_channels


@keras.saving.register_keras_serializable(PACKAGE)
class LayerNorm(QuantizableLayer):
    """Layer normalization over the last axis (arXiv 1607.06450).

    The same function as `keras.layers.LayerNormalization`, as the chain mean,
    subtract, square, mean, add, rsqrt, multiply: Keras' own leaves a float
    `NEG` in a file that should be all int8. Half-precision inputs are
    normalized in float32.

    Input and output: float tensors of equal shape, any rank.

    Args:
        epsilon: added to the variance; positive.
        affine: whether a factor and an offset for each channel follow. The
            layers behind can absorb them, as
            `keras_mobilevit.quantization.equalize` has them do.
        quantization: see `QuantizableLayer`.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: `epsilon` is not positive.
    """

    _STEPS = (
        "mean",
        "centered",
        "squared",
        "variance",
        "shifted_variance",
        "inverse_deviation",
        "normalized",
    )
    _AFFINE_STEPS = ("scaled", "outputs")

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
                "`epsilon` of `LayerNorm` must be positive. "
                f"Received: epsilon={epsilon!r}"
            )
        self.epsilon = epsilon
        self.affine = affine
        self.steps = self._STEPS + (self._AFFINE_STEPS if affine else ())
        for step in self.steps:
            # In 8 bits a small variance may become zero, and its root that.
            floor = {"floor": epsilon} if step == "shifted_variance" else {}
            setattr(self, step, self.rounding("activation", step, **floor))
        if affine:
            for name in ("rounded_gamma", "rounded_beta"):
                setattr(self, name, self.rounding("kernel", name, axis=None))

    def build(self, input_shape):
        shape = (known_channels(input_shape, "LayerNorm", rank=None),)
        if self.affine:
            self.gamma = self.add_weight(
                name="gamma", shape=shape, initializer="ones"
            )
            self.beta = self.add_weight(
                name="beta", shape=shape, initializer="zeros"
            )
            self.rounded_gamma.build(shape)
            self.rounded_beta.build(shape)
        for step in self.steps:
            getattr(self, step).build(input_shape)
        self.built = True

    def call(self, inputs):
        x = at_least_float32(inputs)
        mean = self.mean(ops.mean(x, axis=-1, keepdims=True))
        x = self.centered(x - mean)
        variance = self.squared(x * x)
        variance = self.variance(ops.mean(variance, axis=-1, keepdims=True))
        variance = self.shifted_variance(variance + self.epsilon)
        x = self.normalized(x * self.inverse_deviation(ops.rsqrt(variance)))
        if self.affine:
            gamma = self.rounded_gamma(ops.cast(self.gamma, x.dtype))
            beta = self.rounded_beta(ops.cast(self.beta, x.dtype))
            x = self.outputs(self.scaled(x * gamma) + beta)
        return ops.cast(x, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "epsilon": self.epsilon,
            "affine": self.affine,
        }
