"""The benchmarks run, and their results say what they were measured on and name no one's machine."""

from __future__ import annotations

import json
import math
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from bridge.datum.sources import load_source
from tests.conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import common
import reference_views

IS_TF215 = keras.__version__.startswith("2.15")


@pytest.mark.skipif(IS_TF215, reason="benchmarks are measured in the default environment")
def test_quick_benchmark_of_views_prints_its_table_and_writes_its_results(tmp_path):
    out = tmp_path / "results" / "views.json"
    done = subprocess.run(
        [sys.executable, "benchmarks/views.py", "--quick", "--image", "sklearn:china.jpg", "--out", str(out)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "32 px + jitter" in done.stdout and "times the reference" in done.stdout
    text = out.read_text()
    written = json.loads(text)
    assert written["source"]["name"] == "sklearn:china.jpg" and written["source"]["width"] == 640
    assert written["machine"]["cores"] == os.cpu_count() and written["machine"]["libraries"]["tensorflow"]
    assert socket.gethostname() not in text and str(Path.home()) not in text and str(ROOT) not in text
    for case in ("32 px + jitter", "224 px + jitter"):
        for name in ("reference", "OpenCV", "TensorFlow XLA", "PyTorch"):
            for figures in written["results"][case][name].values():
                assert 0 < figures["min"] <= figures["median"] <= figures["max"] < math.inf
        assert written["results"][case]["reference"]["times the reference"]["median"] == 1
    assert written["n"] == 2 and "Pillow" in written["reference"]


@pytest.mark.parametrize(("size", "pad"), [(32, 4), (32, 0), (96, 0)])
def test_the_references_order_gives_views(size, pad):
    image = Image.fromarray(load_source("sklearn:china.jpg").images[0])
    made_with, transform = reference_views.reference_transform(size, pad, seed=0)
    views = np.stack([transform(image) for _ in range(60)])
    assert "Pillow" in made_with
    assert views.shape == (60, size, size, 3) and views.dtype == np.float32
    assert views.min() == 0 and 0.9 < views.max() <= 1 and views.std() > 0.1
    black = (views == 0).all(axis=-1).mean()
    assert black > 0.1 if pad else black < 0.1


def test_the_references_jitter_has_the_range_of_the_recipe():
    grey = Image.new("RGB", (4, 4), (100, 100, 100))  # on which contrast, saturation and hue do nothing
    pixels = [reference_views._jitter(grey, random.Random(seed)).getpixel((0, 0)) for seed in range(300)]
    brightness = np.array(pixels)[:, 0]
    assert np.ptp(pixels, axis=1).max() <= 1
    assert 59 <= brightness.min() < 65 and 135 < brightness.max() <= 140


def test_rates_let_the_candidates_take_turns():
    calls = []

    def work(name: str, items: int) -> int:
        calls.append(name)
        return items + 0 * sum(range(20_000))

    found = common.rates({"a": lambda: work("a", 10), "b": lambda: work("b", 30)}, repeats=3, seconds=0.0)
    assert calls == ["a", "b"] * 4  # once for compilation, then three turns
    assert all(len(values) == 3 and min(values) > 0 for values in found.values())
    assert np.median(found["b"]) > np.median(found["a"])


def test_a_summary_keeps_median_and_spread():
    assert common.summary([3.0, 1.0, 2.00049]) == {"median": 2.0, "min": 1.0, "max": 3.0}


@pytest.mark.skipif(IS_TF215, reason="benchmarks are measured in the default environment")
def test_quick_benchmark_of_pytorchs_step_measures_every_mode_against_the_reference(tmp_path):
    Image.effect_noise((200, 150), 80).convert("RGB").save(tmp_path / "photo.png")
    out = tmp_path / "torch_step.json"
    out.write_text('{"another device": 1}')
    done = subprocess.run(
        [sys.executable, "benchmarks/torch_step.py", "--quick", "--image", tmp_path / "photo.png", "--out", out],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "reference" in done.stdout and "input side" in done.stdout
    text = out.read_text()
    assert socket.gethostname() not in text and str(ROOT) not in text and str(tmp_path) not in text
    written = json.loads(text)
    assert written.pop("another device") == 1
    ((_, found),) = written.items()
    assert {"reference", "float32", "bfloat16", "bfloat16, constant batch"} <= found["modes"].keys()
    for row in found["modes"].values():
        rate = row["images_per_second"]
        assert 0 < rate["min"] <= rate["median"] <= rate["max"] < math.inf and row["peak_gib"] > 0
        assert row["share_of_matmul_peak"] > 0 and row["core_milliseconds_per_image"]["min"] > 0
    assert found["modes"]["reference"]["times_the_reference"]["median"] == 1
    assert found["input_side"]["bfloat16"]["median"] < 1 and found["gflop_per_image"] > 0
