"""Fake clips written out are videos of the right length, rate and pixels, and their export can be interrupted."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bridge.cli import main
from bridge.datum.clip_files import encode_clip
from bridge.datum.export import write_views
from bridge.datum.preview import base_views, to_bytes
from bridge.datum.render import render
from bridge.datum.video import make_clip_set
from bridge.errors import DatumError
from bridge.videos import read_frames
from tests.bridge.some_videos import av
from tests.conftest import ROOT

RATES = (0.5, 8, 12.0, 23.976, 30000 / 1001, 60)


def moving(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Soft colours that wander: uint8 [frames, height, width, 3]."""
    draw = np.random.default_rng(seed)
    t, y, x = np.meshgrid(*(np.arange(n) / 64 for n in (frames, height, width)), indexing="ij")
    ways = draw.uniform(-3, 3, (3, 3))
    waves = [127 + 90 * np.sin(a * t + b * y + c * x + k) for k, (a, b, c) in enumerate(ways)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def decoded(path: Path) -> np.ndarray:
    return read_frames(path, lambda times: np.arange(len(times)), lambda frame: frame)


def about(path: Path) -> tuple[int, Fraction, str, list[float]]:
    """Frames and their rate as the file says, how its colours are stored, and when its frames are shown."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        shown = [float(frame.time) for frame in container.decode(stream)]
        return stream.frames, stream.average_rate, stream.pix_fmt, shown


def error_of(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found.astype(int) - wanted).mean())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@settings(max_examples=15, deadline=None)
@given(
    st.integers(2, 20), st.integers(8, 70), st.integers(8, 70), st.sampled_from(RATES), st.integers(0, 2**31),
)  # fmt: skip
def test_a_clip_comes_back_with_its_frames_rate_and_pixels(tmp_path_factory, frames, height, width, rate, seed):
    clip, path = moving(frames, height, width, seed), tmp_path_factory.mktemp("clip") / "clip.mp4"
    path.write_bytes(encode_clip(clip, rate))
    found = decoded(path)
    assert found.shape == clip.shape and error_of(found, clip) < 4
    count, average, pixels, shown = about(path)
    assert count == frames and abs(float(average) / rate - 1) < 1e-3
    assert np.allclose(shown, np.arange(frames) / rate, atol=2e-3)
    assert pixels == ("yuv444p" if height % 2 or width % 2 else "yuv420p")


@pytest.mark.parametrize("side", [48, 47])
def test_opencv_sees_the_same_video(tmp_path, side):
    clip, path = moving(8, side, side), tmp_path / "clip.mp4"
    path.write_bytes(encode_clip(clip, 12.0))
    reader = cv2.VideoCapture(str(path))
    assert (reader.get(cv2.CAP_PROP_FRAME_COUNT), reader.get(cv2.CAP_PROP_FPS)) == (8, 12)
    frames = []
    while (read := reader.read())[0]:
        frames.append(read[1][..., ::-1])
    assert error_of(np.stack(frames), clip) < 4


def test_a_clip_has_always_the_same_bytes_and_names_its_colours():
    clip = moving(5, 32, 32)
    written = encode_clip(clip, 12)
    assert encode_clip(clip.copy(order="F"), 12.0) == written
    header = written.index(b"mvhd")
    assert written[header + 4 : header + 16] == bytes(12) and b"Lavf" not in written  # no hour, no version
    with av.open(io.BytesIO(written)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (5, 1)  # BT.601, limited


def test_what_is_no_video_is_refused():
    with pytest.raises(DatumError, match="1 frames is no video: expected 2 or more"):
        encode_clip(moving(1, 32, 32), 12)
    with pytest.raises(DatumError, match=r"cannot write a clip of 40000 x 2 pixels"):
        encode_clip(np.zeros((2, 2, 40_000, 3), np.uint8), 12)


# --- whole sets ------------------------------------------------------------------------------------------------------


def clips_of(numbers: np.ndarray) -> np.ndarray:
    return np.stack([moving(3, 16, 16, seed) for seed in numbers.tolist()])


def write(out: Path, renderer=clips_of, count: int = 10, **options) -> int:
    options = {"image_format": "mp4", "manifest": {"seed": 0}, "progress": False, "batch": 2, **options}
    return write_views(renderer, count, out, **options)


def test_the_same_clip_is_the_same_file_whatever_lay_in_memory_before():
    clip, draw = moving(3, 16, 16, 5), np.random.default_rng(0)
    first = encode_clip(clip, 12.0)
    for k in range(400):
        junk = [np.full(size, k % 256, np.uint8) for size in draw.integers(1, 200_000, draw.integers(0, 12))]
        assert encode_clip(clip, 12.0) == first
        del junk


@pytest.mark.parametrize("layout", ["folder", "tar"])
def test_an_interrupted_set_goes_on_and_ends_like_an_uninterrupted_one(tmp_path, layout):
    left = [3]

    def stopping(numbers):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return clips_of(numbers)

    options = {"layout": layout, "shard_size": 4, "labels": np.arange(10) % 3}
    assert write(tmp_path / "whole", **options) == 10
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", stopping, **options)
    assert write(tmp_path / "out", **options) == {"folder": 4, "tar": 6}[layout]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert write(tmp_path / "out", stopping, **options) == 0


def test_shards_hold_what_folders_hold(tmp_path):
    write(tmp_path / "folder")
    write(tmp_path / "tar", layout="tar", shard_size=4)
    for number, path in enumerate(sorted((tmp_path / "folder" / "000").iterdir())):
        assert path.name == f"{number:08d}.mp4"
        with tarfile.open(tmp_path / "tar" / f"views-{number // 4:06d}.tar") as tar:
            assert tar.extractfile(path.name).read() == path.read_bytes()
        assert error_of(decoded(path), clips_of(np.array([number]))[0]) < 4


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rate": 24.0}, "another export, different in rate: there 12.0, now 24.0"),
        ({"image_format": "png"}, 'format: there "mp4", now "png"'),
        ({"rate": 0.0}, "rate is 0.0: expected 0.1 to 1000"),
    ],
)
def test_another_set_or_a_senseless_rate_is_refused(tmp_path, options, named):
    write(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(DatumError, match=named):
        write(tmp_path, **options)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "wrong", [lambda n: clips_of(n)[:, 0], lambda n: clips_of(n)[:-1], lambda n: clips_of(n) / 255]
)
def test_a_wrong_render_is_named(tmp_path, wrong):
    with pytest.raises(DatumError, match=r"render gave.*expected uint8 \[2, frames, h, w, 3\]"):
        write(tmp_path / "out", wrong)


FULL_DISK = """
import resource, sys
import numpy as np
from bridge.datum.export import write_views
from bridge.errors import DatumError
# A limit on the size of a file fails like a full disk: in the middle of a write.
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
noise = lambda n: np.random.default_rng(0).integers(0, 256, (len(n), 4, 96, 96, 3), dtype=np.uint8)
try:
    write_views(noise, 4, sys.argv[1], image_format="mp4", manifest={}, progress=False)
except DatumError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes here")
def test_a_full_disk_is_named_and_leaves_no_half_file(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "out")], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "00000000.mp4: File too large" in done.stdout, done.stderr
    assert list(contents(tmp_path / "out")) == ["manifest.json"]


