"""`dfd::PsfConv` and `dfd::BoundaryCue` for TensorRT from 10.9 on: kernels inside the engine, no Python when it runs.

Importing this registers them, once for the process. TensorRT calls the functions below while it builds: for the output's
shape, for the types that there are kernels for, and for PTX with its launch, whose arguments TensorRT passes as inputs,
integers, outputs, which is the order of our texts. It reads the annotations as objects, so they must not be put off
(`from __future__ import annotations`). Numbers among the attributes are arrays of one, because plain ones fail in
TensorRT 10 beside numpy from 2.4 on.
"""

from typing import Any

import numpy as np
import tensorrt.plugin as trtp
from numpy.typing import NDArray

from dfd_ros.inference.functions import BOUNDARY_CUE, DOMAIN, PSF_CONV
from dfd_ros.inference.trt.device import Launchable, find_gpu
from dfd_ros.inference.trt.kernels import OPERATORS, TYPES, cue_kernel, psf_kernel
from dfd_ros.optics.kernels.cuda import ptx

PSF_ID, CUE_ID = f"{DOMAIN}::{PSF_CONV}", f"{DOMAIN}::{BOUNDARY_CUE}"


@trtp.register(PSF_ID)
def psf_shape(
    image: trtp.TensorDesc,
    coc: trtp.TensorDesc,
    window: NDArray[np.int64],
    kind: str,
    coc_at: str,
    spread: NDArray[np.float32],
) -> trtp.TensorDesc:
    """Image (N, C, H, W) and CoC (N, 1, H, W) -> blurred (N, C, H, W)."""
    return image.like()


@trtp.autotune(PSF_ID)
def psf_types(
    image: trtp.TensorDesc, coc: trtp.TensorDesc, outputs: tuple[trtp.TensorDesc]
) -> list[trtp.AutoTuneCombination]:
    """All of one type."""
    return _combinations(PSF_CONV)


@trtp.aot_impl(PSF_ID)
def psf_ahead(
    image: trtp.TensorDesc,
    coc: trtp.TensorDesc,
    window: NDArray[np.int64],
    kind: str,
    coc_at: str,
    spread: NDArray[np.float32],
    outputs: tuple[trtp.TensorDesc],
    tactic: int,
) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymExprs]:
    """The PSF layer's kernel for these settings, channels and type."""
    settings = {"window": window, "kind": kind, "coc_at": coc_at, "spread": spread}
    return _answer(psf_kernel(settings, _constant(image, 1), image.dtype.name), image)


@trtp.register(CUE_ID)
def cue_shape(
    shallow: trtp.TensorDesc, deep: trtp.TensorDesc, weight: trtp.TensorDesc, bias: trtp.TensorDesc
) -> trtp.TensorDesc:
    """Pictures (N, 3, H, W), weight (F, 3, 3, 3), bias (F,) -> cue (N, F, H, W), of the weight's type."""
    count, _, height, width = shallow.shape_expr
    return trtp.from_shape_expr((count, weight.shape_expr[0], height, width), dtype=weight.dtype)


@trtp.autotune(CUE_ID)
def cue_types(
    shallow: trtp.TensorDesc,
    deep: trtp.TensorDesc,
    weight: trtp.TensorDesc,
    bias: trtp.TensorDesc,
    outputs: tuple[trtp.TensorDesc],
) -> list[trtp.AutoTuneCombination]:
    """Pictures of one type, all else of one type."""
    return _combinations(BOUNDARY_CUE)


@trtp.aot_impl(CUE_ID)
def cue_ahead(
    shallow: trtp.TensorDesc,
    deep: trtp.TensorDesc,
    weight: trtp.TensorDesc,
    bias: trtp.TensorDesc,
    outputs: tuple[trtp.TensorDesc],
    tactic: int,
) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymExprs]:
    """The cue's kernel for so many features and these types."""
    return _answer(cue_kernel(_constant(weight, 0), shallow.dtype.name, weight.dtype.name), shallow)


def _combinations(operator: str) -> list[trtp.AutoTuneCombination]:
    """Every choice of types that there is a kernel for, in plain layout."""
    spec = OPERATORS[operator]
    found: list[tuple[str, ...]] = [()]
    for _ in range(spec.inputs + 1):
        found = [(*types, name) for types in found for name in TYPES if spec.takes((*types, name))]
    return [trtp.AutoTuneCombination(", ".join(types), "LINEAR") for types in found]


def _answer(kernel: Launchable, images: trtp.TensorDesc) -> Any:
    count, _, height, width = images.shape_expr
    grid, block = kernel.launch(count, height, width)
    launch = trtp.KernelLaunchParams()
    launch.grid_x, launch.grid_y, launch.grid_z = grid
    launch.block_x, launch.block_y, launch.block_z = block
    extra = trtp.SymIntExprs.from_tuple([trtp.SymInt32(height), trtp.SymInt32(width)])
    return kernel.name, ptx(kernel, find_gpu().capability), launch, extra


def _constant(tensor: trtp.TensorDesc, axis: int) -> int:
    """A length that the kernel is compiled for; shapes are fixed."""
    return int(tensor.shape[axis])
