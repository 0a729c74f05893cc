"""One picture of one pair that a person understands at a glance: what went in, what the LiDAR saw, what came out.

All depths share one logarithmic colour scale in metres, near warm and far cold; unknown pixels are light grey. The
last tile of the grid is the legend.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import minimum_filter

from dfd_ros.data.bag_reader import BagMessage, BagReader
from dfd_ros.data.image_messages import depth_array, header_stamp, rgb_array
from dfd_ros.errors import InputError
from dfd_ros.metrics import CONFIDENCE_THRESHOLD, is_known
from dfd_ros.scoring.sizes import at_size
from dfd_ros.scoring.summary import CONFIDENCE, DEPTH, IMAGE, LIDAR_DEPTH, LIDAR_POINTS, PAIR, TRUTH, find_topics

WIDTH = 1400  # pixels of the picture
MARGIN, GAP, TITLE = 20, 16, 30  # pixels: around all, between tiles, a title's height
BAR_SPACE, BAR_HEIGHT, INDENT = 78, 18, 18  # pixels: a legend's bar with its text, the bar itself, its indent
MAX_BYTES = 600_000  # of the file
PALETTE, RAMP_COLOURS, GREYS = 256, 28, 24  # colours of a file that would be larger, those of each legend, and greys
SHRINKS = (1.0, 0.7, 0.5, 0.35)  # sizes tried in turn
ALIKE = 8  # difference of two colours in 255 that is not worth a place in the palette
MAX_COLUMNS = 3
LAST_NS = 3_000_000_000  # of a bag, nanoseconds: where a frame is looked for first
DPI = 100
INK, PAPER, UNKNOWN = "#1c2430", "#ffffff", "#d9dce1"
# Without turbo's darkest ends, which look alike.
DEPTH_COLOURS = LinearSegmentedColormap.from_list("depth", mpl.colormaps["turbo_r"](np.linspace(0.05, 0.95, 64)))
CONFIDENCE_COLOURS, ERROR_COLOURS = mpl.colormaps["cividis"], mpl.colormaps["inferno"]
DEPTH_PERCENTILES = (0.5, 99.5)  # of all known depths: the colour scale's ends
MAX_ERROR = 0.3  # relative error at the scale's end
GAINS = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50)  # of the boundary cue
CUE_PERCENTILE = 97.0  # of the boundary cue, brought to full contrast
TICKS = tuple(step * 10.0**power for power in (-1, 0, 1, 2) for step in (1, 2, 3, 5))  # metres
NARROW = 6.0  # farthest by nearest, below which these are too few, and ticks are even
NARROW_TICKS = MaxNLocator(nbins=7, steps=[1, 2, 5, 10])
POINT_SIZE = 3  # pixels of the image
DIMMED = 0.45  # brightness of the picture under the LiDAR points

Picture = NDArray[np.uint8]
FloatImage = NDArray[np.floating]


@dataclass(frozen=True)
class PanelContent:
    """What to draw; a part that is None is left out.

    Attributes:
        shallow, deep: Images (H, W, 3) uint8, red first.
        image: The camera's image, drawn where there is no pair.
        sparse_depth, dense_depth: The LiDAR's points and their colorization, (H, W) metres, NaN where unknown.
        estimate, confidence: The depth node's answer, (H, W) metres and (H, W) in [0, 1].
        truth: Ground truth, (H, W) metres; without it the error is that against `dense_depth`.
        f_numbers: Of the shallow and the deep image.
        title: Above it all.
    """

    shallow: Picture | None = None
    deep: Picture | None = None
    sparse_depth: FloatImage | None = None
    dense_depth: FloatImage | None = None
    estimate: FloatImage | None = None
    confidence: FloatImage | None = None
    truth: FloatImage | None = None
    f_numbers: tuple[float, float] | None = None
    image: Picture | None = None
    title: str = ""


def draw_panel(content: PanelContent, path: str | Path) -> None:
    """Draw the panel to a PNG file.

    Raises:
        InputError: There is nothing to draw, the parts differ in size, or the file cannot be written.
    """
    tiles = _Tiles(content)
    if not tiles.pictures:
        raise InputError("panel: expected at least one picture or depth, got none")
    layout = _Layout.of(len(tiles.pictures), len(tiles.legends), tiles.shape, bool(content.title))
    figure = Figure(figsize=(WIDTH / DPI, layout.total / DPI), dpi=DPI, facecolor=PAPER)
    canvas = FigureCanvasAgg(figure)
    if content.title:
        x, y = MARGIN / WIDTH, 1 - (MARGIN + TITLE / 2) / layout.total
        figure.text(x, y, content.title, size=17, weight="bold", color=INK, va="center")
    for index, (title, picture) in enumerate(tiles.pictures):
        axes = figure.add_axes(layout.tile(index))
        axes.imshow(picture, interpolation="antialiased", aspect="auto")
        axes.set_axis_off()
        axes.set_title(title, loc="left", size=12.5, color=INK, pad=6)
    for index, legend in enumerate(tiles.legends):
        _draw_bar(figure.add_axes(layout.bar(index)), legend)
    _draw_unknown(figure.add_axes(layout.bar(len(tiles.legends))))
    canvas.draw()
    _save(np.asarray(canvas.buffer_rgba())[..., :3], tiles.legends, Path(path))


def panel_from_bag(bag_path: str | Path, path: str | Path, namespace: str | None = None) -> None:
    """Draw the panel of the last frame in a bag for which the most parts were recorded.

    Raises:
        InputError: The bag cannot be read, or holds nothing to draw.
    """
    names = (PAIR, IMAGE, DEPTH, CONFIDENCE, LIDAR_POINTS, LIDAR_DEPTH, TRUTH)
    with BagReader(bag_path) as bag:
        topics = find_topics(bag.topics, names, namespace)
        if not topics:
            raise InputError(f"bag {bag_path}: expected one of the topics {', '.join(names)} to draw, got none")
        by_topic = {topic: name for name, topic in topics.items()}
        for start in (bag.end_time_ns - LAST_NS, bag.start_time_ns):
            recorded: dict[int, set[str]] = defaultdict(set)
            for message in bag.messages(by_topic.keys(), start):
                recorded[header_stamp(message.data)].add(by_topic[message.topic])
            best = max((len(names), stamp) for stamp, names in recorded.items()) if recorded else (0, 0)
            if best[0] == len(topics):
                break
        count, stamp = best
        if not count:
            raise InputError(f"bag {bag_path}: expected messages on {', '.join(by_topic)}, got none")
        parts = {
            by_topic[message.topic]: message
            for message in bag.messages(by_topic.keys(), start)
            if header_stamp(message.data) == stamp
        }
        draw_panel(_content(bag, parts, 1e-9 * (stamp - bag.start_time_ns)), path)


def _content(bag: BagReader, parts: dict[str, BagMessage], seconds: float) -> PanelContent:
    def depth(name: str) -> FloatImage | None:
        return depth_array(bag.decode(parts[name]), name) if name in parts else None

    pair = bag.decode(parts[PAIR]) if PAIR in parts else None
    deep = rgb_array(pair.deep, "deep image") if pair else None
    image = rgb_array(bag.decode(parts[IMAGE]), "image") if IMAGE in parts and not pair else None
    estimate, confidence, truth = depth(DEPTH), depth(CONFIDENCE), depth(TRUTH)
    beside = next((shown for shown in (deep, image, truth) if shown is not None), None)
    if beside is not None and estimate is not None:
        estimate, confidence = at_size(beside.shape[:2], estimate, confidence)
    return PanelContent(
        shallow=rgb_array(pair.shallow, "shallow image") if pair else None,
        deep=deep,
        image=image,
        sparse_depth=depth(LIDAR_POINTS),
        dense_depth=depth(LIDAR_DEPTH),
        estimate=estimate,
        confidence=confidence,
        truth=truth,
        f_numbers=(pair.shallow_f_number, pair.deep_f_number) if pair and pair.shallow_f_number > 0 else None,
        title=f"Depth from defocus, {max(seconds, 0.0):.1f} s into the recording",
    )


class _Tiles:
    """The tiles in their order, as (title, picture), and the scales that the legend needs."""

    def __init__(self, content: PanelContent) -> None:
        self.pictures: list[tuple[str, Picture]] = []
        self.legends: list[_Legend] = []
        self.shape = _shape(content)
        self._depth_scale = _depth_scale(content)
        self._add_images(content)
        self._add_depths(content)
        self._add_error(content)

    def _add(self, title: str, picture: Picture) -> None:
        self.pictures.append((title, picture))

    def _add_images(self, content: PanelContent) -> None:
        shallow_f, deep_f = (f", F/{n:.3g}" for n in content.f_numbers) if content.f_numbers else ("", "")
        if content.shallow is not None:
            self._add(f"Shallow image{shallow_f}", content.shallow)
        if content.deep is not None:
            self._add(f"Deep image{deep_f}", content.deep)
        if content.image is not None:
            self._add("Camera image", content.image)
        if content.shallow is not None and content.deep is not None:
            cue, gain = _boundary_cue(content.shallow, content.deep)
            self._add(f"Boundary cue: shallow − deep, {gain}×", cue)

    def _add_depths(self, content: PanelContent) -> None:
        if content.sparse_depth is not None:
            count = int(is_known(content.sparse_depth).sum())
            images = (content.deep, content.image, content.shallow)
            under = next((image for image in images if image is not None), None)
            points = _points_over(content.sparse_depth, under, self._colour_depth)
            self._add(f"LiDAR: {count:,} points".replace(",", "\u202f"), points)
        if content.dense_depth is not None:
            self._add("LiDAR, made dense", self._colour_depth(content.dense_depth))
        if content.estimate is not None:
            known = content.estimate[is_known(content.estimate)]
            reach = f": {np.percentile(known, 1):.1f} to {np.percentile(known, 99):.1f} m" if known.size else ""
            self._add(f"Estimated depth{reach}", self._colour_depth(content.estimate))
        if self._depth_scale is not None:
            near, far = float(self._depth_scale.vmin or 0.0), float(self._depth_scale.vmax or 0.0)
            metres = TICKS if far > NARROW * near else NARROW_TICKS.tick_values(near, far)
            ticks = tuple((float(tick), f"{tick:g}") for tick in metres if near <= tick <= far)
            self.legends.append(_Legend("depth, metres", DEPTH_COLOURS, self._depth_scale, ticks))
        if content.confidence is not None:
            share = 100 * np.mean(content.confidence >= CONFIDENCE_THRESHOLD)
            scale = Normalize(0, 1)
            picture = _colour(content.confidence, np.isfinite(content.confidence), CONFIDENCE_COLOURS, scale)
            self._add(f"Confidence: {share:.0f} % of pixels at {CONFIDENCE_THRESHOLD:g} or more", picture)
            ticks = tuple((tick, f"{tick:g}") for tick in (0.0, 0.5, 1.0))
            self.legends.append(_Legend("confidence", CONFIDENCE_COLOURS, scale, ticks))

    def _add_error(self, content: PanelContent) -> None:
        reference = content.truth if content.truth is not None else content.dense_depth
        if content.estimate is None or reference is None:
            return
        known = is_known(content.estimate) & is_known(reference)
        error = np.full(reference.shape, np.nan, np.float32)
        error[known] = np.abs(content.estimate[known] - reference[known]) / reference[known]
        title = "Error"
        if known.any():
            title += f": median {100 * np.median(error[known]):.1f} %"
            if content.confidence is not None:
                sure = known & (content.confidence >= CONFIDENCE_THRESHOLD)
                title += f", confident {100 * np.median(error[sure]):.1f} %" if sure.any() else ""
        scale = Normalize(0, MAX_ERROR)
        self._add(title, _colour(error, known, ERROR_COLOURS, scale))
        against = "ground truth" if content.truth is not None else "dense LiDAR"
        ticks = tuple((tick, f"{100 * tick:.0f} %") for tick in np.linspace(0, MAX_ERROR, 4))
        self.legends.append(_Legend(f"relative error against the {against}", ERROR_COLOURS, scale, ticks))

    def _colour_depth(self, depth: FloatImage) -> Picture:
        return _colour(depth, is_known(depth), DEPTH_COLOURS, self._depth_scale or LogNorm(1, 2))


@dataclass(frozen=True)
class _Layout:
    """Where things are, in pixels from the top left: a grid of tiles, and the legend's bars.

    The bars stand one below the other in the grid's last cell where that is free and tall enough, else side by side in
    a row of their own.
    """

    tiles: int
    columns: int
    width: float  # of a tile
    height: float
    top: float  # of the grid
    total: float  # height of the picture
    in_grid: bool

    @classmethod
    def of(cls, tiles: int, bars: int, shape: tuple[int, int], titled: bool) -> _Layout:
        columns = 2 if tiles <= 4 else MAX_COLUMNS
        width = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) / columns
        height = width * shape[0] / shape[1]
        rows = -(-tiles // columns)
        in_grid = rows * columns > tiles and height + TITLE >= (bars + 1) * BAR_SPACE
        top = MARGIN + (TITLE + GAP if titled else 0)
        total = top + rows * (TITLE + height) + (rows - 1) * GAP + (0 if in_grid else GAP + BAR_SPACE) + MARGIN
        return cls(tiles, columns, width, height, top, total, in_grid)

    def tile(self, index: int) -> tuple[float, float, float, float]:
        """Of a tile's picture: left, bottom, width, height as shares of the figure."""
        row, column = divmod(index, self.columns)
        left = MARGIN + column * (self.width + GAP)
        return self._share(left, self.top + row * (TITLE + self.height + GAP) + TITLE, self.width, self.height)

    def bar(self, index: int) -> tuple[float, float, float, float]:
        """Of a legend's bar, likewise."""
        if self.in_grid:
            left = MARGIN + (self.columns - 1) * (self.width + GAP) + INDENT
            top = self.top + (self.tiles // self.columns) * (TITLE + self.height + GAP) + index * BAR_SPACE + TITLE
            return self._share(left, top, self.width - 2 * INDENT, BAR_HEIGHT)
        width = (WIDTH - 2 * MARGIN) / (MAX_COLUMNS + 0.5)
        top = self.total - MARGIN - BAR_SPACE + TITLE
        return self._share(MARGIN + index * width + INDENT, top, width - 2 * INDENT, BAR_HEIGHT)

    def _share(self, left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
        return left / WIDTH, 1 - (top + height) / self.total, width / WIDTH, height / self.total


@dataclass(frozen=True)
class _Legend:
    """A scale of colours: what it shows, the colours, the scale, and the ticks with their labels."""

    name: str
    colours: Colormap
    scale: Normalize
    ticks: tuple[tuple[float, str], ...]


def _shape(content: PanelContent) -> tuple[int, int]:
    shapes = {name: value.shape[:2] for name, value in vars(content).items() if isinstance(value, np.ndarray)}
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{name} {shape[1]}x{shape[0]}" for name, shape in shapes.items())
        raise InputError(f"panel: expected parts of one size, got {sizes}")
    return next(iter(shapes.values()), (1, 1))


def _depth_scale(content: PanelContent) -> LogNorm | None:
    """From the nearest to the farthest known depth of all parts; None where there is none."""
    depths = (content.truth, content.sparse_depth, content.dense_depth, content.estimate)
    known = [depth[is_known(depth)] for depth in depths if depth is not None]
    values = np.concatenate(known) if known else np.empty(0)
    if not values.size:
        return None
    near, far = np.percentile(values, DEPTH_PERCENTILES)
    return LogNorm(float(near), float(max(far, 1.1 * near)))


def _boundary_cue(shallow: Picture, deep: Picture) -> tuple[Picture, int]:
    """Shallow minus deep around mid-grey, and how much it was magnified."""
    difference = shallow.astype(np.float32) - deep
    strongest = max(float(np.percentile(np.abs(difference), CUE_PERCENTILE)), 1.0)
    gain = max((gain for gain in GAINS if gain * strongest <= 127), default=GAINS[0])
    return np.clip(128 + gain * difference, 0, 255).astype(np.uint8), gain


def _points_over(sparse: FloatImage, under: Picture | None, colour: Callable[[FloatImage], Picture]) -> Picture:
    """The points, `POINT_SIZE` wide and the nearest in front, over a dimmed grey picture."""
    nearest = np.where(is_known(sparse), sparse, np.inf).astype(np.float32)
    nearest = minimum_filter(nearest, size=POINT_SIZE, mode="constant", cval=np.inf)
    painted = is_known(nearest)
    if under is None:
        picture = np.full((*sparse.shape, 3), 30, np.uint8)
    else:
        picture = np.repeat((DIMMED * under.mean(axis=2, keepdims=True)).astype(np.uint8), 3, axis=2)
    picture[painted] = colour(nearest)[painted]
    return picture


def _colour(values: FloatImage, known: NDArray[np.bool_], colours: Colormap, scale: Normalize) -> Picture:
    picture = colours(scale(np.where(known, values, scale.inverse(0.0))), bytes=True)[..., :3]
    picture[~known] = _rgb(UNKNOWN)
    return picture


def _draw_bar(axes: Axes, legend: _Legend) -> None:
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=legend.colours, aspect="auto", extent=(0, 1, 0, 1))
    axes.set_xticks([float(legend.scale(tick)) for tick, _ in legend.ticks], [label for _, label in legend.ticks])
    axes.set_yticks([])
    axes.tick_params(labelsize=11, colors=INK, length=3, pad=3)
    axes.spines[:].set_visible(False)
    axes.set_title(legend.name, loc="left", size=12, color=INK, pad=5)


def _draw_unknown(axes: Axes) -> None:
    axes.set_axis_off()
    axes.add_patch(Rectangle((0, 0), 0.08, 1, color=UNKNOWN))
    axes.text(0.11, 0.5, "unknown", size=12, color=INK, va="center")


def _save(picture: Picture, legends: list[_Legend], path: Path) -> None:
    """Write a PNG: in full colour if it is small enough, else in 256 with dithering; pictures of noise shrink, too."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    content = _png(image)
    if len(content) > MAX_BYTES:
        palette = _palette(image, legends)
        for shrink in SHRINKS:
            smaller = image.resize((round(image.width * shrink), round(image.height * shrink)))
            content = _png(smaller.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG))
            if len(content) <= MAX_BYTES:
                break
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"panel {path}: cannot be written ({error.strerror})") from error


def _palette(image: Image.Image, legends: list[_Legend]) -> Image.Image:
    """256 colours: even steps of each legend and of grey, and what the pictures have besides."""
    ramps = [legend.colours(np.linspace(0, 1, RAMP_COLOURS), bytes=True)[:, :3] for legend in legends]
    greys = np.repeat(np.linspace(0, 255, GREYS).astype(np.uint8)[:, None], 3, axis=1)
    fixed = np.concatenate([np.array([_rgb(UNKNOWN), _rgb(INK)], np.uint8), greys, *ramps])
    free = np.array(image.quantize(PALETTE - len(fixed)).getpalette() or [], np.uint8).reshape(-1, 3)
    # Pillow takes the first of colours that look alike to it, which would tint the paper.
    distance = np.abs(free[:, None].astype(int) - fixed).max(axis=2).min(axis=1)
    colours = np.concatenate([fixed, free[distance > ALIKE]])
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.ravel().tolist())
    return palette


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
