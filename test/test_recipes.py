"""Every recipe is whole, says what the papers say, and a mistake in one is named in a sentence."""

from pathlib import Path

import pytest
import yaml

from dfd_ros.errors import InputError
from dfd_ros.learning.datasets import open_data
from dfd_ros.learning.recipe import DataRecipe, load_recipe, save_recipe
from dfd_ros.share import config_file

RECIPES = sorted(path.stem for path in config_file("train").glob("*.yaml"))
SYSTEMS = {
    "all_in_focus", "d3net_dual", "d3net_single", "defocus_focus", "dense_aspp", "dual_aperture", "dual_aperture_no_cue",
    "ours", "ours_dslr", "single", "two_headed",
}  # fmt: skip


def test_every_system_has_a_recipe():
    assert set(RECIPES) >= SYSTEMS


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_whole(name, tmp_path):
    recipe = load_recipe(name, data="somewhere")
    assert recipe.source
    described = recipe.model.describe()
    assert described.parameters > 0
    # Every output that a loss asks for is one that the model gives.
    for term in recipe.loss:
        for key in ("output", "other", "log_variance"):
            if hasattr(term, key):
                assert getattr(term, key) in described.signature.outputs
    save_recipe(recipe, tmp_path / "again.yaml")
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_published_hyper_parameters_stand_in_the_recipes():
    """The papers' and their authors' code's, as listed in the recipes' sources."""
    dual = load_recipe("dual_aperture")
    assert (dual.optimizer.kind, dual.optimizer.rate, dual.train.batch) == ("adam", 1e-4, 16)
    assert dual.data.augment.crop == (48, 48)
    assert dual.data.augment.mirror
    assert [term.kind for term in dual.loss] == ["depth_l1"]
    assert load_recipe("d3net_single").data.augment.crop == (224, 224)
    reconstruction, _, consistency, smoothness = load_recipe("defocus_focus").loss
    assert (reconstruction.weight, consistency.weight, smoothness.weight) == (1.0, 1.0, 0.2)
    assert (reconstruction.ssim_share, reconstruction.penalty) == (0.85, "charbonnier")
    assert (reconstruction.blur, reconstruction.beta) == (0.2, 2.5)
    sequence, smooth = load_recipe("dense_aspp").loss
    assert (sequence.focus, sequence.sharpness, smooth.weight) == ((0.2, 0.8), 0.1, 1e-3)
    depth, sharp = load_recipe("two_headed").loss
    assert (depth.weight, sharp.weight, sharp.epsilon) == (1.0, 0.1, 1e-3)


def test_systems_trained_without_depth_are_not_chosen_by_depth_either():
    for name in ("defocus_focus", "dense_aspp"):
        recipe = load_recipe(name)
        assert recipe.train.monitor == "loss"
        assert not {term.kind for term in recipe.loss} & {"depth_l1", "depth_nll"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("train.stepz=3", "unknown key 'train.stepz'"),
        ("loss.0.epsilon=1", "unknown key 'loss.0.epsilon'"),
        ("train.steps=-1", "train.steps: input should be greater than 0, got -1"),
        ("optimizer={kind: adam}", "missing key 'optimizer.rate'"),
        ("loss=[{kind: magic}]", "loss.0: input tag 'magic'"),
        ("model.name=alexnet", "model must be one of"),
        ("model.options.depth=7", "has no option 'depth'"),
        ("data.train.0={spec: x, folds: 3, fold: 3}", "fold must be below folds"),
        ("data.train.7.share=1", "there is no such place in the recipe"),
        ("nonsense", "expected key=value"),
        ("model.options.cue=[", "expected a YAML value"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(change, sentence):
    with pytest.raises(InputError) as caught:
        load_recipe("dual_aperture", [change])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[1, 2]", "expected a mapping, got list"),
        ("a: [", "expected YAML"),
        ("name: Über", "missing key|name"),
        ("colour: red", "unknown key 'colour'|missing key"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path, content, sentence):
    path = tmp_path / "my.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"recipe .*my\.yaml.*({sentence})"):
        load_recipe(path)


def test_an_unknown_key_in_a_file_is_named_with_the_file(tmp_path):
    content = yaml.safe_load(config_file("train/single.yaml").read_text())
    content["optimizer"]["momentum"] = 0.9
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"recipe .*mine\.yaml: unknown key 'optimizer\.momentum'"):
        load_recipe(path)


def test_a_recipe_that_does_not_exist_names_those_that_do():
    with pytest.raises(InputError, match=r"dual_aperture_no_cue.*got neither"):
        load_recipe("dual_apperture")


def test_changes_and_data_are_filled_in():
    recipe = load_recipe("dual_aperture", ["train.steps=7", "data.train.0.share=2"], data="nyu:/somewhere")
    assert recipe.train.steps == 7
    assert recipe.data.train[0].share == 2
    assert recipe.data.train[0].spec == recipe.data.validate_on.spec == "nyu:/somewhere"
    assert load_recipe("dual_aperture").data.train[0].spec.startswith("synthetic:")


def test_data_that_a_recipe_needs_is_asked_for():
    with pytest.raises(InputError, match=r"expected --data for 'dslr:\{data\}', got none"):
        load_recipe("ours_dslr")


def test_folds_share_the_samples_out_without_overlap():
    parts = [open_data(DataRecipe(spec="synthetic:11", folds=3, fold=fold, held_out=True)).names for fold in range(3)]
    assert sorted(sum(parts, ()), key=int) == [str(n) for n in range(11)]
    for fold, held_out in enumerate(parts):
        kept = open_data(DataRecipe(spec="synthetic:11", folds=3, fold=fold)).names
        assert not set(kept) & set(held_out)
        assert len(kept) + len(held_out) == 11
    assert open_data(DataRecipe(spec="synthetic:11", folds=3, fold=1, first=2, count=3)).names == ("2", "7", "8")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"colour": 1}, "unknown setting 'colour'"),
        ({"lens": {"zoom": 2}}, "unknown setting 'zoom'"),
        ({"shape": [4, 4]}, "shape: expected"),
    ],
)
def test_wrong_settings_of_made_up_scenes_are_named(setting, sentence):
    with pytest.raises(InputError, match=sentence):
        open_data(DataRecipe(spec="synthetic:2", synthetic=setting))


def test_recipes_name_no_place_of_any_machine():
    for path in config_file("train").glob("*.yaml"):
        assert "/work" not in path.read_text()
        assert Path(path).suffix == ".yaml"
