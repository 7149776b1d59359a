"""Quantization as a property of the layers: where they round."""

import keras
import numpy as np
from layer_cases import CASES
from layer_cases import batch
from layer_cases import each_layer
from layer_cases import flatten
from layer_cases import make
from variables import paths
from variables import scatter

from keras_mobilevit import layers
from keras_mobilevit.layers.base import QuantizableLayer


@keras.saving.register_keras_serializable("test_layers_quantization")
class Marker(keras.layers.Layer):
    """Multiplies by `factor` and counts how often it was called."""

    def __init__(self, factor=1.0, options=None, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.options = options
        self.calls = 0

    def build(self, input_shape):
        self.seen = self.add_weight(name="seen", shape=(), trainable=False)

    def follow(self, part):
        """Has no range to follow the values."""

    def center(self):
        """Has no range to be symmetric."""

    def call(self, inputs):
        self.calls += 1
        if isinstance(inputs, list):
            return [x * self.factor for x in inputs]
        return inputs * self.factor


@keras.saving.register_keras_serializable("test_layers_quantization")
class Recording:
    """A quantization that changes nothing unless `factor` says so."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def activation(self, name, bounds=None, averaged=False):
        return Marker(self.factor, ("activation", bounds), name=name)

    def kernel(self, name, axis):
        return Marker(self.factor, ("kernel", axis), name=name)

    def get_config(self):
        return {"factor": self.factor}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def markers(layer):
    return [child for child in flatten(layer) if isinstance(child, Marker)]


@each_layer
def test_every_rounding_place_is_passed_once(name):
    layer = make(name, quantization=Recording())
    layer(batch(name))
    assert markers(layer)
    for marker in markers(layer):
        uses = 1
        if name == "InvertedResidual" and marker.name == "residual_sum":
            uses = int(layer.has_residual)
        assert marker.calls == uses, marker.path


@each_layer
def test_an_identity_quantization_gives_the_float_outputs(name):
    exact = make(name, name="layer")
    exact.build((None, *CASES[name][1]))
    scatter(exact, seed=1)
    values = {variable.path: variable for variable in exact.weights}
    rounded = make(name, name="layer", quantization=Recording())
    rounded.build((None, *CASES[name][1]))
    for variable in rounded.weights:
        if not variable.path.endswith("/seen"):
            variable.assign(values.pop(variable.path))
    assert not values  # the paths of the weights are the same
    np.testing.assert_allclose(
        rounded(batch(name)), exact(batch(name)), rtol=1e-5, atol=1e-6
    )


@each_layer
def test_quantization_reaches_inward_and_is_saved(name, tmp_path):
    shape = CASES[name][1]
    inputs = keras.Input(shape)
    layer = make(name, name="ours", quantization=Recording(0.9))
    model = keras.Model(inputs, layer(inputs))
    children = [
        child for child in flatten(layer) if isinstance(child, QuantizableLayer)
    ]
    assert {child.quantization for child in children} == {layer.quantization}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    revived = loaded.get_layer("ours")
    assert revived.quantization.factor == 0.9
    assert paths(loaded) == paths(model)
    assert [(m.path, m.options) for m in markers(revived)] == [
        (m.path, m.options) for m in markers(layer)
    ]
    np.testing.assert_array_equal(
        loaded.predict(batch(name), verbose=0),
        model.predict(batch(name), verbose=0),
    )
    float_outputs = make(name)
    float_outputs.build((None, *shape))
    assert len(paths(float_outputs)) + len(markers(layer)) == len(paths(layer))


def test_known_ranges_and_kernel_axes_are_told():
    told = {}
    layer = layers.TransformerBlock(8, quantization=Recording())
    layer.build((None, 4, 6, 8))
    for marker in markers(layer):
        told.setdefault(marker.name, set()).add(marker.options)
    tables = {("activation", (0.0, 255.0 / 256.0))}
    assert told["gate"] == told["weighting"] == tables
    assert told["rounded_kernel"] == {("kernel", 3)}
    layer = layers.DepthwiseConvNormAct(quantization=Recording())
    layer.build((None, 4, 6, 8))
    assert layer.rounded_kernel.options == ("kernel", 2)
