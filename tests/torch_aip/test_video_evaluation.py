"""Measuring networks that take clips on real videos, through Python and through the shell."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bridge.clips import Clips, LabelledVideos
from bridge.datasets import Labelled, check_classes
from bridge.errors import DatasetError, TeacherError
from bridge.measuring import rows_at_once
from bridge.metrics import evaluate_logits, mean_over_views
from bridge.videos import Sampling, read_clips
from tests.bridge.some_videos import grey, video
from tests.torch_aip.helpers import a_network, randomised
from torch_aip import Teacher, evaluate, models, save_teacher
from torch_aip.cli import main
from torch_aip.datasets import load_video
from torch_aip.evaluate import input_side, predict, predict_all

SIZE = (2, 32, 32)
WORDS = {"frames": 2, "crop": 32, "stride": 4}


def a_video_network(classes: int = 2, seed: int = 0) -> nn.Module:
    return randomised(
        models.build("x3d_xs_e", classes=classes, frames=2, image_size=32, width=0.5, depth=0.2), seed
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of three videos each, one of which is damaged."""
    root = tmp_path_factory.mktemp("videos") / "moods"
    for name in ("bright", "dark"):
        for number in range(3):
            frames = [grey(k + 20 * number + 10 * (name == "bright")) for k in range(12)]
            video(root / name / f"{number}.mp4", frames)
    (root / "dark" / "1.mp4").write_bytes((root / "dark" / "1.mp4").read_bytes()[:700])
    return root


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A folder of a network that knows the classes by name."""
    place = tmp_path_factory.mktemp("networks") / "net"
    save_teacher(a_video_network(), place, class_names=["bright", "dark"])
    return str(place)


def test_a_video_has_the_mean_softmax_of_its_clips_and_unreadable_ones_are_left_out(folder) -> None:
    data, model, teacher = load_video(folder, clips=3, **WORDS), a_video_network(), Teacher(a_video_network(seed=1))
    with pytest.warns(UserWarning, match=r"skipped 1 of 6 files, no usable videos: dark/1.mp4"):
        result = evaluate(model, data, teacher=teacher)
    whole = [file for file in data.clips.files if file.parts[-2:] != ("dark", "1.mp4")]
    pixels = np.concatenate([read_clips(file, data.clips.sampling) for file in whole])
    assert pixels.shape == (15, *SIZE, 3)
    clips = torch.from_numpy(pixels).movedim(-1, 1).float() / 255
    with torch.no_grad():
        answers = [mean_over_views(net(clips).numpy(), 3) for net in (model, teacher)]
    expected = evaluate_logits(answers[0], np.array([0, 0, 0, 1, 1]), answers[1])
    assert result == {**{key: pytest.approx(value, abs=1e-5) for key, value in expected.items()},
                      "dataset": "moods", "n": 5}  # fmt: skip
    assert result["kl"] > 0


def test_each_video_is_decoded_once_for_all_models(folder, monkeypatch) -> None:
    read: list[str] = []
    data = load_video(folder, clips=2, **WORDS)
    original = Clips.read
    monkeypatch.setattr(Clips, "read", lambda self, video, *more: (read.append(video), original(self, video, *more))[1])
    answers = predict_all([a_video_network(), Teacher(a_video_network(seed=1))], data.clips, batch_size=3)
    assert sorted(read) == list(range(6)) and [a.shape for a in answers] == [(6, 2)] * 2
    np.testing.assert_allclose(answers[0], predict(a_video_network(), data.clips, 100), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.exp(answers[0]).sum(1), 1, rtol=1e-5)
    plain = predict(a_video_network(), data.clips[:4])
    assert plain.shape == (4, 2)  # of clips in memory each counts for itself


def test_a_path_is_read_as_the_network_wants_it(folder, network) -> None:
    with pytest.warns(UserWarning, match="skipped"):
        result = evaluate(a_video_network(), str(folder))
    assert result["n"] == 5 and result["student_top1"] is not None and result["teacher_top1"] is None
    assert input_side(a_video_network()) == 32


def test_batches_of_large_clips_are_smaller() -> None:
    assert rows_at_once(256, (1000, 224, 224, 3)) == 256 == rows_at_once(256, (1000, 512, 512, 3))
    assert rows_at_once(256, (1000, 4, 160, 160, 3)) == 125 and rows_at_once(64, (1000, 4, 160, 160, 3)) == 64
    assert rows_at_once(8, (9, 64, 1024, 1024, 3)) == 1


class Anything(nn.Module):
    """Says nothing of what it takes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(tuple(range(2, x.ndim)))


