"""`sweep` as a user types it: a small grid of real distillations, killed, resumed, with runs that fail."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from keras_aip.cli import main
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def swept(teacher, tmp_path_factory):
    """A run that learns and one that diverges: the sweep killed in the second, taken up again."""
    out = tmp_path_factory.mktemp("sweeps") / "s"
    line = [
        *("sweep", "--teacher", teacher, "--image", "sklearn:china.jpg", "--seeds", "1", "--threads", "1"),
        *("--vary", "learning_rate=0.001,1e30", "--out", str(out)),
        *("--set", "student=small_cnn", "student_width=2", "views=40", "batch_size=16", "epochs=4"),
        *("steps_per_epoch=3", "temperature=4"),
    ]
    first, second = (out / "runs" / f"learning_rate={rate}_seed=0" for rate in ("0.001", "1e+30"))
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_aip", *line], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not second.exists():
        time.sleep(0.02)
    process.kill()
    said = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, said
    held = (first / "result.json").stat().st_mtime_ns
    code = main([*line, "--resume"])  # were the run of the killed sweep still there, its folder would be locked
    return {"out": out, "line": line, "code": code, "held": held, "first": first}


def test_every_run_is_a_run_folder_made_by_distill(swept):
    folder = swept["first"]
    result = json.loads((folder / "result.json").read_text())
    assert result["student"] == "small_cnn" and result["views"] == 4 * 3 * 16 and result["n"] == 500
    assert (folder / "report.html").exists() and (folder / "student" / "card.json").exists()
    assert "real test images" in folder.with_name(folder.name + ".log").read_text()


def test_a_run_that_diverges_is_recorded(swept):
    assert swept["code"] == 2
    with open(swept["out"] / "sweep.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["learning_rate"] for row in rows] == ["0.001", "1e+30"]
    for row in rows:
        fails = row["learning_rate"] == "1e+30"
        assert row["state"] == ("failed" if fails else "finished") and ("The loss became" in row["error"]) == fails
        assert fails or 0 <= float(row["student_top1"]) <= 1
    table = (swept["out"] / "table.md").read_text()
    assert table.count("| 0 of 1 ") == 1 and table.count("The loss became") == 1


def test_finished_runs_are_not_made_again(swept):
    assert (swept["first"] / "result.json").stat().st_mtime_ns == swept["held"]


def test_picture_shows_the_grid(swept):
    from PIL import Image

    assert min(Image.open(swept["out"] / "sweep.png").size) > 300


def test_changed_grid_or_base_options_are_refused_and_named(swept, capsys):
    line = [*swept["line"], "--resume"]
    for old, new, word in (
        ("learning_rate=0.001,1e30", "learning_rate=0.001,0.1", "vary learning_rate"),
        ("epochs=4", "epochs=5", "epochs was 4 and is now 5"),
    ):
        assert main([new if item == old else item for item in line]) == 2
        assert word in capsys.readouterr().err
    assert main(swept["line"]) == 2 and "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, words",
    [
        (["--vary", "loss=kl,kll"], ["Did you mean 'kl'"]),
        (["--vary", "student=small_cnn,wrn_17_4"], ["wrn"]),
        (["--vary", "student=small_cnn,resnet20", "--set", "student_width=2"], ["resnet20", "width"]),
        (
            ["--vary", "temperature=1,2", "--teacher", "nowhere"],
            ["no folder nowhere,", "--preset fast-digits --out teachers/nowhere"],
        ),
        (["--preset", "sweep-temperature"], ["Did you mean 'sweep-temperatures'"]),
        (["--vary", "temperature=1,2", "--set", "views=None", "steps_per_epoch=None"], ["Endless views"]),
    ],
)
def test_what_cannot_run_is_refused_before_anything_runs(teacher, tmp_path, capsys, monkeypatch, more, words):
    out = tmp_path / "s"
    base = ["--teacher", teacher, "--distill-preset", "fast-digits", "--out", str(out)]
    monkeypatch.delenv("AIP_TEACHERS", raising=False)
    assert main(["sweep", *base, *more]) == 2
    message = capsys.readouterr().err
    assert message.startswith("keras-aip: ") and "Traceback" not in message and message.count("train-teacher") <= 1
    assert all(word in message for word in words) and not os.path.exists(out)


def test_preset_on_the_digits_says_how_to_make_its_teacher(tmp_path, capsys):
    assert main(["sweep", "--preset", "sweep-losses", "--out", str(tmp_path / "s")]) == 2
    line = "`python -m keras_aip train-teacher --preset fast-digits` makes one, which `--teacher small_cnn` finds"
    assert line in capsys.readouterr().err
