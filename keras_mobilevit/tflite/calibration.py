"""Pictures to calibrate on, and the ranges that a float file takes on them."""

import os
import warnings
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_mobilevit.tflite import flatbuffer

#: As many pictures as calibration reads; more change the ranges little.
MAX_PICTURES = 256
FEW_PICTURES = 32


def calibration_pictures(
    data: Any, input_shape: tuple[int, int, int, int], limit: int = MAX_PICTURES
) -> np.ndarray:
    """Collects and checks the pictures to calibrate on.

    Args:
        data: an array `(n, height, width, channels)`, or a `tf.data.Dataset`
            or another iterable of such batches, of single pictures or of
            `(pictures, labels)` pairs. Pixels as the model takes them.
        input_shape: shape of the model's input, batch 1.
        limit: how many pictures to take at most.

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
    for pictures in _batches(data):
        pictures = np.asarray(pictures)
        if pictures.ndim == 3:
            pictures = pictures[np.newaxis]
        if pictures.shape[1:] != tuple(input_shape[1:]):
            raise ValueError(
                "Each picture of `calibration_data` must have the shape "
                f"{tuple(input_shape[1:])} of the model's input. Received: "
                f"shape={pictures.shape[1:]}"
            )
        pictures = pictures.astype("float32")
        if not np.isfinite(pictures).all():
            raise ValueError(
                "`calibration_data` must hold finite numbers. Received: NaN "
                f"or infinity in one of the pictures {count} to "
                f"{count + len(pictures) - 1}"
            )
        found.append(pictures)
        count += len(pictures)
        if count >= limit:
            break
    if not count:
        raise ValueError(
            "`calibration_data` must hold pictures. Received: none"
        )
    if count < FEW_PICTURES:
        warnings.warn(
            f"`calibration_data` holds only {count} pictures: the ranges of "
            f"the activations may be too narrow. {MAX_PICTURES} are better.",
            stacklevel=3,
        )
    return np.concatenate(found)[:limit]


def _batches(data: Any) -> Iterator[Any]:
    if isinstance(data, np.ndarray):
        data = [data]
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes, dict)):
        raise ValueError(
            "`calibration_data` must be an array, a `tf.data.Dataset` or an "
            f"iterable of pictures. Received: {type(data).__name__}"
        )
    for item in data:
        yield item[0] if isinstance(item, (tuple, list)) else item


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


def activation_ranges(
    float_file: str | os.PathLike, pictures: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """Measures the smallest and largest value of every activation of a file.

    Constants are left out: the quantizer would take their one range for that
    of every channel of a kernel.

    Plain minima and maxima over all pictures: the moving average that the
    quantizer would take clips what is rare.

    Args:
        float_file: a float32 TFLite file.
        pictures: float32 array `(n, height, width, channels)`.

    Returns:
        For each tensor name `{"min": ..., "max": ...}`, in the form that
        `litert_quantizer.Quantizer.quantize` takes.

    Raises:
        ValueError: a tensor becomes NaN or infinite; it is named.
    """
    from ai_edge_litert.interpreter import Interpreter
    from tqdm import tqdm

    with warnings.catch_warnings():
        # It warns that keeping all tensors costs memory, which is meant here.
        warnings.simplefilter("ignore")
        interpreter = Interpreter(
            str(float_file),
            experimental_preserve_all_tensors=True,
            num_threads=os.cpu_count(),
        )
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    graph = flatbuffer.nodes(
        flatbuffer.read_model(Path(float_file).read_bytes())
    )
    computed = {tensor for node in graph for tensor in node.outputs}
    tensors = [
        detail
        for detail in interpreter.get_tensor_details()
        if detail["index"] in computed | {source}
        and detail["dtype"] == np.float32
    ]
    low = np.full(len(tensors), np.inf, "float32")
    high = np.full(len(tensors), -np.inf, "float32")
    for picture in tqdm(pictures, desc="calibrating", leave=False):
        interpreter.set_tensor(source, picture[np.newaxis])
        interpreter.invoke()
        for i, detail in enumerate(tensors):
            values = interpreter.get_tensor(detail["index"])
            low[i] = min(low[i], values.min())
            high[i] = max(high[i], values.max())
    ranges = {}
    for i, detail in enumerate(tensors):
        if not (np.isfinite(low[i]) and np.isfinite(high[i])):
            raise ValueError(
                "The model computes NaN or infinity on `calibration_data`, "
                f"first seen in {detail['name']!r}. Check its weights and the "
                "pictures."
            )
        shape = (1,) * len(detail["shape"])
        ranges[detail["name"]] = {
            "min": np.full(shape, low[i]),
            "max": np.full(shape, high[i]),
        }
    return ranges
