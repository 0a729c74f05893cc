"""The thin lens: circle of confusion (CoC) from depth, depth from CoC, and what a lens can measure.

For focal length f, f-number N, focus distance z_f and pixel pitch p (all metres), a point at depth z is blurred to a
disk of diameter (Hecht, Optics, ch. 5; equation 1 of Pentland, PAMI 1987)

    c(z) = f² / (N (z_f − f) p) · |1 − z_f / z|      pixels.

The first factor times N is the lens's `coc_scale`; it is what `dfd calibrate` fits where f and p are not known. Away
from the image centre field curvature and vignetting change the CoC; to first order by a factor 1 + k ρ², with ρ the
distance from the centre over that of the corner and k the lens's `coc_field`. Vignetting cuts the wide pupil on one
side only, so that off the centre blur is displaced, too: outwards by q ρ² times the CoC, negative nearer than the focus,
with q the lens's `parallax`; along the horizontal by `parallax_aspect` times as much, since what cuts is no circle (a mirror
box cuts from above and below). That is the one sign by which a pair tells near from far, as a dual-pixel sensor would.

Depths and CoCs may be numbers, numpy arrays or torch tensors (on any device, with gradients); what comes back is an
array, or a tensor for a tensor. NaN stays NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfd_ros.errors import InputError

Side = Literal["far", "near"]
PSF_KINDS = ("disk", "gaussian")
COC_ERROR = 0.1
"""Error of a CoC measured on good texture, pixels (standard deviation)."""
MAX_PARALLAX_ASPECT = 5.0
"""Largest `parallax_aspect`: a camera on its side has the inverse of what it has upright."""
SHARP_COC = 1.0
"""Largest CoC that a pixel hides, pixels."""


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
        coc_field: How much larger the CoC is in the image's corners than at its centre, as a fraction.
        parallax: How far the shallow image's blur lies outwards of the deep one's in the corners, over the signed CoC.
        parallax_aspect: Of that, the part along the horizontal over what is radial: 0 for vertical parallax alone.
        magnification: Size of the shallow image over that of the deep one (focus breathing, aperture shift).
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
    coc_field: float = 0.0
    parallax: float = 0.0
    parallax_aspect: float = 1.0
    magnification: float = 1.0
    prior_depth: float = math.nan
    prior_log_sigma: float = math.nan
    prior_log_slope: float = 0.0

    def __post_init__(self) -> None:
        positive = ("focus_distance", "f_number_shallow", "f_number_deep", "coc_scale", "min_depth", "max_depth")
        for name in (*positive, "magnification"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise InputError(f"lens {self.name!r}: {name} must be a positive number, got {value!r}")
        for name in ("focal_length", "pixel_pitch"):
            if getattr(self, name) <= 0:
                raise InputError(
                    f"lens {self.name!r}: {name} must be a positive number of metres, got {getattr(self, name)!r}"
                )
        if self.focus_distance <= self.focal_length:
            raise InputError(
                f"lens {self.name!r}: focus_distance must exceed the focal length {self.focal_length:g} m, "
                f"got {self.focus_distance:g} m"
            )
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
        if not self.coc_field > -1.0:
            raise InputError(f"lens {self.name!r}: coc_field must be above -1, got {self.coc_field!r}")
        if not abs(self.parallax) < 0.5:
            raise InputError(f"lens {self.name!r}: parallax must lie within -0.5 and 0.5, got {self.parallax!r}")
        if not 0.0 <= self.parallax_aspect <= MAX_PARALLAX_ASPECT:
            raise InputError(
                f"lens {self.name!r}: parallax_aspect must lie within 0 and {MAX_PARALLAX_ASPECT:g}, "
                f"got {self.parallax_aspect!r}"
            )

    @classmethod
    def physical(
        cls, name: str, *, focal_length: float, pixel_pitch: float, focus_distance: float, **others: Any
    ) -> Lens:
        """A lens from its data sheet: focal length and (binned) pixel pitch in metres; other fields as they are.

        Raises:
            InputError: A value is out of range; the focus must lie beyond the focal length.
        """
        # A scale of 1 where there is none to compute: the checks then say what is wrong with the lengths.
        possible = pixel_pitch > 0 and focus_distance > focal_length > 0
        scale = focal_length**2 / ((focus_distance - focal_length) * pixel_pitch) if possible else 1.0
        for what, value in (("focal_length", focal_length), ("pixel_pitch", pixel_pitch)):
            if not math.isfinite(value):
                raise InputError(f"lens {name!r}: {what} must be a positive number of metres, got {value!r}")
        others |= {"focal_length": focal_length, "pixel_pitch": pixel_pitch, "focus_distance": focus_distance}
        return cls(name=name, coc_scale=scale, **others)

    def refocused(self, focus_distance: float) -> Lens:
        """The same lens focused at another distance, metres.

        `coc_scale` follows f² / ((z_f − f) p); a lens of unknown focal length is taken to be short against both distances.

        Raises:
            InputError: The distance is at or inside the focal length, or not positive.
        """
        moved = replace(self, focus_distance=focus_distance)
        return replace(moved, coc_scale=self.coc_scale * self._extension / moved._extension)

    def zoomed(self, zoom: float) -> Lens:
        """The lens in pixels of pictures enlarged `zoom` times (below 1: reduced, binned).

        Raises:
            InputError: `zoom` is not positive.
        """
        return replace(
            self,
            coc_scale=self.coc_scale * zoom,
            pixel_pitch=self.pixel_pitch / zoom if zoom else zoom,
            coc_uncertainty=self.coc_uncertainty * zoom,
            focus_blur=self.focus_blur * zoom,
        )

    @property
    def f_number_ratio(self) -> float:
        """Shallow over deep f-number: deep CoC over shallow CoC, in (0, 1)."""
        return self.f_number_shallow / self.f_number_deep

    @property
    def f_number_effective(self) -> float:
        """The f-number that, beside a pinhole, would blur as much as the two apertures differ.

        Blurs add as variances, so the pair tells c_s² − c_d²: 1/N² = 1/N_s² − 1/N_d².
        """
        return self.f_number_shallow / math.sqrt(1.0 - self.f_number_ratio**2)

    def signed_coc(self, depth: ArrayLike, f_number: float | None = None, *, check: bool = True) -> Any:
        """CoC diameter at the image centre, pixels, negative nearer than the focus; linear in 1/depth.

        Args:
            depth: Metres, beyond the focal length; NaN stays NaN and infinity is allowed.
            f_number: The shallow aperture unless given.
            check: Whether to look for impossible depths. Looking at a tensor on a GPU waits for it, and in a compiled
                graph breaks it: pass False there.

        Raises:
            InputError: A depth is at or inside the focal length, or not positive where that is not known.
        """
        z = _values(depth)
        if check:
            nearest = 0.0 if math.isnan(self.focal_length) else self.focal_length
            if bool((z <= nearest).any()):
                what = "0" if nearest == 0.0 else f"the focal length {nearest:g} m"
                raise InputError(f"depth: expected metres beyond {what}, got {float(z[z <= nearest].min()):g}")
        return self._scale(f_number) * (1.0 - self.focus_distance / z)

    def coc(
        self, depth: ArrayLike, f_number: float | None = None, field: ArrayLike | None = None, *, check: bool = True
    ) -> Any:
        """CoC diameter in pixels at `depth`; as `signed_coc`, and at the image radius `field` where given.

        Args:
            field: Distance from the image centre over that of the corner (see `field_radius`), in [0, 1].
        """
        coc = abs(self.signed_coc(depth, f_number, check=check))
        return coc if field is None else coc * self.coc_gain(field)

    def coc_gain(self, field: ArrayLike) -> Any:
        """CoC at image radius `field` over that at the centre."""
        return 1.0 + self.coc_field * _values(field) ** 2

    def displacement(self, depth: ArrayLike, field: ArrayLike) -> Any:
        """How far the shallow image lies outwards of the deep one, pixels, at `depth` and image radius `field`.

        Along the horizontal it is `parallax_aspect` times what this has there.
        """
        return self.parallax * _values(field) ** 2 * self.signed_coc(depth)

    def depth(
        self, coc: ArrayLike, f_number: float | None = None, side: Side = "far", field: ArrayLike | None = None
    ) -> Any:
        """Depth in metres of a CoC in pixels, on the far or the near side of the focus; +inf at and past the limit.

        Raises:
            InputError: `side` is neither.
        """
        if side not in ("far", "near"):
            raise InputError(f"side: expected far or near, got {side!r}")
        relative = _values(coc) / self._scale(f_number)
        if field is not None:
            relative = relative / self.coc_gain(field)
        if side == "near":
            return self.focus_distance / (1.0 + relative)
        with np.errstate(divide="ignore"):
            return self.focus_distance / (1.0 - relative).clip(0.0, None)

    def hyperfocal_distance(self, f_number: float | None = None, sharp_coc: float = SHARP_COC) -> float:
        """The nearest focus distance, metres, at which infinity is no more blurred than `sharp_coc` pixels."""
        length = 0.0 if math.isnan(self.focal_length) else self.focal_length
        return self._scale(f_number) * self._extension / sharp_coc + length

    def depth_of_field(self, f_number: float | None = None, sharp_coc: float = SHARP_COC) -> tuple[float, float]:
        """Near and far limit in metres of what is blurred by no more than `sharp_coc` pixels; far may be inf."""
        near, far = (float(self.depth(sharp_coc, f_number, side)) for side in ("near", "far"))
        return near, far

    def dead_zone(self, least_coc: float = SHARP_COC) -> tuple[float, float]:
        """Near and far limit in metres of the depths about the focus that the pair cannot tell apart.

        Both images are sharp there: the blurs differ (in quadrature) by less than `least_coc` pixels. After Trouvé et
        al., "Passive depth estimation using chromatic aberration and a depth from defocus approach" (Applied Optics
        52(29), 2013). Depth is still known to lie within the zone.
        """
        return self.depth_of_field(self.f_number_effective, least_coc)

    @property
    def coc_error(self) -> float:
        """Error to expect of a CoC, pixels (standard deviation): that on good texture and of the lens's own model."""
        return math.hypot(COC_ERROR, self.coc_uncertainty)

    def depth_error(self, depth: ArrayLike, coc_error: float | None = None) -> Any:
        """Depth error in metres that an error of `coc_error` pixels in the CoC makes at `depth`: dc · |dz/dc|.

        dz = dc · z² · N (z_f − f) p / (f² z_f), N being the effective f-number of the pair.
        """
        if coc_error is None:
            coc_error = self.coc_error
        return coc_error * _values(depth) ** 2 / (self._scale(self.f_number_effective) * self.focus_distance)

    def working_range(self, relative_error: float = 0.05, coc_error: float | None = None) -> tuple[float, float] | None:
        """Near and far limit in metres, within [min_depth, max_depth], of `relative_error` or better.

        Depths nearer than the focus share their blur with farther ones, so the range begins at the focus. None where
        no depth reaches the error.
        """
        # The error grows with z², so the relative error with z.
        far = min(relative_error / float(self.depth_error(1.0, coc_error)), self.max_depth)
        near = max(self.min_depth, self.focus_distance)
        return (near, far) if far > near else None

    def describe(self, relative_error: float = 0.05) -> str:
        """One line for the log: the lens and what it can see."""
        length = f"{1e3 * self.focal_length:g} mm " if math.isfinite(self.focal_length) else ""
        head = (
            f"{self.name}: {length}F/{self.f_number_shallow:g} and F/{self.f_number_deep:g} "
            f"focused at {self.focus_distance:.3g} m"
        )
        limits = self.working_range(relative_error)
        if limits is None:
            return f"{head}: {100 * relative_error:g} % or better nowhere in {self.min_depth:g} to {self.max_depth:g} m"
        judgement = f"{head}: {100 * relative_error:g} % or better from {limits[0]:.3g} to {limits[1]:.3g} m"
        if self.min_depth < limits[0]:
            judgement += f"; from {self.min_depth:.3g} to {limits[0]:.3g} m blur alone does not tell near from far"
        return judgement

    @property
    def _extension(self) -> float:
        """z_f − f, metres."""
        return self.focus_distance - (0.0 if math.isnan(self.focal_length) else self.focal_length)

    def _scale(self, f_number: float | None) -> float:
        """CoC at infinity, pixels."""
        return self.coc_scale / (self.f_number_shallow if f_number is None else f_number)


def field_radius(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Distance of each pixel from the image centre over that of the corner pixels, (H, W) in [0, 1]."""
    height, width = shape
    y = (np.arange(height, dtype=np.float32) - 0.5 * (height - 1))[:, None]
    x = np.arange(width, dtype=np.float32) - 0.5 * (width - 1)
    return np.hypot(y, x) / np.float32(max(0.5 * math.hypot(height - 1, width - 1), 0.5))


def _values(values: Any) -> Any:
    """A tensor as it is, anything else as an array; both then take the same operators."""
    return values if hasattr(values, "__torch_function__") else np.asarray(values)
