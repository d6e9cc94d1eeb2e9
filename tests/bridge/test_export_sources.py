"""What `bridge export --model` may name; nothing that brings code is touched without --trust."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bridge.errors import ConfigError, TeacherError
from bridge.teachers.export import in_unit_range
from bridge.teachers.sources import arguments_of, made_by_factory, source_of


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("net.onnx", "net.keras", "net.h5", "net.tflite", "weights.pt", "code.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_text("")
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "card.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "name, kind, label",
    [
        ("{}/net.onnx", "onnx", "net"),
        ("{}/net.keras", "keras", "net"),
        ("{}/net.h5", "keras", "net"),
        ("{}/net.tflite", "tflite", "net"),
        ("{}/saved", "saved_model", "saved"),
        ("{}/code.py:build", "factory", "code"),
        ("package.module:build", "factory", "package_module"),
        ("torchvision/resnet18", "torchvision", "torchvision_resnet18"),
        ("timm/resnet18.a1_in1k", "timm", "timm_resnet18_a1_in1k"),
        ("keras.applications/MobileNetV2", "keras.applications", "keras_MobileNetV2"),
        ("torch.hub:pytorch/vision:resnet18", "hub", "resnet18"),
        ("torch.hub:pytorch/vision:v0.10.0:resnet18", "hub", "resnet18"),
        ("resnet56", "architecture", "resnet56"),
    ],
)
def test_every_kind_of_source_is_told_from_its_name(files: Path, name: str, kind: str, label: str) -> None:
    found = source_of(name.format(files), trust=True)
    assert (found.kind, found.label) == (kind, label)


@pytest.mark.parametrize("name", ["{}/code.py:build", "os:system", "torch.hub:a/b:c", "{}/saved"])
def test_what_brings_code_needs_trust(files: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--trust"):
        source_of(name.format(files))


@pytest.mark.parametrize(
    "name, words",
    [
        ("{}/absent.onnx", "There is no file"),
        ("{}/absent.py:build", "There is no file"),
        ("{}/weights.pt", "weights without a network"),
        ("{}/teacher", "teacher folder already.*convert"),
        ("{}/empty", "neither card.json nor saved_model.pb"),
        ("torch.hub:resnet18", "OWNER/REPO:ENTRY"),
        ("torchvison/resnet18", "mean 'torchvision/'"),
        ("what is this", "no such file"),
    ],
)
def test_other_names_are_refused_with_what_to_give_instead(files: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        source_of(name.format(files), trust=True)


def test_arguments_are_read_as_yaml() -> None:
    assert arguments_of(["n=9", "npz=a=b.npz", "on=true", "sides=[1, 2]"]) == {
        "n": 9, "npz": "a=b.npz", "on": True, "sides": [1, 2],
    }  # fmt: skip
    for wrong in (["n"], ["1n=2"], ["n=1", "n=2"], ["n=[1"]):
        with pytest.raises(ConfigError, match="--arguments"):
            arguments_of(wrong)


def test_a_factory_file_may_import_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_me.py").write_text("value = 3\n")
    (tmp_path / "beside_me_too.py").write_text("value = 5\n")
    (tmp_path / "maker.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport beside_me\n"
        "@dataclass\nclass Net:\n    width: int = 2\n"
        "def make(k=1):\n    import beside_me_too\n    return beside_me.value * beside_me_too.value * Net(k).width\n"
    )
    before = list(sys.path)
    assert made_by_factory(f"{tmp_path / 'maker.py'}:make", {"k": 2}) == 30
    assert sys.path == before


@pytest.mark.parametrize(
    "text, entry, words",
    [
        ("def make(): pass", "mak", "no 'mak'.*make"),
        ("import no_such_package_here", "make", "cannot be imported.*no_such_package_here"),
        ("def make(): return 1 / 0", "make", r"make\(\) failed \(ZeroDivisionError"),
        ("def make(", "make", "cannot be imported.*SyntaxError"),
    ],
)
def test_a_factory_that_fails_is_named(tmp_path: Path, text: str, entry: str, words: str) -> None:
    (tmp_path / "maker.py").write_text(text + "\n")
    with pytest.raises(TeacherError, match=words):
        made_by_factory(f"{tmp_path / 'maker.py'}:{entry}", {})


def test_ranges_become_mean_and_deviation_of_pixels_in_0_to_1() -> None:
    assert in_unit_range((0, 1), None, None) is None
    assert in_unit_range((0, 1), (0.4,), (0.2, 0.3, 0.4)) == ((0.4, 0.4, 0.4), (0.2, 0.3, 0.4))
    mean, std = in_unit_range((0, 255), (127.5,), (51.0,)) or ((), ())
    assert mean == pytest.approx((0.5,) * 3) and std == pytest.approx((0.2,) * 3)
    mean, std = in_unit_range((-1, 1), None, None) or ((), ())  # 2 x − 1
    assert mean == pytest.approx((0.5,) * 3) and std == pytest.approx((0.5,) * 3)
