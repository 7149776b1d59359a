"""Training of quantized models in a folder: a killed run goes on."""

import keras
import numpy as np
import pytest
from PIL import Image

from keras_mobilevit import data
from keras_mobilevit import quantization
from keras_mobilevit import training
from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.layers import InvertedResidual


class Stopped(keras.callbacks.Callback):
    """Ends a run as a kill would, at the start of an epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def small_model():
    """What has a state in training, and no more: it is traced thrice."""
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Rescaling(1 / 255, name="rescaling")(image)
    x = ConvNormAct(8, strides=4, name="stem")(x)
    x = InvertedResidual(8, strides=2, expansion=2, name="block1")(x)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = keras.layers.Dense(7, activation="softmax", name="predictions")(x)
    return keras.Model(image, x, name="small")


def assert_closest(report, model, dataset):
    """The model kept is the closest to float of all, the start included."""
    pictures = np.concatenate([images for images, _ in dataset.calibration])
    pictures = pictures.astype("float32")

    def closeness(rounding):
        wanted, given = (
            m.predict(pictures, verbose=0) for m in (model, rounding)
        )
        noise = np.square(wanted - given, dtype="float64").sum()
        return 10 * np.log10(np.square(wanted, dtype="float64").sum() / noise)

    start = quantization.quantize_model(model, pictures, freeze_batch_norm=True)
    best = keras.saving.load_model(report.best_model)
    figures = [closeness(start), *report.history["score"]]
    assert closeness(best) == pytest.approx(max(figures), abs=0.01)
    assert figures.index(max(figures)) == report.best_epoch


def test_a_killed_run_goes_on(tiny_pictures, tmp_path, monkeypatch):
    for i, picture in enumerate(tiny_pictures[:42]):
        folder = tmp_path / "pictures" / f"class{i % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{i}.png")

    def load():
        return data.load(
            data_dir=tmp_path / "pictures", image_size=32, batch_size=8
        )

    def run(folder, **options):
        keras.utils.set_random_seed(0)
        return training.train_quantized(
            model, load(), recipe, folder, verbose=0, **options
        )

    model = small_model()
    recipe = training.Recipe(epochs=2, learning_rate=1e-3)
    whole = run(tmp_path / "whole")
    assert whole.n == 7 * (whole.n // 7) and len(whole.files) == 3
    assert "calibrated" in str(whole) and whole.to_json()
    assert_closest(whole.training, model, load())
    train = training.fit.train
    monkeypatch.setattr(
        training.fit,
        "train",
        lambda *args, **kw: train(*args, callbacks=[Stopped()], **kw),
    )
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    monkeypatch.undo()
    resumed = run(tmp_path / "cut", resume=True)
    assert resumed.training.history == whole.training.history
    weights = [
        keras.saving.load_model(tmp_path / name / "best.keras").get_weights()
        for name in ("whole", "cut")
    ]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
