"""The published networks: their size, what goes in and out, and that every part of them learns."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfd_ros.errors import InputError
from dfd_ros.models.base import DepthModel, Signature, pad_to_multiple
from dfd_ros.models.d3net import D3Net, monte_carlo
from dfd_ros.models.dense_aspp import DenseAspp, ResNet50, SelfAttention
from dfd_ros.models.densenet import CHANNELS, DenseNet121
from dfd_ros.models.dual_aperture import DualAperture
from dfd_ros.models.focus import FocusDefocus, complete_all_in_focus, laplacian_of_gaussian
from dfd_ros.models.physics_net import PhysicsNet
from dfd_ros.models.registry import MODELS, build, default_options, describe
from dfd_ros.models.two_headed import TwoHeaded
from dfd_ros.models.weights import load_encoder, read_safetensors
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.share import config_file

SMALL = {"dual_aperture": {"features": 8}, "focus_defocus": {"features": 4}}
"""Options that make a network small where its size does not matter."""
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def models() -> dict[str, DepthModel]:
    torch.manual_seed(0)
    models = {name: build(name, **SMALL.get(name, {})) for name in MODELS}
    for model in models.values():
        if isinstance(model, PhysicsNet):
            model.set_lens(replace(load_lens(config_file("lenses/street.yaml")), parallax=-0.05))
    return models


def pictures(model: DepthModel, height: int, width: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, model.signature.channels, height, width, generator=generator)


# Their size.


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("dual_aperture", {}, 966_017),
        ("dual_aperture", {"cue": False}, 927_297),
        ("dual_aperture", {"inputs": ["shallow"]}, 925_569),
        ("dual_aperture", {"inputs": ["all_in_focus"]}, 925_569),
        ("d3net", {}, 24_220_224),
        ("d3net", {"inputs": ["shallow", "deep"]}, 24_229_632),
        ("two_headed", {}, 41_414_400),
        ("dense_aspp", {}, 46_382_113),
        ("focus_defocus", {}, 17_262_370),
        ("physics_net", {}, 1_090_374),
    ],
)
def test_the_parameters_are_as_many_as_published_or_said(name: str, options: dict, parameters: int) -> None:
    described = describe(name, **options)
    assert described.parameters == parameters
    assert f"{parameters:,}" in sys.modules[MODELS[name].__module__].__doc__


def test_densenet_121_has_the_parameters_and_the_names_of_the_classifier_without_its_head() -> None:
    with torch.device("meta"):
        encoder = DenseNet121()
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert count == 6_953_856
    assert count + CHANNELS[-1] * 1000 + 1000 == 7_978_856  # with the head for 1000 classes
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    assert shapes["features.conv0.weight"] == (64, 3, 7, 7)
    assert shapes["features.norm0.running_var"] == (64,)
    assert shapes["features.denseblock1.denselayer1.norm1.weight"] == (64,)
    assert shapes["features.denseblock3.denselayer24.conv1.weight"] == (128, 256 + 23 * 32, 1, 1)
    assert shapes["features.denseblock4.denselayer16.conv2.weight"] == (32, 128, 3, 3)
    assert shapes["features.transition2.conv.weight"] == (256, 512, 1, 1)
    assert shapes["features.norm5.bias"] == (1024,)
    assert len(shapes) == 725  # torchvision's 727 without classifier.weight and classifier.bias


def test_resnet_50_has_the_parameters_and_the_names_of_the_classifier_without_its_head() -> None:
    with torch.device("meta"):
        encoder = ResNet50()
    assert sum(parameter.numel() for parameter in encoder.parameters()) + 2048 * 1000 + 1000 == 25_557_032
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer4.2.bn3.running_mean"] == (2048,)
    assert len(shapes) == 318  # 320 without fc.weight and fc.bias


def test_the_encoder_halves_its_picture_five_times() -> None:
    for options in ({}, {"strided": True}, {"strided": True, "kernel": 3}):
        pyramid = DenseNet121(**options).eval()(torch.rand(1, 3, 64, 96))
        assert [tuple(x.shape) for x in pyramid] == [
            (1, channels, 64 // 2 ** (i + 1), 96 // 2 ** (i + 1)) for i, channels in enumerate(CHANNELS)
        ]


# What goes in and out.


@every_model
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (33, 71)])
def test_any_size_from_32_pixels_gives_depth_of_that_size(models: dict, name: str, height: int, width: int) -> None:
    model = models[name].eval()
    with torch.no_grad():
        outputs = model(pictures(model, height, width))
    assert tuple(outputs) == model.signature.outputs
    assert model.signature.outputs[0] == "depth"
    for key, value in outputs.items():
        assert value.shape == (1, 3 if key == "all_in_focus" else 1, height, width)
        assert torch.isfinite(value).all()


@every_model
def test_every_parameter_learns(models: dict, name: str) -> None:
    model = models[name].train()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # what begins at nothing passes nothing on in its first step
                parameter.normal_(0.0, 0.1)
    outputs = model(pictures(model, 64, 64, batch=2))
    # A weight for each pixel, so that nothing cancels over the picture.
    loss = sum(torch.sum(value * torch.randn_like(value)) for value in outputs.values())
    model.zero_grad()
    loss.backward()
    # (A bias before a normalisation, which takes it away again, has a gradient of rounding only, but has one.)
    assert not [key for key, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    model.zero_grad(set_to_none=True)


@every_model
def test_the_same_picture_gives_the_same_depth_alone_and_in_a_batch(models: dict, name: str) -> None:
    model = models[name].eval()
    batch = pictures(model, 64, 64, batch=2)
    with torch.no_grad():
        once, again, alone = model(batch)["depth"], model(batch)["depth"], model(batch[1:])["depth"]
    torch.testing.assert_close(once, again, rtol=0.0, atol=0.0)
    torch.testing.assert_close(once[1:], alone, rtol=1e-3, atol=1e-4)


def test_what_is_added_to_reach_the_multiple_is_the_border_repeated() -> None:
    images = torch.rand(2, 3, 33, 40)
    padded = pad_to_multiple(images, 32)
    assert padded.shape == (2, 3, 64, 64)
    torch.testing.assert_close(padded[..., :33, :40], images)
    torch.testing.assert_close(padded[..., 33:, 40:], images[..., -1:, -1:].expand(2, 3, 31, 24))
    assert pad_to_multiple(padded, 32) is padded


@pytest.mark.parametrize("name", ["dual_aperture", "focus_defocus"])  # the others take longer and hold nothing new
def test_a_model_exports_as_one_graph_that_answers_alike(models: dict, name: str) -> None:
    model = models[name].eval()
    images = pictures(model, 48, 64)
    exported = torch.export.export(model, (images,)).module()(images)
    for key, value in model(images).items():
        torch.testing.assert_close(exported[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.rand(1, 3, 64, 64), "6, H, W"),
        (torch.rand(6, 64, 64), "6, H, W"),
        (torch.rand(1, 6, 31, 64), "at least 32"),
        (torch.zeros(1, 6, 64, 64, dtype=torch.uint8), "floating"),
    ],
)
def test_images_that_do_not_suit_a_model_are_refused_in_one_sentence(images: torch.Tensor, said: str) -> None:
    with pytest.raises(InputError, match=said):
        DualAperture(features=4)(images)


# The registry.


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("resnet", {}, "model must be one of dual_aperture"),
        ("d3net", {"droput": 0.5}, "no option 'droput'"),
        ("d3net", {"dropout": "half"}, "dropout must be float"),
        ("d3net", {"dropout": 1.0}, r"\[0, 1\)"),
        ("d3net", {"inputs": "shallow"}, "inputs must be"),
        ("d3net", {"inputs": ["sharp"]}, "inputs must be different ones of shallow"),
        ("d3net", {"inputs": ["deep", "deep"]}, "different"),
        ("dual_aperture", {"features": 64.0}, "features must be int"),
        ("dual_aperture", {"cue": True, "inputs": ["shallow"]}, "cue needs"),
        ("dense_aspp", {"near": 5.0, "far": 1}, "near and far"),
        ("dense_aspp", {"reduction": 0}, "reduction"),
        ("focus_defocus", {"inputs": ["all_in_focus"]}, "defocused picture"),
        ("two_headed", {"inputs": ["difference"]}, "restore"),
    ],
)
def test_unknown_names_and_options_are_refused_in_one_sentence(name: str, options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        build(name, **options)


def test_a_description_holds_every_option_and_allocates_nothing() -> None:
    described = describe("d3net", inputs=["shallow", "deep"], dropout=0)
    assert described.options == {"inputs": ("shallow", "deep"), "dropout": 0}
    assert described.signature == Signature(("shallow", "deep"), multiple=32)
    assert default_options("dual_aperture")["features"] == 64


def test_the_signature_says_which_channels_are_which_picture() -> None:
    model = DualAperture(("deep", "shallow"), features=4)
    images = torch.cat([torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)], dim=1)
    assert float(model.picture(images, "shallow").min()) == 1.0
    assert float(model.picture(images, "deep").max()) == 0.0


# What makes each of them what it is.


def test_the_boundary_cue_is_blind_to_what_both_pictures_share() -> None:
    model = DualAperture(features=8).eval()
    seen = []
    model.cue[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    pair = torch.rand(1, 6, 32, 32)
    model(pair)
    model(pair + 0.25)
    torch.testing.assert_close(seen[0], pair[:, :3] - pair[:, 3:])
    torch.testing.assert_close(seen[0], seen[1], rtol=0.0, atol=1e-6)
    assert DualAperture(cue=False, features=8).cue is None
    assert DualAperture(("all_in_focus",), features=8).cue is None


def test_the_dual_aperture_network_learns_to_see_blur() -> None:
    """Noise whose shallow picture is blurred by the more the deeper it is: a narrow network soon tells how much."""
    torch.manual_seed(0)
    model = DualAperture(features=8)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        deep = torch.rand(8, 3, 32, 32)
        depth = 1.0 + 2.0 * torch.rand(8, 1, 1, 1)
        share = (depth - 1.0) / 2.0
        shallow = (1 - share) * deep + share * torch.nn.functional.avg_pool2d(deep, 3, 1, 1, count_include_pad=False)
        loss = (model(torch.cat([shallow, deep], dim=1))["depth"] - depth).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.25  # a constant scores 0.5


def test_only_the_first_four_convolutions_of_the_decoder_drop_out() -> None:
    rates = [[m.p for m in block if isinstance(m, torch.nn.Dropout)] for block in D3Net().decoder.blocks]
    assert rates == [[0.5, 0.5], [0.5, 0.5], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]


def test_dropout_at_test_time_gives_mean_and_variance_and_leaves_the_model_as_it_was(models: dict) -> None:
    model = models["d3net"].train()
    for module in model.modules():  # Normalisations that have seen something, so that signals don't fade in evaluation.
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(0.05)
    model.encoder.eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    images = pictures(model, 40, 64)
    torch.manual_seed(3)
    few = monte_carlo(model, images, samples=8)
    assert few.mean.shape == few.variance.shape == (1, 1, 40, 64)
    assert float(few.variance.min()) >= 0.0
    assert float(few.variance.mean()) > 0.0
    assert model.training
    assert not model.encoder.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key

    # By definition, from the same random numbers.
    torch.manual_seed(3)
    model.eval()
    pyramid = model.encoder(2.0 * model.prepare(images) - 1.0)
    for module in model.modules():
        module.training = isinstance(module, torch.nn.Dropout)
    with torch.no_grad():
        depths = torch.stack([model.decoder(pyramid)[..., :40, :64] for _ in range(8)])
    torch.testing.assert_close(few.mean, depths.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(few.variance, depths.var(dim=0, correction=0), rtol=1e-3, atol=1e-7)
    model.eval()


def test_uncertainty_wants_dropout_and_two_passes(models: dict) -> None:
    with pytest.raises(InputError, match="samples"):
        monte_carlo(models["d3net"], pictures(models["d3net"], 32, 32), samples=1)
    with torch.device("meta"):
        certain = D3Net(dropout=0.0)
    with pytest.raises(InputError, match="dropout"):
        monte_carlo(certain, torch.rand(1, 3, 32, 32))


def test_the_restored_picture_is_the_input_plus_what_the_decoder_adds(models: dict) -> None:
    model = models["two_headed"].eval()
    assert isinstance(model, TwoHeaded)
    images = pictures(model, 32, 64)
    handle = model.restoration_decoder.register_forward_hook(lambda *arguments: torch.zeros_like(arguments[-1]))
    with torch.no_grad():
        torch.testing.assert_close(model(images)["all_in_focus"], images)
    handle.remove()
    with torch.no_grad():
        assert not torch.equal(model(images)["all_in_focus"], images)


def test_the_depths_of_a_sigmoid_stay_in_their_range(models: dict) -> None:
    for name in ("dense_aspp", "focus_defocus"):
        model = models[name].eval()
        assert isinstance(model, DenseAspp | FocusDefocus)
        with torch.no_grad():
            depth = model(50.0 * pictures(model, 64, 64))["depth"]
        assert float(depth.min()) >= model.near * (1 - 1e-5)
        assert float(depth.max()) <= model.far * (1 + 1e-5)


def test_self_attention_is_the_weighted_mean_of_values() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(16).double()
    x = torch.rand(1, 16, 3, 4, dtype=torch.float64)
    places = x[0].flatten(1).T  # (12, 16)
    query, key, value = (
        places @ conv.weight[:, :, 0, 0].T + conv.bias for conv in (layer.query, layer.key, layer.value)
    )
    for i in range(12):
        weight = torch.softmax(torch.tanh(key @ query[i]), dim=0)
        torch.testing.assert_close(layer(x)[0, :, i // 4, i % 4], weight @ value)


def test_focus_and_defocus_see_the_pictures_meant_for_them() -> None:
    model = FocusDefocus(("all_in_focus", "shallow"), features=4).eval()
    images = torch.rand(1, 6, 32, 32)
    outputs = model(images)
    torch.testing.assert_close(outputs["all_in_focus"], images[:, :3])
    other = torch.cat([images[:, :3], torch.rand(1, 3, 32, 32)], dim=1)
    torch.testing.assert_close(model(other)["focus_depth"], outputs["focus_depth"])
    assert not torch.allclose(model(other)["depth"], outputs["depth"])


def test_the_all_in_focus_picture_is_put_together_from_where_each_is_sharp() -> None:
    torch.manual_seed(0)
    scene = torch.rand(1, 3, 64, 96)
    blurred = torch.nn.functional.avg_pool2d(scene, 5, 1, 2, count_include_pad=False)
    left, right = scene.clone(), scene.clone()
    left[..., 48:], right[..., :48] = blurred[..., 48:], blurred[..., :48]
    completed = complete_all_in_focus(torch.stack([left, right], dim=1))
    away = torch.ones(96, dtype=torch.bool)
    away[42:54] = False  # at the seam either may win
    torch.testing.assert_close(completed[..., away], scene[..., away])
    with pytest.raises(InputError, match="stack"):
        complete_all_in_focus(scene)


def test_the_laplacian_of_gaussian_knows_neither_planes_nor_the_sum_of_a_parabola_wrong() -> None:
    kernel = laplacian_of_gaussian(1.0).double()
    reach = kernel.shape[0] // 2
    x = torch.arange(-reach, reach + 1.0, dtype=torch.float64)
    assert float(kernel.sum()) == pytest.approx(0.0, abs=1e-6)
    assert float((kernel * x).sum()) == pytest.approx(0.0, abs=1e-6)
    assert float((kernel * x**2).sum()) == pytest.approx(2.0, abs=0.05)  # the Laplacian of x²


# Weights from files.


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """The format by its definition, independent of the reader."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in tensors.items():
        start = len(data)
        data += array.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_an_encoder_takes_from_a_file_what_fits_and_says_what_was_missing(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    source = DenseNet121()
    tensors = {
        # Old files have a dot within `norm1`.
        name.replace("norm1.", "norm.1.").replace("conv1.", "conv.1."): random.random(tuple(tensor.shape))
        for name, tensor in source.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    tensors["classifier.bias"] = np.zeros(1000)
    path = tmp_path / "imagenet.safetensors"
    write_safetensors(path, tensors)

    report = load_encoder(source, path)
    assert report.missing == ()
    assert report.unused == ("classifier.bias",)
    expected = tensors["features.denseblock2.denselayer3.conv.1.weight"]
    np.testing.assert_allclose(source.features.denseblock2.denselayer3.conv1.weight.detach(), expected, rtol=1e-6)

    dual = D3Net(("shallow", "deep"))
    report = load_encoder(dual.encoder, path)
    assert set(report.missing) == {"features.conv0.weight", "features.downconv0.weight"} | {
        f"features.norm1.{part}" for part in ("weight", "bias", "running_mean", "running_var")
    }
    assert "6 missing: features.conv0.weight" in str(report)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    write_safetensors(path, {"layer1.weight": np.zeros((2, 2))})
    with torch.device("meta"):
        encoder = DenseNet121()
    with pytest.raises(InputError, match="none of its 1 tensors"):
        load_encoder(encoder, path)
    with pytest.raises(InputError, match="cannot be read"):
        read_safetensors(tmp_path / "nothing.safetensors")


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_file_is_refused_and_never_read_beyond_its_end(tmp_path_factory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    write_safetensors(path, {"a": np.arange(6.0).reshape(2, 3), "b": np.ones(5), "none": np.zeros((0, 3))})
    whole = path.read_bytes()
    np.testing.assert_array_equal(read_safetensors(path)["a"], np.arange(6.0).reshape(2, 3))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(InputError, match=r"w\.safetensors"):
        read_safetensors(path)
    place = data.draw(st.integers(0, len(whole) - 45))  # within the length and the header
    path.write_bytes(whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :])
    try:
        tensors = read_safetensors(path)
    except InputError:
        return
    assert sum(tensor.numel() for tensor in tensors.values()) <= len(whole)
