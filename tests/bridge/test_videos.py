"""Frames of videos are chosen by their time and come out as other readers show them; unusable files say why."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bridge.errors import ConfigError, DatumError
from bridge.videos import Sampling, read_clips, read_frames
from tests.bridge.some_videos import ENCODERS, av, grey, number_of, video

SMALL: dict[str, Any] = {"short_side": 24, "crop": 20}


def everything(path: Path) -> np.ndarray:
    return read_frames(path, lambda times: np.arange(len(times)), lambda pixels: pixels)


def as_the_reference_chooses(count: int, rate: Fraction, sampling: Sampling) -> list[tuple[list[int], bool]]:
    """pytorchvideo's ConstantClipsPerVideoSampler and UniformTemporalSubsample; whether a border is a close call."""
    window = Fraction(sampling.frames) * Fraction(sampling.stride) / Fraction(sampling.rate)
    spare, out = max(count / rate - window, Fraction(0)), []
    for clip in range(sampling.clips):
        start = spare * clip / sampling.clips
        inside = [number for number in range(count) if start <= number / rate < start + window]
        spaced = [Fraction(len(inside) - 1) * k / (sampling.frames - 1) for k in range(sampling.frames)]
        close = any(0 < border * rate % 1 < Fraction(51, 1000) for border in (start, start + window))
        out.append(([inside[math.floor(place)] for place in spaced], close))
    return out


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(60), Fraction(15)])
def test_constant_rates_give_the_frames_that_the_reference_takes(rate):
    for count in (2, 5, 40, 48, 131, 300):
        for sampling in (Sampling(clips=10), Sampling(clips=10, rate=25), Sampling(clips=3, frames=13, stride=6)):
            chosen = sampling.chosen(np.arange(count) * float(1 / rate))
            for found, (expected, close) in zip(chosen, as_the_reference_chooses(count, rate, sampling)):
                assert found.tolist() == expected or (close and np.abs(found - expected).max() <= 1)


def test_time_stamps_rounded_to_milliseconds_change_nothing():
    for count in (48, 100, 300):
        exact = np.arange(count) / 30
        assert np.array_equal(Sampling(clips=10).chosen(exact), Sampling(clips=10).chosen(exact.round(3)))


def test_one_clip_is_the_middle_and_an_exact_stride_is_exact():
    times = np.arange(300) / 30
    assert Sampling().chosen(times).tolist() == [[126, 141, 157, 173]]
    assert Sampling(exact_stride=True).chosen(times).tolist() == [[126, 138, 150, 162]]
    assert Sampling(exact_stride=True, clips=2).chosen(times[:30]).tolist() == [[0, 12, 24, 29]] * 2


def test_a_variable_rate_gives_what_is_shown_at_evenly_spaced_times():
    # Slow at first, then fast: by number the clip would be nearly all from the second half.
    times = np.concatenate([np.arange(8) * 0.1, 0.8 + np.arange(32) * 0.025])
    assert Sampling().chosen(times).tolist() == [[0, 5, 18, 39]]


