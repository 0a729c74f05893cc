"""One contract for the ROS helper libraries, kept by the stand-ins and by the real libraries where they load."""

import importlib
import itertools
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="the contract is about ROS messages")
pytest.importorskip("sensor_msgs.msg")

import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

from dfd_ros import compat
from dfd_ros.compat import clouds, filters, images, transforms

EXAMPLES = settings(max_examples=60, deadline=None)


def implementations(standin, *names):
    """The stand-in, and the real library where all of its modules load."""
    params = [pytest.param(standin, id="stand-in")]
    try:
        real, *_ = [importlib.import_module(name) for name in names]
    except (ImportError, SystemError) as error:
        skip = pytest.mark.skip(reason=f"{names[0]} is not installed here: {error}")
        return [*params, pytest.param(None, id="real", marks=skip)]
    return [*params, pytest.param(real, id="real")]


with_images = pytest.mark.parametrize(
    "library", implementations(images, "cv_bridge", "cv_bridge.boost.cv_bridge_boost")
)
with_clouds = pytest.mark.parametrize("library", implementations(clouds, "sensor_msgs_py.point_cloud2"))
with_filters = pytest.mark.parametrize("library", implementations(filters, "message_filters"))


# --- cv_bridge -------------------------------------------------------------------------------------------------------

# Encoding to dtype and channels, as sensor_msgs/image_encodings.hpp has them.
ENCODINGS = {
    **{"mono8": ("u1", 1), "rgb8": ("u1", 3), "bgr8": ("u1", 3), "rgba8": ("u1", 4), "bgra8": ("u1", 4)},
    **{"mono16": ("u2", 1), "rgb16": ("u2", 3), "16UC1": ("u2", 1), "32FC1": ("f4", 1), "64FC2": ("f8", 2)},
    **{f"bayer_{pattern}8": ("u1", 1) for pattern in ("rggb", "bggr", "gbrg", "grbg")},
    **{"bayer_rggb16": ("u2", 1), "yuv422": ("u1", 2), "yuv422_yuy2": ("u1", 2), "8UC3": ("u1", 3)},
}


