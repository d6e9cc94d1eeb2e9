"""The graph of an ONNX model: walking it, and changing its names and lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge.errors import TeacherError

if TYPE_CHECKING:
    import onnx


# Caps far above every classifier we know of (hundreds of nodes to a few thousand).
MOST_NODES = 50_000
DEEPEST_SUBGRAPH = 8
LONGEST_REASON = 400


def graphs(model: onnx.ModelProto, where: str | Path) -> Iterator[tuple[onnx.GraphProto, int]]:
    """Yield the graph and every graph inside it, with its depth.

    Raises:
        TeacherError: There are too many nodes, or graphs inside graphs go too deep.
    """
    # A list of what is left to do, not recursion: a hostile file may nest deeper than Python's stack.
    waiting = [(model.graph, 0)]
    nodes = 0
    while waiting:
        graph, depth = waiting.pop()
        nodes += len(graph.node) + len(graph.initializer)
        if nodes > MOST_NODES:
            raise TeacherError(f"{where} has more than {MOST_NODES:,} nodes and tensors: too many for a classifier.")
        yield graph, depth
        for node in graph.node:
            inner = inner_graphs(node)
            if inner and depth == DEEPEST_SUBGRAPH:
                raise TeacherError(
                    f"{where}: node {called(node)} nests graphs more than {DEEPEST_SUBGRAPH} deep. "
                    "Export the model without control flow."
                )
            waiting.extend((part, depth + 1) for part in inner)


def inner_graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The branches of an If, say."""
    of_one = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return [*of_one, *(graph for attribute in node.attribute for graph in attribute.graphs)]


def is_constant(node: onnx.NodeProto) -> bool:
    """Whether a node just states a tensor."""
    return node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].name == "value"


def constants_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The tensors that stand in a graph, by the name of their value."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants.update({node.output[0]: node.attribute[0].t for node in graph.node if is_constant(node) and node.output})
    return constants


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs a caller has to give: old files list their weights among the inputs as well."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def dims_of(value: onnx.ValueInfoProto) -> list[int | None]:
    """The length of every axis; None where it is dynamic."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims]


def shape_of(dims: Sequence[int | None]) -> str:
    """A shape as messages show it."""
    return f"[{', '.join('?' if dim is None else str(dim) for dim in dims)}]"


def opset_of(model: onnx.ModelProto) -> int | None:
    """Version of the operator set ai.onnx; None if it is not stated exactly once."""
    found = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return found[0] if len(found) == 1 else None


def called(node: onnx.NodeProto) -> str:
    """What to call a node in a message: its name, else what it computes."""
    return repr(node.name or "".join(node.output[:1]) or "(unnamed)")


def nodes_after(graph: onnx.GraphProto, start: str) -> list[onnx.NodeProto]:
    """The nodes that depend on a value, in their order."""
    reached, nodes = {start}, []
    for node in graph.node:
        if reached.intersection(reads_of(node)):
            reached.update(node.output)
            nodes.append(node)
    return nodes


def reads_of(node: onnx.NodeProto) -> list[str]:
    """Names of all values a node depends on."""
    # A graph inside a node may read any value of the graph around it.
    names = list(node.input)
    for graph in inner_graphs(node):
        names += [name for inner in graph.node for name in reads_of(inner)]
        names += [value.name for value in graph.output]
    return [name for name in names if name]


def names_of(model: onnx.ModelProto) -> set[str]:
    """Names of all values, in inner graphs too."""
    names: set[str] = set()
    for graph, _ in graphs(model, "The ONNX model"):
        names.update(value.name for value in (*graph.input, *graph.output, *graph.initializer))
        for node in graph.node:
            names.update((*node.input, *node.output))
    return names - {""}


def rename(model: onnx.ModelProto, renamed: dict[str, str]) -> None:
    """Give values new names wherever they stand: old name -> new name, all at once."""
    for graph, _ in graphs(model, "The ONNX model"):
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = renamed.get(value.name, value.name)
        graph.ClearField("quantization_annotation")
        for node in graph.node:
            for field in (node.input, node.output):
                for place, name in enumerate(field):
                    field[place] = renamed.get(name, name)


def name_nodes(model: onnx.ModelProto) -> dict[str, str]:
    """Give every node, in inner graphs too, a plain name of its own; return new name -> what to call it to a user.

    Call it on a copy before any converter sees the model: PyTorch's (torch.fx) writes the names of nodes into source
    text as they are, which it then runs, so that a name could be code; TensorFlow takes few characters. The names of
    values get into neither.
    """
    originals = {}
    nodes = [node for graph, _ in graphs(model, "The ONNX model") for node in graph.node]
    for number, node in enumerate(nodes):
        called_before = f"{node.op_type} node {node.name or number!r}"
        node.name = f"{re.sub('[^A-Za-z0-9]', '', node.op_type)}_{number}"
        originals[node.name] = called_before
    return originals


def copied(message: Any) -> Any:
    """A copy of any part of a model."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def replace(field: Any, values: list[Any]) -> None:
    """Fill a repeated field anew, with messages that may come from itself."""
    kept = [copied(value) for value in values]
    del field[:]
    field.extend(kept)


def guarded(compute: Callable[[], Any], where: str | Path, what: str) -> Any:
    """Call into the C++ of onnx.

    Raises:
        TeacherError: It threw something.
    """
    try:
        return compute()
    except TeacherError:
        raise
    except Exception as error:  # whatever C++ throws comes as one of a dozen unrelated types
        raise TeacherError(f"{where} is not a valid ONNX model: {what}: {shortened(error)}") from error


def shortened(error: Exception) -> str:
    """What an exception says, on one line."""
    return " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__


def drop_unused(graph: onnx.GraphProto) -> None:
    """Take out the nodes and weights that no output depends on."""
    needed = {value.name for value in graph.output}
    alive = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(reads_of(node))
            alive.append(node)
    replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed])
    replace(graph.node, list(reversed(alive)))
