r"""What int8 costs a MobileViT, and what each remedy brings back, on files.

Published MobileViT weights have channels of very different size between the
expanding convolutions and their SiLU; a small data set does not grow them. So
each network is also trained from starts with that imbalance: the scales of
the batch normalization before the SiLU are multiplied by log-normal factors
(`--sigmas`), the next kernels divided by them. And in each network trained
from the normal start one channel in sixteen is multiplied by `--outliers`, and
divided again behind: through the gates, between query and key, value and
projection. Its float outputs stay what they were.

    python examples/quantization_study.py --data_dir sign_digits \
        --image_size 96 --sigmas 0 --sigmas 1.5 --seeds 0 --seeds 1 --seeds 2

Measured are the weights of the last epochs: those that do best on the pictures
that accuracy is measured on would look better than they are, and lose that
with any change of the outputs. Of quantization-aware training it is the epoch
closest to the float model on pictures to calibrate on.

Trained networks and measured rows are kept in `--output_dir`; a second call
goes on where the first was stopped. A network takes about six minutes on two
cores (10 epochs, 1,300 pictures of 96 pixels, 4 epochs of quantization-aware
training). Results are in the README, section "Int8 that keeps its accuracy",
and in `examples/int8.md`.
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
from keras_mobilevit import quantization
from keras_mobilevit import reports
from keras_mobilevit import tflite
from keras_mobilevit import training
from keras_mobilevit.layers import InvertedResidual
from keras_mobilevit.layers import MultiHeadSelfAttention
from keras_mobilevit.quantization import graph
from keras_mobilevit.quantization import places
from keras_mobilevit.tflite.compare import paired_interval
from keras_mobilevit.tflite.evaluate import wilson_interval

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, "'digits' or a tensorflow-datasets name")
flags.DEFINE_string("data_dir", None, "folder of class folders")
flags.DEFINE_string("model", "MobileViT_XXS", "name of the builder")
flags.DEFINE_integer("image_size", 64, "side of the pictures in pixels")
flags.DEFINE_integer("epochs", 10, "passes over the training pictures")
flags.DEFINE_float("learning_rate", 2e-3, "highest, of these epochs")
flags.DEFINE_integer("quantized_epochs", 4, "of them, rounding; 0 for none")
flags.DEFINE_multi_float("sigmas", [0.0, 1.5], "spread of the start")
flags.DEFINE_multi_float("outliers", [], "factors of the outlying channels")
flags.DEFINE_multi_integer("seeds", [0], "seeds")
flags.DEFINE_string("output_dir", "quantization_study", "for all results")

# name: precision, whether it is equalised and refined
FILES = {
    "float32": ("float32", False),
    "float16": ("float16", False),
    "dynamic_int8, naive": ("dynamic_int8", False),
    "dynamic_int8": ("dynamic_int8", True),
    "int8, naive": ("int8", False),
    "int8_mixed, naive": ("int8_mixed", False),
    "int8": ("int8", True),
    "int8_mixed": ("int8_mixed", True),
    "int8, trained": ("int8", True),
    "int16x8": ("int16x8", True),
}


flags.DEFINE_multi_enum("files", [], list(FILES), "to make; none: all")


# What a trained network depends on, besides its start and its seed.
NETWORK = (
    *("dataset", "data_dir", "model", "image_size", "epochs", "learning_rate"),
)
# What is asked of a network with outliers.
WITH_OUTLIERS = (
    *("float32", "dynamic_int8, naive", "int8, naive", "int8_mixed, naive"),
    *("dynamic_int8", "int8", "int8_mixed"),
)


@dataclasses.dataclass(frozen=True)
class Study(reports.Report):
    """One row for each file of each network."""

    rows: tuple[dict, ...]

    def _groups(self):
        """Returns `{(start, file): rows of all seeds}`, in order."""
        groups = {}
        for row in self.rows:
            groups.setdefault((row["start"], row["file"]), []).append(row)
        return groups

    def __str__(self):
        header = (
            *("start", "seeds", "file", "top-1 %", "95 % interval"),
            *("won", "lost", "points", "interval, points", "worst"),
            *("agreement %", "SQNR dB", "least", "MB", "latency ratio"),
        )
        lines = []
        for (start, name), rows in self._groups().items():
            noise = [row["sqnr_db"] for row in rows]
            won, lost, n = (
                sum(row[key] for row in rows) for key in ("won", "lost", "n")
            )
            hits = round(sum(row["top1"] * row["n"] for row in rows))
            lines.append(
                (
                    start,
                    len(rows),
                    name,
                    f"{100 * hits / n:.2f}",
                    _interval(wilson_interval(hits, n), ".1f"),
                    won,
                    lost,
                    f"{100 * (won - lost) / n:+.2f}",
                    _interval(paired_interval(won, lost, n), "+.1f"),
                    f"{100 * min(row['change'] for row in rows):+.2f}",
                    f"{100 * _mean(rows, 'agreement'):.1f}",
                    f"{np.mean(noise):.1f}",
                    f"{min(noise):.1f}",
                    f"{_mean(rows, 'size') / 1e6:.2f}",
                    f"{_mean(rows, 'latency_ratio'):.2f}",
                )
            )
        return reports.table(header, lines)

    def plot(self, path, overwrite=False):
        """Draws the mean top-1 of each file, a line for each start."""
        from matplotlib.figure import Figure

        figure = Figure((9, 4), layout="constrained")
        axes = figure.subplots()
        names = [n for n in FILES if any(r["file"] == n for r in self.rows)]
        for start in dict.fromkeys(row["start"] for row in self.rows):
            groups = {
                names.index(name): 100 * _mean(rows, "top1")
                for (other, name), rows in self._groups().items()
                if other == start
            }
            axes.plot(
                *zip(*sorted(groups.items())),
                "o-",
                alpha=0.7,
                label=start,
            )
        axes.set(ylabel="top-1 of the file, %, mean", ylim=(0, 101))
        axes.set_xticks(range(len(names)), names, rotation=30)
        axes.grid(alpha=0.3)
        axes.legend()
        with files.atomic_path(path, overwrite) as temporary:
            figure.savefig(temporary, dpi=120)


def _mean(rows, name):
    return float(np.mean([row[name] for row in rows]))


def _interval(ends, form):
    """Returns two shares as points, in words."""
    return " to ".join(format(100 * end, form) for end in ends)


def imbalance(model, sigma, seed):
    """Spreads the channels before the SiLUs; the next kernels undo it."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, InvertedResidual):
            gamma, kernel = layer.expand.norm.gamma, layer.depthwise.kernel
            factors = np.exp(generator.normal(0, sigma, gamma.shape))
            gamma.assign(gamma.numpy() * factors)
            kernel.assign(kernel.numpy() / factors[:, np.newaxis])


