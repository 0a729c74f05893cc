"""The LiDAR depth node: each sweep projected into the deep image and made dense by colorization.

Takes `points` and, as the guide, `pair` (its deep image) or `image_raw` with `camera_info`; joins the newest sweep with
the image nearest in time; publishes `lidar/sparse_depth` and `lidar/depth` (32FC1 metres, NaN unknown),
`lidar/confidence` (32FC1 in [0, 1]) and `lidar/dense_points` (the dense depth as a coloured cloud) with the image's
stamp. The newest sweep wins: one that waits when a newer one comes is dropped as superseded. A sweep that the camera
does not see is answered with NaN everywhere, and counted.

Where the vehicle's `twist` is heard and the cloud tells each point's time, the points are brought to the image's time
(`lidar.deskew`). A twist says in its header of which frame it is the motion, as that frame itself sees it (REP 105's
base_link of an odometry, say): the cloud's, the image's, or one that /tf_static joins to the cloud's. A sweep that
cannot be de-skewed is used as it came, and counted with the reason.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from dfd_msgs.msg import ImagePair
from geometry_msgs.msg import TwistStamped
from numpy.typing import NDArray
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from dfd_ros import compat
from dfd_ros.compat.message_filters import ApproximateTimeSynchronizer, Subscriber
from dfd_ros.compat.transforms import static_transform
from dfd_ros.data.vehicle_messages import camera_from_info
from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.calibration import load_extrinsics
from dfd_ros.lidar.colorize import METHODS, Colorizer, ColorizeSettings
from dfd_ros.lidar.deskew import TIME_FIELDS, Twist, deskew, seen_from
from dfd_ros.lidar.intensity import intensity_image
from dfd_ros.lidar.projection import project
from dfd_ros.nodes.base import DfdNode, run, subscriber_qos
from dfd_ros.nodes.clouds import coloured_cloud, intensity_array, points_array, times_array
from dfd_ros.nodes.convert import colour_or_grey, grey_array, image_message, image_view
from dfd_ros.nodes.parameters import parameter
from dfd_ros.nodes.worker import LatestWorker
from dfd_ros.share import config_file
from dfd_ros.stamps import NANOSECONDS, nanoseconds

TWISTS = 200  # kept: a fifth of a second of the fastest wheels
FAST_ENOUGH = ("nyu", "fast")  # to keep up with a LiDAR
LONGEST_SWEEP = 2.0  # seconds: a point's time further from the stamp is of another clock


@dataclass(frozen=True)
class LidarDepthParameters:
    guide: str = parameter(
        "pair", "the image to colorize against: a pair's deep one, or image_raw", choices=("pair", "image")
    )
    extrinsics_file: str = parameter(
        "vehicle_extrinsics.yaml",
        "where the LiDAR is; not used for clouds in the camera's own frame, or where /tf_static tells and tf2_ros is there",
    )
    method: str = parameter(
        ColorizeSettings.method,
        "nyu and exact solve the toolbox's system, exact in double precision as the reference; fast is another, quick "
        "interpolation, not its answer",
        choices=METHODS,
        live=True,
    )
    inverse_depth: bool = parameter(
        ColorizeSettings.inverse_depth, "interpolate 1/z, which is linear on planes, in place of z", live=True
    )
    robust: bool = parameter(
        ColorizeSettings.robust, "let returns that lie behind their surroundings, or are noisy, count less", live=True
    )
    depth_edges: bool = parameter(
        ColorizeSettings.depth_edges,
        "let steps of depth, too, part neighbours, where the picture may show none",
        live=True,
    )
    range_noise: float = parameter(
        ColorizeSettings.range_noise,
        "standard deviation of a return's range, where robust",
        unit="m",
        minimum=0.0,
        maximum=10.0,
        live=True,
    )
    threads: int = parameter(
        ColorizeSettings.threads,
        "of the method nyu, to which more than two are of no use",
        minimum=1,
        maximum=64,
        live=True,
    )
    min_confidence: float = parameter(
        ColorizeSettings.min_confidence,
        "dense depth below it is NaN (unknown); at 0 only what nothing supports",
        minimum=0.0,
        maximum=1.0,
        live=True,
    )
    max_skew: float = parameter(0.1, "longest time between sweep and image", unit="s", minimum=0.0, maximum=10.0)
    deskew: bool = parameter(
        True,
        "bring each point to the image's time, where a twist is heard and the cloud tells the points' times",
        live=True,
    )
    max_twist_skew: float = parameter(
        0.1, "longest time between twist and image", unit="s", minimum=0.0, maximum=10.0, live=True
    )
    niceness: int = parameter(
        10, "of the solving thread: at 0 it competes with depth for the processor", minimum=0, maximum=19
    )
    max_depth: float = parameter(120.0, "points beyond are left out", unit="m", minimum=1.0, maximum=1000.0, live=True)


@dataclass(frozen=True)
class Motion:
    """How `frame_id` moves at a time, nanoseconds, as itself sees it."""

    stamp: int
    frame_id: str
    twist: Twist


@dataclass(frozen=True)
class Sweep:
    """A cloud, the image it is projected into, and the motion known nearest to the image's time."""

    cloud: PointCloud2
    image: Image
    camera_info: CameraInfo
    motion: Motion | None


