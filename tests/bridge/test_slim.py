"""What in a graph does not depend on its input is worked out, and nothing that would fill the memory."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import TeacherError
from bridge.teachers.bake import bake
from bridge.teachers.runtime import Runtime
from bridge.teachers.slim import slimmed


def a_model(side: int):
    """A product with a shared, turned weight, plus the sum of side × side zeros."""

    def constant(name: str, values, kind):
        return numpy_helper.from_array(np.array(values, kind), name)

    nodes = [
        helper.make_node("ConstantOfShape", ["sides"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Identity", ["weight"], ["copy"]),
        helper.make_node("Transpose", ["copy"], ["turned"]),
        helper.make_node("MatMul", ["waveform", "turned"], ["y"]),
        helper.make_node("Add", ["y", "zero"], ["scores"]),
    ]
    tensors = [constant("sides", [side, side], np.int64), constant("weight", [[1, 2], [3, 4], [5, 6]], np.float32)]
    given = helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", 2])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "g", [given], [scores], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_shared_and_turned_weights_become_plain_ones() -> None:
    model = a_model(4)
    before = model.SerializeToString()
    slim = slimmed(model)
    assert slim is not None and model.SerializeToString() == before
    assert [node.op_type for node in slim.graph.node] == ["MatMul"]
    x = np.array([[1, 10], [2, -3]], np.float32)
    np.testing.assert_array_equal(Runtime(slim)(x), Runtime(model)(x))
    assert slim.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_graph_of_few_bytes_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(TeacherError, match="'zeros' has the shape"):
        bake(a_model(2**17))
