"""Static transforms from /tf_static, through tf2_ros where it is installed. There is no stand-in."""

from __future__ import annotations

import time

import numpy as np
from geometry_msgs.msg import Quaternion, Vector3
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from scipy.spatial.transform import Rotation

from dfd_ros.geometry import Transform

try:
    import tf2_ros
    from tf2_msgs.msg import TFMessage

    HAS_TF2 = True
except ImportError:
    HAS_TF2 = False

TOPIC = "/tf_static"
QUEUE_DEPTH = 100  # as tf2_ros listens: one latched message per broadcaster
POLL_INTERVAL = 0.02  # seconds between two looks while waiting
_LISTENER = "_dfd_ros_static_transforms"  # the node's attribute that holds its listener, which lives as long as it


def static_transform(node: Node, target_frame: str, source_frame: str, timeout: float = 1.0) -> Transform | None:
    """The transform `target_from_source` if /tf_static tells it, else None; always None without tf2_ros.

    To be asked for every message: the first call makes the node listen, and the calls for the same frames together
    wait `timeout` seconds at most, so that a frame which nobody publishes delays a node once. A wait helps only while
    the node's executor spins in another thread; in one of the executor's own callbacks, ask with a timeout of 0.
    """
    if not HAS_TF2:
        return None
    if not hasattr(node, _LISTENER):
        setattr(node, _LISTENER, _Listener(node))
    listener: _Listener = getattr(node, _LISTENER)
    return listener.lookup(target_frame, source_frame, timeout)


class _Listener:
    """What a node has heard of /tf_static. It does not listen to /tf, whose rate would cost the node for nothing."""

    def __init__(self, node: Node) -> None:
        self._buffer = tf2_ros.Buffer()
        qos = QoSProfile(depth=QUEUE_DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(TFMessage, TOPIC, self._hear, qos, callback_group=ReentrantCallbackGroup())
        self._first_asked: dict[tuple[str, str], float] = {}

    def lookup(self, target: str, source: str, timeout: float) -> Transform | None:
        deadline = self._first_asked.setdefault((target, source), time.monotonic()) + timeout
        while True:
            try:
                stamped = self._buffer.lookup_transform(target, source, Time())
            except tf2_ros.TransformException:
                if time.monotonic() >= deadline:
                    return None
                time.sleep(POLL_INTERVAL)
            else:
                return _transform(stamped.transform.rotation, stamped.transform.translation)

    def _hear(self, message: TFMessage) -> None:
        for transform in message.transforms:
            self._buffer.set_transform_static(transform, TOPIC)


def _transform(rotation: Quaternion, translation: Vector3) -> Transform:
    turn = Rotation.from_quat([rotation.x, rotation.y, rotation.z, rotation.w])
    return Transform(turn.as_matrix(), np.array([translation.x, translation.y, translation.z]))
