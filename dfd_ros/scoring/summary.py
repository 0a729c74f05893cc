"""What a run was worth, from its bag: how many pairs were answered, how fast, what was dropped and why, how right.

Frames are matched by their stamps, which the nodes pass on from image to pair to depth. The bag is read twice, never
held: once for stamps and counters, once for the images that have a truth to be scored against.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from dfd_ros.data.bag_reader import BagMessage, BagReader
from dfd_ros.data.image_messages import depth_array, header_stamp
from dfd_ros.errors import InputError
from dfd_ros.metrics import CONFIDENCE_THRESHOLD, Box, ScoreAccumulator, edges_for, is_known, mean_in_box
from dfd_ros.scoring.regions import OBJECTS_TYPE, RegionScores, region_table
from dfd_ros.scoring.sizes import at_size

DEPTH, CONFIDENCE, PAIR = "depth/image_rect", "depth/confidence", "pair"
TRUTH, OBJECTS = "ground_truth/depth", "ground_truth/objects"
LIDAR_DEPTH, LIDAR_POINTS = "lidar/depth", "lidar/sparse_depth"
IMAGE = "image_raw"
DIAGNOSTICS = "diagnostics"
IMAGE_TYPE = "sensor_msgs/msg/Image"
TYPES = {
    **dict.fromkeys((IMAGE, DEPTH, CONFIDENCE, TRUTH, LIDAR_DEPTH, LIDAR_POINTS), IMAGE_TYPE),
    PAIR: "dfd_msgs/msg/ImagePair",
    OBJECTS: OBJECTS_TYPE,
    DIAGNOSTICS: "diagnostic_msgs/msg/DiagnosticArray",
}
DROPPED = "dropped/"  # prefix of the diagnostics' keys that count dropped work by cause
FAR_PERCENTILE = 99.0  # of the truth: how far a scene reaches


@dataclass(frozen=True)
class Latency:
    """From an image's stamp to the receipt of its depth by the recorder: percentiles in milliseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Frames:
    """What became of the camera's frames in the pair node; None where it did not tell."""

    received: int | None
    paired: int | None
    dropped: dict[str, int]


@dataclass(frozen=True)
class ObjectScore:
    """One object over the frames that show it: mean true and estimated distance in metres, mean relative error."""

    kind: str
    id: int
    distance: float
    estimate: float
    rel: float
    frames: int


@dataclass(frozen=True)
class Summary:
    """A run in figures. `scores` and `lidar` have the form of `ScoreAccumulator.to_dict`, None without a truth.

    `regions` are the objects by class and distance (`RegionScores.to_dict`), None without any. `reference` names the
    topic that the scores hold the estimates against: the ground truth where there is one, else the LiDAR's own points.
    """

    bag: Path
    duration: float
    published: int
    answered: int
    dropped: dict[str, int]
    frames: Frames
    depth_images: int
    lidar_images: int
    rate_hz: float
    latency: Latency | None
    reference: str | None
    scores: dict[str, Any] | None
    objects: tuple[ObjectScore, ...]
    regions: dict[str, Any] | None
    lidar: dict[str, Any] | None
    recovered: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The content of summary.json."""
        scores = None
        if self.scores is not None:
            objects = [vars(score) for score in self.objects]
            scores = {**self.scores, "objects": objects, "regions": self.regions}
        return {
            "pairs": {"published": self.published, "answered": self.answered, "dropped": self.dropped},
            "rate_hz": self.rate_hz,
            "latency_ms": vars(self.latency) if self.latency else None,
            "scores": scores,
            "bag": str(self.bag),
            "duration_s": self.duration,
            "depth_images": self.depth_images,
            "lidar_images": self.lidar_images,
            "frames": vars(self.frames),
            "reference": self.reference,
            "lidar": self.lidar,
            "recovered_messages": self.recovered,
        }

    def save(self, path: str | Path) -> None:
        """Write summary.json."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")


