"""Evaluation sets of sounds: every layout on disk, the classes of Speech Commands, files that cannot be used."""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bridge import audio_layouts, speech_commands
from bridge.audio_facts import AUDIO_FACTS, COMMANDS, SILENCE, UNKNOWN
from bridge.audio_sets import load_audio, splits_of
from bridge.datasets import check_classes
from bridge.datum import audio_files
from bridge.errors import DatasetError, DatumError, TeacherError
from bridge.measuring import check_kind, scored, takes_sounds
from bridge.sounds import Sounds, joined_sounds, pieces, read_sound, thinned_sounds
from tests.bridge import some_sounds as made
from tests.bridge.some_sounds import LENGTH, RATE, SECONDS, counting, numbers_of, steady, write

HEARD = {"rate": RATE, "seconds": SECONDS}


def names_of(data) -> list[str]:
    return [data.class_names[label] for label in data.labels]


# --- one file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"subtype": "PCM_24"}, {"subtype": "FLOAT"}])
def test_16_bit_samples_come_back_to_the_bit(how, tmp_path):
    sound = np.random.default_rng(0).integers(-32768, 32767, LENGTH, np.int16)
    path = write(tmp_path / "a.wav", sound / 32768 if how.get("subtype") == "FLOAT" else sound, **how)
    assert np.array_equal(read_sound(path, LENGTH, RATE), sound)


def test_shorter_ones_get_silence_at_the_end_and_of_longer_ones_the_beginning_counts(tmp_path):
    path = write(tmp_path / "a.wav", np.arange(1, 501, dtype=np.int16))
    assert read_sound(path, 700, RATE).tolist() == [*range(1, 501), *[0] * 200]
    assert read_sound(path, 300, RATE).tolist() == [*range(1, 301)]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_kinds_rates_and_channels_come_to_the_same_sound(suffix, tmp_path):
    rate = 44_100
    time = np.arange(rate) / rate
    sound = 0.4 * np.sin(2 * np.pi * 440 * time)
    path = write(tmp_path / f"a.{suffix}", np.stack([sound, 0.5 * sound], axis=1), rate)
    heard = read_sound(path, RATE, RATE) / 32768
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    assert np.abs(heard - expected)[200:-200].max() < (0.002 if suffix in ("wav", "flac") else 0.02)


@pytest.mark.parametrize(
    "rate, suffix", [(8_000, "wav"), (11_025, "flac"), (22_050, "ogg"), (44_100, "mp3"), (16_000, "mp3")]
)
def test_pieces_of_a_long_file_are_what_the_whole_says_at_every_rate(rate, suffix, tmp_path):
    long = 0.3 * np.sin(2 * np.pi * 300 * np.arange(3 * rate) / rate)
    path = write(tmp_path / f"a.{suffix}", long, rate)
    whole = read_sound(path, 3 * RATE, RATE)
    for start in (0.0, 1.0, 2.0) + (() if rate == 11_025 else (0.5,)):  # there it would lie between two samples
        piece = read_sound(path, RATE, RATE, start)
        begin = int(start * RATE)
        assert np.abs(piece.astype(int) - whole[begin : begin + RATE])[:-10].max() <= 2


def test_a_long_mp3_has_no_gaps(tmp_path):
    """Read block by block it would: the decoder lacks what came before."""
    path = write(tmp_path / "a.mp3", 0.3 * np.sin(2 * np.pi * 300 * np.arange(2**20 + 20_000) / RATE))
    whole, _ = soundfile.read(path, dtype="float32")
    assert np.abs(audio_files.decode(path, 1000).samples[:, 0] - whole).max() < 1e-6


