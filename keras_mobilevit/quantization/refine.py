"""Ranges and biases of a rounding model, from pictures.

The same that a file gets which is quantized after training: minima and
maxima, narrowed where that lowers the error, and biases that restore the means
of the channels (Nagel et al., arXiv 1906.04721, section 4.2).
"""

from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import DepthwiseConvNormAct
from keras_mobilevit.quantization import clipping
from keras_mobilevit.quantization import graph
from keras_mobilevit.quantization import stock
from keras_mobilevit.quantization.calibration import MEAN_PICTURES
from keras_mobilevit.quantization.calibration import channel_means
from keras_mobilevit.quantization.quantizers import RoundedActivation
from keras_mobilevit.quantization.quantizers import RoundedKernel

BATCH = 16
_POOLING = (
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
)
_BIASED = (
    ConvNormAct,
    DepthwiseConvNormAct,
    *(stock.QUANTIZED[layer] for layer in stock.WEIGHTED),
    stock.QuantizedBatchNormalization,
)


def measure_ranges(model: keras.Model, pictures: np.ndarray) -> None:
    """Sets each range to the smallest and the largest value of its tensor.

    Args:
        model: a rounding model, changed in place. Its kernels are rounded.
        pictures: float32 array `(n, height, width, channels)`, as the model
            takes them.

    Raises:
        ValueError: a layer computes NaN or infinity; it is named.
    """
    bounds, faults = {}, []
    trails = {layer: trail for trail, layer in graph.walk(model)}

    def observe(rounding, values):
        if not np.isfinite(values).all():
            faults.append(trails[rounding])
        low, high = bounds.get(rounding, (np.inf, -np.inf))
        bounds[rounding] = (min(low, values.min()), max(high, values.max()))

    _watch_unrounded(model, pictures, BATCH, observe)
    if faults:
        holder, _, own = faults[0].rpartition("/")
        raise graph.not_finite(holder or own)
    for rounding, (low, high) in bounds.items():
        rounding.set_range(float(low), float(high))


def narrow_ranges(model: keras.Model, pictures: np.ndarray) -> None:
    """Narrows the measured ranges where that lowers the squared error.

    See `clipping`. Ranges of what is only averaged, or pooled over a whole
    map, and of single numbers stay whole.

    Args:
        model: a rounding model whose ranges are measured; changed in place.
        pictures: as of `measure_ranges`.
    """
    pooled = _pooled(model, pictures[:1])
    counts = clipping.Counts(
        {
            rounding: rounding.range()
            for rounding in graph.find(model, RoundedActivation)
            if rounding.bounds is None
            and not rounding.averaged
            and rounding not in pooled
        }
    )

    def count(rounding, values):
        if rounding in counts and values.size > 1:
            rows = values.reshape(-1, values.shape[-1])
            counts.add(rounding, clipping.sample(rows))

    _watch_unrounded(model, pictures[: clipping.PICTURES], 1, count)
    for rounding in counts:
        rounding.set_range(*counts.best(rounding))


def _pooled(model, picture):
    """Returns the roundings whose tensors only poolings of whole maps read.

    Their errors cancel in a mean, what is clipped does not; and the largest
    values are what a maximum is made of.
    """
    makers, readers, kept = {}, {}, []

    def noted(layer, call):
        def run(*args, **kwargs):
            outputs = call(*args, **kwargs)
            read = keras.tree.flatten((args, kwargs))
            made = keras.tree.flatten(outputs)
            kept.append((read, made))  # so that no `id` comes twice
            passed = {id(tensor) for tensor in made}
            for tensor in read:
                if id(tensor) not in passed:
                    readers.setdefault(id(tensor), []).append(layer)
            if isinstance(layer, RoundedActivation):
                makers.update((id(tensor), layer) for tensor in made)
            return outputs

        return run

    with graph.calling(
        (layer, noted(layer, layer.call)) for _, layer in graph.computing(model)
    ):
        outputs = model(picture, training=False)
    for tensor in keras.tree.flatten(outputs):
        readers.setdefault(id(tensor), []).append(model)
    return set(makers.values()) - {
        rounding
        for tensor, rounding in makers.items()
        if not all(
            isinstance(reader, _POOLING)
            # What no layer reads is read inside of one.
            for reader in readers.get(tensor, [model])
        )
    }


def correct_biases(model: keras.Model, pictures: np.ndarray) -> None:
    """Gives each channel of each layer the mean that it has in float.

    Layer after layer, in one pass: each is corrected for what the corrected
    ones before it leave.

    Args:
        model: a rounding model whose ranges are set; changed in place.
        pictures: as of `measure_ranges`.
    """
    pictures = pictures[:MEAN_PICTURES]
    kernels = graph.find(model, RoundedKernel)
    means = {}

    def remember(rounding, values):
        means.setdefault(rounding, []).append(channel_means(values))

    def corrected(rounding, bias):
        original, (mean,) = rounding.call, means[rounding]

        def call(inputs, training=None):
            (found,) = rounding.followed(original(inputs))
            found = channel_means(ops.convert_to_numpy(found))
            shift = (mean - found).astype("float32")
            bias.assign_add(shift)
            return original(inputs + ops.cast(shift, inputs.dtype))

        return rounding, call

    with graph.calling([(kernel, lambda weight: weight) for kernel in kernels]):
        _watch_unrounded(model, pictures, len(pictures), remember)
    # A layer that is called twice has no one mean.
    once = [pair for pair in _biased(model) if len(means[pair[0]]) == 1]
    with graph.calling([corrected(*pair) for pair in once]):
        model(pictures, training=False)


def _biased(model: keras.Model) -> Iterator[tuple]:
    """Yields `(rounding, bias)` of what is rounded right after a bias."""
    for layer in graph.find(model, _BIASED):
        norm = getattr(layer, "norm", None) or layer
        offsets = [getattr(norm, "beta", None), getattr(layer, "bias", None)]
        biases = [offset for offset in offsets if offset is not None]
        roundings = [
            rounding
            for name in ("outputs", "rounded_inputs", "rounded_outputs")
            if isinstance(
                rounding := getattr(layer, name, None), RoundedActivation
            )
        ]
        if biases and roundings:
            yield roundings[0], biases[0]


def _watch_unrounded(model, pictures, batch, record):
    """Calls `record(rounding, values)` for each tensor; none is rounded."""

    def watched(rounding):
        def call(inputs, training=None):
            for tensor in rounding.followed(inputs):
                record(rounding, ops.convert_to_numpy(tensor))
            return inputs

        return rounding, call

    roundings = graph.find(model, RoundedActivation)
    with graph.calling([watched(rounding) for rounding in roundings]):
        for start in range(0, len(pictures), batch):
            model(pictures[start : start + batch], training=False)
