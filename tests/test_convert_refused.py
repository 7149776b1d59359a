"""What `tflite.convert` refuses or warns of."""

import errno
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_mobilevit
from keras_mobilevit import tflite

# Pictures for calibration


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (None, "calibration_data.*None"),
        ([], "must hold pictures"),
        ("flowers", "Received: str"),
        (3, "Received: int"),
        (np.zeros((40, 16, 32, 3)), r"\(32, 32, 3\).*\(16, 32, 3\)"),
        (np.full((40, 32, 32, 3), np.nan), "finite"),
        (np.full((40, 32, 32, 3), np.inf), "finite"),
    ],
    ids=["none", "empty", "text", "number", "shape", "nan", "infinity"],
)
def test_bad_calibration_data(convert, pictures, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "a", pictures=pictures, precision="int8")
    assert not list(tmp_path.iterdir())


def test_calibration_warnings(convert, tiny_pictures, tmp_path):
    with pytest.warns(UserWarning, match="`calibration_data` lie in"):
        convert(tmp_path / "a", pictures=tiny_pictures / 255.0)
    with pytest.warns(UserWarning, match="holds only 4 pictures"):
        convert(tmp_path / "b", pictures=tiny_pictures[:4])


def test_a_model_that_computes_nan(tiny_model, convert, tmp_path):
    model = keras.models.clone_model(tiny_model)
    model.set_weights(tiny_model.get_weights())
    kernel = model.get_layer("block1").expand.kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    for equalize in (True, False):
        with pytest.raises(ValueError, match="NaN or infinity.*expand"):
            convert(tmp_path / "a", model=model, equalize=equalize)
    assert not list(tmp_path.iterdir())


# Arguments, models and files


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "npu"}, "`target` must be one of.*'npu'"),
        ({"precision": "int4"}, "`precision` must be one of.*'int4'"),
        ({"precision": "float32", "target": "edgetpu"}, "edgetpu.*'int8'"),
        ({"input_dtype": "int16"}, "`input_dtype` must be one of"),
        (
            {"precision": "float32", "input_dtype": "uint8"},
            "`input_dtype` must be one of.*'float32'",
        ),
        ({"input_shape": (32,)}, "`input_shape` must be"),
        ({"input_shape": (32, 0)}, "`input_shape` must be"),
    ],
)
def test_bad_arguments(convert, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "a.tflite", **options)


def test_bad_models(convert, tmp_path):
    with pytest.raises(ValueError, match="`model` must be.*Received: int"):
        convert(tmp_path / "a", model=3)
    with pytest.raises(FileNotFoundError, match="none.keras"):
        convert(tmp_path / "a", model=tmp_path / "none.keras")
    (tmp_path / "junk.keras").write_bytes(b"junk")
    with pytest.raises(ValueError, match="junk.keras"):
        convert(tmp_path / "a", model=tmp_path / "junk.keras")
    vector = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="one input"):
        convert(tmp_path / "a", model=vector)
    anywhere = keras_mobilevit.MobileViT_XXS(include_top=False, weights=None)
    with pytest.raises(ValueError, match="pass `input_shape"):
        convert(tmp_path / "a", model=anywhere)


def test_broken_promise_leaves_no_file(tmp_path):
    """A tensor of five axes is more than a delegate takes."""
    image = keras.Input((32, 32, 3))
    x = keras.layers.Reshape((4, 8, 4, 24))(image)
    x = keras.layers.Permute((1, 3, 2, 4))(x)
    model = keras.Model(image, keras.layers.Flatten()(x))
    with pytest.raises(tflite.ConversionError, match="axes"):
        tflite.convert(model, tmp_path / "a", precision="float32")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_or_half_written(convert, tmp_path, monkeypatch):
    path = tmp_path / "a.tflite"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="overwrite"):
        convert(path, precision="float32")

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            convert(path, precision="float16", overwrite=True)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]
    convert(path, precision="float32", overwrite=True)
    assert tflite.inspect(path).ops


def test_output_path(convert, tmp_path):
    with pytest.raises(FileNotFoundError, match="folder"):
        convert(tmp_path / "none" / "a.tflite")
    with pytest.raises(IsADirectoryError, match="not a folder"):
        convert(tmp_path)


def test_another_backend_is_told_what_to_do(tmp_path):
    pytest.importorskip("jax", reason="the extra `jax` is not installed")
    code = (
        "import keras; from keras_mobilevit import tflite;"
        "i = keras.Input((32, 32, 3)); m = keras.Model(i, i * 2);"
        f"tflite.convert(m, r'{tmp_path / 'a'}', precision='float32')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**__import__("os").environ, "KERAS_BACKEND": "jax"},
    )
    assert run.returncode and "KERAS_BACKEND=tensorflow" in run.stderr
