"""Calibration finds the lens that made the pictures, and says so when it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_estimate import MARGIN, SHAPE, photograph, texture

from dfd_ros.capture.registration import measure_gain, register_pair, warp
from dfd_ros.errors import InputError
from dfd_ros.optics.calibrate import Calibration, fit_coc_curve, plot_calibration
from dfd_ros.optics.estimate import WhitenedProjectionEstimator
from dfd_ros.optics.lens import Lens, field_radius
from dfd_ros.optics.lens_file import load_lens, save_lens
from dfd_ros.tone import linear_grey

LENS = Lens("true", 1.5, 2.0, 8.0, 16.0, 0.7, 8.0)
"""8 px of blur at infinity, focus inside the range."""
F_NUMBERS = (LENS.f_number_shallow, LENS.f_number_deep)
DSLR = Path(__file__).parents[2] / "shared/data/dslr_dfd"
assert LENS.coc(LENS.min_depth) < MARGIN


def slanted_pairs(count: int = 6) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Textured planes, each over a part of the range."""
    ends = [(0.75, 1.1), (0.95, 1.6), (1.3, 2.2), (1.8, 3.2), (2.6, 5.0), (3.5, 8.0)]
    pairs = []
    for index, (near, far) in enumerate(ends[:count]):
        depth = np.broadcast_to(1.0 / np.linspace(1 / near, 1 / far, SHAPE[1]), SHAPE).astype(np.float32)
        shallow, deep = photograph(LENS, depth, texture(index), seed=index)
        pairs.append((shallow, deep, depth))
    return pairs


@pytest.fixture(scope="module")
def pairs() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return slanted_pairs()


