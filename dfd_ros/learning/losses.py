"""What training minimises, term by term: each a function of tensors that gives a number.

Depths are (N, 1, H, W) metres, pictures (N, 3, H, W) in [0, 1]. Every mean is taken over the pixels whose truth is known
(finite), each as much as its `weight` says where there is one; over none it is 0, with no gradient. The estimates must
be finite there. How the published systems weigh the terms stands in their recipes, config/train/.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from dfd_ros.errors import InputError
from dfd_ros.models.filters import mean_over_window, with_margin
from dfd_ros.models.focus import laplacian_of_gaussian

CHARBONNIER_EPSILON = 1e-3
"""Where the Charbonnier loss turns from square to linear; of 2HDED:NET's authors and of Lai et al."""
SSIM_SHARE = 0.85
"""Of SSIM in a reconstruction loss; Zhao et al., and all the systems here."""
BLUR_BETA = 2.5
"""Weight of the difference in blurriness, from DefocusNet's and FocusNet's recipe."""
SHARPNESS_WINDOW = 7
"""Of the local mean in Gur & Wolf's sharpness, pixels."""
BLUR_NOISE = 1e-4
"""Energy of the Laplacian that noise makes (about one part in 256), below which a picture does not tell its blur."""
_SSIM_RANGE = (0.0, 1.0)
_LEAST_MEAN = 1e-2  # of a local mean that divides: a few parts in 256, below which there is nothing but noise
_MIN_SSIM_SIZE = 6  # pixels: SSIM's window of 11 is mirrored at the border

Penalty = Literal["l1", "charbonnier"]


def masked_mean(
    values: Tensor,  # (N, C, H, W)
    known: Tensor,  # (N, 1 or C, H, W) bool
    weight: Tensor | None = None,  # (N, 1, H, W)
) -> Tensor:
    """The weighted mean of the values where they are known, a scalar; what stands elsewhere has no influence at all."""
    share = known.to(values.dtype) if weight is None else torch.where(known, weight.to(values.dtype), 0.0)
    share = share.expand_as(values)
    # Not values * share: NaN times 0 is NaN, in the gradient, too.
    total = torch.where(share > 0, values, 0.0).mul(share).sum()
    return total / share.sum().clamp_min(torch.finfo(values.dtype).tiny)


