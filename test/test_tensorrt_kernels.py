"""The boundary cue's CUDA text computes what torch does, here on the CPU; both operators' kernels fit what nodes ask for."""

import itertools
import shutil
import subprocess

import hypothesis
import numpy as np
import pytest
import torch
from cuda_on_cpu import COMPILER, HostKernels
from hypothesis import given
from hypothesis import strategies as st

from dfd_ros.errors import InputError
from dfd_ros.inference.functions import BOUNDARY_CUE, PSF_CONV
from dfd_ros.inference.trt.kernels import OPERATORS, TYPES, cue_kernel, psf_kernel, read_attribute
from dfd_ros.optics.kernels import cuda
from dfd_ros.optics.kernels.cue import CueKernel

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on PATH")
PTXAS = shutil.which("ptxas")
ORIN, HOPPER, THOR, BLACKWELL = (8, 7), (9, 0), (11, 0), (12, 0)
SINGLE, HALF, BRAIN = TYPES.values()

# 33 features are a full group of 32 and a group of one.
CASES = [
    *(CueKernel(features, SINGLE, SINGLE) for features in (1, 5, 32, 33)),
    *(CueKernel(5, picture, dtype) for picture in (SINGLE, HALF, BRAIN) for dtype in (HALF, BRAIN)),
]
TOLERANCES = {SINGLE: 1e-5, HALF: 1e-3, BRAIN: 8e-3}


@pytest.fixture(scope="module")
def host_kernels(tmp_path_factory):
    return HostKernels(CASES, tmp_path_factory.mktemp("cue"))


def tensors(kernel, batch, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shallow, deep = (torch.rand(batch, 3, height, width, generator=generator).to(kernel.picture) for _ in range(2))
    weight = torch.randn(kernel.features, 3, 3, 3, generator=generator).to(kernel.dtype)
    return shallow, deep, weight, torch.randn(kernel.features, generator=generator).to(kernel.dtype)


def expected(shallow, deep, weight, bias):
    difference = shallow.double() - deep.double()
    return torch.conv2d(difference, weight.double(), bias.double(), padding=1).relu()


def assert_is_the_cue(host_kernels, kernel, batch, height, width, seed=0):
    given_ = tensors(kernel, batch, height, width, seed)
    out = torch.full((batch, kernel.features, height, width), torch.nan, dtype=kernel.dtype)
    host_kernels.launch(kernel, given_, [out])
    truth = expected(*given_)
    assert float((out.double() - truth).abs().max()) <= TOLERANCES[kernel.dtype] * float(truth.max().clamp_min(1.0))


@needs_compiler
@pytest.mark.parametrize("kernel", CASES, ids=lambda k: f"{k.features}-{k.picture}-{k.dtype}".replace("torch.", ""))
def test_the_cuda_text_is_the_boundary_cue(host_kernels, kernel):
    assert_is_the_cue(host_kernels, kernel, 2, 37, 45)


@needs_compiler
@hypothesis.settings(max_examples=20)
@given(batch=st.integers(1, 3), height=st.integers(1, 50), width=st.integers(1, 50), kernel=st.sampled_from(CASES[:4]))
def test_any_size_will_do(host_kernels, batch, height, width, kernel):
    assert_is_the_cue(host_kernels, kernel, batch, height, width)


@needs_compiler
def test_what_is_not_known_stays_so(host_kernels):
    kernel = CASES[1]
    given_ = tensors(kernel, 1, 9, 9)
    given_[0][0, 0, 4, 4] = torch.nan
    out = torch.zeros(1, kernel.features, 9, 9)
    host_kernels.launch(kernel, given_, [out])
    assert torch.equal(out.isnan(), expected(*given_).isnan())


@pytest.mark.parametrize("capability", [ORIN, HOPPER, THOR, BLACKWELL], ids=lambda c: f"sm_{c[0]}{c[1]}")
def test_it_compiles_for_old_and_new_gpus(capability, tmp_path):
    name = f"sm_{capability[0]}{capability[1]}"
    for kernel in (CueKernel(64, SINGLE, dtype) for dtype in (SINGLE, HALF, BRAIN)):
        text = cuda.ptx(kernel, capability)
        assert f".target {name}".encode() in text
        assert b".local" not in text  # neighbourhoods are kept in registers
        assert cuda.cubin(kernel, capability)[:4] == b"\x7fELF"
        if PTXAS:
            (tmp_path / "cue.ptx").write_bytes(text)
            subprocess.run([PTXAS, f"--gpu-name={name}", "cue.ptx", "-o", "cue.cubin"], cwd=tmp_path, check=True)


@given(features=st.integers(1, 200), size=st.tuples(*[st.integers(1, 3000)] * 2), batch=st.integers(1, 4))
def test_the_grid_covers_pictures_and_features(features, size, batch):
    kernel = CueKernel(features, SINGLE, SINGLE)
    (columns, rows, depth), block = kernel.launch(batch, *size)
    defines = {name: int(value) for name, value in kernel.defines.items()}
    assert block == (defines["TILE_WIDTH"], defines["WARPS"], 1)
    for blocks, tile, length in (
        (columns, defines["TILE_WIDTH"], size[1]),
        (rows, defines["WARPS"] * defines["ROWS"], size[0]),
        (depth // batch, defines["AT_ONCE"], features),
    ):
        assert (blocks - 1) * tile < length <= blocks * tile
    assert depth % batch == 0


# What nodes ask for.


def test_an_attribute_may_come_in_any_form_that_tensorrt_has_for_it():
    forms = (7, np.int64(7), np.array([7]), np.array([7.0], np.float32))
    assert [read_attribute(form, int) for form in forms] == [7] * len(forms)
    assert isinstance(read_attribute(np.array([0.25], np.float32), float), float)
    texts = ("disk", b"disk", np.frombuffer(b"disk\0", np.int8), np.array(b"disk"))
    assert [read_attribute(text, str) for text in texts] == ["disk"] * len(texts)


def test_the_node_of_the_psf_layer_gets_its_kernel():
    attributes = {"window": np.array([9]), "kind": b"disk", "coc_at": b"source", "spread": np.array([0.25])}
    kernel = psf_kernel(attributes, 3, "HALF")
    assert (kernel.settings.window, kernel.settings.kind, kernel.channels) == (9, "disk", 3)
    assert kernel.dtype == torch.float16
    assert not kernel.weight_sum
    with pytest.raises(InputError, match="window is 4"):
        psf_kernel({**attributes, "window": 4}, 3, "HALF")
    with pytest.raises(InputError, match="plugin PsfConv: expected tensors of FLOAT, HALF, BF16, got INT8"):
        psf_kernel(attributes, 3, "INT8")
    assert cue_kernel(64, "FLOAT", "BF16") == CueKernel(64, torch.float32, torch.bfloat16)


def test_types_go_together():
    psf, cue = OPERATORS[PSF_CONV], OPERATORS[BOUNDARY_CUE]
    for types in itertools.product(TYPES, repeat=3):
        assert psf.takes(types) == (len(set(types)) == 1)
    assert cue.takes(("FLOAT", "FLOAT", "HALF", "HALF", "HALF"))
    assert cue.takes(("FLOAT",))
    assert not cue.takes(("FLOAT", "HALF"))
    assert not cue.takes(("FLOAT", "FLOAT", "HALF", "HALF", "FLOAT"))
    assert not cue.takes(("INT32", "INT32"))
