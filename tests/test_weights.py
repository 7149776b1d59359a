"""Published weights: found, downloaded, verified, mapped, loaded or refused.

Nothing here leaves the machine but the test marked `network`. The truth for
names and shapes is `golden/names_mobilevit_s.tsv.gz`: the 279 tensors of
MobileViT-S in three checkpoint formats, read off cvnets, timm and
transformers. The other sizes have the same names.
"""

import ast
import gzip
import io
import os
import pickle
import subprocess
import sys
import tarfile
import urllib.request
import warnings
import zipfile

import hub_server
import keras
import numpy as np
import pytest
import safetensors.numpy
from golden import make_golden

from keras_mobilevit import mobilevit
from keras_mobilevit import weight_names
from keras_mobilevit import weights as published
from keras_mobilevit.configs import MOBILEVIT
from keras_mobilevit.configs import MOBILEVIT_V2

VARIANT = "mobilevit_xxs"
ROW = published.PUBLISHED[VARIANT]
NAMINGS = ("cvnets", "timm", "transformers")
DEPTHS = (2, 4, 3)
TORCH_REASON = "needs the `parity` extra (torch)"


def read_table():
    """Yields the names of a tensor by naming, and its shape."""
    path = make_golden.HERE / "names_mobilevit_s.tsv.gz"
    header, *lines = gzip.open(path, "rt").read().splitlines()
    assert tuple(header.split("\t")) == (*NAMINGS, "shape")
    for line in lines:
        *names, shape = line.split("\t")
        # transformers splits the joint query, key and value.
        yield dict(zip(NAMINGS, names)), ast.literal_eval(shape)


TABLE = list(read_table())


def to_torch(array, path):
    """Lays out the value of a Keras variable as PyTorch does."""
    if path == "predictions/kernel":
        return array.T
    if path.endswith("depthwise/kernel"):
        return array.transpose(2, 3, 0, 1)
    tokens = "/attention/" in path or "/ffn_" in path
    if path.endswith("/kernel"):
        array = array.transpose(3, 2, 0, 1)
        return array[:, :, 0, 0] if tokens else array
    return array


def checkpoint(model, naming):
    """The state dict, in one of the namings, of the formula's weights."""
    variables = {v.path: v for v in model.weights}
    state = {}
    for names, _ in TABLE:
        parts = []
        for name in names["transformers"].split("; "):
            path = make_golden.keras_path(name)
            if path not in variables:
                continue
            value = make_golden.value(path, tuple(variables[path].shape))
            value = to_torch(value, path)
            if path == "stem/kernel" and naming != "timm":
                value = value[:, ::-1]  # these take BGR
            parts.append(np.ascontiguousarray(value))
        if naming == "transformers":
            state.update(zip(names[naming].split("; "), parts))
        elif parts:
            state[names[naming]] = np.concatenate(parts)
    for name in list(state):
        if name.endswith("running_var"):
            counter = name.replace("running_var", "num_batches_tracked")
            state[counter] = np.array(5)
    return state


@pytest.fixture(scope="module")
def model():
    """MobileViT-XXS; tests may load weights into it."""
    return mobilevit.MobileViT_XXS(weights=None, input_shape=(64, 64, 3))


@pytest.fixture(scope="module")
def states(model):
    return {naming: checkpoint(model, naming) for naming in NAMINGS}


@pytest.fixture(scope="module")
def timm_bytes(states):
    return safetensors.numpy.save(states["timm"])


@pytest.fixture
def state(states):
    """A copy of the timm checkpoint, to be damaged."""
    return dict(states["timm"])


def assert_loaded(model):
    """Every variable has the value of the formula for its path."""
    for variable in model.weights:
        path = variable.path
        expected = make_golden.value(path, tuple(variable.shape))
        np.testing.assert_array_equal(variable.numpy(), expected, path)


def load(model, weights, include_top=True):
    """Loads into a model of other weights."""
    make_golden.fill(model, seed=1)
    published.load_weights(model, VARIANT, weights, include_top)


def assert_refused(model, weights, *parts, error=ValueError):
    """Loading raises, names all `parts`, and the model stays as it was."""
    make_golden.fill(model, seed=1)
    before = model.get_weights()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # the error is all
        with pytest.raises(error) as caught:
            published.load_weights(model, VARIANT, weights, True)
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    message = str(caught.value)
    for part in ("Received: ", *parts):
        assert str(part) in message
    return message


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


# PyTorch files


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason=TORCH_REASON)


