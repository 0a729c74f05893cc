"""The PSF layer: its physics, its gradients, its back ends against plain torch in double precision, and its bad input."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfd_ros.errors import InputError
from dfd_ros.optics.kernels import cpu, reference
from dfd_ros.optics.kernels.settings import PsfSettings
from dfd_ros.optics.psf import PsfLayer, psf_conv

KINDS = ("gaussian", "disk")
PLACES = ("source", "destination")
BACKENDS = ("reference", "cpu")
every_psf = pytest.mark.parametrize(("kind", "coc_at"), list(itertools.product(KINDS, PLACES)))
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def scene(shape: tuple[int, int, int, int], window: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A noise picture with CoCs from in focus to beyond the window, and some unknown.

    None is where the slope of a disk jumps, C = 2d ± 1: there rounding decides which slope counts.
    """
    torch.manual_seed(seed)
    n, _, height, width = shape
    coc = 1.3 * window * torch.rand(n, 1, height, width)
    away = torch.arange(window // 2 + 1.0)
    distance = torch.hypot(away, away[:, None]).flatten()
    jumps = torch.cat([2.0 * distance - 1.0, 2.0 * distance + 1.0])
    coc[(coc[..., None] - jumps).abs().amin(-1) < 1e-4] += 3e-4
    coc[torch.rand(coc.shape) < 0.1] = 0.5
    coc[torch.rand(coc.shape) < 0.05] = math.nan
    return torch.rand(shape), coc


def weight(c: float, d: float, psf: PsfSettings) -> float:
    if psf.kind == "gaussian":
        return math.exp(-(d**2) / (2 * (psf.spread * c) ** 2)) / c**2
    return min(max(c / 2 + 0.5 - d, 0.0), 1.0) / (c**2 + 1 / 3)


def by_definition(image: np.ndarray, coc: np.ndarray, psf: PsfSettings) -> np.ndarray:
    """The layer on (H, W), pixel by pixel and tap by tap."""
    height, width = coc.shape
    out = np.empty_like(image)
    for y, x in np.ndindex(coc.shape):
        if np.isnan(coc[y, x]) or coc[y, x] <= 1:
            out[y, x] = math.nan if np.isnan(coc[y, x]) else image[y, x]
            continue
        light = total = 0.0
        for v in range(max(y - psf.radius, 0), min(y + psf.radius + 1, height)):
            for u in range(max(x - psf.radius, 0), min(x + psf.radius + 1, width)):
                lends = coc[v, u] > 1 if psf.coc_at == "source" else not np.isnan(coc[v, u])
                if lends:
                    c = min(coc[v, u] if psf.coc_at == "source" else coc[y, x], psf.window)
                    w = weight(c, math.hypot(v - y, u - x), psf)
                    light, total = light + w * image[v, u], total + w
        out[y, x] = light / total
    return out


def gradients(
    image: torch.Tensor, coc: torch.Tensor, grad: torch.Tensor, psf: PsfSettings, backend: str
) -> list[torch.Tensor]:
    """The picture, and the gradients to image and CoC."""
    image, coc = image.clone().requires_grad_(), coc.clone().requires_grad_()
    out = psf_conv(image, coc, psf.window, psf.kind, psf.coc_at, spread=psf.spread, backend=backend)
    out.backward(grad)
    return [out.detach(), image.grad, coc.grad]


def relative_error(value: torch.Tensor, truth: torch.Tensor) -> float:
    """The largest difference, over the largest value; unknowns must be the same."""
    assert torch.equal(value.isnan(), truth.isnan())
    difference, scale = (value - truth).nan_to_num().abs().max(), truth.nan_to_num().abs().max()
    return float(difference / scale) if scale > 0 else float(difference)


# The layer is what it says.


@every_psf
@pytest.mark.parametrize("window", [3, 5])
def test_the_reference_is_the_definition(kind: str, coc_at: str, window: int) -> None:
    image, coc = (plane.double() for plane in scene((1, 1, 6, 7), window))
    psf = PsfSettings(window, kind, coc_at, spread=0.4)
    out, _ = reference.forward(image, coc, psf)
    np.testing.assert_allclose(out[0, 0], by_definition(image[0, 0].numpy(), coc[0, 0].numpy(), psf), rtol=1e-12)


@every_psf
def test_gradients_are_those_of_finite_differences(kind: str, coc_at: str) -> None:
    torch.manual_seed(3)
    image = torch.rand(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    coc = 0.3 + 6.0 * torch.rand(2, 1, 4, 5, dtype=torch.float64)  # in focus, inside and beyond the window
    coc.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda image, coc: psf_conv(image, coc, 5, kind, coc_at, spread=0.3), (image, coc), eps=1e-6, atol=1e-7
    )


@every_backend
@every_psf
def test_a_constant_picture_stays_constant(kind: str, coc_at: str, backend: str) -> None:
    _, coc = scene((1, 3, 40, 50), 9)
    out = psf_conv(torch.full((1, 3, 40, 50), 0.7), coc, 9, kind, coc_at, backend=backend)
    known = ~coc.isnan().expand_as(out)
    torch.testing.assert_close(out[known], torch.full_like(out[known], 0.7), rtol=3e-6, atol=0.0)


@every_backend
@pytest.mark.parametrize(("kind", "spread"), [("disk", 0.5), ("gaussian", 0.25)])
def test_a_point_becomes_as_wide_as_a_disk_of_its_coc(kind: str, spread: float, backend: str) -> None:
    point = torch.zeros(1, 1, 61, 61)
    point[..., 30, 30] = 1.0
    for diameter in (6.0, 9.0, 12.0):
        coc = torch.full((1, 1, 61, 61), diameter)
        picture = psf_conv(point, coc, 31, kind, spread=spread, backend=backend)[0, 0]
        along = torch.arange(61.0) - 30.0
        variance = (diameter / 4.0) ** 2
        if kind == "disk":  # radii within half a pixel of C/2, for the ramp: <r⁴> / 4<r²>
            radius = diameter / 2.0 + np.linspace(-0.5, 0.5, 1001)
            variance = (radius**4).mean() / (4.0 * (radius**2).mean())
        assert picture.sum() == pytest.approx(1.0, rel=1e-5)
        assert (picture.sum(0) * along**2).sum() == pytest.approx(variance, rel=0.02)


@every_backend
def test_what_is_in_focus_stays_as_it_is(backend: str) -> None:
    image, coc = scene((1, 2, 30, 40), 7)
    in_focus = (coc <= 1).expand_as(image)
    for kind, coc_at in itertools.product(KINDS, PLACES):
        out = psf_conv(image, coc, 7, kind, coc_at, backend=backend)
        assert torch.equal(out[in_focus], image[in_focus])


@every_backend
def test_what_is_in_focus_lends_no_light_to_its_neighbours_unless_they_take_it(backend: str) -> None:
    image, coc = torch.zeros(1, 1, 9, 9), torch.full((1, 1, 9, 9), 5.0)
    image[..., 4, 4], coc[..., 4, 4] = 1.0, 0.0
    lent = psf_conv(image, coc, backend=backend)
    taken = psf_conv(image, coc, coc_at="destination", backend=backend)
    assert lent.sum() == 1.0
    assert (taken[..., 3:6, 3:6] > 0.01).all()


@every_backend
@every_psf
def test_an_unknown_coc_stays_unknown_and_touches_nothing_else(kind: str, coc_at: str, backend: str) -> None:
    image, coc = scene((1, 3, 30, 40), 7)
    unknown = coc.isnan()
    grad = torch.randn(image.shape)
    grad[unknown.expand_as(grad)] = math.nan  # as from a loss of a NaN
    psf = PsfSettings(7, kind, coc_at)
    first = gradients(torch.where(unknown, 0.0, image), coc, grad, psf, backend)
    second = gradients(torch.where(unknown, math.nan, image), coc, grad, psf, backend)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0, equal_nan=True)
    out, grad_image, grad_coc = first
    assert torch.equal(out.isnan(), unknown.expand_as(out))
    assert (grad_image[unknown.expand_as(out)] == 0).all()
    assert (grad_coc[unknown] == 0).all()
    assert grad_image.isfinite().all()
    assert grad_coc.isfinite().all()


