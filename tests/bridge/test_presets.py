"""Every preset holds options its commands know; those named after the paper hold the paper's."""

from __future__ import annotations

import pytest

from bridge.cli import main
from bridge.config import DistillConfig, SweepConfig, TrainTeacherConfig
from bridge.config_check import check, updated
from bridge.errors import ConfigError
from bridge.presets import PRESETS, preset_options

CONFIGS = {"train-teacher": TrainTeacherConfig, "distill": DistillConfig, "sweep": SweepConfig}
PAPER = [("cifar10", 0.9414), ("cifar100", 0.7380)]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_sets_options_that_exist_to_values_that_are_allowed(name):
    for command in PRESETS[name].options:
        check(updated(CONFIGS[command](), preset_options(name, command), name))
    assert all(0 < figure < 1 for figure in PRESETS[name].published.values())


@pytest.mark.parametrize(("dataset", "published"), PAPER)
def test_the_papers_presets_hold_the_papers_values(dataset, published):
    name = f"paper-{dataset}"
    config = updated(DistillConfig(), preset_options(name, "distill"), name)
    assert (config.dataset, config.teacher, config.student) == (dataset, "wrn_40_4", "wrn_16_4")
    assert (config.optimizer, config.learning_rate, config.schedule, config.weight_decay) == (
        "adam",
        1e-3,
        "constant",
        0,
    )
    assert (config.batch_size, config.epochs, config.views, config.steps_per_epoch) == (512, 1000, 50_000, None)
    assert (config.temperature, config.tau_squared, config.loss, config.l2) == (8, False, "kl", 0)
    assert (config.mixing, config.mixing_alpha, config.mixing_per) == ("cutmix", 0.25, "batch")
    assert (config.recipe, config.image_size) == ("cifar", 32)
    teaching = updated(TrainTeacherConfig(), preset_options(name, "train-teacher"), name)
    assert (teaching.dataset, teaching.architecture, teaching.out) == (dataset, "wrn_40_4", None)
    assert (teaching.flip, teaching.pad, teaching.cutout, teaching.hold_out) == (True, 4, 16, False)
    assert PRESETS[name].published == {"student_top1": published}


LARGE = {"in1k": 0.662, "in100": 0.844, "places365": 0.503, "flowers102": 0.815, "pets37": 0.768, "stl10": 0.939}


@pytest.mark.parametrize("dataset", LARGE)
def test_the_papers_presets_of_larger_images_hold_the_papers_values(dataset):
    name = f"paper-{dataset}"
    config = updated(DistillConfig(), preset_options(name, "distill"), name)
    student = "resnet50" if dataset == "in1k" else "resnet18"
    assert (config.dataset, config.teacher, config.student) == (dataset, "resnet18", student)
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ("adamw", 1e-2, 5e-4)
    assert (config.batch_size, config.epochs, config.views, config.schedule) == (512, 200, 1_281_167, "constant")
    assert (config.temperature, config.tau_squared, config.loss) == (8, False, "kl")
    assert (config.mixing, config.mixing_alpha, config.mixing_per) == ("cutmix", 1.0, "batch")
    assert (config.recipe, config.image_size) == ("imagenet", 224)
    assert PRESETS[name].published == {"student_top1": LARGE[dataset]}


def test_help_shows_the_published_results(capsys):
    assert main([]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "94.14%" in lines["paper-cifar10"] and "73.80%" in lines["paper-cifar100"]
    assert "%" not in lines["fast-digits"]


def test_a_preset_without_the_command_names_those_it_has():
    with pytest.raises(ConfigError, match=r"'paper-cifar10' is for train-teacher, distill, not for evaluate"):
        preset_options("paper-cifar10", "evaluate")
    with pytest.raises(ConfigError, match=r"paper-cifar1'.*Did you mean 'paper-cifar10'"):
        preset_options("paper-cifar1", "distill")
    assert set(preset_options("paper-cifar10", "views")) == {
        "image_size", "recipe", "views", "mixing", "mixing_alpha", "mixing_per",
    }  # fmt: skip
