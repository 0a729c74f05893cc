"""What is exported, as a torch module: a network with its lens, and the confidence that comes with its depth.

    images (1, 3 k, H, W), and the lens where it is not built in  ->  the network's outputs, and confidence (1, 1, H, W)

`confidence` is the probability that depth is right to within 10 %, where the network says its own variance; times how
well the depth explains the pair (`consistency`), where that is wanted. With neither there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from dfd_ros.errors import InputError
from dfd_ros.inference.confidence import laplacian_confidence
from dfd_ros.inference.consistency import OPTICS, Consistency, optics_of
from dfd_ros.models.base import MIN_SIZE, DepthModel
from dfd_ros.models.lens_table import AnyLens, lens_table
from dfd_ros.models.physics_net import PhysicsNet
from dfd_ros.optics.lens import Lens

GAMMA = 2.2
"""Encoding exponent of pictures for networks that do not tell theirs (sRGB is nearly this)."""
LEAST_DEPTH = 1e-3
"""Metres: what a depth is raised to before it is compared with the pair."""
_CONFIDENCE = "confidence"
_CHANNELS = {"all_in_focus": 3}  # of outputs that have more than one


@dataclass(frozen=True)
class GraphSettings:
    """How a network is put into a graph.

    Attributes:
        size: Height and width of the pictures, pixels.
        lens: Built in; None makes it an input, of networks and confidences that heed it.
        consistency: Whether confidence heeds how well the depth explains the pair.
    """

    size: tuple[int, int] = (480, 640)
    lens: Lens | None = None
    consistency: bool = False


class DepthGraph(nn.Module):
    """The module; in evaluation mode.

    Attributes:
        inputs, outputs: Their names and shapes, in order.
        gamma: Encoding exponent of the pictures.

    Args:
        model: The network; shared, not copied.
        settings: See there.

    Raises:
        InputError: The pictures are too small, or a network that does not see the pair cannot be held against it.
    """

    built_in_lens: Tensor | None
    built_in_optics: Tensor | None

    def __init__(self, model: DepthModel, settings: GraphSettings) -> None:
        super().__init__()
        height, width = settings.size
        if min(settings.size) < MIN_SIZE:
            raise InputError(f"size: expected at least {MIN_SIZE} pixels high and wide, got {height} x {width}")
        if settings.consistency and not {"shallow", "deep"} <= set(model.signature.inputs):
            seen = ", ".join(model.signature.inputs)
            raise InputError(f"consistency: expected a network that sees shallow and deep, got one that sees {seen}")
        self.model = model
        self.gamma = float(getattr(getattr(model, "statistics", None), "gamma", GAMMA))
        self.consistency = Consistency(settings.size, self.gamma) if settings.consistency else None
        self.inputs: dict[str, tuple[int, ...]] = {"images": (1, model.signature.channels, height, width)}
        wanted: dict[str, tuple[tuple[int, ...], Tensor | None]] = {}
        lens = settings.lens
        if isinstance(model, PhysicsNet):
            table = None if lens is None else lens_table(cast(AnyLens, lens), model.labels)[None]
            wanted["lens"] = tuple(model.lens.shape), table
        if settings.consistency:
            wanted["optics"] = (1, OPTICS), None if lens is None else optics_of(lens)
        for name, (shape, value) in wanted.items():
            if value is None:
                self.inputs[name] = shape
            self.register_buffer(f"built_in_{name}", value, persistent=False)
        names = model.signature.outputs
        if "log_variance" in names or settings.consistency:
            names = (*names, _CONFIDENCE)
        self.outputs = {name: (1, _CHANNELS.get(name, 1), height, width) for name in names}
        self.eval()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in the order of `outputs`, for the inputs in theirs."""
        given = dict(zip(self.inputs, inputs, strict=True))
        images = given["images"]
        if isinstance(self.model, PhysicsNet):
            outputs = self.model(images, given.get("lens", self.built_in_lens))
        else:
            outputs = self.model(images)
        confidence = None
        if "log_variance" in outputs:
            confidence = laplacian_confidence((0.5 * outputs["log_variance"]).exp())
        if self.consistency is not None:
            pair = (self.model.picture(images, name) for name in ("shallow", "deep"))
            depth = outputs["depth"].clamp_min(LEAST_DEPTH)
            factor = self.consistency(*pair, depth, given.get("optics", self.built_in_optics))
            confidence = factor if confidence is None else confidence * factor
        return (*outputs.values(), *(() if confidence is None else (confidence,)))

    def example(self) -> tuple[Tensor, ...]:
        """Inputs of the right shapes, with a lens that is a possible one."""
        generator = torch.Generator().manual_seed(0)
        lenses = lens_inputs(_EXAMPLE_LENS, self.inputs)
        images = torch.rand(self.inputs["images"], generator=generator)
        return tuple(images if name == "images" else lenses[name] for name in self.inputs)


_EXAMPLE_LENS = Lens("example", 0.8, 2.0, 8.0, coc_scale=20.0, min_depth=0.8, max_depth=8.0)


def lens_inputs(lens: Lens, inputs: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """What the inputs of a graph, name -> shape, ask for of a lens: `lens` and `optics` as far as they are among them.

    The lens's CoC is in pixels of the graph's pictures.
    """
    values: dict[str, Tensor] = {}
    if "lens" in inputs:
        values["lens"] = lens_table(cast(AnyLens, lens), inputs["lens"][1])[None]
    if "optics" in inputs:
        values["optics"] = optics_of(lens)
    return values
