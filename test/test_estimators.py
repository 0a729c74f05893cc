"""One face for all that answers pairs: classical or learned, whatever runs it, however pictures are encoded."""

import subprocess
import sys
import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from one_thread import one_thread  # noqa: F401 (all tests here run on one)

from dfd_ros.errors import InputError
from dfd_ros.inference.classical_estimator import ClassicalSource
from dfd_ros.inference.estimators import STAGES, Blank
from dfd_ros.inference.export import export_model, save_program
from dfd_ros.inference.graph import GraphSettings
from dfd_ros.inference.lens_range import figures, outside
from dfd_ros.inference.network_estimator import PictureWriter
from dfd_ros.inference.pictures import Pair, Resizer
from dfd_ros.inference.sources import EstimatorOptions, open_source
from dfd_ros.inference.weights import ModelCard, load_weights
from dfd_ros.learning.weights import save_weights
from dfd_ros.models.registry import build
from dfd_ros.optics.estimate import EstimatorSettings, WhitenedProjectionEstimator
from dfd_ros.optics.lens import Lens
from dfd_ros.tone import linear_grey

SHAPE = (64, 96)
LENS = Lens("test", 0.8, 2.8, 10.0, coc_scale=20.0, min_depth=0.6, max_depth=8.0)
RANGES = {key: (0.9 * value, 1.1 * value) for key, value in figures(LENS).items()}
BACKENDS = ("torch", "onnxruntime", "openvino")
OPTIONS = {
    "physics_net": {"features": (8, 8, 8, 8), "labels": 8},
    "dual_aperture": {"inputs": ("shallow", "deep"), "features": 4},
    "focus_defocus": {"features": 4},
}


def pair(channels=3, gamma=2.2, bgr=False, seed=0):
    deep = np.random.default_rng(seed).integers(0, 256, (*SHAPE, channels), np.uint8)
    shallow = cv2.GaussianBlur(deep, (5, 5), 1.0).reshape(deep.shape)
    return Pair(*(np.ascontiguousarray(p[..., 0] if channels == 1 else p) for p in (shallow, deep)), gamma, bgr)


def swapped(given):
    return Pair(given.shallow[..., ::-1].copy(), given.deep[..., ::-1].copy(), given.gamma, not given.bgr)


def blank_pair():
    return Pair(np.full((*SHAPE, 3), (10, 200, 30), np.uint8), pair().deep, 2.2)


