"""Make any ONNX classifier canonical: its preprocessing baked in, its batch dynamic, its names the agreed ones."""

from __future__ import annotations

import builtins
import contextlib
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bridge.errors import TeacherError
from bridge.teachers.bake_input import Chain, Way, way_to
from bridge.teachers.bake_proof import joined, prove, runner
from bridge.teachers.folding import folded
from bridge.teachers.onnx_file import BAKED, BATCH, INPUTS, OPSETS, OUTPUT, TARGET_OPSET, check_onnx
from bridge.teachers.onnx_graph import (
    called,
    constants_of,
    copied,
    dims_of,
    drop_unused,
    graphs,
    inputs_of,
    names_of,
    nodes_after,
    opset_of,
    rename,
    replace,
    shortened,
)
from bridge.teachers.onnx_source import prepared
from bridge.teachers.onnx_tensors import FLOAT, array_of

if TYPE_CHECKING:
    import onnx

RESERVED = (*INPUTS.values(), OUTPUT)
ROWS = 3  # in the batch that proves that a batch may have any size
ONLY_RESHAPE = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast", "Transpose")
SEED = 20260101


def bake(
    model: onnx.ModelProto,
    *,
    layout: str | None = None,
    range: Sequence[float] = (0, 1),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    outputs: str = "logits",
    image_size: int | Sequence[int | None] | None = None,
    output: str | None = None,
    front_end: onnx.ModelProto | None = None,
    where: str | Path = "The ONNX model",
) -> onnx.ModelProto:
    """Return a classifier in the canonical form: ``images``, ``clips`` or ``waveform`` in, ``scores`` out. Ours.

    It is run in onnxruntime on three random inputs, alone and together: the result must give what the source gives
    for the same inputs prepared in NumPy, whatever the batch.

    Args:
        model: Takes images (rank 4), clips (rank 5) or waveforms (rank 2, or 3 with one axis of length 1); left as it
            is.
        layout: ``NHWC`` or ``NCHW`` of its images (of clips: channels last or first, frames before the height); None:
            told from where the 3 channels stand.
        range: Values it wants images in, before mean and std: (0, 255) or (-1, 1), say.
        mean: Subtracted then, per channel, in units of ``range``.
        std: Divided by then, per channel, in units of ``range``.
        outputs: ``logits``, ``probabilities`` or ``labels`` (class numbers, which become float32 [batch, 1]).
        image_size: Height and width (of clips: frames, height, width), or one number: of a square, or the samples of a
            waveform; where the model leaves them open.
        output: Name of the output to keep, of several.
        front_end: Takes ``[batch, samples]`` and gives the features the model wants; put in front of it.
        where: What to call the model in messages.

    Raises:
        TeacherError: It cannot be made canonical, naming the node, field or option.
    """
    source = prepared(copied(model), where)
    check_onnx(source, where, source=True)
    _keep_one_output(source, output, where)
    way = way_to(source, layout, range, mean, std, image_size, front_end, where)
    _check_outputs(source, outputs, where)
    *doubtful, certain = _in_known_opsets(source, way.front_end, where)
    for candidate in doubtful:
        # The converter of onnx may give a wrong graph; then the source's own version serves.
        with contextlib.suppress(TeacherError):
            return _baked(candidate, source, way, outputs, where)
    return _baked(certain, source, way, outputs, where)


