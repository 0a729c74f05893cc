"""Drives of the simulated vehicle as lists of messages, made without running it, and what it takes to plant faults."""

from dataclasses import dataclass

import numpy as np
from bag_maker import MESSAGE_FOLDER, SECOND, STORE, aperture_state, cdr, cloud, header, image, message, time_of

from dfd_ros.data.bags import BagWriter
from dfd_ros.lidar.calibration import load_extrinsics
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.share import config_file
from dfd_ros.sim.spinning_lidar import LidarSettings
from dfd_ros.sim.vehicle import SimSettings, SimulatedVehicle, camera_of
from dfd_ros.tone import linear_grey

START = 1_700_000_000 * SECOND
MS = SECOND // 1000
PERIOD = 100 * MS  # of frames and sweeps
DELAY = 8 * MS
EXPOSURES = (0.001, 0.004)
TIMED = ("x", "y", "z", "time")  # the sweeps' fields
IMAGE, INFO, STATE = "/camera/image_raw", "/camera/camera_info", "/camera/aperture/state"
EXPOSURE, POINTS, STATIC, TWIST = "/camera/exposure", "/camera/points", "/tf_static", "/camera/twist"


@dataclass
class Recorded:
    """One message: its topic, the message object, and when it was received, nanoseconds."""

    topic: str
    content: object
    received: int

    @property
    def seconds(self):
        return (self.received - START) / SECOND


def record(seed=0, frames=60, moving=False):
    """What the simulated vehicle records; its pictures are grey."""
    lens = load_lens(config_file("lenses/street.yaml"))
    pose = load_extrinsics(config_file("vehicle_extrinsics.yaml")).camera_from_lidar
    rate = SECOND / PERIOD
    settings = SimSettings(seed=seed, moving=moving, frame_rate=rate, lidar_rate=rate, lidar=LidarSettings(sector=30.0))
    vehicle = SimulatedVehicle(settings, lens, camera_of(lens), pose)
    vehicle.prepare((frames - 1) / rate if moving else 0.0)
    rng = np.random.default_rng(seed)
    messages = [Recorded(STATIC, _static(pose), START)]
    for number in range(frames):
        stamp, aperture = START + SECOND + number * PERIOD, number % 2
        seconds = number / rate
        shares = (1.0 - aperture, float(aperture))
        picture = vehicle.photograph(seconds, EXPOSURES[aperture], shares)
        grey = np.rint(255 * linear_grey(picture, 2.2) ** (1 / 2.2)).astype(np.uint8)
        late = stamp + DELAY + int(rng.integers(0, 10 * MS))
        exposure = message("dfd_msgs/msg/Exposure", header=header(stamp), exposure_time=EXPOSURES[aperture], gain=1.0)
        messages += [
            Recorded(EXPOSURE, exposure, late),
            Recorded(INFO, _info(vehicle.camera, stamp), late + 1),
            Recorded(IMAGE, image(stamp, grey, "mono8"), late + 2),
            Recorded(STATE, aperture_state(number, stamp - 30 * MS, stamp - 10 * MS, stamp + 30 * MS), stamp + 30 * MS),
        ]
        swept = stamp + 3 * MS
        speed = vehicle.world_from_camera(seconds).rotation.T @ [settings.speed if moving else 0.0, 0.0, 0.0]
        twist = message("geometry_msgs/msg/TwistStamped", header=header(swept))
        twist.twist.linear.x, twist.twist.linear.y, twist.twist.linear.z = speed.tolist()
        sweep = vehicle.sweep(seconds + 0.003)
        points = cloud(swept, TIMED, np.stack([sweep[name] for name in TIMED], axis=1))
        messages += [
            Recorded(TWIST, twist, swept + DELAY),
            Recorded(POINTS, points, swept + DELAY + int(rng.integers(0, 20 * MS))),
        ]
    return sorted(messages, key=lambda one: one.received)


def write_bag(path, messages):
    with BagWriter(path, [MESSAGE_FOLDER]) as bag:
        for one in sorted(messages, key=lambda one: one.received):
            bag.write(one.topic, one.content.__msgtype__, cdr(one.content), one.received)
    return path


def copied(one):
    """A message that may be changed; its arrays are its own."""
    return Recorded(one.topic, STORE.deserialize_cdr(cdr(one.content), one.content.__msgtype__), one.received)


def stamp_of(content):
    return content.header.stamp.sec * SECOND + content.header.stamp.nanosec


def restamped(one, by):
    """The message with its stamp later by so many nanoseconds."""
    changed = copied(one)
    changed.content.header.stamp = time_of(stamp_of(one.content) + round(by))
    return changed


def array_of(content):
    return np.array(content.data).reshape(content.height, content.width)


def repainted(one, picture):
    """The image message with another picture."""
    return Recorded(one.topic, image(stamp_of(one.content), picture, "mono8"), one.received)


def _info(camera, stamp):
    return message(
        "sensor_msgs/msg/CameraInfo",
        header=header(stamp),
        width=camera.width,
        height=camera.height,
        k=camera.matrix.ravel(),
        distortion_model="plumb_bob",
    )


def _static(pose):
    from scipy.spatial.transform import Rotation

    turn = dict(zip("xyzw", Rotation.from_matrix(pose.rotation).as_quat().tolist(), strict=True))
    shift = dict(zip("xyz", pose.translation.tolist(), strict=True))
    transform = message(
        "geometry_msgs/msg/Transform",
        translation=message("geometry_msgs/msg/Vector3", **shift),
        rotation=message("geometry_msgs/msg/Quaternion", **turn),
    )
    stamped = message(
        "geometry_msgs/msg/TransformStamped", header=header(START), child_frame_id="lidar", transform=transform
    )
    return message("tf2_msgs/msg/TFMessage", transforms=[stamped])
