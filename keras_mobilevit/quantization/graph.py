"""Finding layers inside a model, watching them, and copying a model."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_mobilevit.layers.base import PACKAGE


def walk(
    layer: keras.layers.Layer,
) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yields every layer inside a layer, each once, outermost first.

    Yields:
        The names on the way to a layer, joined by `/`, and the layer; for the
        first, which is `layer` itself, the names are empty.
    """
    seen, waiting = set(), [("", layer)]
    while waiting:
        trail, layer = waiting.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        yield trail, layer
        waiting.extend(
            (f"{trail}/{child.name}" if trail else child.name, child)
            for child in reversed(_children(layer))
        )


def find(
    model: keras.Model, kind: type | tuple[type, ...]
) -> list[keras.layers.Layer]:
    """Returns every layer of a class, or of some, in a model, at any depth."""
    return [layer for _, layer in walk(model) if isinstance(layer, kind)]


def computing(
    model: keras.Model,
) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yields what `walk` yields, without models and their inputs."""
    for trail, layer in walk(model):
        if not isinstance(layer, (keras.Model, keras.layers.InputLayer)):
            yield trail, layer


def _children(layer):
    held = list(getattr(layer, "layers", ()))
    for value in vars(layer).values():
        held.extend(value if isinstance(value, (list, tuple)) else [value])
    return [child for child in held if isinstance(child, keras.layers.Layer)]


def _weights(model):
    """Returns `{names on the way: variable}`, without auto-numbered parts."""
    found = {}
    for trail, layer in walk(model):
        inner = {id(w) for child in _children(layer) for w in child.weights}
        for variable in layer.weights:
            if id(variable) not in inner:
                found[f"{trail}/{variable.name}"] = variable
    return found


@contextlib.contextmanager
def watching(
    layers: Iterable[keras.layers.Layer],
    record: Callable[[keras.layers.Layer, np.ndarray, np.ndarray], None],
) -> Iterator[None]:
    """Calls `record(layer, inputs, outputs)` at every call of some layers.

    It works for eager calls, `model(pictures)`, under any Keras backend.
    """

    def watched(layer, call):
        def run(inputs, *args, **kwargs):
            outputs = call(inputs, *args, **kwargs)
            record(
                layer,
                keras.ops.convert_to_numpy(inputs),
                keras.ops.convert_to_numpy(outputs),
            )
            return outputs

        return run

    calls = [(layer, watched(layer, layer.call)) for layer in layers]
    with calling(calls):
        yield


@contextlib.contextmanager
def calling(
    calls: Iterable[tuple[keras.layers.Layer, Callable[..., Any]]],
) -> Iterator[None]:
    """Has other functions called in the place of some layers' `call`.

    It works for eager calls, `model(pictures)`, under any Keras backend.

    Args:
        calls: `(layer, function)`; the functions take what `call` takes.
    """
    calls = list(calls)
    for layer, function in calls:
        vars(layer)["call"] = function
    try:
        yield
    finally:
        for layer, _ in calls:
            del vars(layer)["call"]


def not_finite(trail: str) -> ValueError:
    """Returns the error that a layer computes NaN or infinity."""
    return ValueError(
        "The model computes NaN or infinity on the calibration pictures, "
        f"first seen in the layer {trail!r}. Check its weights and the "
        "pictures."
    )


def check_finite(model: keras.Model, pictures: np.ndarray) -> None:
    """Raises `ValueError` naming the first layer that gives NaN or infinity.

    Args:
        model: a model with one input.
        pictures: a batch for it.
    """

    faults = []

    def checked(trail, call):
        def run(*args, **kwargs):
            outputs = call(*args, **kwargs)
            for values in keras.tree.flatten(outputs):
                if not bool(keras.ops.all(keras.ops.isfinite(values))):
                    faults.append(trail)
            return outputs

        return run

    with calling(
        (layer, checked(trail, layer.call)) for trail, layer in computing(model)
    ):
        model(pictures, training=False)
    if faults:
        raise not_finite(faults[0])


def own_layers(config: Any) -> Iterator[dict[str, Any]]:
    """Yields the nodes of this package's layers in a model's config.

    Args:
        config: a serialised model, or any part of it. A node is a dictionary
            with `class_name`, `registered_name` and `config`.
    """
    for _, node in own_places(config):
        yield node


def own_places(
    config: Any, trail: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields what `own_layers` yields, each with the names on the way to it.

    Args:
        config: the config of a model, or any part of it.
        trail: the names on the way to that part, joined by `/` as by `walk`.
    """
    if isinstance(config, dict):
        inner = config.get("config")
        if isinstance(inner, dict) and "name" in inner:
            trail = f"{trail}/{inner['name']}" if trail else inner["name"]
        name = str(config.get("registered_name", ""))
        if name.startswith(f"{PACKAGE}>"):
            yield trail, config
        config = config.values()
    elif not isinstance(config, (list, tuple)):
        return
    for value in config:
        yield from own_places(value, trail)


