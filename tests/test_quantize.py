"""Quantization-aware models: what they compute, save, train and become."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_mobilevit import quantization
from keras_mobilevit import tflite
from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import MobileViTBlock
from keras_mobilevit.layers import MultiHeadSelfAttention
from keras_mobilevit.quantization import graph
from keras_mobilevit.quantization.quantizers import RoundedActivation
from keras_mobilevit.quantization.quantizers import RoundedKernel
from keras_mobilevit.quantization.rounding import signal_to_noise
from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite.interpreter import Runner


@pytest.fixture(scope="module")
def pictures(tiny_pictures):
    return tiny_pictures.astype("float32")


@pytest.fixture(scope="module")
def quantized(tiny_model, pictures):
    return quantization.quantize_model(tiny_model, pictures)


def predict(model, pictures):
    return model.predict(pictures, verbose=0)


def compiled(model, **options):
    model.compile(
        keras.optimizers.Adam(1e-3),
        "sparse_categorical_crossentropy",
        **options,
    )
    return model


@pytest.fixture(scope="module")
def labels():
    return np.arange(48) % 7


# What it computes


def test_it_rounds_and_stays_close(tiny_model, quantized, pictures):
    expected, found = (
        predict(tiny_model, pictures),
        predict(quantized, pictures),
    )
    assert 10 < signal_to_noise(expected, found) < 60
    assert quantization.is_quantized(quantized)
    assert not quantization.is_quantized(tiny_model)


def test_activations_take_no_more_than_256_values(quantized, pictures):
    seen = {}

    def record(layer, inputs, outputs):
        seen[layer.path] = outputs

    roundings = [
        layer
        for layer in graph.find(quantized, RoundedActivation)
        if layer.name not in ("concatenated",)
    ]
    with graph.watching(roundings, record):
        quantized(pictures, training=False)
    assert len(seen) > 30
    for path, values in seen.items():
        assert len(np.unique(values)) <= 256, path


def test_kernels_have_a_grid_for_each_channel(quantized):
    layer = quantized.get_layer("block1").depthwise
    rounded = layer.rounded_kernel(layer.kernel.value).numpy()
    for channel in range(rounded.shape[2]):
        values = rounded[:, :, channel]
        steps = values / (np.abs(values).max() / 127)
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)


def test_ranges_are_those_of_the_pictures(tiny_model, pictures):
    model = quantization.quantize_model(
        tiny_model, pictures, equalize=False, refine=False
    )
    pooled = keras.Model(
        tiny_model.inputs, tiny_model.get_layer("avg_pool").output
    ).predict(pictures, verbose=0)
    ranges = model.get_layer("avg_pool").rounded_outputs._ranges
    # With rounded kernels, before activations are rounded.
    assert ranges["max_var"].numpy() == pytest.approx(pooled.max(), rel=0.05)
    assert ranges["min_var"].numpy() == pytest.approx(
        min(0, pooled.min()), rel=0.05, abs=0.01
    )


def test_the_given_model_is_not_changed(tiny_model, pictures):
    before = tiny_model.get_weights()
    quantization.quantize_model(tiny_model, pictures)
    for old, new in zip(before, tiny_model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# What it is: a Keras model


def test_it_saves_loads_and_goes_on_training(
    tiny_model, pictures, labels, tmp_path
):
    def fit(model):
        keras.utils.set_random_seed(1)
        model.fit(pictures, labels, batch_size=16, shuffle=False, verbose=0)
        return model

    def without_dropout(config):
        for node in graph.own_layers(config):
            if "dropout" in node["config"]:
                node["config"]["dropout"] = 0.0

    model = graph.copy_with(tiny_model, without_dropout)
    model = compiled(quantization.quantize_model(model, pictures))
    fit(model).save(tmp_path / "qat.keras")
    loaded = keras.saving.load_model(tmp_path / "qat.keras")
    np.testing.assert_array_equal(
        predict(loaded, pictures), predict(model, pictures)
    )
    for old, new in zip(model.optimizer.variables, loaded.optimizer.variables):
        np.testing.assert_array_equal(old.numpy(), new.numpy())
    np.testing.assert_allclose(
        predict(fit(loaded), pictures), predict(fit(model), pictures), atol=1e-6
    )
    model.summary(print_fn=lambda *args, **kwargs: None)
    assert len(loaded.weights) == len(model.weights)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_training_lowers_the_loss(tiny_model, pictures, labels, jit_compile):
    model = quantization.quantize_model(tiny_model, pictures)
    compiled(model, jit_compile=jit_compile)
    before = [r._ranges["max_var"].numpy() for r in moving(model)]
    losses = model.fit(
        pictures, labels, batch_size=16, epochs=4, verbose=0
    ).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    after = [r._ranges["max_var"].numpy() for r in moving(model)]
    assert not np.allclose(before, after)


def moving(model):
    return [
        layer
        for layer in graph.find(model, RoundedActivation)
        if layer.bounds is None
    ]


def test_keys_and_values_have_the_grid_of_their_file(
    tiny_model, pictures, labels, tmp_path
):
    """XNNPACK multiplies by them only if 0 is in the middle of it."""
    model = quantization.quantize_model(tiny_model, pictures)
    model.save(tmp_path / "qat.keras")
    loaded = compiled(keras.saving.load_model(tmp_path / "qat.keras"))
    loaded.fit(pictures, labels, batch_size=16, epochs=2, verbose=0)
    steps = []
    for attention in graph.find(loaded, MultiHeadSelfAttention):
        for layer in (attention.key, attention.value):
            low, high = layer.outputs.range()
            assert high / low == pytest.approx(-127 / 128)
            steps.append(high / 127)
    path = tmp_path / "a.tflite"
    tflite.convert(loaded, path, precision="int8")
    file = flatbuffer.read_model(path.read_bytes())
    grids = [
        file.subgraphs[0].tensors[node.inputs[1]].quantization
        for node in flatbuffer.nodes(file)
        if node.name == "BATCH_MATMUL"
    ]
    assert [grid.zeroPoint[0] for grid in grids] == [0] * len(steps)
    found = sorted(grid.scale[0] for grid in grids)
    np.testing.assert_allclose(found, sorted(steps), rtol=1e-6)


def test_batch_norms_freeze_if_asked(tiny_model, pictures, labels, tmp_path):
    model = quantization.quantize_model(
        tiny_model, pictures, freeze_batch_norm=True
    )
    model.save(tmp_path / "qat.keras")
    for each in (model, keras.saving.load_model(tmp_path / "qat.keras")):
        norm = each.get_layer("block1").expand.norm
        before = norm.get_weights()
        compiled(each).fit(pictures, labels, batch_size=16, verbose=0)
        for old, new in zip(before, norm.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


def test_mixed_precision_trains(pictures, labels, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        image = keras.Input((32, 32, 3))
        x = keras.layers.Rescaling(1 / 255)(image)
        x = ConvNormAct(8, strides=4, name="stem")(x)
        x = MobileViTBlock(8, 1, heads=2, name="block")(x)
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        x = keras.layers.Dense(
            7, activation="softmax", dtype="float32", name="head"
        )(x)
        model = quantization.quantize_model(keras.Model(image, x), pictures)
        losses = compiled(model).fit(pictures, labels, verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(losses["loss"]).all()
    path = tmp_path / "a.tflite"
    tflite.convert(model, path, precision="int8")
    expected = predict(model, pictures).astype("float32")
    assert signal_to_noise(expected, Runner(path)(pictures)) > 25


def test_strip_gives_the_float_model_back(tiny_model, pictures):
    quantized = quantization.quantize_model(tiny_model, pictures, refine=False)
    plain = quantization.strip(quantized)
    assert not quantization.is_quantized(plain)
    expected = predict(tiny_model, pictures)
    assert np.abs(predict(plain, pictures) - expected).max() < 1e-5
    kinds = [type(layer) for layer in tiny_model.layers]
    assert [type(layer) for layer in plain.layers] == kinds
    # It can start over.
    assert quantization.is_quantized(
        quantization.quantize_model(plain, pictures, equalize=False)
    )


def test_baked_kernels_compute_the_same(quantized, pictures):
    baked = quantization.bake(quantized)
    assert not graph.find(baked, RoundedKernel)
    np.testing.assert_array_equal(
        predict(baked, pictures), predict(quantized, pictures)
    )


def test_the_process_stays_as_it_was(tmp_path):
    """tfmot would turn `tf.keras` into the legacy Keras."""
    code = (
        "import os, tensorflow as tf, keras, numpy as np\n"
        "from keras_mobilevit import quantization\n"
        "i = keras.Input((8, 8, 3)); x = keras.layers.Conv2D(4, 3)(i)\n"
        "x = keras.layers.GlobalAveragePooling2D()(x)\n"
        "data = np.random.default_rng(0).uniform(0, 1, (32, 8, 8, 3))\n"
        "quantization.quantize_model(keras.Model(i, x), data)\n"
        "print(tf.keras.version()[0], 'TF_USE_LEGACY_KERAS' in os.environ)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert run.stdout.split() == ["3", "False"], run.stderr


# What becomes of it: a file


@pytest.mark.parametrize("precision", ["int8", "int8_mixed"])
def test_the_file_computes_what_the_model_does(
    quantized, pictures, precision, tmp_path
):
    path = tmp_path / "a.tflite"
    report = tflite.convert(
        quantized, path, precision=precision, input_dtype="float32"
    )
    found = tflite.inspect(path)
    kernels = [op for op in found.ops if op.per_channel is not None]
    assert kernels and all(op.per_channel for op in kernels)
    assert (report.float_ops == 0) == (precision == "int8")
    # Of untrained scores, many are nearly equal: those pictures whose two
    # best are apart by more than the noise must keep their class.
    ranked = np.sort(predict(quantized, pictures))
    decided = pictures[ranked[:, -1] - ranked[:, -2] > 0.1]
    assert len(decided) > 16
    assert tflite.compare(path, quantized, decided).agreement == 1
    assert tflite.compare(path, quantized, pictures).sqnr_db > 20


def test_a_trained_model_keeps_its_file(tiny_model, pictures, labels, tmp_path):
    model = compiled(quantization.quantize_model(tiny_model, pictures))
    model.fit(pictures, labels, batch_size=16, epochs=3, verbose=0)
    path = tmp_path / "a.tflite"
    report = tflite.convert(model, path, precision="int8")
    assert report.float_ops == 0 and report.min_runtime == "2.5.0"
    model.save(tmp_path / "a.keras")
    again = tmp_path / "b.tflite"
    tflite.convert(tmp_path / "a.keras", again, precision="int8")
    assert path.stat().st_size == again.stat().st_size
    tflite.convert(
        model, path, precision="int8", input_dtype="float32", overwrite=True
    )
    assert tflite.compare(path, model, pictures).sqnr_db > 18


def test_other_precisions_are_for_float_models(quantized, tmp_path):
    with pytest.raises(ValueError, match="quantization.strip"):
        tflite.convert(quantized, tmp_path / "a", precision="float32")


# What is refused or warned of


def test_twice_and_never(tiny_model, quantized, pictures):
    with pytest.raises(ValueError, match="quantized already.*tiny"):
        quantization.quantize_model(quantized, pictures)
    with pytest.raises(ValueError, match="must come from"):
        quantization.strip(tiny_model)


def test_few_and_constant_pictures_warn(tiny_model, pictures):
    with pytest.warns(UserWarning, match="only 4 pictures"):
        quantization.quantize_model(tiny_model, pictures[:4])
    with pytest.warns(UserWarning, match="all alike"):
        quantization.quantize_model(tiny_model, np.full_like(pictures, 100))
