"""Our network: its front end says what the physics says, its lens is an input, and it exports."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfd_ros.errors import InputError
from dfd_ros.models.band_evidence import BandStatistics, cost_volume
from dfd_ros.models.bands import BANDS, CENTRES, LEVELS, band_kernels, band_responses
from dfd_ros.models.lens_table import (
    INCOHERENCE,
    LN_DEPTH,
    NOISE,
    PRIOR,
    PRIOR_TILT,
    PRODUCTS,
    SIDE,
    SLOPES,
    explanation,
    lens_table,
)
from dfd_ros.models.physics_net import PhysicsNet, likely_log_depth, positions
from dfd_ros.optics.lens import Lens
from dfd_ros.optics.render import render_defocus
from dfd_ros.optics.transfer import transfer_function

LENS = Lens("test", 0.8, 2.0, 8.0, coc_scale=20.0, min_depth=0.8, max_depth=8.0)
GAMMA = 2.2


def texture(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Light of amplitude spectrum 1/f, as natural scenes have, (H, W, 3) in (0, 1)."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) / frequency, s=shape)
    return np.repeat(np.clip(0.4 + 0.1 * field / field.std(), 0.01, 1.0)[..., None], 3, axis=2).astype(np.float32)


def pair_of(depth: np.ndarray, lens: Lens = LENS, seed: int = 0) -> torch.Tensor:
    """A pair as the network takes it, (1, 6, H, W)."""
    f_numbers = (lens.f_number_shallow, lens.f_number_deep)
    pictures = render_defocus(texture(depth.shape, seed), depth, lens, f_numbers)
    values = np.concatenate(pictures, axis=2).transpose(2, 0, 1) ** (1.0 / GAMMA)
    return torch.from_numpy(values[None].astype(np.float32))


def best_depth(pair: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The depth that explains each cell best, by all levels, (h, w) metres."""
    costs = cost_volume(BandStatistics(GAMMA)(pair).products, table[None])[0].mean(dim=0)
    return torch.exp(table[:, 0])[costs.argmin(dim=0)]


def test_the_table_has_the_lens_files_prior() -> None:
    lens = replace(LENS, prior_depth=2.5, prior_log_sigma=0.5, prior_log_slope=0.4)
    table = lens_table(lens).double()
    off = table[:, LN_DEPTH] - np.log(2.5)
    torch.testing.assert_close(table[:, PRIOR], -(off**2) / (2 * 0.5**2), rtol=1e-4, atol=1e-5)
    for height in (-1.0, 1.0):  # of the top and the bottom row, where the median is up and down by half the slope
        expected = -((off + 0.2 * height) ** 2) / (2 * 0.5**2)
        found = table[:, PRIOR] + height * table[:, PRIOR_TILT]
        torch.testing.assert_close(found - found[0], expected - expected[0], rtol=1e-4, atol=1e-4)
    assert not lens_table(LENS)[:, [PRIOR, PRIOR_TILT]].any()


def test_where_the_picture_shows_nothing_an_untrained_network_goes_by_the_prior() -> None:
    torch.manual_seed(0)
    net = PhysicsNet().eval()
    flat = torch.full((1, 6, 64, 96), 0.5)
    medians = []
    for prior_depth in (1.5, 5.0):
        net.set_lens(replace(LENS, prior_depth=prior_depth, prior_log_sigma=0.2, prior_log_slope=0.3))
        with torch.no_grad():
            depth = net(flat)["depth"][0, 0]
        medians.append(float(depth.median()))
        assert float(depth[0].median()) > 1.1 * float(depth[-1].median())  # the top row is farther
    assert medians == pytest.approx([1.5, 5.0], rel=0.15)


@pytest.fixture
def net() -> PhysicsNet:
    torch.manual_seed(0)
    model = PhysicsNet().eval()
    model.set_lens(LENS)
    return model


def test_the_filters_pass_rings_about_their_frequencies_and_no_mean():
    kernels = band_kernels()
    np.testing.assert_allclose(kernels.sum(axis=(1, 2)), 0.0, atol=1e-12)
    np.testing.assert_allclose(kernels, kernels.transpose(0, 2, 1), atol=1e-12)
    frequency, response = band_responses()
    assert response.shape[:2] == (LEVELS, BANDS)
    assert response.shape[3] == len(frequency)
    peaks = frequency[np.abs(response.mean(axis=2)).argmax(axis=2)]
    np.testing.assert_allclose(peaks, [[f / 2**level for f in CENTRES] for level in range(LEVELS)], rtol=0.15)


