"""The three builders of MobileViT, and what their tests share."""

import numpy as np
import pytest

from keras_mobilevit import mobilevit
from keras_mobilevit.configs import MOBILEVIT

BUILDERS = {
    "mobilevit_xxs": mobilevit.MobileViT_XXS,
    "mobilevit_xs": mobilevit.MobileViT_XS,
    "mobilevit_s": mobilevit.MobileViT_S,
}
TINY = {"weights": None, "input_shape": (32, 32, 3), "classes": 3}

each_builder = pytest.mark.parametrize("variant", MOBILEVIT)


def pictures(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return generator.uniform(0, 255, shape).astype("float32")
