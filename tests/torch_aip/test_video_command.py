"""`distill` for networks that take clips: from options to a student, its measurements and its report."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from bridge.errors import DatasetError
from tests.bridge.some_videos import video
from tests.torch_aip.helpers import a_network, clips, pixels, randomised
from torch_aip import Distiller, load_model, models, save_teacher
from torch_aip.cli import main

SMALL = {"image_size": 32, "frames": 2, "width": 0.5, "depth": 0.5}


def x3d(seed=0):
    return randomised(models.x3d_xs(3, **SMALL), seed)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("video")
    for name in ("jump", "run", "walk"):
        video(folder / "test" / name / "a.mp4", 20)
    (folder / "test" / "run" / "broken.mp4").write_bytes(b"no video at all")
    save_teacher(x3d(), folder / "teacher")
    save_teacher(a_network(), folder / "of images")
    return folder


def words(place, out, *more):
    return [
        *("distill", "--dataset", place / "test", "--teacher", place / "teacher", "--student", "x3d_xs"),
        *("--image", "sklearn:china.jpg", "--views", "None", "--steps-per-epoch", "2", "--batch-size", "4"),
        *("--clips", "2", "--stride", "4", "--threads", "1", "--deterministic", "--out", out, *more),
    ]  # fmt: skip


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_a_video_network_is_distilled_resumed_measured_and_reported(place, tmp_path, capsys):
    assert run(*words(place, tmp_path / "whole", "--epochs", "2")) == 0
    out, err = capsys.readouterr()
    assert "The student saw 16 clips of 2 frames, made of sklearn:china.jpg" in out
    assert err.count("skipped 1 of 4 files, no usable videos: run/broken.mp4") == 1
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert (result["n"], result["views"], result["frames"]) == (3, 16, 2)
    assert 0 <= result["agreement"] <= 1 and result["student_top1"] is not None
    report = (tmp_path / "whole" / "report.html").read_text()
    assert "12 clips of 2 frames of 32 × 32 pixels" in report
    assert models.input_size_of(load_model(tmp_path / "whole" / "student")[0]) == (2, 32, 32)


def test_a_resumed_video_run_ends_with_the_same_weights(place, tmp_path, monkeypatch):
    from torch_aip.distiller import Distiller as Real

    assert run(*words(place, tmp_path / "whole", "--epochs", "2")) == 0
    step = Real._step

    def cut(self, batch, number, forward):
        if number == 3:
            raise KeyboardInterrupt
        return step(self, batch, number, forward)

    with monkeypatch.context() as patch:
        patch.setattr(Real, "_step", cut)
        assert run(*words(place, tmp_path / "cut", "--epochs", "2")) == 130
    assert run(*words(place, tmp_path / "cut", "--epochs", "2", "--resume")) == 0
    one, other = (load_model(tmp_path / name / "student")[0].state_dict() for name in ("whole", "cut"))
    assert all(np.array_equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    "more, said",
    [
        (["--frames", "3"], r"must agree on \[frames, height, width\]; got views \[3, 32, 32\], teacher \[2, 32, 32\]"),
        (["--patches"], "--patches are ready-made views, which do not move"),
        (["--recipe", "imagenet"], "video recipe 'imagenet'"),
        (["--teacher", "IMAGES", "--frames", "2"], "--frames 2 is of clips, and .* takes images"),
        (["--teacher", "IMAGES", "--clips", "10", "--motion", "none"], "--motion none is of clips"),
        (
            ["--teacher", "IMAGES", "--clips", "None", "--stride", "12", "--mixing", "reference_cutmix"],
            "--mixing reference_cutmix cuts frames",
        ),
        (["--student", "resnet20"], "takes clips of 2 frames, and --student resnet20 takes images"),
        (["--dataset", "cifar10"], "cifar10"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_video_are_refused_in_one_message(place, tmp_path, capsys, more, said):
    more = [place / "of images" if word == "IMAGES" else word for word in more]
    assert run(*words(place, tmp_path / "out", *more)) == 2
    message = capsys.readouterr().err
    assert re.search(said, message) and "Traceback" not in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mixing", ["cutmix", "reference_cutmix", "mixup"])
def test_any_loader_of_clips_can_be_fitted(mixing):
    distiller = Distiller(x3d(1), x3d(2), mixing=mixing)
    history = distiller.fit([clips(4, 2)], epochs=2, verbose=False)
    assert np.isfinite(history["loss"]).all()


def test_frames_are_not_cut_out_of_images():
    with pytest.raises(DatasetError, match="cuts frames, and images have none"):
        Distiller(a_network(seed=1), a_network(seed=2), mixing="reference_cutmix").check(pixels())


def test_parts_of_unmixed_batches_may_have_any_size():
    distiller = Distiller(x3d(1), x3d(2), mixing="none")
    distiller.compile(accumulate=2)
    assert np.isfinite(distiller.fit([clips(6, 2)], verbose=False)["loss"]).all()


def test_a_set_without_a_usable_video_is_refused_before_the_training(place, tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_text("no video")
    assert run(*words(place, tmp_path / "out", "--dataset", tmp_path / "videos")) == 2
    assert "no usable video" in capsys.readouterr().err and not (tmp_path / "out").exists()
