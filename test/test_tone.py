"""Encoded values and linear light."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfd_ros.tone import apply_gain, linear_grey


@given(gamma=st.floats(0.5, 3.0), value=st.integers(0, 255))
def test_linear_grey_undoes_gamma(gamma, value):
    expected = (value / 255) ** gamma
    grey = linear_grey(np.full((2, 3), value, np.uint8), gamma)
    colour = linear_grey(np.full((2, 3, 3), value, np.uint8), gamma)
    assert grey.dtype == colour.dtype == np.float32
    assert grey.shape == colour.shape == (2, 3)
    assert np.allclose(grey, expected, rtol=1e-5)
    assert np.allclose(colour, expected, rtol=1e-4)


def test_green_is_brightest_and_blue_darkest():
    red, green, blue = (linear_grey(np.eye(3, dtype=np.uint8)[None, i : i + 1] * 255, 2.2)[0, 0] for i in range(3))
    assert green > red > blue


@given(gain=st.floats(0.2, 4.0), gamma=st.floats(1.0, 3.0), value=st.integers(1, 255))
def test_a_gain_multiplies_light_and_clips_at_white(gain, gamma, value):
    result = apply_gain(np.full((1, 1), value, np.uint8), gain, gamma)[0, 0]
    expected = 255 * min(gain * (value / 255) ** gamma, 1.0) ** (1 / gamma)
    assert result == pytest.approx(expected, abs=0.6 + 0.002 * expected)
