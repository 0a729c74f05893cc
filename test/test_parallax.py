"""Parallax: what a lens displaces is rendered, measured, and tells the side of the focus."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dfd_ros.data.samples import encode
from dfd_ros.data.synthetic import LensRange, SyntheticScenes, SyntheticSettings, displaced
from dfd_ros.errors import InputError
from dfd_ros.models.band_evidence import BandStatistics
from dfd_ros.models.bands import CENTRES, band_kernels
from dfd_ros.models.displacement import (
    SIDES,
    WINDOWS,
    displaced_evidence,
    outwards,
    parallax_evidence,
    slope_kernels,
)
from dfd_ros.models.lens_table import DISPLACEMENT, lens_table
from dfd_ros.models.physics_net import PhysicsNet
from dfd_ros.optics.estimate import WhitenedProjectionEstimator
from dfd_ros.optics.lens import Lens, field_radius
from dfd_ros.optics.parallax import fit_parallax, measure_displacements
from dfd_ros.optics.render import render_defocus
from dfd_ros.optics.side import SideEvidence

LENS = Lens("test", 1.6, 2.8, 8.0, coc_scale=21.6, min_depth=0.5, max_depth=10.0, parallax=-0.05)
SHAPE = (240, 320)
STILL = np.zeros(2)


def light(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """A picture with detail at all scales, (H, W, 3)."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) / frequency, s=shape)
    return np.repeat(np.clip(0.4 + 0.1 * noise / noise.std(), 0.01, 1.0)[..., None], 3, axis=2).astype(np.float32)


def pictures(depth: np.ndarray, lens: Lens, seed: int = 0, noise: float = 0.001) -> tuple[np.ndarray, np.ndarray]:
    """Shallow and deep in linear light."""
    shallow, deep = render_defocus(light(seed, depth.shape), depth, lens, (lens.f_number_shallow, lens.f_number_deep))
    rng = np.random.default_rng(seed)
    shallow = displaced(shallow, depth, lens, STILL, 1.0)
    return tuple((p + noise * rng.standard_normal(p.shape)).astype(np.float32) for p in (shallow, deep))  # type: ignore[return-value]


def images_of(shallow: np.ndarray, deep: np.ndarray) -> torch.Tensor:
    """A pair in linear light as the network takes it, (1, 6, H, W)."""
    pair = encode(np.clip(np.concatenate([shallow, deep], axis=2), 0.0, 1.0), 2.2)
    return torch.from_numpy(pair.transpose(2, 0, 1)[None])


