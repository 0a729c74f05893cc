"""The aperture over a serial line.

Protocol: lines of ASCII ended by a line feed, one answer to each request, within the timeout.

    request   answer                meaning
    ?         DFD-APERTURE 1        who is there, and the version of this protocol
    S         OK 12.5               go to the shallow aperture; settled in 12.5 ms
    D         OK 12.5               go to the deep aperture
    anything  ERR some words        refused, and why
"""

from __future__ import annotations

import contextlib
import termios
import time

import serial

from dfd_ros.capture.aperture import Aperture
from dfd_ros.capture.drivers import DriverError, DriverSettings
from dfd_ros.errors import InputError

GREETING = "DFD-APERTURE 1"
REQUESTS = {Aperture.SHALLOW: "S", Aperture.DEEP: "D"}
LONGEST_LINE = 128

# pyserial lets termios.error out where it flushes the line of a device that is gone, which it also does to open one.
_LINE_FAILED = (serial.SerialException, OSError, termios.error)


class SerialDriver:
    """Speaks the line protocol above."""

    def __init__(self, settings: DriverSettings) -> None:
        if not settings.port:
            raise InputError("parameter port: the serial driver needs the name of a serial port, got ''")
        self._settings = settings
        self._line: serial.Serial | None = None

    def open(self) -> None:
        self.close()
        port = self._settings.port
        try:
            self._line = serial.Serial(
                port, self._settings.baud_rate, timeout=self._settings.timeout, write_timeout=self._settings.timeout
            )
        except (*_LINE_FAILED, ValueError) as error:
            raise DriverError(f"serial port {port} cannot be opened: {error}") from error
        answer = self._ask("?")
        if answer != GREETING:
            raise DriverError(f"serial port {port}: expected {GREETING!r} from the aperture, got {answer!r}")

    def set(self, aperture: Aperture) -> float:
        answer = self._ask(REQUESTS[aperture])
        verdict, _, value = answer.partition(" ")
        try:
            settle_time = float(value) * 1e-3
        except ValueError:
            settle_time = -1.0
        if verdict != "OK" or not 0.0 <= settle_time < 10.0:
            raise DriverError(f"serial port {self._settings.port}: expected 'OK <milliseconds>', got {answer!r}")
        return settle_time

    def close(self) -> None:
        if self._line is not None:
            with contextlib.suppress(*_LINE_FAILED):
                self._line.close()
            self._line = None

    def _ask(self, request: str) -> str:
        """Send one line and return the answer's."""
        port, timeout = self._settings.port, self._settings.timeout
        if self._line is None:
            raise DriverError(f"serial port {port} is not open")
        deadline = time.monotonic() + timeout
        try:
            self._line.reset_input_buffer()  # a late answer to an earlier request is not this one's
            self._line.write(f"{request}\n".encode("ascii"))
            answer = self._line.read_until(b"\n", LONGEST_LINE)
        except (*_LINE_FAILED, TypeError) as error:
            # pyserial raises TypeError when the port is closed under it
            raise DriverError(f"serial port {port} failed: {error}") from error
        if not answer.endswith(b"\n") or time.monotonic() > deadline + timeout:
            raise DriverError(f"serial port {port}: no answer to {request!r} within {timeout:g} s, got {answer!r}")
        return answer.decode("ascii", "replace").strip()
