"""Published weights from the hub: downloaded, verified, kept, or explained.

Nothing here leaves the machine but the test marked `network`.
"""

import ast
import io
import os
import subprocess
import sys
import urllib.request

import hub_server
import numpy as np
import pytest
import safetensors.numpy
from checkpoints import ROW
from checkpoints import assert_loaded
from checkpoints import assert_refused
from checkpoints import load
from golden import make_golden

from keras_mobilevit import mobilevit

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
