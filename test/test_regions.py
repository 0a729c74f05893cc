"""Objects' depth by class and by distance, and the labels that say where they are."""

import json

import pytest
from test_summary import CAR, CAR_DISTANCE, write_run

from dfd_ros.errors import InputError
from dfd_ros.metrics import Box
from dfd_ros.scoring.regions import LabelledBox, RegionScores, boxes_of_sample, load_boxes, region_cells
from dfd_ros.scoring.summary import summarise_bag

PLACE = {"x": 1, "y": 2, "width": 3, "height": 4}


def test_each_box_counts_once_in_its_class_and_at_its_distance():
    scores = RegionScores([2.0, 6.0, 12.0])
    for kind, estimate, truth in (("car", 5.0, 4.0), ("car", 9.0, 10.0), ("cone", 3.0, 3.0), ("tree", 40.0, 50.0)):
        scores.add(kind, estimate, truth)
    found = scores.to_dict()
    assert found["all"] == pytest.approx({"regions": 4, "error": 3.0, "bias": -2.5, "rel": (0.25 + 0.1 + 0.2) / 4})
    assert [(row["kind"], row["regions"], row["error"]) for row in found["kinds"]] == [
        ("car", 2, 1.0), ("cone", 1, 0.0), ("tree", 1, 10.0),
    ]  # fmt: skip
    assert [(row["from"], row["to"], row["regions"]) for row in found["bins"]] == [(2, 6, 2), (6, 12, 1)]
    assert found["kinds"][0]["bias"] == 0.0
    heads, lines = region_cells(found)
    assert [line[0] for line in lines] == ["all", "car", "cone", "tree", "2 to 6 m", "6 to 12 m"]
    assert len(heads) == len(lines[0])
    assert RegionScores([1.0, 2.0]).to_dict() is None


def test_a_run_has_them_in_its_summary(tmp_path):
    summary = summarise_bag(write_run(tmp_path / "run", unanswered=(3, 6)))
    (car,) = summary.regions["kinds"]
    assert (car["kind"], car["regions"]) == ("car", 8)
    assert (car["error"], car["rel"]) == pytest.approx((0.1 * CAR_DISTANCE, 0.1), rel=1e-4)
    assert [(row["from"], row["to"]) for row in summary.regions["bins"]] == [(6, 12)]
    assert summary.to_dict()["scores"]["regions"] == summary.regions


def test_labels_are_read_from_a_file(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"bag/1": [{"name": "Tom", "kind": "cat", **PLACE}], "bag/2": []}))
    boxes = load_boxes(path)
    assert boxes == {"bag/1": [LabelledBox("cat", "Tom", Box(1, 2, 3, 4))], "bag/2": []}
    assert boxes_of_sample(boxes, "bag/1", (6, 4)) == boxes["bag/1"]
    assert boxes_of_sample(boxes, "bag/3", (6, 4)) == ()
    with pytest.raises(InputError, match=r"expected 'Tom' within the 3x6 pixels of bag/1, got 3x4 at \(1, 2\)"):
        boxes_of_sample(boxes, "bag/1", (6, 3))


def test_labels_are_read_from_a_bag(tmp_path):
    """By their stamps, which end the names of what is built of it."""
    boxes = load_boxes(write_run(tmp_path / "run", pairs=2))
    stamp = next(iter(boxes))
    (car,) = boxes_of_sample(boxes, f"run/{stamp}", (48, 64))
    assert car == LabelledBox("car", "car 7", Box(CAR["x_offset"], CAR["y_offset"], CAR["width"], CAR["height"]))
    without = write_run(tmp_path / "without", pairs=2, leave_out=("ground_truth/objects",))
    with pytest.raises(InputError, match="expected one topic of dfd_msgs/msg/ObjectBoxes, got none"):
        load_boxes(without)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "expected JSON, got"),
        ("[]", "expected objects by sample, got a list"),
        ('{"a": {}}', "expected a list of objects for 'a', got a dict"),
        ('{"a": [3]}', "'a', object 1: expected name, x, y, width and height, got 3"),
        ('{"a": [{"name": "cat"}]}', "'a', object 1: expected name, x, y, width and height, got no x"),
        (json.dumps({"a": [{"name": "cat", **PLACE, "colour": "red"}]}), "got 'colour'"),
        (json.dumps({"a": [{"name": "cat", **PLACE, "width": 0}]}), "expected 1 pixel or more for width, got 0"),
        (json.dumps({"a": [{"name": "cat", **PLACE, "y": "two"}]}), "expected a number of pixels for y, got 'two'"),
    ],
)
def test_labels_that_cannot_be_used_are_told(tmp_path, content, sentence):
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(InputError, match=sentence):
        load_boxes(path)


def test_a_label_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_boxes(tmp_path / "none.json")
