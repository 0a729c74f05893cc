"""The pair node: labels each frame with its aperture, pairs neighbours, and brings the two to one exposure and place.

Takes `image_raw`, `camera_info`, `aperture/state` and, where a camera knows it, `exposure`; publishes `pair`. The deep
image is passed on as it came; the shallow one is brightened or darkened and, if so configured, warped onto it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from dfd_msgs.msg import ApertureState, Exposure, ImagePair
from sensor_msgs.msg import CameraInfo, Image

from dfd_ros.capture.matching import MatchSettings, MotionError, match_pair
from dfd_ros.capture.pairing import Drop, Frame, Pair, Pairer, exposure_interval
from dfd_ros.data.image_messages import image_view
from dfd_ros.data.vehicle_messages import report_from_message
from dfd_ros.errors import InputError
from dfd_ros.nodes.base import DfdNode, latched_qos, run, subscriber_qos
from dfd_ros.nodes.convert import colour_or_grey, image_message, lens_message
from dfd_ros.nodes.parameters import parameter
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.share import config_file
from dfd_ros.stamps import NANOSECONDS, nanoseconds

# What each cause of a dropped frame means, for the log.
EXPLANATIONS = {
    "aperture_unknown": "expected an aperture/state that covers the frame's exposure, got none",
    "aperture_fault": "the aperture's driver did not answer while the frame was exposed",
    "skew": "the neighbouring frame is further away in time than max_skew",
    "size_mismatch": "the frame differs in size from its neighbour",
    "stamp_backwards": "expected a stamp after the previous frame's, got one before it",
}


@dataclass(frozen=True)
class PairParameters:
    lens_file: str = parameter("lenses/street.yaml", "lens file, passed on with each pair")
    max_skew: float = parameter(0.2, "longest time between a pair's exposures", unit="s", minimum=0.0, maximum=10.0)
    clock_tolerance: float = parameter(
        0.001, "how far the clocks of camera and aperture may disagree", unit="s", minimum=0.0, maximum=1.0
    )
    stamp_at: str = parameter(
        "start", "what an image's stamp marks of its exposure", choices=("start", "middle", "end")
    )
    exposure_times: tuple[float, ...] = parameter(
        (0.001, 0.004), "shallow and deep, where the topic exposure does not tell", unit="s", minimum=0.0, maximum=10.0
    )
    gamma: float = parameter(
        2.2, "encoding of the images, value = light^(1/gamma); 1 is linear", minimum=1.0, maximum=3.0
    )
    exposure_match: str = parameter(
        "measured",
        "how the shallow image is brought to the deep one's brightness",
        choices=("measured", "nominal", "off"),
        live=True,
    )
    motion: str = parameter(
        "compensate",
        "what is done about motion between the two images",
        choices=("compensate", "refuse", "ignore"),
        live=True,
    )
    max_motion: float = parameter(
        8.0, "a pair that moved more is dropped", unit="px", minimum=0.0, maximum=100.0, live=True
    )


@dataclass(frozen=True)
class Taken:
    """A frame's image (in a plain 8-bit encoding) and how it was exposed."""

    image: Image
    exposure: Exposure | None


