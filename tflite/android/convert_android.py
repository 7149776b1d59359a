r"""Converts a trained model to the two files that the app takes.

    python tflite/android/convert_android.py --model best.keras \
        --data_dir pictures

It writes `gpu.tflite`, with weights in half precision, and `cpu.tflite`, with
all but softmax and norms in int8, which takes `uint8` pixels; both with the
names of the classes inside. They go where the app's build looks for
them, `tflite/android/models`.
"""

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
flags.DEFINE_string(
    "output_dir", str(Path(__file__).parent / "models"), "where to write"
)
flags.DEFINE_bool("overwrite", False, "replace earlier files")

PRECISIONS = {"gpu": "float16", "cpu": "int8_mixed"}


def main(argv):
    """Converts for both accelerators, and checks what the GPU runs."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)  # TensorFlow's exporter is chatty
    model = tflite.load_model(FLAGS.model)
    dataset = data.load(
        data_dir=FLAGS.data_dir, image_size=model.input_shape[1]
    )
    folder = Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for target, precision in PRECISIONS.items():
        conversion = tflite.convert(
            model,
            folder / f"{target}.tflite",
            target=target,
            precision=precision,
            calibration_data=dataset.calibration,
            labels=dataset.class_names,
            overwrite=FLAGS.overwrite,
        )
        print(conversion)
    print(tflite.inspect(folder / "gpu.tflite").check("gpu"))


if __name__ == "__main__":
    app.run(main)