def summarise_bag(
    path: str | Path,
    *,
    namespace: str | None = None,
    edges: Sequence[float] | None = None,
    confidence_threshold: float = CONFIDENCE_THRESHOLD,
    stride: int = 1,
) -> Summary:
    """Sum up the recording of one run.

    Args:
        path: The bag.
        namespace: Of the camera; needed where a bag holds more than one.
        edges: Of the distance bins, metres; by default street or indoor ones, as far as the truth reaches.
        confidence_threshold: Pixels of at least this confidence are confident.
        stride: Score every stride-th depth image only.

    Raises:
        InputError: The bag cannot be read, holds more than one camera, or has images of unequal size.
    """
    if stride < 1:
        raise InputError(f"stride: expected 1 or more, got {stride}")
    with BagReader(path) as bag:
        topics = find_topics(bag.topics, TYPES.keys() - {IMAGE}, namespace)
        survey = _survey(bag, topics)
        depth_stamps = survey.stamps[DEPTH]
        reference = next((name for name in (TRUTH, LIDAR_POINTS) if survey.stamps[name]), None)
        scoring = _Scoring(bag, reference, edges, confidence_threshold)
        for parts in _frames_to_score(bag, topics, survey.stamps, reference, stride):
            scoring.add(parts)
        pairs = set(survey.stamps[PAIR])
        pair_values, depth_values = survey.diagnostics.get("pair", {}), survey.diagnostics.get("depth", {})
        return Summary(
            bag=Path(path),
            duration=bag.duration,
            published=len(survey.stamps[PAIR]),
            answered=len(pairs.intersection(depth_stamps)),
            dropped=_drops(depth_values),
            frames=_camera_frames(pair_values),
            depth_images=len(depth_stamps),
            lidar_images=len(survey.stamps[LIDAR_DEPTH]),
            rate_hz=_rate(survey.depth_times),
            latency=_latency(survey.depth_times, depth_stamps),
            reference=reference,
            scores=scoring.depth if reference and depth_stamps else None,
            objects=scoring.objects,
            regions=scoring.regions,
            lidar=scoring.lidar if reference == TRUTH and survey.stamps[LIDAR_DEPTH] else None,
            recovered=bag.recovered,
        )


def find_topics(recorded: Mapping[str, str], names: Iterable[str], namespace: str | None = None) -> dict[str, str]:
    """The recorded topic for each relative name that was recorded, under whatever namespace.

    Args:
        recorded: Type by topic.
        names: Keys of `TYPES`.
        namespace: Where to look; everywhere if None.

    Raises:
        InputError: A name was recorded under more than one namespace and none is asked for, or with another type.
    """
    prefix = "/" if namespace is None else f"/{namespace.strip('/')}/"
    found: dict[str, str] = {}
    for name in names:
        matches = sorted(
            t for t in recorded if t.endswith(f"/{name}") and (t.startswith(prefix) or name == DIAGNOSTICS)
        )
        if len(matches) > 1:
            raise InputError(f"topic {name}: expected it once, got {', '.join(matches)}; give the camera's namespace")
        for topic in matches:
            if recorded[topic] != TYPES[name]:
                raise InputError(f"topic {topic}: expected {TYPES[name]}, got {recorded[topic]}")
            found[name] = topic
    return found


@dataclass
class _Survey:
    """What the first reading finds: by relative topic name the stamps in order, and the nodes' last words."""

    stamps: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    depth_times: list[int] = field(default_factory=list)  # of receipt, nanoseconds
    diagnostics: dict[str, dict[str, str]] = field(default_factory=dict)  # values by node name


def _survey(bag: BagReader, topics: dict[str, str]) -> _Survey:
    survey = _Survey()
    names = {topic: name for name, topic in topics.items()}
    for message in bag.messages(names.keys()):
        name = names[message.topic]
        if name == DIAGNOSTICS:
            for status in bag.decode(message).status:
                node = status.name.rpartition(":")[0] or status.name
                survey.diagnostics[node.rpartition("/")[2].strip()] = {pair.key: pair.value for pair in status.values}
            continue
        survey.stamps[name].append(header_stamp(message.data))
        if name == DEPTH:
            survey.depth_times.append(message.receive_time_ns)
    return survey


