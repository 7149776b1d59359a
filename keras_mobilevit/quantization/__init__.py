"""Int8 arithmetic that keeps a model's accuracy."""

from keras_mobilevit.quantization.calibration import calibration_pictures
from keras_mobilevit.quantization.calibration import model_pictures
from keras_mobilevit.quantization.calibration import takes_pixels
from keras_mobilevit.quantization.calibration import warn_of_scaled_pictures
from keras_mobilevit.quantization.equalize import Equalization
from keras_mobilevit.quantization.equalize import equalize
from keras_mobilevit.quantization.quantize import bake
from keras_mobilevit.quantization.quantize import quantize_model
from keras_mobilevit.quantization.quantize import strip
from keras_mobilevit.quantization.quantizers import is_quantized
from keras_mobilevit.quantization.sensitivity import Sensitivity
from keras_mobilevit.quantization.sensitivity import sensitivity

__all__ = [
    "Equalization",
    "Sensitivity",
    "bake",
    "calibration_pictures",
    "equalize",
    "is_quantized",
    "model_pictures",
    "quantize_model",
    "sensitivity",
    "strip",
    "takes_pixels",
    "warn_of_scaled_pictures",
]
