"""Labels from a trained model."""

import dataclasses

import keras
import tensorflow as tf

from keras_mobilevit.data.dataset import Dataset
from keras_mobilevit.training.fit import gives_logits


def distill(teacher: keras.Model, dataset: Dataset) -> Dataset:
    """Returns the same pictures, labelled with what a model makes of them.

    A model that learns them is drawn to the teacher's outputs instead of
    learning a small training set by heart once more (Hinton et al.,
    arXiv 1503.02531, at temperature 1).

    Args:
        teacher: a trained classifier for these pictures, Keras on TensorFlow.
        dataset: the pictures.

    Returns:
        A `Dataset` whose training labels are float32 probabilities `(batch,
        classes)`. Those of its validation pictures stay what they are;
        `SmoothedCrossentropy` takes both.

    Raises:
        ValueError: the teacher does not fit the pictures.
    """
    from_logits = gives_logits(teacher, dataset)

    def ask(images, labels):
        del labels
        answers = teacher(tf.cast(images, tf.float32), training=False)
        return images, tf.nn.softmax(answers) if from_logits else answers

    return dataclasses.replace(
        dataset,
        train=dataset.train.map(ask),
        train_from=lambda epoch: dataset.train_from(epoch).map(ask),
    )
