"""The depth node: metric depth of each pair, with its confidence.

Takes `pair`; publishes `depth/image_rect` (32FC1 metres), `depth/confidence` (32FC1 in [0, 1]), `depth/camera_info`,
`depth/points` (organised xyzrgb) and `depth/preview` (rgb8), each with the pair's stamp and only where someone listens.
The newest pair wins: one that waits when a newer one comes is dropped as superseded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import cv2
import numpy as np
from dfd_msgs.msg import ImagePair
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from dfd_ros.data.image_messages import image_view
from dfd_ros.data.vehicle_messages import camera_from_info, lens_from_message
from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera
from dfd_ros.nodes.base import DfdNode, run, subscriber_qos
from dfd_ros.nodes.clouds import coloured_cloud
from dfd_ros.nodes.convert import image_message
from dfd_ros.nodes.parameters import parameter
from dfd_ros.nodes.worker import LatestWorker
from dfd_ros.optics.estimate import DepthEstimate, EstimatorSettings, WhitenedProjectionEstimator
from dfd_ros.optics.lens import Lens
from dfd_ros.stamps import nanoseconds
from dfd_ros.tone import linear_grey


@dataclass(frozen=True)
class DepthParameters:
    backend: str = parameter(
        "auto", "what estimates depth; auto takes the best there is and says which", choices=("auto", "classical")
    )
    hypotheses: int = parameter(
        EstimatorSettings.hypotheses, "blur hypotheses of the classical estimator", minimum=4, maximum=128
    )
    window: float = parameter(
        EstimatorSettings.window,
        "standard deviation of its window, over which it gathers evidence",
        unit="px",
        minimum=1.0,
        maximum=50.0,
    )
    noise: float = parameter(
        EstimatorSettings.noise,
        "standard deviation of the camera's noise at white, as a share of white",
        minimum=1e-5,
        maximum=0.5,
    )
    min_confidence: float = parameter(
        0.0, "depth below it is published as NaN (unknown)", minimum=0.0, maximum=1.0, live=True
    )
    threads: int = parameter(EstimatorSettings.threads, "of the classical estimator", minimum=1, maximum=64)


class DepthNode(DfdNode[DepthParameters]):
    """See the module."""

    def __init__(self, **arguments: object) -> None:
        super().__init__("depth", DepthParameters, **arguments)

    def configure(self) -> None:
        p = self.parameters
        self._settings = EstimatorSettings(hypotheses=p.hypotheses, window=p.window, noise=p.noise, threads=p.threads)
        self._estimator: WhitenedProjectionEstimator | None = None
        self._camera: Camera | None = None
        self._next_sequence: int | None = None
        warm_up()
        asked = "asked for" if p.backend == "classical" else "chosen by auto: no trained network is installed"
        self.get_logger().info(f"back end classical (whitened projection), {asked}")

    def activate(self) -> None:
        self._depth = self.advertise(Image, "depth/image_rect")
        self._confidence = self.advertise(Image, "depth/confidence")
        self._camera_info = self.advertise(CameraInfo, "depth/camera_info")
        self._points = self.advertise(PointCloud2, "depth/points")
        self._preview = self.advertise(Image, "depth/preview")
        self._worker: LatestWorker[ImagePair] = LatestWorker(
            self._answer, lambda pair: self.diagnostics.drop("superseded"), "depth"
        )
        self.subscribe(ImagePair, "pair", self._on_pair, subscriber_qos())

    def deactivate(self) -> None:
        self._worker.stop()

    def drain(self, timeout: float) -> bool:
        """Wait until every pair that came is answered; False after `timeout` seconds."""
        return self._worker.drain(timeout)

    def _on_pair(self, pair: ImagePair) -> None:
        self.diagnostics.count("received")
        missed = pair.sequence - self._next_sequence if self._next_sequence is not None else 0
        if missed > 0:
            self.diagnostics.drop(
                "lost_in_transport", "the pair's sequence skipped: pairs were lost on the way", missed
            )
        self._next_sequence = pair.sequence + 1
        self._worker.put(pair)

    def _answer(self, pair: ImagePair) -> None:
        start = time.perf_counter()
        try:
            shallow, deep = image_view(pair.shallow, "pair.shallow"), image_view(pair.deep, "pair.deep")
            if shallow.shape != deep.shape:
                raise InputError(f"pair: expected two images of one size, got {shallow.shape} and {deep.shape}")
            if deep.dtype != np.uint8:
                raise InputError(f"pair: expected 8-bit images, got {pair.deep.encoding}")
            lens = lens_from_message(pair.lens)
            estimator = self._estimator_for(lens, deep.shape[:2])
            estimate = estimator.estimate(linear_grey(shallow, pair.gamma), linear_grey(deep, pair.gamma))
        except InputError as error:
            self.diagnostics.drop("bad_pair", str(error))
            return
        self.diagnostics.timing("estimate", time.perf_counter() - start)
        self._publish(pair, lens, deep, estimate)
        self.diagnostics.count("answered")
        age = self.get_clock().now().nanoseconds - nanoseconds(pair.header.stamp)
        self.diagnostics.timing("latency", 1e-9 * age)

    def _estimator_for(self, lens: Lens, shape: tuple[int, int]) -> WhitenedProjectionEstimator:
        """The estimator of this lens and size, made anew when either changes."""
        current = self._estimator
        # By their text, in which NaN, a value not known, equals NaN.
        if current is None or current.shape != shape or repr(current.lens) != repr(lens):
            current = self._estimator = WhitenedProjectionEstimator(lens, shape, self._settings)
            self.get_logger().info(lens.describe())
        return current

    def _publish(self, pair: ImagePair, lens: Lens, deep: NDArray[np.uint8], estimate: DepthEstimate) -> None:
        header = pair.header
        depth = estimate.depth
        if self.parameters.min_confidence > 0.0:
            depth = np.where(estimate.confidence >= self.parameters.min_confidence, depth, np.float32(np.nan))
        if self._confidence.get_subscription_count():
            self._confidence.publish(image_message(estimate.confidence, "32FC1", header))
        if self._camera_info.get_subscription_count():
            self._camera_info.publish(pair.camera_info)
        if self._preview.get_subscription_count():
            self._preview.publish(image_message(colour_depth(depth, lens), "rgb8", header))
        if self._points.get_subscription_count():
            try:
                camera = camera_from_info(pair.camera_info, depth.shape)
                if camera != self._camera:
                    self._camera, self._rays = camera, camera.rays()
                self._points.publish(coloured_cloud(depth, self._rays, deep, pair.deep.encoding, header))
            except InputError as error:
                # The pair is answered all the same: depth needs no calibrated camera, points do.
                self.diagnostics.count("points_uncalibrated")
                self.diagnostics.value("points", str(error))
        # Last, so that who has the depth can have the rest.
        self._depth.publish(image_message(depth, "32FC1", header))


def colour_depth(depth: NDArray[np.float32], lens: Lens) -> NDArray[np.uint8]:
    """Depth as RGB, near red and far blue, even in inverse depth; unknown is black."""
    near, far = 1.0 / lens.min_depth, 1.0 / lens.max_depth
    with np.errstate(divide="ignore", invalid="ignore"):
        level = (1.0 / depth - far) * (255.0 / (near - far))
    known = np.isfinite(level)
    level8 = np.where(known, np.clip(level, 0.0, 255.0), 0.0).astype(np.uint8)
    colours = cv2.applyColorMap(level8, cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(known[..., None], colours, np.uint8(0))


def warm_up() -> None:
    """Estimate the depth of next to nothing.

    The estimator's kernels are compiled at the first call ever (and cached), which takes seconds.
    """
    lens = Lens("warm-up", 1.0, 2.0, 4.0, 10.0, 1.0, 2.0)
    grey = np.full((64, 64), 0.5, np.float32)
    WhitenedProjectionEstimator(lens, grey.shape).estimate(grey, grey)


def main() -> None:
    run(DepthNode)
