"""Our network: depth and its uncertainty from a pair, its front end the physics, its lens an input, in real time.

What blur tells is computed (`band_evidence`); what is learned is to weigh it, to carry it into areas without texture and
to settle on which side of the focus a thing lies, for which the whole picture is needed. Hence a small U-Net
(Ronneberger et al., MICCAI 2015) of residual blocks whose finest level is a quarter of the picture:

    1/4     the pair in 4 x 4 blocks (deep, and the boundary cue shallow − deep), band features, position
    1/8     the cost volume of the lens's depths, the side of the focus as the pair's displacement has it (`displacement`),
            and which of the depths are on which side
    1/16
    1/32    dilated blocks, and the mean over the whole picture

On the way back, at 1/8, each depth of the lens gets a logit: what blur and displacement say against it, each level and window
as far as it is trusted there, gathered over cells that belong together (`affinity`); the prior of the lens file; and what the
network adds, for each depth and for a whole side of the focus. Ln depth is its mean under their softmax, decided for a side
(`likely_log_depth`), plus a correction at 1/4, brought to full resolution linearly. So depths are the lens's own, and blur
counts before anything is learned. The second output is the log-variance of ln depth.

1,090,374 parameters. Convolutions carry batch normalisation, which vanishes in them after training. Everything exports to
standard operators.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

from dfd_ros.errors import InputError
from dfd_ros.models.affinity import AffinityGathering
from dfd_ros.models.band_evidence import CELL, FEATURES, BandStatistics, band_features, cost_volume
from dfd_ros.models.bands import LEVELS
from dfd_ros.models.base import DepthModel, Signature
from dfd_ros.models.displacement import JITTER, SIDES, WINDOWS, ParallaxEvidence, displaced_evidence, parallax_evidence
from dfd_ros.models.filters import enlarge_map
from dfd_ros.models.lens_table import (
    DISPLACEMENT,
    LABELS,
    LN_DEPTH,
    PARALLAX,
    PARALLAX_ASPECT,
    PRIOR,
    PRIOR_TILT,
    SIDE,
    TABLE_COLUMNS,
    AnyLens,
    lens_table,
)

POSITIONS = 4
"""Channels that say where a cell is: y, x, distance from the centre squared, y squared."""
MAX_LOG_VARIANCE = 3.0
MIN_LOG_VARIANCE = -9.0
_DILATIONS = (1, 2, 4, 1)
_CUE_GAIN = 4.0  # the boundary cue is small against the picture
_MID_GREY = 0.5
_TRUSTED = (LEVELS + len(WINDOWS), SIDES - len(WINDOWS))  # costs of the depths, then what tells but the side
_FIRST_TRUST = -1.0  # in the costs, before the softplus
_IN_DOUBT_NEAR = 0.25  # by which power of 1 / z nearer depths count more; with 1 the relative error would be least


class PhysicsNet(DepthModel):
    """The network.

    Args:
        features: Channels at 1/4, 1/8, 1/16 and 1/32.
        blocks: Residual blocks there on the way down.
        labels: Depths of the lens tables.
        dropout: Probability that a block's channel is left out in training.
        gamma: Encoding exponent of the pictures.

    Raises:
        InputError: Not four levels, or a number that is not positive.
    """

    lens: Tensor

    def __init__(
        self,
        features: tuple[int, ...] = (32, 48, 64, 96),
        blocks: tuple[int, ...] = (1, 2, 3, 3),
        labels: int = LABELS,
        dropout: float = 0.1,
        gamma: float = 2.2,
    ) -> None:
        super().__init__(Signature(("shallow", "deep"), ("depth", "log_variance"), multiple=32))
        if len(features) != 4 or len(blocks) != 4 or min(*features, *blocks, labels) < 1:
            raise InputError(f"features and blocks must be four positive numbers each, got {features} and {blocks}")
        self.labels = labels
        a, b, c, d = features
        self.statistics = BandStatistics(gamma)
        self.from_pictures = _convolution(6, a, CELL, CELL)
        self.from_bands = _convolution(FEATURES, a)
        self.from_position = nn.ModuleList([nn.Conv2d(POSITIONS, a, 1), nn.Conv2d(POSITIONS, b, 1)])
        self.from_costs = _convolution(LEVELS * labels, b)
        self.down = nn.ModuleList([_convolution(n, m, 3, 2) for n, m in ((a, b), (b, c), (c, d))])
        # Dropout where context is gathered, not at the finest level.
        self.inward = nn.ModuleList(
            nn.Sequential(
                *(_ResidualBlock(n, _dilation(level, k), dropout * (level > 0)) for k in range(blocks[level]))
            )
            for level, n in enumerate(features)
        )
        self.overall = nn.Linear(d, d)
        self.up = nn.ModuleList([_convolution(m, n) for n, m in ((a, b), (b, c), (c, d))])
        self.outward = nn.ModuleList(
            _ResidualBlock(n, 1, dropout * (level > 0)) for level, n in enumerate(features[:3])
        )
        self.logits = nn.Conv2d(b, labels + 1, 1)  # of each depth, then of the far side of the focus
        self.finish = nn.Conv2d(a, 2, 1)
        self.from_side = nn.Conv2d(SIDES, b, 1)
        self.from_lens = nn.Linear(labels, b)
        self.trust = nn.Conv2d(b, sum(_TRUSTED), 1)
        self.gathering = AffinityGathering(b)
        for last, bias in ((self.logits, 0.0), (self.finish, 0.0), (self.trust, _FIRST_TRUST), (self.from_lens, 0.0)):
            nn.init.zeros_(last.weight)
            nn.init.constant_(cast(Tensor, last.bias), bias)
        self._has_lens = False
        self.register_buffer("lens", torch.zeros(1, labels, TABLE_COLUMNS), persistent=False)

    def set_lens(self, lens: AnyLens) -> None:
        """The lens of calls that name none."""
        self.lens = lens_table(lens, self.labels)[None].to(self.lens)
        self._has_lens = True

    def forward(
        self,
        images: Tensor,  # (N, 6, H, W)
        lens: Tensor | None = None,  # (N or 1, K, TABLE_COLUMNS)
    ) -> dict[str, Tensor]:  # each (N, 1, H, W)
        """Depth (metres) and the log-variance of ln depth.

        Args:
            images: Shallow and deep RGB in [0, 1]; registered.
            lens: The `lens_table` of each pair's lens; the one set by `set_lens` if None.

        Raises:
            InputError: As of `DepthModel.forward`; or a table of another shape, or no lens at all.
        """
        if lens is None and not self._has_lens:
            raise InputError("lens: expected a table of it, or a call of set_lens before")
        table = self.lens if lens is None else lens
        if table.ndim != 3 or table.shape[1:] != (self.labels, TABLE_COLUMNS) or table.shape[0] not in (1, len(images)):
            raise InputError(
                f"lens: expected a table ({len(images)} or 1, {self.labels}, {TABLE_COLUMNS}), got {tuple(table.shape)}"
            )
        height, width = images.shape[-2:]
        pair = self.prepare(images)
        with torch.autocast(pair.device.type, enabled=False):  # energies of flat walls are lost in half precision
            evidence = self.statistics(pair, (height, width), table[:, 0, PARALLAX_ASPECT])
            features, costs = band_features(evidence.energies), cost_volume(evidence.products, table)
            displacement = evidence.displacement
            if self.training:
                displacement = displaced_evidence(displacement, JITTER * torch.randn_like(displacement[:, 0, 0, 0]))
            parallax = parallax_evidence(displacement, table[:, 0, PARALLAX], table[..., DISPLACEMENT])
        position = positions(features, (height / CELL, width / CELL))
        log_depth, log_variance = self.body(pair, features, costs, parallax, table[..., : PRIOR_TILT + 1], position)
        depth, log_variance = (enlarge_map(found, CELL)[..., :height, :width] for found in (log_depth, log_variance))
        return {"depth": torch.exp(depth), "log_variance": log_variance}

    def body(
        self,
        pair: Tensor,  # (N, 6, H, W), H and W multiples of 32
        features: Tensor,  # (N, FEATURES, H/4, W/4)
        costs: Tensor,  # (N, LEVELS, K, H/8, W/8)
        parallax: ParallaxEvidence,  # at H/8, W/8
        labels: Tensor,  # (N or 1, K, PRIOR_TILT + 1): the first columns of the lens table
        position: Tensor,  # (N or 1, POSITIONS, H/4, W/4)
    ) -> tuple[Tensor, Tensor]:
        """What is learned: ln depth and its log-variance, (N, 1, H/4, W/4)."""
        shallow, deep = pair.to(features.dtype).chunk(2, dim=1)
        pictures = torch.cat([deep - _MID_GREY, _CUE_GAIN * (shallow - deep)], dim=1)
        x = self.from_pictures(pictures) + self.from_bands(features) + self.from_position[0](position)
        fine = self.inward[0](F.relu(x))
        x = self.down[0](fine) + self.from_costs(costs.flatten(1, 2)) + self.from_side(parallax.side)
        position = F.avg_pool2d(position, 2)
        x = x + self.from_position[1](position) + self.from_lens(labels[..., SIDE].to(x.dtype))[:, :, None, None]
        middle = self.inward[1](F.relu(x))
        coarse = self.inward[2](F.relu(self.down[1](middle)))
        x = self.inward[3](F.relu(self.down[2](coarse)))
        x = x + self.overall(x.mean(dim=(2, 3)))[:, :, None, None]
        x = self.outward[2](F.relu(coarse + _enlarge(self.up[2](x), 2)))
        x = self.outward[1](F.relu(middle + _enlarge(self.up[1](x), 2)))
        depths, sides, prior, tilt = (
            labels[..., column].float()[:, :, None, None] for column in (LN_DEPTH, SIDE, PRIOR, PRIOR_TILT)
        )
        height = position[:, :1].float()  # -1 in the top row, 1 in the bottom one
        logits, far = self.logits(x).float().split([self.labels, 1], dim=1)
        # Labels even in 1/z count by z, so that before anything is known ln z is even, or as the prior has it.
        belief = logits + far * sides + depths + prior + tilt * height
        trust, trust_in_side = F.softplus(self.trust(x).float()).split(_TRUSTED, dim=1)
        evidence = (trust[:, :, None] * torch.cat([costs, parallax.costs], dim=1).float()).sum(dim=1)
        nearer = (trust_in_side * parallax.side[:, len(WINDOWS) :].float()).sum(dim=1, keepdim=True)  # than the rest
        evidence = evidence + nearer * sides
        belief = belief - self.gathering(evidence, x)
        log_depth = likely_log_depth(belief, depths, sides)
        x = self.outward[0](F.relu(fine + _enlarge(self.up[0](x), 2)))
        correction, log_variance = self.finish(x).float().chunk(2, dim=1)
        return _enlarge(log_depth, 2) + correction, log_variance.clamp(MIN_LOG_VARIANCE, MAX_LOG_VARIANCE)


def likely_log_depth(
    belief: Tensor,  # (N, K, H, W), ln of a likelihood
    depths: Tensor,  # (N or 1, K, 1, 1), ln
    sides: Tensor,  # (N or 1, K, 1, 1), of the focus: -1 before it to 1 behind
) -> Tensor:  # (N, 1, H, W)
    """Ln depth by what is believed of each depth: the mean, each depth as far as its side of the focus is believed in.

    Blur cannot tell two depths apart that lie either side of the focus; their plain mean would be a depth that neither has.
    In doubt it is the nearer, which errs less and is what a robot should heed.
    """
    share = torch.softmax(belief - _IN_DOUBT_NEAR * depths, dim=1)
    share = share * (1.0 + sides * (share * sides).sum(dim=1, keepdim=True))
    return (share * depths).sum(dim=1, keepdim=True) / share.sum(dim=1, keepdim=True)


def positions(like: Tensor, size: tuple[float, float]) -> Tensor:
    """Where each cell of a grid lies in the picture, (1, POSITIONS, h, w); y and x go from -1 to 1 across the picture.

    Args:
        like: Of the grid's height, width, type and device.
        size: Of the picture, cells.
    """
    y, x = (
        (torch.arange(count, device=like.device, dtype=torch.float32) + 0.5) * (2.0 / whole) - 1.0
        for count, whole in zip(like.shape[-2:], size, strict=True)
    )
    y, x = torch.broadcast_tensors(y[:, None], x)
    return torch.stack([y, x, x * x + y * y, y * y])[None].to(like.dtype)


class _ResidualBlock(nn.Module):
    def __init__(self, features: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.first = _convolution(features, features, 3, 1, dilation)
        self.dropout = nn.Dropout2d(dropout)
        self.second = _convolution(features, features, 3, 1, dilation)
        nn.init.zeros_(cast(Tensor, self.second[1].weight))  # begins as the identity

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.dropout(F.relu(self.first(x)))))


def _convolution(inputs: int, outputs: int, size: int = 1, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution and batch normalisation; one that takes cells whole needs no margin."""
    margin = 0 if stride == size else dilation * (size // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, margin, dilation, bias=False), nn.BatchNorm2d(outputs)
    )


def _dilation(level: int, block: int) -> int:
    """Wide at the coarsest level, alternately 1 and 2 on those between."""
    return _DILATIONS[block % 4] if level == 3 else 1 + block % 2 * (level > 0)


def _enlarge(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
