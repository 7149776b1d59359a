"""A real run on small pictures: what it leaves, and that a kill is harmless."""

import csv
import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mobilevit import data
from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.training import Recipe
from keras_mobilevit.training import distill
from keras_mobilevit.training import train

pytest.importorskip("sklearn")
RECIPE = Recipe(epochs=4, freeze_epochs=1)


def tiny(activation="softmax", classes=10, head="predictions"):
    """A classifier of 32x32 pixels with all that has a state."""
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Rescaling(1 / 255.0)(image)
    x = ConvNormAct(8, 3, strides=4, name="stem")(x)
    x = keras.layers.Dropout(0.2)(x)
    x = ConvNormAct(16, 3, strides=2, name="block1")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(classes, activation=activation, name=head)(x)
    return keras.Model(image, x, name="tiny")


def digits(**options):
    return data.load_digits(32, 64, **options)


def run(folder, model=None, recipe=RECIPE, dataset=None, **options):
    model, dataset = model or tiny(), dataset or digits()
    report = train(model, dataset, recipe, folder, verbose=0, **options)
    return model, report


def half_frozen():
    model = tiny()
    model.get_layer("stem").trainable = False
    return model


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run."""
    return run(tmp_path_factory.mktemp("run") / "a" / "b")


def variables(model):
    found = model.variables + model.optimizer.variables
    return [v.numpy() for v in found]


def assert_equal(model, other):
    for a, b in zip(variables(model), variables(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_run_learns_and_leaves_everything(finished):
    model, report = finished
    assert report.best_accuracy > 0.6
    history = report.history
    assert report.best_accuracy == max(history["val_accuracy"])
    assert history["val_accuracy"][report.best_epoch - 1] == max(
        history["val_accuracy"]
    )
    assert {len(values) for values in history.values()} == {4}
    folder = report.output_dir
    assert sorted(os.listdir(folder)) == [
        "best.keras",
        "checkpoint.npz",
        "curves.png",
        "labels.txt",
        "last.keras",
        "log.csv",
        "report.json",
        "tensorboard",
    ]
    with open(report.log) as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [float(r["val_loss"]) for r in rows] == history["val_loss"]
    with open(report.labels) as file:
        assert file.read().split() == list("0123456789")
    with open(f"{folder}/curves.png", "rb") as file:
        assert file.read(4) == b"\x89PNG"
    with open(f"{folder}/report.json") as file:
        assert json.load(file) == json.loads(report.to_json())
    assert f"{report.best_accuracy:.2%}" in str(report)


def test_best_model_has_the_best_accuracy(finished):
    _, report = finished
    best = keras.models.load_model(report.best_model)
    assert all(layer.trainable for layer in best.layers)
    assert not best.compiled
    right = total = 0
    for images, labels in digits().val:
        found = best.predict_on_batch(images).argmax(axis=-1)
        right += (found == labels.numpy()).sum()
        total += len(labels)
    assert right / total == pytest.approx(report.best_accuracy)


def test_last_model_is_the_one_that_training_ends_with(finished):
    model, report = finished
    last = keras.models.load_model(report.last_model)
    assert not last.compiled
    for a, b in zip(model.get_weights(), last.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_tensorboard_events(finished):
    _, report = finished
    found = {}
    for part in ("train", "validation"):
        folder = f"{report.output_dir}/tensorboard/{part}"
        files = [f"{folder}/{name}" for name in os.listdir(folder)]
        for record in tf.data.TFRecordDataset(files):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                key = part, value.tag, event.step
                found[key] = float(tf.make_ndarray(value.tensor))
    history = report.history
    assert len(found) == sum(map(len, history.values()))
    for step in range(4):
        assert found["validation", "epoch_loss", step] == pytest.approx(
            history["val_loss"][step]
        )


def test_frozen_backbone(tmp_path):
    class Watch(keras.callbacks.Callback):
        """Notes what stands still in each epoch."""

        def __init__(self):
            super().__init__()
            self.still = []

        def values(self):
            return {w.path: w.numpy() for w in self.model.weights}

        def on_epoch_begin(self, epoch, logs=None):
            self.before = self.values()

        def on_epoch_end(self, epoch, logs=None):
            after = self.values()
            self.still.append(
                {p for p in after if (after[p] == self.before[p]).all()}
            )

    watch = Watch()
    recipe = Recipe(epochs=2, freeze_epochs=1)
    model, _ = run(tmp_path, recipe=recipe, callbacks=[watch])
    first, second = watch.still
    assert first == {
        w.path for w in model.weights if "predictions" not in w.path
    }
    assert not second
    assert all(layer.trainable for layer in model.layers)


KILLED = """
import os, signal, sys
sys.path.insert(0, {here!r})
import keras
import test_training as t
from keras_mobilevit.training import checkpoint

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if {when!r} == "epoch" and self.epoch == {epoch} and batch == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

