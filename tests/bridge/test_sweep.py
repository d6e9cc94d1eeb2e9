"""A grid of distillations without any framework: the grid, its table and picture, resuming, killing."""

import csv
import dataclasses
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from bridge.config import DistillConfig, SweepConfig
from bridge.config_check import check, read_yaml, updated
from bridge.errors import ConfigError, MissingTeacherError, RunError, TeacherError
from bridge.presets import PRESETS, preset_options
from bridge.recipe_choice import recipe_of
from bridge.shell import Command, parse
from bridge.sweep import Outcome, sweep
from bridge.sweep.grid import axes_of, base_options, described, grid, store_of
from bridge.sweep.plots import _with_teacher, picture
from bridge.sweep.results import csv_text, label_of, table_text
from tests.conftest import ROOT

# A program whose `distill` keeps a run folder as the real ones do, and learns nothing: three steps, a state after
# each. With temperature 13 it fails, the second time without a word of its own; with temperature 99 it never ends.
PROGRAM = """
import dataclasses, os, sys, time
import numpy as np
from bridge.config import DistillConfig, SweepConfig
from bridge.errors import RunError
from bridge.runs import RunFolder
from bridge.shell import Command, main
from bridge.sweep import sweep

def distill(config):
    with RunFolder.start(config.out, dataclasses.asdict(config), {"temperature": config.temperature}, {},
                         resume=config.resume) as run:
        state = run.load_state()
        (run.path / "pid").write_text(str(os.getpid()))
        for step in range(0 if state is None else state.step, 3):
            run.save_state(step + 1, {"w": np.zeros(1)})
            while config.temperature == 99 and not (run.path.parent / "go").exists():
                time.sleep(0.05)
        if config.temperature == 13 and not (run.path.parent / "mended").exists():
            raise ZeroDivisionError if state is not None else RunError("The loss became nan. Lower it.")
        run.write_result({"student_top1": 0.9 - config.temperature / 1000 + config.seed / 100, "teacher_top1": 0.99,
                          "dataset": "digits", "n": 500, "agreement": 0.5, "resumed": state is not None})

def sweep_it(config):
    sweep(config, "tiny_program", lambda run: {})

COMMANDS = {"distill": Command(DistillConfig, distill, {}, {}), "sweep": Command(SweepConfig, sweep_it, {}, {})}
if __name__ == "__main__":
    sys.exit(main("tiny-program", "", COMMANDS))
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The line of `tiny_program sweep` over temperatures, as a function of them and further words."""
    (tmp_path / "tiny_program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))

    def line(temperatures, *more):
        out = ["--out", str(tmp_path / "s")]
        here = ["--teacher", str(tmp_path), "--image", "control:constant", "--vary", f"temperature={temperatures}"]
        return [sys.executable, "-m", "tiny_program", "sweep", *out, *here, "--seeds", "1", *more]

    return line


def run(line):
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


def rows_of(folder):
    return {row["run"]: row for row in csv.DictReader(io.StringIO((folder / "sweep.csv").read_text()))}


def grid_of(seeds=1, base=None, **vary):
    config = SweepConfig(vary=vary)  # type: ignore[arg-type]
    axes = axes_of(config)
    return axes, grid(base or DistillConfig(image="a.jpg", teacher="t", steps_per_epoch=3), axes, seeds)


def finished(run, accuracy, **more):
    return Outcome(run, {"student_top1": accuracy, "teacher_top1": 0.99, "dataset": "digits", "n": 500} | more)


# -- the grid ----------------------------------------------------------------------------------------------------------


def test_grid_is_every_combination_with_every_seed_and_values_have_the_options_types():
    _, runs = grid_of(2, temperature=[1, 4], views=["None", 100], tau_squared=["true"])
    assert [(r.config.temperature, r.config.views, r.config.seed) for r in runs[:5]] == [
        *((1.0, None, 0), (1.0, None, 1), (1.0, 100, 0), (1.0, 100, 1), (4.0, None, 0)),
    ]
    assert len(runs) == 8 and all(r.config.tau_squared is True for r in runs)
    assert runs[0].name == "temperature=1_views=None_tau_squared=true_seed=0"
    assert runs[3].label == "temperature=1 views=100 tau_squared=true seed=1"
    _, runs = grid_of(student_width=[4, 0.5])  # of which some networks take whole ones alone
    assert [repr(r.config.student_width) for r in runs] == ["4", "0.5"]


def test_seeds_begin_at_the_base_options_seed():
    _, runs = grid_of(2, DistillConfig(seed=7), temperature=[1])
    assert [r.seed for r in runs] == [7, 8] == [r.config.seed for r in runs]


def test_a_shell_line_a_file_and_a_preset_say_the_same(tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text("vary: {temperature: [1, 4], image: ['a, b.jpg', c.jpg]}\ndistill: {learning-rate: 1e-3}\n")
    by_file = updated(SweepConfig(), read_yaml(file), "file")
    by_line = SweepConfig(vary=("temperature=1,4", "image=['a, b.jpg', c.jpg]"), set=("learning-rate=1e-3",))
    for config in (by_file, by_line):
        check(config)
        assert [axis.values for axis in axes_of(config)] == [(1.0, 4.0), ("a, b.jpg", "c.jpg")]
        assert base_options(config).learning_rate == 0.001


def test_base_options_come_from_preset_then_distill_then_set():
    config = updated(SweepConfig(), preset_options("fast-digits", "sweep"), "preset")
    config = updated(config, {"distill": {"epochs": 5, "batch_size": 8}, "set": ("epochs=2",), "threads": 1}, "more")
    base = base_options(config)
    assert (base.epochs, base.batch_size, base.threads, base.optimizer) == (2, 8, 1, "adamw")
    assert base.preset == "fast-digits"


def test_distill_options_of_a_file_are_added_to_those_of_the_preset():
    config = updated(SweepConfig(distill={"epochs": 5, "l2": 0.1}), {"distill": {"epochs": 2}}, "file")
    assert config.distill == {"epochs": 2, "l2": 0.1}


def test_the_command_line_takes_several_options_after_one_vary():
    words = ["--vary", "temperature=1,2", "loss=kl,dist", "--set", "epochs=3", "batch_size=8", "--seeds", "2"]
    config = parse("p", "sweep", Command(SweepConfig, print, {"seeds": 1}, {}), words)
    assert config.vary == ("temperature=1,2", "loss=kl,dist") and config.set == ("epochs=3", "batch_size=8")
    assert parse("p", "sweep", Command(SweepConfig, print, {"seeds": 1}, {}), [*words, "--smoke"]).seeds == 1


@pytest.mark.parametrize(
    "config, words",
    [
        (SweepConfig(), ["--vary temperature=1,2"]),
        (SweepConfig(vary=("tempature=1,2",)), ["Did you mean 'temperature'"]),
        (SweepConfig(vary=("temperature",)), ["OPTION=VALUE"]),
        (SweepConfig(vary=("temperature=1,,2",)), ["empty value"]),
        (SweepConfig(vary=("temperature=1,1.0",)), ["twice"]),
        (SweepConfig(vary=("temperature=1", "temperature=2")), ["twice"]),
        (SweepConfig(vary=("temperature=[1, 2",)), ["YAML"]),
        (SweepConfig(vary=("seed=1,2",)), ["--seeds"]),
        (SweepConfig(vary=("out=a,b",)), ["--out"]),
        (SweepConfig(vary=("temperature=1,0",)), ["temperature=0", "positive"]),
        (SweepConfig(vary=("temperature=1,hot",)), ["hot", "float"]),
        (SweepConfig(vary=("mixing=cutmix,cutmx",)), ["cutmx", "mixup"]),
        (SweepConfig(vary=("optimizer=adam,adamw",), set=("weight_decay=0.1",)), ["optimizer=adam", "adamw"]),
        (SweepConfig(vary=("temperature=1,2",), set=("epoch=3",)), ["Did you mean 'epochs'"]),
        (SweepConfig(vary=("temperature=1,2",), set=("epochs",)), ["OPTION=VALUE"]),
        (SweepConfig(vary=("temperature=1,2",), set=("preset=x",)), ["--distill-preset"]),
        (SweepConfig(vary=("temperature=1,2",), distill={"learningrate": 3}), ["Did you mean 'learning_rate'"]),
        (SweepConfig(vary=("temperature=1,2",), distill_preset="fast-digit"), ["Did you mean 'fast-digits'"]),
        (SweepConfig(vary=("image=a,b",), image="c"), ["--image c", "contradict"]),
        (SweepConfig(vary=("temperature=1,2",), seeds=100_000), ["200,000"]),
    ],
)
def test_what_makes_no_sense_is_named_before_anything_runs(config, words):
    with pytest.raises(ConfigError) as refused:
        grid(base_options(config), axes_of(config), config.seeds)
    for word in words:
        assert word in str(refused.value)


def test_a_wrong_type_in_a_file_is_named():
    for values in ({"vary": 3}, {"vary": [3]}, {"distill": ["a"]}, {"seeds": 0}):
        with pytest.raises(ConfigError, match=r"--(vary|distill|seeds)"):
            check(updated(SweepConfig(), values, "file"))


def test_names_are_short_different_and_fit_for_a_file_system():
    long = [f"/home/somebody/{'x' * 80}/{name}.jpg" for name in ("a" * 90, "A" * 90)]
    axes, runs = grid_of(image=["one/p.jpg", "two/p.jpg", "q?.jpg", "Q*.jpg", *long], loss=["kl", "dist"])
    assert axes[0].labels[:3] == ("one/p.jpg", "two/p.jpg", "q?.jpg")
    names = [r.name.lower() for r in runs]
    assert len(set(names)) == 12 and max(map(len, names)) <= 150
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789=_+.-") for name in names)


def test_smoke_keeps_at_most_four_combinations():
    config = SweepConfig(vary=("temperature=1,2,4", "loss=kl,l1,dist", "mixing=none,both"), smoke=True)
    assert [len(axis.values) for axis in axes_of(config)] == [2, 2, 1]


def test_what_identifies_a_sweep_are_the_options_that_differ_from_the_defaults():
    assert described(DistillConfig(epochs=3, out="x", threads=4, seed=1)) == {"epochs": 3}


def test_runs_share_a_store_of_answers_if_and_only_if_the_teacher_is_asked_the_same():
    base = DistillConfig(image="a.jpg", teacher="t", store_teacher="answers")
    store = store_of(base)
    assert store is not None and re.fullmatch(r"answers[/\\][0-9a-f]{16}", store)
    for same in (
        *(dict(student="resnet20"), dict(student_width=3), dict(student_dtype="mixed_bfloat16")),
        *(dict(loss="dkd"), dict(temperature=1.0), dict(tau_squared=True), dict(epochs=3), dict(optimizer="sgd")),
        *(dict(learning_rate=0.1), dict(schedule="cosine"), dict(l2=0.1), dict(split="validation"), dict(out="x")),
        *(dict(resume=True), dict(threads=1), dict(steps_per_execution=4), dict(render="device")),
    ):
        assert store_of(dataclasses.replace(base, **same)) == store, same
    others = (
        *(dict(teacher="u"), dict(teacher_dtype="bfloat16"), dict(dataset="cifar10"), dict(image="b.jpg")),
        *(dict(patches=True), dict(recipe="cifar"), dict(image_size=16), dict(views=9), dict(views=None), dict(seed=1)),
        *(dict(mixing="none"), dict(mixing_alpha=1.0), dict(mixing_per="sample"), dict(batch_size=64)),
        *(dict(steps_per_epoch=3), dict(smoke=True), dict(store_teacher="elsewhere"), dict(store_teacher=None)),
    )
    assert len({store, *(store_of(dataclasses.replace(base, **other)) for other in others)}) == 1 + len(others)
    assert store_of(DistillConfig()) is None


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if "sweep" in preset.options])
def test_presets_of_sweeps_are_grids_over_presets_that_exist(name):
    config = updated(SweepConfig(preset=name), preset_options(name, "sweep"), name)
    axes, runs = axes_of(config), grid(base_options(config), axes_of(config), 3)
    assert config.distill_preset in PRESETS and len(runs) == 3 * math.prod(len(axis.values) for axis in axes) > 3
    assert set(PRESETS[name].published) <= {label_of(axes, run.point) for run in runs}
    for run in runs:  # what is left out is there to be left out
        recipe_of(run.config, {"image_size": run.config.image_size or 32})


