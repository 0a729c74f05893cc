"""Whether a topic's images and camera_info are of one camera, and of the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dfd_ros.checks.findings import Finding, Severity
from dfd_ros.checks.messages import Seen
from dfd_ros.data.image_messages import CDR_STAMP_OFFSET, STAMP_BYTES
from dfd_ros.data.vehicle_messages import camera_from_info
from dfd_ros.datasets import topics as names
from dfd_ros.datasets.scan import Reference
from dfd_ros.errors import InputError

MOST = 20
"""Changes that are told one by one."""


class Cameras:
    """Images or camera_info that change, and camera_info that does not fit its images."""

    def __init__(self) -> None:
        self._form: dict[str, str] = {}
        self._shape: tuple[int, int] | None = None
        self._info: Any | None = None
        self._info_bytes = b""
        self._checked: set[tuple[bytes, tuple[int, int]]] = set()
        self._found: list[Finding] = []
        self._mismatch: Finding | None = None

    def see(self, seen: Seen) -> None:
        if seen.name == names.IMAGE:
            self._see_image(seen.content(), seen)
        elif seen.name == names.INFO:
            self._see_info(seen)
        elif seen.name == names.PAIR:
            pair = seen.content()
            self._note(seen.topic, _form(pair.deep), seen.at)
            self._note(f"{seen.topic}: camera_info", _camera(pair.camera_info), seen.at)

    def findings(self) -> Iterator[Finding]:
        yield from self._found
        if self._mismatch is not None:
            yield self._mismatch

    def _see_image(self, image: Any, seen: Seen) -> None:
        self._note(seen.topic, _form(image), seen.at)
        self._shape = (image.height, image.width)

    def _see_info(self, seen: Seen) -> None:
        content = bytes(seen.message.data[CDR_STAMP_OFFSET + STAMP_BYTES :])
        if content != self._info_bytes:
            self._info, self._info_bytes = seen.content(), content
            self._note(seen.topic, _camera(self._info), seen.at)
        # What does not fit after a change was told as that change.
        if self._found or self._shape is None or (content, self._shape) in self._checked:
            return
        self._checked.add((content, self._shape))
        try:
            camera_from_info(self._info, self._shape)
        except InputError as error:
            self._mismatch = self._mismatch or Finding(
                "camera_mismatch", Severity.ERROR, seen.topic, seen.at, str(error)
            )

    def _note(self, what: str, form: str, at: Reference) -> None:
        before = self._form.setdefault(what, form)
        if form != before and len(self._found) < MOST:
            sentence = f"expected {before} as before, got {form}"
            self._found.append(Finding("camera_mixed", Severity.ERROR, what.partition(":")[0], at, sentence))
        self._form[what] = form


def _form(image: Any) -> str:
    return f"{image.width}x{image.height} {image.encoding} of {image.header.frame_id!r}"


def _camera(info: Any) -> str:
    distortion = ", ".join(f"{value:.6g}" for value in info.d) or "no"
    focal = f"fx {info.k[0]:.6g}, fy {info.k[4]:.6g}, cx {info.k[2]:.6g}, cy {info.k[5]:.6g}"
    return f"the camera of {info.width}x{info.height}, {focal}, {distortion} distortion"
