"""What a TFLite file sees in a picture."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_mobilevit import reports
from keras_mobilevit.tflite.inspect import inspect
from keras_mobilevit.tflite.interpreter import Runner


@dataclasses.dataclass(frozen=True)
class Score:
    """A class and its score, as the file gives it (dequantized)."""

    index: int
    label: str
    score: float


@dataclasses.dataclass(frozen=True)
class Prediction(reports.Report):
    """What `predict` found in one picture.

    Attributes:
        picture: its path, or its position among the arrays given.
        scores: the best classes, best first.
    """

    picture: str
    scores: tuple[Score, ...]

    def __str__(self) -> str:
        return reports.table(
            (self.picture, "score"),
            [(row.label, f"{row.score:.4f}") for row in self.scores],
        )


def predict(
    path: str | os.PathLike,
    pictures: Any,
    top: int = 5,
    labels: Sequence[str] | None = None,
    num_threads: int | None = None,
) -> tuple[Prediction, ...]:
    """Classifies pictures with a TFLite file.

    Args:
        path: a classifier file that takes RGB pixels of [0, 255].
        pictures: the path of a picture; a uint8 array `(height, width, 3)`
            or `(n, height, width, 3)`, RGB; or a list or tuple of these. Any
            size: see `fit_picture`.
        top: how many classes to return for each picture.
        labels: the names of the classes; `None` for those in the file, or
            the numbers of the classes if it has none.
        num_threads: CPU threads; `None` for all cores.

    Returns:
        One `Prediction` for each picture.

    Raises:
        FileNotFoundError: there is no file at `path`, or no picture at one
            of `pictures`.
        ValueError: a picture cannot be read, the file is no classifier, or
            `labels` or `top` do not fit it.
    """
    if not isinstance(top, int) or isinstance(top, bool) or top < 1:
        raise ValueError(
            f"`top` must be a positive integer. Received: top={top!r}"
        )
    runner = Runner(path, num_threads)
    if len(runner.output_shape) != 1:
        raise ValueError(
            "The file must be a classifier with an output (1, classes). "
            f"Received: path={path}, with an output "
            f"{(1, *runner.output_shape)}"
        )
    classes = runner.output_shape[0]
    if labels is None:
        labels = inspect(path).labels or tuple(map(str, range(classes)))
    if isinstance(labels, str) or len(labels) != classes:
        raise ValueError(
            f"`labels` must hold one string for each of the {classes} classes "
            f"of the file. Received: {len(labels)} labels"
        )
    height, width, _ = runner.input_shape
    found = []
    for name, picture in _named(pictures):
        scores = runner(fit_picture(picture, height, width))[0]
        # A stable sort: equal scores stay in the order of the classes.
        best = np.argsort(-scores, kind="stable")[:top]
        found.append(
            Prediction(
                name,
                tuple(Score(int(i), labels[i], float(scores[i])) for i in best),
            )
        )
    if not found:
        raise ValueError("`pictures` must hold a picture. Received: none")
    return tuple(found)


def load_picture(path: str | os.PathLike) -> np.ndarray:
    """Reads a picture as people see it, in 8-bit RGB.

    It is turned upright as its EXIF data say; transparent parts become white;
    16-bit grey is scaled to 8 bits; of an animation the first frame counts.

    Args:
        path: a picture in any format that Pillow reads.

    Returns:
        A uint8 array `(height, width, 3)`.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: it is no picture, or it is damaged.
    """
    from PIL import Image
    from PIL import ImageOps

    if not Path(path).exists():
        raise FileNotFoundError(
            f"There is no picture at this path. Received: {path}"
        )
    try:
        with Image.open(path) as picture:
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            return np.asarray(_rgb(upright))
    # Pillow's readers raise nearly anything on damaged files.
    except Exception as error:
        raise ValueError(
            f"The file must be a picture that can be read: {error}. "
            f"Received: {path}"
        ) from error


def fit_picture(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Brings a picture to a size, as evaluation does in training.

    It is resized (bilinear with antialiasing, proportions kept) until it just
    covers the size, and what stands out on two sides is cut off evenly.

    Args:
        picture: uint8 array `(any, any, 3)`.
        height: pixels.
        width: pixels.

    Returns:
        uint8 array `(height, width, 3)`.
    """
    from PIL import Image

    own_height, own_width, _ = picture.shape
    if (own_height, own_width) == (height, width):
        return picture
    scale = max(height / own_height, width / own_width)
    size = (
        max(width, round(own_width * scale)),
        max(height, round(own_height * scale)),
    )
    resized = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.asarray(resized)[top : top + height, left : left + width]


def _rgb(picture: Any) -> Any:
    """Converts a Pillow image of any mode to RGB."""
    from PIL import Image

    if picture.mode.startswith("I"):
        # Pillow's own conversion clips these to 255 instead of scaling.
        values = np.asarray(picture).astype("int64")
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its grey values are not of 16 bits")
        return Image.fromarray((values >> 8).astype("uint8")).convert("RGB")
    if picture.mode == "F":
        raise ValueError("its values are floats of unknown range")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _named(pictures: Any) -> Any:
    """Yields the name and the pixels of each picture."""
    if isinstance(pictures, (str, os.PathLike)):
        pictures = [pictures]
    elif getattr(pictures, "ndim", None) == 3:
        pictures = [pictures]
    elif not isinstance(pictures, (list, tuple, np.ndarray)):
        raise ValueError(
            "`pictures` must be a path, a uint8 array, or a list of these. "
            f"Received: {type(pictures).__name__}"
        )
    for number, picture in enumerate(pictures):
        if isinstance(picture, (str, os.PathLike)):
            yield str(picture), load_picture(picture)
            continue
        picture = np.asarray(picture)
        is_rgb = picture.ndim == 3 and picture.shape[-1] == 3
        if picture.dtype != np.uint8 or not is_rgb or not picture.size:
            raise ValueError(
                "Each array of `pictures` must be of type uint8 and of shape "
                f"(height, width, 3). Received: dtype={picture.dtype}, "
                f"shape={picture.shape}"
            )
        yield f"picture {number}", picture
