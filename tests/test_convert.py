"""What `tflite.convert` writes."""

import keras
import numpy as np
import pytest

import keras_mobilevit
from keras_mobilevit import tflite
from keras_mobilevit.quantization.rounding import signal_to_noise
from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite.interpreter import Runner
from keras_mobilevit.tflite.targets import PRECISIONS
from keras_mobilevit.tflite.targets import TARGETS

INTEGER = ("int8", "int8_mixed")
LARGEST = {"mobilevit_xxs": 1.7e6, "mobilevit_xs": 2.9e6, "mobilevit_s": 6.6e6}


def probabilities(path, pictures):
    return Runner(path)(pictures)


# What is written


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions(convert, precision, tiny_model, tiny_pictures, tmp_path):
    report = convert(tmp_path / "a.tflite", precision=precision)
    found = tflite.inspect(report.path)
    expected = tiny_model.predict(tiny_pictures, verbose=0)
    outputs = probabilities(report.path, tiny_pictures)
    least = {"float32": 90, "float16": 40}.get(precision, 10)
    assert signal_to_noise(expected, outputs) > least
    (signature,) = found.signatures
    assert signature.key == "serving_default"
    assert tuple(signature.inputs) == ("image",)
    assert tuple(signature.outputs) == ("predictions",)
    assert found.max_rank <= 4 and not found.dynamic_tensors
    assert report.size == (tmp_path / "a.tflite").stat().st_size
    assert report.ops == len(found.ops) and precision in str(report)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.tflite"]


@pytest.mark.parametrize("precision", INTEGER)
def test_input_types_agree(convert, precision, tiny_pictures, tmp_path):
    outputs = {}
    for dtype in ("uint8", "int8", "float32"):
        path = tmp_path / f"{dtype}.tflite"
        convert(path, precision=precision, input_dtype=dtype)
        (image,) = tflite.inspect(path).inputs
        (scores,) = tflite.inspect(path).outputs
        assert (image.dtype, scores.dtype) == (dtype, dtype)
        outputs[dtype] = probabilities(path, tiny_pictures)
    np.testing.assert_array_equal(outputs["uint8"], outputs["int8"])
    step = 1 / 256 if precision == "int8_mixed" else 1e-6
    np.testing.assert_allclose(
        outputs["uint8"], outputs["float32"], atol=1.01 * step
    )


@pytest.mark.parametrize("precision", INTEGER)
def test_input_range_is_that_of_pixels(convert, precision, tmp_path):
    """Also where the calibration pictures are all of medium grey."""
    generator = np.random.default_rng(0)
    grey = generator.integers(100, 150, (40, 32, 32, 3)).astype("uint8")
    convert(tmp_path / "a.tflite", pictures=grey, precision=precision)
    (image,) = tflite.inspect(tmp_path / "a.tflite").inputs
    assert image.scale == pytest.approx(1.0) and image.zero_point == 0


def test_int8_has_only_integers(convert, tmp_path):
    report = convert(tmp_path / "a.tflite", precision="int8", target="edgetpu")
    found = tflite.inspect(report.path)
    assert found.float_ops == {} and report.float_ops == 0
    assert found.min_runtime_version == (2, 5, 0)
    kernels = [op for op in found.ops if op.per_channel is not None]
    assert kernels and all(op.per_channel for op in kernels)
    versions = {op.name: op.version for op in found.ops}
    assert versions["CONV_2D"] == 3 and versions["ADD"] == 2