class PairNode(DfdNode[PairParameters]):
    """See the module."""

    EXPOSURES_KEPT = 16

    def __init__(self, **arguments: object) -> None:
        super().__init__("pair", PairParameters, **arguments)

    def configure(self) -> None:
        p = self.parameters
        if len(p.exposure_times) != 2:
            raise InputError(f"parameter exposure_times: expected two numbers, got {len(p.exposure_times)}")
        self._lens = load_lens(config_file(p.lens_file))
        self._lens_message = lens_message(self._lens)
        self._pairer: Pairer[Taken] = Pairer(round(p.max_skew * NANOSECONDS), round(p.clock_tolerance * NANOSECONDS))
        self._exposures: OrderedDict[int, Exposure] = OrderedDict()
        self._camera_info: CameraInfo | None = None
        self._sequence = 0
        self.get_logger().info(self._lens.describe())

    def activate(self) -> None:
        self._pair = self.advertise(ImagePair, "pair")
        self.subscribe(ApertureState, "aperture/state", self._on_state, latched_qos(depth=100))
        self.subscribe(Exposure, "exposure", self._on_exposure, subscriber_qos(5))
        self.subscribe(CameraInfo, "camera_info", self._on_camera_info, subscriber_qos(5))
        self.subscribe(Image, "image_raw", self._on_image, subscriber_qos(5))

    def deactivate(self) -> None:
        self._take(self._pairer.flush())

    def _on_state(self, message: ApertureState) -> None:
        try:
            report = report_from_message(message)
        except InputError as error:
            self.diagnostics.drop("bad_aperture_state", str(error))
            return
        self._take(self._pairer.add_report(report))

    def _on_exposure(self, message: Exposure) -> None:
        self._exposures[nanoseconds(message.header.stamp)] = message
        while len(self._exposures) > self.EXPOSURES_KEPT:
            self._exposures.popitem(last=False)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    def _on_image(self, message: Image) -> None:
        self.diagnostics.count("received")
        try:
            image = colour_or_grey(message, "image_raw")
        except InputError as error:
            self.diagnostics.drop("bad_image", str(error))
            return
        stamp = nanoseconds(message.header.stamp)
        exposure = self._exposures.pop(stamp, None)
        p = self.parameters
        # Which aperture it was is not known yet, so an untold exposure counts as the longest.
        seconds = exposure.exposure_time if exposure else max(p.exposure_times)
        start, end = exposure_interval(stamp, round(seconds * NANOSECONDS), p.stamp_at)  # type: ignore[arg-type]
        frame = Frame(start, end, (image.height, image.width, image.encoding), Taken(image, exposure))
        self._take(self._pairer.add_frame(frame))

    def _take(self, outcomes: Iterable[Pair[Taken] | Drop[Taken]]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Pair):
                self._publish(outcome.shallow.payload, outcome.deep.payload)
            else:
                self.diagnostics.drop(outcome.cause.value, EXPLANATIONS.get(outcome.cause.value, ""))

    def _publish(self, shallow: Taken, deep: Taken) -> None:
        p, lens = self.parameters, self._lens
        info = self._camera_info or CameraInfo()
        size = (deep.image.width, deep.image.height)
        if self._camera_info is not None and (info.width, info.height) != size:
            why = f"camera_info: expected {size[0]}x{size[1]} as the image, got {info.width}x{info.height}"
            self.diagnostics.drop("camera_info_size", why, times=2)
            return
        shallow_time, shallow_gain = self._light(shallow, 0)
        deep_time, deep_gain = self._light(deep, 1)
        light_ratio = math.nan
        if shallow_time * shallow_gain > 0.0:
            light_ratio = deep_time * deep_gain / (shallow_time * shallow_gain) * lens.f_number_ratio**2
        settings = MatchSettings(
            gamma=p.gamma,
            exposure=p.exposure_match,  # type: ignore[arg-type]
            motion=p.motion,  # type: ignore[arg-type]
            max_motion=p.max_motion,
            magnification=lens.magnification,
            keep_magnification=lens.parallax != 0.0,
        )
        try:
            array = image_view(shallow.image, "shallow")
            match = match_pair(array, image_view(deep.image, "deep"), settings, light_ratio)
        except MotionError as error:
            self.diagnostics.drop("motion", str(error), times=2)
            return
        except InputError as error:
            self.diagnostics.drop("unmatched", str(error), times=2)
            return
        shallow_image = shallow.image
        if match.shallow is not array:
            shallow_image = image_message(match.shallow, shallow.image.encoding, shallow.image.header)
        self._pair.publish(
            ImagePair(
                header=deep.image.header,
                sequence=self._sequence,
                shallow=shallow_image,
                deep=deep.image,
                shallow_f_number=lens.f_number_shallow,
                deep_f_number=lens.f_number_deep,
                shallow_exposure_time=shallow_time,
                deep_exposure_time=deep_time,
                shallow_gain=match.gain,
                gamma=p.gamma,
                motion=match.motion,
                compensated=match.compensated,
                camera_info=info,
                lens=self._lens_message,
            )
        )
        self._sequence += 1
        self.diagnostics.count("published")

    def _light(self, taken: Taken, index: int) -> tuple[float, float]:
        """Exposure time in seconds and sensor gain."""
        if taken.exposure is None:
            return self.parameters.exposure_times[index], 1.0
        return taken.exposure.exposure_time, taken.exposure.gain


def main() -> None:
    run(PairNode)
