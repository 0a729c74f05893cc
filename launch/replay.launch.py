"""Recorded pictures through the vehicle's nodes.

ros2 launch dfd_ros replay.launch.py source:=my_photographs lens_file:=my_lens.yaml
"""

from launch import LaunchDescription
from launch.actions import OpaqueFunction

from dfd_ros.bringup import actions, arguments


def generate_launch_description() -> LaunchDescription:
    source = "the path of a folder of dual-aperture photographs, of KITTI frames, or of a bag"
    return LaunchDescription([*arguments(None, source), OpaqueFunction(function=actions)])
