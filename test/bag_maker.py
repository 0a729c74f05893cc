"""Messages for tests, made with rosbags' own types and serialisation: independent of the code under test."""

from pathlib import Path

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

MESSAGE_FOLDER = Path(__file__).parents[1] / "dfd_msgs" / "msg"
SECOND = 1_000_000_000


def make_typestore():
    store = get_typestore(Stores.ROS2_JAZZY)
    for file in MESSAGE_FOLDER.glob("*.msg"):
        store.register(get_types_from_msg(file.read_text(), f"dfd_msgs/msg/{file.stem}"))
    return store


STORE = make_typestore()


def message(type_name, /, **given):
    """A message of zeros and empty strings, but for the fields given."""
    fields = {}
    for name, (kind, detail) in STORE.fielddefs[type_name][1]:
        if name in given:
            fields[name] = given[name]
        elif kind == Nodetype.NAME:
            fields[name] = message(detail)
        elif kind == Nodetype.BASE:
            fields[name] = "" if detail[0] == "string" else np.zeros((), detail[0]).item()
        else:
            element, count = detail
            plain = element[0] == Nodetype.BASE and element[1][0] != "string"
            fields[name] = np.zeros(count if kind == Nodetype.ARRAY else 0, element[1][0]) if plain else []
    assert given.keys() <= fields.keys()
    return STORE.types[type_name](**fields)


def time_of(stamp_ns):
    return message("builtin_interfaces/msg/Time", sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)


def header(stamp_ns, frame="camera"):
    return message("std_msgs/msg/Header", stamp=time_of(stamp_ns), frame_id=frame)


def image(stamp_ns, array, encoding, padding=0):
    """An image message; `padding` bytes are added to each row."""
    array = np.ascontiguousarray(array)
    rows = array.reshape(array.shape[0], -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    return message(
        "sensor_msgs/msg/Image",
        header=header(stamp_ns),
        height=array.shape[0],
        width=array.shape[1],
        encoding=encoding,
        step=rows.shape[1],
        data=rows.reshape(-1),
    )


def cloud(stamp_ns, names, columns):
    """A LiDAR's sweep of float32 fields, (N, number of names)."""
    packed = np.ascontiguousarray(columns, "<f4")
    fields = [
        message("sensor_msgs/msg/PointField", name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate(names)
    ]
    return message(
        "sensor_msgs/msg/PointCloud2",
        header=header(stamp_ns, "lidar"),
        height=1,
        width=len(packed),
        fields=fields,
        point_step=packed.itemsize * len(fields),
        row_step=packed.nbytes,
        data=packed.reshape(-1).view(np.uint8),
        is_dense=True,
    )


def aperture_state(number, begin, settled, known_until):
    """After `number` transitions, the last begun and settled then; shallow and deep in turn."""
    return message(
        "dfd_msgs/msg/ApertureState",
        header=header(known_until),
        index=number % 2,
        f_number=(1.8, 4.0)[number % 2],
        transition_start=time_of(begin),
        settled_at=time_of(settled),
        transitions=number,
    )


def cdr(content):
    return bytes(STORE.serialize_cdr(content, content.__msgtype__))
