"""Networks: normalisation that survives everything, weights out of the files people have, and the libraries' own."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from bridge.errors import ConfigError, TeacherError
from tests.conftest import ROOT
from tests.torch_aip.helpers import Foreign, a_network, pixels, randomised
from torch_aip import models
from torch_aip.models import library

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def by_hand(images):
    mean, std = (torch.tensor(IMAGENET[name]).view(3, 1, 1) for name in ("mean", "std"))
    return (images - mean) / std


def test_normalisation_is_applied_and_stands_in_no_state_dict() -> None:
    model = a_network(**IMAGENET)
    bare = copy.deepcopy(model)
    bare._forward_pre_hooks.clear()
    torch.testing.assert_close(model(pixels()), bare(by_hand(pixels())))
    assert not [key for key in model.state_dict() if "aip" in key]
    assert models.architecture_of(model)["arguments"]["mean"] == list(IMAGENET["mean"])


def test_normalisation_survives_copying_tracing_compiling_and_conversion() -> None:
    model = a_network(**IMAGENET)
    expected = model(pixels())
    traced = torch.jit.trace(model, pixels(2))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), traced, compiled):
        torch.testing.assert_close(twin(pixels()), expected)
    halved = copy.deepcopy(model).bfloat16()
    seen = []
    halved.block1.conv.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    answer = halved(pixels())
    # The constants were not rounded with the weights: only the result was.
    assert torch.equal(seen[0], by_hand(pixels()).bfloat16())
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, expected, rtol=0.05, atol=0.05 * float(expected.detach().abs().max()))
    torch.testing.assert_close(halved.float().double()(pixels()), halved.double()(pixels()))


def test_logits_are_float32_under_autocast() -> None:
    model = a_network()
    with torch.autocast("cpu", torch.bfloat16):
        answer = model(pixels())
    assert answer.dtype == torch.float32 and not torch.equal(answer, model(pixels()))


def test_a_bare_sequence_is_refused_instead_of_normalised_at_its_end() -> None:
    with pytest.raises(TeacherError, match="Sequential"):
        models.normalised(nn.Sequential(nn.Flatten()), **IMAGENET)


def test_unknown_names_and_arguments_name_the_nearest() -> None:
    for name, arguments, said in (
        ("resnt20", {}, "'resnet20'"),
        ("resnet20", {"width": 3}, "resnet20 takes classes"),
        ("resnet20x2", {}, "'resnet20'"),
        ("resnet50x2", {"width": 2}, "resnet50x2 takes classes"),
        ("resnet18x0.3", {}, "whole numbers"),
        ("resnet18x0", {}, "whole numbers"),
        ("resnet18", {"width": True}, "whole numbers"),
        ("resnet18", {"image_size": 31}, "at least 32 pixels"),
        ("torchvision/resnet19", {}, "'resnet18'"),
        ("timm/resnet19", {}, "timm has no network"),
        ("timm/resnet18.a9_in1k", {}, "a1_in1k"),
        ("torchvision/vit_b_32", {"image_size": 33}, "image_size=33"),
    ):
        with pytest.raises(ConfigError, match=said):
            models.build(name, classes=3, **arguments)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_imagenet_resnets_are_those_of_torchvision(name: str) -> None:
    from torch_aip import compat

    twin = compat.torchvision().models.get_model(name, weights=None, num_classes=7)
    model = models.build(name, classes=7).eval()
    for key, value in twin.state_dict().items():  # as drawn: torchvision's first weights have this spread too
        ours = model.state_dict()[key]
        assert ours.shape == value.shape
        if value.numel() > 5000:
            assert abs(float(ours.std() / value.std()) - 1) < 0.1, key
    models.load_state_dict(model, randomised(twin).state_dict())
    assert list(model.state_dict()) == list(twin.state_dict())
    with torch.no_grad():
        expected, answer = twin(by_hand(pixels(2, 32))), model(pixels(2, 32))
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert models.input_size_of(model) == (224, 224)
    assert models.architecture_of(model)["arguments"]["mean"] == list(IMAGENET["mean"])


@pytest.mark.parametrize(
    "name, arguments, channels, called",
    [
        ("resnet18x0.25", {}, 16, "resnet18x0.25"),
        ("resnet34", {"width": 0.5}, 32, "resnet34x0.5"),
        ("resnet18", {"width": 1}, 64, "resnet18"),
        ("resnet50x0.375", {}, 24, "resnet50x0.375"),
    ],
)
def test_imagenet_resnets_come_in_any_width(name: str, arguments, channels: int, called: str) -> None:
    model = models.build(name, classes=3, image_size=32, **arguments).eval()
    described = models.architecture_of(model)
    assert described["architecture"] == called and models.is_known(called)
    first, last = model.state_dict()["conv1.weight"], model.state_dict()["fc.weight"]
    expansion = 4 if "50" in name else 1
    assert (len(first), last.shape[1]) == (channels, 8 * channels * expansion)
    again = models.build(described["architecture"], **described["arguments"])
    models.load_state_dict(again, model.state_dict())
    assert torch.equal(again.eval()(pixels(2, 32)), model(pixels(2, 32)))


def test_nothing_is_imported_until_a_library_is_asked_for() -> None:
    code = (
        "import sys; from torch_aip import models; models.build('resnet20', classes=2); "
        "assert models.is_known('timm/x') and not {'torchvision', 'timm', 'onnx', 'onnx2torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "name, size",
    [("torchvision/shufflenet_v2_x0_5", 224), ("timm/mobilenetv3_small_050", 224), ("timm/vit_tiny_patch16_224", 32)],
)
def test_library_networks_are_rebuilt_from_their_description(name: str, size: int, tmp_path) -> None:
    from torch_aip import load_teacher, save_teacher

    arguments = {} if size == 224 else {"image_size": size}
    model = models.build(name, classes=3, **IMAGENET, **arguments).eval()
    assert models.input_size_of(model) == (size, size)
    card = save_teacher(model, tmp_path / "teacher")
    assert card.architecture == name and card.layout == "NCHW"
    torch.testing.assert_close(load_teacher(tmp_path / "teacher")(pixels(2, size)), model(pixels(2, size)))


def test_published_weights_come_from_the_cache_with_class_names(tmp_path, monkeypatch, capsys) -> None:
    from torch_aip import load_teacher

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = "torchvision/shufflenet_v2_x0_5"
    twin = models.build(name, classes=1000, **IMAGENET).eval()
    weights = library._torchvision_facts("shufflenet_v2_x0_5")[0]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(twin.state_dict(), tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2])
    teacher = load_teacher(name)
    torch.testing.assert_close(teacher(pixels(1, 224)), twin(pixels(1, 224)))
    assert teacher.class_names[:2] == ("tench", "goldfish") and teacher.digest
    assert capsys.readouterr() == ("", "")


def test_published_weights_that_cannot_be_had_say_what_was_tried(tmp_path, monkeypatch, capsys) -> None:
    from torch_aip import load_teacher

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    weights = library._torchvision_facts("shufflenet_v2_x0_5")[0]
    monkeypatch.setattr(type(weights), "url", "http://127.0.0.1:9/shufflenet-00000000.pth")
    with pytest.raises(TeacherError, match=r"cannot be fetched .*127\.0\.0\.1:9.*TORCH_HOME"):
        load_teacher("torchvision/shufflenet_v2_x0_5")
    assert "downloading http://127.0.0.1:9" in capsys.readouterr().err
    with pytest.raises(TeacherError, match="'resnet18'"):
        load_teacher("torchvision/resnet19")


@pytest.mark.parametrize(
    "prefix", ["", "module.", "student.", "_orig_mod.", "model.", "module._orig_mod.model.", "module.student."]
)
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "student"])
def test_weights_are_found_in_what_training_programs_write(prefix: str, wrapper: str | None, tmp_path) -> None:
    source, target = a_network(seed=1), a_network(seed=2)
    content = {prefix + key: value for key, value in source.state_dict().items()}
    if "student." in prefix:
        content[prefix.replace("student.", "teacher.") + "fc.weight"] = torch.zeros(7)
    content = content if wrapper is None else {wrapper: content, "epoch": 3, "optimizer": {"state": [1, 2]}}
    torch.save(content, tmp_path / "weights.pt")
    models.load_weights(target, tmp_path / "weights.pt")
    torch.testing.assert_close(target(pixels()), source(pixels()))


def test_a_published_checkpoint_of_the_reference_becomes_a_folder_that_evaluates(tmp_path) -> None:
    """As its ImageNet trainer writes them: under DataParallel, with optimizer, epoch and teacher beside."""
    from bridge.datasets import Labelled
    from bridge.teachers.export import export
    from bridge.teachers.options import ExportConfig
    from torch_aip import evaluate, load_teacher

    student = randomised(models.build("resnet18x0.25", classes=1000, image_size=64))
    optimizer = torch.optim.SGD(student.parameters(), 0.1)
    content = {
        "epoch": 200, "arch": "resnet18x0.25", "best_acc1": torch.tensor(69.0), "optimizer": optimizer.state_dict(),
        "state_dict": {f"module.{name}": tensor for name, tensor in student.state_dict().items()},
        "teacher": {f"module.{name}": tensor for name, tensor in a_network().state_dict().items()},
    }  # fmt: skip
    torch.save(content, tmp_path / "student.pth")
    line: dict[str, Any] = {"model": "resnet18x0.25", "weights": str(tmp_path / "student.pth"), "image_size": 64}
    card = export(ExportConfig(**line, out=str(tmp_path / "folder")))
    assert (card.architecture, card.classes, card.layout) == ("resnet18x0.25", 1000, "NCHW")
    teacher = load_teacher(tmp_path / "folder")
    expected = student(pixels(2, 64)).detach()
    torch.testing.assert_close(teacher(pixels(2, 64)), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    images = (np.random.default_rng(0).random((4, 64, 64, 3)) * 255).astype(np.uint8)
    labels = teacher(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).argmax(1).numpy()
    assert evaluate(teacher, Labelled(images, labels, None, "four"))["student_top1"] == 1


def test_prefixes_that_belong_to_the_model_stay(tmp_path) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 2)

    source, target = Holder(), Holder()
    safetensors.torch.save_file({f"module.{k}": v for k, v in source.state_dict().items()}, tmp_path / "w.safetensors")
    models.load_weights(target, tmp_path / "w.safetensors")
    assert torch.equal(target.model.weight, source.model.weight)


def test_weights_that_do_not_fit_are_all_listed_and_nothing_is_changed(tmp_path) -> None:
    model = a_network()
    before = models.state_dict(model)
    content = dict(model.state_dict())
    content["fc.weight"] = content["fc.weight"][:2]
    content["head.bias"] = content.pop("fc.bias")
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(
        TeacherError,
        match=r"small_cnn.*missing: fc\.bias; not in the model: head\.bias; .*fc\.weight \(given \(2, 4\), expected",
    ):
        models.load_weights(model, tmp_path / "weights.pt")
    assert all((before[key] == array).all() for key, array in models.state_dict(model).items())


class Bomb:
    def __reduce__(self):
        return (open, (str(ROOT / "never_written_by_a_pickle"), "w"))


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path) -> None:
    for number, content in enumerate((Bomb(), {"state_dict": {}, "hparams": Bomb()})):
        path = tmp_path / f"{number}.pt"
        torch.save(content, path)
        with pytest.raises(TeacherError, match=r"code would have to be run"):
            models.load_weights(a_network(), path)
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(TeacherError, match=r"code would have to be run|no checkpoint"):
            models.load_weights(a_network(), path)
    assert not (ROOT / "never_written_by_a_pickle").exists()


def test_files_that_hold_no_weights_are_named(tmp_path) -> None:
    model = a_network()
    torch.save(model.state_dict(), tmp_path / "torn.pt")
    (tmp_path / "torn.pt").write_bytes((tmp_path / "torn.pt").read_bytes()[:1000])
    (tmp_path / "text.pt").write_text("not weights")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.safetensors").write_text("not weights at all")
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "other.pt")
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    for name in ("torn.pt", "text.pt", "empty.pt", "text.safetensors", "other.pt", "list.pt", "none.pt", "."):
        with pytest.raises(TeacherError, match=name.replace(".", r"\.") if name != "." else "There is no file"):
            models.load_weights(model, tmp_path / name)


def test_compiled_and_wrapped_models_are_seen_through() -> None:
    model = a_network()
    wrapped = torch.compile(nn.DataParallel(model), backend="eager")
    assert models.plain(wrapped) is model
    assert models.architecture_of(wrapped) == models.architecture_of(model)
    assert models.state_dict(wrapped).keys() == models.state_dict(model).keys()
    assert models.architecture_of(Foreign()) is None and models.input_size_of(Foreign()) is None


def test_networks_of_every_name_answer() -> None:
    for name in models.names():
        if name.startswith("x3d_"):  # takes clips: see test_x3d.py
            continue
        if name not in ("resnet110", "wrn_40_4", "vgg16", "vgg19", "resnet34", "resnet50", "resnet101"):
            model = randomised(models.build(name, classes=3))
            assert model(pixels(1, 32)).shape == (1, 3), name