# --- the command -----------------------------------------------------------------------------------------------------

LINE = ["views", "--image", "sklearn:china.jpg", "--image-size", "32", "--grid", "2"]


def torch_main(line: list[str]) -> int:
    return pytest.importorskip("torch_aip.cli").main(line)


@pytest.mark.parametrize(("program", "kind"), [(main, "base"), (torch_main, "augmented")])
def test_the_command_writes_pictures_and_videos(tmp_path, capsys, program, kind):
    line = [*LINE, "--out", str(tmp_path), "--frames", "5", "--motion", "smooth", "--kind", kind, "--count", "6"]
    assert program([*line, "--rate", "10"]) == 0
    clips = make_clip_set("sklearn:china.jpg", 32, 5, "smooth", None, clips=50_000, seed=0)
    size = {"base": 46, "augmented": 32}[kind]
    said = capsys.readouterr().out
    assert "augmented.png: 2 clips of 5 frames" in said
    assert f"6 {kind} clips of {size} pixels, 5 frames at 10 per second, 6 written now" in said
    for name, side in (("base", 2 * 46), ("augmented", 2 * 32), ("mixed", 2 * 32)):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.size == (5 * side, 2 * side + 2)
    wanted = to_bytes(render(base_views(clips) if kind == "base" else clips, np.arange(6)))
    for number, clip in enumerate(wanted):
        path = tmp_path / "files" / "000" / f"{number:08d}.mp4"
        found = decoded(path)
        assert about(path)[:2] == (5, 10) and found.shape == (5, size, size, 3)
        assert error_of(found, clip) < 12  # half the colours are lost on each side
        assert error_of(found.mean((1, 2)), clip.mean((1, 2))) < 3
    assert program([*line, "--rate", "10"]) == 0 and "0 written now" in capsys.readouterr().out
    assert program([*line, "--rate", "12"]) == 2 and "rate: there 10.0, now 12.0" in capsys.readouterr().err