def _baked(
    model: onnx.ModelProto, source: onnx.ModelProto, way: Way, outputs: str, where: str | Path
) -> onnx.ModelProto:
    from onnx import helper

    batch = dims_of(inputs_of(source.graph)[0])[0]
    together = batch or 1
    rows = _rows(way, together * math.ceil(ROWS / together))
    taken = way.by_hand(rows)
    run = runner(source, where)
    expected = joined([run(taken[start : start + together]) for start in builtins.range(0, len(rows), together)])
    if not np.isfinite(expected).all():
        raise TeacherError(f"{where} gives NaN or infinite scores for random inputs. Check range, mean and std.")

    model = copied(model)
    _free_names(model)
    name = INPUTS[way.kind]
    first, last = inputs_of(model.graph)[0].name, model.graph.output[0].name
    if batch:
        _open_batch(model, first, batch)
    chain = Chain(model, name, "in")
    if way.front_end is not None:
        chain.before, chain.name = _front_nodes(model, way.front_end, name, where)
    way.add_to(chain)
    _join(model, chain, first, at_front=True)
    ends = Chain(model, last, "out")
    classes = _shape_scores(ends, expected, len(rows), outputs, where)
    _join(model, ends, OUTPUT, at_front=False)
    graph = model.graph
    for field in ("input", "output", "value_info", "metadata_props"):
        if field in graph.DESCRIPTOR.fields_by_name:
            graph.ClearField(field)
    graph.input.append(helper.make_tensor_value_info(name, FLOAT, [BATCH, *way.shape]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, FLOAT, [BATCH, classes]))
    drop_unused(graph)
    model = folded(model)
    _tidy(model)
    prove(model, rows[:ROWS], expected[:ROWS].reshape(ROWS, classes), where)
    check_onnx(model, where)
    return model


def _keep_one_output(model: onnx.ModelProto, output: str | None, where: str | Path) -> None:
    graph = model.graph
    names = [value.name for value in graph.output]
    if len(inputs_of(graph)) != 1:
        listed = ", ".join(value.name for value in inputs_of(graph)) or "none"
        raise TeacherError(
            f"{where} takes {len(inputs_of(graph))} inputs ({listed}); expected images or a waveform alone."
        )
    if output is None and len(names) != 1:
        raise TeacherError(f"{where} gives {len(names)} outputs: {', '.join(names)}. Choose one with --output NAME.")
    if output is not None and output not in names:
        raise TeacherError(f"{where} has no output {output!r}; it gives {', '.join(names)}.")
    kept = next(value for value in graph.output if output in (None, value.name))
    if kept.name in [value.name for value in graph.input]:
        raise TeacherError(f"{where} gives its input {kept.name!r} back; expected scores per class.")
    del graph.output[:]
    graph.output.append(kept)
    # Before the weights: old files list those among the inputs.
    replace(graph.input, inputs_of(graph))
    drop_unused(graph)


def _check_outputs(model: onnx.ModelProto, outputs: str, where: str | Path) -> None:
    if outputs not in ("logits", "probabilities", "labels"):
        raise TeacherError(f"outputs is {outputs!r}; expected logits, probabilities or labels.")
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(model.graph.output[0].name)
    while node is not None and node.op_type in ONLY_RESHAPE:
        node = makers.get(node.input[0])
    softmax = node is not None and node.op_type == "Softmax"
    if outputs == "logits" and node is not None and softmax:
        raise TeacherError(
            f"{where} ends with the Softmax node {called(node)}, so it gives probabilities, not logits. "
            "Pass --outputs probabilities."
        )
    if outputs == "probabilities" and not softmax:
        warnings.warn(f"{where} does not end with a Softmax; taken for probabilities as told.", stacklevel=3)


def _in_known_opsets(
    model: onnx.ModelProto, front_end: onnx.ModelProto | None, where: str | Path
) -> list[onnx.ModelProto]:
    from onnx import version_converter

    opset = opset_of(model) or 0
    target = TARGET_OPSET
    if front_end is None and OPSETS[0] <= opset <= TARGET_OPSET:
        return [model]
    if front_end is not None:  # both parts of one model have the same; going up works more often than going down
        target = opset_of(front_end) or TARGET_OPSET
        if target == opset and opset in OPSETS:
            return [model]
    try:
        converted = prepared(version_converter.convert_version(model, target), where)
        check_onnx(converted, where, source=True)
        return [converted, model] if opset in OPSETS and front_end is None else [converted]
    except Exception as error:  # the converter throws whatever C++ throws
        if opset in OPSETS:
            return [model]
        raise TeacherError(
            f"{where} uses opset {opset} of ai.onnx, which could not be converted to {target} "
            f"({shortened(error)}). Export it with an opset from {OPSETS[0]} to {OPSETS[-1]}."
        ) from error


