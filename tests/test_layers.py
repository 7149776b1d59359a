"""Every public layer conforms to Keras; the primitives equal their definition.

The conformance tests run over `CASES`: one row a public layer.
"""

import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_mobilevit import layers
from keras_mobilevit.configs import make_divisible
from keras_mobilevit.layers.base import QuantizableLayer
from keras_mobilevit.layers.mobilevit_block import fold
from keras_mobilevit.layers.mobilevit_block import resize_bilinear
from keras_mobilevit.layers.mobilevit_block import unfold

# name | arguments, none of them a default | input without its batch axis
CASES = {
    "ConvNormAct": (
        dict(
            filters=6,
            kernel_size=5,
            strides=2,
            use_norm=False,
            use_bias=True,
            activation=None,
            kernel_initializer="glorot_uniform",
        ),
        (9, 12, 4),
    ),
    "DepthwiseConvNormAct": (
        dict(
            kernel_size=5,
            dilation_rate=2,
            use_norm=False,
            use_bias=True,
            activation=None,
            kernel_initializer="glorot_uniform",
        ),
        (9, 12, 4),
    ),
    "GroupNorm": (dict(epsilon=1e-3), (5, 7, 8)),
    "InvertedResidual": (dict(filters=4, expansion=2), (9, 12, 4)),
    "LayerNorm": (dict(epsilon=1e-3), (5, 7, 8)),
    "LinearSelfAttention": (dict(dropout=0.1), (4, 6, 8)),
    "LinearTransformerBlock": (
        dict(ffn_dim=12, dropout=0.2, attention_dropout=0.1),
        (4, 6, 8),
    ),
    "MobileViTBlock": (
        dict(
            transformer_dim=8,
            depth=2,
            ffn_dim=12,
            heads=2,
            patch_size=3,
            dropout=0.2,
            attention_dropout=0.1,
            ffn_dropout=0.3,
        ),
        (7, 12, 4),
    ),
    "MobileViTV2Block": (
        dict(
            transformer_dim=8,
            depth=2,
            ffn_dim=12,
            patch_size=3,
            dilation_rate=2,
            dropout=0.2,
            attention_dropout=0.1,
        ),
        (7, 12, 4),
    ),
    "MultiHeadSelfAttention": (dict(heads=2, dropout=0.1), (4, 6, 8)),
    "SiLU": (dict(), (5, 7, 8)),
    "TransformerBlock": (
        dict(
            ffn_dim=12,
            heads=2,
            dropout=0.2,
            attention_dropout=0.1,
            ffn_dropout=0.3,
        ),
        (4, 6, 8),
    ),
}
each_layer = pytest.mark.parametrize("name", CASES)
# A softmax does not see what is added to all its scores: their bias has no
# gradient but for rounding, which may be exactly zero.
WITHOUT_GRADIENT = "query/bias"


def make(case, /, **extra):
    arguments, _ = CASES[case]
    return getattr(layers, case)(**arguments, **extra)


def batch(name, size=2):
    generator = np.random.default_rng(0)
    return generator.normal(size=(size, *CASES[name][1])).astype("float32")


def paths(layer):
    return [variable.path for variable in layer.weights]


def flatten(layer):
    return [
        child
        for child in layer._flatten_layers()
        if isinstance(child, keras.layers.Layer)
    ]


def scatter(layer):
    generator = np.random.default_rng(1)
    for variable in layer.weights:
        noise = generator.uniform(0, 0.3, variable.shape)
        variable.assign(variable + noise)


def test_every_public_layer_has_a_case():
    assert set(CASES) == set(layers.__all__)


# Conformance


@each_layer
def test_build_alone_creates_every_weight(name):
    layer = make(name)
    assert not layer.built
    layer.build((None, *CASES[name][1]))
    assert layer.built
    before = paths(layer)
    assert all(child.built for child in flatten(layer) if child.weights)
    layer(batch(name))
    assert paths(layer) == before
    assert len(set(before)) == len(before)


@each_layer
def test_building_without_a_batch_or_a_size_gives_the_same(name):
    static, open_layer = make(name, name="layer"), make(name, name="layer")
    shape = CASES[name][1]
    static.build((2, *shape))
    open_layer.build((None, None, None, shape[-1]))
    assert paths(static) == paths(open_layer)
    assert [v.shape for v in static.weights] == [
        v.shape for v in open_layer.weights
    ]


@each_layer
def test_config_holds_every_constructor_argument(name):
    arguments, _ = CASES[name]
    layer = make(name, name="given", dtype="mixed_float16")
    config = layer.get_config()
    json.dumps(config)  # nothing but plain data
    signature = set()
    for base in type(layer).__mro__:
        if issubclass(base, QuantizableLayer):
            signature |= set(inspect.signature(base).parameters)
    assert signature - {"kwargs"} <= set(config)
    for key, value in arguments.items():
        if key != "kernel_initializer":
            assert config[key] == value
    assert config["name"] == "given"
    revived = type(layer).from_config(config)
    assert revived.get_config() == config


