"""How a canonical input becomes what a source model wants, and the checks of what was said about that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bridge.errors import TeacherError
from bridge.teachers.bake_proof import runner
from bridge.teachers.card import SIZES
from bridge.teachers.onnx_file import BAKED, check_onnx
from bridge.teachers.onnx_graph import copied, dims_of, inputs_of, shape_of
from bridge.teachers.onnx_source import prepared
from bridge.teachers.onnx_tensors import FLOAT, FLOATING, STORED

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Way:
    """Steps by which canonical inputs become what the source wants: once in NumPy, once as ONNX nodes."""

    kind: str
    shape: tuple[int, ...]  # canonical, without the batch
    type: int  # of the source's input
    scale: np.ndarray | None = None  # float64 [3, 1, 1], of clips [3, 1, 1, 1]
    shift: np.ndarray | None = None
    channels_last: bool = False
    reshaped: tuple[int, ...] | None = None  # without the batch
    front_end: Any = None

    def by_hand(self, rows: np.ndarray) -> np.ndarray:
        if self.front_end is not None:
            rows = runner(self.front_end, "The front end")(rows)
        if self.scale is not None and self.shift is not None:
            rows = rows * self.scale.astype(np.float32) + self.shift.astype(np.float32)
        if self.type not in FLOATING:
            rows = np.rint(rows)
        if self.channels_last:
            rows = np.moveaxis(rows, 1, -1)
        if self.reshaped is not None:
            rows = rows.reshape(len(rows), *self.reshaped)
        return rows.astype(STORED[self.type][0])

    def add_to(self, chain: Chain) -> None:
        if self.scale is not None and self.shift is not None:
            chain.add("Mul", self.scale[None].astype(np.float32))
            if self.shift.any():
                chain.add("Add", self.shift[None].astype(np.float32))
        if self.type not in FLOATING:
            chain.add("Round")
        if self.type != FLOAT:
            chain.add("Cast", to=self.type)
        if self.channels_last:
            chain.add("Transpose", perm=[0, *range(2, len(self.shape) + 1), 1])
        if self.reshaped is not None:
            chain.add("Reshape", np.array([0, *self.reshaped], np.int64))


class Chain:
    """Nodes of one input and one output each, written one after another."""

    def __init__(self, model: onnx.ModelProto, start: str, label: str) -> None:
        self.model, self.name, self.label = model, start, label
        self.nodes: list[onnx.NodeProto] = []
        self.before: list[onnx.NodeProto] = []  # of any shape, ending in `name`

    def add(self, op_type: str, constant: np.ndarray | None = None, **attributes: Any) -> None:
        from onnx import helper, numpy_helper

        stem = f"{BAKED}{self.label}_{len(self.nodes)}"
        inputs = [self.name]
        if constant is not None:
            inputs.append(f"{stem}_constant")
            value = numpy_helper.from_array(constant)
            # A node, not an initialiser: facts count those as the network's own weights.
            self.nodes.append(helper.make_node("Constant", [], inputs[1:], name=inputs[1], value=value))
        self.nodes.append(helper.make_node(op_type, inputs, [stem], name=stem, **attributes))
        self.name = stem


def way_to(
    model: onnx.ModelProto,
    layout: str | None,
    range: Sequence[float],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: int | Sequence[int | None] | None,
    front_end: onnx.ModelProto | None,
    where: str | Path,
) -> Way:
    """Find out how canonical inputs become what a model takes; the arguments are those of `bake`.

    Raises:
        TeacherError: Its input is neither images nor a waveform, or the arguments do not fit it.
    """
    value = inputs_of(model.graph)[0]
    dims, type_ = dims_of(value), value.type.tensor_type.elem_type
    if type_ not in STORED:
        raise TeacherError(f"{where}: input {value.name!r} does not say what type of numbers it takes.")
    if front_end is None and len(dims) in (4, 5):
        if isinstance(size, int):
            size = (*([None] if len(dims) == 5 else []), size, size)  # how many frames only the file can say
        return _way_of_images(value.name, dims, type_, layout, range, mean, std, size, where)
    if layout is not None or tuple(range) not in ((0, 1), (-1, 1)) or mean is not None or std is not None:
        raise TeacherError(f"{where} takes a waveform, in [-1, 1]: layout, range, mean and std belong to images.")
    size = (size,) if isinstance(size, int) else size
    if front_end is not None:
        return _way_of_features(front_end, value.name, dims, type_, size, where)
    axes = [axis for axis, dim in enumerate(dims) if axis > 0 and dim != 1]
    if len(dims) not in (2, 3) or len(axes) != 1:
        raise TeacherError(
            f"{where}: input {value.name!r} has the shape {shape_of(dims)}; expected images (four axes), clips (five), "
            "or a waveform [batch, samples]. A model of features needs a front end."
        )
    samples = _agreed(dims[axes[0]], size[0] if size and len(size) == 1 else None, "samples", value.name, where)
    reshaped = tuple(dim or samples for dim in dims[1:]) if len(dims) == 3 else None
    return Way("audio", (samples,), type_, reshaped=reshaped)


def _way_of_images(
    name: str,
    dims: list[int | None],
    type_: int,
    layout: str | None,
    range: Sequence[float],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: Sequence[int | None] | None,
    where: str | Path,
) -> Way:
    kind = "video" if len(dims) == 5 else "image"
    fits = {"NCHW": dims[1] == 3, "NHWC": dims[-1] == 3}  # of clips: whatever stands between
    if layout is None:
        if fits["NCHW"] == fits["NHWC"]:
            what = "both" if fits["NCHW"] else "none"
            raise TeacherError(
                f"{where}: input {name!r} has the shape {shape_of(dims)}: {what} of axes 1 and {len(dims) - 1} has the "
                "3 channels of RGB images. Say which with --layout NCHW or --layout NHWC."
            )
        layout = "NCHW" if fits["NCHW"] else "NHWC"
    if layout not in fits:
        raise TeacherError(f"layout is {layout!r}; expected NHWC or NCHW.")
    channels, sides = (dims[1], dims[2:]) if layout == "NCHW" else (dims[-1], dims[1:-1])
    if channels not in (3, None):
        raise TeacherError(
            f"{where}: input {name!r} has the shape {shape_of(dims)}, in {layout} {channels} channels; expected 3."
        )
    names = SIZES[kind]
    given = [side for side in size or () if side is not None]
    if size is not None and (len(size) != len(names) or not all(isinstance(side, int) and side > 0 for side in given)):
        raise TeacherError(f"image_size is {tuple(size)}; expected {', '.join(names)}, in pixels.")
    pairs = zip(names, sides, size or (None,) * len(names))
    found = [_agreed(side, wanted, what, name, where) for what, side, wanted in pairs]
    low, high = _numbers("range", range, 2)
    if low >= high:
        raise TeacherError(f"range is {tuple(range)}; expected the lowest value and a higher one.")
    if type_ not in FLOATING and high - low <= 2:
        raise TeacherError(f"{where}: input {name!r} takes whole numbers; say which with --range 0 255.")
    if (mean is None) != (std is None):
        raise TeacherError("mean and std are given together, or neither.")
    centre = _numbers("mean", (0,) if mean is None else mean, 3)
    spread = _numbers("std", (1,) if std is None else std, 3)
    if (spread <= 0).any():
        raise TeacherError(f"std is {spread.tolist()}; expected numbers greater than 0.")
    scale, shift = (high - low) / spread, (low - centre) / spread
    plain = bool((scale == 1).all() and (shift == 0).all())
    column = (3, *[1] * len(found))
    return Way(
        kind,
        (3, *found),
        type_,
        scale=None if plain else scale.reshape(column),
        shift=None if plain else shift.reshape(column),
        channels_last=layout == "NHWC",
    )


def _way_of_features(
    front_end: onnx.ModelProto,
    name: str,
    dims: list[int | None],
    type_: int,
    size: Sequence[int | None] | None,
    where: str | Path,
) -> Way:
    front_end = prepared(copied(front_end), "The front end")
    check_onnx(front_end, "The front end", source=True)
    inputs, given = inputs_of(front_end.graph), front_end.graph.output
    if len(inputs) != 1 or len(given) != 1 or len(dims_of(inputs[0])) != 2:
        raise TeacherError("The front end must take one waveform [batch, samples] and give one tensor of features.")
    wanted = size[0] if size and len(size) == 1 else None
    samples = _agreed(dims_of(inputs[0])[1], wanted, "samples", inputs[0].name, "The front end")
    found = runner(front_end, "The front end")(np.zeros((1, samples), np.float32)).shape[1:]
    needed = dims[1:]
    same = len(found) == len(needed) and all(dim in (None, side) for dim, side in zip(needed, found))
    # Besides axes of length 1, such as the one channel of a picture of features.
    if not same and [side for side in found if side != 1] != [dim for dim in needed if dim != 1]:
        raise TeacherError(
            f"The front end gives features of the shape {list(found)}; "
            f"input {name!r} of {where} takes {shape_of(needed)}."
        )
    reshaped = None if same else tuple(dim or 1 for dim in needed)
    return Way("audio", (samples,), type_, reshaped=reshaped, front_end=front_end)


def _agreed(found: int | None, wanted: int | None, what: str, name: str, where: str | Path) -> int:
    if found is None and wanted is None:
        option = f"--{what}" if what in ("samples", "frames") else "--image-size"
        raise TeacherError(f"{where}: input {name!r} has a dynamic {what}. Give it with {option}.")
    if found is not None and wanted is not None and found != wanted:
        raise TeacherError(f"{where}: input {name!r} has {found} as its {what}; {wanted} was asked for.")
    return int(found or wanted or 0)


def _numbers(what: str, values: Sequence[float], count: int) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.shape == (1,):
        array = np.repeat(array, count)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise TeacherError(f"{what} is {values}; expected {count} finite numbers.")
    return array
