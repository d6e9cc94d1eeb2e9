"""The commands as a user types them: they work, and every mistake gets one message and exit code 2."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import keras_aip
from bridge.runs import RESULT_KEYS
from keras_aip.cli import main
from keras_aip.demo import _free


def error_of(capsys, *arguments):
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert code == 2, captured
    assert "Traceback" not in captured.err and captured.err.startswith("keras-aip: ")
    return captured.err


def distil(teacher, out, *more):
    return [
        *("distill", "--teacher", teacher, "--out", str(out), "--image", "sklearn:china.jpg"),
        *("--student", "small_cnn", "--student-width", "2", "--smoke", *more),
    ]


def test_distillation_leaves_a_complete_run_folder(teacher, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(distil(teacher, out)) == 0
    said = capsys.readouterr().out
    assert "no real image and no label" in said
    result = json.loads((out / "result.json").read_text())
    assert set(RESULT_KEYS) <= set(result)
    assert result["n"] == 500 and 0 <= result["student_top1"] <= 1 and result["views"] == 320
    page = (out / "report.html").read_text()
    assert "<img" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert list((out / "events").iterdir()) and list((out / "state").glob("state-*.npz"))
    model, card = keras_aip.load_model(out / "student")
    assert card.accuracy["top1"] == result["student_top1"]
    assert keras_aip.evaluate(model, "digits")["student_top1"] == result["student_top1"]
    assert "already holds a run" in error_of(capsys, *distil(teacher, out))


def test_reference_spelling_of_options_works(teacher, tmp_path, capsys):
    line = distil(teacher, tmp_path / "run", "--student_arch", "small_cnn", "--teacher_arch", teacher, "--batch_size=8")
    assert main(line) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["student"] == "small_cnn"


def test_options_come_from_preset_then_file_then_command_line(teacher, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("temperature: 3\nlearning-rate: 0.5\n")
    line = ["distill", "--preset", "fast-digits", "--config", str(file), "--temperature", "4", "--teacher", teacher]
    assert main([*line, "--smoke", "--student-width", "2", "--out", str(tmp_path / "run")]) == 0
    import yaml

    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (kept["temperature"], kept["learning_rate"], kept["optimizer"]) == (4, 0.5, "adamw")


def test_device_rendering_and_finite_views_train_too(teacher, tmp_path):
    line = distil(teacher, tmp_path / "run", "--render", "device", "--views", "20", "--mixing", "both")
    assert main(line) == 0


@pytest.mark.parametrize(
    "options, words",
    [
        (["--image", "nowhere.jpg"], ["nowhere.jpg"]),
        (["--teacher", "wrn_40_4"], ["wrn_40_4", "train-teacher"]),
        (["--student", "wrn_17_4"], ["wrn"]),
        (["--student", "resnet21"], ["Did you mean 'resnet"]),
        (["--loss", "kll"], ["Did you mean 'kl'"]),
        (["--preset", "fast-digit"], ["Did you mean 'fast-digits'"]),
        (["--dataset", "digit"], ["digits"]),
        (["--temperature", "0"], ["--temperature (=0", "positive"]),
        (["--temperature", "nan"], ["--temperature"]),
        (["--batch-size", "-3"], ["--batch-size (=-3)"]),
        (["--seed", "-1"], ["--seed (=-1)"]),
        (["--image-size", "16"], ["16", "32", "teacher"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--resume"], ["no run to resume"]),
        (["--views", "None", "--no-smoke"], ["--steps-per-epoch"]),
    ],
)
def test_wrong_values_are_named_before_work_is_lost(teacher, tmp_path, capsys, options, words):
    message = error_of(capsys, *distil(teacher, tmp_path / "run", *options))
    for word in words:
        assert word in message
    assert not (tmp_path / "run" / "result.json").exists()


def test_unknown_commands_options_and_keys_are_refused(tmp_path, capsys):
    assert "Did you mean 'distill'" in error_of(capsys, "distil")
    with pytest.raises(SystemExit) as stopped:
        main(["distill", "--no-such-option", "1"])
    assert stopped.value.code == 2 and "--no-such-option" in capsys.readouterr().err
    file = tmp_path / "run.yaml"
    for text, word in [("tempature: 3", "temperature"), ("- a list", "option: value"), ("a: [", "YAML")]:
        file.write_text(text)
        assert word in error_of(capsys, "distill", "--config", file)
    file.write_text("loss: [kl]")
    assert "--loss" in error_of(capsys, "distill", "--config", file)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_files_that_are_no_image_are_named(teacher, tmp_path, capsys, content):
    (tmp_path / "bad.png").write_bytes(content)
    message = error_of(capsys, *distil(teacher, tmp_path / "run", "--image", tmp_path / "bad.png"))
    assert "bad.png" in message


def test_sixteen_bit_png_makes_views_and_a_picture_of_them(tmp_path):
    grey = np.linspace(0, 65535, 200 * 150).astype(np.uint16).reshape(200, 150)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    out = tmp_path / "views"
    line = ["views", "--image", str(tmp_path / "deep.png"), "--out", str(out), "--grid", "4", "--count", "10"]
    assert main(line) == 0
    picture = np.asarray(Image.open(out / "augmented.png"))
    assert picture.ndim == 3 and picture.std() > 5
    assert len(list((out / "files").rglob("*.png"))) == 10
    assert main(line) == 0  # again: nothing left to do


def test_teacher_is_trained_and_a_folder_of_classes_is_enough(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for name, colour in (("blue", (0, 0, 220)), ("red", (220, 0, 0))):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = np.clip(np.array(colour) + rng.integers(-30, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.png")
    teacher = tmp_path / "teacher"
    line = ["train-teacher", "--dataset", str(tmp_path / "data"), "--out", str(teacher), "--image-size", "16"]
    line += ["--width", "2", "--epochs", "8", "--batch-size", "8", "--cutout", "4", "--pad", "2"]
    assert main(line) == 0
    assert main(["evaluate", "--model", str(teacher), "--dataset", str(tmp_path / "data" / "test")]) == 0
    measured = json.loads(capsys.readouterr().out.split("\n", 1)[1])
    assert measured["student_top1"] > 0.9 and measured["student_top5"] is None
    assert "not empty" in error_of(capsys, *line)

    flat = tmp_path / "flat"
    shutil.copytree(tmp_path / "data" / "test" / "red", flat)
    assert "--teacher" in error_of(capsys, "evaluate", "--model", teacher, "--dataset", flat)
    out = tmp_path / "result.json"
    line = ["evaluate", "--model", str(teacher), "--teacher", str(teacher), "--dataset", str(flat), "--out", str(out)]
    assert main(line) == 0
    result = json.loads(out.read_text())
    assert result["agreement"] == 1 and result["kl"] == pytest.approx(0, abs=1e-9) and result["student_top1"] is None


def test_help_names_every_command(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    for command in ("demo", "distill", "train-teacher", "evaluate", "views"):
        assert command in said


def test_demo_runs_from_end_to_end_when_shrunk(tmp_path, capsys):
    assert _free(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    assert _free(tmp_path / "demo") == tmp_path / "demo"  # nothing is lost there
    (tmp_path / "demo" / "teacher").mkdir()
    assert main(["demo", "--smoke", "--out", str(tmp_path / "demo")]) == 0  # beside the first, which stays
    said = capsys.readouterr().out
    assert "student" in said and "guessing would give 10 %" in said
    assert (tmp_path / "demo-2" / "student-run" / "report.html").exists()
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["teacher"]


def test_a_list_given_in_two_parts_is_refused_rather_than_cut_short(capsys):
    assert main(["sweep", "--vary", "temperature=1,2", "--vary", "loss=kl,dist"]) == 2
    assert "--vary is given twice" in capsys.readouterr().err


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