@every_backend
@every_psf
def test_a_coc_beyond_the_window_counts_as_the_window(kind: str, coc_at: str, backend: str) -> None:
    image, coc = scene((1, 1, 20, 20), 5)
    psf = PsfSettings(5, kind, coc_at)
    grad = torch.randn(image.shape)
    out, _, grad_coc = gradients(image, coc, grad, psf, backend)
    clamped, _, _ = gradients(image, coc.clamp(max=5.0), grad, psf, backend)
    torch.testing.assert_close(out, clamped, rtol=0.0, atol=0.0, equal_nan=True)
    beyond = (coc > 5) | (coc <= 1)
    assert (grad_coc[beyond] == 0).all()
    assert (grad_coc[(coc > 1) & (coc < 5)] != 0).all()


# Back ends agree.


def assert_agrees(image: torch.Tensor, coc: torch.Tensor, psf: PsfSettings, backend: str, limit: float) -> None:
    grad = torch.randn(image.shape)
    truth = gradients(image.double(), coc.double(), grad.double(), psf, "reference")
    for value, right in zip(gradients(image, coc, grad, psf, backend), truth, strict=True):
        assert relative_error(value, right) < limit


@every_backend
@every_psf
@pytest.mark.parametrize("window", [3, 5, 7, 11, 31])
def test_back_ends_agree_with_double_precision(kind: str, coc_at: str, window: int, backend: str) -> None:
    for shape in ((1, 3, 37, 53), (2, 1, 41, 34)):
        assert_agrees(*scene(shape, window, seed=window), PsfSettings(window, kind, coc_at), backend, 1e-5)


