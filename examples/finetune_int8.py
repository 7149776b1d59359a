r"""Fine-tunes a MobileViT, converts it to int8 and measures the files.

With no arguments: the handwritten digits that come with scikit-learn, at 64
pixels, MobileViT-XXS from a random start.

    python examples/finetune_int8.py
    python examples/finetune_int8.py --data_dir flowers --model MobileViT_XS \
        --image_size 256 --weights imagenet

Converted are the weights of the last epoch, which were not chosen on the
pictures that accuracy is measured on. It takes three to four minutes on two
cores and ends near 98 % for each file; measured tables are in the README,
section "Measured".
"""

import dataclasses
from pathlib import Path

import keras
from absl import app
from absl import flags
from absl import logging

import keras_mobilevit
from keras_mobilevit import data
from keras_mobilevit import files
from keras_mobilevit import reports
from keras_mobilevit import tflite
from keras_mobilevit import training

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, "'digits' or a tensorflow-datasets name")
flags.DEFINE_string("data_dir", None, "folder of class folders")
flags.DEFINE_bool("download", False, "let tensorflow-datasets download")
flags.DEFINE_string("model", "MobileViT_XXS", "name of the builder")
flags.DEFINE_string("weights", None, "'imagenet' or a weights file")
flags.DEFINE_integer("image_size", 64, "side of the pictures in pixels")
flags.DEFINE_integer("epochs", 10, "passes over the training pictures")
flags.DEFINE_integer("freeze_epochs", 0, "of which only the head learns")
flags.DEFINE_integer("batch_size", 32, "pictures in a training step")
flags.DEFINE_float("learning_rate", 2e-3, "highest learning rate (AdamW)")
flags.DEFINE_integer("seed", 0, "seed of everything random")
flags.DEFINE_string("output_dir", "finetune_int8", "folder for all results")
flags.DEFINE_bool("overwrite", False, "replace earlier results")

PRECISIONS = ("float32", "int8", "int8_mixed")


@dataclasses.dataclass(frozen=True)
class Result(reports.Report):
    """One line for each file."""

    data: str
    model: str
    keras_accuracy: float
    files: tuple[dict, ...]

    def __str__(self):
        return reports.table(
            ("precision", "top-1 %", "95 % interval", "MB", "latency ratio"),
            [
                (
                    row["precision"],
                    f"{100 * row['top1']:.2f}",
                    "{:.2f} to {:.2f}".format(
                        *(100 * bound for bound in row["interval"])
                    ),
                    f"{row['size'] / 1e6:.2f}",
                    f"{row['latency_ratio']:.2f}",
                )
                for row in self.files
            ],
        )

    def plot(self, path, overwrite=False):
        """Draws accuracy and latency of each file as a PNG."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        names = [row["precision"] for row in self.files]
        top1 = [100 * row["top1"] for row in self.files]
        low, high = zip(*(row["interval"] for row in self.files))
        left.errorbar(
            top1,
            names,
            xerr=[
                [t - 100 * bound for t, bound in zip(top1, low)],
                [100 * bound - t for t, bound in zip(top1, high)],
            ],
            fmt="o",
            capsize=4,
        )
        left.set(xlabel="top-1 of the file, % (95 % interval)")
        left.invert_yaxis()
        left.margins(y=0.3)
        right.barh(names, [row["latency_ratio"] for row in self.files], 0.5)
        right.set(xlabel="latency, float32 = 1 (1 thread)")
        figure.suptitle(f"{self.model}, {self.data}")
        with files.atomic_path(path, overwrite) as temporary:
            figure.savefig(temporary, dpi=120)


def main(argv):
    """Runs the whole job."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)  # TensorFlow's exporter is chatty
    keras.utils.set_random_seed(FLAGS.seed)
    dataset = data.load(
        FLAGS.dataset,
        FLAGS.data_dir,
        image_size=FLAGS.image_size,
        batch_size=FLAGS.batch_size,
        seed=FLAGS.seed,
        download=FLAGS.download,
    )
    build = getattr(keras_mobilevit, FLAGS.model)
    shape = (FLAGS.image_size, FLAGS.image_size, 3)
    backbone = build(
        include_top=False,
        weights=FLAGS.weights,
        input_shape=shape,
        pooling="avg",
    )
    x = keras.layers.Dropout(0.1)(backbone.output)
    x = keras.layers.Dense(
        len(dataset.class_names), activation="softmax", name="predictions"
    )(x)
    model = keras.Model(backbone.input, x, name=backbone.name)
    output = Path(FLAGS.output_dir)
    recipe = training.Recipe(
        epochs=FLAGS.epochs,
        learning_rate=FLAGS.learning_rate,
        freeze_epochs=FLAGS.freeze_epochs,
    )
    report = training.train(
        model, dataset, recipe, output, overwrite=FLAGS.overwrite, verbose=2
    )
    print(report)

    rows = []
    for precision in PRECISIONS:
        conversion = tflite.convert(
            report.last_model,
            output / f"{precision}.tflite",
            precision=precision,
            calibration_data=dataset.calibration,
            labels=dataset.class_names,
            overwrite=FLAGS.overwrite,
        )
        print(conversion)
        measured = tflite.evaluate(conversion.path, dataset.val)
        rows.append(
            {
                "precision": precision,
                "top1": measured.top1,
                "interval": measured.interval,
                "n": measured.n,
                "size": conversion.size,
                "path": conversion.path,
            }
        )
    timing = tflite.benchmark([row["path"] for row in rows], threads=(1,))
    for row, time in zip(rows, timing.timings):
        row["latency_ratio"] = time.ratio
    result = Result(
        data=str(FLAGS.data_dir or FLAGS.dataset or "digits"),
        model=FLAGS.model,
        keras_accuracy=report.history["val_accuracy"][-1],
        files=tuple(rows),
    )
    with files.atomic_path(
        output / "result.json", FLAGS.overwrite
    ) as temporary:
        temporary.write_text(result.to_json())
    result.plot(output / "result.png", FLAGS.overwrite)
    print(result)


if __name__ == "__main__":
    app.run(main)