def test_answers_to_waves_are_those_foretold_those_too_fine_for_the_level_among_them():
    """A wave through the real pyramid: the energy of each band is half its response squared, at any frequency."""
    frequency, response = band_responses()
    straight = response[:, :, 0]  # along x
    x = np.arange(512)
    for wanted in (0.03, 0.085, 0.17, 0.3, 0.42):
        index = int(np.abs(frequency - wanted).argmin())
        light = 0.4 + 0.1 * np.cos(2.0 * np.pi * frequency[index] * x + 0.3)
        picture = torch.from_numpy(np.broadcast_to(light ** (1.0 / GAMMA), (6, 128, 512)).astype(np.float32))[None]
        found = BandStatistics(GAMMA)(picture).products[0, :, : BANDS**2, 4:-4, 16:-16].double().mean(dim=(2, 3))
        energies = found.reshape(LEVELS, BANDS, BANDS).diagonal(dim1=1, dim2=2).numpy() * 0.41
        np.testing.assert_allclose(energies, 0.005 * straight[..., index] ** 2, rtol=0.05, atol=2e-6)


def predicted(coc, ratio, psf="disk"):
    """The covariance of a level's answers, (LEVELS, 2 BANDS, 2 BANDS), by the optics' own transfer functions."""
    frequency, response = band_responses()
    transfers = [transfer_function(c, frequency, psf) for c in (coc, coc * ratio)]
    found = []
    for bands, noise in zip(response, NOISE, strict=True):
        answers = np.concatenate([bands * transfer for transfer in transfers])  # (2 BANDS, directions, n)
        power = 0.0
        for slope in SLOPES:
            falling = frequency / frequency ** (2.0 * slope)
            power = power + falling / np.sum(falling * bands**2) * bands.shape[1] / len(SLOPES)
        covariance = np.einsum("idn,jdn,n->ij", answers, answers, power) / bands.shape[1]
        covariance[:BANDS, BANDS:] *= 1.0 - INCOHERENCE
        covariance[BANDS:, :BANDS] *= 1.0 - INCOHERENCE
        found.append(covariance + 0.5 * noise * np.trace(covariance) * np.eye(2 * BANDS))
    return np.stack(found)


def products_of(covariance):
    return np.stack([covariance[..., i, j] for i, j in PRODUCTS], axis=-1)


@pytest.mark.parametrize("psf", ["disk", "gaussian"])
@pytest.mark.parametrize("coc", [0.0, 1.5, 4.0])
def test_misfits_are_those_of_gaussian_variables_of_the_optics_covariance(coc, psf):
    expected, factors = predicted(coc, 0.25, psf), explanation(np.array(coc), np.array(coc / 4), psf)
    rng = np.random.default_rng(1)
    for level, covariance in enumerate(expected):
        samples = rng.standard_normal((50, 2 * BANDS)) @ rng.standard_normal((2 * BANDS, 2 * BANDS))
        gram = samples.T @ samples / 50
        misfit = np.trace(np.linalg.solve(covariance, gram)) * np.linalg.det(covariance) ** (0.5 / BANDS)
        assert factors[level] @ products_of(gram) == pytest.approx(misfit, rel=1e-6)


@given(coc=st.floats(0.0, 15.0), ratio=st.floats(0.1, 0.9))
@settings(max_examples=30, deadline=None)
def test_what_a_lens_predicts_it_explains_best(coc, ratio):
    """Statistics that a CoC makes are likelier under that CoC than under any other: the estimate has no bias."""
    products = products_of(predicted(coc, ratio))
    others = coc + np.linspace(-coc, 5.0, 60)
    at, elsewhere = (np.sum(explanation(c, c * ratio) * products, axis=-1) for c in (np.array(coc), others))
    assert (at <= elsewhere.min(axis=0) * (1.0 + 1e-9)).all()


