"""The aperture node over real DDS, with a simulated driver and with a serial device that comes and goes."""

import time

from conftest import wait_until
from dfd_msgs.msg import ApertureState
from dfd_msgs.srv import SetAperture
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo
from test_drivers import Device

from dfd_ros.nodes.aperture_node import ApertureNode
from dfd_ros.nodes.base import latched_qos
from dfd_ros.stamps import nanoseconds


def changes(states):
    """The states at which something changed."""
    return [state for before, state in zip([None, *states], states, strict=False) if not same(before, state)]


def same(a, b):
    return a is not None and (a.index, a.transitions, a.fault, a.mode) == (b.index, b.transitions, b.fault, b.mode)


def set_aperture(bench, mode, index):
    client = bench.probe.create_client(SetAperture, "aperture/set")
    assert client.wait_for_service(10)
    future = client.call_async(SetAperture.Request(mode=mode, index=index))
    assert wait_until(future.done)
    return future.result()


def test_it_switches_at_the_end_of_each_frame(bench):
    bench.start(ApertureNode, settle_time=0.001)
    states = bench.listen(ApertureState, "aperture/state", latched_qos(100))
    frames = bench.publisher(CameraInfo, "camera_info")
    for count in range(1, 5):
        time.sleep(0.02)
        frames.publish(CameraInfo())
        assert wait_until(lambda count=count: len({state.transitions for state in states}) == count + 1)
    indices = [state.index for state in changes(states)]
    assert indices == [0, 1, 0, 1, 0]
    for state in states:
        assert nanoseconds(state.transition_start) <= nanoseconds(state.settled_at)
        assert nanoseconds(state.transition_start) <= nanoseconds(state.header.stamp)
        assert abs(state.f_number - (1.8 if state.index == 0 else 4.0)) < 1e-6


def test_it_switches_at_a_rate(bench):
    bench.start(ApertureNode, settle_time=0.001, trigger="rate", rate=50.0)
    states = bench.listen(ApertureState, "aperture/state", latched_qos(100))
    assert wait_until(lambda: states and states[-1].transitions > 20, 10)


def test_a_late_listener_gets_the_state(bench):
    bench.start(ApertureNode, mode="hold", aperture="deep", heartbeat=1.0)
    states = bench.listen(ApertureState, "aperture/state", latched_qos(10))
    assert wait_until(lambda: states)
    assert (states[0].index, states[0].mode) == (ApertureState.DEEP, ApertureState.HOLD)


def test_the_service_holds_and_resumes(bench):
    bench.start(ApertureNode, settle_time=0.001, trigger="rate", rate=50.0)
    states = bench.listen(ApertureState, "aperture/state", latched_qos(100))
    assert set_aperture(bench, SetAperture.Request.HOLD, ApertureState.DEEP).success
    assert wait_until(lambda: states and states[-1].mode == ApertureState.HOLD)
    held = states[-1].transitions
    time.sleep(0.2)
    assert states[-1].transitions == held
    assert states[-1].index == ApertureState.DEEP
    assert set_aperture(bench, SetAperture.Request.ALTERNATE, 0).success
    assert wait_until(lambda: states[-1].transitions > held + 3)
    refused = set_aperture(bench, 7, 0)
    assert not refused.success
    assert "expected mode 0 or 1" in refused.message


def test_a_serial_device_that_falls_silent_is_a_fault_and_heals(bench):
    device = Device()
    statuses = []
    bench.start(ApertureNode, driver="serial", port=device.port, timeout=0.1, trigger="rate", rate=20.0, heartbeat=20.0)
    bench.probe.create_subscription(DiagnosticArray, "/diagnostics", lambda a: statuses.extend(a.status), 10)
    states = bench.listen(ApertureState, "aperture/state", latched_qos(100))
    assert wait_until(lambda: states and states[-1].transitions > 3)
    device.greeting = device.answer = None
    assert wait_until(lambda: states[-1].fault)
    assert states[-1].mode == ApertureState.HOLD
    assert wait_until(lambda: any(s.name == "camera/aperture" and "no answer" in s.message for s in statuses))
    faulty = next(s for s in statuses if "no answer" in s.message)
    assert faulty.level == b"\x02"
    device.greeting, device.answer = "DFD-APERTURE 1", "OK 1.0"
    assert wait_until(lambda: not states[-1].fault, 20)
    resumed = states[-1].transitions
    assert wait_until(lambda: states[-1].transitions > resumed + 3)
    device.vanish()


def test_a_serial_port_that_vanishes_never_stops_the_node(bench):
    device = Device()
    bench.start(ApertureNode, driver="serial", port=device.port, timeout=0.1, trigger="rate", rate=20.0)
    states = bench.listen(ApertureState, "aperture/state", latched_qos(100))
    assert wait_until(lambda: states and states[-1].transitions > 3)
    device.vanish()
    assert wait_until(lambda: states[-1].fault)
    count = len(states)
    assert wait_until(lambda: len(states) > count + 20), "the heartbeat goes on"
