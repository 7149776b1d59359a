"""The history of a run as CSV, and as events for TensorBoard."""

import csv
from pathlib import Path

import tensorflow as tf

from keras_mobilevit.files import atomic_path

History = dict[str, list[float]]


def write_csv(path: Path, history: History) -> None:
    """Writes the whole history, one row an epoch."""
    with atomic_path(path, overwrite=True) as temporary:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", *history])
            epochs = range(1, len(history["loss"]) + 1)
            writer.writerows(zip(epochs, *history.values()))


class Events:
    """Adds to the logs that TensorBoard shows.

    `tf.summary.scalar`, and so the callback of Keras, needs the package
    tensorboard, which TensorFlow no longer installs; this does not.

    Args:
        folder: where the logs of training and validation are.
    """

    def __init__(self, folder: Path):
        self._writers = {
            part: tf.summary.create_file_writer(str(folder / part))
            for part in ("train", "validation")
        }

    def write(self, history: History) -> None:
        """Adds the last epoch of the history."""
        metadata = tf.compat.v1.SummaryMetadata(
            plugin_data={"plugin_name": "scalars"},
            data_class="DATA_CLASS_SCALAR",
        )
        for name, values in history.items():
            is_val = name.startswith("val_")
            with self._writers[
                "validation" if is_val else "train"
            ].as_default():
                tf.summary.write(
                    f"epoch_{name.removeprefix('val_')}",
                    tf.constant(values[-1], tf.float32),
                    step=len(values) - 1,
                    metadata=metadata,
                )
        for writer in self._writers.values():
            writer.flush()
