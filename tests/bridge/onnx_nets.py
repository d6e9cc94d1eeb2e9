"""Tiny ONNX classifiers, made node by node, for the tests of what an ONNX file may be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 5
Step = tuple[str, list[str], list[str], dict[str, Any]]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def a_model(
    steps: Sequence[Step],
    constants: dict[str, np.ndarray],
    taken: Sequence[Any] = ("batch", 3, 8, 8),
    given: Sequence[Any] | None = ("batch", CLASSES),
    *,
    names: tuple[str, str] = ("images", "scores"),
    types: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT),
    opset: int = 17,
) -> onnx.ModelProto:
    """A graph of one input and one output; every node is named after its first output."""
    nodes = [helper.make_node(op, i, o, name=f"node_{o[0]}", **more) for op, i, o, more in steps]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(names[0], types[0], taken)],
        [helper.make_tensor_value_info(names[1], types[1], given)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def conv_steps(taken: str = "images", given: str = "scores") -> tuple[list[Step], dict[str, np.ndarray]]:
    """Convolution, BatchNormalization, ReLU, average pooling, linear."""
    steps: list[Step] = [
        ("Conv", [taken, "w", "b"], ["c"], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("BatchNormalization", ["c", "gamma", "beta", "centre", "spread"], ["n"], {"epsilon": 1e-3}),
        ("Relu", ["n"], ["r"], {}),
        ("GlobalAveragePool", ["r"], ["p"], {}),
        ("Flatten", ["p"], ["f"], {"axis": 1}),
        ("Gemm", ["f", "fc", "fc_b"], [given], {"transB": 1}),
    ]
    constants = {
        "w": numbers(4, 3, 3, 3),
        "b": numbers(4, seed=1),
        "gamma": numbers(4, seed=2),
        "beta": numbers(4, seed=3),
        "centre": numbers(4, seed=4),
        "spread": np.abs(numbers(4, seed=5)) + 0.5,
        "fc": numbers(CLASSES, 4, seed=6),
        "fc_b": numbers(CLASSES, seed=7),
    }
    return steps, constants


def conv_net(**more: Any) -> onnx.ModelProto:
    """A canonical convolutional network, unless told otherwise."""
    names = more.get("names", ("images", "scores"))
    return a_model(*conv_steps(*names), **more)


def gemm_net() -> onnx.ModelProto:
    """A canonical linear network, whose weights are stored one by one rather than as bytes."""
    steps: list[Step] = [
        ("Reshape", ["images", "flat"], ["f"], {}),
        ("Dropout", ["f", "ratio", "mode"], ["d"], {}),
        ("Gemm", ["d", "fc"], ["y"], {}),
        ("Softmax", ["y"], ["scores"], {"axis": 1}),
    ]
    constants = {"flat": np.array([0, -1]), "ratio": np.array(0.5, np.float32), "mode": np.array(False)}
    model = a_model(steps, constants, taken=("batch", 3, 4, 4))
    weights = numbers(48, CLASSES)
    tensor = helper.make_tensor("fc", TensorProto.FLOAT, weights.shape, weights.ravel().tolist())
    model.graph.initializer.append(tensor)
    return model


def node(model: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    """The first node of a kind."""
    return next(node for node in model.graph.node if node.op_type == op_type)


def with_functions(bodies: dict[str, list[str]]) -> onnx.ModelProto:
    """A net whose ReLU is the function of the first name; each applies the operators named one after another."""
    model = conv_net()
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    for name, operators in bodies.items():
        values = ["a", *(f"t{number}" for number in range(len(operators) - 1)), "z"]
        nodes = [
            helper.make_node(operator, [taken], [given], domain="mine" if operator in bodies else "")
            for operator, taken, given in zip(operators, values, values[1:])
        ]
        model.functions.append(helper.make_function("mine", name, ["a"], ["z"], nodes, opsets))
    relu = node(model, "Relu")
    relu.op_type, relu.domain = next(iter(bodies)), "mine"
    model.opset_import.append(helper.make_opsetid("mine", 1))
    return model


def saved(model: Any, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path
