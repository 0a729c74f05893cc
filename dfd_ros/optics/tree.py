"""Marginals of a label field on a grid from local evidence: sum-product on the two combs of the grid.

The model is a Markov field: from cell to cell a label stays, drifts by one, or jumps and is drawn anew from a prior.
On the grid itself marginals are out of reach; on a comb, one column as the spine with every row as a tooth (or one row
with every column), they are exact by two forward-backward passes. Each cell uses the combs whose spines pass through
it, as in Bleyer & Gelautz, "Simple but effective tree structures for dynamic programming-based stereo matching"
(VISAPP 2008), here with sums in place of minima, and the geometric mean of both combs.

A message is a likelihood relative to its mean under the prior: with b = evidence · incoming message, the message to
the next cell is (1 − jump) · drift(b) / <prior, b> + jump.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError

Field = NDArray[np.float32]

_TOGETHER = 8
"""Rows or columns that are worked on in turn: one waits for its sum while another adds, and all stay in cache."""


@nb.njit(cache=True, fastmath=True, nogil=True, error_model="numpy", inline="always")
def _start(evidence, y, x, prior, belief, b):  # type: ignore[no-untyped-def]
    """The belief of the first cell, its evidence, between two zeros; returns its mean under the prior."""
    total = np.float32(1e-30)
    for k in range(evidence.shape[2]):
        value = evidence[y, x, k]
        belief[b, k + 1] = value
        total += value * prior[y, k]
    return total


@nb.njit(cache=True, fastmath=True, nogil=True, error_model="numpy", inline="always")
def _step(evidence, y, x, prior, jump, total, drift, ends, belief, a, b):  # type: ignore[no-untyped-def]
    """belief[b] = evidence · message from belief[a], of mean `total`; returns its mean.

    In the message label k takes from k − 1 with drift[1], from k + 1 with drift[0], else stays. The first and the last
    label cannot leave the range: they stay by `ends` more.
    """
    last = evidence.shape[2] - 1
    gain = (np.float32(1.0) - jump) / total
    fall, rise = gain * drift[0], gain * drift[1]
    stay = gain - rise - fall
    mean = np.float32(1e-30)
    for k in range(last + 1):
        message = stay * belief[a, k + 1] + rise * belief[a, k] + fall * belief[a, k + 2] + jump
        value = evidence[y, x, k] * message
        belief[b, k + 1] = value
        mean += value * prior[y, k]
    first_extra = gain * ends[0] * belief[a, 1] * evidence[y, x, 0]
    last_extra = gain * ends[1] * belief[a, last + 1] * evidence[y, x, last]
    belief[b, 1] += first_extra
    belief[b, last + 1] += last_extra
    return mean + first_extra * prior[y, 0] + last_extra * prior[y, last]


@nb.njit(cache=True, fastmath=True, nogil=True, error_model="numpy", inline="always")
def _meet(evidence, y, x, forward, a, backward, b, out):  # type: ignore[no-untyped-def]
    """Both beliefs hold the evidence: out = forward · backward / evidence."""
    for k in range(evidence.shape[2]):
        out[y, x, k] = forward[a, k + 1] * backward[b, k + 1] / evidence[y, x, k]


@nb.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _along_rows(evidence, prior, jump, drift, forward, out):  # type: ignore[no-untyped-def]
    """Evidence times the messages from the left and the right; `out` may be the evidence, `forward` is work space."""
    height, width, count = evidence.shape
    backward, total = np.zeros((2 * _TOGETHER, count + 2), np.float32), np.empty(_TOGETHER, np.float32)
    both = (drift, drift)
    for top in range(0, height, _TOGETHER):
        rows = min(_TOGETHER, height - top)
        for i in range(rows):
            total[i] = _start(evidence, top + i, 0, prior, forward, i)
        for x in range(1, width):
            for i in range(rows):
                y, b = top + i, x * _TOGETHER + i
                total[i] = _step(evidence, y, x, prior, jump[y, x - 1], total[i], both, both, forward, b - _TOGETHER, b)
        for i in range(rows):
            y, x = top + i, width - 1
            total[i] = _start(evidence, y, x, prior, backward, (x % 2) * _TOGETHER + i)
        for x in range(width - 1, -1, -1):
            here, there = (x % 2) * _TOGETHER, ((x + 1) % 2) * _TOGETHER
            for i in range(rows):
                y = top + i
                if x < width - 1:
                    total[i] = _step(
                        evidence, y, x, prior, jump[y, x], total[i], both, both, backward, there + i, here + i
                    )
                _meet(evidence, y, x, forward, x * _TOGETHER + i, backward, here + i, out)


@nb.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _along_columns(evidence, prior, jump, falling, rising, forward, out):  # type: ignore[no-untyped-def]
    """The same from above and below; going down, labels rise with `rising` and fall with `falling`."""
    height, width, count = evidence.shape
    backward, total = np.zeros((2 * _TOGETHER, count + 2), np.float32), np.empty(_TOGETHER, np.float32)
    down, up = (falling, rising), (rising, falling)
    for left in range(0, width, _TOGETHER):
        columns = min(_TOGETHER, width - left)
        for i in range(columns):
            total[i] = _start(evidence, 0, left + i, prior, forward, i)
        for y in range(1, height):
            for i in range(columns):
                x, b = left + i, y * _TOGETHER + i
                total[i] = _step(evidence, y, x, prior, jump[y - 1, x], total[i], down, down, forward, b - _TOGETHER, b)
        for i in range(columns):
            x, y = left + i, height - 1
            total[i] = _start(evidence, y, x, prior, backward, (y % 2) * _TOGETHER + i)
        for y in range(height - 1, -1, -1):
            here, there = (y % 2) * _TOGETHER, ((y + 1) % 2) * _TOGETHER
            for i in range(columns):
                x = left + i
                if y < height - 1:
                    total[i] = _step(
                        evidence, y, x, prior, jump[y, x], total[i], up, down, backward, there + i, here + i
                    )
                _meet(evidence, y, x, forward, y * _TOGETHER + i, backward, here + i, out)


@nb.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _marginals(a, b, prior, out):  # type: ignore[no-untyped-def]
    """Normalised geometric mean of both combs' beliefs, times the prior."""
    height, width, count = out.shape
    for y in range(height):
        for x in range(width):
            total = np.float32(1e-30)
            for k in range(count):
                value = np.sqrt(a[y, x, k]) * np.sqrt(b[y, x, k]) * prior[y, k]
                out[y, x, k] = value
                total += value
            scale = np.float32(1.0) / total
            for k in range(count):
                out[y, x, k] *= scale


