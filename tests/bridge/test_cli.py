"""The framework-free program."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image

from bridge.cli import main
from bridge.config import DistillConfig, EvaluateConfig, SweepConfig, ViewsConfig
from bridge.errors import ConfigError, TeacherError
from bridge.insight.options import FidelityConfig, ScoreConfig, VisualizeConfig
from bridge.shell import Command, parse
from bridge.shell import main as run_program
from bridge.sweep.grid import axes_of, base_options
from bridge.teachers.card import Card
from bridge.teachers.options import ConvertConfig, ExportConfig
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


def test_an_out_of_the_wrong_kind_is_refused_at_once(tmp_path, capsys):
    (file := tmp_path / "file").write_text("mine")

    def run(config):
        pytest.fail("begun")

    configs = (DistillConfig, SweepConfig, ViewsConfig, VisualizeConfig, ScoreConfig, FidelityConfig, ExportConfig)
    for config in configs:
        assert run_program("p", "", {"it": Command(config, run, {}, {})}, ["it", "--out", str(file)]) == 2
        assert f"--out {file} is a file; expected a folder" in capsys.readouterr().err
    evaluate = Command(EvaluateConfig, run, {}, {}, writes_file=True)
    assert run_program("p", "", {"it": evaluate}, ["it", "--out", str(tmp_path)]) == 2
    assert f"--out {tmp_path} is a folder; expected a file" in capsys.readouterr().err
    for command, out in ((evaluate, file), (evaluate, tmp_path / "new"), (Command(ScoreConfig, run, {}, {}), tmp_path)):
        with pytest.raises(pytest.fail.Exception, match="begun"):
            run_program("p", "", {"it": command}, ["it", "--out", str(out)])
    for out in (file, tmp_path):  # which of them is meant, its --to says
        with pytest.raises(pytest.fail.Exception, match="begun"):
            run_program("p", "", {"it": Command(ConvertConfig, run, {}, {})}, ["it", "--out", str(out)])
    assert file.read_text() == "mine"


def test_an_interrupt_says_how_to_go_on_by_what_was_asked_for(tmp_path, capsys):
    def run(config):
        raise KeyboardInterrupt

    commands = {"distill": Command(DistillConfig, run, {}, {})}
    (tmp_path / "run.json").write_text("{}")
    for words, said in (([], "choose another --out"), (["--resume"], "begins at step 0")):
        assert run_program("p", "", commands, ["distill", "--out", str(tmp_path), *words]) == 130
        assert said in capsys.readouterr().err


def test_what_an_option_of_the_runs_is_told_the_sweep_takes():
    command = Command(SweepConfig, print, {}, {}, of_each=DistillConfig)
    for option in {field.name for field in fields(DistillConfig)} - {field.name for field in fields(SweepConfig)}:
        with pytest.raises(ConfigError, match="is an option of the runs, not of sweep: give ") as caught:
            parse("p", "sweep", command, [f"--{option.replace('_', '-')}", "3"])
        told = str(caught.value).partition(": give ")[2].split()
        assert f"--set {option}=3" in " ".join(told) and ("--vary" in told) == (option != "seed")
        for place in (place for place, word in enumerate(told) if word == "--vary"):
            assert axes_of(SweepConfig(vary=(told[place + 1].strip(",…"),)))[0].option == option
    with pytest.raises(ConfigError, match=r"--seeds COUNT .* --set seed=3"):
        parse("p", "sweep", command, ["--seed", "3"])
    assert base_options(SweepConfig(set=("seed=3",))).seed == 3


def test_a_missing_student_is_looked_for_among_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, begun in (("done", {}), ("going", {}), ("torch", {"environment": {"torch": "2.13"}}), ("s", {})):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "run.json").write_text(json.dumps(begun))
    student = Path("runs", "done", "student")
    student.mkdir()
    (student / "card.json").write_text("{}")
    of_sweep = Path("runs", "s", "runs", "seed=0", "student")
    of_sweep.parent.mkdir(parents=True)
    lost = Path("runs", "lost")
    lost.mkdir()
    for name in ("run.json", "result.json"):
        (lost / name).write_text("{}")
    for given, said in (
        ("runs/none/student", f"There is no student 'runs/none/student'.*--out runs/none`.*there are {student}"),
        ("runs/going/student", "runs/going is a run that has not ended.*`python -m keras_aip distill --out "),
        ("runs/torch/student", "has not ended.*`python -m torch_aip distill --out runs/torch --resume`"),
        ("runs/lost/student", "runs/lost is a run that has ended, but its student is not there any more"),
        ("runs/s/student", "runs/s is a sweep, each of whose runs has a student at its end; runs/s/runs holds none"),
        ("runs/done", f"a whole run; give its student: {student}"),
    ):
        with pytest.raises(TeacherError, match=said) as refused:
            find_folder(given, "cifar10")
        assert "train-teacher" not in str(refused.value)
    of_sweep.mkdir()
    (of_sweep / "card.json").write_text("{}")
    with pytest.raises(TeacherError, match=f"runs/s is a sweep.*; there are {of_sweep}"):
        find_folder("runs/s/student")
    assert find_folder(student) == student


@pytest.mark.parametrize(("program", "framework"), [("torch_aip", "torch"), ("keras_aip", "tensorflow")])
def test_a_missing_framework_is_one_line_that_says_what_to_install(tmp_path, program, framework):
    (tmp_path / f"{framework}.py").write_text(f"raise ModuleNotFoundError('gone', name={framework!r})")
    done = subprocess.run(
        [sys.executable, "-m", program, "--help"], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        f"{program.replace('_', '-')}: {framework} is not installed here: `pip install -r requirements/"
    )
