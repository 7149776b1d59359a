"""Published weights: where they are, and loading them without a gap.

Nothing is loaded by halves: a file is read, checked and mapped as a whole
before the first variable of a model changes.
"""

import dataclasses
import hashlib
import os
import pathlib
import pickle
import re
import warnings
import zipfile
from typing import Any

import keras
import numpy as np

from keras_mobilevit import weight_names


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """A checkpoint on the Hugging Face hub.

    Attributes:
        repo: repository on the hub.
        top1: published top-1 accuracy on ImageNet-1k, in percent.
        top5: published top-5 accuracy, in percent; `None` if not known.
        filename: the file in the repository.
        format: whose names its tensors have.
        licence: as the repository states it.
        channel_order: of the pictures its first convolution expects.
        input_size: side of the picture in pixels that `top1` is for.
        crop_pct: the crop's share of the picture's short side.
        interpolation: how the picture was resized.
    """

    repo: str
    top1: float
    top5: float | None
    filename: str = "model.safetensors"
    format: str = "timm"
    licence: str = "cvnets-license (Apple sample code licence)"
    channel_order: str = "RGB"
    input_size: int = 256
    crop_pct: float = 0.9
    interpolation: str = "bicubic"


# Accuracies: timm's results-imagenet.csv.
PUBLISHED = {
    "mobilevit_xxs": PublishedWeights(
        "timm/mobilevit_xxs.cvnets_in1k", top1=68.936, top5=88.942
    ),
    "mobilevit_xs": PublishedWeights(
        "timm/mobilevit_xs.cvnets_in1k", top1=74.618, top5=92.350
    ),
    "mobilevit_s": PublishedWeights(
        "timm/mobilevit_s.cvnets_in1k", top1=78.298, top5=94.168
    ),
    **{
        f"mobilevitv2_{width}": PublishedWeights(
            f"timm/mobilevitv2_{width}.cvnets_in1k",
            top1=top1,
            top5=None,
            crop_pct=0.888,
        )
        for width, top1 in (
            ("050", 70.156),
            ("075", 75.612),
            ("100", 78.088),
            ("125", 79.682),
            ("150", 80.38),
            ("175", 80.87),
            ("200", 81.148),
        )
    },
}

_KERAS = (".weights.h5", ".keras")
_SAFETENSORS = (".safetensors",)
_TORCH = (".pt", ".pth", ".bin")
SUFFIXES = (*_SAFETENSORS, *_KERAS, *_TORCH)


def load_weights(
    model: keras.Model,
    variant: str,
    weights: str | os.PathLike,
    include_top: bool,
) -> None:
    """Gives a model the published weights, or those of a file.

    Every tensor must be there, be known and have its shape. If anything is
    wrong, the model stays as it was.

    Args:
        model: a model of `variant`; layers beside those of the network are
            left alone.
        variant: a key of `PUBLISHED`.
        weights: `"imagenet"`, or the path of a file: `.safetensors` or
            `.pt`, `.pth`, `.bin` (needs PyTorch) with the names of timm,
            transformers or cvnets; `.weights.h5` or `.keras` of the same
            network in Keras. With the names of transformers and cvnets the
            first convolution of a MobileViT v1 is taken to expect BGR, as in
            the published files, and is turned to RGB.
        include_top: whether the model ends in the classifier. If not, that
            of the file is dropped.

    Raises:
        ValueError: the file does not fit or is damaged.
        OSError: the file cannot be found, downloaded or verified.
    """
    row = PUBLISHED[variant]
    if weights == "imagenet":
        source = f"{row.filename} of {row.repo}"
        tensors = _read(fetch(variant), source)
        naming, channel_order = row.format, row.channel_order
    else:
        path, source = os.fsdecode(weights), f"weights={os.fsdecode(weights)}"
        if not os.path.isfile(path):
            raise FileNotFoundError(
                "The `weights` argument should be 'imagenet' or the path of "
                f"an existing file. Received: {source}"
            )
        if path.endswith(_KERAS):
            _load_keras(model, path, source)
            return
        tensors = _read(path, source)
        naming = weight_names.recognise(tensors, variant)
        if naming is None:
            raise ValueError(
                "The file holds no tensor of a MobileViT under the names of "
                "timm, transformers or cvnets; its names begin with "
                f"{sorted(tensors)[:3]}. Received: {source}"
            )
        channel_order = weight_names.channel_order(variant, naming)

    places = weight_names.tensor_names(variant, naming)
    dropped = () if include_top else set(filter(weight_names.is_head, places))
    places = {n: group for n, group in places.items() if n not in dropped}
    tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if name not in dropped and not weight_names.is_ignored(name)
    }
    variables = _variables(model, variant, places)
    shapes = {path: tuple(v.shape) for path, v in variables.items()}
    try:
        values = weight_names.map_tensors(tensors, places, shapes)
    except ValueError as error:
        raise ValueError(
            f"The tensors of the file ({naming} naming) do not fit {variant}. "
            f"Received: {source}\n{error}"
        ) from None
    if channel_order == "BGR":
        values["stem/kernel"] = values["stem/kernel"][:, :, ::-1]
    for path, value in values.items():
        # PyTorch as a backend takes no array that runs backwards.
        variables[path].assign(np.ascontiguousarray(value))


