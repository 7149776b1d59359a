"""A TFLite file whose head learns on the device."""

import dataclasses
import os
import tempfile
from collections.abc import Sequence

import keras

from keras_mobilevit import files
from keras_mobilevit import reports
from keras_mobilevit.tflite import metadata
from keras_mobilevit.tflite.inspect import inspect
from keras_mobilevit.tflite.promises import ConversionError
from keras_mobilevit.tflite.sources import load_model
from keras_mobilevit.tflite.sources import with_static_input

SIGNATURES = ("train", "infer", "save", "restore")


@dataclasses.dataclass(frozen=True)
class Trainable(reports.Report):
    """What `convert_trainable` wrote.

    Attributes:
        path: the file.
        classes: how many classes the head tells apart.
        features: how many numbers the backbone gives for a picture.
        input_shape: height, width and channels of a picture.
        batch_size: pictures in a training step.
        size: bytes.
        ops: operations in the file, of all signatures.
        min_runtime: the oldest TFLite runtime that runs the file.
    """

    path: str
    classes: int
    features: int
    input_shape: tuple[int, int, int]
    batch_size: int
    size: int
    ops: int
    min_runtime: str

    def __str__(self) -> str:
        return reports.table(
            ("file", "head", "input", "batch", "MB", "ops", "runtime"),
            [
                (
                    self.path,
                    f"{self.features} -> {self.classes}",
                    "x".join(map(str, self.input_shape)),
                    self.batch_size,
                    f"{self.size / 1e6:.2f}",
                    self.ops,
                    self.min_runtime,
                )
            ],
        )


def convert_trainable(
    backbone: keras.Model | str | os.PathLike,
    path: str | os.PathLike,
    *,
    classes: int | None = None,
    labels: Sequence[str] | None = None,
    batch_size: int = 16,
    input_shape: Sequence[int] | None = None,
    overwrite: bool = False,
) -> Trainable:
    """Writes a frozen backbone and a new head that learns on the device.

    The head is one dense layer with softmax. Its weights start at zero, all
    classes being equally likely, and are variables of the file; those of the
    backbone are constants. The file has four signatures, all in float32 but
    for the labels:

    - `train(image (batch_size, height, width, 3), label (batch_size,) int32,
      learning_rate ())` takes a step of gradient descent and gives `loss`,
      the cross-entropy before it. A picture of the label -1 is left out: fill
      up a last batch with such. 0.1 is a good learning rate.
    - `infer(image (1, height, width, 3))` gives `scores (1, classes)`.
    - `save()` gives `kernel (features, classes)` and `bias (classes,)`, to be
      stored in any way.
    - `restore(kernel, bias)` puts them back, and gives them.

    The state belongs to an interpreter: another one starts at zero. Only
    builtin operations are used, none of TensorFlow's own (Flex).

    Args:
        backbone: a Keras model with one picture as input and features
            `(batch, features)` as output, such as a builder's with
            `include_top=False, pooling="avg"`; or the path of a `.keras`
            file with one.
        path: the `.tflite` file to write.
        classes: how many classes there are; needed without `labels`.
        labels: their names, stored in the file.
        batch_size: pictures in a training step.
        input_shape: `(height, width)` for a backbone that takes any size.
        overwrite: whether `path` may be replaced.

    Returns:
        What was written.

    Raises:
        ValueError: an argument is wrong; the message names it.
        FileExistsError: `path` exists and `overwrite` is `False`.
        ConversionError: the backbone has an operation that only TensorFlow
            has.
    """
    files.check_writable(path, overwrite)
    if classes is None and labels is None:
        raise ValueError(
            "Pass `classes`, their number, or `labels`, their names. "
            "Received: neither"
        )
    classes = len(labels) if classes is None else classes
    _check_count("classes", classes, 2)
    _check_count("batch_size", batch_size, 1)
    if labels is not None:
        labels = metadata.check_labels(labels, classes)
    backbone = with_static_input(load_model(backbone), input_shape)
    _check_features(backbone)
    data = _write(backbone, classes, batch_size)
    if labels is not None:
        data = metadata.append_labels(data, labels)
    with files.atomic_path(path, overwrite) as temporary:
        temporary.write_bytes(data)
        inspection = inspect(temporary)
        custom = sorted(op.name for op in inspection.ops if op.is_custom)
        if custom:
            raise ConversionError(
                "Only TensorFlow has some operations of the backbone: "
                f"{', '.join(custom)}"
            )
    return Trainable(
        path=str(path),
        classes=classes,
        features=backbone.outputs[0].shape[-1],
        input_shape=tuple(backbone.inputs[0].shape[1:]),
        batch_size=batch_size,
        size=len(data),
        ops=len(inspection.ops),
        min_runtime=inspection.min_runtime,
    )