replace, written = os.replace, []
def killing(source, target):
    if str(target).endswith("checkpoint.npz"):
        written.append(target)
        if {when!r} == "write" and len(written) == {epoch} + 1:
            os.truncate(source, os.path.getsize(source) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killing
t.run({folder!r}, callbacks=[Kill()])
"""


@pytest.mark.parametrize(
    "when, epoch, kept", [("epoch", 1, 1), ("write", 3, 3), ("epoch", 0, 0)]
)
def test_killed_run_goes_on_exactly(finished, tmp_path, when, epoch, kept):
    here = os.path.dirname(__file__)
    code = KILLED.format(
        here=here, folder=str(tmp_path), when=when, epoch=epoch
    )
    child = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    checkpoint = tmp_path / "checkpoint.npz"
    if kept:
        state = json.loads(str(np.load(checkpoint)["state"]))
        assert len(state["history"]["loss"]) == kept
    else:
        assert not checkpoint.exists()

    with pytest.raises(FileExistsError, match="resume=True"):
        run(tmp_path)
    model = tiny()
    if kept:  # the state must come from the checkpoint, not from the start
        model.set_weights([0 * w for w in model.get_weights()])
    model, report = run(tmp_path, model, resume=True)
    assert_equal(model, finished[0])
    assert report.history == finished[1].history
    assert not list(tmp_path.glob(".tmp-*"))
    with open(report.log) as log, open(finished[1].log) as other:
        assert log.read() == other.read()


def test_resume_when_finished_trains_no_more(finished):
    folder = finished[1].output_dir
    model, report = run(folder, resume=True)
    assert report == finished[1]
    assert_equal(model, finished[0])  # though given one that knows nothing


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"recipe": lambda: Recipe(epochs=5)}, r"epochs=5 \(it was 4\)"),
        ({"model": lambda: tiny(head="other")}, "freeze_epochs"),
        ({"model": lambda: half_frozen()}, r"trainable_weights=5 \(it was 8"),
        ({"dataset": lambda: distill(tiny(), digits())}, "labels='float32'"),
    ],
)
def test_resume_wants_the_same_run(finished, changed, message):
    changed = {name: make() for name, make in changed.items()}
    with pytest.raises(ValueError, match=message):
        run(finished[1].output_dir, resume=True, **changed)


def test_resume_wants_the_same_model(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch:
                raise KeyboardInterrupt

    recipe = Recipe(epochs=2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, recipe=recipe, callbacks=[Stop()])
    image = keras.Input((32, 32, 3))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(8)(image))
    x = keras.layers.Dense(10, "softmax", name="predictions")(x)
    with pytest.raises(ValueError, match="started with"):
        run(tmp_path, keras.Model(image, x), recipe, resume=True)
    (tmp_path / "checkpoint.npz").write_bytes(b"PK\3\4 broken")
    with pytest.raises(ValueError, match="cannot be read"):
        run(tmp_path, recipe=recipe, resume=True)


def test_overwrite_replaces_a_run(tmp_path):
    (tmp_path / "best.keras").write_bytes(b"old")
    with pytest.raises(FileExistsError, match="best.keras"):
        run(tmp_path, recipe=Recipe(epochs=1))
    with pytest.raises(ValueError, match="exclude"):
        run(tmp_path, overwrite=True, resume=True)
    _, report = run(tmp_path, recipe=Recipe(epochs=1), overwrite=True)
    assert keras.models.load_model(report.best_model)


def test_nan_loss_stops(tmp_path):
    recipe = Recipe(epochs=2, learning_rate=1e30, warmup_fraction=0)
    with pytest.raises(ValueError, match=r"learning_rate=1e\+30"):
        run(tmp_path, recipe=recipe)
    assert not (tmp_path / "checkpoint.npz").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classes": 9}, "10 classes"),
        ({"activation": "sigmoid"}, "sigmoid"),
    ],
)
def test_model_that_does_not_fit(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", tiny(**options))
    assert not (tmp_path / "run").exists()


def test_wrong_size(tmp_path):
    with pytest.raises(ValueError, match="image_size=48"):
        train(tiny(), data.load_digits(48), RECIPE, tmp_path)


def test_logits_train_as_probabilities_do(tmp_path, finished):
    model, report = run(tmp_path, tiny(activation=None))
    assert report.history["loss"] == pytest.approx(
        finished[1].history["loss"], rel=1e-3
    )


@pytest.mark.parametrize("activation", ["softmax", None])
def test_distilled_labels_are_the_teachers_answers(activation):
    teacher, pictures = tiny(activation), digits()
    taught = distill(teacher, pictures)
    images, answers = next(iter(taught.train_from(0)))
    expected, _ = next(iter(pictures.train_from(0)))
    np.testing.assert_array_equal(images, expected)
    found = teacher(keras.ops.cast(images, "float32"), training=False)
    found = found if activation else keras.ops.softmax(found)
    np.testing.assert_allclose(answers, found, atol=1e-6)
    assert next(iter(taught.val))[1].dtype == tf.int32


def test_student_comes_closer_to_its_teacher(finished, tmp_path):
    teacher, _ = finished
    student = keras.models.clone_model(teacher)
    student.set_weights([1.5 * w for w in teacher.get_weights()])
    recipe = Recipe(epochs=2, weight_decay=0.0)
    taught = distill(teacher, digits())
    images = np.concatenate([batch for batch, _ in taught.val])

    def distance():
        answers = (m.predict(images, verbose=0) for m in (teacher, student))
        return np.abs(np.subtract(*answers)).mean()

    before = distance()
    train(student, taught, recipe, tmp_path / "run", verbose=0)
    assert distance() < 0.5 * before


def test_start_is_kept_where_no_epoch_is_better(finished, tmp_path):
    model = keras.models.clone_model(finished[0])
    model.set_weights(finished[0].get_weights())
    start = model.get_weights()
    ruinous = Recipe(epochs=1, learning_rate=0.3)
    _, report = run(tmp_path / "run", model, ruinous, keep_start=True)
    assert report.best_epoch == 0
    assert report.best_accuracy > report.history["val_accuracy"][0]
    best = keras.saving.load_model(report.best_model)
    for a, b in zip(start, best.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_score_of_ones_own_chooses(finished, tmp_path):
    """The second epoch here, which accuracy knows nothing of."""
    model = keras.models.clone_model(finished[0])
    seen = []

    def score(model):
        seen.append(model.get_weights())
        return (-3.0, 0.5, -9.0)[len(seen) - 1]

    recipe = Recipe(epochs=3, learning_rate=1e-3)
    _, report = run(tmp_path / "run", model, recipe, score=score)
    assert report.history["score"] == [-3.0, 0.5, -9.0]
    assert report.best_epoch == 2
    assert report.best_accuracy == report.history["val_accuracy"][1]
    best = keras.saving.load_model(report.best_model)
    for a, b in zip(seen[1], best.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_unwritable_output(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        run(tmp_path / "file" / "run")