@pytest.fixture(scope="module")
def calibration(pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Calibration:
    return fit_coc_curve(pairs, F_NUMBERS, "fitted")


def test_the_lens_comes_back(calibration: Calibration) -> None:
    lens = calibration.lens
    assert lens.focus_distance == pytest.approx(LENS.focus_distance, rel=0.02)
    assert lens.coc_scale == pytest.approx(LENS.coc_scale, rel=0.04)
    assert lens.focus_blur < 0.6
    assert calibration.residual_px < 0.25
    assert not calibration.faults
    assert calibration.pairs == (6, 6)
    # The truth lies within a few of the standard deviations claimed.
    assert abs(calibration.kappa - LENS.coc_scale / 2.0) < 5 * calibration.kappa_sigma + 0.1
    assert abs(lens.focus_distance - LENS.focus_distance) < 5 * calibration.focus_sigma + 0.01
    assert lens.min_depth < 0.75
    assert lens.max_depth > 8.0
    assert "BAD FIT" not in calibration.describe()


def test_blur_that_shrinks_towards_the_corners_is_found() -> None:
    lens = replace(LENS, coc_field=-0.25)
    field = field_radius(SHAPE)
    pairs = []
    for index, (near, far) in enumerate([(1.8, 3.2), (2.2, 4.0), (2.6, 5.0), (3.5, 8.0)]):
        depth = np.broadcast_to(1.0 / np.linspace(1 / near, 1 / far, SHAPE[1]), SHAPE).astype(np.float32)
        # Pictures of the even lens, of things placed so that they are blurred as the uneven one would.
        placed = LENS.depth(lens.coc(depth, field=field))
        pairs.append((*photograph(LENS, placed, texture(index), seed=index), depth))
    found = fit_coc_curve(pairs, F_NUMBERS, "uneven")
    assert found.lens.coc_field == pytest.approx(-0.25, abs=0.06)
    assert abs(found.lens.coc_field + 0.25) < 5 * found.field_sigma + 0.02
    assert found.lens.coc_scale == pytest.approx(LENS.coc_scale, rel=0.05)


def test_an_even_lens_is_found_even(calibration: Calibration) -> None:
    assert abs(calibration.lens.coc_field) < 3 * calibration.field_sigma + 0.02


def test_gaps_in_the_depth_do_no_harm(pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    random = np.random.default_rng(0)
    holed = []
    for shallow, deep, depth in pairs:
        gaps = depth.copy()
        for value in (np.nan, 0.0):
            y, x = random.integers(0, SHAPE[0] - 50), random.integers(0, SHAPE[1] - 50)
            gaps[y : y + 50, x : x + 50] = value
        holed.append((shallow, deep, gaps))
    found = fit_coc_curve(holed, F_NUMBERS, "holed")
    assert found.lens.focus_distance == pytest.approx(LENS.focus_distance, rel=0.03)
    assert np.all(found.samples.depth > 0)


def test_some_wrong_depths_are_outvoted(pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    spoilt = [(s, d, np.where(np.arange(SHAPE[0])[:, None] < 40, 0.6 * z, z).astype(np.float32)) for s, d, z in pairs]
    found = fit_coc_curve(spoilt, F_NUMBERS, "spoilt")
    assert found.lens.focus_distance == pytest.approx(LENS.focus_distance, rel=0.05)


def test_depths_of_other_pictures_are_called_a_bad_fit(pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    shuffled = [(s, d, pairs[(i * 2 + 3) % 6][2][:, ::-1].copy()) for i, (s, d, _) in enumerate(pairs)]
    found = fit_coc_curve(shuffled, F_NUMBERS, "shuffled")
    assert found.faults
    assert "BAD FIT" in found.describe()


def test_one_pair_has_no_known_uncertainty(pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    # Four pictures stacked into one: a single pair over a wide range of depths.
    stacked = [np.concatenate([pairs[i][part] for i in (1, 2, 3, 4)]) for part in range(3)]
    found = fit_coc_curve([(stacked[0], stacked[1], stacked[2])], F_NUMBERS, "one")
    assert np.isinf(found.kappa_sigma)
    assert found.faults


def test_the_prior_is_the_distribution_of_depths(
    calibration: Calibration, pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> None:
    logs = np.log(np.concatenate([z.ravel() for *_, z in pairs]))
    assert calibration.lens.prior_depth == pytest.approx(np.exp(logs.mean()), rel=0.02)
    assert calibration.lens.prior_log_sigma == pytest.approx(logs.std(), rel=0.05)
    assert abs(calibration.lens.prior_log_slope) < 0.02


def test_plot_and_lens_file_are_written(calibration: Calibration, tmp_path: Path) -> None:
    plot_calibration(calibration, tmp_path / "curve.png")
    picture = cv2.imread(str(tmp_path / "curve.png"))
    assert picture is not None
    assert picture.std() > 10
    save_lens(calibration.lens, tmp_path / "lens.yaml")
    assert load_lens(tmp_path / "lens.yaml").focus_distance == pytest.approx(calibration.lens.focus_distance)


def test_unusable_sets_are_refused(pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    flat = np.full(SHAPE, 0.5, np.float32)
    with pytest.raises(InputError, match="at least one pair"):
        fit_coc_curve([], F_NUMBERS, "none")
    with pytest.raises(InputError, match="textured depth bins"):
        fit_coc_curve([(flat, flat, flat + 2)], F_NUMBERS, "flat")
    with pytest.raises(InputError, match="f-numbers"):
        fit_coc_curve(pairs, (8.0, 2.0), "swapped")
    with pytest.raises(InputError, match="depth of shape"):
        fit_coc_curve([(flat, flat, flat[:-1])], F_NUMBERS, "odd")


@pytest.mark.skipif(not DSLR.is_dir(), reason="the real pairs are not here")
def test_real_pairs_give_a_lens_that_measures_unseen_scenes() -> None:
    def read(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        names = (f"{index:03d}_f2.8.jpg", f"{index:03d}_f8.0.jpg")
        shallow, deep = (linear_grey(cv2.imread(str(DSLR / name))[..., ::-1].copy(), 2.2) for name in names)
        shallow = warp(shallow, register_pair(shallow, deep))
        depth = cv2.imread(str(DSLR / f"{index:03d}_depth_mm.png"), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
        return shallow * np.float32(measure_gain(shallow, deep)), deep, depth

    training = [read(index) for index in range(0, 40, 4)]
    found = fit_coc_curve(training, (2.8, 8.0), "dslr")
    assert not found.faults
    assert found.kappa_sigma < 0.05 * found.kappa
    estimator = WhitenedProjectionEstimator(replace(found.lens), training[0][0].shape)
    everywhere, sure = [], []
    constant = float(np.median(np.concatenate([depth.ravel() for *_, depth in training])))
    baseline = []
    for shallow, deep, depth in map(read, range(42, 81, 6)):
        result = estimator.estimate(shallow, deep)
        error = np.abs(result.depth - depth) / depth
        everywhere.append(error.mean())
        sure.append(error[result.confidence > 0.5])
        baseline.append(np.mean(np.abs(constant - depth) / depth))
    assert np.mean(everywhere) < 0.8 * np.mean(baseline)
    assert np.mean(np.concatenate(sure)) < 0.9 * np.mean(everywhere)
