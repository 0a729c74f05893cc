"""message_filters: the distribution's where it is installed, else `filters`."""

try:
    from message_filters import ApproximateTimeSynchronizer, Subscriber
except ImportError:
    from dfd_ros.compat.filters import ApproximateTimeSynchronizer, Subscriber

__all__ = ["ApproximateTimeSynchronizer", "Subscriber"]
