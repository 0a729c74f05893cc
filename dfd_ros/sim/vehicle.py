"""The simulated vehicle: a two-aperture camera and a LiDAR on a parking lot, with their ground truth.

The world is still; in `moving` mode the vehicle drives through it. Views are rendered by `prepare`, at both apertures;
taking a photograph is then only exposure, noise and encoding. A photograph whose exposure overlaps a change of aperture
is the mix of both, as on the real camera.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera, Transform
from dfd_ros.optics.lens import Lens
from dfd_ros.optics.render import render_defocus
from dfd_ros.optics.sensor import Sensor, SensorSettings
from dfd_ros.sim import spinning_lidar
from dfd_ros.sim.lot import parking_lot
from dfd_ros.sim.spinning_lidar import LidarSettings
from dfd_ros.sim.trace import MISS
from dfd_ros.sim.view import smooth_rows, trace_depth, trace_rows, viewpoint

CAMERA_HEIGHT = 1.4
"""Metres above the ground."""
CAMERA_PITCH = -1.5
"""Degrees; negative looks down."""
_SUPERSAMPLES = 3  # per pixel side, on edges
_LANE_BEYOND = 5.0  # metres the lane stays free past the end of the drive
_WHOLE_EXPOSURE = 1e-6  # how far from 1 the shares of an exposure may sum
OBJECT_KINDS = ("car", "van", "truck", "pedestrian", "cone", "meter", "sign", "lamp", "tree", "bush")
"""Kinds that `objects` reports; the rest is ground and buildings."""


@dataclass(frozen=True)
class SimSettings:
    """What is simulated.

    Attributes:
        seed: Decides the scene and all noise.
        moving: Whether the vehicle drives (forward, at `speed`).
        speed: m/s.
        frame_rate: Pictures per second; in moving mode, views are rendered at this rate.
        lidar_rate: Sweeps per second.
        reference_exposure: Seconds at the shallow aperture that bring white in the sun to full scale.
        sensor, lidar: The instruments.
        threads: How many threads render.
    """

    seed: int = 0
    moving: bool = False
    speed: float = 0.5
    frame_rate: float = 20.0
    lidar_rate: float = 10.0
    reference_exposure: float = 1e-3
    sensor: SensorSettings = field(default_factory=SensorSettings)
    lidar: LidarSettings = field(default_factory=LidarSettings)
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("speed", "frame_rate", "lidar_rate", "reference_exposure", "threads"):
            if not getattr(self, name) > 0:
                raise InputError(f"the simulation's {name} must be positive, got {getattr(self, name)!r}")
        if self.seed < 0:
            raise InputError(f"the simulation's seed must be at least 0, got {self.seed}")


@dataclass(frozen=True)
class ObjectBox:
    """An object in a view.

    Attributes:
        kind: One of `OBJECT_KINDS`.
        id: The object's number, the same in every view of a scene.
        x, y, width, height: Rectangle of its visible pixels.
        pixels: How many of its pixels are visible.
        distance: Median depth (z) of the visible pixels, metres.
    """

    kind: str
    id: int
    x: int
    y: int
    width: int
    height: int
    pixels: int
    distance: float


@dataclass(frozen=True)
class _View:
    """What the camera sees from one place, linear: at the shallow and the deep aperture, (H, W, 3) float16/float32."""

    shallow: NDArray[np.floating]
    deep: NDArray[np.floating]


@dataclass(frozen=True)
class _Truth:
    """What a view shows: depth (H, W) float32 metres and the object's number (H, W) int32, −1 for the sky."""

    view: int
    depth: NDArray[np.float32]
    thing: NDArray[np.int32]


def camera_of(lens: Lens, width: int = 640, height: int = 480) -> Camera:
    """The pinhole camera of a lens with known focal length and pixel pitch, its axis in the middle of the picture.

    Raises:
        InputError: The lens has no focal length or pixel pitch.
    """
    focal = lens.focal_length / lens.pixel_pitch
    if not math.isfinite(focal):
        raise InputError(f"lens {lens.name!r}: the simulator needs focal_length and pixel_pitch, got none")
    return Camera(width, height, focal, focal, (width - 1) / 2.0, (height - 1) / 2.0)


