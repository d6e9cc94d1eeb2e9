"""What an ONNX file may be: canonical files are described, everything else is refused by name."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import TeacherError
from bridge.teachers.onnx_file import OnnxFacts, check_onnx, facts_of, read_onnx
from bridge.teachers.onnx_tensors import array_of, check_tensor
from tests.bridge.onnx_nets import (
    CLASSES,
    a_model,
    conv_net,
    conv_steps,
    gemm_net,
    node,
    numbers,
    saved,
    with_functions,
)


def refused(model: onnx.ModelProto, message: str, **more: Any) -> None:
    with pytest.raises(TeacherError, match=message):
        check_onnx(model, "net.onnx", **more)


def weights(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def test_canonical_files_are_read_and_described(tmp_path: Path) -> None:
    facts = facts_of(read_onnx(saved(conv_net(), tmp_path / "model.onnx")))
    assert facts == OnnxFacts("image", (8, 8), CLASSES, 153, 17)
    steps = [("MatMul", ["waveform", "w"], ["scores"], {})]
    audio = a_model(steps, {"w": numbers(40, 2)}, ("batch", 40), ("batch", 2), names=("waveform", "scores"))
    facts = facts_of(read_onnx(saved(audio, tmp_path / "model.onnx")))
    assert facts == OnnxFacts("audio", (40,), 2, 80, 17)
    check_onnx(gemm_net(), "net.onnx")
    check_onnx(conv_net(given=("batch", None)), "net.onnx")
    assert facts_of(conv_net(given=("batch", None))).classes is None


# --- files that are no ONNX files ----------------------------------------------------------------------------------


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(TeacherError, match="does not exist"):
        read_onnx(path)
    with pytest.raises(TeacherError, match="is a folder"):
        read_onnx(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(TeacherError, match="is empty"):
        read_onnx(path)
    path.write_bytes(b"\x89PNG\r\n not a protobuf")
    with pytest.raises(TeacherError, match="not a readable ONNX file"):
        read_onnx(path)
    saved(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]), path)
    with pytest.raises(TeacherError, match=r"not an ONNX model|not a readable"):
        read_onnx(path)


def test_a_file_above_2_gb_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.touch()
    os.truncate(path, 2**31)  # sparse: nothing is written
    with pytest.raises(TeacherError, match="at most 2 GB"):
        read_onnx(path)


def test_a_pipe_is_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(TeacherError, match="no ordinary file"):
        read_onnx(tmp_path / "model.onnx")


def test_text_that_is_no_text_is_refused(tmp_path: Path) -> None:
    content = conv_net().SerializeToString().replace(b"GlobalAveragePool", b"GlobalAverage\xff\xfe\xfd\xfc")
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(TeacherError, match="'op_type' is not valid text"):
        read_onnx(tmp_path / "model.onnx")


# --- networks that are not frozen classifiers -----------------------------------------------------------------------


def test_batchnorm_in_training_mode_is_refused() -> None:
    model = conv_net()
    node(model, "BatchNormalization").attribute.append(helper.make_attribute("training_mode", 1))
    refused(model, "node 'node_n' .BatchNormalization. is in training mode.*model.eval")
    model = conv_net(opset=13)
    node(model, "BatchNormalization").output.extend(["mean", "variance"])
    refused(model, "node 'node_n' .BatchNormalization. is in training mode")


def test_dropout_is_refused_only_where_it_drops() -> None:
    check_onnx(gemm_net(), "net.onnx")  # its mode is False
    model = gemm_net()
    weights(model, "mode").CopyFrom(numpy_helper.from_array(np.array(True), "mode"))
    refused(model, "node 'node_d' .Dropout. is in training mode")
    weights(model, "ratio").CopyFrom(numpy_helper.from_array(np.array(0, np.float32), "ratio"))
    check_onnx(model, "net.onnx")  # drops nothing


def test_unsupported_operators_are_named() -> None:
    model = conv_net()
    node(model, "Relu").domain = "com.microsoft"
    refused(model, "unsupported operator: node 'node_r' is 'Relu' of the domain 'com.microsoft'")
    model = conv_net()
    node(model, "Relu").op_type = "Rellu"
    refused(model, "unsupported operator: node 'node_r' is 'Rellu' of the domain 'ai.onnx': opset 17 has no such")
    for name in ("Upsample", "RandomNormalLike", "SequenceConstruct", "Scan", "Loop", "Optional", "Mish", "Gelu"):
        model = conv_net()  # Mish and Gelu came after opset 17, Upsample was dropped before
        node(model, "Relu").op_type = name
        refused(model, f"unsupported operator: node 'node_r' is '{name}'")


@pytest.mark.parametrize("opset", [5, 12, 22, 10_000, -1])
def test_operator_sets_outside_13_to_21_are_refused(opset: int) -> None:
    model = conv_net()
    model.opset_import[0].version = opset
    refused(model, f"states version {opset} of ai.onnx; expected 13 to 21")
    model.opset_import.append(helper.make_opsetid("ai.onnx", 17))
    refused(model, "exactly once")


def test_inputs_and_outputs_other_than_the_canonical_are_refused() -> None:
    refused(conv_net(taken=("batch", 3, "height", 8)), r"input 'images' has dynamic axes \[2\] besides the batch")
    refused(conv_net(taken=(1, 3, 8, 8)), "takes only batches of 1")
    refused(conv_net(taken=("batch", 8, 8, 3)), r"expected \[batch, 3, height, width\]")
    refused(conv_net(names=("x", "y")), "takes 'x' and gives 'y'")
    refused(conv_net(given=("batch", CLASSES, 1, 1)), r"expected \[batch, classes\]")
    refused(conv_net(types=(TensorProto.FLOAT16, TensorProto.FLOAT)), "'images' is not a tensor of float32")
    model = conv_net()
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    refused(model, r"has 2 inputs \(images, mask\); expected exactly one")
    model = conv_net()
    model.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, ["batch", 4]))
    refused(model, r"has 2 outputs \(scores, f\)")
    del model.graph.output[:]
    refused(model, r"has 0 outputs \(none\)")


def test_weights_listed_among_the_inputs_are_no_inputs() -> None:
    model = conv_net()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3]))
    check_onnx(model, "net.onnx")


@pytest.mark.parametrize(
    ("type_", "message"),
    [
        (helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1])), "'images' is a sequence"),
        (helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [1])), "'images' is a optional"),
        (helper.make_tensor_type_proto(TensorProto.STRING, ["batch", 1]), "'images' holds STRING"),
    ],
)
def test_inputs_that_are_no_numbers_are_refused(type_: onnx.TypeProto, message: str) -> None:
    model = conv_net()
    model.graph.input[0].type.CopyFrom(type_)
    refused(model, message)


def test_functions_and_training_graphs_are_refused() -> None:
    model = conv_net()
    opsets = [helper.make_opsetid("", 17)]
    relu = helper.make_node("Relu", ["a"], ["z"])
    model.functions.append(helper.make_function("mine", "Rectify", ["a"], ["z"], [relu], opsets))
    refused(model, "function 'Rectify' is local")
    model = conv_net()
    model.training_info.add()
    refused(model, "training_info")


# --- tensors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [[4, 3, 3, 2], [4, 3, 3, 4], [2**29], [2**40, 2**40], [-4, 3, 3, 3], [1] * 40])
def test_dims_that_do_not_fit_the_bytes_are_refused(dims: list[int]) -> None:
    model = conv_net()
    del weights(model, "w").dims[:]
    weights(model, "w").dims.extend(dims)
    refused(model, r"tensor 'w' has the dims \[")
    weights(model, "w").ClearField("raw_data")
    refused(model, r"tensor 'w' has the dims \[")


def test_numbers_stored_twice_or_in_the_wrong_field_are_refused() -> None:
    model = conv_net()
    weights(model, "b").float_data.extend([1.0] * 4)
    refused(model, "tensor 'b' .* also fills float_data")
    model = gemm_net()
    weights(model, "fc").int64_data.append(1)
    refused(model, "tensor 'fc'")


@pytest.mark.parametrize(
    ("field", "value"), [("data_type", TensorProto.STRING), ("data_type", TensorProto.COMPLEX64), ("data_type", 99)]
)
def test_tensors_of_other_things_than_numbers_are_refused(field: str, value: int) -> None:
    model = conv_net()
    setattr(weights(model, "b"), field, value)
    refused(model, "tensor 'b' holds .*; expected plain numbers")


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(kind: type, bad: float) -> None:
    tensor = numpy_helper.from_array(np.array([1, bad, 2], kind), "w")
    with pytest.raises(TeacherError, match=r"'w' holds (NaN|infinite)"):
        check_tensor(tensor, "tensor 'w'")
    bits = [0x3F80, 0x7FC0 if np.isnan(bad) else 0x7F80]
    with pytest.raises(TeacherError, match=r"'w' holds (NaN|infinite)"):
        check_tensor(
            helper.make_tensor("w", TensorProto.BFLOAT16, [4], bytes(np.array(bits * 2, "<u2")), raw=True), "'w'"
        )


def test_one_infinite_number_is_a_mask_and_passes() -> None:
    check_tensor(numpy_helper.from_array(np.array(-np.inf, np.float32), "mask"), "tensor 'mask'")


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "?"])
def test_numbers_are_read_as_onnx_reads_them(kind: str) -> None:
    array = np.array([[0, 1, 2], [3, 100, 7]]).astype(kind)
    packed = numpy_helper.from_array(array, "x")
    single = helper.make_tensor("x", packed.data_type, array.shape, array.ravel().tolist())
    for tensor in (packed, single):
        check_tensor(tensor, "tensor 'x'")
        np.testing.assert_array_equal(array_of(tensor), array)
        assert array_of(tensor).dtype == numpy_helper.to_array(tensor).dtype


# --- data outside the file ------------------------------------------------------------------------------------------


def outside(location: str, folder: Path, length: int = 432, offset: int | None = None) -> Path:
    """A source file whose convolution's weights lie in another file."""
    model = conv_net()
    tensor = weights(model, "w")
    folder.mkdir(exist_ok=True)
    if not Path(location).is_absolute() and ".." not in location.split("/"):
        (folder / location).parent.mkdir(exist_ok=True, parents=True)
        (folder / location).write_bytes(tensor.raw_data[:length])
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    if offset is not None:
        tensor.external_data.add(key="offset", value=str(offset))
    return saved(model, folder / "model.onnx")


