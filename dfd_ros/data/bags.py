"""ROS 2 bags without ROS: one door to their writer and their reader."""

from dfd_ros.data.bag_reader import BagMessage, BagReader
from dfd_ros.data.bag_writer import BagWriter, OfferedQos, RecordingError

__all__ = ["BagMessage", "BagReader", "BagWriter", "OfferedQos", "RecordingError"]
