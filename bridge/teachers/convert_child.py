"""`python -m bridge.teachers.convert_child MODEL.onnx FOLDER`: an ONNX network as a TensorFlow SavedModel, by onnx2tf.

In a process of its own (see `bridge.teachers.crossing`): importing onnx2tf chooses Keras 2 for the whole process, seeds
every generator anew, lifts the recursion limit and prints.
"""

from __future__ import annotations

import copy
import os
import re
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from bridge.teachers.depthwise import flat_depthwise
from bridge.teachers.onnx_graph import inner_graphs, name_nodes
from bridge.teachers.wrapped import LARGEST_DIFFERENCE, relative_difference

PROGRAM = "conversion"
_BATCHES = (1, 3)
_PROBES = (2, 5)


class ConversionError(Exception):
    """Why there is no converted network, in one line."""


def convert(onnx_path: Path, folder: Path) -> None:
    """Write `folder`, a SavedModel whose signature `serving_default` takes `images` (float32 [batch, height, width, 3])
    or `waveform` (as it is) and gives `scores` (float32 [batch, classes]).

    Args:
        onnx_path: A canonical ``model.onnx``; a copy of its own, for onnx2tf may write to it.
        folder: To be made.

    Raises:
        ConversionError: It cannot be converted, or the result answers otherwise than onnxruntime.
    """
    import onnx

    network = _folded(onnx_path)
    originals = name_nodes(network)
    renamed = onnx_path.with_name("named.onnx")
    onnx.save(network, renamed)
    model = _converted(renamed, network, originals)
    _save(model, network.graph.input[0].name, folder)
    _compare(onnx_path, folder)


def _folded(onnx_path: Path) -> Any:
    """The network with all that is constant worked out: onnx2tf cannot change the layout of paddings and shapes that
    are computed from constants, as PyTorch writes them.
    """
    import onnx
    import onnxruntime

    path = onnx_path.with_name("folded.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(str(onnx_path), options, providers=["CPUExecutionProvider"])
    folded = onnx.load(path)
    if any(node.domain not in ("", "ai.onnx") for node in folded.graph.node):
        folded = onnx.load(onnx_path)
    used = [entry for entry in folded.opset_import if entry.domain in ("", "ai.onnx")]
    del folded.opset_import[:]
    folded.opset_import.extend(used)
    folded = onnx.shape_inference.infer_shapes(folded, data_prop=True)  # it goes by the shapes of all that lies between
    folded = flat_depthwise(folded)
    try:
        return _with_shapes(folded)
    except Exception:  # what onnxruntime cannot run so is converted as it is; whether it can be, is found out there
        traceback.print_exc()
        return folded


def _with_shapes(network: Any) -> Any:
    """The network with the shape of every value, and with constants for shapes, as two sizes of batch show them.

    Where a shape is computed from another, as `x.view(len(x), -1)` is written, onnx2tf loses track of it. What
    differs between the two batches follows the batch; what does not is constant.
    """
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper

    network, probe = copy.deepcopy(network), copy.deepcopy(network)
    graph = network.graph
    inner = [name for node in graph.node for name in node.output if name and name != graph.output[0].name]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    session: Any = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    few, many = (
        dict(zip(names, session.run(None, {given.name: np.zeros((batch, *given.shape[1:]), np.float32)})))
        for batch in _PROBES
    )
    shapes = {
        name: [size if size == other else "batch" for size, other in zip(few[name].shape, many[name].shape)]
        for name in names
    }
    del graph.value_info[:]
    for name in inner:
        kind = helper.np_dtype_to_tensor_dtype(few[name].dtype)
        graph.value_info.append(helper.make_tensor_value_info(name, kind, shapes[name]))
    follows, nodes = {given.name}, []  # what depends on the pixels themselves, not only on how many there are
    for node in graph.node:
        if node.op_type != "Shape" and (follows & set(node.input) or inner_graphs(node)):
            follows.update(node.output)
        elif all(np.array_equal(few[name], many[name]) for name in node.output if name):
            graph.initializer.extend(numpy_helper.from_array(few[name], name) for name in node.output if name)
            continue
        nodes.append(node)
        if node.op_type == "Reshape" and shapes[node.output[0]].count("batch") <= 1:
            target = [-1 if size == "batch" else size for size in shapes[node.output[0]]]
            node.input[1] = f"{node.output[0]}_shape"
            graph.initializer.append(numpy_helper.from_array(np.array(target, np.int64), node.input[1]))
    wanted, kept = {graph.output[0].name}, []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.insert(0, node)
            wanted.update(node.input)
            wanted.update(name for inner in inner_graphs(node) for part in inner.node for name in part.input)
    del graph.node[:]
    graph.node.extend(kept)
    return network


def _converted(onnx_path: Path, network: Any, originals: dict[str, str]) -> Any:
    """The network as a Keras 2 model in TensorFlow's layout."""
    import importlib.util

    import onnx2tf

    missing = [
        originals[node.name]
        for node in network.graph.node
        if importlib.util.find_spec(f"onnx2tf.ops.{node.op_type}") is None
    ]
    if missing:
        raise ConversionError(f"onnx2tf {onnx2tf.__version__} does not know {', '.join(missing[:5])}")
    try:
        return onnx2tf.convert(
            input_onnx_file_path=str(onnx_path),
            output_folder_path=str(onnx_path.parent / "onnx2tf"),
            output_signaturedefs=True,  # names that a SavedModel takes
            not_use_onnxsim=True,  # another program, which may or may not be there
            not_use_opname_auto_generate=True,
            disable_model_save=True,  # else it always writes two TFLite files as well
        )
    except (Exception, SystemExit) as error:  # it ends the process, or lets through whatever its operators raise
        why = error.__context__ if isinstance(error, SystemExit) and error.__context__ else error
        at = next((originals[name] for name in _nodes_in(error) if name in originals), None)
        raise ConversionError(f"at {at or 'some node'}: {_said(why)}") from error


def _nodes_in(error: BaseException) -> list[str]:
    """Names of the nodes being converted in the frames an error went through."""
    nodes = [frame.f_locals.get("graph_node") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [re.sub("^wa/", "/", node.name) for node in nodes if node is not None]


def _save(model: Any, name: str, folder: Path) -> None:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    shape = model.inputs[0].shape
    given = tf.TensorSpec([None, *shape[1:]], tf.float32, name=name)
    answer = tf.function(lambda x: model(x, training=False), input_signature=[given]).get_concrete_function()
    # Constants lie on whatever device they are used on: so a strategy has nothing to copy.
    frozen = convert_variables_to_constants_v2(answer, lower_control_flow=False)
    graph = _with_biases(frozen.graph)
    start, end = frozen.inputs[0].name, frozen.outputs[0].name

    @tf.function(input_signature=[given], autograph=False)
    def serve(x: Any) -> dict[str, Any]:
        (scores,) = tf.graph_util.import_graph_def(graph, {start: x}, [end], name="network")
        return {"scores": tf.cast(scores, tf.float32)}

    module = tf.Module()
    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})


