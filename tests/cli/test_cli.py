"""The command line, as a user types it."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from commands import SIZE
from commands import refused
from commands import save_picture
from commands import small_backbone
from PIL import Image

import keras_mobilevit
from keras_mobilevit import __version__
from keras_mobilevit import cli
from keras_mobilevit.training import checkpoint

EPOCHS = 2
PROGRAM = os.path.join(os.path.dirname(sys.executable), "keras-mobilevit")


@pytest.fixture(scope="module")
def train(pictures):
    """The command that trains into a folder."""

    def command(folder, *more):
        return [
            *("train", "--data_dir", str(pictures), "--batch_size", "8"),
            *("--image_size", str(SIZE), "--epochs", str(EPOCHS)),
            *("--output_dir", str(folder), *more),
        ]

    return command


@pytest.fixture(scope="module")
def run(pictures, train, tmp_path_factory):
    """A trained MobileViT, and a float and an int8 file made from it."""
    folder = tmp_path_factory.mktemp("work") / "run"
    assert cli.main(train(folder)) == 0
    model = str(folder / "best.keras")
    data = ["--data_dir", str(pictures)]
    for precision in ("float32", "int8"):
        path = str(folder / f"{precision}.tflite")
        convert = ["convert", model, path, "--precision", precision, *data]
        assert cli.main(convert) == 0
    return folder


# What works


def test_a_run_leaves_everything(run):
    names = {path.name for path in run.iterdir()}
    assert {"best.keras", "labels.txt", "log.csv", "curves.png"} <= names
    assert not [name for name in names if name.startswith(".tmp")]
    assert (run / "labels.txt").read_text().split() == ["blue", "red"]
    assert len((run / "log.csv").read_text().splitlines()) == 1 + EPOCHS
    assert Image.open(run / "curves.png").size[0] > 500


def test_an_interrupted_run_goes_on(train, call, tmp_path, monkeypatch):
    def save_and_interrupt(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    def epochs():
        return (tmp_path / "log.csv").read_text().splitlines()[1:]

    save = checkpoint.save
    monkeypatch.setattr(keras_mobilevit, "MobileViT_XXS", small_backbone)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_interrupt)
        code, out, err = call(*train(tmp_path, "--json"))
    assert (code, out) == (130, "")
    assert err == "keras-mobilevit train: interrupted; --resume goes on\n"
    assert len(epochs()) == 1 and not (tmp_path / "report.json").exists()
    first = epochs()
    code, out, err = call(*train(tmp_path, "--resume", "--json"))
    assert (code, err) == (0, "") and json.loads(out)["epochs"] == EPOCHS
    assert len(epochs()) == EPOCHS and epochs()[:1] == first


def test_a_finished_run_is_not_trained_again(run, train, call):
    before = (run / "best.keras").read_bytes()
    code, out, err = call(*train(run, "--resume", "--json"))
    assert code == 0, err
    report = json.loads(out)
    assert report["epochs"] == EPOCHS and report["train_size"] == 32
    assert (run / "best.keras").read_bytes() == before


def test_inspect(run, call):
    code, out, err = call("inspect", run / "int8.tflite")
    assert (code, err) == (0, "")
    assert "CONV_2D" in out and "2: blue, red" in out


def test_evaluate(run, pictures, call):
    command = ("evaluate", run / "int8.tflite", "--data_dir", pictures)
    code, out, err = call(*command, "--json")
    found = json.loads(out)
    assert code == 0 and found["n"] == 12 and 0 <= found["top1"] <= 1, err
    code, out, _ = call(*command)
    assert f"{100 * found['top1']:.2f}" in out


def test_evaluate_wants_the_classes_of_the_file(run, pictures, call, tmp_path):
    """The same number of classes, but number 0 is not the same class."""
    for split in ("train", "val"):
        for old, new in (("blue", "water"), ("red", "fire")):
            shutil.copytree(pictures / split / old, tmp_path / split / new)
    refused(
        call("evaluate", run / "int8.tflite", "--data_dir", tmp_path),
        r"2 \(fire, water\), but .*int8.tflite has 2 \(blue, red\)",
    )
    refused(
        call("quantize", run / "best.keras", "--data_dir", tmp_path),
        r"2 \(fire, water\), but .*best.keras has 2 \(blue, red\)",
    )


def test_predict_names_the_classes(run, pictures, call):
    picture = pictures / "val" / "red" / "0.png"
    other = pictures / "val" / "blue" / "0.png"
    command = ("predict", run / "int8.tflite", picture, other)
    code, out, err = call(*command, "--top", 1, "--json")
    assert code == 0, err
    first, second = json.loads(out)
    assert (first["picture"], second["picture"]) == (str(picture), str(other))
    (score,) = first["scores"]
    assert score["label"] == ("blue", "red")[score["index"]]
    code, out, _ = call(*command)
    assert code == 0
    assert (
        len(re.findall(r"^\| (red|blue) +\| [01]\.\d{4} \|$", out, re.M)) == 4
    )


def test_benchmark_draws(run, call, tmp_path):
    command = (
        *("benchmark", run / "float32.tflite", run / "int8.tflite"),
        *("--runs", 3, "--threads", 1, "--threads", 2),
        *("--plot", tmp_path / "times.png"),
    )
    code, out, err = call(*command)
    assert code == 0, err
    assert "ratio" in out and "int8.tflite" in out
    drawn = (tmp_path / "times.png").read_bytes()
    assert Image.open(tmp_path / "times.png").size[0] > 500
    refused(call(*command), "times.png exists.*--overwrite", alone=True)
    assert (tmp_path / "times.png").read_bytes() == drawn
    code, out, err = call(*command, "--overwrite", "--json")
    assert code == 0, err
    assert [row["threads"] for row in json.loads(out)["timings"]] == [
        1,
        1,
        2,
        2,
    ]


def test_the_installed_command(small_model, pictures, call, tmp_path):
    """Nothing but the report reaches stdout, whoever writes to it in C."""
    done = subprocess.run(
        [PROGRAM, "convert", small_model().name, "a.tflite", "--json"]
        + ["--data_dir", str(pictures), "--precision", "int8"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == "a.tflite"
    assert call("inspect", tmp_path / "a.tflite")[0] == 0


def test_a_reader_that_has_seen_enough(run):
    program = subprocess.Popen(
        [PROGRAM, "inspect", run / "int8.tflite"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    program.stdout.close()
    err = program.stderr.read()
    assert program.wait(timeout=120) == 1
    assert "Broken pipe" not in err and "Traceback" not in err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help(name, call):
    code, out, err = call(name, "--help")
    assert (code, err) == (0, "")
    assert f"keras-mobilevit {name}" in out and "--json" in out
    assert max(map(len, out.splitlines())) <= 80
    assert call(name, "-h") == call(name, "--colour", "--help") == (0, out, "")
    code, out, _ = call("--help")
    assert code == 0 and f"keras-mobilevit {name}" in out
    assert call() == call("-h") == call("help") == (0, out, "")


def test_version(call):
    assert call("--version") == (0, __version__ + "\n", "")


# What fails


def test_unknown_commands_and_flags(run, call):
    file = run / "int8.tflite"
    refused(call("convrt"), "no such command.*'convrt'.*convert")
    refused(call(""), "no such command.*''")
    refused(call("inspect", file, "--colour"), "colour")
    refused(call("inspect", file, "--overwrite"), "overwrite")
    refused(call("train", "--epoch", 3), "epoch.*Did you mean: epochs")
    refused(call("train", "--epochs", "many"), "epochs.*many")
    refused(call("train", "--epochs"), "Missing value.*epochs")


def test_wrong_arguments(run, call):
    refused(call("inspect"), "FILE.tflite")
    refused(call("train", "extra"), "no arguments.*extra")
    refused(call("convert", "one"), "MODEL.keras FILE.tflite")
    refused(call("quantize"), "MODEL.keras")
    refused(call("benchmark"), "FILE.tflite")
    refused(call("predict", run / "int8.tflite"), "PICTURE")


@pytest.mark.parametrize(
    "command", ["inspect", "evaluate", "predict", "benchmark"]
)
def test_files_that_are_no_models(command, run, pictures, call, tmp_path):
    options = {
        "evaluate": ("--data_dir", pictures),
        "predict": (pictures / "val" / "red" / "0.png",),
    }.get(command, ())
    alone = command != "benchmark"
    other = tmp_path / "other.tflite"
    refused(call(command, other, *options), "no file.*other.tflite", alone)
    other.write_bytes(b"no model at all")
    refused(call(command, other, *options), "must be a TFLite", alone)
    refused(call(command, tmp_path, *options), "not a folder", alone)
    other = run / "best.keras"
    refused(call(command, other, *options), "must be a TFLite", alone)


def test_files_that_take_no_pictures(pictures, call, tmp_path):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec(())])
    def double(x):
        return {"y": 2 * x}

    path = tmp_path / "scalar.tflite"
    module = tf.Module()
    module.double = double
    path.write_bytes(
        tf.lite.TFLiteConverter.from_concrete_functions(
            [double.get_concrete_function()], module
        ).convert()
    )
    refused(call("evaluate", path, "--data_dir", pictures), "one input")
    refused(call("predict", path, pictures / "val/red/0.png"), "one input")
    assert call("inspect", path)[0] == 0


def test_bad_pictures(run, call, tmp_path):
    file = run / "int8.tflite"
    refused(call("predict", file, tmp_path / "none.png"), "none.png")
    (tmp_path / "text.png").write_text("no picture")
    refused(call("predict", file, tmp_path / "text.png"), "text.png")
    refused(call("predict", file, tmp_path), "must be a picture")
    save_picture(tmp_path / "a.png", True, 0)
    refused(call("predict", file, tmp_path / "a.png", "--top", 0), "top=0")


def test_bad_data(run, pictures, call, tmp_path):
    def attempt(*options):
        return call("train", "--output_dir", tmp_path / "out", *options)

    (tmp_path / "empty").mkdir()
    refused(attempt("--data_dir", tmp_path / "empty"), "empty")
    refused(attempt("--data_dir", tmp_path / "nowhere"), "nowhere")
    refused(attempt("--data_dir", pictures / "val/red/0.png"), "a file")
    shutil.copytree(pictures / "train" / "red", tmp_path / "one" / "red")
    refused(attempt("--data_dir", tmp_path / "one"), "at least two class")
    (tmp_path / "one" / "blue").mkdir()
    refused(attempt("--data_dir", tmp_path / "one"), "empty: blue")
    refused(attempt("--dataset", "no_such_set"), "no_such_set")
    for command in (
        *(["train"], ["quantize", run / "best.keras"]),
        ["evaluate", run / "int8.tflite"],
    ):
        refused(call(*command), "--data_dir or --dataset")
        refused(call(*command, "--data_dir", ""), "--data_dir.*empty")
    assert not (tmp_path / "out").exists()


def test_bad_recipes(pictures, call, tmp_path):
    def attempt(*options):
        return call(
            *("train", "--data_dir", pictures, "--image_size", SIZE),
            *("--output_dir", tmp_path / "out", *options),
        )

    refused(
        attempt("--model", "MobileViT_XL"),
        "--model must be one of.*MobileViT_XS'.*MobileViT_XL",
    )
    refused(attempt("--weights", "best"), "weights.*best")
    refused(attempt("--epochs", 0), "epochs=0")
    refused(attempt("--freeze_epochs", 20), "freeze_epochs=20")
    refused(attempt("--image_size", 20), r"32x32.*20, 20")
    refused(attempt("--batch_size", 0), "batch_size=0")
    refused(attempt("--seed", -1), "[Ss]eed")
    refused(attempt("--resume", "--overwrite"), "exclude each other")
    assert not (tmp_path / "out").exists()


def test_pictures_that_are_left_out_are_named(pictures, call, tmp_path):
    """One line, without the place in the program that found them."""
    shutil.copytree(pictures, tmp_path / "data")
    (tmp_path / "data" / "train" / "red" / "notes.txt").write_text("a note")
    code, _, err = call(
        *("train", "--data_dir", tmp_path / "data", "--image_size", 20)
    )
    warning, error = err.splitlines()
    assert code == 1 and "32x32" in error
    assert warning.startswith("keras-mobilevit train: warning: 1 file")
    assert warning.endswith("train/red/notes.txt")


def test_bad_conversions(run, small_model, pictures, call, tmp_path):
    model, path = small_model(), tmp_path / "a.tflite"
    convert = ("convert", model, path)
    refused(call(*convert, "--precision", "int4"), "int4")
    refused(call(*convert, "--target", "npu"), "npu")
    refused(
        call(*convert, "--target", "edgetpu", "--precision", "float16"),
        "float16",
    )
    refused(call(*convert, "--input_dtype", "bool"), "input_dtype.*bool")
    refused(call(*convert, "--precision", "int8"), "calibration_data")
    for size in (0, -1):
        refused(
            call(*convert, "--precision", "float32", "--image_size", size),
            "input_shape",
        )
    for source in (tmp_path / "none.keras", tmp_path):
        refused(call("convert", source, path), "no model file")
    for source in (run / "int8.tflite", run / "labels.txt"):
        refused(call("convert", source, path), "must be a whole model")
    folder = tmp_path / "no" / "a.tflite"
    refused(call("convert", model, folder), "does not exist")
    refused(call("convert", model, tmp_path), "not a folder")
    refused(call("convert", model, run / "int8.tflite"), "--overwrite")
    assert [file.name for file in tmp_path.iterdir()] == ["small.keras"]


def test_a_run_is_not_written_over(run, train, call):
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    refused(call(*train(run)), "--resume.*--overwrite")
    refused(call(*train(run, "--resume", "--seed", 1)), r"seed=1 \(it was 0\)")
    after = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    assert after == before


def test_what_is_not_installed(run, pictures, call, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    refused(
        call("evaluate", run / "int8.tflite", "--dataset", "digits"),
        "pip install scikit-learn",
    )
