"""`train-teacher` on sounds: a tiny set of tones, and options that cannot work."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.config import TrainTeacherConfig
from bridge.datum.masks import Masks, mask_numbers
from bridge.errors import AipError, ConfigError, DatasetError
from bridge.sounds import LabelledSounds, floats
from bridge.teachers import training
from bridge.teachers.card import Card
from keras_aip import models
from keras_aip.datasets import load, load_audio, sound_training_batches
from keras_aip.teachers import load_model, load_teacher, save_teacher
from keras_aip.train_teacher import train_teacher
from tests.bridge.some_sounds import write

RATE, SECONDS = 8000, 0.25
HERTZ = {"high": 2400, "low": 300, "middle": 900}
FRONT_END = "mfcc:bands=20,window=320,hop=320"


def tones(root: Path) -> Path:
    """A class for every pitch, each sound of its own phase, loudness and noise."""
    drawn, time = np.random.default_rng(0), np.arange(round(RATE * SECONDS)) / RATE
    for part, count in (("train", 20), ("test", 8)):
        for name, hertz in HERTZ.items():
            for k in range(count):
                pitch, phase = hertz * drawn.uniform(0.85, 1.15), drawn.uniform(0, 6.3)
                wave = drawn.uniform(2000, 9000) * np.sin(2 * np.pi * pitch * time + phase)
                write(root / part / name / f"{k:02d}.wav", (wave + drawn.normal(0, 300, len(wave))).astype(np.int16))
    return root


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> TrainTeacherConfig:
    return TrainTeacherConfig(
        dataset=str(tones(tmp_path_factory.mktemp("tones"))), architecture="dscnn_s", sample_rate=RATE, seconds=SECONDS,
        front_end=FRONT_END, shift=0.02, epochs=2, steps_per_epoch=12, batch_size=24, learning_rate=1e-2, l2=1e-5,
        hold_out=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(quick, tmp_path_factory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("teachers") / "tones"
    return train_teacher(dataclasses.replace(quick, out=str(folder))), folder


def test_a_small_teacher_learns_tones_in_seconds_and_is_found_again(trained, quick):
    measured, folder = trained
    assert measured["student_top1"] > 0.8 and measured["n"] == 24
    card, teacher = Card.load(folder), load_teacher(folder)
    assert (card.kind, card.rate, card.input_size, card.architecture) == ("audio", RATE, (2000,), "dscnn_s")
    assert card.class_names == tuple(HERTZ) and card.accuracy is not None and card.accuracy["n"] == 24
    assert "60 sounds, 2 epochs" in card.source
    assert card.front_end is not None and card.front_end["bands"] == 20 and card.front_end["kind"] == "mfcc"
    test = load_audio(quick.dataset, rate=RATE, seconds=SECONDS)
    assert test.labels is not None
    right = np.mean(np.argmax(teacher(floats(np.asarray(test.waveforms))), axis=1) == test.labels)
    assert right == pytest.approx(measured["student_top1"])


def test_the_teacher_is_where_the_next_one_begins(trained, quick):
    folder = str(trained[1])
    config = TrainTeacherConfig(dataset=quick.dataset, init=folder)
    start = training.start_of(config, models, load_model)
    assert (start.rate, start.samples, start.architecture, start.input_size) == (RATE, 2000, "dscnn_s", (2000,))
    train, test = training.load_sounds(config, start, load_audio)
    assert (train.name, len(train.waveforms), len(test.waveforms)) == (test.name, 54, 6)  # a tenth is held out
    before = models.state_dict(load_model(folder)[0])
    same = models.state_dict(training.network(config, start, train, test, models))
    assert all((before[name] == same[name]).all() for name in before)
    two = dataclasses.replace(train, class_names=["a", "b"], labels=np.arange(54) % 2)
    other = models.state_dict(training.network(config, start, two, test, models))
    kept = [name for name in before if not name.startswith("fc.")]
    assert other["fc.weight"].shape[0] == 2 and all((before[name] == other[name]).all() for name in kept)


def test_masks_come_with_the_sounds_of_their_step():
    waves = np.random.default_rng(0).integers(-9000, 9000, (12, 500), np.int16)
    data = LabelledSounds(waves, np.arange(12) % 3, None, "noise", 3, 1000)
    plain, masks = sound_training_batches(data, 5, seed=7), Masks(2)
    stream = sound_training_batches(data, 5, masks=masks, seed=7)
    spec: Any = stream.element_spec
    assert [tuple(part.shape) for part in spec[0]] == [(5, 500), (5, 2, 2), (5, 2, 2)]
    pairs = zip(plain.take(3).as_numpy_iterator(), stream.take(3).as_numpy_iterator())
    for step, ((waves, labels), ((same, *edges), again)) in enumerate(pairs):
        assert np.array_equal(waves, same) and np.array_equal(labels, again)
        assert all(np.array_equal(a, b) for a, b in zip(edges, mask_numbers(masks, 7, step, 5)))


def test_options_that_cannot_work_are_refused_before_the_training(trained, quick, tmp_path):
    folder = str(trained[1])
    save_teacher(models.build("small_cnn", classes=3, width=4), tmp_path / "sees")
    of_tones: dict[str, Any] = {"dataset": quick.dataset, "architecture": "dscnn_s"}
    begins: dict[str, Any] = {"dataset": quick.dataset, "init": folder}
    sees = str(tmp_path / "sees")
    cases: list[tuple[dict[str, Any], type[AipError], str]] = [
        ({"architecture": "small_cnn", "shift": 0.2}, ConfigError, "--shift 0.2 is of sounds, and small_cnn"),
        ({"init": sees, "front_end": "mfcc"}, ConfigError, "--front-end mfcc is of sounds, and small_cnn takes none"),
        ({"dataset": "speech_commands"}, DatasetError, "is a set of sounds, and the network takes no sounds"),
        ({"architecture": "dscnn_s"}, DatasetError, "digits is a set of images, and the network takes sounds"),
        ({**of_tones, "image_size": 48}, ConfigError, "--image-size 48 is of images, and dscnn_s takes sounds"),
        ({**of_tones, "flip": False}, ConfigError, "--no-flip is of images"),
        ({**of_tones, "frames": 4}, ConfigError, "--frames 4 is of clips, and dscnn_s takes sounds"),
        ({**of_tones, "front_end": "mfc"}, ConfigError, "unknown kind 'mfc'.*mfcc"),
        ({**of_tones, "front_end": "log_mel:bands"}, ConfigError, "expected NAME=VALUE"),
        ({**of_tones, "seconds": 0.01}, ConfigError, "front end: window"),
        ({**of_tones, "dataset": quick.dataset + "/train"}, DatasetError, "must hold train/ and test/"),
        ({**of_tones, "dataset": quick.dataset + "/nothing"}, DatasetError, "no evaluation set of sounds"),
        ({**begins, "sample_rate": 11_025}, ConfigError, "hears 2000 samples at 8000 Hz.*leave out --sample-rate"),
        ({**begins, "seconds": 0.5}, ConfigError, "leave out --sample-rate"),
        ({**begins, "front_end": FRONT_END}, ConfigError, "and --front-end"),
        ({**begins, "pad": 2}, ConfigError, "--pad 2 is of images, and dscnn_s takes sounds"),
        ({**begins, "architecture": "dscnn_m"}, ConfigError, "is a dscnn_s; leave out --architecture"),
    ]
    for options, kind, said in cases:
        config = TrainTeacherConfig(**options)
        with pytest.raises(kind, match=said):
            start = training.start_of(config, models, load_model)
            if start.samples is None:
                training.load_data(config, start.image_size, load)
            else:
                training.load_sounds(config, start, load_audio)
