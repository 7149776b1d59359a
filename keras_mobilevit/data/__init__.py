"""Pictures with labels as tf.data pipelines."""

from keras_mobilevit.data.augment import Augment
from keras_mobilevit.data.pictures import fit_picture
from keras_mobilevit.data.pictures import load_picture
from keras_mobilevit.data.pipelines import Dataset
from keras_mobilevit.data.pipelines import load
from keras_mobilevit.data.pipelines import load_digits
from keras_mobilevit.data.pipelines import load_folder
from keras_mobilevit.data.pipelines import load_tfds

__all__ = [
    "Augment",
    "Dataset",
    "fit_picture",
    "load",
    "load_digits",
    "load_folder",
    "load_picture",
    "load_tfds",
]