@every_psf
def test_wide_pictures_are_cut_without_a_seam(kind: str, coc_at: str) -> None:
    assert_agrees(*scene((1, 2, 9, 1400), 9), PsfSettings(9, kind, coc_at), "cpu", 1e-5)


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.sampled_from([1, 2, 3, 4, 7]), st.integers(1, 33), st.integers(1, 45)),
    window=st.integers(1, 15).map(lambda radius: 2 * radius + 1),
    kind=st.sampled_from(KINDS),
    coc_at=st.sampled_from(PLACES),
    spread=st.floats(0.1, 2.0),
    seed=st.integers(0, 2**31),
)
def test_back_ends_agree_at_any_size(
    shape: tuple[int, int, int, int], window: int, kind: str, coc_at: str, spread: float, seed: int
) -> None:
    # In pictures of a few pixels gradients may cancel down to rounding: the limit is for what they are made of.
    image, coc = scene(shape, window, seed)
    psf = PsfSettings(window, kind, coc_at, spread)
    grad = torch.randn(image.shape)
    truth = gradients(image.double(), coc.double(), grad.double(), psf, "reference")
    for value, right in zip(gradients(image, coc, grad, psf, "cpu"), truth, strict=True):
        assert torch.equal(value.isnan(), right.isnan())
        assert (value - right).nan_to_num().abs().max() < 1e-5 * max(1.0, float(right.nan_to_num().abs().max()))


@every_psf
def test_threads_change_nothing(kind: str, coc_at: str) -> None:
    image, coc = scene((2, 3, 200, 60), 9)
    psf, grad = PsfSettings(9, kind, coc_at), torch.randn(image.shape)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = gradients(image, coc, grad, psf, "cpu")
        torch.set_num_threads(5)
        together = gradients(image, coc, grad, psf, "cpu")
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0, equal_nan=True)


@every_backend
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 4e-3), (torch.bfloat16, 4e-2)])
def test_half_precision_is_as_good_as_its_rounding(dtype: torch.dtype, limit: float, backend: str) -> None:
    image, coc = (plane.to(dtype) for plane in scene((1, 3, 30, 40), 7))
    grad, psf = torch.randn(image.shape).to(dtype), PsfSettings()
    truth = gradients(image.double(), coc.double(), grad.double(), psf, "reference")
    for value, right in zip(gradients(image, coc, grad, psf, backend), truth, strict=True):
        assert value.dtype == dtype
        assert relative_error(value.double(), right) < limit