def test_odd_sides_and_long_strips_are_written_too(tmp_path):
    line = [*LINE[:3], "--image-size", "42", "--grid", "2", "--out", str(tmp_path), "--count", "1"]
    assert main([*line, "--recipe", "steady", "--frames", "40"]) == 0  # base clips have 42 · 230 / 160 → 60 pixels
    with Image.open(tmp_path / "base.png") as image:
        assert image.width == 1280 and image.height < 2 * 60
    out = tmp_path / "odd"
    assert main([*line[:3], "--image-size", "41", "--recipe", "video", "--out", str(out), "--count", "1"]) == 0
    assert decoded(out / "files" / "000" / "00000000.mp4").shape == (4, 59, 59, 3)


@pytest.mark.skipif(sys.platform == "win32", reason="no Ctrl-C to send")
def test_after_ctrl_c_the_same_line_goes_on(tmp_path):
    line = [sys.executable, "-m", "bridge", *LINE, "--frames", "8", "--count", "3000", "--out", str(tmp_path)]
    running = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    until = time.monotonic() + 60
    while not (files := list((tmp_path / "files").rglob("0*.mp4"))) and time.monotonic() < until:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert files and running.returncode == 130 and "interrupted" in said and "Traceback" not in said
    there = [path for path in (tmp_path / "files").rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert 0 < len(there) < 3000
    assert all(path.suffix == ".mp4" and len(decoded(path)) == 8 for path in there[:: 1 + len(there) // 10])


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--motion", "smooth"], "--motion smooth is of clips; say how many --frames"),
        (["--rate", "10"], "--rate 10.0 is of clips"),
        (["--image-format", "mp4"], "--image-format mp4 is of clips; say how many --frames"),
        (["--frames", "4", "--image-format", "png"], "--image-format png is of images; clips are written as mp4"),
        (["--frames", "1", "--count", "2"], "--frames 1 makes no video"),
        (["--frames", "4", "--patches"], "--patches are ready-made views, which do not move"),
        (["--frames", "4", "--recipe", "cifar"], "Unknown video recipe 'cifar'"),
        (["--frames", "4", "--rate", ".01", "--count", "2"], "rate is 0.01: expected 0.1 to 1000"),
        (["--frames", "4", "--views", "3", "--count", "4"], "more than the 3 distinct base clips"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_written(tmp_path, capsys, given, named):
    assert main([*LINE, "--out", str(tmp_path / "out"), *given]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_pyav_it_says_how_to_install_it_and_pictures_need_none(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    line = [*LINE, "--out", str(tmp_path), "--frames", "4"]
    assert main([*line, "--count", "2"]) == 2
    assert "clips are written with PyAV, which is not installed: pip install av" in capsys.readouterr().err
    assert main(line) == 0 and (tmp_path / "base.png").exists()
