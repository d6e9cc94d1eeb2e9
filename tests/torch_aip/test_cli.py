"""The commands as a user types them: they work, and every mistake gets one message and exit code 2."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

import torch_aip
from bridge.runs import RESULT_KEYS
from bridge.states import StateStore
from tests.conftest import ROOT
from torch_aip.cli import main


def error_of(capsys, *arguments):
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert code == 2, captured
    assert "Traceback" not in captured.err and captured.err.splitlines()[-1].startswith("torch-aip: ")
    return captured.err


def distil(teacher, out, *more):
    return [
        *("distill", "--teacher", teacher, "--out", str(out), "--image", "sklearn:china.jpg"),
        *("--student", "small_cnn", "--student-width", "2", "--smoke", *map(str, more)),
    ]


def test_distillation_leaves_a_complete_run_folder(teacher, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(distil(teacher, out, "--ema", "0.9", "--clip-norm", "1", "--accumulate", "1")) == 0
    assert "no real image and no label" in capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    assert set(RESULT_KEYS) <= set(result)
    assert result["n"] == 500 and 0 <= result["student_top1"] <= 1 and result["views"] == 320
    assert "<img" in (out / "report.html").read_text() and list((out / "events").iterdir())
    model, card = torch_aip.load_model(out / "student")
    assert card.accuracy["top1"] == result["student_top1"]
    assert torch_aip.evaluate(model, "digits")["student_top1"] == result["student_top1"]
    state = StateStore(out / "state").load()
    assert state is not None and state.step == 10
    assert {name.partition("/")[0] for name in state.arrays} == {"student", "average", "optimizer"}
    # what is delivered is the average
    weights = {name: array for name, array in model.state_dict().items() if "num_batches" not in name}
    assert all(np.array_equal(state.arrays[f"average/{name}"], kept.numpy()) for name, kept in weights.items())
    assert "already holds a run" in error_of(capsys, *distil(teacher, out))


def test_the_references_spelling_of_options_works_and_its_folder_of_patches(teacher, tmp_path):
    (tmp_path / "patches").mkdir()
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "patches" / f"{number}.png")
    line = [
        *("distill", "--dataset", "digits", "--traindir", str(tmp_path / "patches"), "--out", str(tmp_path / "run")),
        *("--student_arch", "small_cnn", "--teacher_arch", teacher, "--batch_size=8", "--smoke"),
    ]
    assert main(line) == 0
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept["patches"] is True and kept["image"].endswith("patches") and kept["student"] == "small_cnn"


def test_a_folder_of_images_is_measured_on_where_the_line_says_so(teacher, tmp_path, capsys):
    for digit in range(10):
        (tmp_path / "val" / str(digit)).mkdir(parents=True)
        Image.new("RGB", (40, 50), (digit * 20, 0, 0)).save(tmp_path / "val" / str(digit) / "a.png")
    assert main(distil(teacher, tmp_path / "run", "--testdir", tmp_path / "val", "--render", "device")) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["n"] == 10
    (tmp_path / "val" / "3" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    capsys.readouterr()
    assert main(["evaluate", "--model", str(tmp_path / "run" / "student"), "--testdir", str(tmp_path / "val")]) == 0
    said = capsys.readouterr()
    assert "broken.jpg" in said.err and json.loads(said.out)["n"] == 10


@pytest.mark.parametrize(
    "options, words",
    [
        (["--image", "nowhere.jpg"], ["nowhere.jpg"]),
        (["--teacher", "wrn_40_4"], ["wrn_40_4", "train-teacher"]),
        (["--student", "resnet51"], ["Did you mean 'resnet5"]),
        (["--loss", "kll"], ["Did you mean 'kl'"]),
        (["--strategy", "mirrored"], ["torchrun --nproc-per-node"]),
        (["--ema", "1.5"], ["--ema (=1.5)"]),
        (["--image-size", "16"], ["16", "32", "teacher"]),
        (["--testdir", "empty"], ["empty"]),
        (["--testdir", "classes"], ["classes", "Classes without a folder"]),
        (["--resume"], ["no run to resume"]),
        (["--smoke", "--accumulate", "4"], ["multiple of 64"]),
    ],
)
def test_wrong_values_are_named_before_work_is_lost(teacher, tmp_path, capsys, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "classes" / "cat").mkdir(parents=True)
    Image.new("RGB", (40, 50)).save(tmp_path / "classes" / "cat" / "a.png")
    message = error_of(capsys, *distil(teacher, tmp_path / "run", *options))
    assert all(word in message for word in words), message
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_sweep_runs_distillations_of_this_backend(teacher, tmp_path, capsys):
    out = tmp_path / "s"
    line = [
        *("sweep", "--teacher", teacher, "--image", "sklearn:china.jpg", "--seeds", "1", "--vary", "loss=kl"),
        *("--out", str(out), "--threads", "1", "--set", "student=small_cnn", "student_width=2", "batch_size=16"),
        *("views=32", "epochs=1"),
    ]
    assert main(line) == 0
    assert (out / "runs" / "loss=kl_seed=0" / "student" / "card.json").exists()
    wrong = [item.replace("loss=kl", "loss=kll").replace(str(out), str(tmp_path / "t")) for item in line]
    assert "Did you mean 'kl'" in error_of(capsys, *wrong)


def test_options_of_a_sweeps_runs_are_pointed_to_where_they_belong(teacher, capsys):
    said = error_of(capsys, "sweep", "--teacher", teacher, "--image", "sklearn:china.jpg", "--temperature", "4")
    assert "--set temperature=4 for all of them, or --vary temperature=4,…" in said


def test_a_result_without_a_folder_is_refused_before_it_is_measured(teacher, tmp_path, capsys):
    out = tmp_path / "missing" / "result.json"
    assert f"there is no folder {out.parent}" in error_of(capsys, "evaluate", "--model", teacher, "--out", out)


def test_a_run_that_stopped_before_its_first_state_begins_again_and_says_so(teacher, tmp_path, capsys):
    line = distil(teacher, tmp_path / "run")
    assert main(line) == 0
    for path in ((tmp_path / "run" / "state"), (tmp_path / "run" / "student")):
        shutil.rmtree(path)
    (tmp_path / "run" / "result.json").unlink()
    capsys.readouterr()
    assert main([*line, "--resume"]) == 0
    assert "stopped before an epoch was complete: beginning at step 0" in capsys.readouterr().out


# -- killed and resumed -----------------------------------------------------------------------------------------------

# The program itself, which ends itself with SIGKILL after the epoch of the given number.
KILLED = """
import os, signal, sys
import torch_aip.distill as module
from torch_aip.cli import main