def with_outliers(model, factor, seed):
    """Returns a copy in which one channel in sixteen is `factor` larger."""

    def flag(config):
        for node in graph.own_layers(config):
            if node["class_name"] == "InvertedResidual":
                node["config"]["equalized"] = True

    model = graph.copy_with(model, flag)
    generator = np.random.default_rng(seed)

    def scale(layer, back):
        chosen = generator.random(layer.filters) < 1 / 16
        factors = np.where(chosen, factor, 1.0)
        places.scale_outputs(layer, factors)
        back(1.0 / factors)

    for block in graph.find(model, InvertedResidual):
        gate = block.expand.act.gate_scale

        def undo(factors, block=block, gate=gate):
            gate.assign(gate.numpy() * factors)
            places.scale_inputs(block.depthwise, factors)

        scale(block.expand, undo)
    for layer in graph.find(model, MultiHeadSelfAttention):
        scale(layer.query, lambda f, to=layer.key: places.scale_outputs(to, f))
        scale(
            layer.value, lambda f, to=layer.project: places.scale_inputs(to, f)
        )
    return model


def trained(folder, sigma, seed, dataset):
    """Trains one network, or finds it trained; and again, rounding."""
    if not (folder / "last.keras").exists():
        model = getattr(keras_mobilevit, FLAGS.model)(
            weights=None,
            input_shape=(FLAGS.image_size, FLAGS.image_size, 3),
            classes=len(dataset.class_names),
        )
        imbalance(model, sigma, seed)
        recipe = training.Recipe(
            epochs=FLAGS.epochs, learning_rate=FLAGS.learning_rate
        )
        training.train(
            model, dataset, recipe, folder, overwrite=True, verbose=2
        )
    model = tflite.load_model(folder / "last.keras")
    rounding = folder / "quantized"
    if not FLAGS.quantized_epochs:
        return model, None
    report = rounding / "report.json"
    if (
        not report.exists()
        or json.loads(report.read_text())["epochs"] != FLAGS.quantized_epochs
    ):
        recipe = dataclasses.replace(
            training.quantized.RECIPE, epochs=FLAGS.quantized_epochs
        )
        training.train_rounding(
            model, dataset, recipe, rounding, overwrite=True, verbose=2
        )
    return model, tflite.load_model(rounding / "best.keras")


