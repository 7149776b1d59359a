"""A tiny model and its TFLite files, made once for all tests."""

import keras
import numpy as np
import pytest

from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import InvertedResidual
from keras_mobilevit.layers import MobileViTBlock

# So that assertions in what tests share tell values too.
pytest.register_assert_rewrite("checkpoints", "commands", "target_reports")

TINY_SHAPE = (32, 32, 3)
TINY_CLASSES = 7


def _value(variable, generator):
    """A value for a variable; zeros and ones would be folded away."""
    shape = tuple(variable.shape)
    if variable.name == "kernel":
        fan = np.prod(shape[:-1] if shape[-1] > 1 else shape[:2])
        return generator.normal(0, (2 / fan) ** 0.5, shape)
    centre = variable.name in ("gamma", "moving_variance")
    return centre + generator.uniform(-0.3, 0.3, shape)


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random numbers, in any order."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def tiny_model(tiny_pictures):
    """A classifier of 32x32 pixels with one block of each kind."""
    image = keras.Input(TINY_SHAPE, name="image")
    x = keras.layers.Rescaling(1 / 255.0, name="rescaling")(image)
    x = ConvNormAct(8, 3, strides=2, name="stem")(x)
    x = InvertedResidual(8, strides=2, expansion=2, name="block1")(x)
    x = MobileViTBlock(8, 1, heads=2, name="block2")(x)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = keras.layers.Dense(
        TINY_CLASSES, activation="softmax", name="predictions"
    )(x)
    model = keras.Model(image, x, name="tiny")
    generator = np.random.default_rng(0)
    for variable in model.weights:  # without the states of dropout
        variable.assign(_value(variable, generator))
    # As a trained head would, this one tells the pictures apart.
    head = model.get_layer("predictions")
    pooled = keras.Model(image, head.input).predict(tiny_pictures, verbose=0)
    kernel = head.kernel.numpy()
    kernel /= (pooled @ kernel).std(axis=0)
    head.kernel.assign(kernel)
    head.bias.assign(-(pooled @ kernel).mean(axis=0))
    return model


@pytest.fixture(scope="session")
def tiny_pictures():
    """48 pictures, uint8: coarse patterns, each in its own colour."""
    generator = np.random.default_rng(1)
    colours = generator.uniform(0, 1, (48, 1, 1, 3))
    patterns = generator.uniform(0, 255, (48, 4, 4, 3)) * colours
    # Both ends of the range, so that an integer input has a step of 1.
    patterns[0, 0, :2] = [[0, 0, 0], [255, 255, 255]]
    return patterns.repeat(8, axis=1).repeat(8, axis=2).astype("uint8")


@pytest.fixture(scope="session")
def tiny_saved_model(tiny_model, tmp_path_factory):
    """The tiny model as a SavedModel of batch 1."""
    import tensorflow as tf

    folder = str(tmp_path_factory.mktemp("tiny") / "saved_model")
    archive = keras.export.ExportArchive()
    archive.track(tiny_model)
    archive.add_endpoint(
        "serving_default",
        lambda image: {"predictions": tiny_model(image, training=False)},
        input_signature=[
            tf.TensorSpec((1, *TINY_SHAPE), tf.float32, name="image")
        ],
    )
    archive.write_out(folder, verbose=False)
    return folder


@pytest.fixture(scope="session")
def tiny_files(tiny_saved_model, tiny_pictures, tmp_path_factory):
    """The tiny model as files: `{name: path}`."""
    import tensorflow as tf

    def representative():
        for picture in tiny_pictures:
            yield [picture[np.newaxis].astype("float32")]

    folder = tmp_path_factory.mktemp("files")
    made = {}
    for name in ("float32", "float16", "int8", "uint8_io", "int8_io"):
        converter = tf.lite.TFLiteConverter.from_saved_model(
            tiny_saved_model, signature_keys=["serving_default"]
        )
        if name != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if name == "float16":
            converter.target_spec.supported_types = [tf.float16]
        elif name != "float32":
            converter.representative_dataset = representative
            converter.target_spec.supported_ops = [
                tf.lite.OpsSet.TFLITE_BUILTINS_INT8
            ]
        if name.endswith("_io"):
            dtype = tf.as_dtype(name.removesuffix("_io"))
            converter.inference_input_type = dtype
            converter.inference_output_type = dtype
        made[name] = folder / f"{name}.tflite"
        made[name].write_bytes(converter.convert())
    return made


@pytest.fixture(scope="session")
def tiny_float_file(tiny_files):
    """Float32 throughout."""
    return tiny_files["float32"]


@pytest.fixture(scope="session")
def tiny_int8_file(tiny_files):
    """Integers throughout, uint8 at both ends."""
    return tiny_files["uint8_io"]


@pytest.fixture(scope="session")
def convert(tiny_model, tiny_pictures):
    """`tflite.convert` of the tiny model, calibrated."""

    from keras_mobilevit import tflite

    def run(path, model=tiny_model, pictures=tiny_pictures, **options):
        return tflite.convert(model, path, calibration_data=pictures, **options)

    return run


@pytest.fixture
def no_edgetpu_compiler(monkeypatch):
    """The machine may have one; a test that wants one puts it there."""
    name = "keras_mobilevit.tflite.compiler.PROGRAM"
    monkeypatch.setattr(name, "no_such_edgetpu_compiler")
