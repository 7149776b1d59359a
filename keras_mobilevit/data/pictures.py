"""One picture: how it is read, and how it is prepared for evaluation."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np


def load_picture(
    source: str | os.PathLike | bytes, short_side: int | None = None
) -> np.ndarray:
    """Reads a picture as people see it, in 8-bit RGB.

    It is turned upright as its EXIF data say; transparent parts become white;
    16-bit grey is scaled to 8 bits; of an animation the first frame counts.

    Args:
        source: the path or the encoded bytes of a picture in any format that
            Pillow reads.
        short_side: pixels; a picture whose shorter side is longer is reduced
            to it, proportions kept. `None` for the full size.

    Returns:
        A uint8 array `(height, width, 3)`.

    Raises:
        FileNotFoundError: there is no file at the path.
        ValueError: it is no picture, or it is damaged.
    """
    from PIL import Image
    from PIL import ImageOps

    if isinstance(source, bytes):
        name, source = "encoded bytes", io.BytesIO(source)
    elif Path(source).exists():
        name = source
    else:
        raise FileNotFoundError(
            f"There is no picture at this path. Received: {source}"
        )
    try:
        with Image.open(source) as picture:
            if short_side:
                # JPEG decodes to 1/2, 1/4 or 1/8 in a fraction of the time.
                picture.draft(None, (short_side, short_side))
            picture.load()
            rgb = _rgb(ImageOps.exif_transpose(picture))
    # Pillow's readers raise nearly anything on damaged files.
    except Exception as error:
        raise ValueError(
            f"The file must be a picture that can be read: {error}. "
            f"Received: {name}"
        ) from error
    if short_side and min(rgb.size) > short_side:
        scale = short_side / min(rgb.size)
        size = tuple(max(short_side, round(side * scale)) for side in rgb.size)
        rgb = rgb.resize(size, Image.Resampling.BILINEAR)
    return np.array(rgb)


def fit_picture(
    picture: np.ndarray, height: int, width: int, crop_pct: float = 1.0
) -> np.ndarray:
    """Brings a picture to a size, as evaluation does.

    It is resized (bilinear with antialiasing, proportions kept) until it just
    covers the size divided by `crop_pct`, and the centre is cut out.

    Args:
        picture: uint8 array `(any, any, 3)`.
        height: pixels.
        width: pixels.
        crop_pct: in (0, 1]: the part of the shorter side that is kept.

    Returns:
        uint8 array `(height, width, 3)`.
    """
    from PIL import Image

    own_height, own_width, _ = picture.shape
    if (own_height, own_width, crop_pct) == (height, width, 1.0):
        return picture
    scale = max(height / own_height, width / own_width) / crop_pct
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
