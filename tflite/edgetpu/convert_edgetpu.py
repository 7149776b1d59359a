r"""Converts a trained model for an Edge TPU and compiles what maps.

    python tflite/edgetpu/convert_edgetpu.py --model best.keras \
        --data_dir pictures --output flowers.tflite

It writes `flowers.tflite` and its two parts, `flowers_first.tflite` (what is
predicted to map) and `flowers_rest.tflite`. Where `edgetpu_compiler` is
installed, the first part is compiled to `flowers_first_edgetpu.tflite`.
"""

import shutil
import subprocess
from pathlib import Path

from absl import app
from absl import flags
from absl import logging

from keras_mobilevit import data
from keras_mobilevit import tflite

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, ".keras file", required=True)
flags.DEFINE_string(
    "data_dir", None, "folder of class folders, to calibrate", required=True
)
flags.DEFINE_string("output", None, ".tflite file to write", required=True)
flags.DEFINE_bool("overwrite", False, "replace earlier files")


def main(argv):
    """Converts, checks and, where it can be done, compiles."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)  # TensorFlow's exporter is chatty
    model = tflite.load_model(FLAGS.model)
    dataset = data.load(
        data_dir=FLAGS.data_dir, image_size=model.input_shape[1]
    )
    conversion = tflite.convert(
        model,
        FLAGS.output,
        target="edgetpu",
        calibration_data=dataset.calibration,
        labels=dataset.class_names,
        split=True,
        overwrite=FLAGS.overwrite,
    )
    print(conversion)
    print(tflite.inspect(conversion.path).check("edgetpu"))
    # One file if all of it maps, as of a MobileViTv2.
    first, *rest = conversion.parts or (conversion.path,)
    command = ["edgetpu_compiler", "-s", "-o", str(Path(first).parent), first]
    if shutil.which(command[0]):
        subprocess.run(command, check=True)
    else:
        print(
            "edgetpu_compiler is not installed, so what maps is predicted. "
            f"Compile where it is:\n  {' '.join(command)}"
        )
    compiled = Path(first).with_name(f"{Path(first).stem}_edgetpu.tflite")
    files = " ".join(map(str, (compiled, *rest)))
    print(f"Run on the device:\n  python run.py PICTURE {files}")


if __name__ == "__main__":
    app.run(main)
