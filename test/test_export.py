"""An exported file answers as the network does, says what it is, and a file that is not one of ours is refused."""

import json
from dataclasses import asdict, replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from one_thread import one_thread  # noqa: F401 (all tests here run on one)
from onnx import helper
from typer.testing import CliRunner

from dfd_ros.cli import app
from dfd_ros.errors import InputError
from dfd_ros.geometry import parse_size
from dfd_ros.inference.consistency import Consistency, optics_of
from dfd_ros.inference.export import OPSETS, export_model, load_program, save_program
from dfd_ros.inference.functions import add_functions
from dfd_ros.inference.graph import GraphSettings, lens_inputs
from dfd_ros.inference.metadata import read_info, weights_stamp
from dfd_ros.inference.segments import PARTS, split_parts
from dfd_ros.inference.weights import ModelCard, load_weights
from dfd_ros.inference.zoo import find_weights, zoo_names
from dfd_ros.learning.weights import save_weights
from dfd_ros.models.registry import MODELS, build
from dfd_ros.optics.lens import Lens
from dfd_ros.optics.lens_file import save_lens
from dfd_ros.optics.psf import psf_conv
from dfd_ros.optics.render import render_defocus

LENS = Lens("test", 0.8, 2.0, 8.0, coc_scale=20.0, min_depth=0.8, max_depth=8.0)
SIZE = (45, 59)  # no multiple of anything
PARITY = 1e-4
SMALL = {
    "dual_aperture": {"features": 8},
    "focus_defocus": {"features": 4},
    "physics_net": {"features": (8, 8, 8, 8), "labels": 8},
}


