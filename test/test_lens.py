"""The thin lens: CoC and depth against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens, load_lens, save_lens

LENS = Lens.physical(
    "test",
    focal_length=0.05,
    pixel_pitch=27e-6,
    focus_distance=5.0,
    f_number_shallow=1.8,
    f_number_deep=4.0,
    min_depth=2.0,
    max_depth=100.0,
)


@given(z=st.floats(0.5, 500.0), f_number=st.sampled_from([1.8, 4.0]))
def test_coc_is_the_thin_lens_equation(z: float, f_number: float) -> None:
    f, focus = 0.05, 5.0
    # Similar triangles behind the lens: the cone of light from the aperture, cut by the sensor away from its tip.
    image, sensor = 1.0 / (1.0 / f - 1.0 / z), 1.0 / (1.0 / f - 1.0 / focus)
    diameter = f / f_number * abs(sensor - image) / image
    assert float(LENS.coc(z, f_number)) == pytest.approx(diameter / 27e-6, rel=1e-9, abs=1e-9)


@given(z=st.floats(0.5, 500.0), f_number=st.sampled_from([None, 4.0]))
def test_depth_undoes_coc_on_its_side_of_the_focus(z: float, f_number: float | None) -> None:
    side = "far" if z >= LENS.focus_distance else "near"
    assert float(LENS.depth(LENS.coc(z, f_number), f_number, side)) == pytest.approx(z, rel=1e-6)


def test_blur_grows_away_from_the_focus_and_vanishes_there() -> None:
    assert float(LENS.coc(5.0)) == 0.0
    assert np.all(np.diff(LENS.coc(np.linspace(5.0, 100.0, 50))) > 0)
    assert np.all(np.diff(LENS.coc(np.linspace(1.0, 5.0, 50))) < 0)


def test_more_blur_than_infinity_has_is_infinitely_far() -> None:
    limit = LENS.coc_scale / LENS.f_number_shallow
    assert np.all(np.isinf(LENS.depth(np.array([limit, 2 * limit]))))


@given(z=st.floats(5.5, 90.0))
def test_depth_error_is_the_slope_of_the_blur_difference(z: float) -> None:
    step = 1e-4 * z
    slope = [float(LENS.coc(y) - LENS.coc(y, LENS.f_number_deep)) for y in (z - step, z + step)]
    assert float(LENS.depth_error(z, 0.1)) == pytest.approx(0.1 * 2 * step / (slope[1] - slope[0]), rel=1e-3)


def test_the_working_range_ends_where_the_error_is_reached() -> None:
    limits = LENS.working_range(0.05, 0.1)
    assert limits is not None
    near, far = limits
    assert near == 5.0
    assert float(LENS.depth_error(far, 0.1)) == pytest.approx(0.05 * far)
    assert replace(LENS, coc_scale=0.1).working_range() is None
    assert "nowhere" in replace(LENS, coc_scale=0.1).describe()
    assert "50 mm" in LENS.describe()


def test_lens_files_round_trip(tmp_path: Path) -> None:
    for lens in (LENS, Lens("fitted", 1.6, 2.8, 8.0, 21.6, 0.5, 10.0, coc_uncertainty=0.3, prior_depth=2.5)):
        save_lens(lens, tmp_path / "lens.yaml")
        back = load_lens(tmp_path / "lens.yaml")
        assert str(back) == str(lens)  # NaN fields do not equal themselves


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[1, 2]", "mapping"),
        ("{", "YAML"),
        ("name: x\nfocus: 3", "unknown field 'focus'"),
        ("name: x\nfocus_distance: 3.0\ncoc_scale: 3.0", "missing"),
        (
            "{name: x, focus_distance: -1, coc_scale: 3, f_number_shallow: 2, f_number_deep: 4, min_depth: 1, max_depth: 2}",
            "focus_distance must be a positive number",
        ),
    ],
)
def test_bad_lens_files_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "lens.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint) as caught:
        load_lens(path)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        load_lens(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "change",
    [
        {"f_number_deep": 1.8},
        {"min_depth": 100.0},
        {"coc_scale": math.nan},
        {"coc_scale": math.inf},
        {"focus_distance": "5"},
        {"psf": "square"},
    ],
)
def test_impossible_lenses_are_refused(change: dict) -> None:
    with pytest.raises(InputError, match="lens 'test'"):
        replace(LENS, **change)
