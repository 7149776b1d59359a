"""Int8 rounding of arrays, as a TFLite file does it: to measure errors."""

import numpy as np

from keras_mobilevit.layers.base import UNIT_RANGE


def symmetric_range(low: float, high: float) -> tuple[float, float]:
    """Returns the narrowest range around a range whose grid has 0 midway.

    Of 256 steps 128 are below zero and 127 above, as of all int8 numbers.

    Args:
        low: the smallest value.
        high: the largest value.
    """
    least, most = UNIT_RANGE
    size = max(high / most, low / least)
    return size * least, size * most


def round_activations(
    x: np.ndarray, bounds: tuple[float, float] | None = None
) -> np.ndarray:
    """Rounds to 8 bits with one asymmetric range for the whole array.

    Args:
        x: any float array.
        bounds: the range; `None` for the smallest and largest value.
    """
    low, high = (x.min(), x.max()) if bounds is None else bounds
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    step = (high - low) / 255.0 or 1.0
    zero = np.round(-low / step)
    return (np.clip(np.round(x / step) + zero, 0, 255) - zero) * step


def round_kernel(kernel: np.ndarray) -> np.ndarray:
    """Rounds to 8 bits, symmetrically, for each index of the last axis."""
    axes = tuple(range(kernel.ndim - 1))
    step = np.abs(kernel).max(axes, keepdims=True) / 127.0
    step = np.where(step == 0.0, 1.0, step)
    return np.round(kernel / step) * step


def signal_to_noise(exact: np.ndarray, rounded: np.ndarray) -> float:
    """Returns the signal-to-quantization-noise ratio in dB, -200 to 200.

    What is NaN or infinite is the worst.
    """
    noise = float(np.square(exact - rounded, dtype="float64").sum())
    signal = float(np.square(exact, dtype="float64").sum())
    if not np.isfinite(noise):
        return -200.0
    if not noise or not signal:
        return 200.0 if not noise else 0.0
    return float(np.clip(10.0 * np.log10(signal / noise), -200.0, 200.0))
