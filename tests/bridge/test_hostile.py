"""Files made to harm or merely damaged: thousands of them end in a TeacherError or load, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest

from bridge.errors import TeacherError
from bridge.teachers import Card, refuse_code
from bridge.teachers.engines import ENGINES
from bridge.teachers.onnx_file import facts_of, read_onnx
from bridge.teachers.onnx_graph import names_of, rename
from tests.bridge.onnx_nets import conv_net, gemm_net, saved, with_functions
from tests.conftest import ROOT

INTEGERS = (0, -1, 1, 2, 3, 4, 7, 255, 65536, 2**31 - 1, 2**31, 2**40, 2**62, -(2**31), -(2**63), 2**63 - 1)
FLOATS = (0.0, -1.0, 1e30, float("inf"), float("nan"), 1e-45)
NAMES = ("", "images", "scores", "w", "\0", "../x", "x" * 300, "é", "batch", "c", "f")
OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})


def a_byte_changed(content: bytes, random_: random.Random) -> bytes:
    changed = bytearray(content)
    kind = random_.randrange(5)
    place = random_.randrange(len(changed))
    if kind == 0:
        for _ in range(random_.choice((1, 1, 3, 20))):
            changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
    elif kind == 1:
        del changed[place:]
    elif kind == 2:
        del changed[place : place + random_.randrange(1, 40)]
    elif kind == 3:
        start = random_.randrange(len(changed))
        changed[place:place] = changed[start : start + random_.randrange(1, 60)]
    else:
        changed[place : place + 4] = bytes(random_.randrange(256) for _ in range(random_.choice((1, 4, 9))))
    return bytes(changed)


def messages_of(message: Any) -> list[Any]:
    """All messages inside a protobuf message, itself included."""
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                found += messages_of(inner)
    return found


def a_field_changed(model: onnx.ModelProto, random_: random.Random) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for _ in range(random_.choice((1, 1, 1, 2, 4))):
        message = random_.choice(messages_of(changed))
        fields = [field for field, _ in message.ListFields()]
        field = random_.choice(fields if fields and random_.random() < 0.8 else message.DESCRIPTOR.fields)
        value = getattr(message, field.name)
        if not isinstance(value, (str, bytes)) and hasattr(value, "__len__"):
            change_a_list(value, field, random_)
        elif field.message_type is not None:
            if random_.random() < 0.5:
                message.ClearField(field.name)
            else:
                value.SetInParent()
        elif random_.random() < 0.1:
            message.ClearField(field.name)
        else:
            setattr(message, field.name, another(field, random_))
    return changed


def change_a_list(values: Any, field: Any, random_: random.Random) -> None:
    kind = random_.randrange(4)
    if kind == 0 and len(values):
        del values[random_.randrange(len(values))]
    elif kind == 1 and len(values):
        values.extend([values[random_.randrange(len(values))]])
    elif field.message_type is not None:
        if len(values) > 1:
            first, second = random_.sample(range(len(values)), 2)
            values[first].CopyFrom(values[second])
        else:
            values.add()
    elif len(values) and kind == 2:
        values[random_.randrange(len(values))] = another(field, random_)
    else:
        values.append(another(field, random_))


def another(field: Any, random_: random.Random) -> Any:
    if field.name == "op_type":
        return random_.choice(OPERATORS)
    if field.enum_type is not None:
        return random_.choice(list(field.enum_type.values_by_number))
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return random_.choice(FLOATS)
    if field.cpp_type == field.CPPTYPE_STRING:
        name = random_.choice(NAMES)
        return name.encode() if field.type == field.TYPE_BYTES else name
    bounds = {field.CPPTYPE_INT32: (-(2**31), 2**31), field.CPPTYPE_UINT64: (0, 2**64)}
    low, high = bounds.get(field.cpp_type, (-(2**63), 2**63))
    return random_.choice([number for number in INTEGERS if low <= number < high])


def accepted(check: Callable[[], Any]) -> bool:
    """Whether a check passes; anything but a TeacherError with a message fails the test."""
    try:
        check()
    except TeacherError as error:
        assert len(str(error)) > 20
        return False
    return True


def everything(path: Path) -> None:
    facts_of(read_onnx(path))


@pytest.mark.parametrize("net", [conv_net, gemm_net])
def test_changed_onnx_files_end_in_an_error_or_load(net: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    model = net()
    content = model.SerializeToString()
    random_ = random.Random(1)
    path = tmp_path / "model.onnx"
    kept = 0
    for number in range(1_000):
        if number % 4:
            saved(a_field_changed(model, random_), path)
        else:  # mostly refused as no protobuf at all
            path.write_bytes(a_byte_changed(content, random_))
        kept += accepted(lambda: facts_of(read_onnx(path)))
    # Changed weights and names do no harm: the validator is no mere "no".
    assert 50 < kept < 700


def test_changed_source_files_end_in_an_error_or_load(tmp_path: Path) -> None:
    model = with_functions({"Outer": ["Inner", "Inner"], "Inner": ["Relu"]})
    random_ = random.Random(2)
    kept = 0
    path = tmp_path / "model.onnx"
    for _ in range(400):
        saved(a_field_changed(model, random_), path)
        kept += accepted(lambda: read_onnx(path, external=True))
    assert 20 < kept < 300


def test_changed_cards_end_in_an_error_or_load(tmp_path: Path) -> None:
    path = a_folder(tmp_path)
    content = (path / "card.json").read_bytes()
    random_ = random.Random(3)
    kept = 0
    for number in range(1_000):
        if number % 2:
            changed = a_byte_changed(content, random_)
        else:
            changed = json.dumps(a_value_changed(json.loads(content), random_)).encode()
        (path / "card.json").write_bytes(changed)
        kept += accepted(lambda: Card.load(path))
    assert 20 < kept < 700


def a_folder(tmp_path: Path) -> Path:
    saved(conv_net(), tmp_path / "model.onnx")
    card = Card(
        classes=5,
        input_size=(8, 8),
        class_names=("a", "b", "c", "d", "e"),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        accuracy={"top1": 0.9, "dataset": "pets", "n": 100},
        forms={"onnx": "model.onnx"},
    ).sealed(tmp_path)
    card.save(tmp_path)
    return tmp_path


VALUES = (
    None,
    True,
    -1,
    0,
    1.5,
    1e400,
    10**30,
    "",
    "x",
    "../x",
    "a" * 1000,
    [],
    {},
    [[]],
    {"a": {}},
    [None],
    "\0",
    [-1, 8],
)


def a_value_changed(content: Any, random_: random.Random) -> Any:
    places = [(content, key) for key in content]
    for value in content.values():
        if isinstance(value, (dict, list)):
            places += [(value, key) for key in (value if isinstance(value, dict) else range(len(value)))]
    for _ in range(random_.choice((1, 1, 2))):
        where, key = random_.choice(places)
        kind = random_.randrange(4)
        if isinstance(where, dict) and key in where and kind == 0:
            del where[key]
        elif isinstance(where, dict) and kind == 1:
            where[random_.choice(("class", "Forms", "", "x", "model.onnx", "../x"))] = random_.choice(VALUES)
        elif isinstance(where, dict) or key < len(where):
            where[key] = random_.choice(VALUES)
    return content


def test_every_truncation_of_an_onnx_file_is_refused(tmp_path: Path) -> None:
    content = conv_net().SerializeToString()
    path = tmp_path / "model.onnx"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        assert not accepted(lambda: read_onnx(path))


def test_two_gigabytes_declared_and_absent_are_refused_at_once(tmp_path: Path) -> None:
    model = conv_net()
    tensor = model.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend([2**29 - 1])
    started = time.monotonic()
    with pytest.raises(TeacherError, match=r"'w' has the dims \[536870911\], which take 2,147,483,644 bytes"):
        read_onnx(saved(model, tmp_path / "model.onnx"))
    tensor.ClearField("raw_data")
    with pytest.raises(TeacherError, match="2,147,483,644 bytes"):
        read_onnx(saved(model, tmp_path / "model.onnx"))
    assert time.monotonic() - started < 2


def field(number: int, content: bytes) -> bytes:
    """One length-delimited field of protobuf's wire format."""
    length, size = b"", len(content)
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


