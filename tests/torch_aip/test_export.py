"""Networks as ONNX: equal in onnxruntime, with a dynamic batch, and the module left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bridge.errors import TeacherError
from bridge.teachers.onnx_file import facts_of, read_onnx
from bridge.teachers.runtime import Runtime
from tests.torch_aip.helpers import Foreign, a_network, pixels, randomised
from torch_aip import models
from torch_aip.export import to_onnx
from torch_aip.models.from_onnx import from_onnx


def operators(model) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("small_cnn", {"width": 2}),
        ("wrn_10_1", {}),
        ("wrn_10_1", {"reference": True, "image_size": 13}),
        ("resnet20", {}),
        ("torchvision/shufflenet_v2_x0_5", {"image_size": 32}),
    ],
)
def test_onnxruntime_and_onnx2torch_answer_as_the_module(name: str, arguments: dict, tmp_path) -> None:
    model = models.build(name, classes=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), **arguments)
    model = model.eval() if "/" in name else randomised(model)
    to_onnx(model, tmp_path / "model.onnx")
    canonical = read_onnx(tmp_path / "model.onnx")
    facts, size = facts_of(canonical), models.input_size_of(model)
    assert (facts.kind, facts.input_size, facts.classes, facts.opset) == ("image", size, 4, 17)
    crossed = from_onnx(tmp_path / "model.onnx")
    for batch in (1, 5):
        images = pixels(batch, size[0])
        expected = model(images).detach().numpy()
        largest = np.abs(expected).max()
        for answer in (Runtime(tmp_path / "model.onnx")(images.numpy()), crossed(images).detach().numpy()):
            assert np.abs(answer - expected).max() < 1e-5 * largest


def test_batchnorm_is_folded_and_copies_are_gone(tmp_path) -> None:
    to_onnx(models.build("resnet20", classes=3), tmp_path / "model.onnx")
    found = set(operators(read_onnx(tmp_path / "model.onnx")))
    assert not found & {"BatchNormalization", "Identity", "Constant", "ConstantOfShape", "Concat", "Dropout"}


def test_the_module_itself_stays_as_it_was(tmp_path, capfd, recwarn) -> None:
    model = a_network().bfloat16().train()
    model.block1.eval()
    modes, before = [module.training for module in model.modules()], models.state_dict(model)
    to_onnx(torch.compile(model, backend="eager"), tmp_path / "model.onnx")
    assert [module.training for module in model.modules()] == modes
    assert model.fc.weight.dtype == torch.bfloat16
    assert all((before[key] == array).all() for key, array in models.state_dict(model).items())
    assert capfd.readouterr() == ("", "") and not recwarn.list
    expected = model.float().eval()(pixels())
    np.testing.assert_allclose(
        Runtime(tmp_path / "model.onnx")(pixels().numpy()), expected.detach(), rtol=1e-4, atol=1e-5
    )


def test_waveforms_and_features_are_taken_too(tmp_path) -> None:
    class Hearing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(10, 4)

        def forward(self, x):
            return self.fc(x.unflatten(1, (10, -1)).abs().mean(2))

    to_onnx(Hearing(), tmp_path / "sound.onnx", samples=50)
    facts = facts_of(read_onnx(tmp_path / "sound.onnx"))
    assert (facts.kind, facts.input_size, facts.classes) == ("audio", (50,), 4)
    assert from_onnx(tmp_path / "sound.onnx")(torch.rand(3, 50)).shape == (3, 4)

    to_onnx(nn.Sequential(nn.Flatten(), nn.Linear(30, 4)), tmp_path / "features.onnx", input_size=(5, 6), channels=1)
    assert Runtime(tmp_path / "features.onnx")(np.zeros((2, 1, 5, 6), np.float32)).shape == (2, 4)


class Gives(nn.Module):
    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


@pytest.mark.parametrize(
    "answer, said",
    [
        (lambda x: (x[:, :, 0, 0], x), "2 outputs"),
        (lambda x: {"a": x, "b": x, "c": x}, "3 outputs"),
        (lambda x: x, r"shape \[2, 3, 8, 8\]"),
        (lambda x: x.mean((0, 2, 3))[None], r"shape \[1, 3\]"),
        (lambda x: 3, "gives a int"),
        (lambda x: x @ torch.zeros(5, 5), r"batch of shape \[2, 3, 8, 8\]"),
        (lambda x: torch.special.i1(x)[:, :, 0, 0], "special_i1"),
    ],
)
def test_what_is_no_classifier_is_refused_and_nothing_written(answer, said: str, tmp_path) -> None:
    with pytest.raises(TeacherError, match=said):
        to_onnx(Gives(answer), tmp_path / "model.onnx", input_size=(8, 8))
    assert not list(tmp_path.iterdir())


def test_a_module_that_does_not_say_its_size_is_asked_for_it(tmp_path) -> None:
    with pytest.raises(TeacherError, match="input_size"):
        to_onnx(Foreign(), tmp_path / "model.onnx")
    with pytest.raises(TeacherError, match="cannot be written"):
        to_onnx(a_network(), tmp_path / "nowhere" / "model.onnx")
