"""The benchmark of audio views runs, and its results name no one's machine."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from tests.conftest import ROOT


@pytest.mark.skipif(keras.__version__.startswith("2.15"), reason="benchmarks are measured in the default environment")
def test_quick_benchmark_of_audio_prints_its_table_and_writes_its_results(tmp_path):
    out = tmp_path / "results" / "audio.json"
    done = subprocess.run(
        [sys.executable, "benchmarks/audio.py", "--quick", "--audio", "control:noise", "--out", str(out)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "clips per CPU-second" in done.stdout and "TensorFlow XLA" in done.stdout
    text = out.read_text()
    for own in (socket.gethostname(), str(Path.home()), str(ROOT), str(tmp_path)):
        assert own not in text
    written = json.loads(text)
    assert written["source"]["name"] == "control:noise" and written["samples per clip"] == 16_000
    for name in ("NumPy", "TensorFlow", "TensorFlow XLA"):
        figures = written["results"][name]["clips per CPU-second"]
        assert 0 < figures["min"] <= figures["median"] <= figures["max"] < math.inf
