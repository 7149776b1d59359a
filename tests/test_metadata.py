"""What a file says of itself, to programs and to people."""

import keras
import numpy as np
import pytest

from keras_mobilevit import tflite
from keras_mobilevit.tflite import metadata
from keras_mobilevit.tflite import sources
from keras_mobilevit.tflite.targets import TARGETS


def test_labels(convert, tiny_pictures, tmp_path):
    names = [f"class {i} é" for i in range(7)]
    path = tmp_path / "a.tflite"
    convert(path, labels=names)
    assert tflite.inspect(path).labels == tuple(names)
    (found,) = tflite.predict(path, tiny_pictures[0], top=1)
    assert found.scores[0].label == names[found.scores[0].index]


@pytest.mark.parametrize(
    "labels",
    [
        ["a"] * 6,
        "abcdefg",
        ["a"] * 6 + ["b\nc"],
        ["a"] * 6 + ["b\n"],
        ["a"] * 6 + [""],
        ["a"] * 6 + [" "],
        [1] * 7,
    ],
)
def test_bad_labels(convert, labels, tmp_path):
    with pytest.raises(ValueError, match="`labels`.*Received"):
        convert(tmp_path / "a.tflite", labels=labels)


def test_metadata(convert, tiny_model, tmp_path):
    path = tmp_path / "a.tflite"
    convert(path, labels=list("abcdefg"), metadata={"author": "A. Author"})
    about = tflite.inspect(path).about
    assert (about.name, about.author) == (tiny_model.name, "A. Author")
    assert (about.mean, about.std) == ((0.0,), (1.0,))
    assert "A. Author" in str(tflite.inspect(path))


@pytest.mark.parametrize("texts", ["me", {"writer": "me"}, {"author": 1}])
def test_bad_metadata(convert, texts, tmp_path):
    with pytest.raises(ValueError, match="`metadata.*Received"):
        convert(tmp_path / "a.tflite", metadata=texts)


def test_model_card(convert, tiny_pictures, tmp_path):
    path, card = tmp_path / "a.tflite", tmp_path / "card.md"
    classes = np.arange(48) % 7
    options = {
        "labels": list("abcdefg"),
        "metadata": {"license": "CC0", "author": "A. Author"},
        "validation_data": (tiny_pictures, classes),
    }
    convert(path, precision="int8", model_card=card, **options)
    text = card.read_text()
    measured = tflite.evaluate(path, (tiny_pictures, classes))
    for part in (
        "# tiny",
        "a, b, c, d, e, f, g",
        f"{100 * measured.top1:.2f} %",
        "on 48 pictures, equalised, refined",
        "times the time of the float32 file",
        "A. Author",
        "CC0",
        *TARGETS,
    ):
        assert part in text
    other = tmp_path / "b.tflite"
    with pytest.raises(FileExistsError):
        convert(other, model_card=card, **options)
    assert not other.exists()


def test_pixel_scale(tiny_model):
    plain = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    assert sources.pixel_scale(tiny_model) == 1.0
    assert sources.pixel_scale(plain) is None
    assert sources.pixel_scale(plain, np.full((1, 8, 8, 3), 0.5)) == 255.0
    assert sources.pixel_scale(plain, np.full((1, 8, 8, 3), 90.0)) == 1.0


def test_label_archives_are_bounded(tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(metadata.append_labels(b"x" * 64, ["a" * (2 << 20)]))
    with pytest.raises(ValueError, match="label"):
        metadata.read_labels(path)
