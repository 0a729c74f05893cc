"""Bags into data sets: pairs a second and core by the method of dense depth, with one and two processes, memory and bytes.

The bag is the simulated vehicle's: raw frames of 640x480 with the aperture's reports, which are paired and matched, and
sweeps of 64 beams. Times are from where each process has made its first task, so that starting and compiling is not in
them. Memory is the largest process's.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dfd_msgs.msg import ApertureState, Exposure
from rclpy.serialization import serialize_message
from std_msgs.msg import Header
from table import Row, report

from dfd_ros.capture.aperture import Aperture
from dfd_ros.data.bags import BagWriter
from dfd_ros.data.built import INDEX, read_lines
from dfd_ros.datasets.build import build
from dfd_ros.datasets.settings import BuildSettings, DepthSettings
from dfd_ros.lidar.calibration import load_extrinsics
from dfd_ros.nodes.clouds import cloud_message
from dfd_ros.nodes.convert import image_message, info_from_camera, time_message
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.share import config_file, package_share
from dfd_ros.sim.vehicle import SimSettings, SimulatedVehicle, camera_of
from dfd_ros.stamps import NANOSECONDS

PAIRS = {"fast": 160, "nyu": 160, "exact": 48}
TASK = 4  # pairs
METHODS, WORKERS = ("fast", "nyu", "exact"), (1, 2)
START = 1_700_000_000 * NANOSECONDS
PERIOD = NANOSECONDS // 10  # of frames: five pairs a second
EXPOSURES = {Aperture.SHALLOW: 1e-3, Aperture.DEEP: 4e-3}
LEAST_RATE = {"fast": 12.0}  # pairs a second and core
LEAST_SPEEDUP = 1.8  # of two processes over one
MOST_MEMORY = 1.5  # GB
HOURS, PAIRS_A_SECOND = 1000, 10  # of driving


def record(path: Path, pairs: int) -> None:
    """The bag of so many pairs, with a sweep for each."""
    lens = load_lens(config_file("lenses/street.yaml"))
    camera = camera_of(lens)
    extrinsics = load_extrinsics(config_file("vehicle_extrinsics.yaml")).camera_from_lidar
    vehicle = SimulatedVehicle(SimSettings(seed=1), lens, camera, extrinsics)
    vehicle.prepare()
    with BagWriter(path, [package_share("dfd_msgs") / "msg"]) as bag:

        def write(topic: str, message: object, received: int) -> None:
            package = type(message).__module__.partition(".")[0]
            bag.write(
                f"/camera/{topic}", f"{package}/msg/{type(message).__name__}", serialize_message(message), received
            )

        for number in range(2 * pairs):
            stamp, aperture = START + number * PERIOD, Aperture(number % 2)
            header, seconds = Header(stamp=time_message(stamp), frame_id="camera"), (stamp - START) / NANOSECONDS
            shares = (1.0, 0.0) if aperture == Aperture.SHALLOW else (0.0, 1.0)
            picture = vehicle.photograph(seconds, EXPOSURES[aperture], shares)
            write("image_raw", image_message(picture, "rgb8", header), stamp)
            write("camera_info", info_from_camera(camera, header), stamp)
            write("exposure", Exposure(header=header, exposure_time=EXPOSURES[aperture], gain=1.0), stamp)
            if aperture == Aperture.DEEP:
                write(
                    "points", cloud_message(vehicle.sweep(seconds), Header(stamp=header.stamp, frame_id="lidar")), stamp
                )
            known = stamp + PERIOD // 2
            state = ApertureState(header=Header(stamp=time_message(known)), index=int(aperture), transitions=number)
            state.f_number = (lens.f_number_shallow, lens.f_number_deep)[aperture]
            state.transition_start = time_message(stamp - PERIOD // 4)
            state.settled_at = time_message(stamp - PERIOD // 8)
            write("aperture/state", state, known)


def make(bag: Path, out: Path, method: str, workers: int) -> None:
    """Build the data set of a bag and print as JSON: pairs a second, bytes of memory, bytes of files a pair."""
    settings = BuildSettings(
        lens=load_lens(config_file("lenses/street.yaml")),
        extrinsics=load_extrinsics(config_file("vehicle_extrinsics.yaml")),
        pairs_per_task=TASK,
        depth=DepthSettings(method=method),
    )
    done: list[tuple[float, int]] = []

    def note(what: str, pairs: int, total: int) -> None:
        if what == "pairs":
            done.append((time.monotonic(), pairs))

    build([bag], out, settings, workers, progress=note)
    (first, before), (last, after) = done[2 * workers - 1], done[-1]
    own, largest = (resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    made = len(read_lines(out / INDEX))
    assert made == after, f"expected {after} pairs, got {made}"
    files = [path for path in out.rglob("*") if path.is_file()]
    found = {
        "rate": (after - before) / (last - first),
        "memory": 1024 * max(own, largest),
        "bytes": sum(path.stat().st_size for path in files) / made,
    }
    print(json.dumps(found))


def measure() -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="dfd_") as folder:
        for method in METHODS:
            bag = Path(folder) / f"drive_{PAIRS[method]}"
            if not bag.exists():
                record(bag, PAIRS[method])
            rates: dict[int, float] = {}
            for workers in WORKERS:
                out = Path(folder) / f"{method}_{workers}"
                command = [sys.executable, __file__, "--make", str(bag), str(out), method, str(workers)]
                words = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                found = json.loads(words.splitlines()[-1])
                rates[workers] = found["rate"]
                title = f"{method}, {workers} process{'es' if workers > 1 else ''}"
                if workers == 1:
                    least = LEAST_RATE.get(method)
                    promise = f"at least {least:g}" if least else ""
                    rows.append(
                        Row(f"{title}: pairs", rates[1], "/s", limit=promise, met=not least or rates[1] >= least)
                    )
                else:
                    ratio = rates[workers] / rates[1]
                    promise, met = f"ratio at least {LEAST_SPEEDUP:g}", ratio >= LEAST_SPEEDUP
                    rows.append(Row(f"{title}: pairs", rates[workers], "/s", rates[1], ratio, promise, met))
                memory = found["memory"] / 1e9
                promise, met = f"at most {MOST_MEMORY:g}", memory <= MOST_MEMORY
                rows.append(Row(f"{title}: memory of the largest", memory, "GB", limit=promise, met=met))
            drives = HOURS * 3600 * PAIRS_A_SECOND
            rows.append(Row(f"{method}: files of a pair", found["bytes"] / 1e6, "MB"))
            scale = f"{method}: {HOURS:,} hours at {PAIRS_A_SECOND} pairs a second"
            rows.append(Row(scale, drives / rates[1] / 3600, "core-hours"))
            rows.append(Row(scale, drives * found["bytes"] / 1e12, "TB"))
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        make(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
    else:
        report("Bags into data sets", measure)
