"""Which recorded topic is which of the vehicle's: by its name, or by a mapping that the user gives."""

from __future__ import annotations

from collections.abc import Mapping

from dfd_ros.errors import InputError

IMAGE, PAIR, INFO, APERTURE = "image_raw", "pair", "camera_info", "aperture/state"
EXPOSURE, POINTS, TWIST, TRANSFORMS = "exposure", "points", "twist", "tf_static"
TYPES = {
    PAIR: "dfd_msgs/msg/ImagePair",
    IMAGE: "sensor_msgs/msg/Image",
    INFO: "sensor_msgs/msg/CameraInfo",
    APERTURE: "dfd_msgs/msg/ApertureState",
    EXPOSURE: "dfd_msgs/msg/Exposure",
    POINTS: "sensor_msgs/msg/PointCloud2",
    TWIST: "geometry_msgs/msg/TwistStamped",
    TRANSFORMS: "tf2_msgs/msg/TFMessage",
}
"""Names in the vehicle and their types; what tells the camera's namespace comes first."""


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Refuse a mapping of names that the vehicle has not; raises InputError."""
    unknown = sorted(mapping.keys() - TYPES.keys())
    if unknown:
        raise InputError(f"topic {unknown[0]}: expected one of {', '.join(TYPES)} on the left, got {unknown[0]!r}")


def find_topics(recorded: Mapping[str, str], mapping: Mapping[str, str], what: str) -> dict[str, str]:
    """Recorded topic by the vehicle's name, of those that there are.

    A name that the mapping has is the topic that it says, or none where that is empty. Others are the topic of that
    name in the camera's namespace, that of the images, or else the only one of that name.

    Args:
        recorded: Type by topic.
        mapping: Topic by name.
        what: The bag, for messages.

    Raises:
        InputError: As `name_topics`, or there are neither pairs nor images with the aperture's states.
    """
    found = name_topics(recorded, mapping, what)
    if PAIR not in found and not {IMAGE, APERTURE} <= found.keys():
        missing = IMAGE if IMAGE not in found else APERTURE
        raise InputError(
            f"{what}: expected the topic {PAIR}, or {IMAGE} and {APERTURE}, got no {missing} "
            f"among {', '.join(sorted(recorded))}; other names: --topic {missing}=TOPIC"
        )
    return found


def name_topics(recorded: Mapping[str, str], mapping: Mapping[str, str], what: str) -> dict[str, str]:
    """As `find_topics`, whatever is missing.

    Raises:
        InputError: A topic of the mapping was not recorded or is of another type, or there are images of several
            cameras.
    """
    found: dict[str, str] = {}
    namespace = ""
    for name, type_name in TYPES.items():
        topic = mapping[name] if name in mapping else _by_name(recorded, name, namespace, what)
        if not topic:
            continue
        if topic not in recorded:
            raise InputError(f"{what}: expected the topic {topic} for {name}, got {', '.join(sorted(recorded))}")
        if recorded[topic] != type_name:
            raise InputError(f"{what}: expected {type_name} on {topic}, got {recorded[topic]}")
        found[name] = topic
        if name in (PAIR, IMAGE) and not namespace:
            namespace = topic.removesuffix(name) if topic.endswith(f"/{name}") else topic.rpartition("/")[0] + "/"
    return found


def _by_name(recorded: Mapping[str, str], name: str, namespace: str, what: str) -> str:
    topics = sorted(topic for topic in recorded if topic.endswith(f"/{name}"))
    if f"{namespace}{name}" in topics:
        return f"{namespace}{name}"
    if len(topics) > 1 and name in (PAIR, IMAGE):
        raise InputError(
            f"{what}: expected the topic {name} of one camera, got {', '.join(topics)}; say which: --topic {name}=TOPIC"
        )
    return topics[0] if len(topics) == 1 else ""
