"""A node's parameters as one frozen dataclass: the ROS declarations, the checks and the documentation follow from it.

@dataclass(frozen=True)
class PairParameters:
    max_skew: float = parameter(0.2, "longest time between a pair's exposures", unit="s", minimum=0.0)

parameters = ParameterSet(node, PairParameters)
parameters.value.max_skew
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from dfd_ros.errors import InputError

Record = TypeVar("Record")

# Parameters that ROS itself gives a node.
BUILT_IN = ("use_sim_time", "start_type_description_service")
BUILT_IN_PREFIXES = ("qos_overrides.",)


def parameter(
    default: Any,
    description: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] = (),
    live: bool = False,
) -> Any:
    """A field of a parameter dataclass.

    Args:
        default: bool, int, float, str or a tuple of floats or strings.
        minimum, maximum: The range, both ends included; for tuples, of each element.
        choices: The values a string may take.
        live: May be changed while the node is configured.
    """
    metadata = {
        "description": description,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": tuple(choices),
        "live": live,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class ParameterRow:
    """One parameter as documentation shows it."""

    name: str
    default: str
    unit: str
    allowed: str
    description: str


def describe(record: type[Any]) -> Iterator[ParameterRow]:
    """The rows of a parameter dataclass, in its order."""
    for field in dataclasses.fields(record):
        yield ParameterRow(
            field.name,
            _show(field.default),
            field.metadata["unit"],
            _allowed(field),
            field.metadata["description"] + (" (live)" if field.metadata["live"] else ""),
        )


class ParameterSet(Generic[Record]):
    """Declares a dataclass's fields on a node and keeps its value.

    Values that are out of range, of the wrong type or unknown are kept as problems, so that the node comes up, refuses
    to be configured with one sentence, and can be mended by setting the parameter.
    """

    def __init__(self, node: Node, record: type[Record]) -> None:
        """`node` must have been made with automatically_declare_parameters_from_overrides."""
        self.locked = False
        self.on_change: Callable[[Record], None] | None = None
        # May refuse what parameters would be together, with an InputError.
        self.on_check: Callable[[Record], object] | None = None
        self._node = node
        self._record = record
        self._types = typing.get_type_hints(record)
        self._fields = {field.name: field for field in dataclasses.fields(record)}  # type: ignore[arg-type]
        self._problems: dict[str, str] = {}
        self._declare()
        self._value = self._read()
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._changed)

    @property
    def value(self) -> Record:
        """The parameters as they are now.

        Raises:
            InputError: One given at start is unknown or not valid.
        """
        if self._problems:
            raise InputError(next(iter(self._problems.values())))
        return self._value

    def _declare(self) -> None:
        given = self._node.get_parameters_by_prefix("")
        for name in given:
            if name not in self._fields and name not in BUILT_IN and not name.startswith(BUILT_IN_PREFIXES):
                self._problems[name] = (
                    f"parameter {name}: {self._node.get_name()} has none of that name; it has {', '.join(self._fields)}"
                )
        for name, field in self._fields.items():
            value = field.default
            if name in given:
                self._node.undeclare_parameter(name)
                try:
                    value = self._coerce(field, given[name].value)
                except InputError as error:
                    self._problems[name] = str(error)
            value = list(value) if isinstance(value, tuple) else value
            self._node.declare_parameter(name, value, _descriptor(field), ignore_override=True)

    def _read(self) -> Record:
        values = {name: self._coerce(f, self._node.get_parameter(name).value) for name, f in self._fields.items()}
        return self._record(**values)

    def _check(self, changes: list[Parameter]) -> SetParametersResult:
        """May these be set? (The node asks before it sets.)"""
        wanted: dict[str, Any] = {}
        for change in changes:
            field = self._fields.get(change.name)
            if field is None:
                continue
            if self.locked and not field.metadata["live"]:
                reason = f"parameter {change.name}: takes effect when the node is configured; clean it up first"
                return SetParametersResult(successful=False, reason=reason)
            try:
                wanted[change.name] = self._coerce(field, change.value)
            except InputError as error:
                return SetParametersResult(successful=False, reason=str(error))
        if wanted and self.on_check is not None:
            try:
                self.on_check(dataclasses.replace(self._value, **wanted))  # type: ignore[type-var]
            except InputError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _changed(self, changes: list[Parameter]) -> None:
        if not any(change.name in self._fields for change in changes):
            return
        for change in changes:
            self._problems.pop(change.name, None)
        self._value = self._read()
        if self.on_change is not None:
            self.on_change(self._value)

    def _coerce(self, field: dataclasses.Field[Any], value: Any) -> Any:
        """The value in the field's type, checked.

        Raises:
            InputError: It is of another type, out of range or not among the choices.
        """
        expected = self._types[field.name]
        elements = typing.get_args(expected)
        if elements:
            if isinstance(value, str) or not hasattr(value, "__iter__"):
                raise InputError(f"parameter {field.name}: expected a list, got {value!r}")
            return tuple(self._element(field, elements[0], element) for element in value)
        return self._element(field, expected, value)

    @staticmethod
    def _element(field: dataclasses.Field[Any], expected: type, value: Any) -> Any:
        if expected is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)  # YAML writes 10 for 10.0
        if type(value) is not expected:
            raise InputError(f"parameter {field.name}: expected {_TYPE_NAMES[expected]}, got {value!r}")
        choices, low, high = (field.metadata[key] for key in ("choices", "minimum", "maximum"))
        if choices and value not in choices:
            raise InputError(f"parameter {field.name}: expected one of {', '.join(choices)}, got {value!r}")
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            raise InputError(f"parameter {field.name}: expected {_allowed(field)}, got {value!r}")
        return value


_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_show(element) for element in value) + "]"
    return (
        str(value).lower() if isinstance(value, bool) else _number(value) if isinstance(value, float) else repr(value)
    )


def _allowed(field: dataclasses.Field[Any]) -> str:
    """The range or the choices, in words; empty where anything goes."""
    low, high, unit = (field.metadata[key] for key in ("minimum", "maximum", "unit"))
    unit = f" {unit}" if unit else ""
    if field.metadata["choices"]:
        return ", ".join(field.metadata["choices"])
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)}{unit}"
    if low is not None:
        return f"{_number(low)}{unit} or more"
    return f"{_number(high)}{unit} or less" if high is not None else ""


def _descriptor(field: dataclasses.Field[Any]) -> ParameterDescriptor:
    unit, allowed = field.metadata["unit"], _allowed(field)
    description = field.metadata["description"] + (f" [{unit}]" if unit else "")
    descriptor = ParameterDescriptor(description=description, additional_constraints=allowed)
    low, high = field.metadata["minimum"], field.metadata["maximum"]
    if low is None and high is None:
        return descriptor
    largest = 2.0**62
    if isinstance(field.default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(
                from_value=float(-largest if low is None else low), to_value=float(largest if high is None else high)
            )
        ]
    elif isinstance(field.default, int):
        descriptor.integer_range = [
            IntegerRange(
                from_value=int(-largest if low is None else low),
                to_value=int(largest if high is None else high),
                step=1,
            )
        ]
    return descriptor
