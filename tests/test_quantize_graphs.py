"""Quantization-aware models of users' graphs: names, and longer merges."""

import keras
import numpy as np
import pytest

from keras_mobilevit import quantization
from keras_mobilevit import tflite
from keras_mobilevit.layers import ConvNormAct

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
