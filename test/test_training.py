"""A training can be stopped at any moment, by anything, and goes on as if nothing had happened."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from one_thread import one_thread  # noqa: F401 (all tests here run on one)
from rich.console import Console
from torch import nn

from dfd_ros.data.rendered import protocol_lens
from dfd_ros.data.samples import Dataset, Sample, Window, resized
from dfd_ros.data.synthetic import LensRange, SyntheticScenes, SyntheticSettings
from dfd_ros.datasets.files import locked
from dfd_ros.errors import InputError
from dfd_ros.inference.tensors import read_tensors
from dfd_ros.inference.weights import load_weights
from dfd_ros.learning import system, train
from dfd_ros.learning.augment import Augmentation, augment
from dfd_ros.learning.batch import collate
from dfd_ros.learning.batches import Batches, Source, whole
from dfd_ros.learning.checkpoints import SafetensorsIO
from dfd_ros.learning.datasets import lens_ranges, some_lenses
from dfd_ros.learning.kept import Kept
from dfd_ros.learning.recipe import load_recipe
from dfd_ros.models import registry
from dfd_ros.models.base import DepthModel, Signature
from dfd_ros.models.physics_net import PhysicsNet

SYNTHETIC = "{shape: [32, 40], kinds: {clutter: 1.0}}"
TINY = [
    "model.options={inputs: [shallow, deep], features: 4}",
    f"data={{train: [{{spec: 'synthetic:1000', synthetic: {SYNTHETIC}}}], workers: 0, "
    f"validate_on: {{spec: 'synthetic:2', synthetic: {SYNTHETIC}}}, augment: {{crop: [32, 32], mirror: true}}}}",
    "optimizer.rate=0.001",
    "train={steps: 6, round: 2, batch: 2, average: 0.9, log_every: 1, accelerator: cpu}",
]
AUGMENTED = Augmentation(crop=(16, 24), patches=2, mirror=True, upend=True, light=0.3)


def tiny(*changes):
    return load_recipe("dual_aperture", [*TINY, *changes])


def last(out):
    return read_tensors(out / "checkpoints/last.safetensors")


def state(out):
    return SafetensorsIO().load_checkpoint(out / "checkpoints/last.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A training that nothing disturbed."""
    out = tmp_path_factory.mktemp("training") / "run"
    return out, train.train(tiny(), out)


class Scenes(Dataset):
    """Random pictures of depth 2 m; one of them broken."""

    names = tuple("abcdef")

    def __init__(self, broken=None):
        self.broken = broken

    def read(self, index):
        rng = np.random.default_rng(index)
        shallow, deep = rng.random((2, 32, 40, 3), np.float32)
        if self.names[index] == self.broken:
            shallow[0, 0] = np.nan
        return Sample(self.names[index], shallow, deep, np.full((32, 40), 2.0, np.float32), protocol_lens())


class Forgetful(DepthModel):
    """A convolution, half of whose features are dropped in training."""

    def __init__(self, features: int = 8) -> None:
        super().__init__(Signature(("shallow", "deep")))
        self.body = nn.Sequential(
            nn.Conv2d(6, features, 3, padding=1), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(features, 1, 1)
        )

    def predict(self, images):
        return {"depth": self.body(images)}


def feed(monkeypatch, scenes):
    monkeypatch.setattr(train, "open_batches", lambda recipe: Batches([Source(scenes)], 2, Augmentation(), 0))
    monkeypatch.setattr(train, "open_data", lambda recipe: Scenes())


def test_a_training_leaves_weights_with_their_card_logs_and_checkpoints(finished):
    out, result = finished
    model, card = load_weights(result.weights)
    assert (card.model, card.steps, card.inputs) == ("dual_aperture", 6, ("shallow", "deep"))
    assert card.parameters == sum(p.numel() for p in model.parameters())
    assert 0 < card.metrics["rel"] < 2
    assert card.recipe["train"]["round"] == 2
    assert card.lens["largest_coc"][0] >= 2.0
    assert json.loads((out / "dual_aperture.json").read_text())["name"] == "dual_aperture"
    log = (out / "logs/0/metrics.csv").read_text().splitlines()
    assert {"loss", "gradient", "step", "val/rel"} <= set(log[0].split(","))
    assert list((out / "logs/0").glob("events.out.tfevents.*"))
    assert state(out)["global_step"] == 6
    assert yaml.safe_load((out / "recipe.yaml").read_text())["train"]["steps"] == 6


