"""Losses hold their closed forms, have right gradients, and nothing that is not known has a say."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from one_thread import one_thread  # noqa: F401 (all tests here run on one)
from skimage.metrics import structural_similarity
from torch.autograd import gradcheck

from dfd_ros.data.rendered import protocol_lens
from dfd_ros.data.samples import Sample
from dfd_ros.errors import InputError
from dfd_ros.learning import losses, objectives
from dfd_ros.learning.batches import whole
from dfd_ros.learning.recipe import load_recipe

NAN = math.nan


def picture(seed=0, shape=(1, 3, 20, 24), dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def row(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


# Closed forms.


def test_l1_is_the_mean_distance_over_known_depths():
    assert losses.l1(row(1, 2, 9), row(2, 4, NAN)).item() == 1.5


def test_l1_weighs_pixels_as_asked():
    assert losses.l1(row(1, 2), row(2, 5), row(3.0, 1.0)).item() == pytest.approx((3 * 1 + 1 * 3) / 4)


def test_log_l1_of_twice_the_depth_is_ln_2_whatever_the_depth():
    assert losses.log_l1(row(2, 20, 1), row(1, 10, NAN)).item() == pytest.approx(math.log(2))


def test_charbonnier_is_epsilon_at_zero_and_l1_far_away():
    assert losses.charbonnier(row(1), row(1)).item() == pytest.approx(1e-3)
    assert losses.charbonnier(row(5), row(1)).item() == pytest.approx(4, rel=1e-6)


def test_laplacian_likelihood_is_least_where_the_deviation_is_the_mean_error():
    """d/ds of √2 e^(-s/2) |e| + s/2 is 0 at σ = √2 |e|: a Laplace distribution's deviation is √2 times its mean error."""
    error = 0.3
    logs = torch.linspace(-6, 2, 4001, dtype=torch.float64)
    values = torch.stack([losses.laplacian_nll(row(1 + error), row(1), s.view(1, 1, 1, 1)) for s in logs])
    assert torch.exp(0.5 * logs[values.argmin()]).item() == pytest.approx(math.sqrt(2) * error, rel=2e-3)


def test_laplacian_likelihood_is_that_of_the_distribution():
    s = 0.4
    scale = math.exp(0.5 * s) / math.sqrt(2)
    expected = -math.log(math.exp(-abs(1.7 - 1.0) / scale) / (2 * scale))
    assert losses.laplacian_nll(row(1.7), row(1), row(s)).item() == pytest.approx(expected)


def test_ssim_is_that_of_scikit_image():
    one, other = picture(0), picture(1)
    mine = losses.ssim(one, other)[0].permute(1, 2, 0).numpy()
    _, theirs = structural_similarity(
        one[0].permute(1, 2, 0).numpy(), other[0].permute(1, 2, 0).numpy(), data_range=1.0, channel_axis=2,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True,
    )  # fmt: skip
    # Borders are mirrored another way.
    inside = (slice(5, -5), slice(5, -5))
    np.testing.assert_allclose(mine[inside], theirs[inside], atol=1e-9)


def test_reconstruction_of_the_very_picture_is_free_and_of_another_is_not():
    assert losses.reconstruction(picture(), picture()).item() == pytest.approx(0, abs=1e-9)
    other = losses.reconstruction(picture(), picture(1))
    structural = 0.5 * (1 - losses.ssim(picture(), picture(1)).mean())
    assert other.item() == pytest.approx((0.85 * structural + 0.15 * (picture() - picture(1)).abs().mean()).item())


def test_smoothness_of_a_ramp_is_its_slope_and_edges_excuse_it():
    depth = torch.arange(5.0, dtype=torch.float64).view(1, 1, 1, 5).expand(1, 1, 4, 5)
    flat = torch.zeros(1, 3, 4, 5, dtype=torch.float64)
    assert losses.smoothness(2 * depth, flat).item() == pytest.approx(2)
    edges = depth.expand(1, 3, 4, 5)
    assert losses.smoothness(2 * depth, edges).item() == pytest.approx(2 * math.exp(-1))
    assert losses.smoothness(2 * depth, edges, contrast=3.0).item() == pytest.approx(2 * math.exp(-3))