def image(pixels, encoding, padding=0, big_endian=False):
    """A message of an array, `padding` pixels longer in each row, the padding filled with a value that would show."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    dtype = pixels.dtype.newbyteorder(">" if big_endian else "<")
    rows = np.full((pixels.shape[0], (pixels.shape[1] + padding) * channels), 77, dtype)
    rows[:, : pixels.shape[1] * channels] = pixels.reshape(len(pixels), -1)
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=rows.strides[0])
    message.is_bigendian = int(big_endian)
    message.data.frombytes(rows.tobytes())
    return message


def random_pixels(rng, encoding, height, width):
    dtype, channels = ENCODINGS[encoding]
    shape = (height, width) if channels == 1 else (height, width, channels)
    if dtype[0] == "f":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def uniform(encoding, *values):
    """An 8x8 image of one pixel value."""
    dtype, channels = ENCODINGS[encoding]
    return np.broadcast_to(np.array(values, dtype), (8, 8, channels)).squeeze().copy()


@with_images
@given(
    encoding=st.sampled_from(sorted(ENCODINGS)),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    padding=st.integers(0, 5),
    seed=st.integers(0, 2**16),
)
@EXAMPLES
def test_passthrough_gives_the_pixels_whatever_the_row_padding(library, encoding, height, width, padding, seed):
    pixels = random_pixels(np.random.default_rng(seed), encoding, height, width)
    array = library.CvBridge().imgmsg_to_cv2(image(pixels, encoding, padding))
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, pixels, strict=True)


@with_images
@given(encoding=st.sampled_from(sorted(ENCODINGS)), height=st.integers(1, 9), width=st.integers(1, 9))
@EXAMPLES
def test_an_array_comes_back_from_its_message(library, encoding, height, width):
    pixels = random_pixels(np.random.default_rng(0), encoding, height, width)
    header = Header(stamp=Time(sec=3), frame_id="camera")
    message = library.CvBridge().cv2_to_imgmsg(pixels, encoding, header)
    assert (message.height, message.width, message.encoding) == (height, width, encoding)
    assert message.step * height == len(message.data)
    assert message.header == header
    assert not message.is_bigendian
    np.testing.assert_array_equal(library.CvBridge().imgmsg_to_cv2(message), pixels, strict=True)


@with_images
def test_a_message_of_a_strided_array_holds_its_pixels(library):
    pixels = np.arange(2 * 8 * 10 * 3, dtype=np.uint8).reshape(16, 10, 3)[::2, ::-1]
    message = library.CvBridge().cv2_to_imgmsg(pixels, "rgb8")
    np.testing.assert_array_equal(library.CvBridge().imgmsg_to_cv2(message), pixels)


@with_images
def test_passthrough_to_a_message_names_the_opencv_type(library):
    bridge = library.CvBridge()
    assert bridge.cv2_to_imgmsg(np.zeros((2, 3), np.uint16)).encoding == "16UC1"
    assert bridge.cv2_to_imgmsg(np.zeros((2, 3, 4), np.float32)).encoding == "32FC4"


@with_images
def test_passthrough_is_a_view_of_an_unpadded_message(library):
    message = image(np.zeros((4, 6, 3), np.uint8), "rgb8")
    library.CvBridge().imgmsg_to_cv2(message)[1, 2] = 9
    assert message.data[1 * 18 + 2 * 3] == 9


@with_images
@pytest.mark.parametrize("desired", ["rgb8", "mono8"])
def test_a_conversion_leaves_the_message_alone(library, desired):
    message = image(np.full((4, 6, 3), 5, np.uint8), "rgb8")
    library.CvBridge().imgmsg_to_cv2(message, desired)[:] = 9
    assert set(message.data) == {5}


@with_images
@pytest.mark.parametrize(
    ("encoding", "pixel"),
    [
        ("rgb8", (200, 100, 50)),
        ("bgr8", (50, 100, 200)),
        ("rgba8", (200, 100, 50, 7)),
        ("bgra8", (50, 100, 200, 7)),
        ("rgb16", (200 * 257, 100 * 257, 50 * 257)),
    ],
)
def test_colours_become_rgb_and_luma(library, encoding, pixel):
    message = image(uniform(encoding, *pixel), encoding)
    rgb = library.CvBridge().imgmsg_to_cv2(message, "rgb8")
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, np.broadcast_to([200, 100, 50], (8, 8, 3)))
    luma = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)  # ITU-R BT.601
    np.testing.assert_array_equal(library.CvBridge().imgmsg_to_cv2(message, "mono8"), np.full((8, 8), luma))


@with_images
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_mosaics_of_one_colour_become_that_colour(library, pattern, bits):
    colour = {"r": 200, "g": 100, "b": 50}
    tile = np.array([colour[c] for c in pattern]).reshape(2, 2) * (257 if bits == 16 else 1)
    message = image(np.tile(tile, (6, 6)).astype(f"u{bits // 8}"), f"bayer_{pattern}{bits}")
    rgb = library.CvBridge().imgmsg_to_cv2(message, "rgb8")
    np.testing.assert_array_equal(rgb, np.broadcast_to([200, 100, 50], (12, 12, 3)))
    bgr = library.CvBridge().imgmsg_to_cv2(message, "bgr8")
    np.testing.assert_array_equal(bgr, rgb[..., ::-1])
    grey = library.CvBridge().imgmsg_to_cv2(message, "mono8")
    assert np.abs(grey[2:-2, 2:-2] - 124.2).max() <= 1  # BT.601 of that colour


@with_images
@pytest.mark.parametrize(("encoding", "order"), [("yuv422", "uyvy"), ("yuv422_yuy2", "yuyv")])
def test_packed_yuv_becomes_rgb_and_luma(library, encoding, order):
    rgb = np.array([200.0, 100.0, 50.0])
    matrix = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255  # BT.601
    y, u, v = np.rint(matrix @ rgb + [16, 128, 128]).astype(np.uint8)
    pixels = np.tile(np.array([{"y": y, "u": u, "v": v}[c] for c in order], np.uint8), (8, 4)).reshape(8, 8, 2)
    message = image(pixels, encoding, padding=2)
    assert np.abs(library.CvBridge().imgmsg_to_cv2(message, "rgb8") - rgb).max() <= 2
    np.testing.assert_array_equal(library.CvBridge().imgmsg_to_cv2(message, "mono8"), np.full((8, 8), y))


@with_images
def test_sixteen_bits_scale_to_eight_and_back_over_the_full_range(library):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    eight = library.CvBridge().imgmsg_to_cv2(image(values, "mono16"), "mono8")
    np.testing.assert_array_equal(eight, (values.astype(np.uint32) + 128) // 257, strict=False)
    assert eight.dtype == np.uint8
    sixteen = library.CvBridge().imgmsg_to_cv2(image(eight, "mono8"), "mono16")
    np.testing.assert_array_equal(sixteen, eight * np.uint16(257), strict=True)


@with_images
@pytest.mark.parametrize("encoding", ["mono16", "16UC1", "rgb16", "32FC1"])
def test_big_endian_values_come_in_the_machines_order(library, encoding):
    if library is not images and np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        pytest.skip("cv_bridge calls ndarray.newbyteorder, which numpy 2 has not")
    pixels = random_pixels(np.random.default_rng(1), encoding, 5, 7)
    array = library.CvBridge().imgmsg_to_cv2(image(pixels, encoding, padding=1, big_endian=True))
    np.testing.assert_array_equal(array, pixels)
    assert array.dtype.isnative


@with_images
@pytest.mark.parametrize(
    ("encoding", "desired"),
    [
        ("mono8", "hsv8"),
        ("32FC1", "mono8"),
        ("16UC1", "mono16"),
        ("8UC3", "rgb8"),
        ("rgb8", "32FC1"),
        ("rgb8", "yuv422"),
        ("bayer_rggb8", "rgba8"),
    ],
)
def test_what_has_no_conversion_is_refused(library, encoding, desired):
    message = image(random_pixels(np.random.default_rng(0), encoding, 4, 4), encoding)
    with pytest.raises(library.CvBridgeError):
        library.CvBridge().imgmsg_to_cv2(message, desired)


@with_images
def test_an_unknown_encoding_is_refused(library):
    message = image(np.zeros((4, 4), np.uint8), "mono8")
    message.encoding = "sepia"
    with pytest.raises(library.CvBridgeError):
        library.CvBridge().imgmsg_to_cv2(message)


@with_images
@pytest.mark.parametrize(("array", "encoding"), [(np.zeros((4, 4)), "mono8"), (np.zeros((4, 4), np.uint8), "rgb8")])
def test_an_array_of_another_type_than_the_encoding_is_refused(library, array, encoding):
    with pytest.raises(library.CvBridgeError):
        library.CvBridge().cv2_to_imgmsg(array, encoding)


@with_images
def test_short_data_is_a_type_error(library):
    message = image(np.zeros((4, 4), np.uint8), "mono8")
    message.data = message.data[:-1]
    with pytest.raises(TypeError):
        library.CvBridge().imgmsg_to_cv2(message)


@with_images
@pytest.mark.parametrize(("encoding", "bare"), [("mono8", "8UC1"), ("mono16", "16UC1"), ("rgb8", "8UC3")])
def test_a_colour_format_passes_as_its_bare_type(library, encoding, bare):
    pixels = random_pixels(np.random.default_rng(0), encoding, 4, 6)
    array = library.CvBridge().imgmsg_to_cv2(image(pixels, encoding), bare)
    np.testing.assert_array_equal(array, pixels, strict=True)


def test_yuv_of_odd_width_is_refused():
    """Of the stand-in only: with the real one it depends on the OpenCV that it is linked to."""
    with pytest.raises(images.CvBridgeError, match="cannot convert 5x4 yuv422 to rgb8"):
        images.CvBridge().imgmsg_to_cv2(image(np.zeros((4, 5, 2), np.uint8), "yuv422"), "rgb8")


@pytest.mark.parametrize("real", implementations(images, "cv_bridge", "cv_bridge.boost.cv_bridge_boost")[1:])
@given(
    source=st.sampled_from(sorted(ENCODINGS)),
    target=st.sampled_from(["rgb8", "bgr8", "mono8", "mono16", "rgba8", "bgra16"]),
    height=st.integers(2, 8),
    width=st.integers(1, 5),
    padding=st.integers(0, 3),
)
@settings(max_examples=300, deadline=None)
def test_the_stand_in_converts_as_cv_bridge_does(real, source, target, height, width, padding):
    pixels = random_pixels(np.random.default_rng(2), source, height, 2 * width)
    message = image(pixels, source, padding)
    try:
        expected = real.CvBridge().imgmsg_to_cv2(message, target)
    except real.CvBridgeError:
        with pytest.raises(images.CvBridgeError):
            images.CvBridge().imgmsg_to_cv2(message, target)
        return
    array = images.CvBridge().imgmsg_to_cv2(message, target)
    assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
    # The two may be linked to different OpenCVs, whose fixed-point luma differs by one step.
    step = 257 if array.dtype == np.uint16 and ENCODINGS[source][0] == "u1" else 1
    assert np.abs(array.astype(int) - expected.astype(int)).max() <= step


@given(step=st.integers(0, 40))
@EXAMPLES
def test_rows_of_any_length_are_honoured(step):
    """cv_bridge itself cuts rows at whole pixels, and takes too short a step for a narrower image."""
    pixels = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    rows = np.zeros((3, max(step, 15)), np.uint8)
    rows[:, :15] = pixels.reshape(3, 15)
    message = Image(height=3, width=5, encoding="rgb8", step=step)
    message.data.frombytes(rows[:, :step].tobytes())
    if step < 15:
        with pytest.raises(images.CvBridgeError, match="step of 15 bytes or more"):
            images.CvBridge().imgmsg_to_cv2(message)
    else:
        np.testing.assert_array_equal(images.CvBridge().imgmsg_to_cv2(message), pixels)


@pytest.mark.parametrize(("new", "old"), [("uyvy", "yuv422"), ("yuyv", "yuv422_yuy2")])
def test_the_new_names_of_packed_yuv_mean_the_old(new, old):
    pixels = random_pixels(np.random.default_rng(3), old, 4, 6)
    arrays = [images.CvBridge().imgmsg_to_cv2(image(pixels, name), "rgb8") for name in (new, old)]
    np.testing.assert_array_equal(*arrays)


# --- sensor_msgs_py --------------------------------------------------------------------------------------------------

DATATYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}  # as in PointField.msg


@st.composite
def layouts(draw, shuffled=True):
    """A dtype of one to five named fields in any order, with gaps before, between and after."""
    codes = draw(st.lists(st.sampled_from(sorted(DATATYPES)), min_size=1, max_size=5))
    names = [f"f{i}" for i in range(len(codes))]
    offsets, end = [], 0
    for code in codes:
        offsets.append(end + draw(st.integers(0, 3)))
        end = offsets[-1] + np.dtype(DATATYPES[code]).itemsize
    order = draw(st.permutations(range(len(codes)))) if shuffled else range(len(codes))
    return np.dtype(
        {
            "names": [names[i] for i in order],
            "formats": [DATATYPES[codes[i]] for i in order],
            "offsets": [offsets[i] for i in order],
            "itemsize": end + draw(st.integers(0, 5)),
        }
    )


def point_fields(dtype):
    codes = {np.dtype(code): number for number, code in DATATYPES.items()}
    return [PointField(name=n, offset=dtype.fields[n][1], datatype=codes[dtype[n]], count=1) for n in dtype.names]


def raw_points(dtype, count, seed=0):
    data = np.random.default_rng(seed).integers(0, 256, count * dtype.itemsize, np.uint8)
    return data.view(dtype) if dtype.itemsize else np.zeros(count, dtype)


def cloud_of(points, height=1, row_padding=0, big_endian=False):
    """A message of points (N,), with `row_padding` bytes after every row."""
    dtype = points.dtype
    stored = points.astype(dtype.newbyteorder(">")) if big_endian else points
    width = len(points) // height
    rows = np.full((height, width * dtype.itemsize + row_padding), 77, np.uint8)
    rows[:, : width * dtype.itemsize] = np.frombuffer(stored.tobytes(), np.uint8).reshape(height, -1)
    cloud = PointCloud2(height=height, width=width, fields=point_fields(dtype), point_step=dtype.itemsize)
    cloud.row_step = rows.shape[1]
    cloud.is_bigendian = big_endian
    cloud.data.frombytes(rows.tobytes())
    return cloud


def assert_same_points(read, points, names):
    assert read.dtype.names == tuple(names)
    assert len(read) == len(points)
    for name in names:
        assert read.dtype[name] == points.dtype[name]
        np.testing.assert_array_equal(read[name], points[name])


XYZI = np.dtype([("x", "f4"), ("y", "f4"), ("z", "f4"), ("ring", "u2")])
XYZ = ["x", "y", "z"]


@with_clouds
@given(dtype=layouts(), count=st.integers(0, 7), data=st.data())
@EXAMPLES
def test_points_of_any_layout_are_read(library, dtype, count, data):
    points = raw_points(dtype, count)
    assert_same_points(library.read_points(cloud_of(points)), points, dtype.names)
    some = data.draw(st.lists(st.sampled_from(dtype.names), min_size=1, unique=True))
    assert_same_points(library.read_points(cloud_of(points), field_names=some), points, some)


@with_clouds
@given(dtype=layouts(), count=st.integers(1, 7))
@EXAMPLES
def test_big_endian_points_come_in_the_machines_order(library, dtype, count):
    points = raw_points(dtype, count)
    read = library.read_points(cloud_of(points, big_endian=True))
    for name in dtype.names:
        np.testing.assert_array_equal(read[name], points[name])


@with_clouds
def test_points_are_a_view_of_the_message(library):
    cloud = cloud_of(raw_points(XYZI, 5))
    library.read_points(cloud, XYZ)["y"][2] = 1.0
    assert library.read_points(cloud)["y"][2] == 1.0


@with_clouds
def test_an_organised_cloud_comes_flat_row_by_row(library):
    points = raw_points(XYZI, 12)
    assert_same_points(library.read_points(cloud_of(points, height=3)), points, XYZI.names)


@with_clouds
@pytest.mark.parametrize("is_dense", [False, True])
def test_points_with_nan_in_a_field_asked_for_are_skipped_unless_dense(library, is_dense):
    points = np.zeros(4, XYZI)
    points["x"] = [0, 1, np.nan, 3]
    points["z"] = [np.nan, 1, 2, np.inf]
    cloud = cloud_of(points)
    cloud.is_dense = is_dense
    kept = library.read_points(cloud, ["x", "ring"], skip_nans=True)
    np.testing.assert_array_equal(kept["x"], points["x"] if is_dense else [0, 1, 3])
    assert len(library.read_points_numpy(cloud, ["x", "z"], skip_nans=True)) == (4 if is_dense else 2)
    assert len(library.read_points(cloud, XYZ)) == 4


@with_clouds
@given(count=st.integers(0, 7), names=st.permutations(XYZ))
@EXAMPLES
def test_fields_of_one_type_become_columns(library, count, names):
    points = np.zeros(count, XYZI)
    for name in XYZ:
        points[name] = np.random.default_rng(0).normal(size=count)
    array = library.read_points_numpy(cloud_of(points), field_names=names)
    np.testing.assert_array_equal(array, np.stack([points[name] for name in names], axis=1), strict=True)


@with_clouds
def test_fields_of_several_counts_are_numbered(library):
    cloud = cloud_of(np.arange(6, dtype=np.float32).view([("a", "f4"), ("b", "f4"), ("c", "f4")]))
    cloud.fields = [
        PointField(name="n", offset=0, datatype=PointField.FLOAT32, count=2),
        PointField(name="", offset=8, datatype=PointField.FLOAT32, count=1),
    ]
    points = library.read_points(cloud)
    assert points.dtype.names == ("n_0", "n_1", "unnamed_field_1")
    assert points[1].item() == (3, 4, 5)


@with_clouds
@given(dtype=layouts(shuffled=False), count=st.integers(1, 7))
@EXAMPLES
def test_a_cloud_is_read_back_as_made(library, dtype, count):
    end = max(offset + kind.itemsize for kind, offset in dtype.fields.values())
    spec = {"names": dtype.names, "formats": [dtype[n] for n in dtype.names], "itemsize": end}
    tight = np.dtype({**spec, "offsets": [dtype.fields[n][1] for n in dtype.names]})  # a cloud made has no tail
    points = raw_points(tight, count)
    header = Header(stamp=Time(sec=3), frame_id="lidar")
    cloud = library.create_cloud(header, point_fields(tight), points)
    assert (cloud.height, cloud.width, cloud.point_step) == (1, count, end)
    assert cloud.row_step == len(cloud.data) == count * end
    assert cloud.header == header
    assert (cloud.is_dense, cloud.is_bigendian) == (False, False)
    assert_same_points(library.read_points(cloud), points, tight.names)


@with_clouds
def test_a_cloud_is_made_of_columns_and_of_rows(library):
    fields = point_fields(np.dtype([(name, "f4") for name in XYZ]))
    array = np.arange(12.0).reshape(4, 3)
    for points in (array, array.astype(np.float32), array.tolist()):
        cloud = library.create_cloud(Header(), fields, points)
        np.testing.assert_array_equal(library.read_points_numpy(cloud), array.astype(np.float32), strict=True)


@with_clouds
def test_a_cloud_that_does_not_fit_is_refused(library):
    cloud = cloud_of(raw_points(XYZI, 3))
    with pytest.raises(AssertionError):
        library.read_points(cloud, ["x", "intensity"])
    with pytest.raises(AssertionError):
        library.read_points_numpy(cloud, ["x", "ring"])
    with pytest.raises(AssertionError):
        library.create_cloud(Header(), cloud.fields, np.zeros(3, [("x", "f4")]))
    with pytest.raises(AssertionError):
        library.create_cloud(Header(), cloud.fields, np.zeros((3, 4), np.float32))
    cloud.data = cloud.data[:-1]
    with pytest.raises(TypeError):
        library.read_points(cloud)


@given(
    dtype=layouts(),
    height=st.integers(1, 4),
    width=st.integers(0, 4),
    padding=st.integers(0, 9),
    big_endian=st.booleans(),
)
@EXAMPLES
def test_row_padding_is_honoured_and_reading_changes_nothing(dtype, height, width, padding, big_endian):
    """sensor_msgs_py itself ignores row_step, and swaps big-endian messages in place."""
    points = raw_points(dtype, height * width)
    cloud = cloud_of(points, height, padding, big_endian)
    before = bytes(cloud.data)
    for _ in range(2):
        assert_same_points(clouds.read_points(cloud), points, dtype.names)
    assert bytes(cloud.data) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"point_step": 8}, "within a point_step of 8 bytes"),
        ({"height": 2, "width": 1, "row_step": 3}, "row_step of 14 bytes or more"),
        ({"fields": [PointField(name="x", datatype=9, count=1)]}, "datatype of 1 to 8"),
        ({"fields": [PointField(name="x", datatype=7, count=0)]}, "count above 0"),
        ({"fields": 2 * [PointField(name="x", datatype=7, count=1)]}, "different names"),
    ],
)
def test_a_malformed_cloud_is_named(change, words):
    cloud = cloud_of(raw_points(XYZI, 3))
    for name, value in change.items():
        setattr(cloud, name, value)
    with pytest.raises(clouds.PointCloudError, match=words):
        clouds.read_points(cloud)


def test_columns_need_one_type_only_among_the_fields_asked_for():
    points = np.zeros(3, [("ring", "u2"), ("x", "f4"), ("y", "f4")])
    assert clouds.read_points_numpy(cloud_of(points), ["x", "y"]).shape == (3, 2)


# --- message_filters -------------------------------------------------------------------------------------------------


class Source:
    """What a synchronizer takes for a Subscriber."""

    def registerCallback(self, callback, *arguments):  # noqa: N802
        self.give = lambda message: callback(message, *arguments)


def stamped(nanoseconds, frame_id=""):
    sec, nanosec = divmod(nanoseconds, 10**9)
    return types.SimpleNamespace(header=Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id))


def synchronize(library, topics, queue_size, slop, arrivals):
    """What comes out for arrivals of (topic, stamp in ms): tuples of (stamp in ms, which arrival)."""
    sources = [Source() for _ in range(topics)]
    out = []
    synchronizer = library.ApproximateTimeSynchronizer(sources, queue_size, slop)
    synchronizer.registerCallback(
        lambda *messages: out.append(tuple((m.header.stamp.nanosec // 10**6, int(m.header.frame_id)) for m in messages))
    )
    for index, (topic, stamp) in enumerate(arrivals):
        sources[topic].give(stamped(10**6 * stamp, str(index)))
    return out


def synchronize_by_definition(topics, queue_size, slop_ms, arrivals):
    """The rule spelled out: of all sets with the newcomer, nearest partners first, the first that is narrow enough."""
    waiting = [{} for _ in range(topics)]
    out = []
    for index, (topic, stamp) in enumerate(arrivals):
        waiting[topic][stamp] = index
        while len(waiting[topic]) > queue_size:
            del waiting[topic][min(waiting[topic])]
        nearest = [sorted(queue, key=lambda s, stamp=stamp: abs(s - stamp)) for queue in waiting]
        for stamps in itertools.product(*nearest):
            if stamps[topic] == stamp and max(stamps) - min(stamps) < slop_ms:
                out.append(tuple((s, waiting[t].pop(s)) for t, s in enumerate(stamps)))
                break
    return out


arrivals_of = st.integers(1, 3).flatmap(
    lambda topics: st.tuples(
        st.just(topics), st.lists(st.tuples(st.integers(0, topics - 1), st.integers(0, 60)), max_size=40)
    )
)


@with_filters
@given(scene=arrivals_of, queue_size=st.integers(1, 6), slop_ms=st.integers(0, 20))
@settings(max_examples=200, deadline=None)
def test_messages_are_joined_by_the_rule(library, scene, queue_size, slop_ms):
    topics, arrivals = scene
    out = synchronize(library, topics, queue_size, slop_ms / 1000, arrivals)
    assert out == synchronize_by_definition(topics, queue_size, slop_ms, arrivals)


@with_filters
def test_the_nearest_partner_is_taken_and_used_up(library):
    out = synchronize(library, 2, 10, 0.05, [(0, 0), (0, 30), (0, 60), (1, 35), (1, 36)])
    assert [tuple(stamp for stamp, _ in found) for found in out] == [(30, 35), (60, 36)]


@with_filters
def test_stamps_as_far_apart_as_the_slop_do_not_match(library):
    assert synchronize(library, 2, 10, 0.010, [(0, 0), (1, 10)]) == []
    assert len(synchronize(library, 2, 10, 0.010, [(0, 0), (1, 9)])) == 1


@with_filters
def test_the_oldest_waiting_message_goes_first(library):
    assert synchronize(library, 2, 2, 0.005, [(0, 0), (0, 20), (0, 40), (1, 0)]) == []


@with_filters
def test_callbacks_get_their_arguments_in_order(library):
    sources, calls = [Source(), Source()], []
    synchronizer = library.ApproximateTimeSynchronizer(sources, queue_size=2, slop=0.1)
    synchronizer.registerCallback(lambda *arguments: calls.append(arguments[2:]), "one", 1)
    synchronizer.registerCallback(lambda *arguments: calls.append(arguments[2:]), "two")
    sources[1].give(stamped(0))
    sources[0].give(stamped(0))
    assert calls == [("one", 1), ("two",)]


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=93)
    node = rclpy.create_node("compat", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@with_filters
def test_subscribers_feed_a_synchronizer_over_the_middleware(library, node):
    found = []
    subscribers = [library.Subscriber(node, Image, topic, qos_profile=5) for topic in ("a", "b")]
    synchronizer = library.ApproximateTimeSynchronizer(subscribers, queue_size=3, slop=0.05)
    synchronizer.registerCallback(lambda a, b: found.append((a.header.frame_id, b.header.frame_id)))
    assert [subscriber.sub.topic_name for subscriber in subscribers] == ["/a", "/b"]
    publishers = [node.create_publisher(Image, topic, 5) for topic in ("a", "b")]
    executor = rclpy.executors.SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    for publisher, topic in zip(publishers, "ab", strict=True):
        publisher.publish(Image(header=Header(stamp=Time(sec=1), frame_id=topic)))
    for _ in range(100):
        executor.spin_once(timeout_sec=0.1)
        if found:
            break
    executor.shutdown()
    assert found == [("a", "b")]
    for subscriber in subscribers:
        assert node.destroy_subscription(subscriber.sub)


def test_a_callback_that_raises_does_not_stop_the_next():
    """message_filters itself keeps its lock and stands still from then on."""
    sources, seen = [Source()], []

    def fail_once(message):
        seen.append(message)
        if len(seen) == 1:
            raise RuntimeError("once")

    filters.ApproximateTimeSynchronizer(sources, queue_size=1, slop=0.1).registerCallback(fail_once)
    with pytest.raises(RuntimeError):
        sources[0].give(stamped(0))
    sources[0].give(stamped(1))
    assert len(seen) == 2


# --- tf2_ros and the choice ------------------------------------------------------------------------------------------


@pytest.fixture
def tf2(monkeypatch):
    """A tf2_ros of one tree without chains, and a node that hears /tf_static at once."""

    class TransformException(Exception):  # noqa: N818 (tf2's name)
        pass

    class Buffer:
        def __init__(self):
            self.known = {}

        def set_transform_static(self, transform, authority):
            self.known[transform.header.frame_id, transform.child_frame_id] = transform

        def lookup_transform(self, target, source, time):
            if (target, source) not in self.known:
                raise TransformException
            return self.known[target, source]

    class Node:
        def __init__(self):
            self.heard = []

        def create_subscription(self, msg_type, topic, callback, qos, callback_group):
            assert topic == "/tf_static"
            self.heard.append(callback)

    library = types.SimpleNamespace(Buffer=Buffer, TransformException=TransformException, Node=Node)
    monkeypatch.setattr(transforms, "HAS_TF2", True)
    monkeypatch.setattr(transforms, "tf2_ros", library, raising=False)
    monkeypatch.setattr(transforms, "TFMessage", object, raising=False)
    return library


def test_a_static_transform_is_found_once_it_is_heard(tf2):
    node = tf2.Node()
    assert transforms.static_transform(node, "camera", "lidar", timeout=0.0) is None
    stamped = TransformStamped(header=Header(frame_id="camera"), child_frame_id="lidar")
    stamped.transform.translation = Vector3(x=1.0, y=2.0, z=3.0)
    stamped.transform.rotation = Quaternion(x=0.0, y=0.0, z=np.sqrt(0.5), w=np.sqrt(0.5))  # a quarter turn about z
    node.heard[0](types.SimpleNamespace(transforms=[stamped]))
    transform = transforms.static_transform(node, "camera", "lidar")
    np.testing.assert_allclose(transform.apply(np.array([1.0, 0.0, 0.0])), [1.0, 3.0, 3.0], atol=1e-12)
    assert len(node.heard) == 1


def test_waiting_for_a_transform_costs_its_timeout_once(tf2, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(transforms.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(transforms.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    node = tf2.Node()
    for _ in range(3):
        assert transforms.static_transform(node, "camera", "lidar", timeout=1.0) is None
    assert clock[0] == pytest.approx(1.0, abs=2 * transforms.POLL_INTERVAL)


@pytest.mark.skipif(transforms.HAS_TF2, reason="tf2_ros is installed here")
def test_without_tf2_there_is_no_transform(node):
    assert transforms.static_transform(node, "camera", "lidar") is None


def test_the_report_says_which_library_is_used():
    using = compat.report()
    assert set(using) == {"message_filters", "cv_bridge", "sensor_msgs_py", "tf2_ros"}
    for library in ("message_filters", "sensor_msgs_py"):
        there = importlib.util.find_spec(library) is not None
        assert using[library] == ("installed" if there else "stand-in")


@pytest.mark.parametrize("library", ["message_filters", "cv_bridge", "sensor_msgs_py"])
def test_a_library_that_does_not_load_gives_way_and_is_reported(library, monkeypatch, tmp_path):
    (tmp_path / library).mkdir()
    (tmp_path / library / "__init__.py").write_text("raise ImportError('built for another Python')\n")
    monkeypatch.syspath_prepend(tmp_path)
    chosen = f"dfd_ros.compat.{library}"
    for name in [name for name in sys.modules if name.split(".")[0] == library or name == chosen]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    assert compat.report()[library] == "stand-in (the installed one does not load)"
    sys.modules.pop(chosen)  # the next one to ask chooses anew
