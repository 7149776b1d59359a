"""What a training run reached and left behind."""

import dataclasses
import os

from keras_mobilevit.files import atomic_path
from keras_mobilevit.reports import Report
from keras_mobilevit.reports import table


@dataclasses.dataclass(frozen=True)
class TrainingReport(Report):
    """What a run reached and left behind.

    Args:
        best_accuracy: that of the best model on the validation pictures,
            0..1: the highest, unless another score was asked for.
        best_epoch: the last that gave such a model, counted from 1; 0 is the
            model as it came.
        epochs: epochs trained.
        seconds: time spent, over all resumptions.
        train_size: number of training pictures.
        val_size: number of validation pictures.
        class_names: the name of each label.
        history: for each figure its value after each epoch. The losses
            include label smoothing.
        best_model: path of the best model, a `.keras` file, not compiled.
        last_model: path of the model after the last epoch, likewise. The
            validation pictures had no part in choosing it, so a figure
            measured on them is not too good by that choice.
        labels: path of the class names, one a line.
        log: path of the history as CSV.
        output_dir: the folder of all this.
    """

    best_accuracy: float
    best_epoch: int
    epochs: int
    seconds: float
    train_size: int
    val_size: int
    class_names: tuple[str, ...]
    history: dict[str, list[float]]
    best_model: str
    last_model: str
    labels: str
    log: str
    output_dir: str

    def __str__(self):
        return table(
            ("training", ""),
            [
                ("validation accuracy, best", f"{self.best_accuracy:.2%}"),
                ("in epoch", f"{self.best_epoch} of {self.epochs}"),
                ("pictures", f"{self.train_size} + {self.val_size}"),
                ("classes", len(self.class_names)),
                ("time", f"{self.seconds:.0f} s"),
                ("best model", self.best_model),
                ("last model", self.last_model),
            ],
        )

    def plot(self, path: str | os.PathLike, overwrite: bool = False) -> None:
        """Draws the loss and accuracy curves as a picture, such as PNG.

        Args:
            path: where to write.
            overwrite: whether an existing file may be replaced.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.5), layout="constrained")
        epochs = range(1, self.epochs + 1)
        for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy")):
            axes.plot(epochs, self.history[name], ".-", label="train")
            axes.plot(epochs, self.history[f"val_{name}"], ".-", label="val")
            axes.set(xlabel="epoch", ylabel=name)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            axes.legend()
        with atomic_path(path, overwrite) as temporary:
            figure.savefig(temporary, dpi=120)