# -- table and picture -------------------------------------------------------------------------------------------------


def test_table_has_median_and_spread_and_names_what_failed_or_waits():
    axes, runs = grid_of(3, loss=["kl", "dist"], temperature=[1, 10])
    outcomes = [finished(r, accuracy) for r, accuracy in zip(runs, (0.9, 0.5, 0.8, 0.7, 0.75, 0.71))]
    outcomes += [Outcome(runs[6], error="out of | luck"), *(finished(r, 0.6) for r in runs[7:9])]
    outcomes += [Outcome(r) for r in runs[9:]]
    table = table_text(axes, outcomes, {})
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert cells[0][:5] == ["loss", "temperature", "Student top-1", "min–max", "seeds"]
    assert [row[:5] for row in cells[2:]] == [
        ["kl", "1", "**80.0 %**", "50.0–90.0 %", "3"],
        ["kl", "10", "**71.0 %**", "70.0–75.0 %", "3"],
        ["dist", "1", "**60.0 %**", "60.0–60.0 %", "2 of 3"],
        ["dist", "10", "–", "–", "0 of 3"],
    ]
    assert "- loss=dist temperature=1 seed=0: out of | luck" in table and "3 of 12 runs" in table
    assert "on digits (n = 500)" in table


def test_papers_figures_stand_in_a_column_of_their_own():
    axes, runs = grid_of(image=["control:noise", "mine.jpg"])
    table = table_text(axes, [finished(r, 0.5) for r in runs], {"control:noise": 0.693})
    assert "| paper" in table and "69.3 %" in table.splitlines()[4] and table.splitlines()[5].endswith("–      |")
    assert "paper" not in table_text(axes, [finished(r, 0.5) for r in runs], {})
    axes, runs = grid_of(teacher=["a", "b"], student=["c", "d"])
    table = table_text(axes, [finished(r, 0.5) for r in runs], {"b × c": 0.25})
    assert [line.count("25.0 %") for line in table.splitlines()[4:]] == [0, 0, 1, 0]


