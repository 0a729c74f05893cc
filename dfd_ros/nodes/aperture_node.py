"""The aperture node: switches the aperture and tells everyone what it is.

Publishes `aperture/state` (latched); serves `aperture/set`; locked to frames, listens to `camera_info`, which a camera
publishes once a frame's exposure is over.
"""

from __future__ import annotations

from dataclasses import dataclass

from dfd_msgs.msg import ApertureState
from dfd_msgs.srv import SetAperture
from sensor_msgs.msg import CameraInfo

from dfd_ros.capture.aperture import Aperture, Mode
from dfd_ros.capture.controller import ApertureController
from dfd_ros.capture.drivers import DriverSettings, load_driver
from dfd_ros.nodes.base import DfdNode, latched_qos, run, subscriber_qos
from dfd_ros.nodes.convert import report_message
from dfd_ros.nodes.parameters import parameter
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.share import config_file


@dataclass(frozen=True)
class ApertureParameters:
    driver: str = parameter("sim", "aperture driver: sim, serial, or one that an installed package brings")
    port: str = parameter("", "serial port or address of the device")
    baud_rate: int = parameter(115200, "of the serial port", unit="baud", minimum=1, maximum=4_000_000)
    timeout: float = parameter(0.2, "within which the device must answer", unit="s", minimum=0.001, maximum=10.0)
    settle_time: float = parameter(
        0.015, "from command to settled aperture, where the driver does not tell", unit="s", minimum=0.0, maximum=5.0
    )
    lens_file: str = parameter("lenses/street.yaml", "lens file; gives the two f-numbers")
    mode: str = parameter("alternate", "what to do once active", choices=("alternate", "hold"))
    aperture: str = parameter("shallow", "the one to hold, or to start with", choices=("shallow", "deep"))
    trigger: str = parameter(
        "frame",
        "what switches in mode alternate: the end of each frame (camera_info), or a rate",
        choices=("frame", "rate"),
    )
    rate: float = parameter(10.0, "of switching, where trigger is rate", unit="Hz", minimum=0.01, maximum=500.0)
    heartbeat: float = parameter(
        50.0, "at which the state is repeated; a frame waits for the next one", unit="Hz", minimum=1.0, maximum=500.0
    )
    frame_id: str = parameter("camera", "frame of the aperture's state")


class ApertureNode(DfdNode[ApertureParameters]):
    """See the module."""

    def __init__(self, **arguments: object) -> None:
        super().__init__("aperture", ApertureParameters, **arguments)

    def configure(self) -> None:
        p = self.parameters
        lens = load_lens(config_file(p.lens_file))
        self._f_numbers = {Aperture.SHALLOW: lens.f_number_shallow, Aperture.DEEP: lens.f_number_deep}
        settings = DriverSettings(p.port, p.baud_rate, p.timeout, p.settle_time)
        self._controller = ApertureController(
            load_driver(p.driver, settings),
            clock=lambda: self.get_clock().now().nanoseconds,
            mode=Mode[p.mode.upper()],
            aperture=Aperture[p.aperture.upper()],
        )
        self.get_logger().info(
            f"driver {p.driver}, F/{lens.f_number_shallow:g} and F/{lens.f_number_deep:g}, mode {p.mode}"
        )

    def activate(self) -> None:
        p = self.parameters
        # A late joiner gets the recent past, so that frames taken before it joined can still be labelled.
        self._state = self.advertise(ApertureState, "aperture/state", latched_qos(depth=10))
        self._service = self.create_service(SetAperture, "aperture/set", self._set)
        self._own_timers = [self.create_timer(1.0 / p.heartbeat, self._beat)]
        if p.trigger == "frame":
            self.subscribe(CameraInfo, "camera_info", lambda info: self._switch(), subscriber_qos())
        else:
            self._own_timers.append(self.create_timer(1.0 / p.rate, self._switch))
        self._beat()

    def deactivate(self) -> None:
        for timer in self._own_timers:
            self.destroy_timer(timer)
        self.destroy_service(self._service)

    def cleanup(self) -> None:
        self._controller.close()

    def _switch(self) -> None:
        if self._controller.switch():
            self.diagnostics.count("switched")
        elif self._controller.mode == Mode.ALTERNATE:
            self.diagnostics.count("not_settled")
        self._publish()

    def _beat(self) -> None:
        self._controller.poll()
        self._publish()

    def _set(self, request: SetAperture.Request, response: SetAperture.Response) -> SetAperture.Response:
        try:
            mode, aperture = Mode(request.mode), Aperture(request.index)
        except ValueError:
            response.message = (
                f"expected mode 0 or 1 and index 0 or 1, got mode {request.mode} and index {request.index}"
            )
            return response
        self._controller.request(mode, aperture)
        self._publish()
        response.success = self._controller.fault is None
        response.message = self._controller.fault or ""
        return response

    def _publish(self) -> None:
        report = self._controller.report()
        self.diagnostics.fault(self._controller.fault)
        self.diagnostics.value("aperture", report.aperture.name.lower())
        self._state.publish(
            report_message(report, self._f_numbers[report.aperture], self._controller.mode, self.parameters.frame_id)
        )


def main() -> None:
    run(ApertureNode)
