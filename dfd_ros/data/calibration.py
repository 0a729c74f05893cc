"""Calibrating a lens on a folder of dual-aperture photographs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfd_ros.capture.matching import MatchSettings, MotionTooLarge, match_pair
from dfd_ros.data.photographs import PhotographFolder
from dfd_ros.errors import InputError
from dfd_ros.optics.calibrate import Calibration, fit_coc_curve
from dfd_ros.tone import linear_grey

Grey = NDArray[np.float32]
# As for the replay of photographs: they may come from a hand-held or refocused camera.
MAX_MOTION = 20.0
