"""Evaluation sets come with the right images, labels and names, or say what is wrong."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bridge import cifar
from bridge.datasets import FACTS, Labelled, load, load_digits, load_folder, splits_of
from bridge.datum.export import write_views
from bridge.errors import DatasetError


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def pets(tmp_path) -> Path:
    """Two classes, three images of exactly 32 px."""
    for seed, name in enumerate(["dog/a.png", "cat/b.png", "cat/a.png"]):
        save(tmp_path / "pets" / name, noise(32, 32, seed))
    return tmp_path / "pets"


def test_facts_are_consistent():
    photographs = {"in1k", "in100", "places365", "flowers102", "flowers101", "pets37", "stl10"}
    assert set(FACTS) == {"digits", "cifar10", "cifar100"} | photographs
    assert FACTS["flowers101"] is FACTS["flowers102"]
    for name, facts in FACTS.items():
        assert facts.name == name or name == "flowers101"
        if facts.class_names is None:
            assert facts.names is None
        else:
            assert facts.classes == len(facts.class_names) == len(set(facts.class_names)) and facts.names
        assert facts.channels == len(facts.mean) == len(facts.std) == 3
        assert all(0 < value < 1 for value in facts.mean + facts.std)
    assert list(FACTS["cifar100"].class_names) == sorted(FACTS["cifar100"].class_names)


def test_digits_splits_are_disjoint_and_complete_blocks_in_the_writers_order():
    from sklearn.datasets import load_digits as sklearn_digits

    parts = [load_digits(split, 8) for split in ("train", "validation", "test")]
    assert [len(part.images) for part in parts] == [1000, 297, 500] == list(FACTS["digits"].splits.values())
    original = sklearn_digits()
    images = np.concatenate([part.images for part in parts])
    assert np.array_equal(np.rint(images[..., 1] * (16 / 255)), original.images)
    assert np.array_equal(np.concatenate([part.labels for part in parts]), original.target)


def test_digits_fill_the_byte_range_at_network_size_and_match_their_facts():
    digits = load("digits", "train")
    assert digits.images.shape == (1000, 32, 32, 3) and digits.images.dtype == np.uint8
    assert digits.labels.dtype == np.int64 and digits.class_names == list("0123456789")
    assert digits.images.min() == 0 and digits.images.max() == 255
    assert (digits.images[..., :1] == digits.images).all()
    scaled = digits.images / 255
    assert np.allclose(scaled.mean((0, 1, 2)), FACTS["digits"].mean, atol=1e-4)
    assert np.allclose(scaled.std((0, 1, 2)), FACTS["digits"].std, atol=1e-4)


def test_digits_are_the_same_bits_everywhere():
    assert (
        hashlib.sha256(load_digits("test").images.tobytes()).hexdigest()
        == "fa0110673d55376cd4237e09323fadf9153fa2add847b0a7fada91d8a7d1bafb"
    )


def test_digits_default_to_the_test_split_and_take_other_sizes():
    assert load("digits").images.shape == (500, 32, 32, 3)
    assert load("digits", "validation", 16).images.shape == (297, 16, 16, 3)
    with pytest.raises(DatasetError, match="'val': expected one of train, validation, test"):
        load("digits", "val")
    with pytest.raises(DatasetError, match="'val'"):
        load_digits("val")


def test_class_folders_become_labels_in_sorted_order_and_exact_images_stay_untouched(pets):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load(pets, image_size=32)
    assert loaded.class_names == ["cat", "dog"] and loaded.labels.tolist() == [0, 0, 1]
    assert loaded.labels.dtype == np.int64 and loaded.name == "pets"
    assert np.array_equal(loaded.images, np.stack([noise(32, 32, 2), noise(32, 32, 1), noise(32, 32, 0)]))


def test_class_names_given_set_the_order_of_the_labels(pets):
    loaded = load_folder(pets, 32, class_names=["dog", "cat"])
    assert loaded.class_names == ["dog", "cat"] and loaded.labels.tolist() == [0, 1, 1]
    assert np.array_equal(loaded.images[0], noise(32, 32, 0))


def test_other_class_names_than_folders_are_named_both_ways(pets):
    with pytest.raises(DatasetError, match=r"without a folder: bird; folders without a class: cat\."):
        load_folder(pets, 32, class_names=["dog", "bird"])
    with pytest.raises(DatasetError, match="twice"):
        load_folder(pets, 32, class_names=["dog", "cat", "dog"])


def test_images_without_class_folders_have_no_labels(tmp_path):
    for seed in range(3):
        save(tmp_path / "photos" / f"{seed}.png", noise(32, 32, seed))
    loaded = load(str(tmp_path / "photos"), image_size=32)
    assert loaded.labels is None and loaded.class_names is None
    assert np.array_equal(loaded.images, np.stack([noise(32, 32, seed) for seed in range(3)]))


def test_written_views_have_no_labels_although_they_lie_in_numbered_folders(tmp_path):
    views = np.stack([noise(32, 32, seed) for seed in range(3)])
    write_views(lambda n: views[n], 3, tmp_path / "out", manifest={}, progress=False)
    loaded = load(tmp_path / "out", image_size=32)  # nor is manifest.json a damaged one
    assert loaded.labels is None and np.array_equal(loaded.images, views)


def test_images_are_resized_by_the_short_side_and_cropped_in_the_centre(tmp_path):
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 200
    save(tmp_path / "a" / "wide.png", wide)
    save(tmp_path / "a" / "tall.png", wide.transpose(1, 0, 2).copy())
    save(tmp_path / "a" / "crop.png", noise(32, 40))
    crop, tall, wide_loaded = load_folder(tmp_path, 32).images
    assert np.array_equal(crop, noise(32, 40)[:, 4:36])
    assert (wide_loaded[:, 1:-1] == 200).all() and (tall[1:-1] == 200).all()
    assert wide_loaded.shape == (32, 32, 3)


def test_shrinking_is_antialiased(tmp_path):
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    save(tmp_path / "a" / "stripes.png", stripes)
    assert np.abs(load_folder(tmp_path, 32).images.astype(int) - 127).max() < 10


def test_a_long_strip_does_not_fill_the_memory(tmp_path):
    save(tmp_path / "a" / "strip.png", np.full((1, 1_000_000, 3), 9, np.uint8))
    assert (load_folder(tmp_path, 64).images == 9).all()


def test_corrupt_images_are_named_and_skipped_without_shifting_labels(pets):
    (pets / "cat" / "a.png").write_bytes(b"broken")
    with pytest.warns(UserWarning, match=r"1 of 3 files.*cat/a\.png"):
        loaded = load_folder(pets, 32)
    assert loaded.labels.tolist() == [0, 1]
    assert np.array_equal(loaded.images, np.stack([noise(32, 32, 1), noise(32, 32, 0)]))


def test_files_beside_the_class_folders_are_named(pets):
    save(pets / "loose.png", noise(32, 32))
    with pytest.warns(UserWarning, match=r"loose\.png"):
        assert len(load_folder(pets, 32).images) == 3


def test_folder_with_split_folders_gives_the_split_asked_for(tmp_path):
    for split, seed in (("train", 1), ("val", 2)):
        for name in ("cat", "dog"):
            save(tmp_path / split / name / "a.png", noise(32, 32, seed))
    loaded = load(tmp_path, "validation", 32)
    assert loaded.class_names == ["cat", "dog"] and np.array_equal(loaded.images[0], noise(32, 32, 2))
    with pytest.raises(DatasetError, match="no split 'test': expected one of train, val"):
        load(tmp_path, "test", 32)


def test_folder_without_anything_usable_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"no usable image.*no files"):
        load(tmp_path, image_size=32)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(b"broken")
    with pytest.raises(DatasetError, match=r"no usable image.*cat/a\.png"):
        load(tmp_path, image_size=32)
    with pytest.raises(DatasetError, match="gone"):
        load_folder(tmp_path / "gone", 32)


def test_folder_needs_an_image_size(pets):
    with pytest.raises(DatasetError, match="say image_size"):
        load(pets)
    with pytest.raises(DatasetError, match="image_size is 0"):
        load(pets, image_size=0)


def test_npz_gives_what_it_holds(tmp_path):
    images = np.stack([noise(24, 24, seed) for seed in range(4)])
    np.savez(tmp_path / "set.npz", images=images, labels=np.array([1, 0, 2, 1], np.uint8), class_names=list("abc"))
    loaded = load(tmp_path / "set.npz")
    assert np.array_equal(loaded.images, images) and loaded.labels.dtype == np.int64
    assert loaded.labels.tolist() == [1, 0, 2, 1]
    assert loaded.class_names == ["a", "b", "c"] and loaded.name == "set"
    assert load(tmp_path / "set.npz", image_size=12).images.shape == (4, 12, 12, 3)


def test_npz_may_be_grey_and_without_labels(tmp_path):
    grey = noise(24, 24)[None, ..., 0]
    np.savez(tmp_path / "grey.npz", images=grey)
    loaded = load(tmp_path / "grey.npz")
    assert loaded.labels is None and np.array_equal(loaded.images, np.stack([grey] * 3, axis=-1))


IMAGES = np.zeros((4, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"x": IMAGES}, "holds x: expected images and labels"),
        ({"images": IMAGES / 255}, "float64.*multiplied by 255"),
        ({"images": IMAGES[..., :2]}, r"\[4, 8, 8, 2\]"),
        ({"images": IMAGES[:0]}, r"\[0, 8, 8, 3\]"),
        ({"images": IMAGES, "labels": np.zeros(3, int)}, r"\[3\]: expected integers of shape \[4\]"),
        ({"images": IMAGES, "labels": np.zeros(4)}, "float64"),
        ({"images": IMAGES, "labels": np.array([0, 1, -1, 0])}, "from -1 to 1: expected 0 or more"),
        ({"images": IMAGES, "labels": np.arange(4), "class_names": list("abc")}, "expected below 3"),
        ({"images": np.array([{}], dtype=object)}, "plain arrays"),
    ],
)
def test_wrong_npz_is_named(tmp_path, arrays, named):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(DatasetError, match=rf"set\.npz.*{named}|{named}"):
        load(tmp_path / "set.npz")


def test_damaged_npz_is_named(tmp_path):
    np.savez_compressed(tmp_path / "whole.npz", images=np.stack([noise(24, 24)] * 4))
    whole = (tmp_path / "whole.npz").read_bytes()
    np.save(tmp_path / "array.npy", IMAGES)
    bad = [b"", b"text", whole[: len(whole) // 2], whole[:200] + b"\xff" * 50 + whole[250:]]
    for content in [*bad, (tmp_path / "array.npy").read_bytes()]:
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(DatasetError, match=r"bad\.npz cannot be read"):
            load(tmp_path / "bad.npz")


def test_unknown_set_names_the_nearest_and_missing_cifar_says_how_to_give_it(tmp_path):
    with pytest.raises(DatasetError, match="Did you mean 'digits'"):
        load("digit")
    with pytest.raises(DatasetError, match=r"expected one of digits, cifar10, cifar100"):
        load("/nowhere/at/all.npz")
    for name in ("cifar10", "cifar100"):
        with pytest.raises(DatasetError, match=rf"{name} was not found: .*{name}\.npz.*tar\.gz.*--data-dir"):
            load(name, data_dir=tmp_path)


def parts(train: int = 50, test: int = 20, size: int = 32, classes: int = 10, **more) -> dict[str, np.ndarray]:
    """As Keras lays data out: image k shows k, labels stand in a column."""

    def some(count: int) -> np.ndarray:
        return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, size, size, 3)).copy()

    def labels(count: int) -> np.ndarray:
        return (np.arange(count) % classes)[:, None].astype(np.uint8)

    return {"x_train": some(train), "y_train": labels(train), "x_test": some(test), "y_test": labels(test), **more}


def test_npz_with_parts_gives_its_splits_the_last_tenth_for_validation(tmp_path):
    np.savez(tmp_path / "set.npz", **parts(size=8))
    found = {split: load(tmp_path / "set.npz", split) for split in ("train", "validation", "test")}
    assert [part.images[:, 0, 0, 0].tolist() for part in found.values()] == [
        [*range(45)], [*range(45, 50)], [*range(20)],
    ]  # fmt: skip
    assert [part.name for part in found.values()] == ["set/train", "set/validation", "set"]
    assert all((part.labels == part.images[:, 0, 0, 0] % 10).all() for part in found.values())
    assert all(part.labels.dtype == np.int64 and part.labels.ndim == 1 for part in found.values())
    assert found["test"].class_names is None
    np.savez(tmp_path / "grey.npz", **parts(size=8, x_test=np.zeros((20, 8, 8), np.uint8), class_names=[*"abcdefghij"]))
    grey = load(tmp_path / "grey.npz", image_size=4)
    assert grey.images.shape == (20, 4, 4, 3) and grey.class_names == [*"abcdefghij"]
    assert splits_of(tmp_path / "set.npz") == splits_of("cifar10") == ("train", "validation", "test")
    assert splits_of(tmp_path) == splits_of(tmp_path / "gone.npz") == ()


def test_named_sets_are_read_from_an_npz_and_other_counts_are_remarked_on(tmp_path, monkeypatch):
    monkeypatch.setenv("AIP_DATA", str(tmp_path))
    (tmp_path / "cifar10").mkdir()
    np.savez(tmp_path / "cifar10" / "cifar10.npz", **parts())
    np.savez(tmp_path / "cifar100.npz", **parts(classes=100, train=120))
    with pytest.warns(UserWarning, match=r"cifar10\.npz has 20 images in its test part, cifar10 has 10,000"):
        ten = load("cifar10")
    assert ten.class_names == list(FACTS["cifar10"].class_names) and ten.name == "cifar10"
    with pytest.warns(UserWarning, match="has 120 images in its train part"):
        hundred = load("cifar100", "validation", 16)
    assert hundred.images.shape == (12, 16, 16, 3) and hundred.labels.tolist() == [*range(8, 20)]
    monkeypatch.setattr(cifar, "SIZES", {"train": 50, "test": 20})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load("cifar10", "train").images) == 45


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"images": IMAGES, "labels": np.zeros(4, int)}, "holds images, labels: expected x_train, y_train"),
        ({"x_test": IMAGES}, "holds x_test: expected x_train, y_train, x_test and y_test"),
        (parts(size=28), r"is not cifar10: its images have shape \[28, 28, 3\]"),
        (parts(classes=20), r"labels from 0 to 19; expected \[32, 32, 3\] and labels from 0 to 9"),
        (parts(y_test=np.zeros((20, 2), int)), r"y_test in .* shape \[20, 2\]: expected integers of shape \[20\]"),
        (parts(x_test=np.zeros((20, 32, 32, 3))), "x_test in .* are float64.*multiplied by 255"),
    ],
)
def test_an_npz_of_another_set_is_not_taken_for_a_named_one(tmp_path, arrays, named):
    np.savez(tmp_path / "cifar10.npz", **arrays)
    with pytest.raises(DatasetError, match=named):
        load("cifar10", data_dir=tmp_path)


def test_a_backend_is_asked_for_what_is_in_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "SIZES", {"train": 50, "test": 20})
    asked = []

    def fetch(name: str, part: str) -> Labelled:
        asked.append((name, part))
        arrays = parts()
        return Labelled(arrays[f"x_{part}"], arrays[f"y_{part}"][:, 0].astype(np.int64), None, "fetched")

    def refuse(name: str, part: str) -> Labelled:
        raise DatasetError("The shelf is empty.")

    loaded = load("cifar10", "validation", data_dir=tmp_path, fetch=fetch)
    assert asked == [("cifar10", "train")] and loaded.images[:, 0, 0, 0].tolist() == [*range(45, 50)]
    assert loaded.class_names == list(FACTS["cifar10"].class_names) and loaded.name == "cifar10/validation"
    with pytest.raises(DatasetError, match=r"cifar100 was not found.*The shelf is empty\. .*--data-dir"):
        load("cifar100", data_dir=tmp_path, fetch=refuse)
    np.savez(tmp_path / "cifar10.npz", **parts())
    assert len(load("cifar10", data_dir=tmp_path, fetch=refuse).images) == 20
    with pytest.raises(DatasetError, match="is not cifar100"):
        load("cifar100", data_dir=tmp_path / "none", fetch=lambda name, part: Labelled(IMAGES, None, None, "fetched"))


def test_a_path_called_like_a_set_is_the_path(tmp_path, monkeypatch, pets):
    pets.rename(tmp_path / "cifar10")
    monkeypatch.chdir(tmp_path)
    assert load("./cifar10", image_size=32).class_names == ["cat", "dog"]
    assert load(Path("cifar10"), image_size=32).class_names == ["cat", "dog"]
