"""The builders keep the contract of `keras.applications`, and the network."""

import inspect
import json
import os
import pydoc
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest

import keras_mobilevit
from keras_mobilevit import mobilevit
from keras_mobilevit.configs import ENDPOINTS
from keras_mobilevit.configs import MOBILEVIT
from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import DepthwiseConvNormAct

BUILDERS = {
    "mobilevit_xxs": mobilevit.MobileViT_XXS,
    "mobilevit_xs": mobilevit.MobileViT_XS,
    "mobilevit_s": mobilevit.MobileViT_S,
}
# trainable parameters | batch-normalization statistics, as of the reference
COUNTS = {
    "mobilevit_xxs": (1_272_024, 4_112),
    "mobilevit_xs": (2_317_848, 8_448),
    "mobilevit_s": (5_578_632, 12_256),
}
TINY = {"weights": None, "input_shape": (32, 32, 3), "classes": 3}
SIZES = ((64, 64), (123, 123), (96, 160), (33, 225))

each_builder = pytest.mark.parametrize("variant", MOBILEVIT)


def pictures(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return generator.uniform(0, 255, shape).astype("float32")


def paths(model):
    return [variable.path for variable in model.weights]


def scatter(model, seed=0):
    """Gives every variable a value of its own, statistics included."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        noise = generator.uniform(0, 0.3, variable.shape)
        variable.assign(variable + noise)


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


# The same outcome as keras.applications for the same arguments


def outcome(builder, arguments):
    """Returns the output shape, or the type of the exception."""
    arguments = dict(arguments)
    tensor_shape = arguments.pop("tensor_shape", None)
    if tensor_shape is not None:
        arguments["input_tensor"] = keras.Input(tensor_shape)
    try:
        return builder(**arguments).output_shape
    except Exception as error:
        return type(error)


GOOD_ARGUMENTS = {
    "defaults": {"weights": None},
    "classes": {**TINY, "classes": 7},
    "shape as list": {**TINY, "input_shape": [64, 64, 3]},
    "smallest": {**TINY, "input_shape": (32, 32, 3)},
    "one channel": {**TINY, "input_shape": (32, 32, 1)},
    "four channels": {**TINY, "input_shape": (32, 32, 4)},
    "logits": {**TINY, "classifier_activation": None},
    "sigmoid": {**TINY, "classifier_activation": "sigmoid"},
    "tensor": {"weights": None, "tensor_shape": (64, 64, 3)},
    "open tensor": {"weights": None, "tensor_shape": (None, None, 3)},
    "tensor and shape": {
        "weights": None,
        "tensor_shape": (64, 64, 3),
        "input_shape": (64, 64, 3),
    },
    "average pooling": {**TINY, "include_top": False, "pooling": "avg"},
    "maximum pooling": {**TINY, "include_top": False, "pooling": "max"},
}


@each_builder
@pytest.mark.parametrize("case", GOOD_ARGUMENTS)
def test_good_arguments_build_as_in_keras(variant, case):
    arguments = GOOD_ARGUMENTS[case]
    expected = outcome(keras.applications.MobileNetV2, arguments)
    if "pooling" in arguments:  # the widths of the networks differ
        expected = (None, MOBILEVIT[variant].head_channels)
    assert isinstance(expected, tuple)
    assert outcome(BUILDERS[variant], arguments) == expected


# arguments | the beginning of our message
BAD_ARGUMENTS = {
    "weights": (
        {"weights": "no/such/file"},
        "The `weights` argument should be either `None` (random "
        "initialization), `imagenet` (pre-training on ImageNet), or the path "
        "to the weights file to be loaded. Received: weights=no/such/file",
    ),
    "classes of imagenet": (
        {"weights": "imagenet", "classes": 10},
        "If using `weights='imagenet'` with `include_top=True`, `classes` "
        "should be 1000. Received classes=10",
    ),
    "open shape with top": (
        {"weights": None, "input_shape": (None, None, 3)},
        "If `include_top` is True, you should specify a static `input_shape`."
        " Received: ",
    ),
    "half open shape with top": (
        {"weights": None, "input_shape": (None, 64, 3)},
        "If `include_top` is True, you should specify a static `input_shape`."
        " Received: ",
    ),
    "rank 2": (
        {"weights": None, "input_shape": (64, 64)},
        "`input_shape` must be a tuple of three integers.",
    ),
    "rank 4": (
        {"weights": None, "input_shape": (1, 64, 64, 3)},
        "`input_shape` must be a tuple of three integers.",
    ),
    "rank 4 without top": (
        {"weights": None, "input_shape": (1, 64, 64, 3), "include_top": False},
        "`input_shape` must be a tuple of three integers.",
    ),
    "too small": (
        {"weights": None, "input_shape": (16, 16, 3)},
        "Input size must be at least 32x32; Received: input_shape=(16, 16, 3)",
    ),
    "too small without top": (
        {"weights": None, "input_shape": (64, 31, 3), "include_top": False},
        "Input size must be at least 32x32; Received: input_shape=(64, 31, 3)",
    ),
    "size of imagenet": (
        {"weights": "imagenet", "input_shape": (64, 64, 3)},
        "When setting `include_top=True` and loading `imagenet` weights, "
        "`input_shape` should be (256, 256, 3). Received: "
        "input_shape=(64, 64, 3)",
    ),
    "channels of imagenet": (
        {
            "weights": "imagenet",
            "input_shape": (64, 64, 4),
            "include_top": False,
        },
        "The input must have 3 channels; Received `input_shape=(64, 64, 4)`",
    ),
    "activation of imagenet": (
        {"weights": "imagenet", "classifier_activation": "relu"},
        "Only `None` and `softmax` activations are allowed for the "
        "`classifier_activation` argument when using pretrained weights, with "
        "`include_top=True`; Received: classifier_activation=relu",
    ),
    "no classes": (
        {**TINY, "classes": 0},
        "The `classes` argument should be a positive integer. "
        "Received: classes=0",
    ),
    "classes as text": (
        {**TINY, "classes": "10"},
        "The `classes` argument should be a positive integer. "
        "Received: classes='10'",
    ),
    "unknown argument": (
        {**TINY, "widht": 2},
        "{builder}() got an unexpected keyword argument 'widht'",
    ),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_raise_as_in_keras(case):
    arguments, _ = BAD_ARGUMENTS[case]
    expected = outcome(keras.applications.EfficientNetV2B0, arguments)
    assert issubclass(expected, Exception)
    for builder in BUILDERS.values():
        assert outcome(builder, arguments) is expected


@each_builder
@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_are_explained(variant, case):
    arguments, message = BAD_ARGUMENTS[case]
    arguments = dict(arguments)
    builder = BUILDERS[variant]
    if "tensor_shape" in arguments:
        shape = arguments.pop("tensor_shape")
        arguments["input_tensor"] = keras.Input(shape)
    with pytest.raises((ValueError, TypeError)) as caught:
        builder(**arguments)
    expected = message.format(builder=builder.__name__)
    assert str(caught.value).startswith(expected)


# Where Keras is silent or obscure, a ValueError that names the argument.
STRICTER = {
    "pooling": {"pooling": "bad", "include_top": False},
    "output_stride": {"output_stride": 4},
    "dropout": {"dropout": 1.0},
    "dropout text": {"dropout": "half"},
    "dropout nan": {"dropout": float("nan")},
    "weights number": {"weights": 1},
    "weights folder": {"weights": os.path.dirname(__file__)},
    "weights array": {"weights": np.zeros(2)},
    "classes bool": {"classes": True},
    "classes negative": {"classes": -1},
    "input_shape number": {"input_shape": 64},
    "input_shape text": {"input_shape": ("64", "64", "3")},
    "input_shape floats": {"input_shape": (64.0, 64.0, 3)},
    "input_shape without channels": {
        "input_shape": (64, 64, None),
        "include_top": False,
    },
    "input_shape no channel": {"input_shape": (64, 64, 0)},
    "input_tensor array": {"input_tensor": np.zeros((1, 64, 64, 3))},
    "input_tensor text": {"input_tensor": "image"},
}


@each_builder
@pytest.mark.parametrize("case", STRICTER)
def test_stricter_than_keras(variant, case):
    arguments = {**TINY, **STRICTER[case]}
    if "input_tensor" in arguments:
        del arguments["input_shape"]
    with pytest.raises(ValueError, match="Received") as caught:
        BUILDERS[variant](**arguments)
    assert f"`{case.split()[0]}" in str(caught.value)


@each_builder
@pytest.mark.parametrize("shape", ((96, 64, 3), (64, 64, 1), (64, 64), 64))
def test_input_shape_and_input_tensor_may_not_disagree(variant, shape):
    tensor = keras.Input((64, 64, 3))
    with pytest.raises(ValueError, match="`input_shape`"):
        BUILDERS[variant](weights=None, input_tensor=tensor, input_shape=shape)


def test_a_shape_may_hold_numpy_integers():
    model = mobilevit.MobileViT_XXS(
        **{**TINY, "input_shape": np.array([32, 32, 3])}
    )
    assert model.input_shape == (None, 32, 32, 3)


@each_builder
def test_channels_first_is_refused(variant):
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="channels_last"):
            BUILDERS[variant](weights=None)
    finally:
        keras.config.set_image_data_format("channels_last")


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


# The network


@each_builder
@pytest.mark.parametrize("output_stride", (8, 16, 32))
def test_endpoints_have_their_strides(variant, output_stride):
    model = BUILDERS[variant](
        weights=None,
        include_top=False,
        input_shape=(128, 192, 3),
        output_stride=output_stride,
    )
    config = MOBILEVIT[variant]
    channels = (config.stem_channels, *config.channels, config.head_channels)
    for (name, stride), width in zip(ENDPOINTS.items(), channels):
        stride = min(stride, output_stride)
        shape = model.get_layer(name).output.shape
        assert shape == (None, 128 // stride, 192 // stride, width), name


@pytest.mark.parametrize("output_stride", (8, 16, 32))
def test_only_the_last_stage_of_stride_8_is_dilated(output_stride):
    model = mobilevit.MobileViT_XXS(
        weights=None, include_top=False, output_stride=output_stride
    )
    dilated = [
        layer.path
        for layer in model._flatten_layers()
        if isinstance(layer, DepthwiseConvNormAct | ConvNormAct)
        and layer.dilation_rate != 1
    ]
    assert dilated == (["block5_mv2_1/depthwise"] if output_stride == 8 else [])
    plain = mobilevit.MobileViT_XXS(weights=None, include_top=False)
    assert paths(model) == paths(plain)


@each_builder
def test_structure_follows_the_table(variant):
    """Residuals, dropout rates, heads, widths and epsilons."""
    config = MOBILEVIT[variant]
    model = BUILDERS[variant](weights=None, input_shape=(64, 64, 3))
    residual = {
        layer.name
        for layer in model.layers
        if getattr(layer, "has_residual", False)
    }
    first = {"block1"} if variant == "mobilevit_xxs" else set()
    assert residual == first | {"block2_mv2_2", "block2"}
    for i, stage in enumerate(("block3", "block4", "block5")):
        block = model.get_layer(stage)
        width = config.transformer_dims[i]
        assert len(block.transformer) == (2, 4, 3)[i]
        assert block.patch_size == 2
        assert block.norm.epsilon == 1e-5
        for transformer in block.transformer:
            assert transformer.attention.heads == 4
            assert transformer.attention.attention_dropout.rate == 0
            assert transformer.drop1.rate == config.transformer_dropout
            assert transformer.drop2.rate == config.transformer_dropout
            assert transformer.ffn_drop.rate == 0
            assert transformer.ffn_expand.kernel.shape[-1] == 2 * width
            assert transformer.norm1.epsilon == 1e-5
            assert transformer.norm2.epsilon == 1e-5
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == 32
    assert {(n.epsilon, n.momentum) for n in norms} == {(1e-5, 0.9)}
    assert model.get_layer("top_dropout").rate == 0.1


def test_dropout_rate_of_the_classifier():
    model = mobilevit.MobileViT_XXS(**TINY, dropout=0.4)
    assert model.get_layer("top_dropout").rate == 0.4
    model = mobilevit.MobileViT_XXS(**TINY, dropout=0)
    assert "top_dropout" not in [layer.name for layer in model.layers]


@each_builder
def test_initial_values_are_those_of_the_reference(variant):
    keras.utils.set_random_seed(1)
    model = BUILDERS[variant](weights=None)
    constants = {"gamma": 1, "beta": 0, "bias": 0}
    constants |= {"moving_mean": 0, "moving_variance": 1}
    for variable in model.weights:
        values = keras.ops.convert_to_numpy(variable)
        path = variable.path
        *_, owner, name = path.split("/")
        if name in constants:
            assert np.all(values == constants[name]), path
            continue
        assert name == "kernel"
        if owner == "predictions" or "/transformer_" in path:
            std = 0.02
        elif owner == "depthwise":  # the fan-out as PyTorch counts it
            std = np.sqrt(2 / (9 * values.shape[2]))
        else:
            side, _, _, filters = values.shape
            std = np.sqrt(2 / (side * side * filters))
        error = 5 / np.sqrt(2 * values.size)
        assert values.std() == pytest.approx(std, rel=error), path
        if values.size > 5000:  # normal, and not cut at two deviations
            assert np.abs(values).max() > 3 * std, path


def test_preprocessing_is_inside_unless_refused():
    keras.utils.set_random_seed(0)
    inside = mobilevit.MobileViT_XXS(**TINY)
    outside = mobilevit.MobileViT_XXS(**TINY, include_preprocessing=False)
    outside.set_weights(inside.get_weights())
    image = pictures(2, 32, 32, 3)
    np.testing.assert_allclose(
        inside(image), outside(image / 255), rtol=1e-5, atol=1e-6
    )
    whole = image.astype("uint8")
    np.testing.assert_allclose(
        inside(whole), outside(whole / 255.0), rtol=1e-5, atol=1e-6
    )


# Training, precision, saving


@each_builder
def test_one_fit_step_moves_every_weight(variant):
    keras.utils.set_random_seed(0)
    # Sizes above one patch: over a single patch the queries get no gradient.
    model = BUILDERS[variant](**{**TINY, "input_shape": (96, 96, 3)})
    before = [variable.numpy() for variable in model.trainable_weights]
    model.compile(
        # Nothing but the gradients: Adam takes half a minute to trace.
        keras.optimizers.SGD(1.0),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    history = model.fit(
        pictures(4, 96, 96, 3), np.array([0, 1, 2, 0]), epochs=1, verbose=0
    )
    assert np.isfinite(history.history["loss"][0])
    for variable, old in zip(model.trainable_weights, before):
        assert not np.array_equal(variable.numpy(), old), variable.path


@pytest.fixture
def half_precision():
    keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    keras.mixed_precision.set_global_policy("float32")


def test_mixed_float16(half_precision):
    keras.utils.set_random_seed(0)
    model = mobilevit.MobileViT_XXS(**TINY)
    assert all(v.dtype == "float32" for v in model.weights)
    image = pictures(2, 32, 32, 3)
    output = model.predict(image, verbose=0)
    assert output.dtype == "float16"
    keras.mixed_precision.set_global_policy("float32")
    exact = mobilevit.MobileViT_XXS(**TINY)
    exact.set_weights(model.get_weights())
    np.testing.assert_allclose(
        output, exact.predict(image, verbose=0), atol=5e-3
    )


def test_mixed_float16_fits(half_precision):
    model = mobilevit.MobileViT_XXS(**TINY)
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    history = model.fit(
        pictures(2, 32, 32, 3), np.array([0, 1]), epochs=1, verbose=0
    )
    assert np.isfinite(history.history["loss"][0])


LOAD_AND_PREDICT = """
import sys
import keras
import numpy as np
import keras_mobilevit
folder = sys.argv[1]
model = keras.saving.load_model(folder + "/model.keras")
image = np.load(folder + "/image.npy")
np.save(folder + "/output.npy", model.predict(image, verbose=0))
print("\\n".join(variable.path for variable in model.weights))
"""


def test_saved_model_comes_back_with_equal_paths(tmp_path):
    model = mobilevit.MobileViT_XXS(**{**TINY, "input_shape": (64, 96, 3)})
    scatter(model)
    image = pictures(2, 64, 96, 3)
    expected = model.predict(image, verbose=0)
    model.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert paths(loaded) == paths(model)
    assert json.loads(loaded.to_json()) == json.loads(model.to_json())
    np.testing.assert_array_equal(loaded.predict(image, verbose=0), expected)

    np.save(tmp_path / "image.npy", image)
    fresh = subprocess.run(
        [sys.executable, "-c", LOAD_AND_PREDICT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert fresh.returncode == 0, fresh.stderr
    assert fresh.stdout.split() == paths(model)
    np.testing.assert_allclose(
        np.load(tmp_path / "output.npy"), expected, rtol=1e-5, atol=1e-6
    )


@each_builder
def test_weight_paths_are_stable_and_unique(variant):
    first = BUILDERS[variant](**TINY)
    second = BUILDERS[variant](**TINY)
    assert paths(first) == paths(second)
    assert len(set(paths(first))) == len(first.weights)
    assert "block3/transformer_0/attention/query/kernel" in paths(first)


@each_builder
def test_weights_path_is_loaded_by_the_builder(variant, tmp_path):
    model = BUILDERS[variant](**TINY)
    scatter(model)
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    image = pictures(1, 32, 32, 3)
    for given in (path, str(path)):  # os.PathLike and text
        loaded = BUILDERS[variant](**{**TINY, "weights": given})
        np.testing.assert_array_equal(loaded(image), model(image))


def test_a_frozen_model_stays_frozen_when_saved(tmp_path):
    """Batch statistics included: they would move while fine-tuning."""
    features = mobilevit.MobileViT_XXS(
        weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3)
    )
    features.trainable = False
    head = keras.layers.Dense(2, name="head")(features.output)
    model = keras.Model(features.input, head)
    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert [v.path for v in model.trainable_weights] == [
        "head/kernel",
        "head/bias",
    ]
    before = {v.path: v.numpy() for v in model.non_trainable_weights}
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(pictures(2, 32, 32, 3), np.ones((2, 2)), verbose=0)
    for variable in model.non_trainable_weights:
        np.testing.assert_array_equal(variable, before[variable.path])

    for layer in model.layers:
        layer.trainable = True
    assert len(model.trainable_weights) == len(features.weights) - 64 + 2


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
