"""The CUDA text of the PSF layer computes what the reference does, here on the CPU, and compiles for GPUs old and new."""

import functools
import itertools
import math
import re
import shutil
import subprocess
from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
import torch
from cuda_on_cpu import COMPILER, HostKernels
from hypothesis import given
from hypothesis import strategies as st

from dfd_ros.errors import InputError
from dfd_ros.optics.kernels import cuda, reference
from dfd_ros.optics.kernels.settings import PsfSettings

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on PATH")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
PTXAS = shutil.which("ptxas")

DIRECTIONS = ("forward", "backward")
TURING, ORIN, HOPPER, THOR, BLACKWELL = (7, 5), (8, 7), (9, 0), (11, 0), (12, 0)


def all_settings(*windows):
    """Both kinds of PSF and both places of the CoC."""
    shapes = itertools.product(windows, ("gaussian", "disk"), ("source", "destination"))
    return [PsfSettings(window, kind, coc_at) for window, kind, coc_at in shapes]


# 23 is the last window with a tall tile, 31 the largest; 5 channels are two unequal groups.
SINGLE = [
    *((settings, channels) for settings in all_settings(7) for channels in (1, 3, 5)),
    *((settings, 3) for settings in all_settings(3, 23, 31)),
    *((PsfSettings(7, spread=spread), 3) for spread in (1e-30, 0.25, 1e30)),
]
HALF = [(settings, 3, dtype) for settings in all_settings(7) for dtype in (torch.float16, torch.bfloat16)]
CASES = [*((settings, channels, torch.float32) for settings, channels in SINGLE), *HALF]


def case_name(value):
    if isinstance(value, PsfSettings):
        return f"{value.window}-{value.kind}-{value.coc_at}-{value.spread}"
    return str(value).removeprefix("torch.")


@pytest.fixture(scope="module")
def host_kernels(tmp_path_factory):
    kernels = [cuda.Kernel(direction, *case) for direction in DIRECTIONS for case in CASES]
    inference = cuda.Kernel("forward", PsfSettings(7), 3, torch.float32, weight_sum=False)
    return HostKernels([*kernels, inference], tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def on_cpu(host_kernels):
    """The back end's own `forward` and `backward`, with the kernels run on the CPU."""

    def with_host_kernels(function):
        def run(*arguments):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(cuda, "_launch", host_kernels.launch)
                return function(*arguments)

        return run

    return SimpleNamespace(forward=with_host_kernels(cuda.forward), backward=with_host_kernels(cuda.backward))


def pictures(shape, window, dtype=torch.float32, seed=0):
    """Image, CoC and gradient; some CoCs in focus, beyond the window or NaN."""
    generator = torch.Generator().manual_seed(seed)
    batch, _, height, width = shape
    image = torch.rand(shape, generator=generator)
    grad = torch.randn(shape, generator=generator)
    coc = 1.2 * window * torch.rand(batch, 1, height, width, generator=generator)
    odd = torch.rand(coc.shape, generator=generator)
    coc[odd < 0.03] = math.nan
    coc[odd > 0.9] = 0.6
    coc[odd > 0.97] = math.inf
    return image.to(dtype), coc.to(dtype), grad.to(dtype)


def assert_close(found, expected, tolerance):
    """Equal relative to the largest value, but for the rounding of sums of numbers around 1; NaN at the same places."""
    found, expected = found.detach().cpu().double(), expected.double()
    assert torch.equal(found.isnan(), expected.isnan())
    scale = float(expected.nan_to_num().abs().max())
    assert float((found - expected).nan_to_num().abs().max()) <= tolerance * scale + ROUNDING


def assert_as_reference(backend, shape, settings, dtype, tolerance, device="cpu", seed=0):
    """Forward and backward agree with the reference in double precision, on the same numbers."""
    image, coc, grad = pictures(shape, settings.window, dtype, seed)
    out, weight_sum = backend.forward(image.to(device), coc.to(device), settings)
    gradients = backend.backward(grad.to(device), image.to(device), coc.to(device), out, weight_sum, settings)
    exact_image, exact_coc, exact_grad = image.double(), coc.double(), grad.double()
    exact_out, exact_sum = reference.forward(exact_image, exact_coc, settings)
    expected = reference.backward(exact_grad, exact_image, exact_coc, exact_out, exact_sum, settings)
    assert out.dtype == gradients[0].dtype == gradients[1].dtype == dtype
    assert weight_sum.dtype == torch.float32
    assert_close(out, exact_out, tolerance)
    assert_close(weight_sum, exact_sum, 1e-5)
    for found, wanted in zip(gradients, expected, strict=True):
        assert_close(found, wanted, tolerance)


ROUNDING = 16 * torch.finfo(torch.float32).eps
# Half types: the rounding of the results, and of `out` within the gradient to the CoC.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@needs_compiler
@pytest.mark.parametrize(("settings", "channels", "dtype"), CASES, ids=case_name)
def test_the_cuda_text_computes_what_the_reference_does(on_cpu, settings, channels, dtype):
    assert_as_reference(on_cpu, (2, channels, 37, 45), settings, dtype, TOLERANCES[dtype])


@needs_compiler
@hypothesis.settings(max_examples=50)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    case=st.sampled_from(SINGLE),
    seed=st.integers(0, 99),
)
def test_any_size_will_do(on_cpu, batch, height, width, case, seed):
    settings, channels = case
    assert_as_reference(on_cpu, (batch, channels, height, width), settings, torch.float32, 1e-5, seed=seed)


