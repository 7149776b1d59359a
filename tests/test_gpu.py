"""Files run on a GPU: LiteRT's ML Drift on SwiftShader, a GPU in software.

It shows that the graph is accepted and computed right; it says nothing of the
speed, nor of the driver of a phone. `tests/swiftshader.sh FOLDER` fetches it;
the folder goes into KERAS_MOBILEVIT_SWIFTSHADER.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from graphs import O
from graphs import T
from graphs import build

from keras_mobilevit import tflite
from keras_mobilevit.tflite.interpreter import open_interpreter

FOLDER = os.environ.get("KERAS_MOBILEVIT_SWIFTSHADER", "")
pytestmark = pytest.mark.skipif(
    not (pathlib.Path(FOLDER) / "libvk_swiftshader.so").is_file(),
    reason="needs SwiftShader: tests/swiftshader.sh, and "
    "KERAS_MOBILEVIT_SWIFTSHADER",
)

# In a process of its own: the loader reads its path when a process starts.
SCRIPT = """
import json, sys
import numpy as np
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.hardware_accelerator import HardwareAccelerator

model = CompiledModel.from_file(
    sys.argv[1], hardware_accel=HardwareAccelerator.GPU
)
key = next(iter(model.get_signature_list()))
source, = model.create_input_buffers(0)
result, = model.create_output_buffers(0)
detail, = model.get_output_tensor_details(key).values()
rows = []
for picture in np.load(sys.argv[2]):
    source.write(np.ascontiguousarray(picture[np.newaxis]))
    model.run_by_index(0, [source], [result])
    count = int(np.prod(detail["shape"]))
    rows.append(result.read(count, np.dtype(detail["dtype"]).type).tolist())
said = {"accelerated": model.is_fully_accelerated(), "rows": rows}
print("said " + json.dumps(said))
"""


def on_gpu(path, pictures, tmp_path):
    """Whether the GPU runs the whole file, and what it computes."""
    np.save(tmp_path / "pictures.npy", pictures)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, path, tmp_path / "pictures.npy"],
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **os.environ,
            "LD_LIBRARY_PATH": FOLDER,
            "VK_ICD_FILENAMES": f"{FOLDER}/vk_swiftshader_icd.json",
        },
    )
    lines = [x for x in done.stdout.splitlines() if x.startswith("said ")]
    assert lines, done.stderr[-2000:]
    said = json.loads(lines[0].removeprefix("said "))
    return said["accelerated"], np.array(said["rows"])


def on_cpu(path, pictures, use_delegate=True):
    runner = open_interpreter(path, 1, use_delegate).get_signature_runner()
    (name,) = runner.get_input_details()
    rows = [runner(**{name: x[np.newaxis]}) for x in pictures]
    rows = [next(iter(row.values())).ravel() for row in rows]
    return np.array(rows).astype("float64")


@pytest.fixture(params=["float32", "float16", "int8", "int8_mixed"])
def computed(request, tiny_model, tiny_pictures, tmp_path):
    """Precision, file, pictures and what the GPU makes of them."""
    path = tmp_path / "a.tflite"
    tflite.convert(
        tiny_model,
        path,
        target="gpu",
        precision=request.param,
        calibration_data=tiny_pictures,
    )
    found = tflite.inspect(path)
    pictures = tiny_pictures.astype(found.inputs[0].dtype)
    accelerated, actual = on_gpu(path, pictures, tmp_path)
    assert accelerated
    report = found.check("gpu")
    assert report.mapped == report.total  # as predicted
    return request.param, path, pictures, actual


def test_gpu_equals_cpu(computed):
    """To 1e-4 in float; int8 as nearly as the CPU's own kernels agree.

    A GPU computes an int8 graph in float and rounds where it says so, and
    each rounding that falls the other way travels on. TFLite's two kinds of
    CPU kernels differ as much. The head of this model enlarges what is left.
    """
    precision, path, pictures, actual = computed
    expected = on_cpu(path, pictures)
    error = np.abs(actual - expected)
    if precision.startswith("float"):
        assert error.max() <= 1e-4
        assert np.ptp(expected, axis=0).max() > 0.1
    else:
        yardstick = np.abs(on_cpu(path, pictures, False) - expected)
        assert error.max() <= yardstick.max()
        assert error.mean() <= yardstick.mean()
        assert np.mean(error <= 2) > 0.75
        assert np.ptp(expected, axis=0).max() > 50


@pytest.mark.parametrize("axes", [4, 5])
def test_the_rule_of_four_axes(axes, tmp_path):
    """One axis more, and the prediction and the GPU both say no."""
    shape = (1,) * (axes - 2) + (4, 4)
    path = build(
        tmp_path / "a.tflite",
        [T(shape, "float32")] * 2,
        [O("TANH", (0,), (1,))],
        signature=True,
    )
    pictures = np.linspace(-1, 1, 16, dtype="float32").reshape(shape)
    report = tflite.inspect(path).check("gpu")
    assert report.mapped == (axes <= 4)
    if axes <= 4:
        accelerated, actual = on_gpu(path, pictures, tmp_path)
        np.testing.assert_allclose(
            actual.ravel(), np.tanh(pictures).ravel(), atol=1e-4
        )
        assert accelerated
    else:
        with pytest.raises(AssertionError):
            on_gpu(path, pictures, tmp_path)
