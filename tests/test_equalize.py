"""Equalisation changes ranges, and nothing else."""

import keras
import numpy as np
import pytest

import keras_mobilevit
from keras_mobilevit import quantization
from keras_mobilevit import tflite
from keras_mobilevit.configs import MOBILEVIT
from keras_mobilevit.layers import InvertedResidual
from keras_mobilevit.layers import MobileViTBlock
from keras_mobilevit.layers import MultiHeadSelfAttention
from keras_mobilevit.layers import SiLU
from keras_mobilevit.layers import TransformerBlock
from keras_mobilevit.quantization import graph
from keras_mobilevit.quantization import rounding

BUILDERS = {
    builder.__name__.lower(): builder
    for builder in (
        keras_mobilevit.MobileViT_XXS,
        keras_mobilevit.MobileViT_XS,
        keras_mobilevit.MobileViT_S,
    )
}


def spread(model, size, generator):
    """Multiplies channels by factors that the next layers undo in part."""
    for block in graph.find(model, InvertedResidual):
        factors = np.exp(generator.normal(0, size, block.expand.filters))
        block.expand.norm.gamma.assign(block.expand.norm.gamma * factors)
        block.expand.norm.beta.assign(block.expand.norm.beta * factors)
        kernel = block.depthwise.kernel
        kernel.assign(kernel / factors[:, np.newaxis])


def randomise(model, generator):
    """No weight stays at its start of zero or one."""
    for variable in model.weights:
        if variable.name in ("gamma", "moving_variance"):
            value = generator.uniform(0.5, 1.5, variable.shape)
        elif variable.name in ("beta", "bias", "moving_mean"):
            value = generator.normal(0, 0.1, variable.shape)
        else:
            continue
        variable.assign(value)


def scale_of_difference(model, other, pictures):
    expected = model.predict(pictures, verbose=0)
    found = other.predict(pictures, verbose=0)
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module")
def pictures(tiny_pictures):
    return tiny_pictures.astype("float32")


@pytest.fixture(scope="module")
def uneven_model(tiny_model):
    """The tiny model with channels of very different size."""
    model = keras.models.clone_model(tiny_model)
    model.set_weights(tiny_model.get_weights())
    spread(model, 2.0, np.random.default_rng(0))
    return model


@pytest.mark.parametrize("variant", MOBILEVIT)
def test_outputs_stay(variant):
    generator = np.random.default_rng(0)
    model = BUILDERS[variant](
        weights=None, input_shape=(64, 96, 3), classifier_activation=None
    )
    randomise(model, generator)
    spread(model, 1.0, generator)
    few = generator.uniform(0, 255, (6, 64, 96, 3)).astype("float32")
    before = model.get_weights()
    equalised, report = quantization.equalize(model, few)
    assert scale_of_difference(model, equalised, few) < 1e-5
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    gates = [site for site in report.sites if site.kind == "gate"]
    assert len(gates) == 7
    assert all(
        site.strength == 1 and site.after > site.before for site in gates
    )


def test_every_kind_of_site_is_found(uneven_model, pictures):
    _, report = quantization.equalize(uneven_model, pictures)
    kinds = {site.kind for site in report.sites}
    assert kinds == {
        "gate",
        "feed-forward",
        "query-key",
        "value-project",
        "norm",
    }
    assert all(site.after >= site.before for site in report.sites)
    assert "block1/expand/act" in str(report)
    assert report.to_json().startswith("{")


def test_factors_fill_the_range_and_do_not_widen_it(uneven_model, pictures):
    equalised, _ = quantization.equalize(uneven_model, pictures)
    seen = {}

    def record(layer, inputs, outputs):
        # Where the int8 gate is closed, an input may reach further.
        live = layer.live(inputs)
        seen.setdefault(layer.path, []).append((live, outputs))

    for model in (uneven_model, equalised):
        (block,) = graph.find(model, InvertedResidual)
        with graph.watching([block.expand.act], record):
            model(pictures, training=False)
    (old, new) = seen["block1/expand/act"]
    for before, after in zip(old, new):
        assert np.abs(after).max() <= np.abs(before).max() * 1.0001
        sizes = [np.abs(a).max((0, 1, 2)) for a in (before, after)]
        assert np.median(sizes[1]) > 2 * np.median(sizes[0])


def test_the_file_gains(uneven_model, pictures, tmp_path):
    """What int8 loses to uneven channels, equalisation brings back."""
    noise = {}
    for precision in ("int8", "int8_mixed"):
        for equalize in (False, True):
            path = tmp_path / f"{precision}{equalize}.tflite"
            tflite.convert(
                uneven_model,
                path,
                precision=precision,
                calibration_data=pictures,
                equalize=equalize,
                input_dtype="float32",
            )
            found = tflite.compare(path, uneven_model, pictures)
            noise[precision, equalize] = found.sqnr_db
        assert noise[precision, True] > noise[precision, False] + 3


def test_a_dynamic_file_gains_if_there_are_pictures(pictures, tmp_path):
    """Smaller depthwise kernels than this one's stay in float there."""
    image = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255.0)(image)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same")(x)
    x = InvertedResidual(8, expansion=16)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(3)(x))
    generator = np.random.default_rng(0)
    randomise(model, generator)
    spread(model, 2.0, generator)

    def noise(**options):
        path = tmp_path / "dynamic.tflite"
        tflite.convert(
            model, path, precision="dynamic_int8", overwrite=True, **options
        )
        return tflite.compare(path, model, pictures).sqnr_db

    bare = noise()
    assert noise(calibration_data=pictures, equalize=False) == bare
    assert noise(calibration_data=pictures) > bare + 10


