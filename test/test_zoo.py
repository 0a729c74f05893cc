"""Weights are found by name or path, say what they are, never run anything, and a write that fails harms nothing."""

import json
import resource
import signal
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from one_thread import one_thread  # noqa: F401 (all tests here run on one)

from dfd_ros.errors import InputError
from dfd_ros.inference import zoo
from dfd_ros.inference.tensors import read_tensors, write_tensors
from dfd_ros.inference.weights import ModelCard, load_card, load_weights, start_from
from dfd_ros.learning.average import average_weights
from dfd_ros.learning.checkpoints import SafetensorsIO
from dfd_ros.learning.weights import save_weights
from dfd_ros.models.registry import build

OPTIONS = {"inputs": ("shallow", "deep"), "features": 4}


def tiny(**changes):
    torch.manual_seed(1)
    return build("dual_aperture", **{**OPTIONS, **changes})


def save(path, network=None, **changes):
    card = ModelCard("tiny", "dual_aperture", OPTIONS, use="tests only", metrics={"rel": 0.5})
    save_weights(network or tiny(), replace(card, **changes), path)
    return path


def test_weights_come_back_with_their_card(tmp_path):
    path = save(tmp_path / "tiny.safetensors")
    model, card = load_weights(path)
    images = torch.rand(1, 6, 32, 32)
    torch.testing.assert_close(model(images)["depth"], tiny().eval()(images)["depth"])
    assert not model.training
    assert card.use == "tests only"
    assert json.loads((tmp_path / "tiny.json").read_text())["metrics"] == {"rel": 0.5}
    assert "rel 0.500; tests only" in card.describe()


def test_weights_kept_in_16_bits_are_half_as_large_and_nearly_the_same(tmp_path):
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    card = ModelCard("tiny", "dual_aperture", OPTIONS)
    save_weights(tiny(), card, whole)
    save_weights(tiny(), card, half, half=True)
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    images = torch.rand(1, 6, 32, 32)
    one, other = (load_weights(path)[0](images)["depth"] for path in (whole, half))
    torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-2)


def test_weights_are_found_by_name_and_by_path(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "ZOO", tmp_path)
    path = save(tmp_path / "tiny.safetensors")
    assert zoo.zoo_names() == ("tiny",)
    assert zoo.find_weights("tiny") == zoo.find_weights(path) == path
    assert [card.name for card in zoo.zoo_cards()] == ["tiny"]
    with pytest.raises(InputError, match=r"weights huge: expected a file or a name of the zoo \(tiny\), got neither"):
        zoo.find_weights("huge")


def test_the_mean_of_weights_is_one_file_like_them(tmp_path):
    networks = [tiny(), tiny(), tiny()]
    for factor, network in zip((1.0, 2.0, 6.0), networks, strict=True):
        for tensor in network.state_dict().values():
            tensor.mul_(factor) if tensor.is_floating_point() else tensor.fill_(7)
    recipes = [{"name": name, "train": {"half": name == "a"}} for name in "abc"]
    lenses: list[dict] = [
        {"f_number_shallow": (1.5, 2.0)},
        {"f_number_shallow": (1.4, 1.9), "min_depth": (0.5, 0.5)},
        {},
    ]
    paths = [
        save(
            tmp_path / f"{recipe['name']}.safetensors",
            network,
            recipe=recipe,
            data=("scenes", recipe["name"]),
            lens=lens,
        )
        for network, recipe, lens in zip(networks, recipes, lenses, strict=True)
    ]
    card = average_weights(paths, tmp_path / "mean.safetensors")
    mean, read = load_weights(tmp_path / "mean.safetensors")
    for name, tensor in tiny().state_dict().items():
        expected = 3.0 * tensor if tensor.is_floating_point() else torch.full_like(tensor, 7)
        torch.testing.assert_close(mean.state_dict()[name], expected, rtol=1e-3, atol=1e-4)  # kept in 16 bits
    assert read == card
    assert card.data == ("scenes", "a", "b", "c")
    assert card.lens == {"f_number_shallow": (1.4, 2.0), "min_depth": (0.5, 0.5)}
    assert card.metrics == {}
    assert (card.recipe, card.averaged_with) == (recipes[0], tuple(recipes[1:]))


def test_a_file_named_again_counts_again(tmp_path):
    networks = [tiny(), tiny()]
    for tensor in networks[1].state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(5.0)
    one, other = (save(tmp_path / f"{k}.safetensors", network) for k, network in enumerate(networks))
    average_weights([one, one, one, other], tmp_path / "mean.safetensors")
    mean = load_weights(tmp_path / "mean.safetensors")[0].state_dict()
    for name, tensor in tiny().state_dict().items():
        torch.testing.assert_close(mean[name], 2.0 * tensor if tensor.is_floating_point() else tensor)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"use": "research only"}, "use"),
        ({"only_lens": {"name": "another"}}, "only_lens"),
        ({"options": {**OPTIONS, "features": 8}}, "options"),
    ],
)
def test_weights_of_another_kind_are_not_averaged(tmp_path, changes, what):
    one = save(tmp_path / "one.safetensors")
    other = save(tmp_path / "other.safetensors", tiny(**changes.get("options", {})), **changes)
    with pytest.raises(InputError, match=f"weights {other}: expected the {what} of {one}"):
        average_weights([one, other], tmp_path / "mean.safetensors")
    with pytest.raises(InputError, match="expected two files of weights or more, got 1"):
        average_weights([one], tmp_path / "mean.safetensors")
    assert not (tmp_path / "mean.safetensors").exists()


