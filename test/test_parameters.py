"""A node's parameters: one dataclass, and a node that refuses what is wrong in one sentence, and can be mended."""

import re
from pathlib import Path

import pytest
from rclpy.parameter import Parameter

from dfd_ros.errors import InputError
from dfd_ros.nodes.aperture_node import ApertureNode, ApertureParameters
from dfd_ros.nodes.catalogue import NODE_PARAMETERS, markdown_tables
from dfd_ros.nodes.pair_node import PairNode
from dfd_ros.nodes.parameters import describe


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("rate", -1.0, "parameter rate: expected 0.01 to 500 Hz, got -1.0"),
        ("rate", "fast", "parameter rate: expected a number, got 'fast'"),
        ("mode", "shake", "parameter mode: expected one of alternate, hold, got 'shake'"),
        ("baud_rate", 0, "parameter baud_rate: expected 1 to 4000000 baud, got 0"),
        ("no_such", 1, "parameter no_such: aperture has none of that name; it has driver, port"),
        ("lens_file", "gone.yaml", "lens file .*gone.yaml: cannot be read"),
        ("driver", "magic", "parameter driver: expected one of serial, sim, got 'magic'"),
    ],
)
def test_a_node_refuses_to_configure_with_one_sentence(bench, capfd, name, value, sentence):
    node = bench.make(ApertureNode, **{name: value})
    assert node.trigger_configure().name == "FAILURE"
    assert re.search(f"not configured: {sentence}", capfd.readouterr().err)


@pytest.mark.parametrize("name", ["rate", "no_such"])
def test_the_sentence_names_the_parameter(bench, name):
    node = bench.make(ApertureNode, **{name: -1.0})
    with pytest.raises(InputError, match=f"parameter {name}: "):
        _ = node.parameters


def test_setting_a_bad_parameter_right_mends_the_node(bench):
    node = bench.make(ApertureNode, rate=-1.0)
    assert node.trigger_configure().name == "FAILURE"
    (result,) = node.set_parameters([Parameter("rate", value=20.0)])
    assert result.successful
    assert node.trigger_configure().name == "SUCCESS"
    assert node.parameters.rate == 20.0


def test_whole_numbers_serve_where_numbers_are_expected(bench):
    assert bench.make(ApertureNode, rate=20).parameters.rate == 20.0


def test_live_parameters_change_at_once_and_others_wait_for_configure(bench):
    node = bench.start(PairNode)
    (live,) = node.set_parameters([Parameter("max_motion", value=3.0)])
    assert live.successful
    assert node.parameters.max_motion == 3.0
    (fixed,) = node.set_parameters([Parameter("max_skew", value=0.5)])
    assert not fixed.successful
    assert "takes effect when the node is configured" in fixed.reason
    (bad,) = node.set_parameters([Parameter("max_motion", value=-3.0)])
    assert not bad.successful
    assert node.parameters.max_motion == 3.0


def test_ros_knows_ranges_and_descriptions(bench):
    node = bench.make(ApertureNode)
    descriptor = node.describe_parameter("rate")
    assert descriptor.description.endswith("[Hz]")
    assert (descriptor.floating_point_range[0].from_value, descriptor.floating_point_range[0].to_value) == (0.01, 500.0)


@pytest.mark.parametrize("record", NODE_PARAMETERS.values(), ids=NODE_PARAMETERS.keys())
def test_every_parameter_is_described(record):
    rows = list(describe(record))
    assert rows
    assert all(row.description for row in rows)
    assert len({row.name for row in rows}) == len(rows)


def test_defaults_are_valid_and_frozen():
    with pytest.raises(AttributeError):
        ApertureParameters().rate = 3.0


def test_the_readme_lists_the_parameters_as_they_are():
    assert markdown_tables() in (Path(__file__).parents[1] / "README.md").read_text()
