r"""Lets a TFLite file learn new classes by itself, as it would on a phone.

The backbone is frozen; the head, one dense layer, starts at zero and is
trained by the file's own signature `train`. TensorFlow is needed to write the
file, only LiteRT to run and to train it. With no arguments: a MobileViT-XXS
that has seen the handwritten digits 0 to 4 of scikit-learn; on the device it
learns all ten.

    python examples/train_on_device.py
    python examples/train_on_device.py --model best.keras --data_dir pictures

It takes two minutes on two cores, most of them for the backbone, and rises
from 10 % to 77 %: half of the digits are new to a backbone that stays as it
is. How far a head gets depends on the backbone; measured figures are in the
README, section "Training on the device".
"""

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

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, ".keras file; its head is replaced")
flags.DEFINE_string("data_dir", None, "folder of class folders")
flags.DEFINE_integer("epochs", 10, "passes over the pictures on the device")
flags.DEFINE_float("learning_rate", 0.1, "of gradient descent on the device")
flags.DEFINE_string("output_dir", "train_on_device", "folder for the results")
flags.DEFINE_bool("overwrite", False, "replace earlier results")

BATCH_SIZE = 16


def train_backbone(dataset):
    """Returns a model that has seen the first five classes only."""
    known = dataset.train.unbatch().filter(lambda _, label: label < 5)
    model = keras_mobilevit.MobileViT_XXS(
        weights=None,
        input_shape=(dataset.image_size, dataset.image_size, 3),
        classes=5,
    )
    model.compile(
        keras.optimizers.AdamW(2e-3),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(known.batch(32), epochs=6, verbose=2)
    return model


def accuracy(infer, dataset):
    """The part of the validation pictures that the file gets right."""
    right = [
        infer(image=picture[np.newaxis])["scores"].argmax() == label
        for pictures, labels in dataset.val.as_numpy_iterator()
        for picture, label in zip(pictures.astype("float32"), labels)
    ]
    return np.mean(right)


def main(argv):
    """Writes the file, trains it, stores and restores what it learned."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)  # TensorFlow's exporter is chatty
    keras.utils.set_random_seed(0)
    model = FLAGS.model and tflite.load_model(FLAGS.model)
    dataset = data.load(
        data_dir=FLAGS.data_dir,
        image_size=model.input_shape[1] if model else 64,
        batch_size=BATCH_SIZE,
        augment=False,
    )
    model = model or train_backbone(dataset)
    backbone = keras.Model(model.input, model.get_layer("predictions").input)
    output = Path(FLAGS.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    file = tflite.convert_trainable(
        backbone,
        output / "trainable.tflite",
        labels=dataset.class_names,
        batch_size=BATCH_SIZE,
        overwrite=FLAGS.overwrite,
    )
    print(file)

    # From here on a device needs LiteRT alone.
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(file.path)
    train = interpreter.get_signature_runner("train")
    infer = interpreter.get_signature_runner("infer")
    rows = [(0, None, f"{100 * accuracy(infer, dataset):.1f}")]
    for epoch in range(1, FLAGS.epochs + 1):
        losses = [
            train(
                image=pictures.astype("float32"),
                label=labels,
                learning_rate=np.float32(FLAGS.learning_rate),
            )["loss"]
            for pictures, labels in dataset.train.as_numpy_iterator()
        ]
        top1 = 100 * accuracy(infer, dataset)
        rows.append((epoch, f"{np.mean(losses):.3f}", f"{top1:.1f}"))
    print(reports.table(("epoch", "loss", "top-1 %"), rows))

    learned = interpreter.get_signature_runner("save")()
    with files.atomic_path(output / "head.npz", FLAGS.overwrite) as temporary:
        np.savez(temporary, **learned)
    other = Interpreter(file.path)
    restore = other.get_signature_runner("restore")
    restore(**np.load(output / "head.npz"))
    restored = accuracy(other.get_signature_runner("infer"), dataset)
    print(f"Restored from {output / 'head.npz'}: {100 * restored:.1f} %")


if __name__ == "__main__":
    app.run(main)