def test_mixed_keeps_softmax_and_norms_in_float(convert, tmp_path):
    report = convert(tmp_path / "a.tflite", precision="int8_mixed")
    ops = tflite.inspect(report.path).ops
    floats = {op.name for op in ops if op.output_dtypes[0] == "float32"}
    integers = {op.name for op in ops if op.output_dtypes[0] == "int8"}
    assert {"SOFTMAX", "RSQRT"} <= floats - integers
    assert {
        *("BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "LOGISTIC")
    } <= integers - floats
    timing = tflite.benchmark([report.path], runs=2, threads=(1,))
    assert timing.files[0].partitions == 1
    # XNNPACK leaves the two that turn uint8 into int8 and back.
    assert set(timing.files[0].ops_outside) <= {"QUANTIZE"}


@pytest.mark.parametrize("equalize", [True, False])
def test_xnnpack_takes_products_of_integers(convert, equalize, tmp_path):
    """Their second factor has the zero point 0."""
    path = tmp_path / "a.tflite"
    convert(path, precision="int8", equalize=equalize, refine=equalize)
    verdicts = [
        verdict.verdict
        for verdict in tflite.inspect(path).check("cpu").verdicts
        if verdict.name == "BATCH_MATMUL"
    ]
    assert len(verdicts) == 2 and set(verdicts) == {"maps"}


def test_equal_conversions_give_equal_files(convert, tmp_path):
    for precision in INTEGER:
        for name in "ab":
            convert(tmp_path / f"{precision}{name}", precision=precision)
        first, second = (tmp_path / f"{precision}{n}" for n in "ab")
        assert noise_free(first) == noise_free(second)


def noise_free(path):
    """The weights and the graph; names of temporary folders may differ."""
    found = tflite.inspect(path)
    return [(op.name, op.output_shapes, op.output_dtypes) for op in found.ops]


def test_default_precision_is_the_targets(convert, tmp_path):
    for target, row in TARGETS.items():
        report = convert(tmp_path / f"{target}.tflite", target=target)
        assert report.precision == row.precision


def test_keras_file(convert, tiny_model, tiny_pictures, tmp_path):
    tiny_model.save(tmp_path / "model.keras")
    convert(
        tmp_path / "a.tflite",
        model=tmp_path / "model.keras",
        precision="float32",
    )
    np.testing.assert_allclose(
        probabilities(tmp_path / "a.tflite", tiny_pictures),
        tiny_model.predict(tiny_pictures, verbose=0),
        atol=1e-5,
    )


def test_any_size(tiny_model, tmp_path):
    """A file of another size has the weights of the model."""
    generator = np.random.default_rng(0)
    for name, model in (
        ("static", tiny_model),
        (
            "open",
            keras_mobilevit.MobileViT_XXS(
                include_top=False, weights=None, pooling="avg"
            ),
        ),
    ):
        path = tmp_path / f"{name}.tflite"
        report = tflite.convert(
            model, path, precision="float32", input_shape=(48, 40)
        )
        assert report.input_shape == (1, 48, 40, 3)
        pictures = generator.integers(0, 256, (2, 48, 40, 3)).astype("uint8")
        found = probabilities(path, pictures)
        if name == "open":
            expected = model.predict(pictures, verbose=0)
            np.testing.assert_allclose(found, expected, atol=1e-4)
        assert found.shape == (2, model.output_shape[-1])


def test_several_outputs_are_named(tiny_model, tiny_pictures, tmp_path):
    block, scores = (
        tiny_model.get_layer(name).output for name in ("block1", "predictions")
    )
    model = keras.Model(tiny_model.input, [block, scores])
    path = tmp_path / "a.tflite"
    tflite.convert(model, path, precision="float32")
    (signature,) = tflite.inspect(path).signatures
    assert set(signature.outputs) == {"block1", "predictions"}
    np.testing.assert_allclose(
        Runner(path, output="predictions")(tiny_pictures),
        tiny_model.predict(tiny_pictures, verbose=0),
        atol=1e-5,
    )


# What feeds the calibration


def test_kinds_of_calibration_data(convert, tiny_pictures, tmp_path):
    import tensorflow as tf

    labelled = tf.data.Dataset.from_tensor_slices(
        (tiny_pictures, np.zeros(len(tiny_pictures)))
    )
    kinds = {
        "array": tiny_pictures,
        "dataset": labelled.batch(7),
        "singles": list(tiny_pictures),
        "generator": (picture[np.newaxis] for picture in tiny_pictures),
    }
    found = []
    for name, pictures in kinds.items():
        path = tmp_path / name
        convert(path, pictures=pictures, precision="int8")
        found.append(probabilities(path, tiny_pictures))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


# The graph


def test_islands_are_bounded():
    nodes = [
        flatbuffer.Node("CONV_2D", (0,), (1,)),
        flatbuffer.Node("MEAN", (1,), (2,)),
        flatbuffer.Node("RSQRT", (2,), (3,)),
        flatbuffer.Node("MUL", (1, 3), (4,)),
        flatbuffer.Node("CONV_2D", (4,), (5,)),
        flatbuffer.Node("LOGISTIC", (5,), (6,)),
        flatbuffer.Node("MUL", (5, 6), (7,)),
        flatbuffer.Node("ADD", (7, 5), (8,)),
        flatbuffer.Node("MEAN", (8,), (9,)),
        flatbuffer.Node("FULLY_CONNECTED", (9,), (10,)),
        flatbuffer.Node("SOFTMAX", (10,), (11,)),
    ]
    assert flatbuffer.float_islands(nodes) == {1, 2, 3, 10}
    assert flatbuffer.float_islands([]) == set()


def test_weights_are_aligned(convert, tmp_path):
    """Kernels on Arm read constants in blocks of 16 bytes."""
    from ai_edge_litert import schema_py_generated as schema

    convert(tmp_path / "a.tflite", precision="int8_mixed")
    data = (tmp_path / "a.tflite").read_bytes()
    model = schema.Model.GetRootAs(data, 0)
    starts = []
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength():
            field = buffer._tab.Offset(4)
            starts.append(buffer._tab.Vector(field))
    assert starts and all(start % 16 == 0 for start in starts)


# The real networks


@pytest.fixture(scope="module", params=("mobilevit_xxs", "mobilevit_s"))
def full_size(request, tmp_path_factory):
    """A network at 256x256 with random parameters, and its files."""
    builder = {
        name.lower(): getattr(keras_mobilevit, name)
        for name in ("MobileViT_XXS", "MobileViT_XS", "MobileViT_S")
    }[request.param]
    model = builder(weights=None, classifier_activation=None)
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "bias", "moving_mean"):
            variable.assign(generator.normal(0, 0.1, variable.shape))
    pictures = generator.integers(0, 256, (4, 256, 256, 3)).astype("uint8")
    folder = tmp_path_factory.mktemp(request.param)
    reports = {}
    for precision in ("float32", "int8", "int8_mixed"):
        with pytest.warns() if precision != "float32" else _nothing():
            reports[precision] = tflite.convert(
                model,
                folder / precision,
                precision=precision,
                calibration_data=pictures,
            )
    return request.param, model, pictures, reports