def tensors(torch, state):
    return {name: torch.from_numpy(array) for name, array in state.items()}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("suffix", (".pt", ".pth", ".bin"))
def test_torch_state_dicts(torch, model, states, naming, suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    torch.save(tensors(torch, states[naming]), path)
    load(model, path)
    assert_loaded(model)


@pytest.mark.parametrize("key", ("state_dict", "model", None))
@pytest.mark.parametrize("is_new", (True, False), ids=("zip", "legacy"))
def test_torch_wrappings(torch, model, states, key, is_new, tmp_path):
    path = tmp_path / "weights.pt"
    state = tensors(torch, states["cvnets"])
    state = {f"module.{name}": torch.nn.Parameter(t) if t.is_floating_point()
             else t for name, t in state.items()}  # fmt: skip
    state = {"epoch": 3, key: state} if key else state
    torch.save(state, path, _use_new_zipfile_serialization=is_new)
    load(model, path)
    assert_loaded(model)


def test_torch_bfloat16(torch, model, states, tmp_path):
    path = tmp_path / "weights.pt"
    state = tensors(torch, states["timm"])
    state["stem.conv.weight"] = state["stem.conv.weight"].bfloat16()
    torch.save(state, path)
    load(model, path)
    expected = make_golden.value("stem/kernel", (3, 3, 3, 16))
    kernel = model.get_layer("stem").kernel.numpy()
    np.testing.assert_allclose(kernel, expected, rtol=2**-8)


def test_torch_is_asked_for(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if absent
    path = tmp_path / "weights.pt"
    path.write_bytes(b"x")
    assert_refused(model, path, path, "pip install torch", ".safetensors")


def test_torch_misfit_names_tensors(torch, model, state, tmp_path):
    path = tmp_path / "weights.pt"
    state = tensors(torch, state)
    del state["stem.bn.bias"]
    # A view of one number that claims to be terabytes is never unfolded.
    state["stem.conv.weight"] = torch.zeros(1).half().expand(2**40)
    torch.save(state, path)
    assert_refused(
        model, path, "Missing (1): stem.bn.bias.", "(1099511627776,) instead"
    )


@pytest.mark.parametrize("value", ([1, 2], {"a": 1}, {1: 2}))
def test_torch_files_of_other_things(torch, model, value, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(value, path)
    assert_refused(model, path, "a dictionary of named tensors")


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


@pytest.mark.parametrize("kind", ("zip", "legacy", "pickle"))
def test_an_attack_by_pickle_does_not_run(torch, model, kind, tmp_path):
    marker = tmp_path / "marker"
    payload = {"stem.conv.weight": Attack(marker)}
    pickle.loads(pickle.dumps(payload))
    assert marker.exists()  # the attack works where nothing prevents it
    marker.unlink()

    path = tmp_path / "weights.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(payload, protocol=2))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=kind == "zip")
    message = assert_refused(model, path, "could run code")
    assert "weights_only" not in message  # no advice to run it all the same
    assert not marker.exists()


@pytest.mark.parametrize("name", ("../../evil", "/evil", "a\\..\\..\\evil"))
def test_archive_names_that_lead_outside(torch, model, state, name, tmp_path):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    path = folder / "weights.pt"
    torch.save(tensors(torch, state), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"evil")
    assert_refused(model, path, "evil", "points out of it")
    assert not list(tmp_path.rglob("*evil*"))


def test_an_archive_that_unpacks_to_more_than_it_is(torch, model, tmp_path):
    plain = io.BytesIO()
    torch.save({"stem.conv.weight": torch.zeros(2**20)}, plain)
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        with zipfile.ZipFile(plain) as archive:
            for name in archive.namelist():
                bomb.writestr(name, archive.read(name))
    assert path.stat().st_size < 2**16
    assert_refused(model, path, "bytes are packed into")


def test_a_tar_that_leads_outside(torch, model, tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    path = folder / "weights.pt"
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle", "../evil"):
            archive.addfile(tarfile.TarInfo(name))
    assert_refused(model, path, "damaged")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("include_top", (True, False))
def test_file_of_transformers_gives_its_outputs(include_top, tmp_path):
    """A true state dict, BGR stem included, on RGB pictures."""
    torch = pytest.importorskip("torch", reason=TORCH_REASON)
    pytest.importorskip("transformers", reason="needs the `parity` extra")
    reference = make_golden.torch_model(VARIANT)
    path = tmp_path / "pytorch_model.bin"
    torch.save(reference.state_dict(), path)
    built = mobilevit.MobileViT_XXS(
        weights=path,
        include_top=include_top,
        input_shape=(96, 128, 3),
        classifier_activation=None,
    )
    image = make_golden.picture(96, 128)
    expected = make_golden.reference(reference, image)
    expected = expected["logits" if include_top else "conv_1x1_exp"]
    actual = built.predict(image, verbose=0)
    difference = np.abs(actual - expected).max()
    assert difference <= 1e-5 * np.abs(expected).max()


# The hub


@pytest.fixture
def hub(monkeypatch, tmp_path, timm_bytes):
    """A hub on this machine, with the weights of XXS, and an empty cache.

    The client reads its environment variables when it is imported, so they
    are set here as its constants; `test_environment_variables` sets them as
    users do.
    """
    from huggingface_hub import constants

    with hub_server.HubServer() as server:
        server.files[f"{ROW.repo}/{ROW.filename}"] = timm_bytes
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": True,
        }.items():
            assert hasattr(constants, name)
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        # Between its attempts the client would wait for half a minute.
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield server


@pytest.fixture
def go_offline(hub, monkeypatch):
    def set_offline():
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    return set_offline


def downloads(hub):
    return [
        request
        for request in hub.requests
        if request[0] == "GET" and request[1].endswith(ROW.filename)
    ]


def cached(tmp_path):
    (blob,) = tmp_path.glob("cache/models--*/blobs/*")
    return blob


def test_imagenet_is_downloaded_once(hub, model):
    load(model, "imagenet")
    assert_loaded(model)
    assert len(downloads(hub)) == 1
    load(model, "imagenet")
    assert_loaded(model)
    assert len(downloads(hub)) == 1


def test_builder_loads_imagenet(hub):
    """At 256x256 with the classifier, at any size without."""
    assert_loaded(mobilevit.MobileViT_XXS())
    assert_loaded(mobilevit.MobileViT_XXS(include_top=False))


def test_a_broken_download_is_resumed(hub, model, monkeypatch):
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.DOWNLOAD_CHUNK_SIZE", 250_000)
    hub.break_after = 1_000_000
    load(model, "imagenet")
    assert_loaded(model)
    first, second = downloads(hub)
    assert first[2] is None
    assert second[2] == "bytes=1000000-"


def test_cache_serves_offline(hub, go_offline, model):
    load(model, "imagenet")
    go_offline()
    count = len(hub.requests)
    load(model, "imagenet")
    assert_loaded(model)
    assert len(hub.requests) == count


def test_cache_serves_without_a_network(hub, model):
    load(model, "imagenet")
    hub.__exit__()
    load(model, "imagenet")
    assert_loaded(model)


ADVICE = (
    "HF_HUB_OFFLINE",
    "HF_HOME",
    "by hand",
    "`weights=<its path>`",
    ROW.filename,
    ROW.repo,
)


def test_offline_without_a_cache_says_what_to_do(hub, go_offline, model):
    go_offline()
    assert_refused(model, "imagenet", *ADVICE, "offline mode", error=OSError)
    assert hub.requests == []


def test_no_network_and_no_cache_says_what_to_do(hub, model):
    hub.__exit__()
    assert_refused(model, "imagenet", *ADVICE, hub.url, error=OSError)


def test_unknown_repository(hub, model):
    hub.files.clear()
    assert_refused(model, "imagenet", "404", *ADVICE, error=OSError)


def test_wrong_sha256(hub, model, tmp_path):
    hub.reported_sha256 = "0" * 64
    blob = tmp_path / "cache" / "models--timm--mobilevit_xxs.cvnets_in1k"
    blob = blob / "blobs" / hub.reported_sha256
    parts = blob, hub.reported_sha256, "Delete that file"
    assert_refused(model, "imagenet", *parts, error=OSError)
    # Nothing wrong stays accepted the second time.
    assert_refused(model, "imagenet", *parts, error=OSError)


def test_no_sha256(hub, model):
    """A mirror that reports another kind of tag."""
    hub.reported_sha256 = "abc123"
    assert_refused(model, "imagenet", "no sha256", "HF_ENDPOINT", error=OSError)


def test_wrong_size(hub, model, timm_bytes):
    hub.reported_size = len(timm_bytes) + 1
    assert_refused(
        model, "imagenet", len(timm_bytes) + 1, "size", error=OSError
    )


@pytest.mark.parametrize("damage", ("truncated", "flipped"))
def test_damaged_cache(hub, go_offline, model, damage, tmp_path):
    """Found without a network too; deleting the named file mends it."""
    load(model, "imagenet")
    blob = cached(tmp_path)
    content = bytearray(blob.read_bytes())
    if damage == "truncated":
        del content[-1000:]
    else:
        content[-1] ^= 1  # in the data, where nothing else would show it
    blob.write_bytes(content)
    count = len(downloads(hub))
    assert_refused(model, "imagenet", blob, "Delete that file", error=OSError)
    assert len(downloads(hub)) == count
    blob.unlink()
    load(model, "imagenet")
    assert_loaded(model)
    blob.write_bytes(content)
    go_offline()
    assert_refused(model, "imagenet", blob, "Delete that file", error=OSError)


def test_file_that_does_not_fit(hub, model, state):
    """With the right hash, but not this network."""
    del state["stem.bn.bias"]
    content = safetensors.numpy.save(state)
    hub.files[f"{ROW.repo}/{ROW.filename}"] = content
    message = assert_refused(model, "imagenet", "stem.bn.bias", ROW.repo)
    assert "Missing (1)" in message


@pytest.fixture
def no_links(hub, model, tmp_path):
    """A cache on a file system without links."""
    load(model, "imagenet")
    (link,) = tmp_path.glob("cache/models--*/snapshots/*/*")
    blob = cached(tmp_path)
    link.unlink()
    blob.rename(link)
    return link


def test_cache_without_links(hub, no_links, model):
    load(model, "imagenet")
    assert_loaded(model)
    content = bytearray(no_links.read_bytes())
    content[-1] ^= 1
    no_links.write_bytes(content)
    assert_refused(model, "imagenet", no_links, "Delete", error=OSError)


def test_cache_without_links_offline(hub, no_links, go_offline, model):
    """The one case where no hash is at hand: said, not hidden."""
    go_offline()
    with pytest.warns(UserWarning, match="could not be verified"):
        load(model, "imagenet")
    assert_loaded(model)


def test_environment_variables(timm_bytes, tmp_path):
    """HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE as users set them."""
    code = (
        "from keras_mobilevit import MobileViT_XXS;"
        "model = MobileViT_XXS(include_top=False);"
        "print(model.get_layer('stem').kernel.numpy().tolist())"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    kept.pop("HUGGINGFACE_HUB_CACHE", None)
    kept |= {"NO_PROXY": "127.0.0.1", "HF_HOME": str(tmp_path / "home")}
    expected = make_golden.value("stem/kernel", (3, 3, 3, 16)).tolist()

    def run(**variables):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=kept | variables,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert ast.literal_eval(done.stdout.splitlines()[-1]) == expected
        return done.stderr

    with hub_server.HubServer() as hub:
        hub.files[f"{ROW.repo}/{ROW.filename}"] = timm_bytes
        # The client shows progress to terminals, and where this is set.
        progress = run(HF_ENDPOINT=hub.url, TQDM_POSITION="-1")
    assert "model.safetensors" in progress and "100%" in progress
    assert len(downloads(hub)) == 1
    assert list((tmp_path / "home" / "hub").glob("models--*/blobs/*"))
    run(HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")


# The real thing

# Published with transformers for COCO 000000039769: the first logits.
PUBLISHED_LOGITS = {
    "mobilevit_s": (-0.9866, 0.2392, -1.1241),
    "mobilevit_xs": (-2.4761, -0.9399, -1.9587),
    "mobilevit_xxs": (-1.9364, -1.2327, -0.4653),
}


@pytest.mark.network
@pytest.mark.parametrize("variant", PUBLISHED_LOGITS)
def test_published_logits(variant):
    import PIL.Image

    url = "http://images.cocodataset.org/val2017/000000039769.jpg"
    with urllib.request.urlopen(url, timeout=60) as response:
        image = PIL.Image.open(io.BytesIO(response.read())).convert("RGB")
    # As transformers' processor: short side 288, centre crop of 256.
    assert image.size == (640, 480)
    image = image.resize((384, 288), PIL.Image.Resampling.BILINEAR)
    image = image.crop((64, 16, 320, 272))
    builder = {
        "mobilevit_s": mobilevit.MobileViT_S,
        "mobilevit_xs": mobilevit.MobileViT_XS,
        "mobilevit_xxs": mobilevit.MobileViT_XXS,
    }[variant]
    built = builder(classifier_activation=None)
    logits = built.predict(np.asarray(image, "float32")[None], verbose=0)
    np.testing.assert_allclose(
        logits[0, :3], PUBLISHED_LOGITS[variant], atol=1e-3
    )
    (top,) = mobilevit.decode_predictions(logits, top=3)
    assert {"tabby", "Egyptian_cat"} & {name for _, name, _ in top}