def weights_file(folder, model, **card):
    torch.manual_seed(0)
    network = build(model, **OPTIONS[model]).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    path = folder / f"{model}.safetensors"
    save_weights(network, ModelCard(model, model, OPTIONS[model], **{"lens": RANGES, **card}), path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return weights_file(tmp_path_factory.mktemp("weights"), "physics_net")


@pytest.fixture(scope="module")
def exported(weights):
    network, card = load_weights(weights)
    path = weights.with_suffix(".onnx")
    save_program(export_model(network, card, GraphSettings(SHAPE, LENS)), path)
    return path


@pytest.fixture(params=("classical", *BACKENDS))
def source(request, weights):
    model = "" if request.param == "classical" else str(weights)
    source = open_source(EstimatorOptions(model, request.param, threads=1))
    yield source
    source.close()


def test_every_one_answers_into_buffers_of_its_own(source):
    estimator = source.estimator(LENS, pair())
    first = estimator.estimate(pair())
    kept = first.depth.copy()
    assert first.depth.shape == first.confidence.shape == SHAPE
    assert first.depth.dtype == first.confidence.dtype == np.float32
    assert np.isfinite(first.depth).all()
    assert 0.0 <= first.confidence.min() <= first.confidence.max() <= 1.0
    other = estimator.estimate(pair(seed=1))
    assert other.depth.ctypes.data == first.depth.ctypes.data
    np.testing.assert_array_equal(estimator.estimate(pair()).depth, kept)
    assert set(estimator.seconds) == set(STAGES)
    assert all(seconds > 0.0 for seconds in estimator.seconds.values())
    assert estimator.warning == ""


def test_blue_first_or_grey_is_the_same_picture(source):
    colours = source.estimator(LENS, pair()).estimate(pair()).depth.copy()
    mirrored = swapped(pair())
    np.testing.assert_allclose(source.estimator(LENS, mirrored).estimate(mirrored).depth, colours, rtol=1e-4)
    grey = pair(channels=1)
    as_colours = Pair(*(np.repeat(p[..., None], 3, 2) for p in (grey.shallow, grey.deep)), grey.gamma)
    kept = source.estimator(LENS, as_colours).estimate(as_colours).depth.copy()
    np.testing.assert_allclose(source.estimator(LENS, grey).estimate(grey).depth, kept, rtol=2e-3)


def test_a_picture_that_shows_nothing_has_no_depth(source):
    answer = source.estimator(LENS, pair()).estimate(blank_pair())
    assert np.isnan(answer.depth).all()
    assert not answer.confidence.any()
    assert np.isfinite(source.estimator(LENS, pair()).estimate(pair()).depth).all()


def test_the_estimator_is_kept_until_lens_or_form_change(source):
    unknown = replace(LENS, focal_length=float("nan"))
    first = source.estimator(unknown, pair())
    assert source.estimator(replace(unknown), pair(seed=1)) is first
    kept = first.estimate(pair()).depth.copy()
    other = source.estimator(replace(LENS, focus_distance=0.85), pair())
    assert other is not first
    assert not np.allclose(other.estimate(pair()).depth, kept)
    smaller = Resizer((32, 48)).resize(pair())[0]
    assert source.estimator(LENS, smaller).estimate(smaller).depth.shape == (32, 48)


def test_before_and_behind_nothing_is_allocated(weights):
    source = open_source(EstimatorOptions(str(weights), "onnxruntime", threads=1))
    estimator, given = source.estimator(LENS, pair()), pair()
    estimator.estimate(given)
    tracemalloc.start()
    estimator.estimate(given)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    source.close()
    assert peak < SHAPE[0] * SHAPE[1], "less than a byte a pixel"


def test_classical_is_the_estimator_itself():
    given = pair()
    answer = ClassicalSource("as asked for", EstimatorSettings()).estimator(LENS, given).estimate(given)
    greys = (linear_grey(picture, 2.2) for picture in (given.shallow, given.deep))
    np.testing.assert_array_equal(answer.depth, WhitenedProjectionEstimator(LENS, SHAPE).estimate(*greys).depth)


def test_networks_see_the_pictures_as_they_were_trained_to(weights):
    network, card = load_weights(weights)
    info = export_model(network, card, GraphSettings(SHAPE)).info
    images = np.empty(info.inputs["images"], np.float32)
    given = pair()
    PictureWriter(given.form, info, images).write(given)
    expected = np.concatenate([given.shallow, given.deep], axis=2).transpose(2, 0, 1) / 255.0
    np.testing.assert_allclose(images[0], expected, atol=1e-6)
    linear = Pair(given.shallow, given.deep, 1.0)
    PictureWriter(given.form, info, images).write(linear)
    np.testing.assert_allclose(images[0], expected ** (1 / 2.2), atol=1e-6)
    other = replace(info, pictures=("difference", "deep"))
    PictureWriter(given.form, other, images).write(given)
    np.testing.assert_allclose(images[0, :3], expected[:3] - expected[3:], atol=1e-6)


def test_networks_without_a_variance_are_held_against_the_pair(tmp_path):
    source = open_source(EstimatorOptions(str(weights_file(tmp_path, "dual_aperture")), "onnxruntime", threads=1))
    answer = source.estimator(LENS, pair()).estimate(pair())
    unknown = np.isnan(answer.depth)
    assert not answer.confidence[unknown].any()
    assert (answer.depth[~unknown] > 0.0).all()
    source.close()


def test_an_exported_file_is_for_its_size_and_lens(exported):
    source = open_source(EstimatorOptions(str(exported), "onnxruntime", threads=1))
    assert source.estimator(LENS, pair()).warning == ""
    assert source.estimator(replace(LENS, coc_scale=20.5), pair()).warning == ""
    assert "expected largest_coc" in source.estimator(replace(LENS, coc_scale=30.0), pair()).warning
    smaller = Resizer((32, 48)).resize(pair())[0]
    with pytest.raises(InputError, match="expected pictures of 96x64, for which it was exported, got 48x32; set size"):
        source.estimator(LENS, smaller)
    source.close()


def test_auto_measures_on_the_pair(weights):
    source = open_source(EstimatorOptions(str(weights), "auto", threads=1))
    estimator = source.estimator(LENS, pair())
    assert estimator.description.startswith("model physics_net: back end ")
    assert "ms a pair" in estimator.description
    again = source.estimator(replace(LENS, focus_distance=0.85), pair())
    assert again.description == estimator.description, "another lens is no reason to measure again"
    source.close()


def test_pictures_of_another_size_than_trained_on_get_a_hint(tmp_path):
    recipe = {"data": {"train": [{"spec": "dslr:photographs", "size": (32, 48)}]}}
    source = open_source(
        EstimatorOptions(str(weights_file(tmp_path, "physics_net", recipe=recipe)), "torch", threads=1)
    )
    hint = "more exact at the size it was trained at, 48x32, than at 96x64: set size"
    assert source.estimator(LENS, pair()).description.endswith(hint)
    small, zoom = Resizer((32, 48)).resize(pair())
    assert "set size" not in source.estimator(LENS.zoomed(zoom), small).description
    source.close()


def test_a_back_end_that_runs_out_of_memory_is_left_out_by_auto_only(weights):
    source = open_source(EstimatorOptions(str(weights), "auto", threads=1))
    assert not source.give_up_backend(), "none is chosen yet"
    first = source.estimator(LENS, pair())
    assert source.give_up_backend()
    second = source.estimator(LENS, pair())
    name = first.description.split("back end ")[1].split(",")[0]
    assert f"back end {name}," not in second.description
    assert f"could not run: {name}: ran out of memory" in second.description
    assert np.isfinite(second.estimate(pair()).depth).any()
    source.close()
    named = open_source(EstimatorOptions(str(weights), "onnxruntime", threads=1))
    named.estimator(LENS, pair())
    assert not named.give_up_backend()
    named.close()


# Lenses.


def test_a_lens_outside_the_range_halves_confidence(weights):
    source = open_source(EstimatorOptions(str(weights), "onnxruntime", threads=1))
    estimator = source.estimator(LENS, pair())
    kept = estimator.estimate(pair()).confidence.copy()
    far = source.estimator(replace(LENS, f_number_deep=16.0), pair())
    assert far.warning == (
        "model physics_net: lens 'test': expected f_number_deep 9 to 11, got 16; confidence is halved"
    )
    np.testing.assert_allclose(far.estimate(pair()).confidence, 0.5 * kept, rtol=0.01)
    source.close()


def test_a_lens_may_cover_less_than_the_model():
    assert outside(LENS, RANGES) == ""
    assert outside(replace(LENS, min_depth=2.0, max_depth=3.0), RANGES) == ""
    assert "expected min_depth 0.54 to 0.66 m, got 0.3 m" in outside(replace(LENS, min_depth=0.3), RANGES)
    assert "expected max_depth 7.2 to 8.8 m, got 20 m" in outside(replace(LENS, max_depth=20.0), RANGES)
    assert outside(LENS, {}) == ""


def test_a_lens_of_smaller_pictures_has_smaller_blur():
    small = LENS.zoomed(0.5)
    assert small.coc(2.0) == pytest.approx(0.5 * LENS.coc(2.0))
    assert small.zoomed(2.0).coc_scale == LENS.coc_scale
    for zoom in (0.0, -1.0):
        with pytest.raises(InputError):
            LENS.zoomed(zoom)


# Pictures.


def test_pairs_are_resized_but_not_stretched():
    given, resizer = pair(), Resizer((32, 48))
    small, zoom = resizer.resize(given)
    assert zoom == 0.5
    np.testing.assert_array_equal(small.deep, cv2.resize(given.deep, (48, 32), interpolation=cv2.INTER_AREA))
    assert resizer.resize(given)[0].deep is small.deep
    assert Resizer().resize(given) == (given, 1.0)
    with pytest.raises(InputError, match="size: expected one of the pictures' aspect, 96x64, got 48x48"):
        Resizer((48, 48)).resize(given)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"shallow": np.zeros((3, 4), np.uint8)}, "expected two images of one size"),
        ({"gamma": 0.0}, "expected a gamma above 0, got 0"),
        ({"gamma": float("nan")}, "expected a gamma above 0, got nan"),
        ({"deep": np.zeros((*SHAPE, 3), np.float32)}, "expected 8-bit images, got uint8 and float32"),
    ],
)
def test_what_is_no_pair_is_refused(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(pair(), **changes)


def test_what_is_not_known_is_nan_and_trusted_by_nobody():
    depth = np.array([[1.0, np.nan, np.inf, 0.0, -2.0, 3.0]], np.float32)
    confidence = np.array([[0.5, 0.5, 0.5, 0.5, 0.5, np.nan]], np.float32)
    Blank(depth.shape)(depth, confidence, shown=True)
    np.testing.assert_array_equal(depth, [[1.0, *[np.nan] * 5]])
    np.testing.assert_array_equal(confidence, [[0.5, 0, 0, 0, 0, 0]])


# Refusals.


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"backend": "magic"},
            "backend: expected one of auto, torch, onnxruntime, openvino, tensorrt, classical, got 'magic'",
        ),
        ({"precision": "int8"}, "precision: expected one of fp32, fp16, bf16, got 'int8'"),
        ({"backend": "openvino"}, "backend openvino: expected a model to run, got none; set model"),
        ({"backend": "classical", "model": "ours"}, "backend classical: expected no model, it is not learned"),
        ({"model": "nothing"}, "weights nothing: expected a file or a name of the zoo"),
        ({"model": "nothing.onnx"}, "model nothing.onnx: expected an ONNX file, got no such file"),
    ],
)
def test_what_cannot_be_asked_for(options, sentence):
    with pytest.raises(InputError, match=sentence):
        EstimatorOptions(**options)