def test_csv_has_a_row_per_run_with_everything_measured():
    axes, runs = grid_of(2, views=[100, "None"])
    outcomes = [finished(runs[0], 0.5, kl=0.25), Outcome(runs[1], error='a "quoted", error'), *map(Outcome, runs[2:])]
    rows = list(csv.DictReader(io.StringIO(csv_text(axes, outcomes))))
    assert [row["state"] for row in rows] == ["finished", "failed", "waiting", "waiting"]
    assert (rows[0]["views"], rows[0]["student_top1"], rows[0]["kl"], rows[0]["student_top5"]) == (
        "100",
        "0.5",
        "0.25",
        "",
    )
    assert rows[1]["error"] == 'a "quoted", error' and rows[2]["views"] == "None" and rows[1]["seed"] == "1"


def pixels(axes, outcomes, published=None):
    return np.asarray(Image.open(io.BytesIO(picture(axes, outcomes, published or {}))).convert("RGB"))


@pytest.mark.parametrize(
    "vary",
    [
        {"temperature": [8]},
        {"temperature": [0.5, 1, 8, 64]},
        {"image": [f"a-rather-long-name-of-a-photograph-number-{k:02d}.jpg" for k in range(12)]},
        {"temperature": [1, 8], "loss": ["kl", "dist"]},
        {"student": ["a", "b"], "loss": ["kl", "dist"]},
        {"temperature": [1, 8], "loss": ["kl", "dist"], "mixing": ["both", "none"]},
    ],
)
def test_any_grid_makes_a_picture_also_of_failures_alone(vary):
    axes, runs = grid_of(2, **vary)
    whole = pixels(axes, [finished(r, 0.5 + 0.01 * number) for number, r in enumerate(runs)])
    failed = pixels(axes, [Outcome(r, error="no") for r in runs])
    blue = (np.abs(whole.astype(int) - [0x00, 0x72, 0xB2]).sum(-1) < 30).mean()
    assert min(whole.shape[:2]) > 200 and whole.std() > 5 and failed.std() > 1
    if len(vary) != 2 or "temperature" in vary:  # a map has other colours
        assert blue > 0.0005


