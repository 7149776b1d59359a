"""From Keras models to TFLite files, and the truth about the files."""

from keras_mobilevit.tflite.benchmark import benchmark
from keras_mobilevit.tflite.budget import BudgetError
from keras_mobilevit.tflite.compare import compare
from keras_mobilevit.tflite.convert import convert
from keras_mobilevit.tflite.evaluate import evaluate
from keras_mobilevit.tflite.inspect import inspect
from keras_mobilevit.tflite.layerwise import compare_layers
from keras_mobilevit.tflite.predict import predict
from keras_mobilevit.tflite.promises import ConversionError
from keras_mobilevit.tflite.sizes import convert_sizes
from keras_mobilevit.tflite.sources import load_model
from keras_mobilevit.tflite.split import split
from keras_mobilevit.tflite.trainable import convert_trainable

__all__ = [
    "BudgetError",
    "ConversionError",
    "benchmark",
    "compare",
    "compare_layers",
    "convert",
    "convert_sizes",
    "convert_trainable",
    "evaluate",
    "inspect",
    "load_model",
    "predict",
    "split",
]
