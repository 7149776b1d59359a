"""From a trained float model to the better of two int8 files."""

import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras

from keras_mobilevit import files
from keras_mobilevit import quantization
from keras_mobilevit import tflite
from keras_mobilevit.data.dataset import Dataset
from keras_mobilevit.quantization.rounding import signal_to_noise
from keras_mobilevit.quantization.sensitivity import PRECISIONS
from keras_mobilevit.reports import Report
from keras_mobilevit.reports import table
from keras_mobilevit.training import fit
from keras_mobilevit.training.distill import distill as label_by
from keras_mobilevit.training.recipe import Recipe
from keras_mobilevit.training.report import TrainingReport

FILE = "model.tflite"
RESULT = "quantization.json"
#: Short and at a 200th of the usual rate: the weights are trained. Adam moves
#: each by about the rate at every step, so more of it adds more noise to the
#: network than the rounding does.
RECIPE = Recipe(epochs=4, learning_rate=1e-5, weight_decay=0.0)
#: On how many pictures to measure how close an epoch is to the float model:
#: on 256 two epochs of 35.4 dB were of 35.6 and 34.9 dB on 512.
PICTURES = 1024
CALIBRATED = "calibrated"
TRAINED = "trained"


@dataclasses.dataclass(frozen=True)
class FileAccuracy:
    """One file, measured.

    Args:
        name: what was done: `"float32"`, `"calibrated"` or `"trained"`.
        top1: accuracy on the validation pictures, 0..1.
        interval: its 95 % interval.
        size: bytes.
        kept: whether `path` of the report holds this file.
    """

    name: str
    top1: float
    interval: tuple[float, float]
    size: int
    kept: bool


@dataclasses.dataclass(frozen=True)
class QuantizationReport(Report):
    """What quantization cost, and what training won back.

    Args:
        files: the float32 file, the int8 file that was only calibrated, and
            the one of quantization-aware training.
        path: the int8 file with the higher accuracy; the calibrated one if
            both are equal.
        precision: its precision.
        model: the trained quantization-aware model, a `.keras` file.
        n: number of validation pictures.
        training: the report of the training run.
    """

    files: tuple[FileAccuracy, ...]
    path: str
    precision: str
    model: str
    n: int
    training: TrainingReport

    def __str__(self):
        return table(
            ("file", "top-1 %", "95 % interval", "MB", "kept"),
            [
                (
                    file.name,
                    f"{100 * file.top1:.2f}",
                    "{:.2f} to {:.2f}".format(
                        *(100 * bound for bound in file.interval)
                    ),
                    f"{file.size / 1e6:.2f}",
                    self.path if file.kept else "",
                )
                for file in self.files
            ],
        )


def train_rounding(
    model: keras.Model,
    dataset: Dataset,
    recipe: Recipe = RECIPE,
    output_dir: str | os.PathLike = "quantized",
    *,
    distill: bool = True,
    freeze_batch_norm: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    verbose: int | str = "auto",
) -> TrainingReport:
    """Trains a copy of a float model that rounds as its int8 file will.

    The copy starts as close to the float model as a calibrated file is, and
    learns to give its outputs. The best of the start and of all epochs is that
    which comes closest to them on the calibration pictures: what the rounding
    of one epoch does to single validation pictures is chance.

    Args:
        model: a trained float classifier.
        dataset: the pictures.
        recipe: how to train.
        output_dir: folder for what `train` leaves; `best.keras` is the
            quantization-aware model. The `score` of its history is the signal
            to noise of the outputs, in dB.
        distill: whether it learns the outputs of `model`, see `distill`. If
            not, it learns the labels of the pictures, and the best is the most
            accurate on the validation pictures.
        freeze_batch_norm: see `quantization.quantize_model`.
        resume: whether to go on with the run in `output_dir`.
        overwrite: whether an earlier run in `output_dir` may be replaced.
        verbose: as of `train`.

    Returns:
        The report of the run.

    Raises:
        ValueError: as of `quantize_model` and `train`.
        FileExistsError: `output_dir` holds a run, and neither `resume` nor
            `overwrite` is set.
    """
    folder = Path(output_dir)
    fit.check_folder(folder, resume, overwrite)
    quantized = quantization.quantize_model(
        model, dataset.calibration, freeze_batch_norm=freeze_batch_norm
    )
    return fit.train(
        quantized,
        label_by(model, dataset) if distill else dataset,
        recipe,
        folder,
        resume=resume,
        overwrite=overwrite,
        keep_start=True,
        score=_closeness(model, dataset) if distill else None,
        verbose=verbose,
    )


