"""Convolutions of clips that take each channel by itself, written as such of images.

TensorFlow has none over three axes. onnx2tf writes one convolution per channel instead, hundreds in each layer of an
X3D, over which conversion and XLA spend minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bridge.teachers.onnx_graph import copied, dims_of, replace

if TYPE_CHECKING:
    import onnx

_FRAMES = 2  # the axis of time in [batch, channels, frames, height, width]


def flat_depthwise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with the same answers in which no convolution over frames takes each channel by itself.

    All frames are laid one behind the other along the batch; each slice in time of the kernel passes over them as a
    convolution of images, and what comes out is added up frame by frame.

    Args:
        model: Well-formed, with the shapes of what lies between its nodes; left as it is.
    """
    from onnx import numpy_helper

    result = copied(model)
    graph = result.graph
    values = [*graph.input, *graph.value_info]
    sides = {value.name: dims_of(value) for value in values if value.type.tensor_type.HasField("shape")}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        known = node.op_type == "Conv" and not node.domain and all(name in tensors for name in node.input[1:] if name)
        frames = sides.get(node.input[0], [])[_FRAMES : _FRAMES + 1] if known and node.input else []
        if not frames or frames[0] is None or not _fits(node, tensors):
            nodes.append(node)
            continue
        layer = _Layer(node, numpy_helper.to_array(tensors[node.input[1]]), frames[0], opset)
        layer.write()
        nodes.extend(layer.nodes)
        graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in layer.tensors.items())
    replace(graph.node, nodes)
    return result


def _fits(node: onnx.NodeProto, tensors: dict[str, onnx.TensorProto]) -> bool:
    filters, channels, *kernel = tensors[node.input[1]].dims
    given = _attributes(node)
    plain = given.get("auto_pad", b"NOTSET") == b"NOTSET" and set(given.get("dilations", [1])) == {1}
    return len(kernel) == 3 and channels == 1 and given.get("group", 1) == filters > 1 and plain


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


class _Layer:
    """The nodes that take one convolution's place, and their weights."""

    def __init__(self, node: onnx.NodeProto, weights: np.ndarray, frames: int, opset: int) -> None:
        self.node, self.weights, self.frames, self.opset = node, weights, frames, opset
        given = _attributes(node)
        self.strides, self.pads = given.get("strides", [1, 1, 1]), given.get("pads", [0] * 6)
        self.called = node.output[0]  # names of nodes need not differ
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, np.ndarray] = {}

    def write(self) -> None:
        frames = [self.add("Squeeze", [frame, self.axis()]) for frame in self.split(self.node.input[0], _FRAMES)]
        images = frames[0] if len(frames) == 1 else self.add("Concat", frames, axis=0)
        step, before, taps = self.strides[0], self.pads[0], self.weights.shape[2]
        # The slice that meets every frame brings the bias along, where there is one.
        whole = before if step == 1 and 2 * before + 1 == taps else None
        passed = []
        for tap in range(taps):
            weights = self.constant(f"tap{tap}", np.ascontiguousarray(self.weights[:, :, tap]))
            bias = [self.node.input[2]] if tap == whole and self.node.input[2:] else []
            answer = self.add(
                "Conv", [images, weights, *bias], group=len(self.weights), kernel_shape=self.weights.shape[3:],
                strides=self.strides[1:], pads=[*self.pads[1:3], *self.pads[4:6]],
            )  # fmt: skip
            passed.append(self.split(answer, 0))
        out = []
        for start in range(-before, self.frames + self.pads[3] - taps + 1, step):
            met = [passed[tap][start + tap] for tap in range(taps) if 0 <= start + tap < self.frames]
            total = met[0]
            for other in met[1:]:
                total = self.add("Add", [total, other])
            out.append(self.add("Unsqueeze", [total, self.axis()]))
        bias = self.node.input[2:] if whole is None else ()
        last = self.add("Concat", out, axis=_FRAMES, output=None if bias else self.node.output[0])
        for name in bias:
            shape = self.constant("shape", np.array([-1, 1, 1, 1], np.int64))
            self.add("Add", [last, self.add("Reshape", [name, shape])], output=self.node.output[0])

    def split(self, value: str, axis: int) -> list[str]:
        """A value in as many equal parts as there are frames."""
        from onnx import helper

        if self.frames == 1:
            return [value]
        name = f"{self.called}/{len(self.nodes)}"
        parts = [f"{name}_{part}" for part in range(self.frames)]
        options: dict[str, Any] = {"num_outputs": self.frames} if self.opset >= 18 else {}
        self.nodes.append(helper.make_node("Split", [value], parts, name=name, axis=axis, **options))
        return parts

    def add(self, kind: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = f"{self.called}/{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output or name], name=name, **attributes))
        return output or name

    def axis(self) -> str:
        return self.constant("axis", np.array([_FRAMES], np.int64))

    def constant(self, name: str, array: np.ndarray) -> str:
        self.tensors[f"{self.called}/{name}"] = array
        return f"{self.called}/{name}"
