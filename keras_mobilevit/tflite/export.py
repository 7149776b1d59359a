"""A Keras model as TensorFlow's converter takes it."""

from pathlib import Path

import keras

from keras_mobilevit.tflite import flatbuffer


def export(model: keras.Model, folder: Path, shape: tuple[int, ...]) -> None:
    """Saves a model for inference on one picture of fixed size.

    Args:
        model: with one input; with one output, several, or named ones.
        folder: where to write.
        shape: of the input, batch 1.

    Raises:
        ValueError: Keras runs on another backend than TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "`convert` needs Keras on TensorFlow. Save the model, and convert "
            "the `.keras` file in a process with KERAS_BACKEND=tensorflow. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    import tensorflow as tf

    # A sequential model does not name its output.
    names = getattr(model, "output_names", None) or [model.layers[-1].name]

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, "image")])
    def infer(image):
        outputs = model(image, training=False)
        if not isinstance(outputs, dict):
            outputs = dict(zip(names, keras.tree.flatten(outputs)))
        return {n: tf.cast(output, tf.float32) for n, output in outputs.items()}

    # A plain module traces the model once; Keras' own archive does so for
    # every layer, which takes several times as long.
    module = tf.Module()
    module.tracked = [variable.value for variable in model.variables]
    tf.saved_model.save(
        module,
        str(folder),
        signatures={flatbuffer.SIGNATURE: infer.get_concrete_function()},
    )
