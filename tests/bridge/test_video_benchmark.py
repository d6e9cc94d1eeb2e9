"""The benchmark of video runs, the reference in it does all of its work, and its results name no one's machine."""

from __future__ import annotations

import json
import math
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bridge.datum.sources import load_source
from bridge.videos import read_frames
from tests.bridge.some_videos import ENCODERS, number_of, video
from tests.conftest import ROOT

pytest.importorskip("torch")
sys.path.append(str(ROOT / "benchmarks"))

import reference_clips
import video as benchmark


def test_the_references_way_writes_and_reads_clips(tmp_path):
    image, draw = Image.fromarray(load_source("sklearn:china.jpg").images[0]), random.Random(0)
    reference_clips.write_clip(image, tmp_path / "clip.mp4", draw)
    written = read_frames(tmp_path / "clip.mp4", lambda times: np.arange(len(times)), lambda frame: frame)
    assert written.shape == (8, 230, 230, 3)
    assert np.abs(np.diff(written.astype(int), axis=0)).mean() > 1  # it moves
    clips = [reference_clips.read_clip(tmp_path / "clip.mp4", draw) for _ in range(6)]
    assert all(clip.shape == (3, 4, 160, 160) and clip.dtype.is_floating_point for clip in clips)
    assert all(float(clip.min()) >= -1e-6 and float(clip.max()) <= 1 + 1e-6 for clip in clips)
    assert max(float(clip.std()) for clip in clips) > 0.05


def test_all_operations_of_augmix_are_drawn_and_keep_size_and_range():
    pixels = np.random.default_rng(0).integers(0, 256, (230, 230, 3), dtype=np.uint8)
    image, seen = Image.fromarray(pixels), set()
    for seed in range(120):
        out = np.asarray(reference_clips._operation(random.Random(seed))(image))
        assert out.shape == pixels.shape and out.dtype == np.uint8
        seen.add(out.tobytes())
    assert len(seen) > 60
    clip = np.stack([pixels, 255 - pixels])
    assert 0 <= reference_clips._augmix(clip, random.Random(0)).min() <= 255


@pytest.mark.parametrize("codec", ENCODERS)
def test_both_readers_give_the_same_frames(tmp_path, codec):
    path = video(tmp_path / "clip.mp4", 30, codec=codec)
    assert benchmark.read_every_frame(path) == benchmark.opencv_every_frame(path) == 30
    assert benchmark.read_ten_clips(path) == benchmark.opencv_ten_clips(path) == 40
    assert number_of(read_frames(path, lambda times: np.array([0, 29]), lambda frame: frame)).tolist() == [0, 29]
    (tmp_path / "notes.txt").write_text("no video")
    assert benchmark.readable(tmp_path, quick=False) == [path]


def test_quick_benchmark_of_video_prints_its_tables_and_writes_its_results(tmp_path):
    video(tmp_path / "videos" / "a.mp4", 12)
    out = tmp_path / "results" / "video.json"
    line = ["benchmarks/video.py", "--quick", "--image", "sklearn:china.jpg", "--videos", str(tmp_path / "videos")]
    done = subprocess.run(
        [sys.executable, *line, "--out", str(out)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "must reach 20 times" in done.stdout and "every frame of 1 videos" in done.stdout
    text = out.read_text()
    for own in (socket.gethostname(), str(Path.home()), str(ROOT), str(tmp_path)):
        assert own not in text
    written = json.loads(text)
    assert written["n"] == 2 and "PyAV" in written["reference"] and written["videos"]["frames"] == 12
    ways = [*written["clips"].values(), *(way for kind in written["videos"]["read"].values() for way in kind.values())]
    assert len(ways) == 4 + 4
    for figures in (figures for way in ways for figures in way.values()):
        assert 0 < figures["min"] <= figures["median"] <= figures["max"] < math.inf
    assert (
        written["clips"]["reference, written and read once"]["times the reference, written and read once"]["max"] == 1
    )
