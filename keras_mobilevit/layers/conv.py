"""Convolutions: with their normalization and activation, and residual."""

from typing import Any

import keras
from keras import ops

from keras_mobilevit.configs import make_divisible
from keras_mobilevit.layers.base import EXACT
from keras_mobilevit.layers.base import GATE_RANGE
from keras_mobilevit.layers.base import PACKAGE
from keras_mobilevit.layers.base import PROBABILITIES
from keras_mobilevit.layers.base import QuantizableLayer
from keras_mobilevit.layers.base import known_channels
from keras_mobilevit.layers.base import positive_integer


def live_inputs(inputs: Any, gate_scale: Any, library: Any = ops) -> Any:
    """Returns the inputs of a SiLU, cut where its int8 gate is closed.

    `x * sigmoid(gate_scale * x)` is zero in int8 as soon as the sigmoid is. An
    int8 tensor that is read by a SiLU alone need not reach beyond that.

    Args:
        inputs: any tensor, channels last.
        gate_scale: a number, or one for each channel; not zero.
        library: what computes: `keras.ops`, or `numpy` for arrays.
    """
    closed = GATE_RANGE[0] / gate_scale
    return library.where(
        gate_scale > 0,
        library.maximum(inputs, closed),
        library.minimum(inputs, closed),
    )


@keras.saving.register_keras_serializable(PACKAGE)
class SiLU(QuantizableLayer):
    """`x * sigmoid(x)`, the activation of every MobileViT layer.

    Input and output: float tensors of equal shape, any rank; an equalized one
    takes `(batch, height, width, channels)`.

    Args:
        equalized: whether the gate has a factor for each channel: `x *
            sigmoid(gate_scale * x)`. With `gate_scale = 1 / s` this is
            `SiLU(x / s) * s`, so that a layer before can be multiplied by `s`
            and one behind divided by it, and nothing changes but the ranges
            of the channels. `keras_mobilevit.quantization.equalize` sets it.
            It is computed as a depthwise convolution, whose 8-bit kernel has
            a scale for each channel and so holds every factor exactly; a
            constant of a product has one scale and rounds the small away.
        quantization: see `QuantizableLayer`.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: it is equalized and the input's rank is not 4.
    """

    def __init__(
        self, equalized: bool = False, quantization: Any = None, **kwargs
    ):
        super().__init__(quantization=quantization, **kwargs)
        self.equalized = equalized
        self.gate_inputs = EXACT
        if equalized:
            self.gate_inputs = self.rounding(
                "activation", "gate_inputs", bounds=GATE_RANGE
            )
        self.gate = self.rounding("activation", "gate", bounds=PROBABILITIES)
        self.outputs = self.rounding("activation", "outputs")

    def build(self, input_shape):
        if self.equalized:
            self.gate_scale = self.add_weight(
                name="gate_scale",
                shape=(known_channels(input_shape, "SiLU"),),
                initializer="ones",
                trainable=False,
            )
            self.gate_inputs.build(input_shape)
        self.gate.build(input_shape)
        self.outputs.build(input_shape)
        self.built = True

    def call(self, inputs):
        if self.quantization is None and not self.equalized:
            return ops.silu(inputs)
        x = inputs
        if self.equalized:
            scale = ops.cast(self.gate_scale, x.dtype)
            kernel = ops.reshape(scale, (1, 1, -1, 1))
            x = self.gate_inputs(ops.depthwise_conv(x, kernel))
        return self.outputs(inputs * self.gate(ops.sigmoid(x)))

    def live(self, inputs: Any) -> Any:
        """Returns the inputs without what an int8 gate shuts out."""
        scale = ops.ones((), inputs.dtype)
        if self.equalized:
            scale = ops.cast(self.gate_scale, inputs.dtype)
        return live_inputs(inputs, scale)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "equalized": self.equalized}