def _with_biases(graph: Any) -> Any:
    """The graph with every constant that is added to a convolution or product marked as its bias.

    onnx2tf writes a plain addition, which TensorFlow does not fuse with what comes before and after it.
    """
    definition = graph.as_graph_def()
    for node in definition.node:
        if node.op != "AddV2":
            continue
        for one, other in (node.input, reversed(node.input)):
            value, bias = graph.get_tensor_by_name(_tensor(one)), graph.get_tensor_by_name(_tensor(other))
            fits = value.op.type in ("Conv2D", "DepthwiseConv2dNative", "MatMul") and bias.op.type == "Const"
            last = fits and (value.op.type == "MatMul" or value.op.get_attr("data_format") == b"NHWC")
            if last and bias.shape.rank == 1 and bias.shape[0] == value.shape[-1]:
                node.op = "BiasAdd"
                del node.input[:]
                node.input.extend([one, other])
                break
    kept = [node for node in definition.node if node.op != "Placeholder"]  # what is given takes its place
    del definition.node[:]
    definition.node.extend(kept)
    return definition


def _tensor(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _compare(onnx_path: Path, folder: Path) -> None:
    import numpy as np
    import onnxruntime
    import tensorflow as tf

    session = onnxruntime.InferenceSession(str(onnx_path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    low = -1.0 if given.name == "waveform" else 0.0
    for seed, batch in enumerate(_BATCHES):
        values = np.random.default_rng(seed).uniform(low, 1, (batch, *given.shape[1:])).astype(np.float32)
        expected: Any = session.run(None, {given.name: values})[0]
        images = np.moveaxis(values, 1, -1) if values.ndim > 3 else values
        try:
            found = signature(**{given.name: tf.constant(images)})["scores"].numpy()
        except (ValueError, tf.errors.OpError) as error:
            raise ConversionError(f"the converted network fails on a batch of {batch}: {_said(error)}") from error
        if found.shape != expected.shape:
            raise ConversionError(
                f"the converted network answers {batch} inputs with {found.shape}, not {expected.shape}"
            )
        difference = relative_difference(expected, found)
        if difference > LARGEST_DIFFERENCE:
            raise ConversionError(
                f"the converted network answers otherwise than onnxruntime: scores differ by {difference:.2g} of the "
                f"largest (at most {LARGEST_DIFFERENCE:g} is rounding). `python -m bridge verify` names the node"
            )


def _said(error: BaseException) -> str:
    """The kind of an error and the line of its message that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[-1 if lines[0].endswith(':') else 0]}"


def _offline(*_: Any) -> None:
    raise OSError("a conversion needs no network")


def main() -> int:
    """Convert; the reason of a failure is the last line that starts with the program's name."""
    onnx_path, folder = (Path(word).absolute() for word in sys.argv[1:3])
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    os.chdir(onnx_path.parent)  # whatever else onnx2tf writes, it writes here
    socket.socket.connect = _offline  # with a fixed batch it would fetch pictures
    try:
        convert(onnx_path, folder)
    except Exception as error:
        traceback.print_exc()
        print(f"{PROGRAM}: {error if type(error) is ConversionError else _said(error)}", flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
