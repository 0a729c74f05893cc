"""The image sensor: noise, gain, encoding."""

from __future__ import annotations

import numpy as np
import pytest

from dfd_ros.errors import InputError
from dfd_ros.optics.sensor import Sensor, SensorSettings


@pytest.mark.parametrize("level", [0.02, 0.18, 0.5])
def test_noise_is_photon_and_read_noise(level: float) -> None:
    """In linear 8 bit the variance is (e + r²) / full well², plus that of rounding; the mean is the light."""
    settings = SensorSettings(full_well=400.0, read_noise=6.0, gamma=1.0)  # few electrons: noise well above 8 bit
    sensor = Sensor(settings, (200, 200), seed=3)
    light = np.full((200, 200, 3), level, np.float32)
    values = sensor.expose_mix((light, light), (0.25, 0.75), 0).astype(float) / 255.0
    electrons = level * settings.full_well
    expected = (electrons + settings.read_noise**2) / settings.full_well**2 + 1 / 12 / 255**2
    inside = level > 0.1  # the darkest is clipped at black
    assert values.mean() == pytest.approx(level, rel=0.01 if inside else 0.1)
    if inside:
        assert values.var() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("gamma", [1.0, 2.2])
def test_a_bright_quiet_picture_is_its_encoded_light(bits: int, gamma: float) -> None:
    settings = SensorSettings(full_well=1e6, read_noise=1.0, gamma=gamma, bits=bits)
    light = np.linspace(0.02, 1.2, 64 * 64 * 3, dtype=np.float32).reshape(64, 64, 3)
    picture = Sensor(settings, (64, 64), seed=0).expose(light, 1.0, 0)
    white = 2**bits - 1
    assert picture.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert picture.max() == white
    expected = white * np.minimum(light, 1.0) ** (1.0 / gamma)
    noise = white * 1e-3  # shot noise of a million electrons, the encoding's slope at most 3 from 0.02 on
    assert abs(picture - expected).max() < 0.5 + 6 * 3 * noise
    assert (picture - expected).mean() == pytest.approx(0.0, abs=0.05 * max(noise, 1.0))


def test_gain_brightens_light_and_noise_alike() -> None:
    light = np.full((200, 200, 3), 0.1, np.float32)
    plain, amplified = (
        Sensor(SensorSettings(full_well=4000.0, read_noise=4.0, gain=gain, gamma=1.0, bits=12), (200, 200), seed=2)
        .expose(light, 1.0, 0)
        .astype(float)
        for gain in (1.0, 4.0)
    )
    assert amplified.mean() == pytest.approx(4.0 * plain.mean(), rel=0.01)
    assert amplified.std() == pytest.approx(4.0 * plain.std(), rel=0.01)
    assert plain.std() == pytest.approx(np.sqrt(400.0 + 16.0) / 4000.0 * 4095, rel=0.03)


def test_noise_is_new_for_each_picture_and_the_same_when_asked_again() -> None:
    sensor = Sensor(SensorSettings(), (60, 80), seed=1)
    light = np.full((60, 80, 3), 0.3, np.float32)
    first, again, other = (sensor.expose(light, 1.0, n).astype(int) for n in (7, 7, 8))
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.05
    encoded = 255.0 * 0.3 ** (1 / 2.2)
    assert first.mean() == pytest.approx(encoded, abs=0.3)
    assert 0.002 < first.std() / 255.0 < 0.01  # 0.5 % of full scale


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"bits": 9}, "bits"), ({"gain": 0.0}, "gain"), ({"full_well": 0.5}, "full_well"), ({"gamma": -1.0}, "gamma")],
)
def test_impossible_sensors_are_refused(settings: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        SensorSettings(**settings)


def test_a_picture_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"light: expected floats of shape \(60, 80, 3\)"):
        Sensor(SensorSettings(), (60, 80), seed=1).expose(np.zeros((60, 81, 3), np.float32), 1.0, 0)