@pytest.mark.parametrize("location", ["weights.bin", "sub/weights.bin", "a..b"])
def test_external_data_in_its_own_folder_are_loaded_in(location: str, tmp_path: Path) -> None:
    path = outside(location, tmp_path / "net")
    with pytest.raises(TeacherError, match=f"tensor 'w' has external data, in '{location}'.*Save it inside"):
        read_onnx(path)
    model = read_onnx(path, external=True)
    assert weights(model, "w").raw_data == weights(conv_net(), "w").raw_data
    check_onnx(model, "net.onnx")


@pytest.mark.parametrize(
    "location", ["../weights.bin", "sub/../../weights.bin", "/etc/hostname", "", "..", "C:\\x", "a\\b"]
)
def test_external_data_outside_its_folder_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(432))
    model = conv_net()
    weights(model, "w").data_location = TensorProto.EXTERNAL
    weights(model, "w").external_data.add(key="location", value=location)
    (tmp_path / "net").mkdir()
    path = saved(model, tmp_path / "net" / "model.onnx")
    with pytest.raises(TeacherError, match=r"tensor 'w' has external data in .*, outside the folder"):
        read_onnx(path, external=True)


def test_external_data_through_a_link_are_refused(tmp_path: Path) -> None:
    path = outside("weights.bin", tmp_path / "net")
    (tmp_path / "net" / "weights.bin").rename(tmp_path / "secret")
    (tmp_path / "net" / "weights.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(TeacherError, match="outside the folder"):
        read_onnx(path, external=True)
    (tmp_path / "net" / "weights.bin").unlink()
    with pytest.raises(TeacherError, match="does not exist"):
        read_onnx(path, external=True)
    (tmp_path / "net" / "weights.bin").symlink_to("weights.bin")
    with pytest.raises(TeacherError, match=r"cannot be found|does not exist"):
        read_onnx(path, external=True)


def test_external_data_that_are_too_short_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"needs 432 bytes from 0 on .* which has 431"):
        read_onnx(outside("weights.bin", tmp_path, length=431), external=True)
    with pytest.raises(TeacherError, match="needs 432 bytes from 4 on"):
        read_onnx(outside("weights.bin", tmp_path, offset=4), external=True)
    with pytest.raises(TeacherError, match="offset '-4'"):
        read_onnx(outside("weights.bin", tmp_path, offset=-4), external=True)


