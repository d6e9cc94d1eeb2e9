"""Training a teacher on videos: which clips it sees, and that it learns what motion alone tells."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from bridge import clip_batches
from bridge.clip_batches import RandomClips
from bridge.clips import Clips, load_video
from bridge.config import TrainTeacherConfig
from bridge.errors import ConfigError, DatasetError
from bridge.teachers import Card, training
from bridge.videos import Sampling
from tests.bridge.some_videos import number_of, video
from torch_aip import load_model, load_teacher, models
from torch_aip.cli import main
from torch_aip.datasets import training_batches
from torch_aip.train_teacher import train_teacher

SAMPLING = Sampling(frames=3, stride=4, short_side=37, crop=32)


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """Noise that grows brighter or darker: the same frames in both classes, in another order."""
    root, random = tmp_path_factory.mktemp("moving"), np.random.default_rng(0)
    for part, count in (("train", 16), ("test", 8)):
        for number in range(count):
            noise = random.integers(0, 60, (48, 48, 3)) + random.integers(0, 100)
            frames = [(noise + 12 * k).astype(np.uint8) for k in range(8)]
            video(root / part / "brighter" / f"{number}.mp4", frames)
            video(root / part / "darker" / f"{number}.mp4", frames[::-1])
    return root


QUICK = TrainTeacherConfig(
    architecture="x3d_xs_e", width=1.0, depth=0.2, image_size=32, frames=3, stride=2, flip=False, epochs=10,
    batch_size=8, learning_rate=5e-3,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(moving, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "teacher"
    return train_teacher(dataclasses.replace(QUICK, dataset=str(moving), out=str(folder))), folder


def test_a_teacher_learns_what_only_motion_tells(trained, moving) -> None:
    measured, folder = trained
    card = Card.load(folder)
    assert measured["student_top1"] >= 0.9 and measured["n"] == 16
    assert card.kind == "video" and card.input_size == (3, 32, 32) and card.class_names == ("brighter", "darker")
    assert card.arguments["width"] == 1.0 and card.arguments["depth"] == 0.2 and card.arguments["mean"] == [0.45] * 3
    assert card.source == "trained on train (32 videos, 10 epochs, seed 0)"
    assert load_teacher(folder).input_size == (3, 32, 32)


def test_fine_tuning_keeps_the_trunk_and_begins_the_last_layer_anew(trained, moving, tmp_path) -> None:
    before = models.state_dict(load_model(trained[1])[0])
    for name in ("a", "b", "c"):
        for part in ("train", "test"):
            video(tmp_path / "letters" / part / name / "1.mp4", 8)
    config = TrainTeacherConfig(dataset=str(tmp_path / "letters"), init=str(trained[1]), frames=2)
    start = training.start_of(config, models, load_model)
    train, test = training.load_videos(config, start, load_video)
    assert start.frames == 2 and train.clips.shape == (3, 2, 32, 32, 3) and test.clips.views == 10
    model = training.network(config, start, train, test, models)
    after = models.state_dict(model)
    changed = {
        name for name in before if before[name].shape != after[name].shape or (before[name] != after[name]).any()
    }
    assert changed == {"blocks.5.proj.weight", "blocks.5.proj.bias"} and models.input_size_of(model) == (2, 32, 32)
    line = ["--init", str(trained[1]), "--dataset", str(moving), "--out", str(tmp_path / "tuned")]
    assert main(["train-teacher", *line, "--stride", "2", "--smoke", "--threads", "1"]) == 0
    assert Card.load(tmp_path / "tuned").source.startswith(f"{trained[1]}, then trained on train")


def test_the_usual_size_is_that_of_the_network() -> None:
    for architecture, size in (("x3d_xs", (4, 160, 160)), ("x3d_m", (16, 224, 224))):
        start = training.start_of(
            TrainTeacherConfig(architecture=architecture, width=0.5, depth=0.2), models, load_model
        )
        assert start.input_size == size and start.made_for == {"frames": size[0], "image_size": size[1]}
    start = training.start_of(TrainTeacherConfig(architecture="torchvision/r3d_18", frames=4), models, load_model)
    assert start.input_size == (4, 112, 112)


def test_what_does_not_fit_is_refused(moving, tmp_path) -> None:
    for options, kind, said in (
        ({"dataset": "cifar10"}, DatasetError, "cifar10 is a set of images, and the network takes clips of 3 frames"),
        ({"dataset": "ucf101", "data_dir": str(tmp_path)}, DatasetError, "ucf101 was not found"),
        ({"dataset": str(tmp_path)}, DatasetError, "must hold train/ and test/"),
        ({"architecture": "small_cnn", "width": 2, "depth": None}, ConfigError, "--frames 3 is of clips"),
        ({"architecture": "small_cnn", "width": 2, "depth": None, "frames": None, "stride": 12.0,
          "dataset": "ucf101"}, DatasetError, "ucf101 is a set of videos, and the network takes images"),
        ({"architecture": "x3d_xs", "width": -1.0}, ConfigError, "width=-1.0 must be a number above 0"),
    ):  # fmt: skip
        line: dict[str, Any] = {"dataset": str(moving), "out": str(tmp_path / "out"), **options}
        with pytest.raises(kind, match=said):
            train_teacher(dataclasses.replace(QUICK, **line))


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    """Four videos of 40 frames that tell their number; the second is damaged."""
    root = tmp_path_factory.mktemp("counting")
    files = [video(root / f"{number}.mp4", 40) for number in range(4)]
    files[1].write_bytes(b"no video at all")
    return files, root


def test_random_clips_follow_from_their_numbers_whatever_is_kept(counting) -> None:
    clips, numbers = Clips(counting[0][2:], SAMPLING), np.arange(40)
    pixels, picked = RandomClips(clips, seed=3).draw(numbers)
    assert pixels.shape == (40, 3, 32, 32, 3) and set(picked.tolist()) == {0, 1}
    alone = [RandomClips(clips, seed=3).draw(numbers[k : k + 1]) for k in (7, 31)]
    assert all((pixels[k] == one[0][0]).all() and picked[k] == one[1][0] for k, one in zip((7, 31), alone))
    again = RandomClips(clips, seed=3, memory=100_000)  # too little to keep either video
    assert (again.draw(numbers)[0] == pixels).all()
    assert not (RandomClips(clips, seed=4).draw(numbers)[0] == pixels).all()
    shown = number_of(pixels)
    assert set(np.diff(shown).ravel().tolist()) <= {5, 6}  # of 12 frames the first, the last, one between
    first = shown[:, 0]
    assert first.min() < 5 and first.max() > 22 and len(set(first.tolist())) > 10  # anywhere in 40 − 12 frames


def test_videos_are_decoded_once_where_there_is_room(counting, monkeypatch) -> None:
    read, original = [], clip_batches.read_frames
    monkeypatch.setattr(clip_batches, "read_frames", lambda path, *more: (read.append(path), original(path, *more))[1])
    roomy = RandomClips(Clips(counting[0][2:], SAMPLING))
    roomy.draw(np.arange(2))
    roomy.draw(np.arange(2, 30))
    assert len(read) == 2
    read.clear()
    none = RandomClips(Clips(counting[0][2:], SAMPLING), memory=1000)
    none.draw(np.arange(4))
    assert len(read) == 4 and not any(none._kept.values())


def test_a_clip_is_cut_and_mirrored_at_random_as_one(tmp_path) -> None:
    ramp = np.broadcast_to(np.linspace(0, 250, 96).astype(np.uint8)[None, :, None], (48, 96, 3))
    clips = Clips([video(tmp_path / "ramp.mp4", [ramp] * 8)], SAMPLING)
    drawn = RandomClips(clips).draw(np.arange(200))[0].astype(int)
    assert np.abs(drawn[:, 0] - drawn[:, 2]).mean() < 2  # the same square of all frames
    slope = drawn[:, 0, 16, -1, 0] - drawn[:, 0, 16, 0, 0]
    assert (
        60 < (slope < 0).sum() < 140
        and (RandomClips(clips, flip=False).draw(np.arange(50))[0][:, 0, 16, -1] > 60).all()
    )
    # 32 of 74 to 92 pixels that the width is resized to: 43 % to 35 % of the range
    assert 0.33 < np.abs(slope).min() / 250 < 0.37 and 0.40 < np.abs(slope).max() / 250 < 0.44
    lowest = drawn[:, 0, 16].min((1, 2))
    assert lowest.min() < 10 and lowest.max() > 120


def test_a_damaged_video_is_replaced_by_the_next_one(counting) -> None:
    clips = Clips(*[counting[0]], SAMPLING, counting[1])
    with pytest.warns(UserWarning, match=r"1 of 4 files are no usable videos, others come in their place: 1.mp4 \("):
        _, picked = RandomClips(clips).draw(np.arange(8))
    assert np.bincount(picked, minlength=4).tolist() == [2, 0, 4, 2]
    with pytest.raises(DatasetError, match="no usable video in"):
        RandomClips(Clips(counting[0][1:2], SAMPLING, counting[1])).draw(np.arange(2))


def test_training_batches_of_videos_are_an_endless_stream_of_tensors(moving) -> None:
    data = load_video(moving, "train", frames=3, stride=2, crop=32)
    stream = training_batches(data, 5, flip=False, seed=1)
    batches = [next(stream) for _ in range(9)]  # past the end of the first epoch
    stream.close()
    pixels, labels = batches[0]
    assert pixels.shape == (5, 3, 3, 32, 32) and pixels.stride(1) == 1 and 0 <= pixels.min() <= pixels.max() <= 1
    assert labels.dtype.is_signed and set(np.concatenate([batch[1] for batch in batches]).tolist()) == {0, 1}
    expected, picked = RandomClips(data.clips, flip=False, seed=1).draw(np.arange(5, 10))
    np.testing.assert_array_equal(batches[1][0].movedim(1, -1) * 255, expected)
    assert (batches[1][1].numpy() == data.labels[picked]).all()
