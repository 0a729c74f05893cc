"""Recorded pairs as samples: `pair` with the depth of the same stamp, from a bag of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfd_ros.data.bags import BagReader
from dfd_ros.data.image_messages import depth_array, header_stamp, rgb_array
from dfd_ros.data.samples import Dataset, Sample, as_values, check_depth, check_same_size
from dfd_ros.data.vehicle_messages import lens_from_message
from dfd_ros.errors import InputError
from dfd_ros.storage import open_place

PAIR = "pair"
DEPTHS = ("ground_truth/depth", "lidar/depth", "lidar/sparse_depth")
"""Topics of depth, the best first."""


class BagPairs(Dataset):
    """The pairs of a bag that have depth, in the order of recording; named by their stamps, nanoseconds.

    Args:
        path: The bag.
        depth: The relative topic of depth; None: the first of `DEPTHS` that was recorded.

    Raises:
        InputError: The path is no bag, or it has no pairs, no depth, or none of the same stamp.
    """

    def __init__(self, path: str | Path, depth: str | None = None) -> None:
        self.path = open_place(path)
        with BagReader(path) as bag:
            self._pair_topic = _find(bag.topics, (PAIR,), self.path)
            self._depth_topic = _find(bag.topics, DEPTHS if depth is None else (depth,), self.path)
            received: dict[str, dict[int, int]] = {self._pair_topic: {}, self._depth_topic: {}}
            for message in bag.messages(received):
                received[message.topic][header_stamp(message.data)] = message.receive_time_ns
        pairs, depths = received[self._pair_topic], received[self._depth_topic]
        self._times = [(pairs[stamp], depths[stamp]) for stamp in pairs if stamp in depths]
        self._stamps = [stamp for stamp in pairs if stamp in depths]
        if not self._stamps:
            raise InputError(
                f"bag {path}: expected pairs with {self._depth_topic} of the same stamp, "
                f"got none among {len(pairs)} pairs and {len(depths)} depths"
            )
        self.names = tuple(map(str, self._stamps))

    def read(self, index: int) -> Sample:
        stamp = self._stamps[index]
        with BagReader(self.path) as bag:
            pair, depth_message = (
                self._message(bag, topic, time, stamp)
                for topic, time in zip((self._pair_topic, self._depth_topic), self._times[index], strict=True)
            )
        what = f"bag {self.path}, pair {stamp}"
        shallow, deep = rgb_array(pair.shallow, what), rgb_array(pair.deep, what)
        depth = depth_array(depth_message, what).copy()
        depth[~(depth > 0.0)] = float("nan")
        check_same_size(f"{what}: deep image", shallow, deep, "the shallow image")
        check_same_size(f"{what}: depth", shallow, depth, "the pair")
        check_depth(what, depth)
        lens = lens_from_message(pair.lens)
        return Sample(str(stamp), as_values(shallow), as_values(deep), depth, lens, gamma=float(pair.gamma))

    def _message(self, bag: BagReader, topic: str, time: int, stamp: int) -> Any:
        for message in bag.messages((topic,), start_time_ns=time):
            if header_stamp(message.data) == stamp:
                return bag.decode(message)
        raise InputError(f"bag {self.path}: expected {topic} of stamp {stamp}, got none: the bag has changed")


def _find(recorded: dict[str, str], names: Sequence[str], path: Path) -> str:
    """The recorded topic of the first relative name that there is."""
    for name in names:
        found = sorted(topic for topic in recorded if topic.endswith(f"/{name}"))
        if len(found) > 1:
            raise InputError(f"bag {path}: expected the topic {name} once, got {', '.join(found)}")
        if found:
            return found[0]
    raise InputError(f"bag {path}: expected the topic {' or '.join(names)}, got none of it")
