"""Checkpoints of made-up weights in each naming, and what loading them does.

The truth for names and shapes is `golden/names_mobilevit_s.tsv.gz`: the 279
tensors of MobileViT-S in three checkpoint formats, read off cvnets, timm and
transformers. The other sizes have the same names.
"""

import ast
import gzip
import warnings

import numpy as np
import pytest
from golden import make_golden

from keras_mobilevit import weights as published

VARIANT = "mobilevit_xxs"
ROW = published.PUBLISHED[VARIANT]
NAMINGS = ("cvnets", "timm", "transformers")
TORCH_REASON = "needs the `parity` extra (torch)"


def read_table():
    """Yields the names of a tensor by naming, and its shape."""
    path = make_golden.HERE / "names_mobilevit_s.tsv.gz"
    header, *lines = gzip.open(path, "rt").read().splitlines()
    assert tuple(header.split("\t")) == (*NAMINGS, "shape")
    for line in lines:
        *names, shape = line.split("\t")
        # transformers splits the joint query, key and value.
        yield dict(zip(NAMINGS, names)), ast.literal_eval(shape)


TABLE = list(read_table())


def to_torch(array, path):
    """Lays out the value of a Keras variable as PyTorch does."""
    if path == "predictions/kernel":
        return array.T
    if path.endswith("depthwise/kernel"):
        return array.transpose(2, 3, 0, 1)
    tokens = "/attention/" in path or "/ffn_" in path
    if path.endswith("/kernel"):
        array = array.transpose(3, 2, 0, 1)
        return array[:, :, 0, 0] if tokens else array
    return array


def checkpoint(model, naming):
    """The state dict, in one of the namings, of the formula's weights."""
    variables = {v.path: v for v in model.weights}
    state = {}
    for names, _ in TABLE:
        parts = []
        for name in names["transformers"].split("; "):
            path = make_golden.keras_path(name)
            if path not in variables:
                continue
            value = make_golden.value(path, tuple(variables[path].shape))
            value = to_torch(value, path)
            if path == "stem/kernel" and naming != "timm":
                value = value[:, ::-1]  # these take BGR
            parts.append(np.ascontiguousarray(value))
        if naming == "transformers":
            state.update(zip(names[naming].split("; "), parts))
        elif parts:
            state[names[naming]] = np.concatenate(parts)
    for name in list(state):
        if name.endswith("running_var"):
            counter = name.replace("running_var", "num_batches_tracked")
            state[counter] = np.array(5)
    return state


def assert_loaded(model):
    """Every variable has the value of the formula for its path."""
    for variable in model.weights:
        path = variable.path
        expected = make_golden.value(path, tuple(variable.shape))
        np.testing.assert_array_equal(variable.numpy(), expected, path)


def load(model, weights, include_top=True):
    """Loads into a model of other weights."""
    make_golden.fill(model, seed=1)
    published.load_weights(model, VARIANT, weights, include_top)


def assert_refused(model, weights, *parts, error=ValueError):
    """Loading raises, names all `parts`, and the model stays as it was."""
    make_golden.fill(model, seed=1)
    before = model.get_weights()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # the error is all
        with pytest.raises(error) as caught:
            published.load_weights(model, VARIANT, weights, True)
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    message = str(caught.value)
    for part in ("Received: ", *parts):
        assert str(part) in message
    return message
