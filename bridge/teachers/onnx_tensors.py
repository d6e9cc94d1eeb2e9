"""The tensors of an ONNX file: whether the bytes are there that they declare, and finite numbers in them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bridge.errors import TeacherError

if TYPE_CHECKING:
    import onnx


HIGHEST_RANK = 16
MOST_NUMBERS = 2**29  # as many float32 as a file can hold

# TensorProto data types: NumPy type of the raw bytes, and the field that holds numbers stored one by one.
STORED = {
    1: ("<f4", "float_data"),
    2: ("u1", "int32_data"),
    3: ("i1", "int32_data"),
    4: ("<u2", "int32_data"),
    5: ("<i2", "int32_data"),
    6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"),
    9: ("?", "int32_data"),
    10: ("<f2", "int32_data"),
    11: ("<f8", "double_data"),
    12: ("<u4", "uint64_data"),
    13: ("<u8", "uint64_data"),
    16: ("<u2", "int32_data"),  # bfloat16
}
FLOAT, FLOAT16, DOUBLE, BFLOAT16 = 1, 10, 11, 16
FLOATING = (FLOAT, FLOAT16, DOUBLE, BFLOAT16)
DATA_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def check_tensor(tensor: onnx.TensorProto, name: str) -> None:
    """Refuse a tensor whose description and bytes disagree, or whose numbers are not finite.

    Raises:
        TeacherError: What is wrong; it starts with ``name``.
    """
    if tensor.data_location or tensor.external_data:
        place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "another file")
        raise TeacherError(
            f"{name} has external data, in {place!r}; a teacher's model.onnx holds everything itself. Save it inside: "
            "onnx.save(onnx.load(path), new_path, save_as_external_data=False), or use `bridge export`."
        )
    count = count_of(tensor, name)
    type_, field = STORED[tensor.data_type]
    expected = count * np.dtype(type_).itemsize
    filled = [other for other in DATA_FIELDS if len(getattr(tensor, other))]
    if tensor.HasField("raw_data"):
        found = len(tensor.raw_data)
        if found != expected or filled:
            also = f", and also fills {filled[0]}" if filled else ""
            raise TeacherError(
                f"{name} has the dims {list(tensor.dims)}, which take {expected:,} bytes; the file holds {found:,}"
                f"{also}. It is truncated or damaged: export or fetch it again."
            )
    elif filled not in ([], [field]) or len(getattr(tensor, field)) != count:
        found = sum(len(getattr(tensor, other)) for other in filled)
        raise TeacherError(
            f"{name} has the dims {list(tensor.dims)}, so {count:,} numbers ({expected:,} bytes); the file holds "
            f"{found:,} in {', '.join(filled) or field}. It is truncated or damaged: export or fetch it again."
        )
    if tensor.data_type in FLOATING and count:
        _check_finite(array_of(tensor), name)


def count_of(tensor: onnx.TensorProto, name: str) -> int:
    dims = list(tensor.dims)
    if tensor.data_type not in STORED:
        raise TeacherError(f"{name} holds {type_name(tensor.data_type)}; expected plain numbers of 8 to 64 bits.")
    if tensor.HasField("segment"):
        raise TeacherError(f"{name} is a segment of a larger tensor, which nothing supports.")
    if len(dims) > HIGHEST_RANK or any(dim < 0 for dim in dims):
        raise TeacherError(f"{name} has the dims {dims[: 2 * HIGHEST_RANK]}; expected at most 16, none negative.")
    count = math.prod(dims)
    if count > MOST_NUMBERS:
        raise TeacherError(f"{name} has the dims {dims}: {count:,} numbers; at most {MOST_NUMBERS:,} are possible.")
    return count


def array_of(tensor: onnx.TensorProto) -> np.ndarray:
    """The numbers of a tensor that `check_tensor` accepts; bfloat16 as float32."""
    type_, field = STORED[tensor.data_type]
    if tensor.HasField("raw_data"):
        array = np.frombuffer(tensor.raw_data, type_)
    elif tensor.data_type in (FLOAT16, BFLOAT16):
        array = np.array(tensor.int32_data, np.int64).astype("<u2").view(type_)
    else:
        array = np.array(getattr(tensor, field)).astype(type_)
    if tensor.data_type == BFLOAT16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.reshape(tuple(tensor.dims))


def _check_finite(array: np.ndarray, name: str) -> None:
    if np.isnan(array).any():
        raise TeacherError(f"{name} holds NaN. The network has diverged, or the file is damaged.")
    # One infinite number is a bound or a mask, as in Clip and Where; among weights it is none.
    if array.size > 1 and np.isinf(array).any():
        raise TeacherError(f"{name} holds infinite numbers. The network has diverged, or the file is damaged.")


def type_name(data_type: int) -> str:
    import onnx

    names = onnx.TensorProto.DataType
    return f"{names.Name(data_type)} numbers" if data_type in names.values() else f"data of type {data_type}"
