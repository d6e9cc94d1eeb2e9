"""Where a converted ONNX file begins to say something else: the first node, found by bisection."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bridge.teachers.runtime import Runtime
from bridge.teachers.wrapped import relative_difference

Run = Callable[[np.ndarray], np.ndarray]

# A few times what halving needs, so that tensors that cannot be compared do not make the search endless. Ours.
MOST_CONVERSIONS = 48


@dataclass(frozen=True)
class Divergence:
    """A node whose inputs still agree, and whose output does not.

    Attributes:
        node: Its name, or its type and place where it has none.
        op_type: Such as ``Conv``.
        tensor: The name of its output.
        relative: max|a−b| / max|a| of that tensor; infinite where one side is not finite.
    """

    node: str
    op_type: str
    tensor: str
    relative: float

    def __str__(self) -> str:
        return f"node {self.node!r} ({self.op_type}, tensor {self.tensor!r}, relative {self.relative:.1e})"


def first_divergence(
    model: Any, convert: Callable[[Path], Run], inputs: np.ndarray, limit: float, most: int = MOST_CONVERSIONS
) -> Divergence | None:
    """Find the first node after which a converter's network departs from onnxruntime.

    The graph is cut after a tensor, the part before it converted anew and its answer compared with onnxruntime's. In a
    chain of N nodes that takes about log2 N conversions. Errors need not grow along a graph with branches, so a node
    counts only if the tensors it takes pass; else the search goes on among what leads to the one that fails. A cut is
    flattened to [batch, n] by a node of its own, so that layouts do not matter; tensors whose shapes still do not
    correspond, or that cannot be converted alone, are passed over.

    Args:
        model: onnx.ModelProto with one input.
        convert: Path of an ONNX file -> a function from what the file's input takes to its one output.
        inputs: float32 [batch, ...] as the model takes them (images NCHW).
        limit: Largest max|a−b| / max|a| of a tensor that still agrees.
        most: Conversions after which the narrowest answer so far is given.

    Returns:
        The node; None where the last tensor agrees on these inputs, or can be compared with nothing.
    """
    search = _Search(model, convert, inputs, limit, most)
    failing = search.maker.get(model.graph.output[0].name, -1)
    if failing not in search.nodes or not search.fails(failing):
        return None
    while True:
        failing = search.halve(failing)
        earlier = [node for node in search.comparable_before(failing) if search.fails(node)]
        if not earlier:
            return search.described(failing)
        failing = max(earlier)


class _Search:
    """Cuts, converts and compares; nodes are known by their place in the graph's topological order."""

    def __init__(self, model: Any, convert: Callable[[Path], Run], inputs: np.ndarray, limit: float, most: int) -> None:
        import onnx
        from onnx import shape_inference, utils

        self.convert, self.inputs, self.limit, self.left = convert, inputs, limit, most
        # A cut needs the type of the tensor it ends in.
        model = shape_inference.infer_shapes(model)
        self.extractor, self.graph = utils.Extractor(model), model.graph
        constants = {tensor.name for tensor in self.graph.initializer}
        self.input = next(value.name for value in self.graph.input if value.name not in constants)
        values = [*self.graph.value_info, *self.graph.output]
        floats = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
        reached, self.maker, self.nodes = {self.input}, {}, {}
        for place, node in enumerate(self.graph.node):
            for name in filter(None, node.output):
                self.maker[name] = place
            if reached.intersection(node.input):
                reached.update(node.output)
                if node.output[0] in floats:
                    self.nodes[place] = node
        self.found: dict[int, float | None] = {}

    def before(self, place: int) -> set[int]:
        """The nodes whose outputs a node takes."""
        return {self.maker[name] for name in self.graph.node[place].input if name in self.maker}

    def halve(self, failing: int) -> int:
        """Narrow down by halves among all that leads to a failing node: a failing one next to a passing one."""
        among, waiting = {failing}, [failing]
        while waiting:
            new = self.before(waiting.pop()) - among
            among |= new
            waiting += new
        order = sorted(among & set(self.nodes))
        low, high = -1, len(order) - 1
        while high - low > 1:
            middle = (low + high) // 2
            nearest = sorted(range(low + 1, high), key=lambda at: abs(at - middle))
            tried = next((at for at in nearest if self.relative(order[at]) is not None), None)
            if tried is None:
                break
            low, high = (low, tried) if self.fails(order[tried]) else (tried, high)
        return order[high]

    def comparable_before(self, place: int) -> set[int]:
        """The nearest nodes before one whose outputs can be compared."""
        result, seen, waiting = set(), set(), list(self.before(place))
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in self.nodes and self.relative(node) is not None:
                result.add(node)
            else:
                waiting += self.before(node)
        return result

    def fails(self, place: int) -> bool:
        relative = self.relative(place)
        return relative is not None and not relative <= self.limit

    def relative(self, place: int) -> float | None:
        """How far the tensor after a node is off; None where nothing can be compared."""
        if place not in self.found:
            self.found[place] = self._measure(self.nodes[place].output[0]) if self.left > 0 else None
        return self.found[place]

    def _measure(self, tensor: str) -> float | None:
        import onnx

        self.left -= 1
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "prefix.onnx"
            try:
                onnx.save(self._prefix(tensor), path)
                expected = Runtime(path)(self.inputs)
                given = np.asarray(self.convert(path)(self.inputs))
            except Exception:  # of any library at work here; a cut that cannot be converted tells nothing
                return None
        return relative_difference(expected, given) if given.shape == expected.shape else None

    def _prefix(self, tensor: str) -> Any:
        """The model up to a tensor, flattened to ``scores``, float32 [batch, n]: canonical like the whole."""
        from onnx import TensorProto, helper

        prefix = self.extractor.extract_model([self.input], [tensor])
        shape = [dimension.dim_value for dimension in prefix.graph.output[0].type.tensor_type.shape.dim]
        width = int(np.prod(shape[1:])) or "width"  # 0: not known beforehand
        flat = f"{tensor}_scores" if tensor == "scores" else "scores"
        prefix.graph.node.append(helper.make_node("Flatten", [tensor], [flat], name="aip_flatten", axis=1))
        prefix.graph.output[0].CopyFrom(helper.make_tensor_value_info(flat, TensorProto.FLOAT, ["batch", width]))
        return prefix

    def described(self, place: int) -> Divergence:
        node = self.nodes[place]
        name = node.name or f"{node.op_type} at place {place}"
        return Divergence(name, node.op_type, node.output[0], self.found[place] or 0.0)