class CannotDeskewError(InputError):
    """Why a sweep cannot be de-skewed: in a word that is counted, and in a sentence."""

    def __init__(self, cause: str, why: str) -> None:
        super().__init__(why)
        self.cause = cause


class LidarDepthNode(DfdNode[LidarDepthParameters]):
    """See the module."""

    def __init__(self, **arguments: object) -> None:
        super().__init__("lidar_depth", LidarDepthParameters, **arguments)

    def configure(self) -> None:
        p = self.parameters
        self._extrinsics = load_extrinsics(config_file(p.extrinsics_file)).camera_from_lidar
        self._colorizer: Colorizer | None = None
        self._camera: Camera | None = None
        warm_up(p.method)
        self._camera_info: CameraInfo | None = None
        libraries = ", ".join(f"{name} {which}" for name, which in compat.report().items())
        self.get_logger().info(f"method {p.method}; {libraries}")

    def activate(self) -> None:
        self._sparse = self.advertise(Image, "lidar/sparse_depth")
        self._dense = self.advertise(Image, "lidar/depth")
        self._confidence = self.advertise(Image, "lidar/confidence")
        self._points = self.advertise(PointCloud2, "lidar/dense_points")
        self._worker: LatestWorker[Sweep] = LatestWorker(
            self._answer, lambda sweep: self.diagnostics.drop("superseded"), "lidar_depth", self.parameters.niceness
        )
        self._motions: deque[Motion] = deque(maxlen=TWISTS)
        self._told: set[str] = set()
        self.subscribe(TwistStamped, "twist", self._on_twist, subscriber_qos(10))
        guide_type, guide_topic = (ImagePair, "pair") if self.parameters.guide == "pair" else (Image, "image_raw")
        if self.parameters.guide == "image":
            self.subscribe(CameraInfo, "camera_info", self._on_camera_info)
        options = {
            "qos_profile": subscriber_qos(2),
            "qos_overriding_options": QoSOverridingOptions.with_default_policies(),
        }
        self._filters = [
            Subscriber(self, PointCloud2, "points", **options),
            Subscriber(self, guide_type, guide_topic, **options),
        ]
        self._synchronizer = ApproximateTimeSynchronizer(self._filters, queue_size=4, slop=self.parameters.max_skew)
        self._synchronizer.registerCallback(self._on_sweep)

    def deactivate(self) -> None:
        for subscriber in self._filters:
            self.destroy_subscription(subscriber.sub)
        self._worker.stop()

    def drain(self, timeout: float) -> bool:
        """Wait until every sweep that came is answered; False after `timeout` seconds."""
        return self._worker.drain(timeout)

    def _on_camera_info(self, info: CameraInfo) -> None:
        self._camera_info = info

    def _on_twist(self, message: TwistStamped) -> None:
        linear, angular = message.twist.linear, message.twist.angular
        try:
            twist = Twist(np.array([linear.x, linear.y, linear.z]), np.array([angular.x, angular.y, angular.z]))
        except InputError as error:
            self.diagnostics.drop("bad_twist", str(error))
            return
        self._motions.append(Motion(nanoseconds(message.header.stamp), message.header.frame_id, twist))

    def _on_sweep(self, cloud: PointCloud2, guide: ImagePair | Image) -> None:
        self.diagnostics.count("received")
        image, info = (guide.deep, guide.camera_info) if isinstance(guide, ImagePair) else (guide, self._camera_info)
        if info is None:
            self.diagnostics.drop("no_camera_info", "camera_info: expected one before the first sweep, got none")
            return
        now = nanoseconds(image.header.stamp)
        motion = min(self._motions, key=lambda motion: abs(motion.stamp - now), default=None)
        self._worker.put(Sweep(cloud, image, info, motion))

    def _answer(self, sweep: Sweep) -> None:
        start = time.perf_counter()
        try:
            image = colour_or_grey(sweep.image, "image")
            camera = camera_from_info(sweep.camera_info, (image.height, image.width))
            sparse, intensity = self._project(sweep, camera)
            self.diagnostics.timing("project", time.perf_counter() - start)
            if self._sparse.get_subscription_count():
                self._sparse.publish(image_message(sparse, "32FC1", image.header))
            self._publish_dense(image, camera, sparse, intensity)
        except InputError as error:
            self.diagnostics.drop("bad_sweep", str(error))
            return
        self.diagnostics.timing("colorize", time.perf_counter() - start)
        age = self.get_clock().now().nanoseconds - nanoseconds(sweep.cloud.header.stamp)
        self.diagnostics.timing("latency", 1e-9 * age)
        if np.isfinite(sparse).any():
            self.diagnostics.count("answered")
        else:
            count = sweep.cloud.width * sweep.cloud.height
            self.diagnostics.drop(
                "nothing_in_view", f"points: expected points in the camera's view, got none of {count}"
            )

    def _publish_dense(
        self, image: Image, camera: Camera, sparse: NDArray[np.float32], intensity: NDArray[np.float32] | None
    ) -> None:
        wanted = [p.get_subscription_count() > 0 for p in (self._dense, self._confidence, self._points)]
        if not any(wanted):
            return
        header = image.header
        dense = self._colorizer_for(camera.shape).solve(grey_array(image), sparse, intensity)
        if wanted[0]:
            self._dense.publish(image_message(dense.depth, "32FC1", header))
        if wanted[1]:
            self._confidence.publish(image_message(dense.confidence, "32FC1", header))
        if wanted[2]:
            if camera != self._camera:
                self._camera, self._rays = camera, camera.rays()
            colours = image_view(image, "image")
            self._points.publish(coloured_cloud(dense.depth, self._rays, colours, image.encoding, header))

    def _project(self, sweep: Sweep, camera: Camera) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Sparse depth and, where it is of use and known, its returns' intensity."""
        p, cloud = self.parameters, sweep.cloud
        camera_from_lidar = self._camera_from_lidar(cloud.header.frame_id, sweep.image.header.frame_id)
        points = points_array(cloud)
        if p.deskew:
            points = self._deskew(points, sweep, camera_from_lidar)
        sparse = project(points, camera_from_lidar, camera).depth
        sparse[sparse > p.max_depth] = np.nan
        intensity = intensity_array(cloud) if p.robust else None
        if intensity is None:
            return sparse, None
        return sparse, intensity_image(points, intensity, camera_from_lidar, camera, sparse)

    def _deskew(self, points: NDArray[np.float32], sweep: Sweep, camera_from_lidar: Transform) -> NDArray[np.float32]:
        """The points as they lie at the image's time, or as they are where that cannot be told."""
        stamp, now = nanoseconds(sweep.cloud.header.stamp), nanoseconds(sweep.image.header.stamp)
        try:
            twist = self._lidar_twist(sweep, now, camera_from_lidar)
            times = checked_times(sweep.cloud)
        except CannotDeskewError as error:
            self.diagnostics.count(f"not_deskewed/{error.cause}")
            self._tell_once(f"sweeps are not de-skewed: {error}", error.cause)
            return points
        self.diagnostics.count("deskewed")
        self._tell_once("sweeps are de-skewed", "deskewed")
        return deskew(points, times, twist, (now - stamp) / NANOSECONDS)

    def _lidar_twist(self, sweep: Sweep, now: int, camera_from_lidar: Transform) -> Twist:
        """The motion of the LiDAR's frame around the image's time; raises CannotDeskewError."""
        motion, frame = sweep.motion, sweep.cloud.header.frame_id
        if motion is None:
            raise CannotDeskewError("no_twist", "twist: expected the vehicle's motion, heard none")
        skew = abs(motion.stamp - now) / NANOSECONDS
        if skew > self.parameters.max_twist_skew:
            limit = self.parameters.max_twist_skew
            raise CannotDeskewError(
                "stale_twist", f"twist: expected one within {limit:g} s of the image, got the nearest {skew:.3g} s off"
            )
        if motion.frame_id == frame:
            return motion.twist
        if motion.frame_id == sweep.image.header.frame_id:
            return seen_from(camera_from_lidar.inverse(), motion.twist)
        lidar_from_vehicle = static_transform(self, frame, motion.frame_id)
        if lidar_from_vehicle is None:
            raise CannotDeskewError(
                "unknown_frame",
                f"twist: expected one of frame {frame!r}, {sweep.image.header.frame_id!r}, or one that /tf_static joins "
                f"to these, got {motion.frame_id!r}",
            )
        return seen_from(lidar_from_vehicle, motion.twist)

    def _tell_once(self, sentence: str, topic: str) -> None:
        if topic not in self._told:
            self._told.add(topic)
            self.get_logger().info(sentence)

    def _camera_from_lidar(self, lidar_frame: str, camera_frame: str) -> Transform:
        if lidar_frame == camera_frame:
            return Transform()
        return static_transform(self, camera_frame, lidar_frame) or self._extrinsics

    def _colorizer_for(self, shape: tuple[int, int]) -> Colorizer:
        """The colorizer of this size, with the parameters as they are now."""
        p = self.parameters
        if self._colorizer is None or self._colorizer.shape != shape:
            self._colorizer = Colorizer(shape)
        self._colorizer.settings = ColorizeSettings(
            method=p.method,
            inverse_depth=p.inverse_depth,
            robust=p.robust,
            depth_edges=p.depth_edges,
            range_noise=p.range_noise,
            min_confidence=p.min_confidence,
            threads=p.threads,
        )
        return self._colorizer