def hostile(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and what is said of each."""
    good = write(folder / "zz_good.wav", steady(3)).read_bytes()
    flac = write(folder / "cut.flac", np.random.default_rng(0).integers(-999, 999, 5000, np.int16)).read_bytes()
    (folder / "cut.flac").write_bytes(flac[:60])
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no sound")
    (folder / "damaged.ogg").write_bytes(os.urandom(3000))
    (folder / "header.wav").write_bytes(good[:44])
    (folder / "picture.mp3").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    write(folder / "nan.wav", np.array([0.1, np.nan] * 400), subtype="FLOAT")
    write(folder / "loud.wav", np.full(LENGTH, 3.0), subtype="FLOAT")
    write(folder / "slow.wav", steady(1), rate=100)
    write(folder / "many.wav", np.ones((800, 9)) / 2)
    write(folder / "silent.wav", np.zeros(LENGTH, np.int16))
    os.mkfifo(folder / "pipe.wav")
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    return {
        "cut.flac": "cannot be decoded|holds no samples|ends before",
        "empty.wav": "is empty",
        "text.wav": "is a text file",
        "damaged.ogg": "cannot be decoded",
        "header.wav": "holds no samples|cannot be decoded",
        "picture.mp3": "is a picture",
        "nan.wav": "NaN",
        "loud.wav": "values to 3, beyond full scale",
        "slow.wav": "100 Hz",
        "many.wav": "9 channels",
        "silent.wav": "is silent",
        "pipe.wav": "no ordinary file",
        "gone.wav": "does not exist",
    }


def test_files_that_cannot_be_used_are_counted_named_and_skipped(tmp_path):
    said = hostile(tmp_path / "set" / "word")
    for name, why in said.items():
        with pytest.raises(DatumError, match=why):
            read_sound(tmp_path / "set" / "word" / name, LENGTH, RATE, silent=False)
    with pytest.warns(UserWarning, match=rf"skipped {len(said)} of {len(said) + 1} sounds.*word/cut.flac \("):
        data = load_audio(tmp_path / "set", **HEARD)
    assert numbers_of(data.waveforms) == [3] and data.labels.tolist() == [0]
    lazy = load_audio(tmp_path / "set", lazy=True, **HEARD)
    assert np.asarray(lazy.waveforms).any(axis=1).sum() == 1
    with pytest.warns(UserWarning, match="skipped"):
        figures = scored(lazy, np.ones((len(said) + 1, 1), np.float32))
    assert figures["n"] == 1 and figures["student_top1"] == 1


def test_a_set_without_a_usable_sound_says_why(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.wav").touch()
    with pytest.raises(DatasetError, match=r"no usable sound in .*a/x.wav \(is empty"):
        load_audio(tmp_path, **HEARD)
    (tmp_path / "a" / "x.wav").rename(tmp_path / "a" / "x.txt")
    with pytest.raises(DatasetError, match="expected sounds or class folders; found none"):
        load_audio(tmp_path, **HEARD)


def test_a_header_that_lies_about_its_length_costs_nothing(tmp_path):
    path = write(tmp_path / "a.wav", counting(3))
    content = bytearray(path.read_bytes())
    for place, value in ((4, 2**31), (40, 2**31 - 36)):
        content[place : place + 4] = int(value).to_bytes(4, "little")
    path.write_bytes(content)
    rows, _ = pieces([path], SECONDS)
    assert len(rows) <= 3
    cut = write(tmp_path / "b.wav", counting(3)).read_bytes()
    (tmp_path / "b.wav").write_bytes(cut[: 44 + 3 * LENGTH])  # one and a half
    assert pieces([tmp_path / "b.wav"], SECONDS)[1].tolist() == [0]


# --- folders ----------------------------------------------------------------------------------------------------------


def test_class_folders_are_read_in_order_and_matched_by_name(tmp_path):
    made.classes(tmp_path / "set", "Air drum", "bell", each=2, suffix="flac")
    data = load_audio(tmp_path / "set", **HEARD)
    assert data.waveforms.dtype == np.int16 and data.waveforms.shape == (4, LENGTH) and data.name == "set"
    assert numbers_of(data.waveforms) == [0, 1, 2, 3] and data.labels.tolist() == [0, 0, 1, 1]
    assert data.class_names == ["Air drum", "bell"] and data.rate == RATE
    with pytest.warns(UserWarning, match="2 of 3 classes"):
        other = load_audio(tmp_path / "set", class_names=["bell", "cat", "air_drum"], **HEARD)
    assert other.labels.tolist() == [2, 2, 0, 0] and other.class_names == ["bell", "cat", "air_drum"]
    with pytest.raises(DatasetError, match="classes that the model has not: bell"):
        load_audio(tmp_path / "set", class_names=["air drum", "x"], **HEARD)


def test_parts_are_chosen_and_validation_is_held_out_of_training_if_it_has_no_folder(tmp_path):
    made.classes(tmp_path / "train", "a", "b", each=10)
    made.classes(tmp_path / "test", "a", "b")
    assert len(load_audio(tmp_path, "test", **HEARD).waveforms) == 2
    train, held = (load_audio(tmp_path, part, **HEARD) for part in ("train", "validation"))
    assert numbers_of(held.waveforms) == [9, 19] and held.labels.tolist() == [0, 1]
    assert sorted(numbers_of(train.waveforms) + numbers_of(held.waveforms)) == list(range(20))
    made.classes(tmp_path / "val", "a", "b", each=3)
    assert len(load_audio(tmp_path, "validation", **HEARD).waveforms) == 6
    assert len(load_audio(tmp_path, "train", **HEARD).waveforms) == 20
    with pytest.raises(DatasetError, match="has no split 'test'"):
        (tmp_path / "test").rename(tmp_path / "validation")
        load_audio(tmp_path, "test", **HEARD)


def test_it_is_known_which_splits_there_are(commands, tmp_path):
    assert splits_of("musan") == splits_of(commands) == ("train", "validation", "test")
    made.classes(tmp_path / "set" / "train", "a")
    assert splits_of(tmp_path / "set") == ("train", "validation") and splits_of(tmp_path / "set" / "train") == ()
    np.savez(tmp_path / "a.npz", x_test=np.zeros((1, 8)), y_test=[0])
    assert splits_of(tmp_path / "a.npz") == ("test",) and splits_of("nowhere") == ()


def test_long_files_become_pieces_and_no_file_is_on_two_sides(tmp_path):
    for k in range(10):
        write(tmp_path / "train" / "a" / f"{k}.wav", counting(3, 3 * k)[: 3 * LENGTH - (k == 0)])
    train, held = (load_audio(tmp_path, part, **HEARD) for part in ("train", "validation"))
    assert numbers_of(train.waveforms) == [0, 1, *range(3, 27)]
    assert numbers_of(held.waveforms) == [27, 28, 29]
    assert all((wave == wave[0]).all() for wave in train.waveforms)


def test_sounds_without_class_folders_have_no_labels_and_what_is_no_sound_is_named(tmp_path):
    write(tmp_path / "a.wav", steady(1))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.warns(UserWarning, match=r"left out.*notes.txt"):
        data = load_audio(tmp_path, **HEARD)
    assert data.labels is None and data.class_names is None
    made.classes(tmp_path, "x", "y")
    with pytest.warns(UserWarning, match=r"being in no class folder: a.wav"):
        assert load_audio(tmp_path, **HEARD).labels.tolist() == [0, 1]


def test_silence_counts_where_the_class_says_so_and_nowhere_else(tmp_path):
    for name in ("_silence_", "bell"):
        write(tmp_path / name / "0.wav", np.zeros(LENGTH, np.int16))
        write(tmp_path / name / "1.wav", steady(1))
    with pytest.warns(UserWarning, match=r"skipped 1 of 4 sounds.*bell/0.wav \(is silent"):
        assert load_audio(tmp_path, **HEARD).labels.tolist() == [0, 0, 1]


def test_what_is_decoded_while_used_is_the_same_in_any_order_and_in_other_processes(tmp_path):
    made.classes(tmp_path, "a", "b", each=20)
    data, lazy = load_audio(tmp_path, **HEARD), load_audio(tmp_path, lazy=True, **HEARD)
    sounds = lazy.waveforms
    assert isinstance(sounds, Sounds) and sounds.nbytes == data.waveforms.nbytes and sounds.dtype == np.int16
    rows = np.array([39, 3, 3, 17])
    assert np.array_equal(np.asarray(sounds), data.waveforms) and np.array_equal(sounds[rows], data.waveforms[rows])
    assert np.array_equal(sounds[5:33:3], data.waveforms[5:33:3]) and np.array_equal(sounds[-1], data.waveforms[-1])
    assert np.array_equal(pickle.loads(pickle.dumps(sounds.take(rows)))[:], data.waveforms[rows])
    for each in (data, lazy):
        thin = thinned_sounds(each, 4)
        assert numbers_of(thin.waveforms) == [0, 13, 26, 39] and thin.labels.tolist() == [0, 0, 1, 1]
        both = joined_sounds([thin, each])
        assert numbers_of(both.waveforms) == [0, 13, 26, 39, *range(40)] and len(both.labels) == 44
        assert isinstance(both.waveforms, type(each.waveforms))


# --- Speech Commands --------------------------------------------------------------------------------------------------

WORDS = ("bed", "go", "no", "yes", "zero")


@pytest.fixture
def commands(tmp_path) -> Path:
    return made.speech_commands(tmp_path / "speech_commands_v0.02", WORDS)


def load_quietly(*args, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_audio(*args, **HEARD, **how)


def test_the_twelve_classes_are_in_the_order_of_the_published_spotters():
    assert " ".join(COMMANDS) == "_silence_ _unknown_ yes no up down left right on off stop go"
    assert AUDIO_FACTS["speech_commands_v0.02"] is AUDIO_FACTS["speech_commands"]
    assert [len(AUDIO_FACTS[f"speech_commands_{n}"].names) for n in (30, 35)] == [30, 35]
    assert all(f.class_names is None or len(f.class_names) == f.classes for f in AUDIO_FACTS.values())


@pytest.mark.parametrize("split, kept", [("train", 8), ("validation", 1), ("test", 1)])
def test_the_lists_of_the_archive_say_what_is_for_what(commands, tmp_path, split, kept):
    data = load_quietly("speech_commands", split, data_dir=tmp_path)
    counts = Counter(names_of(data))
    assert (
        data.class_names == list(COMMANDS) and data.name == f"speech_commands{'' if split == 'test' else '/' + split}"
    )
    assert counts["yes"] == counts["no"] == counts["go"] == 2 * kept
    ends = {number % 10 for number, name in zip(numbers_of(data.waveforms), names_of(data)) if name == "yes"}
    assert ends == {"train": set(range(8)), "validation": {8}, "test": {9}}[split]


def test_other_words_are_unknown_and_noise_is_silence_as_tfds_builds_them(commands, tmp_path):
    data = load_quietly("speech_commands", "train", data_dir=tmp_path)
    counts = Counter(names_of(data))
    assert counts[UNKNOWN] == 2 * 16  # every other word to train
    # A noise of 2.25 sounds: pieces at 0, 0.5 and 1 of a sound, the last before 1.25.
    assert counts[SILENCE] == 2 * 3
    silence = np.stack([wave for wave, name in zip(data.waveforms, names_of(data)) if name == SILENCE])
    assert numbers_of(silence) == [40, 40, 41, 50, 50, 51] and silence[1, -1] == made.level(41)
    held = load_quietly("speech_commands", "validation", data_dir=tmp_path)
    quiet = [wave for wave, name in zip(held.waveforms, names_of(held)) if name == SILENCE]
    assert numbers_of(np.stack(quiet)) == [60, 60, 61] and Counter(names_of(held))[UNKNOWN] == 2 * 2


def test_pieces_of_noise_end_before_their_file_does(tmp_path):
    for sounds, expected in ((2.0, 2), (2.01, 3), (1.0, 1), (0.5, 1)):
        path = write(tmp_path / "n.wav", counting(3)[: int(sounds * LENGTH)])
        assert len(pieces([path], SECONDS, hop=SECONDS / 2, last=False)[0]) == expected


def test_the_noises_of_version_2_give_as_many_pieces_as_tfds_counts():
    """668 to train and 121 for validation: what its catalogue has beyond the words of the lists."""
    samples = {
        "doing_the_dishes": 1_522_930, "dude_miaowing": 988_891, "exercise_bike": 980_062, "pink_noise": 960_000,
        "white_noise": 960_000, "running_tap": 978_488,
    }  # fmt: skip
    counted = {name: int(np.ceil((count / 16_000 - 1) / 0.5 - 1e-9)) for name, count in samples.items()}
    assert counted == {name: len(range(0, count - 16_000, 8_000)) for name, count in samples.items()}
    held = counted.pop("running_tap")
    splits = AUDIO_FACTS["speech_commands"].splits
    assert (84_843 + sum(counted.values()), 9_981 + held) == (splits["train"], splits["validation"])


def test_without_the_archive_for_testing_ours_is_announced_and_small(commands, tmp_path):
    with pytest.warns(UserWarning, match=r"does not lie beside it.*1 unknown words and 1 pieces.*not those of others"):
        data = load_audio("speech_commands", data_dir=tmp_path, **HEARD)
    assert Counter(names_of(data)) == {"go": 2, "no": 2, "yes": 2, UNKNOWN: 1, SILENCE: 1}


@pytest.mark.parametrize("place", [".", "SpeechCommands"])
def test_the_archive_for_testing_is_what_is_tested_on(commands, tmp_path, place):
    made.classes(tmp_path / place / "speech_commands_test_set_v0.02", *sorted(COMMANDS), each=2)
    write(tmp_path / place / "speech_commands_test_set_v0.02" / "_silence_" / "00.wav", np.zeros(2 * LENGTH, np.int16))
    data = load_quietly("speech_commands", data_dir=tmp_path)
    assert len(data.waveforms) == 24 and data.class_names == list(COMMANDS)
    by_alphabet = sorted(COMMANDS)
    for wave, name in zip(data.waveforms, names_of(data)):
        assert not wave.any() or by_alphabet[numbers_of(wave[None])[0] // 2] == name
    model = [*sorted(set(COMMANDS) - {SILENCE, UNKNOWN}), SILENCE, UNKNOWN]  # TensorFlow Datasets' order
    other = load_quietly("speech_commands", data_dir=tmp_path, class_names=model)
    assert other.class_names == model and sorted(names_of(other)) == sorted(names_of(data))
    if place == ".":
        assert len(load_quietly(commands).waveforms) == 24  # beside it
        alone = load_quietly(tmp_path / "speech_commands_test_set_v0.02")
        assert alone.class_names == list(COMMANDS)


def test_without_lists_the_rule_of_the_archive_decides_by_speaker(tmp_path):
    # Out of the README of the archive: hash of what stands before _nohash_, modulo 2**27, in percent.
    for name in ("bed06fac_nohash_0.wav", "964e8cfd_nohash_3.wav", "0a7c2a8d_nohash_0.wav"):
        number = int(hashlib.sha1(name.split("_")[0].encode()).hexdigest(), 16) % (2**27) * (100.0 / (2**27 - 1))
        expected = "validation" if number < 10 else "test" if number < 20 else "train"
        assert speech_commands.part_of(f"word/{name}") == expected
    made.speech_commands(tmp_path, WORDS, lists=False, each=30)
    found = {split: load_quietly(tmp_path, split, class_names=WORDS) for split in ("train", "validation", "test")}
    assert sum(len(data.waveforms) for data in found.values()) == 150
    for split, data in found.items():
        assert all(speech_commands.part_of(f"{n:08x}_nohash_0.wav") == split for n in numbers_of(data.waveforms))
    assert all(len(data.waveforms) for data in found.values())


def test_the_rule_agrees_with_the_official_test_recordings(data_folder):
    """All commands among the shared clips are of the official test part."""
    meta = np.load(data_folder / "speech" / "speech_commands_test_1440_meta.npz")
    files = [str(name) for name, label in zip(meta["files"], meta["labels"]) if label > 1]
    assert len(files) == 1200 and {speech_commands.part_of(name) for name in files} == {"test"}


def test_all_words_are_classes_when_asked_for(commands, tmp_path):
    with pytest.warns(UserWarning, match="has no backward, bird"):
        data = load_audio("speech_commands_35", "train", data_dir=tmp_path, **HEARD)
    assert Counter(names_of(data)) == dict.fromkeys(WORDS, 16) and len(data.class_names) == 35
    some = load_quietly(commands, "validation", class_names=["zero", "_unknown_", "bed"])
    assert Counter(names_of(some)) == {"zero": 2, "bed": 2, "_unknown_": 6}


def test_classes_without_a_sound_are_named(tmp_path):
    root = made.speech_commands(tmp_path / "words", WORDS)
    (root / "_background_noise_" / "running_tap.wav").unlink()
    with pytest.warns(UserWarning, match="has no _silence_, up, down"):
        load_audio(root, "validation", **HEARD)


def test_another_version_or_a_part_of_the_set_is_noticed(commands, tmp_path):
    with pytest.warns(UserWarning, match="results are not those of speech_commands"):
        load_audio("speech_commands", "train", data_dir=tmp_path, rate=16_000)
    commands.rename(tmp_path / "speech_commands")
    (tmp_path / "speech_commands" / "backward").mkdir()
    with pytest.raises(DatasetError, match=r"speech_commands_v0.01 was not found"):
        load_audio("speech_commands_v0.01", data_dir=tmp_path, **HEARD)
    assert len(load_quietly("speech_commands", "validation", data_dir=tmp_path).waveforms)


def test_a_list_names_what_is_missing_and_what_is_no_list(commands, tmp_path):
    (commands / "yes" / "00000008_nohash_0.wav").unlink()
    with pytest.warns(UserWarning, match=r"of the list; not yes/00000008_nohash_0.wav"):
        load_audio("speech_commands", "validation", data_dir=tmp_path, **HEARD)
    (commands / "testing_list.txt").write_text("yes/a.wav\n../../etc/passwd/x\n")
    with pytest.raises(DatasetError, match=r"line 2: expected word/recording.wav"):
        load_audio("speech_commands", data_dir=tmp_path, **HEARD)


# --- the other sets of the paper --------------------------------------------------------------------------------------


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def split_of(name: str, folder: Path, part: str) -> audio_layouts.Listing:
    found = audio_layouts.find(name, folder, part, SECONDS, None)
    assert found is not None
    return found


def test_musan_is_split_by_files(tmp_path):
    for name, inner in (("music", "fma"), ("noise", "free-sound"), ("speech", "librivox")):
        for k in range(20):
            write(tmp_path / "musan" / name / inner / f"{name}-{inner}-{k:04d}.wav", counting(2, k))
        (tmp_path / "musan" / name / inner / "ANNOTATIONS").write_text("x")
    sets = {split: load_audio("musan", split, data_dir=tmp_path, **HEARD) for split in ("train", "validation", "test")}
    assert [len(data.waveforms) for data in sets.values()] == [96, 12, 12]
    assert sets["test"].class_names == ["music", "noise", "speech"]
    assert numbers_of(sets["test"].waveforms)[:4] == [9, 10, 19, 20] and sets["test"].labels.tolist() == [
        *[0] * 4, *[1] * 4, *[2] * 4,
    ]  # fmt: skip
    assert AUDIO_FACTS["musan"].ours and not AUDIO_FACTS["speech_commands"].ours


def test_voxforge_is_split_by_speakers_as_tfds_does(tmp_path):
    root = tmp_path / "voxforge"
    speakers = [f"s{k:02d}" for k in range(20)]
    for language in ("de", "en", "es", "fr", "it", "ru"):
        for speaker in speakers[: 20 if language == "de" else 10]:
            touch(*(root / language / f"{speaker}-20100101-abc" / "wav" / f"{k}.wav" for k in range(2)))
        touch(root / language / "s00-20100101-abc" / "etc" / "PROMPTS")
    found = {split: split_of("voxforge", tmp_path, split) for split in ("train", "validation", "test")}
    heard = {split: {f.parent.parent.name.split("-")[0] for f in each.files} for split, each in found.items()}
    assert [len(each) for each in heard.values()] == [14, 1, 5]  # 0.7 + 0.1 is a little less than 0.8, there and here
    assert set().union(*heard.values()) == set(speakers)
    groups = sorted(speakers)
    np.random.RandomState(0).shuffle(groups)
    assert heard["test"] == set(groups[15:])
    assert found["train"].class_names == ["de", "en", "es", "fr", "it", "ru"]
    assert all(f.relative_to(root).parts[0] == found["train"].class_names[label] for f, label in zip(
        found["train"].files, found["train"].labels))  # fmt: skip
    root.rename(tmp_path / "elsewhere")
    downloads = tmp_path / "VoxForge" / "www.repository.voxforge1.org" / "downloads"
    for language in ("SpeechCorpus", "de", "Russian"):
        for rate in ("16kHz_16bit", "8kHz_16bit"):
            touch(downloads / language / "Trunk" / "Audio" / "Main" / rate / "x-2010-a" / "wav" / "0.wav")
    files = [f for split in found for f in audio_layouts._voxforge(tmp_path / "VoxForge", split).files]
    assert sorted(f.parts[-8] for f in files) == ["Russian", "SpeechCorpus", "de"]
    assert {f.parts[-4] for f in files} == {"16kHz_16bit"}


def test_librispeech_takes_a_hundred_speakers_all_of_them_on_all_sides(tmp_path):
    root = tmp_path / "LibriSpeech" / "train-clean-100"
    for speaker in range(1, 104):
        touch(*(root / str(10 * speaker) / "77" / f"{10 * speaker}-77-{k:04d}.flac" for k in range(10)))
        touch(root / str(10 * speaker) / "77" / f"{10 * speaker}-77.trans.txt")
    for split, count in (("train", 800), ("validation", 100), ("test", 100)):
        found = split_of("librispeech100", tmp_path, split)
        assert len(found.files) == count and set(found.labels.tolist()) == set(range(100))
        assert found.class_names[:2] == ["10", "20"] and "1010" not in found.class_names


@pytest.mark.parametrize("name", ["musan", "voxforge", "librispeech100", "speech_commands", "speech_commands_30"])
def test_sets_that_are_not_there_are_missed_in_words(name, tmp_path):
    with pytest.raises(DatasetError, match=rf"{name} was not found: looked in .*AIP_DATA"):
        load_audio(name, data_dir=tmp_path, **HEARD)
    made.classes(tmp_path / audio_layouts._folders(name)[0] / "train", "x", "y")
    with pytest.raises(DatasetError, match=r"has no split 'test'"):
        load_audio(name, data_dir=tmp_path, **HEARD)
    with pytest.raises(DatasetError, match="Did you mean"):
        load_audio(name + "x", data_dir=tmp_path, **HEARD)


# --- packed arrays ----------------------------------------------------------------------------------------------------


def test_packed_arrays_have_parts_or_are_one_set(tmp_path):
    waves = np.stack([steady(k) for k in range(20)])
    np.savez(tmp_path / "a.npz", x_train=waves, y_train=np.arange(20)[:, None] % 2, x_test=waves[:3], y_test=[0, 1, 0])
    data = load_audio(tmp_path / "a.npz", **HEARD)
    assert numbers_of(data.waveforms) == [0, 1, 2] and data.labels.tolist() == [0, 1, 0] and data.name == "a"
    assert numbers_of(load_audio(tmp_path / "a.npz", "validation", **HEARD).waveforms) == [9, 19]
    assert len(load_audio(tmp_path / "a.npz", "train", **HEARD).labels) == 18
    np.savez(tmp_path / "b.npz", x_test=waves.astype(np.float32) / 32768, y_test=np.arange(20), rate=RATE)
    assert np.array_equal(load_audio(tmp_path / "b.npz", **HEARD).waveforms, waves)
    longer = load_audio(tmp_path / "b.npz", rate=RATE, seconds=2 * SECONDS)
    assert longer.waveforms.shape == (20, 2 * LENGTH) and not longer.waveforms[:, LENGTH:].any()
    names = np.array(["b", "a"])
    np.savez(tmp_path / "c.npz", waveforms=waves[:2], labels=[0, 1], class_names=names)
    data = load_audio(tmp_path / "c.npz", class_names=["a", "b"], **HEARD)
    assert data.labels.tolist() == [1, 0] and data.class_names == ["a", "b"]


@pytest.mark.parametrize(
    "arrays, said",
    [
        ({"x_test": np.zeros((2, 8), np.int16)}, "holds x_test: expected waveforms and labels"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8)}, "expected waveforms and labels"),
        ({"waveforms": np.zeros((2, 8), np.int32)}, "expected int16 or float"),
        ({"waveforms": np.zeros((2, 8, 1), np.int16)}, "expected int16 or float"),
        ({"waveforms": np.full((2, 8), 1.5)}, r"values to 1.5: expected \[-1, 1\]"),
        ({"waveforms": np.full((2, 8), np.nan)}, "NaN"),
        ({"waveforms": np.zeros((2, 8), np.int16), "labels": [0]}, "one per sound"),
        ({"waveforms": np.zeros((2, 8), np.int16), "labels": [0, 3], "class_names": ["a", "b"]}, "below 2"),
        ({"waveforms": np.zeros((2, 8), np.int16), "rate": 44_100}, "44100 Hz: expected 8000"),
    ],
)
def test_packed_arrays_of_another_kind_are_refused(arrays, said, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DatasetError, match=said):
        load_audio(tmp_path / "a.npz", **HEARD)


def test_questions_without_sense_are_answered_in_words(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(DatasetError, match="cannot be read"):
        load_audio(tmp_path / "a.npz", **HEARD)
    for how, said in (({"split": "dev"}, "expected one of train"), ({"seconds": 0}, "at least one sample")):
        with pytest.raises(DatasetError, match=said):
            load_audio("musan", **how)


# --- measuring --------------------------------------------------------------------------------------------------------


def test_sounds_are_for_networks_that_hear(tmp_path):
    assert takes_sounds("musan", (16_000,)) and takes_sounds(tmp_path, (16_000,))
    assert not takes_sounds("cifar10", (32, 32)) and not takes_sounds(tmp_path, None)
    for dataset, size, said in (
        ("cifar10", (16_000,), "cifar10 is a set of images"),
        ("ucf101", (16_000,), "ucf101 is a set of videos"),
        ("musan", (32, 32), "takes no sounds"),
        ("musan", None, "does not say"),
    ):
        with pytest.raises(DatasetError, match=said):
            takes_sounds(dataset, size)
    data = load_audio(made.classes(tmp_path, "a", "b"), **HEARD)
    check_kind(data, "student", (LENGTH,))
    data.check("student", RATE, LENGTH)
    with pytest.raises(DatasetError, match=r"holds sounds, and the student takes inputs of \[32, 32\]"):
        check_kind(data, "student", (32, 32))
    with pytest.raises(DatasetError, match="wants 16000 at 16000 Hz; load it with rate=16000, seconds=1"):
        data.check("teacher", 16_000, 16_000)
    with pytest.raises(TeacherError, match="2 classes, the model answers with 12"):
        check_classes(data, 12)
    assert scored(data, np.eye(2, dtype=np.float32))["student_top1"] == 1


def test_the_shared_clips_are_read_as_they_are(data_folder, tmp_path):
    """As class folders of wav files and as packed arrays, in any order of classes."""
    flac = data_folder / "speech" / "speech_commands_test_1440.flac"
    meta = np.load(str(flac)[:-5] + "_meta.npz")
    with soundfile.SoundFile(flac) as file:
        clips = file.read(48 * 16_000, dtype="int16").reshape(-1, 16_000)
    labels, names = meta["labels"][:48].astype(int), meta["class_names"]
    assert tuple(names) == COMMANDS
    for row, (clip, label) in enumerate(zip(clips, labels)):
        write(tmp_path / "speech_commands_test_set_v0.02" / names[label] / f"{row:02d}.wav", clip, 16_000)
    with pytest.warns(UserWarning, match="48 sounds in its test split, speech_commands has 4,890"):
        data = load_audio("speech_commands", data_dir=tmp_path)
    order = np.argsort(labels * 100 + np.arange(48))
    by_name = sorted(order, key=lambda row: (sorted(COMMANDS).index(names[labels[row]]), row))
    assert sorted(map(bytes, data.waveforms)) == sorted(map(bytes, clips))
    assert {bytes(w): label for w, label in zip(data.waveforms, data.labels)} == {
        bytes(clips[row]): labels[row] for row in by_name
    }
    np.savez(tmp_path / "a.npz", x_test=clips, y_test=labels, class_names=names)
    packed = load_audio(tmp_path / "a.npz", class_names=COMMANDS)
    assert np.array_equal(packed.waveforms, clips) and np.array_equal(packed.labels, labels)
