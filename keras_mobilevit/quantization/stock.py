"""Keras' own layers with int8 rounding: what users put around ours."""

from typing import Any

import keras
from keras import layers
from keras import ops

from keras_mobilevit.layers.base import EXACT
from keras_mobilevit.layers.base import PACKAGE
from keras_mobilevit.layers.base import PROBABILITIES

#: Ranges that the TFLite specification fixes.
FIXED = {
    "sigmoid": PROBABILITIES,
    "softmax": PROBABILITIES,
    "tanh": (-1.0, 127.0 / 128.0),
}
#: A file merges these into the layer before.
FUSED = ("relu", "relu6")
FUNCTIONS = ("linear", *FUSED, "silu", *FIXED)


def function_name(layer: layers.Layer) -> str | None:
    """Returns which of `FUNCTIONS` a layer applies; `None` for another."""
    if isinstance(layer, layers.ReLU):
        if layer.negative_slope or layer.threshold:
            return None
        return {None: "relu", 6: "relu6"}.get(layer.max_value)
    if isinstance(layer, layers.Softmax):
        return "softmax" if layer.axis == -1 else None
    name = keras.activations.serialize(layer.activation)
    return name if name in FUNCTIONS else None


def is_linear(layer: layers.Layer) -> bool:
    """Whether a layer with a kernel ends without an activation."""
    return function_name(layer) == "linear"


class _Quantized:
    """What the quantized form of a stock layer adds to it.

    Args:
        quantization: an `Int8` or its config.
        rounds_outputs: `False` where the layer behind is merged into this
            one in a file: a batch normalization or a ReLU.
    """

    def __init__(
        self, *args, quantization: Any, rounds_outputs: bool = True, **kwargs
    ):
        super().__init__(*args, **kwargs)
        if isinstance(quantization, dict):
            quantization = keras.saving.deserialize_keras_object(quantization)
        self.quantization = quantization
        self.rounds_outputs = rounds_outputs
        self._add_hooks()
        self.built = False  # some are built at once, without the hooks

    def _add_hooks(self):
        self.rounded_outputs = EXACT
        if self.rounds_outputs:
            self.rounded_outputs = self.quantization.activation(
                "rounded_outputs"
            )

    def build(self, input_shape):
        super().build(input_shape)
        self.rounded_outputs.build()
        self.built = True

    def get_config(self):
        return {
            **super().get_config(),
            "quantization": keras.saving.serialize_keras_object(
                self.quantization
            ),
            "rounds_outputs": self.rounds_outputs,
        }


class _RoundedAfter(_Quantized):
    """A layer that computes as before; then its output is rounded."""

    def call(self, inputs):
        return self.rounded_outputs(super().call(inputs))


class _Chained(_RoundedAfter):
    """A merge of two tensors or more, rounded after each step.

    A file merges two at a time.
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.rounded_steps = [
            self.quantization.activation(f"rounded_step_{i}")
            for i in range(len(input_shape) - 2)
        ]
        for rounding in self.rounded_steps:
            rounding.build()

    def _merge_function(self, inputs):
        x, *others = inputs
        # What the last step gives is rounded by `call`.
        for rounding, other in zip((*self.rounded_steps, EXACT), others):
            x = rounding(super()._merge_function([x, other]))
        return x


class _Activated(_Quantized):
    """A layer that ends in one of `FUNCTIONS`."""

    def _add_hooks(self):
        def hook(name, wanted=True, **options):
            if not wanted:
                return EXACT
            return self.quantization.activation(name, **options)

        self.function = function_name(self)
        bounds = FIXED.get(self.function)
        is_curved = self.function not in ("linear", *FUSED)
        self.rounded_inputs = hook("rounded_inputs", is_curved)
        self.rounded_gate = hook(
            "rounded_gate", self.function == "silu", bounds=FIXED["sigmoid"]
        )
        self.rounded_outputs = hook(
            "rounded_outputs", self.rounds_outputs, bounds=bounds
        )

    def build(self, input_shape):
        super().build(input_shape)
        self.rounded_inputs.build()
        self.rounded_gate.build()

    def _activate(self, x, training=None):
        x = self.rounded_inputs(x)
        if self.function == "silu":
            x = x * self.rounded_gate(ops.sigmoid(x))
        elif self.function != "linear":
            x = keras.activations.get(self.function)(x)
        if training and self.function == "softmax":
            return x  # a loss needs probabilities finer than 1/256
        return self.rounded_outputs(x)


class _WithKernel(_Activated):
    """A layer with a kernel and a bias."""

    kernel_axis = None

    def _add_hooks(self):
        super()._add_hooks()
        self.rounded_kernel = self.quantization.kernel(
            "rounded_kernel", self.kernel_axis
        )

    def build(self, input_shape):
        super().build(input_shape)
        self.rounded_kernel.build(self.kernel.shape)

    def call(self, inputs, training=None):
        x = self._apply(inputs, self.rounded_kernel(self.kernel.value))
        if self.use_bias:
            x = ops.add(x, self.bias)
        return self._activate(x, training)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedDense(_WithKernel, layers.Dense):
    """`keras.layers.Dense`, rounded."""

    kernel_axis = 1

    def _apply(self, inputs, kernel):
        return ops.matmul(inputs, kernel)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedConv2D(_WithKernel, layers.Conv2D):
    """`keras.layers.Conv2D`, rounded."""

    kernel_axis = 3

    def _apply(self, inputs, kernel):
        return self.convolution_op(inputs, kernel)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedDepthwiseConv2D(_WithKernel, layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D`, rounded."""

    kernel_axis = 2

    def _apply(self, inputs, kernel):
        return _depthwise(self, inputs, kernel)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedSeparableConv2D(_Activated, layers.SeparableConv2D):
    """`keras.layers.SeparableConv2D`, both of its kernels rounded."""

    def _add_hooks(self):
        super()._add_hooks()
        quantization = self.quantization
        self.rounded_depthwise_kernel = quantization.kernel(
            "rounded_depthwise_kernel", 2
        )
        self.rounded_pointwise_kernel = quantization.kernel(
            "rounded_pointwise_kernel", 3
        )
        self.rounded_between = quantization.activation("rounded_between")

    def build(self, input_shape):
        super().build(input_shape)
        self.rounded_depthwise_kernel.build(self.depthwise_kernel.shape)
        self.rounded_pointwise_kernel.build(self.pointwise_kernel.shape)
        self.rounded_between.build()

    def call(self, inputs):
        kernel = self.rounded_depthwise_kernel(self.depthwise_kernel.value)
        x = _depthwise(self, inputs, kernel)
        x = ops.conv(
            self.rounded_between(x),
            self.rounded_pointwise_kernel(self.pointwise_kernel.value),
            padding="valid",
            data_format="channels_last",
        )
        if self.use_bias:
            x = ops.add(x, self.bias)
        return self._activate(x)


