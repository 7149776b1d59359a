"""From a source of pictures to batches that depend on nothing but the seed."""

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mobilevit.data.augment import Augment
from keras_mobilevit.data.pictures import fit_picture

_ENDLESS = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Training and validation pictures of one classification task.

    Every pipeline yields `(images, labels)`: RGB, uint8 in 0..255,
    `(batch, image_size, image_size, 3)`, and int32 `(batch,)`. Each batch of
    training pictures is a pure function of the seed, the epoch and the place.

    Args:
        train: one epoch, shuffled and augmented. The first iteration is epoch
            0, the next one epoch 1, and so on. Full batches only; which
            pictures are left out differs from epoch to epoch.
        val: the validation pictures, always in the same order.
        calibration: the training pictures prepared as `val` is, shuffled
            once: what int8 conversion looks at.
        train_from: `train_from(k)` is an endless pipeline of the batches of
            epoch k, k + 1, ..., `steps_per_epoch` of them each.
        class_names: the name of each label.
        train_size: number of training pictures.
        val_size: number of validation pictures.
        image_size: side of the pictures in pixels.
        batch_size: pictures in a batch, at most `train_size`.
        seed: what shuffling and augmentation derive from.
    """

    train: tf.data.Dataset
    val: tf.data.Dataset
    calibration: tf.data.Dataset
    train_from: Callable[[int], tf.data.Dataset]
    class_names: tuple[str, ...]
    train_size: int
    val_size: int
    image_size: int
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Training batches in an epoch."""
        return self.train_size // self.batch_size


@dataclasses.dataclass(frozen=True)
class Source:
    """Where pictures come from.

    Args:
        size: number of pictures.
        order: gives a pipeline of `(index, item)`, each index in 0..size-1
            once, in an order that depends on the two integers passed, or in
            the natural order for `None`.
        read: from index and item to picture, uint8 `(height, width, 3)`, and
            label. It runs in parallel.
    """

    size: int
    order: Callable[[tf.Tensor | None], tf.data.Dataset]
    read: Callable[[tf.Tensor, Any], tuple[tf.Tensor, tf.Tensor]]


def source_of(
    pictures: Callable[[int], np.ndarray], labels: np.ndarray
) -> Source:
    """A source that reads any picture by its number.

    Args:
        pictures: `pictures(i)` is uint8 `(height, width, 3)`.
        labels: `(number of pictures,)`.
    """
    labels = tf.constant(labels, tf.int32)
    size = len(labels)

    def order(seed):
        numbers = tf.range(size, dtype=tf.int64)
        if seed is not None:
            numbers = tf.random.experimental.stateless_shuffle(numbers, seed)
        numbers = tf.data.Dataset.from_tensor_slices(numbers)
        return tf.data.Dataset.zip(numbers, numbers)

    def read(index, item):
        picture = tf.numpy_function(pictures, [item], tf.uint8)
        return tf.ensure_shape(picture, (None, None, 3)), labels[index]

    return Source(size, order, read)


def assemble(
    train: Source,
    val: Source,
    class_names: tuple[str, ...],
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    augment: Augment | None,
    crop_pct: float,
) -> Dataset:
    """Makes the pipelines of a `Dataset`.

    The pictures of `train` may have any size, those of `val` are prepared:
    `fit_picture(picture, image_size, image_size, crop_pct)`.
    """
    batch_size = min(batch_size, train.size)
    used = train.size // batch_size * batch_size
    shape = (image_size, image_size, 3)
    base = tf.constant([seed, 0], tf.int64)

    def fit(picture, label):
        picture = tf.numpy_function(
            lambda array: fit_picture(array, *shape[:2], crop_pct),
            [picture],
            tf.uint8,
        )
        return tf.ensure_shape(picture, shape), label

    def epoch_order(epoch):
        seed = tf.random.fold_in(base, epoch)
        order = train.order(seed).take(used)
        return order.map(lambda index, item: (seed, index, item))

    def prepare(seed, index, item):
        picture, label = train.read(index, item)
        if augment is None:
            return fit(picture, label)
        seed = tf.random.fold_in(seed, index)
        return tf.ensure_shape(augment(picture, image_size, seed), shape), label

    def training(epochs):
        examples = _parallel(epochs.flat_map(epoch_order), prepare)
        return examples.batch(batch_size, drop_remainder=True).prefetch(2)

    def evaluation(order, read):
        return _parallel(order, read).batch(batch_size).prefetch(2)

    def read_val(index, item):
        picture, label = val.read(index, item)
        return tf.ensure_shape(picture, shape), label

    def read_calibration(index, item):
        return fit(*train.read(index, item))

    return Dataset(
        train=_with_cardinality(training(_counted()), used // batch_size),
        val=_with_cardinality(
            evaluation(val.order(None), read_val), -(-val.size // batch_size)
        ),
        calibration=evaluation(train.order(base), read_calibration),
        train_from=lambda epoch: training(
            tf.data.Dataset.range(epoch, _ENDLESS)
        ),
        class_names=class_names,
        train_size=train.size,
        val_size=val.size,
        image_size=image_size,
        batch_size=batch_size,
        seed=seed,
    )


def _parallel(pipeline, function):
    return pipeline.map(function, num_parallel_calls=tf.data.AUTOTUNE)


def _with_cardinality(pipeline, batches):
    return pipeline.apply(tf.data.experimental.assert_cardinality(batches))


def _counted() -> tf.data.Dataset:
    """One number: 0 when iterated first, then 1, ..."""
    epochs = iter(range(_ENDLESS))

    def next_epoch() -> Iterator[int]:
        yield next(epochs)

    return tf.data.Dataset.from_generator(
        next_epoch, output_signature=tf.TensorSpec((), tf.int64)
    )
