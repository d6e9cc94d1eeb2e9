"""Both backends ask a teacher alike: the same scores, and the same findings."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import keras_aip
import torch_aip
from bridge.config import DistillConfig
from bridge.datum.mixing import Mixing
from bridge.datum.recipes import recipe
from bridge.datum.views import ViewSet
from bridge.errors import ConfigError, RecipeError
from bridge.insight.options import InspectConfig, ScoreConfig
from bridge.sweep.inspection import inspector
from torch_aip.models import small_cnn

BACKENDS = {name: importlib.import_module(f"{name}.insight") for name in ("keras_aip", "torch_aip")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A random network whose weights are large enough to prefer something."""
    torch.manual_seed(0)
    network = small_cnn(3, width=4, image_size=16)
    with torch.no_grad():
        for value in network.parameters():
            value.mul_(2)
    place = tmp_path_factory.mktemp("net") / "net"
    torch_aip.save_teacher(network, place)
    return str(place)


def test_the_same_sources_get_the_same_scores(folder, tmp_path: Path) -> None:
    told = {}
    for name, backend in BACKENDS.items():
        config = ScoreConfig(
            teacher=folder, images=("control:noise", "sklearn:china.jpg"), views=128, out=str(tmp_path / name)
        )
        ranked = [one.name for one in backend.score_sources(config)]
        told[name] = json.loads((tmp_path / name / "score.json").read_text())
        assert [one["name"] for one in told[name]["sources"]] == ranked
    for one, other in zip(*(said["sources"] for said in told.values())):
        assert one.pop("name") == other.pop("name") and one.pop("given") == other.pop("given")
        assert one == pytest.approx(other, abs=1e-4)


def test_the_same_teacher_has_the_same_findings(folder) -> None:
    found = [backend.inspect_teacher(InspectConfig(teacher=folder, views=64)) for backend in BACKENDS.values()]
    assert found[0] == found[1]
    assert {finding.level for finding in found[0]} <= {"ok", "note"}


@pytest.mark.parametrize("name", BACKENDS)
def test_a_function_that_says_logits_and_gives_probabilities_is_found(name: str) -> None:
    def answer(views):
        mean = 0.1 + np.asarray(views).mean(axis=(1, 2) if name == "keras_aip" else (2, 3))
        return mean / mean.sum(axis=1, keepdims=True)

    package = {"keras_aip": keras_aip, "torch_aip": torch_aip}[name]
    view_set = ViewSet("control:noise", recipe("cifar", 8))
    asked = BACKENDS[name].inspect(package.Teacher(answer, classes=3), view_set, views=32)
    assert any("softmax would be taken twice" in finding.text for finding in asked)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_sound_for_a_teacher_of_images_is_refused(name: str, folder) -> None:
    with pytest.raises(ConfigError, match="takes images; leave --audio out"):
        BACKENDS[name].inspect_teacher(InspectConfig(teacher=folder, audio="control:noise"))


@pytest.mark.parametrize("name", BACKENDS)
def test_before_a_sweep_every_way_to_mix_is_tried(name: str, folder) -> None:
    distill, sweep = (importlib.import_module(f"{name}.{part}") for part in ("distill", "sweep"))
    package = {"keras_aip": keras_aip, "torch_aip": torch_aip}[name]
    inspect = inspector(package.load_teacher, distill.make_student, sweep._distiller)
    run = DistillConfig(teacher=folder, student="small_cnn", student_width=2, image="control:noise")
    assert next(iter(inspect(run).values()))
    with pytest.raises(RecipeError, match="--mixing-on spectrogram is of sounds"):
        inspect(dataclasses.replace(run, mixing_on="spectrogram"))
    with pytest.raises(RecipeError, match="cuts frames"):
        inspect(dataclasses.replace(run, mixing="reference_cutmix"))


def test_before_a_sweep_masks_without_a_shared_front_end_are_refused(folder) -> None:
    distill, sweep = (importlib.import_module(f"keras_aip.{part}") for part in ("distill", "sweep"))
    teacher = keras_aip.load_teacher(folder)
    run = DistillConfig(teacher=folder, student="small_cnn", student_width=2, spec_augment=2)
    student = distill.make_student(run, 3, {"image_size": 16})
    with pytest.raises(ConfigError, match="the same front end"):
        sweep._distiller(run, student, teacher, Mixing())