def test_what_cannot_run_is_refused_at_once(weights, exported, tmp_path):
    with pytest.raises(InputError, match="expected device cpu and precision fp32, got cpu and bf16"):
        open_source(EstimatorOptions(str(weights), "onnxruntime", "bf16"))
    with pytest.raises(InputError, match="backend torch: expected weights, got the exported file"):
        open_source(EstimatorOptions(str(exported), "torch"))
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(exported.read_bytes()[:1000])
    with pytest.raises(InputError, match="expected a whole ONNX file"):
        open_source(EstimatorOptions(str(cut)))


def test_a_network_that_sees_no_pair_is_refused(tmp_path):
    network = build("d3net", inputs=("all_in_focus",))
    path = tmp_path / "sharp.safetensors"
    save_weights(network, ModelCard("sharp", "d3net", {"inputs": ("all_in_focus",)}), path)
    with pytest.raises(InputError, match="model sharp: expected one that sees a pair, got one that sees all_in_focus"):
        open_source(EstimatorOptions(str(path)))


@pytest.mark.parametrize("package", ["torch", "onnx", "safetensors"])
def test_a_package_that_is_missing_is_named_and_classical_needs_none(weights, package):
    code = f"""
import sys
sys.modules[{package!r}] = None
from dfd_ros.errors import InputError
from dfd_ros.inference.sources import EstimatorOptions, open_source
print(open_source(EstimatorOptions()).name)
try:
    open_source(EstimatorOptions({str(weights)!r}))
except InputError as error:
    print(error)
"""
    lines = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[0] == "classical"
    assert f"expected the package {package} to be installed, got none; pip install 'dfd_ros[infer]'" in lines[1]
