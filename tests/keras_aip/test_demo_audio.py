"""`demo-audio` and the example for a TPU, at tiny size."""

from __future__ import annotations

import runpy
import sys

import numpy as np
import pytest
import soundfile

from bridge.synthetic_sounds import CLASSES, RATE, babble, write_sounds
from keras_aip.cli import main
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def done(folder):
    """A shrunk demonstration, once for all tests."""
    assert main(["demo-audio", "--smoke", "--out", str(folder / "demo")]) == 0
    return folder / "demo"


def test_demo_audio_runs_from_end_to_end_when_shrunk(done, folder):
    for name in ("sounds.npz", "classes.png", "babble.png", "teacher/card.json", "student-run/report.html"):
        assert (done / name).stat().st_size, name
    clip, rate = soundfile.read(done / "babble.wav")
    assert rate == RATE
    np.testing.assert_allclose(clip, babble(), atol=1e-4)
    assert len(soundfile.read(done / "classes.wav")[0]) == 4 * len(CLASSES) * RATE // 2
    assert (done / "student-run" / "student" / "card.json").exists()


def test_demo_audio_says_what_it_does_and_takes_a_sound_of_ones_own(folder, capsys):
    time = np.arange(3 * 16_000) / 16_000
    soundfile.write(folder / "mine.wav", 0.3 * np.sin(2000 * time * (1 + np.sin(5 * time))), 16_000)
    assert main(["demo-audio", "--smoke", "--audio", str(folder / "mine.wav"), "--out", str(folder / "mine")]) == 0
    said = capsys.readouterr().out
    assert "mine.wav" in said and "guessing would give 12.5 %" in said and "made apart" in said
    assert not (folder / "mine" / "babble.wav").exists()


def test_the_tpu_example_runs_without_one(done, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "teacher").symlink_to(done / "teacher")
    write_sounds(out / "sounds.npz", train=16, test=16)
    line = ["tpu_speech_commands.py", "--smoke", "--strategy", "mirrored", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", line)
    runpy.run_path(str(ROOT / "examples" / "tpu_speech_commands.py"), run_name="__main__")
    assert "of 16 sounds" in capsys.readouterr().out and (out / "student" / "card.json").exists()
