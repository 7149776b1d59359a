"""The recipe: its checks, schedule, weight decay and loss."""

import keras
import numpy as np
import pytest

from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.training import Recipe
from keras_mobilevit.training import SmoothedCrossentropy


@pytest.mark.parametrize(
    "field, value",
    [
        ("epochs", 0),
        ("epochs", 2.0),
        ("learning_rate", 0),
        ("warmup_fraction", 1),
        ("final_fraction", -0.1),
        ("weight_decay", -1),
        ("label_smoothing", 1),
        ("freeze_epochs", 20),
        ("jit_compile", "yes"),
    ],
)
def test_recipe_names_what_is_wrong(field, value):
    with pytest.raises(ValueError, match=f"`{field}`.*Received: {field}="):
        Recipe(**{field: value})


def test_schedule():
    rate = Recipe(
        learning_rate=1.0, warmup_fraction=0.1, final_fraction=0.2
    ).schedule(100)
    values = [float(rate(step)) for step in range(101)]
    assert values[0] == pytest.approx(0.1)
    assert values[10] == max(values) == pytest.approx(1)
    assert values[55] == pytest.approx(0.6)
    assert values[100] == pytest.approx(0.2)
    same = keras.optimizers.schedules.CosineDecay(
        0.1, 90, alpha=0.2, warmup_target=1.0, warmup_steps=10
    )
    assert values == pytest.approx([float(same(step)) for step in range(101)])
    config = keras.saving.serialize_keras_object(rate)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == rate.get_config()
    assert float(Recipe(warmup_fraction=0).schedule(9)(0)) == pytest.approx(
        2e-3
    )


def test_weight_decay_reaches_every_parameter():
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            ConvNormAct(8, 3, strides=4, name="stem"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    optimizer = Recipe(weight_decay=0.5).optimizer(10)
    optimizer.build(model.trainable_variables)
    assert all(map(optimizer._use_weight_decay, model.trainable_variables))


@pytest.mark.parametrize("from_logits", [True, False])
def test_loss_equals_that_of_keras_on_one_hot_labels(from_logits):
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(6, 5)).astype("float32")
    if not from_logits:
        scores = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    labels = np.array([0, 1, 2, 3, 4, 4])
    loss = SmoothedCrossentropy(0.1, from_logits)
    loss = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    expected = keras.losses.CategoricalCrossentropy(
        from_logits, label_smoothing=0.1
    )(np.eye(5, dtype="float32")[labels], scores)
    assert float(loss(labels, scores)) == pytest.approx(float(expected))
