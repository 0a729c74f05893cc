"""The depth node: metric depth of each pair, with its confidence.

Takes `pair`; publishes `depth/image_rect` (32FC1 metres or 16UC1 millimetres), `depth/confidence` (32FC1 in [0, 1]),
`depth/camera_info`, `depth/points` (organised xyzrgb), `depth/preview` (rgb8) and, of models that give it, `all_in_focus`
(rgb8), each with the pair's stamp and only where someone listens. The newest pair wins: one that waits when a newer one
comes is dropped as superseded.

What answers is a model on a back end, or the classical estimator (`inference.sources`). Another `model` set while the
node runs is made ready aside, while the old one answers on, and takes over between two pairs; one that cannot be made
ready is refused with the reason, and the old one stays. With a lens outside the model's range, which is warned of once,
confidence is halved. Pictures that show nothing have no depth (NaN) and confidence 0.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from dfd_msgs.msg import ImagePair
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from dfd_ros.data.image_messages import image_view
from dfd_ros.data.vehicle_messages import camera_from_info, lens_from_message
from dfd_ros.errors import GpuMemoryError, InputError
from dfd_ros.geometry import Camera
from dfd_ros.inference.estimators import STAGES, DepthEstimator, EstimatorSource
from dfd_ros.inference.pictures import Pair, Resizer
from dfd_ros.inference.sources import BACKEND_NAMES, PRECISIONS, EstimatorOptions, open_source
from dfd_ros.nodes.base import DfdNode, run, subscriber_qos
from dfd_ros.nodes.clouds import coloured_cloud
from dfd_ros.nodes.convert import resized_info
from dfd_ros.nodes.depth_outputs import COLOURS, METRES, MILLIMETRES, DepthLimits, DepthOutputs
from dfd_ros.nodes.parameters import parameter
from dfd_ros.nodes.worker import LatestWorker
from dfd_ros.optics.estimate import EstimatorSettings
from dfd_ros.optics.lens import Lens
from dfd_ros.stamps import nanoseconds

PAIRS_HELD = 5  # by the middleware: while a model is made ready, Python has little time for each pair


@dataclass(frozen=True)
class DepthParameters:
    model: str = parameter(
        "",
        "network: a name of the zoo, a weights file or an exported .onnx file; empty is the classical estimator",
        live=True,
    )
    backend: str = parameter(
        "auto",
        "what runs the model; auto measures those installed on the first pair, takes the fastest that answers right and "
        "says which (without a model: classical); torch uses the GPU where there is one",
        choices=BACKEND_NAMES,
    )
    precision: str = parameter(
        "fp32", "of the model's arithmetic, fp16 by tensorrt alone; auto tries them all", choices=PRECISIONS
    )
    threads: int = parameter(
        0, "of the estimator; 0 is as many as the back end thinks best, 1 of the classical", minimum=0, maximum=64
    )
    size: tuple[int, ...] = parameter(
        (0, 0),
        "width and height that pictures are brought to first, their aspect kept; depth and its camera_info are of that "
        "size; 0 is as they come",
        unit="px",
        minimum=0,
        maximum=8192,
    )
    encoding: str = parameter(
        METRES, "of depth: metres, NaN unknown, or millimetres, 0 unknown", choices=(METRES, MILLIMETRES)
    )
    max_range: float = parameter(
        1000.0, "depth beyond is published as unknown", unit="m", minimum=0.1, maximum=10000.0, live=True
    )
    min_confidence: float = parameter(
        0.0, "depth below it is published as unknown", minimum=0.0, maximum=1.0, live=True
    )
    preview_colours: str = parameter(
        next(iter(COLOURS)), "of the preview, from far to near; unknown is black", choices=tuple(COLOURS), live=True
    )
    preview_range: tuple[float, ...] = parameter(
        (0.0, 0.0),
        "nearest and farthest depth that the preview's colours tell apart; 0 is the lens's",
        unit="m",
        minimum=0.0,
        maximum=10000.0,
        live=True,
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


class DepthNode(DfdNode[DepthParameters]):
    """See the module."""

    def __init__(self, **arguments: object) -> None:
        super().__init__("depth", DepthParameters, **arguments)

    def configure(self) -> None:
        p = self.parameters
        check_parameters(p)
        self._size = picture_size(p.size)
        self._source = open_source(estimator_options(p))
        self._asked = p.model
        self._swap_lock = threading.Lock()
        self._ready: EstimatorSource | None = None  # takes over before the next pair
        self._estimator: DepthEstimator | None = None
        self._outputs: DepthOutputs | None = None
        self._newest: ImagePair | None = None
        self._warned_of = ""
        self._camera: Camera | None = None
        self._next_sequence: int | None = None
        self._resizer = Resizer(self._size)
        self._models: LatestWorker[DepthParameters] = LatestWorker(self._make_ready, lambda p: None, "depth_model")
        self.parameter_set.on_check = check_parameters
        self.parameter_set.on_change = self._on_parameters
        self._tell_model(self._source.name)

    def cleanup(self) -> None:
        self.parameter_set.on_check = self.parameter_set.on_change = None
        self._models.stop()
        for source in (self._source, self._ready):
            if source is not None:
                source.close()
        self._estimator = self._ready = self._newest = None

    def activate(self) -> None:
        self._depth = self.advertise(Image, "depth/image_rect")
        self._confidence = self.advertise(Image, "depth/confidence")
        self._camera_info = self.advertise(CameraInfo, "depth/camera_info")
        self._points = self.advertise(PointCloud2, "depth/points")
        self._preview = self.advertise(Image, "depth/preview")
        self._all_in_focus = self.advertise(Image, "all_in_focus")
        self._worker: LatestWorker[ImagePair] = LatestWorker(
            self._answer, lambda pair: self.diagnostics.drop("superseded"), "depth"
        )
        self.subscribe(ImagePair, "pair", self._on_pair, subscriber_qos(PAIRS_HELD))

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

    def _answer(self, message: ImagePair) -> None:
        self._take_over()
        times = dict.fromkeys(STAGES, 0.0)
        try:
            with adding(times, "prepare"):
                pair, lens = read_pair(message, self._resizer)
            estimator = self._estimator_for(lens, pair)
            estimate = estimator.estimate(pair)
        except GpuMemoryError as error:
            self.diagnostics.drop("failed", f"{self._source.name}: {error}")
            if self._source.give_up_backend():
                self.get_logger().warning(f"model {self._source.name}: its back end is left out from now on")
            return
        except (RuntimeError, MemoryError) as error:  # of a runtime: out of memory, most likely
            self.diagnostics.drop("failed", f"{self._source.name}: {error}".splitlines()[0])
            return
        except InputError as error:
            self.diagnostics.drop("bad_pair", str(error))
            return
        self._newest = message
        with adding(times, "finish"):
            outputs = self._outputs
            if outputs is None or outputs.shape != pair.form.shape:
                outputs = self._outputs = DepthOutputs(pair.form.shape, self.parameters.encoding)
            outputs.take(estimate, DepthLimits(self.parameters.max_range, self.parameters.min_confidence))
            self._publish(message, pair, lens, estimate.all_in_focus, outputs)
        for stage in STAGES:
            self.diagnostics.timing(stage, times[stage] + estimator.seconds[stage])
        self.diagnostics.count("answered")
        age = self.get_clock().now().nanoseconds - nanoseconds(message.header.stamp)
        self.diagnostics.timing("latency", 1e-9 * age)

    def _estimator_for(self, lens: Lens, pair: Pair) -> DepthEstimator:
        """The estimator of this lens and form of pictures, made anew when either changes."""
        estimator = self._source.estimator(lens, pair)
        if estimator is not self._estimator:
            self._estimator = estimator
            self.get_logger().info(f"{estimator.description}; {lens.describe()}")
            if estimator.warning and self._warned_of != self._source.name:
                self._warned_of = self._source.name
                self.get_logger().warning(estimator.warning)
        return estimator

    def _on_parameters(self, p: DepthParameters) -> None:
        if p.model != self._asked:
            self._asked = p.model
            self._models.put(p)

    def _make_ready(self, p: DepthParameters) -> None:
        """Open a model and make its estimator for pairs like the newest; the old one answers meanwhile."""
        try:
            source = open_source(estimator_options(p))
            if self._newest is not None:
                pair, lens = read_pair(self._newest, Resizer(self._size))
                source.estimator(lens, pair)
        except (InputError, RuntimeError, MemoryError) as error:
            self.diagnostics.count("models_refused")
            self.get_logger().error(f"model {p.model!r} is not taken, {self._source.name} stays: {error}")
            return
        with self._swap_lock:
            unused, self._ready = self._ready, source
        if unused is not None:
            unused.close()

    def _take_over(self) -> None:
        """Between two pairs: the model made ready, if there is one, in place of the old one."""
        with self._swap_lock:
            ready, self._ready = self._ready, None
        if ready is not None:
            old, self._source = self._source, ready
            old.close()
            self.diagnostics.count("models_taken")
            self._tell_model(ready.name)

    def _tell_model(self, name: str) -> None:
        self.diagnostics.value("model", name)
        self.get_logger().info(f"estimator: {name}")

    def _publish(
        self,
        message: ImagePair,
        pair: Pair,
        lens: Lens,
        all_in_focus: NDArray[np.float32] | None,
        outputs: DepthOutputs,
    ) -> None:
        header = message.header
        if self._confidence.get_subscription_count():
            self._confidence.publish(outputs.confidence(header))
        if self._preview.get_subscription_count():
            near, far = self.parameters.preview_range
            ends = near or lens.min_depth, far or lens.max_depth
            self._preview.publish(outputs.preview(*ends, self.parameters.preview_colours, header))
        if all_in_focus is not None and self._all_in_focus.get_subscription_count():
            self._all_in_focus.publish(outputs.all_in_focus(all_in_focus, header))
        wants_info, wants_points = (p.get_subscription_count() > 0 for p in (self._camera_info, self._points))
        if wants_info or wants_points:
            self._publish_calibrated(message, pair, outputs, wants_info=wants_info, wants_points=wants_points)
        # Last, so that who has the depth can have the rest.
        self._depth.publish(outputs.depth(header))

    def _publish_calibrated(
        self, message: ImagePair, pair: Pair, outputs: DepthOutputs, *, wants_info: bool, wants_points: bool
    ) -> None:
        info = message.camera_info
        try:
            image = (message.deep.height, message.deep.width)
            if image != outputs.shape:
                info = resized_info(info, outputs.shape, image)
            if wants_info:
                self._camera_info.publish(info)
            if wants_points:
                camera = camera_from_info(info, outputs.shape)
                if camera != self._camera:
                    self._camera, self._rays = camera, camera.rays()
                encoding = message.deep.encoding
                self._points.publish(coloured_cloud(outputs.metres, self._rays, pair.deep, encoding, message.header))
        except InputError as error:
            # The pair is answered all the same: depth needs no calibrated camera, points do.
            self.diagnostics.count("points_uncalibrated")
            self.diagnostics.value("points", str(error))


def read_pair(message: ImagePair, resizer: Resizer) -> tuple[Pair, Lens]:
    """The pictures of a message at the size wanted, and the lens in pixels of these.

    Raises:
        InputError: An image, the two together, the lens or the size cannot be used.
    """
    shallow, deep = image_view(message.shallow, "pair.shallow"), image_view(message.deep, "pair.deep")
    if message.shallow.encoding != message.deep.encoding:
        raise InputError(
            f"pair: expected two images of one encoding, got {message.shallow.encoding} and {message.deep.encoding}"
        )
    if deep.dtype != np.uint8:
        raise InputError(f"pair: expected 8-bit images, got {message.deep.encoding}")
    pair, zoom = resizer.resize(Pair(shallow, deep, message.gamma, message.deep.encoding == "bgr8"))
    lens = lens_from_message(message.lens)
    return pair, lens if zoom == 1.0 else lens.zoomed(zoom)


def picture_size(size: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the parameter `size`; raises InputError where it is not two numbers, both 0 or neither."""
    if len(size) != 2 or (0 in size) != (size == (0, 0)):
        raise InputError(f"parameter size: expected width and height, or [0, 0], got {list(size)}")
    return size[1], size[0]


def check_parameters(p: DepthParameters) -> None:
    """Raises InputError where the parameters ask together for what there is not."""
    picture_size(p.size)
    estimator_options(p)
    if len(p.preview_range) != 2 or (0.0 < p.preview_range[1] <= p.preview_range[0]):
        raise InputError(f"parameter preview_range: expected a near and a far depth, got {list(p.preview_range)}")


def estimator_options(p: DepthParameters) -> EstimatorOptions:
    """What the parameters ask for; raises InputError where there is no such thing."""
    classical = EstimatorSettings(
        hypotheses=p.hypotheses, window=p.window, noise=p.noise, threads=p.threads or EstimatorSettings.threads
    )
    return EstimatorOptions(p.model, p.backend, p.precision, p.threads, classical)


@contextmanager
def adding(times: dict[str, float], stage: str) -> Iterator[None]:
    """Add what time the block takes, seconds."""
    start = time.perf_counter()
    yield
    times[stage] += time.perf_counter() - start


def main() -> None:
    run(DepthNode)
