"""Training batches: every image once per epoch, augmented reproducibly, with cutout the same on every Keras.

And CIFAR out of TensorFlow Datasets, without a network.
"""

from __future__ import annotations

import builtins
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bridge import cifar
from bridge.datasets import FACTS, Labelled
from bridge.datum.counter import shuffled_index, uniforms
from bridge.errors import DatasetError
from keras_aip import compat
from keras_aip.datasets import batches, from_tfds, load, training_batches


def numbered(count: int, size: int = 8) -> Labelled:
    """Image k shows k + 1 in every pixel of red, its columns in green, its rows in blue; its label is k."""
    images = np.zeros((count, size, size, 3), np.uint8)
    images[..., 0] = np.arange(1, count + 1)[:, None, None]
    images[..., 1] = 10 + np.arange(size)
    images[..., 2] = 10 + np.arange(size)[:, None]
    return Labelled(images, np.arange(count), None, "numbered")


def drawn(labelled: Labelled, batch_size: int, steps: int, **options) -> tuple[np.ndarray, np.ndarray]:
    """All images, back in 0..255, and labels of so many steps."""
    taken = list(training_batches(labelled, batch_size, **options).take(steps).as_numpy_iterator())
    assert all(images.shape[0] == labels.shape[0] == batch_size for images, labels in taken)
    images, labels = (np.concatenate(part) for part in zip(*taken))
    return np.rint(images * 255).astype(int), labels


PLAIN = {"pad": 0, "flip": False, "cutout": 0}


def test_batches_come_in_order_and_none_is_left_out():
    images = numbered(5).images
    parts = list(batches(images, 2))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert all(part.dtype == np.float32 for part in parts)
    assert np.array_equal(np.concatenate(parts), images.astype(np.float32) / 255)


def test_training_batches_are_float32_in_the_unit_range_with_their_own_labels():
    data = training_batches(numbered(10), 4, **PLAIN)
    images, labels = data.element_spec
    assert images.dtype == tf.float32 and images.shape == (4, 8, 8, 3)
    assert labels.dtype == tf.int64 and labels.shape == (4,)
    images, labels = drawn(numbered(10), 4, 5, **PLAIN)
    assert np.array_equal(images, numbered(10).images[labels])
    first, _ = next(iter(data))
    assert float(tf.reduce_min(first)) >= 0 and float(tf.reduce_max(first)) <= 1