def test_model_saves_loads_and_trains(uneven_model, pictures, tmp_path):
    equalised, report = quantization.equalize(uneven_model, pictures)
    equalised.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert scale_of_difference(equalised, loaded, pictures) == 0
    paths = [variable.path for variable in loaded.weights]
    assert paths == [variable.path for variable in equalised.weights]
    scales = [w for w in loaded.weights if w.name == "gate_scale"]
    gates = [site for site in report.sites if site.added_ops > 0]
    assert 0 < len(scales) == len(gates)
    assert not any(w.trainable for w in scales)
    loaded.compile("sgd", "sparse_categorical_crossentropy")
    loaded.fit(pictures[:8], np.zeros(8), verbose=0)


def test_a_users_own_network(pictures):
    """Sites are found at any depth, by what the layers are."""
    image = keras.Input((32, 32, 3))
    inner_in = keras.Input((16, 16, 8))
    inner = keras.Model(
        inner_in, InvertedResidual(8, name="mine")(inner_in), name="inner"
    )
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same")(image)
    x = inner(x)
    x = MobileViTBlock(8, 1, heads=2)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(3)(x))
    randomise(model, np.random.default_rng(0))
    equalised, report = quantization.equalize(model, pictures)
    assert sum(site.kind == "gate" for site in report.sites) == 1
    assert sum(site.kind == "feed-forward" for site in report.sites) == 1
    assert scale_of_difference(model, equalised, pictures) < 1e-5


def test_blocks_of_one_name_in_two_branches(pictures):
    """Only one of them had better keep the affine parts of its norms."""

    def branch(name):
        image = keras.Input((16, 16, 8))
        x = MobileViTBlock(16, 1, heads=2, name="block")(image)
        return keras.Model(image, x, name=name)

    plain, affine = branch("plain"), branch("affine")
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same")(image)
    x = keras.layers.Add()([plain(x), affine(x)])
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(3)(x))
    # A channel that hardly varies, and counts much: its factor would make the
    # grid of a kernel coarse.
    block = affine.get_layer("block")
    kernel = block.local_project.kernel
    kernel.assign(kernel * np.where(np.arange(16), 1, 0.02))
    block.transformer[0].norm1.gamma.assign(np.where(np.arange(16), 1, 20))
    equalised, report = quantization.equalize(model, pictures)
    kept = [
        equalised.get_layer(name).get_layer("block").affine_norms
        for name in ("plain", "affine")
    ]
    assert kept == [False, True]
    norms = [site.strength for site in report.sites if site.kind == "norm"]
    assert norms == [1, 1, 1, 0, 0, 0]
    assert scale_of_difference(model, equalised, pictures) < 1e-5


def test_a_network_without_sites_is_left_alone(pictures):
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    equalised, report = quantization.equalize(model, pictures)
    assert report.sites == () and report.added_ops == 0
    assert scale_of_difference(model, equalised, pictures) == 0


def test_subclassed_model_is_refused(pictures):
    class Mine(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="functional or sequential.*Mine"):
        quantization.equalize(Mine(), pictures)


def test_nan_is_named(tiny_model, pictures):
    model = keras.models.clone_model(tiny_model)
    model.set_weights(tiny_model.get_weights())
    kernel = model.get_layer("block1").expand.kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(ValueError, match="NaN.*block1/expand/norm"):
        quantization.equalize(model, pictures)


def test_dead_channels_do_no_harm(tiny_model, pictures):
    model = keras.models.clone_model(tiny_model)
    model.set_weights(tiny_model.get_weights())
    norm = model.get_layer("block1").expand.norm
    alive = np.ones(norm.gamma.shape)
    alive[::2] = 0
    norm.gamma.assign(norm.gamma * alive)
    norm.beta.assign(norm.beta * alive)
    equalised, _ = quantization.equalize(model, pictures)
    assert np.isfinite(equalised.predict(pictures, verbose=0)).all()
    assert scale_of_difference(model, equalised, pictures) < 1e-5


def test_equalised_silu_is_a_scaled_silu():
    layer = SiLU(equalized=True)
    layer.build((None, 8, 8, 5))
    factors = np.array([0.5, -2.0, 10.0, 1.0, 300.0], "float32")
    layer.gate_scale.assign(1 / factors)
    x = np.random.default_rng(0).normal(0, 3, (1, 8, 8, 5)).astype("float32")
    expected = keras.ops.silu(x) * factors
    np.testing.assert_allclose(layer(x * factors), expected, rtol=2e-5)


def test_walk_finds_each_layer_once(tiny_model):
    found = dict(graph.walk(tiny_model))
    assert len(found) == len({id(layer) for layer in found.values()})
    assert found["block2/transformer_0/attention/query"].filters == 8
    kinds = (TransformerBlock, MultiHeadSelfAttention, InvertedResidual)
    assert [len(graph.find(tiny_model, kind)) for kind in kinds] == [1, 1, 1]


def test_rounding():
    x = np.linspace(-1, 3, 1001)
    rounded = rounding.round_activations(x)
    step = 4 / 255
    assert len(np.unique(rounded)) <= 256 and 0.0 in rounded
    assert np.abs(rounded - x).max() <= step / 2 + 1e-9
    assert rounding.round_activations(x, (0.0, 1.0)).max() == 1.0
    kernel = np.array([[1.0, 100.0], [0.3, -30.0]])
    error = np.abs(rounding.round_kernel(kernel) - kernel).max(0)
    assert (error <= [0.5 / 127, 50 / 127]).all()
    assert rounding.signal_to_noise(x, x) == 200
    noisy = x + 0.1 * np.sqrt(np.square(x).mean())
    assert rounding.signal_to_noise(x, noisy) == pytest.approx(20, abs=0.01)