def fetch(variant: str) -> str:
    """Finds the published file in the hub's cache, or downloads it.

    `HF_ENDPOINT`, `HF_HOME` and `HF_HUB_OFFLINE` work as everywhere. The
    content is compared with the sha256 that the hub reports for it.

    Args:
        variant: a key of `PUBLISHED`.

    Returns:
        The path of the verified file.

    Raises:
        OSError: the file is not at hand and cannot be downloaded, or it is
            damaged.
    """
    import huggingface_hub
    from huggingface_hub import constants

    row = PUBLISHED[variant]
    try:
        path = huggingface_hub.hf_hub_download(row.repo, row.filename)
    # The client, its transport and its HTTP library have their own errors.
    except Exception as error:
        cause = error.__cause__ or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise OSError(
            f"The weights of {variant} are not in the cache "
            f"({constants.HF_HUB_CACHE}) and could not be downloaded: "
            f"{reason.rstrip('.')}. Connect to the network once, with "
            "HF_HUB_OFFLINE unset; or set HF_HOME to a folder that has them; "
            f"or download {row.filename} by hand from "
            f"{constants.ENDPOINT}/{row.repo} and pass `weights=<its path>`. "
            "Received: weights=imagenet"
        ) from error
    expected = _reported_sha256(path, row)
    if expected is None:
        warnings.warn(
            f"{path} could not be verified: the hub cannot be reached and "
            "this cache keeps no sha256.",
            stacklevel=2,
        )
        return path
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        file = os.path.realpath(path)
        raise OSError(
            f"The weights of {variant} are damaged: {file} has "
            f"{os.path.getsize(file)} bytes and the sha256 {actual}, while "
            f"the hub reports {expected} for {row.filename} of {row.repo}. "
            "Delete that file and try again. Received: weights=imagenet"
        )
    return path


def _reported_sha256(path: str, row: PublishedWeights) -> str | None:
    """Returns the sha256 that the hub gave for a cached file, if known."""
    import huggingface_hub

    if os.path.islink(path):
        # The cache keeps a file under the tag that the hub reported: so it
        # can be verified offline too.
        tag = os.path.basename(os.readlink(path))
    else:  # a file system without links
        url = huggingface_hub.hf_hub_url(
            row.repo, row.filename, revision=pathlib.Path(path).parent.name
        )
        try:
            tag = huggingface_hub.get_hf_file_metadata(url).etag
        except Exception:  # see `fetch`; the caller says what it means
            return None
    if not re.fullmatch("[0-9a-f]{64}", tag or ""):
        raise OSError(
            f"The hub reports no sha256 for {row.filename} of {row.repo}, so "
            f"{path} cannot be verified. If HF_ENDPOINT names a mirror, try "
            "the hub itself, or pass `weights=<path>` for a file you trust. "
            f"Received: tag={tag!r}"
        )
    return tag


def _load_keras(model, path, source):
    before = [keras.ops.convert_to_numpy(v) for v in model.weights]
    try:
        model.load_weights(path)
    except Exception as error:  # of Keras, of h5py and of zipfile
        for variable, value in zip(model.weights, before):
            variable.assign(value)
        raise ValueError(
            "The Keras weights do not fit the model, or the file is damaged. "
            "They must come from the same network with the same `classes`, "
            f"or pass `include_top=False`. Received: {source} ({error})"
        ) from error


def _read(path: str, source: str) -> dict[str, Any]:
    """Returns the tensors of a file: NumPy arrays, or PyTorch's."""
    if path.endswith(_SAFETENSORS):
        return _read_safetensors(path, source)
    if path.endswith(_TORCH):
        return _read_torch(path, source)
    raise ValueError(
        "The `weights` argument should be 'imagenet' or the path of a file "
        f"that ends in one of {', '.join(SUFFIXES)}. Received: {source}"
    )


def _read_safetensors(path, source):
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:  # its own, and those of NumPy and the system
        raise ValueError(
            f"The safetensors file cannot be read: {error}. It may be "
            f"damaged or incomplete. Received: {source}"
        ) from error


def _read_torch(path, source):
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"Reading {', '.join(_TORCH)} files needs PyTorch: run `pip "
            "install torch`, or convert the file to .safetensors. "
            f"Received: {source}"
        ) from error

    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # PyTorch's message proposes to run the code in the file.
        raise ValueError(
            "The PyTorch file holds more than tensors, or is damaged. It was "
            "not loaded, since that could run code from it. "
            f"Received: {source}"
        ) from None
    except Exception as error:  # what a damaged file leads to is open
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"The PyTorch file cannot be read: {reason}. It may be damaged "
            f"or incomplete. Received: {source}"
        ) from error

    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in state.items()
    ):
        raise ValueError(
            "The PyTorch file should hold a dictionary of named tensors. "
            f"Received: {source}"
        )
    return {
        name.removeprefix("module."): tensor for name, tensor in state.items()
    }


def _check_archive(path):
    """Refuses a zip file whose entries are larger or lie elsewhere.

    PyTorch stores its entries without compression, under one folder.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    for entry in entries:
        name = pathlib.PurePosixPath(entry.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts:
            raise ValueError(f"an entry points out of it: {entry.filename!r}")
    size, claimed = os.path.getsize(path), sum(e.file_size for e in entries)
    if claimed > size:
        raise ValueError(f"{claimed} bytes are packed into {size}")


def _variables(model, variant, places):
    """Returns the network's variables by their paths.

    Layers that a user put before the network may have any path, and a model
    built inside a name scope has longer ones: what counts is the layer.
    """
    paths = {place.path for group in places.values() for place in group}
    layers = {path.split("/")[0] for path in paths}
    variables = {
        f"{layer.name}/" + f"/{v.path}".rsplit(f"/{layer.name}/", 1)[-1]: v
        for layer in model.layers
        if layer.name in layers
        for v in layer.weights
    }
    if paths != variables.keys():
        raise ValueError(
            f"`model` should be a {variant} as its builder makes it. Received: "
            "a model that differs in the variables "
            f"{sorted(paths ^ variables.keys())}"
        )
    return variables
