"""Every test session has ROS to itself: a domain of its own, on this machine only, with field checks on."""

import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time: a test that fails in one run fails in the next. `--hypothesis-profile=explore` tries others.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("same")

# Tests that run side by side keep to a core each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Domain ids above 101 may collide with the system's ephemeral ports.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items):
    """What runs nodes is live."""
    for item in items:
        if "ros" in item.fixturenames:
            item.add_marker("live")


def shared_data(name):
    """A folder of real data beside the checkout; a test that wants it skips where it is missing."""
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"no real data: {name} is not beside the checkout")
    return folder


def wait_until(condition, timeout=20.0):
    """Wait for a condition; False after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


@pytest.fixture(scope="session")
def ros():
    """rclpy, initialised once, on the shipped transport profile."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from dfd_ros.share import use_transport_profile

    use_transport_profile()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    yield rclpy
    rclpy.try_shutdown()


class Bench:
    """Nodes under test and a probe node, spinning in a thread."""

    def __init__(self):
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node

        self.probe = Node("probe", namespace="camera")
        self.nodes = []
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.probe)
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self):
        while not self._stopping:
            self._executor.spin_once(timeout_sec=0.02)

    def start(self, make, **parameters):
        """Make a node, configure and activate it."""
        node = self.make(make, **parameters)
        assert node.trigger_configure().name == "SUCCESS"
        assert node.trigger_activate().name == "SUCCESS"
        self._executor.add_node(node)
        return node

    def make(self, make, **parameters):
        """Make a node in the bench's namespace."""
        from rclpy.parameter import Parameter

        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = make(parameter_overrides=overrides, namespace="camera")
        self.nodes.append(node)
        return node

    def run(self, make, **parameters):
        """Make a node that has no life cycle."""
        node = self.make(make, **parameters)
        self._executor.add_node(node)
        return node

    def listen(self, message_type, topic, qos=10):
        """A list that fills with the topic's messages."""
        received = []
        self.probe.create_subscription(message_type, topic, received.append, qos)
        return received

    def publisher(self, message_type, topic, qos=10):
        """A publisher, once somebody listens."""
        publisher = self.probe.create_publisher(message_type, topic, qos)
        assert wait_until(lambda: publisher.get_subscription_count() > 0), f"nobody listens to {topic}"
        return publisher

    def close(self):
        from dfd_ros.nodes.base import shut_down

        self._stopping = True
        self._thread.join()
        for node in self.nodes:
            shut_down(node)
            node.destroy_node()
        self.probe.destroy_node()


@pytest.fixture
def bench(ros):
    bench = Bench()
    yield bench
    bench.close()
