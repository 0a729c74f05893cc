"""Whether the LiDAR's outlines lie on the images' edges, and stay there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfd_ros.checks.drawing import shrunk, with_outlines
from dfd_ros.checks.edges import edge_strength, outlines, pixels_of, score_map
from dfd_ros.checks.exposure import is_exposed
from dfd_ros.checks.findings import Finding, Picture, Severity
from dfd_ros.checks.samples import PairSample
from dfd_ros.datasets.scan import Reference
from dfd_ros.tone import linear_grey

STRETCHES = 6
"""Parts of the recording whose alignments are compared."""
LEAST_SHIFT = 0.016
"""Of the width: a smaller shift is within what outlines between beams and a scene's own patterns make up."""
WORSE = 0.2
"""Where outlines fit less than the best by so much of what it stands out from the median by, they do not fit. Where they
fit, it is 0.01 or less (six simulated streets, two frames of KITTI)."""
NEAR = 0.006
"""Of the width: how near a place is that counts as the same."""


@dataclass(frozen=True)
class _Aligned:
    """A pair's scores, and what it takes to draw it."""

    at: Reference
    scores: NDArray[np.float32]
    width: int
    focal: float


class Alignment:
    """Extrinsics that do not fit, from the start or from some time on."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._seen: list[_Aligned] = []
        self._last: tuple[Picture, NDArray[np.float64]] | None = None

    def see(self, seen: PairSample) -> None:
        if seen.points is None or seen.camera is None or seen.camera_from_lidar is None or not is_exposed(seen.deep):
            return
        picture, camera = shrunk(seen.deep), seen.camera
        camera = camera.resized(picture.shape[1], picture.shape[0])
        found = outlines(seen.points, seen.camera_from_lidar, camera)
        # The root of light: an edge in the shade is one, too.
        scores = score_map(edge_strength(np.sqrt(linear_grey(picture, seen.gamma))), found, camera)
        if scores is not None and (not self._seen or scores.shape == self._seen[0].scores.shape):
            self._seen.append(_Aligned(seen.at, scores.astype(np.float32), camera.width, camera.fx))
            self._last = picture, pixels_of(found.points, camera)

    def findings(self) -> Iterator[Finding]:
        if not self._seen or self._last is None:
            return
        whole, width = _mean(self._seen), self._seen[0].width
        degrees = math.degrees(1.0 / self._seen[0].focal)
        parts = [
            self._seen[i * len(self._seen) // STRETCHES : (i + 1) * len(self._seen) // STRETCHES]
            for i in range(STRETCHES)
        ]
        parts = [part for part in parts if part]
        first, last = _mean(parts[0]), _mean(parts[-1])
        went = tuple(b - a for a, b in zip(_best(first), _best(last), strict=True))
        if _apart(first, _best(last), width) and _apart(last, _best(first), width):
            sentence = (
                f"expected the LiDAR's outlines to stay on the images' edges, got a drift of {math.hypot(*went):.0f} px "
                f"(as turned by {degrees * math.hypot(*went):.2f} degrees) from the first to the last"
            )
            yield Finding("alignment_drift", Severity.ERROR, self._topic, parts[-1][0].at, sentence, self._drawn(last))
        elif _apart(whole, (0, 0), width):
            right, down = _best(whole)
            sentence = (
                f"expected the LiDAR's outlines on the images' edges, they fit better {math.hypot(right, down):.0f} px "
                f"away ({right:+d} to the right, {down:+d} down; as turned by {degrees * math.hypot(right, down):.2f} "
                f"degrees): score {_score(whole, (0, 0), 0.0):.3f} as recorded, {whole.max():.3f} there"
            )
            yield Finding("extrinsics", Severity.ERROR, self._topic, None, sentence, self._drawn(whole))

    def _drawn(self, scores: NDArray[np.float64]) -> Picture | None:
        return None if self._last is None else with_outlines(*self._last, _best(scores))


def _mean(part: list[_Aligned]) -> NDArray[np.float64]:
    return np.mean([one.scores for one in part], axis=0, dtype=np.float64)


def _best(scores: NDArray[np.float64]) -> tuple[int, int]:
    """The shift (columns, rows) that fits best, pixels."""
    row, column = np.unravel_index(int(scores.argmax()), scores.shape)
    return int(column) - scores.shape[1] // 2, int(row) - scores.shape[0] // 2


def _score(scores: NDArray[np.float64], shift: tuple[int, int], near: float) -> float:
    """The best score within `near` pixels of a shift (columns, rows)."""
    reach = scores.shape[0] // 2
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return float(scores[np.hypot(columns - shift[0], rows - shift[1]) <= near].max())


def _apart(scores: NDArray[np.float64], shift: tuple[int, int], width: int) -> bool:
    """Whether the best shift is another one than this, and clearly better."""
    best = _best(scores)
    far = math.hypot(best[0] - shift[0], best[1] - shift[1]) > LEAST_SHIFT * width
    top = float(scores.max())
    return far and top - _score(scores, shift, NEAR * width) > WORSE * (top - float(np.median(scores)))