class SimulatedVehicle:
    """A vehicle with camera and LiDAR. `prepare` it, then ask for photographs and sweeps in any order, from any thread.

    Times are seconds since the start of the simulation.
    """

    def __init__(
        self,
        settings: SimSettings,
        lens: Lens,
        camera: Camera | None = None,
        camera_from_lidar: Transform | None = None,
    ) -> None:
        """Without `camera` the one of the lens is taken, without `camera_from_lidar` the default mounting.

        Raises:
            InputError: The camera has distortion, or the lens no focal length to make a camera from.
        """
        self.settings = settings
        self.lens = lens
        self.camera = camera or camera_of(lens)
        self.camera_from_lidar = camera_from_lidar or spinning_lidar.default_mounting()
        if any(self.camera.distortion):
            raise InputError(f"the simulated camera is a pinhole, got distortion {self.camera.distortion}")
        self._sensor = Sensor(settings.sensor, self.camera.shape, settings.seed)
        self._views: list[_View] = []
        self._period = math.inf  # seconds until the drive starts over
        self._still_echoes: spinning_lidar.Echoes | None = None
        self._truth: _Truth | None = None
        self._lock = threading.Lock()

    def prepare(self, duration: float = 0.0, progress: Callable[[float], None] | None = None) -> None:
        """Build the scene and render the views, for `duration` seconds in moving mode; then the drive starts over.

        A view in memory takes 3.7 MB at 640x480 in moving mode; `progress` is called with the share done, in [0, 1].

        Raises:
            InputError: Moving without a positive duration.
        """
        report = progress or (lambda share: None)
        settings = self.settings
        if settings.moving and not (math.isfinite(duration) and duration > 0):
            raise InputError(f"a moving simulation needs the duration to prepare for, in seconds, got {duration!r}")
        report(0.0)
        clear = settings.speed * duration + _LANE_BEYOND if settings.moving else 0.0
        self._scene = parking_lot(settings.seed, clear=clear)
        self._truth = self._still_echoes = None
        count = 1 + math.ceil(duration * settings.frame_rate) if settings.moving else 1
        self._period = count / settings.frame_rate
        if count == 1:
            self._views = [self._render(0.0, settings.threads, np.float32)]
            self._still_echoes = spinning_lidar.cast(
                self._scene, settings.lidar, self._world_from_lidar(0.0), np.zeros(3, np.float32)
            )
            report(1.0)
            return
        views: list[_View | None] = [None] * count
        with ThreadPoolExecutor(settings.threads) as pool:
            jobs = {
                pool.submit(self._render, index / settings.frame_rate, 1, np.float16): index for index in range(count)
            }
            try:
                for done, job in enumerate(as_completed(jobs), start=1):
                    views[jobs[job]] = job.result()
                    report(done / count)
            except BaseException:
                pool.shutdown(cancel_futures=True)  # who interrupts does not want to wait for the rest
                raise
        self._views = [view for view in views if view is not None]

    def photograph(
        self,
        t: float,
        exposure_time: float,
        aperture: tuple[float, float],
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """The picture whose exposure begins at `t`.

        Args:
            t: Seconds; also decides the noise (to the microsecond).
            exposure_time: Seconds.
            aperture: Shares of the exposure that the lens spent at the shallow and the deep aperture; they sum to 1.
            out: Where to write, (H, W, 3) uint8, contiguous.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            InputError: Not prepared, or the exposure or its shares are out of range.
        """
        self._ready()
        shallow, deep = aperture
        if min(shallow, deep) < 0 or abs(shallow + deep - 1.0) > _WHOLE_EXPOSURE:
            raise InputError(f"the shares of the exposure at each aperture must sum to 1, got {shallow!r} and {deep!r}")
        if not (math.isfinite(exposure_time) and exposure_time > 0):
            raise InputError(f"exposure_time must be a positive number of seconds, got {exposure_time!r}")
        settings = self.settings
        view = self._views[self._view_at(t)]
        # Light falls with the square of the f-number.
        gain = exposure_time / settings.reference_exposure
        gains = (gain * shallow, gain * deep * self.lens.f_number_ratio**2)
        # A picture without a share in the exposure need not be converted.
        first = view.shallow if shallow > 0 else view.deep
        second = view.deep if deep > 0 else view.shallow
        light = np.asarray(first, np.float32)
        pictures = (light, light if second is first else np.asarray(second, np.float32))
        return self._sensor.expose_mix(pictures, gains, round(t * 1e6), out)

    def sweep(self, t: float) -> NDArray[np.void]:
        """The LiDAR's points of the sweep that begins at `t`: structured, dtype `spinning_lidar.POINT`."""
        self._ready()
        settings = self.settings
        echoes = self._still_echoes
        if echoes is None:
            travel = np.array([settings.speed / settings.lidar_rate, 0.0, 0.0], np.float32)
            echoes = spinning_lidar.cast(self._scene, settings.lidar, self._world_from_lidar(t), travel)
        rng = np.random.default_rng((settings.seed, 1, round(t * 1e6) % (1 << 63)))
        return spinning_lidar.measure(echoes, settings.lidar, 1.0 / settings.lidar_rate, rng)

    def ground_truth(self, t: float) -> NDArray[np.float32]:
        """Depth (z) at the pixel centres of the photograph taken at `t`, (H, W) float32 metres, NaN for the sky.

        Do not write into it.
        """
        return self._truth_at(t).depth

    def objects(self, t: float, min_pixels: int = 50) -> list[ObjectBox]:
        """The objects of the photograph at `t` that show at least `min_pixels` pixels, nearest first."""
        truth = self._truth_at(t)
        boxes = []
        for number, window in enumerate(find_objects(truth.thing + 1)):
            kind = self._scene.kinds[number]
            if window is None or kind not in OBJECT_KINDS:
                continue
            visible = truth.depth[window][truth.thing[window] == number]
            if len(visible) < min_pixels:
                continue
            rows, columns = window
            boxes.append(
                ObjectBox(
                    kind=kind,
                    id=int(self._scene.ids[number]),
                    x=columns.start,
                    y=rows.start,
                    width=columns.stop - columns.start,
                    height=rows.stop - rows.start,
                    pixels=len(visible),
                    distance=float(np.median(visible)),
                )
            )
        return sorted(boxes, key=lambda box: box.distance)

    def world_from_camera(self, t: float) -> Transform:
        """Where the camera is (world: x forward, y left, z up, the origin on the ground below its first place)."""
        pitch = math.radians(CAMERA_PITCH)
        forward = np.array([math.cos(pitch), 0.0, math.sin(pitch)])
        right = np.array([0.0, -1.0, 0.0])
        rotation = np.column_stack([right, np.cross(forward, right), forward])
        driven = self.settings.speed * (t % self._period) if self.settings.moving else 0.0
        return Transform(rotation, np.array([driven, 0.0, CAMERA_HEIGHT]))

    def all_in_focus(self, t: float = 0.0, threads: int = 1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The view at time t without defocus: linear picture (H, W, 3) and depth (H, W), both float32."""
        scene, view = self._scene.arrays, viewpoint(self.camera, self.world_from_camera(t))
        height = self.camera.height
        picture = np.empty((*self.camera.shape, 3), np.float32)
        depth = np.empty(self.camera.shape, np.float32)
        key = np.empty(self.camera.shape, np.int32)
        count = 1 if threads == 1 else 4 * threads  # strips are not equally hard
        strips = [(height * i // count, height * (i + 1) // count) for i in range(count)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda rows: trace_rows(scene, view, *rows, picture, depth, key), strips))
            list(pool.map(lambda rows: smooth_rows(scene, view, *rows, _SUPERSAMPLES, key, picture), strips))
        return picture, depth

    def _render(self, t: float, threads: int, dtype: type[np.floating]) -> _View:
        picture, depth = self.all_in_focus(t, threads)
        lens = self.lens
        shallow, deep = render_defocus(
            picture, depth, lens, (lens.f_number_shallow, lens.f_number_deep), threads=threads
        )
        return _View(shallow.astype(dtype, copy=False), deep.astype(dtype, copy=False))

    def _truth_at(self, t: float) -> _Truth:
        """The truth of the view that a photograph at time t shows; the last one is kept."""
        self._ready()
        index = self._view_at(t)
        with self._lock:
            if self._truth is None or self._truth.view != index:
                scene = self._scene.arrays
                depth = np.empty(self.camera.shape, np.float32)
                face = np.empty(self.camera.shape, np.int32)
                view = viewpoint(self.camera, self.world_from_camera(index / self.settings.frame_rate))
                trace_depth(scene, view, 0, self.camera.height, depth, face)
                thing = np.append(scene.part_object[scene.face_part], np.int32(MISS))[face]  # face −1 is the last
                self._truth = _Truth(index, depth, thing)
            return self._truth

    def _view_at(self, t: float) -> int:
        """The view that is nearest to time t; the drive starts over after the last one."""
        return round(t * self.settings.frame_rate) % len(self._views) if self.settings.moving else 0

    def _world_from_lidar(self, t: float) -> Transform:
        return self.world_from_camera(t) @ self.camera_from_lidar

    def _ready(self) -> None:
        if not self._views:
            raise InputError("the simulated vehicle is not ready: call prepare() first")
