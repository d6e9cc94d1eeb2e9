"""Both backends find the same fidelity on the same files, and refuse the same nonsense."""

from __future__ import annotations

import importlib
import json

import keras
import numpy as np
import pytest
import torch
from PIL import Image

import keras_aip
import torch_aip
from bridge.insight.options import FidelityConfig
from tests.bridge.some_sounds import write
from tests.bridge.test_report import HOSTILE, Page, picture
from tests.torch_aip.helpers import randomised

BACKENDS = {name: importlib.import_module(f"{name}.fidelity") for name in ("keras_aip", "torch_aip")}
NAMES = ["cat", HOSTILE, "cow", "ox", "yak", "gnu", "emu"]


def saved(place, seed, classes=7, size=16, names=None):
    """A random network whose weights are large enough to prefer something."""
    torch.manual_seed(seed)
    network = torch_aip.models.small_cnn(classes, width=2, image_size=size)
    with torch.no_grad():
        for value in network.parameters():
            value.mul_(2)
    torch_aip.save_teacher(network, place, class_names=names or NAMES[:classes])
    return str(place)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    place = tmp_path_factory.mktemp("nets")
    return {"model": saved(place / "student", 1), "teacher": saved(place / "teacher", 0)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve of one size and one of another, without labels, and a file that is none."""
    place, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for k in range(12):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8) // (1 + k % 3)).save(place / f"{k:02d}.png")
    Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8)).save(place / "large.jpg")
    (place / "broken.png").write_bytes(b"no picture")
    return str(place)


def told(backend, out, **options):
    result = BACKENDS[backend].fidelity(FidelityConfig(out=str(out), **options))
    assert json.loads((out / "fidelity.json").read_text()).keys() == result.keys()
    html = (out / "fidelity.html").read_text(encoding="utf-8")
    return result, Page(html)


def test_a_folder_without_labels_gives_the_same_figures(pair, pictures, tmp_path):
    found = {}
    for backend in BACKENDS:
        with pytest.warns(UserWarning, match=r"skipped 1 of 14 files.*broken\.png"):
            found[backend], page = told(backend, tmp_path / backend, dataset=pictures, **pair)
        assert "script" not in page.tags and len(page.images) == found[backend]["parted"]
    a, b = found.values()
    assert a["n"] == 13 and a["student_top1"] is None and a["parted"] > 0 and a["teacher_in_5"] is not None
    for key in ("agreement", "agreement_at_5", "overlap_at_5", "kl", "total_variation", "teacher_ece"):
        assert a[key] == pytest.approx(b[key], rel=1e-3, abs=1e-5), key
    assert {each["file"] for each in a["examples"]} == {each["file"] for each in b["examples"]}
    assert all(each["file"].endswith((".png", ".jpg")) for each in a["examples"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_count_and_fewer_keep_their_numbers(backend, pair, tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 16, 16, 3), np.uint8), rng.integers(0, 7, 40)
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    given = {"dataset": str(tmp_path / "set.npz"), "examples": 40, **pair}
    whole, _ = told(backend, tmp_path / "a", **given)
    some, _ = told(backend, tmp_path / "b", count=7, **given)
    assert (whole["n"], some["n"]) == (40, 7) and whole["student_top1"] is not None
    by_number = {each["number"]: each for each in whole["examples"]}
    assert set(by_number) >= {each["number"] for each in some["examples"]} and whole["parted"] == len(by_number)
    for each in some["examples"]:
        assert each["number"] in np.linspace(0, 39, 7).astype(int)
        assert each["label"] == NAMES[labels[each["number"]]] == by_number[each["number"]]["label"]
        assert each["total_variation"] == pytest.approx(by_number[each["number"]]["total_variation"], abs=1e-4)
    same, page = told(backend, tmp_path / "c", **{**given, "model": pair["teacher"]})
    assert same["agreement"] == 1 and same["examples"] == [] == page.images and "Nowhere" in page.text
    assert same["kl"] == pytest.approx(0, abs=1e-6)


def test_sounds_are_spectrograms_to_listen_to(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras_aip.models.dscnn_s(3, samples=6400)
    keras_aip.save_teacher(model, tmp_path / "teacher", class_names=["yes", "no", "up"])
    model.layers[-1].set_weights([-values for values in model.layers[-1].get_weights()])  # the last answer comes first
    keras_aip.save_teacher(model, tmp_path / "student", class_names=["yes", "no", "up"])
    rng = np.random.default_rng(0)
    for k in range(8):
        sound = rng.normal(size=6400) * 0.1 * (1 + np.sin(np.arange(6400) / (10 + 40 * k)))
        write(tmp_path / "sounds" / f"{k}.wav", sound.astype(np.float32), rate=16_000)
    (tmp_path / "sounds" / "broken.wav").write_bytes(b"no sound")
    given = {"model": str(tmp_path / "student"), "teacher": str(tmp_path / "teacher")}
    with pytest.warns(UserWarning, match="skipped 1 of 9 sounds"):
        result, page = told("keras_aip", tmp_path / "out", dataset=str(tmp_path / "sounds"), **given)
    assert result["n"] == result["parted"] == 8 and result["agreement_at_5"] is None
    assert page.tags.count("audio") == 6 and len(page.images) == 8


def test_videos_are_strips(tmp_path):
    some_videos = pytest.importorskip("tests.bridge.some_videos")
    network = randomised(torch_aip.models.x3d_xs(3, image_size=32, frames=2, width=0.5, depth=0.5))
    torch_aip.save_teacher(network, tmp_path / "teacher", class_names=NAMES[:3])
    with torch.no_grad():
        for values in list(network.parameters())[-2:]:
            values.neg_()  # the last answer comes first
    torch_aip.save_teacher(network, tmp_path / "student", class_names=NAMES[:3])
    for k in range(2):
        some_videos.video(tmp_path / "clips" / f"{k}.mp4", 30)
    given = {"model": str(tmp_path / "student"), "teacher": str(tmp_path / "teacher"), "clips": 3, "stride": 4}
    result, page = told("torch_aip", tmp_path / "out", dataset=str(tmp_path / "clips"), **given)
    assert result["n"] == result["parted"] == len(page.images) == 2
    assert picture(page.images[0]).shape == (32, 64, 3)
    assert {each["file"] for each in result["examples"]} == {"0.mp4", "1.mp4"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wrong_line_ends_in_one_message(backend, pair, pictures, tmp_path, capsys):
    program = importlib.import_module(f"{backend}.cli")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.png").write_text("no picture")
    options = {"--model": pair["model"], "--teacher": pair["teacher"], "--dataset": pictures}
    for changes, said in (
        ({"--dataset": str(tmp_path / "empty")}, "found no files"),
        ({"--dataset": str(tmp_path / "text")}, "no usable image"),
        ({"--dataset": str(tmp_path / "nowhere")}, "no evaluation set"),
        ({"--dataset": None}, "On which files?"),
        ({"--teacher": None}, "which teacher?"),
        ({"--teacher": saved(tmp_path / "five", 0, classes=5)}, "for 7 classes"),
        ({"--teacher": saved(tmp_path / "other", 0, names=[*NAMES[:6], "auk"])}, "Class 6 is 'emu'"),
        ({"--teacher": saved(tmp_path / "larger", 0, size=24)}, "images of 24 × 24 pixels"),
        ({"--count": "0"}, "at least 1"),
        ({"--examples": "-1"}, "must not be negative"),
        ({"--stride": "6"}, "is of clips"),
    ):
        given = {**options, **changes}
        line = [word for option, value in given.items() if value is not None for word in (option, value)]
        assert program.main(["fidelity", *line, "--out", str(tmp_path / "out")]) == 2, said
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1, err
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    line = [word for pair in options.items() for word in pair]
    assert program.main(["fidelity", *line, "--out", str(tmp_path / "file" / "out")]) == 2
    assert "Choose another --out" in capsys.readouterr().err