def test_a_card_names_no_folders_of_this_machine():
    recipe = tiny("data.train.0.spec=rgbd:/home/someone/rooms", "data.train.0.lens=/etc/lenses/my_lens.yaml")
    card = train.make_card(recipe, {}, [], 6)
    assert card.data == ("rgbd:rooms",)
    assert card.recipe["data"]["train"][0]["lens"] == "my_lens.yaml"
    assert card.recipe["source"] == recipe.source


def test_the_same_recipe_gives_the_same_weights(finished, tmp_path):
    train.train(tiny(), tmp_path / "again")
    assert same(last(tmp_path / "again")[0], last(finished[0])[0])


def test_after_kill_9_a_training_ends_with_the_weights_of_one_that_nothing_disturbed(tmp_path):
    changes = ("train.steps=60", "train.round=20", "optimizer.kind=adamw", "schedule={kind: cosine, warmup: 3}")
    recipe = tmp_path / "recipe.yaml"
    train.save_recipe(tiny(*changes), recipe)
    command = [sys.executable, "-m", "dfd_ros.cli", "train", str(recipe), "--out", str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed/checkpoints/last.safetensors").is_file() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stopped_at = state(tmp_path / "killed")["global_step"]
    assert stopped_at in (20, 40)
    train.train(load_recipe(recipe), tmp_path / "killed", resume=True)
    train.train(load_recipe(recipe), tmp_path / "whole")
    resumed, undisturbed = state(tmp_path / "killed"), state(tmp_path / "whole")
    assert same(resumed["state_dict"], undisturbed["state_dict"])
    for one, other in zip(*(s["optimizer_states"][0]["state"].values() for s in (resumed, undisturbed)), strict=True):
        assert same(one, other)
    assert resumed["metrics"] == undisturbed["metrics"]


_TRAIN_AFTER_OPENCV = """
import sys
from pathlib import Path
import cv2
import numpy as np
from dfd_ros.learning.recipe import load_recipe
from dfd_ros.learning.train import train
cv2.setNumThreads(2)
cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.float32), (31, 31), 0)
train(load_recipe(sys.argv[1]), Path(sys.argv[2]))
"""


def test_loading_starts_after_opencv_has_worked_on_several_threads(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    train.save_recipe(tiny("data.workers=1"), recipe)
    command = [sys.executable, "-c", _TRAIN_AFTER_OPENCV, str(recipe), str(tmp_path / "out")]
    subprocess.run(command, check=True, timeout=120)  # it used to wait for ever
    assert state(tmp_path / "out")["global_step"] == 6


def test_dropout_too_goes_on_as_it_would_have(tmp_path, monkeypatch):
    """Its random numbers come from the step's number, not from a generator that would have to be kept."""
    monkeypatch.setattr(registry, "MODELS", {**registry.MODELS, "forgetful": Forgetful})
    recipe = tiny("model={name: forgetful}", "train.steps=4")
    feed(monkeypatch, Scenes())
    train.train(recipe, tmp_path / "whole")

    class StopError(Exception):
        pass

    def stop(self, trainer, module):
        if trainer.global_step > 2:
            raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(train._RoundReport, "on_train_epoch_end", stop)
        with pytest.raises(StopError):
            train.train(recipe, tmp_path / "stopped")
    assert state(tmp_path / "stopped")["global_step"] == 2
    torch.manual_seed(12345)
    train.train(recipe, tmp_path / "stopped", resume=True)
    assert same(last(tmp_path / "stopped")[0], last(tmp_path / "whole")[0])


def test_two_processes_learn_what_one_does(finished, tmp_path):
    """Two processes with one sample each take the steps of one process with two."""
    recipe = tmp_path / "recipe.yaml"
    train.save_recipe(tiny("train.devices=2", "train.batch=1"), recipe)
    command = [sys.executable, "-m", "dfd_ros.cli", "train", str(recipe), "--out", str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (state(out)["state_dict"] for out in (finished[0], tmp_path / "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)


def test_a_loss_that_is_no_number_stops_the_training_names_the_sample_and_keeps_the_last_checkpoint(
    tmp_path, monkeypatch
):
    feed(monkeypatch, Scenes(broken="d"))
    # Six samples in batches of two: the broken one comes within three steps; the first round is one step.
    order = [names for step in range(3) for names in Batches([Source(Scenes())], 2, Augmentation(), 0)[step].names]
    when = order.index("d") // 2
    assert when > 0, "another seed, please"
    with pytest.raises(system.NotFiniteError, match=f"step {when} is not a number, because of sample d;"):
        train.train(tiny("train.round=1"), tmp_path / "run")
    kept = state(tmp_path / "run")
    assert kept["global_step"] == when
    assert all(torch.isfinite(tensor).all() for tensor in kept["state_dict"].values())


def test_a_training_stops_when_it_gets_no_better(tmp_path):
    train.train(tiny("optimizer.rate=1e-12", "train.average=0", "train.round=1", "train.patience=2"), tmp_path / "run")
    assert state(tmp_path / "run")["global_step"] == 3


def test_a_folder_with_a_training_is_not_overwritten_and_not_gone_on_with_by_another_recipe(finished):
    out, _ = finished
    with pytest.raises(InputError, match="expected a new folder or --resume"):
        train.train(tiny(), out)
    with pytest.raises(InputError, match=r"train.seed is 0, got 7"):
        train.train(tiny("train.seed=7"), out, resume=True)


def test_two_trainings_do_not_write_into_one_folder(finished):
    out, _ = finished
    before, _ = last(out)
    with (
        locked(out / "recipe.yaml", "it"),
        pytest.raises(InputError, match=f"{out}: expected no other process at work"),
    ):
        train.train(tiny(), out, resume=True)
    assert same(last(out)[0], before)


def test_a_finished_training_resumed_stays_as_it_is(finished):
    out, result = finished
    before = read_tensors(result.weights)
    train.train(tiny(), out, resume=True, console=Console(quiet=True))
    after = read_tensors(result.weights)
    assert same(after[0], before[0])
    assert after[1] == before[1]


def test_rounds_are_equal():
    assert train.equal_rounds(tiny("train.steps=1000", "train.round=300")) == (250, 4)
    assert train.equal_rounds(tiny("train.steps=5", "train.round=300")) == (5, 1)


@pytest.mark.parametrize(
    ("kind", "factors"),
    [
        ("{kind: constant, warmup: 1}", [0.5, 1, 1, 1, 1]),
        ("{kind: linear}", [1, 0.75, 0.5, 0.25, 0]),
        ("{kind: cosine, final: 0.5}", [1, 0.927, 0.75, 0.573, 0.5]),
        ("{kind: steps, every: 2, factor: 0.1}", [1, 1, 0.1, 0.1, 0.01]),
    ],
)
def test_the_learning_rate_follows_its_schedule(kind, factors):
    factor = system.rate_factor(tiny(f"schedule={kind}").schedule, 4)
    assert [factor(step) for step in range(5)] == pytest.approx(factors, abs=1e-3)


def test_the_average_of_weights_follows_them():
    models = [system.build_model(tiny(f"train.seed={seed}")) for seed in (0, 1)]
    before = {name: tensor.clone() for name, tensor in models[0].state_dict().items()}
    system.update_average(models[0], models[1], 0.75)
    for name, tensor in models[0].state_dict().items():
        torch.testing.assert_close(tensor, 0.75 * before[name] + 0.25 * models[1].state_dict()[name])


def test_weights_that_are_kept_lie_between_what_was_learned_and_what_was_begun_with(finished, tmp_path):
    _, begun = finished
    changes = (f"model.init={begun.weights}", "train.round=6")
    learned = train.train(tiny(*changes), tmp_path / "learned")
    mixed = tiny(*changes, "model.init_share=0.25")
    kept = train.train(mixed, tmp_path / "kept")
    first, last, between = (read_tensors(result.weights)[0] for result in (begun, learned, kept))
    for name, tensor in between.items():
        torch.testing.assert_close(tensor, 0.25 * first[name] + 0.75 * last[name])
    assert not same(first, last)
    again = train.train(mixed, tmp_path / "kept", resume=True)
    assert same(read_tensors(again.weights)[0], between)
    assert kept.card.metrics != learned.card.metrics  # those of the weights that are kept
    assert kept.card.recipe["model"]["init_share"] == 0.25


def test_statistics_of_normalisation_lie_between_too():
    models = [nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)) for _ in range(2)]
    models[1](5.0 + torch.randn(4, 1, 8, 8))
    mixed = system.between(models[1], models[0].state_dict(), 0.4)
    torch.testing.assert_close(mixed[1].running_mean, 0.6 * models[1][1].running_mean)
    assert int(mixed[1].num_batches_tracked) == 1
    assert not torch.equal(mixed[0].weight, models[1][0].weight)


def test_a_share_of_no_weights_is_refused():
    with pytest.raises(InputError, match="init_share needs weights to start from"):
        tiny("model.init_share=0.5")


def test_a_step_sees_the_same_batch_whenever_it_is_asked_for():
    batches = Batches([Source(Scenes()), Source(Scenes(), 2.0)], 4, AUGMENTED, seed=3)
    late = Batches([Source(Scenes()), Source(Scenes(), 2.0)], 4, AUGMENTED, seed=3)
    late[9]
    for number in (4, 0, 7):
        one, other = batches[number], late[number]
        assert one.names == other.names
        assert torch.equal(one.shallow, other.shallow)
    assert not torch.equal(batches[0].shallow, batches[1].shallow)


def test_all_samples_come_once_each_time_around_in_another_order():
    batches = Batches([Source(Scenes())], 2, Augmentation(), seed=0)
    rounds = [[name for k in range(3) for name in batches[3 * n + k].names] for n in range(4)]
    assert all(sorted(names) == list("abcdef") for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1


def test_a_source_without_a_share_is_not_drawn_from_and_one_must_have_some():
    sources = [Source(Scenes(), 0.0), Source(Window(SyntheticScenes(SyntheticSettings(shape=(32, 40))), 3, start=70))]
    names = {name for step in range(8) for name in Batches(sources, 2, Augmentation(), 0)[step].names}
    assert len(names) == 3
    assert not names & set(Scenes.names)
    with pytest.raises(InputError, match="expected a source with a share above 0, got none"):
        Batches(sources[:1], 2, Augmentation(), 0)


def test_a_patch_is_cut_and_mirrored_in_all_its_parts_alike():
    sample = Scenes().read(0)
    depth = np.arange(32 * 40, dtype=np.float32).reshape(32, 40)
    marked = np.repeat(depth[..., None], 3, axis=2)
    sample = replace(sample, depth=depth, shallow=marked, deep=marked)
    seen = set()
    for seed in range(20):
        batch = collate(
            [augment(sample, Augmentation(crop=(8, 8), mirror=True, upend=True), np.random.default_rng(seed))]
        )
        assert torch.equal(batch.shallow[:, :1], batch.depth)
        steps = (batch.depth[0, 0, 0, 1] - batch.depth[0, 0, 0, 0], batch.depth[0, 0, 1, 0] - batch.depth[0, 0, 0, 0])
        seen.add(tuple(float(step) for step in steps))
        # Where the patch was: its field radius tells.
        place = torch.from_numpy(depth).eq(batch.depth[0, 0, 0, 0]).nonzero()[0]
        centre = torch.tensor([15.5, 19.5])
        radius = (place - centre).norm() / centre.norm()
        assert float(batch.field[0, 0, 0, 0]) == pytest.approx(float(radius), abs=1e-5)
    assert seen == {(1.0, 40.0), (-1.0, 40.0), (1.0, -40.0), (-1.0, -40.0)}


def test_parts_of_pictures_hide_a_parallax_from_the_network_that_looks_for_it():
    """Its evidence is about the centre of the whole picture."""
    model = PhysicsNet().eval()
    for parallax, crop in ((0.0, (32, 32)), (-0.05, None)):
        sample = replace(Scenes().read(0), lens=replace(Scenes().read(0).lens, parallax=parallax))
        batch = collate([augment(sample, Augmentation(crop=crop, mirror=True, upend=True), np.random.default_rng(0))])
        assert batch.uncut == (crop is None)
        assert system.run_model(model, batch)["depth"].shape == batch.depth.shape
    batch = collate([augment(sample, Augmentation(crop=(32, 32)), np.random.default_rng(0))])
    with pytest.raises(InputError, match="expected whole pictures of lens"):
        system.run_model(model, batch)


def test_a_patch_larger_than_its_sample_is_refused():
    with pytest.raises(InputError, match="expected 64x64 pixels to crop, got 40x32"):
        augment(Scenes().read(0), Augmentation(crop=(64, 64)), np.random.default_rng(0))


def test_light_changes_by_channel_and_never_clips() -> None:
    sample = Scenes().read(0)
    gains = []
    for seed in range(40):
        lit = augment(sample, Augmentation(light=0.4), np.random.default_rng(seed)).sample
        bright = sample.deep > 0.1
        gain = [np.median(lit.deep[..., c][bright[..., c]] / sample.deep[..., c][bright[..., c]]) for c in range(3)]
        np.testing.assert_allclose(lit.shallow, sample.shallow * np.float32(gain), rtol=1e-4)
        gains.append(gain)
    assert np.max(gains) <= 1.0001
    assert np.std(np.log(gains)) > 0.1


def test_zoom_brings_a_batch_to_one_size_and_its_coc_along() -> None:
    batches = Batches([Source(Scenes())], 2, Augmentation(zoom=(0.5, 1.0)), seed=0)
    plain = Batches([Source(Scenes())], 2, Augmentation(), seed=0)
    sizes = set()
    for number in range(6):
        batch, original = batches[number], plain[number]
        zoom = batch.depth.shape[-1] / original.depth.shape[-1]
        sizes.add(zoom)
        assert batch.names == original.names
        assert batch.known_lenses()[0].coc_scale == pytest.approx(zoom * original.known_lenses()[0].coc_scale)
        assert float(batch.deep.mean()) == pytest.approx(float(original.deep.mean()), rel=0.02)
    assert len(sizes) > 3
    assert 0.48 < min(sizes) < max(sizes) <= 1.0
    with pytest.raises(InputError, match="zoom must be the least and the greatest"):
        tiny("data.augment.zoom=[1.0,0.5]")


def test_pictures_of_a_source_are_brought_to_their_zoomed_size_in_one_step() -> None:
    """Shrunk first and then enlarged they had lost their detail."""
    sample = Scenes().read(0)
    height, width = sample.depth.shape
    half = Source(Scenes(), shape=(height // 2, width // 2))
    for found, scale in ((half.read(0, zoom=2.0), 1.0), (half.read(0), 0.5)):
        np.testing.assert_array_equal(found.deep, resized(sample, (round(scale * height), round(scale * width))).deep)
        assert found.lens is not None
        assert found.lens.coc_scale == pytest.approx(scale * sample.lens.coc_scale)
    batch = Batches([half], 1, Augmentation(zoom=(2.0, 2.0)), seed=0)[0]
    name = Scenes().names.index(batch.names[0])
    np.testing.assert_array_equal(batch.deep[0].permute(1, 2, 0).numpy(), Scenes().read(name).deep)


def test_cards_say_what_coc_was_seen_zoom_included():
    lens = Scenes().read(0).lens
    largest = lens.coc_scale / lens.f_number_shallow
    ranges = lens_ranges([Scenes().read(0).lens], (0.5, 1.2))
    assert ranges["largest_coc"] == pytest.approx((0.5 * largest, 1.2 * largest))
    assert ranges["focus_distance"] == (lens.focus_distance, lens.focus_distance)


def test_cards_of_random_lenses_tell_about_the_whole_range() -> None:
    scenes = Window(SyntheticScenes(SyntheticSettings(shape=(16, 16), lens=LensRange())), 200)
    ranges = lens_ranges(some_lenses(Batches([Source(scenes)], 2, Augmentation(), seed=0)))
    low, high = ranges["f_number_shallow"]
    assert low < 1.55
    assert high > 3.85


def test_coc_of_a_batch_is_the_lenss():
    batch = whole(Scenes().read(0))
    lens = batch.known_lenses()[0]
    depth = torch.linspace(0.5, 9.0, 32 * 40).reshape(1, 1, 32, 40)
    torch.testing.assert_close(batch.coc(depth, "deep"), lens.coc(depth, lens.f_number_deep))
    moved = batch.coc(depth, "shallow", 4.0)
    torch.testing.assert_close(moved, lens.refocused(4.0).coc(depth))
    assert moved[depth == depth.flatten()[(depth - 4.0).abs().argmin()]].item() < 0.1


def test_what_is_kept_comes_out_the_same_and_is_read_once() -> None:
    reads: list[int] = []

    class Counted(Window):
        def read(self, index: int) -> Sample:
            reads.append(index)
            return super().read(index)

    scenes = Counted(SyntheticScenes(SyntheticSettings(shape=(32, 48))), 3)
    bytes_of_one = 32 * 48 * (3 + 3 + 3 * 2 + 4)
    kept = Kept(scenes, 2.5 * bytes_of_one)
    first, again = ([kept[i] for i in range(3)] for _ in range(2))
    assert reads == [0, 1, 2, 2]  # there is room for two
    for one, other, fresh in zip(first, again, scenes, strict=True):
        for name in ("shallow", "deep", "depth", "all_in_focus"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(one.shallow, fresh.shallow)  # of bytes
        np.testing.assert_allclose(one.all_in_focus, fresh.all_in_focus, atol=2.5e-4)
