"""Endless made-up scenes at two apertures, to train on: random rooms, offices, clutter or streets, lenses, light and noise.

A scene is laid out (`scene_kinds`), photographed through a pinhole (`scene_caster`), defocused for both apertures
(`dfd_ros.optics.render`), and exposed on a noisy sensor (`dfd_ros.optics.sensor`). What a real pair suffers is there
too: exposures that do not quite match, a shift of a fraction of a pixel, a lens that is not quite what its file says.
Sample i is a function of the settings and i alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.data.samples import Image, Sample, as_values, encode
from dfd_ros.data.scene_caster import Pinhole, photograph
from dfd_ros.data.scene_kinds import LAYOUTS, lay_out
from dfd_ros.data.scene_layout import View
from dfd_ros.data.scene_textures import texture_bank
from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens, field_radius
from dfd_ros.optics.render import render_defocus
from dfd_ros.optics.sensor import Sensor, SensorSettings

Range = tuple[float, float]

_SENSORS = 8  # so many noise levels, spread evenly in log over the range asked for
_READ_NOISE = 6.0  # electrons
_EXPOSED_QUANTILE = (0.85, 0.99)  # of the picture's light is exposed to
_EXPOSED_TO = (0.5, 1.0)  # of white
_BORDER = cv2.BORDER_REFLECT_101
_LONGEST_FOCAL_LENGTH = 0.5  # over the nearest depth
_LEAST_SOFTNESS = 0.2  # pixels: a narrower Gaussian is one pixel


@dataclass(frozen=True)
class LensRange:
    """Lenses to draw from; each is a possible one: focal length and pixel pitch fit its CoC and field of view.

    Attributes:
        largest_coc: CoC of the shallow image at infinity, pixels; even in its logarithm. Less where it would take a focal
            length of more than half the nearest depth.
        focus: Focus distance over the nearest depth of the scenes. Within the depth range a CoC has two meanings, so it
            should hardly exceed 1 where blur alone is to tell depth.
        f_number_shallow: The wide aperture.
        f_number_ratio: The narrow aperture's f-number over the wide one's.
        coc_field: How much larger the CoC is in the corners, as a fraction.
        parallax, parallax_aspect: The lens's; see there.
        without_parallax: Share of lenses that have none.
        psf: `disk` or `gaussian`.
    """

    largest_coc: Range = (2.0, 14.0)
    focus: Range = (0.5, 1.1)
    f_number_shallow: Range = (1.4, 4.0)
    f_number_ratio: Range = (1.8, 7.0)
    coc_field: Range = (0.0, 0.0)
    parallax: Range = (0.0, 0.0)
    parallax_aspect: Range = (1.0, 1.0)
    without_parallax: float = 0.0
    psf: str = "disk"

    def draw(self, rng: np.random.Generator, focal_px: float, depth_range: Range) -> Lens:
        """A lens of this range for a camera of `focal_px` pixels focal length and such depths (metres)."""
        focus = rng.uniform(*self.focus) * depth_range[0]
        coc = math.exp(rng.uniform(*np.log(self.largest_coc)))
        f_number = rng.uniform(*self.f_number_shallow)
        scale = coc * f_number
        # coc_scale = f · f_px / (z_f − f), with f_px = f / p; no lens sees what is nearer than its focal length.
        focal_length = min(scale * focus / (focal_px + scale), _LONGEST_FOCAL_LENGTH * depth_range[0])
        lens = Lens.physical(
            "random",
            focal_length=focal_length,
            pixel_pitch=focal_length / focal_px,
            focus_distance=focus,
            f_number_shallow=f_number,
            f_number_deep=f_number * rng.uniform(*self.f_number_ratio),
            min_depth=depth_range[0],
            max_depth=depth_range[1],
            psf=self.psf,
            coc_field=rng.uniform(*self.coc_field),
            parallax=rng.uniform(*self.parallax),
            parallax_aspect=rng.uniform(*self.parallax_aspect),
        )
        without = self.without_parallax > 0.0 and rng.random() < self.without_parallax
        return replace(lens, parallax=0.0) if without else lens


@dataclass(frozen=True)
class SyntheticSettings:
    """What to make; pairs are the least and the greatest.

    Attributes:
        shape: Height and width of the pictures, pixels.
        seed: Another seed, other scenes.
        depth_range: Metres; the scenes lie within.
        kinds: How often each kind of scene comes, by name: `room`, `office`, `clutter`, `street`.
        lens: One lens for all, its CoC in pixels of these pictures, or a range of them.
        lens_error: By how much the lens that takes the pictures differs from the one told: standard deviation, as a
            fraction, of its CoC scale and of its focus distance.
        field_of_view: Across, degrees; of no effect where the lens tells it by focal length and pixel pitch.
        full_well: Electrons at full scale: fewer are noisier.
        gamma: Encoding exponent that the pictures say they have.
        gamma_error: By how much the encoding differs from that: standard deviation, as a fraction.
        exposure_error: Of the deep image against the shallow one: standard deviation, as a fraction.
        misregistration: Largest shift of the shallow image against the deep one, pixels along each axis.
        magnification_error: Of the shallow image's size: standard deviation, as a fraction.
        softness: Standard deviation of a Gaussian by which both pictures are softer than the pixels, pixels.
    """

    shape: tuple[int, int] = (240, 320)
    seed: int = 0
    depth_range: Range = (0.4, 10.0)
    kinds: Mapping[str, float] = field(default_factory=lambda: {"room": 0.7, "clutter": 0.3})
    lens: Lens | LensRange = LensRange()
    lens_error: float = 0.0
    field_of_view: Range = (35.0, 75.0)
    full_well: Range = (2_000.0, 20_000.0)
    gamma: float = 2.2
    gamma_error: float = 0.03
    exposure_error: float = 0.02
    misregistration: float = 0.3
    magnification_error: float = 0.0
    softness: Range = (0.0, 0.5)

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or min(self.shape) < 16:
            raise InputError(f"shape: expected height and width of 16 pixels or more, got {self.shape}")
        for name, least in (("depth_range", 0.0), ("field_of_view", 0.0), ("full_well", 0.0), ("softness", -1e-9)):
            low, high = getattr(self, name)
            if not (least < low <= high < math.inf):
                raise InputError(f"{name}: expected a range of positive numbers, got {low!r} to {high!r}")
        if self.depth_range[0] >= 0.5 * self.depth_range[1]:
            raise InputError(
                f"depth_range: expected the farthest depth to be twice the nearest or more, got {self.depth_range}"
            )
        if self.field_of_view[1] >= 150.0:
            raise InputError(f"field_of_view: expected less than 150 degrees, got {self.field_of_view[1]:g}")
        if not self.kinds or not set(self.kinds) <= set(LAYOUTS) or not sum(self.kinds.values()) > 0.0:
            raise InputError(f"kinds: expected a weight for some of {', '.join(LAYOUTS)}, got {dict(self.kinds)}")
        for name in ("lens_error", "gamma_error", "exposure_error", "misregistration", "magnification_error"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"{name}: expected a number of 0 to 1, got {getattr(self, name)!r}")
        if not self.gamma > 0.0:
            raise InputError(f"gamma: expected a positive number, got {self.gamma!r}")


class SyntheticScenes:
    """The stream of samples. Not for several threads at once; every process makes its own."""

    def __init__(self, settings: SyntheticSettings = SyntheticSettings()) -> None:
        self.settings = settings
        self._bank = texture_bank()
        gammas = settings.gamma * np.exp(settings.gamma_error * np.random.default_rng(0).standard_normal(_SENSORS))
        levels = np.geomspace(*settings.full_well, _SENSORS)
        self._sensors = [
            Sensor(SensorSettings(full_well=level, read_noise=_READ_NOISE, gamma=gamma), settings.shape, seed)
            for seed, (level, gamma) in enumerate(zip(levels.tolist(), gammas.tolist(), strict=True))
        ]

    def sample(self, index: int) -> Sample:
        """Sample `index` >= 0, always the same.

        Raises:
            InputError: The index is negative, or the lens blurs some depth of the range beyond what is rendered.
        """
        if index < 0:
            raise InputError(f"sample: expected a number of 0 or more, got {index}")
        settings = self.settings
        rng = np.random.default_rng((settings.seed, index))
        kinds = list(settings.kinds)
        weights = np.array([settings.kinds[kind] for kind in kinds])
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        camera, lens = self._camera(rng)
        view = View(camera, settings.shape, *settings.depth_range)
        scene = lay_out(kind, rng, view, self._bank)
        sharp, depth = photograph(scene.bodies, scene.surfaces, scene.light, camera, settings.shape, self._bank)
        sharp *= _exposure(sharp, rng)
        sensor = self._sensors[int(rng.integers(_SENSORS))]
        shallow, deep = self._take(sharp, depth, self._as_built(lens, rng), sensor, rng)
        low, high = settings.depth_range
        depth[~((low <= depth) & (depth <= high))] = np.nan
        return Sample(
            f"{kind}-{settings.seed}-{index}",
            shallow,
            deep,
            depth,
            lens,
            all_in_focus=encode(sharp, sensor.settings.gamma),
            gamma=settings.gamma,
        )

    def __reduce__(self) -> tuple[type[SyntheticScenes], tuple[SyntheticSettings]]:
        """Goes to another process as its settings, and is made there anew."""
        return SyntheticScenes, (self.settings,)

    def __iter__(self) -> Iterator[Sample]:
        index = 0
        while True:
            yield self.sample(index)
            index += 1

    def _camera(self, rng: np.random.Generator) -> tuple[Pinhole, Lens]:
        """A pinhole and a lens that fit each other."""
        settings = self.settings
        height, width = settings.shape
        angle = math.radians(rng.uniform(*settings.field_of_view))
        focal = 0.5 * width / math.tan(0.5 * angle)
        if isinstance(settings.lens, LensRange):
            lens = settings.lens.draw(rng, focal, settings.depth_range)
        else:
            lens = settings.lens
            known = lens.focal_length / lens.pixel_pitch
            focal = focal if math.isnan(known) else known
        return Pinhole(np.float32(focal), np.float32((width - 1) / 2), np.float32((height - 1) / 2)), lens

    def _as_built(self, lens: Lens, rng: np.random.Generator) -> Lens:
        """The lens that takes the pictures: off by the lens error."""
        scale, focus = np.exp(self.settings.lens_error * rng.standard_normal(2)).tolist()
        least = 1.01 * lens.focal_length if lens.focal_length > 0.0 else 0.0
        return replace(lens, coc_scale=lens.coc_scale * scale, focus_distance=max(lens.focus_distance * focus, least))

    def _take(
        self, sharp: Image, depth: Image, lens: Lens, sensor: Sensor, rng: np.random.Generator
    ) -> tuple[Image, Image]:
        """The shallow and the deep picture, encoded."""
        settings = self.settings
        shallow, deep = render_defocus(sharp, depth, lens, (lens.f_number_shallow, lens.f_number_deep))
        softness = rng.uniform(*settings.softness)
        # A disk's standard deviation is a quarter of its diameter.
        shallow = _soften(shallow, math.hypot(softness, 0.25 * lens.focus_blur))
        deep = _soften(deep, softness)
        shift = rng.uniform(-settings.misregistration, settings.misregistration, 2)
        size = 1.0 + settings.magnification_error * rng.standard_normal() if settings.magnification_error else 1.0
        shallow = displaced(shallow, depth, lens, shift, size)
        gain = math.exp(settings.exposure_error * rng.standard_normal())
        numbers = rng.integers(1 << 62, size=2).tolist()
        return as_values(sensor.expose(shallow, 1.0, numbers[0])), as_values(sensor.expose(deep, gain, numbers[1]))


def _exposure(light: Image, rng: np.random.Generator) -> np.float32:
    """The exposure that brings a quantile of the light to a share of white."""
    level = float(np.quantile(light[::4, ::4], rng.uniform(*_EXPOSED_QUANTILE)))
    return np.float32(rng.uniform(*_EXPOSED_TO) / max(level, 1e-6))


def _soften(picture: Image, sigma: float) -> Image:
    return picture if sigma < _LEAST_SOFTNESS else cv2.GaussianBlur(picture, (0, 0), sigma)


def displaced(picture: Image, depth: Image, lens: Lens, shift: NDArray[np.float64], size: float) -> Image:
    """The picture enlarged about its centre, moved right and down, and displaced as the lens's parallax has it.

    A Lanczos kernel keeps its sharpness.
    """
    height, width = depth.shape
    if not lens.parallax and size == 1.0:
        if not shift.any():
            return picture
        matrix = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
        moved = cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LANCZOS4, borderMode=_BORDER)
    else:
        y = (np.arange(height, dtype=np.float32) - np.float32(0.5 * (height - 1)))[:, None]
        x = np.arange(width, dtype=np.float32) - np.float32(0.5 * (width - 1))
        shrunk = np.float32(1.0 / size)
        back = np.float32(0.0)
        if lens.parallax:
            # u outwards of a pixel at ρ, whose distance from the centre is ρ times the corner's.
            field = field_radius(depth.shape)
            corner = max(0.5 * math.hypot(height - 1, width - 1), 0.5)
            scene = np.where(depth > 0.0, depth, lens.focus_distance)
            back = lens.displacement(scene, np.sqrt(field)).astype(np.float32) / np.float32(corner)
        to_x = x * (shrunk - np.float32(lens.parallax_aspect) * back) + np.float32(0.5 * (width - 1) - shift[0])
        to_y = y * (shrunk - back) + np.float32(0.5 * (height - 1) - shift[1])
        to_x, to_y = (np.ascontiguousarray(part) for part in np.broadcast_arrays(to_x, to_y))
        moved = cv2.remap(picture, to_x, to_y, cv2.INTER_LANCZOS4, borderMode=_BORDER)
    return np.maximum(moved, 0.0, out=moved)