def _frames_to_score(
    bag: BagReader, topics: dict[str, str], stamps: dict[str, list[int]], reference: str | None, stride: int
) -> Iterator[dict[str, BagMessage]]:
    """The second reading: of every stride-th frame with a reference, its parts by name, when the last has come."""
    parts_of: dict[int, set[str]] = defaultdict(set)
    if reference is None:
        return
    depth_parts = [DEPTH, reference, *(name for name in (CONFIDENCE,) if stamps[name])]
    lidar_parts = [LIDAR_DEPTH, TRUTH] if reference == TRUTH else []
    for names in filter(None, (depth_parts, lidar_parts)):
        complete = set.intersection(*(set(stamps[name]) for name in names))
        for stamp in sorted(complete)[::stride]:
            parts_of[stamp].update(names)
    for stamp in stamps[OBJECTS]:
        if DEPTH in parts_of.get(stamp, ()):
            parts_of[stamp].add(OBJECTS)

    names_by_topic = {topics[name]: name for name in (*depth_parts, *lidar_parts, OBJECTS) if name in topics}
    waiting: dict[int, dict[str, BagMessage]] = defaultdict(dict)
    for message in bag.messages(names_by_topic.keys()):
        stamp, name = header_stamp(message.data), names_by_topic[message.topic]
        if name not in parts_of.get(stamp, ()):
            continue
        waiting[stamp][name] = message
        if waiting[stamp].keys() == parts_of[stamp]:
            del parts_of[stamp]
            yield waiting.pop(stamp)


class _Scoring:
    """Scores frames against the reference: the estimated depth, the objects in it, and the LiDAR's dense depth."""

    def __init__(
        self, bag: BagReader, reference: str | None, edges: Sequence[float] | None, confidence_threshold: float
    ) -> None:
        self._bag = bag
        self._reference = reference or TRUTH
        self._edges = edges
        self._threshold = confidence_threshold
        self._depth: ScoreAccumulator | None = None
        self._lidar: ScoreAccumulator | None = None
        self._means: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
        self._regions: RegionScores | None = None

    def add(self, parts: dict[str, BagMessage]) -> None:
        """Score one frame, for what it has."""
        truth = self._array(parts[self._reference])
        if DEPTH in parts:
            estimate = self._array(parts[DEPTH])
            confidence = self._array(parts[CONFIDENCE]) if CONFIDENCE in parts else None
            estimate, confidence = at_size(truth.shape, estimate, confidence)
            self._depth = self._depth or self._accumulator(truth)
            self._depth.add(estimate, truth, confidence)
            for seen in self._bag.decode(parts[OBJECTS]).objects if OBJECTS in parts else ():
                box = Box(seen.roi.x_offset, seen.roi.y_offset, seen.roi.width, seen.roi.height)
                if means := mean_in_box(estimate, truth, box):
                    self._means[seen.kind, seen.id].append(means)
                    self._regions = self._regions or RegionScores(self._depth.edges)
                    self._regions.add(seen.kind, *means)
        if LIDAR_DEPTH in parts:
            self._lidar = self._lidar or self._accumulator(truth)
            self._lidar.add(self._array(parts[LIDAR_DEPTH]), truth)

    @property
    def depth(self) -> dict[str, Any]:
        """Scores of the estimated depth."""
        return self._figures(self._depth)

    @property
    def lidar(self) -> dict[str, Any]:
        """Scores of the LiDAR's dense depth."""
        return self._figures(self._lidar)

    @property
    def objects(self) -> tuple[ObjectScore, ...]:
        """Scores by object, the nearest first."""
        scores = (_object_score(kind, number, means) for (kind, number), means in self._means.items())
        return tuple(sorted(scores, key=lambda score: score.distance))

    @property
    def regions(self) -> dict[str, Any] | None:
        """The same by class and by distance, each object counting once in every frame that shows it."""
        return None if self._regions is None else self._regions.to_dict()

    def _accumulator(self, truth: NDArray[np.float32] | None) -> ScoreAccumulator:
        """For scenes that reach as far as the first truth."""
        if self._edges is not None:
            return ScoreAccumulator(self._edges, self._threshold)
        known = truth[is_known(truth)] if truth is not None else np.empty(0)
        far = float(np.percentile(known, FAR_PERCENTILE)) if known.size else np.inf
        return ScoreAccumulator(edges_for(far), self._threshold)

    def _figures(self, accumulator: ScoreAccumulator | None) -> dict[str, Any]:
        accumulator = accumulator or self._accumulator(None)
        return {**accumulator.to_dict(), "frames": accumulator.frames}

    def _array(self, message: BagMessage) -> NDArray[np.float32]:
        return depth_array(self._bag.decode(message), message.topic)


def _object_score(kind: str, number: int, means: list[tuple[float, float]]) -> ObjectScore:
    estimates, truths = np.array(means).T
    rel = float(np.mean(np.abs(estimates - truths) / truths))
    return ObjectScore(kind, number, float(truths.mean()), float(estimates.mean()), rel, len(means))


