"""Powers spelled out for runtimes come to the same, and only where they do."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dfd_ros.inference.powers import LARGEST_ERROR, polynomial, spell_out_powers

VALUES = np.linspace(-0.2, 1.2, 1401, dtype=np.float32)


def power(exponent: float, highest: float = 1.0) -> onnx.ModelProto:
    """clip(x, 0, highest) ** exponent."""
    constants = {"low": 0.0, "high": highest, "exponent": exponent}
    graph = helper.make_graph(
        [helper.make_node("Clip", ["x", "low", "high"], ["y"]), helper.make_node("Pow", ["y", "exponent"], ["z"])],
        "power",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, VALUES.shape)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, VALUES.shape)],
        [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": VALUES})[0])


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.8, 2.2, 2.4, 3.0])
def test_a_power_is_spelled_out(exponent: float) -> None:
    model = power(exponent)
    spell_out_powers(model)
    assert "Pow" not in operators(model)
    expected = np.clip(VALUES.astype(np.float64), 0.0, 1.0) ** exponent
    np.testing.assert_allclose(run(model), expected, rtol=0.0, atol=2.0 * LARGEST_ERROR)
    unused = {entry.name for entry in model.graph.initializer} - {n for node in model.graph.node for n in node.input}
    assert not unused


@pytest.mark.parametrize(("exponent", "highest"), [(2.2, 2.0), (0.1, 1.0), (-1.0, 1.0)])
def test_a_power_that_a_polynomial_does_not_meet_stays(exponent: float, highest: float) -> None:
    model = power(exponent, highest)
    spell_out_powers(model)
    assert "Pow" in operators(model)


def test_the_polynomial_of_a_gamma_is_within_a_tenth_of_the_first_step_of_8_bits() -> None:
    coefficients = polynomial(2.2)
    assert coefficients is not None
    x = np.linspace(0.0, 1.0, 10_001)
    found = sum(c * x ** (0.5 * (k + 1)) for k, c in enumerate(coefficients))
    assert np.abs(found - x**2.2).max() < 0.11 * (1 / 255) ** 2.2
