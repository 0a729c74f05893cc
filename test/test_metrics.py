"""Depth metrics: against their textbook formulas over all pixels at once."""

import math
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfd_ros.errors import InputError
from dfd_ros.metrics import (
    INDOOR_EDGES,
    STREET_EDGES,
    Box,
    ScoreAccumulator,
    edges_for,
    mean_in_box,
)

FORM = ["rel", "log10", "rms", "d1", "d2", "d3", "n"]


def textbook(estimate, truth):
    """The metrics of flat float64 arrays of known depths, as papers write them."""
    e, t = estimate.astype(np.float64), truth.astype(np.float64)
    ratio = np.maximum(e / t, t / e)
    return {
        "rel": np.mean(np.abs(e - t) / t),
        "log10": np.mean(np.abs(np.log10(e) - np.log10(t))),
        "rms": np.sqrt(np.mean((e - t) ** 2)),
        "d1": np.mean(ratio < 1.25),
        "d2": np.mean(ratio < 1.25**2),
        "d3": np.mean(ratio < 1.25**3),
        "n": e.size,
        "median_rel": middle(np.abs(e - t) / t),
    }


def middle(values):
    """The two values that the median lies between."""
    ordered = np.sort(values)
    return ordered[(ordered.size - 1) // 2], ordered[ordered.size // 2]


def street_frame(rng, shape=(60, 80), spread=0.2):
    """Truth, estimate and confidence with holes."""
    truth = rng.uniform(1, 90, shape).astype(np.float32)
    estimate = (truth * np.exp(rng.normal(0, spread, shape))).astype(np.float32)
    confidence = rng.random(shape).astype(np.float32)
    truth[rng.random(shape) < 0.1] = np.nan
    truth[rng.random(shape) < 0.02] = np.inf
    estimate[rng.random(shape) < 0.1] = np.nan
    estimate[rng.random(shape) < 0.02] = 0
    return estimate, truth, confidence


def assert_scores(scores, expected):
    for name, value in expected.items():
        if name == "median_rel":
            assert (1 - 2e-3) * value[0] <= scores.median_rel <= (1 + 2e-3) * value[1]
        else:
            assert getattr(scores, name) == pytest.approx(value, rel=1e-4), name


def test_the_median_of_many_pixels_is_exact_to_a_thousandth():
    rng = np.random.default_rng(3)
    accumulator = ScoreAccumulator()
    truth = rng.uniform(1, 80, (480, 640)).astype(np.float32)
    estimate = (truth * np.exp(rng.normal(0, 0.05, truth.shape))).astype(np.float32)
    accumulator.add(estimate, truth)
    exact = np.median(np.abs(estimate.astype(np.float64) - truth) / truth)
    assert accumulator.scores.median_rel == pytest.approx(exact, rel=1e-3)


def is_known(depth):
    return np.isfinite(depth) & (depth > 0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 4), spread=st.floats(1e-3, 0.6))
def test_pooled_scores_are_the_textbooks_over_all_pixels_of_all_frames(seed, frames, spread):
    rng = np.random.default_rng(seed)
    accumulator = ScoreAccumulator()
    content = [street_frame(rng, (40 + i, 50), spread) for i in range(frames)]
    for frame in content:
        accumulator.add(*frame)
    estimate, truth, confidence = (np.concatenate([f[k].ravel() for f in content]) for k in range(3))
    scored = is_known(estimate) & is_known(truth)
    assert_scores(accumulator.scores, textbook(estimate[scored], truth[scored]))
    assert accumulator.coverage == pytest.approx(scored.sum() / is_known(truth).sum())
    sure = scored & (confidence >= 0.5)
    assert_scores(accumulator.confident, textbook(estimate[sure], truth[sure]))
    assert accumulator.confident_coverage == pytest.approx(sure.sum() / is_known(truth).sum())
    for bin_ in accumulator.bins:
        inside = (truth >= bin_.start) & (truth < bin_.stop)
        assert_scores(bin_.scores, textbook(estimate[scored & inside], truth[scored & inside]))
        assert bin_.coverage == pytest.approx((scored & inside).sum() / (inside & is_known(truth)).sum())
        assert_scores(bin_.confident, textbook(estimate[sure & inside], truth[sure & inside]))
        assert bin_.confident_coverage == pytest.approx((sure & inside).sum() / (inside & is_known(truth)).sum())


