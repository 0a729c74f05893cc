"""cv_bridge: the distribution's where it is installed, else `images`."""

try:
    # The compiled half: without it (another Python, another numpy) the installed bridge fails at its first image.
    import cv_bridge.boost.cv_bridge_boost  # noqa: F401
    from cv_bridge import CvBridge, CvBridgeError
except (ImportError, SystemError):
    from dfd_ros.compat.images import CvBridge, CvBridgeError

__all__ = ["CvBridge", "CvBridgeError"]