class _BaseConvNormAct(QuantizableLayer):
    """Convolution, batch normalization and SiLU; subclasses hold a kernel.

    Padding is zeros, `dilation_rate * (kernel_size // 2)` on every side, as
    in PyTorch: at stride 2 this differs from `padding="same"`.
    """

    def __init__(
        self,
        kernel_size: int = 3,
        strides: int = 1,
        dilation_rate: int = 1,
        use_norm: bool = True,
        use_bias: bool = False,
        activation: str | None = "silu",
        kernel_initializer: Any = None,
        equalized: bool = False,
        quantization: Any = None,
        **kwargs,
    ):
        super().__init__(quantization=quantization, **kwargs)
        # Config
        owner = type(self).__name__
        self.kernel_size = positive_integer("kernel_size", kernel_size, owner)
        self.strides = positive_integer("strides", strides, owner)
        self.dilation_rate = positive_integer(
            "dilation_rate", dilation_rate, owner
        )
        if kernel_size % 2 == 0:
            raise ValueError(
                f"`kernel_size` of `{owner}` must be odd, so that the padding "
                f"is symmetric. Received: kernel_size={kernel_size}"
            )
        if strides > 1 and dilation_rate > 1:
            raise ValueError(
                f"`{owner}` has strides or dilation, not both. Received: "
                f"strides={strides}, dilation_rate={dilation_rate}"
            )
        if activation not in ("silu", "relu", None):
            raise ValueError(
                f"`activation` of `{owner}` must be 'silu', 'relu' or None. "
                f"Received: activation={activation!r}"
            )
        self.equalized = equalized
        self.use_norm = use_norm
        self.use_bias = use_bias
        self.activation = activation
        self.kernel_initializer = keras.initializers.get(
            kernel_initializer or self._he_initializer()
        )
        # Layers
        self.rounded_kernel = self.rounding(
            "kernel", "rounded_kernel", axis=self._kernel_axis
        )
        self.norm = (
            keras.layers.BatchNormalization(
                axis=-1,
                momentum=0.9,
                epsilon=1e-5,
                name="norm",
                dtype=self.dtype_policy,
                trainable=self.trainable
                and not getattr(self.quantization, "freeze_batch_norm", False),
            )
            if use_norm
            else None
        )
        self.outputs = self.rounding("activation", "outputs")
        self.act = None
        if activation == "silu":
            self.act = SiLU(equalized, name="act", **self.inherited())
            self.outputs.follow(self.act.live)

    def build(self, input_shape):
        channels = known_channels(input_shape, type(self).__name__)
        self.kernel = self.add_weight(
            name="kernel",
            shape=self._kernel_shape(channels),
            initializer=self.kernel_initializer,
        )
        self.rounded_kernel.build(self.kernel.shape)
        output_shape = self.compute_output_shape(input_shape)
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=output_shape[-1:], initializer="zeros"
            )
        if self.norm is not None:
            self.norm.build(output_shape)
        self.outputs.build(output_shape)
        if self.act is not None:
            self.act.build(output_shape)
        self.built = True

    def call(self, inputs, training=None):
        x, padding = inputs, "same"
        if self.strides > 1 and self.kernel_size > 1:
            edge = self.kernel_size // 2
            x = ops.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
            padding = "valid"
        x = self._convolve(
            x,
            self.rounded_kernel(self.kernel.value),
            strides=self.strides,
            padding=padding,
            data_format="channels_last",
            dilation_rate=self.dilation_rate,
        )
        if self.bias is not None:
            x = ops.add(x, self.bias)
        if self.norm is not None:
            x = self.norm(x, training=training)
        if self.activation == "relu":  # part of the operation in a file
            x = ops.relu(x)
        x = self.outputs(x)
        return x if self.act is None else self.act(x)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        height, width = (
            None if size is None else (size - 1) // self.strides + 1
            for size in (height, width)
        )
        return (batch, height, width, self._output_channels(channels))

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "dilation_rate": self.dilation_rate,
            "use_norm": self.use_norm,
            "use_bias": self.use_bias,
            "activation": self.activation,
            "equalized": self.equalized,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }


