"""Filters arranged for speed answer as the plain ones do."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from hypothesis import given, settings
from hypothesis import strategies as st
from one_thread import one_thread  # noqa: F401 (all tests here run on one)

from dfd_ros.models.filters import block_kernels, enlarge_map, filter_each, filter_picture, mean_over_window

sizes = st.integers(1, 7)


def random(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(sum(shape)).standard_normal(shape))


@given(cell=st.integers(1, 4), data=st.data(), taps=st.sampled_from([1, 3, 5]), height=sizes, width=sizes)
@settings(max_examples=40, deadline=None)
def test_blocks_hold_the_answers_of_the_plain_filter(
    cell: int, data: st.DataObject, taps: int, height: int, width: int
) -> None:
    within = st.integers(0, cell - 1)
    places = data.draw(st.lists(st.tuples(within, within), min_size=1, max_size=4))
    kernels, reach = random(2, taps, taps).numpy(), taps // 2
    picture = random(3, 1, height * cell, width * cell)
    found = filter_picture(picture, torch.from_numpy(block_kernels(kernels, places)), reach, cell)
    margin = F.pad(picture, (reach,) * 4, mode="replicate")
    plain = F.conv2d(margin, torch.from_numpy(kernels)[:, None])
    assert found.shape == (3, 2, len(places), height, width)
    for index, (y, x) in enumerate(places):
        torch.testing.assert_close(found[:, :, index], plain[..., y::cell, x::cell])


def test_every_channel_is_filtered_alike() -> None:
    for size, stride in ((3, 1), (4, 2)):
        channels, kernel = random(2, 5, 10, 12), random(1, 1, size, size)
        plain = [
            F.conv2d(F.pad(one, (1, 1, 1, 1), mode="replicate"), kernel, stride=stride)
            for one in channels.split(1, dim=1)
        ]
        torch.testing.assert_close(filter_each(channels, kernel, stride), torch.cat(plain, dim=1))


@pytest.mark.parametrize("side", [1, 3, 9, 33])
def test_the_mean_over_a_window_counts_what_lies_in_the_picture(side: int) -> None:
    channels = random(2, 3, 20, 30)
    plain = F.avg_pool2d(channels, side, 1, side // 2, count_include_pad=False)
    torch.testing.assert_close(mean_over_window(channels, side), plain)


@given(factor=st.sampled_from([2, 4, 8]), height=sizes, width=sizes)
@settings(max_examples=20, deadline=None)
def test_maps_are_enlarged_linearly(factor: int, height: int, width: int) -> None:
    values = random(2, 1, height, width)
    plain = F.interpolate(values, scale_factor=float(factor), mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarge_map(values, factor), plain)


def test_maps_are_not_rounded_in_half_precision() -> None:
    values = random(1, 1, 4, 5).float()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(enlarge_map(values, 4), enlarge_map(values.double(), 4).float())
