"""The LiDAR depth node over real DDS: a sweep becomes dense depth, a bad one is counted and costs nothing else."""

import numpy as np
import pytest
import yaml
from conftest import wait_until
from dfd_msgs.msg import ApertureState, ImagePair
from geometry_msgs.msg import Twist as TwistMessage
from geometry_msgs.msg import TwistStamped, Vector3
from rclpy.parameter import Parameter
from scipy.linalg import expm
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header

from dfd_ros.data.image_messages import image_view
from dfd_ros.geometry import Camera
from dfd_ros.lidar.colorize import METHODS, ColorizeSettings, colorize
from dfd_ros.nodes.base import latched_qos
from dfd_ros.nodes.clouds import cloud_message, points_array
from dfd_ros.nodes.convert import grey_array, image_message, info_from_camera, time_message
from dfd_ros.nodes.lidar_depth_node import LidarDepthNode
from dfd_ros.nodes.sim_node import SimNode

CAMERA = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
XYZ = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
NOW = 1_700_000_000_000_000_000
STAMP = time_message(NOW)


def wall(depth=5.0, step=6):
    """Points on a wall, in the camera's own frame."""
    v, u = np.mgrid[2:48:step, 2:64:step]
    points = np.empty(u.size, XYZ)
    points["x"] = ((u.ravel() - CAMERA.cx) / CAMERA.fx) * depth
    points["y"] = ((v.ravel() - CAMERA.cy) / CAMERA.fy) * depth
    points["z"] = depth
    return points


def start(bench, guide, **parameters):
    """The node, with publishers of all it needs and a list of each depth it gives."""
    bench.node = bench.start(LidarDepthNode, guide=guide, max_skew=0.1, **parameters)
    bench.sparse, bench.dense = bench.listen(Image, "lidar/sparse_depth"), bench.listen(Image, "lidar/depth")
    bench.points = bench.publisher(PointCloud2, "points")
    bench.guide = bench.publisher(*((ImagePair, "pair") if guide == "pair" else (Image, "image_raw")))
    if guide == "image":
        bench.info = bench.publisher(CameraInfo, "camera_info")
    assert wait_until(lambda: bench.node._dense.get_subscription_count() == 1)
    return bench


@pytest.fixture(params=["pair", "image"])
def lidar(bench, request):
    return start(bench, request.param)


def send(bench, cloud, camera=CAMERA, frame="camera", picture=PICTURE, later=0.0):
    """A sweep, `later` seconds after its image."""
    header = Header(stamp=STAMP, frame_id="camera")
    image = image_message(picture, "rgb8", header)
    info = camera if isinstance(camera, CameraInfo) else info_from_camera(camera, header)
    if isinstance(cloud, np.ndarray):
        cloud = cloud_message(cloud, Header())
    cloud.header.stamp, cloud.header.frame_id = time_message(NOW + round(1e9 * later)), frame
    if hasattr(bench, "info"):
        bench.info.publish(info)
        assert wait_until(lambda: bench.node._camera_info == info)
        bench.guide.publish(image)
    else:
        bench.guide.publish(ImagePair(header=header, deep=image, camera_info=info))
    bench.points.publish(cloud)


def answer(bench, index=0):
    """The sparse and the dense depth of a sweep."""
    assert wait_until(lambda: len(bench.dense) > index)
    return image_view(bench.sparse[index], "sparse"), image_view(bench.dense[index], "dense")


def slanted():
    points = wall()
    points["z"] += np.linspace(0, 1, len(points), dtype=np.float32)
    return points


def test_a_sweep_becomes_sparse_and_dense_depth(lidar):
    send(lidar, wall())
    assert wait_until(lambda: lidar.dense)
    sparse, dense = image_view(lidar.sparse[0], "sparse"), image_view(lidar.dense[0], "dense")
    assert lidar.dense[0].header.stamp == STAMP
    known = np.isfinite(sparse)
    assert known.sum() == len(wall())
    np.testing.assert_allclose(sparse[known], 5.0, rtol=1e-5)
    np.testing.assert_allclose(dense, 5.0, rtol=1e-3)


def test_dense_depth_is_the_colorization_of_the_sparse_one(lidar):
    points = wall()
    points["z"] += np.linspace(0, 1, len(points), dtype=np.float32)
    send(lidar, points)
    assert wait_until(lambda: lidar.dense)
    sparse = image_view(lidar.sparse[0], "sparse")
    grey = np.float32(PICTURE @ [0.299, 0.587, 0.114]).round() / 255
    np.testing.assert_allclose(image_view(lidar.dense[0], "dense"), colorize(grey, sparse).depth, rtol=0.01)


