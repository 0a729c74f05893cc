"""What a recipe's `loss` may hold: terms with their weights, each a record that is checked when the recipe is read.

A term takes a model's outputs and the batch and gives its parts by name, weighted; training minimises their sum. The
formulas are those of `losses`; here they meet the pictures, the lens and the PSF layer.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from dfd_ros.errors import InputError
from dfd_ros.learning import losses
from dfd_ros.learning.batch import Batch
from dfd_ros.learning.losses import BLUR_BETA, CHARBONNIER_EPSILON, SSIM_SHARE, Penalty
from dfd_ros.optics.psf import psf_conv

Outputs = dict[str, Tensor]
Parts = dict[str, Tensor]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]

LEAST_DEPTH = 1e-2
"""Metres: what depths are raised to before their logarithm is taken or their blur computed."""
_LEAST_VALUE = 1e-6  # of a picture whose root is taken, so that the root has a gradient


class Term(BaseModel):
    """Common to all terms: `weight` multiplies it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: PositiveFloat = 1.0

    def parts(self, outputs: Outputs, batch: Batch) -> Parts:
        """The term's parts by name, scalars, weighted."""
        raise NotImplementedError


class DepthL1(Term):
    """L1 of depth: of metres, of ln metres, or relative to the truth."""

    kind: Literal["depth_l1"]
    output: str = "depth"
    error: Literal["absolute", "logarithmic", "relative"] = "absolute"

    def parts(self, outputs: Outputs, batch: Batch) -> Parts:
        depth = _output(outputs, self.output, batch)
        if self.error == "logarithmic":
            depth = depth.clamp_min(LEAST_DEPTH)
        return {self.kind: self.weight * _DEPTH_ERRORS[self.error](depth, batch.depth, batch.weight)}


_DEPTH_ERRORS = {"absolute": losses.l1, "logarithmic": losses.log_l1, "relative": losses.relative_l1}


class DepthNll(Term):
    """Negative log likelihood of the truth under a Laplace distribution, in metres or in ln metres.

    Attributes:
        output, log_variance: Names of the model's outputs.
        logarithmic: Whether the variance is that of ln depth.
        only_variance: Whether it teaches the variance alone.
    """

    kind: Literal["depth_nll"]
    output: str = "depth"
    log_variance: str = "log_variance"
    logarithmic: bool = True
    only_variance: bool = False

    def parts(self, outputs: Outputs, batch: Batch) -> Parts:
        depth, truth = _output(outputs, self.output, batch), batch.depth
        if self.logarithmic:
            depth, truth = depth.clamp_min(LEAST_DEPTH).log(), truth.log()
        variance = _output(outputs, self.log_variance, batch)
        nll = losses.laplacian_nll(depth, truth, variance, batch.weight, only_variance=self.only_variance)
        return {self.kind: self.weight * nll}


class Restoration(Term):
    """Charbonnier loss of the all-in-focus picture."""

    kind: Literal["restoration"]
    output: str = "all_in_focus"
    epsilon: PositiveFloat = CHARBONNIER_EPSILON

    def parts(self, outputs: Outputs, batch: Batch) -> Parts:
        if batch.all_in_focus is None:
            raise InputError(f"sample {batch.names[0]}: expected an all-in-focus picture to restore, got none")
        restored = _output(outputs, self.output, batch)
        return {self.kind: self.weight * losses.charbonnier(restored, batch.all_in_focus, epsilon=self.epsilon)}


