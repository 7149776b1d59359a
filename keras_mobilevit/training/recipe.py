"""How a classifier is trained: optimizer, schedule, loss."""

import dataclasses
import math
from typing import Any

import keras
from keras import ops


@dataclasses.dataclass(frozen=True)
class Recipe:
    """AdamW, linear warm-up, cosine decay, label smoothing.

    Weight decay is applied to every trainable parameter, as in the published
    recipe (decay 0.01, smoothing 0.1, peak 2e-3 at a batch of 1024, start and
    end at a tenth of the peak).

    Args:
        epochs: passes over the training pictures, frozen ones included.
        learning_rate: the peak, reached at the end of the warm-up.
        warmup_fraction: in [0, 1): part of the steps in which the rate rises
            from a tenth of the peak.
        final_fraction: in [0, 1]: the rate at the end, as a part of the peak.
        weight_decay: of AdamW, decoupled, relative to the learning rate.
        label_smoothing: in [0, 1): probability spread over all classes.
        freeze_epochs: the first epochs in which only the layer `predictions`
            learns and batch statistics stand still, for pretrained weights.
            They have a schedule of their own.
        jit_compile: of `model.compile`: `True`, `False` or `"auto"`.

    Raises:
        ValueError: a value is out of its range.
    """

    epochs: int = 20
    learning_rate: float = 2e-3
    warmup_fraction: float = 0.1
    final_fraction: float = 0.01
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    freeze_epochs: int = 0
    jit_compile: bool | str = False

    def __post_init__(self):
        for name, right, is_right in (
            ("epochs", "a positive integer", _is_count(self.epochs, 1)),
            ("learning_rate", "above 0", self.learning_rate > 0),
            ("warmup_fraction", "in [0, 1)", 0 <= self.warmup_fraction < 1),
            ("final_fraction", "in [0, 1]", 0 <= self.final_fraction <= 1),
            ("weight_decay", "at least 0", self.weight_decay >= 0),
            ("label_smoothing", "in [0, 1)", 0 <= self.label_smoothing < 1),
            (
                "freeze_epochs",
                "an integer from 0 to below `epochs`",
                _is_count(self.freeze_epochs, 0)
                and self.freeze_epochs < self.epochs,
            ),
            (
                "jit_compile",
                "True, False or 'auto'",
                self.jit_compile in (True, False, "auto"),
            ),
        ):
            if not is_right:
                raise ValueError(
                    f"`{name}` must be {right}. "
                    f"Received: {name}={getattr(self, name)!r}"
                )

    def schedule(
        self, steps: int
    ) -> keras.optimizers.schedules.LearningRateSchedule:
        """Returns the learning rate over `steps` training batches."""
        return WarmupCosine(
            self.learning_rate,
            steps,
            round(self.warmup_fraction * steps),
            self.final_fraction,
        )

    def optimizer(self, steps: int) -> keras.optimizers.Optimizer:
        """Returns AdamW with the schedule for `steps` training batches."""
        return keras.optimizers.AdamW(
            self.schedule(steps), weight_decay=self.weight_decay
        )

    def compile(
        self, model: keras.Model, steps: int, from_logits: bool = False
    ) -> None:
        """Compiles a classifier for `steps` training batches.

        Args:
            model: gives `(batch, classes)`.
            steps: number of training batches in all.
            from_logits: whether it gives logits, not probabilities.
        """
        model.compile(
            optimizer=self.optimizer(steps),
            loss=SmoothedCrossentropy(self.label_smoothing, from_logits),
            # As an object: a name makes variables in the first step, which
            # TensorFlow then traces twice.
            metrics=[keras.metrics.MeanMetricWrapper(matches, "accuracy")],
            jit_compile=self.jit_compile,
        )


@keras.saving.register_keras_serializable("keras_mobilevit")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise from a tenth of the peak, then half a cosine.

    `CosineDecay` of Keras gives the same, but branches; AdamW evaluates the
    schedule once for each variable, and the branches take most of the time
    before the first step.

    Args:
        peak: the highest rate, at step `warmup_steps`.
        steps: where the cosine ends; the rate stays as it is then.
        warmup_steps: length of the rise.
        final_fraction: the last rate, as a part of the peak.
    """

    def __init__(
        self,
        peak: float,
        steps: int,
        warmup_steps: int = 0,
        final_fraction: float = 0.0,
    ):
        self.peak = peak
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.final_fraction = final_fraction

    def __call__(self, step: Any) -> Any:
        """Returns the rate at a step, counted from 0."""
        step = ops.cast(step, "float32")
        warmup = max(1, self.warmup_steps)
        rising = ops.minimum(
            0.1 + 0.9 * step / warmup if self.warmup_steps else 1.0, 1.0
        )
        decay = max(1, self.steps - self.warmup_steps)
        progress = ops.clip((step - self.warmup_steps) / decay, 0.0, 1.0)
        cosine = 0.5 + 0.5 * ops.cos(math.pi * progress)
        falling = self.final_fraction + (1 - self.final_fraction) * cosine
        return self.peak * rising * falling

    def get_config(self) -> dict[str, Any]:
        """Returns the config of the schedule."""
        return dict(vars(self))


@keras.saving.register_keras_serializable("keras_mobilevit")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy of labels, with label smoothing, or of probabilities.

    Args:
        label_smoothing: in [0, 1): probability spread over all classes, where
            the target is an integer.
        from_logits: whether the predictions are logits.
        reduction: as of `keras.losses.Loss`.
        name: name of the loss.
        dtype: as of `keras.losses.Loss`.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        from_logits: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "smoothed_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.label_smoothing = label_smoothing
        self.from_logits = from_logits

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each picture.

        Args:
            y_true: integers `(batch,)` or `(batch, 1)`, or probabilities
                `(batch, classes)`.
            y_pred: `(batch, classes)`.
        """
        if _are_probabilities(y_true, y_pred):
            target = ops.cast(y_true, y_pred.dtype)
        else:
            classes = y_pred.shape[-1]
            target = ops.one_hot(_flat(y_true), classes, dtype=y_pred.dtype)
            target = target * (1 - self.label_smoothing)
            target = target + self.label_smoothing / classes
        return ops.categorical_crossentropy(
            target, y_pred, from_logits=self.from_logits
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the config of the loss."""
        return {
            **super().get_config(),
            "label_smoothing": self.label_smoothing,
            "from_logits": self.from_logits,
        }


def _are_probabilities(y_true, y_pred):
    return len(y_true.shape) == 2 and y_true.shape[-1] == y_pred.shape[-1] > 1


@keras.saving.register_keras_serializable("keras_mobilevit")
def matches(y_true: Any, y_pred: Any) -> Any:
    """Returns 1 for each picture whose highest score is the right one, else 0.

    Args:
        y_true: labels or probabilities, as of `SmoothedCrossentropy`.
        y_pred: `(batch, classes)`.
    """
    if _are_probabilities(y_true, y_pred):
        y_true = ops.argmax(y_true, axis=-1)
    right = ops.equal(_flat(y_true), _flat(ops.argmax(y_pred, axis=-1)))
    return ops.cast(right, "float32")


def _flat(labels):
    return ops.cast(ops.reshape(labels, (-1,)), "int32")


def _is_count(value, least):
    return (
        isinstance(value, int) and not isinstance(value, bool)
    ) and value >= least