@keras.saving.register_keras_serializable(PACKAGE)
class ConvNormAct(_BaseConvNormAct):
    """Convolution, then batch normalization and SiLU where asked for.

    Input: `(batch, height, width, channels)`. Output: `(batch,
    ceil(height / strides), ceil(width / strides), filters)`. Kernels start
    from He's normal distribution over the fan-out, as in the reference.

    Args:
        filters: number of output channels.
        kernel_size: side of the kernel, odd.
        strides: 1 or more, the same along both axes.
        dilation_rate: 1 or more; above 1 only with `strides=1`.
        use_norm: whether batch normalization follows (momentum 0.9,
            epsilon 1e-5).
        use_bias: whether a bias is added before the normalization.
        activation: `"silu"`, `"relu"` or `None`.
        kernel_initializer: a Keras initializer instead of He's.
        equalized: whether the SiLU has a factor for each channel.
        quantization: see `QuantizableLayer`.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: an argument is out of its range.
    """

    _kernel_axis = 3
    _convolve = staticmethod(ops.conv)

    def __init__(self, filters: int, kernel_size: int = 3, **kwargs):
        super().__init__(kernel_size=kernel_size, **kwargs)
        self.filters = positive_integer("filters", filters, "ConvNormAct")

    @staticmethod
    def _he_initializer():
        return keras.initializers.VarianceScaling(
            2.0, mode="fan_out", distribution="untruncated_normal"
        )

    def _kernel_shape(self, channels):
        return (self.kernel_size, self.kernel_size, channels, self.filters)

    def _output_channels(self, channels):
        return self.filters

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable(PACKAGE)
class DepthwiseConvNormAct(_BaseConvNormAct):
    """Depthwise convolution, then batch normalization and SiLU.

    Input: `(batch, height, width, channels)`; output: the same number of
    channels. Arguments are those of `ConvNormAct` without `filters`.
    """

    _kernel_axis = 2
    _convolve = staticmethod(ops.depthwise_conv)

    @staticmethod
    def _he_initializer():
        # PyTorch's fan-out of a depthwise kernel is channels * k * k, which
        # Keras calls its fan-in.
        return keras.initializers.VarianceScaling(
            2.0, mode="fan_in", distribution="untruncated_normal"
        )

    def _kernel_shape(self, channels):
        return (self.kernel_size, self.kernel_size, channels, 1)

    def _output_channels(self, channels):
        return channels


@keras.saving.register_keras_serializable(PACKAGE)
class InvertedResidual(QuantizableLayer):
    """MobileNetV2's block (arXiv 1801.04381) with SiLU.

    A 1x1 convolution widens, a depthwise 3x3 one filters, a 1x1 one projects
    without activation. The input is added where the shapes allow it.

    Input: `(batch, height, width, channels)`. Output: `(batch,
    ceil(height / strides), ceil(width / strides), filters)`.

    Args:
        filters: number of output channels.
        strides: 1 or 2.
        expansion: the hidden width as a multiple of the input channels,
            rounded to a multiple of 8.
        dilation_rate: of the depthwise convolution.
        equalized: whether the first SiLU has a factor for each channel.
        quantization: see `QuantizableLayer`.
        **kwargs: `name`, `dtype`, `trainable`.
    """

    def __init__(
        self,
        filters: int,
        strides: int = 1,
        expansion: float = 4,
        dilation_rate: int = 1,
        equalized: bool = False,
        quantization: Any = None,
        **kwargs,
    ):
        super().__init__(quantization=quantization, **kwargs)
        self.filters = positive_integer("filters", filters, "InvertedResidual")
        self.equalized = equalized
        if not expansion > 0:
            raise ValueError(
                "`expansion` of `InvertedResidual` must be positive. "
                f"Received: expansion={expansion!r}"
            )
        self.strides = strides
        self.expansion = expansion
        self.dilation_rate = dilation_rate
        self.expand = None  # its width depends on the input
        self.depthwise = DepthwiseConvNormAct(
            strides=strides,
            dilation_rate=dilation_rate,
            name="depthwise",
            **self.inherited(),
        )
        self.project = ConvNormAct(
            filters, 1, activation=None, name="project", **self.inherited()
        )
        self.residual_sum = EXACT  # until it is known whether there is one

    def build(self, input_shape):
        channels = known_channels(input_shape, "InvertedResidual")
        self.has_residual = self.strides == 1 and channels == self.filters
        self.expand = ConvNormAct(
            make_divisible(round(channels * self.expansion)),
            1,
            equalized=self.equalized,
            name="expand",
            **self.inherited(),
        )
        shape = input_shape
        for layer in (self.expand, self.depthwise, self.project):
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        if self.has_residual:
            self.residual_sum = self.rounding("activation", "residual_sum")
            self.residual_sum.build(shape)
        self.built = True

    def call(self, inputs, training=None):
        x = self.expand(inputs, training=training)
        x = self.depthwise(x, training=training)
        x = self.project(x, training=training)
        return self.residual_sum(inputs + x) if self.has_residual else x

    def compute_output_shape(self, input_shape):
        shape = self.depthwise.compute_output_shape(input_shape)
        return self.project.compute_output_shape(shape)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "strides": self.strides,
            "expansion": self.expansion,
            "dilation_rate": self.dilation_rate,
            "equalized": self.equalized,
        }
