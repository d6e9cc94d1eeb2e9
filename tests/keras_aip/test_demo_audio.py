"""`demo-audio` and the example for a TPU, at tiny size."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys

import numpy as np
import pytest
import soundfile

from bridge.synthetic_sounds import CLASSES, RATE, babble, write_sounds
from keras_aip.cli import main
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A shrunk demonstration, once for all tests: its folder, and what it said."""
    folder, said = tmp_path_factory.mktemp("demo") / "demo", io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["demo-audio", "--smoke", "--out", str(folder)]) == 0
    return folder, said.getvalue()


@pytest.fixture
def done(told):
    return told[0]


def test_demo_audio_runs_from_end_to_end_when_shrunk(done):
    for name in ("sounds.npz", "classes.png", "babble.png", "teacher/card.json", "student-run/report.html"):
        assert (done / name).stat().st_size, name
    clip, rate = soundfile.read(done / "babble.wav")
    assert rate == RATE
    np.testing.assert_allclose(clip, babble(), atol=1e-4)
    assert len(soundfile.read(done / "classes.wav")[0]) == 4 * len(CLASSES) * RATE // 2
    assert (done / "student-run" / "student" / "card.json").exists()


def test_demo_audio_explains_itself(told):
    folder, said = told
    for words in ("whistles that rise", "30 s of babble", "made apart", "guessing would give 12.5 %"):
        assert words in said, words
    for name in ("classes.wav", "classes.png", "babble.wav", "babble.png", "student-run/report.html"):
        assert str(folder / name) in said, name


def test_the_tpu_example_runs_without_one(done, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "teacher").symlink_to(done / "teacher")
    write_sounds(out / "sounds.npz", train=16, test=16)
    line = ["tpu_speech_commands.py", "--smoke", "--strategy", "mirrored", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", line)
    runpy.run_path(str(ROOT / "examples" / "tpu_speech_commands.py"), run_name="__main__")
    assert "of 16 sounds" in capsys.readouterr().out and (out / "student" / "card.json").exists()
