"""The thin lens: circle of confusion (CoC) from depth and depth from CoC.

For focal length f, f-number N, focus distance z_f and pixel pitch p (all metres), a point at depth z is blurred to a
disk of diameter (Hecht, Optics, ch. 5; equation 1 of Pentland, PAMI 1987)

    c(z) = f² / (N (z_f − f) p) · |1 − z_f / z|      pixels.

The first factor times N is the lens's `coc_scale`; it is what `dfd calibrate` fits where f and p are not known.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from dfd_ros.errors import InputError

Side = Literal["far", "near"]
PSF_KINDS = ("disk", "gaussian")


@dataclass(frozen=True)
class Lens:
    """A lens with two apertures, focused at one distance.

    Attributes:
        name: What to call it in logs.
        focus_distance: Distance of the plane in focus, metres.
        f_number_shallow, f_number_deep: The wide and the narrow aperture; shallow < deep.
        coc_scale: CoC of a point at infinity times the f-number, pixels.
        min_depth, max_depth: The depth range to work in, metres.
        psf: `disk` or `gaussian` (standard deviation CoC/4, the disk's own).
        focal_length, pixel_pitch: Metres; NaN where not known (a calibrated lens needs neither).
        coc_uncertainty: Standard deviation of the CoC model, pixels (0 for an ideal lens).
        focus_blur: CoC that the shallow image keeps in the plane of focus beyond the deep one's (aberrations), pixels;
            it adds in quadrature. `coc` and `depth` are the thin lens's and leave it out.
        prior_depth, prior_log_sigma: What depths to expect where the image does not tell: median (metres) of a
            log-normal distribution and its standard deviation in ln depth; NaN where not known.
        prior_log_slope: ln of how much farther the top row of the image is expected to be than the bottom row.
    """

    name: str
    focus_distance: float
    f_number_shallow: float
    f_number_deep: float
    coc_scale: float
    min_depth: float
    max_depth: float
    psf: str = "disk"
    focal_length: float = math.nan
    pixel_pitch: float = math.nan
    coc_uncertainty: float = 0.0
    focus_blur: float = 0.0
    prior_depth: float = math.nan
    prior_log_sigma: float = math.nan
    prior_log_slope: float = 0.0

    def __post_init__(self) -> None:
        for name in ("focus_distance", "f_number_shallow", "f_number_deep", "coc_scale", "min_depth", "max_depth"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise InputError(f"lens {self.name!r}: {name} must be a positive number, got {value!r}")
        if self.f_number_shallow >= self.f_number_deep:
            raise InputError(
                f"lens {self.name!r}: f_number_shallow must be below f_number_deep, "
                f"got {self.f_number_shallow:g} and {self.f_number_deep:g}"
            )
        if self.min_depth >= self.max_depth:
            raise InputError(
                f"lens {self.name!r}: min_depth must be below max_depth, got {self.min_depth:g} and {self.max_depth:g}"
            )
        if self.psf not in PSF_KINDS:
            raise InputError(f"lens {self.name!r}: psf must be one of {', '.join(PSF_KINDS)}, got {self.psf!r}")

    @classmethod
    def physical(
        cls,
        name: str,
        *,
        focal_length: float,
        pixel_pitch: float,
        focus_distance: float,
        f_number_shallow: float,
        f_number_deep: float,
        min_depth: float,
        max_depth: float,
        psf: str = "disk",
    ) -> Lens:
        """A lens from its data sheet: focal length and (binned) pixel pitch in metres."""
        for what, value in (("focal_length", focal_length), ("pixel_pitch", pixel_pitch)):
            if not value > 0:
                raise InputError(f"lens {name!r}: {what} must be a positive number of metres, got {value!r}")
        if focus_distance <= focal_length:
            raise InputError(
                f"lens {name!r}: focus_distance must exceed the focal length {focal_length:g} m, got {focus_distance:g} m"
            )
        return cls(
            name=name,
            focus_distance=focus_distance,
            f_number_shallow=f_number_shallow,
            f_number_deep=f_number_deep,
            coc_scale=focal_length**2 / ((focus_distance - focal_length) * pixel_pitch),
            min_depth=min_depth,
            max_depth=max_depth,
            psf=psf,
            focal_length=focal_length,
            pixel_pitch=pixel_pitch,
        )

    @property
    def f_number_ratio(self) -> float:
        """Shallow over deep f-number: deep CoC over shallow CoC, in (0, 1)."""
        return self.f_number_shallow / self.f_number_deep

    def coc(self, depth: ArrayLike, f_number: float | None = None) -> NDArray[np.floating]:
        """CoC diameter in pixels at `depth` (metres, > 0), at the shallow aperture unless another is given."""
        z = np.asarray(depth)
        scale = self.coc_scale / (self.f_number_shallow if f_number is None else f_number)
        return scale * np.abs(1.0 - self.focus_distance / z)

    def depth(self, coc: ArrayLike, f_number: float | None = None, side: Side = "far") -> NDArray[np.floating]:
        """Depth in metres of a CoC in pixels, on the far or the near side of the focus; +inf at and past the limit."""
        c = np.asarray(coc)
        relative = c / (self.coc_scale / (self.f_number_shallow if f_number is None else f_number))
        if side == "near":
            return self.focus_distance / (1.0 + relative)
        with np.errstate(divide="ignore"):
            return np.where(relative < 1.0, self.focus_distance / np.maximum(1.0 - relative, 0.0), np.inf)

    def depth_error(self, depth: ArrayLike, coc_error: float = 0.1) -> NDArray[np.floating]:
        """Depth error in metres that an error of `coc_error` pixels in the CoC difference makes at `depth`.

        The estimator sees the difference of the two blurs, so the effective scale is that of 1/N_s − 1/N_d.
        """
        z = np.asarray(depth)
        scale = self.coc_scale * (1.0 / self.f_number_shallow - 1.0 / self.f_number_deep)
        return coc_error * z**2 / (scale * self.focus_distance)

    def working_range(self, relative_error: float = 0.05, coc_error: float = 0.1) -> tuple[float, float] | None:
        """Near and far limit in metres, within [min_depth, max_depth], of `relative_error` or better on the far side.

        None where no depth in the range reaches it.
        """
        # The error grows with z², so the relative error with z.
        far = min(relative_error / float(self.depth_error(1.0, coc_error)), self.max_depth)
        near = max(self.min_depth, self.focus_distance)
        return (near, far) if far > near else None

    def describe(self) -> str:
        """One line for the log: the lens and what it can see."""
        head = f"{self.name}: F/{self.f_number_shallow:g} and F/{self.f_number_deep:g} focused at {self.focus_distance:g} m"
        if math.isfinite(self.focal_length):
            head = (
                f"{self.name}: {1e3 * self.focal_length:g} mm, F/{self.f_number_shallow:g} and F/{self.f_number_deep:g}"
            )
            head += f", focused at {self.focus_distance:g} m"
        limits = self.working_range()
        if limits is None:
            return f"{head}; 5 % or better nowhere in {self.min_depth:g} to {self.max_depth:g} m"
        return f"{head}; 5 % or better from {limits[0]:.3g} to {limits[1]:.3g} m (at 0.1 px of blur)"


def load_lens(path: str | Path) -> Lens:
    """Read a lens file (YAML): the fields of `Lens`, or `focal_length` and `pixel_pitch` in place of `coc_scale`.

    Raises:
        InputError: The file is missing, is not YAML, or a field is missing, unknown or out of range.
    """
    path = Path(path)
    try:
        content: Any = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"lens file {path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"lens file {path}: expected YAML, got {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise InputError(f"lens file {path}: expected a mapping of lens fields, got {type(content).__name__}")
    known = {field.name for field in fields(Lens)}
    unknown = sorted(set(map(str, content)) - known)
    if unknown:
        raise InputError(f"lens file {path}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    try:
        return Lens(**content) if "coc_scale" in content else Lens.physical(**content)
    except TypeError as error:
        raise InputError(f"lens file {path}: {_missing(error)}") from error
    except InputError as error:
        raise InputError(f"lens file {path}: {error}") from error


def save_lens(lens: Lens, path: str | Path) -> None:
    """Write a lens file that `load_lens` reads back."""
    content = {k: v for k, v in asdict(lens).items() if not (isinstance(v, float) and math.isnan(v))}
    Path(path).write_text(yaml.safe_dump(content, sort_keys=False))


def _missing(error: TypeError) -> str:
    """Python's word on a missing or ill-typed constructor argument, in a user's words."""
    text = str(error)
    if "missing" in text:
        return f"missing field {text.rsplit(':', 1)[-1].strip()}"
    return f"expected numbers, got {text}"
