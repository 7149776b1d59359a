"""The model that a file is made from, as the file needs it."""

import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from keras_mobilevit.layers import MobileViTV2Block
from keras_mobilevit.quantization import graph

# Types that layers compute in, and the policies of such names.
_HALF = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


def load_model(model: keras.Model | str | os.PathLike) -> keras.Model:
    """Returns a Keras model as it is, or the one that a path holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no model, or its file cannot be read.
    """
    if isinstance(model, keras.Model):
        return model
    if not isinstance(model, (str, os.PathLike)):
        raise ValueError(
            "`model` must be a Keras model or the path of a `.keras` file. "
            f"Received: {type(model).__name__}"
        )
    if not Path(model).is_file():
        raise FileNotFoundError(
            f"There is no model file at this path. Received: model={model}"
        )
    try:
        return keras.saving.load_model(model, compile=False)
    except Exception as error:  # Keras raises whatever its readers raise.
        raise ValueError(
            "`model` must be a whole model saved by `model.save('x.keras')`. "
            f"Received: model={model}, which cannot be read: {error}"
        ) from error


def with_static_input(
    model: keras.Model, input_shape: Sequence[int] | None
) -> keras.Model:
    """Returns the model with a picture of known size as its one input.

    Raises:
        ValueError: it has other inputs, or no size that is known.
    """
    if len(getattr(model, "inputs", None) or ()) != 1 or (
        len(model.inputs[0].shape) != 4
    ):
        raise ValueError(
            "`model` must have one input `(batch, height, width, channels)`. "
            f"Received: a model with the inputs "
            f"{getattr(model, 'inputs', None)}"
        )
    own = tuple(model.inputs[0].shape[1:])
    wanted = own
    if input_shape is not None:
        wanted = tuple(input_shape)
        wanted = (*wanted, own[2]) if len(wanted) == 2 else wanted
        if len(wanted) != 3 or not all(
            isinstance(size, int) and size > 0 for size in wanted
        ):
            raise ValueError(
                "`input_shape` must be `(height, width)` in pixels. "
                f"Received: input_shape={input_shape}"
            )
    if None in wanted:
        raise ValueError(
            "A file has a fixed input size, and the model takes any: pass "
            f"`input_shape=(height, width)`. Received: input_shape={own}"
        )
    if wanted == own:
        return model
    image = keras.Input(wanted, name=model.inputs[0].name)
    resized = keras.models.clone_model(model, input_tensors=image)
    resized.set_weights(model.get_weights())
    return resized


def in_float32(model: keras.Model) -> keras.Model:
    """Returns a model that computes in float32, as a file is written.

    One that was trained under a policy such as `mixed_float16` is built again;
    any other is returned as it is.

    Raises:
        ValueError: the model cannot be rebuilt from its config.
    """
    if not any(
        layer.compute_dtype in _HALF
        for _, layer in graph.walk(model)
        if not isinstance(layer, keras.layers.InputLayer)
    ):
        return model

    def edit(part):
        """Names float32 wherever a config names a type or a policy."""
        if isinstance(part, dict):
            if part.get("class_name") == "DTypePolicy":
                part["config"]["name"] = "float32"
            elif part.get("dtype") in _HALF:
                part["dtype"] = "float32"
            part = list(part.values())
        for inner in part if isinstance(part, (list, tuple)) else ():
            edit(inner)

    return graph.copy_with(model, edit)


def on_the_map(model: keras.Model) -> keras.Model:
    """Returns a model whose linear attention needs no unfolded patches.

    It computes the same in operations that an Edge TPU has, see
    `MobileViTV2Block`; a model without such blocks is returned as it is.

    Raises:
        ValueError: the model cannot be rebuilt from its config.
    """
    if not graph.find(model, MobileViTV2Block):
        return model

    def set_flag(config):
        for node in graph.own_layers(config):
            if node["class_name"] == "MobileViTV2Block":
                node["config"]["unfolds"] = False

    return graph.copy_with(model, set_flag)


def pixel_scale(
    model: keras.Model, pictures: np.ndarray | None = None
) -> float | None:
    """Returns what a model wants its pixels, 0..255, to be divided by.

    Args:
        model: a model with one picture as input.
        pictures: some that it takes, float.

    Returns:
        1.0 if `pictures` have such values or, without any, a layer scales
        them; 255.0 if they go to 1; `None` if nothing tells.
    """
    if pictures is not None:
        low, high = float(np.min(pictures)), float(np.max(pictures))
        return 1.0 if high > 2.0 else 255.0 if 0.0 <= low else None
    scalings = (keras.layers.Rescaling, keras.layers.Normalization)
    return 1.0 if graph.find(model, scalings) else None
