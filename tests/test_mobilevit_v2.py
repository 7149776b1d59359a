"""MobileViTv2: its layers, its networks, its weights and its files."""

import importlib.util
import inspect

import keras
import numpy as np
import pytest
import safetensors.numpy
from golden import make_golden

import keras_mobilevit
from keras_mobilevit import mobilevit
from keras_mobilevit import quantization
from keras_mobilevit import tflite
from keras_mobilevit import weight_names
from keras_mobilevit import weights as published
from keras_mobilevit.configs import ENDPOINTS
from keras_mobilevit.configs import MOBILEVIT_V2
from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import GroupNorm
from keras_mobilevit.layers import LinearSelfAttention
from keras_mobilevit.layers import MobileViTV2Block
from keras_mobilevit.layers.mobilevit_v2_block import resize_corners
from keras_mobilevit.quantization import places

# Trainable parameters of the reference.
COUNTS = {
    "mobilevitv2_050": 1_370_593,
    "mobilevitv2_075": 2_866_009,
    "mobilevitv2_100": 4_901_841,
    "mobilevitv2_125": 7_478_089,
    "mobilevitv2_150": 10_594_753,
    "mobilevitv2_175": 14_251_833,
    "mobilevitv2_200": 18_449_329,
}
NAMINGS = ("cvnets", "timm", "transformers")
each_variant = pytest.mark.parametrize("variant", MOBILEVIT_V2)


def builder_of(variant):
    return getattr(keras_mobilevit, variant.replace("mobilevitv", "MobileViTV"))


def small(**options):
    options = {"input_shape": (64, 64, 3), "classes": 5, **options}
    return keras_mobilevit.MobileViTV2_050(weights=None, **options)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


# Builders


def test_every_variant_is_tested():
    assert COUNTS.keys() == MOBILEVIT_V2.keys()
    assert MOBILEVIT_V2.keys() < published.PUBLISHED.keys()


@each_variant
def test_builders_are_like_those_of_v1(variant):
    builder = builder_of(variant)
    ours = inspect.signature(builder).parameters
    theirs = inspect.signature(mobilevit.MobileViT_S).parameters
    assert list(ours) == list(theirs)
    differing = {n for n in ours if ours[n].default != theirs[n].default}
    assert differing == {"dropout", "name"}
    assert f"{COUNTS[variant]:,} trainable" in builder.__doc__
    model = builder(weights=None, input_shape=(64, 64, 3))
    assert model.name == variant and model.output_shape == (None, 1000)
    count = sum(np.prod(v.shape) for v in model.trainable_weights)
    assert count == COUNTS[variant]