def _drops(values: dict[str, str]) -> dict[str, int]:
    return {key.removeprefix(DROPPED): _count(values, key) for key in values if key.startswith(DROPPED)}


def _camera_frames(values: dict[str, str]) -> Frames:
    """What the pair node told; a frame is in one pair at most, so the pairs count the paired frames."""
    received, pairs = (_count(values, key) if key in values else None for key in ("received", "published"))
    return Frames(received, None if pairs is None else 2 * pairs, _drops(values))


def _count(values: dict[str, str], key: str) -> int:
    if not values[key].isdecimal():
        raise InputError(f"diagnostics, {key}: expected a count, got {values[key]!r}")
    return int(values[key])


def _rate(times: list[int]) -> float:
    seconds = 1e-9 * (times[-1] - times[0]) if times else 0.0
    return (len(times) - 1) / seconds if seconds > 0 else 0.0


def _latency(times: list[int], stamps: list[int]) -> Latency | None:
    if not times:
        return None
    milliseconds = 1e-6 * (np.array(times) - np.array(stamps))
    return Latency(*(float(p) for p in np.percentile(milliseconds, (50, 95, 99))))


def print_table(summary: Summary, console: Console | None = None) -> None:
    """Print the summary for people."""
    console = console or Console()
    run = Table(title=f"Run of {summary.duration:.1f} s", show_header=False, title_justify="left")
    run.add_column(style="bold")
    run.add_column()
    run.add_row("pairs", f"{summary.published} published, {summary.answered} answered")
    run.add_row("depth", f"{summary.depth_images} images, {summary.rate_hz:.1f} Hz")
    run.add_row("LiDAR depth", f"{summary.lidar_images} images")
    if summary.latency:
        late = summary.latency
        run.add_row("latency", f"{late.p50:.0f} ms median, {late.p95:.0f} ms 95 %, {late.p99:.0f} ms 99 %")
    run.add_row("pairs dropped", _list_drops(summary.dropped))
    if summary.frames.received is not None:
        frames = f"{summary.frames.received} received"
        frames += f", {summary.frames.paired} paired" if summary.frames.paired is not None else ""
        run.add_row("frames", frames)
        run.add_row("frames dropped", _list_drops(summary.frames.dropped))
    if summary.recovered is not None:
        run.add_row("bag", f"was cut short; {summary.recovered} messages recovered")
    console.print(run)
    if summary.scores:
        truth = "the ground truth" if summary.reference == TRUTH else "the LiDAR's points"
        console.print(_score_table(f"Depth against {truth}", summary.scores))
    if summary.lidar:
        console.print(_score_table("LiDAR depth against the ground truth", summary.lidar))
    if summary.objects:
        console.print(_object_table(summary.objects))
    if summary.regions:
        console.print(region_table(summary.regions))


def _list_drops(drops: dict[str, int]) -> str:
    parts = [f"{count} {cause.replace('_', ' ')}" for cause, count in sorted(drops.items(), key=lambda item: -item[1])]
    return ", ".join(parts) or "none"


def _score_table(title: str, scores: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("pixels", style="bold")
    for column in ("median rel", "rel", "log10", "rms [m]", "δ<1.25", "δ<1.25²", "δ<1.25³", "coverage"):
        table.add_column(column, justify="right")
    rows = [("all", scores["all"]), ("confident", scores["confident"])]
    for bin_ in scores["bins"]:
        name = f"{bin_['from']:g} to {bin_['to']:g} m"
        rows += [(name, bin_), (f"{name}, confident", bin_["confident"])]
    for name, row in rows:
        if row and row["n"]:
            figures = [row[key] for key in ("median_rel", "rel", "log10", "rms", "d1", "d2", "d3")]
            table.add_row(name, *(f"{figure:.3f}" for figure in figures), f"{100 * row['coverage']:.0f} %")
    return table


def _object_table(objects: Sequence[ObjectScore]) -> Table:
    table = Table(title="Objects (mean over the middle of their boxes)", title_justify="left")
    table.add_column("object", style="bold")
    for column in ("distance [m]", "estimate [m]", "rel", "frames"):
        table.add_column(column, justify="right")
    for score in objects:
        figures = (f"{score.distance:.2f}", f"{score.estimate:.2f}", f"{score.rel:.3f}", str(score.frames))
        table.add_row(f"{score.kind} {score.id}", *figures)
    return table