def blurred_by_definition(image, coc, window):
    """Gur & Wolf's equations with Gaussians, one pixel after the other, in double precision; (C, H, W) and (H, W)."""
    _, height, width = image.shape
    radius, out = window // 2, image.copy()
    for y, x in zip(*np.nonzero(coc > 1), strict=True):
        light, weights = 0.0, 0.0
        for tap_y in range(max(0, y - radius), min(height, y + radius + 1)):
            for tap_x in range(max(0, x - radius), min(width, x + radius + 1)):
                c = min(coc[tap_y, tap_x], window)
                if c > 1:
                    weight = c**-2 * math.exp(-2 * ((tap_y - y) ** 2 + (tap_x - x) ** 2) / c**2)
                    light += weight * image[:, tap_y, tap_x]
                    weights += weight
        out[:, y, x] = light / weights
    return out


@needs_compiler
def test_values_and_gradients_follow_from_the_definition(on_cpu):
    settings, shape, step = PsfSettings(7), (1, 3, 6, 8), 1e-5
    image, coc, grad = pictures(shape, settings.window, seed=3)
    coc = coc.nan_to_num(2.5)
    out, weight_sum = on_cpu.forward(image, coc, settings)
    grad_image, grad_coc = on_cpu.backward(grad, image, coc, out, weight_sum, settings)

    def loss(of_image, of_coc):
        return (blurred_by_definition(of_image, of_coc, settings.window) * grad[0].double().numpy()).sum()

    def slopes(function, at):
        """Central differences."""
        found = np.empty_like(at)
        for index in np.ndindex(at.shape):
            nudge = np.zeros_like(at)
            nudge[index] = step
            found[index] = (function(at + nudge) - function(at - nudge)) / (2 * step)
        return torch.from_numpy(found)

    exact_image, exact_coc = image[0].double().numpy(), coc[0, 0].double().numpy()
    assert_close(out[0], torch.from_numpy(blurred_by_definition(exact_image, exact_coc, settings.window)), 1e-6)
    assert_close(grad_image[0], slopes(lambda at: loss(at, exact_coc), exact_image), 1e-6)
    finite = np.minimum(exact_coc, 100.0)  # beyond the window anyway
    assert_close(grad_coc[0, 0], slopes(lambda at: loss(exact_image, at), finite), 1e-6)


@needs_compiler
@pytest.mark.parametrize("settings", all_settings(7), ids=case_name)
def test_a_pixel_that_lends_nothing_harms_nobody(on_cpu, settings):
    shape = (1, 3, 20, 40)
    image, coc, grad = pictures(shape, settings.window)
    mute = coc.isnan() | (coc <= 1.0) if settings.coc_at == "source" else coc.isnan()
    results = []
    for value in (0.25, math.nan, math.inf):
        poisoned = torch.where(mute, value, image)
        out, weight_sum = on_cpu.forward(poisoned, coc, settings)
        results.append([out, weight_sum, *on_cpu.backward(grad, poisoned, coc, out, weight_sum, settings)])
    clean = results[0]
    for poisoned in results[1:]:
        assert torch.equal(poisoned[0][~mute.expand(shape)], clean[0][~mute.expand(shape)])
        for ours, theirs in zip(poisoned[1:], clean[1:], strict=True):
            assert torch.equal(ours, theirs)
            assert ours.isfinite().all()


