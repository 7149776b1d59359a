"""A training run in a folder, which goes on exactly after a kill."""

import contextlib
import dataclasses
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mobilevit.data.dataset import Dataset
from keras_mobilevit.files import atomic_path
from keras_mobilevit.training import checkpoint
from keras_mobilevit.training import logs as log_files
from keras_mobilevit.training.recipe import Recipe
from keras_mobilevit.training.report import TrainingReport

BEST = "best.keras"
LAST = "last.keras"
LABELS = "labels.txt"
LOG = "log.csv"
CURVES = "curves.png"
REPORT = "report.json"
CHECKPOINT = "checkpoint.npz"
FILES = (CHECKPOINT, BEST, LAST, LABELS, LOG, CURVES, REPORT)
TENSORBOARD = "tensorboard"
HEAD = "predictions"

# Where a map is one patch, as the last of 64x64 pixels, there is one token to
# attend to, and query and key have no part in the result.
_SINGLE_TOKEN = (
    r"Gradients do not exist for variables "
    r"\[('[^']*/attention/(query|key)/(kernel|bias)'(, )?)+\]"
)


def train(
    model: keras.Model,
    dataset: Dataset,
    recipe: Recipe = Recipe(),
    output_dir: str | os.PathLike = "run",
    *,
    resume: bool = False,
    overwrite: bool = False,
    keep_start: bool = False,
    score: Callable[[keras.Model], float] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> TrainingReport:
    """Trains a classifier and keeps the best model.

    After each epoch the folder holds a checkpoint of the whole state. A run
    that was killed, at any moment, goes on with `resume=True` and ends with
    the weights that it would have had, bit for bit on a CPU with the same
    number of threads.

    Args:
        model: a classifier that takes RGB pictures in 0..255 and gives
            probabilities or logits. It is compiled here, and holds the
            weights of the last epoch in the end.
        dataset: the pictures.
        recipe: how to train.
        output_dir: folder for `best.keras`, `last.keras`, `labels.txt`,
            `log.csv`, `curves.png`, `report.json`, `checkpoint.npz` and
            `tensorboard/`. It is created if need be.
        resume: whether to go on from the checkpoint in `output_dir`. All else
            must be as at the start. Without a checkpoint there (killed in the
            first epoch), the run begins anew.
        overwrite: whether an earlier run in `output_dir` may be replaced.
        keep_start: whether the model as it comes may be the best, too.
        score: gives the figure of which the best model has most. It is called
            after each epoch, and the history holds it as `score`. `None` for
            the accuracy on the validation pictures.
        callbacks: more callbacks. Their own state is not part of the
            checkpoint.
        verbose: as of `model.fit`: 0 silent, 1 progress bar, 2 a line for
            each epoch.

    Returns:
        A `TrainingReport`.

    Raises:
        ValueError: the model does not fit the pictures, the run to resume was
            started differently, or the loss became NaN or infinite.
        FileExistsError: `output_dir` holds a run, and neither `resume` nor
            `overwrite` is set.
    """
    from_logits = gives_logits(model, dataset)
    if recipe.freeze_epochs and model.layers[-1].name != HEAD:
        raise ValueError(
            f"`freeze_epochs` needs a model whose last layer is {HEAD!r}. "
            f"Received: {model.name!r}, which ends in "
            f"{model.layers[-1].name!r}"
        )
    folder = Path(output_dir)
    _prepare_folder(folder, resume, overwrite)
    state = _first_state(model, recipe, dataset)
    if (folder / CHECKPOINT).exists():
        saved = checkpoint.load_state(folder / CHECKPOINT)
        _check_same(saved["run"], state["run"])
        state = saved
    with atomic_path(folder / LABELS, overwrite=True) as temporary:
        lines = "".join(f"{name}\n" for name in dataset.class_names)
        temporary.write_text(lines, encoding="utf-8")

    keeper = _Keeper(folder, state, _copy(model), recipe, score)
    steps = dataset.steps_per_epoch
    middle = recipe.freeze_epochs
    for start, end in ((0, middle), (middle, recipe.epochs)):
        epoch = len(state["history"].get("loss", ()))
        finished = epoch == end == recipe.epochs  # only to be restored
        if not (start <= epoch < end or finished):
            continue
        with _frozen(model) if end == middle else contextlib.nullcontext():
            recipe.compile(model, (end - start) * steps, from_logits)
            model.optimizer.build(model.trainable_variables)
            if (folder / CHECKPOINT).exists():
                checkpoint.restore(
                    folder / CHECKPOINT, model, optimizer=epoch > start
                )
            if keep_start and not state["history"]:
                found = model.evaluate(dataset.val, verbose=0, return_dict=True)
                keeper.judge(model, found["accuracy"], 0)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", _SINGLE_TOKEN)
                model.fit(
                    dataset.train_from(epoch),
                    validation_data=dataset.val,
                    initial_epoch=epoch,
                    epochs=end,
                    steps_per_epoch=steps,
                    callbacks=[*callbacks, keeper],
                    verbose=verbose,
                    shuffle=False,  # the pipeline has done it
                )

    report = _report(folder, state, dataset)
    report.plot(folder / CURVES, overwrite=True)
    with atomic_path(folder / REPORT, overwrite=True) as temporary:
        temporary.write_text(report.to_json(), encoding="utf-8")
    return report


class _Keeper(keras.callbacks.Callback):
    """Writes log, best model and checkpoint after each epoch."""

    def __init__(self, folder, state, copy, recipe, score):
        super().__init__()
        self.score = score
        self.folder = folder
        self.state = state
        self.copy = copy
        self.recipe = recipe
        self.events = log_files.Events(folder / TENSORBOARD)
        self.since = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        """Stops a run that can only fail."""
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise ValueError(
                f"The training loss became {loss} in batch {batch + 1}. A "
                "lower `learning_rate` or a longer `warmup_fraction` helps. "
                f"Received: learning_rate={self.recipe.learning_rate}"
            )

    def on_epoch_end(self, epoch, logs=None):
        """Keeps everything; the checkpoint comes last."""
        state, history = self.state, self.state["history"]
        now = time.monotonic()
        state["seconds"] += now - self.since
        self.since = now
        rate = float(self.model.optimizer.learning_rate)
        figures = {**logs, "learning_rate": rate}
        score = self.judge(self.model, logs["val_accuracy"], epoch + 1)
        if self.score is not None:
            figures["score"] = score
        for name, value in figures.items():
            history.setdefault(name, []).append(float(value))
        if epoch + 1 == self.recipe.epochs:
            self._save(self.model, LAST)
        log_files.write_csv(self.folder / LOG, history)
        self.events.write(history)
        checkpoint.save(self.folder / CHECKPOINT, self.model, state)

    def judge(self, model, accuracy, epoch):
        """Writes the model if none was better so far; returns its score."""
        score = accuracy if self.score is None else self.score(model)
        if score >= self.state["best_score"]:
            self.state.update(
                best_score=score, best_accuracy=accuracy, best_epoch=epoch
            )
            self._save(model, BEST)
        return score

    def _save(self, model, name):
        self.copy.set_weights(model.get_weights())
        with atomic_path(self.folder / name, overwrite=True) as temporary:
            self.copy.save(temporary)


@contextlib.contextmanager
def _frozen(model):
    """Only the last layer learns, as a whole or not at all."""
    flags = [(layer, layer.trainable) for layer in model.layers[:-1]]
    for layer, _ in flags:
        layer.trainable = False
    try:
        yield
    finally:
        for layer, flag in flags:
            layer.trainable = flag


def _copy(model):
    """The same architecture, not compiled, so that its files are small."""
    return model.__class__.from_config(model.get_config())


def gives_logits(model: keras.Model, dataset: Dataset) -> bool:
    """Checks that a model fits the pictures; whether it gives logits.

    Raises:
        ValueError: it does not, or it gives neither logits nor probabilities.
    """
    size, classes = dataset.image_size, len(dataset.class_names)
    right, received = (None, size, size, 3), tuple(model.input_shape)
    if len(received) != 4 or any(
        None not in (a, b) and a != b for a, b in zip(received, right)
    ):
        raise ValueError(
            "`model` and `dataset` must agree in the size of the pictures. "
            f"Received: model.input_shape={received}, image_size={size}"
        )
    if tuple(model.output_shape) != (None, classes):
        raise ValueError(
            "`model` must give a figure for each class of `dataset`. "
            f"Received: model.output_shape={model.output_shape}, {classes} "
            "classes"
        )
    last = model.layers[-1]
    activation = getattr(last, "activation", None)
    if activation is keras.activations.softmax:
        return False
    output = keras.ops.convert_to_numpy(
        model(np.zeros((1, size, size, 3), "float32"), training=False)
    )[0]
    if (output >= 0).all() and abs(output.sum() - 1) < 0.05:
        return False
    if activation in (None, keras.activations.linear):
        return True
    raise ValueError(
        "`model` must end in softmax, or in a linear layer (logits). "
        f"Received: {model.name!r}, which ends in {last.name!r} with "
        f"activation={getattr(activation, '__name__', activation)}"
    )


def check_folder(
    folder: Path, resume: bool, overwrite: bool, more: Sequence[str] = ()
) -> list[str]:
    """Makes the folder of a run; returns the files of an earlier one there.

    Args and errors are those of `train`; `more` are names of files besides
    those of `train`.
    """
    if resume and overwrite:
        raise ValueError(
            "`resume` and `overwrite` exclude each other. "
            "Received: resume=True, overwrite=True"
        )
    found = [name for name in (*FILES, *more) if (folder / name).exists()]
    if found and not (resume or overwrite):
        raise FileExistsError(
            f"{folder} holds an earlier run ({', '.join(found)}). Pass "
            "`resume=True` (`--resume` on the command line) to go on with it, "
            "`overwrite=True` (`--overwrite`) to replace it, or choose "
            "another `output_dir`."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(
            "`output_dir` must be a folder that can be written. "
            f"Received: {folder}"
        )
    return found


def _prepare_folder(folder, resume, overwrite):
    """Makes the folder of a run; removes what an earlier one left."""
    found = check_folder(folder, resume, overwrite)
    stale = [file for n in FILES for file in folder.glob(f".tmp-*-{n}")]
    if overwrite:
        stale += [folder / name for name in found]
        shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)
    for file in stale:
        file.unlink()


def _first_state(
    model: keras.Model, recipe: Recipe, dataset: Dataset
) -> dict[str, Any]:
    data = {
        name: getattr(dataset, name)
        for name in ("train_size", "val_size", "image_size", "batch_size")
    }
    return {
        "run": {
            **dataclasses.asdict(recipe),
            **data,
            "seed": dataset.seed,
            "class_names": list(dataset.class_names),
            # Classes, or the probabilities of a teacher.
            "labels": dataset.train.element_spec[1].dtype.name,
            "trainable_weights": len(model.trainable_variables),
        },
        "history": {},
        "best_score": -math.inf,
        "best_accuracy": 0.0,
        "best_epoch": 0,
        "seconds": 0.0,
    }


def _check_same(saved, wanted):
    different = [
        f"{name}={wanted.get(name)!r} (it was {saved.get(name)!r})"
        for name in wanted
        if saved.get(name) != wanted[name]
    ]
    if different:
        raise ValueError(
            "A run must be resumed with the recipe and the pictures that it "
            f"was started with. Received: {', '.join(different)}"
        )


def _report(folder, state, dataset):
    return TrainingReport(
        best_accuracy=state["best_accuracy"],
        best_epoch=state["best_epoch"],
        epochs=len(state["history"]["loss"]),
        seconds=state["seconds"],
        train_size=dataset.train_size,
        val_size=dataset.val_size,
        class_names=dataset.class_names,
        history=state["history"],
        best_model=str(folder / BEST),
        last_model=str(folder / LAST),
        labels=str(folder / LABELS),
        log=str(folder / LOG),
        output_dir=str(folder),
    )
