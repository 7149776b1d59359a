"""Quantization-aware training: a model that rounds as its int8 file will."""

from collections.abc import Iterator
from typing import Any

import keras

from keras_mobilevit.layers.base import QuantizableLayer
from keras_mobilevit.quantization import calibration
from keras_mobilevit.quantization import graph
from keras_mobilevit.quantization import refine as refinement
from keras_mobilevit.quantization import stock
from keras_mobilevit.quantization.equalize import equalize as equalize_model
from keras_mobilevit.quantization.quantizers import Int8
from keras_mobilevit.quantization.quantizers import RoundedActivation
from keras_mobilevit.quantization.quantizers import RoundedKernel
from keras_mobilevit.quantization.quantizers import is_quantized

#: Prefix of the layer that rounds the input of a model.
ROUNDED = "rounded_"


def quantize_model(
    model: keras.Model,
    calibration_data: Any,
    *,
    equalize: bool = True,
    refine: bool = True,
    freeze_batch_norm: bool = False,
) -> keras.Model:
    """Returns a model that computes and trains as its int8 file will compute.

    Every kernel and every tensor that the file holds in int8 is rounded to 8
    bits, by tfmot's quantizers. The ranges are measured on
    `calibration_data`; training then follows them. The result is an ordinary
    Keras model: compile it, `fit` it at about a hundredth of the learning
    rate that the float model was trained with, save it, and give it to
    `keras_mobilevit.tflite.convert(..., precision="int8")`.

    Args:
        model: a functional or sequential model of this package's layers and
            of Keras' convolution, dense, normalization, activation, pooling,
            merging and reshaping layers, nested at any depth. It is not
            changed.
        calibration_data: some hundred typical pictures as the model takes
            them: an array `(n, height, width, channels)`, or a
            `tf.data.Dataset` or another iterable of batches, with or without
            labels.
        equalize: whether to start from the equalised model, see
            `keras_mobilevit.quantization.equalize`.
        refine: whether ranges are narrowed where that lowers the error on the
            pictures, and biases restore the means that rounding has shifted:
            then training starts where the best file without it ends. Biases
            keep the correction when the model is stripped.
        freeze_batch_norm: whether batch normalizations keep their statistics
            and parameters in training. A short training towards the float
            model's outputs is better with them kept: the statistics of single
            batches are noise.

    Returns:
        The quantized model, uncompiled.

    Raises:
        ValueError: a layer cannot be quantized (all of them are named), the
            model is quantized already, or the pictures are unusable.
    """
    graph.check_model(model)
    if is_quantized(model):
        raise ValueError(
            "`model` is quantized already: train it as it is, or pass "
            "`quantization.strip(model)`. Received: "
            f"{model.name!r}"
        )
    faults = list(_faults(model))
    if faults:
        raise ValueError(
            "`model` holds layers that have no int8 form here: "
            f"{'; '.join(faults)}."
        )
    pixels = calibration.takes_pixels(model)
    pictures = calibration.model_pictures(model, calibration_data)
    if equalize:
        model, _ = equalize_model(model, pictures)
    int8 = Int8(freeze_batch_norm=freeze_batch_norm)
    bounds = (0.0, 255.0) if pixels else None

    def edit(config):
        _set_quantization(config, int8)
        _swap_stock_layers(model, config, int8)
        _round_inputs(config, bounds)

    quantized = graph.copy_with(model, edit)
    refinement.measure_ranges(quantized, pictures)
    if refine:
        refinement.narrow_ranges(quantized, pictures)
        refinement.correct_biases(quantized, pictures)
    return quantized


def strip(model: keras.Model) -> keras.Model:
    """Returns a quantized model without its rounding: a float model.

    Args:
        model: what `quantize_model` returned, trained or not.

    Returns:
        A model of plain layers with the same weights.

    Raises:
        ValueError: the model is not quantized.
    """
    if not is_quantized(model):
        raise ValueError(
            "`model` must come from `quantization.quantize_model`. Received: "
            f"{model.name!r}, which rounds nothing"
        )

    def edit(config):
        _set_quantization(config, None)
        _swap_back(config)

    return graph.copy_with(model, edit, forgotten=_is_range)


