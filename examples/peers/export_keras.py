"""Writes the files of keras_cv_attention_models and keras.applications.

Run it with the environment `keras` that `make.sh` made:

    ENVIRONMENTS/keras/bin/python export_keras.py FOLDER [word ...]

Both are Keras 2 models and go through `tf.lite.TFLiteConverter`, in float32
and in its own full int8. About a minute a file.
"""

import functools
import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import tensorflow as tf
from exporting import SIZES
from exporting import pictures
from exporting import random_weight
from exporting import run

BUILDERS = {
    "mobilevit_xxs": "MobileViT_XXS",
    "mobilevit_xs": "MobileViT_XS",
    "mobilevit_s": "MobileViT_S",
    "mobilevitv2_050": "MobileViT_V2_050",
    "mobilevitv2_100": "MobileViT_V2_100",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_large": "MobileNetV3Large",
    "efficientnet_v2_b0": "EfficientNetV2B0",
}


def main() -> None:
    """Writes what the command line asks for."""
    run(
        {
            f"{name}.{_exporter(name)}.{precision}.tflite": functools.partial(
                write, name, precision
            )
            for name in BUILDERS
            for precision in ("float32", "int8")
        }
    )


def write(name, precision, path):
    """Writes one model in one precision."""
    model, size = randomised(name), SIZES[name]
    spec = tf.TensorSpec((1, size, size, 3), tf.float32)
    function = tf.function(lambda image: model(image, training=False))
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function(spec)], model
    )
    if precision == "int8":
        scale = 1.0 if _exporter(name) == "kecam" else 255.0
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [picture[np.newaxis]] for picture in pictures(size, scale)
        )
        ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.target_spec.supported_ops = ops
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.uint8
    path.write_bytes(converter.convert())


@functools.cache
def randomised(name):
    """Returns a model whose every weight is random."""
    if _exporter(name) == "kecam":
        from keras_cv_attention_models import mobilevit

        model = getattr(mobilevit, BUILDERS[name])(pretrained=None)
    else:
        builder = getattr(tf.keras.applications, BUILDERS[name])
        model = builder(weights=None)
    for weight in model.weights:
        shape = tuple(weight.shape)
        fan_in = int(np.prod(shape[:-1]))
        if "depthwise" in weight.name:
            fan_in = int(np.prod(shape[:2]))
        if len(shape) < 2:
            fan_in = 0
        weight.assign(random_weight(weight.name, shape, fan_in))
    return model


def _exporter(name):
    return "kecam" if name.startswith("mobilevit") else "keras"


if __name__ == "__main__":
    main()
