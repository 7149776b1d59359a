"""A model for weights, and checkpoints that fit it."""

import pytest
import safetensors.numpy
from checkpoints import NAMINGS
from checkpoints import checkpoint

from keras_mobilevit import mobilevit


@pytest.fixture(scope="session")
def model():
    """MobileViT-XXS; tests may load weights into it."""
    return mobilevit.MobileViT_XXS(weights=None, input_shape=(64, 64, 3))


@pytest.fixture(scope="session")
def states(model):
    return {naming: checkpoint(model, naming) for naming in NAMINGS}


@pytest.fixture(scope="session")
def timm_bytes(states):
    return safetensors.numpy.save(states["timm"])


@pytest.fixture
def state(states):
    """A copy of the timm checkpoint, to be damaged."""
    return dict(states["timm"])