def measure(folder, start, seed, dataset, names, model, quantized=None):
    """Writes the files of one network and measures each: rows."""
    pictures, labels = (
        np.concatenate(part) for part in zip(*dataset.val.as_numpy_iterator())
    )
    expected = model.predict(pictures.astype("float32"), verbose=0)
    equal, _ = quantization.equalize(model, dataset.calibration)
    rows = []
    for name in names:
        precision, remedied = FILES[name]
        source = equal if remedied else model
        source = quantized if name.endswith("trained") else source
        path = folder / f"{name.replace(', ', '_')}.tflite"
        conversion = tflite.convert(
            source,
            path,
            precision=precision,
            calibration_data=dataset.calibration,
            equalize=False,  # once for all files, above
            refine=remedied,
            overwrite=True,
        )
        compared = tflite.compare(path, expected, pictures, labels=labels)
        rows.append(
            {
                "start": start,
                "seed": seed,
                "file": name,
                "top1": compared.top1,
                "n": compared.n,
                "agreement": compared.agreement,
                "sqnr_db": compared.sqnr_db,
                "won": compared.won,
                "lost": compared.lost,
                "change": compared.change,
                "size": conversion.size,
                "path": conversion.path,
            }
        )
    timing = tflite.benchmark([row["path"] for row in rows], threads=(1,))
    for row, time in zip(rows, timing.timings):
        row["latency_ratio"] = time.ratio
    return rows


def study(folder, sigma, seed):
    """Yields the rows of a network, and of its twins with outliers."""
    keras.utils.set_random_seed(seed)
    dataset = data.load(
        FLAGS.dataset, FLAGS.data_dir, image_size=FLAGS.image_size, seed=seed
    )
    model, quantized = trained(folder, sigma, seed, dataset)
    wanted = ("float32", *FLAGS.files) if FLAGS.files else FILES
    names = [
        name
        for name in FILES
        if name in wanted and (quantized or not name.endswith("trained"))
    ]
    yield from measure(
        folder, f"sigma {sigma}", seed, dataset, names, model, quantized
    )
    for factor in FLAGS.outliers if sigma == 0 else ():
        place = folder / f"outliers{factor:g}"
        place.mkdir(exist_ok=True)
        twin = with_outliers(model, factor, seed)
        start = f"outliers x{factor:g}"
        yield from measure(place, start, seed, dataset, WITH_OUTLIERS, twin)


def check_networks(path):
    """Raises unless the networks of a folder were trained as is asked now."""
    wanted = {name: getattr(FLAGS, name) for name in NETWORK}
    if path.exists() and (found := json.loads(path.read_text())) != wanted:
        raise app.UsageError(
            f"--output_dir={FLAGS.output_dir} holds networks of {found}: "
            f"pass another. Received: {wanted}"
        )
    path.write_text(json.dumps(wanted))


def rows_of(folder, sigma, seed):
    """Measures a network, or finds what was measured of it: rows."""
    asked = {
        "files": FLAGS.files,
        "quantized_epochs": FLAGS.quantized_epochs,
        "outliers": FLAGS.outliers if sigma == 0 else [],
    }
    kept = folder / "rows.json"
    if kept.exists():
        known = json.loads(kept.read_text())
        if known.get("asked") == asked:
            return known["rows"]
    rows = list(study(folder, sigma, seed))
    with files.atomic_path(kept, True) as temporary:
        temporary.write_text(json.dumps({"asked": asked, "rows": rows}))
    return rows


def main(argv):
    """Studies every network."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    output = Path(FLAGS.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    check_networks(output / "networks.json")
    rows = []
    for sigma in FLAGS.sigmas:
        for seed in FLAGS.seeds:
            folder = output / f"sigma{sigma}_seed{seed}"
            folder.mkdir(exist_ok=True)
            rows += rows_of(folder, sigma, seed)
            print(Study(tuple(rows)))
    result = Study(tuple(rows))
    with files.atomic_path(output / "study.json", True) as temporary:
        temporary.write_text(result.to_json())
    result.plot(output / "study.png", True)


if __name__ == "__main__":
    app.run(main)
