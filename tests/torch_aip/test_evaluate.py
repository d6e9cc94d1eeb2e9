"""Measuring: figures as `bridge.metrics` defines them, through Python and through the shell."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from bridge.datasets import Labelled
from bridge.errors import DatasetError, TeacherError
from bridge.metrics import evaluate_logits
from tests.conftest import ROOT
from tests.torch_aip.helpers import Foreign, a_network, pixels, randomised
from torch_aip import Teacher, evaluate, models, save_teacher
from torch_aip.cli import main
from torch_aip.evaluate import input_side, predict, recalibrated


def labelled(count: int = 20, size: int = 8, labels: bool = True) -> Labelled:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Labelled(images, random.integers(0, 3, count) if labels else None, None, "noise")


def digits_network(seed: int):
    return randomised(models.small_cnn(10, width=2), seed)


def test_predictions_are_those_of_the_model_in_inference_mode_whatever_the_batches() -> None:
    data, model = labelled(), randomised(Foreign()).train()
    expected = model.eval()(torch.from_numpy(data.images.transpose(0, 3, 1, 2).copy()).float() / 255).detach()
    model.train()
    model.bn.eval()
    for batch_size in (7, 20, 100):
        np.testing.assert_allclose(predict(model, data.images, batch_size), expected, rtol=1e-5, atol=1e-6)
    assert model.training and model.drop.training and not model.bn.training


def test_figures_are_those_of_the_logits() -> None:
    data, model, teacher = labelled(), a_network(seed=1), Teacher(a_network(seed=2), outputs="probabilities")
    result = evaluate(model, data, teacher=teacher)
    expected = evaluate_logits(predict(model, data.images), data.labels, predict(teacher, data.images))
    assert result == {**expected, "dataset": "noise", "n": 20}
    assert evaluate(model, labelled(labels=False), teacher=teacher)["student_top1"] is None


def test_digits_come_by_name_in_the_size_of_the_model() -> None:
    result = evaluate(digits_network(0), "digits", split="validation")
    assert result["n"] == 297 and result["dataset"] == "digits/validation" and 0 <= result["student_top1"] < 0.5
    assert input_side(digits_network(0)) == 32 and input_side(Foreign()) is None


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"the model wants \[8, 8\]"):
        evaluate(a_network(), labelled(size=9))
    with pytest.raises(DatasetError, match="the teacher wants"):
        evaluate(Foreign(), labelled(size=9), teacher=Teacher(a_network()))
    with pytest.raises(TeacherError, match="10 classes, the model answers with 3"):
        evaluate(randomised(models.small_cnn(3, width=2)), "digits")


def test_recalibration_takes_the_statistics_of_the_images_and_gives_the_old_ones_back() -> None:
    model = randomised(Foreign()).train()
    model.drop.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    batches = [pixels(seed=1), pixels(seed=2)]
    with recalibrated(model, batches) as changed:
        maps = [model.conv(images) for images in batches]
        mean = torch.stack([x.mean((0, 2, 3)) for x in maps]).mean(0)
        torch.testing.assert_close(changed.bn.running_mean, mean)
        assert model.training and not model.drop.training
    assert model.bn.momentum == 0.1
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_evaluate_at_the_shell_prints_and_writes_the_result(tmp_path) -> None:
    for name, seed in (("student", 1), ("teacher", 2)):
        save_teacher(digits_network(seed), tmp_path / name, class_names=list("0123456789"))
    words = ["evaluate", "--model", "student", "--teacher", "teacher", "--threads", "1", "--out", "result.json"]
    done = subprocess.run(
        [sys.executable, "-m", "torch_aip", *words], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result == json.loads((tmp_path / "result.json").read_text()) and result["n"] == 500
    assert result["agreement"] is not None and result["teacher_top1"] is not None


def test_mistakes_at_the_shell_are_one_message_and_code_two(tmp_path, capsys) -> None:
    save_teacher(a_network(), tmp_path / "three")
    for words, said in (
        (["evaluate"], "Which network?"),
        (["evaluate", "--model", str(tmp_path / "none")], "There is no teacher"),
        (["evaluate", "--model", str(tmp_path / "three")], "10 classes, the model answers with 3"),
        (["evaluate", "--model", str(tmp_path / "three"), "--dataset", "digit"], "'digits'"),
        (["evalate"], "'evaluate'"),
        (["views"], "Which image?"),
    ):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("torch-aip: ") and said in err and err.count("\n") == 1
    assert main([]) == 0 and "evaluate" in capsys.readouterr().out


def test_views_are_drawn_without_a_framework_of_their_own(tmp_path) -> None:
    words = ["views", "--image", "sklearn:china.jpg", "--grid", "2", "--out", str(tmp_path)]
    assert main(words) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["augmented.png", "base.png", "mixed.png"]
