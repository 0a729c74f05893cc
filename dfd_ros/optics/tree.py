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


@nb.njit(cache=True, fastmath=True, nogil=True)
def _send(evidence, message, prior, jump, falling, rising, ends, scratch, out):  # type: ignore[no-untyped-def]
    """Message over one edge: label k takes from k − 1 with `rising`, from k + 1 with `falling`, else stays.

    `ends` are the probabilities to stay of the first and the last label, which cannot leave the range.
    """
    last = evidence.shape[0] - 1
    total = np.float32(0.0)
    for k in range(last + 1):
        scratch[k] = evidence[k] * message[k]
        total += scratch[k] * prior[k]
    gain = (np.float32(1.0) - jump) / max(total, np.float32(1e-30))
    rise, fall = gain * rising, gain * falling
    stay = gain - rise - fall
    for k in range(1, last):
        out[k] = stay * scratch[k] + rise * scratch[k - 1] + fall * scratch[k + 1] + jump
    out[0] = gain * ends[0] * scratch[0] + fall * scratch[1] + jump
    out[last] = gain * ends[1] * scratch[last] + rise * scratch[last - 1] + jump


@nb.njit(cache=True, fastmath=True, nogil=True)
def _along_rows(evidence, prior, jump, drift, forward, backward, scratch):  # type: ignore[no-untyped-def]
    """Messages into every cell from the left (`forward`) and from the right (`backward`), each (H, W, K)."""
    height, width, _ = evidence.shape
    ends = (np.float32(1.0) - drift, np.float32(1.0) - drift)
    for y in range(height):
        e, p = evidence[y], prior[y]
        forward[y, 0] = np.float32(1.0)
        backward[y, width - 1] = np.float32(1.0)
        for x in range(1, width):
            _send(e[x - 1], forward[y, x - 1], p, jump[y, x - 1], drift, drift, ends, scratch, forward[y, x])
        for x in range(width - 2, -1, -1):
            _send(e[x + 1], backward[y, x + 1], p, jump[y, x], drift, drift, ends, scratch, backward[y, x])


@nb.njit(cache=True, fastmath=True, nogil=True)
def _along_columns(evidence, prior, jump, falling, rising, forward, backward, scratch):  # type: ignore[no-untyped-def]
    """Messages from above (`forward`) and below; going down, labels rise with `rising`, fall with `falling`."""
    height, width, _ = evidence.shape
    ends = (np.float32(1.0) - rising, np.float32(1.0) - falling)
    forward[0] = np.float32(1.0)
    backward[height - 1] = np.float32(1.0)
    for y in range(1, height):
        e, p, j = evidence[y - 1], prior[y - 1], jump[y - 1]
        for x in range(width):
            _send(e[x], forward[y - 1, x], p, j[x], falling, rising, ends, scratch, forward[y, x])
    for y in range(height - 2, -1, -1):
        e, p, j = evidence[y + 1], prior[y + 1], jump[y]
        for x in range(width):
            _send(e[x], backward[y + 1, x], p, j[x], rising, falling, ends, scratch, backward[y, x])


@nb.njit(cache=True, fastmath=True, nogil=True)
def _multiply(a, b, c, out):  # type: ignore[no-untyped-def]
    """out = a · b · c, each label's row scaled to a maximum of 1."""
    height, width, labels = a.shape
    for y in range(height):
        for x in range(width):
            top = np.float32(1e-30)
            for k in range(labels):
                out[y, x, k] = a[y, x, k] * b[y, x, k] * c[y, x, k]
                top = max(top, out[y, x, k])
            scale = np.float32(1.0) / top
            for k in range(labels):
                out[y, x, k] *= scale


@nb.njit(cache=True, fastmath=True, nogil=True)
def _marginals(teeth_a, spine_a, teeth_b, spine_b, prior, out):  # type: ignore[no-untyped-def]
    """Normalised geometric mean of both combs' marginals; spines are (forward, backward) messages."""
    height, width, labels = out.shape
    for y in range(height):
        for x in range(width):
            total = np.float32(0.0)
            for k in range(labels):
                a = teeth_a[y, x, k] * spine_a[0, y, x, k] * spine_a[1, y, x, k]
                b = teeth_b[y, x, k] * spine_b[0, y, x, k] * spine_b[1, y, x, k]
                out[y, x, k] = np.sqrt(a) * np.sqrt(b) * prior[y, k]
                total += out[y, x, k]
            scale = np.float32(1.0) / max(total, np.float32(1e-30))
            for k in range(labels):
                out[y, x, k] *= scale


class CombMarginals:
    """Marginals for grids of one shape (H, W, K); all buffers are made once."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        if shape[2] < 3:
            raise InputError(f"label field: expected at least 3 labels, got {shape[2]}")
        self.shape = shape
        self._rows, self._columns = np.empty((2, *shape), np.float32), np.empty((2, *shape), np.float32)
        self._with_rows, self._with_columns = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._scratch = np.empty(shape[2], np.float32)
        self.marginals = np.empty(shape, np.float32)

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
        rows, columns, scratch = self._rows, self._columns, self._scratch
        _along_rows(evidence, prior, jump_x, side, rows[0], rows[1], scratch)
        _along_columns(evidence, prior, jump_y, down, up, columns[0], columns[1], scratch)
        _multiply(evidence, rows[0], rows[1], self._with_rows)
        _multiply(evidence, columns[0], columns[1], self._with_columns)
        _along_columns(self._with_rows, prior, jump_y, down, up, columns[0], columns[1], scratch)
        _along_rows(self._with_columns, prior, jump_x, side, rows[0], rows[1], scratch)
        _marginals(self._with_rows, columns, self._with_columns, rows, prior, self.marginals)
        return self.marginals
