"""The aperture's controller: modes, switching, and what to do when the driver fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dfd_ros.capture.aperture import Aperture, ApertureReport, Mode
from dfd_ros.capture.drivers import ApertureDriver, DriverError
from dfd_ros.stamps import NANOSECONDS


class ApertureController:
    """Drives one aperture and reports its state.

    A driver that fails is a fault: the aperture counts as unknown, the mode falls back to hold, and `poll` connects
    anew with a growing pause; then the mode asked for is resumed.
    """

    FIRST_RETRY = 0.5  # seconds
    LONGEST_RETRY = 8.0

    def __init__(self, driver: ApertureDriver, clock: Callable[[], int], mode: Mode, aperture: Aperture) -> None:
        """`clock` gives nanoseconds of the clock the images are stamped with; `aperture` is the one to start with."""
        self.fault: str | None = "the aperture is not connected yet"
        self._driver = driver
        self._clock = clock
        self._wanted_mode = mode
        self._wanted = aperture
        self._retry_pause = self.FIRST_RETRY
        self._retry_at = 0
        now = clock()
        self._report = ApertureReport(aperture, now, now, now, fault=True)

    @property
    def mode(self) -> Mode:
        """The mode in force: hold while there is a fault."""
        return Mode.HOLD if self.fault else self._wanted_mode

    def report(self) -> ApertureReport:
        """The state of now."""
        self._report = replace(self._report, known_until=self._clock())
        return self._report

    def request(self, mode: Mode, aperture: Aperture) -> None:
        """Change the mode; hold goes to `aperture` at once."""
        self._wanted_mode = mode
        if mode == Mode.HOLD and not (self.fault is None and self._report.aperture == aperture):
            self._set(aperture)

    def switch(self) -> bool:
        """Go to the other aperture, if the mode is to alternate and the last transition is over; True if it did."""
        if self.mode != Mode.ALTERNATE or self._clock() < self._report.settled_at:
            return False
        self._set(self._report.aperture.other)
        return True

    def poll(self) -> bool:
        """Connect, or connect anew, when it is time to; True if the state changed."""
        if self.fault is None or self._clock() < self._retry_at:
            return False
        before = self.fault
        try:
            self._driver.open()
        except DriverError as error:
            self._fail(str(error))
            return self.fault != before
        self.fault = None
        self._set(self._wanted)
        return True

    def close(self) -> None:
        self._driver.close()

    def _set(self, aperture: Aperture) -> None:
        self._wanted = aperture
        if self.fault is not None:
            return  # poll sets what is wanted once the driver answers
        start = self._clock()
        try:
            settle_time = self._driver.set(aperture)
        except DriverError as error:
            self._fail(str(error), since=start)
            return
        # The command may have reached the device at any time between the two clock readings.
        now = self._clock()
        self._retry_pause = self.FIRST_RETRY
        self._report = ApertureReport(
            aperture, start, now + round(settle_time * NANOSECONDS), now, self._report.transitions + 1
        )

    def _fail(self, why: str, since: int | None = None) -> None:
        if not self._report.fault:
            start = self._clock() if since is None else since
            self._report = replace(
                self._report,
                transition_start=start,
                settled_at=start,
                transitions=self._report.transitions + 1,
                fault=True,
            )
        self.fault = why
        self._driver.close()
        self._retry_at = self._clock() + round(self._retry_pause * NANOSECONDS)
        self._retry_pause = min(2.0 * self._retry_pause, self.LONGEST_RETRY)
