"""A node's callbacks, run in a thread: what benchmarks of nodes share."""

from __future__ import annotations

import os
import threading

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node


class Spinning:
    """Runs a node's callbacks in a thread until stopped."""

    def __init__(self, node: Node) -> None:
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._stopping = False
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._thread.join()
        self._executor.shutdown()

    def _spin(self) -> None:
        while not self._stopping:
            self._executor.spin_once(timeout_sec=0.05)


def stay_alone() -> None:
    """Keep to this machine, in a domain of one's own; processes started from here share it."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
