"""Every node's parameter dataclass, for documentation."""

from __future__ import annotations

from dfd_ros.nodes.aperture_node import ApertureParameters
from dfd_ros.nodes.depth_node import DepthParameters
from dfd_ros.nodes.lidar_depth_node import LidarDepthParameters
from dfd_ros.nodes.pair_node import PairParameters
from dfd_ros.nodes.parameters import describe
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


def markdown_tables() -> str:
    """The parameters of all nodes as Markdown tables, for the README."""
    lines = []
    for name, record in NODE_PARAMETERS.items():
        lines += [f"**{name}**", "", "| parameter | default | allowed | meaning |", "|---|---|---|---|"]
        for row in describe(record):
            default = f"`{row.default}`{f' {row.unit}' if row.unit else ''}"
            cells = (f"`{row.name}`", default, row.allowed, row.description)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines).rstrip()