@each_layer
def test_defaults_round_trip(name):
    cls = getattr(layers, name)
    required = {
        key: value
        for key, value in CASES[name][0].items()
        if key in inspect.signature(cls).parameters
        and inspect.signature(cls).parameters[key].default is inspect._empty
    }
    layer = cls(**required)
    config = layer.get_config()
    assert cls.from_config(config).get_config() == config
    serialized = keras.saving.serialize_keras_object(layer)
    revived = keras.saving.deserialize_keras_object(serialized)
    assert type(revived) is cls


@each_layer
def test_symbolic_and_eager_agree(name):
    layer = make(name)
    shape = CASES[name][1]
    symbol = layer(keras.KerasTensor((2, *shape)))
    result = layer(batch(name))
    assert symbol.shape == tuple(result.shape)
    assert symbol.dtype == keras.backend.standardize_dtype(result.dtype)
    assert layer.compute_output_shape((2, *shape)) == symbol.shape
    open_symbol = layer(keras.KerasTensor((None, None, None, shape[-1])))
    assert open_symbol.shape == (None, None, None, symbol.shape[-1])


@each_layer
def test_mixed_float16(name):
    """The policy of one composite reaches all its children."""
    layer = make(name, dtype="mixed_float16", name="layer")
    output = layer(batch(name))
    assert keras.backend.standardize_dtype(output.dtype) == "float16"
    assert {variable.dtype for variable in layer.weights} <= {"float32"}
    for child in flatten(layer):
        assert child.dtype_policy.name == "mixed_float16", child.path
    exact = make(name, name="layer")
    exact.build((None, *CASES[name][1]))
    exact.set_weights(layer.get_weights())
    expected = np.asarray(exact(batch(name)))
    # Half precision rounds what is summed, so errors go with the largest.
    atol = 4e-3 * np.abs(expected).max()
    np.testing.assert_allclose(output, expected, atol=atol, rtol=0)


@each_layer
def test_gradient_reaches_every_trainable_weight(name):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("written with tf.GradientTape")
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    layer = make(name)
    layer.build((None, *CASES[name][1]))
    scatter(layer)
    weighting = np.random.default_rng(2).normal(
        size=layer.compute_output_shape((2, *CASES[name][1]))
    )
    with tf.GradientTape() as tape:
        loss = ops.sum(layer(batch(name)) * weighting.astype("float32"))
    variables = [variable.value for variable in layer.trainable_weights]
    for path, gradient in zip(paths(layer), tape.gradient(loss, variables)):
        assert gradient is not None, path
        if not path.endswith(WITHOUT_GRADIENT):
            assert np.abs(gradient).max() > 0, path


@each_layer
def test_one_fit_step_then_save_and_load_in_a_users_model(name, tmp_path):
    keras.utils.set_random_seed(0)
    shape = CASES[name][1]
    inputs = keras.Input(shape)
    x = keras.layers.Conv2D(shape[-1], 1, name="before")(inputs)
    x = make(name, name="ours")(x)
    x = make(name)(x) if name in ("SiLU", "LayerNorm") else x
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="after")(x))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    images, targets = batch(name, 4), np.ones((4, 2), "float32")
    before = {v.path: v.numpy() for v in model.get_layer("ours").weights}
    history = model.fit(images, targets, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    for variable in model.get_layer("ours").trainable_weights:
        old = before[variable.path]
        if not variable.path.endswith(WITHOUT_GRADIENT):
            assert not np.array_equal(variable.numpy(), old), variable.path

    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert paths(loaded) == paths(model)
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0)
    )


@each_layer
def test_frozen_layers_stay_frozen_when_revived(name):
    layer = make(name)
    layer.trainable = False
    revived = type(layer).from_config(layer.get_config())
    revived.build((None, *CASES[name][1]))
    assert revived.trainable_weights == []
    for child in flatten(revived):
        if child.weights:
            assert not child.trainable, child.path
    revived.trainable = True
    whole = make(name)
    whole.build((None, *CASES[name][1]))
    assert len(revived.trainable_weights) == len(whole.trainable_weights)


