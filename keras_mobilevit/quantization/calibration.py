"""Pictures to calibrate on."""

import warnings
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_mobilevit.quantization import graph

#: As many pictures as calibration reads; more change the ranges little.
MAX_PICTURES = 256
FEW_PICTURES = 32
#: Of these, how many to measure means on; twice as many change little.
MEAN_PICTURES = 64


def calibration_pictures(
    data: Any,
    input_shape: tuple[int, int, int, int],
    limit: int = MAX_PICTURES,
    argument: str = "calibration_data",
) -> np.ndarray:
    """Collects and checks the pictures to calibrate on.

    Args:
        data: an array `(n, height, width, channels)`, or a `tf.data.Dataset`
            or another iterable of such batches, of single pictures or of
            `(pictures, labels)` pairs. Pixels as the model takes them.
        input_shape: shape of the model's input, batch 1.
        limit: how many pictures to take at most.
        argument: the name of the user's argument, for the messages.

    Returns:
        A float32 array `(n, height, width, channels)`.

    Raises:
        ValueError: no picture, one of another shape, or a value that is not
            finite.
    """
    if data is None:
        raise ValueError(
            "`calibration_data` is needed to write integer activations: pass "
            f"some {MAX_PICTURES} typical pictures, for instance of the "
            "training set. Received: calibration_data=None"
        )
    found, count = [], 0
    for pictures in _batches(data, argument):
        pictures = np.asarray(pictures)
        if pictures.ndim == 3:
            pictures = pictures[np.newaxis]
        if pictures.shape[1:] != tuple(input_shape[1:]):
            raise ValueError(
                f"Each picture of `{argument}` must have the shape "
                f"{tuple(input_shape[1:])} of the model's input. Received: "
                f"shape={pictures.shape[1:]}"
            )
        pictures = pictures.astype("float32")
        if not np.isfinite(pictures).all():
            raise ValueError(
                f"`{argument}` must hold finite numbers. Received: NaN "
                f"or infinity in one of the pictures {count} to "
                f"{count + len(pictures) - 1}"
            )
        found.append(pictures)
        count += len(pictures)
        if count >= limit:
            break
    if not count:
        raise ValueError(f"`{argument}` must hold pictures. Received: none")
    return np.concatenate(found)[:limit]


def _batches(data: Any, argument: str) -> Iterator[Any]:
    if isinstance(data, np.ndarray):
        data = [data]
    elif _is_pair(data) and _axes(data[0]) == 4:
        data = [data[0]]  # all pictures, and their labels
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes, dict)):
        raise ValueError(
            f"`{argument}` must be an array, a `tf.data.Dataset` or an "
            f"iterable of pictures. Received: {type(data).__name__}"
        )
    for item in data:
        yield item[0] if isinstance(item, tuple) or _is_pair(item) else item


def _is_pair(data: Any) -> bool:
    """Whether these are pictures and labels, not a list of pictures."""
    return (
        isinstance(data, (tuple, list))
        and len(data) == 2
        and _axes(data[0]) != _axes(data[1])
    )


def _axes(values: Any) -> int:
    if isinstance(values, (tuple, list)):
        return 1 + (_axes(values[0]) if values else 0)
    return np.ndim(values)


def warn_of_scaled_pictures(
    pictures: np.ndarray, argument: str, takes_pixels: bool
) -> None:
    """Warns if pictures are in [0, 1] where a model takes [0, 255].

    Args:
        pictures: the pictures, any shape.
        argument: the name of the user's argument, for the message.
        takes_pixels: whether the model's input is in [0, 255].
    """
    if takes_pixels and pictures.size and pictures.max() <= 1.0:
        warnings.warn(
            f"The pictures in `{argument}` lie in [0, 1], but the model "
            "scales RGB pixels of [0, 255] itself: pass the pixels unscaled, "
            "or build the model with `include_preprocessing=False`.",
            stacklevel=4,
        )


def with_full_range(pictures: np.ndarray, white: float) -> np.ndarray:
    """Makes sure that the pictures span the input's whole range.

    Else the input would be quantized to the range of these pictures, and
    brighter ones would be cut off. One picture gets a black and a white
    corner pixel, which changes no other range noticeably.

    Args:
        pictures: array `(n, height, width, channels)`.
        white: the largest value that the input can take.
    """
    pictures = pictures.copy()
    pictures[0, 0, 0] = 0.0
    pictures[0, -1, -1] = white
    return pictures


def takes_pixels(model: keras.Model) -> bool:
    """Whether the model scales pixels of [0, 255] itself."""
    return any(
        takes_pixels(layer)
        if isinstance(layer, keras.Model)
        else isinstance(layer, keras.layers.Rescaling)
        and np.max(layer.scale) < 0.1
        for layer in model.layers
    )


def model_pictures(model: keras.Model, data: Any) -> np.ndarray:
    """Returns the pictures to calibrate a model on, checked.

    Args:
        model: the model; its input gives the shape and the range.
        data: as of `calibration_pictures`.
    """
    pictures = calibration_pictures(data, graph.picture_shape(model))
    if len(pictures) < FEW_PICTURES:
        warnings.warn(
            f"`calibration_data` holds only {len(pictures)} pictures: the "
            "ranges of the activations may be too narrow. "
            f"{MAX_PICTURES} are better.",
            stacklevel=3,
        )
    if np.array_equal(pictures.min(0), pictures.max(0)):
        warnings.warn(
            "The pictures in `calibration_data` are all alike: no range can "
            "be measured on them. Pass typical pictures.",
            stacklevel=3,
        )
    pixels = takes_pixels(model)
    warn_of_scaled_pictures(pictures, "calibration_data", pixels)
    return with_full_range(pictures, 255.0 if pixels else 1.0)


def channel_means(values: np.ndarray) -> np.ndarray:
    """Returns the mean of each channel, summed in float64."""
    return values.mean(tuple(range(values.ndim - 1)), dtype="float64")
