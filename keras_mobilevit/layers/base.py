"""What every layer of this package shares: the quantization property."""

from typing import Any

import keras
from keras import ops

PACKAGE = "keras_mobilevit"
#: The range that the TFLite specification gives an int8 softmax or sigmoid.
PROBABILITIES = (0.0, 255.0 / 256.0)
#: The range that it gives the numbers of an int8 vector of length 1.
UNIT_RANGE = (-1.0, 127.0 / 128.0)
#: Beyond these an int8 sigmoid has reached its lowest and its highest value:
#: below ln(0.5 / 255.5) it rounds to 0, above ln(254.5 / 1.5) to 255/256.
GATE_RANGE = (-6.5, 5.5)


class Exact:
    """Stands where a rounding layer would: it rounds nothing."""

    def build(self, input_shape: Any = None) -> None:
        """Creates nothing."""

    def follow(self, part: Any) -> None:
        """Has no range to follow the values."""

    def center(self) -> None:
        """Has no range to be symmetric."""

    def __call__(self, inputs: Any) -> Any:
        """Returns the inputs."""
        return inputs


EXACT = Exact()


class QuantizableLayer(keras.layers.Layer):
    """A layer whose arithmetic can be rounded as an int8 file rounds it.

    Each place where such a file rounds a tensor is named once, in a
    subclass's constructor, by `self.rounding(kind, name)`, and passed through
    by `call`. In float these places are empty.

    Args:
        quantization: `None` for float arithmetic, or a serialisable object
            with the methods `activation(name, bounds)` and `kernel(name,
            axis)` that return Keras layers, the former with the methods of
            `Exact`. It is part of the layer's config and composite layers
            hand it to their children, so that a quantized model saves and
            loads like any other.
        **kwargs: `name`, `dtype`, `trainable`, as of `keras.layers.Layer`.
    """

    def __init__(self, quantization: Any = None, **kwargs):
        super().__init__(**kwargs)
        if isinstance(quantization, dict):
            quantization = keras.saving.deserialize_keras_object(quantization)
        self.quantization = quantization

    def rounding(self, kind: str, name: str, **options) -> Any:
        """Returns the layer that rounds the tensor `name`.

        Args:
            kind: `"activation"` or `"kernel"`.
            name: the name of the rounding layer.
            **options: of an activation, `bounds=(low, high)` where the range
                is known, `averaged=True` where only means of the values are
                used; `axis` of a kernel's output channels, `None` for one
                range.
        """
        if self.quantization is None:
            return EXACT
        return getattr(self.quantization, kind)(name=name, **options)

    def inherited(self) -> dict[str, Any]:
        """Returns the arguments that a composite layer gives its children.

        `trainable` is among them, so that a layer that was saved frozen is
        revived with frozen batch statistics.
        """
        return {
            "dtype": self.dtype_policy,
            "quantization": self.quantization,
            "trainable": self.trainable,
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the config of the layer, quantization included."""
        quantization = self.quantization
        if quantization is not None:
            quantization = keras.saving.serialize_keras_object(quantization)
        return {**super().get_config(), "quantization": quantization}


def at_least_float32(x: Any) -> Any:
    """Casts half-precision tensors to float32; leaves others as they are."""
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))


def positive_integer(name: str, value: int, owner: str) -> int:
    """Returns `value`, or raises if it is no integer of at least 1.

    Raises:
        ValueError: the message names the argument and its layer.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"`{name}` of `{owner}` must be a positive integer. "
            f"Received: {name}={value!r}"
        )
    return value


def known_channels(input_shape: Any, owner: str, rank: int | None = 4) -> int:
    """Returns the size of the last axis of a channels-last shape.

    Raises:
        ValueError: the rank is not `rank` (`None`: any), or the last axis is
            unknown.
    """
    if rank not in (None, len(input_shape)) or input_shape[-1] is None:
        expected = "" if rank is None else f" of rank {rank}"
        raise ValueError(
            f"`{owner}` needs an input{expected} with a known last axis "
            f"(channels last). Received: input_shape={tuple(input_shape)}"
        )
    return input_shape[-1]
