"""CIFAR is read from every form its authors give it in; damaged and hostile files are named, and never run."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge import cifar
from bridge.cifar import LAYOUTS, Layout
from bridge.datasets import FACTS, load
from bridge.errors import DatasetError

SMALL = {"train": 50, "test": 10}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Everything but the number of images is as in the real files."""
    monkeypatch.setattr(cifar, "SIZES", SMALL)


def data_of(name: str, part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels and coarse labels of one part, different for every set and part."""
    generator = np.random.default_rng([len(name), len(part)])
    count, classes = SMALL[part], FACTS[name].classes
    images = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return images, generator.permutation(np.arange(count) * classes // count), generator.integers(0, 20, count)


def text(value: bytes) -> bytes:
    """A pickled string of Python 2."""
    return b"T" + struct.pack("<i", len(value)) + value


def python_2_pickle(pixels: np.ndarray, lists: dict[str, list[int]]) -> bytes:
    """What Python 2 wrote: text for bytes, and NumPy's array of that time."""
    numbers = {key: b"(" + b"".join(b"K" + bytes([n]) for n in values) + b"l" for key, values in lists.items()}
    dtype = (
        b"cnumpy\ndtype\n("
        + text(b"u1")
        + b"K\x00K\x01tRq\x05(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = b"(" + b"".join(b"J" + struct.pack("<i", side) for side in pixels.shape) + b"t"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    array += b"(K\x01" + shape + dtype + b"I00\n" + text(pixels.tobytes()) + b"tb"
    items = {"data": array, **numbers, "batch_label": text(b"a batch"), "filenames": b"(" + text(b"a.png") + b"l"}
    return b"\x80\x02}(" + b"".join(text(key.encode()) + value for key, value in items.items()) + b"u."


def python_3_pickle(pixels: np.ndarray, lists: dict[str, list[int]]) -> bytes:
    """The same, written again by today's Python and NumPy in the old format."""
    return pickle.dumps({b"data": pixels, **{key.encode(): value for key, value in lists.items()}}, protocol=2)


def files_of(layout: Layout, write: Callable[..., bytes] = python_2_pickle) -> dict[str, bytes]:
    """The content of every file of a form."""
    contents = {}
    for part, names in layout.parts.items():
        images, labels, coarse = data_of(layout.name, part)
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        for name, rows in zip(names, np.split(np.arange(len(images)), len(names))):
            if layout.label_bytes:
                both = np.stack([coarse, labels], axis=1)[rows, 2 - layout.label_bytes :].astype(np.uint8)
                contents[name] = np.concatenate([both, planes[rows]], axis=1).tobytes()
            else:
                lists = {"fine_labels": labels[rows].tolist(), "coarse_labels": coarse[rows].tolist()}
                lists = {"labels": lists["fine_labels"]} if layout.name == "cifar10" else lists
                contents[name] = write(planes[rows], lists)
    return contents


def as_folder(place: Path, layout: Layout, contents: dict[str, bytes]) -> Path:
    folder = place / layout.folder
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def as_archive(place: Path, layout: Layout, contents: dict[str, bytes], inside: str = "") -> Path:
    """As the authors pack it: beside the batches lie a page and a list of names."""
    place.mkdir(parents=True, exist_ok=True)
    with tarfile.open(place / layout.archive, "w:gz") as archive:
        for name, content in {"batches.meta": b"names", **contents, "readme.html": b"<a>"}.items():
            member = tarfile.TarInfo(f"{inside}{layout.folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return place / layout.archive


def layout_named(folder: str) -> Layout:
    return next(layout for layout in LAYOUTS if layout.folder == folder)


PY, BIN = layout_named("cifar-10-batches-py"), layout_named("cifar-10-batches-bin")


@pytest.mark.parametrize("pack", [as_folder, as_archive])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.folder)
def test_every_form_holds_the_same_images_in_the_order_of_the_files(layout, pack, tmp_path):
    path = pack(tmp_path, layout, files_of(layout))
    for part in ("train", "test"):
        images, labels = cifar.read(path, part)
        assert images.dtype == np.uint8 and labels.dtype == np.int64
        assert np.array_equal(images, data_of(layout.name, part)[0])
        assert np.array_equal(labels, data_of(layout.name, part)[1])
    loaded = {split: load(path, split) for split in ("train", "validation", "test")}
    assert [len(part.images) for part in loaded.values()] == [45, 5, 10]
    assert [part.name for part in loaded.values()] == [f"{layout.name}/train", f"{layout.name}/validation", layout.name]
    assert np.array_equal(loaded["validation"].images, data_of(layout.name, "train")[0][45:])
    assert loaded["test"].class_names == list(FACTS[layout.name].class_names)
    assert load(path, image_size=16).images.shape == (10, 16, 16, 3)


@pytest.mark.parametrize("layout", [PY, layout_named("cifar-100-python")], ids=lambda layout: layout.folder)
def test_batches_written_again_by_todays_python_are_read_too(layout, tmp_path):
    folder = as_folder(tmp_path, layout, files_of(layout, python_3_pickle))
    assert np.array_equal(cifar.read(folder, "train")[0], data_of(layout.name, "train")[0])
    assert np.array_equal(cifar.read(folder, "train")[1], data_of(layout.name, "train")[1])


def test_files_of_the_real_size_give_the_splits_that_are_announced(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "SIZES", {"train": 50_000, "test": 10_000})
    (tmp_path / BIN.folder).mkdir()
    for number, name in enumerate(BIN.files):
        with open(tmp_path / BIN.folder / name, "wb") as file:  # as holes, so that nothing is written to the disk
            file.write(bytes([number]))
            file.truncate(10_000 * 3073)
    for split, count in FACTS["cifar10"].splits.items():
        loaded = load("cifar10", split, data_dir=tmp_path)
        assert len(loaded.images) == len(loaded.labels) == count
        firsts = {"train": [0, 1, 2, 3, 4], "validation": [0], "test": [5]}[split]
        assert loaded.labels[::10_000].tolist() == firsts
    assert FACTS["cifar10"].splits == FACTS["cifar100"].splits == {"train": 45_000, "validation": 5_000, "test": 10_000}


def test_an_archive_is_known_by_what_is_in_it_and_a_folder_by_its_files(tmp_path):
    archive = as_archive(tmp_path, BIN, files_of(BIN), inside="./")
    for name in ("mine.tar.gz", "mine.tgz"):
        assert len(load(archive.replace(tmp_path / name) if archive.exists() else archive).images) == 10
        archive = tmp_path / name
    with gzip.open(archive) as packed:
        (tmp_path / "mine.tar").write_bytes(packed.read())
    assert len(load(tmp_path / "mine.tar").images) == 10
    folder = as_folder(tmp_path, PY, files_of(PY)).rename(tmp_path / "renamed")
    assert load(folder).name == "cifar10"
    (folder / "data_batch_3").unlink()  # then it is a folder of images, without any
    with pytest.raises(DatasetError, match="no usable image"):
        load(folder, image_size=32)


def test_named_sets_are_found_in_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("AIP_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    expected = data_of("cifar10", "test")[0]
    as_folder(tmp_path / "data" / "cifar10", PY, files_of(PY))
    assert np.array_equal(load("cifar10").images, expected)
    monkeypatch.setenv("AIP_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(DatasetError, match=r"cifar10 was not found: looked in .*elsewhere.*cifar-10-python\.tar\.gz"):
        load("cifar10")
    as_archive(tmp_path / "elsewhere", BIN, files_of(BIN))
    assert np.array_equal(load("cifar10").images, expected)
    assert len(load("cifar10", data_dir="data").images) == 10
    as_archive(tmp_path / "hundred", layout_named("cifar-100-python"), files_of(layout_named("cifar-100-python")))
    assert np.array_equal(load("cifar100", data_dir=tmp_path / "hundred").labels, data_of("cifar100", "test")[1])
    with pytest.raises(DatasetError, match=r"hundred.*cs\.toronto\.edu/~kriz.*--data-dir"):
        load("cifar10", data_dir=tmp_path / "hundred")


def test_archives_that_were_only_partly_downloaded_are_named(tmp_path):
    whole = as_archive(tmp_path, PY, files_of(PY)).read_bytes()
    path = tmp_path / PY.archive
    for damaged in (b"", b"<html>not found</html>", whole[:20], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"cifar-10-python\.tar\.gz (cannot be read|lacks).*Download it again"):
            for part in ("train", "test"):
                cifar.read(path, part)
    path.write_bytes(whole[:200] + bytes(100) + whole[300:])
    with pytest.raises(DatasetError, match=r"cifar-10-python\.tar\.gz"):
        load(path)


@pytest.mark.parametrize("pack", [as_folder, as_archive])
def test_missing_batches_are_named(pack, tmp_path):
    contents = files_of(BIN)
    del contents["data_batch_2.bin"], contents["data_batch_4.bin"]
    path = pack(tmp_path, BIN, contents)
    with pytest.raises(DatasetError, match=r"lacks data_batch_2\.bin, data_batch_4\.bin: expected"):
        load("cifar10", "train", data_dir=tmp_path)
    assert len(load(path, "test").images) == 10


@pytest.mark.parametrize("pack", [as_folder, as_archive])
@pytest.mark.parametrize(
    ("layout", "change", "match"),
    [
        (BIN, lambda content: content[:-1], r"test_batch\.bin in .* has 30,729 bytes, expected 30,730"),
        (BIN, lambda content: content + b"\0", "has 30,731 bytes"),
        (BIN, lambda content: b"\x0a" + content[1:], r"labels from 0 to 10; cifar10 has 0 to 9"),
        (PY, lambda content: content[: len(content) // 2], r"test_batch in .* bytes, expected a little over 30,720"),
        (PY, lambda content: content[:-3], r"test_batch in .* cannot be read"),
        (PY, lambda content: content + bytes(200_000), "expected a little over 30,720"),
        (PY, lambda content: bytes(31_000), "cannot be read"),
    ],
)  # fmt: skip
def test_files_of_the_wrong_size_or_content_are_named(layout, change, match, pack, tmp_path):
    contents = files_of(layout)
    last = layout.parts["test"][0]
    path = pack(tmp_path, layout, {**contents, last: change(contents[last])})
    with pytest.raises(DatasetError, match=match):
        load(path, "test")
    assert len(load(path, "train").images) == 45


PIXELS = data_of("cifar10", "test")[0].reshape(10, -1)
LABELS = list(range(10))


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        ([PIXELS], "holds a list, expected a dictionary"),
        ({"labels": LABELS, "more": b"x" * 31_000}, "has no data"),
        ({"data": b"x" * 31_000, "labels": LABELS}, "has no data"),
        ({"data": {"pixels": b"x" * 31_000}, "labels": LABELS}, "has no data"),
        ({"data": np.pad(PIXELS, ((0, 1), (0, 0))), "labels": LABELS}, r"data of shape \[11, 3072\]"),
        ({"data": PIXELS.astype(np.int16), "labels": LABELS}, "an array of 'i2'"),
        ({"data": PIXELS}, "no labels for its 10 images"),
        ({"data": PIXELS, "labels": LABELS[1:]}, "no labels for its 10 images"),
        ({"data": PIXELS, "labels": [True] * 10}, "no labels"),
        ({"data": PIXELS, "labels": [0.5] * 10}, "no labels"),
        ({"data": PIXELS, "labels": [2**70] * 10}, "more than 64 bits"),
        ({"data": PIXELS, "labels": [-1] + LABELS[1:]}, "labels from -1 to 9"),
    ],
)
def test_batches_that_hold_something_else_are_named(batch, match, tmp_path):
    folder = as_folder(tmp_path, PY, {**files_of(PY), "test_batch": pickle.dumps(batch, protocol=2)})
    with pytest.raises(DatasetError, match=match):
        load(folder)


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_a_hostile_batch_is_refused_by_the_name_of_what_it_would_run(tmp_path):
    import os
    import subprocess

    made = tmp_path / "made"
    calls = {
        r"posix\.mkdir|nt\.mkdir": Calls(os.mkdir, str(made)),
        r"builtins\.eval|__builtin__\.eval": Calls(eval, "1"),
        r"subprocess\.Popen|commands\.Popen": Calls(subprocess.Popen, ["mkdir", str(made)]),
        r"numpy\.(load|lib.*load)": Calls(np.load, str(made)),
        r"numpy\S*multiarray\.scalar": np.float64(1),
    }
    for protocol in (2, 4):
        for name, call in calls.items():
            content = pickle.dumps({"labels": call, "more": bytes(31_000)}, protocol=protocol)
            (tmp_path / PY.folder).mkdir(exist_ok=True)
            (tmp_path / PY.folder / "test_batch").write_bytes(content)
            with pytest.raises(DatasetError, match=rf"test_batch in .* is refused: it names ({name})"):
                load(tmp_path / PY.folder)
    assert not made.exists() and "numpy" in sys.modules


def test_a_batch_cannot_change_how_the_next_one_is_read(tmp_path):
    """BUILD writes into whatever lies on the stack; here the classes that stand in for NumPy's."""
    folder = as_folder(tmp_path, PY, files_of(PY))
    whole = (folder / "test_batch").read_bytes()
    for name in (b"numpy\nndarray", b"numpy\ndtype", b"_codecs\nencode", b"numpy.core.multiarray\n_reconstruct"):
        for state in (b"}U\x06pixelsK\x01s", b"N}U\x06pixelsK\x01s\x86"):
            (folder / "test_batch").write_bytes(b"\x80\x02c" + name + b"\n" + state + b"b." + bytes(31_000))
            with pytest.raises(DatasetError, match="test_batch"):
                load(folder)
    (folder / "test_batch").write_bytes(whole)
    assert np.array_equal(load(folder).images, data_of("cifar10", "test")[0])


def test_a_batch_damaged_anywhere_is_read_or_named_but_never_more(tmp_path):
    folder = as_folder(tmp_path, PY, files_of(PY))
    whole = (folder / "test_batch").read_bytes()
    generator = np.random.default_rng(0)
    # In front and behind the pixels, where the pickle's own structure is.
    around = [*range(300), *range(len(whole) - 300, len(whole))]
    refused = 0
    for _ in range(400):
        content = bytearray(whole)
        content[generator.choice(around)] = generator.integers(256)
        (folder / "test_batch").write_bytes(content)
        try:
            load(folder)
        except DatasetError:
            refused += 1
    assert refused > 50
    # A place far beyond the end of the file, for which the pickle module's own C code would fill the memory.
    (folder / "test_batch").write_bytes(b"\x80\x02K\x01r\xff\xff\xff\x7f." + bytes(31_000))
    with pytest.raises(DatasetError, match="holds a int"):
        load(folder)


def test_members_that_are_links_or_lie_elsewhere_are_not_read(tmp_path):
    contents = files_of(BIN)
    with tarfile.open(tmp_path / BIN.archive, "w:gz") as archive:
        link = tarfile.TarInfo(f"{BIN.folder}/test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        other = tarfile.TarInfo("other/test_batch.bin")
        other.size = len(contents["test_batch.bin"])
        archive.addfile(other, io.BytesIO(contents["test_batch.bin"]))
    with pytest.raises(DatasetError, match=r"lacks test_batch\.bin"):
        load(tmp_path / BIN.archive)
