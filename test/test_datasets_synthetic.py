"""Made-up scenes: the ray caster against closed forms, the pictures against the renderer, and that they repeat."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfd_ros.data.samples import Sample, decode
from dfd_ros.data.scene_caster import BALL, BOX, POLE, Bodies, Light, Pinhole, Surfaces, photograph
from dfd_ros.data.scene_kinds import lay_out
from dfd_ros.data.scene_layout import Layout, View, about_x, about_y
from dfd_ros.data.scene_office_furniture import Part, desk, stand
from dfd_ros.data.scene_textures import LEVELS, SIDE, texture_bank
from dfd_ros.data.synthetic import LensRange, SyntheticScenes, SyntheticSettings
from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens
from dfd_ros.optics.render import render_defocus

SHAPE = (48, 64)
SMALL = SyntheticSettings(shape=SHAPE)
IDEAL = replace(
    SMALL,
    lens_error=0.0,
    gamma_error=0.0,
    exposure_error=0.0,
    misregistration=0.0,
    softness=(0.0, 0.0),
    full_well=(1e6, 1e6),
)
CAMERA = Pinhole(np.float32(60.0), np.float32(31.5), np.float32(23.5))
GREY = 0.4  # reflectance
KINDS = {"room": (0.4, 10.0), "office": (0.7, 10.0), "clutter": (0.4, 10.0), "street": (4.0, 80.0)}


# --- the ray caster ---


def scene(
    kinds: list[int], centres: list[tuple], axes: list[np.ndarray], hollow: list[bool] | None = None
) -> tuple[Bodies, Surfaces]:
    """Grey bodies; every one casts a shadow."""
    count = len(kinds)
    bodies = Bodies(
        np.array(kinds, np.int32),
        np.array(centres, np.float32),
        np.array(axes, np.float32),
        np.arange(count, dtype=np.int32) * 6,
        np.array(hollow or [False] * count),
        np.arange(count, dtype=np.int32),
    )
    faces = 6 * count
    surfaces = Surfaces(
        np.zeros((faces, 2), np.int32),
        np.ones((faces, 2, 3), np.float32),
        np.full((faces, 3), GREY, np.float32),
        np.zeros((faces, 3), np.float32),
        np.zeros((faces, 2), np.float32),
        np.zeros(faces, np.float32),
        np.zeros(faces, np.float32),
    )
    return bodies, surfaces


def light(position: tuple[float, float, float] = (0, 0, 0), lamp: float = 0.0, ambient: float = 1.0) -> Light:
    three = np.ones(3, np.float32)
    zero = np.float32(0.0)
    return Light(
        np.array(position, np.float32), lamp * three, zero, zero, ambient * three, zero, 0.2 * three, 0.8 * three
    )


def rays() -> np.ndarray:
    y, x = np.indices(SHAPE, dtype=np.float64)
    return np.stack([(x - CAMERA.cx) / CAMERA.focal, (y - CAMERA.cy) / CAMERA.focal, np.ones(SHAPE)], axis=-1)


def turned(angles: tuple[float, float, float]) -> np.ndarray:
    """Axes (rows) of unit length."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = math.cos(angle), math.sin(angle)
        turn = np.eye(3)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[a, a], turn[a, b], turn[b, a], turn[b, b] = c, -s, s, c
        matrix = matrix @ turn
    return matrix


angle = st.floats(-3.0, 3.0)


@settings(max_examples=25, deadline=None)
@given(x=st.floats(-1, 1), y=st.floats(-1, 1), z=st.floats(3, 8), radius=st.floats(0.4, 1.5))
def test_a_ball_is_where_the_quadratic_says(x: float, y: float, z: float, radius: float) -> None:
    bodies, surfaces = scene([BALL], [(x, y, z)], [radius * np.eye(3)])
    _, depth = photograph(bodies, surfaces, light(), CAMERA, SHAPE, texture_bank())
    centre, direction = np.array([x, y, z]), rays()
    a, b = np.sum(direction**2, axis=-1), direction @ centre
    root = b**2 - a * (centre @ centre - radius**2)
    inside, outside = root > 1e-3 * a, root < -1e-3 * a
    np.testing.assert_allclose(depth[inside], ((b - np.sqrt(np.maximum(root, 0))) / a)[inside], rtol=2e-3)
    assert np.isinf(depth[outside]).all()


