"""Scores are the field's metrics, whatever is scored and however it is shown."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from one_thread import one_thread  # noqa: F401 (all tests here run on one)
from rich.console import Console
from scipy.stats import laplace

from dfd_ros.data.rendered import protocol_lens
from dfd_ros.data.samples import Dataset, Sample
from dfd_ros.errors import InputError
from dfd_ros.inference.confidence import laplacian_confidence
from dfd_ros.inference.weights import ModelCard
from dfd_ros.learning import score
from dfd_ros.learning.batches import whole
from dfd_ros.learning.evaluate import evaluate
from dfd_ros.learning.predictors import (
    NetworkPredictor,
    Prediction,
    PredictorOptions,
    load_predictor,
)
from dfd_ros.learning.published import comparison_table
from dfd_ros.learning.report import write_report
from dfd_ros.learning.score import ScoreSettings, score_models
from dfd_ros.learning.weights import save_weights
from dfd_ros.models.registry import build
from dfd_ros.scoring.regions import load_boxes

SHAPE = (40, 48)
SYNTHETIC = "synthetic:2"


class Scenes(Dataset):
    names = tuple("abcd")

    def __init__(self, lens=None):
        self.lens = lens

    def read(self, index):
        rng = np.random.default_rng(index)
        shallow, deep, sharp = rng.random((3, *SHAPE, 3), np.float32)
        depth = rng.uniform(0.7, 8.5, SHAPE).astype(np.float32)
        depth[:3] = np.nan
        return Sample(self.names[index], shallow, deep, depth, self.lens, sharp)


class Teller:
    """Says the truth times something, and how sure it is."""

    name = "teller"

    def __init__(self, say):
        self.say = say

    def predict(self, sample):
        return self.say(sample)

    def synchronise(self):
        pass


def score_of(say, **options):
    return evaluate(Teller(say), Scenes(), "scenes", **options)


def noisy(sample, spread=0.2):
    rng = np.random.default_rng(sum(map(ord, sample.name)))
    return (np.nan_to_num(sample.depth, nan=1.0) * np.exp(spread * rng.standard_normal(SHAPE))).astype(np.float32)


def test_the_metrics_are_the_papers():
    found = score_of(lambda sample: Prediction(noisy(sample)))
    z = np.concatenate([noisy(sample).ravel() for sample in Scenes()]).astype(float)
    t = np.concatenate([sample.depth.ravel() for sample in Scenes()]).astype(float)
    z, t = z[np.isfinite(t)], t[np.isfinite(t)]
    expected = {
        "rel": np.mean(abs(z - t) / t),
        "log10": np.mean(abs(np.log10(z / t))),
        "rms": np.sqrt(np.mean((z - t) ** 2)),
        **{f"d{k}": np.mean(np.maximum(z / t, t / z) < 1.25**k) for k in (1, 2, 3)},
    }
    everything = found.to_dict()["scores"]["all"]
    assert everything["n"] == len(t)
    for name, value in expected.items():
        assert everything[name] == pytest.approx(value, rel=1e-4)
    assert found.rms_log == pytest.approx(np.sqrt(np.mean(np.log(z / t) ** 2)), rel=1e-5)
    assert found.rms_log == pytest.approx(0.2, rel=0.05)
    assert found.images == 4


def test_scores_have_the_form_that_scripts_rely_on():
    sure = np.full(SHAPE, 0.9, np.float32)
    found = json.loads(json.dumps(score_of(lambda s: Prediction(noisy(s), sure)).to_dict(), allow_nan=False))
    keys = {"rel", "log10", "rms", "d1", "d2", "d3", "n"}
    scores = found["scores"]
    assert set(scores) == {"all", "confident", "bins", "objects", "regions"}
    assert scores["regions"] is None
    assert keys <= set(scores["all"])
    assert keys | {"coverage"} <= set(scores["confident"])
    assert all(keys | {"from", "to"} <= set(row) for row in scores["bins"])
    assert [(row["from"], row["to"]) for row in scores["bins"]] == [(0.5, 1), (1, 2), (2, 3), (3, 4), (4, 6), (6, 9)]
    assert sum(row["n"] for row in scores["bins"]) == scores["all"]["n"]
    assert found["ms"] >= 0


def test_correlation_forgets_scale_and_rel_does_not():
    found = score_of(lambda s: Prediction(np.nan_to_num(3.0 * s.depth + 1.0, nan=1.0)))
    assert found.pearson == pytest.approx(1.0)
    assert found.total.rel > 2


def test_error_against_distance_shows_where_a_method_fails():
    found = score_of(lambda s: Prediction(np.where(s.depth > 4, 2 * s.depth, np.nan_to_num(s.depth, nan=1.0))))
    middle = np.sqrt(found.curve.edges[1:] * found.curve.edges[:-1])
    seen = found.curve.count > 0
    assert found.curve.rel[seen & (middle < 3.8)].max() == 0
    assert found.curve.rel[seen & (middle > 4.2)].min() == pytest.approx(1)
    assert found.curve.count.sum() == found.total.n


def test_truth_in_doubt_is_no_measure():
    """Where the true depth itself is hardly trusted, being wrong costs nothing, in scoring and in validation alike."""

    class Doubtful(Scenes):
        def read(self, index):
            sample = super().read(index)
            trust = np.ones(SHAPE, np.float32)
            trust[:20] = 0.4
            return replace(sample, weight=trust)

    def say(sample):
        wrong = np.nan_to_num(sample.depth, nan=1.0)
        wrong[:20] *= 3.0
        return Prediction(wrong)

    found = evaluate(Teller(say), Doubtful(), "scenes")
    assert found.total.rel == 0.0
    assert found.total.n == 4 * 20 * SHAPE[1]
    assert evaluate(Teller(say), Scenes(), "scenes").total.rel > 0.5
    batch = whole(Doubtful().read(0))
    assert int(torch.isfinite(batch.truth()).sum()) == 20 * SHAPE[1]
    assert int(torch.isfinite(batch.depth).sum()) == 37 * SHAPE[1]


def test_a_confidence_that_keeps_its_word_has_no_calibration_error():
    """A share of pixels as large as their confidence is right, the others are far off."""

    def say(sample):
        rng = np.random.default_rng(sum(map(ord, sample.name)))
        sure = rng.random(SHAPE).astype(np.float32)
        right = rng.random(SHAPE) < sure
        return Prediction(
            np.where(right, np.nan_to_num(sample.depth, nan=1.0), 50.0).astype(np.float32), sure, 1 - sure
        )

    found = score_of(say)
    assert found.calibration_error < 0.05
    assert found.uncertainty_correlation > 0.3
    liar = score_of(lambda s: Prediction(np.full(SHAPE, 50, np.float32), np.full(SHAPE, 0.9, np.float32)))
    assert liar.calibration_error == pytest.approx(0.9, abs=0.01)


def test_uncertainty_that_knows_the_error_ranks_as_it():
    found = score_of(lambda s: Prediction(noisy(s), None, abs(noisy(s) / np.nan_to_num(s.depth, nan=1.0) - 1)))
    assert found.uncertainty_correlation == pytest.approx(1, abs=1e-3)


def test_a_restored_picture_is_held_against_the_sharp_one():
    def half_way(sample):
        return Prediction(sample.depth, all_in_focus=0.5 * (sample.shallow + sample.all_in_focus))

    sharp = score_of(half_way).sharp
    # Half the error everywhere is 6 dB.
    assert sharp["psnr"] - sharp["psnr_input"] == pytest.approx(20 * math.log10(2), abs=1e-3)
    assert sharp["ssim"] > sharp["ssim_input"]


def test_objects_are_scored_one_by_one_and_by_class(tmp_path):
    path = tmp_path / "boxes.json"
    place = {"x": 4, "y": 8, "width": 12, "height": 16}
    path.write_text(json.dumps({"b": [{"name": "Tom", "kind": "cat", **place}, {"name": "cat", **place}]}))
    found = score_of(lambda s: Prediction(np.nan_to_num(1.5 * s.depth, nan=1.0)), boxes=load_boxes(path))
    tom, cat = found.scores["objects"]
    assert (tom["sample"], tom["name"], tom["kind"], cat["kind"]) == ("b", "Tom", "cat", "cat")
    assert cat["rel"] == pytest.approx(0.5, rel=1e-5)
    (row,) = found.scores["regions"]["kinds"]
    assert (row["kind"], row["regions"], row["rel"]) == ("cat", 2, pytest.approx(0.5, rel=1e-5))
    assert row["error"] == row["bias"] == pytest.approx(0.5 * cat["truth"], rel=1e-5)


def test_boxes_of_other_samples_or_beyond_the_picture_are_told(tmp_path):
    def same(sample):
        return Prediction(np.nan_to_num(sample.depth, nan=1.0))

    path = tmp_path / "boxes.json"
    cat = {"name": "cat", "x": 4, "y": 8, "width": 12, "height": 16}
    path.write_text(json.dumps({"nobody": [cat]}))
    with pytest.raises(InputError, match=r"samples such as .*, got those of nobody"):
        score_of(same, boxes=load_boxes(path))
    path.write_text(json.dumps({"b": [{**cat, "x": 4000}]}))
    with pytest.raises(InputError, match=r"expected 'cat' within the .* pixels of b, got 12x16 at \(4000, 8\)"):
        score_of(same, boxes=load_boxes(path))


def test_the_confidence_of_a_laplace_distribution_is_its_probability():
    """That ln depth lies where the estimate is within 10 % of the truth."""
    for deviation in (0.02, 0.1, 0.5):
        within = laplace(scale=deviation / math.sqrt(2))
        expected = within.cdf(-math.log(0.9)) - within.cdf(-math.log(1.1))
        assert laplacian_confidence(torch.tensor(deviation)).item() == pytest.approx(expected, abs=1e-6)


def network(tmp_path, name="net", **card):
    torch.manual_seed(0)
    model = build("dual_aperture", features=4)
    model.tail.bias.data.fill_(3.0)
    path = tmp_path / f"{name}.safetensors"
    save_weights(model, ModelCard(name, "dual_aperture", {"features": 4}, **card), path)
    return path


def test_a_file_of_weights_says_what_its_network_says(tmp_path):
    predictor = load_predictor(str(network(tmp_path)), PredictorOptions(device="cpu"))
    sample = Scenes().read(0)
    said = predictor.predict(sample).depth
    pair = torch.from_numpy(np.concatenate([sample.shallow, sample.deep], axis=2).transpose(2, 0, 1)[None])
    torch.manual_seed(0)
    model = build("dual_aperture", features=4)
    model.tail.bias.data.fill_(3.0)
    np.testing.assert_allclose(said, model(pair)["depth"][0, 0].detach().numpy(), atol=1e-4)


def test_the_mean_with_the_mirror_image_mirrors_with_the_image(tmp_path):
    predictor = load_predictor(str(network(tmp_path)), PredictorOptions(flip=True, device="cpu"))
    sample = Scenes().read(0)
    mirrored = Sample(
        "m", *(np.ascontiguousarray(a[:, ::-1]) for a in (sample.shallow, sample.deep, sample.depth)), None
    )
    np.testing.assert_allclose(predictor.predict(mirrored).depth[:, ::-1], predictor.predict(sample).depth, atol=1e-4)


def test_weights_that_saw_small_pictures_are_shown_small_ones(tmp_path):
    data = {"train": [{"size": [32, 36], "register_pairs": True}]}
    predictor = load_predictor(str(network(tmp_path, recipe={"data": data})), PredictorOptions(device="cpu"))
    assert isinstance(predictor, NetworkPredictor)
    assert predictor.card.size() == (32, 36)
    assert predictor.card.registered()
    assert predictor.predict(Scenes().read(0)).depth.shape == SHAPE


@pytest.mark.parametrize(
    ("data", "registered"),
    [
        ({"spec": "synthetic:100"}, True),  # in place from the start, as photographs have to be brought to
        ({"spec": "dslr:somewhere"}, False),
        ({"spec": "dslr:somewhere", "register_pairs": True}, True),
    ],
)
def test_photographs_are_registered_unless_the_weights_saw_them_as_they_are(data, registered):
    card = ModelCard("x", "dual_aperture", recipe={"data": {"train": [data]}})
    assert card.registered() == registered


def test_the_lens_trained_for_stands_in_where_none_is_told(tmp_path):
    lens = protocol_lens()
    fields = {key: value for key, value in vars(lens).items() if not (isinstance(value, float) and math.isnan(value))}
    card = ModelCard("x", "dual_aperture", only_lens=fields)
    assert repr(card.lens_used()) == repr(lens)


def test_learning_free_estimators_ask_for_the_lens():
    with pytest.raises(InputError, match=r"sample a: expected its lens to be known, got none; give --calibration"):
        evaluate(load_predictor("classical"), Scenes(), "scenes")


def test_a_name_that_means_nothing_names_what_does():
    with pytest.raises(InputError, match=r"model magic: expected a file of weights or one of classical, s_transform"):
        load_predictor("magic")
    with pytest.raises(InputError, match="expected constant:METRES"):
        load_predictor("constant:far")


def test_passes_with_dropout_are_refused_where_there_is_none(tmp_path):
    with pytest.raises(InputError, match="expected a network of D3-Net, got dual_aperture"):
        load_predictor(str(network(tmp_path)), PredictorOptions(dropout_samples=5))


def test_published_figures_stand_beside_measured_ones_each_marked_as_which():
    title, rows = comparison_table([score_of(lambda s: Prediction(noisy(s)))], "dslr")
    assert "D200" in title
    origins = {row.system: row.origin for row in rows}
    assert origins["teller"] == "measured"
    assert origins["D3-Net, one picture, N=2.8"].startswith("published (")
    assert next(row for row in rows if "N=2.8" in row.system).figures == {
        "rel": 0.157, "log10": 0.065, "rms": 0.546, "d1": 0.809,
    }  # fmt: skip


def test_the_report_is_one_page_that_needs_nothing_else(tmp_path):
    sure = np.full(SHAPE, 0.9, np.float32)
    found = score_of(lambda s: Prediction(noisy(s), sure, 1 - sure, s.shallow), examples=1)
    title, rows = comparison_table([found], "dslr")
    page = write_report([found], title, rows, tmp_path / "out").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page
    assert "published (Carvalho" in page
    assert "<h2>teller</h2>" in page


def test_the_whole_command_prints_one_json_object(tmp_path, capsys):
    score_models(
        ScoreSettings(
            models=(str(network(tmp_path)), "constant:2"), data=SYNTHETIC, as_json=True, out=str(tmp_path / "out")
        ),
        Console(),
    )
    printed = json.loads(capsys.readouterr().out)
    assert printed["model"] == "net"
    assert printed["scores"]["all"]["n"] > 100_000
    assert [other["model"] for other in printed["compared"]] == ["constant 2 m"]
    assert {row["origin"] for row in printed["table"]} == {"measured"}
    assert json.loads((tmp_path / "out/scores.json").read_text()) == printed
    assert (tmp_path / "out/report.html").is_file()


def test_the_whole_command_prints_tables_for_people(capsys):
    score_models(ScoreSettings(models=("constant:2",), data=SYNTHETIC), Console(width=120))
    printed = capsys.readouterr().out
    assert "constant 2 m on synthetic:2, 2 pictures" in printed
    assert "rms log" in printed


def test_data_that_is_not_there_is_named():
    with pytest.raises(InputError, match="no such path"):
        score.score_models(ScoreSettings(models=("classical",), data="nowhere"), Console(quiet=True))
