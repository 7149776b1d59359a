"""One model as files of several sizes."""

import keras
import numpy as np
import pytest

from keras_mobilevit import tflite


def scaled(tiny_pictures, factor):
    return tiny_pictures.repeat(factor, axis=1).repeat(factor, axis=2)


def test_a_file_for_each_size(tiny_model, tiny_pictures, tmp_path):
    labels = tiny_model.predict(tiny_pictures.astype("float32"), verbose=0)
    labels = labels.argmax(axis=1)

    def data(height, width):
        pictures = scaled(tiny_pictures, 2)[:, :height, :width]
        return pictures, (pictures, labels)

    report = tflite.convert_sizes(
        tiny_model,
        tmp_path / "a.tflite",
        [32, (64, 48)],
        data,
        runs=3,
        precision="int8",
    )
    assert [(row.height, row.width) for row in report.files] == [
        (32, 32),
        (64, 48),
    ]
    for row in report.files:
        found = tflite.inspect(row.path).inputs[0]
        assert tuple(found.shape) == (1, row.height, row.width, 3)
        pictures, _ = data(row.height, row.width)
        expected = tflite.evaluate(row.path, (pictures, labels))
        assert row.top1 == expected.top1 and row.interval == expected.interval
        assert f"{row.height}x{row.width}" in str(report)
    assert report.files[1].ratio > 1 == report.files[0].ratio
    assert {row.path for row in report.files} == {
        str(tmp_path / f"a_{size}.tflite") for size in ("32x32", "64x48")
    }


def test_without_pictures(tiny_model, tmp_path):
    model = keras.Sequential([keras.Input((32, 32, 3)), tiny_model])
    report = tflite.convert_sizes(
        model, tmp_path / "a.tflite", [32], runs=2, precision="float32"
    )
    assert report.files[0].top1 is None and report.to_json()


@pytest.mark.parametrize("sizes", ([], [32, 32], [16], ["64"], [(64, 64, 3)]))
def test_bad_sizes(tiny_model, tmp_path, sizes):
    with pytest.raises(ValueError, match="sizes"):
        tflite.convert_sizes(tiny_model, tmp_path / "a.tflite", sizes)
    assert not list(tmp_path.iterdir())


def test_nothing_is_replaced_unasked(tiny_model, tmp_path):
    (tmp_path / "a_64x64.tflite").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="a_64x64"):
        tflite.convert_sizes(
            tiny_model, tmp_path / "a.tflite", [32, 64], precision="float32"
        )
    assert [file.name for file in tmp_path.iterdir()] == ["a_64x64.tflite"]
    assert np.fromfile(tmp_path / "a_64x64.tflite", "uint8").size == 4
