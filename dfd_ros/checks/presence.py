"""Whether everything was recorded that data sets are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from dfd_ros.checks.findings import Finding, Severity
from dfd_ros.checks.messages import Seen
from dfd_ros.datasets import topics as names

_USES = {
    names.INFO: "without it there are no depths",
    names.POINTS: "without it there are no depths",
}


class Presence:
    """Topics that are missing or empty.

    Args:
        topics: Recorded topic by the vehicle's name.
    """

    def __init__(self, topics: Mapping[str, str]) -> None:
        self._topics = topics
        self._counts: Counter[str] = Counter()

    def see(self, seen: Seen) -> None:
        self._counts[seen.name] += 1

    def findings(self) -> Iterator[Finding]:
        if not self._counts[names.PAIR]:
            for name in (names.IMAGE, names.APERTURE):
                if not self._counts[name]:
                    yield self._missing(name, Severity.FATAL, f"without it, or {names.PAIR}, there are no pairs")
        # A recorded pair brings its camera_info along.
        wanted = (names.POINTS,) if self._counts[names.PAIR] else (names.INFO, names.POINTS)
        for name in wanted:
            if not self._counts[name]:
                yield self._missing(name, Severity.WARNING, _USES[name])

    def _missing(self, name: str, severity: Severity, use: str) -> Finding:
        topic = self._topics.get(name, "")
        came = "no message on it" if topic else "no such topic"
        hint = "" if topic else f" (other names: --topic {name}=TOPIC)"
        return Finding("missing_topic", severity, topic or name, None, f"expected {name}, got {came}: {use}{hint}")


def no_extrinsics(lidar_frame: str, camera_frame: str) -> str:
    """What is said where nothing tells where the LiDAR is; many vehicles keep that in a file."""
    wanted = f"/tf_static to join {lidar_frame!r} to {camera_frame!r}, or --extrinsics FILE"
    return f"the LiDAR's place was not checked: expected {wanted}, got neither"
