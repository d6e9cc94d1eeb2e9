"""Running ONNX models of any batch: the proof that what was baked gives what its source gives."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bridge.errors import TeacherError
from bridge.teachers.onnx_graph import called, copied, inputs_of, nodes_after, shortened
from bridge.teachers.wrapped import LARGEST_DIFFERENCE, relative_difference

if TYPE_CHECKING:
    import onnx


def prove(model: onnx.ModelProto, rows: np.ndarray, expected: np.ndarray, where: str | Path) -> None:
    """Run a baked model on inputs alone and together, and compare.

    Args:
        model: Canonical.
        rows: Inputs.
        expected: Their scores from the source.
        where: What to call the source.

    Raises:
        TeacherError: Scores differ; it names the first node at which the batch matters, if one can be told.
    """
    run = runner(model, where)
    problem = None
    try:
        if _differs(joined([run(row[None]) for row in rows]), expected):
            problem = "an input alone gets other scores than in the source"
        elif _differs(run(rows), expected):
            problem = f"an input gets other scores in a batch of {len(rows)} than alone"
    except TeacherError as error:
        problem = str(error)
    if problem:
        raise TeacherError(
            f"{where} has a fixed batch baked in{_first_fixed(model, rows)}: {problem}. Export it again in evaluation "
            "mode, with a dynamic batch."
        )


def _differs(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape != expected.shape or relative_difference(expected, found) > LARGEST_DIFFERENCE


def _first_fixed(model: onnx.ModelProto, rows: np.ndarray) -> str:
    model = copied(model)
    nodes = nodes_after(model.graph, model.graph.input[0].name)
    names = [name for node in nodes for name in node.output if name]
    del model.graph.output[:]
    for name in names:
        model.graph.output.add(name=name)
    try:
        run = _session(model)
        singles = [run(row[None]) for row in rows]
        whole = dict(zip(names, run(rows)))
    except Exception as error:  # onnxruntime's own types
        found = re.search(r"[Nn]ame: ?'([^']+)'|[Nn]ode ?\(([^)]+)\)", str(error))
        return f" at the node {(found[1] or found[2])!r}" if found else ""
    for node in nodes:
        for name in filter(None, node.output):
            parts = [values[names.index(name)] for values in singles]
            if parts[0].dtype.kind == "f" and not _is_joined(whole[name], parts):
                return f" at the node {called(node)}"
    return ""


def _is_joined(whole: np.ndarray, parts: list[np.ndarray]) -> bool:
    for axis in range(parts[0].ndim):
        joined = np.concatenate(parts, axis)
        if joined.shape == whole.shape and not _differs(whole, joined):
            return True
    # What depends on shapes alone, not on the batch.
    return all(part.shape == whole.shape and not _differs(part, whole) for part in parts)


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """Put answers to several batches together; the first alone where they do not fit, for its shape to be told."""
    return np.concatenate(parts) if parts[0].ndim and len({part.shape[1:] for part in parts}) == 1 else parts[0]


def runner(model: onnx.ModelProto, where: str | Path) -> Callable[[np.ndarray], np.ndarray]:
    """Open a model of one input; call the result with a batch for its first output.

    Raises:
        TeacherError: onnxruntime is not installed, or refuses the model or, when called, the batch.
    """
    try:
        run = _session(model)
    except ImportError as error:
        raise TeacherError("Making a model canonical needs onnxruntime: pip install onnxruntime.") from error
    except Exception as error:  # onnxruntime's own types
        raise TeacherError(f"{where} cannot be opened by onnxruntime: {shortened(error)}") from error

    def guarded(rows: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(run(rows)[0])
        except Exception as error:  # as above
            shape = list(rows.shape)
            raise TeacherError(
                f"{where} does not run in onnxruntime on inputs of shape {shape}: {shortened(error)}"
            ) from error

    return guarded


def _session(model: onnx.ModelProto) -> Callable[[np.ndarray], list[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Unfused, so that its errors name the nodes of the file.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = inputs_of(model.graph)[0].name
    return lambda rows: list(session.run(None, {name: rows}))
