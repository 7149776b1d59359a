"""The README's Python code runs as it stands, on a small network."""

import re
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import keras_mobilevit
from keras_mobilevit.layers import ConvNormAct

README = Path(__file__).parents[1] / "README.md"


def code_of(section):
    """Returns the Python blocks under a heading."""
    _, text = README.read_text(encoding="utf-8").split(f"{section}\n", 1)
    text = re.split(r"^#+ ", text, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


def small_backbone(include_top, weights, input_shape, pooling):
    """In the place of a builder, whose weights would be downloaded."""
    assert (include_top, weights, pooling) == (False, "imagenet", "avg")
    image = keras.Input(input_shape, name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = ConvNormAct(8, strides=8)(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


def test_ten_lines_and_training(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 8)):
        for label, name in enumerate(("daisy", "rose")):
            folder = tmp_path / "flowers" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 128, (40, 40, 3)) + 120 * label
                picture = Image.fromarray(pixels.astype("uint8"))
                picture.save(folder / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras_mobilevit, "MobileViT_S", small_backbone)
    names = {}
    for block in (*code_of("## In ten lines"), *code_of("### Training")[:1]):
        # The second writes the same file; a user would choose another name.
        (tmp_path / "flowers.tflite").unlink(missing_ok=True)
        exec(compile(block, str(README), "exec"), names)
        assert (tmp_path / "flowers.tflite").stat().st_size > 1000
    assert "top-1" in capsys.readouterr().out
    loaded = keras.saving.load_model("rounding.keras")
    images = next(iter(names["pictures"].val))[0]
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0),
        names["rounding"].predict(images, verbose=0),
    )
