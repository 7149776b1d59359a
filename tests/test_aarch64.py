"""Our files give on Arm what they give here, under the same LiteRT.

`tests/aarch64.sh FOLDER` makes the aarch64 Python, which qemu runs;
KERAS_MOBILEVIT_AARCH64 is its path. That is Arm's arithmetic, not its speed.
"""

import importlib.metadata
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_mobilevit import MobileViT_XXS
from keras_mobilevit import tflite
from keras_mobilevit.tflite.interpreter import open_interpreter

PYTHON = os.environ.get("KERAS_MOBILEVIT_AARCH64", "")
pytestmark = pytest.mark.skipif(
    not os.path.exists(PYTHON),
    reason="needs an aarch64 Python: tests/aarch64.sh, and "
    "KERAS_MOBILEVIT_AARCH64",
)

SCRIPT = """
import importlib.metadata, json, platform, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

run = Interpreter(
    sys.argv[1],
    num_threads=1,
    experimental_op_resolver_type=OpResolverType[sys.argv[4]],
).get_signature_runner()
rows = [run(image=x[None])["predictions"] for x in np.load(sys.argv[2])]
np.save(sys.argv[3], np.concatenate(rows))
version = importlib.metadata.version("ai-edge-litert")
print(json.dumps([platform.machine(), version]))
"""


def run_on(python, path, pictures, folder, kernels="AUTO"):
    """Returns `(machine, outputs of a file for a batch of pictures)`."""
    np.save(folder / "pictures.npy", pictures)
    done = subprocess.run(
        [python, "-c", SCRIPT, path, "pictures.npy", "outputs.npy", kernels],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    machine, version = json.loads(done.stdout.splitlines()[-1])
    assert version == importlib.metadata.version("ai-edge-litert")
    return machine, np.load(folder / "outputs.npy")


def run_on_arm(path, pictures, folder, kernels="AUTO"):
    """Returns the outputs of a file for a batch of pictures."""
    machine, outputs = run_on(PYTHON, path, pictures, folder, kernels)
    assert machine == "aarch64"
    return outputs


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return MobileViT_XXS(
        weights=None,
        input_shape=(64, 64, 3),
        classes=10,
        # Untrained, its scores hardly differ; its logits do.
        classifier_activation=None,
    )


@pytest.mark.parametrize("precision", ["float32", "int8", "int8_mixed"])
def test_arm_agrees(model, tiny_pictures, precision, tmp_path):
    pictures = tiny_pictures.repeat(2, axis=1).repeat(2, axis=2)
    path = tmp_path / "model.tflite"
    tflite.convert(model, path, precision=precision, calibration_data=pictures)
    dtype = tflite.inspect(path).inputs[0].dtype
    pictures = pictures[:16].astype(dtype)
    run = open_interpreter(path, 1).get_signature_runner()
    here = np.concatenate(
        [run(image=x[np.newaxis])["predictions"] for x in pictures]
    )
    there = run_on_arm(path, pictures, tmp_path)
    assert there.dtype == here.dtype and there.shape == here.shape
    # A file that says the same of every picture would pass unseen.
    assert len(np.unique(here, axis=0)) > 8
    if precision == "float32":
        assert np.abs(there - here).max() <= 1e-6
    else:
        # Now and then LiteRT's int8 SOFTMAX rounds to the other side on
        # NEON, by one step of 1/256, and so do the float parts of
        # int8_mixed; all else is equal bit for bit. Arm may not be farther
        # from x86 than x86 is from the float model.
        step = tflite.inspect(path).outputs[0].scale
        scores = model.predict(pictures, verbose=0)
        noise = (here - tflite.inspect(path).outputs[0].zero_point) * step
        noise = np.square(noise - scores).mean()
        moved = (there.astype("float64") - here) * step
        assert np.square(moved).mean() < 0.5 * noise


@pytest.mark.parametrize("precision", ["int8", "int8_mixed"])
def test_reference_kernels_agree_bit_for_bit(
    model, tiny_pictures, precision, tmp_path
):
    """The file means the same on both; it is fast kernels that differ."""
    pictures = tiny_pictures.repeat(2, axis=1).repeat(2, axis=2)
    path = tmp_path / "model.tflite"
    tflite.convert(model, path, precision=precision, calibration_data=pictures)
    pictures = pictures[:2].astype("uint8")
    _, here = run_on(
        sys.executable, path, pictures, tmp_path, kernels="BUILTIN_REF"
    )
    there = run_on_arm(path, pictures, tmp_path, kernels="BUILTIN_REF")
    assert len(np.unique(here)) > 5
    np.testing.assert_array_equal(there, here)
