"""`convert` and `quantize`, as a user types them."""

import json
import re

from commands import SIZE
from commands import refused

from keras_mobilevit.training import quantized

# What works


def test_quantize(small_model, pictures, call, tmp_path):
    command = (
        *("quantize", small_model(), "--data_dir", pictures),
        *("--batch_size", 8, "--epochs", 1, "--output_dir", tmp_path / "q"),
    )
    code, out, err = call(*command, "--json")
    assert code == 0, err
    report = json.loads(out)
    names = [file["name"] for file in report["files"]]
    assert names == ["float32", "calibrated", "trained"]
    best = max(file["top1"] for file in report["files"][1:])
    (kept,) = [file for file in report["files"] if file["kept"]]
    assert kept["top1"] == best
    code, out, _ = call("inspect", tmp_path / "q" / "model.tflite")
    assert code == 0 and "2: blue, red" in out
    refused(call(*command), "--resume.*--overwrite")


def test_quantize_help_tells_the_defaults(call):
    _, out, _ = call("quantize", "--help")
    epochs, rate = re.findall("by default (.*)", out)
    assert float(epochs) == quantized.RECIPE.epochs
    assert float(rate) == quantized.RECIPE.learning_rate


def test_convert_to_another_size(small_model, pictures, call, tmp_path):
    source = small_model((None, None, 3))
    convert = ("convert", source, tmp_path / "a.tflite", "--json")
    data = ("--data_dir", pictures, "--precision", "int8")
    refused(call(*convert, *data), r"fixed size.*\(None, None, 3\)")
    for more in (data, ("--precision", "float32", "--overwrite")):
        code, out, err = call(*convert, *more, "--image_size", 40)
        assert code == 0, err
        assert json.loads(out)["input_shape"] == [1, 40, 40, 3]


def test_labels_of_another_file(small_model, call, tmp_path):
    (tmp_path / "names.txt").write_text("cold\nwärm\n", encoding="utf-8")
    path = tmp_path / "a.tflite"
    code, _, err = call(
        *("convert", small_model(), path, "--precision", "float32"),
        *("--labels", tmp_path / "names.txt"),
    )
    assert code == 0, err
    assert "2: cold, wärm" in call("inspect", path)[1]


def test_convert_within_a_budget(small_model, pictures, call, tmp_path):
    convert = ("convert", small_model(), tmp_path / "a.tflite")
    budget = ("--precision", "int8", "--max_drop", 100)
    code, out, err = call(*convert, "--data_dir", pictures, *budget)
    assert code == 0, err
    assert "of 100 allowed" in out and "layers kept in float: 0" in out
    refused(call(*convert, *budget, "--overwrite"), "needs `validation_data`")


def test_convert_to_several_sizes(small_model, call, tmp_path):
    convert = ("convert", small_model(), tmp_path / "a.tflite")
    options = ("--precision", "float32", "--json", "--sizes")
    code, out, err = call(*convert, *options, "32,48")
    assert code == 0, err
    assert [row["width"] for row in json.loads(out)["files"]] == [32, 48]
    refused(call(*convert, *options, "32,x"), "--sizes takes sides")
    refused(call(*convert, *options, "32", "--split"), "without.*--split")


# What fails


def test_models_that_take_other_pictures(small_model, pictures, call, tmp_path):
    wide = small_model((SIZE, 2 * SIZE, 3), "wide.keras")
    path = tmp_path / "wide.tflite"
    data = ("--data_dir", pictures)
    refused(call("convert", wide, path, *data), r"squares.*\(32, 64, 3\)")
    refused(call("quantize", wide, *data), r"squares.*\(32, 64, 3\)")
    assert call("convert", wide, path, "--precision", "float32")[0] == 0
    refused(call("evaluate", path, *data), r"squares.*\(32, 64, 3\)")


def test_bad_labels(small_model, call, tmp_path):
    convert = ("convert", small_model(), tmp_path / "a.tflite")
    convert += ("--precision", "float32", "--labels", tmp_path / "names.txt")
    refused(call(*convert), "labels.*names.txt.*No such file")
    (tmp_path / "names.txt").write_bytes(b"caf\xe9\nth\xe9\n")
    refused(call(*convert), "labels.*UTF-8.*names.txt")
    (tmp_path / "names.txt").write_text("only one\n")
    refused(call(*convert), "labels")
    assert not (tmp_path / "a.tflite").exists()


def test_a_failed_conversion_leaves_the_old_file(small_model, call, tmp_path):
    path = tmp_path / "a.tflite"
    path.write_bytes(b"old")
    convert = ("convert", small_model(), path, "--precision")
    refused(call(*convert, "int8", "--overwrite"), "calibration_data")
    assert path.read_bytes() == b"old"
    assert call(*convert, "float32", "--overwrite")[0] == 0
    assert call("inspect", path)[0] == 0


def test_a_full_disk(small_model, call, tmp_path, monkeypatch):
    import pathlib

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device", str(self))

    model = small_model()
    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    result = call(
        "convert", model, tmp_path / "a.tflite", "--precision", "float32"
    )
    refused(result, "No space left")
    assert [file.name for file in tmp_path.iterdir()] == ["small.keras"]
