"""The simulated vehicle as hardware: a camera behind the switched aperture, a LiDAR, and the ground truth.

Takes `aperture/state` (what the aperture really did decides what a frame shows); publishes `image_raw`, `camera_info`,
`exposure`, `points`, `twist` (of the camera's frame, with each sweep), and `ground_truth/depth` and
`ground_truth/objects` for scoring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from dfd_msgs.msg import ApertureState, Exposure, ObjectBox, ObjectBoxes
from geometry_msgs.msg import TwistStamped, Vector3
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, RegionOfInterest
from std_msgs.msg import Header

from dfd_ros.capture.aperture import Aperture, ApertureTimeline
from dfd_ros.data.vehicle_messages import report_from_message
from dfd_ros.errors import InputError
from dfd_ros.lidar.calibration import load_extrinsics
from dfd_ros.nodes.base import DfdSource, latched_qos, run
from dfd_ros.nodes.clouds import cloud_message
from dfd_ros.nodes.convert import image_message, info_from_camera, time_message
from dfd_ros.nodes.parameters import parameter
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.share import config_file
from dfd_ros.sim.vehicle import SimSettings, SimulatedVehicle, camera_of
from dfd_ros.stamps import NANOSECONDS


@dataclass(frozen=True)
class SimParameters:
    seed: int = parameter(0, "of everything random: the same seed gives the same lot", minimum=0)
    moving: bool = parameter(False, "drive through the lot instead of standing still")
    speed: float = parameter(0.5, "of driving", unit="m/s", minimum=0.0, maximum=5.0)
    duration: float = parameter(
        20.0, "of the drive that is rendered ahead; it starts over after that", unit="s", minimum=1.0, maximum=3600.0
    )
    frame_rate: float = parameter(15.0, "of the camera", unit="Hz", minimum=0.5, maximum=120.0)
    lidar_rate: float = parameter(10.0, "of the LiDAR's sweeps", unit="Hz", minimum=0.5, maximum=50.0)
    exposure_times: tuple[float, ...] = parameter(
        (0.001, 0.004), "at the shallow and at the deep aperture", unit="s", minimum=1e-5, maximum=1.0
    )
    lens_file: str = parameter("lenses/street.yaml", "lens file; needs focal_length and pixel_pitch")
    extrinsics_file: str = parameter("vehicle_extrinsics.yaml", "where the LiDAR is")
    width: int = parameter(640, "of the image", unit="px", minimum=64, maximum=4096)
    height: int = parameter(480, "of the image", unit="px", minimum=64, maximum=4096)
    frame_id: str = parameter("camera", "the camera's optical frame")
    lidar_frame_id: str = parameter("lidar", "the LiDAR's frame")


class SimNode(DfdSource[SimParameters]):
    """See the module. `progress` is told how much is rendered, from 0 to 1, before the node starts."""

    def __init__(self, progress: Callable[[float], None] | None = None, **arguments: object) -> None:
        super().__init__("sim", SimParameters, **arguments)
        p = self.parameter_set.value
        if len(p.exposure_times) != 2:
            raise InputError(f"parameter exposure_times: expected two numbers, got {len(p.exposure_times)}")
        lens = load_lens(config_file(p.lens_file))
        camera = camera_of(lens, p.width, p.height)
        settings = SimSettings(
            seed=p.seed,
            moving=p.moving,
            speed=p.speed,
            frame_rate=p.frame_rate,
            lidar_rate=p.lidar_rate,
            reference_exposure=p.exposure_times[Aperture.SHALLOW],
        )
        extrinsics = load_extrinsics(config_file(p.extrinsics_file))
        self._vehicle = SimulatedVehicle(settings, lens, camera, extrinsics.camera_from_lidar)
        self._vehicle.prepare(p.duration, progress or self._log_progress)
        self._info = info_from_camera(camera, Header(frame_id=p.frame_id))
        self._timeline = ApertureTimeline()
        self._start: int | None = None
        self._last_frame = -1
        self._image = self.advertise(Image, "image_raw")
        self._camera_info = self.advertise(CameraInfo, "camera_info")
        self._exposure = self.advertise(Exposure, "exposure")
        self._points = self.advertise(PointCloud2, "points")
        self._twist = self.advertise(TwistStamped, "twist")
        self._truth = self.advertise(Image, "ground_truth/depth")
        self._objects = self.advertise(ObjectBoxes, "ground_truth/objects")
        self.subscribe(ApertureState, "aperture/state", self._on_state, latched_qos(depth=100))
        self.create_timer(1.0 / p.lidar_rate, self._sweep)
        moving = f"driving at {p.speed:g} m/s" if p.moving else "standing"
        self.get_logger().info(
            f"{moving}, seed {p.seed}, {p.width}x{p.height} at {p.frame_rate:g} Hz; {lens.describe()}"
        )

    def _log_progress(self, done: float) -> None:
        self.get_logger().info(f"rendering ahead: {100.0 * done:.0f} %", throttle_duration_sec=2.0)

    def _on_state(self, message: ApertureState) -> None:
        try:
            self._timeline.add(report_from_message(message))
        except InputError as error:
            self.diagnostics.drop("bad_aperture_state", str(error))
            return
        self._expose_due()

    def _expose_due(self) -> None:
        """Publish the newest frame whose exposure is over as far as the aperture's reports reach.

        A frame shows what the aperture really did, so it waits for the report that tells.
        """
        p = self.parameter_set.value
        known_until, whole_since = self._timeline.known_until, self._timeline.whole_since
        assert known_until is not None
        assert whole_since is not None
        if self._start is None:
            self._start = known_until
        period = NANOSECONDS / p.frame_rate
        frame = int((known_until - self._start - round(max(p.exposure_times) * NANOSECONDS)) // period)
        if frame <= self._last_frame:
            return
        start = self._start + round(frame * period)
        told = start >= whole_since  # else reports were lost, and nobody knows what the frame would show
        self.diagnostics.count("missed", frame - self._last_frame - int(told))
        self._last_frame = frame
        if not told:
            return
        aperture = Aperture(int(self._timeline.fraction(Aperture.DEEP, start, start) >= 0.5))
        exposure = p.exposure_times[aperture]
        shallow = self._timeline.fraction(Aperture.SHALLOW, start, start + round(exposure * NANOSECONDS))
        time = self._time_since_start(start)
        header = Header(stamp=time_message(start), frame_id=p.frame_id)
        picture = self._vehicle.photograph(time, exposure, (shallow, 1.0 - shallow))
        self._exposure.publish(Exposure(header=header, exposure_time=exposure, gain=1.0))
        self._info.header = header
        self._image.publish(image_message(picture, "rgb8", header))
        self._camera_info.publish(self._info)
        self.diagnostics.count("frames")
        if shallow == 0.0:
            self._publish_truth(time, header)

    def _publish_truth(self, time: float, header: Header) -> None:
        """The truth of a deep frame, the one that depth is aligned with."""
        if self._truth.get_subscription_count():
            self._truth.publish(image_message(self._vehicle.ground_truth(time), "32FC1", header))
        if self._objects.get_subscription_count():
            boxes = [
                ObjectBox(
                    kind=box.kind,
                    id=box.id,
                    roi=RegionOfInterest(x_offset=box.x, y_offset=box.y, width=box.width, height=box.height),
                    distance=box.distance,
                )
                for box in self._vehicle.objects(time)
            ]
            self._objects.publish(ObjectBoxes(header=header, objects=boxes))

    def _sweep(self) -> None:
        if self._start is None or not self._points.get_subscription_count():
            return
        p, now = self.parameter_set.value, self.get_clock().now().nanoseconds
        stamp, time = time_message(now), self._time_since_start(now)
        world_from_camera = self._vehicle.world_from_camera(time)
        x, y, z = np.array([p.speed if p.moving else 0.0, 0.0, 0.0]) @ world_from_camera.rotation
        twist = TwistStamped(header=Header(stamp=stamp, frame_id=p.frame_id))
        twist.twist.linear = Vector3(x=x, y=y, z=z)
        self._twist.publish(twist)
        header = Header(stamp=stamp, frame_id=p.lidar_frame_id)
        self._points.publish(cloud_message(self._vehicle.sweep(time), header))
        self.diagnostics.count("sweeps")

    def _time_since_start(self, now: int) -> float:
        assert self._start is not None
        return max(now - self._start, 0) / NANOSECONDS


def main() -> None:
    run(SimNode)
