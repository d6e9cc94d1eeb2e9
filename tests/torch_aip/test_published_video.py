"""Official weights of networks for video by name, and the reference code's own students out of checkpoints."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bridge.config import TrainTeacherConfig
from bridge.errors import ConfigError, MissingTeacherError, TeacherError
from bridge.networks import X3D_PUBLISHED
from bridge.teachers import zoo
from bridge.teachers.export import export, place_of
from bridge.teachers.options import ExportConfig
from bridge.teachers.training import start_of
from tests.torch_aip.helpers import clips, randomised
from torch_aip import load_model, load_teacher, models, save_teacher

SMALL: dict[str, Any] = {"frames": 2, "image_size": 32, "width": 0.5, "depth": 0.5}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """PyTorch's cache of weights, empty; nothing else can be reached."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("AIP_TEACHERS", str(tmp_path / "shelf"))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("torch_aip.models.library.X3D_SOURCE", "http://127.0.0.1:9")
    place = tmp_path / "torch" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    return place


def published(cache: Path) -> nn.Module:
    """A checkpoint as pytorchvideo's, with random weights."""
    model = randomised(models.build("x3d_xs", classes=400))
    torch.save({"epoch": 299, "model_state": model.state_dict(), "cfg": "MODEL: X3D"}, cache / "X3D_XS.pyth")
    return model


def test_a_bare_name_means_the_published_x3d_for_kinetics_alone(cache, tmp_path) -> None:
    expected, x = published(cache), clips(1, 4, 160)
    teacher = load_teacher("x3d_xs", dataset="k400")
    torch.testing.assert_close(teacher(x), expected(x), rtol=1e-3, atol=1e-3 * float(expected(x).detach().abs().max()))
    assert teacher.classes == 400 and teacher.input_size == (4, 160, 160)
    card = load_model("x3d_xs", dataset="k400")[1]
    assert hashlib.sha256((cache / "X3D_XS.pyth").read_bytes()).hexdigest() in card.source
    assert card.accuracy and card.accuracy["top1"] == 0.6912
    assert card.class_names and (card.class_names[0], card.class_names[-1]) == ("abseiling", "zumba")
    for name, dataset in (("x3d_xs", "ucf101"), ("x3d_xs", None), ("x3d_xs", "in1k"), ("x3d_xs_e", "k400")):
        with pytest.raises(MissingTeacherError, match="train-teacher"):
            load_teacher(name, dataset=dataset)
    save_teacher(randomised(models.build("x3d_xs", classes=7, **SMALL)), tmp_path / "shelf" / "k400_x3d_xs")
    assert load_teacher("x3d_xs", dataset="k400").classes == 7


def test_training_for_another_set_begins_with_the_published_weights(cache) -> None:
    expected = published(cache)
    start = start_of(TrainTeacherConfig(init="x3d_xs", dataset="ucf101"), models, load_model)
    assert start.classes == 400 and start.input_size == (4, 160, 160)
    assert start.weights is not None and np.array_equal(
        start.weights["blocks.0.conv.conv_t.weight"], expected.state_dict()["blocks.0.conv.conv_t.weight"].numpy()
    )


def test_neither_videos_nor_images_stand_for_the_other(cache) -> None:
    for name, dataset in (("resnet18", "k400"), ("r3d_18", "in1k"), ("nonsense", "k400")):
        with pytest.raises(MissingTeacherError, match=f"no teacher '{name}'"):
            load_teacher(name, dataset=dataset)


def test_what_cannot_be_fetched_says_where_from_and_where_to(cache) -> None:
    for name, (file, _) in X3D_PUBLISHED.items():
        with pytest.raises(
            TeacherError, match=rf"no teacher '{name}'.*checkpoints/{file} .*download \S+/{file} and put"
        ):
            load_teacher(name, dataset="k400")
        assert not any(cache.iterdir())
    (cache / "X3D_XS.pyth").write_bytes(b"PK\3\4 torn")
    with pytest.raises(TeacherError, match=r"X3D_XS\.pyth is no file of weights.*remove it: it is fetched again"):
        load_teacher("x3d_xs", dataset="k400")


def test_a_published_x3d_becomes_a_folder(cache, tmp_path, monkeypatch) -> None:
    written: list[Any] = []
    # Writing ONNX takes seconds at this size, and is tried elsewhere at a smaller one.
    small = randomised(models.build("x3d_xs", classes=400, **SMALL))
    known = load_card(cache)
    monkeypatch.setattr(models.library, "pretrained", lambda name: written.append(name) or (small, known))
    card = export(ExportConfig(model="x3d_xs", dataset="k400"))
    assert written == ["x3d_xs"] and card.source == known.source and card.class_names == known.class_names
    assert place_of(ExportConfig(model="x3d_xs", dataset="k400")) == tmp_path / "shelf" / "k400_x3d_xs"
    teacher, x = load_teacher("x3d_xs", dataset="k400"), clips(1, 2)
    torch.testing.assert_close(teacher(x), small(x).detach(), rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="Kinetics-400, not for ucf101"):
        export(ExportConfig(model="x3d_xs", dataset="ucf101"))
    with pytest.raises(ConfigError, match="x3d_xs_e without --weights"):
        export(ExportConfig(model="x3d_xs_e", dataset="k400"))


def load_card(cache: Path) -> Any:
    published(cache)
    return load_model("x3d_xs", dataset="k400")[1]


@pytest.mark.parametrize("prefix", ["", "module.", "student.", "model.", "student.module.", "student.model."])
def test_the_references_students_come_out_of_its_checkpoints(tmp_path, prefix) -> None:
    student = randomised(models.build("x3d_xs_e", classes=5, **SMALL), seed=1)
    teacher = randomised(models.build("x3d_xs", classes=5, **SMALL), seed=2)
    state = {f"{prefix}{name}": tensor for name, tensor in student.state_dict().items()}
    if "student" in prefix:  # a whole distiller, as a training program saves it
        state |= {f"teacher.{name}": tensor for name, tensor in teacher.state_dict().items()}
    torch.save({"epoch": 399, "global_step": 1, "state_dict": state}, tmp_path / "last.ckpt")
    again = models.build("x3d_xs_e", classes=5, **SMALL).eval()
    models.load_weights(again, tmp_path / "last.ckpt")
    assert torch.equal(again(clips(1, 2)), student(clips(1, 2)))


def test_networks_for_video_are_listed_with_what_was_measured(cache) -> None:
    published(cache)
    found = {entry.name: entry for entry in zoo.entries("3d")}
    assert found["x3d_xs"].here and not found["x3d_l"].here
    assert (found["x3d_l"].input_size, found["x3d_l"].dataset, found["x3d_l"].top1) == (312, "k400", 0.7744)
    assert found["torchvision/r3d_18"].dataset == "k400" and found["torchvision/r3d_18"].input_size == 112
    for name in X3D_PUBLISHED:
        built = sum(tensor.numel() for tensor in models.build(name, classes=400).parameters())
        assert found[name].megabytes == built * 4 / 1e6
