"""Every node's parameter dataclass, for documentation."""

from __future__ import annotations

from dfd_ros.nodes.aperture_node import ApertureParameters
from dfd_ros.nodes.depth_node import DepthParameters
from dfd_ros.nodes.lidar_depth_node import LidarDepthParameters
from dfd_ros.nodes.pair_node import PairParameters
from dfd_ros.nodes.record_node import RecordParameters
from dfd_ros.nodes.replay_node import ReplayParameters
from dfd_ros.nodes.sim_node import SimParameters

NODE_PARAMETERS: dict[str, type] = {
    "aperture": ApertureParameters,
    "pair": PairParameters,
    "lidar_depth": LidarDepthParameters,
    "depth": DepthParameters,
    "record": RecordParameters,
    "sim": SimParameters,
    "replay": ReplayParameters,
}
