"""MediaPipe Tasks takes the files as they are, labels and scaling inside."""

import json
import os
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_mobilevit import tflite
from keras_mobilevit.tflite.interpreter import Runner

PYTHON = os.environ.get("KERAS_MOBILEVIT_MEDIAPIPE")
LABELS = [f"class {i}" for i in range(7)]

pytestmark = pytest.mark.skipif(
    PYTHON is None,
    reason="KERAS_MOBILEVIT_MEDIAPIPE names no Python with MediaPipe; "
    "tests/mediapipe.sh makes one",
)


def ask(task, path, pictures, folder):
    """Returns what MediaPipe says of each picture."""
    kept = folder / "pictures.npy"
    np.save(kept, pictures)
    script = Path(__file__).with_name("mediapipe_scores.py")
    done = subprocess.run(
        [PYTHON, script, task, path, kept],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def reference_scores(path, pictures):
    """Returns the scores by the kernels that no processor is tuned for."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.interpreter import OpResolverType

    interpreter = Interpreter(
        str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    (output,) = interpreter.get_output_details()
    scale, zero = output["quantization"]
    rows = []
    for picture in pictures:
        interpreter.set_tensor(source["index"], picture[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(output["index"])[0])
    return (np.array(rows, "float32") - zero) * scale


@pytest.mark.parametrize("precision", ["float32", "int8_mixed", "int8"])
def test_it_classifies(tiny_model, tiny_pictures, tmp_path, precision):
    path = tmp_path / "model.tflite"
    tflite.convert(
        tiny_model,
        path,
        precision=precision,
        calibration_data=tiny_pictures,
        labels=LABELS,
    )
    rows = ask("classify", path, tiny_pictures, tmp_path)
    scores = [[dict(row)[label] for label in LABELS] for row in rows]
    wanted = Runner(path)(tiny_pictures.astype("float32"))
    tolerance = 1e-4
    if precision != "float32":
        # Integer kernels round differently from one to the next, and
        # MediaPipe brings its own: no more than ours differ among each other.
        others = reference_scores(path, tiny_pictures)
        tolerance = max(1 / 256, np.abs(others - wanted).max()) + 1e-6
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=tolerance)


def test_it_embeds(tiny_model, tiny_pictures, tmp_path):
    pooled = tiny_model.get_layer("avg_pool").output
    path = tmp_path / "model.tflite"
    tflite.convert(
        keras.Model(tiny_model.input, pooled), path, precision="float32"
    )
    found = ask("embed", path, tiny_pictures, tmp_path)
    wanted = Runner(path)(tiny_pictures.astype("float32"))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
