"""Sounds as `tf.data`, and Speech Commands as TensorFlow Datasets has prepared it."""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from bridge.audio_facts import COMMANDS, SILENCE, UNKNOWN, WORDS
from bridge.errors import DatasetError
from bridge.sound_batches import RandomSounds
from bridge.sounds import LabelledSounds
from keras_aip.datasets import batches, load_audio, sound_training_batches, training_batches
from tests.bridge import some_sounds as made

TFDS_ORDER = [*sorted(WORDS), SILENCE, UNKNOWN]


def noisy(count: int = 12) -> LabelledSounds:
    waves = np.random.default_rng(0).integers(-9000, 9000, (count, 500), np.int16)
    return LabelledSounds(waves, np.arange(count) % 3, ["a", "b", "c"], "noisy", 3, 1000)


def test_batches_are_floats_in_order_of_files_and_of_memory(tmp_path):
    data = load_audio(made.classes(tmp_path, "a", each=5), lazy=True, rate=made.RATE, seconds=made.SECONDS)
    parts = list(batches(data.waveforms, 2))
    assert [len(part) for part in parts] == [2, 2, 1] and all(part.dtype == np.float32 for part in parts)
    assert np.array_equal(np.concatenate(parts), np.asarray(data.waveforms) / np.float32(32768))


def test_training_batches_are_an_endless_static_stream_of_what_numpy_draws():
    data = noisy()
    stream = sound_training_batches(data, 5, seed=7)
    waves, labels = stream.element_spec
    assert waves.shape == (5, 500) and waves.dtype == tf.float32
    assert labels.shape == (5,) and labels.dtype == tf.int64
    drawn = [np.concatenate(part) for part in zip(*stream.take(7).as_numpy_iterator())]
    for one, other in zip(drawn, RandomSounds(data, seed=7).draw(np.arange(35))):
        assert np.array_equal(one, other)
    again = next(iter(training_batches(data, 5, seed=7)))  # as of images
    assert np.array_equal(again[0], drawn[0][:5]) and np.array_equal(again[1], drawn[1][:5])


def prepare(root: Path, sounds: dict[str, list[tuple[np.ndarray, str]]], version: str = "0.0.3") -> None:
    """Speech Commands as TensorFlow Datasets keeps it: records and what it knows of them."""
    import tensorflow_datasets as tfds

    place = root / "speech_commands" / version
    place.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "audio": tfds.features.Audio(file_format="wav", sample_rate=16_000, dtype=np.int16),
            "label": tfds.features.ClassLabel(names=TFDS_ORDER),
        }
    )
    splits = []
    for split, examples in sounds.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=place, dataset_name="speech_commands", split=split, filetype_suffix="tfrecord"
        )
        with tf.io.TFRecordWriter(str(template.sharded_filepath(shard_index=0, num_shards=1))) as file:
            for wave, name in examples:
                file.write(features.serialize_example(features.encode_example({"audio": wave, "label": name})))
        splits.append(
            tfds.core.SplitInfo(name=split, shard_lengths=[len(examples)], num_bytes=0, filename_template=template)
        )
    tfds.folder_dataset.write_metadata(data_dir=str(place), features=features, split_infos=splits, check_data=False)


class Segment:
    """What TensorFlow Datasets wants of pydub, which it decodes with."""

    def __init__(self, samples: np.ndarray) -> None:
        self.samples = samples

    @classmethod
    def from_file(cls, file, format):
        return cls(soundfile.read(file, dtype="int16")[0])

    def get_array_of_samples(self) -> np.ndarray:
        return self.samples


def test_folders_give_what_the_builder_of_tensorflow_datasets_makes_of_them(tmp_path, monkeypatch):
    """Its own code on the same files, to train and for validation."""
    from tensorflow_datasets.datasets.speech_commands import speech_commands_dataset_builder as theirs

    root = made.speech_commands(tmp_path / "speech_commands_v0.02", ("bed", "down", "yes"), each=10)
    monkeypatch.setattr(theirs, "SAMPLE_RATE", made.LENGTH)  # a second is shorter here
    monkeypatch.setitem(sys.modules, "pydub", types.SimpleNamespace(AudioSegment=Segment))
    files = sorted(path for path in root.rglob("*") if path.is_file())

    def archive():
        return ((path.relative_to(root).as_posix(), path.open("rb")) for path in files)

    builder = theirs.Builder.__new__(theirs.Builder)
    for split, paths in zip(("train", "validation"), builder._split_archive(archive())):
        made_by_them = [example for _, example in builder._generate_examples(archive(), paths)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours = load_audio("speech_commands", split, rate=made.RATE, seconds=made.SECONDS, data_dir=tmp_path)
        pairs = [(COMMANDS[label], bytes(wave)) for wave, label in zip(ours.waveforms, ours.labels)]
        assert sorted(pairs) == sorted((each["label"], bytes(each["audio"])) for each in made_by_them)
        assert {label for label, _ in pairs} == {SILENCE, UNKNOWN, "down", "yes"}


@pytest.mark.parametrize("place", ["ours", "theirs"])
def test_prepared_speech_commands_are_matched_by_name_cut_and_padded_at_the_end(place, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "theirs"))
    sounds = [(np.arange(k, k + length, dtype=np.int16), name) for k, (length, name) in enumerate(
        [(16_000, "yes"), (9_000, "down"), (16_000, SILENCE), (20_000, UNKNOWN)])]  # fmt: skip
    prepare(tmp_path / place, {"test": sounds, "validation": sounds[:2]})
    with pytest.warns(UserWarning, match="4 sounds in its test split, speech_commands has 4,890"):
        data = load_audio("speech_commands", data_dir=tmp_path / "ours")
    assert data.class_names == list(COMMANDS) and [COMMANDS[label] for label in data.labels] == [
        "yes", "down", SILENCE, UNKNOWN,
    ]  # fmt: skip
    assert data.waveforms.shape == (4, 16_000) and data.waveforms.dtype == np.int16 and data.rate == 16_000
    for wave, (sound, _) in zip(data.waveforms, sounds):
        assert np.array_equal(wave[: len(sound)], sound[:16_000]) and not wave[len(sound) :].any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held = load_audio("speech_commands", "validation", data_dir=tmp_path / "ours", class_names=TFDS_ORDER)
    assert held.class_names == TFDS_ORDER and held.labels.tolist() == [9, 0]
    folder = made.classes(tmp_path / "ours" / "speech_commands_test_set_v0.02", *sorted(COMMANDS))
    with pytest.warns(UserWarning, match=f"{folder} has 12 sounds"):
        assert len(load_audio("speech_commands", data_dir=tmp_path / "ours").waveforms) == 12


def test_what_is_prepared_nowhere_is_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "theirs"))
    with pytest.raises(DatasetError, match=r"was not found: looked in.*has not prepared it.*tfds build"):
        load_audio("speech_commands", data_dir=tmp_path)
    with pytest.raises(DatasetError, match="has not got it in this form"):
        load_audio("speech_commands_35", data_dir=tmp_path)
    with pytest.raises(DatasetError, match=r"musan was not found: looked in .* Get it from https"):
        load_audio("musan", data_dir=tmp_path)
    prepare(tmp_path, {"test": [(np.ones(16_000, np.int16), "go")]})
    record = next((tmp_path / "speech_commands" / "0.0.3").glob("*.tfrecord*"))
    record.write_bytes(record.read_bytes()[:-9])
    with pytest.raises(DatasetError, match="TensorFlow Datasets could not give it"):
        load_audio("speech_commands", data_dir=tmp_path)
