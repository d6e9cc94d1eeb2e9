"""Working out what in an ONNX graph does not depend on its input, by onnxslim."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.teachers.onnx_graph import copied, replace

if TYPE_CHECKING:
    import onnx


def slimmed(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return a canonical model with the same answers whose weights, paddings and shapes are plain tensors.

    PyTorch's exporter computes paddings from shapes within the graph and shares equal weights through copies; neither
    onnx2tf nor onnx2torch sees through all of that.

    Returns:
        None where onnxslim cannot do it; the model serves as it is then.
    """
    try:
        import onnxslim
    except ImportError:  # it comes with the bridge's requirements, not with those of either backend
        return None
    try:
        slim = onnxslim.slim(copied(model))
    except Exception:  # whatever its passes raise
        return None
    if slim is None or [i.name for i in slim.graph.input] != [i.name for i in model.graph.input]:
        return None
    # The shapes it infers for in- and outputs are its own; ours say more.
    replace(slim.graph.input, model.graph.input)
    replace(slim.graph.output, model.graph.output)
    slim.graph.ClearField("value_info")
    return slim