def l1(estimate: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean |d − d*|: the loss of the dual-aperture network, of D3-Net and of 2HDED:NET's depth."""
    known, truth = _known(truth)
    return masked_mean((estimate - truth).abs(), known, weight)


def log_l1(estimate: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean |ln d − ln d*|, for positive estimates: near ones count as much as far ones, relatively."""
    known, truth = _known(truth, fill=1.0)
    return masked_mean((estimate.log() - truth.log()).abs(), known, weight)


def relative_l1(estimate: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean |d − d*| / d*, the metric rel: of two depths that are equally likely it prefers the near one."""
    known, truth = _known(truth, fill=1.0)
    return masked_mean((estimate - truth).abs() / truth, known, weight)


def charbonnier(
    estimate: Tensor, truth: Tensor, weight: Tensor | None = None, epsilon: float = CHARBONNIER_EPSILON
) -> Tensor:
    """Mean √((x − x*)² + ε²), an L1 that is smooth at 0.

    Charbonnier et al., "Two Deterministic Half-Quadratic Regularization Algorithms for Computed Imaging" (ICIP 1994); as
    a loss, Lai et al., "Deep Laplacian Pyramid Networks" (CVPR 2017), equation 3.
    """
    known, truth = _known(truth)
    return masked_mean(((estimate - truth).square() + epsilon**2).sqrt(), known, weight)


def laplacian_nll(
    estimate: Tensor, truth: Tensor, log_variance: Tensor, weight: Tensor | None = None, *, only_variance: bool = False
) -> Tensor:
    """Mean −ln p(d*) of a Laplace distribution about the estimate: √2 |d − d*| e^(−s/2) + s/2 + ln 2 / 2, s = ln σ².

    Kendall & Gal, "What Uncertainties Do We Need in Bayesian Deep Learning for Computer Vision?" (NIPS 2017), section
    3.1, with the Laplace distribution (variance 2 b²) in place of the normal one, as L1 in place of squares.

    Args:
        estimate: The distributions' medians, in any unit.
        truth: Of the same unit; NaN unknown.
        log_variance: ln of the variance in that unit squared, (N, 1, H, W).
        weight: See the module's head.
        only_variance: Whether to teach the variance alone, the estimate being taught by another loss.
    """
    known, truth = _known(truth)
    error = (estimate - truth).abs()
    if only_variance:
        error = error.detach()
    nll = math.sqrt(2.0) * error * torch.exp(-0.5 * log_variance) + 0.5 * log_variance + 0.5 * math.log(2.0)
    return masked_mean(nll, known, weight)


def ssim(estimate: Tensor, truth: Tensor) -> Tensor:
    """The structural similarity of two pictures at each pixel and channel, (N, C, H, W), 1 where they are equal.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity" (IEEE Transactions on Image
    Processing 13(4), 2004), equation 13: Gaussian windows of 1.5 pixels, K1 0.01, K2 0.03. In float32 at least; values
    are clamped to [0, 1], and what is not finite in the truth is taken to be as estimated.

    Raises:
        InputError: Pictures of fewer than 6 pixels.
    """
    if min(estimate.shape[-2:]) < _MIN_SSIM_SIZE:
        raise InputError(
            f"ssim: expected pictures of {_MIN_SSIM_SIZE} pixels or more, got {tuple(estimate.shape[-2:])}"
        )
    dtype = torch.promote_types(estimate.dtype, torch.float32)
    known, filled = _known(truth)
    with torch.autocast(estimate.device.type, enabled=False):
        estimate = estimate.to(dtype)
        filled = torch.where(known, filled.to(dtype), estimate.detach())
        result = structural_similarity_index_measure(
            estimate, filled, data_range=_SSIM_RANGE, reduction="none", return_full_image=True
        )
    return result[1]


def reconstruction(
    estimate: Tensor,
    truth: Tensor,
    weight: Tensor | None = None,
    *,
    ssim_share: float = SSIM_SHARE,
    penalty: Penalty = "l1",
    epsilon: float = CHARBONNIER_EPSILON,
) -> Tensor:
    """α (1 − SSIM)/2 + (1 − α) · L1 or Charbonnier: how far a picture computed is from the one taken.

    Zhao et al., "Loss Functions for Image Restoration with Neural Networks" (IEEE Transactions on Computational Imaging
    3(1), 2017); with this scale Godard et al., "Unsupervised Monocular Depth Estimation with Left-Right Consistency"
    (CVPR 2017), equation 2, and Gur & Wolf (CVPR 2019), equation 10.
    """
    known, _ = _known(truth)
    structural = masked_mean(0.5 * (1.0 - ssim(estimate, truth)), known, weight)
    pixels = l1(estimate, truth, weight) if penalty == "l1" else charbonnier(estimate, truth, weight, epsilon)
    return ssim_share * structural + (1.0 - ssim_share) * pixels


def smoothness(
    depth: Tensor,  # (N, 1, H, W)
    image: Tensor,  # (N, C, H, W)
    contrast: float = 1.0,
) -> Tensor:
    """Mean |∂x d| e^(−c |∂x I|) + mean |∂y d| e^(−c |∂y I|): depth changes where the picture does.

    Heise et al., "PM-Huber: PatchMatch with Huber Regularization for Stereo Matching" (ICCV 2013); as a loss Godard et
    al. (CVPR 2017), equation 3, and Gur & Wolf, equation 11. |∂I| is the mean over the channels.

    Args:
        depth: Depth, or its inverse or logarithm.
        image: The picture whose edges count.
        contrast: c, how much a given contrast excuses.
    """
    total = depth.new_zeros(())
    for axis in (-1, -2):
        edge = torch.exp(-contrast * image.diff(dim=axis).abs().mean(dim=1, keepdim=True))
        total = total + (depth.diff(dim=axis).abs() * edge).mean()
    return total


def sharpness_map(
    image: Tensor,  # (N, C, H, W)
    window: int = SHARPNESS_WINDOW,
) -> Tensor:  # (N, C, H, W)
    """|∇I|² + |I − μ| / μ + (I − μ)², μ the mean around the pixel: gradients, contrast and variance, large where sharp.

    Gur & Wolf (CVPR 2019), section 3.4, with the details of their code: backward differences, and 0 before the first
    pixel's (the code takes that pixel's value).
    """
    across = F.pad(image.diff(dim=-1), (1, 0))
    down = F.pad(image.diff(dim=-2), (0, 0, 1, 0))
    mean = mean_over_window(image, window)
    deviation = image - mean
    return across.square() + down.square() + deviation.abs() / mean.clamp_min(_LEAST_MEAN) + deviation.square()


def sharpness(estimate: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean |S(Î) − S(I)|: a picture computed must be as sharp as the one taken, everywhere. Gur & Wolf, section 3.4."""
    known, filled = _known(truth)
    filled = torch.where(known, filled, estimate.detach())
    return masked_mean((sharpness_map(estimate) - sharpness_map(filled)).abs(), known, weight)


def consistency(depth: Tensor, other: Tensor) -> Tensor:
    """Mean |d − d'|: two networks that see the same scene must agree, DefocusNet's and FocusNet's here."""
    return (depth - other).abs().mean()


def blurriness(
    image: Tensor,  # (N, C, H, W)
) -> Tensor:  # (N, 1, H, W)
    """−ln of the energy of the Laplacian of Gaussian around each pixel: the more, the more blurred.

    Si et al., "Fully Self-Supervised Depth Estimation from Defocus Clue" (CVPR 2023), the regularisation of their
    all-in-focus picture, taken here around each pixel in place of the whole picture, over a floor of noise.
    """
    grey = image.mean(dim=1, keepdim=True)
    log, window = (kernel.to(grey) for kernel in _blur_kernels())
    energy = _filter(grey, log).square()
    return -torch.log(_filter(energy, window) + BLUR_NOISE)


def blur(estimate: Tensor, truth: Tensor, weight: Tensor | None = None, beta: float = BLUR_BETA) -> Tensor:
    """β · mean |B(Î) − B(I)|: a picture computed must be as blurred as the one taken. B is `blurriness`."""
    known, filled = _known(truth)
    filled = torch.where(known, filled, estimate.detach())
    known = known.all(dim=1, keepdim=True)
    return beta * masked_mean((blurriness(estimate) - blurriness(filled)).abs(), known, weight)


def _known(truth: Tensor, fill: float = 0.0) -> tuple[Tensor, Tensor]:
    """Where a truth is known, and the truth with `fill` elsewhere."""
    known = truth.isfinite()
    return known, torch.where(known, truth, fill)


@lru_cache(maxsize=1)
def _blur_kernels() -> tuple[Tensor, Tensor]:
    """The Laplacian of Gaussian of one pixel, and the Gaussian window of two pixels that pools its energy."""
    x = torch.arange(-6.0, 7.0)
    window = torch.exp(-(x[:, None] ** 2 + x**2) / 8.0)
    return laplacian_of_gaussian(1.0), window / window.sum()


def _filter(image: Tensor, kernel: Tensor) -> Tensor:
    """(N, 1, H, W) filtered by a symmetric kernel, its border repeated."""
    return F.conv2d(with_margin(image, kernel.shape[0] // 2), kernel[None, None])
