"""The simulated vehicle: its geometry, its light, its LiDAR and its ground truth agree with each other."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera, Transform
from dfd_ros.optics.lens import Lens
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.optics.sensor import SensorSettings
from dfd_ros.sim.lot import parking_lot
from dfd_ros.sim.props import LIVERIES, POSTERS
from dfd_ros.sim.scene import Coat, Light, SceneArrays, SceneObject, compile_scene
from dfd_ros.sim.spinning_lidar import POINT, LidarSettings, beams, default_mounting
from dfd_ros.sim.textures import Atlas, noise, photograph, surface
from dfd_ros.sim.trace import trace_beams
from dfd_ros.sim.vehicle import CAMERA_HEIGHT, SimSettings, SimulatedVehicle, camera_of
from dfd_ros.sim.view import smooth_rows, trace_rows, viewpoint

LENS_FILE = Path(__file__).parents[1] / "config/lenses/street.yaml"
SHALLOW, DEEP = (1.0, 0.0), (0.0, 1.0)


@pytest.fixture(scope="module")
def lens() -> Lens:
    """The street lens, its sensor binned four times more: 160 x 120 pixels of the same view."""
    street = load_lens(LENS_FILE)
    return dataclasses.replace(street, pixel_pitch=4 * street.pixel_pitch, coc_scale=street.coc_scale / 4)


@pytest.fixture(scope="module")
def camera(lens: Lens) -> Camera:
    return camera_of(lens, 160, 120)


@pytest.fixture(scope="module")
def vehicle(lens: Lens, camera: Camera) -> SimulatedVehicle:
    # Linear 8 bit, so that light can be read off the pictures.
    settings = SimSettings(seed=5, sensor=SensorSettings(gamma=1.0), lidar=LidarSettings(range_noise=1e-6), threads=1)
    vehicle = SimulatedVehicle(settings, lens, camera)
    vehicle.prepare()
    return vehicle


# --- the ray caster


def cast(thing: SceneObject, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances and cosines of incidence of beams on one object."""
    atlas = Atlas()
    atlas.add("grey", np.full((8, 8, 3), 0.5, np.float32))
    scene = compile_scene([thing], atlas, Light((0.0, 0.0, 1.0)), "grey")
    outputs = [np.zeros(len(origins), np.float32) for _ in range(4)]
    trace_beams(scene.arrays, origins.astype(np.float32), directions.astype(np.float32), 1e4, *outputs)
    return outputs[0], outputs[2]