def test_a_frame_ten_percent_too_far_everywhere_has_closed_form_scores():
    truth = np.full((20, 30), 10.0, np.float32)
    accumulator = ScoreAccumulator()
    accumulator.add(1.1 * truth, truth)
    scores = accumulator.scores
    assert scores.rel == pytest.approx(0.1, rel=1e-5)
    assert scores.median_rel == pytest.approx(0.1, rel=1e-3)
    assert scores.log10 == pytest.approx(math.log10(1.1), rel=1e-5)
    assert scores.rms == pytest.approx(1.0, rel=1e-5)
    assert (scores.d1, scores.n) == (1.0, 600)
    assert accumulator.confident is None


@pytest.mark.parametrize(
    ("factor", "shares"), [(1.3, (0, 1, 1)), (1 / 1.3, (0, 1, 1)), (1.9, (0, 0, 1)), (2.5, (0, 0, 0))]
)
def test_thresholds_count_too_near_and_too_far_alike(factor, shares):
    truth = np.full((4, 4), 8.0, np.float32)
    accumulator = ScoreAccumulator()
    accumulator.add(np.float32(factor) * truth, truth)
    assert (accumulator.scores.d1, accumulator.scores.d2, accumulator.scores.d3) == shares


def test_a_missing_estimate_costs_coverage_and_no_score():
    truth = np.full((10, 10), 5.0, np.float32)
    estimate = truth.copy()
    estimate[:3] = np.nan
    accumulator = ScoreAccumulator()
    accumulator.add(estimate, truth)
    assert (accumulator.scores.rel, accumulator.scores.n) == (0.0, 70)
    assert accumulator.coverage == pytest.approx(0.7)
    assert accumulator.bins[0].coverage == pytest.approx(0.7)


def test_a_mask_hides_pixels_from_scores_and_coverage():
    truth = np.full((10, 10), 5.0, np.float32)
    estimate = np.where(np.arange(10)[:, None] < 5, truth, np.nan)
    accumulator = ScoreAccumulator()
    accumulator.add(estimate, truth, mask=np.broadcast_to(np.arange(10)[:, None] < 5, (10, 10)))
    assert (accumulator.scores.n, accumulator.coverage) == (50, 1.0)


def test_nothing_scored_is_nan_and_null_in_json():
    accumulator = ScoreAccumulator()
    accumulator.add(np.full((4, 4), np.nan, np.float32), np.ones((4, 4), np.float32))
    assert math.isnan(accumulator.scores.rel)
    assert accumulator.scores.to_dict()["rel"] is None
    assert accumulator.coverage == 0.0


def test_the_dictionary_has_the_agreed_form():
    accumulator = ScoreAccumulator(INDOOR_EDGES)
    rng = np.random.default_rng(1)
    accumulator.add(*street_frame(rng))
    content = accumulator.to_dict()
    assert [key for key in content["all"] if key in FORM] == FORM
    assert "coverage" in content["confident"]
    assert [(b["from"], b["to"]) for b in content["bins"]] == list(pairwise(INDOOR_EDGES))


def test_a_box_is_scored_over_its_middle():
    truth = np.full((40, 40), 30.0, np.float32)
    truth[15:25, 15:25] = 10.0
    estimate = truth.copy()
    estimate[17:23, 17:23] = 12.0
    estimate[20, 20] = np.nan
    assert mean_in_box(estimate, truth, Box(15, 15, 10, 10)) == pytest.approx((12.0, 10.0))
    assert mean_in_box(np.full_like(truth, np.nan), truth, Box(15, 15, 10, 10)) is None
    assert mean_in_box(estimate, truth, Box(-30, -30, 8, 8)) is None
    assert Box(15, 15, 10, 10).centre() == Box(17, 17, 5, 5)


def test_default_edges_follow_the_scene():
    assert edges_for(5.0) == INDOOR_EDGES
    assert edges_for(60.0) == STREET_EDGES


def test_bad_input_is_named():
    accumulator = ScoreAccumulator()
    with pytest.raises(InputError, match="estimate in the truth's shape"):
        accumulator.add(np.ones((3, 4)), np.ones((4, 3)))
    accumulator.add(np.ones((3, 4)), np.ones((3, 4)))
    with pytest.raises(InputError, match="with confidence"):
        accumulator.add(np.ones((3, 4)), np.ones((3, 4)), np.ones((3, 4)))
    with pytest.raises(InputError, match="rising edges"):
        ScoreAccumulator((5.0, 2.0))


def test_a_frame_costs_a_few_sorts_of_its_pixels_at_most():
    """12 ms on an idle core; held against numpy's own sort, so that a busy machine does not matter."""
    rng = np.random.default_rng(0)
    frame = street_frame(rng, (480, 640))
    accumulator = ScoreAccumulator()
    noise = rng.random(frame[0].size)

    def best(call):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return min(times)

    assert best(lambda: accumulator.add(*frame)) < 5 * best(lambda: np.sort(noise, kind="stable"))