def test_extrinsics_move_points_of_another_frame(lidar):
    """The vehicle's LiDAR looks along x; a wall ahead of it stands ahead of the camera."""
    camera_from_lidar = lidar.node._extrinsics
    points = wall()
    seen = camera_from_lidar.inverse().apply(np.stack([points[name] for name in "xyz"], axis=1))
    for name, values in zip("xyz", seen.T, strict=True):
        points[name] = values
    send(lidar, points, frame="lidar")
    assert wait_until(lambda: lidar.dense)
    np.testing.assert_allclose(image_view(lidar.dense[0], "dense"), 5.0, rtol=1e-3)


def without(name):
    points = wall()
    cloud = cloud_message(points, Header())
    cloud.fields = [field for field in cloud.fields if field.name != name]
    return cloud


def short():
    cloud = cloud_message(wall(), Header())
    cloud.width *= 2
    cloud.row_step *= 2
    return cloud


@pytest.mark.parametrize(
    ("cloud", "words"),
    [
        (lambda: without("z"), "expected fields x, y, z, got x, y"),
        (lambda: PointCloud2(), "expected fields x, y, z, got none"),
        (short, "expected 1x"),
    ],
    ids=["no z", "no fields", "cut"],
)
def test_a_bad_cloud_is_counted_and_the_next_is_used(lidar, cloud, words, capfd):
    send(lidar, cloud())
    assert wait_until(lambda: lidar.node.diagnostics.total("dropped/bad_sweep") == 1)
    assert words in capfd.readouterr().err
    send(lidar, wall())
    assert wait_until(lambda: lidar.dense)


@pytest.mark.parametrize("z", [np.nan, np.inf, -5.0, 0.0, None], ids=["NaN", "infinite", "behind", "zero", "empty"])
def test_a_sweep_that_the_camera_does_not_see_is_answered_with_nothing_known_and_counted(lidar, z, capfd):
    confidence = lidar.listen(Image, "lidar/confidence")
    assert wait_until(lambda: lidar.node._confidence.get_subscription_count() == 1)
    points = wall()[:0] if z is None else wall()
    points["z"] = 0.0 if z is None else z
    if z == 0.0:
        points["x"] = points["y"] = 0.0
    send(lidar, points)
    sparse, dense = answer(lidar)
    assert np.isnan(sparse).all()
    assert np.isnan(dense).all()
    assert wait_until(lambda: confidence)
    assert not image_view(confidence[0], "confidence").any()
    assert wait_until(lambda: lidar.node.diagnostics.total("dropped/nothing_in_view") == 1)
    assert f"expected points in the camera's view, got none of {len(points)}" in capfd.readouterr().err
    assert lidar.node.diagnostics.total("answered") == 0


