"""What commands are given, and how they refuse it."""

import re

import keras
import numpy as np
from PIL import Image

SIZE = 32


def save_picture(path, red, seed):
    generator = np.random.default_rng(seed)
    picture = generator.integers(0, 80, (40, 36, 3))
    picture[..., 0 if red else 2] += 150
    Image.fromarray(picture.astype("uint8")).save(path)


def small_backbone(input_shape, **unused):
    """One convolution, in the place of a builder."""
    image = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, x, name="small")


def refused(result, message, alone=True):
    """One message, and on stdout nothing.

    Args:
        result: exit code, stdout and stderr.
        message: what the message must match.
        alone: whether stderr may hold no progress bar besides.
    """
    code, out, err = result
    assert (code, out) == (1, "")
    assert re.search(message, err), err
    assert "Traceback" not in err
    *bars, last = err.splitlines()
    assert last.startswith("keras-mobilevit")
    assert not (bars and alone), err