# class | arguments | input shape or None | the argument named
BAD = (
    ("ConvNormAct", dict(filters=0), None, "filters"),
    ("ConvNormAct", dict(filters=2.0), None, "filters"),
    ("ConvNormAct", dict(filters=True), None, "filters"),
    ("ConvNormAct", dict(filters=4, kernel_size=2), None, "kernel_size"),
    ("ConvNormAct", dict(filters=4, kernel_size=0), None, "kernel_size"),
    ("ConvNormAct", dict(filters=4, strides=0), None, "strides"),
    ("ConvNormAct", dict(filters=4, dilation_rate=0), None, "dilation_rate"),
    (
        "ConvNormAct",
        dict(filters=4, strides=2, dilation_rate=2),
        None,
        "strides",
    ),
    ("ConvNormAct", dict(filters=4, activation="tanh"), None, "activation"),
    ("ConvNormAct", dict(filters=4), (None, 8, 4), "input_shape"),
    ("ConvNormAct", dict(filters=4), (None, 8, 8, None), "input_shape"),
    ("DepthwiseConvNormAct", dict(strides=-1), None, "strides"),
    ("DepthwiseConvNormAct", dict(), (None, 8, 8, None), "input_shape"),
    ("InvertedResidual", dict(filters=0), None, "filters"),
    ("InvertedResidual", dict(filters=4, expansion=0), None, "expansion"),
    ("InvertedResidual", dict(filters=4, strides=0), None, "strides"),
    ("InvertedResidual", dict(filters=4, dilation_rate=0), None, "dilation"),
    ("InvertedResidual", dict(filters=4), (None, 8, 8, None), "input_shape"),
    ("LayerNorm", dict(epsilon=-1.0), None, "epsilon"),
    ("LayerNorm", dict(), (None, 8, None), "input_shape"),
    ("MobileViTBlock", dict(transformer_dim=0, depth=1), None, "transformer"),
    ("MobileViTBlock", dict(transformer_dim=8, depth=0), None, "depth"),
    (
        "MobileViTBlock",
        dict(transformer_dim=8, depth=1, ffn_dim=0),
        None,
        "ffn_dim",
    ),
    (
        "MobileViTBlock",
        dict(transformer_dim=8, depth=1, patch_size=0),
        None,
        "patch_size",
    ),
    (
        "MobileViTBlock",
        dict(transformer_dim=8, depth=1, heads=0),
        None,
        "heads",
    ),
    (
        "MobileViTBlock",
        dict(transformer_dim=8, depth=1, dropout=1.5),
        None,
        "rate",
    ),
    (
        "MobileViTBlock",
        dict(transformer_dim=8, depth=1),
        (None, 8, 8),
        "input_shape",
    ),
    (
        "MobileViTBlock",
        dict(transformer_dim=10, depth=1),
        (None, 8, 8, 4),
        "heads",
    ),
    ("MultiHeadSelfAttention", dict(heads=0), None, "heads"),
    ("MultiHeadSelfAttention", dict(heads=3), (None, 4, 6, 8), "heads"),
    ("MultiHeadSelfAttention", dict(), (None, 6, 8), "input_shape"),
    ("TransformerBlock", dict(ffn_dim=0), None, "ffn_dim"),
    ("TransformerBlock", dict(ffn_dim=8), (None, 6, 8), "input_shape"),
)


@pytest.mark.parametrize(("name", "arguments", "shape", "named"), BAD)
def test_bad_arguments_are_named(name, arguments, shape, named):
    with pytest.raises(ValueError, match="Received") as caught:
        layer = getattr(layers, name)(**arguments)
        layer.build(shape)
    assert named in str(caught.value)


def test_unknown_arguments_raise():
    for name, (arguments, _) in CASES.items():
        with pytest.raises((TypeError, ValueError), match="widht"):
            getattr(layers, name)(**arguments, widht=3)


# The primitives


@pytest.mark.parametrize("shape", ((2, 8), (2, 3, 8), (2, 4, 5, 8)))
def test_layer_norm_is_that_of_keras(shape):
    x = np.random.default_rng(0).normal(3, 5, shape).astype("float32")
    ours = layers.LayerNorm(epsilon=1e-5)
    theirs = keras.layers.LayerNormalization(epsilon=1e-5)
    ours.build(shape)
    theirs.build(shape)
    scatter(ours)
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(x), theirs(x), atol=2e-6, rtol=2e-6)


def test_layer_norm_of_large_half_precision_numbers():
    """Squares beyond float16's 65504 must not overflow."""
    x = np.random.default_rng(0).normal(0, 2000, (2, 4, 8)).astype("float16")
    half = layers.LayerNorm(dtype="mixed_float16")(x)
    exact = layers.LayerNorm()(x.astype("float32"))
    assert np.all(np.isfinite(half))
    np.testing.assert_allclose(half, exact, atol=2e-3)


def test_silu():
    x = np.linspace(-8, 8, 33, dtype="float32").reshape(1, 33)
    expected = x / (1 + np.exp(-x))
    np.testing.assert_allclose(layers.SiLU()(x), expected, atol=1e-6)


