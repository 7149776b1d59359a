"""The builders keep the contract of `keras.applications`."""

import inspect
import pydoc
import warnings

import keras
import numpy as np
import pytest
from builders import BUILDERS
from builders import each_builder
from builders import pictures
from variables import scatter

import keras_mobilevit
from keras_mobilevit import mobilevit
from keras_mobilevit.configs import MOBILEVIT

# trainable parameters | batch-normalization statistics, as of the reference
COUNTS = {
    "mobilevit_xxs": (1_272_024, 4_112),
    "mobilevit_xs": (2_317_848, 8_448),
    "mobilevit_s": (5_578_632, 12_256),
}
SIZES = ((64, 64), (123, 123), (96, 160), (33, 225))


def test_the_table_has_a_builder_for_every_variant():
    assert set(BUILDERS) == set(COUNTS) == set(MOBILEVIT)


# The face of a builder


@each_builder
def test_signature_is_that_of_keras_applications(variant):
    ours = inspect.signature(BUILDERS[variant]).parameters
    theirs = inspect.signature(keras.applications.ResNet50).parameters
    shared = [name for name in theirs if name != "name"]
    assert list(ours)[: len(shared)] == shared
    assert list(ours)[-1] == "name"
    for name in shared:
        assert ours[name].default == theirs[name].default
    assert ours["name"].default == variant
    kinds = {parameter.kind for parameter in ours.values()}
    assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


@each_builder
def test_builders_are_plain_functions_of_two_modules(variant):
    builder = BUILDERS[variant]
    assert inspect.isfunction(builder)
    assert builder.__name__.lower() == variant
    assert getattr(keras_mobilevit, builder.__name__) is builder
    assert getattr(keras_mobilevit.mobilevit, builder.__name__) is builder


@each_builder
def test_docstring_covers_every_argument(variant):
    builder = BUILDERS[variant]
    doc = inspect.getdoc(builder)
    assert doc.startswith(f"Instantiates the {builder.__name__} architecture.")
    assert f"{COUNTS[variant][0]:,} trainable parameters" in doc
    assert "{" not in doc
    arguments = doc[doc.index("\nArgs:\n") : doc.index("\nReturns:\n")]
    for name in inspect.signature(builder).parameters:
        assert f"\n    {name}: " in arguments, name
    text = pydoc.render_doc(builder, renderer=pydoc.plaintext)
    assert f"{builder.__name__}(include_top: bool = True, weights:" in text


# Input and output


@each_builder
def test_default_shapes(variant):
    builder = BUILDERS[variant]
    model = builder(weights=None)
    assert model.input_shape == (None, 256, 256, 3)
    assert model.output_shape == (None, 1000)
    assert model.name == variant
    assert model.layers[-1].name == "predictions"
    assert model.layers[-1].activation is keras.activations.softmax
    names = [layer.name for layer in model.layers[-3:]]
    assert names == ["avg_pool", "top_dropout", "predictions"]

    features = builder(weights=None, include_top=False)
    channels = MOBILEVIT[variant].head_channels
    assert features.input_shape == (None, None, None, 3)
    assert features.output_shape == (None, None, None, channels)


@each_builder
def test_parameter_counts_are_those_of_the_reference(variant):
    model = BUILDERS[variant](weights=None)
    trainable, statistics = COUNTS[variant]
    assert sum(np.prod(v.shape) for v in model.trainable_weights) == trainable
    rest = model.non_trainable_weights
    assert sum(np.prod(v.shape) for v in rest) == statistics
    assert model.count_params() == trainable + statistics


def test_pooling_pools_the_feature_map():
    image = pictures(2, 64, 96, 3)
    features = mobilevit.MobileViT_XXS(weights=None, include_top=False)
    expected = features.predict(image, verbose=0)
    for pooling, reduce in (("avg", np.mean), ("max", np.max)):
        model = mobilevit.MobileViT_XXS(
            weights=None, include_top=False, pooling=pooling
        )
        model.set_weights(features.get_weights())
        actual = model.predict(image, verbose=0)
        np.testing.assert_allclose(
            actual, reduce(expected, axis=(1, 2)), rtol=1e-5, atol=1e-6
        )