def test_a_map_shows_the_papers_figures_and_each_teachers_own_accuracy():
    axes, runs = grid_of(teacher=["a", "b"], student=["c", "d"])
    outcomes = [finished(r, 0.5) for r in runs]
    assert (pixels(axes, outcomes) != pixels(axes, outcomes, {"b × c": 0.25})).any()
    stronger = [finished(r, 0.5, teacher_top1=0.9 + 0.01 * r.point[0]) for r in runs]
    assert _with_teacher(axes, 0, stronger) == ["a\n(90.0)", "b\n(91.0)"]
    assert _with_teacher(axes, 1, stronger) == ["c", "d"]


def test_numbers_that_span_more_than_a_factor_of_ten_get_a_logarithmic_axis():
    from matplotlib.figure import Figure

    from bridge.sweep.plots import _numeric_scale

    for values, scale in (([1, 2, 8], "linear"), ([0.1, 1, 8], "log"), ([0, 1, 100], "linear")):
        panel = Figure().subplots()
        _numeric_scale(panel, grid_of(l2=values)[0][0])
        assert panel.get_xscale() == scale
        assert [tick.get_text() for tick in panel.get_xticklabels()] == [f"{value:g}" for value in values]


# -- running it --------------------------------------------------------------------------------------------------------


def test_sweep_goes_on_after_a_failure_and_tries_it_again_when_resumed(program, tmp_path):
    out = tmp_path / "s"
    first = run(program("1,13,4"))
    assert first.returncode == 2 and "Traceback" not in first.stderr, first.stderr
    assert "1 of 3 runs failed: temperature=13_seed=0" in first.stderr and "A sweep of 3 runs" in first.stdout
    assert "run 2 of 3: temperature=13 seed=0, about" in first.stderr
    rows = rows_of(out)
    assert [row["state"] for row in rows.values()] == ["finished", "failed", "finished"]
    assert rows["temperature=13_seed=0"]["error"].startswith("The loss became nan. Lower it. (log: ")
    assert "The loss became nan" in (out / "table.md").read_text() and (out / "sweep.png").exists()

    refused = run(program("1,13,4"))
    assert refused.returncode == 2 and "--resume" in refused.stderr
    for line, words in (
        (program("1,13", "--resume"), ["vary temperature", "[1.0, 13.0, 4.0]", "[1.0, 13.0]"]),
        (program("1,13,4", "--set", "epochs=3", "--resume"), ["epochs", "3"]),
        (program("1,13,4", "--seeds", "2", "--resume"), ["seeds was [0] and is now [0, 1]"]),
        (program("1,13,4", "--image", "control:noise", "--resume"), ["control:noise"]),
        (program("1,13,4", "--smoke", "--resume"), ["smoke was False and is now True"]),
    ):
        changed = run(line)
        assert changed.returncode == 2 and all(word in changed.stderr for word in words), changed.stderr
    before = (out / "runs" / "temperature=1_seed=0" / "result.json").stat().st_mtime_ns
    assert run(program("1,13,4", "--resume")).returncode == 2  # fails again, and not by what it said the first time
    assert rows_of(out)["temperature=13_seed=0"]["error"].startswith("ZeroDivisionError (log: ")
    (out / "runs" / "mended").touch()
    again = run([*program("")[:6], "--resume"])  # the options come from the sweep itself
    assert again.returncode == 0 and "2 are finished already" in again.stdout, again.stderr
    assert again.stderr.count("run ") == 1
    assert (out / "runs" / "temperature=1_seed=0" / "result.json").stat().st_mtime_ns == before
    assert {row["state"] for row in rows_of(out).values()} == {"finished"}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_sweep_that_is_stopped_takes_its_run_along_and_goes_on_from_its_state(program, tmp_path, how):
    out = tmp_path / "s"
    with subprocess.Popen(program("1,99"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        second = out / "runs" / "temperature=99_seed=0"
        deadline = time.monotonic() + 60
        while not list(second.glob("state/state-*.npz")) and time.monotonic() < deadline:
            time.sleep(0.02)
        child = int((second / "pid").read_text())
        before = (out / "runs" / "temperature=1_seed=0" / "result.json").stat().st_mtime_ns
        process.send_signal(how)
        try:
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert how == signal.SIGKILL or ("--resume" in errors and "Traceback" not in errors)
    deadline = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(child)
    assert [row["state"] for row in rows_of(out).values()] == ["finished", "waiting"]

    (out / "runs" / "go").touch()
    resumed = run(program("1,99", "--resume"))
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((second / "result.json").read_text())["resumed"] is True
    assert (out / "runs" / "temperature=1_seed=0" / "result.json").stat().st_mtime_ns == before


def is_alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:  # one nobody has waited for yet has ended all the same
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it may end between opening and reading
        return False


def test_a_run_without_its_first_file_is_begun_anew(program, tmp_path):
    (tmp_path / "s").mkdir()
    stored = ("--set", f"store_teacher={tmp_path / 'answers'}")
    assert run(program("1", *stored)).returncode == 0
    folder = tmp_path / "s" / "runs" / "temperature=1_seed=0"
    for name in ("result.json", "run.json", "config.yaml", "pid"):
        (folder / name).unlink()
    for state in (folder / "state").iterdir():
        state.unlink()
    (folder / "state").rmdir()  # killed between making the folder and writing into it: only the lock is there
    again = run(program("1", *stored, "--resume"))
    assert again.returncode == 0, again.stderr
    asked = yaml.safe_load((folder / "config.yaml").read_text())
    assert asked["temperature"] == 1 and Path(asked["store_teacher"]).parent == tmp_path / "answers"


def test_missing_teachers_images_and_sets_are_named_before_anything_runs(tmp_path):
    def asked(**options):
        defaults = {"vary": ("temperature=1,2",), "image": "control:noise", "teacher": str(tmp_path)}
        config = SweepConfig(**{**defaults, "out": str(tmp_path / "s"), **options})
        with pytest.raises(Exception) as refused:
            sweep(config, "keras_aip", inspect)
        assert not (tmp_path / "s").exists()
        return str(refused.value)

    def inspect(run):
        if run.teacher == "damaged":
            raise TeacherError("damaged/card.json is damaged.")
        if not os.path.isdir(run.teacher):
            out = None if run.teacher in ("small_cnn", "wrn_10_1") else f"my shelf/{run.teacher}"
            raise MissingTeacherError(f"There is no {run.teacher}.", "Train it with `this`.", out)
        return {}

    def asked_digits(teacher, *more):
        return asked(distill_preset="fast-digits", teacher=teacher, set=more)

    line = "`python -m keras_aip train-teacher --preset fast-digits"
    assert f"{line}` makes one, which `--teacher small_cnn` finds." in asked_digits(None)
    # its own architecture is found where it is written, any other name only where it is told to be
    assert asked_digits("small_cnn") == f"There is no small_cnn. For fast-digits, {line}` makes one."
    assert asked_digits("mine") == f"There is no mine. For fast-digits, {line} --out 'my shelf/mine'` makes one."
    another = f"{line} --architecture wrn_10_1 --width None` makes one."  # that width is of small_cnn
    assert asked_digits("wrn_10_1") == f"There is no wrn_10_1. For fast-digits, {another}"
    other_data = asked_digits("small_cnn", "dataset=cifar10")  # not what the preset trains
    assert other_data == "There is no small_cnn. Train it with `this`."
    assert asked(teacher="mine") == "There is no mine. Train it with `this`."
    assert asked_digits("damaged") == "damaged/card.json is damaged."
    assert "--teacher FOLDER" in asked(teacher=None)
    assert "--image FILE" in asked(image=None)
    assert "nowhere.jpg" in asked(image="nowhere.jpg")
    assert "nowhere.jpg" in asked(image=None, vary=("image=control:noise,nowhere.jpg",))
    assert "nowhere/set" in asked(set=("dataset=nowhere/set",))


def test_only_one_sweep_at_a_time_works_in_a_folder(tmp_path):
    from bridge.runs import RunFolder

    with (
        RunFolder.start(tmp_path / "s", {}, {}, {}),
        pytest.raises(RunError, match="Another process"),
    ):
        config = SweepConfig(vary=("temperature=1",), image="control:noise", teacher=str(tmp_path), resume=True)
        sweep(updated(config, {"out": str(tmp_path / "s")}, "test"), "tiny_program", lambda run: {})