@needs_compiler
def test_strides_do_not_matter(on_cpu):
    settings = PsfSettings(7)
    image, coc, grad = pictures((2, 3, 17, 23), settings.window)
    out, weight_sum = on_cpu.forward(image, coc, settings)
    strided = [torch.empty(2, 23, 17, each.shape[1]).permute(0, 3, 2, 1).copy_(each) for each in (image, coc, grad)]
    assert torch.equal(on_cpu.forward(*strided[:2], settings)[0].nan_to_num(), out.nan_to_num())
    found = on_cpu.backward(strided[2], *strided[:2], out, weight_sum, settings)
    for ours, theirs in zip(found, on_cpu.backward(grad, image, coc, out, weight_sum, settings), strict=True):
        assert torch.equal(ours, theirs)


@needs_compiler
def test_inference_leaves_the_sum_of_weights_out(on_cpu, host_kernels):
    settings = PsfSettings(7)
    image, coc, _ = pictures((1, 3, 33, 31), settings.window)
    out = torch.empty_like(image)
    kernel = cuda.Kernel("forward", settings, 3, torch.float32, weight_sum=False)
    host_kernels.launch(kernel, [image, coc], [out])
    assert torch.equal(out.nan_to_num(), on_cpu.forward(image, coc, settings)[0].nan_to_num())


# ------------------------------------------------------------------------------------------------ compiled for real GPUs


def entry(ptx):
    """Name and parameter types of the one kernel in a PTX text."""
    kernels = re.findall(r"\.visible \.entry (\w+)\(([^)]*)\)", ptx)
    assert len(kernels) == 1
    name, parameters = kernels[0]
    return name, re.findall(r"\.param \.(\w+)", parameters)


POINTER, INTEGER = "u64", "u32"
SIGNATURES = {
    "forward": [POINTER] * 2 + [INTEGER] * 2 + [POINTER] * 2,
    "backward": [POINTER] * 5 + [INTEGER] * 2 + [POINTER] * 2,
}


@pytest.mark.parametrize("capability", [TURING, ORIN, HOPPER, THOR, BLACKWELL], ids=lambda c: f"sm_{c[0]}{c[1]}")
def test_it_compiles_for_old_and_new_gpus(capability, tmp_path):
    for direction, settings in itertools.product(DIRECTIONS, all_settings(7)):
        text = cuda.ptx(cuda.Kernel(direction, settings, 3, torch.float32), capability).decode()
        assert f".target sm_{capability[0]}{capability[1]}" in text
        assert entry(text) == (f"psf_{direction}", SIGNATURES[direction])
    if PTXAS:
        (tmp_path / "psf.ptx").write_text(text)
        command = [PTXAS, f"--gpu-name=sm_{capability[0]}{capability[1]}", "psf.ptx", "-o", "psf.cubin"]
        subprocess.run(command, cwd=tmp_path, check=True)


@pytest.mark.parametrize("settings", [each for each in all_settings(23, 31) if each.kind == "disk"], ids=case_name)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_widest_windows_fit_the_shared_memory_of_a_block(direction, settings):
    kernel = cuda.Kernel(direction, settings, 3, torch.float32)
    assert cuda.cubin(kernel, HOPPER)[:4] == b"\x7fELF"  # the assembler refuses more than 48 KiB


@pytest.mark.parametrize("settings", all_settings(7, 31), ids=case_name)
def test_sums_are_kept_in_registers(settings):
    """A loop that is not unrolled would index them, and so move them to local memory: several times slower."""
    for direction in DIRECTIONS:
        assert b".local" not in cuda.ptx(cuda.Kernel(direction, settings, 3, torch.float32), HOPPER)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=case_name)