def rays_at(target: np.ndarray, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    origins = rng.standard_normal((count, 3))
    origins *= 9.0 / np.linalg.norm(origins, axis=1, keepdims=True)
    directions = target + rng.uniform(-2.0, 2.0, (count, 3)) - origins
    return origins, directions / np.linalg.norm(directions, axis=1, keepdims=True)


def test_beams_meet_a_sphere_where_algebra_says() -> None:
    centre, radius = np.array([0.5, -0.2, 0.3]), 1.4
    thing = SceneObject("ball")
    thing.ellipsoid(centre, (radius,) * 3, Coat("grey"), axis=(1.0, 2.0, 0.5))
    o, d = rays_at(centre)
    b = np.sum((o - centre) * d, axis=1)
    root = b**2 - np.sum((o - centre) ** 2, axis=1) + radius**2
    expected = np.where(root > 0, -b - np.sqrt(np.maximum(root, 0)), np.inf)
    clear = np.abs(root) > 1e-2  # not at the very rim
    distance, cosine = cast(thing, o, d)
    np.testing.assert_allclose(distance[clear], expected[clear], rtol=1e-4)
    hit = np.isfinite(distance)
    normal = (o + distance[:, None] * d - centre)[hit] / radius
    np.testing.assert_allclose(cosine[hit], -np.sum(normal * d[hit], axis=1), atol=2e-3)


def test_beams_meet_a_turned_box_where_the_slab_method_says() -> None:
    thing = SceneObject("box", position=(0.4, 0.1, 0.2), heading=0.7)
    low, high = np.array([-1.5, -0.5, -0.8]), np.array([1.0, 0.9, 0.7])
    thing.box(low, high, Coat("grey"))
    o, d = rays_at(np.zeros(3))
    c, s = np.cos(0.7), np.sin(0.7)
    to_box = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    p, q = (o - thing.position) @ to_box.T, d @ to_box.T
    first, second = (low - p) / q, (high - p) / q
    enter, leave = np.minimum(first, second).max(axis=1), np.maximum(first, second).min(axis=1)
    clear = np.abs(leave - enter) > 1e-2
    distance, _ = cast(thing, o, d)
    np.testing.assert_allclose(distance[clear], np.where(enter < leave, enter, np.inf)[clear], rtol=1e-4)


def test_beams_meet_a_cylinder_on_its_side_and_its_caps() -> None:
    thing = SceneObject("pole")
    thing.cylinder((0, 0, 0), (0, 0, 2), 0.5, Coat("grey"))
    origins = np.array([[-3.0, 0.0, 1.0], [0.2, 0.1, 5.0], [-3.0, 0.4, 1.0], [-3.0, 0.6, 1.0], [-3.0, 0.0, 2.5]])
    directions = np.array([[1.0, 0, 0], [0, 0, -1.0], [1.0, 0, 0], [1.0, 0, 0], [1.0, 0, 0]])
    distance, cosine = cast(thing, origins, directions)
    np.testing.assert_allclose(distance, [2.5, 3.0, 3.0 - 0.3, np.inf, np.inf], rtol=1e-5)
    np.testing.assert_allclose(cosine[:3], [1.0, 1.0, 0.6], atol=1e-4)


# --- the view: what each pixel shows and whether the sun shines there, against single rays


@pytest.fixture(scope="module", params=[(5, 0.0), (6, 12.0)])
def traced(request: pytest.FixtureRequest, camera: Camera) -> SimpleNamespace:
    """The centres' depths, faces and sunlight in a lot, from 3 m into it when it is clear."""
    seed, clear = request.param
    scene = parking_lot(seed, clear=clear).arrays
    rotation = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    pose = Transform(rotation, np.array([3.0 if clear else 0.0, 0.0, CAMERA_HEIGHT]))
    picture = np.empty((*camera.shape, 3), np.float32)
    depth, key = np.empty(camera.shape, np.float32), np.empty(camera.shape, np.int32)
    view = viewpoint(camera, pose)
    trace_rows(scene, view, 0, camera.height, picture, depth, key)
    return SimpleNamespace(scene=scene, pose=pose, view=view, picture=picture, depth=depth, key=key)


def distances(scene: SceneArrays, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    outputs = [np.zeros(len(origins), np.float32) for _ in range(4)]
    trace_beams(scene, origins.astype(np.float32), directions.astype(np.float32), 1e5, *outputs)
    return outputs[0]


def test_pixels_show_what_their_rays_meet(traced: SimpleNamespace, camera: Camera) -> None:
    rays = camera.rays().reshape(-1, 3) @ traced.pose.rotation.T
    length = np.linalg.norm(rays, axis=1)
    origins = np.broadcast_to(traced.pose.translation, rays.shape)
    expected = distances(traced.scene, origins, rays / length[:, None]) / length
    depth = np.nan_to_num(traced.depth.reshape(-1), nan=np.inf)
    with np.errstate(invalid="ignore"):
        same = (depth == expected) | (np.abs(depth - expected) < 1e-3 * expected)
    assert same.mean() > 0.999  # a ray may graze an edge


def test_shadows_are_where_sunbeams_do_not_come(traced: SimpleNamespace, camera: Camera) -> None:
    """Beams from the sun to each visible point: they end there just where the picture is sunlit."""
    seen = traced.key >= 0
    points = traced.pose.apply((camera.rays() * traced.depth[..., None])[seen].astype(np.float64))
    sun = traced.scene.sun.astype(np.float64)
    away = 60.0  # above everything
    reached = np.abs(distances(traced.scene, points + away * sun, np.broadcast_to(-sun, points.shape)) - away) < 0.01
    lit = traced.key[seen] % 2 == 1
    assert 0.2 < lit.mean() < 0.95
    assert np.mean(lit == reached) > 0.99  # rounding decides on surfaces along the sunlight


def test_borders_are_the_mean_of_finer_pixels(traced: SimpleNamespace, camera: Camera) -> None:
    """Multisampled pixels against a picture of three times as many pixels each way, averaged."""
    side, scene = 3, traced.scene
    fine_camera = Camera(
        *(side * camera.width, side * camera.height, side * camera.fx, side * camera.fy),
        *(side * camera.cx + 1.0, side * camera.cy + 1.0),
    )
    fine = np.empty((*fine_camera.shape, 3), np.float32)
    depth, key = np.empty(fine_camera.shape, np.float32), np.empty(fine_camera.shape, np.int32)
    trace_rows(scene, viewpoint(fine_camera, traced.pose), 0, fine_camera.height, fine, depth, key)
    expected = fine.reshape(camera.height, side, camera.width, side, 3).mean(axis=(1, 3))
    smooth = traced.picture.copy()
    smooth_rows(scene, traced.view, 0, camera.height, side, traced.key, smooth)
    border = np.any(smooth != traced.picture, axis=2)
    assert 0.05 < border.mean() < 0.8
    before, after = (np.abs(p - expected)[border].mean() for p in (traced.picture, smooth))
    assert after < 0.5 * before
    assert np.abs((smooth - expected)[border].mean()) < 2e-3


# --- the vehicle


def test_light_follows_exposure_time_and_aperture(vehicle: SimulatedVehicle, lens: Lens) -> None:
    shallow = vehicle.photograph(0.0, 0.5e-3, SHALLOW).astype(float).mean()
    longer = vehicle.photograph(0.1, 1.0e-3, SHALLOW).astype(float).mean()
    deep = vehicle.photograph(0.2, 2.0e-3, DEEP).astype(float).mean()
    assert longer == pytest.approx(2.0 * shallow, rel=0.02)
    assert deep == pytest.approx(shallow * 4.0 * lens.f_number_ratio**2, rel=0.02)


def test_an_exposure_across_a_transition_is_the_mix(vehicle: SimulatedVehicle) -> None:
    shallow, deep, mixed = (
        np.mean([vehicle.photograph(k * 0.05, 0.8e-3, share) for k in range(16)], axis=0)
        for share in (SHALLOW, DEEP, (0.4, 0.6))
    )
    np.testing.assert_allclose(mixed, 0.4 * shallow + 0.6 * deep, atol=4.0)
    assert np.mean(mixed - 0.4 * shallow - 0.6 * deep) == pytest.approx(0.0, abs=0.2)


def test_the_deep_picture_is_the_sharper_one(vehicle: SimulatedVehicle, lens: Lens) -> None:
    equal_exposure = 1.0e-3 / lens.f_number_ratio**2
    shallow = vehicle.photograph(0.0, 1.0e-3, SHALLOW).astype(float)
    deep = vehicle.photograph(0.05, equal_exposure, DEEP).astype(float)
    far = vehicle.ground_truth(0.0) > 10.0
    detail = [np.mean(np.diff(picture, axis=1)[far[:, 1:] & far[:, :-1]] ** 2) for picture in (shallow, deep)]
    assert detail[1] > 1.5 * detail[0]


def test_the_same_seed_gives_the_same_world(vehicle: SimulatedVehicle, lens: Lens, camera: Camera) -> None:
    twin = SimulatedVehicle(vehicle.settings, lens, camera)
    twin.prepare()
    assert np.array_equal(vehicle.photograph(0.3, 1e-3, SHALLOW), twin.photograph(0.3, 1e-3, SHALLOW))
    assert np.array_equal(vehicle.sweep(0.1), twin.sweep(0.1))
    assert not np.array_equal(vehicle.photograph(0.3, 1e-3, SHALLOW), twin.photograph(0.4, 1e-3, SHALLOW))
    other = SimulatedVehicle(dataclasses.replace(vehicle.settings, seed=6), lens, camera)
    other.prepare()
    assert np.mean(np.nan_to_num(vehicle.ground_truth(0.0)) != np.nan_to_num(other.ground_truth(0.0))) > 0.1


def test_the_road_is_where_the_mounting_says(vehicle: SimulatedVehicle, camera: Camera) -> None:
    """Ground truth of pixels on the road against the intersection of their rays with the plane z = 0."""
    depth = vehicle.ground_truth(0.0)
    rays = camera.rays() @ vehicle.world_from_camera(0.0).rotation.T
    with np.errstate(divide="ignore"):
        plane = np.where(rays[..., 2] < 0, CAMERA_HEIGHT / -rays[..., 2], np.inf)
    below = depth[-20:, 60:100] / plane[-20:, 60:100]
    assert np.median(below) == pytest.approx(1.0, abs=2e-3)
    finite = np.isfinite(depth)
    assert np.all(depth[finite] <= plane[finite] * 1.001)  # nothing lies under the road


def test_lidar_and_camera_see_the_same_world(vehicle: SimulatedVehicle, camera: Camera) -> None:
    """Points projected by camera_from_lidar have the depth of the pixels around them, or are hidden behind it.

    The LiDAR looks over the nearest things from above, so some of its points are hidden; none may float before.
    """
    sweep = vehicle.sweep(0.0)
    points = np.stack([sweep["x"], sweep["y"], sweep["z"]], axis=1).astype(np.float64)
    x, y, z = vehicle.camera_from_lidar.apply(points).T
    u, v = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
    seen = (z > 0) & (u >= 1) & (u < camera.width - 2) & (v >= 1) & (v < camera.height - 2)
    column, row = u[seen].astype(int), v[seen].astype(int)
    depth = np.nan_to_num(vehicle.ground_truth(0.0), nan=1e6)
    around = np.stack([depth[row + j, column + i] for j in (0, 1) for i in (0, 1)])
    before = z[seen] < 0.99 * around.min(axis=0)
    behind = z[seen] > 1.01 * around.max(axis=0)
    assert seen.sum() > 1000
    assert before.mean() < 0.01
    assert behind.mean() < 0.3
    beyond_near_things = around.min(axis=0) > 9.0
    assert behind[beyond_near_things].mean() < 0.15


def test_sweeps_are_those_of_a_spinning_lidar(vehicle: SimulatedVehicle) -> None:
    settings = vehicle.settings.lidar
    sweep = vehicle.sweep(0.0)
    assert sweep.dtype == POINT
    fired = len(beams(settings).ring)
    assert fired == 64 * round(120 / 0.17)
    assert 0.5 * fired < len(sweep) < fired
    reach = np.sqrt(sweep["x"] ** 2 + sweep["y"] ** 2 + sweep["z"] ** 2)
    assert settings.min_range - 0.1 < reach.min() < reach.max() < settings.max_range + 0.1
    azimuth = np.degrees(np.arctan2(sweep["y"], sweep["x"]))
    elevation = np.degrees(np.arcsin(sweep["z"] / reach))
    np.testing.assert_allclose(np.abs(azimuth).max(), 60.0, atol=1.0)
    np.testing.assert_allclose(elevation, np.linspace(2.0, -24.9, 64)[sweep["ring"]], atol=0.01)
    period = 1.0 / vehicle.settings.lidar_rate
    np.testing.assert_allclose(sweep["time"], (60.0 - azimuth) / 360.0 * period, atol=1e-3 * period)
    assert sweep["intensity"].min() >= 0.0
    assert sweep["intensity"].max() <= 1.0
    assert not np.array_equal(sweep["x"], vehicle.sweep(0.1)["x"])


def test_the_lot_holds_three_kinds_of_vehicles_and_people(vehicle: SimulatedVehicle, camera: Camera) -> None:
    boxes = vehicle.objects(0.0, min_pixels=8)
    assert {"car", "van", "truck", "pedestrian"} <= {box.kind for box in boxes}
    assert boxes[0].distance < 3.0
    assert boxes[-1].distance > 60.0
    assert len({box.id for box in boxes}) == len(boxes)
    depth = vehicle.ground_truth(0.0)
    assert np.isnan(depth).any()
    for box in boxes:
        assert 0 <= box.x < box.x + box.width <= camera.width
        assert 0 <= box.y < box.y + box.height <= camera.height
        window = depth[box.y : box.y + box.height, box.x : box.x + box.width]
        assert np.nanmin(window) <= box.distance <= np.nanmax(window)
        assert box.pixels <= window.size


def test_driving_brings_things_nearer(lens: Lens, camera: Camera) -> None:
    shares: list[float] = []
    settings = SimSettings(seed=2, moving=True, speed=2.0, frame_rate=2.0, threads=2)
    driving = SimulatedVehicle(settings, lens, camera)
    driving.prepare(1.0, shares.append)
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    truck = [next(box.distance for box in driving.objects(t) if box.kind == "truck") for t in (0.0, 1.0)]
    assert truck[0] - truck[1] == pytest.approx(2.0, abs=0.1)
    assert np.mean(driving.photograph(0.0, 1e-3, SHALLOW) != driving.photograph(1.0, 1e-3, SHALLOW)) > 0.3
    # The lane is free: nothing stands within the vehicle's width where it drives.
    sweep = driving.sweep(0.0)
    points = np.stack([sweep["x"], sweep["y"], sweep["z"]], axis=1).astype(np.float64)
    world = (driving.world_from_camera(0.0) @ driving.camera_from_lidar).apply(points)
    assert not np.any((np.abs(world[:, 1]) < 1.0) & (world[:, 0] > 1.0) & (world[:, 0] < 7.0) & (world[:, 2] > 0.1))


def test_the_truth_is_that_of_the_photograph_and_the_drive_starts_over(lens: Lens, camera: Camera) -> None:
    settings = SimSettings(seed=2, moving=True, speed=2.0, frame_rate=2.0, threads=1)
    driving = SimulatedVehicle(settings, lens, camera)
    driving.prepare(1.0)  # views at 0, 0.5 and 1 s
    for t, shown in ((0.2, 0.0), (0.3, 0.5), (1.2, 1.0), (1.3, 0.0), (1.9, 0.5)):
        _, depth = driving.all_in_focus(shown)
        np.testing.assert_array_equal(driving.ground_truth(t), depth)
    assert driving.objects(0.5) == driving.objects(2.0)
    assert driving.world_from_camera(2.0).translation[0] == pytest.approx(1.0)


# --- textures and errors


def test_a_texture_keeps_its_colour_down_to_its_last_mip_level() -> None:
    atlas = Atlas()
    atlas.add("ochre", np.full((4, 4, 3), (0.64, 0.25, 0.04), np.float32))
    texels = atlas.texels().view(np.uint8).reshape(-1, 4)
    assert len(texels) == 16 + 4 + 1
    np.testing.assert_array_equal(texels, np.tile([204, 128, 51, 255], (21, 1)))


def test_textures_have_detail_at_every_scale() -> None:
    """Halving the resolution keeps most of the contrast, again and again."""
    grey = surface((0.2, 0.2, 0.2), np.random.default_rng(0), photo="gravel", contrast=0.3, scales=(3, 10))[..., 1]
    contrasts = []
    while grey.shape[0] >= 32:
        step = np.diff(grey, axis=1)
        contrasts.append(step.std() / grey.mean())
        grey = (grey[::2, ::2] + grey[1::2, ::2] + grey[::2, 1::2] + grey[1::2, 1::2]) / 4
    assert min(contrasts) > 0.03
    assert noise((64, 64), np.random.default_rng(1)).std() == pytest.approx(1.0, abs=1e-3)


def test_the_default_mounting_is_a_rotation_above_and_behind_the_camera() -> None:
    mounting = default_mounting()
    np.testing.assert_allclose(mounting.rotation @ mounting.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(mounting.rotation) == pytest.approx(1.0)
    x, y, z = mounting.translation
    assert y < -0.4
    assert z < -0.5
    assert abs(x) < 0.2


def test_bad_input_is_named(vehicle: SimulatedVehicle, lens: Lens, camera: Camera) -> None:
    with pytest.raises(InputError, match="prepare"):
        SimulatedVehicle(SimSettings(), lens, camera).photograph(0.0, 1e-3, SHALLOW)
    with pytest.raises(InputError, match="sum to 1"):
        vehicle.photograph(0.0, 1e-3, (0.5, 0.6))
    with pytest.raises(InputError, match="exposure_time"):
        vehicle.photograph(0.0, 0.0, SHALLOW)
    with pytest.raises(InputError, match="duration"):
        SimulatedVehicle(SimSettings(moving=True), lens, camera).prepare()
    with pytest.raises(InputError, match="frame_rate"):
        SimSettings(frame_rate=0.0)
    with pytest.raises(InputError, match="pinhole"):
        SimulatedVehicle(SimSettings(), lens, dataclasses.replace(camera, distortion=(0.1, 0, 0, 0, 0)), Transform())
    with pytest.raises(InputError, match="focal_length"):
        camera_of(Lens("unknown", 5.0, 1.8, 4.0, 20.0, 1.0, 50.0))
    with pytest.raises(InputError, match="powers of two"):
        Atlas().add("odd", np.zeros((10, 16, 3), np.float32))


@pytest.mark.parametrize("name", sorted({*LIVERIES, *POSTERS, "brick", "gravel", "grass", "motorcycle_left"}))
def test_every_photograph_that_a_seed_may_draw_is_there(name: str) -> None:
    picture = photograph(name)
    assert picture.ndim == 3
    assert 0.0 <= picture.min() < picture.max() <= 1.0


@pytest.mark.parametrize("seed", [9, 17, 1234567])
def test_other_seeds_make_other_lots(seed: int) -> None:
    assert len(parking_lot(seed).kinds) > 20
