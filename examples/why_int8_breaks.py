r"""One picture of why MobileViT breaks in int8, and of what equalising does.

Takes a trained model, finds the expanding convolution whose channels differ
most before its SiLU, and draws the largest value of every channel against the
step of the int8 scale that they share, before and after `equalize`. A channel
below half a step is all zeros in the file.

    python examples/quantization_study.py --data_dir sign_digits \
        --image_size 96 --sigmas 1.5
    python examples/why_int8_breaks.py --image_size 96 --data_dir sign_digits \
        --model quantization_study/sigma1.5_seed0/best.keras

Takes half a minute. The picture is `examples/why_int8_breaks.png`.
"""

import keras
import numpy as np
from absl import app
from absl import flags
from matplotlib.figure import Figure

from keras_mobilevit import data
from keras_mobilevit import files
from keras_mobilevit import quantization
from keras_mobilevit.layers import InvertedResidual
from keras_mobilevit.quantization import graph

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "a trained .keras file", required=True)
flags.DEFINE_string("dataset", None, "'digits' or a tensorflow-datasets name")
flags.DEFINE_string("data_dir", None, "folder of class folders")
flags.DEFINE_integer("image_size", 96, "side of the pictures in pixels")
flags.DEFINE_string("output", "why_int8_breaks.png", "the picture to write")


def channel_sizes(model, pictures):
    """Returns `{name: largest |value| of each channel}` before each SiLU."""
    blocks = {
        trail: layer
        for trail, layer in graph.walk(model)
        if isinstance(layer, InvertedResidual)
    }
    acts = {id(block.expand.act): name for name, block in blocks.items()}
    sizes = {}

    def record(layer, inputs, outputs):
        sizes[acts[id(layer)]] = np.abs(inputs).max(axis=(0, 1, 2))

    with graph.watching([b.expand.act for b in blocks.values()], record):
        model(pictures, training=False)
    return sizes


def main(argv):
    """Loads the model and writes the picture."""
    del argv
    dataset = data.load(
        FLAGS.dataset, data_dir=FLAGS.data_dir, image_size=FLAGS.image_size
    )
    pictures = quantization.calibration_pictures(
        dataset.calibration, (None, FLAGS.image_size, FLAGS.image_size, 3)
    )
    model = keras.saving.load_model(FLAGS.model)
    equalised, _ = quantization.equalize(model, pictures)
    before = channel_sizes(model, pictures)
    after = channel_sizes(equalised, pictures)
    name = max(before, key=lambda n: before[n].max() / np.median(before[n]))

    figure = Figure((10, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = ("as trained", "equalised: the same network in float")
    for axes, sizes, title in zip(panels, (before, after), titles):
        sizes = np.sort(sizes[name])[::-1]
        step = 2 * sizes[0] / 255
        lost = int((sizes < step / 2).sum())
        few = int((sizes < 8 * step).sum())
        colours = np.where(sizes < 8 * step, "tab:red", "tab:blue")
        axes.bar(np.arange(len(sizes)), sizes, color=colours, width=1.0)
        axes.axhline(step, color="black", linestyle="--")
        axes.text(len(sizes), step, "one int8 step ", ha="right", va="bottom")
        axes.set_yscale("log")
        axes.set_xlabel(f"channels of {name}, by size")
        axes.set_title(
            f"{title}\n{few} of {len(sizes)} channels have fewer than 8 "
            f"steps, {lost} none",
            fontsize=10,
        )
    panels[0].set_ylabel("largest |value| before the SiLU")
    with files.atomic_path(FLAGS.output, True) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    print(f"wrote {FLAGS.output}")


if __name__ == "__main__":
    app.run(main)
