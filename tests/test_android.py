"""The Android app, as far as it goes without an Android SDK.

Its Kotlin without Android types is compiled and must give what Python gives.
That needs `kotlinc` on the PATH: Debian's package `kotlin` and a Java runtime,
or `bin/` of the npm package `kotlin-compiler`. `ktlint` is run where it is.
"""

import io
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from keras_mobilevit import tflite
from keras_mobilevit.data.pictures import fit_picture
from keras_mobilevit.tflite import metadata
from keras_mobilevit.tflite.interpreter import open_interpreter

FOLDER = pathlib.Path(__file__).parent.parent / "tflite" / "android"
MAIN = FOLDER / "app" / "src" / "main"
KOTLIN = sorted((MAIN / "kotlin").rglob("*.kt"))
XML = sorted(MAIN.rglob("*.xml"))
CHECK = pathlib.Path(__file__).with_name("AndroidCheck.kt")
LABELS = list("abcdefg")
ANDROID = "{http://schemas.android.com/apk/res/android}"


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_model, tiny_pictures):
    """What the script makes of a model: the files that the app takes."""
    folder = tmp_path_factory.mktemp("android")
    for i, picture in enumerate(tiny_pictures[:28]):
        home = folder / "pictures" / LABELS[i % 7]
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(home / f"{i}.png")
    tiny_model.save(folder / "tiny.keras")
    done = subprocess.run(
        [
            *(sys.executable, FOLDER / "convert_android.py"),
            *("--model", folder / "tiny.keras"),
            *("--data_dir", folder / "pictures"),
            *("--output_dir", folder / "models"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder / "models"


def test_script_writes_the_files_that_suit(models):
    for name, dtype in (("gpu", "float32"), ("cpu", "uint8")):
        inspection = tflite.inspect(models / f"{name}.tflite")
        assert inspection.inputs[0].dtype == dtype
        assert inspection.outputs[0].dtype == dtype
        assert list(inspection.labels) == LABELS
    sizes = [(models / f"{n}.tflite").stat().st_size for n in ("gpu", "cpu")]
    assert tflite.inspect(models / "gpu.tflite").check("gpu").mapped
    assert min(sizes) > 0


# The project's files.


def test_build_copies_what_the_app_opens():
    for file in ("app/build.gradle.kts", "convert_android.py", "README.md"):
        text = (FOLDER / file).read_text()
        assert "gpu" in text and "cpu" in text, file
    named = r'"(\w+\.tflite)"'
    build = (FOLDER / "app" / "build.gradle.kts").read_text()
    app = "".join(file.read_text() for file in KOTLIN)
    assert set(re.findall(named, build)) == set(re.findall(named, app))
    assert set(re.findall(named, build)) == {"gpu.tflite", "cpu.tflite"}


def test_catalogue_is_used_throughout():
    with open(FOLDER / "gradle" / "libs.versions.toml", "rb") as file:
        catalogue = tomllib.load(file)
    entries = {
        **catalogue["libraries"],
        **{f"plugins-{k}": row for k, row in catalogue["plugins"].items()},
    }
    versions = {row["version"]["ref"] for row in entries.values()}
    assert versions == set(catalogue["versions"])
    scripts = "".join(f.read_text() for f in FOLDER.rglob("*.gradle.kts"))
    used = set(re.findall(r"\blibs\.([\w.]+)", scripts))
    assert used == {name.replace("-", ".") for name in entries}


@pytest.mark.parametrize("file", XML, ids=lambda file: file.name)
def test_xml_is_well_formed(file):
    ElementTree.parse(file)


def test_resources_are_there_and_used():
    there, wanted = set(), set()
    for file in XML:
        text = file.read_text()
        there |= {("id", name) for name in re.findall(r"@\+id/(\w+)", text)}
        wanted |= set(re.findall(r'"@(string|style|layout)/([\w.]+)', text))
        if file.parent.name == "values":
            for row in ElementTree.parse(file).getroot():
                there.add((row.tag, row.get("name")))
        elif file.parent.name == "layout":
            there.add(("layout", file.stem))
    for file in KOTLIN:
        wanted |= set(re.findall(r"\bR\.(\w+)\.(\w+)", file.read_text()))
    assert wanted == there


def test_manifest_names_what_exists():
    manifest = ElementTree.parse(MAIN / "AndroidManifest.xml").getroot()
    assert [
        row.get(f"{ANDROID}name") for row in manifest.iter("uses-permission")
    ] == ["android.permission.CAMERA"]
    packages = {file: file.read_text().split()[1] for file in KOTLIN}
    for file, package in packages.items():
        assert package.replace(".", "/") == (
            file.parent.relative_to(MAIN / "kotlin").as_posix()
        )
    build = (FOLDER / "app" / "build.gradle.kts").read_text()
    (namespace,) = re.findall(r'namespace = "(.+)"', build)
    for row in manifest.iter("activity"):
        name = row.get(f"{ANDROID}name").removeprefix(".")
        assert packages[next(f for f in KOTLIN if f.stem == name)] == namespace


def test_vision_knows_no_android():
    files = [file for file in KOTLIN if file.parent.name == "vision"]
    assert files
    for file in files:
        for name in re.findall(r"^import (.+)", file.read_text(), re.M):
            assert name.startswith(("java.", "kotlin.")), f"{file}: {name}"


def test_kotlin_is_formatted():
    ktlint = shutil.which("ktlint")
    if ktlint is None:
        pytest.skip("needs ktlint on the PATH")
    done = subprocess.run(
        [ktlint, "--editorconfig=.editorconfig", "**/*.kt", "**/*.kts", CHECK],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout


# The Kotlin against Python.


@pytest.fixture(scope="module")
def kotlin(tmp_path_factory):
    """A function that runs commands of AndroidCheck.kt in a folder."""
    if shutil.which("kotlinc") is None:
        pytest.skip("needs kotlinc on the PATH")
    jar = tmp_path_factory.mktemp("kotlin") / "check.jar"
    sources = [file for file in KOTLIN if file.parent.name == "vision"]
    done = subprocess.run(
        ["kotlinc", *sources, CHECK, "-include-runtime", "-d", jar],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr

    def run(folder, *commands):
        (folder / "commands.txt").write_text("\n".join(commands))
        done = subprocess.run(
            ["java", "-jar", jar, folder],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr

    return run


def with_labels(data, labels):
    """Appends a label file as TFLite metadata keep it: a ZIP archive."""
    whole = io.BytesIO(data)
    with zipfile.ZipFile(whole, "a") as archive:
        archive.writestr("labels.txt", "\n".join(labels) + "\n")
    return whole.getvalue()


def rgba_rows(picture, padding):
    """RGBA bytes with rows of so many bytes more than the pixels take."""
    height, width, _ = picture.shape
    rows = np.full((height, 4 * width + padding), 123, np.uint8)
    pixels = np.full((height, width, 4), 255, np.uint8)
    pixels[:, :, :3] = picture
    rows[:, : 4 * width] = pixels.reshape(height, -1)
    # Android's buffers end with the last pixel, not with its row.
    return rows.tobytes()[: rows.size - padding]


def test_frames_are_fitted_bit_for_bit(kotlin, tmp_path):
    """As evaluation does: turned upright, resized, the centre cut out."""
    generator = np.random.default_rng(0)
    commands, expected = [], {}
    for width, height in (
        *((64, 48), (48, 64), (101, 67), (640, 480)),
        *((32, 32), (20, 16), (1, 1), (31, 33)),
    ):
        coarse = generator.integers(
            0, 256, (height // 7 + 1, width // 7 + 1, 3)
        )
        picture = coarse.repeat(7, 0).repeat(7, 1)[:height, :width]
        noise = generator.integers(-40, 40, picture.shape)
        picture = np.clip(picture + noise, 0, 255).astype("uint8")
        for turns in range(4):
            padding = 4 * int(generator.integers(0, 5))
            # It lies on its side, and is to be turned clockwise.
            lying = np.rot90(picture, turns)
            frame = f"{width}x{height}-{turns}.rgba"
            (tmp_path / frame).write_bytes(rgba_rows(lying, padding))
            rows, columns, _ = lying.shape
            stride = 4 * columns + padding
            for model_width, model_height in ((32, 32), (40, 24)):
                name = f"{frame}-{model_width}.rgb"
                commands.append(
                    f"fit {frame} {columns} {rows} {stride} {90 * turns} "
                    f"{model_width} {model_height} {name}"
                )
                expected[name] = fit_picture(picture, model_height, model_width)
    kotlin(tmp_path, *commands)
    assert len(expected) == 64
    for name, picture in expected.items():
        fitted = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
        np.testing.assert_array_equal(
            fitted.reshape(picture.shape), picture, err_msg=name
        )


def test_wrong_frames_are_refused(kotlin, tmp_path):
    (tmp_path / "frame").write_bytes(bytes(4 * 6))
    kotlin(
        tmp_path,
        "fit frame 3 2 12 45 8 8 turned",
        "fit frame 3 2 8 0 8 8 narrow",
        "fit frame 3 3 12 0 8 8 short",
    )
    for name, message in (
        ("turned", "rotation must be a right angle: 45"),
        ("narrow", "rows of 3 pixels overlap: 8"),
        ("short", "too few bytes"),
    ):
        assert (tmp_path / name).read_text() == f"error: {message}"


@pytest.mark.parametrize("name", ["gpu", "cpu", "int8_io", "uint8_io"])
def test_scores_are_those_of_the_library(
    kotlin, models, tiny_files, tiny_pictures, tmp_path, name
):
    """All but the interpreter is the app's; the scores are `predict`'s."""
    if name in tiny_files:
        data = with_labels(tiny_files[name].read_bytes(), LABELS)
        (tmp_path / "model").write_bytes(data)
    else:
        shutil.copy(models / f"{name}.tflite", tmp_path / "model")
    pictures = tiny_pictures[:16]
    for i, picture in enumerate(pictures):
        (tmp_path / f"{i}.rgb").write_bytes(picture.tobytes())
    kotlin(tmp_path, *(f"encode model {i}.rgb {i}.input" for i in range(16)))
    interpreter = open_interpreter(tmp_path / "model", 1)
    (fed,) = interpreter.get_input_details()
    (read,) = interpreter.get_output_details()
    for i in range(16):
        values = np.frombuffer(
            (tmp_path / f"{i}.input").read_bytes(), fed["dtype"]
        )
        interpreter.set_tensor(fed["index"], values.reshape(fed["shape"]))
        interpreter.invoke()
        output = interpreter.get_tensor(read["index"])
        (tmp_path / f"{i}.output").write_bytes(output.tobytes())
    kotlin(tmp_path, *(f"best model {i}.output 3 {i}.best" for i in range(16)))
    predictions = tflite.predict(tmp_path / "model", pictures, 3, num_threads=1)
    seen = set()
    for i, prediction in enumerate(predictions):
        rows = (tmp_path / f"{i}.best").read_text().splitlines()
        for row, wanted in zip(rows, prediction.scores, strict=True):
            index, label, score = row.split("\t")
            assert (int(index), label) == (wanted.index, wanted.label)
            assert float(score) == pytest.approx(wanted.score, abs=1e-6)
        seen.add(prediction.scores[0].label)
    assert len(seen) > 2


def with_normalization(data, mean, std):
    """Writes NormalizationOptions into a file."""
    description = metadata.Description(mean=tuple(mean), std=tuple(std))
    return metadata.describe(data, description)


def test_normalization_is_read_and_applied(
    kotlin, tiny_float_file, tiny_files, tmp_path
):
    files = {
        "none": tiny_float_file.read_bytes(),
        "one": with_normalization(
            tiny_float_file.read_bytes(), [127.5], [127.5]
        ),
        "three": with_normalization(
            tiny_float_file.read_bytes(), [1, 2, 3.5], [4, 5, 6]
        ),
        "int8": with_normalization(
            tiny_files["int8_io"].read_bytes(), [0], [255]
        ),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    pixels = np.arange(256, dtype="uint8").repeat(3)
    (tmp_path / "pixels").write_bytes(pixels.tobytes())
    kotlin(
        tmp_path,
        *(f"file {name} {name}.txt" for name in files),
        *(f"encode {name} pixels {name}.input" for name in files),
    )
    values = pixels.reshape(-1, 3).astype("float32")
    for name, mean, std in (
        ("none", [0], [1]),
        ("one", [127.5], [127.5]),
        ("three", [1, 2, 3.5], [4, 5, 6]),
    ):
        lines = (tmp_path / f"{name}.txt").read_text().splitlines()
        assert lines[2:4] == [
            str([float(x) for x in row]) for row in (mean, std)
        ]
        encoded = np.frombuffer(
            (tmp_path / f"{name}.input").read_bytes(), "<f4"
        )
        wanted = (values - np.float32(mean)) / np.float32(std)
        np.testing.assert_array_equal(encoded.reshape(-1, 3), wanted)
    (tensor,) = tflite.inspect(tmp_path / "int8").inputs
    steps = np.rint(values / np.float32(255) / np.float32(tensor.scale))
    wanted = np.clip(steps + tensor.zero_point, -128, 127)
    encoded = np.frombuffer((tmp_path / "int8.input").read_bytes(), np.int8)
    np.testing.assert_array_equal(encoded.reshape(-1, 3), wanted)


def test_ends_and_labels_are_read(kotlin, models, tiny_int8_file, tmp_path):
    plain = tiny_int8_file.read_bytes()
    names = ["Löwenzahn", "a b", "c", "ד", "e, f", "'g'", "h"]
    apart = io.BytesIO()  # offsets from the archive's start, compressed
    with zipfile.ZipFile(apart, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes.bin", bytes(999))
        archive.writestr("labels.txt", "\r\n".join(names))
    files = {
        "plain": plain,
        "appended": with_labels(plain, names),
        "apart": plain + apart.getvalue(),
        "few": with_labels(plain, names[:3]),
        "picture": b"\x89PNG" + bytes(99),
        "gpu": (models / "gpu.tflite").read_bytes(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    kotlin(tmp_path, *(f"file {name} {name}.txt" for name in files))

    def lines(name):
        return (tmp_path / f"{name}.txt").read_text("utf-8").split("\n")

    ends = tflite.inspect(tiny_int8_file)
    for line, (tensor,) in zip(lines("plain"), (ends.inputs, ends.outputs)):
        head, scale, zero_point = line.rsplit(" ", 2)
        assert head == f"{list(tensor.shape)} UINT8"
        assert float(scale) == pytest.approx(tensor.scale, rel=1e-6)
        assert int(zero_point) == tensor.zero_point
    assert lines("plain")[4:] == [f"class {i}" for i in range(7)]
    assert lines("appended")[4:] == lines("apart")[4:] == names
    assert lines("few") == ["error: The file has 3 labels for 7 classes"]
    assert lines("picture") == ["error: This is no .tflite file"]
    assert lines("gpu")[0] == "[1, 32, 32, 3] FLOAT32 0.0 0"
    assert lines("gpu")[4:] == LABELS


def test_median_is_that_of_the_last(kotlin, tmp_path):
    numbers = [5, 1, 9, 2, 2, 40, 3]
    kotlin(tmp_path, f"median {' '.join(map(str, numbers))} medians")
    medians = list(map(float, (tmp_path / "medians").read_text().split()))
    assert medians[2:] == [
        statistics.median(numbers[i - 2 : i + 1]) for i in range(2, 7)
    ]
