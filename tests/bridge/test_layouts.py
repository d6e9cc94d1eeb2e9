"""Named sets are found as their authors' archives unpack, or as folders of classes, and say what is missing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from bridge.datasets import FACTS, check_classes, load
from bridge.errors import DatasetError, TeacherError
from tests.bridge.test_pictures import needs_the_list_of_ids, picture

pytestmark = pytest.mark.filterwarnings("ignore:.*results are not those of")


def flowers(root: Path) -> Path:
    """Ten pictures, of class 3, 4, … 12; to train 2 and 3, for validation 1, to test 10, 4 and 5."""
    for number in range(1, 11):
        picture(root / "jpg" / f"image_{number:05d}.jpg", seed=number)
    savemat(root / "imagelabels.mat", {"labels": np.arange(4, 14, dtype=np.uint8)[None]})
    savemat(root / "setid.mat", {"trnid": [[2, 3]], "valid": [[1]], "tstid": [[10, 4, 5]]})
    return root


def pets(root: Path) -> Path:
    """Twenty pictures to train on, two to test."""
    (root / "annotations").mkdir(parents=True)
    lines = [f"Abyssinian_{k} {k % 37 + 1} 1 1" for k in range(22)]
    (root / "annotations" / "trainval.txt").write_text("\n".join(lines[:20]) + "\n")
    (root / "annotations" / "test.txt").write_text("\n".join(lines[20:]) + "\n")
    for k in range(22):
        picture(root / "images" / f"Abyssinian_{k}.jpg", seed=k)
    return root


def places(root: Path) -> Path:
    names = ["/a/airfield", "/a/apartment_building/outdoor", *(f"/x/{k:03d}" for k in range(363))]
    root.mkdir(parents=True)
    (root / "categories_places365.txt").write_text("".join(f"{name} {k}\n" for k, name in enumerate(names)))
    (root / "places365_val.txt").write_text("b.jpg 364\na.jpg 1\n")
    (root / "places365_train_standard.txt").write_text("".join(f"/a/airfield/{k}.jpg {k % 3}\n" for k in range(20)))
    for name in ("val_256/a.jpg", "val_256/b.jpg"):
        picture(root / name)
    for k in range(20):
        picture(root / "data_256_standard" / "a" / "airfield" / f"{k}.jpg", seed=k)
    return root


def stl10(root: Path, count: int = 4) -> np.ndarray:
    """The images as they should come back."""
    images = np.random.default_rng(0).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
    root.mkdir(parents=True)
    for part in ("train", "test"):
        images.transpose(0, 3, 2, 1).tofile(root / f"{part}_X.bin")
        (np.arange(count, dtype=np.uint8) % 10 + 1).tofile(root / f"{part}_y.bin")
    return images


def test_flowers_are_those_of_the_authors_lists(tmp_path):
    flowers(tmp_path / "flowers-102")
    found = {split: load("flowers102", split, 32, data_dir=tmp_path, lazy=True) for split in FACTS["flowers102"].splits}
    assert [part.labels.tolist() for part in found.values()] == [[4, 5], [3], [12, 6, 7]]
    assert found["test"].images.files[0].name == "image_00010.jpg" and found["test"].name == "flowers102"
    again = load("flowers101", "validation", data_dir=tmp_path / "flowers-102")
    assert again.images.shape == (1, 224, 224, 3) and again.name == "flowers102/validation"
    assert check_classes(again, 102) is again
    with pytest.raises(TeacherError, match="102 classes, the model answers with 1000"):
        check_classes(again, 1000)


def test_pets_are_held_out_evenly_where_the_authors_hold_out_none(tmp_path):
    pets(tmp_path / "oxford-iiit-pet")
    found = {split: load("pets37", split, 32, data_dir=tmp_path, lazy=True) for split in FACTS["pets37"].splits}
    assert [part.labels.tolist() for part in found.values()] == [
        [*range(9), *range(10, 19)], [9, 19], [20, 21],
    ]  # fmt: skip
    assert found["test"].class_names == list(FACTS["pets37"].class_names)
    for part in found.values():
        assert [int(file.stem.split("_")[1]) for file in part.images.files] == part.labels.tolist()


def test_places_are_tested_on_what_their_authors_call_validation(tmp_path):
    places(tmp_path / "places365")
    with pytest.warns(UserWarning, match=r"has 2 images in its test split, places365 has 36,500"):
        found = load("places365", data_dir=tmp_path, image_size=32)
    assert found.labels.tolist() == [364, 1] and found.class_names[1] == "apartment_building/outdoor"
    assert len(load("places365", "validation", 32, data_dir=tmp_path).labels) == 2
    (tmp_path / "places365" / "places365_val.txt").write_text("b.jpg\n")
    with pytest.raises(DatasetError, match=r"places365_val\.txt, line 1: expected a name and a number"):
        load("places365", data_dir=tmp_path)


def test_stl10_stays_untouched_at_its_own_size(tmp_path):
    images = stl10(tmp_path / "stl10_binary", 20)
    found = load("stl10", data_dir=tmp_path)
    assert np.array_equal(found.images, images) and found.labels.tolist() == [k % 10 for k in range(20)]
    assert np.array_equal(load("stl10", "validation", data_dir=tmp_path).images, images[[9, 19]])
    assert load("stl10", image_size=32, data_dir=tmp_path).images.shape == (20, 32, 32, 3)
    with open(tmp_path / "stl10_binary" / "test_X.bin", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(DatasetError, match=r"test_X\.bin has 1,000 bytes: expected 27,648 for each of the 20 labels"):
        load("stl10", data_dir=tmp_path)


def test_imagenet_is_a_folder_of_ids_of_which_some_may_be_missing(tmp_path):
    needs_the_list_of_ids()
    for part, count in (("val", 1), ("train", 20)):
        for name in ("n01440764", "n15075141"):
            for k in range(count):
                picture(tmp_path / "imagenet" / part / name / f"{k}.jpg", seed=k)
    with pytest.warns(UserWarning, match="2 of 1000 classes"):
        found = load("in1k", data_dir=tmp_path)
    assert found.images.shape == (2, 224, 224, 3) and found.labels.tolist() == [0, 999] and found.name == "in1k"
    with pytest.warns(UserWarning, match="2 of 1000 classes"):
        held_out = load("in1k", "validation", 32, data_dir=tmp_path / "imagenet")
    assert held_out.labels.tolist() == [0, 0, 999, 999]
    shutil.move(tmp_path / "imagenet", tmp_path / "in100")
    with pytest.raises(DatasetError, match="is not in100: it has 2 classes; expected 100 classes"):
        load("in100", data_dir=tmp_path)


def test_folders_without_pictures_are_refused(tmp_path):
    (tmp_path / "imagenet" / "val" / "n01440764").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"no usable image in .*val"):
        load("in1k", data_dir=tmp_path)


def test_a_hundred_classes_are_numbered_in_the_order_of_their_ids(tmp_path):
    ids = [f"n{k:08d}" for k in range(100)]
    for k, name in enumerate(ids[::-1]):
        picture(tmp_path / "in100" / "val" / name / "x.png", 8, 8, seed=k)
    found = load("in100", data_dir=tmp_path, lazy=True)
    assert found.class_names == ids and found.labels.tolist() == [*range(100)]


def test_any_set_may_lie_as_folders_of_classes(tmp_path):
    for name, split in (("a", "train"), ("b", "train"), ("b", "val"), ("a", "val"), ("a", "test"), ("b", "test")):
        for k in range(3):
            picture(tmp_path / "pets37" / split / f"{name}{k:02d}" / "x.png", seed=k)
    FACTS["pets37"], before = replace(FACTS["pets37"], classes=6), FACTS["pets37"]
    try:
        found = [load("pets37", split, 32, data_dir=tmp_path) for split in ("train", "validation", "test")]
    finally:
        FACTS["pets37"] = before
    assert all(part.class_names == ["a00", "a01", "a02", "b00", "b01", "b02"] for part in found)
    assert all(part.labels.tolist() == [*range(6)] for part in found)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("in1k", "imagenet.*val/n01440764"),
        ("in100", "imagenet100"),
        ("places365", r"places365_val\.txt"),
        ("flowers101", r"flowers-102.*imagelabels\.mat"),
        ("pets37", r"oxford-iiit-pet.*annotations/test\.txt"),
        ("stl10", r"stl10_binary.*test_X\.bin"),
    ],
)
def test_what_is_missing_says_what_to_put_where(tmp_path, name, wanted):
    with pytest.raises(DatasetError, match=rf"was not found.*{wanted}.*Nothing is downloaded.*--data-dir") as raised:
        load(name, data_dir=tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_damaged_lists_are_named(tmp_path):
    flowers(tmp_path / "flowers102")
    (tmp_path / "flowers102" / "setid.mat").write_bytes(b"broken")
    with pytest.raises(DatasetError, match=r"setid\.mat cannot be read"):
        load("flowers102", data_dir=tmp_path)