def test_images_and_videos_are_told_apart(folder) -> None:
    images = Labelled(np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 1]), None, "dots")
    clips = load_video(folder, **WORDS)
    for model, data, said in (
        (a_video_network(), images, r"dots holds images, and the model takes clips of \[2, 32, 32\]"),
        (a_video_network(), "cifar10", "cifar10 is a set of images, and the network takes clips of 2 frames"),
        (a_network(), clips, r"moods holds videos, and the model takes images of \[8, 8\]"),
        (a_network(), "ucf101", "ucf101 is a set of videos, and the network takes images"),
        (Anything(), "k400", "does not say what it takes"),
        (a_video_network(), load_video(folder, frames=3, crop=32), r"clips of \[3, 32, 32\].*frames=2, crop=32"),
    ):
        with pytest.raises(DatasetError, match=said):
            evaluate(model, data)
    with pytest.raises(DatasetError, match="the teacher takes clips"):
        evaluate(Anything(), images, teacher=Teacher(a_video_network()))


def test_classes_are_compared_as_for_images(folder) -> None:
    data = load_video(folder, **WORDS)
    assert check_classes(data, 2, ["bright", "dark"]) is data
    with pytest.raises(TeacherError, match="moods has 2 classes, the model answers with 3"):
        check_classes(data, 3)
    with pytest.raises(TeacherError, match="Class 0 is 'bright' in moods and 'dark'"):
        check_classes(data, 2, ["dark", "bright"])
    with pytest.raises(TeacherError, match="2 classes, the model answers with 3"):
        evaluate(a_video_network(3), data)


def test_nothing_usable_is_an_error(tmp_path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    data = LabelledVideos(Clips([tmp_path / "a.mp4"], Sampling(2, 4, short_side=32, crop=32)), None, None, "a")
    with pytest.raises(DatasetError, match="no usable video in a: found"):
        evaluate(a_video_network(), data)


def test_the_command_measures_a_network_for_video(folder, network, tmp_path, capsys) -> None:
    line = ["evaluate", "--model", network, "--testdir", str(folder), "--stride", "4", "--out", str(tmp_path / "r")]
    assert main([*line, "--clips", "2", "--spatial", "3", "--teacher", network]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result == json.loads((tmp_path / "r").read_text()) and "skipped 1 of 6" in printed.err
    assert result["n"] == 5 and result["dataset"] == "moods" and result["agreement"] == 1 and result["kl"] == 0
    assert main(["evaluate", "--model", network, "--dataset", "digits"]) == 2
    assert "digits is a set of images" in capsys.readouterr().err


def test_the_keras_program_says_whose_video_is(network, folder, capsys) -> None:
    from bridge.commands import measure
    from bridge.config import EvaluateConfig
    from bridge.errors import ConfigError
    from torch_aip import load_teacher

    with pytest.raises(ConfigError, match="video is torch_aip's"):
        measure(EvaluateConfig(model=network, testdir=str(folder)), load_video, load_teacher, evaluate)


def test_a_folder_called_ucf_101_is_split_and_timed_as_that_set(tmp_path) -> None:
    place = tmp_path / "UCF-101"
    for group in (1, 7, 8, 14, 15, 21, 22, 25):
        path = place / "Archery" / f"v_Archery_g{group:02d}_c01.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def groups(path, split="test", fold=1):
        data = load_video(path, split, fold=fold)
        assert data.clips.sampling.rate == 25
        return [int(file.stem[-6:-4]) for file in data.clips.files]

    assert [groups(place, fold=fold) for fold in (1, 2, 3)] == [[1, 7], [8, 14], [15, 21]]
    assert groups(place, "train", 3) == [1, 7, 8, 14] and groups(place, "validation", 3) == [22, 25]
    assert len(groups(place.rename(tmp_path / "mine"))) == 8
    shutil.move(tmp_path / "mine" / "Archery" / "v_Archery_g01_c01.avi", tmp_path / "mine" / "Archery" / "other.avi")
    assert load_video(tmp_path / "mine").clips.sampling.rate == 30
    assert load_video(tmp_path / "mine", rate=12, crop=80).clips.sampling == Sampling(
        rate=12, short_side=92, crop=80, clips=10
    )


def test_long_runs_show_a_bar(folder, monkeypatch, capsys) -> None:
    monkeypatch.setattr("bridge.batches._PATIENCE", -1.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    predict(a_video_network(), load_video(folder, clips=2, **WORDS).clips, 4)
    assert "clips/s" in capsys.readouterr().err
