"""Networks for video: X3D, and torchvision's by name; as teachers, in folders and through ONNX."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bridge.errors import ConfigError, TeacherError
from bridge.teachers.card import Card
from tests.torch_aip.helpers import clips, randomised
from torch_aip import Teacher, load_teacher, models, save_teacher
from torch_aip.models import library

SMALL: dict[str, Any] = {"frames": 3, "image_size": 32, "width": 0.5, "depth": 0.5}


def a_video_network(classes: int = 3, seed: int = 0, **arguments: Any) -> nn.Module:
    return randomised(models.build("x3d_xs", classes=classes, **SMALL, **arguments), seed)


def close(answer: Any, expected: Any, tolerance: float = 1e-5) -> None:
    expected = torch.as_tensor(expected).detach()
    torch.testing.assert_close(
        torch.as_tensor(answer), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())
    )


@pytest.mark.parametrize(
    "name, parameters, size",
    [
        ("x3d_xs", 3_794_274, (4, 160, 160)),
        ("x3d_s", 3_794_274, (13, 160, 160)),
        ("x3d_m", 3_794_274, (16, 224, 224)),
        ("x3d_l", 6_153_384, (16, 312, 312)),
        ("x3d_xs_e", 18_683_794, (4, 160, 160)),
        ("x3d_s_e", 18_683_794, (4, 160, 160)),
    ],
)
def test_x3d_has_the_published_size(name: str, parameters: int, size: tuple[int, ...]) -> None:
    model = models.build(name, classes=400)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert models.input_size_of(model) == size
    described: Any = models.architecture_of(model)
    assert described["architecture"] == {"x3d_s_e": "x3d_xs_e"}.get(name, name)
    assert described["arguments"]["mean"] == [0.45] * 3 and described["arguments"]["std"] == [0.225] * 3
    assert described["arguments"]["dropout"] == (0 if name.endswith("_e") else 0.5)


def test_x3d_has_the_names_of_the_published_checkpoints() -> None:
    shapes = {name: tuple(t.shape) for name, t in models.build("x3d_xs", classes=400).state_dict().items()}
    for name, shape in {
        "blocks.0.conv.conv_t.weight": (24, 3, 1, 3, 3),
        "blocks.0.conv.conv_xy.weight": (24, 1, 5, 1, 1),
        "blocks.0.norm.running_var": (24,),
        "blocks.1.res_blocks.0.branch1_conv.weight": (24, 24, 1, 1, 1),
        "blocks.2.res_blocks.0.branch1_norm.weight": (48,),
        "blocks.2.res_blocks.4.branch2.norm_b.0.weight": (108,),
        "blocks.2.res_blocks.4.branch2.norm_b.1.block.2.bias": (108,),
        "blocks.4.res_blocks.6.branch2.conv_c.weight": (192, 432, 1, 1, 1),
        "blocks.5.pool.post_conv.weight": (2048, 432, 1, 1, 1),
        "blocks.5.proj.weight": (400, 2048),
    }.items():
        assert shapes[name] == shape
    assert "blocks.1.res_blocks.0.branch1_norm.weight" not in shapes  # as many channels before as after
    assert "blocks.2.res_blocks.1.branch2.norm_b.1.block.0.weight" not in shapes  # every second one squeezes


def test_clips_are_normalised_by_channel_not_by_frame() -> None:
    model = a_video_network(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))  # as many frames as channels
    bare = copy.deepcopy(model)
    bare._forward_pre_hooks.clear()
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in ((0.1, 0.2, 0.3), (0.5, 1.0, 2.0)))
    close(model(clips(2, 3)), bare((clips(2, 3) - mean) / std))


def test_x3d_sees_the_order_of_frames_and_takes_more_of_them() -> None:
    model, x = a_video_network(), clips(2, 3)
    answer = model(x)
    assert answer.dtype == torch.float32 and answer.shape == (2, 3)
    assert not torch.allclose(model(x.flip(2)), answer, rtol=1e-3)
    assert model(clips(1, 7, 48)).shape == (1, 3)
    with torch.autocast("cpu", torch.bfloat16):
        halved = model(x)
    assert halved.dtype == torch.float32 and not torch.equal(halved, answer)


def test_x3d_begins_as_its_shortcuts_and_learns_in_all_its_parts() -> None:
    model = models.build("x3d_xs_e", classes=3, **SMALL)
    blocks = [block for stage in list(model.blocks)[1:-1] for block in stage.res_blocks]
    assert not any(block.branch2.norm_c.weight.any() for block in blocks)
    randomised(model).train()(clips(2, 3)).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_dropout_is_the_architectures_own_unless_given() -> None:
    for name, given, expected in (("x3d_xs", None, 0.5), ("x3d_xs_e", None, 0.0), ("x3d_xs", 0.2, 0.2)):
        arguments: dict[str, Any] = {} if given is None else {"dropout": given}
        assert models.build(name, classes=3, **SMALL, **arguments).blocks[-1].dropout.p == expected


def test_what_cannot_be_built_says_why() -> None:
    cases: Any = (
        ("x3d_xl", {}, "'x3d_l'"),
        ("x3d_xs", {"frame": 4}, "'frames'"),
        ("x3d_xs", {"frames": 0}, "frames=0"),
        ("x3d_xs", {"image_size": 31}, "at least 32 pixels"),
        ("x3d_xs", {"width": 0}, "width=0 must be a number above 0"),
        ("x3d_xs", {"depth": "3"}, "depth='3'"),
        ("x3d_xs", {"dropout": 1}, "below 1"),
        ("resnet18", {"frames": 4}, "resnet18 takes classes"),
        ("torchvision/resnet18", {"frames": 4}, "takes classes"),
        ("torchvision/r3d_19", {}, "'r3d_18'"),
        ("torchvision/s3d", {"frames": 4}, "frames=4 must be a whole number of at least 14"),
        ("torchvision/s3d", {"image_size": 64}, "at least 224 pixels"),
        ("torchvision/mvit_v2_s", {"frames": 4}, "16 frames of 224 pixels and no others"),
    )
    for name, arguments, said in cases:
        with pytest.raises(ConfigError, match=said):
            models.build(name, classes=3, **arguments)


def test_a_video_network_is_saved_and_loaded_as_a_teacher(tmp_path) -> None:
    model = a_video_network()
    card = save_teacher(model, tmp_path / "teacher")
    assert (card.kind, card.layout, card.input_size) == ("video", "NCTHW", (3, 32, 32))
    assert Card.load(tmp_path / "teacher") == card
    teacher = load_teacher(tmp_path / "teacher")
    assert teacher.input_size == (3, 32, 32) and teacher.classes == 3
    close(teacher(clips(2, 3)), model(clips(2, 3)))
    with pytest.raises(TeacherError, match=r"\[batch, 3, 3, 32, 32\], not \[2, 3, 4, 32, 32\]"):
        teacher(clips(2, 4))


def test_a_foreign_video_module_is_a_teacher_too(tmp_path) -> None:
    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv3d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(torch.relu(self.conv(x)).mean((2, 3, 4)))

    model, x = Foreign().eval(), clips(2, 3, 8)
    close(Teacher(model, mean=(0.45,) * 3, std=(0.225,) * 3)(x), model((x - 0.45) / 0.225))
    with pytest.raises(TeacherError, match=r"of clips \(frames, height, width\)"):
        save_teacher(model, tmp_path / "teacher")
    card = save_teacher(model, tmp_path / "teacher", input_size=(3, 8, 8))
    assert card.kind == "video" and set(card.forms) == {"safetensors", "onnx"}
    close(load_teacher(tmp_path / "teacher")(x), model(x))


def test_a_checkpoint_of_video_becomes_a_folder_whose_forms_answer_alike(tmp_path) -> None:
    from bridge.teachers.export import export
    from bridge.teachers.options import ExportConfig
    from bridge.teachers.parity import verify

    model = a_video_network(classes=400)
    torch.save({"model_state": model.state_dict(), "cfg": "X3D"}, tmp_path / "X3D.pyth")  # as they are published
    card = export(
        ExportConfig(
            model="x3d_xs", weights=str(tmp_path / "X3D.pyth"), out=str(tmp_path / "teacher"), image_size=32, frames=3,
            arguments=("width=0.5", "depth=0.5"),
        )
    )  # fmt: skip
    assert (card.kind, card.input_size, card.classes) == ("video", (3, 32, 32), 400)
    assert set(card.forms) == {"safetensors", "onnx"}
    engines = ("onnxruntime", "torch_safetensors", "torch_onnx")
    report = verify(tmp_path / "teacher", views=6, batch_size=8, engines=engines)
    assert report["passed"] and all(report["engines"][name]["agreement"] == 1 for name in engines)
    assert report["inputs"]["shape"] == (3, 32, 32, 3)


def test_torchvisions_video_networks_come_as_published_with_class_names(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name, weights = "torchvision/mc3_18", library._torchvision_facts("mc3_18")[0]
    twin = models.build(name, classes=400, frames=2, image_size=16, mean=weights.transforms().mean,
                        std=weights.transforms().std).eval()  # fmt: skip
    assert models.input_size_of(twin) == (2, 16, 16)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(twin.state_dict(), tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2])
    model, card = library.pretrained(name)
    assert (card.kind, card.input_size, card.layout) == ("video", (16, 112, 112), "NCTHW")
    assert card.class_names and card.class_names[0] == "abseiling"
    assert card.accuracy and card.accuracy["dataset"] == "Kinetics-400, as published"
    x = clips(1, 2, 16)
    close(model.eval()(x), twin(x))
    student = models.build(**{"architecture": card.architecture, **card.arguments, "frames": 2, "image_size": 16})
    models.load_weights(student, tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2])
    assert np.isfinite(Teacher(student)(x).numpy()).all()
