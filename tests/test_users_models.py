"""Models and data as users bring them, and faults that must be named."""

import keras
import numpy as np
import pytest

from keras_mobilevit import quantization
from keras_mobilevit import tflite
from keras_mobilevit import training
from keras_mobilevit.quantization.rounding import signal_to_noise
from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite.interpreter import Runner

layers = keras.layers


def small_model(rescaling=None, outputs=None, units=4):
    image = keras.Input((32, 32, 3), name="picture")
    x = (rescaling or layers.Rescaling(1 / 255.0))(image)
    x = layers.Conv2D(8, 3, strides=4, activation="relu", name="first")(x)
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="second")(x)
    x = layers.GlobalAveragePooling2D()(x)
    activation = "softmax" if units > 1 else "sigmoid"
    x = layers.Dense(units, activation=activation, name="head")(x)
    return keras.Model(image, outputs(x) if outputs else x)


@pytest.fixture
def pictures(tiny_pictures):
    return tiny_pictures.astype("float32")


@pytest.mark.parametrize("precision", ["float32", "int8", "int8_mixed"])
def test_mixed_precision_is_no_obstacle(precision, pictures, tmp_path):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small_model()
    finally:
        keras.config.set_dtype_policy(policy)
    path = tmp_path / "a.tflite"
    tflite.convert(model, path, precision=precision, calibration_data=pictures)
    exact = model.predict(pictures, verbose=0).astype("float32")
    assert signal_to_noise(exact, Runner(path)(pictures)) > 30


def test_outputs_with_names_of_their_own(pictures, tmp_path):
    model = small_model(outputs=lambda x: {"b": x, "a": layers.ReLU()(x - 0.2)})
    path = tmp_path / "a.tflite"
    tflite.convert(model, path, precision="float32")
    exact = model.predict(pictures, verbose=0)
    for name in exact:
        found = Runner(path, output=name)(pictures)
        np.testing.assert_allclose(found, exact[name], atol=1e-5)


class Odd(layers.Layer):
    """Computes what TFLite has no operation for."""

    def call(self, x):
        import tensorflow as tf

        return tf.raw_ops.Betainc(a=x + 1, b=x + 1, x=x)


def test_what_the_converter_refuses_is_one_error(tmp_path):
    path = tmp_path / "a.tflite"
    model = small_model(outputs=Odd())
    with pytest.raises(ValueError, match="register.*Received:.*Odd"):
        tflite.convert(model, path, precision="float32")
    with (
        keras.saving.custom_object_scope({"Odd": Odd}),
        pytest.raises(tflite.ConversionError, match="Received:.*Betainc"),
    ):
        tflite.convert(model, path, precision="float32")
    assert not path.exists()


def test_rescaling_of_each_channel(pictures, tmp_path):
    model = small_model(layers.Rescaling([1 / 255, 1 / 254, 1 / 250]))
    path = tmp_path / "a.tflite"
    tflite.convert(model, path, precision="int8", calibration_data=pictures)
    exact = model.predict(pictures, verbose=0)
    assert signal_to_noise(exact, Runner(path)(pictures)) > 30


def test_a_layer_that_gives_nothing(pictures, tmp_path):
    """Its range is empty, as that of a branch that starts at zero."""
    model = small_model()
    second = model.get_layer("second")
    second.kernel.assign(0 * second.kernel)
    path = tmp_path / "a.tflite"
    tflite.convert(model, path, precision="int8", calibration_data=pictures)
    exact = model.predict(pictures, verbose=0)
    assert signal_to_noise(exact, Runner(path)(pictures)) > 30
    rounding = quantization.quantize_model(model, pictures)
    assert signal_to_noise(exact, rounding.predict(pictures, verbose=0)) > 30


def test_black_pictures_give_a_warning(pictures, tmp_path):
    path = tmp_path / "a.tflite"
    with pytest.warns(UserWarning, match="all alike"):
        tflite.convert(
            *(small_model(), path),
            precision="int8",
            calibration_data=0 * pictures,
        )
    assert path.exists()