def bake(model: keras.Model) -> keras.Model:
    """Returns a quantized model whose kernels are rounded once for all.

    It computes what `model` computes; only activations are rounded as it
    runs. A converter finds the grid of constant kernels by itself.

    Args:
        model: what `quantize_model` returned, trained or not.
    """

    def edit(config):
        baked = Int8(baked=True)
        _set_quantization(config, baked)

    baked = graph.copy_with(model, edit, forgotten=_is_range)
    places = {trail: layer for trail, layer in graph.walk(baked)}
    for trail, layer in graph.walk(model):
        for name, rounding in vars(layer).items():
            if isinstance(rounding, RoundedKernel):
                name = name.removeprefix("rounded_")
                rounded = rounding(getattr(layer, name).value)
                getattr(places[trail], name).assign(rounded)
    return baked


def _is_range(place, variable):
    return place.endswith(("/range_min", "/range_max"))


def _set_quantization(config, quantization):
    """Gives every quantizable layer its quantization."""
    serialised = quantization and keras.saving.serialize_keras_object(
        quantization
    )
    for node in graph.own_layers(config):
        if "quantization" in node["config"]:
            node["config"]["quantization"] = serialised


def _parts(model: keras.Model, config: dict) -> Iterator[tuple]:
    """Yields `(node, layer, readers)` of a model's config, layer by layer.

    `layer` is `None` for an operation that is no layer; `readers` are the
    layers that take the output.
    """
    nodes = config["layers"]
    names = [node["config"].get("name", node.get("name")) for node in nodes]
    found = {layer.name: layer for layer in model.layers}
    readers = {name: [] for name in names}
    if isinstance(model, keras.Sequential):
        for name, reader in zip(names, names[1:]):
            readers[name].append(found.get(reader))
    else:
        for name, node in zip(names, nodes):
            for source, *_ in _histories(node.get("inbound_nodes", ())):
                readers[source].append(found.get(name))
        for source, *_ in _ends(config["output_layers"]):
            readers[source].append(None)
    for name, node in zip(names, nodes):
        layer = found.get(name)
        is_input = node["class_name"] == "InputLayer"
        if not is_input:
            yield node, layer, readers[name]


def _ends(ends: Any) -> Iterator[list]:
    """Yields each `[name, node, tensor]` of the ends of a model."""
    if isinstance(ends, (list, tuple)) and ends and isinstance(ends[0], str):
        yield ends
        return
    ends = ends.values() if isinstance(ends, dict) else ends
    for end in ends:
        yield from _ends(end)