def test_sharpness_of_an_even_picture_is_zero_and_falls_with_blur():
    assert losses.sharpness_map(torch.full((1, 3, 9, 9), 0.5)).abs().max() == 0
    texture = picture(shape=(1, 3, 40, 40))
    blurred = torch.nn.functional.avg_pool2d(texture, 3, 1, 1)
    assert losses.sharpness_map(blurred).mean() < 0.5 * losses.sharpness_map(texture).mean()


def test_blurriness_rises_with_blur():
    texture = picture(shape=(1, 3, 40, 40))
    means = [losses.blurriness(texture).mean()]
    for size in (3, 5, 9):
        blurred = torch.nn.functional.avg_pool2d(texture, size, 1, size // 2, count_include_pad=False)
        means.append(losses.blurriness(blurred).mean())
    assert means == sorted(means)


def test_blur_of_equal_pictures_is_zero_and_beta_multiplies():
    assert losses.blur(picture(), picture()).item() == 0
    once, more = (losses.blur(picture(), picture(1), beta=beta).item() for beta in (1.0, 2.5))
    assert once > 0
    assert more == pytest.approx(2.5 * once)


def test_consistency_is_the_mean_distance():
    assert losses.consistency(row(1, 2), row(2, 4)).item() == 1.5


# Gradients, against differences.


@pytest.mark.parametrize(
    "loss",
    [losses.l1, losses.charbonnier, losses.reconstruction, losses.sharpness, losses.blur, losses.consistency],
    ids=lambda loss: loss.__name__,
)
def test_gradients_are_right(loss):
    estimate = picture(2, (1, 3, 8, 9)).requires_grad_()
    assert gradcheck(lambda x: loss(x, picture(3, (1, 3, 8, 9))), (estimate,))


def test_gradients_of_the_likelihood_and_of_smoothness_are_right():
    depth, variance = picture(4, (1, 1, 4, 5)).requires_grad_(), picture(5, (1, 1, 4, 5)).requires_grad_()
    assert gradcheck(lambda d, s: losses.laplacian_nll(d, picture(6, (1, 1, 4, 5)), s), (depth, variance))
    assert gradcheck(lambda d: losses.smoothness(d, picture(7, (1, 3, 4, 5))), (depth,))
    assert gradcheck(lambda d: losses.log_l1(d + 0.5, picture(6, (1, 1, 4, 5)) + 0.5), (depth,))


def test_a_likelihood_that_teaches_the_variance_alone_leaves_the_estimate_alone():
    depth, variance = picture(4, (1, 1, 4, 5)).requires_grad_(), picture(5, (1, 1, 4, 5)).requires_grad_()
    losses.laplacian_nll(depth, picture(6, (1, 1, 4, 5)), variance, only_variance=True).backward()
    assert depth.grad is None
    assert variance.grad.abs().sum() > 0


# What is not known.

MASKED = {
    "l1": losses.l1,
    "log_l1": lambda x, y: losses.log_l1(x + 0.1, y),
    "charbonnier": losses.charbonnier,
    "laplacian_nll": lambda x, y: losses.laplacian_nll(x, y, torch.zeros_like(x)),
    "reconstruction": losses.reconstruction,
    "sharpness": losses.sharpness,
    "blur": losses.blur,
}


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("unknown", [NAN, math.inf])
def test_unknown_pixels_have_no_say_and_no_gradient(name, unknown):
    truth = picture(1, (1, 1, 12, 12)) + 0.1
    truth[..., 6:, :] = unknown
    estimate = picture(0, (1, 1, 12, 12)).requires_grad_()
    loss = MASKED[name](estimate, truth)
    (gradient,) = torch.autograd.grad(loss, estimate)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert gradient[..., :4, :].abs().sum() > 0
    if name in ("l1", "log_l1", "charbonnier", "laplacian_nll"):
        assert gradient[..., 6:, :].abs().sum() == 0
        moved = estimate.detach().clone()
        moved[..., 6:, :] += 5
        assert MASKED[name](moved, truth) == loss


@pytest.mark.parametrize("name", MASKED)
def test_where_nothing_is_known_a_loss_is_zero(name):
    estimate = picture(0, (1, 1, 12, 12)).requires_grad_()
    loss = MASKED[name](estimate, torch.full((1, 1, 12, 12), NAN, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(loss, estimate)
    assert loss.item() == 0
    assert gradient.abs().sum() == 0


@given(st.integers(0, 1000), st.floats(0.05, 0.95))
def test_masked_mean_is_the_mean_of_what_is_known(seed, share):
    values = picture(seed, (2, 3, 5, 4))
    known = picture(seed + 1, (2, 1, 5, 4)) < share
    expected = values[known.expand_as(values)].mean() if known.any() else torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(losses.masked_mean(values, known), expected)


def test_pictures_too_small_for_ssim_are_refused():
    with pytest.raises(InputError, match="pictures of 6 pixels or more"):
        losses.ssim(picture(shape=(1, 3, 4, 20)), picture(shape=(1, 3, 4, 20)))


# Terms: where losses meet the lens.


def scene(depth=None, sharp=None):
    rng = np.random.default_rng(0)
    shallow, deep, own = rng.random((3, 24, 24, 3), np.float32)
    depth = np.full((24, 24), 3.0, np.float32) if depth is None else depth
    return whole(Sample("scene", shallow, deep, depth, protocol_lens(), own if sharp is None else sharp))


def terms(text):
    return load_recipe("dual_aperture", [f"loss={text}"]).loss


def test_pictures_reconstructed_with_the_true_depth_cost_nothing_and_with_another_more_the_more_it_is_off():
    """The focal sequence is rendered from the truth by the very same layer."""
    batch = scene()
    (term,) = terms("[{kind: reconstruction, focus: [0.2, 0.8], sharpness: 0.1, window: 15}]")
    costs = []
    for factor in (1.0, 1.2, 1.5, 2.0):
        parts = term.parts({"depth": factor * batch.depth}, batch)
        assert set(parts) == {"reconstruction", "sharpness"}
        costs.append(sum(parts.values()).item())
    assert costs[0] == pytest.approx(0, abs=1e-6)
    assert costs == sorted(costs)


def test_depth_learns_from_the_pictures_alone():
    """Gradient descent on the reconstruction of the pictures taken finds the depth that they were taken of."""
    rng = np.random.default_rng(1)
    sharp = rng.random((24, 24, 3), np.float32)
    batch = scene(sharp=sharp)
    (term,) = terms("[{kind: reconstruction, window: 15, psf: disk}]")
    light = batch.all_in_focus**batch.gamma
    shallow, deep = (term._blur(light, batch.coc(batch.depth, name), batch.gamma) for name in ("shallow", "deep"))
    batch = type(batch)(**{**vars(batch), "shallow": shallow, "deep": deep})
    log_depth = torch.full((1, 1, 24, 24), math.log(4.2)).requires_grad_()
    optimizer = torch.optim.Adam([log_depth], 0.03)
    for _ in range(60):
        optimizer.zero_grad()
        loss, _ = objectives.objective((term,), {"depth": log_depth.exp()}, batch)
        loss.backward()
        optimizer.step()
    assert (log_depth.exp() - 3.0).abs().median() < 0.2


def test_parts_of_one_name_add_up_and_all_are_weighed():
    batch = scene()
    outputs = {"depth": batch.depth + 1.0, "other": batch.depth - 2.0}
    two = terms("[{kind: depth_l1, weight: 3}, {kind: depth_l1, output: other}]")
    loss, parts = objectives.objective(two, outputs, batch)
    assert parts["depth_l1"].item() == pytest.approx(3 * 1 + 2)
    assert loss.item() == pytest.approx(5)


def test_an_output_that_the_model_lacks_is_named():
    with pytest.raises(InputError, match="give 'focus_depth', but it gives depth"):
        objectives.objective(terms("[{kind: consistency}]"), {"depth": scene().depth}, scene())


def test_a_half_size_output_is_held_against_the_whole_truth():
    batch = scene()
    (term,) = terms("[{kind: depth_l1}]")
    small = torch.full((1, 1, 12, 12), 3.5)
    assert term.parts({"depth": small}, batch)["depth_l1"].item() == pytest.approx(0.5)