@pytest.mark.parametrize("count", [1, 50], ids=["one point", "all points on one pixel"])
@pytest.mark.parametrize("method", METHODS)
def test_one_known_pixel_gives_its_own_depth(lidar, count, method):
    lidar.node.set_parameters([Parameter("method", value=method)])
    send(lidar, np.repeat(wall()[40:41], count))
    sparse, dense = answer(lidar)
    assert np.isfinite(sparse).sum() == 1
    assert np.isfinite(dense).any()
    np.testing.assert_allclose(dense[np.isfinite(dense)], 5.0, rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_against_a_picture_of_one_colour_depth_is_smooth(lidar, method):
    lidar.node.set_parameters([Parameter("method", value=method)])
    send(lidar, slanted(), picture=np.full_like(PICTURE, 90))
    _, dense = answer(lidar)
    inside = dense[np.isfinite(dense)]
    assert inside.min() > 4.9
    assert inside.max() < 6.2
    assert np.nanmax(np.abs(np.diff(dense, axis=1))) < 0.3


@pytest.mark.parametrize(
    ("camera", "words"),
    [
        (CameraInfo(width=64, height=48), "not calibrated"),
        (Camera(100, 100, 60.0, 60.0, 31.5, 23.5), "expected an image of 100x100 or an exact rescale of it, got 64x48"),
        (Camera(64, 48, 60.0, 60.0, 31.5, 23.5, (0.1,) * 4, "rational"), "distortion model must be one of"),
    ],
    ids=["zeros", "size", "distortion"],
)
def test_a_bad_camera_info_is_counted(lidar, camera, words, capfd):
    send(lidar, wall(), camera=camera)
    assert wait_until(lambda: lidar.node.diagnostics.total("dropped/bad_sweep") == 1)
    assert words in capfd.readouterr().err
    assert not lidar.dense


def test_an_image_at_half_the_size_of_its_camera_info_is_used(lidar):
    send(lidar, wall(), camera=CAMERA.resized(128, 96))
    sparse, dense = answer(lidar)
    assert np.isfinite(sparse).sum() == len(wall())
    np.testing.assert_allclose(dense, 5.0, rtol=1e-3)


def test_extrinsics_that_are_not_a_rotation_refuse_the_node(bench, tmp_path, capfd):
    file = tmp_path / "extrinsics.yaml"
    pose = {"translation": [0.0, 0.0, 0.0], "quaternion": [1.0, 1.0, 0.0, 0.0]}
    file.write_text(yaml.safe_dump({"camera_frame": "camera", "lidar_frame": "lidar", "camera_from_lidar": pose}))
    node = bench.make(LidarDepthNode, extrinsics_file=str(file))
    assert node.trigger_configure().name == "FAILURE"
    assert f"extrinsics file {file}: quaternion must have unit length, got length 1.41421" in capfd.readouterr().err


def test_ten_million_points_are_answered(bench):
    """Sent reliably: best effort may lose a part of so large a message."""
    lidar = start(bench, "pair", **{"qos_overrides./camera/points.subscription.reliability": "reliable"})
    send(lidar, np.tile(wall(), 10_000_000 // len(wall()) + 1)[:10_000_000])
    sparse, dense = answer(lidar)
    assert np.isfinite(sparse).sum() == len(wall())
    np.testing.assert_allclose(dense, 5.0, rtol=1e-3)


def test_points_with_some_nan_are_used_without_them(lidar):
    points = wall()
    points["x"][::2] = np.nan
    send(lidar, points)
    assert wait_until(lambda: lidar.dense)
    assert np.isfinite(image_view(lidar.sparse[0], "sparse")).sum() == len(points) // 2


def test_an_odd_cloud_layout_is_read(lidar):
    """Doubles, padding between the fields, and more fields than needed."""
    layout = np.dtype(
        {
            "names": ["ring", "z", "y", "x"],
            "formats": ["<u2", "<f8", "<f8", "<f8"],
            "offsets": [0, 8, 24, 40],
            "itemsize": 64,
        }
    )
    points = np.zeros(len(wall()), layout)
    for name in "xyz":
        points[name] = wall()[name]
    cloud = cloud_message(points, Header())
    assert {field.datatype for field in cloud.fields} == {PointField.FLOAT64, PointField.UINT16}
    send(lidar, cloud)
    assert wait_until(lambda: lidar.dense)
    np.testing.assert_allclose(image_view(lidar.dense[0], "dense"), 5.0, rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_method_changes_while_the_node_runs(lidar, method):
    first = next(other for other in METHODS if other != method)
    lidar.node.set_parameters([Parameter("method", value=first)])
    send(lidar, slanted())
    answer(lidar)
    assert lidar.node.set_parameters([Parameter("method", value=method)])[0].successful
    send(lidar, slanted())
    sparse, dense = answer(lidar, 1)
    expected = colorize(grey_of_picture(), sparse, ColorizeSettings(method=method)).depth
    np.testing.assert_allclose(dense, expected, rtol=0.01)


def test_options_change_while_the_node_runs_and_one_that_cannot_be_is_refused(lidar):
    send(lidar, slanted())
    plain = answer(lidar)[1]
    changes = {"inverse_depth": True, "robust": True, "range_noise": 0.5, "threads": 1, "min_confidence": 0.2}
    for name, value in changes.items():
        assert lidar.node.set_parameters([Parameter(name, value=value)])[0].successful
    send(lidar, slanted())
    sparse, dense = answer(lidar, 1)
    expected = colorize(grey_of_picture(), sparse, ColorizeSettings(**changes))
    np.testing.assert_allclose(dense, expected.depth, rtol=1e-3)
    assert not np.allclose(dense, plain, rtol=1e-3, equal_nan=True)
    assert lidar.node.set_parameters([Parameter("max_depth", value=5.5)])[0].successful
    send(lidar, slanted())
    assert np.nanmax(answer(lidar, 2)[0]) <= 5.5
    for name, value in (("method", "magic"), ("min_confidence", 2.0), ("guide", "image"), ("threads", 0)):
        result = lidar.node.set_parameters([Parameter(name, value=value)])[0]
        assert not result.successful
        assert name in result.reason


def grey_of_picture():
    return grey_array(image_message(PICTURE, "rgb8", Header()))


def test_confidence_and_a_coloured_cloud_come_with_dense_depth(bench):
    node = start(bench, "pair").node
    confidence = bench.listen(Image, "lidar/confidence")
    clouds = bench.listen(PointCloud2, "lidar/dense_points")
    assert wait_until(lambda: node._points.get_subscription_count() == 1)
    send(bench, wall())
    assert wait_until(lambda: confidence and clouds)
    trust = image_view(confidence[0], "confidence")
    assert trust.shape == (48, 64)
    assert 0.5 < trust.max() <= 1.0
    dense = points_array(clouds[0])
    assert (clouds[0].height, clouds[0].width) == (48, 64)
    assert clouds[0].header.stamp == STAMP
    np.testing.assert_allclose(dense[:, 2], 5.0, rtol=1e-3)


TIMED = np.dtype([*XYZ.descr, ("time", "<f4")])
MOTION = np.array([1.0, -2.0, 20.0]), np.array([0.1, 0.8, -0.3])  # linear and angular, of the camera's frame
SWEEP_LATER = 0.03  # seconds from image to sweep


def seen_while_moving(wall_points, camera_from_cloud):
    """A wall as a LiDAR saw it that moves with the camera (`MOTION`): each point at a time of its own."""
    generator = np.zeros((4, 4))
    x, y, z = MOTION[1]
    generator[:3, :3] = [[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]
    generator[:3, 3] = MOTION[0]
    cloud_from_camera = camera_from_cloud.inverse()
    points = np.zeros(len(wall_points), TIMED)
    points["time"] = np.linspace(-0.05, 0.05, len(points))
    for point, place in zip(points, wall_points, strict=True):
        world_from_camera = expm(generator * (SWEEP_LATER + point["time"]))
        seen = np.linalg.inv(world_from_camera) @ [place["x"], place["y"], place["z"], 1.0]
        point["x"], point["y"], point["z"] = cloud_from_camera.apply(seen[:3])
    return points


def drive(bench, frame="camera", motion=MOTION, later=0.0):
    """Tell the node how the vehicle moves."""
    if not hasattr(bench, "twist"):
        bench.twist = bench.publisher(TwistStamped, "twist")
    linear, angular = (Vector3(x=float(v[0]), y=float(v[1]), z=float(v[2])) for v in motion)
    header = Header(stamp=time_message(NOW + round(1e9 * later)), frame_id=frame)
    before = len(bench.node._motions), bench.node.diagnostics.total("dropped/bad_twist")
    bench.twist.publish(TwistStamped(header=header, twist=TwistMessage(linear=linear, angular=angular)))
    assert wait_until(lambda: (len(bench.node._motions), bench.node.diagnostics.total("dropped/bad_twist")) != before)


@pytest.mark.parametrize("cloud_frame", ["camera", "lidar"])
def test_a_sweep_of_a_moving_vehicle_lies_where_the_image_shows_it(lidar, cloud_frame, capfd):
    """The twist is the camera's own, the LiDAR's another: it is turned, and sits beside."""
    camera_from_cloud = lidar.node._camera_from_lidar(cloud_frame, "camera")
    drive(lidar)
    send(lidar, seen_while_moving(wall(), camera_from_cloud), frame=cloud_frame, later=SWEEP_LATER)
    sparse, _ = answer(lidar)
    assert np.isfinite(sparse).sum() == len(wall())
    np.testing.assert_allclose(sparse[np.isfinite(sparse)], 5.0, rtol=1e-5)
    assert lidar.node.diagnostics.total("deskewed") == 1
    send(lidar, seen_while_moving(wall(), camera_from_cloud), frame=cloud_frame, later=SWEEP_LATER)
    answer(lidar, 1)
    assert capfd.readouterr().err.count("sweeps are de-skewed") == 1


def test_of_several_twists_the_one_nearest_the_image_counts(lidar):
    still = np.zeros(3), np.zeros(3)
    drive(lidar, motion=still, later=-0.05)
    drive(lidar, later=0.01)
    drive(lidar, motion=still, later=0.04)
    send(lidar, seen_while_moving(wall(), lidar.node._camera_from_lidar("camera", "camera")), later=SWEEP_LATER)
    sparse, _ = answer(lidar)
    np.testing.assert_allclose(sparse[np.isfinite(sparse)], 5.0, rtol=1e-5)


def timed(time):
    points = np.zeros(len(wall()), TIMED)
    for name in "xyz":
        points[name] = wall()[name]
    points["time"] = time
    return points


@pytest.mark.parametrize(
    ("told", "cloud", "cause", "words"),
    [
        (None, timed(0.1), "no_twist", "expected the vehicle's motion, heard none"),
        ({"later": 1.0}, timed(0.1), "stale_twist", "expected one within 0.1 s of the image, got the nearest 1 s off"),
        ({"frame": "wheels"}, timed(0.1), "unknown_frame", "joins to these, got 'wheels'"),
        ({"motion": (np.full(3, np.nan), np.zeros(3))}, timed(0.1), "no_twist", "must be 3 finite numbers"),
        ({}, wall(), "no_point_times", "expected a field of t, time, timestamp, offset_time, got none"),
        ({}, timed(5000.0), "bad_point_times", "expected times within 2 s of the sweep's stamp, got a median 5e+03 s"),
        ({}, timed(np.nan), "bad_point_times", "nan"),
    ],
    ids=["none", "stale", "frame", "NaN", "untimed", "other clock", "times unknown"],
)
def test_a_sweep_that_cannot_be_deskewed_is_used_as_it_came_and_counted(lidar, told, cloud, cause, words, capfd):
    if told is not None:
        drive(lidar, **told)
    send(lidar, cloud)
    sparse, _ = answer(lidar)
    np.testing.assert_array_equal(sparse[np.isfinite(sparse)], 5.0)
    assert lidar.node.diagnostics.total(f"not_deskewed/{cause}") == 1
    assert lidar.node.diagnostics.total("deskewed") == 0
    assert wait_until(lambda: lidar.node.diagnostics.total("answered") == 1)
    assert words in capfd.readouterr().err


def test_deskew_can_be_switched_off(lidar):
    lidar.node.set_parameters([Parameter("deskew", value=False)])
    drive(lidar)
    send(lidar, timed(0.1))
    sparse, _ = answer(lidar)
    np.testing.assert_array_equal(sparse[np.isfinite(sparse)], 5.0)
    assert lidar.node.diagnostics.total("deskewed") == 0


@pytest.mark.parametrize("field", ["intensity", "reflectivity", "reflectance"])
def test_faint_returns_count_less_where_robust(lidar, field):
    for name, value in (("robust", True), ("range_noise", 1.0)):
        lidar.node.set_parameters([Parameter(name, value=value)])
    points = np.zeros(len(wall()), np.dtype([(field, "<u2"), *XYZ.descr]))
    for name in "xyz":
        points[name] = slanted()[name]
    points[field] = np.where(np.arange(len(points)) % 2, 2000, 10)
    send(lidar, points)
    sparse, dense = answer(lidar)
    known = np.isfinite(sparse)
    rows, columns = np.nonzero(known)
    bright = np.full(sparse.shape, np.nan, np.float32)
    # wall() goes row by row, as np.nonzero does.
    bright[rows, columns] = points[field]
    settings = ColorizeSettings(robust=True, range_noise=1.0)
    expected, blind = (colorize(grey_of_picture(), sparse, settings, i).depth for i in (bright, None))
    np.testing.assert_allclose(dense, expected, rtol=1e-4)
    assert not np.allclose(dense, blind, rtol=1e-3)


def test_the_simulated_vehicle_tells_its_motion_and_is_deskewed_by_it(bench):
    """It drives straight ahead, and its camera looks 1.5 degrees down."""
    node = bench.start(LidarDepthNode, guide="image")
    twists = bench.listen(TwistStamped, "twist")
    sim = bench.run(SimNode, moving=True, speed=2.0, duration=1.0, width=64, height=64)
    aperture = bench.publisher(ApertureState, "aperture/state", latched_qos())

    def is_deskewed():
        state = ApertureState(index=1)
        state.header.stamp = sim.get_clock().now().to_msg()
        aperture.publish(state)
        return twists and node.diagnostics.total("deskewed") > 0

    assert wait_until(is_deskewed)
    velocity = twists[0].twist.linear
    np.testing.assert_allclose(
        [velocity.x, velocity.y, velocity.z], 2.0 * np.array([0.0, -np.sin(np.radians(1.5)), np.cos(np.radians(1.5))])
    )
    assert twists[0].header.frame_id == "camera"
