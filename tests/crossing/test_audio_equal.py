"""The same numbers give the same sound: NumPy, TensorFlow with XLA and without, in tf.data. Both readers agree."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from bridge.datum.audio import AudioNumbers, AudioSet
from bridge.datum.audio_files import SOUNDFILE, resample
from bridge.datum.audio_recipes import AudioAugmentation, AudioRecipe, BaseAudio, audio, crop
from bridge.datum.audio_render import render_audio, render_audio_numbers
from bridge.datum.audio_sources import AudioSource, load_audio
from bridge.datum.steps import step_numbers
from bridge.errors import ConfigError, DatumError, RecipeError
from keras_aip.audio import AudioRenderer, audio_dataset, single_audio_dataset
from keras_aip.audio_files import READER

RATE, LENGTH, BATCH = 8_000, 2_000, 8
ALL = AudioAugmentation(silence=1.0, noise=1.0, low_cut=1.0, high_cut=1.0, room=1.0)
RECIPES = {
    "audio": audio(RATE, LENGTH),
    "crop": crop(RATE, LENGTH),
    "all at once": AudioRecipe(RATE, LENGTH, BaseAudio(stretched=1.0, reverse=0.5, mixed=1.0), ALL),
    "odd length, no noise": AudioRecipe(RATE, 1_999, BaseAudio(mixed=0.0), dataclasses.replace(ALL, noise=0.0)),
    "nothing filtered": AudioRecipe(
        RATE, 777, augmentation=AudioAugmentation(shift=0.05, noise=0.0, low_cut=0.0, high_cut=0.0, room=0.0)
    ),
}


def clip() -> AudioSource:
    time = np.arange(3 * RATE) / RATE
    phase = np.cumsum(2 * np.pi * (150 + 50 * np.sin(2 * np.pi * 0.7 * time)) / RATE)
    waves = 0.1 * sum(np.sin(k * phase) / k for k in range(1, 8)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
    return AudioSource("made", waves.astype(np.float32), RATE, "")


@pytest.mark.parametrize("name", RECIPES)
def test_tensorflow_plays_what_the_host_plays(name):
    views = AudioSet(clip(), RECIPES[name], views=40, seed=2)
    numbers = views.numbers(np.arange(30, 30 + BATCH))
    host = render_audio_numbers(numbers, views)
    assert host.std() > 0.01 and np.isfinite(host).all()
    renderer = AudioRenderer(views, jit_compile=False)
    ours = renderer(AudioNumbers(*map(tf.constant, numbers))).numpy()
    assert ours.shape == host.shape and ours.dtype == np.float32 and np.abs(ours).max() <= 1
    assert np.abs(ours - host).max() < 2e-5


@pytest.mark.parametrize("name", ["all at once"])
def test_one_xla_program_plays_the_same(name):
    views = AudioSet(clip(), RECIPES[name], views=40, seed=2)
    numbers = views.numbers(np.arange(BATCH))
    renderer = AudioRenderer(views)
    whole = tf.function(lambda *parts: renderer(AudioNumbers(*parts)), jit_compile=True)(*map(tf.constant, numbers))
    # XLA 2.15's Fourier transform errs by 1e-4.
    assert np.abs(whole.numpy() - render_audio_numbers(numbers, views)).max() < 1e-3
    assert whole.shape == [BATCH, LENGTH]


def test_the_data_set_plays_samples_in_the_order_of_their_numbers_and_starts_anywhere():
    views = AudioSet(clip(), audio(RATE, LENGTH), views=20, seed=6)
    data = audio_dataset(views, BATCH)
    assert data.steps_per_epoch == 3 and data.element_spec == tf.TensorSpec([BATCH, LENGTH], tf.float32)
    waves = [batch.numpy() for batch in data.take(5)]
    for step, batch in enumerate(waves):
        assert np.abs(batch - render_audio(views, step * BATCH + np.arange(BATCH))).max() < 2e-3
    later = audio_dataset(views, BATCH, start_step=3)
    assert later.start_step == 3
    assert all(np.array_equal(one, other) for one, other in zip(waves[3:], later.take(2)))


def test_numbers_for_the_device_are_those_of_the_host_and_no_two_shards_overlap():
    views = AudioSet(clip(), audio(RATE, LENGTH), views=50, seed=6)
    whole = audio_dataset(views, BATCH, render="device")
    halves = [audio_dataset(views, BATCH, render="device", shard=(k, 2)) for k in (0, 1)]
    assert isinstance(whole.element_spec, AudioNumbers)
    for spec in tf.nest.flatten(whole.element_spec):
        assert spec.shape.is_fully_defined() and spec.shape[0] == BATCH
    for step, (both, first, second) in enumerate(zip(whole.take(2), *halves)):
        exact = step_numbers(views, BATCH, np.array([step]), np.arange(BATCH))
        for part, one, other, right in zip(both, first, second, exact):
            assert one.shape[0] == BATCH // 2
            assert np.array_equal(part, np.concatenate([one, other])) and np.array_equal(part, right)
    with pytest.raises(ConfigError, match="multiple"):
        audio_dataset(views, BATCH, shard=(0, 3))


def test_a_data_set_from_a_file_and_what_it_refuses(tmp_path):
    soundfile.write(tmp_path / "clip.flac", clip().samples, RATE)
    data = single_audio_dataset(
        tmp_path / "clip.flac", rate=RATE, seconds=0.1, batch_size=2, views=9, recipe="crop", render="device"
    )
    assert data.steps_per_epoch == 5 and data.view_set.recipe.samples == 800
    for options, error, said in (
        ({"seconds": 3.1}, DatumError, "lasts 3 s"),
        ({"recipe": "loud"}, RecipeError, "loud"),
        ({"batch_size": 0}, RecipeError, "batch_size"),
        ({"seconds": -1}, RecipeError, "seconds"),
        ({"views": 0}, RecipeError, "views"),
    ):
        with pytest.raises(error, match=said):
            single_audio_dataset(tmp_path / "clip.flac", **{"rate": RATE, "seconds": 0.1, "batch_size": 2, **options})


@pytest.mark.skipif(READER is SOUNDFILE, reason="TensorFlow I/O decodes in the TF 2.15 set alone")
def test_both_ways_of_reading_agree_on_speech(tmp_path, data_folder):
    speech, rate = soundfile.read(
        data_folder / "source" / "librivox_sonnets_1-3_16k.flac", dtype="float32", stop=5 * 16_000
    )
    faster = resample(speech, rate, 44_100)
    files = {
        "u8.wav": (speech, rate, "PCM_U8"), "s16.wav": (faster, 44_100, "PCM_16"), "s24.wav": (speech, rate, "PCM_24"),
        "s32.wav": (speech, rate, "PCM_32"), "float.wav": (resample(speech, rate, 48_000), 48_000, "FLOAT"),
        "low.wav": (resample(speech, rate, 8_000), 8_000, "PCM_16"), "a.flac": (speech, rate, "PCM_24"),
        "eight.wav": (np.stack([speech] * 8, axis=1), rate, "PCM_16"), "a.ogg": (faster, 44_100, "VORBIS"),
        "stereo.mp3": (np.stack([faster, faster / 2], axis=1), 44_100, "MPEG_LAYER_III"),
    }  # fmt: skip
    for name, (samples, own, subtype) in files.items():
        soundfile.write(tmp_path / name, samples, own, subtype=subtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one, other = (load_audio(tmp_path / name, 16_000, reader=reader).samples for reader in (SOUNDFILE, READER))
        assert one.shape == other.shape
        assert np.sqrt(((one - other) ** 2).mean()) < 0.01 * one.std(), name


@pytest.mark.skipif(READER is SOUNDFILE, reason="TensorFlow I/O decodes in the TF 2.15 set alone")
def test_both_ways_refuse_damaged_files_in_the_same_words(tmp_path):
    soundfile.write(tmp_path / "whole.flac", clip().samples, RATE)
    content = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.wav").write_text("no sound\n")
    for name in ("cut.flac", "text.wav"):
        said = []
        for reader in (SOUNDFILE, READER):
            with pytest.raises(DatumError) as error:
                load_audio(tmp_path / name, RATE, reader=reader)
            said.append(str(error.value))
        assert said[0] == said[1]
