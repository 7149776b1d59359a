"""Names of published weights, and files of them that are loaded."""

import keras
import numpy as np
import pytest
import safetensors.numpy
from checkpoints import NAMINGS
from checkpoints import TABLE
from checkpoints import assert_loaded
from checkpoints import load
from golden import make_golden

from keras_mobilevit import mobilevit
from keras_mobilevit import weight_names
from keras_mobilevit import weights as published
from keras_mobilevit.configs import MOBILEVIT
from keras_mobilevit.configs import MOBILEVIT_V2

# Names


@pytest.mark.parametrize("naming", NAMINGS)
def test_names_and_shapes_are_those_of_the_table(naming):
    model = mobilevit.MobileViT_S(weights=None, input_shape=(32, 32, 3))
    shapes = {v.path: tuple(v.shape) for v in model.weights}
    expected = {}
    for names, shape in TABLE:
        split = names[naming].split("; ")
        shape = (shape[0] // len(split), *shape[1:]) if shape else shape
        expected.update(dict.fromkeys(split, shape))
    assert len(expected) == (315 if naming == "transformers" else 279)

    places = weight_names.tensor_names("mobilevit_s", naming)
    actual = {}
    for name, group in places.items():
        parts = [place.stored_shape(shapes[place.path]) for place in group]
        actual[name] = (sum(part[0] for part in parts), *parts[0][1:])
    assert actual == expected
    # Each variable has one place.
    paths = [place.path for group in places.values() for place in group]
    assert sorted(paths) == sorted(shapes)


@pytest.mark.parametrize("naming", NAMINGS)
def test_names_are_recognised(naming):
    names = [names[naming].split("; ")[0] for names, _ in TABLE]
    assert weight_names.recognise(names[:-2], "mobilevit_s") == naming
    assert weight_names.recognise(["a", "b"], "mobilevit_s") is None


def test_table_of_published_weights():
    configs = {**MOBILEVIT, **MOBILEVIT_V2}
    assert published.PUBLISHED.keys() == configs.keys()
    for variant, row in published.PUBLISHED.items():
        assert row.repo == f"timm/{variant}.cvnets_in1k"
        assert row.input_size == configs[variant].default_size
        assert 50 < row.top1 < (row.top5 or 100) <= 100
        order = weight_names.channel_order(variant, row.format)
        assert row.channel_order == order


# Local files


@pytest.mark.parametrize("naming", NAMINGS)
def test_safetensors_in_each_naming(model, states, naming, tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(states[naming], path)
    load(model, path)
    assert_loaded(model)


def test_the_stem_is_turned_only_where_it_takes_bgr(states):
    """The files differ as published ones do, or the test above is idle."""
    rgb = states["timm"]["stem.conv.weight"]
    for name, naming in (
        ("conv_1.block.conv.weight", "cvnets"),
        ("mobilevit.conv_stem.convolution.weight", "transformers"),
    ):
        assert np.abs(states[naming][name] - rgb).max() > 0.1
        np.testing.assert_array_equal(states[naming][name][:, ::-1], rgb)


def test_builder_loads_a_path(states, tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(states["transformers"], path)
    built = mobilevit.MobileViT_XXS(weights=str(path), input_shape=(32, 64, 3))
    assert_loaded(built)


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("has_head", (True, False))
def test_without_top(states, naming, has_head, tmp_path):
    """The head of the file is dropped, and need not be there."""
    state = {
        name: array
        for name, array in states[naming].items()
        if has_head or not weight_names.is_head(name)
    }
    assert len(state) == len(states[naming]) - (0 if has_head else 2)
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(state, path)
    built = mobilevit.MobileViT_XXS(weights=path, include_top=False)
    assert_loaded(built)


@pytest.mark.parametrize("output_stride", (8, 16))
def test_other_output_strides_take_the_same_file(
    timm_bytes, output_stride, tmp_path
):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(timm_bytes)
    built = mobilevit.MobileViT_XXS(
        weights=path, include_top=False, output_stride=output_stride
    )
    assert_loaded(built)


def test_layers_before_the_network_are_left_alone(timm_bytes, tmp_path):
    """Even another MobileViT, whose variables have the same paths."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(timm_bytes)
    first = mobilevit.MobileViT_XXS(weights=None, include_top=False)
    before = first.get_weights()
    x = keras.Input((64, 64, 3))
    x = keras.layers.Conv2D(3, 8, padding="same", name="pre")(first(x))
    built = mobilevit.MobileViT_XXS(
        weights=path, input_tensor=keras.layers.UpSampling2D(16)(x)
    )
    for old, new in zip(before, first.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    own = [layer for layer in built.layers if layer.name[:3] in ("blo", "pre")]
    assert len(own) == 12
    for name in ("stem", "block1", "block5", "predictions"):
        for variable in built.get_layer(name).weights:
            expected = make_golden.value(variable.path, tuple(variable.shape))
            np.testing.assert_array_equal(variable.numpy(), expected)


def test_name_scopes_are_no_obstacle(timm_bytes, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(timm_bytes)
    with keras.name_scope("block1"):
        built = mobilevit.MobileViT_XXS(weights=path, include_top=False)
    kernel = built.get_layer("stem").kernel
    expected = make_golden.value("stem/kernel", (3, 3, 3, 16))
    np.testing.assert_array_equal(kernel.numpy(), expected)


def test_half_precision_files(model, states, tmp_path):
    path = tmp_path / "weights.safetensors"
    state = {
        name: array.astype("float16") if array.dtype.kind == "f" else array
        for name, array in states["timm"].items()
    }
    safetensors.numpy.save_file(state, path)
    load(model, path)
    kernel = model.get_layer("stem").kernel.numpy()
    expected = make_golden.value("stem/kernel", (3, 3, 3, 16))
    assert 0 < np.abs(kernel - expected).max() < 1e-3


@pytest.mark.parametrize("suffix", (".weights.h5", ".keras"))
@pytest.mark.parametrize("include_top", (True, False))
def test_keras_files(model, suffix, include_top, tmp_path):
    """A file of the full model also serves one without the classifier."""
    make_golden.fill(model)
    path = tmp_path / f"model{suffix}"
    (model.save if suffix == ".keras" else model.save_weights)(path)
    built = mobilevit.MobileViT_XXS(
        weights=path, input_shape=(64, 64, 3), include_top=include_top
    )
    assert_loaded(built)