def _check_count(name, value, least):
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(
            f"`{name}` must be an integer of at least {least}. "
            f"Received: {name}={value!r}"
        )


def _check_features(backbone):
    shapes = [tuple(output.shape) for output in backbone.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] is None:
        raise ValueError(
            "`backbone` must give features of the shape (batch, features), as "
            "a builder's with `include_top=False, pooling='avg'` does. "
            f"Received: outputs of the shapes {shapes}"
        )
    last = backbone.layers[-1]
    if getattr(last, "activation", None) is keras.activations.softmax:
        raise ValueError(
            "`backbone` must give features, not the scores of its own classes; "
            "without its head it is `keras.Model(model.input, "
            f"model.get_layer({last.name!r}).input)`. "
            f"Received: a model that ends in a softmax, {last.name!r}"
        )


def _write(backbone, classes, batch_size):
    """Returns the file's bytes."""
    import tensorflow as tf

    picture = tuple(backbone.inputs[0].shape[1:])
    features = backbone.outputs[0].shape[-1]

    def spec(*shape, dtype=tf.float32, name=None):
        return tf.TensorSpec(shape, dtype, name)

    # The gradient is written out: what automatic differentiation gives would
    # not stay within TFLite's own operations, and it is one line.
    class Head(tf.Module):
        def __init__(self):
            super().__init__()
            self.frozen = [variable.value for variable in backbone.variables]
            self.kernel = tf.Variable(tf.zeros((features, classes)))
            self.bias = tf.Variable(tf.zeros((classes,)))

        def logits(self, x):
            return tf.matmul(x, self.kernel) + self.bias

        @tf.function(
            input_signature=[
                spec(batch_size, *picture, name="image"),
                spec(batch_size, dtype=tf.int32, name="label"),
                spec(name="learning_rate"),
            ]
        )
        def train(self, image, label, learning_rate):
            x = backbone(image, training=False)
            logits = self.logits(x)
            target = tf.one_hot(label, classes)  # zeros for a label of -1
            counts = tf.reduce_sum(target, axis=1, keepdims=True)
            total = tf.maximum(tf.reduce_sum(counts), 1.0)
            error = (tf.nn.softmax(logits) * counts - target) / total
            loss = -tf.reduce_sum(target * tf.nn.log_softmax(logits)) / total
            step = tf.matmul(tf.transpose(x), error)
            self.kernel.assign_sub(learning_rate * step)
            self.bias.assign_sub(learning_rate * tf.reduce_sum(error, axis=0))
            return {"loss": loss}

        @tf.function(input_signature=[spec(1, *picture, name="image")])
        def infer(self, image):
            x = backbone(image, training=False)
            return {"scores": tf.nn.softmax(self.logits(x))}

        @tf.function(input_signature=[])
        def save(self):
            return {
                "kernel": self.kernel.read_value(),
                "bias": self.bias.read_value(),
            }

        @tf.function(
            input_signature=[
                spec(features, classes, name="kernel"),
                spec(classes, name="bias"),
            ]
        )
        def restore(self, kernel, bias):
            self.kernel.assign(kernel)
            self.bias.assign(bias)
            return self.save()

    head = Head()
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(
            head,
            folder,
            signatures={
                name: getattr(head, name).get_concrete_function()
                for name in SIGNATURES
            },
        )
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=list(SIGNATURES)
        )
        converter.experimental_enable_resource_variables = True
        return converter.convert()
