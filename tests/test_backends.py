"""Every installed Keras backend computes the same, and trains.

Each runs in a process of its own: a backend is chosen once, at import.
"""

import ast
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from golden import make_golden

BACKENDS = ("tensorflow", "jax", "torch")
# 72x104: maps of odd sides at strides 8, 16 and 32, which are resized.
SIZES = ((72, 104),)

SCRIPT = """
import sys
import keras
import numpy as np
from keras_mobilevit import InvertedResidual
from keras_mobilevit import MobileViTBlock
from keras_mobilevit import MobileViTV2Block
from keras_mobilevit import MobileViT_XXS
folder, backend = sys.argv[1:]
assert keras.backend.backend() == backend
results = {}
with np.load(folder + "/pictures.npz") as pictures:
    # The odd size comes last, and is the one that is compiled.
    for size, picture in pictures.items():
        model = MobileViT_XXS(
            weights=folder + "/model.weights.h5",
            input_shape=picture.shape[1:],
            classifier_activation=None,
        )
        results[size] = keras.ops.convert_to_numpy(model(picture))
    results["compiled"] = model.predict(picture, verbose=0)
    # At any size, too: a backbone of unknown sides.
    backbone = MobileViT_XXS(weights=None, include_top=False, pooling="avg")
    assert len(model.weights[:-2]) == len(backbone.weights)
    for ours, given in zip(backbone.weights, model.weights):
        assert ours.path == given.path
        ours.assign(given)
    backbone = keras.ops.convert_to_numpy(backbone(picture))
    kernel, bias = map(keras.ops.convert_to_numpy, model.weights[-2:])
    results["any size"] = backbone @ kernel + bias
np.savez(folder + "/results.npz", **results)

keras.utils.set_random_seed(0)
# A block of each kind: compiling a whole network takes JAX a minute.
inputs = keras.Input((32, 32, 3))
x = InvertedResidual(8, strides=2, expansion=2)(inputs)
x = MobileViTBlock(8, 1)(x)
x = MobileViTV2Block(8, 1)(x)
x = keras.layers.GlobalAveragePooling2D()(x)
model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))
before = [keras.ops.convert_to_numpy(v) for v in model.trainable_weights]
model.compile(
    keras.optimizers.SGD(1.0),
    "sparse_categorical_crossentropy",
    jit_compile=False,
)
generator = np.random.default_rng(0)
images = generator.uniform(0, 1, (2, 32, 32, 3)).astype("float32")
history = model.fit(images, np.array([0, 0]), epochs=1, verbose=0)
assert np.isfinite(history.history["loss"][0])
after = [keras.ops.convert_to_numpy(v) for v in model.trainable_weights]
still = [
    v.path
    for v, a, b in zip(model.trainable_weights, after, before)
    if np.array_equal(a, b)
]
print("trained", len(before), "but", sorted(still))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The weights and pictures that the backends get, and nothing else."""
    from keras_mobilevit import MobileViT_XXS

    path = tmp_path_factory.mktemp("backends")
    model = MobileViT_XXS(
        weights=None, input_shape=(32, 32, 3), classifier_activation=None
    )
    make_golden.fill(model)
    model.save_weights(path / "model.weights.h5")
    pictures = {
        f"{height}x{width}": make_golden.picture(height, width, batch=2)
        for height, width in SIZES
    }
    np.savez(path / "pictures.npz", **pictures)
    return path


@pytest.fixture(scope="module")
def reference(folder):
    """The outputs under the backend of this process, eagerly."""
    from keras_mobilevit import MobileViT_XXS

    results = {}
    with np.load(folder / "pictures.npz") as pictures:
        for size, picture in pictures.items():
            model = MobileViT_XXS(
                weights=folder / "model.weights.h5",
                input_shape=picture.shape[1:],
                classifier_activation=None,
            )
            results[size] = np.asarray(model(picture))
    results["compiled"] = results["any size"] = results[size]
    return results


@pytest.mark.parametrize("backend", BACKENDS)
def test_backend(folder, reference, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = {**os.environ, "KERAS_BACKEND": backend}
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), backend],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    count, still = run.stdout.split("trained ")[1].split(" but ")
    # A bias that adds the same to all scores of a softmax changes nothing.
    blind = ("attention/key/bias", "attention/query/bias")
    assert int(count) == 64
    still = [x for x in ast.literal_eval(still) if not x.endswith(blind)]
    assert not still
    with np.load(folder / "results.npz") as results:
        assert set(results) == set(reference)
        for name, expected in reference.items():
            scale = np.abs(expected).max()
            difference = np.abs(results[name] - expected).max()
            assert difference <= 1e-5 * scale, (name, difference / scale)
