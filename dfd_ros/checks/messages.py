"""A bag's messages as checks see them, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dfd_ros.data.bags import BagMessage, BagReader
from dfd_ros.data.image_messages import header_stamp
from dfd_ros.datasets import topics as names
from dfd_ros.datasets.scan import Reference

SENSORS = (names.IMAGE, names.PAIR, names.INFO, names.EXPOSURE, names.APERTURE, names.POINTS, names.TWIST)
"""Names of the topics with stamps that checks look at."""


@dataclass(frozen=True)
class Seen:
    """A recorded message of one of `SENSORS`.

    Attributes:
        name: The vehicle's name of its topic.
        at: When it was received, and its stamp.
        message: The message.
        bag: Where it comes from.
    """

    name: str
    at: Reference
    message: BagMessage
    bag: BagReader

    @property
    def topic(self) -> str:
        """The topic's recorded name."""
        return self.message.topic

    def content(self) -> Any:
        """The message object; raises InputError where the bytes are none."""
        return self.bag.decode(self.message)


def messages(bag: BagReader, topics: Mapping[str, str]) -> Iterator[Seen]:
    """The bag's messages of `SENSORS` in the order of receipt.

    Raises:
        InputError: The bag is damaged from here on.
    """
    by_topic = {topics[name]: name for name in SENSORS if name in topics}
    for message in bag.messages(by_topic):
        at = Reference(message.receive_time_ns, header_stamp(message.data))
        yield Seen(by_topic[message.topic], at, message, bag)