@every_backend
def test_the_order_of_memory_does_not_matter(backend: str) -> None:
    image, coc = scene((2, 3, 20, 30), 5)
    grad, psf = torch.randn(image.shape), PsfSettings(5)
    plain = gradients(image, coc, grad, psf, backend)
    strided = gradients(
        image.to(memory_format=torch.channels_last), coc.mT.contiguous().mT, grad[..., :1].expand_as(grad), psf, backend
    )
    assert torch.equal(plain[0].nan_to_num(), strided[0].nan_to_num())
    expanded = gradients(image, coc, grad[..., :1].expand_as(grad).contiguous(), psf, backend)
    assert torch.equal(expanded[1], strided[1])
    assert torch.equal(expanded[2], strided[2])


def test_each_gradient_can_be_had_alone() -> None:
    image, coc = scene((1, 3, 20, 30), 5)
    grad, psf = torch.randn(image.shape), PsfSettings(5)
    _, grad_image, grad_coc = gradients(image, coc, grad, psf, "cpu")
    leaf = image.clone().requires_grad_()
    psf_conv(leaf, coc, 5).backward(grad)
    assert torch.equal(leaf.grad, grad_image)
    leaf = coc.clone().requires_grad_()
    psf_conv(image, leaf, 5).backward(grad)
    assert torch.equal(leaf.grad, grad_coc)
    assert not psf_conv(image, coc, 5).requires_grad


@every_backend
def test_an_empty_batch_gives_an_empty_batch(backend: str) -> None:
    image = torch.rand(0, 3, 8, 9, requires_grad=True)
    out = psf_conv(image, torch.rand(0, 1, 8, 9), backend=backend)
    out.sum().backward()
    assert out.shape == image.grad.shape == (0, 3, 8, 9)


# The operator in torch.


@every_backend
@every_psf
def test_the_operator_keeps_its_promises_to_torch(kind: str, coc_at: str, backend: str) -> None:
    image, coc = scene((1, 2, 9, 8), 5)
    coc = coc.nan_to_num(2.0)
    given = (5, kind, coc_at, 0.5, backend)
    torch.library.opcheck(
        torch.ops.dfd.psf_conv.default, (image.requires_grad_(), coc.requires_grad_(), *given), rtol=1e-4, atol=1e-5
    )
    image, coc = image.detach(), coc.detach()
    out, weight_sum = torch.ops.dfd.psf_conv(image, coc, *given)
    torch.library.opcheck(
        torch.ops.dfd.psf_conv_backward.default, (torch.randn(out.shape), image, coc, out, weight_sum, *given)
    )


def test_compiled_graphs_have_no_break() -> None:
    image, coc = scene((1, 3, 20, 30), 5)
    layer = PsfLayer(5)

    def loss(image: torch.Tensor, coc: torch.Tensor) -> torch.Tensor:
        return (layer(2.0 * image, coc).nan_to_num() ** 2).sum()

    results = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        leaves = [image.clone().requires_grad_(), coc.clone().requires_grad_()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.append([function(*leaves), *torch.autograd.grad(function(*leaves), leaves)])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled)
    assert layer.beyond_window == 4 * (coc > 5).sum()  # compiled calls count too


def test_an_exported_graph_holds_the_operator_once() -> None:
    image, coc = scene((2, 3, 20, 30), 5)
    batch = torch.export.Dim("batch")
    layer = PsfLayer(5)
    program = torch.export.export(layer, (image, coc), dynamic_shapes=({0: batch}, {0: batch}))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert [name for name in names if "getitem" not in name and not name.startswith("aten._assert")] == [
        "dfd.psf_conv.default"
    ]
    image, coc = scene((3, 3, 20, 30), 5)
    assert torch.equal(program.module()(image, coc).nan_to_num(), psf_conv(image, coc, 5).nan_to_num())


