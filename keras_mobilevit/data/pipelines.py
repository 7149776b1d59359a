"""Loads a data set: the built-in digits, class folders, or any of tfds."""

import os

import numpy as np
import tensorflow as tf

from keras_mobilevit.data import folders
from keras_mobilevit.data.augment import Augment
from keras_mobilevit.data.dataset import Dataset
from keras_mobilevit.data.dataset import Source
from keras_mobilevit.data.dataset import assemble
from keras_mobilevit.data.dataset import source_of
from keras_mobilevit.data.pictures import fit_picture
from keras_mobilevit.data.pictures import load_picture

# Milder than the published (0.08, 1.0), which takes hundreds of epochs.
PHOTOS = Augment(scale=(0.6, 1.0))
DIGITS = Augment(scale=(0.7, 1.0), flip=False)

_DIGITS_VAL = 500
_SHUFFLE_BLOCK = 10_000


def load(
    dataset: str | None = None,
    data_dir: str | os.PathLike | None = None,
    *,
    image_size: int = 256,
    batch_size: int = 32,
    seed: int = 0,
    val_fraction: float = 0.2,
    augment: Augment | bool = True,
    crop_pct: float = 1.0,
    download: bool = False,
) -> Dataset:
    """Loads a data set by its name or its folder.

    Args:
        dataset: `"digits"` (the default without `data_dir`), or the name of a
            data set of tensorflow-datasets. `None` with a `data_dir`: the
            pictures of that folder.
        data_dir: a folder of class folders; with a `dataset` of
            tensorflow-datasets, the folder where that keeps its data.
        image_size: side of the pictures in pixels.
        batch_size: pictures in a batch.
        seed: what shuffling, augmentation and the split derive from.
        val_fraction: part of the pictures that validates, where the data set
            has no such part of its own.
        augment: `True` for the default of the data set, `False` for none.
        crop_pct: in (0, 1]: the part of the shorter side that evaluation
            keeps. 1.0 is what `keras_mobilevit.tflite` does with a picture;
            the published ImageNet figures are for about 0.89.
        download: whether tensorflow-datasets may download.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: an argument is wrong, or the data are.
        FileNotFoundError: there is no `data_dir`.
    """
    common = {
        "image_size": image_size,
        "batch_size": batch_size,
        "seed": seed,
        "augment": augment,
        "crop_pct": crop_pct,
    }
    if dataset == "digits" and data_dir is not None:
        raise ValueError(
            "The built-in digits take no `data_dir`: pass one of the two. "
            f"Received: dataset={dataset!r}, data_dir={str(data_dir)!r}"
        )
    if dataset == "digits" or (dataset is None and data_dir is None):
        return load_digits(**common)
    if dataset is None:
        return load_folder(data_dir, val_fraction=val_fraction, **common)
    return load_tfds(
        dataset,
        data_dir=data_dir,
        val_fraction=val_fraction,
        download=download,
        **common,
    )


def load_digits(
    image_size: int = 64,
    batch_size: int = 32,
    *,
    seed: int = 0,
    augment: Augment | bool = True,
    crop_pct: float = 1.0,
) -> Dataset:
    """Loads scikit-learn's 1797 handwritten digits of 8x8 pixels.

    They need no network. Grey becomes RGB, and the pictures are enlarged
    (bilinear) to `image_size`. The last 500, by other writers than most of
    the first 1297, validate, whatever the seed. The arguments are those of
    `load`.

    Raises:
        ValueError: an argument is wrong.
        ModuleNotFoundError: scikit-learn is not installed.
    """
    _check(image_size, batch_size, seed, crop_pct)
    try:
        from sklearn.datasets import load_digits as bunch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The built-in digits need scikit-learn: `pip install "
            "scikit-learn`, or choose other pictures by `data_dir`."
        ) from error
    from PIL import Image

    images, labels = bunch(return_X_y=True)
    grey = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype("uint8")
    size = (image_size, image_size)
    enlarged = [
        np.asarray(
            Image.fromarray(picture)
            .resize(size, Image.Resampling.BILINEAR)
            .convert("RGB")
        )
        for picture in grey
    ]
    train = enlarged[:-_DIGITS_VAL]
    val = [
        fit_picture(picture, *size, crop_pct)
        for picture in enlarged[-_DIGITS_VAL:]
    ]
    return assemble(
        source_of(train.__getitem__, labels[:-_DIGITS_VAL]),
        source_of(val.__getitem__, labels[-_DIGITS_VAL:]),
        tuple("0123456789"),
        image_size=image_size,
        batch_size=batch_size,
        seed=seed,
        augment=_augment(augment, DIGITS),
        crop_pct=crop_pct,
    )


def load_folder(
    data_dir: str | os.PathLike,
    image_size: int = 256,
    batch_size: int = 32,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    augment: Augment | bool = True,
    crop_pct: float = 1.0,
) -> Dataset:
    """Loads a folder with a folder of pictures for each class.

    Either `train/<class>/...` and `val/<class>/...`, or `<class>/...`, of
    which a part by chance validates. Labels follow the sorted names of the
    classes. Every file is decoded once at the start: those that are no
    pictures are named in one warning and left out. Hidden files do not count.

    Args:
        data_dir: the folder.
        image_size: see `load`, as are the others.
        batch_size: pictures in a batch.
        val_fraction: in (0, 1), of each class; unused where there is a
            `val` folder.
        seed: see `load`.
        augment: see `load`.
        crop_pct: see `load`.

    Raises:
        ValueError: an argument is wrong; there are less than two classes, or
            one without pictures, or train and val differ in their classes.
        FileNotFoundError: there is no such folder.
    """
    _check(image_size, batch_size, seed, crop_pct, val_fraction)
    class_names, train, val = folders.find(data_dir, val_fraction, seed)
    train, val = folders.read(
        data_dir, class_names, train, val, image_size, crop_pct
    )
    return assemble(
        train,
        val,
        class_names,
        image_size=image_size,
        batch_size=batch_size,
        seed=seed,
        augment=_augment(augment, PHOTOS),
        crop_pct=crop_pct,
    )