@settings(max_examples=25, deadline=None)
@given(
    angles=st.tuples(angle, angle, angle), half=st.tuples(*[st.floats(0.3, 1.5)] * 3), kind=st.sampled_from([BOX, POLE])
)
def test_seen_points_lie_on_the_body_and_nothing_is_nearer(
    angles: tuple[float, float, float], half: tuple[float, float, float], kind: int
) -> None:
    axes, centre = turned(angles), np.array([0.2, -0.1, 5.0])
    if kind == POLE:
        half = (half[0], half[0], half[2])
    bodies, surfaces = scene([kind], [tuple(centre)], [axes * np.array(half)[:, None]])
    _, depth = photograph(bodies, surfaces, light(), CAMERA, SHAPE, texture_bank())

    def size(points: np.ndarray) -> np.ndarray:
        """1 on the body, below 1 within."""
        local = np.abs((points - centre) @ axes.T) / half
        side = np.hypot(local[..., 0], local[..., 1]) if kind == POLE else np.maximum(local[..., 0], local[..., 1])
        return np.maximum(side, local[..., 2])

    hit = np.isfinite(depth)
    assert hit.sum() > 20
    points = rays() * np.where(hit, depth, 5.0)[..., None]
    np.testing.assert_allclose(size(points)[hit], 1.0, atol=2e-3)
    assert (size(0.99 * points)[hit] > 0.999).all()
    steps = np.linspace(3.0, 7.0, 200)[:, None, None, None]
    assert (size(rays() * steps).min(axis=0)[~hit] > 0.95).all()


def test_a_room_is_seen_from_within() -> None:
    bodies, surfaces = scene([BOX], [(0, 0, 1.0)], [np.diag([2.0, 1.0, 3.0])], [True])
    _, depth = photograph(bodies, surfaces, light(), CAMERA, SHAPE, texture_bank())
    direction = np.abs(rays())
    expected = np.minimum(
        np.minimum(2.0 / np.maximum(direction[..., 0], 1e-9), 1.0 / np.maximum(direction[..., 1], 1e-9)), 4.0
    )
    np.testing.assert_allclose(depth, expected, rtol=1e-4)


def test_light_falls_off_with_the_cosine() -> None:
    """A wall at depth 4 under a lamp at the camera: reflectance times (ambient + cosine)."""
    bodies, surfaces = scene([BOX], [(0, 0, 5.0)], [np.diag([20.0, 20.0, 1.0])])
    picture, _ = photograph(bodies, surfaces, light((0, 0, 0), 0.5, 0.3), CAMERA, SHAPE, texture_bank())
    cosine = 1.0 / np.linalg.norm(rays(), axis=-1)
    np.testing.assert_allclose(picture[..., 1], GREY * (0.3 + 0.5 * cosine), rtol=2e-3)


def test_a_body_before_the_lamp_casts_a_shadow() -> None:
    """A lamp to the left of the camera, a small ball halfway to the wall: its shadow lies to the right of it."""
    axes = [np.diag([20.0, 20.0, 1.0]), 0.2 * np.eye(3)]
    bodies, surfaces = scene([BOX, BALL], [(0, 0, 5.0), (0.0, 0, 2.0)], axes)
    picture, depth = photograph(bodies, surfaces, light((-1.0, 0, 0), 1.0, 0.0), CAMERA, SHAPE, texture_bank())
    # The shadow's centre is at x = 1 on the wall at depth 4: 15 pixels right of the middle.
    assert picture[24, 46, 0] == 0.0
    assert depth[24, 46] == pytest.approx(4.0)
    assert picture[24, 60, 0] > 0.1
    assert picture[24, 10, 0] > 0.1


def test_the_sky_has_no_depth() -> None:
    bodies, surfaces = scene([BALL], [(0, 0, -3.0)], [np.eye(3)])
    picture, depth = photograph(bodies, surfaces, light(), CAMERA, SHAPE, texture_bank())
    assert np.isinf(depth).all()
    assert (0.2 <= picture).all()
    assert (picture <= 0.8).all()


