"""The command line, as a user types it."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_mobilevit import cli

SIZE = "32"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of two classes, told apart by their colour."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for number, name in enumerate(("blue", "red")):
        for split, count in (("train", 16), ("val", 6)):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                picture = generator.integers(0, 80, (40, 36, 3))
                picture[..., 2 - 2 * number] += 150
                Image.fromarray(picture.astype("uint8")).save(
                    folder / split / name / f"{i}.png"
                )
    return folder


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    """A trained model, and a float and an int8 file made from it."""
    folder = tmp_path_factory.mktemp("work") / "run"
    data = ["--data_dir", str(pictures), "--batch_size", "8"]
    assert (
        cli.main(
            ["train", *data, "--image_size", SIZE, "--epochs", "1"]
            + ["--output_dir", str(folder), "--learning_rate", "0.001"]
        )
        == 0
    )
    model = str(folder / "best.keras")
    for precision in ("float32", "int8"):
        path = str(folder / f"{precision}.tflite")
        options = ["--precision", precision, *data]
        assert cli.main(["convert", model, path, *options]) == 0
    return folder


@pytest.fixture
def call(capsys):
    """Runs a command: `(exit code, stdout, stderr)`."""

    def run_command(*arguments):
        capsys.readouterr()
        code = cli.main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        return code, out, err

    return run_command


# What works


def test_a_run_leaves_everything(run):
    names = {path.name for path in run.iterdir()}
    assert {"best.keras", "labels.txt", "log.csv", "curves.png"} <= names
    assert (run / "labels.txt").read_text().split() == ["blue", "red"]
    assert Image.open(run / "curves.png").size[0] > 500


def test_resume_goes_on(run, pictures, call, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    code, out, err = call(
        *("train", "--data_dir", pictures, "--batch_size", 8, "--epochs", 1),
        *("--image_size", SIZE, "--output_dir", folder),
        *("--learning_rate", 0.001, "--resume"),
    )
    assert code == 0, err
    assert "1 of 1" in out


def test_inspect(run, call):
    code, out, _ = call("inspect", run / "int8.tflite")
    assert code == 0
    assert "CONV_2D" in out and "blue" in out


def test_evaluate_and_json(run, pictures, call):
    command = ("evaluate", run / "int8.tflite", "--data_dir", pictures)
    code, out, err = call(*command, "--json")
    found = json.loads(out)
    assert code == 0 and found["n"] == 12 and 0 <= found["top1"] <= 1, err
    code, out, _ = call(*command)
    assert f"{100 * found['top1']:.2f}" in out


def test_predict_names_the_classes(run, pictures, call):
    picture = pictures / "val" / "red" / "0.png"
    code, out, _ = call("predict", run / "int8.tflite", picture, picture)
    assert code == 0 and out.count("red") >= 2 and "blue" in out
    code, out, _ = call("predict", run / "int8.tflite", picture, "--json")
    assert code == 0 and json.loads(out)


def test_benchmark_draws(run, call, tmp_path):
    code, out, err = call(
        *("benchmark", run / "float32.tflite", run / "int8.tflite"),
        *("--runs", 3, "--threads", 1, "--plot", tmp_path / "times.png"),
    )
    assert code == 0, err
    assert "ratio" in out and "int8.tflite" in out
    assert Image.open(tmp_path / "times.png").size[0] > 500


def test_quantize(run, pictures, call, tmp_path):
    command = (
        *("quantize", run / "best.keras", "--data_dir", pictures),
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
    assert call("inspect", tmp_path / "q" / "model.tflite")[0] == 0
    refused(call(*command), "--resume.*--overwrite")


def test_the_installed_command(run):
    script = os.path.join(os.path.dirname(sys.executable), "keras-mobilevit")
    done = subprocess.run(
        [script, "inspect", str(run / "int8.tflite"), "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help(name, call):
    code, out, err = call(name, "--help")
    assert code == 0 and name in out and "--json" in out, err
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = call("--help")
    assert code == 0 and f"keras-mobilevit {name}" in out


# What fails


def refused(result, message):
    code, out, err = result
    assert code == 1 and out == ""
    assert re.search(message, err), err
    assert "Traceback" not in err


def test_unknown_commands_and_flags(run, call):
    refused(call("convrt"), "no such command.*'convrt'.*convert")
    refused(call("inspect", run / "int8.tflite", "--colour"), "colour")
    refused(call("inspect"), "FILE.tflite")
    refused(call("convert", "one"), "MODEL.keras FILE.tflite")
    refused(call("benchmark"), "FILE.tflite")
    refused(call("predict", run / "int8.tflite"), "PICTURE")


@pytest.mark.parametrize("command", ["inspect", "evaluate", "predict"])
def test_files_that_are_no_models(command, pictures, call, tmp_path):
    options = {
        "inspect": (),
        "evaluate": ("--data_dir", pictures),
        "predict": (pictures / "val" / "red" / "0.png",),
    }[command]
    other = tmp_path / "other.tflite"
    refused(call(command, other, *options), "other.tflite")
    other.write_bytes(b"no model at all")
    refused(call(command, other, *options), "other.tflite|TFLite")


def test_bad_pictures(run, call, tmp_path):
    file = run / "int8.tflite"
    refused(call("predict", file, tmp_path / "none.png"), "none.png")
    (tmp_path / "text.png").write_text("no picture")
    refused(call("predict", file, tmp_path / "text.png"), "text.png")


def test_bad_data(run, pictures, call, tmp_path):
    def train(*options):
        return call(
            *("train", "--image_size", SIZE, "--output_dir", tmp_path / "out"),
            *options,
        )

    (tmp_path / "empty").mkdir()
    refused(train("--data_dir", tmp_path / "empty"), "empty")
    refused(train("--data_dir", tmp_path / "nowhere"), "nowhere")
    shutil.copytree(pictures / "train" / "red", tmp_path / "one" / "red")
    refused(train("--data_dir", tmp_path / "one"), "class")
    refused(train("--dataset", "no_such_set"), "no_such_set")
    refused(
        train("--data_dir", pictures, "--model", "MobileViT_XL"),
        "--model must be one of.*MobileViT_XL",
    )
    refused(train("--data_dir", pictures, "--epochs", 0), "epochs")
    assert not (tmp_path / "out" / "best.keras").exists()


def test_bad_conversions(run, pictures, call, tmp_path):
    model, path = run / "best.keras", tmp_path / "a.tflite"
    convert = ("convert", model, path)
    refused(call(*convert, "--precision", "int4"), "int4")
    refused(call(*convert, "--target", "npu"), "npu")
    refused(call(*convert, "--precision", "int8"), "calibration_data")
    refused(
        call(
            "convert", tmp_path / "none.keras", path, "--precision", "float32"
        ),
        "none.keras",
    )
    refused(
        call("convert", model, tmp_path / "no" / "a.tflite"), "does not exist"
    )
    refused(call("convert", model, run / "int8.tflite"), "--overwrite")
    wrong = tmp_path / "labels.txt"
    wrong.write_text("only one\n")
    refused(
        call(*convert, "--precision", "float32", "--labels", wrong), "labels"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["labels.txt"]
    before = (run / "int8.tflite").read_bytes()
    data = ("--data_dir", pictures, "--precision", "int8", "--overwrite")
    shutil.copy(run / "int8.tflite", path)
    assert call(*convert, *data)[0] == 0
    assert (run / "int8.tflite").read_bytes() == before


def test_a_run_is_not_written_over(run, pictures, call):
    refused(
        call(
            *("train", "--data_dir", pictures, "--image_size", SIZE),
            *("--output_dir", run),
        ),
        "--resume.*--overwrite",
    )