class Fatal(module.SaveRun):
    def __call__(self, epoch, logs):
        super().__call__(epoch, logs)
        if epoch == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)

module.SaveRun = Fatal
sys.exit(main(sys.argv[2:]))
"""


def test_a_killed_run_ends_with_the_very_weights_it_would_have_had(teacher, tmp_path, capsys):
    def line(out):
        return (
            f"distill --teacher {teacher} --out {out} --image sklearn:china.jpg --student small_cnn --student-width 2 "
            "--views 40 --batch-size 16 --epochs 4 --steps-per-epoch 3 --optimizer adamw --schedule cosine "
            "--warmup 0.2 --ema 0.9 --deterministic --threads 1"
        ).split()

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "1", *line(tmp_path / "killed")], cwd=ROOT, capture_output=True, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "killed" / "result.json").exists()
    whole = subprocess.run(
        [sys.executable, "-m", "torch_aip", *line(tmp_path / "whole")], cwd=ROOT, capture_output=True, text=True,
        timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert whole.returncode == 0, whole.stderr
    changed = [*line(tmp_path / "killed"), "--resume", "--temperature", "4"]
    assert "temperature" in error_of(capsys, *changed)
    resumed = subprocess.run(
        [sys.executable, "-m", "torch_aip", "distill", "--resume", "--out", str(tmp_path / "killed")],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert resumed.returncode == 0 and "Resuming at step 6 of 12" in resumed.stdout, resumed.stderr
    name = "student/weights.safetensors"
    assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert "tensorflow" not in whole.stderr.lower()