@pytest.mark.parametrize("place", ["first", "second", "head"])
def test_the_layer_that_computes_nan_is_named(place, pictures):
    model = small_model()
    bias = model.get_layer(place).bias
    bias.assign(np.full(bias.shape, np.inf if place == "first" else np.nan))
    with pytest.raises(ValueError, match=f"NaN or infinity.*'{place}'"):
        quantization.equalize(model, pictures)
    for options in ({}, {"equalize": False}):
        with pytest.raises(ValueError, match=f"NaN or infinity.*'{place}'"):
            quantization.quantize_model(model, pictures, **options)
    with pytest.raises(ValueError, match=f"NaN or infinity.*'{place}'"):
        quantization.sensitivity(model, pictures, progress=False)


@pytest.mark.parametrize(
    "function",
    [
        quantization.equalize,
        quantization.quantize_model,
        quantization.sensitivity,
    ],
)
def test_what_cannot_be_measured_is_refused(function, pictures, tmp_path):
    with pytest.raises(ValueError, match="load_model.*Received: str"):
        function("model.keras", pictures)
    with pytest.raises(ValueError, match="begins with `keras.Input`"):
        function(keras.Sequential([layers.Conv2D(3, 3)]), pictures)
    ends = [keras.Input((8, 8, 3), name=name) for name in "ab"]
    model = keras.Model(ends, layers.Add()(ends))
    with pytest.raises(ValueError, match="one input.*Received"):
        function(model, pictures)
    image = keras.Input((None, None, 3))
    model = keras.Model(image, layers.Conv2D(3, 3)(image))
    with pytest.raises(ValueError, match="of known size.*None"):
        function(model, pictures)


def test_a_rounding_model_is_not_equalised(pictures):
    rounding = quantization.quantize_model(small_model(), pictures)
    with pytest.raises(ValueError, match="quantized already"):
        quantization.equalize(rounding, pictures)


def test_one_score_has_no_top1(pictures, tmp_path):
    labels = np.arange(len(pictures)) % 2
    for data in ((pictures, labels), (pictures, labels[:, None]), pictures):
        with pytest.raises(ValueError, match="`max_drop`.*`min_sqnr`"):
            tflite.convert(
                small_model(units=1),
                tmp_path / "a.tflite",
                precision="int8",
                calibration_data=pictures,
                max_drop=0.0,
                validation_data=data,
            )
    assert not any(tmp_path.iterdir())


def test_forms_of_pictures(pictures):
    labels = np.arange(len(pictures))
    forms = {
        "array": pictures,
        "pair": (pictures, labels),
        "pairs": [(pictures[:20], labels[:20]), [pictures[20:], labels[20:]]],
        "lists": [list(pictures[:2]), list(pictures[2:])],
        "single": list(pictures),
        "single pairs": list(zip(pictures, labels)),
    }
    for name, form in forms.items():
        found = quantization.calibration_pictures(form, (1, 32, 32, 3))
        np.testing.assert_array_equal(found, pictures, err_msg=name)


def test_validation_data_is_called_so(pictures, tmp_path):
    with pytest.raises(ValueError, match="item of `validation_data`"):
        tflite.convert(
            small_model(),
            tmp_path / "a.tflite",
            precision="int8",
            calibration_data=pictures,
            max_drop=1.0,
            validation_data=[pictures],
        )


def test_zeros_behind_a_relu_are_not_saturated(pictures, tmp_path):
    model, path = small_model(), tmp_path / "a.tflite"
    bias = model.get_layer("second").bias
    bias.assign(np.where(np.arange(8) < 4, -100.0, 0.0))
    tflite.convert(
        *(model, path),
        precision="int8",
        calibration_data=pictures,
        refine=False,
    )
    rows = tflite.compare_layers(path, model, pictures).layers
    assert next(r for r in rows if r.layer == "second").saturated < 0.01