@pytest.mark.parametrize(
    "given", [{"frames": 0}, {"stride": -1}, {"rate": math.nan}, {"clips": 0}, {"spatial": 2}, {"crop": 200}]
)
def test_numbers_that_make_no_sense_are_refused(given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        Sampling(**given)


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """torch.nn.functional.interpolate(mode="bilinear", align_corners=False), without antialiasing."""

    def places(out: int, length: int):
        at = np.clip((np.arange(out) + 0.5) * length / out - 0.5, 0, length - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, length - 1), at - low

    y, y1, v = places(height, image.shape[0])
    x, x1, u = places(width, image.shape[1])
    v, u, image = v[:, None, None], u[None, :, None], image.astype(float)
    top = image[y][:, x] * (1 - u) + image[y][:, x1] * u
    return top * (1 - v) + (image[y1][:, x] * (1 - u) + image[y1][:, x1] * u) * v


@pytest.mark.parametrize("height, width", [(240, 320), (320, 240), (256, 340), (183, 183), (90, 101)])
def test_frames_are_resized_and_cropped_as_the_reference_does(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    short = min(height, width)
    whole = bilinear(image, math.floor(height / short * 183), math.floor(width / short * 183))
    top, left = round((whole.shape[0] - 160) / 2), round((whole.shape[1] - 160) / 2)
    one = Sampling().fitted(image)
    assert one.shape == (1, 160, 160, 3)
    assert np.abs(one[0] - whole[top : top + 160, left : left + 160]).max() < 1.5
    three = Sampling(spatial=3).fitted(image)
    assert np.array_equal(three[1], one[0])
    along = slice(0, 160), slice(left, left + 160)
    ends = (
        (whole[along], whole[-160:, along[1]])
        if height > width
        else (whole[top : top + 160, :160], whole[top : top + 160, -160:])
    )
    assert np.abs(three[0] - ends[0]).max() < 1.5 and np.abs(three[2] - ends[1]).max() < 1.5


@pytest.mark.parametrize("codec", ENCODERS)
@pytest.mark.parametrize("ending", [".mp4", ".avi", ".mkv", ".mov"])
def test_the_frames_chosen_are_the_frames_decoded(tmp_path, codec, ending):
    path = video(tmp_path / f"a{ending}", 70, codec=codec, sound=0 if ending == ".avi" else 2.4)
    for sampling in (Sampling(**SMALL), Sampling(clips=3, spatial=3, **SMALL), Sampling(frames=9, stride=2, **SMALL)):
        pixels = read_clips(path, sampling)
        assert pixels.shape == (sampling.views, sampling.frames, 20, 20, 3) and pixels.dtype == np.uint8
        wanted = sampling.chosen(np.arange(70) / 30).repeat(sampling.spatial, axis=0)
        assert np.array_equal(number_of(pixels), wanted)


@pytest.mark.parametrize("codec", ENCODERS)
def test_decoding_begins_near_the_first_frame_wanted(tmp_path, codec, monkeypatch):
    path, seen = video(tmp_path / "long.mp4", 70, codec=codec, gop=10), []
    real = av.video.reformatter.VideoReformatter
    assert number_of(read_frames(path, lambda times: np.array([61, 55]), lambda pixels: pixels)).tolist() == [61, 55]

    class Counting:
        def __init__(self) -> None:
            self.real = real()

        def reformat(self, frame, **given):
            seen.append(frame.pts)
            return self.real.reformat(frame, **given)

    monkeypatch.setattr(av.video.reformatter, "VideoReformatter", Counting)
    assert number_of(read_frames(path, lambda times: np.array([[3, 3], [69, 3]]), lambda p: p)).tolist() == [
        [3, 3],
        [69, 3],
    ]
    assert len(seen) == 2, "frames that nobody wants are not converted, and none twice"


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_a_file_of_variable_rate_is_read_by_its_time_stamps(tmp_path, ending):
    times = np.concatenate([np.arange(10) * 0.1, 1 + np.arange(30) * 0.02])
    path = video(tmp_path / f"variable{ending}", 40, times=times.tolist())
    held: list[np.ndarray] = []
    read_frames(path, lambda found: held.append(found) or np.array([0]), lambda pixels: pixels)
    assert np.abs(held[0] - times).max() < 0.0015
    sampling = Sampling(stride=10, **SMALL)
    assert np.array_equal(number_of(read_clips(path, sampling)), sampling.chosen(times))


@pytest.mark.parametrize("codec", ENCODERS)
def test_colours_are_those_of_opencv(tmp_path, codec):
    rng = np.random.default_rng(0)
    frames = [cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48)) for _ in range(8)]
    path = video(tmp_path / "colours.mp4", frames, codec=codec)
    ours, reader = everything(path).astype(int), cv2.VideoCapture(str(path))
    theirs = np.stack([reader.read()[1][..., ::-1] for _ in range(8)])
    assert np.abs(ours - theirs).mean() < 1.5
    assert np.abs(ours - np.stack(frames)).mean() < 12


@pytest.mark.skipif("libx264" not in ENCODERS, reason="this FFmpeg writes no H.264")
def test_a_named_colour_matrix_is_heeded(tmp_path):
    green = np.full((48, 64, 3), (20, 200, 20), np.uint8)
    tagged = video(tmp_path / "709.mp4", [green] * 4, codec="libx264", colours="ITU709")
    with av.open(str(tagged)) as container:
        assert next(container.decode(video=0)).colorspace == av.video.reformatter.Colorspace.ITU709.value
    plain = video(tmp_path / "601.mp4", [green] * 4, codec="libx264")
    for path in (tagged, plain):
        assert np.abs(everything(path).astype(int) - green).max() < 8, path


@pytest.mark.parametrize("turned", [90, 180, -90])
def test_a_turn_stored_by_a_phone_is_applied(tmp_path, turned):
    image = grey(0)
    image[:24, :32] = 230
    path = video(tmp_path / "turned.mp4", [image] * 4, turned=turned)
    expected, found = np.rot90(image, turned // 90).astype(int), everything(path)  # as OpenCV 5 shows it, 4 does not
    assert found.shape[1:] == expected.shape and np.abs(found[0] - expected).mean() < 5


def cut(path: Path, share: float) -> Path:
    short = path.with_name(f"cut_{path.name}")
    short.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return short


def noisy(count: int = 15) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(count)]


