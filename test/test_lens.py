"""The thin lens: CoC and depth against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from dfd_ros.cli import app
from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens, field_radius
from dfd_ros.optics.lens_file import load_lens, save_lens

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


def test_one_function_serves_numbers_arrays_and_tensors() -> None:
    depths = [2.0, 5.0, 40.0, math.nan, math.inf]
    from_arrays = LENS.coc(np.array(depths))
    tensor = torch.tensor(depths, dtype=torch.float64, requires_grad=True)
    from_tensors = LENS.coc(tensor)
    np.testing.assert_allclose(from_tensors.detach().numpy(), from_arrays)
    np.testing.assert_allclose([float(LENS.coc(z)) for z in depths], from_arrays)
    back = LENS.depth(from_tensors)
    np.testing.assert_allclose(back.detach().numpy(), LENS.depth(from_arrays))
    from_tensors[2].backward()
    slope = LENS.coc_scale / LENS.f_number_shallow * LENS.focus_distance / 40.0**2
    assert float(tensor.grad[2]) == pytest.approx(slope)


def test_an_unknown_depth_stays_unknown_and_alone() -> None:
    coc = LENS.coc([4.0, math.nan, 10.0])
    assert np.isnan(coc).tolist() == [False, True, False]
    assert np.isnan(LENS.depth(coc)).tolist() == [False, True, False]


@pytest.mark.parametrize("depth", [0.0, -1.0, 0.05, [3.0, 0.02]])
def test_a_depth_inside_the_focal_length_is_refused(depth: float | list[float]) -> None:
    with pytest.raises(InputError, match=r"depth: expected metres beyond the focal length 0\.05 m, got"):
        LENS.coc(depth)
    with pytest.raises(InputError, match="depth"):
        LENS.coc(torch.tensor(depth))
    assert np.isfinite(np.asarray(LENS.coc(torch.tensor(depth), check=False))).any() or depth == 0.0


def test_a_lens_of_unknown_length_takes_any_positive_depth() -> None:
    fitted = Lens("fitted", 1.6, 2.8, 8.0, 21.6, 0.5, 10.0)
    assert float(fitted.coc(0.01)) > 0
    with pytest.raises(InputError, match="beyond 0"):
        fitted.coc(0.0)


def test_the_side_of_the_focus_has_two_names() -> None:
    with pytest.raises(InputError, match="side: expected far or near, got 'front'"):
        LENS.depth(1.0, side="front")  # type: ignore[arg-type]


def test_signed_blur_is_linear_in_inverse_depth() -> None:
    inverse = np.linspace(0.01, 0.5, 50)
    signed = LENS.signed_coc(1.0 / inverse)
    np.testing.assert_allclose(np.diff(signed, 2), 0.0, atol=1e-12)
    assert np.all((signed < 0) == (1.0 / inverse < LENS.focus_distance))


def test_focused_at_the_hyperfocal_distance_infinity_is_sharp_and_so_is_half_of_it() -> None:
    far = LENS.refocused(LENS.hyperfocal_distance(4.0))
    assert float(far.coc(math.inf, 4.0)) == pytest.approx(1.0)
    near, limit = far.depth_of_field(4.0)
    assert near == pytest.approx(far.focus_distance / 2, rel=2e-3)
    assert limit > 1e3 * near
    # f² / (N c) + f, the textbook's.
    assert far.focus_distance == pytest.approx(0.05**2 / (4.0 * 27e-6) + 0.05)


@given(focus=st.floats(0.2, 100.0), z=st.floats(0.3, 100.0))
def test_a_refocused_lens_is_the_lens_made_for_that_focus(focus: float, z: float) -> None:
    made = Lens.physical(
        "test",
        focal_length=0.05,
        pixel_pitch=27e-6,
        focus_distance=focus,
        f_number_shallow=1.8,
        f_number_deep=4.0,
        min_depth=2.0,
        max_depth=100.0,
    )
    assert float(LENS.refocused(focus).coc(z)) == pytest.approx(float(made.coc(z)), rel=1e-9, abs=1e-12)


def test_in_the_dead_zone_the_two_blurs_differ_by_less_than_a_pixel() -> None:
    near, far = LENS.dead_zone()
    assert near < LENS.focus_distance < far
    for z in (near, far):
        assert math.sqrt(LENS.coc(z) ** 2 - LENS.coc(z, LENS.f_number_deep) ** 2) == pytest.approx(1.0)


@given(z=st.floats(5.5, 90.0))
def test_depth_error_is_the_slope_of_the_blur_difference(z: float) -> None:
    def difference(depth: float) -> float:
        """Of the blurs' variances, as a CoC."""
        return math.sqrt(float(LENS.coc(depth)) ** 2 - float(LENS.coc(depth, LENS.f_number_deep)) ** 2)

    step = 1e-4 * z
    slope = (difference(z + step) - difference(z - step)) / (2 * step)
    assert float(LENS.depth_error(z, 0.1)) == pytest.approx(0.1 / slope, rel=1e-3)


