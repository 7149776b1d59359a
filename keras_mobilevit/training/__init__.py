"""Fine-tuning: the recipe, and a run that survives being killed."""

from keras_mobilevit.training.distill import distill
from keras_mobilevit.training.fit import train
from keras_mobilevit.training.quantized import QuantizationReport
from keras_mobilevit.training.quantized import train_quantized
from keras_mobilevit.training.quantized import train_rounding
from keras_mobilevit.training.recipe import Recipe
from keras_mobilevit.training.recipe import SmoothedCrossentropy
from keras_mobilevit.training.report import TrainingReport

__all__ = [
    "QuantizationReport",
    "Recipe",
    "SmoothedCrossentropy",
    "TrainingReport",
    "distill",
    "train",
    "train_quantized",
    "train_rounding",
]
