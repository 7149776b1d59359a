"""A file's head learns, and what it learned outlives the interpreter."""

import keras
import numpy as np
import pytest

from keras_mobilevit import tflite
from keras_mobilevit.tflite import interpreter as interpreters

BATCH, CLASSES = 4, 3


@pytest.fixture(scope="module")
def backbone(tiny_model):
    head = tiny_model.get_layer("predictions")
    return keras.Model(tiny_model.input, head.input)


@pytest.fixture(scope="module")
def file(backbone, tmp_path_factory):
    return tflite.convert_trainable(
        backbone,
        tmp_path_factory.mktemp("trainable") / "learns.tflite",
        labels=["a", "b", "c"],
        batch_size=BATCH,
    )


@pytest.fixture
def device(file):
    """The four signatures in an interpreter of its own, and this one."""
    return run_file(file.path)


def run_file(path):
    interpreter = interpreters.open_interpreter(path, 1)
    names = interpreter.get_signature_list()
    # The runners do not keep their interpreter alive.
    runs = {name: interpreter.get_signature_runner(name) for name in names}
    return runs | {"interpreter": interpreter}


def step(device, pictures, labels, learning_rate=0.5):
    return device["train"](
        image=pictures.astype("float32"),
        label=np.array(labels, "int32"),
        learning_rate=np.float32(learning_rate),
    )["loss"]


def scores(device, pictures):
    rows = [
        device["infer"](image=x[np.newaxis].astype("float32"))["scores"]
        for x in pictures
    ]
    return np.concatenate(rows)


def keras_head(backbone, learning_rate):
    """The same head in Keras, whose gradient is found by Keras."""
    features = keras.Input(backbone.output.shape[1:])
    outputs = keras.layers.Dense(CLASSES, "softmax", kernel_initializer="zeros")
    model = keras.Model(features, outputs(features))
    model.compile(
        keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy"
    )
    return model


def test_what_the_file_is(file, backbone):
    found = tflite.inspect(file.path)
    assert {s.key: s.inputs for s in found.signatures} == {
        "infer": ("image",),
        "restore": ("bias", "kernel"),
        "save": (),
        "train": ("image", "label", "learning_rate"),
    }
    assert not any(op.is_custom for op in found.ops)
    assert found.labels == ("a", "b", "c")
    assert found.min_runtime_version <= (2, 6, 0)
    assert not found.dynamic_tensors
    assert found.max_rank <= 4
    # The weights are there once, though two signatures use them.
    weights = sum(4 * np.prod(w.shape) for w in backbone.weights)
    assert found.weight_bytes < 1.5 * weights
    assert file.features == backbone.output.shape[-1]
    assert file.size == found.size
    assert "-> 3" in str(file)
    for target in ("cpu", "gpu", "edgetpu"):
        assert found.check(target).total == len(found.ops)


def test_a_new_head_has_no_opinion(device, tiny_pictures):
    np.testing.assert_allclose(scores(device, tiny_pictures[:2]), 1 / CLASSES)


def test_steps_are_those_of_keras(device, backbone, tiny_pictures):
    model = keras_head(backbone, 0.5)
    labels = [0, 1, 2, 1]
    for start in (0, 4, 8):
        pictures = tiny_pictures[start : start + BATCH]
        features = backbone.predict(pictures.astype("float32"), verbose=0)
        expected = model.train_on_batch(features, np.array(labels))
        loss = step(device, pictures, labels)
        np.testing.assert_allclose(loss, expected, rtol=1e-4)
    kernel, bias = model.get_weights()
    learned = device["save"]()
    np.testing.assert_allclose(learned["kernel"], kernel, atol=1e-5)
    np.testing.assert_allclose(learned["bias"], bias, atol=1e-5)
    expected = model.predict(features, verbose=0)
    np.testing.assert_allclose(scores(device, pictures), expected, atol=1e-5)


def test_a_label_of_minus_one_is_left_out(device, file, tiny_pictures):
    other = run_file(file.path)
    a, b, c, d = tiny_pictures[:4]
    first = step(device, np.stack([a, b, c, d]), [0, 1, -1, -1])
    second = step(other, np.stack([a, b, d, c]), [0, 1, -1, -1])
    assert first == second
    assert device["save"]()["kernel"].any()
    for name, value in device["save"]().items():
        np.testing.assert_array_equal(value, other["save"]()[name])
    before = device["save"]()
    assert step(device, np.stack([a, b, c, d]), [-1] * 4) == 0
    np.testing.assert_array_equal(before["kernel"], device["save"]()["kernel"])


def test_it_learns_saves_and_restores(device, file, tiny_pictures, tmp_path):
    pictures, labels = tiny_pictures[:BATCH], [0, 1, 2, 0]
    losses = [step(device, pictures, labels, 3.0) for _ in range(1000)]
    assert losses[-1] < 0.7 * losses[0]
    learned = scores(device, pictures)
    np.savez(tmp_path / "head.npz", **device["save"]())
    other = run_file(file.path)
    assert not np.allclose(scores(other, pictures), learned)
    other["restore"](**np.load(tmp_path / "head.npz"))
    np.testing.assert_array_equal(scores(other, pictures), learned)
    # It goes on where it was.
    assert step(other, pictures, labels) == step(device, pictures, labels)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "`classes`.*`labels`.*neither"),
        ({"classes": 1}, "`classes`.*classes=1"),
        ({"classes": True}, "`classes`.*classes=True"),
        ({"classes": 3, "batch_size": 0}, "`batch_size`.*batch_size=0"),
        ({"classes": 3, "labels": ["a"]}, "`labels`.*1 labels"),
        ({"labels": "abc"}, "`labels`.*labels='abc'"),
    ],
)
def test_bad_arguments(backbone, tmp_path, arguments, message):
    path = tmp_path / "x.tflite"
    with pytest.raises(ValueError, match=message):
        tflite.convert_trainable(backbone, path, **arguments)
    assert not path.exists()


def test_bad_backbones(tiny_model, tmp_path):
    path = tmp_path / "x.tflite"
    with pytest.raises(ValueError, match="ends in a softmax, 'predictions'"):
        tflite.convert_trainable(tiny_model, path, classes=3)
    maps = keras.Model(tiny_model.input, tiny_model.get_layer("block2").output)
    with pytest.raises(ValueError, match="`backbone` must give features"):
        tflite.convert_trainable(maps, path, classes=3)


def test_it_is_not_overwritten(file, backbone):
    with pytest.raises(FileExistsError):
        tflite.convert_trainable(backbone, file.path, classes=3)
