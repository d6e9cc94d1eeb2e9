"""Looking at views of one clip and listening to them: pictures, sounds and whole sets, from all programs."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from bridge.cli import main
from bridge.datum.audio import AudioSet, make_audio_set
from bridge.datum.audio_preview import log_mel, spectrogram_pictures
from bridge.datum.mixing import Mixing, MixingNumbers, mixing_numbers
from bridge.datum.preview import base_views, heard, mix, previews
from bridge.datum.render import render

RATE, SECONDS = 8_000, 0.5


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """A tone that rises over three seconds, with pauses."""
    time = np.arange(3 * RATE) / RATE
    sound = 0.5 * np.sin(2 * np.pi * (300 + 300 * time) * time) * (np.sin(7 * time) > -0.5)
    soundfile.write(tmp_path / "clip.wav", sound, RATE)
    return str(tmp_path / "clip.wav")


def line(clip: str, out: Path, *more: str) -> list[str]:
    sizes = ["--sample-rate", str(RATE), "--seconds", str(SECONDS), "--grid", "3"]
    return ["views", "--audio", clip, "--out", str(out), *sizes, *more]


def views_of(clip: str) -> AudioSet:
    return make_audio_set(clip, RATE, SECONDS, None, views=50_000, seed=0)


def keras_main(words: list[str]) -> int:
    return pytest.importorskip("keras_aip.cli").main(words)


def torch_main(words: list[str]) -> int:
    return pytest.importorskip("torch_aip.cli").main(words)


# --- mixing and previews ----------------------------------------------------------------------------------------------


def test_waveforms_are_mixed_where_the_middle_of_a_sample_lies_inside() -> None:
    sounds = np.stack([np.zeros(8), np.ones(8)]).astype(np.float32)
    box = np.array([[0.25, 0, 0.5, 1], [0.32, 0, 0.45, 1]], np.float32)
    numbers = MixingNumbers(np.array([1, -1], np.int32), box, np.zeros(2, np.float32))
    assert mix(sounds, numbers).tolist() == [[0, 0, 1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1, 1, 1]]
    faded = mix(sounds, MixingNumbers(numbers.partner, np.zeros((2, 4), np.float32), np.array([0.25, 0.5], np.float32)))
    assert faded.dtype == np.float32 and faded[:, 0].tolist() == [0.25, 0.5]


def test_of_spectrograms_a_box_of_time_and_pitch_is_mixed() -> None:
    pictures = np.stack([np.zeros((4, 6)), np.ones((4, 6))]).astype(np.float32)  # 4 frames of 6 bands
    box = np.array([[0, 0.5, 0.5, 1]] * 2, np.float32)
    mixed = mix(pictures, MixingNumbers(np.array([1, -1], np.int32), box, np.zeros(2, np.float32)))
    expected = np.zeros((4, 6))
    expected[:2, 3:] = 1
    assert np.array_equal(mixed[0], expected) and np.array_equal(mixed[1], 1 - expected)


def test_what_is_heard_is_what_the_first_step_of_a_run_plays(clip: str) -> None:
    views, mixing = views_of(clip), Mixing("both", 1.0, "sample", block=4)
    shown = render(views, np.arange(8))
    expected = mix(shown, mixing_numbers(mixing, 0, 0, 8, axes=1))
    base, augmented, mixed = heard(views, mixing, 3).values()
    assert np.array_equal(augmented, shown[:3]) and np.array_equal(mixed, expected[:3])
    assert np.array_equal(base, render(base_views(views), np.arange(3)))
    assert (mixed != augmented).any() and (base != augmented).any()
    pictures = previews(views, mixing, 6)
    assert list(pictures) == list(heard(views, mixing, 1)) and "hear" in list(pictures)[2]
    for sounds, picture in zip((augmented, mixed), list(pictures.values())[1:]):
        assert np.array_equal(picture[:3], spectrogram_pictures(sounds, RATE))


def test_mixed_spectrograms_are_shown_but_cannot_be_heard(clip: str) -> None:
    views, mixing = views_of(clip), Mixing("cutmix", 1.0, "sample", on="spectrogram", block=4)
    assert len(heard(views, mixing, 2)) == 2
    pictures = previews(views, mixing, 4)
    assert "as spectrograms" in list(pictures)[2]
    _, augmented, mixed = pictures.values()
    changed = (augmented != mixed).any(axis=-1)
    assert mixed.shape == augmented.shape and 0 < changed.mean() < 1
    assert "not mixed" in list(previews(views, Mixing("none"), 1))[2]


def test_very_short_sounds_have_spectrograms_too() -> None:
    assert log_mel(np.zeros((2, 256)), 16_000).shape[1] > 20
    assert log_mel(np.zeros((2, 16_000)), 16_000).shape[1] == 98


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [main, keras_main, torch_main])
def test_the_command_writes_pictures_and_sounds(clip: str, tmp_path: Path, capsys, program) -> None:
    assert program(line(clip, tmp_path / "out")) == 0
    said = capsys.readouterr().out
    assert "9 views of 0.5 s, base views, cut from the one clip" in said and "pixel" not in said
    views = views_of(clip)
    expected = heard(views, Mixing("cutmix", 1.0, "batch"), 8)
    for name, sounds in zip(("base", "augmented", "mixed"), expected.values()):
        with Image.open(tmp_path / "out" / f"{name}.png") as image:
            assert image.size == (3 * 98 - 2, 3 * 130 - 2)  # 48 frames of 64 bands, twice as large
        played, rate = soundfile.read(tmp_path / "out" / f"{name}.wav", dtype="float32")
        played = played.reshape(8, -1)
        length = views.recipe.samples
        assert rate == RATE and np.abs(played[:, :length] - sounds).max() < 1e-4
        assert played.shape[1] > length + 0.2 * RATE and not played[:, length:].any()


@pytest.mark.parametrize("kind", ["base", "augmented"])
def test_whole_sets_are_written_and_gone_on_with(clip: str, tmp_path: Path, capsys, kind: str) -> None:
    words = line(clip, tmp_path / "out", "--kind", kind, "--count", "5", "--grid", "1")
    assert main(words) == 0
    assert f"5 {kind} views of 0.5 s at 8000 Hz, 5 written now" in capsys.readouterr().out
    files = tmp_path / "out" / "files"
    views = views_of(clip)
    expected = render(base_views(views) if kind == "base" else views, np.arange(5))
    for number, sound in enumerate(expected):
        found, rate = soundfile.read(files / "000" / f"{number:08d}.wav", dtype="float32")
        assert rate == RATE and np.abs(found - sound).max() < 1e-4
    manifest = json.loads((files / "manifest.json").read_text())
    about = {"format": "wav", "rate": RATE, "samples": 4000, "kind": kind, "source": "clip.wav", "count": 5}
    assert manifest.items() >= about.items()
    (files / "000" / "00000003.wav").unlink()
    assert main(words) == 0 and "1 written now" in capsys.readouterr().out
    assert main([*words, "--seed", "1"]) == 2 and "seed: there 0, now 1" in capsys.readouterr().err


def test_shards_hold_the_same_bytes(clip: str, tmp_path: Path) -> None:
    for layout in ("folder", "tar"):
        assert main(line(clip, tmp_path / layout, "--count", "3", "--layout", layout)) == 0
    with tarfile.open(tmp_path / "tar" / "files" / "views-000000.tar") as shard:
        for member in shard:
            content = shard.extractfile(member)
            assert content and content.read() == (tmp_path / "folder" / "files" / "000" / member.name).read_bytes()
        assert len(shard.getnames()) == 3


def test_what_cannot_be_heard_is_said_and_no_old_file_is_left(clip: str, tmp_path: Path, capsys) -> None:
    assert main(line(clip, tmp_path / "out")) == 0 and (tmp_path / "out" / "mixed.wav").exists()
    assert main(line(clip, tmp_path / "out", "--mixing-on", "spectrogram", "--recipe", "crop")) == 0
    said = capsys.readouterr().out
    assert "Spectrograms that were mixed cannot be listened to." in said and "which are not augmented" in said
    assert not (tmp_path / "out" / "mixed.wav").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["--image", "sklearn:china.jpg", "--image-size", "32", "--frames", "4", "--motion", "smooth", "--patches"],
            "--image sklearn:china.jpg, --patches, --frames 4, --motion smooth and --image-size 32 are of images",
        ),
        (["--image-format", "png", "--recipe", "cifar"], "--recipe cifar and --image-format png are of images"),
        (["--rate", "10"], "--rate 10.0 is of images"),
        (["--mixing", "reference_cutmix"], "sounds have none"),
        (["--grid", "100000"], "too large to look at: give at most --grid"),
        (["--count", "6", "--views", "5"], "more than the 5 distinct base views"),
        (["--seconds", "5"], "lasts 3 s: expected at least 5 s"),
        (["--audio", "nowhere.wav"], "nowhere.wav does not exist"),
        (["--audio", ""], "path of the clip is empty"),
        (["--audio", __file__], "is a text file"),
        (["--out", "{}/clip.wav/x"], "Choose another --out"),
    ],
)
def test_what_cannot_be_is_refused_in_one_message(clip: str, tmp_path: Path, capsys, given, said: str) -> None:
    words = line(clip, tmp_path / "out", *[word.format(tmp_path) for word in given])
    assert main(words) == 2
    message = capsys.readouterr().err.strip()
    assert said in message and len(message.splitlines()) == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--sample-rate", "8000", "--seconds", "2"], "--sample-rate 8000 and --seconds 2.0 are of sounds"),
        (["--recipe", "crop", "--image-format", "wav"], "--recipe crop and --image-format wav are of sounds"),
        (["--mixing-on", "spectrogram"], "--mixing-on spectrogram is of sounds"),
        (["--grid", "100000"], "too large to look at: give at most --grid"),
    ],
)
def test_images_take_no_options_of_sounds(tmp_path: Path, capsys, given, said: str) -> None:
    assert main(["views", "--image", "sklearn:china.jpg", "--out", str(tmp_path / "out"), *given]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_silence_and_no_datum_at_all_are_named(tmp_path: Path, capsys) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(2 * RATE), RATE)
    assert main(["views", "--audio", str(tmp_path / "silence.wav")]) == 2 and "silent" in capsys.readouterr().err
    assert main(["views"]) == 2 and "--image FILE, or --audio FILE" in capsys.readouterr().err


def test_a_render_of_something_else_is_refused(tmp_path: Path) -> None:
    from bridge.datum.export import write_views
    from bridge.errors import DatumError

    for wrong in (np.zeros((2, 8)), np.zeros((2, 8, 8, 3), np.uint8), np.zeros((1, 8), np.float32)):
        with pytest.raises(DatumError, match=r"expected float32 \[2, samples\]"):
            write_views(lambda n: wrong, 2, tmp_path / "out", image_format="wav", manifest={}, progress=False)  # noqa: B023