# --- what would crash or hang the C++ of onnx -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("strides", [0, 2]), ("strides", [2]), ("dilations", [0, 1]), ("dilations", [1]), ("pads", [1]), ("group", 0),
     ("kernel_shape", [3, 0]), ("kernel_shape", [3]), ("kernel_shape", [5, 5]), ("group", -1)],
)  # fmt: skip
def test_a_convolution_that_cannot_be_is_refused_by_attribute(attribute: str, value: Any) -> None:
    model = conv_net()
    conv = node(model, "Conv")
    kept = [entry for entry in conv.attribute if entry.name != attribute]
    del conv.attribute[:]
    conv.attribute.extend([*kept, helper.make_attribute(attribute, value)])
    refused(model, f"node 'node_c' .Conv..*{attribute}")


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "opset"),
    [
        ("GatherND", ["c", "one"], {"batch_dims": -(2**31)}, 17),
        ("Split", ["images"], {"num_outputs": 2**62}, 18),
        ("Einsum", ["images"], {"equation": "ij"}, 17),
        ("Einsum", ["images", "one"], {"equation": "NOTSET"}, 17),
        ("MaxUnpool", ["w", "one"], {"kernel_shape": [2, 255]}, 17),
        ("OneHot", ["images", "none", "images"], {}, 17),
        ("MaxPool", ["images"], {"kernel_shape": [2, 2], "strides": [0, 0]}, 17),
    ],
)
def test_what_crashed_onnx_or_filled_the_memory_no_longer_does(
    op_type: str, inputs: list[str], attributes: dict[str, Any], opset: int
) -> None:
    constants = {"c": numbers(2, 3, 3, 3), "w": numbers(2, 3, 3, 3), "one": np.array(1), "none": np.zeros(0, np.int64)}
    model = a_model([(op_type, inputs, ["o"], attributes), ("Flatten", ["o"], ["scores"], {})], constants, opset=opset)
    with contextlib.suppress(TeacherError):  # that the process lives on is what is tested
        check_onnx(model, "net.onnx")


