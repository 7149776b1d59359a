"""What the tensors of the networks are called in published checkpoints.

The names form tables that follow the layers. A row is the content of a
module, then its name in Keras, in cvnets (Apple's code), in timm and in
transformers; names of inner modules are appended to those of outer ones. The
content is a table of inner modules or, for a tensor, its layout.
"""

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mobilevit.configs import MOBILEVIT
from keras_mobilevit.configs import MOBILEVIT_V2

#: The namings that are known, with the channel order that the first
#: convolution of the published MobileViT v1 files expects: cvnets trained on
#: pictures read by OpenCV, and timm alone turned the kernel round. v2 was
#: trained on RGB, and nobody has turned it.
CHANNEL_ORDERS = {"cvnets": "BGR", "timm": "RGB", "transformers": "BGR"}

_COLUMNS = ("keras", *CHANNEL_ORDERS)


def _same(content, keras_name, name):
    """A row whose name is equal in all checkpoints."""
    return (content, keras_name, name, name, name)


_BATCH_NORM = tuple(
    (
        "vector",
        f"/norm/{keras_name}",
        f".block.norm.{name}",
        f".bn.{name}",
        f".normalization.{name}",
    )
    for keras_name, name in (
        ("gamma", "weight"),
        ("beta", "bias"),
        ("moving_mean", "running_mean"),
        ("moving_variance", "running_var"),
    )
)
_KERNEL = ("/kernel", ".block.conv.weight", ".conv.weight")
_CONV = (("conv", *_KERNEL, ".convolution.weight"), *_BATCH_NORM)
_DEPTHWISE = (("depthwise", *_KERNEL, ".convolution.weight"), *_BATCH_NORM)
_BARE_CONV = (
    ("conv", "/kernel", ".block.conv.weight", ".weight", ".convolution.weight"),
)
_LINEAR = (
    _same("linear", "/kernel", ".weight"),
    _same("vector", "/bias", ".bias"),
)
_LAYER_NORM = (
    _same("vector", "/gamma", ".weight"),
    _same("vector", "/beta", ".bias"),
)

_INVERTED_RESIDUAL = (
    (_CONV, "/expand", ".block.exp_1x1", ".conv1_1x1", ".expand_1x1"),
    (_DEPTHWISE, "/depthwise", ".block.conv_3x3", ".conv2_kxk", ".conv_3x3"),
    (_CONV, "/project", ".block.red_1x1", ".conv3_1x1", ".reduce_1x1"),
)
_TRANSFORMER = (
    (_LAYER_NORM, "/norm1", ".pre_norm_mha.0", ".norm1", ".layernorm_before"),
    # In cvnets and timm the three are one tensor, in this order.
    *(
        (
            _LINEAR,
            f"/attention/{name}",
            ".pre_norm_mha.1.qkv_proj",
            ".attn.qkv",
            f".attention.attention.{name}",
        )
        for name in ("query", "key", "value")
    ),
    (
        _LINEAR,
        "/attention/project",
        ".pre_norm_mha.1.out_proj",
        ".attn.proj",
        ".attention.output.dense",
    ),
    (_LAYER_NORM, "/norm2", ".pre_norm_ffn.0", ".norm2", ".layernorm_after"),
    (
        _LINEAR,
        "/ffn_expand",
        ".pre_norm_ffn.1",
        ".mlp.fc1",
        ".intermediate.dense",
    ),
    (_LINEAR, "/ffn_project", ".pre_norm_ffn.4", ".mlp.fc2", ".output.dense"),
)


def _mobilevit_block(depth):
    return (
        (_CONV, "/local_conv", ".local_rep.conv_3x3", ".conv_kxk", ".conv_kxk"),
        (
            _BARE_CONV,
            "/local_project",
            ".local_rep.conv_1x1",
            ".conv_1x1",
            ".conv_1x1",
        ),
        *(
            (
                _TRANSFORMER,
                f"/transformer_{k}",
                f".global_rep.{k}",
                f".transformer.{k}",
                f".transformer.layer.{k}",
            )
            for k in range(depth)
        ),
        (_LAYER_NORM, "/norm", f".global_rep.{depth}", ".norm", ".layernorm"),
        (_CONV, "/project", ".conv_proj", ".conv_proj", ".conv_projection"),
        (_CONV, "/fusion", ".fusion", ".conv_fusion", ".fusion"),
    )