def _closeness(
    model: keras.Model, dataset: Dataset
) -> Callable[[keras.Model], float]:
    """Returns what measures how close outputs are to those of a model, in dB.

    On training pictures, not on those that accuracy is measured on; on many,
    since most of the noise is on the few that the model is not sure of.
    """
    pictures = dataset.calibration.take(-(-PICTURES // dataset.batch_size))
    wanted = model.predict(pictures, verbose=0)

    def score(other):
        return signal_to_noise(wanted, other.predict(pictures, verbose=0))

    return score


def train_quantized(
    model: keras.Model,
    dataset: Dataset,
    recipe: Recipe = RECIPE,
    output_dir: str | os.PathLike = "quantized",
    *,
    precision: str = "int8",
    distill: bool = True,
    freeze_batch_norm: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    verbose: int | str = "auto",
) -> QuantizationReport:
    """Calibrates, trains, converts and measures, in one run.

    See `train_rounding` for the training. The better of the calibrated and the
    trained file is kept.

    Args:
        model: a trained float classifier.
        dataset: the pictures.
        recipe: how to train.
        output_dir: folder for `model.tflite`, `quantization.json` and what
            `train` leaves; `best.keras` is the quantization-aware model.
        precision: `"int8"` or `"int8_mixed"`.
        distill: as of `train_rounding`.
        freeze_batch_norm: as of `train_rounding`.
        resume: whether to go on with the run in `output_dir`.
        overwrite: whether an earlier run in `output_dir` may be replaced.
        verbose: as of `train`.

    Returns:
        A `QuantizationReport`.

    Raises:
        ValueError: `precision` is another, or as of `quantize_model` and
            `train`.
        FileExistsError: `output_dir` holds a run, and neither `resume` nor
            `overwrite` is set.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"`precision` must be one of {PRECISIONS}. "
            f"Received: precision={precision!r}"
        )
    folder = Path(output_dir)
    fit.check_folder(folder, resume, overwrite, (FILE, RESULT))
    training = train_rounding(
        model,
        dataset,
        recipe,
        folder,
        distill=distill,
        freeze_batch_norm=freeze_batch_norm,
        resume=resume,
        overwrite=overwrite,
        verbose=verbose,
    )
    sources = {
        "float32": (model, "float32"),
        CALIBRATED: (model, precision),
        TRAINED: (training.best_model, precision),
    }
    measured, contents = {}, {}
    with tempfile.TemporaryDirectory() as place:
        for name, (source, wanted) in sources.items():
            path = Path(place) / f"{name}.tflite"
            data = None if wanted == "float32" else dataset.calibration
            tflite.convert(
                source,
                path,
                precision=wanted,
                calibration_data=data,
                labels=dataset.class_names,
            )
            measured[name] = tflite.evaluate(
                path, dataset.val, progress=verbose != 0
            )
            contents[name] = path.read_bytes()
    best = max((CALIBRATED, TRAINED), key=lambda name: measured[name].top1)
    with files.atomic_path(folder / FILE, overwrite=True) as temporary:
        temporary.write_bytes(contents[best])
    report = QuantizationReport(
        files=tuple(
            FileAccuracy(
                name,
                found.top1,
                found.interval,
                len(contents[name]),
                name == best,
            )
            for name, found in measured.items()
        ),
        path=str(folder / FILE),
        precision=precision,
        model=training.best_model,
        n=measured[best].n,
        training=training,
    )
    with files.atomic_path(folder / RESULT, overwrite=True) as temporary:
        temporary.write_text(report.to_json(), encoding="utf-8")
    return report