def _open_batch(model: onnx.ModelProto, start: str, batch: int) -> None:
    from onnx import numpy_helper

    # Exporters write the batch they saw into the target of a Reshape. What this may break, the proof finds.
    constants = constants_of(model.graph)
    for number, node in enumerate(nodes_after(model.graph, start)):
        shape = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None:
            continue
        target = array_of(shape).tolist()
        if len(target) < 2 or target[0] != batch:
            continue
        allowed = next((attribute for attribute in node.attribute if attribute.name == "allowzero"), None)
        if allowed is not None and 0 not in target:
            allowed.i = 0  # which then means nothing else, and lets a 0 stand for the batch
        opened = np.array([0 if -1 in target else -1, *target[1:]], np.int64)
        node.input[1] = f"{BAKED}shape_{number}"
        model.graph.initializer.append(numpy_helper.from_array(opened, node.input[1]))


def _front_nodes(
    model: onnx.ModelProto, front_end: onnx.ModelProto, name: str, where: str | Path
) -> tuple[list[onnx.NodeProto], str]:
    from onnx import version_converter

    front_end = copied(front_end)
    opset = opset_of(model) or 0
    if opset_of(front_end) != opset:
        try:
            front_end = version_converter.convert_version(front_end, opset)
        except Exception as error:  # as above
            raise TeacherError(
                f"The front end could not be converted to opset {opset} of {where} ({error})."
            ) from error
    graph = front_end.graph
    names = {old: f"{BAKED}front_{old}" for old in names_of(front_end)}
    names[inputs_of(graph)[0].name] = name
    rename(front_end, names)
    model.graph.initializer.extend(graph.initializer)
    return list(graph.node), graph.output[0].name


def _shape_scores(ends: Chain, scores: np.ndarray, rows: int, outputs: str, where: str | Path) -> int:
    sides = [side for side in scores.shape[1:] if side != 1]
    expected = "class numbers [batch]" if outputs == "labels" else "scores [batch, classes]"
    most = 0 if outputs == "labels" else 1
    if scores.ndim == 0 or len(scores) != rows or len(sides) > most or (most and not sides):
        raise TeacherError(
            f"{where}: output {ends.name!r} has the shape {list(scores.shape)} for {rows} inputs; expected {expected}."
        )
    if scores.dtype != np.float32:
        ends.add("Cast", to=FLOAT)
    if scores.ndim == 1:  # onnx2torch cannot flatten that
        ends.add("Reshape", np.array([-1, 1], np.int64))
    elif scores.ndim != 2:
        ends.add("Flatten", axis=1)
    return sides[0] if sides else 1


def _join(model: onnx.ModelProto, chain: Chain, end: str, at_front: bool) -> None:
    graph = model.graph
    if chain.nodes:
        chain.nodes[-1].output[0] = end
    else:
        rename(model, {end: chain.name} if at_front else {chain.name: end})
    added = [*chain.before, *chain.nodes]
    replace(graph.node, [*added, *graph.node] if at_front else [*graph.node, *added])


def _tidy(model: onnx.ModelProto) -> None:
    from onnx import helper

    opset = opset_of(model) or TARGET_OPSET
    replace(model.opset_import, [helper.make_opsetid("", opset)])
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)
    # Exporters leave stack traces there, with the paths of the machine they ran on.
    for graph, _ in graphs(model, "The baked model"):
        graph.doc_string = ""
        for part in (*graph.node, *graph.initializer):
            part.doc_string = ""
            if "metadata_props" in part.DESCRIPTOR.fields_by_name:
                part.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.ClearField("metadata_props")


def _rows(way: Way, count: int) -> np.ndarray:
    # Of different brightness or loudness, so that the scores of different rows differ.
    noise = np.random.default_rng(SEED).random((count, *way.shape))
    loudness = 1 - 0.7 * np.arange(count).reshape(count, *[1] * len(way.shape)) / count
    rows = (2 * noise - 1) * loudness if way.kind == "audio" else noise * loudness
    return rows.astype(np.float32)


def _free_names(model: onnx.ModelProto) -> None:
    names = names_of(model)
    renamed = {}
    for name in sorted(names):
        if name in RESERVED or name.startswith(BAKED):
            fresh = f"inner_{name}"
            while fresh in names:
                fresh = f"inner_{fresh}"
            renamed[name] = fresh
            names.add(fresh)
    rename(model, renamed)
