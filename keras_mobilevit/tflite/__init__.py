"""From Keras models to TFLite files, and the truth about the files."""

from keras_mobilevit.tflite.benchmark import benchmark
from keras_mobilevit.tflite.convert import ConversionError
from keras_mobilevit.tflite.convert import convert
from keras_mobilevit.tflite.convert import load_model
from keras_mobilevit.tflite.evaluate import compare
from keras_mobilevit.tflite.evaluate import evaluate
from keras_mobilevit.tflite.inspect import inspect
from keras_mobilevit.tflite.predict import predict

__all__ = [
    "ConversionError",
    "benchmark",
    "compare",
    "convert",
    "evaluate",
    "inspect",
    "load_model",
    "predict",
]
