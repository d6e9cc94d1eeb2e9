"""Evaluation sets come with the right images, labels and names, or say what is wrong."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bridge.datasets import FACTS, load, load_digits, load_folder
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
    assert set(FACTS) == {"digits", "cifar10", "cifar100"}
    for name, facts in FACTS.items():
        assert facts.name == name
        assert facts.classes == len(facts.class_names) == len(set(facts.class_names))
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
    with pytest.warns(UserWarning, match=r"1 of 4 files.*manifest\.json"):
        loaded = load(tmp_path / "out", image_size=32)
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


def test_unknown_set_names_the_nearest_and_cifar_says_how_to_give_it():
    with pytest.raises(DatasetError, match="Did you mean 'digits'"):
        load("digit")
    with pytest.raises(DatasetError, match=r"expected one of digits, cifar10, cifar100"):
        load("/nowhere/at/all.npz")
    for name in ("cifar10", "cifar100"):
        with pytest.raises(DatasetError, match=f"{name}.*folder.*npz"):
            load(name)


def test_a_path_called_like_a_set_is_the_path(tmp_path, monkeypatch, pets):
    pets.rename(tmp_path / "cifar10")
    monkeypatch.chdir(tmp_path)
    assert load("./cifar10", image_size=32).class_names == ["cat", "dog"]
    assert load(Path("cifar10"), image_size=32).class_names == ["cat", "dog"]
