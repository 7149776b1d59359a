"""Int8 arithmetic that keeps a model's accuracy."""

from keras_mobilevit.quantization.equalize import Equalization
from keras_mobilevit.quantization.equalize import equalize

__all__ = ["Equalization", "equalize"]
