"""Aperture drivers: the Protocol, how one is found, and the simulated one.

A driver is found by its entry point in the group `dfd_ros.aperture_drivers`, so any installed package can bring one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

from dfd_ros.capture.aperture import Aperture
from dfd_ros.errors import InputError

DRIVER_GROUP = "dfd_ros.aperture_drivers"


class DriverError(RuntimeError):
    """The aperture's hardware did not do what it was told; one sentence."""


@dataclass(frozen=True)
class DriverSettings:
    """What a driver may need to know.

    Attributes:
        port: Serial port or other address of the device.
        baud_rate: Of a serial port.
        timeout: Seconds within which the device must answer.
        settle_time: Seconds from the command to the settled aperture, for devices that do not tell.
    """

    port: str = ""
    baud_rate: int = 115200
    timeout: float = 0.2
    settle_time: float = 0.015


class ApertureDriver(Protocol):
    """Sets the aperture of one lens. Every method raises `DriverError` within the timeout if the device fails."""

    def open(self) -> None:
        """Connect to the device, or connect anew after a fault."""

    def set(self, aperture: Aperture) -> float:
        """Begin to set the aperture; returns the seconds from now until it is settled."""

    def close(self) -> None:
        """Let go of the device. Never raises."""


class SimulatedDriver:
    """An aperture that always answers and settles after a fixed time."""

    def __init__(self, settings: DriverSettings) -> None:
        self._settle_time = settings.settle_time

    def open(self) -> None:
        pass

    def set(self, aperture: Aperture) -> float:
        return self._settle_time

    def close(self) -> None:
        pass


def load_driver(name: str, settings: DriverSettings) -> ApertureDriver:
    """Make the driver of that name.

    Raises:
        InputError: No installed package brings a driver of that name, or it can't be imported.
    """
    found = {entry.name: entry for entry in entry_points(group=DRIVER_GROUP)}
    if name not in found:
        raise InputError(
            f"parameter driver: expected one of {', '.join(sorted(found)) or 'none installed'}, got {name!r}"
        )
    try:
        factory: Callable[[DriverSettings], ApertureDriver] = found[name].load()
    except (ImportError, AttributeError) as error:
        raise InputError(f"parameter driver: {name!r} ({found[name].value}) cannot be loaded: {error}") from error
    return factory(settings)
