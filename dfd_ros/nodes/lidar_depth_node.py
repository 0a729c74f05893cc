"""The LiDAR depth node: each sweep projected into the deep image and made dense by colorization.

Takes `points` and, as the guide, `pair` (its deep image) or `image_raw` with `camera_info`; joins the newest sweep with
the image nearest in time; publishes `lidar/sparse_depth` and `lidar/depth` (32FC1 metres, NaN unknown),
`lidar/confidence` (32FC1 in [0, 1]) and `lidar/dense_points` (the dense depth as a coloured cloud) with the image's
stamp. The newest sweep wins: one that waits when a newer one comes is dropped as superseded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from dfd_msgs.msg import ImagePair
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from dfd_ros import compat
from dfd_ros.compat.message_filters import ApproximateTimeSynchronizer, Subscriber
from dfd_ros.compat.transforms import static_transform
from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.calibration import load_extrinsics
from dfd_ros.lidar.colorize import METHODS, Colorizer, ColorizeSettings
from dfd_ros.lidar.projection import project
from dfd_ros.nodes.base import DfdNode, run, subscriber_qos
from dfd_ros.nodes.clouds import coloured_cloud, points_array
from dfd_ros.nodes.convert import camera_from_info, colour_or_grey, grey_array, image_message, image_view
from dfd_ros.nodes.parameters import parameter
from dfd_ros.nodes.worker import LatestWorker
from dfd_ros.share import config_file
from dfd_ros.stamps import nanoseconds


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
        "exact solves the toolbox's system; fast is another, quick interpolation, not its answer",
        choices=METHODS,
        live=True,
    )
    inverse_depth: bool = parameter(
        ColorizeSettings.inverse_depth, "interpolate 1/z, which is linear on planes, in place of z", live=True
    )
    robust: bool = parameter(
        ColorizeSettings.robust, "let returns that lie behind their surroundings, or are noisy, count less", live=True
    )
    range_noise: float = parameter(
        ColorizeSettings.range_noise,
        "standard deviation of a return's range, where robust",
        unit="m",
        minimum=0.0,
        maximum=10.0,
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
    niceness: int = parameter(
        10, "of the solving thread: at 0 it competes with depth for the processor", minimum=0, maximum=19
    )
    max_depth: float = parameter(120.0, "points beyond are left out", unit="m", minimum=1.0, maximum=1000.0, live=True)


@dataclass(frozen=True)
class Sweep:
    """A cloud and the image it is projected into."""

    cloud: PointCloud2
    image: Image
    camera_info: CameraInfo


class LidarDepthNode(DfdNode[LidarDepthParameters]):
    """See the module."""

    def __init__(self, **arguments: object) -> None:
        super().__init__("lidar_depth", LidarDepthParameters, **arguments)

    def configure(self) -> None:
        p = self.parameters
        self._extrinsics = load_extrinsics(config_file(p.extrinsics_file)).camera_from_lidar
        self._colorizer: Colorizer | None = None
        self._camera: Camera | None = None
        warm_up()
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
        guide_type, guide_topic = (ImagePair, "pair") if self.parameters.guide == "pair" else (Image, "image_raw")
        if self.parameters.guide == "image":
            self.subscribe(CameraInfo, "camera_info", self._on_camera_info)
        self._filters = [
            Subscriber(self, PointCloud2, "points", qos_profile=subscriber_qos(2)),
            Subscriber(self, guide_type, guide_topic, qos_profile=subscriber_qos(2)),
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

    def _on_sweep(self, cloud: PointCloud2, guide: ImagePair | Image) -> None:
        self.diagnostics.count("received")
        if isinstance(guide, ImagePair):
            self._worker.put(Sweep(cloud, guide.deep, guide.camera_info))
        elif self._camera_info is None:
            self.diagnostics.drop("no_camera_info", "camera_info: expected one before the first sweep, got none")
        else:
            self._worker.put(Sweep(cloud, guide, self._camera_info))

    def _answer(self, sweep: Sweep) -> None:
        start = time.perf_counter()
        header = sweep.image.header
        try:
            image = colour_or_grey(sweep.image, "image")
            camera = camera_from_info(sweep.camera_info, (image.height, image.width))
            sparse = self._project(sweep.cloud, header.frame_id, camera)
            self.diagnostics.timing("project", time.perf_counter() - start)
            if self._sparse.get_subscription_count():
                self._sparse.publish(image_message(sparse, "32FC1", header))
            self._publish_dense(image, camera, sparse)
        except InputError as error:
            self.diagnostics.drop("bad_sweep", str(error))
            return
        self.diagnostics.count("answered")
        self.diagnostics.timing("colorize", time.perf_counter() - start)
        age = self.get_clock().now().nanoseconds - nanoseconds(sweep.cloud.header.stamp)
        self.diagnostics.timing("latency", 1e-9 * age)

    def _publish_dense(self, image: Image, camera: Camera, sparse: NDArray[np.float32]) -> None:
        wanted = [p.get_subscription_count() > 0 for p in (self._dense, self._confidence, self._points)]
        if not any(wanted):
            return
        header = image.header
        dense = self._colorizer_for(camera.shape).solve(grey_array(image), sparse)
        if wanted[0]:
            self._dense.publish(image_message(dense.depth, "32FC1", header))
        if wanted[1]:
            self._confidence.publish(image_message(dense.confidence, "32FC1", header))
        if wanted[2]:
            if camera != self._camera:
                self._camera, self._rays = camera, camera.rays()
            colours = image_view(image, "image")
            self._points.publish(coloured_cloud(dense.depth, self._rays, colours, image.encoding, header))

    def _project(self, cloud: PointCloud2, camera_frame: str, camera: Camera) -> NDArray[np.float32]:
        points = points_array(cloud)
        sparse = project(points, self._camera_from_lidar(cloud.header.frame_id, camera_frame), camera).depth
        sparse[sparse > self.parameters.max_depth] = np.nan
        if not np.isfinite(sparse).any():
            raise InputError(f"points: expected points in the camera's view, got none of {len(points)}")
        return sparse

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
            range_noise=p.range_noise,
            min_confidence=p.min_confidence,
        )
        return self._colorizer


def warm_up() -> None:
    """Run projection and colorization once on next to nothing.

    Their kernels are compiled at the first call ever (and cached), which takes seconds and would hold up all threads.
    """
    camera = Camera(width=16, height=16, fx=16.0, fy=16.0, cx=8.0, cy=8.0)
    # A LiDAR beside the camera: where there is no parallax nothing is culled, and culling would not be compiled.
    beside = Transform(translation=np.array([0.0, -0.1, 0.0]))
    sparse = project(np.eye(3, dtype=np.float32) + 1.0, beside, camera).depth
    for method in METHODS:
        colorizer = Colorizer(camera.shape, ColorizeSettings(method=method, robust=True))
        colorizer.solve(np.zeros(camera.shape, np.float32), np.nan_to_num(sparse, nan=1.0))


def main() -> None:
    run(LidarDepthNode)