@pytest.mark.parametrize("batch_size", [4, 10, 25])
def test_every_image_comes_once_per_epoch_in_another_order_over_all_borders(batch_size):
    _, labels = drawn(numbered(10), batch_size, 100 // batch_size, **PLAIN)
    epochs = labels.reshape(10, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len(np.unique(epochs, axis=0)) == 10
    assert not (epochs == np.arange(10)).all(axis=1).any()


def test_the_seed_gives_the_stream_and_batches_do_not_depend_on_being_drawn_in_one_go():
    again = [drawn(numbered(10), 4, 6, seed=seed) for seed in (3, 3, 4)]
    assert np.array_equal(again[0][0], again[1][0]) and np.array_equal(again[0][1], again[1][1])
    assert not np.array_equal(again[0][1], again[2][1])
    # A sample's augmentation follows from its number: another batch size cuts the same stream elsewhere.
    other = drawn(numbered(10), 6, 4, seed=3)
    assert np.array_equal(again[0][0], other[0]) and np.array_equal(again[0][1], other[1])


def test_half_of_the_images_are_mirrored_and_none_where_it_is_off():
    options = {"pad": 0, "cutout": 0}
    images, labels = drawn(numbered(10), 50, 20, **options)
    originals = numbered(10).images[labels]
    upright = (images == originals).all(axis=(1, 2, 3))
    mirrored = (images == originals[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (upright ^ mirrored).all()
    assert mirrored.mean() == pytest.approx(0.5, abs=0.06)
    images, labels = drawn(numbered(10), 50, 2, flip=False, **options)
    assert np.array_equal(images, numbered(10).images[labels])


def test_padding_shifts_by_up_to_its_width_each_way_and_fills_with_black():
    """Where a view begins is read off its own pixels, which tell their row and column."""
    images, labels = drawn(numbered(10), 50, 40, pad=2, flip=False, cutout=0)
    shifts = set()
    for image, label in zip(images, labels):
        inside = image[..., 0] > 0
        y, x = np.argwhere(inside)[0]
        down, right = y - (image[y, x, 2] - 10), x - (image[y, x, 1] - 10)
        expected = np.zeros_like(image)
        source = numbered(10).images[label]
        for row, column in itertools.product(range(8), repeat=2):
            if 0 <= row - down < 8 and 0 <= column - right < 8:
                expected[row, column] = source[row - down, column - right]
        assert np.array_equal(image, expected)
        shifts.add((down, right))
    assert shifts == set(itertools.product(range(-2, 3), repeat=2))


def by_hand(images: np.ndarray, side: int, centre: np.ndarray) -> np.ndarray:
    """Cutout in NumPy: from side / 2 before the centre to side / 2 after it, as far as there is an image."""
    out = images.copy()
    for image, (row, column) in zip(out, centre):
        top, left = max(row - side // 2, 0), max(column - side // 2, 0)
        image[top : max(row + side // 2, 0), left : max(column + side // 2, 0)] = 0
    return out


@pytest.fixture(params=["ours", "addons"])
def cutout(request, monkeypatch) -> Callable:
    if request.param == "addons" and not compat.HAS_ADDONS:
        pytest.skip("TensorFlow Addons does not run on Keras 3")
    monkeypatch.setattr(compat, "HAS_ADDONS", request.param == "addons")
    return compat.cutout


@pytest.mark.parametrize("side", [2, 4, 6])
def test_cutout_blackens_a_square_of_its_side_around_the_centre(cutout, side):
    images = np.random.default_rng(0).uniform(0.1, 1, (80, 8, 10, 3)).astype(np.float32)
    centre = np.array(list(itertools.product(range(8), range(10))), np.int32)
    blackened = tf.function(cutout)(tf.constant(images), side, tf.constant(centre)).numpy()
    assert blackened.dtype == np.float32
    assert np.array_equal(blackened, by_hand(images, side, centre))
    middle = (blackened[4 * 10 + 5] == 0).all(axis=-1)
    assert middle.sum() == side**2


def test_training_batches_have_a_square_cut_out_anywhere(cutout):
    images, labels = drawn(numbered(10), 50, 10, pad=0, flip=False, cutout=4)
    originals, black = numbered(10).images[labels], (images == 0).all(axis=-1)
    assert np.array_equal(images, np.where(black[..., None], 0, originals))
    corners = set()
    for hole in black:
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        assert np.array_equal(hole, hole.any(axis=1)[:, None] & hole.any(axis=0))
        assert 2 <= len(rows) <= 4 and 2 <= len(columns) <= 4
        assert np.ptp(rows) == len(rows) - 1 and np.ptp(columns) == len(columns) - 1
        corners.add((rows[0], columns[0], len(rows), len(columns)))
    assert len(corners) == 64  # every pixel of 8 × 8 is the centre of some hole


def test_two_samples_of_one_batch_are_not_augmented_alike():
    labelled = numbered(1)  # the same image over and over
    images, _ = drawn(labelled, 16, 1, pad=2, cutout=2)
    assert len(np.unique(images, axis=0)) > 12


@pytest.mark.parametrize(("height", "width", "pad", "flip"), [(8, 8, 2, True), (6, 10, 4, True), (8, 8, 0, False)])
def test_batches_are_those_of_a_plain_loop_over_the_images(height, width, pad, flip):
    images = np.random.default_rng(0).integers(0, 256, (30, height, width, 3), dtype=np.uint8)
    found, labels = drawn(Labelled(images, np.arange(30), None, "noise"), 16, 4, pad=pad, flip=flip, cutout=0, seed=5)
    n = np.arange(64)
    u = uniforms(5, "teacher_training", n, 5)
    for row, index in enumerate(shuffled_index(5, n, 30)):
        top, left = (int(u[k, row] * (2 * pad + 1)) for k in (1, 2))
        image = np.pad(images[index], ((pad, pad), (pad, pad), (0, 0)))[top : top + height, left : left + width]
        image = image[:, ::-1] if flip and u[0, row] < 0.5 else image
        assert labels[row] == index and np.array_equal(found[row], image)


def prepare(folder: Path, name: str, counts: dict[str, int]) -> Path:
    """Write a data set as TensorFlow Datasets keeps it: records in shuffled order; image k shows k, its label is k."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(num_classes=FACTS[name].classes),
        }
    )
    place = folder / name / "3.0.2"
    place.mkdir(parents=True)
    splits = []
    for split, count in counts.items():
        with tf.io.TFRecordWriter(str(place / f"{name}-{split}.tfrecord-00000-of-00001")) as writer:
            for k in np.random.default_rng(0).permutation(count):
                image = np.full((32, 32, 3), k, np.uint8)
                writer.write(
                    features.serialize_example({"id": f"{split}_{k:05d}", "image": image, "label": int(k) % 10})
                )
        template = tfds.core.ShardedFileTemplate(
            dataset_name=name, data_dir=str(place), split=split, filetype_suffix="tfrecord"
        )
        splits.append(tfds.core.SplitInfo(name=split, shard_lengths=[count], num_bytes=0, filename_template=template))
    tfds.folder_dataset.write_metadata(data_dir=str(place), features=features, split_infos=splits, check_data=False)
    return place


@pytest.fixture
def tfds_folder(tmp_path, monkeypatch, no_network) -> Path:
    """Where TensorFlow Datasets keeps a small CIFAR-10, and nothing else is."""
    monkeypatch.setattr(cifar, "SIZES", {"train": 30, "test": 10})
    monkeypatch.setenv("AIP_DATA", str(tmp_path / "ours"))
    prepare(tmp_path / "tfds", "cifar10", {"train": 30, "test": 10})
    return tmp_path / "tfds"


def test_prepared_data_come_in_the_order_of_the_authors_files(tfds_folder):
    found = {split: load("cifar10", split) for split in ("train", "validation", "test")}
    assert [part.images[:, 0, 0, 0].tolist() for part in found.values()] == [[*range(27)], [27, 28, 29], [*range(10)]]
    assert all(np.array_equal(part.labels, part.images[:, 5, 5, 1] % 10) for part in found.values())
    assert found["train"].images.dtype == np.uint8 and found["train"].labels.dtype == np.int64
    assert found["test"].class_names == list(FACTS["cifar10"].class_names)
    assert [part.name for part in found.values()] == ["cifar10/train", "cifar10/validation", "cifar10"]


def test_prepared_data_are_found_in_our_data_folder_too(tfds_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "empty"))
    assert len(load("cifar10", data_dir=str(tfds_folder)).images) == 10
    # Files of the authors come first.
    arrays = {
        f"{key}_{part}": np.zeros((9, 32, 32, 3)[: 4 if key == "x" else 1], np.uint8)
        for key in "xy"
        for part in ("train", "test")
    }
    np.savez(tfds_folder / "cifar10" / "cifar10.npz", **arrays)
    with pytest.warns(UserWarning, match="9 images"):
        assert len(load("cifar10", data_dir=str(tfds_folder)).images) == 9


def test_without_prepared_data_and_network_there_is_one_message_at_once(tfds_folder):
    with pytest.raises(DatasetError) as raised:
        load("cifar100")
    for words in (
        "cifar100 was not found: looked in",
        "www.cs.toronto.edu cannot be reached",
        "Put one of these there",
    ):
        assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_damaged_records_and_a_missing_package_are_named(tfds_folder, monkeypatch):
    record = next((tfds_folder / "cifar10" / "3.0.2").glob("*test.tfrecord*"))
    record.write_bytes(record.read_bytes()[:-100])
    with pytest.raises(DatasetError, match="TensorFlow Datasets could not give it: DataLossError: "):
        load("cifar10")
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "tensorflow_datasets":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "tensorflow_datasets", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DatasetError, match=r"does not run here.*pip install tensorflow_datasets"):
        from_tfds("cifar10", "test")