# In all checkpoints one tensor, in this order: 1 + 2 * width channels.
_LINEAR_ATTENTION = tuple(
    (
        (
            _same("conv", "/kernel", ".weight"),
            _same("vector", "/bias", ".bias"),
        ),
        f"/attention/{name}",
        f".pre_norm_attn.1.{joint}.block.conv",
        f".attn.{joint}",
        f".attention.{joint}.convolution",
    )
    for name, joint in (
        ("query", "qkv_proj"),
        ("key", "qkv_proj"),
        ("value", "qkv_proj"),
        ("project", "out_proj"),
    )
)
_LINEAR_TRANSFORMER = (
    (_LAYER_NORM, "/norm1", ".pre_norm_attn.0", ".norm1", ".layernorm_before"),
    *_LINEAR_ATTENTION,
    (_LAYER_NORM, "/norm2", ".pre_norm_ffn.0", ".norm2", ".layernorm_after"),
    *(
        (
            (
                _same("conv", "/kernel", ".weight"),
                _same("vector", "/bias", ".bias"),
            ),
            f"/ffn_{name}",
            f".pre_norm_ffn.{place}.block.conv",
            f".mlp.fc{i}",
            f".ffn.conv{i}.convolution",
        )
        for i, name, place in ((1, "expand", 1), (2, "project", 3))
    ),
)


def _mobilevit_v2_block(depth):
    return (
        (
            _DEPTHWISE,
            "/local_conv",
            ".local_rep.0",
            ".conv_kxk",
            ".conv_kxk",
        ),
        (
            _BARE_CONV,
            "/local_project",
            ".local_rep.1",
            ".conv_1x1",
            ".conv_1x1",
        ),
        *(
            (
                _LINEAR_TRANSFORMER,
                f"/transformer_{k}",
                f".global_rep.{k}",
                f".transformer.{k}",
                f".transformer.layer.{k}",
            )
            for k in range(depth)
        ),
        (_LAYER_NORM, "/norm", f".global_rep.{depth}", ".norm", ".layernorm"),
        (_CONV, "/project", ".conv_proj", ".conv_proj", ".conv_projection"),
    )


def _network(variant):
    """The whole network, in the order of its layers."""
    is_v2 = variant in MOBILEVIT_V2
    prefix = "mobilevitv2" if is_v2 else "mobilevit"
    depths = {**MOBILEVIT, **MOBILEVIT_V2}[variant].transformer_depths
    block = _mobilevit_v2_block if is_v2 else _mobilevit_block
    stages = f"{prefix}.encoder.layer"
    yield (_CONV, "stem", "conv_1", "stem", f"{prefix}.conv_stem")
    second = ("block2_mv2_1", *(() if is_v2 else ("block2_mv2_2",)), "block2")
    for i, names in enumerate((("block1",), second)):
        for j, name in enumerate(names):
            yield (
                _INVERTED_RESIDUAL,
                name,
                f"layer_{i + 1}.{j}",
                f"stages.{i}.{j}",
                f"{stages}.{i}.layer.{j}",
            )
    for i, depth in enumerate(depths, start=2):
        yield (
            _INVERTED_RESIDUAL,
            f"block{i + 1}_mv2_1",
            f"layer_{i + 1}.0",
            f"stages.{i}.0",
            f"{stages}.{i}.downsampling_layer",
        )
        yield (
            block(depth),
            f"block{i + 1}",
            f"layer_{i + 1}.1",
            f"stages.{i}.1",
            f"{stages}.{i}",
        )
    if not is_v2:
        yield (
            _CONV,
            "conv_1x1_exp",
            "conv_1x1_exp",
            "final_conv",
            "mobilevit.conv_1x1_exp",
        )
    dense = "classifier.1" if is_v2 else "classifier.fc"
    yield (_LINEAR, "predictions", dense, "head.fc", "classifier")


def _flatten(rows, outer=("",) * len(_COLUMNS)):
    for content, *names in rows:
        names = [start + end for start, end in zip(outer, names, strict=True)]
        if isinstance(content, str):
            yield content, names
        else:
            yield from _flatten(content, names)


@dataclasses.dataclass(frozen=True)
class Place:
    """A variable of the Keras model and how a checkpoint lays it out.

    Attributes:
        path: path of the variable, from the name of its top layer on.
        layout: `"conv"` (O, I, H, W), `"depthwise"` (C, 1, H, W), `"linear"`
            (out, in) or `"vector"`.
    """

    path: str
    layout: str

    def stored_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape in a checkpoint of a variable of `shape`."""
        if self.layout == "linear":  # of tokens: a 1x1 convolution in Keras
            return tuple(shape[:-3:-1])
        order = {"conv": (3, 2, 0, 1), "depthwise": (2, 3, 0, 1)}
        axes = order.get(self.layout, range(len(shape)))
        return tuple(shape[axis] for axis in axes)

    def to_keras(self, array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Returns a stored array as the value of a variable of `shape`."""
        if self.layout == "linear":
            return array.T.reshape(shape)
        order = {"conv": (2, 3, 1, 0), "depthwise": (2, 3, 0, 1)}
        return array.transpose(order.get(self.layout, range(array.ndim)))