class CombMarginals:
    """Marginals for grids of one shape (H, W, K); all buffers are made once."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        if shape[2] < 3:
            raise InputError(f"label field: expected at least 3 labels, got {shape[2]}")
        self.shape = shape
        self._with_rows, self._with_columns = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._messages = np.zeros((_TOGETHER * max(shape[:2]), shape[2] + 2), np.float32)

    def __call__(
        self, evidence: Field, prior: Field, jump_x: Field, jump_y: Field, drift: float, rising: float, falling: float
    ) -> Field:
        """Marginals (H, W, K), rows summing to 1; the array belongs to the instance.

        Args:
            evidence: Likelihood of each label, (H, W, K), positive, at most 1.
            prior: Prior of each label for each row of the grid, (H, K), rows summing to 1.
            jump_x, jump_y: Probability of a jump between a cell and its right / lower neighbour, (H, W).
            drift: Probability that the label rises by one to the next column, and likewise that it falls.
            rising, falling: Probability that it rises, falls, by one to the next lower row.
        """
        side, up, down = np.float32(drift), np.float32(rising), np.float32(falling)
        teeth, other, messages = self._with_rows, self._with_columns, self._messages
        _along_rows(evidence, prior, jump_x, side, messages, teeth)
        _along_columns(evidence, prior, jump_y, down, up, messages, other)
        # The teeth's beliefs are the evidence on the spine.
        _along_columns(teeth, prior, jump_y, down, up, messages, teeth)
        _along_rows(other, prior, jump_x, side, messages, other)
        _marginals(teeth, other, prior, other)
        return other
