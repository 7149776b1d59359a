r"""What int8 costs a MobileViT, and what each remedy brings back, on files.

Published MobileViT weights have channels of very different size between the
expanding convolutions and their SiLU; a small data set does not grow them. So
each network is also trained from starts with that imbalance: the scales of
the batch normalization before the SiLU are multiplied by log-normal factors
(`--sigmas`), the next kernels divided by them.

    python examples/quantization_study.py --data_dir sign_digits \
        --image_size 96 --sigmas 0 --sigmas 1.5 --seeds 0 --seeds 1 --seeds 2

Trained networks and measured rows are kept in `--output_dir`; a second call
goes on where the first was stopped. A network takes about six minutes on two
cores (10 epochs, 1,300 pictures of 96 pixels, 4 epochs of
quantization-aware training); results are in the README, section "Int8 that
keeps its accuracy".
"""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
from absl import app
from absl import flags
from absl import logging

import keras_mobilevit
from keras_mobilevit import data
from keras_mobilevit import files
from keras_mobilevit import reports
from keras_mobilevit import tflite
from keras_mobilevit import training
from keras_mobilevit.layers import InvertedResidual

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, "'digits' or a tensorflow-datasets name")
flags.DEFINE_string("data_dir", None, "folder of class folders")
flags.DEFINE_string("model", "MobileViT_XXS", "name of the builder")
flags.DEFINE_integer("image_size", 64, "side of the pictures in pixels")
flags.DEFINE_integer("epochs", 10, "passes over the training pictures")
flags.DEFINE_integer("quantized_epochs", 4, "of them, rounding; 0 for none")
flags.DEFINE_multi_float("sigmas", [0.0, 1.5], "spread of the start")
flags.DEFINE_multi_integer("seeds", [0], "seeds")
flags.DEFINE_string("output_dir", "quantization_study", "for all results")

# name: precision, equalized
FILES = {
    "float32": ("float32", True),
    "float16": ("float16", True),
    "dynamic_int8": ("dynamic_int8", True),
    "int8, naive": ("int8", False),
    "int8_mixed, naive": ("int8_mixed", False),
    "int8": ("int8", True),
    "int8_mixed": ("int8_mixed", True),
    "int8, trained": ("int8", True),
    "int16x8": ("int16x8", True),
}


@dataclasses.dataclass(frozen=True)
class Study(reports.Report):
    """One row for each file of each network."""

    rows: tuple[dict, ...]

    def __str__(self):
        return reports.table(
            (
                "sigma",
                "seed",
                "file",
                "top-1 %",
                "95 % interval",
                "agreement %",
                "SQNR dB",
                "MB",
                "latency ratio",
            ),
            [
                (
                    row["sigma"],
                    row["seed"],
                    row["file"],
                    f"{100 * row['top1']:.2f}",
                    "{:.2f} to {:.2f}".format(
                        *(100 * bound for bound in row["interval"])
                    ),
                    f"{100 * row['agreement']:.1f}",
                    f"{row['sqnr_db']:.1f}",
                    f"{row['size'] / 1e6:.2f}",
                    f"{row['latency_ratio']:.2f}",
                )
                for row in self.rows
            ],
        )

    def plot(self, path, overwrite=False):
        """Draws top-1 of each file, a line for each network, as a PNG."""
        from matplotlib.figure import Figure

        figure = Figure((9, 4), layout="constrained")
        axes = figure.subplots()
        for sigma, seed in sorted({(r["sigma"], r["seed"]) for r in self.rows}):
            rows = [
                r for r in self.rows if (r["sigma"], r["seed"]) == (sigma, seed)
            ]
            axes.plot(
                [r["file"] for r in rows],
                [100 * r["top1"] for r in rows],
                "o",
                label=f"sigma {sigma}, seed {seed}",
            )
        axes.set(ylabel="top-1 of the file, %", ylim=(0, 101))
        axes.tick_params(axis="x", rotation=30)
        axes.grid(alpha=0.3)
        axes.legend()
        with files.atomic_path(path, overwrite) as temporary:
            figure.savefig(temporary, dpi=120)


def imbalance(model, sigma, seed):
    """Spreads the channels before the SiLUs; the next kernels undo it."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, InvertedResidual):
            gamma, kernel = layer.expand.norm.gamma, layer.depthwise.kernel
            factors = np.exp(generator.normal(0, sigma, gamma.shape))
            gamma.assign(gamma.numpy() * factors)
            kernel.assign(kernel.numpy() / factors[:, np.newaxis])


def study(folder, sigma, seed):
    """Trains one network, or finds it trained, and measures its files."""
    keras.utils.set_random_seed(seed)
    dataset = data.load(
        FLAGS.dataset, FLAGS.data_dir, image_size=FLAGS.image_size, seed=seed
    )
    if not (folder / "report.json").exists():
        model = getattr(keras_mobilevit, FLAGS.model)(
            weights=None,
            input_shape=(FLAGS.image_size, FLAGS.image_size, 3),
            classes=len(dataset.class_names),
        )
        imbalance(model, sigma, seed)
        recipe = training.Recipe(epochs=FLAGS.epochs)
        training.train(
            model, dataset, recipe, folder, overwrite=True, verbose=2
        )
    model = tflite.load_model(folder / "best.keras")
    wanted = dict(FILES)
    trained = folder / "quantized" / "best.keras"
    if not FLAGS.quantized_epochs:
        del wanted["int8, trained"]
    elif not (folder / "quantized" / "quantization.json").exists():
        recipe = dataclasses.replace(
            training.quantized.RECIPE, epochs=FLAGS.quantized_epochs
        )
        training.train_quantized(
            model,
            dataset,
            recipe,
            folder / "quantized",
            overwrite=True,
            verbose=2,
        )

    pictures = np.concatenate([batch.numpy() for batch, _ in dataset.val])
    rows = []
    for name, (precision, equalized) in wanted.items():
        for dtype in ("float32", None):  # the last one is measured and kept
            path = folder / f"{name.replace(', ', '_')}.tflite"
            conversion = tflite.convert(
                trained if name.endswith("trained") else model,
                path,
                precision=precision,
                calibration_data=dataset.calibration,
                equalize=equalized,
                input_dtype=dtype,
                overwrite=True,
            )
            if dtype:
                compared = tflite.compare(path, model, pictures)
        measured = tflite.evaluate(path, dataset.val, progress=False)
        rows.append(
            {
                "sigma": sigma,
                "seed": seed,
                "file": name,
                "top1": measured.top1,
                "interval": measured.interval,
                "agreement": compared.agreement,
                "sqnr_db": compared.sqnr_db,
                "size": conversion.size,
                "path": conversion.path,
            }
        )
    timing = tflite.benchmark([row["path"] for row in rows], threads=(1,))
    for row, time in zip(rows, timing.timings):
        row["latency_ratio"] = time.ratio
    return rows


def main(argv):
    """Studies every network."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    output = Path(FLAGS.output_dir)
    rows = []
    for sigma in FLAGS.sigmas:
        for seed in FLAGS.seeds:
            folder = output / f"sigma{sigma}_seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            kept = folder / "rows.json"
            if not kept.exists():
                found = Study(tuple(study(folder, sigma, seed)))
                with files.atomic_path(kept) as temporary:
                    temporary.write_text(found.to_json())
            rows += json.loads(kept.read_text())["rows"]
            print(Study(tuple(rows)))
    result = Study(tuple(rows))
    with files.atomic_path(output / "study.json", True) as temporary:
        temporary.write_text(result.to_json())
    result.plot(output / "study.png", True)


if __name__ == "__main__":
    app.run(main)