def tensor_names(variant: str, naming: str) -> dict[str, list[Place]]:
    """Returns the tensors of a checkpoint and where they belong.

    Args:
        variant: a key of `MOBILEVIT` or `MOBILEVIT_V2`.
        naming: `"cvnets"`, `"timm"` or `"transformers"`.

    Returns:
        For each name the variables that share the tensor's first axis, in
        order: three for a joint query, key and value, else one. Counters of
        batches are left out.
    """
    column = _COLUMNS.index(naming)
    places = {}
    for layout, names in _flatten(_network(variant)):
        place = Place(names[0], layout)
        places.setdefault(names[column], []).append(place)
    return places


def channel_order(variant: str, naming: str) -> str:
    """Returns the order of colours that files of this naming expect."""
    return "RGB" if variant in MOBILEVIT_V2 else CHANNEL_ORDERS[naming]


def is_head(name: str) -> bool:
    """Returns whether a tensor belongs to the classifier, in any naming."""
    return name.startswith(("classifier.", "head."))


def is_ignored(name: str) -> bool:
    """Returns whether a tensor means nothing to Keras: a batch counter."""
    return name.endswith(".num_batches_tracked")


def recognise(names: Iterable[str], variant: str) -> str | None:
    """Returns the naming that most of `names` follow, or `None`."""
    names = set(names)
    counts = {
        naming: len(names & tensor_names(variant, naming).keys())
        for naming in CHANNEL_ORDERS
    }
    best = max(counts, key=counts.get)
    return best if counts[best] else None


def map_tensors(
    tensors: Mapping[str, Any],
    places: Mapping[str, Sequence[Place]],
    shapes: Mapping[str, Sequence[int]],
) -> dict[str, np.ndarray]:
    """Gives each variable its value, if every tensor fits.

    Args:
        tensors: those of a checkpoint by name, NumPy's or PyTorch's.
        places: where they belong.
        shapes: of the variables, by path.

    Returns:
        The values of the variables, by path.

    Raises:
        ValueError: a tensor is missing, unknown, or of another shape or
            type. The message names all of them.
    """
    rows = {
        name: [place.stored_shape(shapes[place.path]) for place in group]
        for name, group in places.items()
    }
    expected = {
        name: (sum(shape[0] for shape in parts), *parts[0][1:])
        for name, parts in rows.items()
    }
    _check(tensors, expected, set(filter(is_head, places)))
    values = {}
    for name, group in places.items():
        ends = np.cumsum([shape[0] for shape in rows[name]])
        parts = np.split(_to_numpy(tensors[name]), ends[:-1])
        for place, part in zip(group, parts, strict=True):
            values[place.path] = place.to_keras(part, shapes[place.path])
    return values


def _check(tensors, expected, head):
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    unlike = [
        name
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    no_float = {
        name: str(tensor.dtype)
        for name, tensor in tensors.items()
        if name in expected and not _is_float(tensor)
    }
    lines = {
        "Missing": missing,
        "Unexpected": extra,
        "Of another shape": [
            f"{name} {found[name]} instead of {expected[name]}"
            for name in unlike
        ],
        "Not of a float type": [f"{n} {d}" for n, d in no_float.items()],
    }
    message = [
        f"{title} ({len(entries)}): {', '.join(entries)}."
        for title, entries in lines.items()
        if entries
    ]
    if not message:
        return
    # Another number of classes, and nothing else.
    classes = {found[name][:1] for name in unlike}
    same_width = all(found[n][1:] == expected[n][1:] for n in unlike)
    if len(message) == len(classes) == 1 and head == {*unlike} and same_width:
        (classes,) = classes.pop()
        message.append(
            f"The file has {classes} classes: pass `include_top=False` or "
            f"`classes={classes}`."
        )
    raise ValueError("\n".join(message))


def _is_float(tensor):
    if isinstance(tensor, np.ndarray):
        return tensor.dtype.kind == "f"
    return tensor.is_floating_point()


def _to_numpy(tensor):
    if isinstance(tensor, np.ndarray):
        return tensor
    return tensor.detach().float().numpy()