def coc_errors(slope: float, shift: float = 0.0, noise: float = 0.0) -> np.ndarray:
    """How far the evidence of cells of 8 x 8 pixels is off a CoC of 10 pixels, as a fraction of it, behind the focus.

    Args:
        slope: The texture's amplitude falls as 1 / f^slope.
        shift: Pixels by which the pair is registered badly.
        noise: Standard deviation, of light.
    """
    depth, size = 3.2, 256
    lens = replace(LENS, coc_scale=26.0, max_depth=50.0)
    rng = np.random.default_rng(3)
    along = np.fft.rfftfreq(size)[None]
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], along)
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) / frequency**slope)
    field = np.fft.rfft2(0.4 + 0.1 * field / field.std())
    frequency[0, 0] = 0.0
    cocs = [float(lens.coc(np.array(depth), f_number)) for f_number in (lens.f_number_shallow, lens.f_number_deep)]
    moved = (np.exp(-2j * np.pi * shift * along), 1.0)
    light = [np.fft.irfft2(field * transfer_function(c, frequency) * m) for c, m in zip(cocs, moved, strict=True)]
    light = np.clip(light + noise * rng.standard_normal(np.shape(light)), 0.0, 1.0)
    values = np.repeat(light ** (1.0 / GAMMA), 3, axis=0)[None].astype(np.float32)
    table = lens_table(lens)
    found = torch.exp(table[:, LN_DEPTH])
    costs = cost_volume(BandStatistics(GAMMA)(torch.from_numpy(values)).products, table[None])[0, :3].sum(dim=0)
    costs[found < lens.focus_distance] = torch.inf  # blur does not tell the side
    best = costs.argmin(dim=0).clamp(1, len(found) - 2)
    before, at, after = (costs.gather(0, (best + step)[None])[0] for step in (-1, 0, 1))
    step = (0.5 * (before - after) / (before - 2.0 * at + after)).clamp(-0.5, 0.5)
    inverse = 1.0 / found[best] + step * (1.0 / found[1] - 1.0 / found[0])
    return np.abs(lens.coc(1.0 / inverse.double().numpy()) / cocs[0] - 1.0)[2:-2, 2:-2]


@pytest.mark.parametrize("slope", [0.5, 1.0, 1.5])
def test_whatever_the_spectrum_of_the_texture_single_cells_tell_the_blur(slope):
    """A blur of 10 pixels to a hundredth of itself in half of all cells; each band by itself tells a twelfth."""
    assert np.median(coc_errors(slope)) < 0.01


def test_single_cells_bear_noise_and_a_pair_that_is_not_quite_registered(monkeypatch):
    """What the model does not know does not count as blur."""
    found = np.median(coc_errors(1.0, shift=0.15, noise=0.002))
    assert found < 0.006
    monkeypatch.setattr("dfd_ros.models.lens_table.INCOHERENCE", 0.0)
    assert np.median(coc_errors(1.0, shift=0.15, noise=0.002)) > 1.2 * found


@pytest.mark.parametrize("depth", [1.2, 2.0, 4.0])
def test_the_cost_volume_finds_the_depth_of_a_textured_wall(depth):
    found = best_depth(pair_of(np.full((128, 160), depth, np.float32)), lens_table(LENS))
    inner = found[2:-2, 2:-2].numpy()
    assert abs(np.median(1.0 / inner) - 1.0 / depth) < 0.06  # of labels 0.036 apart in 1/z


def test_another_lens_reads_the_same_depth_from_other_blur():
    """The lens is an input: the same wall through two lenses is the same depth, through the wrong table it is not."""
    other = replace(LENS, coc_scale=9.0, focus_distance=0.6)
    wall = np.full((128, 160), 2.5, np.float32)
    pair = pair_of(wall, other)
    right, wrong = (float(best_depth(pair, lens_table(lens)).median()) for lens in (other, LENS))
    assert abs(1 / right - 1 / 2.5) < 0.06
    assert abs(1 / wrong - 1 / 2.5) > 0.12


