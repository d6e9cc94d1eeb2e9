"""Pictures reach a network as torchvision would bring them there, by file lists that are torchvision's too."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bridge.batches import crop_box, crop_draws, padded_crops, resized_crop
from bridge.datasets import load_folder
from bridge.errors import DatasetError
from bridge.facts import Labelled
from bridge.pictures import Pictures, fitted
from tests.bridge.test_layouts import flowers, pets, places, stl10
from tests.bridge.test_pictures import picture
from tests.torch_aip.helpers import Foreign, randomised
from torch_aip import Teacher, compat, evaluate
from torch_aip.datasets import batches, load, training_batches

pytestmark = pytest.mark.filterwarnings("ignore:torchvision was built", "ignore:.*results are not those of")


def torchvision():
    return compat.torchvision()


SIZES = [
    (500, 375), (375, 500), (640, 427), (256, 256), (256, 300), (300, 256), (224, 224), (224, 300), (255, 257),
    (17, 23), (1, 1), (3000, 200), (1025, 769), (223, 1000),
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_preprocessing_is_torchvisions_to_the_pixel(size):
    transforms = torchvision().transforms
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    if size == (224, 224):  # images of just that size stay untouched, by our own rule
        assert np.array_equal(fitted(noise, 224), noise)
        return
    for side, resized in ((224, 256), (96, 110), (160, 183)):
        theirs = transforms.Compose([transforms.Resize(resized), transforms.CenterCrop(side)])(Image.fromarray(noise))
        assert np.array_equal(fitted(noise, side), np.asarray(theirs)), side


def test_endless_strips_lose_their_ends_first():
    assert fitted(np.full((1, 100_000, 3), 7, np.uint8), 224).tolist() == np.full((224, 224, 3), 7).tolist()


def test_crops_are_distributed_as_torchvisions():
    crop = torchvision().transforms.RandomResizedCrop
    torch.manual_seed(0)
    drawn = crop_draws(np.arange(1500), seed=0)
    for height, width in ((300, 400), (100, 700), (900, 100)):
        ours = np.array([crop_box(u, height, width) for u in drawn], float)
        image = torch.empty(3, height, width)
        tops, lefts, heights, widths = np.array(
            [crop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(1500)], float
        ).T
        theirs = np.stack([lefts, tops, lefts + widths, tops + heights], axis=1)
        assert (ours[:, :2] >= 0).all() and (ours[:, 2:] <= [width, height]).all()
        for a, b, scale in zip(ours.T, theirs.T, (width, height) * 2):
            assert abs(a.mean() - b.mean()) < 0.035 * scale and abs(a.std() - b.std()) < 0.035 * scale


def test_a_crop_is_cut_resized_and_mirrored_as_torchvision_does():
    functional = torchvision().transforms.functional
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    mirrored = 0
    for u in crop_draws(np.arange(20), seed=1):
        left, top, right, bottom = crop_box(u, 90, 120)
        theirs = functional.resized_crop(Image.fromarray(noise), top, left, bottom - top, right - left, [64, 64])
        theirs = functional.hflip(theirs) if u[0] < 0.5 else theirs
        assert np.array_equal(resized_crop(noise, 64, u), np.asarray(theirs))
        mirrored += u[0] < 0.5
    assert 4 < mirrored < 16


def test_files_and_labels_are_those_of_torchvisions_classes(tmp_path, monkeypatch):
    theirs = torchvision().datasets
    for name in ("Flowers102", "STL10", "Places365"):  # these would compare checksums of the real files
        monkeypatch.setattr(getattr(theirs, name), "_check_integrity", lambda *arguments: True)
    flowers(tmp_path / "flowers-102")
    pets(tmp_path / "oxford-iiit-pet")
    places(tmp_path / "places365")
    stl10(tmp_path / "stl10_binary")
    flower, pet = theirs.Flowers102(tmp_path, "test"), theirs.OxfordIIITPet(tmp_path, "test")
    place, stl = theirs.Places365(str(tmp_path / "places365"), "val", small=True), theirs.STL10(str(tmp_path), "test")
    ours = {name: load(name, data_dir=tmp_path, lazy=True) for name in ("flowers102", "pets37", "places365", "stl10")}
    assert ours["flowers102"].images.files == flower._image_files
    assert ours["flowers102"].labels.tolist() == flower._labels
    assert ours["pets37"].images.files == pet._images and ours["pets37"].labels.tolist() == pet._labels
    assert [str(file) for file in ours["places365"].images.files] == [file for file, _ in place.imgs]
    assert ours["places365"].labels.tolist() == place.targets
    assert np.array_equal(ours["stl10"].images, stl.data.transpose(0, 2, 3, 1))
    assert ours["stl10"].labels.tolist() == stl.labels.tolist()


# -- measuring --------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    for k in range(13):
        picture(tmp_path / "set" / "abc"[k % 3] / f"{k:02d}.png", seed=k)
    return tmp_path / "set"


def test_unreadable_pictures_are_left_out_of_every_figure(folder):
    model, teacher = randomised(Foreign(), 1), Teacher(randomised(Foreign(), 2))
    (folder / "b" / "04.png").write_bytes(b"\x89PNG broken")
    with pytest.warns(UserWarning, match=r"skipped 1 of 13 files, no usable images: b/04\.png"):
        at_once = load_folder(folder, 32)
    with pytest.warns(UserWarning, match=r"skipped 1 of 13 files, no usable images: b/04\.png"):
        measured = evaluate(model, load_folder(folder, 32, lazy=True), teacher=teacher, batch_size=4)
    expected = evaluate(model, at_once, teacher=teacher, batch_size=4)
    assert measured["n"] == 12
    assert measured == pytest.approx(expected)


def test_batches_are_floats_in_order_with_channels_last_in_memory(folder):
    data = load_folder(folder, 32, lazy=True)
    parts = list(batches(data.images, 5))
    assert [len(part) for part in parts] == [5, 5, 3]
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in parts)
    whole = torch.from_numpy(data.images[:]).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(torch.cat(parts), whole)


# -- training ---------------------------------------------------------------------------------------------------------


def coloured(folder: Path, count: int = 10) -> Labelled:
    """Picture k shows 20 k in every pixel; its label is k."""
    for k in range(count):
        (folder / f"{k}").mkdir(parents=True)
        Image.fromarray(np.full((40 + k, 60, 3), 20 * k, np.uint8)).save(folder / f"{k}" / "x.png")
    return load_folder(folder, 16, lazy=True)


def taken(data: Labelled, steps: int, batch_size: int = 4, **options) -> tuple[torch.Tensor, torch.Tensor]:
    stream = training_batches(data, batch_size, **options)
    parts = list(itertools.islice(stream, steps))
    stream.close()
    images, labels = (torch.cat(part) for part in zip(*parts))
    return images, labels


def test_images_in_memory_get_padded_crops_and_cutouts():
    random = np.random.default_rng(0)
    data = Labelled(random.integers(1, 256, (10, 12, 12, 3), dtype=np.uint8), np.arange(10), None, "noise")
    images, labels = taken(data, 5, seed=3, cutout=6, pad=2)
    crops, picked, centre = padded_crops(data.images, np.arange(20), pad=2, flip=True, seed=3)
    for crop, (row, column) in zip(crops, centre):
        crop[max(row - 3, 0) : row + 3, max(column - 3, 0) : column + 3] = 0
    assert images.is_contiguous(memory_format=torch.channels_last) and labels.dtype == torch.int64
    assert torch.equal(images, torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255)
    assert labels.tolist() == picked.tolist()
    assert sorted(labels[:10].tolist()) == sorted(labels[10:].tolist()) == [*range(10)]


def test_pictures_are_cropped_with_their_own_labels_and_the_seed_gives_the_stream(tmp_path):
    data = coloured(tmp_path)
    images, labels = taken(data, 5)
    assert images.shape == (20, 3, 16, 16) and images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, (labels * 20 / 255)[:, None, None, None].expand_as(images).float())
    assert sorted(labels[:10].tolist()) == [*range(10)]
    noise = Labelled(Pictures([picture(tmp_path / "p.png")], 16), np.zeros(1, int), None, "one")
    again = [taken(noise, 4, seed=seed)[0] for seed in (1, 1, 2)]
    assert torch.equal(again[0], again[1]) and not torch.equal(again[0], again[2])
    assert torch.equal(again[0], taken(noise, 2, 8, seed=1)[0])
    assert len(torch.unique(again[0], dim=0)) == 16


def test_a_picture_that_cannot_be_decoded_is_named_and_replaced_together_with_its_label(tmp_path):
    data = coloured(tmp_path)
    (tmp_path / "3" / "x.png").write_bytes(b"broken")
    with pytest.warns(UserWarning, match=r"1 of 10 files are no usable images.*3/x\.png"):
        images, labels = taken(data, 5)
    assert 3 not in labels and labels.tolist().count(4) == 4
    assert torch.equal(images[:, 0, 0, 0], (labels * 20 / 255).float())


def test_sets_to_train_on_need_labels_and_a_picture(tmp_path):
    data = coloured(tmp_path, 2)
    with pytest.raises(DatasetError, match="has no labels"):
        training_batches(Labelled(data.images, None, None, "bare"), 4)
    for file in data.images.files:
        file.write_bytes(b"broken")
    with pytest.raises(DatasetError, match="no usable image"):
        next(training_batches(data, 4))
