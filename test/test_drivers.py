"""The aperture's drivers and its controller: over a real pseudo-terminal, with a device that may fail in every way."""

import errno
import os
import termios
import threading
import tty
from contextlib import suppress
from itertools import pairwise

import pytest
import serial

from dfd_ros.capture.aperture import Aperture, Mode
from dfd_ros.capture.controller import ApertureController
from dfd_ros.capture.drivers import DriverError, DriverSettings, SimulatedDriver, load_driver
from dfd_ros.capture.serial_driver import SerialDriver
from dfd_ros.errors import InputError

SECOND = 1_000_000_000


class Device:
    """The other end of a pseudo-terminal: an aperture that speaks the line protocol."""

    def __init__(self, greeting="DFD-APERTURE 1", answer="OK 12.5"):
        self.greeting, self.answer = greeting, answer
        self.received = []
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        pending = b""
        with suppress(OSError):
            while chunk := os.read(self.master, 64):
                pending += chunk
                while b"\n" in pending:
                    line, pending = pending.split(b"\n", 1)
                    request = line.decode()
                    self.received.append(request)
                    answer = self.greeting if request == "?" else self.answer
                    if answer is not None:
                        os.write(self.master, f"{answer}\n".encode())

    def vanish(self):
        for end in (self.master, self._slave):
            with suppress(OSError):
                os.close(end)


@pytest.fixture
def device():
    device = Device()
    yield device
    device.vanish()


def serial_driver(device, timeout=0.1):
    return SerialDriver(DriverSettings(port=device.port, timeout=timeout))


def test_the_serial_driver_switches_and_learns_the_settle_time(device):
    driver = serial_driver(device)
    driver.open()
    assert driver.set(Aperture.SHALLOW) == pytest.approx(0.0125)
    assert driver.set(Aperture.DEEP) == pytest.approx(0.0125)
    driver.close()
    assert device.received == ["?", "S", "D"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "no answer to 'S' within 0.1 s"),
        ("ERR too hot", "'ERR too hot'"),
        ("OK soon", "'OK soon'"),
        ("", "got ''"),
    ],
)
def test_a_device_that_refuses_or_is_silent_is_an_error_with_its_words(device, answer, words):
    driver = serial_driver(device)
    driver.open()
    device.answer = answer
    with pytest.raises(DriverError, match=words):
        driver.set(Aperture.SHALLOW)


def test_another_device_on_the_port_is_told_apart(device):
    device.greeting = "GPS 7"
    with pytest.raises(DriverError, match="expected 'DFD-APERTURE 1' from the aperture, got 'GPS 7'"):
        serial_driver(device).open()


def test_a_port_that_vanishes_is_an_error(device):
    driver = serial_driver(device)
    driver.open()
    device.vanish()
    with pytest.raises(DriverError, match=f"serial port {device.port}"):
        driver.set(Aperture.DEEP)
    with pytest.raises(DriverError, match="cannot be opened"):
        driver.open()


def test_a_line_that_hangs_up_before_a_request_is_an_error(device, monkeypatch):
    driver = serial_driver(device)
    driver.open()
    master, line = os.openpty()
    os.close(master)  # nobody at the other end any more: to flush such a line is a termios.error
    monkeypatch.setattr(driver._line, "fd", line)
    with pytest.raises(DriverError, match=f"serial port {device.port} failed: .*Input/output error"):
        driver.set(Aperture.DEEP)
    os.close(line)


def test_a_line_that_hangs_up_while_it_is_opened_is_an_error(device, monkeypatch):
    def gone(_):
        raise termios.error(errno.EIO, "Input/output error")

    monkeypatch.setattr(serial.Serial, "_reset_input_buffer", gone)
    with pytest.raises(DriverError, match=f"serial port {device.port} cannot be opened: .*Input/output error"):
        serial_driver(device).open()


def test_a_missing_port_and_an_unknown_driver_are_named():
    with pytest.raises(DriverError, match="serial port /dev/nowhere cannot be opened"):
        SerialDriver(DriverSettings(port="/dev/nowhere")).open()
    with pytest.raises(InputError, match="parameter port"):
        SerialDriver(DriverSettings())
    with pytest.raises(InputError, match="expected one of serial, sim, got 'magic'"):
        load_driver("magic", DriverSettings())


def test_drivers_are_found_by_entry_point():
    assert isinstance(load_driver("sim", DriverSettings()), SimulatedDriver)
    assert isinstance(load_driver("serial", DriverSettings(port="/dev/null")), SerialDriver)


class Clock:
    def __init__(self):
        self.now = SECOND

    def __call__(self):
        return self.now


class Flaky:
    """A driver that works when told to."""

    def __init__(self):
        self.works = True
        self.opened = 0
        self.calls = []

    def open(self):
        if not self.works:
            raise DriverError("does not open")
        self.opened += 1

    def set(self, aperture):
        if not self.works:
            raise DriverError("does not answer")
        self.calls.append(aperture)
        return 0.02

    def close(self):
        pass


@pytest.fixture
def bench():
    clock, driver = Clock(), Flaky()
    controller = ApertureController(driver, clock, Mode.ALTERNATE, Aperture.SHALLOW)
    controller.poll()
    return clock, driver, controller


def test_it_alternates_and_waits_for_the_blades(bench):
    clock, driver, controller = bench
    assert driver.calls == [Aperture.SHALLOW]
    assert not controller.switch(), "the blades have not settled yet"
    clock.now += SECOND // 50
    assert controller.switch()
    report = controller.report()
    assert report.aperture == Aperture.DEEP
    assert (report.transition_start, report.settled_at) == (clock.now, clock.now + SECOND // 50)


def test_hold_stays_where_it_is(bench):
    clock, driver, controller = bench
    clock.now += SECOND
    controller.request(Mode.HOLD, Aperture.DEEP)
    clock.now += SECOND
    assert not controller.switch()
    assert controller.report().aperture == Aperture.DEEP
    assert driver.calls == [Aperture.SHALLOW, Aperture.DEEP]


def test_a_fault_is_reported_retried_with_growing_pauses_and_healed(bench):
    clock, driver, controller = bench
    clock.now += SECOND
    driver.works = False
    controller.switch()
    assert controller.fault == "does not answer"
    assert controller.mode == Mode.HOLD
    assert controller.report().fault
    attempts = []
    for _ in range(400):
        clock.now += SECOND // 10
        before = controller._retry_at
        controller.poll()
        if controller._retry_at != before:
            attempts.append(clock.now)
    pauses = [later - earlier for earlier, later in pairwise(attempts)]
    assert pauses == sorted(pauses)
    assert max(pauses) <= (ApertureController.LONGEST_RETRY + 0.1) * SECOND
    driver.works = True
    clock.now += 10 * SECOND
    assert controller.poll()
    assert controller.fault is None
    assert controller.mode == Mode.ALTERNATE
    assert not controller.report().fault
    assert controller.report().aperture == Aperture.DEEP, "it goes where it was told to before the fault"