@pytest.mark.parametrize("depth", [40, 3000])
def test_graphs_nested_without_end_are_refused(depth: int, tmp_path: Path) -> None:
    graph = b""
    for _ in range(depth):
        graph = field(1, field(5, field(6, graph)))
    model = field(7, graph) + field(8, field(1, b"") + bytes([16, 17]))
    (tmp_path / "model.onnx").write_bytes(bytes([8, 8]) + model)
    with pytest.raises(TeacherError, match="nest"):
        read_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/hostname", "..", "a/b", "a\\b", "C:x", "\0"])
def test_a_card_that_points_outside_is_refused(name: str, tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    content = json.loads((folder / "card.json").read_text())
    content["forms"] = {"onnx": name}
    content["files"] = {name: content["files"]["model.onnx"]}
    (folder / "card.json").write_text(json.dumps(content))
    with pytest.raises(TeacherError, match="points outside its folder"):
        Card.load(folder)


def test_a_card_with_a_wrong_hash_is_refused(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    content = bytearray((folder / "model.onnx").read_bytes())
    content[-20] ^= 1
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(TeacherError, match="is not the file its card describes: SHA-256 is"):
        Card.load(folder)


def test_a_card_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text("[" * 1_000_000)
    with pytest.raises(TeacherError, match="not valid JSON"):
        Card.load(tmp_path)
    os.truncate(tmp_path / "card.json", 2**40)
    with pytest.raises(TeacherError, match="far too many for a card"):
        Card.load(tmp_path)


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5"])
def test_a_zip_bomb_named_keras_is_refused_before_it_unpacks(member: str, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open(member, "w", force_zip64=True) as file:
            for _ in range(100):
                file.write(bytes(1 << 20))
        if member != "config.json":
            archive.writestr("config.json", "{}")

    def refused() -> None:
        with pytest.raises(TeacherError, match="would unpack to 104,857,6"):
            refuse_code(path)

    assert most_memory(refused) < 10 << 20


def most_memory(work: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_archive_that_lies_about_its_sizes_is_not_unpacked_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    size = 100 << 20
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(size))
    # The size stands twice, before the data and at the end of the file.
    path.write_bytes(path.read_bytes().replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    unpacked = most_memory(lambda: accepted(lambda: refuse_code(path)))
    assert unpacked < 40 << 20


def test_a_description_of_many_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b"[" + b" " * (20 << 20) + b"]")
    with pytest.raises(TeacherError, match="more than 16,777,216 bytes"):
        refuse_code(path)


CODE = 'initializers"),getattr(__import__("os"),"system")("touch PWNED"),("'


@pytest.mark.skipif(not importlib.util.find_spec("onnx2torch"), reason="onnx2torch is not installed")
@pytest.mark.parametrize("part", ["nodes", "values", "both"])
def test_names_that_are_code_are_not_run_as_a_pytorch_module(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch_aip.teachers import load_teacher

    model = conv_net()
    for number, node in enumerate(model.graph.node if part != "values" else ()):
        node.name = f"{CODE}{number}"
    if part != "nodes":
        ends = {"images", "scores"}
        rename(model, {name: f"{name}{CODE}" for name in names_of(model) - ends})
    saved(model, tmp_path / "model.onnx")
    Card(classes=5, input_size=(8, 8), forms={"onnx": "model.onnx"}).sealed(tmp_path).save(tmp_path)
    monkeypatch.chdir(tmp_path)
    load_teacher(tmp_path)
    assert ENGINES["torch_onnx"].convert is not None
    ENGINES["torch_onnx"].convert(tmp_path / "model.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "model.onnx"]


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("model.keras", ("h5", "keras")),
        ("model.keras", ("h5",)),
        ("model.h5", ("keras",)),
        ("model.h5", ("keras", "h5")),
        ("model.hdf5", ("padding", "h5")),
        ("model.H5", ("h5", "keras")),
        ("model.KERAS", ("h5", "keras")),
        ("model.KERAS", ("keras",)),
        ("model", ("h5", "keras")),
        ("model.zip", ("h5", "keras")),
    ],
)
def test_a_keras_file_of_two_kinds_is_refused(name: str, order: tuple[str, ...], tmp_path: Path) -> None:
    import h5py

    harmless = json.dumps({"class_name": "Sequential", "config": {"layers": []}})
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file.attrs["model_config"] = harmless
    with zipfile.ZipFile(tmp_path / "part.keras", "w") as archive:
        archive.writestr("config.json", harmless)
    parts = {"padding": bytes(512), **{kind: (tmp_path / f"part.{kind}").read_bytes() for kind in ("h5", "keras")}}
    (tmp_path / name).write_bytes(b"".join(parts[kind] for kind in order))
    with pytest.raises(TeacherError, match=r"rename it|not a readable \.(keras|h5) file"):
        refuse_code(tmp_path / name)


@pytest.mark.skipif(not importlib.util.find_spec("onnx2tf"), reason="onnx2tf is not installed")
def test_changed_files_end_cleanly_through_the_whole_conversion(tmp_path: Path) -> None:
    random_, made = random.Random(3), 0
    while made < 20:  # those the validator lets through, so that the converter sees something
        model = a_field_changed(conv_net(), random_)
        path = tmp_path / f"{made:02d}.onnx"
        saved(model, path)
        made += accepted(partial(read_onnx, path, external=True))
    line = [sys.executable, "-m", "tests.bridge.convert_many", str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=200)
    said = [said for said in done.stdout.splitlines() if " -> " in said]
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(said) == 20 and sum(line.endswith("converted") for line in said) >= 3