def test_coarser_mip_maps_keep_the_mean_reflectance() -> None:
    bank = texture_bank()
    for texture in (bank.colour[0], bank.grey[0], bank.pattern[0], bank.noise[0]):
        finest = bank.first[texture, 0]
        mean = np.mean((bank.texels[finest : finest + SIDE * SIDE, :3] / 255.0) ** 2, axis=0)
        np.testing.assert_allclose((bank.texels[bank.first[texture, LEVELS - 1], :3] / 255.0) ** 2, mean, atol=0.02)


# --- the samples ---


def assert_same(a: Sample, b: Sample) -> None:
    for field in ("shallow", "deep", "depth", "all_in_focus"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    assert (a.name, a.lens, a.gamma) == (b.name, b.lens, b.gamma)


def test_a_sample_is_a_function_of_seed_and_number() -> None:
    forward = SyntheticScenes(SMALL)
    other = pickle.loads(pickle.dumps(forward))  # as workers get it
    first = [forward.sample(index) for index in range(4)]
    for index in (3, 0, 2, 1):
        assert_same(other.sample(index), first[index])
    assert np.abs(first[0].deep - first[1].deep).max() > 0.1
    assert np.abs(SyntheticScenes(replace(SMALL, seed=1)).sample(0).deep - first[0].deep).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_what_they_promise(kind: str) -> None:
    low, high = KINDS[kind]
    generator = SyntheticScenes(replace(SMALL, kinds={kind: 1.0}, depth_range=(low, high)))
    deepest, unknown = 0.0, 0.0
    for index in range(20):
        sample = generator.sample(index)
        for picture in (sample.shallow, sample.deep, sample.all_in_focus):
            assert picture.shape == (*SHAPE, 3)
            assert picture.dtype == np.float32
            assert (picture >= 0.0).all()
            assert (picture <= 1.0).all()
        known = np.isfinite(sample.depth)
        assert sample.depth.dtype == np.float32
        assert low <= sample.depth[known].min()
        assert sample.depth[known].max() <= high
        assert sample.deep.std() > 0.02
        deepest, unknown = max(deepest, float(sample.depth[known].max())), unknown + float(np.mean(~known)) / 20
    assert deepest > 0.6 * high
    # Only a street has a sky.
    assert unknown < (0.6 if kind == "street" else 0.01)


@pytest.mark.parametrize("depth_range", [(0.15, 0.9), (1.0, 3.0), (2.0, 40.0)])
def test_any_range_of_depth_is_kept_and_filled(depth_range: tuple[float, float]) -> None:
    generator = SyntheticScenes(replace(SMALL, depth_range=depth_range))
    depth = np.concatenate([generator.sample(index).depth.ravel() for index in range(12)])
    assert np.isfinite(depth).mean() > 0.98
    assert depth_range[0] <= np.nanmin(depth) < 2.0 * depth_range[0]
    assert 0.7 * depth_range[1] < np.nanmax(depth) <= depth_range[1]


def test_the_pictures_are_those_of_the_lens_that_is_told() -> None:
    generator = SyntheticScenes(IDEAL)
    for index in range(3):
        sample = generator.sample(index)
        lens = sample.lens
        assert isinstance(lens, Lens)
        sharp = decode(sample.all_in_focus)
        unclipped = sharp.max(axis=(1, 2)) < 1.0
        pictures = render_defocus(sharp, sample.depth, lens, (lens.f_number_shallow, lens.f_number_deep))
        for rendered, taken in zip(pictures, (sample.shallow, sample.deep), strict=True):
            difference = np.abs(rendered - decode(taken))
            assert np.median(difference) < 0.004  # half a step of 8 bits at gamma 2.2
        assert unclipped.shape == (SHAPE[0],)


def test_the_shallow_picture_has_less_detail_than_the_deep_one() -> None:
    def detail(picture: np.ndarray) -> float:
        return float(np.mean(np.diff(picture, axis=0) ** 2) + np.mean(np.diff(picture, axis=1) ** 2))

    generator = SyntheticScenes(IDEAL)
    for index in range(8):
        sample = generator.sample(index)
        assert detail(sample.shallow) < detail(sample.deep) <= 1.01 * detail(sample.all_in_focus)


def test_fewer_electrons_are_noisier() -> None:
    def noise(full_well: float) -> float:
        sample = SyntheticScenes(replace(IDEAL, full_well=(full_well, full_well), lens=pinhole())).sample(0)
        return float(np.std(sample.deep - sample.all_in_focus))

    assert noise(1_000.0) > 2.0 * noise(10_000.0) > 0.0


def pinhole() -> Lens:
    """A lens that blurs nothing."""
    return Lens("pinhole", 0.4, 2.0, 4.0, 1e-4, 0.4, 10.0)


def test_one_lens_for_all_is_told_and_its_error_is_in_the_pictures() -> None:
    lens = Lens("fixed", 0.5, 2.8, 8.0, 20.0, 0.4, 10.0)
    exact = SyntheticScenes(replace(IDEAL, lens=lens)).sample(0)
    off = SyntheticScenes(replace(IDEAL, lens=lens, lens_error=0.2)).sample(0)
    assert exact.lens == off.lens == lens
    np.testing.assert_array_equal(exact.depth, off.depth)
    assert np.abs(exact.shallow - off.shallow).max() > 0.01


def test_a_lens_that_tells_its_field_of_view_is_obeyed() -> None:
    """Twice the focal length at the same pitch: half the view; scenes of the same number then differ."""
    wide = Lens.physical(
        "wide", focal_length=0.01, pixel_pitch=2e-4, focus_distance=0.4, f_number_shallow=2.0, f_number_deep=8.0,
        min_depth=0.4, max_depth=10.0,
    )  # fmt: skip
    narrow = Lens.physical(
        "narrow", focal_length=0.02, pixel_pitch=2e-4, focus_distance=0.4, f_number_shallow=2.0, f_number_deep=8.0,
        min_depth=0.4, max_depth=10.0,
    )  # fmt: skip
    samples = [SyntheticScenes(replace(IDEAL, lens=lens)).sample(1) for lens in (wide, narrow)]
    assert np.nanmax(np.abs(samples[0].depth - samples[1].depth)) > 0.1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), focal=st.floats(30.0, 3000.0))