def test_input_tensor_continues_a_graph():
    source = keras.Input((64, 64, 3), name="photo")
    flipped = keras.layers.Permute((2, 1, 3), name="turn")(source)
    model = mobilevit.MobileViT_XXS(
        weights=None, input_tensor=flipped, classes=3
    )
    assert [tensor.name for tensor in model.inputs] == ["photo"]
    plain = mobilevit.MobileViT_XXS(
        weights=None, input_shape=(64, 64, 3), classes=3
    )
    plain.set_weights(model.get_weights())
    image = pictures(1, 64, 64, 3)
    with warnings.catch_warnings():
        # Of another structure of inputs than the model's.
        warnings.simplefilter("error", UserWarning)
        model(image)
    np.testing.assert_allclose(
        model.predict(image, verbose=0),
        plain.predict(image.transpose(0, 2, 1, 3), verbose=0),
        atol=1e-6,
    )


@pytest.fixture(scope="module")
def any_size():
    keras.utils.set_random_seed(3)
    model = mobilevit.MobileViT_XXS(weights=None, include_top=False)
    scatter(model)
    return model


@pytest.mark.parametrize("size", SIZES)
def test_open_shape_runs_at_any_size_as_a_static_one(any_size, size):
    static = mobilevit.MobileViT_XXS(
        weights=None, include_top=False, input_shape=(*size, 3)
    )
    static.set_weights(any_size.get_weights())
    image = pictures(2, *size, 3)
    expected = static(image)
    assert expected.shape == static.compute_output_shape(image.shape)
    scale = np.abs(expected).max()
    # eager, and compiled with unknown sizes
    for actual in (any_size(image), any_size.predict(image, verbose=0)):
        np.testing.assert_allclose(actual, expected, atol=1e-5 * scale)


def test_compiled_with_unknown_sizes(any_size):
    """As in an export: no size is known when the graph is traced."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow traces graphs of unknown sizes")
    import tensorflow as tf

    spec = tf.TensorSpec((None, None, None, 3))
    traced = tf.function(any_size, input_signature=[spec])
    for size in ((32, 32), *SIZES):
        image = pictures(1, *size, 3)
        expected = any_size(image)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(traced(image), expected, atol=1e-5 * scale)


# Companions


def test_preprocess_input_leaves_the_callers_array_alone():
    image = pictures(1, 8, 8, 3)
    copy = image.copy()
    result = mobilevit.preprocess_input(image)
    np.testing.assert_array_equal(result, copy)
    np.testing.assert_array_equal(image, copy)
    theirs = inspect.signature(
        keras.applications.efficientnet_v2.preprocess_input
    ).parameters
    ours = inspect.signature(mobilevit.preprocess_input).parameters
    assert list(ours) == list(theirs)
    mobilevit.preprocess_input(image, data_format="channels_last")


@pytest.fixture
def class_index(monkeypatch):
    """Stands for the file of class names, which Keras would download."""
    decode = keras.applications.imagenet_utils.decode_predictions
    index = {str(i): [f"n{i:08}", f"name_{i}"] for i in range(1000)}
    monkeypatch.setitem(decode.__globals__, "CLASS_INDEX", index)


def test_decode_predictions(class_index):
    predictions = np.zeros((2, 1000), "float32")
    predictions[0, [7, 3]] = (0.6, 0.4)
    predictions[1, 999] = 1
    decoded = mobilevit.decode_predictions(predictions, top=2)
    assert len(decoded) == 2
    assert [entry[:2] for entry in decoded[0]] == [
        ("n00000007", "name_7"),
        ("n00000003", "name_3"),
    ]
    assert decoded[1][0][:2] == ("n00000999", "name_999")
    assert decoded[0][0][2] == pytest.approx(0.6)
    assert len(mobilevit.decode_predictions(predictions)[0]) == 5


@pytest.mark.parametrize("shape", ((1, 10), (1000,), (1, 1000, 1)))
def test_decode_predictions_refuses_other_shapes(class_index, shape):
    with pytest.raises(ValueError, match="1000"):
        mobilevit.decode_predictions(np.zeros(shape))