@pytest.mark.parametrize("capability", [TURING, HOPPER], ids=lambda c: f"sm_{c[0]}{c[1]}")
def test_half_types_need_no_header_and_no_new_gpu(capability, dtype):
    for direction in DIRECTIONS:
        assert cuda.cubin(cuda.Kernel(direction, PsfSettings(7), 4, dtype), capability)


def test_inference_has_no_pointer_for_the_sum_of_weights():
    kernel = cuda.Kernel("forward", PsfSettings(7), 3, torch.float16, weight_sum=False)
    assert entry(cuda.ptx(kernel, ORIN).decode())[1] == SIGNATURES["forward"][:-1]


@given(size=st.tuples(*[st.integers(1, 5000)] * 2), settings=st.sampled_from(all_settings(7, 31)))
def test_the_grid_covers_the_image_and_no_block_lies_outside(size, settings):
    for direction in DIRECTIONS:
        kernel = cuda.Kernel(direction, settings, 3, torch.float32)
        grid, block = kernel.launch(4, *size)
        defines = {name: int(kernel.defines[name]) for name in ("TILE_WIDTH", "WARPS", "ROWS")}
        assert block == (defines["TILE_WIDTH"], defines["WARPS"], 1)
        assert grid[2] == 4
        for blocks, tile, length in (
            (grid[0], defines["TILE_WIDTH"], size[1]),
            (grid[1], defines["WARPS"] * defines["ROWS"], size[0]),
        ):
            assert (blocks - 1) * tile < length <= blocks * tile


# ------------------------------------------------------------------------------------------------- what can be missing


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    image, coc, _ = pictures((1, 3, 8, 8), 7)
    with pytest.raises(RuntimeError, match="needs a GPU"):
        cuda.forward(image, coc, PsfSettings(7))


def test_an_unknown_gpu_is_named_with_what_to_do():
    with pytest.raises(RuntimeError, match=r"not for 3\.0: install another version of nvidia-cuda-nvrtc"):
        cuda.ptx(cuda.Kernel("forward", PsfSettings(7), 3, torch.float32), (3, 0))


def test_a_missing_library_is_named_with_what_to_install(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(cuda, "import_module", missing)
    monkeypatch.setattr(cuda, "_bindings", functools.lru_cache(cuda._bindings.__wrapped__))
    with pytest.raises(RuntimeError, match=r"pip install 'dfd_ros\[cuda\]'"):
        cuda.ptx(cuda.Kernel("forward", PsfSettings(7), 3, torch.float32), HOPPER)


# --------------------------------------------------------------------------------------------------------- with a GPU


@needs_gpu
@pytest.mark.parametrize(("settings", "channels", "dtype"), CASES, ids=case_name)
def test_a_gpu_computes_what_the_reference_does(settings, channels, dtype):
    assert_as_reference(cuda, (2, channels, 37, 45), settings, dtype, TOLERANCES[dtype], device="cuda")


@needs_gpu
def test_an_image_on_the_cpu_is_refused():
    image, coc, _ = pictures((1, 3, 8, 8), 7)
    with pytest.raises(InputError, match="must be on a GPU"):
        cuda.forward(image, coc, PsfSettings(7))


@needs_gpu
def test_it_works_in_the_order_of_the_current_stream():
    settings = PsfSettings(7)
    image, coc, _ = (each.cuda() for each in pictures((4, 3, 480, 640), settings.window))
    expected, _ = cuda.forward(image, coc, settings)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.zeros_like(image)
        torch.cuda._sleep(50_000_000)  # the copy comes long after the launch
        late.copy_(image)
        out, _ = cuda.forward(late, coc, settings)
    stream.synchronize()
    assert torch.equal(out.nan_to_num(), expected.nan_to_num())


@needs_gpu
def test_a_cuda_graph_replays_it():
    settings = PsfSettings(7)
    image, coc, grad = (each.cuda() for each in pictures((2, 3, 64, 96), settings.window))

    def both():
        out, weight_sum = cuda.forward(image, coc, settings)
        return out, *cuda.backward(grad, image, coc, out, weight_sum, settings)

    both()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = both()
    image.copy_(image.flip(-1))
    graph.replay()
    for ours, theirs in zip(replayed, both(), strict=True):
        assert torch.equal(ours.nan_to_num(), theirs.nan_to_num())
