"""What a run was worth, from its bag: how many pairs were answered, how fast, what was dropped and why, how right.

Frames are matched by their stamps, which the nodes pass on from image to pair to depth. The bag is read twice, never
held: once for stamps and counters, once for the images that have a truth to be scored against.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from dfd_ros.data.bag_images import depth_array, header_stamp
from dfd_ros.data.bag_reader import BagMessage, BagReader
from dfd_ros.errors import InputError
from dfd_ros.scoring.metrics import CONFIDENCE_THRESHOLD, Box, ScoreAccumulator, edges_for, is_known, mean_in_box

DEPTH, CONFIDENCE, PAIR = "depth/image_rect", "depth/confidence", "pair"
TRUTH, OBJECTS = "ground_truth/depth", "ground_truth/objects"
LIDAR_DEPTH, LIDAR_POINTS = "lidar/depth", "lidar/sparse_depth"
DIAGNOSTICS = "diagnostics"
IMAGE_TYPE = "sensor_msgs/msg/Image"
TYPES = {
    **dict.fromkeys((DEPTH, CONFIDENCE, TRUTH, LIDAR_DEPTH, LIDAR_POINTS), IMAGE_TYPE),
    PAIR: "dfd_msgs/msg/ImagePair",
    OBJECTS: "dfd_msgs/msg/ObjectBoxes",
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

    `reference` names the topic that the scores hold the estimates against: the ground truth where there is one, else
    the LiDAR's own points.
    """

    bag: Path
    duration: float
    published: int
    answered: int
    dropped: dict[str, int]
    frames: Frames
    depth_images: int
    rate_hz: float
    latency: Latency | None
    reference: str | None
    scores: dict[str, Any] | None
    objects: tuple[ObjectScore, ...]
    lidar: dict[str, Any] | None
    recovered: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The content of summary.json."""
        scores = None
        if self.scores is not None:
            scores = {**self.scores, "objects": [vars(score) for score in self.objects]}
        return {
            "pairs": {"published": self.published, "answered": self.answered, "dropped": self.dropped},
            "rate_hz": self.rate_hz,
            "latency_ms": vars(self.latency) if self.latency else None,
            "scores": scores,
            "bag": str(self.bag),
            "duration_s": self.duration,
            "depth_images": self.depth_images,
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
        topics = find_topics(bag.topics, TYPES, namespace)
        survey = _survey(bag, topics)
        depth_stamps = survey.stamps[DEPTH]
        reference = next((name for name in (TRUTH, LIDAR_POINTS) if survey.stamps[name]), None)
        scoring = _Scoring(bag, topics, survey.stamps, edges, confidence_threshold)
        scores, lidar = None, None
        objects: tuple[ObjectScore, ...] = ()
        if reference is not None and depth_stamps:
            scores, objects = scoring.score_depth(reference, stride)
        if reference == TRUTH and survey.stamps[LIDAR_DEPTH]:
            lidar = scoring.score_lidar(stride)
        pairs = set(survey.stamps[PAIR])
        pair_values, depth_values = survey.diagnostics.get("pair", {}), survey.diagnostics.get("depth", {})
        return Summary(
            bag=Path(path),
            duration=bag.duration,
            published=len(survey.stamps[PAIR]),
            answered=len(pairs.intersection(depth_stamps)),
            dropped=_drops(depth_values),
            frames=_frames(pair_values),
            depth_images=len(depth_stamps),
            rate_hz=_rate(survey.depth_times),
            latency=_latency(survey.depth_times, depth_stamps),
            reference=reference,
            scores=scores,
            objects=objects,
            lidar=lidar,
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


class _Scoring:
    """The second reading: brings together the parts of a frame, and scores it when the last has come."""

    def __init__(
        self,
        bag: BagReader,
        topics: dict[str, str],
        stamps: dict[str, list[int]],
        edges: Sequence[float] | None,
        confidence_threshold: float,
    ) -> None:
        self._bag = bag
        self._topics = topics
        self._stamps = stamps
        self._edges = edges
        self._threshold = confidence_threshold

    def score_depth(self, reference: str, stride: int) -> tuple[dict[str, Any], tuple[ObjectScore, ...]]:
        """Scores of the depth node's images, and of the objects in them."""
        names = [DEPTH, reference, *(name for name in (CONFIDENCE,) if self._stamps[name])]
        objects: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
        accumulator = None
        for parts in self._frames(names, OBJECTS, stride):
            estimate, truth = self._depth(parts[DEPTH]), self._depth(parts[reference])
            confidence = self._depth(parts[CONFIDENCE]) if CONFIDENCE in parts else None
            accumulator = accumulator or self._accumulator(truth)
            accumulator.add(estimate, truth, confidence)
            if OBJECTS in parts:
                for seen in self._bag.decode(parts[OBJECTS]).objects:
                    roi = seen.roi
                    means = mean_in_box(estimate, truth, Box(roi.x_offset, roi.y_offset, roi.width, roi.height))
                    if means:
                        objects[seen.kind, seen.id].append(means)
        accumulator = accumulator or ScoreAccumulator(self._edges or edges_for(np.inf), self._threshold)
        return _with_frames(accumulator), tuple(
            sorted((_object_score(*key, means) for key, means in objects.items()), key=lambda score: score.distance)
        )

    def score_lidar(self, stride: int) -> dict[str, Any]:
        """Scores of the densified LiDAR depth against the ground truth."""
        accumulator = None
        for parts in self._frames([LIDAR_DEPTH, TRUTH], None, stride):
            truth = self._depth(parts[TRUTH])
            accumulator = accumulator or self._accumulator(truth)
            accumulator.add(self._depth(parts[LIDAR_DEPTH]), truth)
        return _with_frames(accumulator or ScoreAccumulator(self._edges or edges_for(np.inf), self._threshold))

    def _accumulator(self, truth: np.ndarray) -> ScoreAccumulator:
        if self._edges is not None:
            return ScoreAccumulator(self._edges, self._threshold)
        known = truth[is_known(truth)]
        far = float(np.percentile(known, FAR_PERCENTILE)) if known.size else np.inf
        return ScoreAccumulator(edges_for(far), self._threshold)

    def _frames(self, names: list[str], optional: str | None, stride: int) -> Iterable[dict[str, BagMessage]]:
        """Every stride-th frame of which all of `names` were recorded (and `optional`, if it was)."""
        complete = set.intersection(*(set(self._stamps[name]) for name in names))
        wanted = set(sorted(complete)[::stride])
        with_optional = wanted.intersection(self._stamps[optional]) if optional else set()
        waiting: dict[int, dict[str, BagMessage]] = defaultdict(dict)
        by_topic = {self._topics[name]: name for name in (*names, optional) if name in self._topics}
        for message in self._bag.messages(by_topic.keys()):
            stamp = header_stamp(message.data)
            if stamp not in wanted:
                continue
            waiting[stamp][by_topic[message.topic]] = message
            if len(waiting[stamp]) == len(names) + (stamp in with_optional):
                wanted.discard(stamp)
                yield waiting.pop(stamp)

    def _depth(self, message: BagMessage) -> np.ndarray:
        return depth_array(self._bag.decode(message), message.topic)


def _with_frames(accumulator: ScoreAccumulator) -> dict[str, Any]:
    return {**accumulator.to_dict(), "frames": accumulator.frames}


def _object_score(kind: str, number: int, means: list[tuple[float, float]]) -> ObjectScore:
    estimates, truths = np.array(means).T
    rel = float(np.mean(np.abs(estimates - truths) / truths))
    return ObjectScore(kind, number, float(truths.mean()), float(estimates.mean()), rel, len(means))


def _drops(values: dict[str, str]) -> dict[str, int]:
    return {key.removeprefix(DROPPED): _count(values, key) for key in values if key.startswith(DROPPED)}


def _frames(values: dict[str, str]) -> Frames:
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