def test_a_drawn_lens_is_a_possible_one(seed: int, focal: float) -> None:
    limits = LensRange(coc_field=(-0.1, 0.2))
    lens = limits.draw(np.random.default_rng(seed), focal, (0.5, 8.0))
    assert lens.focal_length / lens.pixel_pitch == pytest.approx(focal)
    low, high = limits.largest_coc
    assert 0.999 * low <= lens.coc(np.inf) <= 1.001 * high
    expected = lens.focal_length**2 / ((lens.focus_distance - lens.focal_length) * lens.pixel_pitch)
    assert lens.coc_scale == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), focal=st.floats(30.0, 3000.0))
def test_a_drawn_lens_sees_the_nearest_depth_wherever_it_is_focused(seed: int, focal: float) -> None:
    limits = LensRange(largest_coc=(2.0, 20.0), focus=(0.5, 6.0))
    lens = limits.draw(np.random.default_rng(seed), focal, (0.5, 8.0))
    assert lens.focal_length <= 0.25
    assert np.isfinite(lens.coc(0.5))
    assert lens.coc(np.inf) <= 1.001 * limits.largest_coc[1]
    assert lens.coc(np.inf) >= 0.999 * limits.largest_coc[0] or lens.focal_length == 0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (8, 64)}, "shape: expected"),
        ({"depth_range": (2.0, 1.0)}, "depth_range: expected"),
        ({"depth_range": (2.0, 3.0)}, "twice the nearest"),
        ({"kinds": {"forest": 1.0}}, "kinds: expected a weight for some of room"),
        ({"kinds": {}}, "kinds: expected"),
        ({"field_of_view": (20.0, 170.0)}, "field_of_view: expected"),
        ({"exposure_error": 2.0}, "exposure_error: expected"),
        ({"full_well": (-1.0, 5.0)}, "full_well: expected"),
        ({"gamma": 0.0}, "gamma: expected"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SMALL, **change)


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(InputError, match="number of 0 or more, got -1"):
        SyntheticScenes(SMALL).sample(-1)