def _depthwise(layer, inputs, kernel):
    return ops.depthwise_conv(
        inputs,
        kernel,
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        data_format="channels_last",
    )


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedBatchNormalization(_Quantized, layers.BatchNormalization):
    """`keras.layers.BatchNormalization` behind a layer with a kernel."""

    def __init__(self, *args, quantization: Any, **kwargs):
        super().__init__(*args, quantization=quantization, **kwargs)
        if self.quantization.freeze_batch_norm:
            self.trainable = False

    def call(self, inputs, training=None, mask=None):
        x = layers.BatchNormalization.call(self, inputs, training, mask)
        return self.rounded_outputs(x)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedActivation(_Activated, layers.Activation):
    """`keras.layers.Activation` with one of `FUNCTIONS`, rounded."""

    def call(self, inputs, training=None):
        return self._activate(inputs, training)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedReLU(_Activated, layers.ReLU):
    """`keras.layers.ReLU`, plain or up to 6, rounded."""

    def call(self, inputs):
        return self._activate(inputs)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedSoftmax(_Activated, layers.Softmax):
    """`keras.layers.Softmax` over the last axis, rounded."""

    def call(self, inputs, mask=None, training=None):
        return self._activate(inputs, training)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedRescaling(_Quantized, layers.Rescaling):
    """`keras.layers.Rescaling` by one number, rounded after each step."""

    def _add_hooks(self):
        super()._add_hooks()
        self.rounded_scaled = EXACT
        if self.offset:
            self.rounded_scaled = self.quantization.activation("rounded_scaled")

    def build(self, input_shape):
        super().build(input_shape)
        self.rounded_scaled.build(input_shape)

    def call(self, inputs):
        x = ops.cast(inputs, self.compute_dtype) * self.scale
        if self.offset:
            x = self.rounded_scaled(x) + self.offset
        return self.rounded_outputs(x)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedGlobalAveragePooling2D(
    _RoundedAfter, layers.GlobalAveragePooling2D
):
    """`keras.layers.GlobalAveragePooling2D`, rounded."""


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedAdd(_Chained, layers.Add):
    """`keras.layers.Add` of two or more, rounded."""


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedSubtract(_RoundedAfter, layers.Subtract):
    """`keras.layers.Subtract`, rounded."""


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedMultiply(_Chained, layers.Multiply):
    """`keras.layers.Multiply` of two or more, rounded."""


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedConcatenate(_Quantized, layers.Concatenate):
    """`keras.layers.Concatenate`: its inputs share one range."""

    def call(self, inputs):
        return layers.Concatenate.call(self, self.rounded_outputs(inputs))


#: The quantized form of each stock layer that computes.
QUANTIZED = {
    layers.Dense: QuantizedDense,
    layers.Conv2D: QuantizedConv2D,
    layers.DepthwiseConv2D: QuantizedDepthwiseConv2D,
    layers.SeparableConv2D: QuantizedSeparableConv2D,
    layers.BatchNormalization: QuantizedBatchNormalization,
    layers.Activation: QuantizedActivation,
    layers.ReLU: QuantizedReLU,
    layers.Softmax: QuantizedSoftmax,
    layers.Rescaling: QuantizedRescaling,
    layers.GlobalAveragePooling2D: QuantizedGlobalAveragePooling2D,
    layers.Add: QuantizedAdd,
    layers.Subtract: QuantizedSubtract,
    layers.Multiply: QuantizedMultiply,
    layers.Concatenate: QuantizedConcatenate,
}
#: Stock layers with a kernel, which a batch normalization may follow.
WEIGHTED = (
    layers.Dense,
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
)
#: Stock layers that only move values, or do nothing in inference.
CARRYING = (
    layers.InputLayer,
    layers.Identity,
    layers.Reshape,
    layers.Flatten,
    layers.Permute,
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.GaussianNoise,
    layers.ZeroPadding2D,
    layers.Cropping2D,
    layers.UpSampling2D,
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.GlobalMaxPooling2D,
    layers.RandomFlip,
    layers.RandomRotation,
    layers.RandomTranslation,
    layers.RandomZoom,
    layers.RandomContrast,
    layers.RandomBrightness,
)
