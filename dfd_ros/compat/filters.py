"""Stand-in for message_filters: messages of several topics, brought together by their stamps.

A message that comes in is joined with the nearest in time of every other topic. The set is given to the callbacks if it
spans less than `slop`, and its messages are used up; a message that finds no partners waits, and the oldest one goes
when more than `queue_size` of a topic wait.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

from dfd_ros.stamps import NANOSECONDS, nanoseconds

DEFAULT_DEPTH = 10  # message_filters' own, where no QoS is given

Callback = Callable[..., None]


class _Filter:
    """What gives messages to callbacks."""

    def __init__(self) -> None:
        self._callbacks: list[tuple[Callback, tuple[Any, ...]]] = []

    def registerCallback(self, callback: Callback, *arguments: Any) -> int:  # noqa: N802 (the library's name)
        """Have `callback(*messages, *arguments)` called for every output; returns the callback's number."""
        self._callbacks.append((callback, arguments))
        return len(self._callbacks) - 1

    def _signal(self, *messages: Any) -> None:
        for callback, arguments in self._callbacks:
            callback(*messages, *arguments)


class Subscriber(_Filter):
    """A subscription as the source of a synchronizer.

    Attributes:
        sub: The subscription itself, for `node.destroy_subscription`.
        topic: The topic's name as given.
    """

    def __init__(
        self, node: Node, msg_type: type, topic: str, *, qos_profile: QoSProfile | int = DEFAULT_DEPTH, **options: Any
    ) -> None:
        super().__init__()
        self.topic = topic
        self.sub = node.create_subscription(msg_type, topic, self._signal, qos_profile, **options)


class ApproximateTimeSynchronizer(_Filter):
    """Gives the callbacks one message of each of `filters`, in their order, whose header stamps span less than `slop`.

    Args:
        filters: The sources, `Subscriber`s of messages with a header.
        queue_size: How many messages of each source may wait for partners.
        slop: Stamps of a set lie less than this apart, seconds; 0 therefore matches nothing.
    """

    def __init__(self, filters: Sequence[_Filter], queue_size: int, slop: float) -> None:
        super().__init__()
        self._queue_size = queue_size
        self._slop = int(slop * NANOSECONDS)
        self._queues: list[dict[int, Any]] = [{} for _ in filters]  # stamp in nanoseconds to message
        self._lock = threading.Lock()
        for index, source in enumerate(filters):
            source.registerCallback(self._add, index)

    def _add(self, message: Any, index: int) -> None:
        stamp = nanoseconds(message.header.stamp)
        with self._lock:  # held through the callbacks, which therefore come one at a time and in order
            queue = self._queues[index]
            queue[stamp] = message
            while len(queue) > self._queue_size:
                del queue[min(queue)]
            stamps = self._match(stamp, index)
            if stamps is not None:
                self._signal(*[queue.pop(time) for queue, time in zip(self._queues, stamps, strict=True)])

    def _match(self, stamp: int, index: int) -> tuple[int, ...] | None:
        """The stamps of the first set around `stamp`, nearest first and earlier topics varying slowest, or None."""
        if stamp not in self._queues[index]:
            return None  # older than a full queue, and gone already
        near = [[s for s in queue if abs(s - stamp) <= self._slop] for queue in self._queues]
        near[index] = [stamp]
        sets = itertools.product(*(sorted(stamps, key=lambda s: abs(s - stamp)) for stamps in near))
        return next((stamps for stamps in sets if max(stamps) - min(stamps) < self._slop), None)
