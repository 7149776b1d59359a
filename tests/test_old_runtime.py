"""The rule of operation versions, tested on a runtime of 2023.

`tflite-runtime` 2.14.0 knows no operation newer than TFLite 2.14, and says so
in the words of the Edge TPU compiler. `tests/old_runtime.sh FOLDER` installs
it; KERAS_MOBILEVIT_OLD_RUNTIME is the Python that has it.
"""

import json
import os
import re
import subprocess

import keras
import numpy as np
import pytest

from keras_mobilevit import MobileViTV2_050
from keras_mobilevit import tflite
from keras_mobilevit.tflite.interpreter import open_interpreter

PYTHON = os.environ.get("KERAS_MOBILEVIT_OLD_RUNTIME", "")
VERSION = (2, 14, 0)
pytestmark = pytest.mark.skipif(
    not os.path.exists(PYTHON),
    reason="needs an old runtime: tests/old_runtime.sh, and "
    "KERAS_MOBILEVIT_OLD_RUNTIME",
)

SCRIPT = """
import json, sys
import numpy as np
import tflite_runtime
from tflite_runtime.interpreter import Interpreter

said = {"version": tflite_runtime.__version__}
try:
    interpreter = Interpreter(sys.argv[1], num_threads=1)
    run = interpreter.get_signature_runner()
    (name,) = run.get_input_details()
    rows = [run(**{name: x[None]}) for x in np.load(sys.argv[2])]
    said["rows"] = [next(iter(r.values())).ravel().tolist() for r in rows]
except (RuntimeError, ValueError) as error:
    said["error"] = str(error)
print("said " + json.dumps(said))
"""


def run_old(path, pictures, tmp_path):
    np.save(tmp_path / "pictures.npy", pictures)
    done = subprocess.run(
        [PYTHON, "-c", SCRIPT, path, tmp_path / "pictures.npy"],
        capture_output=True,
        text=True,
        timeout=120,
        # Not the packages of this environment.
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    lines = [x for x in done.stdout.splitlines() if x.startswith("said ")]
    assert lines, done.stderr[-2000:]
    said = json.loads(lines[0].removeprefix("said "))
    assert said["version"] == ".".join(map(str, VERSION))
    return said


@pytest.fixture
def convert(tiny_pictures, tmp_path):
    def write(model, target, precision):
        path = tmp_path / f"{target}_{precision}.tflite"
        tflite.convert(
            model,
            path,
            target=target,
            precision=precision,
            calibration_data=tiny_pictures,
        )
        return path, tiny_pictures[:4].astype(
            tflite.inspect(path).inputs[0].dtype
        )

    return write


@pytest.mark.parametrize(
    "target, precision",
    [
        ("edgetpu", "int8"),
        ("cpu", "int8_mixed"),
        ("cpu", "int8"),
        ("gpu", "float16"),
        ("gpu", "int8"),
        ("gpu", "float32"),
    ],
)
def test_our_files_are_read(convert, tiny_model, target, precision, tmp_path):
    """And computed alike, up to what the kernels of two years differ."""
    path, pictures = convert(tiny_model, target, precision)
    assert tflite.inspect(path).min_runtime_version <= VERSION
    said = run_old(path, pictures, tmp_path)
    assert "error" not in said
    run = open_interpreter(path, 1).get_signature_runner()
    rows = [run(image=x[np.newaxis])["predictions"].ravel() for x in pictures]
    error = np.abs(np.array(said["rows"]) - np.array(rows, "float64"))
    assert error.max() <= (16 if precision.startswith("int8") else 1e-4)


@pytest.mark.parametrize("target", ["edgetpu", "cpu"])
def test_files_of_v2_are_read(convert, target, tmp_path):
    """SPACE_TO_DEPTH and SPLIT among their operations.

    Untrained, its integer scores are noise: nothing to compare.
    """
    keras.utils.set_random_seed(0)
    model = MobileViTV2_050(weights=None, input_shape=(32, 32, 3), classes=7)
    path, pictures = convert(model, target, "int8")
    found = {op.name for op in tflite.inspect(path).ops}
    assert ({"SPACE_TO_DEPTH", "SPLIT"} <= found) == (target == "edgetpu")
    said = run_old(path, pictures, tmp_path)
    assert "error" not in said
    assert np.shape(said["rows"]) == (len(pictures), 7)


def test_a_newer_version_is_refused(tmp_path):
    """As the file's own metadata and the rule for the Edge TPU say."""
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Conv2D(64, 3, strides=2)(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(100)(x)  # large enough to be quantized
    path = tmp_path / "dynamic.tflite"
    tflite.convert(keras.Model(image, x), path, precision="dynamic_int8")
    pictures = np.zeros((1, 32, 32, 3), "float32")
    found = tflite.inspect(path)
    assert found.min_runtime_version > VERSION
    said = run_old(path, pictures, tmp_path)
    name, version = re.search(
        r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'",
        said["error"],
    ).groups()
    report = found.check("edgetpu")
    assert f"{name} version {version}" in report.refused
    assert report.mapped == 0
