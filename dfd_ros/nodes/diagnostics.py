"""What a node counts and how it feels, once a second on /diagnostics."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

# Drops that are a node's normal work, no reason to warn.
EXPECTED_CAUSES = frozenset({"superseded", "transition", "unpaired"})


class Diagnostics:
    """Counters, drops by cause, timings and a fault; safe to call from any thread."""

    PERIOD = 1.0  # seconds
    LOG_PERIOD = 10.0  # seconds between two log lines of the same cause
    TIMINGS = 512  # kept for the percentiles

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._published: Counter[str] = Counter()
        self._timings: dict[str, deque[float]] = {}
        self._values: dict[str, str] = {}
        self._logged: dict[str, float] = {}
        self._last_drop = ""
        self._fault = ""
        self._last_publication = time.monotonic()
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = node.create_timer(self.PERIOD, self.publish)

    def count(self, what: str, times: int = 1) -> None:
        """Count an event; it shows as `<what>` and, per second, as `<what>_hz`."""
        with self._lock:
            self._counts[what] += times

    def total(self, what: str) -> int:
        """How often `what` was counted."""
        with self._lock:
            return self._counts[what]

    def drop(self, cause: str, why: str = "", times: int = 1) -> None:
        """Count dropped work as `dropped/<cause>`; `why` is a sentence for the log, which repeats itself rarely."""
        now = time.monotonic()
        with self._lock:
            self._counts[f"dropped/{cause}"] += times
            if cause not in EXPECTED_CAUSES:
                self._last_drop = why or cause
            log = bool(why) and now - self._logged.get(cause, -np.inf) >= self.LOG_PERIOD
            if log:
                self._logged[cause] = now
            so_far = self._counts[f"dropped/{cause}"]
        if log:
            self._node.get_logger().warning(f"dropped ({cause}, {so_far} so far): {why}")

    def timing(self, what: str, seconds: float) -> None:
        """Note a duration; its percentiles show as `<what>_ms_p50` and `<what>_ms_p95`."""
        with self._lock:
            self._timings.setdefault(what, deque(maxlen=self.TIMINGS)).append(seconds)

    def value(self, key: str, text: str) -> None:
        """Show a value under `key`."""
        with self._lock:
            self._values[key] = text

    def fault(self, why: str | None) -> None:
        """Set (a sentence) or clear (None) the node's fault; a new one is logged."""
        with self._lock:
            changed = (why or "") != self._fault
            self._fault = why or ""
        if changed and why:
            self._node.get_logger().error(why)
        elif changed:
            self._node.get_logger().info("works again")

    def publish(self) -> None:
        """Publish the state of now (the timer calls it; a node calls it once more before it stops)."""
        if not self._node.context.ok():
            return
        now = time.monotonic()
        with self._lock:
            elapsed = max(now - self._last_publication, 1e-6)
            self._last_publication = now
            fresh = self._counts - self._published
            self._published = self._counts.copy()
            values = dict(self._values)
            for what, count in sorted(self._counts.items()):
                values[what] = str(count)
                if not what.startswith("dropped/"):
                    values[f"{what}_hz"] = f"{fresh[what] / elapsed:.2f}"
            for what, timings in self._timings.items():
                median, high = np.percentile(np.array(timings), (50, 95))
                values[f"{what}_ms_p50"], values[f"{what}_ms_p95"] = f"{1e3 * median:.1f}", f"{1e3 * high:.1f}"
            bad_drops = sum(
                count
                for what, count in fresh.items()
                if what.startswith("dropped/") and what.removeprefix("dropped/") not in EXPECTED_CAUSES
            )
            level, message = DiagnosticStatus.OK, "ok"
            if self._fault:
                level, message = DiagnosticStatus.ERROR, self._fault
            elif bad_drops:
                level, message = DiagnosticStatus.WARN, f"{bad_drops} dropped: {self._last_drop}"
        status = DiagnosticStatus(
            level=level,
            name=self._node.get_fully_qualified_name().lstrip("/"),
            message=message,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)
