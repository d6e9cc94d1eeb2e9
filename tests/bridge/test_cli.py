"""The framework-free program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from bridge.cli import main
from bridge.errors import TeacherError
from bridge.teachers.card import Card
from bridge.teachers.shelf import find_folder
from tests.conftest import ROOT


def test_views_are_written_without_any_framework(tmp_path, capsys):
    line = ["views", "--image", "sklearn:flower.jpg", "--out", str(tmp_path), "--grid", "3", "--recipe", "imagenet"]
    assert main([*line, "--image-size", "48", "--count", "4", "--layout", "tar", "--kind", "augmented"]) == 0
    said = capsys.readouterr().out
    for name in ("base", "augmented", "mixed"):
        assert f"{name}.png: 9 views" in said
    assert Image.open(tmp_path / "base.png").width > Image.open(tmp_path / "augmented.png").width  # 55 and 48 pixels
    assert (tmp_path / "files" / "views-000000.tar").exists()


def test_card_is_shown_and_a_tampered_folder_refused(tmp_path, capsys):
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    Card(classes=3, input_size=(8, 8), forms={"safetensors": "weights.safetensors"}).sealed(tmp_path).save(tmp_path)
    assert main(["card", "--model", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == 3
    (tmp_path / "weights.safetensors").write_bytes(b"other weights")
    assert main(["card", "--model", str(tmp_path)]) == 2
    assert "weights.safetensors" in capsys.readouterr().err


def test_missing_options_are_asked_for(capsys):
    assert main(["views"]) == 2 and main(["card"]) == 2
    assert "--image" in capsys.readouterr().err


@pytest.mark.parametrize("module, framework", [("keras_aip", "keras"), ("torch_aip", "torch")])
def test_an_interrupt_while_a_framework_is_imported_is_one_line(module, framework, tmp_path):
    (tmp_path / f"{framework}.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, f"{module.replace('_', '-')}: interrupted.\n")


def test_an_unwritable_out_is_refused_before_anything_is_computed(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "below", tmp_path / "file" / "below" / "that"):
        assert main(["views", "--image", "nowhere.jpg", "--out", str(out)]) == 2  # that it is missing is found later
        assert f"nothing can be made in {tmp_path / 'file'} (Not a directory)" in capsys.readouterr().err
    assert main(["views", "--image", "nowhere.jpg", "--out", str(tmp_path / "new" / "folder")]) == 2
    assert "nowhere.jpg" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_a_missing_student_is_looked_for_among_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("done", "going"):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "run.json").write_text("{}")
    student = Path("runs", "done", "student")
    student.mkdir()
    (student / "card.json").write_text("{}")
    for given, said in (
        ("runs/none/student", f"There is no student 'runs/none/student'.*--out runs/none`.*there are {student}"),
        ("runs/going/student", "runs/going is a run that has not ended.*`distill --out runs/going --resume`"),
        ("runs/done", f"a whole run; give its student: {student}"),
    ):
        with pytest.raises(TeacherError, match=said) as refused:
            find_folder(given, "cifar10")
        assert "train-teacher" not in str(refused.value)
    assert find_folder(student) == student