def test_expected_log_energy_ratios_fall_with_the_blur():
    """The wider the CoC, the less of each band the shallow picture keeps against the deep one."""
    factors = lens_table(LENS).double()[:, -len(PRODUCTS) :]  # of the coarsest level
    precision = torch.zeros(len(factors), 2 * BANDS, 2 * BANDS, dtype=torch.float64)
    for k, (i, j) in enumerate(PRODUCTS):
        precision[:, i, j] = precision[:, j, i] = factors[:, k] / (1.0 + (i // BANDS != j // BANDS))
    energies = torch.linalg.inv(precision).diagonal(dim1=1, dim2=2)
    ratio = torch.log(energies[:, 0] / energies[:, BANDS])
    coc = torch.from_numpy(LENS.coc(np.exp(lens_table(LENS)[:, 0].double().numpy())))
    assert (ratio[coc.argsort()].diff() < 1e-4).all()
    # A zoom is a lens of so much larger CoCs.
    torch.testing.assert_close(lens_table(LENS, zoom=0.5), lens_table(replace(LENS, coc_scale=10.0)))


def test_exposure_and_vignetting_do_not_count():
    pair = pair_of(np.full((128, 160), 2.0, np.float32))
    fall = torch.linspace(1.0, 0.7, 160) ** (1.0 / GAMMA)
    dimmed = torch.cat([pair[:, :3] * fall, pair[:, 3:]], dim=1)
    statistics = BandStatistics(GAMMA)
    plain, even = (cost_volume(statistics(p).products, lens_table(LENS)[None]) for p in (pair, dimmed))
    assert (plain - even).abs().median() < 0.05


def test_untrained_it_sees_blur_already(net):
    with torch.no_grad():
        near, far = (float(net(pair_of(np.full((96, 128), z, np.float32)))["depth"].median()) for z in (1.0, 5.0))
    assert far > 1.15 * near


@pytest.mark.parametrize("size", [(96, 128), (75, 101), (432, 645), (32, 33)])
def test_any_size_comes_back_as_it_went_in(net, size):
    with torch.no_grad():
        outputs = net(torch.rand(1, 6, *size))
    assert list(outputs) == ["depth", "log_variance"]
    for value in outputs.values():
        assert value.shape == (1, 1, *size)
        assert torch.isfinite(value).all()
    assert LENS.min_depth <= outputs["depth"].min() <= outputs["depth"].max() <= LENS.max_depth * 1.0001


def test_a_batch_of_lenses_is_each_of_them_alone(net):
    images = torch.rand(2, 6, 64, 96)
    tables = torch.stack([lens_table(LENS), lens_table(replace(LENS, coc_scale=8.0))])
    with torch.no_grad():
        together = net(images, tables)["depth"]
        alone = torch.cat([net(images[i : i + 1], tables[i : i + 1])["depth"] for i in range(2)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("far", [-20.0, 20.0])
def test_one_logit_settles_the_side_of_the_focus_whatever_the_lens(net, far):
    lens = replace(LENS, focus_distance=1.6)
    pair = pair_of(np.full((96, 128), 1.2, np.float32), lens)
    with torch.no_grad():
        net.logits.bias[-1] = far
        depth = net(pair, lens_table(lens)[None])["depth"]
    beyond = (depth > lens.focus_distance).float().mean()
    assert beyond > 0.99 if far > 0.0 else beyond < 0.01


def test_the_network_knows_where_among_its_depths_the_focus_lies(net):
    """The pair shows nothing: what differs is the lens alone, at first no more than as all its depths are as likely."""
    blank = torch.full((1, 6, 64, 96), 0.5)
    tables = [lens_table(replace(LENS, focus_distance=focus))[None] for focus in (1.0, 3.0)]
    with torch.no_grad():
        before = torch.stack([net(blank, table)["depth"].mean() for table in tables])
        net.from_lens.weight += 0.1
        net.logits.weight[-1] += 0.1
        after = torch.stack([net(blank, table)["depth"].mean() for table in tables])
    for table, depth in zip(tables, before, strict=True):
        depths, sides = (table[..., column, None, None] for column in (LN_DEPTH, SIDE))
        even = torch.exp(likely_log_depth(depths, depths, sides))  # labels are even in 1 / z
        assert float(depth) == pytest.approx(float(even), rel=0.02)
    changes = torch.log(after / before)
    assert abs(float(changes[0] - changes[1])) > 0.1


def test_positions_are_the_pictures_however_it_was_grown():
    whole = positions(torch.zeros(1, 1, 24, 40), (24.0, 40.0))
    grown = positions(torch.zeros(1, 1, 32, 48), (24.0, 40.0))
    torch.testing.assert_close(grown[..., :24, :40], whole)
    torch.testing.assert_close(whole[0, 1], -whole[0, 1].flip(-1))
    assert float(whole[0, 0, 0, 0]) == pytest.approx(-1.0 + 1.0 / 24)


def test_it_is_small(net):
    assert 0.9e6 < sum(parameter.numel() for parameter in net.parameters()) < 1.25e6  # 2.5 MB in half precision


def test_it_learns(net):
    """A few steps on one pair of two walls bring its depth to the truth: gradients reach every weight."""
    depth = np.full((64, 96), 1.2, np.float32)
    depth[:, 48:] = 4.0
    pair, truth = pair_of(depth), torch.from_numpy(depth)
    net.train()
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3)
    errors = []
    for _ in range(25):
        outputs = net(pair.repeat(2, 1, 1, 1))
        error = (torch.log(outputs["depth"]) - torch.log(truth)).abs()
        loss = error.mean() + 0.1 * (error * torch.exp(-outputs["log_variance"]) + outputs["log_variance"]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(float(error.mean().detach()))
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert errors[-1] < 0.4 * errors[0]


def test_it_exports_with_the_lens_as_an_input(net):
    arguments = (torch.rand(1, 6, 96, 128), lens_table(LENS)[None])
    with torch.no_grad():
        expected = net(*arguments)
        program = torch.export.export(net, arguments)
        got = program.module()(*arguments)
    torch.testing.assert_close(got["depth"], expected["depth"])
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("fft" in name or "complex" in name for name in names)


def test_what_does_not_fit_is_refused(net):
    with pytest.raises(InputError, match="lens"):
        net(torch.rand(1, 6, 64, 64), lens_table(LENS, labels=16)[None])
    with pytest.raises(InputError, match="images"):
        net(torch.rand(1, 3, 64, 64))
    with pytest.raises(InputError, match="lens"):
        PhysicsNet()(torch.rand(1, 6, 64, 64))
    with pytest.raises(InputError, match="labels"):
        lens_table(LENS, labels=1)
    with pytest.raises(InputError, match="zoom"):
        lens_table(LENS, zoom=0.0)
    with pytest.raises(InputError, match="features"):
        PhysicsNet(features=(32, 48, 64))
    with pytest.raises(InputError, match="psf"):
        explanation(np.array(1.0), np.array(0.5), "square")


LN_DEPTHS = torch.log(torch.tensor([1.0, 2.0, 3.0, 5.0]))[None, :, None, None]


def belief_of(*shares: float) -> torch.Tensor:
    """What makes `likely_log_depth` believe so much of each depth, (1, K, 1, 1): twice as much of what is 16 times nearer."""
    return torch.log(torch.tensor(shares))[None, :, None, None] + 0.25 * LN_DEPTHS


def test_depth_on_one_side_of_the_focus_is_the_mean_of_ln_depth() -> None:
    found = likely_log_depth(belief_of(0.1, 0.2, 0.3, 0.4), LN_DEPTHS, torch.ones(1, 4, 1, 1))
    mean = (torch.tensor([0.1, 0.2, 0.3, 0.4])[None, :, None, None] * LN_DEPTHS).sum()
    assert float(found) == pytest.approx(float(mean), rel=1e-5)


def test_of_two_sides_of_the_focus_each_counts_by_the_square_of_its_share() -> None:
    sides = torch.tensor([-1.0, -1.0, 1.0, 1.0])[None, :, None, None]
    for near in (0.5, 0.7, 0.9):
        found = likely_log_depth(belief_of(near, 1e-9, 1e-9, 1 - near), LN_DEPTHS, sides)
        expected = (1 - near) ** 2 * np.log(5.0) / (near**2 + (1 - near) ** 2)
        assert float(found) == pytest.approx(expected, abs=1e-5)
    # In focus a depth is on neither side and takes none.
    within = likely_log_depth(belief_of(0.5, 1e-9, 1e-9, 0.5), LN_DEPTHS, torch.zeros(1, 4, 1, 1))
    assert float(within) == pytest.approx(0.5 * np.log(5.0), abs=1e-5)
