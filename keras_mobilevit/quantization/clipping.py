"""Narrower ranges for int8 tensors, where finer steps outweigh the clipping.

A range from the smallest to the largest value has room for the rarest of them.
Narrower by a factor, its steps are finer by that factor; what lies outside is
clipped. The sum of both squared errors is computed from a histogram (Sung et
al., arXiv 1511.06488), and the range with the least is taken: the whole one
where no narrower one gains.
"""

from collections.abc import Hashable
from collections.abc import Iterator

import numpy as np

#: Pictures to count the values of.
PICTURES = 64
#: Values of one tensor that are counted in a picture, at most.
VALUES = 1 << 14
BINS = 1024
#: The shares of a side of the range that are tried.
SHARES = np.linspace(0.4, 1.0, 25)
_STEPS = 255


def sample(rows: np.ndarray) -> np.ndarray:
    """Returns some rows, all where there are few."""
    wanted = max(1, VALUES // rows.shape[1])
    if len(rows) <= wanted:
        return rows
    return rows[np.random.default_rng(0).integers(0, len(rows), wanted)]


class Counts:
    """Histograms of tensors.

    Args:
        bounds: `{tensor: (smallest, largest value)}`.
    """

    def __init__(self, bounds: dict[Hashable, tuple[float, float]]):
        self._bounds = bounds
        self._counts = {tensor: np.zeros(BINS) for tensor in bounds}

    def __iter__(self) -> Iterator[Hashable]:
        """Yields the tensors."""
        return iter(self._bounds)

    def add(self, tensor: Hashable, values: np.ndarray) -> None:
        """Counts values of a tensor."""
        low, high = map(float, self._bounds[tensor])
        # One that is constant but for rounding needs no narrower range.
        if high - low > 1e-3 * max(-low, high):
            self._counts[tensor] += np.histogram(values, BINS, (low, high))[0]

    def best(self, tensor: Hashable) -> tuple[float, float]:
        """Returns the range with the least squared error."""
        low, high = self._bounds[tensor]
        centres = low + (np.arange(BINS) + 0.5) * (high - low) / BINS
        counts = self._counts[tensor]
        # A range always holds zero, so a side without values does not count.
        low, high = min(low, 0.0), max(high, 0.0)

        def error(low, high):
            beyond = np.maximum(low - centres, 0) + np.maximum(
                centres - high, 0
            )
            inside = (beyond == 0) * ((high - low) / _STEPS) ** 2 / 12
            return float(counts @ (beyond**2 + inside))

        ends = [(low, high * share) for share in SHARES]
        ends = min(ends[::-1], key=lambda pair: error(*pair))
        ends = [(low * share, ends[1]) for share in SHARES]
        return min(ends[::-1], key=lambda pair: error(*pair))
