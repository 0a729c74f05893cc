"""The vehicle: aperture, pairs, LiDAR ground truth and depth, on the simulator or on a real camera.

ros2 launch dfd_ros vehicle.launch.py source:=camera driver:=serial record:=true rviz:=true
"""

from launch import LaunchDescription
from launch.actions import OpaqueFunction

from dfd_ros.bringup import actions, arguments


def generate_launch_description() -> LaunchDescription:
    source = "sim, camera (drivers started elsewhere), or the path of photographs, KITTI frames or a bag"
    return LaunchDescription([*arguments("sim", source), OpaqueFunction(function=actions)])
