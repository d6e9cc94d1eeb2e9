"""Working out what in an ONNX graph does not depend on its input, so that weights and paddings are plain tensors.

PyTorch's exporter computes paddings from the sides of an image within the graph and shares equal weights through
copies; neither onnx2tf nor onnx2torch sees through that. (onnxslim 0.1.98 does, but turns the paddings of a MobileNet's
strided convolutions round.)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bridge.teachers.onnx_graph import copied, dims_of, drop_unused, reads_of, replace

if TYPE_CHECKING:
    import onnx

# These give as many numbers as they take, so weights of any size may go through them.
_REARRANGING = frozenset({"Constant", "Cast", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
# These may give the square of what they take: shapes and paddings, nothing larger.
_CALCULATING = frozenset(
    {"Add", "Concat", "ConstantOfShape", "Div", "Gather", "Mod", "Mul", "Neg", "Shape", "Slice", "Sub"}
)
_FEW = 4096
_IN_ALL = 2**28  # numbers kept, so that no file can fill the memory; ours
_PASSES = 200  # each convolution's padding may wait for the shape the one before it gives


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with the same answers in which nodes of constants alone are tensors, and copies are gone. Ours.

    Sides that are not the batch are constants too.

    Args:
        model: Well-formed, its nodes in an order in which they can be computed; left as it is.
    """
    result = copied(model)
    replace(result.graph.value_info, [])  # what an exporter thought the shapes were
    left = _IN_ALL
    for _ in range(_PASSES):
        before = len(result.graph.node)
        left = _fold(result, _sides(result), left)
        if len(result.graph.node) == before:
            break
    drop_unused(result.graph)
    return result


def _fold(model: onnx.ModelProto, sides: dict[str, list[int | None]], left: int) -> int:
    """Fold once through all nodes; return how many numbers may still be added."""
    from onnx import numpy_helper

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    # What a branch reads from outside keeps its name.
    outputs = {value.name for value in graph.output}
    fixed = outputs | {name for node in graph.node for name in set(reads_of(node)) - set(node.input)}
    same: dict[str, str] = {}
    shapes: dict[str, list[int | None]] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        if node.op_type == "Identity" and not node.domain and node.output[0] not in fixed:
            same[node.output[0]] = node.input[0]
            continue
        value = None
        if node.output[0] not in outputs and not node.domain and len(node.output) == 1:
            value = _side(node, sides, shapes, tensors)
            value = _calculated(model, node, tensors) if value is None else value
        if value is None or value.size > left:
            kept.append(node)
            continue
        left -= value.size
        tensors[node.output[0]] = numpy_helper.from_array(value, node.output[0])
    replace(graph.node, kept)
    replace(graph.initializer, list(tensors.values()))
    return left


def _side(
    node: onnx.NodeProto, sides: dict[str, list[int | None]], shapes: dict[str, list[int | None]],
    tensors: dict[str, onnx.TensorProto],
) -> np.ndarray | None:  # fmt: skip
    """The sides a Shape node gives, or a Gather or Slice picks out of one, where those are known."""
    from onnx import numpy_helper

    found: list[int | None] | None = None
    if node.op_type == "Shape":
        bounds = {attribute.name: attribute.i for attribute in node.attribute}
        if node.input[0] in sides:
            found = sides[node.input[0]][bounds.get("start", 0) : bounds.get("end")]
    elif node.op_type in ("Gather", "Slice") and node.input[0] in shapes:
        if not all(name in tensors for name in node.input[1:] if name):
            return None
        known = shapes[node.input[0]]
        numbers = [numpy_helper.to_array(tensors[name]).ravel().tolist() if name else [] for name in node.input[1:]]
        if node.op_type == "Gather":
            if not all(-len(known) <= index < len(known) for index in numbers[0]):
                return None
            picked = [known[index] for index in numbers[0]]
            if any(side is None for side in picked):
                return None
            return np.array(picked, np.int64).reshape(list(tensors[node.input[1]].dims))
        start, stop, _, step = ([*(n[0] if n else None for n in numbers)] + [None] * 4)[:4]
        found = known[start:stop:step] if step != 0 else None
    if found is None:
        return None
    if all(side is not None for side in found):
        return np.array(found, np.int64)
    shapes[node.output[0]] = found
    return None


def _calculated(
    model: onnx.ModelProto, node: onnx.NodeProto, tensors: dict[str, onnx.TensorProto]
) -> np.ndarray | None:
    """What a node of constants gives, where it is one that is worked out here."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    if not all(name in tensors for name in node.input if name):
        return None
    constants = list({name: tensors[name] for name in node.input if name}.values())
    small = sum(math.prod(tensor.dims) for tensor in constants) <= _FEW
    if node.op_type not in _REARRANGING and not (small and node.op_type in _CALCULATING):
        return None
    if node.op_type == "ConstantOfShape" and math.prod(onnx.numpy_helper.to_array(constants[0]).tolist()) > _FEW:
        return None
    output = onnx.ValueInfoProto(name=node.output[0])
    alone = onnx.helper.make_graph([node], "alone", [], [output], constants)
    try:
        evaluator = ReferenceEvaluator(onnx.helper.make_model(alone, opset_imports=model.opset_import))
        value = evaluator.run(None, {})[0]  # type: ignore[index]
    except Exception:  # what onnx's own evaluator cannot do, whoever reads the graph may
        return None
    return value if isinstance(value, np.ndarray) else None


def _sides(model: onnx.ModelProto) -> dict[str, list[int | None]]:
    """The sides of every value as far as they are known; weights take part by their shape alone."""
    import onnx

    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.CopyFrom(onnx.GraphProto(name="light", node=model.graph.node, output=model.graph.output))
    light.graph.input.extend(model.graph.input)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > _FEW:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            light.graph.initializer.append(tensor)
    try:
        light = onnx.shape_inference.infer_shapes(light)
    except Exception:  # shapes that contradict each other: the checks of the file name them
        return {}
    known = [*light.graph.value_info, *light.graph.input]
    return {value.name: dims_of(value) for value in known if value.type.tensor_type.HasField("shape")}
