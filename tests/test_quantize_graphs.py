"""Quantization-aware models of users' graphs: layers, names, longer merges."""

import keras
import numpy as np
import pytest

from keras_mobilevit import quantization
from keras_mobilevit import tflite
from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import LayerNorm
from keras_mobilevit.layers import MobileViTBlock
from keras_mobilevit.quantization import stock
from keras_mobilevit.quantization.quantizers import Int8
from keras_mobilevit.quantization.rounding import signal_to_noise

layers = keras.layers


@pytest.fixture(scope="module")
def pictures(tiny_pictures):
    return tiny_pictures.astype("float32")


def predict(model, pictures):
    return model.predict(pictures, verbose=0)


def classifier(image, middle=lambda x: x, name="conv"):
    """A few layers around a part."""
    x = layers.Rescaling(1 / 255, name="scale")(image)
    x = middle(layers.Conv2D(8, 3, strides=4, padding="same", name=name)(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(5, activation="softmax", name="head")(x)
    return keras.Model(image, x, name="classifier")


def check_file(quantized, pictures, path):
    report = tflite.convert(
        quantized, path, precision="int8", input_dtype="float32"
    )
    assert report.float_ops == 0
    noise = tflite.compare(path, quantized, pictures).sqnr_db
    assert noise is None or noise > 30  # `None`: they are the same


def check_strip(model, pictures):
    plain = quantization.strip(
        quantization.quantize_model(model, pictures, refine=False)
    )
    assert not quantization.is_quantized(plain)
    names = [layer.name for layer in model.layers]
    assert [layer.name for layer in plain.layers] == names
    found = predict(plain, pictures)
    keras.tree.assert_same_structure(found, predict(model, pictures))
    for one, other in zip(
        keras.tree.flatten(found),
        keras.tree.flatten(predict(model, pictures)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


# Stock layers around ours


def everything_around():
    """Stock layers of every kind around a block, nested and merged."""
    layers = keras.layers
    inner_image = keras.Input((16, 16, 8))
    x = ConvNormAct(8, name="inner_conv")(inner_image)
    x = MobileViTBlock(8, 1, heads=2, name="inner_block")(x)
    backbone = keras.Model(inner_image, x, name="backbone")
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="scale")(image)
    x = layers.Conv2D(8, 3, 2, padding="same", use_bias=False, name="c")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.ReLU(6, name="relu6")(x)
    x = backbone(x)
    y = layers.SeparableConv2D(8, 3, padding="same", name="sep")(x)
    y = layers.Activation("silu", name="silu")(y)
    z = layers.DepthwiseConv2D(3, padding="same", name="dw")(x)
    z = layers.BatchNormalization(name="bn2")(z)
    x = layers.Add(name="add")([y, z])
    x = layers.Concatenate(name="cat")([x, y])
    x = layers.MaxPooling2D(name="max")(x)
    gate = layers.Dense(16, activation="sigmoid", name="gate")(x)
    x = layers.Multiply(name="mul")([x, gate])
    x = layers.UpSampling2D(interpolation="bilinear", name="up")(x)
    x = layers.AveragePooling2D(2, name="avg")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.1, name="drop")(x)
    x = layers.Dense(8, activation="tanh", name="tanh")(x)
    x = layers.Dense(5, name="logits")(x)
    x = layers.Softmax(name="softmax")(x)
    return keras.Model(image, x, name="user")


def test_stock_layers_around_ours(pictures, tmp_path):
    keras.utils.set_random_seed(0)
    model = everything_around()
    quantized = quantization.quantize_model(model, pictures)
    expected = predict(model, pictures)
    assert signal_to_noise(expected, predict(quantized, pictures)) > 15
    path = tmp_path / "a.tflite"
    report = tflite.convert(
        quantized, path, precision="int8", input_dtype="float32"
    )
    assert report.float_ops == 0
    assert tflite.compare(path, quantized, pictures).sqnr_db > 20
    plain = quantization.strip(
        quantization.quantize_model(model, pictures, refine=False)
    )
    assert np.abs(predict(plain, pictures) - expected).max() < 1e-5
    quantized.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(
        predict(loaded, pictures), predict(quantized, pictures)
    )


def test_sequential_models(pictures, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Rescaling(1 / 255, name="scale"),
            ConvNormAct(8, strides=4, name="stem"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(5, activation="softmax", name="head"),
        ]
    )
    quantized = quantization.quantize_model(model, pictures)
    report = tflite.convert(quantized, tmp_path / "a", precision="int8")
    assert report.float_ops == 0


def test_a_norm_of_ones_own_is_rounded(tmp_path):
    image = keras.Input((8, 8, 4))
    x = ConvNormAct(8, name="conv")(image)
    x = LayerNorm(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    data = np.random.default_rng(0).uniform(0, 1, (40, 8, 8, 4))
    model = quantization.quantize_model(
        keras.Model(image, x), data.astype("float32")
    )
    report = tflite.convert(model, tmp_path / "a", precision="int8")
    assert report.float_ops == 0


@pytest.mark.parametrize(
    "parent", list(stock.QUANTIZED), ids=lambda c: c.__name__
)
def test_quantized_forms_keep_their_config(parent):
    needed = {
        keras.layers.Dense: (5,),
        keras.layers.Conv2D: (5, 3, (2, 1), "same"),
        keras.layers.DepthwiseConv2D: (3, 2, "same", 2),
        keras.layers.SeparableConv2D: (5, 3, 2, "same"),
        keras.layers.Activation: ("tanh",),
        keras.layers.ReLU: (6.0,),
        keras.layers.Rescaling: (0.5, -1.0),
    }
    layer = parent(*needed.get(parent, ()), name="a")
    config = layer.get_config()
    form = stock.QUANTIZED[parent].from_config(
        {**config, "quantization": Int8(), "rounds_outputs": False}
    )
    form = type(form).from_config(form.get_config())
    found = form.get_config()
    assert found.pop("quantization") and found.pop("rounds_outputs") is False
    assert found == config


# Names of inputs


@pytest.mark.parametrize("is_sequential", [False, True])
def test_a_backbone_may_name_its_input_alike(is_sequential, pictures, tmp_path):
    """As the builders' are: they call their input `image`."""
    image = keras.Input((32, 32, 3), name="image")
    inner = keras.Input((32, 32, 3), name="image")
    x = ConvNormAct(4, strides=2, name="stem")(inner)
    backbone = keras.Model(inner, x, name="backbone")
    head = classifier(keras.Input((16, 16, 4), name="image"))
    model = keras.Sequential([image, backbone, head])
    if not is_sequential:
        model = keras.Model(image, head(backbone(image)))
    quantized = quantization.quantize_model(model, pictures)
    check_file(quantized, pictures, tmp_path / "a.tflite")
    check_strip(model, pictures)


def test_an_input_may_have_any_name_and_another_size(pictures, tmp_path):
    model = classifier(keras.Input((32, 32, 3), name="pic"), name="image")
    quantized = quantization.quantize_model(model, pictures)
    report = tflite.convert(
        quantized, tmp_path / "a", precision="int8", input_shape=(48, 48)
    )
    assert report.input_shape == (1, 48, 48, 3) and report.float_ops == 0
    # As a model whose input got another name after training.
    renamed = keras.models.clone_model(
        quantized, input_tensors=keras.Input((32, 32, 3), name="other")
    )
    names = [layer.name for layer in quantization.strip(renamed).layers]
    assert names == ["other", "scale", "image", "pool", "head"]


def test_layers_may_have_the_names_of_roundings(pictures, tmp_path):
    image = keras.Input((32, 32, 3), name="features")
    model = classifier(image, name="rounded_features")
    quantized = quantization.quantize_model(model, pictures)
    check_file(quantized, pictures, tmp_path / "a.tflite")
    check_strip(model, pictures)
    check_strip(
        classifier(keras.Input((32, 32, 3)), name="rounded_x"), pictures
    )


def test_an_input_may_be_an_output(pictures):
    image = keras.Input((32, 32, 3), name="image")
    outputs = {"scores": classifier(image).output, "image": image}
    model = keras.Model(image, outputs)
    quantized = quantization.quantize_model(model, pictures / 255 * 200)
    seen = predict(quantized, pictures + 0.25)["image"]
    np.testing.assert_array_equal(seen, pictures)
    check_strip(model, pictures)


# Merges of more than two


@pytest.mark.parametrize(
    ("merge", "behind"),
    [(layers.Add, layers.ReLU), (layers.Multiply, layers.Identity)],
)
def test_merges_of_several_round_each_step(merge, behind, pictures, tmp_path):
    def middle(x):
        others = [layers.Conv2D(8, 1)(x) for _ in range(3)]
        return behind()(merge(name="merge")([x, *others]))

    model = classifier(keras.Input((32, 32, 3)), middle)
    quantized = quantization.quantize_model(model, pictures)
    check_file(quantized, pictures, tmp_path / "a.tflite")
    steps = quantized.get_layer("merge").rounded_steps
    assert len({step.range() for step in steps}) == 2
    quantized.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(
        predict(loaded, pictures), predict(quantized, pictures)
    )
    check_strip(model, pictures)