class Reconstruction(Term):
    """The sharp picture blurred by the depth said must be the pictures taken: depth is learned without its truth.

    The sharp picture is the batch's, or where it has none the model's. It is blurred in linear light by the PSF layer.

    Attributes:
        output: Name of the depth.
        ssim_share: α of the reconstruction loss.
        penalty: `l1` or `charbonnier`.
        sharpness, blur: Weights of these two losses on the same pictures.
        beta: Of the blur loss.
        pictures: Which of those taken are held against.
        focus: Focus distances over the farthest depth; where given, it is these pictures that are reconstructed, at the
            wide aperture. What they should be the PSF layer renders from the true depth, as Gur & Wolf do, for that is what a
            camera would have taken.
        window: Of the PSF layer, pixels.
        psf: `gaussian` or `disk`, the PSF layer's kind.
        spread: Standard deviation of the Gaussian over the CoC; 0.25 is the disk's own.
    """

    kind: Literal["reconstruction"]
    output: str = "depth"
    ssim_share: Fraction = SSIM_SHARE
    penalty: Penalty = "l1"
    sharpness: NonNegativeFloat = 0.0
    blur: NonNegativeFloat = 0.0
    beta: PositiveFloat = BLUR_BETA
    pictures: Annotated[tuple[Literal["shallow", "deep"], ...], Field(min_length=1)] = ("shallow", "deep")
    focus: tuple[PositiveFloat, ...] = ()
    window: Annotated[int, Field(ge=3, le=31)] = 7
    psf: Literal["gaussian", "disk"] = "gaussian"
    spread: PositiveFloat = 0.5

    def parts(self, outputs: Outputs, batch: Batch) -> Parts:
        depth = _output(outputs, self.output, batch).clamp_min(LEAST_DEPTH)
        sharp = batch.all_in_focus if batch.all_in_focus is not None else _output(outputs, "all_in_focus", batch)
        light = sharp.clamp_min(0.0) ** batch.gamma
        pairs = self._stack(light, depth, batch) if self.focus else self._taken(light, depth, batch)
        total: dict[str, Tensor] = {}
        for estimate, truth in pairs:
            scores = {
                "reconstruction": losses.reconstruction(
                    estimate, truth, ssim_share=self.ssim_share, penalty=self.penalty
                )
            }
            if self.sharpness:
                scores["sharpness"] = self.sharpness * losses.sharpness(estimate, truth)
            if self.blur:
                scores["blur"] = self.blur * losses.blur(estimate, truth, beta=self.beta)
            for name, score in scores.items():
                total[name] = total.get(name, 0.0) + self.weight * score / len(pairs)
        suffix = "" if self.output == "depth" else f"_{self.output}"
        return {f"{name}{suffix}": score for name, score in total.items()}

    def _taken(self, light: Tensor, depth: Tensor, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """The pictures at both apertures: as computed, and as taken."""
        return [
            (self._blur(light, batch.coc(depth, name), batch.gamma), batch.images([name])) for name in self.pictures
        ]

    def _stack(self, light: Tensor, depth: Tensor, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """The pictures at each focus distance: of the depth said, and of the true one."""
        pairs = []
        for share in self.focus:
            distance = share * max(lens.max_depth for lens in batch.known_lenses())
            estimate, truth = (
                self._blur(light, batch.coc(z, "shallow", distance), batch.gamma) for z in (depth, batch.depth)
            )
            pairs.append((estimate, truth))
        return pairs

    def _blur(self, light: Tensor, coc: Tensor, gamma: Tensor) -> Tensor:
        blurred = psf_conv(light, coc.to(light.dtype), self.window, self.psf, spread=self.spread)
        return blurred.clamp_min(_LEAST_VALUE) ** (1.0 / gamma)


class Smoothness(Term):
    """Edge-aware smoothness of the depth, against the edges of a picture.

    Attributes:
        output: Name of the depth.
        picture: Whose edges count; `all_in_focus` is the batch's, or the model's where it has none.
        contrast: How much an edge excuses.
        inverse: Whether 1/z is to be smooth in place of z; then over its mean, so that scale does not matter.
    """

    kind: Literal["smoothness"]
    output: str = "depth"
    picture: Literal["shallow", "deep", "all_in_focus"] = "all_in_focus"
    contrast: PositiveFloat = 1.0
    inverse: bool = False

    def parts(self, outputs: Outputs, batch: Batch) -> Parts:
        depth = _output(outputs, self.output, batch)
        if self.inverse:
            depth = 1.0 / depth.clamp_min(LEAST_DEPTH)
            depth = depth / depth.mean(dim=(1, 2, 3), keepdim=True)
        picture = batch.all_in_focus if self.picture == "all_in_focus" else batch.images([self.picture])
        if picture is None:
            picture = _output(outputs, "all_in_focus", batch)
        return {self.kind: self.weight * losses.smoothness(depth, picture, self.contrast)}


class Consistency(Term):
    """Two depths of one scene must be one."""

    kind: Literal["consistency"]
    output: str = "depth"
    other: str = "focus_depth"

    def parts(self, outputs: Outputs, batch: Batch) -> Parts:
        pair = [_output(outputs, name, batch) for name in (self.output, self.other)]
        return {self.kind: self.weight * losses.consistency(*pair)}


AnyTerm = Annotated[
    DepthL1 | DepthNll | Restoration | Reconstruction | Smoothness | Consistency, Field(discriminator="kind")
]


def objective(terms: tuple[Term, ...], outputs: Outputs, batch: Batch) -> tuple[Tensor, Parts]:
    """The loss, a scalar, and its parts by name; in float32 whatever precision the model runs at."""
    parts: Parts = {}
    with torch.autocast(batch.depth.device.type, enabled=False):
        full = {name: tensor.float() for name, tensor in outputs.items()}
        for term in terms:
            for name, part in term.parts(full, batch).items():
                parts[name] = parts[name] + part if name in parts else part
    return torch.stack(list(parts.values())).sum(), parts


def _output(outputs: Outputs, name: str, batch: Batch) -> Tensor:
    """An output, brought to the size of the truth where the model works at a smaller one."""
    if name not in outputs:
        raise InputError(f"loss: expected the model to give {name!r}, but it gives {', '.join(outputs)}")
    tensor, size = outputs[name], batch.depth.shape[-2:]
    if tensor.shape[-2:] != size:
        tensor = torch.nn.functional.interpolate(tensor, size=size, mode="bilinear", align_corners=False)
    return tensor
