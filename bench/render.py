"""The defocus renderer: its time on made-up streets, and its pictures against a thin-lens ray tracer.

The baseline of every PSNR is that of the plain published formula on the same scene. `--pictures FOLDER` writes, scene
by scene, what the ray tracer, the renderer and the published formula make of it, side by side.
"""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from published import render_published
from ray_tracer import Picture, Scene, photograph, pinhole, psnr, scenes
from table import Row, report

from dfd_ros.optics.lens import Lens
from dfd_ros.optics.render import render_defocus

THREADS = 2
REPEATS = 9
F_NUMBERS = (2.0, 14.0)
STACK = 8  # pictures of the focal stack
FOCUS, FARTHEST = 2.5, 40.0  # metres
LEAST_PSNR = 38.0  # dB


def street(shape: tuple[int, int], seed: int = 0) -> tuple[Picture, Picture]:
    """Noise (H, W, 3) on the ground, on a far wall and on 30 boards at random before it, and the depth."""
    rng = np.random.default_rng(seed)
    height, width = shape
    y, x = np.indices(shape, dtype=np.float32)
    horizon, focal = 0.45 * height, height  # pixels
    inverse_depth = np.clip((y - horizon) / (1.2 * focal), 1.0 / FARTHEST, 1.0 / FOCUS)
    for _ in range(30):
        near = rng.uniform(1.2 / FARTHEST, 0.8 / FOCUS)
        across, up = rng.uniform(0.3, 1.5, 2) * near * focal / 2
        column, row = rng.uniform(0, width), horizon + rng.uniform(-0.2, 0.8) * near * focal
        board = near * (1.0 + 0.1 * (x - column) / across)
        seen = (abs(x - column) < across) & (abs(y - row) < up) & (board > inverse_depth)
        inverse_depth[seen] = board[seen]
    return rng.random((*shape, 3), np.float32), 1.0 / inverse_depth


def street_lens(largest_coc: float) -> Lens:
    """Focused at the nearest thing, with such a CoC (pixels) at the farthest."""
    scale = F_NUMBERS[0] * largest_coc / (1.0 - FOCUS / FARTHEST)
    return Lens("street", FOCUS, *F_NUMBERS, scale, FOCUS, FARTHEST)


def milliseconds(image: Picture, depth: Picture, lens: Lens, **views: object) -> float:
    """The shortest time of several."""
    views = {"f_numbers": F_NUMBERS, **views}
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        render_defocus(image, depth, lens, threads=THREADS, **views)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def measure_time() -> list[Row]:
    small, middle, large = (street(shape) for shape in ((240, 320), (480, 640), (960, 1280)))
    lens, wide = street_lens(7.0), street_lens(18.0)
    milliseconds(*small, lens)  # compiles
    pair, blurred = milliseconds(*middle, lens), milliseconds(*middle, wide)
    quarter, fourfold = milliseconds(*small, lens), milliseconds(*large, lens)
    distances = np.geomspace(FOCUS, FARTHEST, STACK).tolist()
    stack = milliseconds(*middle, lens, f_numbers=F_NUMBERS[0], focus_distances=distances)
    one_by_one = sum(milliseconds(*middle, lens, f_numbers=F_NUMBERS[0], focus_distances=z) for z in distances)
    area = (18.0 / 7.0) ** 2
    return [
        Row("pair 640x480, CoC to 7 px", pair, "ms", 40.0, pair / 40.0, "under 40 ms", pair < 40.0),
        Row("pair 640x480, CoC to 18 px", blurred, "ms", 150.0, blurred / 150.0, "under 150 ms", blurred < 150.0),
        Row(
            "  over CoC to 7 px",
            blurred,
            "ms",
            pair,
            blurred / pair,
            f"ratio {area:.1f} or less",
            blurred < area * pair,
        ),
        Row("pair 320x240, CoC to 7 px", quarter, "ms", pair, quarter / pair),
        Row(
            "pair 1280x960, CoC to 7 px", fourfold, "ms", pair, fourfold / pair, "ratio 5 or less", fourfold < 5 * pair
        ),
        Row(f"focal stack of {STACK} in one call", stack, "ms", one_by_one, stack / one_by_one),
    ]


def measure(pictures: str) -> list[Row]:
    return measure_time() + measure_pictures(Path(pictures) if pictures else None)


def measure_pictures(folder: Path | None) -> list[Row]:
    rows = []
    for scene, area in [(scene, True) for scene in scenes()] + [(scene, False) for scene in scenes() if scene.edges]:
        pictures = compare(scene, area)
        ours, published = (psnr(picture, pictures[0]) for picture in pictures[1:])
        met = ours >= LEAST_PSNR and ours >= published
        limit = f"{LEAST_PSNR:g} dB or more, ratio 1 or more"
        name = scene.name if area else f"{scene.name}, point samples"
        rows.append(Row(name, ours, "dB", published, ours / published, limit, met))
        if folder is not None:
            write(folder / f"{name.replace(',', '').replace(' ', '_')}.png", pictures)
    return rows


def compare(scene: Scene, area: bool) -> tuple[Picture, Picture, Picture]:
    """The scene as ray-traced, as rendered, and by the published formula; pixels hold their area or their centre."""
    image, depth = pinhole(scene, area)
    (rendered,) = render_defocus(image, depth, scene.lens, scene.f_number)
    return photograph(scene, area=area), rendered, render_published(image, depth, scene.lens, scene.f_number)


def write(path: Path, pictures: tuple[Picture, Picture, Picture]) -> None:
    """The pictures above what they differ from the first, eightfold and about grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    differences = [0.5 + 8.0 * (picture - pictures[0]) for picture in pictures]
    sheet = np.vstack([np.hstack(pictures), np.hstack(differences)])
    large = cv2.resize(sheet, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(path), encode(large)[..., ::-1])


def encode(picture: Picture) -> NDArray[np.uint8]:
    return np.rint(255.0 * np.clip(picture, 0.0, 1.0)).astype(np.uint8)


if __name__ == "__main__":
    report("Defocus renderer, two threads", measure, arguments={"--pictures": ""})
