"""The scripts of tflite/edgetpu, as far as a CPU goes."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_mobilevit import tflite

FOLDER = pathlib.Path(__file__).parent.parent / "tflite" / "edgetpu"
LABELS = list("abcdefg")


def run(script, *arguments, timeout=300):
    return subprocess.run(
        [sys.executable, FOLDER / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model, tiny_pictures):
    """Class folders, a model, and what the script makes of them."""
    folder = tmp_path_factory.mktemp("edgetpu")
    for i, picture in enumerate(tiny_pictures[:28]):
        home = folder / "pictures" / LABELS[i % 7]
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(home / f"{i}.png")
    tiny_model.save(folder / "tiny.keras")
    done = run(
        *("convert_edgetpu.py", "--model", folder / "tiny.keras"),
        *("--data_dir", folder / "pictures"),
        *("--output", folder / "tiny.tflite"),
    )
    assert done.returncode == 0, done.stderr
    (folder / "said").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def picture(folder, tiny_pictures):
    path = folder / "picture.png"
    Image.fromarray(tiny_pictures[1]).save(path)
    return path


def scores(done):
    assert done.returncode == 0, done.stderr
    return {
        label: float(score)
        for score, label in map(str.split, done.stdout.splitlines())
    }


def expected(path, picture):
    (prediction,) = tflite.predict(path, picture, top=7)
    return {row.label: row.score for row in prediction.scores}


def assert_close(got, wanted):
    assert got.keys() == wanted.keys() == set(LABELS)
    for label, score in wanted.items():
        assert abs(got[label] - score) <= 2 / 256 + 1e-4  # two steps
    assert np.ptp(list(got.values())) > 0.05


def test_it_converts_and_says_what_is_predicted(folder):
    said = (folder / "said").read_text()
    assert "edgetpu_compiler is not installed" in said
    assert "tiny_first_edgetpu.tflite" in said
    for name in ("tiny", "tiny_first", "tiny_rest"):
        assert (folder / f"{name}.tflite").exists()
    first = tflite.inspect(folder / "tiny_first.tflite").check("edgetpu")
    assert first.mapped == first.total > 0


def test_whole_and_parts_give_what_the_library_gives(folder, picture):
    wanted = expected(folder / "tiny.tflite", picture)
    whole = run("run.py", picture, folder / "tiny.tflite", "--top", 7)
    assert_close(scores(whole), wanted)
    parts = [folder / f"tiny_{part}.tflite" for part in ("first", "rest")]
    both = run("run.py", picture, *parts, "--top", 7)
    assert_close(scores(both), wanted)
    assert both.stderr.count("on the CPU") == 2
    assert both.stderr.splitlines()[-1].endswith("ms")


def test_pictures_are_turned_and_cut_as_the_library_does(folder, tiny_pictures):
    wide = np.concatenate(tiny_pictures[2:4], axis=1).repeat(2, 0).repeat(2, 1)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    path = folder / "wide.png"
    Image.fromarray(wide).save(path, exif=exif)
    got = run("run.py", path, folder / "tiny.tflite", "--top", 7)
    assert_close(scores(got), expected(folder / "tiny.tflite", path))


def compiled_file(folder, name):
    """Not one of the compiler's, but one that passes for it."""
    path = folder / name
    path.write_bytes(b"\0\0\0\0TFL3" + b"edgetpu-custom-op")
    return path


def test_without_an_edge_tpu_it_falls_back_and_says_so(folder, picture):
    compiled = compiled_file(folder, "tiny_first_edgetpu.tflite")
    done = run(
        *("run.py", picture, compiled, folder / "tiny_rest.tflite"),
        *("--top", 7, "--library", "libno_such_thing.so.1"),
    )
    assert_close(scores(done), expected(folder / "tiny.tflite", picture))
    assert "no Edge TPU (libno_such_thing.so.1" in done.stderr
    assert "tiny_first.tflite instead, on the CPU" in done.stderr


def test_with_nothing_to_fall_back_on_it_says_what_to_do(folder, picture):
    lone = compiled_file(folder, "lone_edgetpu.tflite")
    done = run("run.py", picture, lone, "--library", "libno_such_thing.so.1")
    assert done.returncode == 1
    assert "put the file it was compiled from beside it" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_files_are_refused(folder, picture, tiny_float_file):
    done = run("run.py", picture, tiny_float_file)
    assert done.returncode == 2
    assert 'takes float32; convert with target="edgetpu"' in done.stderr
    done = run("run.py", picture, folder / "none.tflite")
    assert done.returncode == 2 and "there is no file" in done.stderr
