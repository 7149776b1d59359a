"""The variables of a layer or model: their names, and values to tell them."""

import numpy as np


def paths(layer):
    return [variable.path for variable in layer.weights]


def scatter(layer, seed=0):
    """Gives every variable a value of its own, statistics included."""
    generator = np.random.default_rng(seed)
    for variable in layer.weights:
        noise = generator.uniform(0, 0.3, variable.shape)
        variable.assign(variable + noise)
