"""PyTorch files of weights: loaded, or refused before they can do harm."""

import io
import pickle
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from checkpoints import NAMINGS
from checkpoints import TORCH_REASON
from checkpoints import VARIANT
from checkpoints import assert_loaded
from checkpoints import assert_refused
from checkpoints import load
from golden import make_golden

from keras_mobilevit import mobilevit


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