def test_autocast_computes_in_single_precision() -> None:
    image, coc = scene((1, 3, 20, 30), 5)
    with torch.autocast("cpu", torch.bfloat16):
        out = psf_conv(image.bfloat16(), coc, 5)
    assert out.dtype == torch.float32
    assert torch.equal(out.nan_to_num(), psf_conv(image.bfloat16().float(), coc, 5).nan_to_num())


def test_shapes_are_known_without_computing() -> None:
    out = psf_conv(torch.empty(2, 3, 4, 5, device="meta"), torch.empty(2, 1, 4, 5, device="meta"))
    assert out.shape == (2, 3, 4, 5)


def test_settings_are_for_those_too_who_have_no_torch() -> None:
    code = "import sys; import dfd_ros.optics.kernels.settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# The layer counts, and says so once.


def test_the_layer_says_once_that_cocs_do_not_fit_its_window() -> None:
    layer = PsfLayer(5)
    image, coc = torch.rand(1, 1, 8, 8), torch.full((1, 1, 8, 8), 4.0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        layer(image, coc)
        assert not said
        coc[..., :3] = 6.0
        for _ in range(7):
            layer(image, coc)
    assert [str(warning.message) for warning in said] == [
        "24 CoCs so far are larger than the window of 5 pixels and count as that; take a larger window (said once)"
    ]
    assert said[0].filename == __file__
    assert layer.beyond_window == 7 * 24
    assert not layer.state_dict()


# Bad input.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 4}, "window is 4, but must be an odd number from 3 to 31"),
        ({"window": 33}, "window is 33"),
        ({"window": 1}, "window is 1"),
        ({"kind": "square"}, "kind is 'square', but must be one of gaussian, disk"),
        ({"coc_at": "between"}, "coc_at is 'between', but must be one of source, destination"),
        ({"spread": 0.0}, "spread is 0.0, but must be positive"),
        ({"spread": math.nan}, "spread is nan"),
        ({"backend": "abacus"}, "backend is 'abacus', but must be one of auto, reference, cpu, cuda"),
        ({"backend": "cuda"}, "image is on cpu, but backend 'cuda' was asked for"),
        ({"image": torch.rand(3, 8, 9)}, r"image has shape \(3, 8, 9\), but must be \(N, C, H, W\)"),
        ({"coc": torch.rand(1, 1, 8, 8)}, r"coc has shape \(1, 1, 8, 8\), but must be \(1, 1, 8, 9\)"),
        ({"coc": torch.rand(1, 3, 8, 9)}, r"coc has shape \(1, 3, 8, 9\)"),
        ({"coc": torch.rand(8, 9)}, r"coc has shape \(8, 9\)"),
        ({"image": torch.ones(1, 3, 8, 9, dtype=torch.uint8)}, "image is torch.uint8, but must be float32"),
        ({"coc": torch.ones(1, 1, 8, 9, dtype=torch.int64)}, "coc is torch.int64"),
        (
            {"coc": torch.rand(1, 1, 8, 9, dtype=torch.float64)},
            "coc is torch.float64, but must be of the image's dtype",
        ),
        ({"coc": torch.empty(1, 1, 8, 9, device="meta")}, "coc is on meta, but must be on the image's device, cpu"),
        (
            {
                "image": torch.rand(1, 3, 8, 9, dtype=torch.float64),
                "coc": torch.rand(1, 1, 8, 9, dtype=torch.float64),
                "backend": "cpu",
            },
            "image is float64, which back end 'cpu' does not compute in",
        ),
    ],
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    given = {"image": torch.rand(1, 3, 8, 9), "coc": torch.rand(1, 1, 8, 9)} | change
    with pytest.raises(InputError, match=message):
        psf_conv(**given)


def test_both_directions_of_each_back_end_have_the_same_form() -> None:
    image, coc = scene((2, 3, 12, 13), 5)
    for module in (reference, cpu):
        out, weight_sum = module.forward(image, coc, PsfSettings(5))
        grad_image, grad_coc = module.backward(torch.ones_like(out), image, coc, out, weight_sum, PsfSettings(5))
        assert out.shape == grad_image.shape == image.shape
        assert weight_sum.shape == grad_coc.shape == coc.shape
        assert torch.equal(weight_sum > 0, coc > 1)