# --- offices ---

OFFICE_RANGES = [(0.4, 10.0), (0.7, 3.0)]


def view(depth_range: tuple[float, float]) -> View:
    return View(CAMERA, SHAPE, *depth_range)


def test_offices_are_a_function_of_seed_and_number() -> None:
    mixed = replace(SMALL, kinds={"office": 0.65, "room": 0.25, "clutter": 0.1})
    first, again = SyntheticScenes(mixed), SyntheticScenes(mixed)
    samples = [first.sample(index) for index in range(6)]
    assert sum(sample.name.startswith("office") for sample in samples) >= 2
    for index in reversed(range(6)):
        assert_same(again.sample(index), samples[index])


@pytest.mark.parametrize("depth_range", OFFICE_RANGES)
@pytest.mark.parametrize("seed", range(3))
def test_an_office_fills_the_picture_within_the_range(depth_range: tuple[float, float], seed: int) -> None:
    office = replace(SMALL, kinds={"office": 1.0}, depth_range=depth_range, seed=seed)
    samples = [SyntheticScenes(office).sample(index) for index in range(8)]
    depth = np.stack([sample.depth for sample in samples])
    assert np.isfinite(depth).mean() > 0.99
    assert np.nanmin(depth) < 3.0 * depth_range[0]
    for sample in samples:
        assert sample.all_in_focus.mean() > 0.1  # nothing is all black


@pytest.mark.parametrize("depth_range", OFFICE_RANGES)
def test_no_ray_leaves_an_office(depth_range: tuple[float, float]) -> None:
    for seed in range(8):
        made = lay_out("office", np.random.default_rng(seed), view(depth_range), texture_bank())
        _, depth = photograph(made.bodies, made.surfaces, made.light, CAMERA, SHAPE, texture_bank())
        assert np.isfinite(depth).all()
        assert depth.min() >= 0.99 * depth_range[0]


def test_an_office_is_as_large_as_its_range() -> None:
    """The same numbers drawn for a range twice as far: everything is twice as large."""
    once, twice = (
        lay_out("office", np.random.default_rng(5), view(depth_range), texture_bank())
        for depth_range in ((0.5, 9.0), (1.0, 18.0))
    )
    np.testing.assert_allclose(2.0 * once.bodies.centre, twice.bodies.centre, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(2.0 * once.bodies.axes, twice.bodies.axes, rtol=1e-4, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(z=st.floats(-1.0, 12.0), yaw=st.floats(0.0, 360.0), pitch=st.floats(-15.0, 15.0))
def test_a_piece_stands_as_a_whole_within_the_range_or_not_at_all(z: float, yaw: float, pitch: float) -> None:
    layout = Layout(np.random.default_rng(0), view((0.7, 10.0)), texture_bank())
    layout.tilt = about_x(pitch)
    look = layout.plain(1.0)
    turn, half = about_y(yaw), np.array([0.8, 0.1, 0.3])
    parts = [Part(BOX, np.array([0.0, y, 0.0]), half, np.eye(3), [look]) for y in (-0.1, -1.0)]
    stood = stand(layout, parts, np.array([0.0, 1.2, z]), turn)
    assert len(layout._centre) == (0 if stood is None else len(parts))
    if stood is not None:
        assert stood[2] >= z
        signs = np.indices((2, 2, 2)).reshape(3, -1).T * 2 - 1
        for centre, axes in zip(layout._centre, layout._axes, strict=True):
            depth = (centre + signs @ axes) @ layout.tilt[2]
            assert depth.min() > 0.7
            assert depth.max() < 10.0
    else:
        assert z > 7.0


def test_what_is_on_a_desk_does_not_hang_in_the_air() -> None:
    """Where the desk would be too far, nothing of it is there."""
    layout = Layout(np.random.default_rng(0), view((0.7, 10.0)), texture_bank())
    desk(layout, np.array([0.0, 1.2, 9.9]), 1.0, 0.0)
    assert not layout._centre
    desk(layout, np.array([0.0, 1.2, 3.0]), 1.0, 0.0)
    assert len(layout._centre) > 3
