"""A network out of an ONNX file, as a PyTorch module."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bridge.errors import TeacherError
from bridge.teachers.folding import folded
from bridge.teachers.onnx_file import read_onnx
from bridge.teachers.onnx_graph import name_nodes
from bridge.teachers.wrapped import LARGEST_DIFFERENCE, relative_difference
from torch_aip import compat
from torch_aip.models.layers import SIZE

if TYPE_CHECKING:
    import onnx


def from_onnx(path: str | Path) -> nn.Module:
    """Make a module of a canonical ``model.onnx``; nothing foreign is executed.

    Where onnxruntime is installed, the module has answered a seeded batch as it does.

    Args:
        path: The file.

    Returns:
        float32 ``[batch, 3, height, width]`` or ``[batch, 3, frames, height, width]`` in [0, 1], or waveforms
        ``[batch, samples]`` -> the scores as the file gives them.

    Raises:
        TeacherError: The file is refused, has an operator that onnx2torch does not know (node and operator are named),
            or would answer otherwise than it does.
    """
    model = folded(read_onnx(path))
    compat.torchvision()  # onnx2torch imports it
    try:
        import onnx2torch
    except ImportError as error:
        raise TeacherError(f"{path} needs onnx2torch here ({error}). Install it: pip install onnx2torch") from error
    # Said of its own code at every slice; where PyTorch does as announced, the comparison below shows it.
    warnings.filterwarnings("ignore", message="Using a non-tuple sequence", module=r"onnx2torch\.")
    _refuse_unknown(model, path)
    originals = name_nodes(model)
    sides = [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    images = torch.rand(3, *sides, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            module = onnx2torch.convert(model).eval()
            answer = module(images)
    except Exception as error:  # onnx2torch lets through whatever its layers raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        first = re.sub(r"\b[A-Za-z0-9]+_\d+\b", lambda name: originals.get(name[0], name[0]), first)
        raise TeacherError(f"{path} does not become a PyTorch module ({first}). {_MEND}") from error
    _compare(path, images, answer)
    setattr(module, SIZE, tuple(sides[1:] if len(sides) > 1 else sides))
    return module


_MEND = "Export the network with opset 17 and plainer layers, or answer with it through onnxruntime or TensorFlow."


def _refuse_unknown(model: onnx.ModelProto, path: str | Path) -> None:
    from onnx2torch.node_converters.registry import get_converter

    opsets = {entry.domain: entry.version for entry in model.opset_import}
    unknown: dict[str, str] = {}
    for position, node in enumerate(model.graph.node):
        try:
            get_converter(node.op_type, opsets[node.domain], node.domain)
        except (NotImplementedError, KeyError):
            called = repr(node.name) if node.name else f"number {position}"
            unknown.setdefault(node.op_type, f"{node.op_type} (node {called}, opset {opsets.get(node.domain)})")
    if unknown:
        raise TeacherError(
            f"{path} has operators that onnx2torch cannot turn into PyTorch: {', '.join(unknown.values())}. {_MEND}"
        )


def _compare(path: str | Path, images: torch.Tensor, answer: Any) -> None:
    try:
        import onnxruntime as _  # noqa: F401
    except ImportError:
        return
    from bridge.teachers.runtime import Runtime

    expected = Runtime(path, threads=torch.get_num_threads())(images.numpy())
    difference = float("inf")
    if isinstance(answer, torch.Tensor) and answer.shape == expected.shape:
        difference = relative_difference(expected, answer.numpy())
    if difference > LARGEST_DIFFERENCE:
        raise TeacherError(
            f"{path} as a PyTorch module answers otherwise than onnxruntime: scores differ by {difference:.2g} of the "
            f"largest (at most {LARGEST_DIFFERENCE:g} is rounding). onnx2torch translates it wrongly. {_MEND}"
        )