def test_files_of_others_survive(tmp_path):
    """What lies in the folder is not replaced unasked."""
    (tmp_path / "model.tflite").write_text("precious")
    with pytest.raises(FileExistsError, match="model.tflite"):
        training.train_quantized(small_model(), None, output_dir=tmp_path)
    with pytest.raises(ValueError, match="`precision`.*'int16x8'"):
        training.train_quantized(
            small_model(), None, output_dir=tmp_path, precision="int16x8"
        )
    assert (tmp_path / "model.tflite").read_text() == "precious"
    assert [file.name for file in tmp_path.iterdir()] == ["model.tflite"]


# Activations of their own


@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_correction_of_biases_knows_the_range_of_a_sigmoid(spread, tmp_path):
    generator = np.random.default_rng(0)
    pictures = generator.normal(0, 1, (32, 8, 8, 3)).astype("float32")
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, layers.Conv2D(4, 1, activation="sigmoid")(image))
    kernel = generator.normal(0, spread, (1, 1, 3, 4))  # 10: logits beyond 8
    bias = generator.normal(0, spread, 4)
    model.layers[-1].set_weights([kernel, bias])
    exact = model.predict(pictures, verbose=0)
    found = {}
    for refine in (True, False):
        path = tmp_path / f"{refine}.tflite"
        tflite.convert(
            model,
            path,
            precision="int8",
            calibration_data=pictures,
            refine=refine,
        )
        found[refine] = signal_to_noise(exact, Runner(path)(pictures))
    assert found[True] > max(30, found[False] - 1)


LEFT_IN_FLOAT = {
    "relu6": lambda x: layers.ReLU(6)(x),
    "relu6 behind dropout": lambda x: layers.ReLU(6)(
        layers.Dropout(0.1)(layers.Conv2D(8, 3)(x))
    ),
    "relu6 in a model": lambda x: keras.Sequential([layers.ReLU(6)])(
        layers.Conv2D(8, 3)(x)
    ),
    "relu6 of all": lambda x: layers.ReLU(6)(layers.Concatenate()([x, x])),
    "relu6 of a part": lambda x: layers.Concatenate()([layers.ReLU(6)(x), x]),
    "maximum": lambda x: layers.GlobalMaxPooling2D()(layers.Conv2D(8, 3)(x)),
    "maximum of a part": lambda x: layers.Concatenate()(
        [
            layers.GlobalMaxPooling2D(keepdims=True)(x),
            layers.Conv2D(3, 8)(layers.Rescaling(4.0)(x)),
        ]
    ),
}


@pytest.mark.parametrize("place", LEFT_IN_FLOAT)
@pytest.mark.parametrize("precision", ["int8", "int8_mixed", "int16x8"])
def test_operations_that_the_quantizer_leaves_in_float(
    place, precision, tmp_path
):
    generator = np.random.default_rng(0)
    pictures = generator.uniform(-3, 12, (16, 8, 8, 3)).astype("float32")
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, LEFT_IN_FLOAT[place](image))
    exact = model.predict(pictures, verbose=0)
    quantized = quantization.quantize_model(model, pictures)
    for name, source in (("float", model), ("rounding", quantized)):
        if name == "rounding" and precision == "int16x8":
            continue
        path = tmp_path / f"{name}.tflite"
        report = tflite.convert(
            source,
            path,
            precision=precision,
            input_dtype="float32",
            calibration_data=pictures if source is model else None,
        )
        assert report.float_ops == 0
        assert signal_to_noise(exact, Runner(path)(pictures)) > 35
        codes = flatbuffer.read_model(path.read_bytes()).operatorCodes
        versions = {code.builtinCode: code.version for code in codes}
        relu = flatbuffer.schema().BuiltinOperator.RELU
        assert versions.get(relu, 2) >= 2  # or it is merged