def definition_of_unfold(x, p):
    """The pixels at (row % p, column % p) of each patch, by loops."""
    count, height, width, channels = x.shape
    w = width // p
    result = np.zeros((count, p * p, height // p * w, channels), x.dtype)
    for row in range(height):
        for column in range(width):
            position = (row % p) * p + column % p
            patch = (row // p) * w + column // p
            result[:, position, patch] = x[:, row, column]
    return result


@pytest.mark.parametrize("patch_size", (1, 2, 3))
@pytest.mark.parametrize("size", ((6, 6), (6, 12), (12, 6)))
def test_unfold_is_the_reference_up_to_an_order(patch_size, size):
    """Each position is a set of the same tokens; `fold` undoes it."""
    x = np.arange(2 * size[0] * size[1] * 3, dtype="float32")
    x = x.reshape(2, *size, 3)
    tokens = ops.convert_to_numpy(unfold(x, patch_size))
    expected = definition_of_unfold(x, patch_size)
    assert tokens.shape == expected.shape
    np.testing.assert_array_equal(fold(tokens, patch_size, *size), x)

    def sets(tokens):
        return {frozenset(map(tuple, position.tolist())) for position in tokens}

    for ours, reference in zip(tokens, expected):
        assert sets(ours) == sets(reference)


@pytest.mark.parametrize("kernel_size", (1, 3, 5))
@pytest.mark.parametrize("size", ((8, 8), (7, 9), (8, 5)))
@pytest.mark.parametrize("depthwise", (False, True))
@pytest.mark.parametrize("strides", (1, 2))
def test_padding_is_symmetric(kernel_size, size, depthwise, strides):
    """Against a sum over the window of a map padded alike on all sides."""
    x = np.random.default_rng(0).normal(size=(1, *size, 2)).astype("float32")
    plain = dict(use_norm=False, activation=None, strides=strides)
    if depthwise:
        layer = layers.DepthwiseConvNormAct(kernel_size, **plain)
    else:
        layer = layers.ConvNormAct(3, kernel_size, **plain)
    actual = ops.convert_to_numpy(layer(x))
    kernel = ops.convert_to_numpy(layer.kernel)
    edge = kernel_size // 2
    padded = np.pad(x[0], ((edge, edge), (edge, edge), (0, 0)))
    rows, columns = (
        range(0, side + 2 * edge - kernel_size + 1, strides) for side in size
    )
    assert actual.shape[1:3] == (len(rows), len(columns))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = padded[
                row : row + kernel_size, column : column + kernel_size
            ]
            if depthwise:
                expected = np.einsum("hwc,hwc->c", window, kernel[..., 0])
            else:
                expected = np.einsum("hwc,hwcd->d", window, kernel)
            np.testing.assert_allclose(
                actual[0, i, j], expected, rtol=1e-4, atol=1e-5
            )


def test_dilation_keeps_the_size_and_spreads_the_kernel():
    layer = layers.DepthwiseConvNormAct(
        dilation_rate=2, use_norm=False, activation=None
    )
    x = np.zeros((1, 9, 9, 1), "float32")
    x[0, 4, 4] = 1
    output = ops.convert_to_numpy(layer(x))
    assert output.shape == x.shape
    rows, columns = np.nonzero(output[0, ..., 0])
    assert set(rows) == set(columns) == {2, 4, 6}


def test_resize_leaves_an_equal_size_alone():
    x = ops.ones((1, 4, 6, 2))
    assert resize_bilinear(x, 4, 6) is x
    assert resize_bilinear(x, 6, 6).shape == (1, 6, 6, 2)


@pytest.mark.parametrize(
    ("value", "expected"),
    ((32, 32), (33, 32), (36, 40), (11, 16), (3, 8), (64.0, 64)),
)
def test_make_divisible(value, expected):
    assert make_divisible(value) == expected
    assert make_divisible(value) >= 0.9 * value


def test_attention_stays_within_a_position():
    """Tokens of one pixel position do not see those of another."""
    layer = layers.MultiHeadSelfAttention(heads=2)
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 8)).astype("float32")
    before = ops.convert_to_numpy(layer(x))
    x[0, 2] += 1
    changed = np.abs(ops.convert_to_numpy(layer(x)) - before).max(axis=(2, 3))
    assert changed[0, 2] > 1e-4
    assert changed[0, [0, 1, 3]].max() < 1e-6


# Quantization as a property


@keras.saving.register_keras_serializable("test_layers")
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

    def call(self, inputs):
        self.calls += 1
        if isinstance(inputs, list):
            return [x * self.factor for x in inputs]
        return inputs * self.factor


@keras.saving.register_keras_serializable("test_layers")
class Recording:
    """A quantization that changes nothing unless `factor` says so."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def activation(self, name, bounds=None):
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
    scatter(exact)
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