def load_tfds(
    name: str,
    image_size: int = 256,
    batch_size: int = 32,
    *,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    val_fraction: float = 0.2,
    seed: int = 0,
    augment: Augment | bool = True,
    crop_pct: float = 1.0,
) -> Dataset:
    """Loads a classification data set of tensorflow-datasets.

    The split `validation` validates, else `test`, else the last part of
    `train`. Pictures are shuffled within blocks of 10,000.

    Args:
        name: such as `"tf_flowers"` or `"oxford_iiit_pet:3.*.*"`.
        image_size: see `load`, as are the others.
        batch_size: pictures in a batch.
        data_dir: where tensorflow-datasets keeps its data; `None` for its
            default.
        download: whether it may download and prepare what is not there.
        val_fraction: in (0, 1); used where there is only `train`.
        seed: see `load`.
        augment: see `load`. Turn `flip` off for digits and letters.
        crop_pct: see `load`.

    Raises:
        ValueError: an argument is wrong, the name is unknown, the data are
            not there and `download` is `False`, or the data set is no
            classification of pictures.
    """
    _check(image_size, batch_size, seed, crop_pct, val_fraction)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        # Its own message lists all names there are.
        raise ValueError(
            "`dataset` must be 'digits' or a name known to "
            f"tensorflow-datasets. Received: dataset={name!r}"
        ) from error
    if download:
        builder.download_and_prepare()
    elif not builder.is_prepared():
        # Without a network tfds would retry for minutes.
        raise ValueError(
            f"The data set is not on this machine (looked in "
            f"{builder.data_dir}). Pass `download=True` (`--download` on the "
            "command line) to fetch it, or the right `data_dir`. Received: "
            f"dataset={name!r}, download=False"
        )
    features = builder.info.features
    is_dict = isinstance(features, tfds.features.FeaturesDict)
    features = dict(features.items()) if is_dict else {}
    if not (
        isinstance(features.get("image"), tfds.features.Image)
        and isinstance(features.get("label"), tfds.features.ClassLabel)
    ):
        raise ValueError(
            "`dataset` must have the features `image` and `label`. Received: "
            f"dataset={name!r} with {sorted(features)}"
        )
    percent = round(100 * (1 - val_fraction))
    splits = ["train", "validation"]
    if "validation" not in builder.info.splits:
        splits[1] = "test"
    if splits[1] not in builder.info.splits:
        splits = [f"train[:{percent}%]", f"train[{percent}%:]"]

    def prepared(encoded):
        picture = load_picture(encoded)
        return fit_picture(picture, image_size, image_size, crop_pct)

    train = _tfds_source(builder, splits[0], load_picture)
    val = _tfds_source(builder, splits[1], prepared)
    return assemble(
        train,
        val,
        tuple(features["label"].names),
        image_size=image_size,
        batch_size=batch_size,
        seed=seed,
        augment=_augment(augment, PHOTOS),
        crop_pct=crop_pct,
    )


def _tfds_source(builder, split, load_encoded):
    import tensorflow_datasets as tfds

    size = builder.info.splits[split].num_examples
    if not size:
        raise ValueError(
            "Each split of `dataset` must hold a picture. Received: "
            f"dataset={builder.name!r}, whose split {split!r} is empty"
        )
    stored = builder.as_dataset(
        split=split,
        # Shuffling moves the small encoded pictures.
        decoders={"image": tfds.decode.SkipDecoding()},
        shuffle_files=False,
    )
    stored = stored.map(lambda item: (item["image"], item["label"]))

    # `Dataset.shuffle` would depend on TensorFlow's global seed.
    def shuffled(seed, number, block):
        seed = tf.random.fold_in(seed, number)
        places = tf.range(tf.shape(block[1])[0])
        places = tf.random.experimental.stateless_shuffle(places, seed)
        parts = tuple(tf.gather(part, places) for part in block)
        return tf.data.Dataset.from_tensor_slices(parts)

    def order(seed):
        if seed is None:
            return stored.enumerate()
        blocks = stored.batch(_SHUFFLE_BLOCK).enumerate()
        return blocks.flat_map(
            lambda number, block: shuffled(seed, number, block)
        ).enumerate()

    def read(index, item):
        picture = tf.numpy_function(load_encoded, [item[0]], tf.uint8)
        picture = tf.ensure_shape(picture, (None, None, 3))
        return picture, tf.cast(item[1], tf.int32)

    return Source(size, order, read)


def _augment(augment, default):
    if isinstance(augment, bool):
        return default if augment else None
    if not isinstance(augment, Augment):
        raise ValueError(
            "`augment` must be True, False or an `Augment`. "
            f"Received: augment={augment!r}"
        )
    return augment


def _check(image_size, batch_size, seed, crop_pct, val_fraction=0.5):
    for name, value, least in (
        ("image_size", image_size, 1),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
    ):
        is_integer = isinstance(value, (int, np.integer))
        if not is_integer or isinstance(value, bool) or value < least:
            raise ValueError(
                f"`{name}` must be an integer of at least {least}. "
                f"Received: {name}={value!r}"
            )
    if not 0 < crop_pct <= 1:
        raise ValueError(
            f"`crop_pct` must be in (0, 1]. Received: crop_pct={crop_pct!r}"
        )
    if not 0 < val_fraction < 1:
        raise ValueError(
            "`val_fraction` must be between 0 and 1. "
            f"Received: val_fraction={val_fraction!r}"
        )
