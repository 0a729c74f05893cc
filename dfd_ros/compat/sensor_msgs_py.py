"""sensor_msgs_py.point_cloud2: the distribution's where it is installed, else `clouds`."""

try:
    from sensor_msgs_py.point_cloud2 import create_cloud, read_points, read_points_numpy
except ImportError:
    from dfd_ros.compat.clouds import create_cloud, read_points, read_points_numpy

__all__ = ["create_cloud", "read_points", "read_points_numpy"]