def _nothing():
    import contextlib

    return contextlib.nullcontext()


def test_full_size_files(full_size):
    variant, model, pictures, reports = full_size
    int8 = tflite.inspect(reports["int8"].path)
    assert int8.float_ops == {}
    assert not int8.dynamic_tensors and int8.max_rank <= 4
    assert int8.min_runtime_version <= (2, 5, 0)
    assert int8.size <= LARGEST[variant]
    kernels = [op for op in int8.ops if op.per_channel is not None]
    assert all(op.per_channel for op in kernels)
    expected = model.predict(pictures, verbose=0)
    found = probabilities(reports["float32"].path, pictures)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    mixed = probabilities(reports["int8_mixed"].path, pictures)
    assert signal_to_noise(expected, mixed) > 15


def test_odd_maps(tmp_path):
    """224 pixels: the last map has 7x7 pixels and is resized."""
    model = keras_mobilevit.MobileViT_XXS(
        weights=None, input_shape=(224, 224, 3)
    )
    pictures = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3))
    with pytest.warns(UserWarning, match="holds only"):
        report = tflite.convert(
            model,
            tmp_path / "model.tflite",
            precision="int8",
            calibration_data=pictures,
        )
    names = tflite.inspect(report.path).op_counts
    assert names["RESIZE_BILINEAR"] == 2
