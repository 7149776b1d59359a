"""Every public layer conforms to Keras: one row of `CASES` each."""

import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops
from layer_cases import CASES
from layer_cases import batch
from layer_cases import each_layer
from layer_cases import flatten
from layer_cases import make
from variables import paths
from variables import scatter

from keras_mobilevit import layers
from keras_mobilevit.layers.base import QuantizableLayer

# A softmax does not see what is added to all its scores: their bias has no
# gradient but for rounding, which may be exactly zero.
WITHOUT_GRADIENT = "query/bias"


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
    scatter(layer, seed=1)
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
