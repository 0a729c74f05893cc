"""Was a model made for this lens?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dfd_ros.optics.lens import Lens

MARGIN = 0.05
"""Part by which a figure may lie beyond those trained for: lenses are calibrated no better."""
_UNITS = {"focus_distance": " m", "largest_coc": " px", "min_depth": " m", "max_depth": " m"}


def figures(lens: Lens) -> dict[str, float]:
    """What model cards say of lenses: f-numbers, metres, and the CoC at infinity in pixels."""
    return {
        "f_number_shallow": lens.f_number_shallow,
        "f_number_deep": lens.f_number_deep,
        "focus_distance": lens.focus_distance,
        "largest_coc": lens.coc_scale / lens.f_number_shallow,
        "min_depth": lens.min_depth,
        "max_depth": lens.max_depth,
    }


def ranges_of(seen: Iterable[tuple[str, float]]) -> dict[str, tuple[float, float]]:
    """Least and greatest of each figure, by its name."""
    found: dict[str, list[float]] = {}
    for name, figure in seen:
        found.setdefault(name, []).append(figure)
    return {name: (min(values), max(values)) for name, values in found.items()}


def outside(lens: Lens, ranges: Mapping[str, tuple[float, float]]) -> str:
    """The first figure of a lens that is not of a model's ranges, in words; empty where all are.

    The lens's depths must lie within those trained for, however much less of them it covers.
    """
    for name, value in figures(lens).items():
        if name not in ranges:
            continue
        low, high = ranges[name]
        too_low = value < low * (1.0 - MARGIN) and name != "max_depth"
        too_high = value > high * (1.0 + MARGIN) and name != "min_depth"
        if too_low or too_high:
            unit = _UNITS.get(name, "")
            return f"lens {lens.name!r}: expected {name} {low:.3g} to {high:.3g}{unit}, got {value:.3g}{unit}"
    return ""