def check_model(model: keras.Model) -> None:
    """Raises `ValueError` unless it is a model whose inputs are known.

    Args:
        model: what the user passed.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a Keras model; `keras_mobilevit.tflite."
            "load_model(path)` reads one from its file. "
            f"Received: {type(model).__name__}"
        )
    if not getattr(model, "inputs", None):
        raise ValueError(
            "`model` must be a functional or sequential model that begins "
            "with `keras.Input`. "
            f"Received: {type(model).__name__} {model.name!r}"
        )


def picture_shape(model: keras.Model) -> tuple[int | None, ...]:
    """Returns the shape of the pictures that a model takes, batch first.

    Raises:
        ValueError: it takes anything else.
    """
    shapes = [tuple(source.shape) for source in model.inputs]
    if len(shapes) > 1 or len(shapes[0]) != 4 or None in shapes[0][1:]:
        raise ValueError(
            "`model` must have one input `(batch, height, width, channels)` "
            "of known size. Received: a model with inputs of the shapes "
            f"{shapes}"
        )
    return shapes[0]


def serialise(model: keras.Model) -> dict[str, Any]:
    """Returns the serialised form of a model whose layers it names.

    Raises:
        ValueError: it names none.
    """
    serialised = keras.saving.serialize_keras_object(model)
    if "layers" not in serialised["config"]:
        raise ValueError(
            "`model` must be a functional or sequential model: a subclass of "
            "`keras.Model` does not tell what it is made of. Received: "
            f"{type(model).__name__} {model.name!r}"
        )
    return serialised


def copy_with(
    model: keras.Model,
    edit: Callable[[dict[str, Any]], None],
    forgotten: Callable[[str, keras.Variable], bool] | None = None,
) -> keras.Model:
    """Builds a model again from an edited config, with the same weights.

    Args:
        model: a functional or sequential model.
        edit: called with the config of the model, to be changed in place.
            Weights that the change brings keep their initial values.
        forgotten: called as `forgotten(place, variable)` to tell whether the
            copy may lack a weight; `place` is the names on the way to it,
            joined by `/`.

    Returns:
        The new model; the old one is untouched.

    Raises:
        ValueError: the model cannot be rebuilt from its config.
    """
    serialised = serialise(model)
    edit(serialised["config"])
    for key in ("compile_config", "build_config"):
        serialised.pop(key, None)
    try:
        copied = keras.saving.deserialize_keras_object(serialised)
    except TypeError as error:  # Keras' way to say so
        reason = str(error).rpartition("Exception encountered: ")[2][:300]
        raise ValueError(
            "`model` cannot be built again from its config: register your own "
            "classes with `@keras.saving.register_keras_serializable()`. "
            f"Received: {model.name!r}: {reason}"
        ) from error
    values, places = _weights(model), _weights(copied)
    missing = sorted(
        place
        for place in set(values) - set(places)
        if not (forgotten and forgotten(place, values[place]))
    )
    if missing or len(values) != len(model.weights):
        raise ValueError(
            "`model` does not come back from its config with the same "
            "weights: give each layer that it holds a name of its own. "
            f"Received: {model.name!r}, which misses {missing}"
        )
    for place in set(values) & set(places):
        places[place].assign(values[place])
    return copied