def _histories(value: Any) -> Iterator[list]:
    """Yields the `[layer name, node, tensor]` of every input, to be edited."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            yield value["config"]["keras_history"]
            return
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for inner in value:
        yield from _histories(inner)


def _faults(model: keras.Model) -> Iterator[str]:
    """Yields what of a model cannot be quantized, and what to do."""
    config = graph.serialise(model)["config"]
    parts = list(_parts(model, config))
    before = {
        readers[0].name: layer
        for _, layer, readers in parts
        if isinstance(layer, stock.WEIGHTED) and _only(readers) is not None
    }
    for node, layer, _ in parts:
        name = node["config"].get("name", node.get("name"))
        what = f"{name!r} ({node['class_name']})"
        if layer is None:
            yield (
                f"{what} is an operation and no layer: use a layer such as "
                "keras.layers.Add or keras.layers.Rescaling"
            )
        elif isinstance(layer, keras.Model):
            yield from _faults(layer)
        elif getattr(layer, "interpolation", None) == "nearest":
            yield f"{what}: its interpolation must be 'bilinear'"
        elif isinstance(layer, (QuantizableLayer, *stock.CARRYING)):
            continue
        elif type(layer) is keras.layers.LayerNormalization:
            yield f"{what}: use keras_mobilevit.layers.LayerNorm"
        elif type(layer) not in stock.QUANTIZED:
            yield (
                f"{what}: put it outside of the model, or replace it by "
                "layers of keras_mobilevit.layers"
            )
        elif getattr(layer, "data_format", None) == "channels_first":
            yield f"{what}: its data_format must be 'channels_last'"
        elif getattr(layer, "groups", 1) != 1:
            yield (
                f"{what}: its groups must be 1: use a DepthwiseConv2D, or a "
                "convolution for each group"
            )
        elif type(layer) is keras.layers.BatchNormalization:
            if name not in before:
                yield (
                    f"{what} does not follow a convolution or dense layer of "
                    "its own, so no file can merge it: remove it"
                )
            elif not stock.is_linear(before[name]):
                first = before[name].name
                yield (
                    f"{what} follows the activation of {first!r}, so no file "
                    f"can merge it: put that activation behind {name!r}, as "
                    "a layer of its own"
                )
        elif hasattr(layer, "activation") or isinstance(
            layer, (keras.layers.ReLU, keras.layers.Softmax)
        ):
            if stock.function_name(layer) is None:
                yield f"{what}: its activation must be one of {stock.FUNCTIONS}"


def _swap_stock_layers(model, config, quantization):
    """Puts the quantized form in the place of each stock layer."""
    for node, layer, readers in _parts(model, config):
        if isinstance(layer, keras.Model):
            _swap_stock_layers(layer, node["config"], quantization)
        elif type(layer) in stock.QUANTIZED:
            node["config"]["quantization"] = (
                keras.saving.serialize_keras_object(quantization)
            )
            node["config"]["rounds_outputs"] = not _is_merged(layer, readers)
            _set_class(node, stock.QUANTIZED[type(layer)])


def _only(readers):
    """The layer that alone reads an output; `None` if there is no such."""
    return readers[0] if len(readers) == 1 else None


def _is_merged(layer, readers):
    """Whether a file merges the one reader of a layer into it."""
    reader = _only(readers)
    if isinstance(layer, stock.WEIGHTED) and not stock.is_linear(layer):
        return False
    if isinstance(reader, keras.layers.BatchNormalization):
        return isinstance(layer, stock.WEIGHTED)
    return (
        isinstance(reader, (keras.layers.Activation, keras.layers.ReLU))
        and stock.function_name(reader) in stock.FUSED
        and isinstance(
            layer,
            (
                *stock.WEIGHTED,
                keras.layers.BatchNormalization,
                keras.layers.Add,
            ),
        )
    )


def _set_class(node, cls):
    node["module"] = cls.__module__
    node["class_name"] = cls.__name__
    node["registered_name"] = keras.saving.get_registered_name(cls)


def _swap_back(config):
    """Undoes `_swap_stock_layers` and `_round_inputs`."""
    plain = {cls.__name__: parent for parent, cls in stock.QUANTIZED.items()}
    for node in list(graph.own_layers(config)):
        if node["class_name"] in plain:
            for key in ("quantization", "rounds_outputs"):
                del node["config"][key]
            parent = plain[node["class_name"]]
            _set_class(node, parent)
            node["module"] = "keras.layers"
            node["registered_name"] = None
    kept, sources = [], {}
    for node in config["layers"]:
        if node["class_name"] != "RoundedActivation":
            kept.append(node)
            continue
        for history in _histories(node.get("inbound_nodes", ())):
            sources[node["config"]["name"]] = history
    config["layers"] = kept
    _redirect(config, sources)


def _round_inputs(config, bounds):
    """Puts a rounding layer behind each input of the outermost model."""
    taken = {node["config"].get("name") for node in config["layers"]}
    layers, rounded = [], {}
    for node in config["layers"]:
        layers.append(node)
        if node["class_name"] != "InputLayer":
            continue
        source = node["config"]["name"]
        name = ROUNDED + source
        while name in taken:
            name = ROUNDED + name
        layer = RoundedActivation(bounds, name=name)
        new = keras.saving.serialize_keras_object(layer)
        new.pop("build_config", None)
        if "inbound_nodes" in node:
            rounded[source] = [name, 0, 0]
            new["name"] = name
            new["inbound_nodes"] = [
                {"args": [_tensor(node["config"])], "kwargs": {}}
            ]
        layers.append(new)
    # First, as the new layers themselves read the inputs.
    _redirect(config, rounded)
    config["layers"] = layers


def _redirect(config, sources):
    """Has what a model's own layers and its outputs read come from elsewhere.

    Models inside it may hold other layers of the same names.

    Args:
        config: that of the model, changed in place.
        sources: `{layer name: [layer name, node, tensor]}`.
    """
    histories = list(_ends(config.get("output_layers", ())))
    for node in config["layers"]:
        histories.extend(_histories(node.get("inbound_nodes", ())))
    for history in histories:
        history[:] = sources.get(history[0], history)


def _tensor(config):
    """The output of an input layer, in a functional model's config."""
    return {
        "class_name": "__keras_tensor__",
        "config": {
            "shape": config["batch_shape"],
            "dtype": config["dtype"],
            "keras_history": [config["name"], 0, 0],
        },
    }