def text(path: Path, content: str) -> Path:
    path.write_text(content * 50)
    return path


UNUSABLE = {
    "single frame": lambda d: video(d / "one.mp4", 1),
    "sound alone": lambda d: video(d / "sound.mp4", [], sound=1),
    "empty": lambda d: text(d / "empty.mp4", ""),
    "no video": lambda d: text(d / "notes.txt", "hello\n"),
    "no video ": lambda d: text(d / "named.mp4", "hello\n"),
    "no video  ": lambda d: text(d / "list.mp4", "ffconcat version 1.0\nfile other.mp4\n"),
    "no video   ": lambda d: text(d / "list.m3u8", "#EXTM3U\n#EXTINF:1,\nother.ts\n"),
    "no video    ": lambda d: (cv2.imwrite(str(d / "picture.png"), grey(3)), d / "picture.png")[1],
    "cannot be read": lambda d: d / "missing.mp4",
    "cannot be read ": lambda d: (d / "folder.mp4").mkdir() or d / "folder.mp4",
    "no video     ": lambda d: cut(video(d / "a.mp4", noisy()), 0.6),
    "cut off": lambda d: cut(video(d / "b.mp4", noisy(), options={"movflags": "faststart"}), 0.6),
    "cut off ": lambda d: cut(video(d / "c.avi", noisy()), 0.6),
    "cut off  ": lambda d: cut(video(d / "d.mkv", noisy()), 0.6),
}


@pytest.mark.parametrize("why", UNUSABLE)
def test_unusable_files_say_why(tmp_path, why):
    with pytest.raises(DatumError, match=why.strip()):
        read_clips(UNUSABLE[why](tmp_path), Sampling(**SMALL))


@pytest.mark.parametrize("codec", ENCODERS)
def test_damage_is_named_or_passes_but_never_ends_a_run(tmp_path, codec):
    path = video(tmp_path / "whole.mp4", noisy(), codec=codec, sound=1)
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(1)
    for attempt in range(12):
        broken = bytearray(content)
        for place in rng.integers(0, len(broken), 1 + 10 * (attempt % 4)):
            broken[place : place + 4] = rng.bytes(len(broken[place : place + 4]))
        file = tmp_path / "broken.mp4"
        file.write_bytes(broken)
        try:
            assert read_clips(file, Sampling(clips=2, **SMALL)).shape == (2, 4, 20, 20, 3)
        except DatumError as error:
            assert str(error)


def test_strips_are_refused_before_they_fill_the_memory(tmp_path):
    path = video(tmp_path / "strip.mp4", [np.zeros((16, 320, 3), np.uint8)] * 3)
    with pytest.raises(DatumError, match="320 x 16"):
        read_clips(path, Sampling())


def test_real_videos_are_decoded_as_opencv_does(data_folder):
    files = sorted((data_folder / "video").glob("*.*"))
    if not files:
        pytest.skip("there are no real videos")
    sampling = Sampling(clips=3)
    for file in files:
        times: list[float] = []
        read_frames(file, lambda found, into=times: into.extend(found) or np.array([0]), lambda pixels: pixels)
        chosen, reader, theirs = sampling.chosen(np.array(times)), cv2.VideoCapture(str(file)), {}
        for number in range(chosen.max() + 1):
            assert reader.grab()
            if number in chosen:
                theirs[number] = sampling.fitted(np.ascontiguousarray(reader.retrieve()[1][..., ::-1]))[0]
        expected = np.stack([[theirs[number] for number in row] for row in chosen.tolist()])
        assert np.abs(read_clips(file, sampling).astype(int) - expected).mean((-1, -2, -3)).max() < 1.5, file.name


def test_a_video_cut_without_encoding_again_is_whole(tmp_path):
    whole = video(tmp_path / "whole.mp4", 60, gop=60)
    with av.open(str(whole)) as old, av.open(str(tmp_path / "cut.mp4"), "w") as new:
        stream = old.streams.video[0]
        copied = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.dts is None:
                continue
            shift = round(1 / packet.time_base)  # as `ffmpeg -ss 1 -c copy`: an edit list hides the first second
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copied
            new.mux(packet)
    clips = read_clips(tmp_path / "cut.mp4", Sampling(frames=4, stride=4, short_side=24, crop=20))
    assert number_of(clips).min() >= 29


@pytest.mark.parametrize(
    "given, said",
    [
        ({"clips": 200_000}, "at most 100 of each real video.*--views"),
        ({"frames": 4.5}, "expected a whole number"),
        ({"rate": 0}, "rate is 0: expected more than 0"),
        ({"clips": 0}, "clips is 0: expected more than 0"),
    ],
)
def test_numbers_mistaken_for_others_are_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        Sampling(**given)