def test_a_convolution_without_its_size_is_refused_until_prepared(tmp_path: Path) -> None:
    model = conv_net()
    conv = node(model, "Conv")
    del conv.attribute[0]
    refused(model, "node 'node_c' .Conv. lacks the attribute 'kernel_shape'")
    check_onnx(read_onnx(saved(model, tmp_path / "model.onnx"), external=True), "net.onnx")


def nested(depth: int) -> onnx.ModelProto:
    """An If in an If in an If, each passing its only value on."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["r"], ["v0"])],
        "b",
        [],
        [helper.make_tensor_value_info("v0", TensorProto.FLOAT, None)],
    )
    for number in range(1, depth + 1):
        branches: dict[str, Any] = {"then_branch": graph, "else_branch": graph}
        inner = helper.make_node("If", ["yes"], [f"v{number}"], name=f"if_{number}", **branches)
        graph = helper.make_graph(
            [inner], "b", [], [helper.make_tensor_value_info(f"v{number}", TensorProto.FLOAT, None)]
        )
    steps, constants = conv_steps()
    model = a_model(steps, {**constants, "yes": np.array(True)})
    nodes = [*list(model.graph.node)[:3], graph.node[0], *list(model.graph.node)[3:]]
    copies = [onnx.NodeProto.FromString(entry.SerializeToString()) for entry in nodes]
    copies[4].input[0] = f"v{depth}"
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model


def test_graphs_inside_graphs_are_checked_and_limited(tmp_path: Path) -> None:
    check_onnx(nested(2), "net.onnx")
    model = nested(3)
    inner = model.graph.node[3].attribute[0].g.node[0].attribute[0].g.node[0].attribute[0].g.node[0]
    assert inner.op_type == "Identity"
    inner.op_type = "Rellu"
    refused(model, "unsupported operator: node 'v0' is 'Rellu'")
    refused(nested(10), "node 'if_2' nests graphs more than 8 deep")


def test_too_many_nodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.teachers.onnx_graph.MOST_NODES", 13)
    refused(conv_net(), "more than 13 nodes and tensors")


def test_values_too_large_for_any_memory_are_refused() -> None:
    refused(conv_net(taken=("batch", 3, 2**20, 2**20)), "'images' has the shape .*: more than 536,870,912 numbers")
    steps, constants = conv_steps()
    steps[3:3] = [("Expand", ["r", "huge"], ["e"], {})]
    steps[4] = ("GlobalAveragePool", ["e"], ["p"], {})
    model = a_model(steps, {**constants, "huge": np.array([1, 4, 2**20 * 4, 2**20 * 4])})
    refused(model, "'e' has the shape|its shapes do not fit")


def test_shapes_that_do_not_fit_together_are_a_clear_error() -> None:
    message = "not a valid ONNX model: its shapes do not fit together: .*Gemm.*7.*5|.*Gemm.*5.*7"
    refused(conv_net(given=("batch", CLASSES + 2)), message)
    model = conv_net()
    node(model, "Relu").input[0] = "nothing"
    refused(model, "not a valid ONNX model: onnx refuses it: .*nothing")


# --- functions ------------------------------------------------------------------------------------------------------


def test_functions_of_a_source_are_written_out(tmp_path: Path) -> None:
    model = with_functions({"Outer": ["Inner", "Inner"], "Inner": ["Relu"]})
    model = read_onnx(saved(model, tmp_path / "model.onnx"), external=True)
    assert not model.functions
    assert [entry.op_type for entry in model.graph.node].count("Relu") == 2


@pytest.mark.parametrize(
    ("bodies", "message"),
    [
        ({"Self": ["Self"]}, "'Self' calls itself"),
        ({"A": ["B"], "B": ["A"]}, "'A' calls itself"),
        ({f"F{n}": [f"F{n + 1}"] * 9 for n in range(7)} | {"F7": ["Relu"]}, "nodes once its functions are written out"),
    ],
)
def test_functions_without_end_are_refused(bodies: dict[str, list[str]], message: str, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=message):
        read_onnx(saved(with_functions(bodies), tmp_path / "model.onnx"), external=True)


def test_a_source_need_not_be_canonical() -> None:
    for model in (conv_net(names=("x", "y"), taken=(1, 3, "h", "w")), conv_net(opset=9)):
        check_onnx(model, "net.onnx", source=True)
        refused(model, "expected")