def test_what_comes_with_the_package_is_small_and_says_what_it_may_be_used_for():
    files = list(zoo.ZOO.glob("*")) if zoo.ZOO.is_dir() else []
    assert sum(file.stat().st_size for file in files) < zoo.MAX_BYTES
    for card in zoo.zoo_cards():
        assert card.use
        assert card.metrics
        assert card.data


def test_weights_of_another_model_are_refused(tmp_path):
    path = save(tmp_path / "tiny.safetensors")
    with pytest.raises(InputError, match=r"expected weights of d3net, got dual_aperture$"):
        start_from(build("d3net"), "d3net", {}, path)
    with pytest.raises(InputError, match=r"dual_aperture with features=8, got features=4$"):
        start_from(tiny(features=8), "dual_aperture", {**OPTIONS, "features": 8}, path)
    model = tiny()
    start_from(model, "dual_aperture", {"inputs": ["shallow", "deep"], "features": 4}, path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "got no such file"),
        (b"", "expected a whole safetensors file"),
        (b"\x80\x04\x95pickle", "expected a whole safetensors file"),
        ("truncated", "expected a whole safetensors file"),
        ("no card", "got tensors without a model card"),
        ("checkpoint", "got a training's checkpoint"),
        ("other tensors", "of which .* has shape"),
        ("bad card", "its model card is damaged"),
        ("unknown model", "model must be one of"),
    ],
)
def test_files_that_are_no_weights_are_refused_in_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "x.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "truncated":
        save(path)
        path.write_bytes(path.read_bytes()[:-10])
    elif content == "no card":
        write_tensors({"a": torch.zeros(2)}, path, {})
    elif content == "checkpoint":
        SafetensorsIO().save_checkpoint({"state_dict": {"a": torch.zeros(2)}}, path)
    elif content == "other tensors":
        save(path, tiny(features=8))
    elif content == "bad card":
        write_tensors({"a": torch.zeros(2)}, path, {"format": "dfd_ros weights 1", "card": "{"})
    elif content == "unknown model":
        save(path, model="alexnet", options={})
    with pytest.raises(InputError, match=sentence) as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_not_opened(tmp_path):
    """Unpickling would run it."""
    ran = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return (ran.touch, ())

    path = tmp_path / "trap.safetensors"
    torch.save({"state_dict": Trap()}, path)
    for load in (load_weights, load_card, SafetensorsIO().load_checkpoint):
        with pytest.raises(InputError, match="expected a whole safetensors file"):
            load(path)
    assert not ran.exists()


def test_a_trainings_state_comes_back_as_it_was(tmp_path):
    state = {
        "epoch": 3,
        "betas": (0.9, 0.999),
        "rate": float("inf"),
        "none": None,
        "flags": [True, False],
        "optimizer": {"state": {0: {"step": torch.tensor(7.0), "mean": torch.rand(2, 3)}, 1: {}}},
        "text": "π",
    }
    io = SafetensorsIO()
    io.save_checkpoint(state, tmp_path / "state.safetensors")
    again = io.load_checkpoint(tmp_path / "state.safetensors")
    mean = again["optimizer"]["state"][0].pop("mean")
    assert torch.equal(mean, state["optimizer"]["state"][0].pop("mean"))
    assert again == state
    io.remove_checkpoint(tmp_path / "state.safetensors")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_kept_as_numbers_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected numbers, text and tensors, got object"):
        SafetensorsIO().save_checkpoint({"thing": object()}, tmp_path / "state.safetensors")


@contextmanager
def full_disk(free):
    """No file may grow beyond so many bytes: as on a full disk, a write fails half-way."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_on_a_full_disk_the_checkpoint_before_stays_whole(tmp_path):
    path = tmp_path / "last.safetensors"
    io = SafetensorsIO()
    io.save_checkpoint({"step": 1, "w": torch.ones(1000)}, path)
    before = path.read_bytes()
    with full_disk(10_000), pytest.raises(InputError, match=r"cannot be written \(.*\); the previous one is whole"):
        io.save_checkpoint({"step": 2, "w": torch.ones(100_000)}, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]
    assert io.load_checkpoint(path)["step"] == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_tensors({"a": torch.zeros(1)}, tmp_path / "file" / "x.safetensors", {})
    assert read_tensors(save(tmp_path / "new" / "x.safetensors"))[1]["format"]


def test_the_weights_that_come_along_load_and_say_what_they_may_be_used_for():
    assert zoo.zoo_names() == ("ours", "ours-dslr")
    assert sum(file.stat().st_size for file in zoo.ZOO.iterdir()) < zoo.MAX_BYTES
    uses = {}
    for name in zoo.zoo_names():
        model, card = load_weights(zoo.find_weights(name))
        assert sum(parameter.numel() for parameter in model.parameters()) == card.parameters
        uses[name] = card.use
    assert uses["ours"] == "free to use"
    assert uses["ours-dslr"].startswith("research use only")