def displacement_of(shallow: np.ndarray, deep: np.ndarray, aspect: float = 1.0) -> torch.Tensor:
    """A and B of a pair in linear light, (1, 2, h, w)."""
    height, width = shape = deep.shape[:2]
    grown = torch.nn.functional.pad(images_of(shallow, deep), (0, -width % 32, 0, -height % 32), mode="replicate")
    found = BandStatistics(2.2)(grown, shape, torch.tensor([aspect])).displacement
    return found[..., : height // 4, : width // 4]


def evidence(depth: float, lens: Lens, shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    """A and B of a wall, (1, 2, h, w)."""
    return displacement_of(*pictures(np.full(shape, depth, np.float32), lens), lens.parallax_aspect)


def side_of(displacement: torch.Tensor, parallax: float) -> torch.Tensor:
    """(1, SIDES, h, w)."""
    return parallax_evidence(displacement, torch.tensor([parallax]), torch.zeros(1, 1)).side


def test_displacement_grows_outwards_and_changes_sign_at_the_focus() -> None:
    corner = LENS.displacement(np.array([0.8, 1.6, np.inf]), 1.0)
    np.testing.assert_allclose(corner, [0.05 * 7.714286, 0.0, -0.05 * 7.714286], atol=1e-6)
    assert LENS.displacement(0.8, 0.5) == pytest.approx(0.25 * corner[0])


def test_a_displaced_picture_is_a_resampled_one() -> None:
    """Against the formula, on a picture whose every point is known: a plane wave."""
    y, x = (grid.astype(np.float32) for grid in np.mgrid[:240, :320])
    wave = lambda y, x: np.repeat((0.5 + 0.4 * np.sin(0.3 * x + 0.2 * y))[..., None], 3, axis=2)  # noqa: E731
    depth = np.full(SHAPE, 0.8, np.float32)
    lens = replace(LENS, parallax=0.2, parallax_aspect=0.4)
    moved = displaced(wave(y, x).astype(np.float32), depth, lens, np.array([0.3, -0.2]), 1.001)
    rho = field_radius(SHAPE)
    corner = np.hypot(119.5, 159.5)
    back = lens.displacement(0.8, rho) / np.maximum(rho * corner, 1e-9)
    along_y, along_x = 1.0 / 1.001 - back, 1.0 / 1.001 - 0.4 * back
    expected = wave((y - 119.5) * along_y + 119.5 + 0.2, (x - 159.5) * along_x + 159.5 - 0.3)
    inside = (slice(8, -8), slice(8, -8))
    np.testing.assert_allclose(moved[inside], expected[inside], atol=6e-3)  # OpenCV resamples to 1/32 of a pixel


def test_slope_kernels_answer_with_the_derivative() -> None:
    kernels = band_kernels()
    slopes = slope_kernels(kernels)
    size = kernels.shape[1] + 2
    assert slopes.shape == (2, len(kernels), size, size)
    x = np.arange(size) - size // 2
    for band, centre in enumerate(CENTRES):
        for frequency, error in ((0.8 * centre, 0.02), (centre, 0.02), (1.1 * centre, 0.03)):
            wave = np.exp(2j * np.pi * frequency * x)  # along x; correlated at x = 0
            answer = (kernels[band].sum(axis=0) * wave[1:-1]).sum()
            slope = (slopes[1, band].sum(axis=0) * wave).sum()
            assert slope == pytest.approx(2j * np.pi * frequency * answer, abs=error * abs(answer))


def test_outwards_is_one_in_the_corners() -> None:
    y, x, radius = outwards(torch.zeros(1, 1, 60, 80), 4, (240, 320))
    assert radius.max() == pytest.approx(1.0, abs=0.02)
    torch.testing.assert_close(y, -y.flip(2))
    torch.testing.assert_close(x, -x.flip(3))
    rho = torch.from_numpy(field_radius((240, 320))).reshape(60, 4, 80, 4).mean(dim=(1, 3))
    torch.testing.assert_close(radius[0, 0], rho, atol=5e-3, rtol=0.0)


@pytest.mark.parametrize("depth", [0.8, 1.6, 5.0])
@pytest.mark.parametrize(
    ("shape", "aspect"), [((240, 320), 1.0), ((250, 333), 1.0), ((240, 320), 0.0), ((250, 333), 2.0)]
)
def test_evidence_finds_the_displacement(depth: float, shape: tuple[int, int], aspect: float) -> None:
    a, b = evidence(depth, replace(LENS, parallax_aspect=aspect), shape)[0].mean(dim=(1, 2))
    found, truth = float(-a / (2.0 * b)), LENS.parallax * float(LENS.signed_coc(depth))
    assert found == pytest.approx(truth, abs=0.02 + 0.35 * abs(truth))  # residual energy pulls it towards 0


@pytest.mark.parametrize("parallax", [-0.05, 0.05])
def test_side_evidence_tells_near_from_far(parallax: float) -> None:
    lens = replace(LENS, parallax=parallax)
    near, far = (side_of(evidence(z, lens), parallax) for z in (0.9, 4.0))
    assert near.shape == (1, SIDES, 30, 40)
    for window in (2, 3):
        assert float(near[0, window].mean()) > 1.0
        assert float(far[0, window].mean()) < -1.0
    none = side_of(evidence(0.9, lens), 0.0)
    assert not none.any()


def test_a_displacement_costs_least_where_it_is() -> None:
    found = evidence(0.8, LENS)
    truth = LENS.parallax * float(LENS.signed_coc(0.8))
    expected = torch.linspace(-1.0, 1.0, 41)
    costs = parallax_evidence(found, torch.tensor([LENS.parallax]), expected[None]).costs
    assert costs.shape == (1, len(WINDOWS), 41, 30, 40)
    assert bool((costs >= 0.0).all())
    assert float(expected[costs[0, -1].mean(dim=(1, 2)).argmin()]) == pytest.approx(truth, abs=0.05 + 0.35 * abs(truth))
    # A window that tells nothing costs nothing, and no lens without parallax tells depths apart.
    assert not parallax_evidence(0.0 * found, torch.tensor([LENS.parallax]), expected[None]).costs.any()
    none = parallax_evidence(found, torch.zeros(1), torch.zeros(1, 5)).costs
    assert not (none - none[:, :, :1]).any()


def test_texture_alone_is_no_displacement() -> None:
    """Detail that fades along the slope, in a picture that lies still, once was taken for one."""
    picture = light(0)
    a, b = displacement_of(picture, picture)[0]
    assert float((a.abs() / (b + 1e-3)).max()) < 1e-3
    grey = np.ascontiguousarray(picture[..., 1])
    assert np.abs(SideEvidence(LENS, SHAPE, (60, 80))(grey, grey)).max() < 1e-4


@pytest.mark.parametrize("by", [-0.2, 0.1])
def test_evidence_moves_with_the_pair(by: float) -> None:
    """What lies outwards as a whole looks as one whose evidence was displaced; no part lies farther out than the others."""
    found = evidence(0.9, LENS)
    moved = displaced_evidence(found, torch.tensor([by]))
    a, b = (each.mean(dim=(2, 3))[0] for each in (found, moved))
    assert float(b[0] / b[1]) == pytest.approx(float(a[0] / a[1]) - 2.0 * by, abs=1e-4)
    sides = [side_of(each, -0.05) for each in (found, moved)]
    relative = slice(len(WINDOWS), SIDES)
    torch.testing.assert_close(sides[0][:, relative], sides[1][:, relative], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(sides[0][:, : len(WINDOWS)], sides[1][:, : len(WINDOWS)], atol=0.1)


def test_what_is_nearer_than_the_rest_is_told_from_it() -> None:
    """By the difference, where the pair as a whole is displaced the other way."""
    depth = np.full(SHAPE, 4.0, np.float32)
    depth[:, :120] = 0.9
    found = displacement_of(*pictures(depth, LENS))
    side = side_of(displaced_evidence(found, torch.tensor([-0.4])), LENS.parallax)[0]
    assert float(side[2, :, :10].mean()) < 0.0  # wrong
    assert float(side[len(WINDOWS) + 2, :, :10].mean()) > 0.5 > -0.2 > float(side[len(WINDOWS) + 2, :, 20:].mean())


def test_the_table_knows_sides_and_parallax() -> None:
    table = lens_table(LENS)
    depth = torch.exp(table[:, 0])
    assert bool(((table[:, 1] > 0) == (depth > LENS.focus_distance)).all())
    assert table[:, 1].abs().max() <= 1.0
    torch.testing.assert_close(table[:, 2], torch.full((len(table),), -0.05))
    torch.testing.assert_close(lens_table(replace(LENS, parallax_aspect=0.4))[:, 3], torch.full((len(table),), 0.4))
    outwards = torch.from_numpy(LENS.displacement(depth.numpy(), 1.0).astype(np.float32))
    torch.testing.assert_close(table[:, DISPLACEMENT], outwards, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(lens_table(LENS, zoom=0.5)[:, DISPLACEMENT], 0.5 * outwards, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(lens_table(LENS, zoom=0.5)[:, 2], torch.full((len(table),), -0.05))


def test_an_untrained_network_heeds_the_side() -> None:
    torch.manual_seed(0)
    net = PhysicsNet().eval()
    depths = []
    for parallax in (-0.05, 0.0):
        lens = replace(LENS, parallax=parallax)
        images = images_of(*pictures(np.full(SHAPE, 0.95, np.float32), LENS))
        with torch.no_grad():
            depths.append(float(net(images, lens_table(lens)[None])["depth"].median()))
    assert depths[0] < 0.9 * depths[1]


def test_each_pair_of_a_batch_has_its_lens_s_aspect() -> None:
    images = images_of(*pictures(np.full(SHAPE, 0.9, np.float32), LENS))
    pad = torch.nn.functional.pad(images, (0, 0, 0, -SHAPE[0] % 32), mode="replicate")
    statistics = BandStatistics(2.2)
    both = statistics(pad.repeat(2, 1, 1, 1), SHAPE, torch.tensor([0.3, 1.0])).displacement
    for each, aspect in zip(both, (0.3, 1.0), strict=True):
        torch.testing.assert_close(each, statistics(pad, SHAPE, torch.tensor([aspect])).displacement[0])
    torch.testing.assert_close(both[1], statistics(pad, SHAPE).displacement[0])


@pytest.mark.parametrize("aspect", [1.0, 0.3])
@pytest.mark.parametrize("depth", [0.95, 4.7])  # one and the same CoC
def test_the_estimator_heeds_the_side(depth: float, aspect: float) -> None:
    lens = replace(LENS, parallax_aspect=aspect)
    shallow, deep = (p[..., 1] for p in pictures(np.full(SHAPE, depth, np.float32), lens, seed=3))
    found = WhitenedProjectionEstimator(lens, SHAPE).estimate(shallow, deep)
    assert np.median(found.depth) == pytest.approx(depth, rel=0.1)
    wrong = WhitenedProjectionEstimator(replace(lens, parallax=-LENS.parallax), SHAPE).estimate(shallow, deep)
    assert abs(np.median(wrong.depth) / depth - 1.0) > 0.5


def test_parallax_is_measured() -> None:
    """With the motion of each pair beside it, and against a lens that has none."""
    for parallax, aspect in ((-0.05, 1.0), (-0.08, 0.4), (0.0, 1.0)):
        lens = replace(LENS, parallax=parallax, parallax_aspect=aspect)
        shown = []
        for index, (left, right) in enumerate([(0.8, 1.2), (0.9, 3.0), (1.2, 5.0), (2.0, 8.0), (3.0, 1.0), (4.0, 9.0)]):
            depth = np.broadcast_to(1.0 / np.linspace(1 / left, 1 / right, SHAPE[1]), SHAPE).astype(np.float32)
            picture = render_defocus(light(index), depth, lens, (2.8, 8.0))
            moved = displaced(picture[0], depth, lens, np.random.default_rng(index).uniform(-0.3, 0.3, 2), 1.0005)
            shown.append(measure_displacements(moved[..., 1], picture[1][..., 1], depth))
        found = fit_parallax(shown, lens)
        assert found.parallax == pytest.approx(parallax, abs=0.012)  # blur makes the windows see less of it
        assert not parallax or found.aspect == pytest.approx(aspect, abs=0.15)
        assert found.magnification == pytest.approx(1.0005, abs=2e-4)
        assert found.significant == (parallax != 0.0)


def test_too_little_to_measure_by_is_said() -> None:
    flat = np.full(SHAPE, 0.5, np.float32)
    shown = [measure_displacements(flat, flat, flat) for _ in range(6)]
    with pytest.raises(InputError, match="textured windows, got 0"):
        fit_parallax(shown, LENS)


def test_made_up_scenes_have_it() -> None:
    settings = SyntheticSettings(shape=(96, 128), lens=LensRange(parallax=(-0.06, -0.05)), misregistration=0.0)
    sample = SyntheticScenes(settings).sample(0)
    assert sample.lens is not None
    assert -0.06 <= sample.lens.parallax <= -0.05
    plain = SyntheticScenes(replace(settings, lens=replace(sample.lens, parallax=0.0))).sample(0)
    assert np.abs(plain.shallow - sample.shallow).max() > 0.01


def test_a_share_of_drawn_lenses_may_have_none() -> None:
    rng = np.random.default_rng(0)
    lenses = LensRange(parallax=(-0.06, -0.05), without_parallax=0.4)
    drawn = np.array([lenses.draw(rng, 500.0, (0.5, 10.0)).parallax for _ in range(400)])
    assert np.mean(drawn == 0.0) == pytest.approx(0.4, abs=0.08)
    assert bool(((drawn == 0.0) | ((-0.06 <= drawn) & (drawn <= -0.05))).all())


def test_drawn_lenses_have_an_aspect() -> None:
    rng = np.random.default_rng(0)
    lenses = LensRange(parallax=(-0.06, -0.05), parallax_aspect=(0.2, 1.2))
    drawn = [lenses.draw(rng, 500.0, (0.5, 10.0)).parallax_aspect for _ in range(50)]
    assert 0.2 <= min(drawn) < 0.4 < 1.0 < max(drawn) <= 1.2