@pytest.mark.parametrize(
    ("focal_length", "depth", "error"),
    [(0.012, 10.0, 0.43), (0.012, 70.0, 21.0), (0.025, 10.0, 0.10), (0.025, 70.0, 4.9), (0.05, 10.0, 0.025)],
)
def test_depth_errors_of_known_lenses(focal_length: float, depth: float, error: float) -> None:
    """dz = dc z² p N / f² at F/1.8 beside a pinhole and 3.45 µm pixels; the focus hardly matters."""
    for focus in (1.0, 8.0):
        lens = Lens.physical(
            "known",
            focal_length=focal_length,
            pixel_pitch=3.45e-6,
            focus_distance=focus,
            f_number_shallow=1.8,
            f_number_deep=180.0,
            min_depth=1.0,
            max_depth=100.0,
        )
        assert float(lens.depth_error(depth, 0.1)) == pytest.approx(error, rel=0.06)


def test_two_apertures_see_as_one_between_them() -> None:
    assert LENS.f_number_effective == pytest.approx(2.02, abs=0.005)


def test_the_working_range_ends_where_the_error_is_reached() -> None:
    limits = LENS.working_range(0.05, 0.1)
    assert limits is not None
    near, far = limits
    assert near == 5.0
    assert float(LENS.depth_error(far, 0.1)) == pytest.approx(0.05 * far)
    doubtful = replace(LENS, coc_uncertainty=0.3).working_range()
    assert doubtful is not None
    assert doubtful[1] == pytest.approx(far / math.sqrt(10.0))
    assert replace(LENS, coc_scale=0.1).working_range() is None


def test_a_lens_says_what_it_is_good_for() -> None:
    assert LENS.describe().startswith("test: 50 mm F/1.8 and F/4 focused at 5 m: 5 % or better from 5 to 23")
    assert "from 2 to 5 m blur alone does not tell near from far" in LENS.describe()
    assert "blur alone" not in replace(LENS, min_depth=6.0).describe()
    assert "nowhere in 2 to 100 m" in replace(LENS, coc_scale=0.1).describe()


def test_blur_grows_towards_the_corners_as_the_lens_says() -> None:
    lens = replace(LENS, coc_field=0.2)
    field = field_radius((481, 641))
    assert field[240, 320] == 0.0
    assert field[0, 0] == pytest.approx(1.0)
    assert field[0, 320] == pytest.approx(0.6)  # half the height over half the diagonal
    coc = lens.coc(10.0, field=field)
    assert coc[240, 320] == pytest.approx(float(lens.coc(10.0)))
    assert coc[480, 640] == pytest.approx(1.2 * float(lens.coc(10.0)))
    np.testing.assert_allclose(lens.depth(coc, field=field), 10.0, rtol=1e-5)


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
        {"magnification": 0.0},
        {"coc_field": -1.0},
        {"parallax": 0.6},
        {"parallax_aspect": -0.1},
        {"parallax_aspect": 5.1},
        {"focus_distance": 0.05},
        {"pixel_pitch": -1e-6},
    ],
)
def test_impossible_lenses_are_refused(change: dict) -> None:
    with pytest.raises(InputError, match="lens 'test'"):
        replace(LENS, **change)


def test_the_command_line_judges_a_lens(tmp_path: Path) -> None:
    save_lens(LENS, tmp_path / "lens.yaml")
    runner = CliRunner()
    plain = runner.invoke(app, ["lens", str(tmp_path / "lens.yaml")])
    assert plain.exit_code == 0
    assert "5 % or better from 5 to 23" in plain.output.replace("\n", " ")
    near, far = LENS.dead_zone()
    assert f"dead zone: {near:.3g} to {far:.3g} m" in plain.output
    refused = runner.invoke(app, ["lens", str(tmp_path / "lens.yaml"), "--focus", "0.05"])
    assert isinstance(refused.exception, InputError)
