"""Fine-tuning: the recipe, and a run that survives being killed."""

from keras_mobilevit.training.fit import TrainingReport
from keras_mobilevit.training.fit import train
from keras_mobilevit.training.recipe import Recipe
from keras_mobilevit.training.recipe import SmoothedCrossentropy

__all__ = ["Recipe", "SmoothedCrossentropy", "TrainingReport", "train"]
