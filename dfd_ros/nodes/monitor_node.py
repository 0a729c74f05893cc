"""The monitor node: keeps the newest diagnostics of every node, for a display to show."""

from __future__ import annotations

from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node


@dataclass(frozen=True)
class NodeStatus:
    """What one node said of itself last.

    Attributes:
        level: 0 ok, 1 warning, 2 error.
        message: In words.
        values: Its counts, rates and timings.
    """

    level: int
    message: str
    values: dict[str, str]


class MonitorNode(Node):
    """See the module."""

    def __init__(self, **arguments: object) -> None:
        super().__init__("monitor", **arguments)
        self.statuses: dict[str, NodeStatus] = {}  # replaced, never altered: a display reads it from its own thread
        self._subscription = self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 20)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        statuses = dict(self.statuses)
        for status in array.status:
            values = {value.key: value.value for value in status.values}
            level = int.from_bytes(status.level, "little") if isinstance(status.level, bytes) else status.level
            statuses[status.name] = NodeStatus(level, status.message, values)
        self.statuses = statuses
