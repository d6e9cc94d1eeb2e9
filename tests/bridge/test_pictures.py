"""Pictures in files are decoded as one array when asked for; what cannot be is named; ImageNet's ids are understood."""

from __future__ import annotations

import importlib.util
import io
import multiprocessing
import pickle
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bridge import batches, class_folders, wordnet
from bridge.batches import slices
from bridge.datasets import check_classes, joined, load, load_folder, readable_rows, thinned
from bridge.datum.sources import read_image
from bridge.errors import DatasetError, TeacherError
from bridge.facts import Labelled
from bridge.pictures import Pictures, fitted

SIZES = [(40, 30), (30, 40), (32, 32), (200, 20), (31, 33), (64, 64), (120, 90), (33, 32), (50, 51), (97, 96)]


def picture(path: Path, width: int = 40, height: int = 30, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def files(tmp_path) -> list[Path]:
    return [picture(tmp_path / "set" / f"{k}.png", *size, seed=k) for k, size in enumerate(SIZES)]


def decoded(files: list[Path], size: int = 32) -> np.ndarray:
    return np.stack([fitted(read_image(file), size) for file in files])


def until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_any_index_gives_what_the_whole_array_would(files):
    pictures, whole = Pictures(files, 32), decoded(files)
    assert pictures.shape == whole.shape and pictures.dtype == whole.dtype and len(pictures) == len(whole)
    assert pictures.nbytes == whole.nbytes and pictures.ndim == whole.ndim
    for key in (
        slice(0, 4), slice(4, 8), slice(8, 12), slice(2, 5), slice(0, 4), slice(None), slice(-3, None), slice(5, 2),
        slice(0, 9, 2), slice(None, None, -1), [3, 1, 1], np.array([0, 9]), np.arange(10) % 2 == 0, np.zeros(0, int), 7,
        -1,
    ):  # fmt: skip
        assert np.array_equal(pictures[key], whole[key]), key
    assert np.array_equal(np.asarray(pictures), whole)
    with pytest.raises(IndexError):
        pictures[10]
    assert pictures.unreadable == []


def test_what_is_taken_stays_undecoded(files):
    whole, rows = decoded(files), np.array([7, 2, 4])
    taken = Pictures(files, 32).take(rows)
    assert isinstance(taken, Pictures) and np.array_equal(taken[:], whole[rows])


def test_the_next_slice_is_decoded_ahead_and_not_the_one_after(files):
    for k in (5, 9):
        files[k].write_bytes(b"broken")
    pictures = Pictures(files, 32)
    pictures[0:4]
    until(lambda: pictures.unreadable == [5])
    time.sleep(0.05)
    assert pictures.unreadable == [5]


def test_pictures_travel_to_other_processes_whether_forked_or_pickled(files):
    pictures, whole = Pictures(files, 32), decoded(files)
    pictures[0:2]
    assert np.array_equal(pickle.loads(pickle.dumps(pictures))[2:4], whole[2:4])
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    child = context.Process(target=lambda: answer.put(pictures[2:4]))
    child.start()
    child.join(20)
    assert child.exitcode == 0 and np.array_equal(answer.get(), whole[2:4])


def test_reading_in_threads_leaves_the_filters_of_warnings_alone(files):
    before = list(warnings.filters)
    Pictures(files * 10, 32)[:]
    assert warnings.filters == before


def test_unusual_kinds_come_out_as_they_do_alone(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (150, 120, 4), dtype=np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    (tmp_path / "a").mkdir()
    Image.fromarray(noise[..., 0]).save(tmp_path / "a" / "grey.png")
    Image.fromarray(noise).save(tmp_path / "a" / "rgba.png")
    Image.fromarray(noise, "CMYK").save(tmp_path / "a" / "cmyk.jpg")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(tmp_path / "a" / "sixteen.png")
    Image.fromarray(noise[..., :3]).save(tmp_path / "a" / "turned.jpg", exif=turned)
    paths = sorted((tmp_path / "a").iterdir())
    for lazy in (False, True):
        assert np.array_equal(load_folder(tmp_path, 112, lazy=lazy).images[:], decoded(paths, 112))


# -- sets of pictures -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    for k in range(12):
        picture(tmp_path / "set" / "abc"[k % 3] / f"{k}.png", seed=k)
    return tmp_path / "set"


def test_what_is_decoded_while_it_is_used_is_what_is_decoded_at_once(folder, monkeypatch):
    at_once = load(folder, image_size=32)
    assert isinstance(at_once.images, np.ndarray)
    monkeypatch.setattr(class_folders, "LAZY_BYTES", at_once.images.nbytes - 1)
    later = load(folder, image_size=32)
    assert isinstance(later.images, Pictures) and isinstance(load(folder, image_size=32, lazy=False).images, np.ndarray)
    assert np.array_equal(later.images[:], at_once.images) and np.array_equal(later.labels, at_once.labels)
    assert later.class_names == at_once.class_names and later.name == at_once.name
    few = thinned(later, 5)
    assert isinstance(few.images, Pictures) and np.array_equal(few.images[:], thinned(at_once, 5).images)
    both = joined([later, few])
    assert isinstance(both.images, Pictures) and both.labels.tolist() == [*later.labels, *few.labels]
    assert np.array_equal(joined([at_once, few]).images, both.images[:])


def test_unreadable_rows_are_dropped_and_named_once_all_have_been_asked_for(folder):
    jpeg = io.BytesIO()
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(jpeg, "JPEG")
    (folder / "b" / "4.png").write_bytes(jpeg.getvalue()[:-100])
    (folder / "c" / "notes.txt").write_text("no picture")
    data = load(folder, image_size=32, lazy=True)
    data.images[:]
    with pytest.warns(UserWarning, match=r"skipped 2 of 13 files, no usable images: b/4\.png, c/notes\.txt"):
        rows = readable_rows(data)
    with pytest.warns(UserWarning, match=r"skipped 2 of 13 files"):
        at_once = load(folder, image_size=32)
    assert np.array_equal(data.images[rows], at_once.images) and np.array_equal(data.labels[rows], at_once.labels)
    assert (data.images[6] == 0).all() and data.images.unreadable == [6, 12]


def test_a_set_without_any_usable_picture_is_refused(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(b"broken")
    data = load(tmp_path, image_size=32, lazy=True)
    data.images[:]
    with pytest.raises(DatasetError, match=r"no usable image in .*a/x\.jpg"):
        readable_rows(data)
    for lazy in (True, False):
        with pytest.raises(DatasetError, match="no files"):
            load_folder(_empty(tmp_path / "empty"), 32, lazy=lazy)


def _empty(path: Path) -> Path:
    (path / "a").mkdir(parents=True, exist_ok=True)
    return path


def test_slices_cover_all_rows_in_order():
    assert [(s.start, s.stop) for s in slices(10, 4)] == [(0, 4), (4, 8), (8, 10)]
    assert list(slices(0, 4)) == []


@pytest.mark.parametrize(("terminal", "patience", "shown"), [(True, 0, True), (False, 0, False), (True, 60, False)])
def test_what_takes_long_shows_how_far_it_is_on_a_terminal(monkeypatch, terminal, patience, shown):
    class Screen(io.StringIO):
        def isatty(self):
            return terminal

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(batches, "_PATIENCE", patience)
    for _ in slices(1234, 100):
        time.sleep(0.002)
    assert ("measuring" in screen.getvalue() and "1234/1234" in screen.getvalue()) is shown


# -- ImageNet's ids ---------------------------------------------------------------------------------------------------


def needs_the_list_of_ids() -> None:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm, which has the list of ImageNet's ids, is not installed")


ENGLISH = ["crane"] * 1000  # some classes of ImageNet have the same name


@pytest.fixture
def three_of_a_thousand(tmp_path) -> Path:
    needs_the_list_of_ids()
    for k, name in enumerate(["n01443537", "n01440764", "n15075141"]):
        picture(tmp_path / "val" / name / "x.png", 32, 32, seed=k)
    return tmp_path / "val"


def test_some_of_the_thousand_folders_get_the_numbers_of_the_network(three_of_a_thousand):
    with pytest.warns(UserWarning, match="3 of 1000 classes"):
        loaded = load(three_of_a_thousand, image_size=32, class_names=ENGLISH)
    assert loaded.labels.tolist() == [0, 1, 999] and loaded.class_names[999] == "n15075141"
    assert np.array_equal(loaded.images[0], read_image(three_of_a_thousand / "n01440764" / "x.png"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_classes(loaded, 1000, ENGLISH) is loaded
    with pytest.warns(UserWarning, match="3 of 1000 classes"):
        assert load(three_of_a_thousand, image_size=32, class_names=loaded.class_names).labels.tolist() == [0, 1, 999]


def test_a_network_that_names_no_classes_gets_them_too(three_of_a_thousand):
    loaded = load(three_of_a_thousand, image_size=32)
    assert loaded.labels.tolist() == [0, 1, 2]
    with pytest.warns(UserWarning, match="3 of 1000 classes"):
        mapped = check_classes(loaded, 1000)
    assert mapped.labels.tolist() == [0, 1, 999] and mapped.images is loaded.images
    assert check_classes(loaded, 3) is loaded
    with pytest.raises(TeacherError, match=r"3 classes, the model answers with 10\b"):
        check_classes(loaded, 10)


def test_ids_that_are_none_of_imagenets_are_named(three_of_a_thousand):
    picture(three_of_a_thousand / "n00000001" / "x.png")
    with pytest.raises(DatasetError, match="n00000001, no classes of ImageNet-1k"):
        load(three_of_a_thousand, image_size=32, class_names=ENGLISH)
    with pytest.raises(DatasetError, match="n00000001"):
        check_classes(load(three_of_a_thousand, image_size=32), 1000)


def test_without_timm_all_thousand_must_be_there(three_of_a_thousand, monkeypatch):
    monkeypatch.setattr(wordnet, "_of_timm", lambda name: None)
    wordnet._lemmas.cache_clear()
    with pytest.raises(DatasetError, match="pip install timm"):
        load(three_of_a_thousand, image_size=32, class_names=ENGLISH)
    ids = [f"n{k:08d}" for k in range(1000)]
    data = Labelled(np.zeros((1000, 2, 2, 3), np.uint8), np.arange(1000), ids, "all")
    assert check_classes(data, 1000, ENGLISH) is data
    assert wordnet.class_numbers(ids, "all") == {name: k for k, name in enumerate(ids)}
    assert wordnet.readable(["n01440764"]) == ["n01440764"]
    wordnet._lemmas.cache_clear()


def test_names_in_english_are_compared_by_name_and_folders_of_a_smaller_network_too(three_of_a_thousand):
    assert wordnet.readable(["n01440764", "dog"]) == ["tench", "dog"]
    folders = ["n01440764", "n01443537", "n15075141"]
    assert load(three_of_a_thousand, image_size=32, class_names=folders[::-1]).labels.tolist() == [0, 1, 2]
    with pytest.raises(DatasetError, match="folders without a class"):
        load(three_of_a_thousand, image_size=32, class_names=["tench", "goldfish", "tissue"])
    data = Labelled(np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1, int), [f"c{k}" for k in range(1000)], "named")
    with pytest.raises(TeacherError, match="Class 0 is 'c0' in named and 'crane' for the model"):
        check_classes(data, 1000, ENGLISH)


def test_the_real_pictures_get_their_numbers(data_folder, tmp_path):
    needs_the_list_of_ids()
    archives = list((data_folder / "imagenet").glob("*.zip"))
    if not archives:
        pytest.skip("the pictures are not there")
    with zipfile.ZipFile(archives[0]) as archive:
        for name in archive.namelist():
            (tmp_path / "val" / name[5:14]).mkdir(parents=True)
            (tmp_path / "val" / name[5:14] / name).write_bytes(archive.read(name))
    with pytest.warns(UserWarning, match="400 of 1000 classes"):
        loaded = load(tmp_path / "val", image_size=224, class_names=ENGLISH, lazy=True)
    assert [int(file.name[:4]) for file in loaded.images.files] == loaded.labels.tolist()
    assert len(loaded.labels) == 400
