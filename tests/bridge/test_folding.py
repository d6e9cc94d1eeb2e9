"""What in a graph does not depend on its input is worked out, and nothing that would fill the memory."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import TeacherError
from bridge.teachers.bake import bake
from bridge.teachers.folding import folded
from bridge.teachers.runtime import Runtime


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
    slim = folded(model)
    assert model.SerializeToString() == before
    assert [node.op_type for node in slim.graph.node] == ["ReduceSum", "MatMul", "Add"]
    x = np.array([[1, 10], [2, -3]], np.float32)
    np.testing.assert_array_equal(Runtime(slim)(x), Runtime(model)(x))
    assert slim.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("side", [7, 8])
def test_paddings_computed_from_the_sides_of_an_image_become_constants(side: int) -> None:
    """As PyTorch exports a convolution that pads as TensorFlow does: all of it from the shape, with a dynamic batch."""

    def constant(name: str, values):
        return numpy_helper.from_array(np.array(values, np.int64), name)

    steps = [
        ("Shape", ["images"], "shape"),
        ("Gather", ["shape", "two"], "height"),
        ("Mod", ["height", "even"], "odd"),  # 1 pixel more on the right where the side is odd
        ("Unsqueeze", ["odd", "zero"], "more"),
        ("Slice", ["shape", "zero", "one_"], "batch"),  # which stays unknown
        ("Sub", ["batch", "batch"], "nothing"),
        ("Concat", ["zeros7", "more"], "pads"),
        ("Pad", ["images", "pads"], "padded"),
        ("GlobalAveragePool", ["padded"], "pooled"),
        ("Shape", ["padded"], "shape2"),  # known only once the paddings are
        ("Slice", ["shape2", "two_", "four_"], "sides2"),
        ("ReduceProd", ["sides2"], "pixels"),
        ("Cast", ["pixels"], "count"),
        ("Mul", ["pooled", "count"], "sums"),
        ("Flatten", ["sums"], "scores"),
    ]
    more = {"Concat": {"axis": 0}, "Cast": {"to": TensorProto.FLOAT}, "ReduceProd": {"keepdims": 0}}
    nodes = [helper.make_node(op, given, [gives], **more.get(op, {})) for op, given, gives in steps]
    tensors = [
        *(constant("two", 2), constant("even", 2), constant("zero", [0]), constant("one_", [1]), constant("two_", [2])),
        *(constant("four_", [4]), constant("zeros7", [0] * 7)),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, side, side])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "g", [images], [scores], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    slim = folded(model)
    kinds = [node.op_type for node in slim.graph.node]
    assert kinds == ["Pad", "GlobalAveragePool", "ReduceProd", "Cast", "Mul", "Flatten"]
    pads = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in slim.graph.initializer}["pads"]
    assert pads == [0] * 7 + [side % 2]
    x = np.random.default_rng(0).random((2, 3, side, side), np.float32)
    np.testing.assert_allclose(Runtime(slim)(x), Runtime(model)(x), rtol=1e-6)


def test_a_graph_of_few_bytes_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(TeacherError, match="'zeros' has the shape"):
        bake(a_model(2**17))