def network(name, **options):
    """A network in which nothing is zero, so that every part of it counts."""
    torch.manual_seed(0)
    model = build(name, **{**SMALL.get(name, {}), **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


def export(name, settings=GraphSettings(SIZE), opset=17, **options):  # noqa: B008
    card = ModelCard("weights", name, {**SMALL.get(name, {}), **options}, use="tests only")
    return export_model(network(name, **options), card, settings, opset)


def run(program, **changes):
    """ONNX Runtime's answers to the graph's example."""
    session = onnxruntime.InferenceSession(program.onnx, providers=["CPUExecutionProvider"])
    example = {key: value.numpy() for key, value in zip(program.graph.inputs, program.graph.example(), strict=True)}
    return dict(zip(program.info.outputs, session.run(None, {**example, **changes}), strict=True))


def assert_parity(program):
    with torch.inference_mode():
        expected = program.graph(*program.graph.example())
    answers = run(program)
    assert list(answers) == list(program.info.outputs)
    for (name, answer), truth in zip(answers.items(), expected, strict=True):
        assert answer.shape == program.info.outputs[name]
        assert np.abs(answer - truth.numpy()).max() <= PARITY * float(truth.abs().max()), name


def nodes(program, operator):
    return [node for node in onnx.load_model_from_string(program.onnx).graph.node if node.op_type == operator]


# What is exported answers as torch.


@pytest.mark.parametrize("name", MODELS)
def test_every_network_answers_in_onnx_runtime_as_in_torch(name):
    assert_parity(export(name))


@pytest.mark.parametrize("name", zoo_names())
def test_every_network_of_the_zoo_answers_in_onnx_runtime_as_in_torch(name):
    model, card = load_weights(find_weights(name))
    assert_parity(export_model(model, card, GraphSettings((96, 128), consistency=True)))


@pytest.mark.parametrize("lens", [None, LENS])
@pytest.mark.parametrize("name", ["physics_net", "dual_aperture"])
def test_with_consistency_too(name, lens):
    program = export(name, GraphSettings(SIZE, lens, consistency=True))
    assert_parity(program)
    confidence = run(program)["confidence"]
    assert 0.0 <= confidence.min() <= confidence.max() <= 1.0


@pytest.mark.parametrize("opset", [OPSETS[0], OPSETS[-1]])
def test_every_opset_that_is_offered_runs(opset):
    program = export("physics_net", GraphSettings(SIZE, consistency=True), opset)
    assert_parity(program)
    opsets = {entry.domain: entry.version for entry in onnx.load_model_from_string(program.onnx).opset_import}
    assert opsets == {"": opset, "dfd": 1}


def test_a_lens_that_is_an_input_does_as_the_same_lens_built_in():
    other = replace(LENS, coc_scale=9.0)
    built_in = run(export("physics_net", GraphSettings(SIZE, other, consistency=True)))
    program = export("physics_net", GraphSettings(SIZE, consistency=True))
    given = {key: value.numpy() for key, value in lens_inputs(other, program.info.inputs).items()}
    assert set(given) == {"lens", "optics"}
    for name, answer in run(program, **given).items():
        np.testing.assert_allclose(answer, built_in[name], atol=1e-5, rtol=1e-4)
    assert np.abs(run(program)["depth"] - built_in["depth"]).max() > 1e-2  # the example's lens is another


def test_what_depends_on_shapes_alone_is_computed_when_exporting():
    program = export("physics_net", GraphSettings(SIZE, LENS, consistency=True))
    for operator in ("Shape", "Range", "ConstantOfShape"):
        assert not nodes(program, operator)


# The two operators of ours.


def test_the_boundary_cue_is_a_node_that_a_plugin_may_take():
    program = export("dual_aperture")
    (node,) = nodes(program, "BoundaryCue")
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert attributes == {"plugin_namespace": b"dfd", "plugin_version": b"1", "aot": 1}
    assert [f.name for f in onnx.load_model_from_string(program.onnx).functions] == ["BoundaryCue"]
    assert not nodes(export("dual_aperture", cue=False), "BoundaryCue")


def one_node(operator, shapes, **attributes):
    """A model of one node of the domain, with its function."""
    inputs = [helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    node = helper.make_node(operator, list(shapes), ["out"], domain="dfd", **attributes)
    output = helper.make_tensor_value_info("out", 1, [None] * 4)
    graph = helper.make_graph([node], "one", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    add_functions(model)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_the_function_of_the_boundary_cue_is_torchs():
    torch.manual_seed(0)
    values = {
        "shallow": torch.rand(2, 3, 20, 30),
        "deep": torch.rand(2, 3, 20, 30),
        "weight": torch.randn(5, 3, 3, 3),
        "bias": torch.randn(5),
    }
    session = one_node("BoundaryCue", {name: value.shape for name, value in values.items()})
    (cue,) = session.run(None, {name: value.numpy() for name, value in values.items()})
    difference = values["shallow"] - values["deep"]
    expected = torch.conv2d(difference, values["weight"], values["bias"], padding=1).relu()
    np.testing.assert_allclose(cue, expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("window", [3, 9, 31])
@pytest.mark.parametrize("coc_at", ["source", "destination"])
@pytest.mark.parametrize("kind", ["disk", "gaussian"])
def test_the_function_of_the_psf_layer_is_the_layer(kind, coc_at, window, channels):
    torch.manual_seed(0)
    image, coc = torch.rand(2, channels, 24, 37), (window + 2) * torch.rand(2, 1, 24, 37)
    coc[0, 0, 3, 4] = torch.nan
    settings = {"window": window, "kind": kind, "coc_at": coc_at, "spread": 0.25}
    session = one_node("PsfConv", {"image": image.shape, "coc": coc.shape}, **settings)
    (blurred,) = session.run(None, {"image": image.numpy(), "coc": coc.numpy()})
    expected = psf_conv(image, coc, window, kind, coc_at, spread=0.25, backend="reference").numpy()
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


def test_operators_that_have_no_function_are_refused():
    with pytest.raises(InputError, match="expected nodes BoundaryCue and PsfConv of dfd, got Sharpen"):
        one_node("Sharpen", {"image": (1, 3, 8, 8)})
    shapes = {"image": (1, 1, 8, 8), "coc": (1, 1, 8, 8)}
    with pytest.raises(InputError, match="window is 4"):
        one_node("PsfConv", shapes, window=4, kind="disk", coc_at="source", spread=0.25)


# The parts of a graph.


@pytest.mark.parametrize("name", ["physics_net", "dual_aperture", "focus_defocus"])
def test_the_parts_one_after_another_are_the_whole(name):
    program = export(name, GraphSettings(SIZE, consistency=True))
    segments = split_parts(onnx.load_model_from_string(program.onnx))
    assert [segment.part for segment in segments] == list(PARTS)
    tensors = {key: value.numpy() for key, value in zip(program.graph.inputs, program.graph.example(), strict=True)}
    for segment in segments:
        session = onnxruntime.InferenceSession(segment.model.SerializeToString(), providers=["CPUExecutionProvider"])
        given = {key: tensors[key] for key in segment.inputs}
        tensors.update(zip(segment.outputs, session.run(list(segment.outputs), given), strict=True))
    for key, value in run(program).items():
        np.testing.assert_allclose(tensors[key], value, atol=1e-5 * np.abs(value).max())


def test_what_is_learned_is_all_in_the_middle_part():
    program = export("physics_net", GraphSettings(SIZE, consistency=True))
    evidence, network, answer = split_parts(onnx.load_model_from_string(program.onnx))
    weights = set(program.graph.state_dict())

    def learned(segment):
        """Under their names, or where a normalisation went into them under the exporter's."""
        return [w for w in segment.model.graph.initializer if w.name in weights or w.name.startswith("onnx::Conv")]

    assert not learned(evidence)
    assert not learned(answer)
    total = sum(parameter.numel() for parameter in program.graph.parameters())
    assert sum(int(np.prod(weight.dims)) for weight in learned(network)) > 0.8 * total
    assert set(evidence.inputs) == {"images", "lens", "optics"}
    assert {"depth", "confidence"} <= set(answer.outputs)


# Consistency.


def test_a_depth_that_explains_the_pair_keeps_its_confidence_and_others_lose_it():
    rng = np.random.default_rng(0)
    light = np.repeat(0.2 + 0.6 * rng.random((96, 128, 1), np.float32), 3, axis=2)
    depth = np.full(light.shape[:2], 3.0, np.float32)
    pair = render_defocus(light, depth, LENS, (LENS.f_number_shallow, LENS.f_number_deep))
    shallow, deep = (torch.from_numpy(p.transpose(2, 0, 1)[None].copy()) for p in pair)
    consistency = Consistency((96, 128), gamma=1.0)

    def factor(metres):
        z = torch.full((1, 1, 96, 128), metres)
        return float(consistency(shallow, deep, z, optics_of(LENS)).median())

    assert factor(3.0) > 0.5
    assert factor(3.0) > 3.0 * factor(1.2)
    assert factor(3.0) > 1.2 * factor(8.0)


def test_consistency_wants_the_pair():
    with pytest.raises(InputError, match="expected a network that sees shallow and deep, got one that sees shallow"):
        export("d3net", GraphSettings(SIZE, consistency=True))


# What the file says of itself.


def test_the_record_comes_back_with_the_file(tmp_path):
    program = export("physics_net", GraphSettings(SIZE, LENS, consistency=True))
    path = tmp_path / "new" / "net.onnx"
    save_program(program, path)
    info = load_program(path, "physics_net").info
    assert json.dumps(asdict(info)) == json.dumps(asdict(program.info))  # by their text, in which NaN equals NaN
    assert info.size == SIZE
    assert info.pictures == ("shallow", "deep")
    assert info.gamma == 2.2
    assert info.lens_used().coc_scale == LENS.coc_scale
    assert list(info.inputs) == ["images"]
    assert "physics_net at 59x45, for test, gives depth, log_variance, confidence" in info.describe()
    assert list(tmp_path.joinpath("new").iterdir()) == [path]


def test_the_stamp_is_the_weights():
    model = network("dual_aperture")
    stamp = weights_stamp(model.state_dict())
    assert stamp == weights_stamp(network("dual_aperture").state_dict()) == export("dual_aperture").info.weights
    with torch.no_grad():
        model.tail.bias += 1e-3
    assert stamp != weights_stamp(model.state_dict())


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "net.onnx"
    save_program(export("dual_aperture"), path)
    return path


def damaged(content, how):
    if how == "another's":
        session = helper.make_graph([], "none", [], [])
        return helper.make_model(session, producer_name="somebody").SerializeToString()
    if how == "changed":
        model = onnx.load_model_from_string(content)
        model.graph.initializer[0].name += "x"
        return model.SerializeToString()
    if how in ("bad record", "old format"):
        model = onnx.load_model_from_string(content)
        for entry in model.metadata_props:
            if entry.key == "dfd_ros":
                entry.value = "{" if how == "bad record" else json.dumps({"format": "dfd_ros export 0"})
        return model.SerializeToString()
    return {"empty": b"", "text": b"weights: 3\n", "truncated": content[: len(content) // 2]}[how]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("empty", "expected a whole ONNX file"),
        ("text", "expected a whole ONNX file"),
        ("truncated", "expected a whole ONNX file"),
        ("another's", "expected an ONNX file that `dfd export` wrote, got one of somebody"),
        ("changed", "got one that is truncated or changed"),
        ("bad record", "what it says of itself is damaged"),
        ("old format", "got 'dfd_ros export 0'; export it again"),
    ],
)
def test_files_that_are_not_ours_are_refused_in_one_sentence(file, tmp_path, how, sentence):
    path = tmp_path / "x.onnx"
    path.write_bytes(damaged(file.read_bytes(), how))
    with pytest.raises(InputError, match=sentence) as caught:
        load_program(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_cut_anywhere_is_refused(file, tmp_path):
    content, path = file.read_bytes(), tmp_path / "x.onnx"
    for length in [*range(0, len(content), len(content) // 40), *range(len(content) - 400, len(content), 7)]:
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="expected"):
            load_program(path)


def test_another_network_and_a_missing_file_are_refused(file, tmp_path):
    assert read_info(file, "dual_aperture").model == "dual_aperture"
    with pytest.raises(InputError, match="expected a network physics_net, got dual_aperture"):
        load_program(file, "physics_net")
    with pytest.raises(InputError, match="got no such file"):
        load_program(tmp_path / "none.onnx")


def test_what_cannot_be_exported_is_refused(tmp_path):
    with pytest.raises(InputError, match="opset: expected one from 17 to 20, got 16"):
        export("dual_aperture", opset=16)
    with pytest.raises(InputError, match="size: expected at least 32 pixels"):
        export("dual_aperture", GraphSettings((16, 64)))
    program = export("dual_aperture")
    with pytest.raises(InputError, match=r"expected a name that ends in \.onnx"):
        save_program(program, tmp_path / "net.bin")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save_program(program, tmp_path / "file" / "net.onnx")


# The command.


def test_the_command_writes_a_file_that_says_what_it_is(tmp_path):
    weights, lens, out = (tmp_path / name for name in ("net.safetensors", "lens.yaml", "net.onnx"))
    save_weights(network("dual_aperture"), ModelCard("net", "dual_aperture", SMALL["dual_aperture"]), weights)
    save_lens(LENS, lens)
    options = ["--size", "96x64", "--lens", str(lens), "--consistency"]
    result = CliRunner().invoke(app, ["export", str(weights), "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    assert "net: dual_aperture at 96x64, for test, gives depth, confidence" in result.output
    info = read_info(out)
    assert info.consistency
    assert info.size == (64, 96)


@pytest.mark.parametrize("text", ["640", "480x", "axb", "480x640x3", "-1x5"])
def test_a_size_is_height_x_width(text):
    assert parse_size("640x480") == (640, 480)
    with pytest.raises(InputError, match="size: expected WIDTHxHEIGHT such as 640x480"):
        parse_size(text)