@pytest.mark.parametrize("output_stride", (8, 16, 32))
def test_endpoints_and_dilation(output_stride):
    model = small(
        include_top=False, input_shape=(64, 128, 3), output_stride=output_stride
    )
    for name, stride in ENDPOINTS.items():
        if name == "conv_1x1_exp":
            continue
        stride = min(stride, output_stride)
        shape = model.get_layer(name).output.shape
        assert shape[1:3] == (64 // stride, 128 // stride)
    rates = [
        getattr(model.get_layer(name), "dilation_rate")
        for name in ("block4", "block5_mv2_1", "block5")
    ]
    assert rates == {8: [2, 2, 4], 16: [1, 1, 2], 32: [1, 1, 1]}[output_stride]


def test_odd_maps_become_even_and_stay_so():
    model = small(include_top=False, input_shape=(224, 72, 3))
    assert model.get_layer("block5").output.shape[1:3] == (8, 4)
    assert model(numbers(1, 224, 72, 3)).shape[1:3] == (8, 4)


def test_it_trains_and_saves(tmp_path):
    model = small()
    model.compile(  # eagerly: for one step the graph costs more
        "adam", "sparse_categorical_crossentropy", run_eagerly=True
    )
    pictures = 50 * numbers(8, 64, 64, 3) + 128
    model.fit(pictures, np.arange(8) % 5, epochs=1, verbose=0)
    model.save(tmp_path / "a.keras")
    again = keras.saving.load_model(tmp_path / "a.keras")
    expected = model.predict(pictures, verbose=0)
    np.testing.assert_array_equal(again.predict(pictures, verbose=0), expected)
    assert [v.path for v in again.weights] == [v.path for v in model.weights]


# Parity


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "transformers"))),
    reason="needs the `parity` extra (torch, transformers)",
)
@pytest.mark.parametrize("width", (0.5, 1.0))
def test_parity_with_transformers(width, tmp_path):
    """At multiples of 64: elsewhere transformers leaves out the resizing."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.MobileViTV2Config(
        width_multiplier=width, num_labels=1000
    )
    theirs = transformers.MobileViTV2ForImageClassification(config).eval()
    state = theirs.state_dict()
    for name, tensor in state.items():
        if tensor.ndim > 1:
            fan = tensor[0].numel()
            tensor.copy_(torch.randn(tensor.shape) * (2 / fan) ** 0.5)
        elif tensor.ndim == 1:
            centre = float(name.endswith(("weight", "running_var")))
            tensor.copy_(centre + 0.3 * (torch.rand(tensor.shape) - 0.5))
    theirs.load_state_dict(state)
    path = str(tmp_path / "model.safetensors")
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    safetensors.numpy.save_file(arrays, path)
    variant = f"mobilevitv2_{round(100 * width):03}"
    ours = builder_of(variant)(
        weights=path,
        input_tensor=keras.Input((None, None, 3)),
        classifier_activation=None,
        include_preprocessing=False,
    )
    for size in ((128, 64), (192, 256)):
        image = np.random.default_rng(1).random((2, *size, 3), "float32")
        with torch.no_grad():
            turned = np.ascontiguousarray(image.transpose(0, 3, 1, 2))
            expected = theirs(torch.from_numpy(turned)).logits.numpy()
        actual = keras.ops.convert_to_numpy(ours(image, training=False))
        assert expected.std() > 0.1
        np.testing.assert_allclose(
            actual, expected, atol=1e-5 * np.abs(expected).max(), rtol=0
        )


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_variable_has_a_place_and_loads(naming, tmp_path):
    model = small(classes=1000)
    make_golden.fill(model, 3)
    values = {v.path: keras.ops.convert_to_numpy(v) for v in model.weights}
    places = weight_names.tensor_names("mobilevitv2_050", naming)
    assert len(places) == 244
    order = {"conv": (3, 2, 0, 1), "depthwise": (2, 3, 0, 1)}
    stored = {}
    for name, group in places.items():
        parts = []
        for place in group:
            value = values.pop(place.path)
            if place.layout == "linear":
                value = value.T
            parts.append(value.transpose(order.get(place.layout)))
            if place.layout in ("vector", "linear"):
                parts[-1] = value
        stored[name] = np.ascontiguousarray(np.concatenate(parts))
    assert not values
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(stored, str(path))
    again = small(classes=1000)
    published.load_weights(again, "mobilevitv2_050", str(path), True)
    for ours, theirs in zip(model.weights, again.weights):
        np.testing.assert_array_equal(ours, theirs)


def test_a_file_of_v1_does_not_fit(tmp_path):
    names = weight_names.tensor_names("mobilevit_xxs", "timm")
    path = tmp_path / "model.safetensors"
    empty = {name: np.zeros((1,), "float32") for name in names}
    safetensors.numpy.save_file(empty, str(path))
    with pytest.raises(ValueError, match="do not fit mobilevitv2_050"):
        keras_mobilevit.MobileViTV2_050(weights=str(path))


# Layers


def test_group_norm_is_that_of_keras():
    x = 3 * numbers(2, 4, 6, 8) + 1
    ours, theirs = GroupNorm(), keras.layers.GroupNormalization(1, epsilon=1e-5)
    for layer in (ours, theirs):
        layer.build(x.shape)
        layer.gamma.assign(numbers(8, seed=1))
        layer.beta.assign(numbers(8, seed=2))
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)


def test_attention_is_the_paper_s():
    x = numbers(2, 4, 9, 8)
    layer = LinearSelfAttention()
    layer.build(x.shape)

    def dense(name):
        part = getattr(layer, name)
        return x @ np.asarray(part.kernel)[0, 0] + np.asarray(part.bias)

    query, key, value = dense("query"), dense("key"), dense("value")
    weights = np.exp(query) / np.exp(query).sum(axis=2, keepdims=True)
    context = (key * weights).sum(axis=2, keepdims=True)
    mixed = np.maximum(value, 0) * context
    expected = mixed @ np.asarray(layer.project.kernel)[0, 0]
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


@pytest.mark.parametrize("patch_size", (2, 3))
def test_on_the_map_it_is_the_same(patch_size):
    x = numbers(2, 7, 12, 6)
    blocks = [
        MobileViTV2Block(
            8, 1, patch_size=patch_size, unfolds=unfolds, name="block"
        )
        for unfolds in (True, False)
    ]
    expected = np.asarray(blocks[0](x))
    blocks[1].build(x.shape)
    blocks[1].set_weights(blocks[0].get_weights())
    for size in (x.shape, (None, None, None, 6)):  # of an unknown size too
        inputs = keras.Input(batch_shape=size)
        model = keras.Model(inputs, blocks[1](inputs))
        np.testing.assert_allclose(model(x), expected, atol=1e-5)


def test_query_key_and_value_start_apart():
    layer = LinearSelfAttention()
    layer.build((1, 4, 9, 8))
    key, value = np.asarray(layer.key.kernel), np.asarray(layer.value.kernel)
    assert np.abs(key - value).min() > 0


@pytest.mark.parametrize("size", ((8, 6), (6, 9), (1, 2)))
def test_resizing_puts_corners_on_corners(size):
    x = numbers(2, 5, 5, 3)
    expected = x
    for axis, new in zip((1, 2), size):
        places = np.linspace(0, 4, new)
        expected = np.apply_along_axis(
            lambda row: np.interp(places, np.arange(5), row), axis, expected
        )
    actual = keras.ops.convert_to_numpy(resize_corners(x, *size))
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    if min(size) > 1:
        np.testing.assert_allclose(actual[:, -1, -1], x[:, -1, -1], atol=1e-6)


# Files


@pytest.fixture(scope="module")
def tiny_v2(tiny_pictures):
    """A classifier of 32x32 pixels with a block that must resize its map."""
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Rescaling(1 / 255.0, name="rescaling")(image)
    x = ConvNormAct(8, 3, strides=2, name="stem")(x)
    x = ConvNormAct(8, 3, strides=2, name="down")(x)
    x = MobileViTV2Block(16, 1, name="block")(x)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = keras.layers.Dense(7, name="predictions")(x)
    model = keras.Model(image, x)
    for i, variable in enumerate(model.weights):
        if variable.name == "bias":  # with zeros a RELU stays on its own
            variable.assign(0.1 * numbers(*variable.shape, seed=i))
    return model


@pytest.mark.parametrize("precision", ("float32", "int8", "int8_mixed"))
def test_files_hold_no_matrix_products(
    tiny_v2, tiny_pictures, precision, tmp_path
):
    path = tmp_path / "a.tflite"
    report = tflite.convert(
        tiny_v2,
        path,
        precision=precision,
        calibration_data=None if precision == "float32" else tiny_pictures,
        input_dtype="float32",
    )
    found = tflite.inspect(path)
    assert "BATCH_MATMUL" not in found.op_counts
    assert report.max_rank <= 4
    if precision != "int8":
        assert tflite.benchmark([path], runs=2).files[0].partitions == 1
    compared = tflite.compare(path, tiny_v2, tiny_pictures.astype("float32"))
    # In int8 the one variance of a picture has 8 bits, and these pictures
    # are from dark to bright.
    assert compared.sqnr_db > {"float32": 90, "int8": 12}.get(precision, 20)


def test_an_edge_tpu_runs_all_of_it(tiny_v2, tiny_pictures, tmp_path):
    path = tmp_path / "a.tflite"
    result = tflite.convert(
        tiny_v2,
        path,
        target="edgetpu",
        calibration_data=tiny_pictures,
        split=True,
    )
    assert result.parts == () and list(tmp_path.iterdir()) == [path]
    found = tflite.inspect(path)
    report = found.check("edgetpu", compile_it=False)
    assert report.mapped == report.total, str(report)
    assert found.op_counts["SOFTMAX"] == 4
    pictures = tiny_pictures.astype("float32")
    assert tflite.compare(path, tiny_v2, pictures).sqnr_db > 12


def test_equalising_keeps_the_function(tiny_v2, tiny_pictures):
    pictures = tiny_pictures.astype("float32")
    model = keras.models.clone_model(tiny_v2)
    model.set_weights(tiny_v2.get_weights())
    block = model.get_layer("block").transformer[0]
    attention = block.attention
    pairs = (  # channels of very different size, undone behind
        (attention.key, attention.project),
        (attention.value, attention.project),
        (block.ffn_expand, block.ffn_project),
    )
    for seed, (part, behind) in enumerate(pairs):
        spread = np.exp(2 * numbers(part.filters, seed=seed))
        places.scale_outputs(part, spread)
        places.scale_inputs(behind, 1 / spread)
    equalised, report = quantization.equalize(model, pictures)
    changed = {site.kind for site in report.sites if site.strength}
    assert changed == {"feed-forward", "key-project", "value-project", "norm"}
    assert all(site.after >= site.before for site in report.sites)
    expected = np.asarray(model(pictures, training=False))
    actual = np.asarray(equalised(pictures, training=False))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("target", ("cpu", "edgetpu"))
def test_it_can_be_trained_to_round(target, tiny_v2, tiny_pictures, tmp_path):
    pictures = tiny_pictures.astype("float32")
    model = quantization.quantize_model(tiny_v2, pictures)
    path = tmp_path / "a.tflite"
    report = tflite.convert(
        model, path, target=target, precision="int8", input_dtype="float32"
    )
    assert report.float_ops == 0
    assert tflite.compare(path, model, pictures).sqnr_db > 25
    if target == "edgetpu":
        return
    model.save(tmp_path / "a.keras")
    again = keras.saving.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(
        again.predict(pictures, verbose=0), model.predict(pictures, verbose=0)
    )
