"""The networks compute what transformers' MobileViT computes.

Live where PyTorch and transformers are installed (the `parity` extra), and
against `golden/parity.npz`, made by `golden/make_golden.py`, everywhere.

Two maps are equal if their largest difference is at most 1e-5 of the largest
absolute value of the reference: float32 leaves about 1e-6 of it.
"""

import importlib.util

import keras
import numpy as np
import pytest
from golden import make_golden

from keras_mobilevit import mobilevit
from keras_mobilevit.configs import MOBILEVIT

TOLERANCE = 1e-5
BUILDERS = {
    "mobilevit_xxs": mobilevit.MobileViT_XXS,
    "mobilevit_xs": mobilevit.MobileViT_XS,
    "mobilevit_s": mobilevit.MobileViT_S,
}

each_variant = pytest.mark.parametrize("variant", MOBILEVIT)
each_size = pytest.mark.parametrize(
    "size", make_golden.SIZES, ids=lambda size: "x".join(map(str, size))
)
live = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "transformers"))),
    reason="needs the `parity` extra (torch, transformers)",
)


@pytest.fixture(scope="module")
def built():
    """Returns a function that builds each model once, with its endpoints."""
    models = {}

    def build(variant, seed=0, output_stride=32):
        key = (variant, seed, output_stride)
        if key not in models:
            # Any size: what the sizes share is built once.
            model = BUILDERS[variant](
                weights=None,
                input_tensor=keras.Input((None, None, 3)),
                classifier_activation=None,
                output_stride=output_stride,
            )
            make_golden.fill(model, seed)
            outputs = {
                name: model.get_layer(name).output
                for name in make_golden.ENDPOINTS
            }
            outputs["logits"] = model.output
            models[key] = keras.Model(model.input, outputs)
        return models[key]

    return build


@pytest.fixture(scope="module")
def torch_built():
    models = {}

    def build(*key):
        if key not in models:
            models[key] = make_golden.torch_model(*key)
        return models[key]

    return build


def run(model, image):
    results = model(image, training=False)
    return {
        name: keras.ops.convert_to_numpy(array)
        for name, array in results.items()
    }


def assert_close(actual, expected, name, tolerance=TOLERANCE):
    assert actual.shape == expected.shape, name
    scale = np.abs(expected).max()
    difference = np.abs(actual - expected).max()
    assert difference <= tolerance * scale, (name, difference / scale)


@live
@each_variant
@each_size
def test_live_parity(built, torch_built, variant, size):
    """Another set of weights than the stored one, and two pictures."""
    image = make_golden.picture(*size, batch=2)
    expected = make_golden.reference(torch_built(variant, 1), image)
    actual = run(built(variant, 1), image)
    for name in expected:
        # Sane numbers, else the comparison would say nothing.
        assert 0.05 < expected[name].std() < 20, name
        assert_close(actual[name], expected[name], name)


@live
@pytest.mark.parametrize("output_stride", (8, 16))
@pytest.mark.parametrize("size", ((128, 128), (104, 136)))
def test_live_parity_at_other_output_strides(
    built, torch_built, output_stride, size
):
    image = make_golden.picture(*size)
    model = torch_built("mobilevit_xxs", 1, output_stride)
    expected = make_golden.reference(model, image)
    actual = run(built("mobilevit_xxs", 1, output_stride), image)
    for name in expected:
        assert_close(actual[name], expected[name], name)


@live
@each_variant
def test_the_reference_names_every_variable(built, torch_built, variant):
    """No variable of ours goes unused, none is set twice."""
    names = torch_built(variant, 1).state_dict()
    mapped = [
        make_golden.keras_path(name)
        for name in names
        if not name.endswith("num_batches_tracked")
    ]
    paths = [variable.path for variable in built(variant, 1).weights]
    assert sorted(mapped) == sorted(paths)


@each_variant
@each_size
def test_golden_outputs(built, variant, size):
    prefix = f"{variant}/{size[0]}x{size[1]}/"
    with np.load(make_golden.GOLDEN) as golden:
        expected = {
            name.removeprefix(prefix): golden[name]
            for name in golden.files
            if name.startswith(prefix)
        }
    results = run(built(variant), make_golden.picture(*size))
    actual = make_golden.summary(results)
    assert set(actual) == set(expected)
    for name in expected:
        # The scale is that of the few numbers stored, hence a wider bound.
        assert_close(actual[name], expected[name], name, 3 * TOLERANCE)


def test_the_formula_has_not_moved():
    """The numbers that the stored outputs stand on."""
    numbers = make_golden.uniform("stem/kernel", (2, 2), seed=1)
    assert numbers.tolist() == FORMULA


FORMULA = [
    [0.26715946675520374, 0.3981206797790384],
    [0.7231207845098826, 0.9163203883181367],
]