def checked_times(cloud: PointCloud2) -> NDArray[np.float64]:
    """The points' times, seconds after the cloud's stamp; raises CannotDeskewError where there are none to be used."""
    try:
        times = times_array(cloud)
    except InputError as error:
        raise CannotDeskewError("bad_point_times", str(error)) from error
    if times is None:
        raise CannotDeskewError("no_point_times", f"points: expected a field of {', '.join(TIME_FIELDS)}, got none")
    known = times[np.isfinite(times)]
    # By the median: the time of a point without return may be 0 where others count from 1970.
    middle = float(np.median(known)) if len(known) else math.nan
    if not abs(middle) <= LONGEST_SWEEP:
        raise CannotDeskewError(
            "bad_point_times",
            f"points: expected times within {LONGEST_SWEEP:g} s of the sweep's stamp, got a median {middle:.3g} s off",
        )
    return times


def warm_up(method: str) -> None:
    """Run projection and colorization once on next to nothing, by that method and by all that keep up with a LiDAR.

    Their kernels are compiled at the first call ever (and cached), which takes seconds and would hold up all threads.
    """
    camera = Camera(width=16, height=16, fx=16.0, fy=16.0, cx=8.0, cy=8.0)
    # A LiDAR beside the camera: where there is no parallax nothing is culled, and culling would not be compiled.
    beside = Transform(translation=np.array([0.0, -0.1, 0.0]))
    points = deskew(np.eye(3, dtype=np.float32) + 1.0, np.zeros(3), Twist())
    sparse = project(points, beside, camera).depth
    intensity = intensity_image(points, np.ones(3, np.float32), beside, camera, sparse)
    for each in {*FAST_ENOUGH, method}:
        colorizer = Colorizer(camera.shape, ColorizeSettings(method=each, robust=True, depth_edges=True))
        colorizer.solve(np.zeros(camera.shape, np.float32), np.nan_to_num(sparse, nan=1.0), intensity)


def main() -> None:
    run(LidarDepthNode)
