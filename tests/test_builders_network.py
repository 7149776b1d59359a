"""What the builders build: its structure, training, precision and saving."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from builders import BUILDERS
from builders import TINY
from builders import each_builder
from builders import pictures
from variables import paths
from variables import scatter

from keras_mobilevit import mobilevit
from keras_mobilevit.configs import ENDPOINTS
from keras_mobilevit.configs import MOBILEVIT
from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import DepthwiseConvNormAct

# The network


@each_builder
@pytest.mark.parametrize("output_stride", (8, 16, 32))
def test_endpoints_have_their_strides(variant, output_stride):
    model = BUILDERS[variant](
        weights=None,
        include_top=False,
        input_shape=(128, 192, 3),
        output_stride=output_stride,
    )
    config = MOBILEVIT[variant]
    channels = (config.stem_channels, *config.channels, config.head_channels)
    for (name, stride), width in zip(ENDPOINTS.items(), channels):
        stride = min(stride, output_stride)
        shape = model.get_layer(name).output.shape
        assert shape == (None, 128 // stride, 192 // stride, width), name


@pytest.mark.parametrize("output_stride", (8, 16, 32))
def test_only_the_last_stage_of_stride_8_is_dilated(output_stride):
    model = mobilevit.MobileViT_XXS(
        weights=None, include_top=False, output_stride=output_stride
    )
    dilated = [
        layer.path
        for layer in model._flatten_layers()
        if isinstance(layer, DepthwiseConvNormAct | ConvNormAct)
        and layer.dilation_rate != 1
    ]
    assert dilated == (["block5_mv2_1/depthwise"] if output_stride == 8 else [])
    plain = mobilevit.MobileViT_XXS(weights=None, include_top=False)
    assert paths(model) == paths(plain)


@each_builder
def test_structure_follows_the_table(variant):
    """Residuals, dropout rates, heads, widths and epsilons."""
    config = MOBILEVIT[variant]
    model = BUILDERS[variant](weights=None, input_shape=(64, 64, 3))
    residual = {
        layer.name
        for layer in model.layers
        if getattr(layer, "has_residual", False)
    }
    first = {"block1"} if variant == "mobilevit_xxs" else set()
    assert residual == first | {"block2_mv2_2", "block2"}
    for i, stage in enumerate(("block3", "block4", "block5")):
        block = model.get_layer(stage)
        width = config.transformer_dims[i]
        assert len(block.transformer) == (2, 4, 3)[i]
        assert block.patch_size == 2
        assert block.norm.epsilon == 1e-5
        for transformer in block.transformer:
            assert transformer.attention.heads == 4
            assert transformer.attention.attention_dropout.rate == 0
            assert transformer.drop1.rate == config.transformer_dropout
            assert transformer.drop2.rate == config.transformer_dropout
            assert transformer.ffn_drop.rate == 0
            assert transformer.ffn_expand.kernel.shape[-1] == 2 * width
            assert transformer.norm1.epsilon == 1e-5
            assert transformer.norm2.epsilon == 1e-5
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == 32
    assert {(n.epsilon, n.momentum) for n in norms} == {(1e-5, 0.9)}
    assert model.get_layer("top_dropout").rate == 0.1


def test_dropout_rate_of_the_classifier():
    model = mobilevit.MobileViT_XXS(**TINY, dropout=0.4)
    assert model.get_layer("top_dropout").rate == 0.4
    model = mobilevit.MobileViT_XXS(**TINY, dropout=0)
    assert "top_dropout" not in [layer.name for layer in model.layers]


@each_builder
def test_initial_values_are_those_of_the_reference(variant):
    keras.utils.set_random_seed(1)
    model = BUILDERS[variant](weights=None)
    constants = {"gamma": 1, "beta": 0, "bias": 0}
    constants |= {"moving_mean": 0, "moving_variance": 1}
    for variable in model.weights:
        values = keras.ops.convert_to_numpy(variable)
        path = variable.path
        *_, owner, name = path.split("/")
        if name in constants:
            assert np.all(values == constants[name]), path
            continue
        assert name == "kernel"
        if owner == "predictions" or "/transformer_" in path:
            std = 0.02
        elif owner == "depthwise":  # the fan-out as PyTorch counts it
            std = np.sqrt(2 / (9 * values.shape[2]))
        else:
            side, _, _, filters = values.shape
            std = np.sqrt(2 / (side * side * filters))
        error = 5 / np.sqrt(2 * values.size)
        assert values.std() == pytest.approx(std, rel=error), path
        if values.size > 5000:  # normal, and not cut at two deviations
            assert np.abs(values).max() > 3 * std, path


def test_preprocessing_is_inside_unless_refused():
    keras.utils.set_random_seed(0)
    inside = mobilevit.MobileViT_XXS(**TINY)
    outside = mobilevit.MobileViT_XXS(**TINY, include_preprocessing=False)
    outside.set_weights(inside.get_weights())
    image = pictures(2, 32, 32, 3)
    np.testing.assert_allclose(
        inside(image), outside(image / 255), rtol=1e-5, atol=1e-6
    )
    whole = image.astype("uint8")
    np.testing.assert_allclose(
        inside(whole), outside(whole / 255.0), rtol=1e-5, atol=1e-6
    )


# Training, precision, saving


@each_builder
def test_one_fit_step_moves_every_weight(variant):
    keras.utils.set_random_seed(0)
    # Sizes above one patch: over a single patch the queries get no gradient.
    model = BUILDERS[variant](**{**TINY, "input_shape": (96, 96, 3)})
    before = [variable.numpy() for variable in model.trainable_weights]
    model.compile(
        # Nothing but the gradients: Adam takes half a minute to trace.
        keras.optimizers.SGD(1.0),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    history = model.fit(
        pictures(4, 96, 96, 3), np.array([0, 1, 2, 0]), epochs=1, verbose=0
    )
    assert np.isfinite(history.history["loss"][0])
    for variable, old in zip(model.trainable_weights, before):
        assert not np.array_equal(variable.numpy(), old), variable.path


@pytest.fixture
def half_precision():
    keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    keras.mixed_precision.set_global_policy("float32")


def test_mixed_float16(half_precision):
    keras.utils.set_random_seed(0)
    model = mobilevit.MobileViT_XXS(**TINY)
    assert all(v.dtype == "float32" for v in model.weights)
    image = pictures(2, 32, 32, 3)
    output = model.predict(image, verbose=0)
    assert output.dtype == "float16"
    keras.mixed_precision.set_global_policy("float32")
    exact = mobilevit.MobileViT_XXS(**TINY)
    exact.set_weights(model.get_weights())
    np.testing.assert_allclose(
        output, exact.predict(image, verbose=0), atol=5e-3
    )


def test_mixed_float16_fits(half_precision):
    model = mobilevit.MobileViT_XXS(**TINY)
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    history = model.fit(
        pictures(2, 32, 32, 3), np.array([0, 1]), epochs=1, verbose=0
    )
    assert np.isfinite(history.history["loss"][0])


LOAD_AND_PREDICT = """
import sys
import keras
import numpy as np
import keras_mobilevit
folder = sys.argv[1]
model = keras.saving.load_model(folder + "/model.keras")
image = np.load(folder + "/image.npy")
np.save(folder + "/output.npy", model.predict(image, verbose=0))
print("\\n".join(variable.path for variable in model.weights))
"""


def test_saved_model_comes_back_with_equal_paths(tmp_path):
    model = mobilevit.MobileViT_XXS(**{**TINY, "input_shape": (64, 96, 3)})
    scatter(model)
    image = pictures(2, 64, 96, 3)
    expected = model.predict(image, verbose=0)
    model.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert paths(loaded) == paths(model)
    assert json.loads(loaded.to_json()) == json.loads(model.to_json())
    np.testing.assert_array_equal(loaded.predict(image, verbose=0), expected)

    np.save(tmp_path / "image.npy", image)
    fresh = subprocess.run(
        [sys.executable, "-c", LOAD_AND_PREDICT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert fresh.returncode == 0, fresh.stderr
    assert fresh.stdout.split() == paths(model)
    np.testing.assert_allclose(
        np.load(tmp_path / "output.npy"), expected, rtol=1e-5, atol=1e-6
    )


@each_builder
def test_weight_paths_are_stable_and_unique(variant):
    first = BUILDERS[variant](**TINY)
    second = BUILDERS[variant](**TINY)
    assert paths(first) == paths(second)
    assert len(set(paths(first))) == len(first.weights)
    assert "block3/transformer_0/attention/query/kernel" in paths(first)


@each_builder
def test_weights_path_is_loaded_by_the_builder(variant, tmp_path):
    model = BUILDERS[variant](**TINY)
    scatter(model)
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    image = pictures(1, 32, 32, 3)
    for given in (path, str(path)):  # os.PathLike and text
        loaded = BUILDERS[variant](**{**TINY, "weights": given})
        np.testing.assert_array_equal(loaded(image), model(image))


def test_a_frozen_model_stays_frozen_when_saved(tmp_path):
    """Batch statistics included: they would move while fine-tuning."""
    features = mobilevit.MobileViT_XXS(
        weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3)
    )
    features.trainable = False
    head = keras.layers.Dense(2, name="head")(features.output)
    model = keras.Model(features.input, head)
    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert [v.path for v in model.trainable_weights] == [
        "head/kernel",
        "head/bias",
    ]
    before = {v.path: v.numpy() for v in model.non_trainable_weights}
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(pictures(2, 32, 32, 3), np.ones((2, 2)), verbose=0)
    for variable in model.non_trainable_weights:
        np.testing.assert_array_equal(variable, before[variable.path])

    for layer in model.layers:
        layer.trainable = True
    assert len(model.trainable_weights) == len(features.weights) - 64 + 2
