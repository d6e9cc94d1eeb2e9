"""What an ONNX file may be: read without running anything, and refused with the node or field that is wrong.

The checks of this module come before those of the package onnx, whose C++ may crash on a file made to harm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge.errors import TeacherError
from bridge.teachers.onnx_graph import called, constants_of, copied, dims_of, graphs, guarded, inputs_of, opset_of
from bridge.teachers.onnx_source import LARGEST_FILE_BYTES, WINDOWED, load_external, prepared
from bridge.teachers.onnx_tensors import (
    FLOAT,
    FLOATING,
    HIGHEST_RANK,
    MOST_NUMBERS,
    STORED,
    array_of,
    check_tensor,
    type_name,
)

if TYPE_CHECKING:
    import onnx

INPUTS = {"image": "images", "audio": "waveform", "video": "clips"}
SHAPES = {
    "image": "[batch, 3, height, width]", "audio": "[batch, samples]", "video": "[batch, 3, frames, height, width]",
}  # fmt: skip
OUTPUT = "scores"
BATCH = "batch"
UNKNOWN = "unknown"  # a domain of no operators
BAKED = "baked_"  # begins the name of every value that baking adds
OPSETS = range(13, 22)
OLDEST_SOURCE_OPSET = 7
TARGET_OPSET = 17
MOST_ATTRIBUTES = 64


NORMALISATIONS = ("BatchNormalization",)
# Whole numbers that onnx divides by, counts axes with, or makes lists as long as, without looking.
POSITIVE = frozenset(["strides", "dilations", "kernel_shape", "group", "blocksize", "num_outputs", "num_groups"])
AXES = frozenset(["axis", "axes", "perm", "batch_dims", "batch_axis", "time_axis"])
UNBOUNDED = frozenset(["value_int", "value_ints", "starts", "ends", "start", "end"])
# Operators whose shapes onnx 1.18 crashed on inferring from some files (1.23.2 did not): left unknown.
NOT_INFERRED = frozenset(["Einsum", "MaxUnpool", "OneHot"])
REFUSED_PARTS = ("Sequence", "Optional", "String", "Random", "Regex")
REFUSED = {
    "Loop": "loops need not end",
    "Scan": "loops over parts of a graph do not cross",
    "Bernoulli": "it draws random numbers",
    "Multinomial": "it draws random numbers",
    "TfIdfVectorizer": "it works on text",
    "STFT": "write the front end as products of matrices",
}


@dataclass(frozen=True)
class OnnxFacts:
    """What a canonical ONNX file says about itself.

    Args:
        kind: ``image``, ``audio`` or ``video``.
        input_size: Height and width in pixels, frames, height and width, or the samples of a waveform as one number.
        classes: Columns of the scores; 1: class numbers; None: the file does not say.
        parameters: Numbers in its floating-point initialisers, but for those that baking added.
        opset: Version of the operator set ai.onnx.
    """

    kind: str
    input_size: tuple[int, ...]
    classes: int | None
    parameters: int
    opset: int


def read_onnx(path: str | Path, *, external: bool = False) -> onnx.ModelProto:
    """Read an ONNX file and check it, without running it.

    Args:
        path: A ``.onnx`` file.
        external: It is somebody's own file on its way to becoming canonical: data in other files of its folder are
            loaded into it, its functions are written out, and it need not have the canonical input and output.

    Raises:
        TeacherError: It cannot be read, or `check_onnx` refuses it.
    """
    path = Path(path)
    model = _parsed(path)
    if external:
        load_external(model, path)
        model = prepared(model, path)
    check_onnx(model, path, source=external)
    return model


def check_onnx(model: onnx.ModelProto, where: str | Path, *, source: bool = False) -> None:
    """Refuse a model that is not well-formed or not a frozen classifier of standard operators.

    Args:
        model: Read from a file, or just made.
        where: What to call it in messages.
        source: It need not have the canonical input, output and operator set: `bake` will give it those.

    Raises:
        TeacherError: What is wrong, naming the node, tensor or field.
    """
    opset = _check_fields(model, where, source)
    check_parts(model, where, opset)
    if not source:
        _ends(model, where)
    _check_by_onnx(model, where)


def facts_of(model: onnx.ModelProto) -> OnnxFacts:
    """Say what a canonical model takes and gives.

    Raises:
        TeacherError: It is not canonical, naming what differs.
    """
    where = "The ONNX model"
    opset = _check_fields(model, where, False)
    kind, input_size, classes = _ends(model, where)
    learned = [t for t in model.graph.initializer if t.data_type in FLOATING and not t.name.startswith(BAKED)]
    return OnnxFacts(
        kind=kind,
        input_size=input_size,
        classes=classes,
        parameters=sum(math.prod(tensor.dims) for tensor in learned),
        opset=opset,
    )


def _parsed(path: Path) -> onnx.ModelProto:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise TeacherError(f"Reading {path} needs the package onnx: pip install onnx onnxruntime.") from error
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist, or is no ordinary file"
        raise TeacherError(f"{path} {what}. Give a .onnx file.")
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise TeacherError(
                f"{path} has {size:,} bytes; an ONNX file holds at most 2 GB ({LARGEST_FILE_BYTES:,} bytes). "
                "Larger networks keep data outside, which a teacher's folder does not take."
            )
        content = path.read_bytes()
    except OSError as error:
        raise TeacherError(f"{path} cannot be read ({error}).") from error
    if not content:
        raise TeacherError(f"{path} is empty. Export or fetch it again.")
    try:
        model = onnx.ModelProto.FromString(content)
    except (DecodeError, ValueError, RecursionError) as error:
        raise TeacherError(
            f"{path} is not a readable ONNX file ({error}). It may be truncated, nest too deep, or be of another "
            "kind: export or fetch it again."
        ) from error
    if not model.HasField("graph") or not model.opset_import:
        raise TeacherError(f"{path} is not an ONNX model: it has no graph or no operator set.")
    _refuse_broken_text(model, path)
    return model


def _refuse_broken_text(model: onnx.ModelProto, path: Path) -> None:
    # Protobuf gives text that is no UTF-8 as bytes, which everything after this would stumble over.
    waiting: list[Any] = [model]
    while waiting:
        for field, value in waiting.pop().ListFields():
            values = value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]
            if field.message_type is not None:
                waiting.extend(values)
            elif field.type == field.TYPE_STRING and not all(isinstance(text, str) for text in values):
                raise TeacherError(f"{path}: a {field.name!r} is not valid text. The file is damaged: fetch it again.")


def _check_fields(model: onnx.ModelProto, where: str | Path, source: bool) -> int:
    import onnx

    opset = opset_of(model)
    if opset is None:
        raise TeacherError(f"{where}: opset_import must state the version of ai.onnx exactly once.")
    newest = onnx.defs.onnx_opset_version()
    known = range(OLDEST_SOURCE_OPSET, newest + 1) if source else OPSETS
    if opset not in known:
        raise TeacherError(
            f"{where}: opset_import states version {opset} of ai.onnx; expected {known[0]} to {known[-1]}"
            + (f", the newest that onnx {onnx.__version__} knows." if source else ". `bridge export` converts it.")
        )
    if model.training_info:
        raise TeacherError(f"{where}: training_info is filled. Export the model for inference.")
    if model.functions:
        name = model.functions[0].name
        raise TeacherError(f"{where}: the function {name!r} is local to the file. `bridge export` writes it out.")
    return opset


def check_parts(model: onnx.ModelProto, where: str | Path, opset: int) -> None:
    """Check every tensor and node of a model and of the graphs inside it.

    Raises:
        TeacherError: What is wrong, naming the node or tensor.
    """
    all_graphs = [graph for graph, _ in graphs(model, where)]
    constants: dict[str, onnx.TensorProto] = {}
    for graph in all_graphs:
        if graph.sparse_initializer:
            raise TeacherError(f"{where}: sparse_initializer is filled; only dense tensors are supported.")
        for value in (*graph.input, *graph.output, *graph.value_info):
            _check_value(value, where)
        for tensor in graph.initializer:
            check_tensor(tensor, f"{where}: tensor {tensor.name!r}")
        constants.update(constants_of(graph))
    for graph in all_graphs:
        for node in graph.node:
            _check_node(node, where, opset, constants)


def _check_value(value: onnx.ValueInfoProto, where: str | Path) -> None:
    kind = value.type.WhichOneof("value")
    if kind is None:  # an inner graph may leave types out
        return
    if kind != "tensor_type":
        raise TeacherError(f"{where}: {value.name!r} is a {kind.removesuffix('_type')}; only tensors are supported.")
    type_ = value.type.tensor_type
    if type_.elem_type not in (0, *STORED):
        raise TeacherError(f"{where}: {value.name!r} holds {type_name(type_.elem_type)}; expected numbers.")
    dims = [dim.dim_value for dim in type_.shape.dim]
    if len(dims) > HIGHEST_RANK:
        raise TeacherError(f"{where}: {value.name!r} has {len(dims)} axes; at most {HIGHEST_RANK} are supported.")
    if math.prod(dim for dim in dims if dim > 0) > MOST_NUMBERS:
        raise TeacherError(f"{where}: {value.name!r} has the shape {dims}: more than {MOST_NUMBERS:,} numbers.")


def _check_node(node: onnx.NodeProto, where: str | Path, opset: int, constants: dict[str, onnx.TensorProto]) -> None:
    name = f"{where}: node {called(node)} ({node.op_type})"
    reason = _why_unsupported(node, opset)
    if reason:
        domain = node.domain or "ai.onnx"
        raise TeacherError(
            f"{where}: unsupported operator: node {called(node)} is {node.op_type!r} of the domain {domain!r}: "
            f"{reason}. Export the model with standard operators of ai.onnx."
        )
    if len(node.attribute) > MOST_ATTRIBUTES:
        raise TeacherError(f"{name} has {len(node.attribute)} attributes; no operator has that many.")
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        _check_attribute(attribute, name)
        values[attribute.name] = attribute
    if node.op_type in NORMALISATIONS:
        mode = values.get("training_mode")
        if (mode is not None and mode.i != 0) or sum(map(bool, node.output)) > 1:
            raise TeacherError(
                f"{name} is in training mode: its scores depend on the other images of a batch. Put the model into "
                "evaluation mode (model.eval() in PyTorch, training=False in Keras) and export it again."
            )
    if node.op_type == "Dropout" and opset >= 12 and len(node.input) > 2 and node.input[2]:
        mode, ratio = (constants.get(name) for name in (node.input[2], node.input[1]))
        off = mode is not None and not array_of(mode).any()
        none_dropped = ratio is not None and not array_of(ratio).any()
        if not (off or none_dropped):
            raise TeacherError(
                f"{name} is in training mode: its scores are random. Put the model into evaluation mode "
                "(model.eval() in PyTorch, training=False in Keras) and export it again."
            )
    if node.op_type in WINDOWED:
        _check_window(node, name, values, constants)


def _check_attribute(attribute: onnx.AttributeProto, name: str) -> None:
    label = f"{name}, attribute {attribute.name!r}"
    if attribute.ref_attr_name:
        raise TeacherError(f"{label} refers to {attribute.ref_attr_name!r}, but stands in no function.")
    if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
        raise TeacherError(f"{label} is a sparse tensor; only dense ones are supported.")
    if attribute.HasField("t"):
        check_tensor(attribute.t, f"{label}: tensor {attribute.t.name!r}")
    for tensor in attribute.tensors:
        check_tensor(tensor, f"{label}: tensor {tensor.name!r}")
    numbers = [*attribute.ints, attribute.i] if attribute.HasField("i") else list(attribute.ints)
    low, high = -(2**31), 2**31
    if attribute.name in AXES:
        low, high = -HIGHEST_RANK, HIGHEST_RANK
    elif attribute.name in POSITIVE:
        low, high = 1, 2**16
    if attribute.name not in UNBOUNDED and not all(low <= number <= high for number in numbers):
        raise TeacherError(f"{label} is {numbers[:10]}; expected whole numbers from {low:,} to {high:,}.")


def _check_window(
    node: onnx.NodeProto, name: str, values: dict[str, Any], constants: dict[str, onnx.TensorProto]
) -> None:
    # Some versions of onnx read beyond their lists where these lengths disagree.
    if "kernel_shape" not in values:
        raise TeacherError(f"{name} lacks the attribute 'kernel_shape'. `bridge export` adds it where it can.")
    axes = len(values["kernel_shape"].ints)
    lengths = {"strides": axes, "dilations": axes, "pads": 2 * axes, "output_padding": axes, "output_shape": axes}
    for key, length in lengths.items():
        if key in values and len(values[key].ints) != length:
            found = len(values[key].ints)
            raise TeacherError(f"{name}, attribute {key!r} has {found} numbers; expected {length}, as kernel_shape.")
    place = 3 if node.op_type == "QLinearConv" else 1
    weights = constants.get(node.input[place]) if len(node.input) > place else None
    if weights is not None and list(weights.dims[2:]) != list(values["kernel_shape"].ints):
        given = list(values["kernel_shape"].ints)
        raise TeacherError(f"{name}: kernel_shape is {given}, its weights {weights.name!r} are {list(weights.dims)}.")


def _why_unsupported(node: onnx.NodeProto, opset: int) -> str | None:
    if node.domain not in ("", "ai.onnx"):
        return "only operators of ai.onnx cross to every framework"
    if node.op_type in REFUSED:
        return REFUSED[node.op_type]
    if any(part in node.op_type for part in REFUSED_PARTS):
        return "it does not work on tensors of numbers, or not reproducibly"
    return _schema_lacks(node.op_type, opset)


@lru_cache(maxsize=4096)
def _schema_lacks(op_type: str, opset: int) -> str | None:
    import onnx

    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except (onnx.defs.SchemaError, ValueError, TypeError):
        return f"opset {opset} has no such operator"
    return f"it is no longer part of opset {opset}" if schema.deprecated else None


def _ends(model: onnx.ModelProto, where: str | Path) -> tuple[str, tuple[int, ...], int | None]:
    inputs, outputs = inputs_of(model.graph), list(model.graph.output)
    mend = "`bridge export` makes such a file."
    for what, values in (("input", inputs), ("output", outputs)):
        if len(values) != 1:
            names = ", ".join(value.name for value in values) or "none"
            raise TeacherError(f"{where} has {len(values)} {what}s ({names}); expected exactly one. {mend}")
        value = values[0]
        if value.type.WhichOneof("value") != "tensor_type" or value.type.tensor_type.elem_type != FLOAT:
            raise TeacherError(f"{where}: {what} {value.name!r} is not a tensor of float32. {mend}")
    taken, given = inputs[0], outputs[0]
    kind = next((kind for kind, name in INPUTS.items() if name == taken.name), None)
    if kind is None or given.name != OUTPUT:
        raise TeacherError(
            f"{where} takes {taken.name!r} and gives {given.name!r}; expected 'images', "
            f"'waveform' or 'clips', and 'scores'. {mend}"
        )
    shape = dims_of(taken)
    expected = SHAPES[kind]
    dynamic = [axis for axis, dim in enumerate(shape) if dim is None and axis > 0]
    if dynamic:
        raise TeacherError(
            f"{where}: input {taken.name!r} has dynamic axes {dynamic} besides the batch; give its size."
        )
    if len(shape) != expected.count(",") + 1 or (kind != "audio" and shape[1] != 3):
        raise TeacherError(f"{where}: input {taken.name!r} has the shape {shape}; expected {expected}. {mend}")
    if shape[0] is not None:
        raise TeacherError(f"{where}: input {taken.name!r} takes only batches of {shape[0]}. {mend}")
    scores = dims_of(given)
    if len(scores) != 2 or scores[0] is not None:
        raise TeacherError(f"{where}: output {given.name!r} has the shape {scores}; expected [batch, classes]. {mend}")
    sides = shape[1:] if kind == "audio" else shape[2:]
    return kind, tuple(side for side in sides if side is not None), scores[1]


def inferred(model: onnx.ModelProto, where: str | Path) -> onnx.ModelProto:
    """Return the model with the shapes onnx infers for its values. Call `check_parts` first.

    Raises:
        TeacherError: Shapes contradict each other.
    """
    import onnx

    infer = onnx.shape_inference.infer_shapes
    if any(node.op_type in NOT_INFERRED for graph, _ in graphs(model, where) for node in graph.node):
        model = copied(model)
        model.opset_import.append(onnx.helper.make_opsetid(UNKNOWN, 1))
        for graph, _ in graphs(model, where):
            for node in graph.node:
                if node.op_type in NOT_INFERRED:
                    node.domain = UNKNOWN
    return guarded(lambda: infer(model, check_type=True, strict_mode=True), where, "its shapes do not fit together")


def _check_by_onnx(model: onnx.ModelProto, where: str | Path) -> None:
    import onnx

    guarded(lambda: onnx.checker.check_model(model), where, "onnx refuses it")
    for value in inferred(model, where).graph.value_info:
        _check_value(value, where)
