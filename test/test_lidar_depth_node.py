"""The LiDAR depth node over real DDS: a sweep becomes dense depth, a bad one is counted and costs nothing else."""

import numpy as np
import pytest
from conftest import wait_until
from dfd_msgs.msg import ImagePair
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header

from dfd_ros.data.image_messages import image_view
from dfd_ros.geometry import Camera
from dfd_ros.lidar.colorize import ColorizeSettings, colorize
from dfd_ros.nodes.clouds import cloud_message, points_array
from dfd_ros.nodes.convert import image_message, info_from_camera, time_message
from dfd_ros.nodes.lidar_depth_node import LidarDepthNode

CAMERA = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
XYZ = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
STAMP = time_message(1_700_000_000_000_000_000)


def wall(depth=5.0, step=6):
    """Points on a wall, in the camera's own frame."""
    v, u = np.mgrid[2:48:step, 2:64:step]
    points = np.empty(u.size, XYZ)
    points["x"] = ((u.ravel() - CAMERA.cx) / CAMERA.fx) * depth
    points["y"] = ((v.ravel() - CAMERA.cy) / CAMERA.fy) * depth
    points["z"] = depth
    return points


@pytest.fixture(params=["pair", "image"])
def lidar(bench, request):
    bench.node = bench.start(LidarDepthNode, guide=request.param, max_skew=0.1)
    bench.sparse, bench.dense = bench.listen(Image, "lidar/sparse_depth"), bench.listen(Image, "lidar/depth")
    bench.points = bench.publisher(PointCloud2, "points")
    bench.guide = bench.publisher(*((ImagePair, "pair") if request.param == "pair" else (Image, "image_raw")))
    if request.param == "image":
        bench.info = bench.publisher(CameraInfo, "camera_info")
    assert wait_until(lambda: bench.node._dense.get_subscription_count() == 1)
    return bench


def send(bench, cloud, camera=CAMERA, frame="camera"):
    """A sweep and its image at one time."""
    header = Header(stamp=STAMP, frame_id="camera")
    image = image_message(PICTURE, "rgb8", header)
    info = camera if isinstance(camera, CameraInfo) else info_from_camera(camera, header)
    if hasattr(bench, "info"):
        bench.info.publish(info)
        assert wait_until(lambda: bench.node._camera_info == info)
        bench.guide.publish(image)
    else:
        bench.guide.publish(ImagePair(header=header, deep=image, camera_info=info))
    if isinstance(cloud, np.ndarray):
        cloud = cloud_message(cloud, Header(stamp=STAMP, frame_id=frame))
    cloud.header.stamp, cloud.header.frame_id = STAMP, frame
    bench.points.publish(cloud)


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


def all_nan():
    points = wall()
    points["z"] = np.nan
    return points


def behind():
    points = wall()
    points["z"] *= -1
    return points


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
        (all_nan, "of which none is finite"),
        (behind, "expected points in the camera's view"),
        (short, "expected 1x"),
        (lambda: wall()[:0], "points"),
    ],
    ids=["no z", "no fields", "NaN", "behind", "cut", "empty"],
)
def test_a_bad_cloud_is_counted_and_the_next_is_used(lidar, cloud, words, capfd):
    send(lidar, cloud())
    assert wait_until(lambda: lidar.node.diagnostics.total("dropped/bad_sweep") == 1)
    assert words in capfd.readouterr().err
    send(lidar, wall())
    assert wait_until(lambda: lidar.dense)


@pytest.mark.parametrize(
    "camera", [CameraInfo(width=64, height=48), Camera(100, 100, 60.0, 60.0, 31.5, 23.5)], ids=["zeros", "size"]
)
def test_a_bad_camera_info_is_counted(lidar, camera):
    send(lidar, wall(), camera=camera)
    assert wait_until(lambda: lidar.node.diagnostics.total("dropped/bad_sweep") == 1)
    assert not lidar.dense


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


def test_the_method_changes_while_the_node_runs(lidar, capfd):
    from rclpy.parameter import Parameter

    points = wall()
    points["z"] += np.linspace(0, 1, len(points), dtype=np.float32)
    send(lidar, points)
    assert wait_until(lambda: lidar.dense)
    assert lidar.node.set_parameters([Parameter("method", value="fast")])[0].successful
    send(lidar, points)
    assert wait_until(lambda: len(lidar.dense) > 1)
    sparse = image_view(lidar.sparse[1], "sparse")
    grey = np.float32(PICTURE @ [0.299, 0.587, 0.114]).round() / 255
    expected = colorize(grey, sparse, ColorizeSettings(method="fast")).depth
    np.testing.assert_allclose(image_view(lidar.dense[1], "dense"), expected, rtol=0.01)
    assert not lidar.node.set_parameters([Parameter("method", value="magic")])[0].successful


def test_confidence_and_a_coloured_cloud_come_with_dense_depth(bench):
    node = bench.start(LidarDepthNode, guide="pair")
    confidence = bench.listen(Image, "lidar/confidence")
    clouds = bench.listen(PointCloud2, "lidar/dense_points")
    bench.node, bench.points, bench.guide = (
        node,
        bench.publisher(PointCloud2, "points"),
        bench.publisher(ImagePair, "pair"),
    )
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
