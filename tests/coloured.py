"""Pictures of one colour, named by their class."""

import numpy as np
from PIL import Image

COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 30), "red": (230, 30, 20)}


def picture(colour, size=(40, 30), noise=0):
    generator = np.random.default_rng(noise)
    values = np.array(colour) + generator.integers(-9, 9, (*size[::-1], 1))
    return Image.fromarray(values.clip(0, 255).astype("uint8"))
