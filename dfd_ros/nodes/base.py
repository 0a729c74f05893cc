"""What all nodes share: parameters, diagnostics, the lifecycle's errors, and how one runs as a process."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription

from dfd_ros.blas import keep_blas_to_one_thread
from dfd_ros.errors import InputError
from dfd_ros.nodes.diagnostics import Diagnostics
from dfd_ros.nodes.parameters import ParameterSet
from dfd_ros.share import use_transport_profile
from dfd_ros.signals import stop_on_signal

Parameters = TypeVar("Parameters")


def publisher_qos(depth: int = 2) -> QoSProfile:
    """Reliable, so that a subscriber matches whichever it asks for."""
    return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)


def subscriber_qos(depth: int = 1) -> QoSProfile:
    """Best effort: a slow consumer loses old work and never holds up the publisher."""
    return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)


def latched_qos(depth: int = 1) -> QoSProfile:
    """Reliable and transient local: who comes late gets the last `depth` messages."""
    qos = publisher_qos(depth)
    qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return qos


class _Equipped(Generic[Parameters]):
    """Parameters, diagnostics and QoS-overridable topics, for nodes of either kind."""

    parameter_set: ParameterSet[Parameters]
    diagnostics: Diagnostics

    def _equip(self, parameters: type[Parameters]) -> None:
        assert isinstance(self, Node)
        keep_blas_to_one_thread()  # the robot's cores are for all nodes
        self.parameter_set = ParameterSet(self, parameters)
        self.diagnostics = Diagnostics(self)

    def advertise(self, message_type: type[Any], topic: str, qos: QoSProfile | None = None) -> Publisher:
        """A publisher whose QoS can be overridden by parameter."""
        assert isinstance(self, Node)
        options = QoSOverridingOptions.with_default_policies()
        return self.create_publisher(message_type, topic, qos or publisher_qos(), qos_overriding_options=options)

    def subscribe(
        self, message_type: type[Any], topic: str, callback: Callable[[Any], None], qos: QoSProfile | None = None
    ) -> Subscription:
        """A subscription whose QoS can be overridden by parameter."""
        assert isinstance(self, Node)
        options = QoSOverridingOptions.with_default_policies()
        return self.create_subscription(
            message_type, topic, callback, qos or subscriber_qos(), qos_overriding_options=options
        )


class DfdNode(_Equipped[Parameters], LifecycleNode):
    """A lifecycle node: `configure` prepares, `activate` opens topics, and the two others undo them.

    An `InputError` in `configure` or `activate` refuses the transition with its sentence.
    """

    def __init__(self, name: str, parameters: type[Parameters], **arguments: Any) -> None:
        LifecycleNode.__init__(self, name, automatically_declare_parameters_from_overrides=True, **arguments)
        self._equip(parameters)
        self._topics: list[Publisher | Subscription] = []

    @property
    def parameters(self) -> Parameters:
        return self.parameter_set.value

    def configure(self) -> None:
        """Read parameters and files, make what is needed; raises InputError."""

    def activate(self) -> None:
        """Open topics and start to work; raises InputError."""

    def deactivate(self) -> None:
        """Stop to work; what `advertise` and `subscribe` opened is closed after."""

    def cleanup(self) -> None:
        """Let go of what `configure` made."""

    def advertise(self, message_type: type[Any], topic: str, qos: QoSProfile | None = None) -> Publisher:
        publisher = super().advertise(message_type, topic, qos)
        self._topics.append(publisher)
        return publisher

    def subscribe(
        self, message_type: type[Any], topic: str, callback: Callable[[Any], None], qos: QoSProfile | None = None
    ) -> Subscription:
        subscription = super().subscribe(message_type, topic, callback, qos)
        self._topics.append(subscription)
        return subscription

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        def configure() -> None:
            self.parameter_set.value  # noqa: B018 - raises for parameters that are not valid
            self.configure()
            self.parameter_set.locked = True

        return self._attempt("configured", configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._attempt("activated", self.activate)
        return super().on_activate(state) if result == TransitionCallbackReturn.SUCCESS else result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._clean()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if state.label == "active":
            self._stop()
        if state.label in ("active", "inactive"):
            self._clean()
        return TransitionCallbackReturn.SUCCESS

    def _attempt(self, what: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            action()
        except InputError as error:
            self.get_logger().error(f"not {what}: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception:
            # rclpy turns it into the state "error processing" without a word
            self.get_logger().fatal(f"not {what}: {traceback.format_exc()}")
            raise
        return TransitionCallbackReturn.SUCCESS

    def _stop(self) -> None:
        self.deactivate()
        self.diagnostics.publish()
        for topic in self._topics:
            if isinstance(topic, Publisher):
                self.destroy_publisher(topic)
            else:
                self.destroy_subscription(topic)
        self._topics.clear()

    def _clean(self) -> None:
        self.cleanup()
        self.parameter_set.locked = False


class DfdSource(_Equipped[Parameters], Node):
    """A plain node that stands in for hardware (a simulated or replayed vehicle); works from its making on."""

    def __init__(self, name: str, parameters: type[Parameters], **arguments: Any) -> None:
        Node.__init__(self, name, automatically_declare_parameters_from_overrides=True, **arguments)
        self._equip(parameters)

    def close(self) -> None:
        """Stop to work."""
        self.diagnostics.publish()


def run(make_node: Callable[[], Node]) -> None:
    """Run one node as a process until SIGINT or SIGTERM, or until a replay is finished."""
    use_transport_profile()
    with stop_on_signal() as stop:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node: Node | None = None
        try:
            with stop.interrupting():
                node = make_node()
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            while not stop.made and not getattr(node, "finished", False):
                executor.spin_once(timeout_sec=0.1)
        except InputError as error:
            sys.exit(f"{error}")
        except KeyboardInterrupt:
            pass  # before the node was made
        finally:
            if node is not None:
                shut_down(node)
                node.destroy_node()
            rclpy.try_shutdown()


def shut_down(node: Node) -> None:
    """Bring a node to its end from whichever state it is in."""
    if isinstance(node, LifecycleNode):
        node.trigger_shutdown()
    elif isinstance(node, DfdSource):
        node.close()
