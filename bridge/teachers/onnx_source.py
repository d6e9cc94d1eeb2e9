"""Somebody's own ONNX file on its way to becoming canonical: what it may leave outside or in functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bridge.errors import TeacherError
from bridge.teachers.onnx_graph import DEEPEST_SUBGRAPH, MOST_NODES, constants_of, graphs, guarded, inner_graphs
from bridge.teachers.onnx_tensors import STORED, count_of

if TYPE_CHECKING:
    import onnx


LARGEST_FILE_BYTES = 2**31 - 1  # protobuf's own limit
WINDOWED = ("Conv", "ConvInteger", "QLinearConv", "ConvTranspose", "DeformConv")


def prepared(model: onnx.ModelProto, where: str | Path) -> onnx.ModelProto:
    """Return a model with its functions written out and the size of every convolution's window stated.

    Raises:
        TeacherError: A function calls itself, or they are too many.
    """
    if model.functions:
        model = _without_functions(model, where)
    for graph, _ in graphs(model, where):
        weights = constants_of(graph)
        for node in graph.node:
            stated = any(attribute.name == "kernel_shape" for attribute in node.attribute)
            place = 3 if node.op_type == "QLinearConv" else 1
            if node.op_type in WINDOWED and not stated and len(node.input) > place and node.input[place] in weights:
                attribute = node.attribute.add(name="kernel_shape", type=7)
                attribute.ints.extend(weights[node.input[place]].dims[2:])
    return model


def load_external(model: onnx.ModelProto, path: Path) -> None:
    """Take data that lie in other files of a model's folder into the model.

    Raises:
        TeacherError: They lie elsewhere, are missing or too short, or all together exceed 2 GB.
    """
    total = 0
    for tensor in _tensors(model, path):
        if not tensor.data_location and not tensor.external_data:
            continue
        name = f"{path}: tensor {tensor.name!r}"
        file, offset = _external_place(tensor, path, name)
        length = count_of(tensor, name) * np.dtype(STORED[tensor.data_type][0]).itemsize
        total += length
        if total > LARGEST_FILE_BYTES:
            raise TeacherError(f"{path} and its external data have more than 2 GB, which one ONNX file cannot hold.")
        try:
            size = file.stat().st_size
            if offset + length > size:
                raise TeacherError(
                    f"{name} needs {length:,} bytes from {offset:,} on of {file}, which has {size:,}. "
                    "It is truncated: export or fetch it again."
                )
            with open(file, "rb") as stream:
                stream.seek(offset)
                content = stream.read(length)
        except OSError as error:
            raise TeacherError(f"{name}: its external data in {file} cannot be read ({error}).") from error
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = content


def _external_place(tensor: onnx.TensorProto, path: Path, name: str) -> tuple[Path, int]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = path.parent.resolve()
    file = folder / location
    # Resolving follows symbolic links, of which none may lead out of the folder.
    named_outside = re.search(r"^$|^/|^[A-Za-z]:|[\\\0]|(^|/)\.\.(/|$)", location)
    try:
        outside = named_outside or not file.resolve().is_relative_to(folder)
        missing = not outside and not file.is_file()
    except (OSError, RuntimeError) as error:  # too long a name, links in a circle
        raise TeacherError(
            f"{name} has external data in {location[:200]!r}, which cannot be found ({error})."
        ) from error
    if outside:
        raise TeacherError(f"{name} has external data in {location!r}, outside the folder {folder} of its file.")
    if missing:
        raise TeacherError(f"{name} has external data in {location!r}, but {file} does not exist.")
    offset = entries.get("offset", "0")
    if not (offset.isascii() and offset.isdecimal() and len(offset) < 16):
        raise TeacherError(f"{name}: offset {offset!r} of its external data is not a whole number.")
    return file, int(offset)


def _tensors(model: onnx.ModelProto, where: str | Path) -> Iterator[onnx.TensorProto]:
    for graph, _ in graphs(model, where):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _without_functions(model: onnx.ModelProto, where: str | Path) -> onnx.ModelProto:
    import onnx.inliner

    functions = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Any, above: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if above and inner_graphs(node):
                raise TeacherError(f"{where}: the function {above[-1][1]!r} holds graphs, which is not supported.")
            if key not in functions:
                total += 1
                continue
            if key in above or len(above) > DEEPEST_SUBGRAPH:
                raise TeacherError(f"{where}: the function {key[1]!r} calls itself, or functions nest too deep.")
            if key not in sizes:
                sizes[key] = size(functions[key].node, (*above, key))
            total += sizes[key]
        return total

    if sum(size(graph.node, ()) for graph, _ in graphs(model, where)) > MOST_NODES:
        raise TeacherError(f"{where} has more than {MOST_NODES:,} nodes once its functions are written out.")
    return guarded(lambda: onnx.inliner.inline_local_functions(model), where, "its functions cannot be written out")
