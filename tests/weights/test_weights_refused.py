"""Files of weights that do not fit or are damaged, and what is said."""

import keras
import numpy as np
import pytest
import safetensors.numpy
from checkpoints import TORCH_REASON
from checkpoints import VARIANT
from checkpoints import assert_refused

from keras_mobilevit import mobilevit
from keras_mobilevit import weights as published

# Files that do not fit


def save(state, tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(state, path)
    return path


def test_missing_tensors_are_all_named(model, state, tmp_path):
    names = ("stem.bn.running_var", "stages.3.1.transformer.2.attn.qkv.bias")
    for name in names:
        del state[name]
    path = save(state, tmp_path)
    message = assert_refused(model, path, *names, path, "Missing (2)")
    assert "Unexpected" not in message and "shape" not in message


def test_unexpected_tensors_are_all_named(model, state, tmp_path):
    names = ("stages.5.0.conv.weight", "stages.4.1.transformer.3.norm1.bias")
    for name in names:
        state[name] = np.zeros(2, "float32")
    path = save(state, tmp_path)
    message = assert_refused(model, path, *names, "Unexpected (2)")
    assert "Missing" not in message and "shape" not in message


def test_misshapen_tensors_are_all_named(model, state, tmp_path):
    names = ("final_conv.bn.bias", "stages.2.1.transformer.0.attn.qkv.weight")
    for name in names:
        state[name] = state[name][:-1]
    path = save(state, tmp_path)
    shapes = "(319,) instead of (320,)", "(191, 64) instead of (192, 64)"
    message = assert_refused(model, path, *names, *shapes)
    assert "Of another shape (2)" in message and "Missing" not in message


def test_every_kind_of_misfit_in_one_error(model, state, tmp_path):
    state["stem.bn.weight"] = state["stem.bn.weight"].astype("int32")
    state["stem.bn.bias"] = state["stem.bn.bias"][None]
    state["surplus"] = state.pop("stem.conv.weight")
    assert_refused(
        model,
        save(state, tmp_path),
        "Missing (1): stem.conv.weight.",
        "Unexpected (1): surplus.",
        "Of another shape (1): stem.bn.bias (1, 16) instead of (16,).",
        "Not of a float type (1): stem.bn.weight int32.",
    )


def test_equal_number_of_values_is_not_enough(model, state, tmp_path):
    name = "stages.0.0.conv1_1x1.conv.weight"
    assert state[name].shape == (32, 16, 1, 1)
    state[name] = state[name].reshape(16, 32, 1, 1)
    assert_refused(model, save(state, tmp_path), name)


def test_another_variant_is_refused(tmp_path, states):
    path = save(states["timm"], tmp_path)
    with pytest.raises(ValueError, match="do not fit mobilevit_xs") as caught:
        mobilevit.MobileViT_XS(weights=path, input_shape=(32, 32, 3))
    assert "`include_top=False`" not in str(caught.value)


def test_another_number_of_classes_gets_a_hint(state, tmp_path):
    path = save(state, tmp_path)
    arguments = {"weights": path, "input_shape": (32, 32, 3)}
    hint = "`include_top=False` or `classes=1000`"
    with pytest.raises(ValueError, match=hint):
        mobilevit.MobileViT_XXS(**arguments, classes=10)
    # With another misfit beside it the hint would not help.
    del state["stem.bn.bias"]
    save(state, tmp_path)
    with pytest.raises(ValueError, match="stem.bn.bias") as caught:
        mobilevit.MobileViT_XXS(**arguments, classes=10)
    assert "head.fc.bias" in str(caught.value)
    assert hint not in str(caught.value)


@pytest.mark.parametrize("channels", (1, 4))
def test_other_channels_are_refused(timm_bytes, channels, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(timm_bytes)
    shapes = rf"stem.conv.weight \(16, 3, 3, 3\) instead of \(16, {channels},"
    with pytest.raises(ValueError, match=shapes):
        mobilevit.MobileViT_XXS(weights=path, input_shape=(32, 32, channels))


def test_foreign_tensors_are_refused(model, tmp_path):
    path = save({"layer1.0.conv1.weight": np.zeros(3, "float32")}, tmp_path)
    assert_refused(model, path, "no tensor of a MobileViT", "layer1.0.conv1")


def test_a_model_of_another_kind_is_refused(states, tmp_path):
    path = save(states["timm"], tmp_path)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="`model` should be a mobilevit_xxs"):
        published.load_weights(other, VARIANT, path, True)


def test_keras_file_that_does_not_fit(model, tmp_path):
    other = mobilevit.MobileViT_XXS(
        weights=None, input_shape=(64, 64, 3), classes=10
    )
    path = tmp_path / "other.weights.h5"
    other.save_weights(path)
    assert_refused(model, path, path, "`classes`", "`include_top=False`")


# Damaged files


@pytest.mark.parametrize("suffix", published.SUFFIXES)
@pytest.mark.parametrize(
    "content", (b"", b"junk" * 100, b"PK\3\4" + b"\0" * 99)
)
def test_junk_is_refused(model, suffix, content, tmp_path):
    if suffix in (".pt", ".pth", ".bin"):
        pytest.importorskip("torch", reason=TORCH_REASON)
    path = tmp_path / f"junk{suffix}"
    path.write_bytes(content)
    assert_refused(model, path, path, "damaged")


@pytest.mark.parametrize("name", ("w.h5", "w.onnx", "w", "w.safetensors.gz"))
def test_other_suffixes_are_refused(model, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"x")
    assert_refused(model, path, path, *published.SUFFIXES)


def test_missing_file_is_refused(model, tmp_path):
    path = tmp_path / "no.safetensors"
    assert_refused(model, path, path, error=FileNotFoundError)


@pytest.mark.parametrize("length", (4, 100, 20_000, -1))
def test_truncated_safetensors(model, timm_bytes, length, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(timm_bytes[:length])
    assert_refused(model, path, path, "cannot be read", "damaged")


@pytest.mark.parametrize("place", ("length", "brace", "name", "shape", "type"))
def test_a_flipped_byte_in_the_header(model, timm_bytes, place, tmp_path):
    start = timm_bytes.index(b'"stem.conv.weight"')
    position = {
        "length": 1,
        "brace": 8,
        "name": start + 3,
        "shape": timm_bytes.index(b"[16,3,3,3]", start) + 1,
        "type": timm_bytes.index(b"F32", start),
    }[place]
    damaged = bytearray(timm_bytes)
    damaged[position] ^= 2
    path = tmp_path / "weights.safetensors"
    path.write_bytes(damaged)
    message = assert_refused(model, path, path)
    if place == "name":
        assert "Missing (1): stem.conv.weight." in message
        assert "Unexpected (1): stgm.conv.weight." in message
    else:
        assert "cannot be read" in message
