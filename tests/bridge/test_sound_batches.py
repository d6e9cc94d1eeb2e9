"""Sounds a teacher is trained on: shifted, noisy, each known from its number."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.audio_sets import load_audio
from bridge.errors import DatasetError
from bridge.sound_batches import RandomSounds, pink_noise
from bridge.sounds import LabelledSounds
from tests.bridge import some_sounds as made
from tests.bridge.some_sounds import LENGTH, RATE, SECONDS, steady, write

PLAIN = {"shift": 0.0, "noisy": 0.0}


def numbered(count: int = 10, names: list[str] | None = None) -> LabelledSounds:
    """Sound k is steady and says k; its label is k modulo 2."""
    waves = np.stack([steady(k) for k in range(count)])
    return LabelledSounds(waves, np.arange(count) % 2, names or ["a", "b"], "numbered", 2, RATE)


def numbers_of(waves: np.ndarray) -> np.ndarray:
    return np.rint((waves[:, LENGTH // 2] * 32768 - 100) / 100).astype(int)


def test_every_sound_comes_once_per_epoch_with_its_own_label_whatever_the_batches():
    sounds = RandomSounds(numbered(), seed=3, **PLAIN)
    waves, labels = sounds.draw(np.arange(30))
    drawn = numbers_of(waves)
    assert waves.dtype == np.float32 and labels.dtype == np.int64 and (drawn % 2 == labels).all()
    assert (np.sort(drawn.reshape(3, 10)) == np.arange(10)).all() and len({tuple(e) for e in drawn.reshape(3, 10)}) == 3
    noisy = RandomSounds(numbered(), seed=3)
    whole, apart = noisy.draw(np.arange(12))[0], [noisy.draw(np.array([k]))[0][0] for k in range(12)]
    assert np.array_equal(whole, np.stack(apart))
    assert not np.array_equal(whole, RandomSounds(numbered(), seed=4).draw(np.arange(12))[0])


def test_sounds_are_shifted_both_ways_with_silence_behind_them():
    most = LENGTH // 10
    waves, _ = RandomSounds(numbered(), shift=most / RATE, noisy=0).draw(np.arange(400))
    heard = waves != 0
    first, count = heard.argmax(axis=1), heard.sum(axis=1)
    last = LENGTH - heard[:, ::-1].argmax(axis=1)
    assert (count == last - first).all() and ((first == 0) | (last == LENGTH)).all()
    shifts = np.where(first > 0, first, last - LENGTH)
    assert shifts.min() < -0.95 * most and shifts.max() > 0.95 * most and np.abs(shifts).max() <= most
    assert abs(shifts.mean()) < 0.1 * most


def test_noise_is_added_to_the_share_and_as_loud_as_asked():
    noise = np.full(5 * LENGTH, 0.5)
    data = numbered()
    waves, _ = RandomSounds(data, shift=0, noisy=0.7, loudness=0.2, noise=noise, seed=1).draw(np.arange(500))
    clean, _ = RandomSounds(data, seed=1, **PLAIN).draw(np.arange(500))
    added = (waves - clean)[:, 0]
    assert (added > 1e-6).mean() == pytest.approx(0.7, abs=0.06)
    loud = np.sort(added[added > 1e-6])
    assert loud[-1] <= 0.1 + 1e-5 and loud[-1] > 0.095 and np.median(loud) == pytest.approx(0.05, abs=0.01)


def test_noise_comes_from_the_sounds_of_silence_and_else_is_pink():
    waves = np.stack([np.zeros(LENGTH, np.int16), steady(1), np.full(LENGTH, -7000, np.int16)])
    data = LabelledSounds(waves, np.array([0, 1, 1]), ["word", "_silence_"], "made", 2, RATE)
    sounds = RandomSounds(data, shift=0, noisy=1, loudness=1)
    assert set(np.unique(sounds.noise)) == {200, -7000}
    drawn, labels = sounds.draw(np.arange(300))
    words, silence = drawn[labels == 0], drawn[labels == 1]
    assert (np.abs(words).max(axis=1) > 0).all()
    # Silence is neither shifted nor has it noise added: it gets quieter.
    assert (silence == silence[:, :1]).all()
    share = np.where(silence[:, 0] > 0, silence[:, 0] * 32768 / 200, silence[:, 0] * 32768 / -7000)
    assert share.max() <= 1.001 and share.min() < 0.1 and share.mean() == pytest.approx(0.5, abs=0.08)
    pink = RandomSounds(numbered()).noise
    power = np.abs(np.fft.rfft(pink[:65536] / 32768.0)) ** 2
    low, high = power[200:400].mean(), power[2000:4000].mean()
    assert low / high == pytest.approx(10, rel=0.35) and np.array_equal(pink, pink_noise(RATE))
    assert np.std(pink / 32768) == pytest.approx(0.1, rel=0.02)


def test_nothing_leaves_the_range_and_short_noise_goes_on():
    data = LabelledSounds(np.full((4, LENGTH), 32767, np.int16), np.zeros(4, int), ["a"], "loud", 1, RATE)
    sounds = RandomSounds(data, noisy=1, loudness=1, noise=np.full(7, 32767, np.int16))
    waves, _ = sounds.draw(np.arange(50))
    assert waves.max() == 1 and np.isfinite(waves).all() and len(sounds.noise) >= LENGTH


def test_sounds_in_files_are_the_same_and_others_stand_in_for_those_that_cannot_be_used(tmp_path):
    made.classes(tmp_path, "a", "b", each=6)
    how = {"rate": RATE, "seconds": SECONDS}
    memory, files = (RandomSounds(load_audio(tmp_path, lazy=lazy, **how)) for lazy in (False, True))
    for one, other in zip(memory.draw(np.arange(40)), files.draw(np.arange(40))):
        assert np.array_equal(one, other)
    (tmp_path / "a" / "03.wav").write_text("no sound")
    write(tmp_path / "b" / "05.wav", np.zeros(LENGTH, np.int16))
    sounds = RandomSounds(load_audio(tmp_path, lazy=True, **how), **PLAIN)
    with pytest.warns(UserWarning, match=r"2 of 12 files are no usable sounds, others.*a/03.wav \(is a text file"):
        waves, labels = sounds.draw(np.arange(12))
    assert sorted(numbers_of(waves)) == [0, 0, 1, 2, 4, 4, 5, 6, 7, 8, 9, 10]
    assert (labels == (numbers_of(waves) >= 6)).all()


@pytest.mark.parametrize(
    "how, said",
    [
        ({"shift": -0.1}, "shares from 0 to 1"),
        ({"noisy": 2}, "shares from 0 to 1"),
        ({"noise": np.full(LENGTH, 3.0)}, r"values to 3: expected \[-1, 1\]"),
        ({"noise": np.full(LENGTH, np.nan)}, "nan"),
        ({"noise": np.zeros((2, LENGTH))}, "expected int16 or float"),
    ],
)
def test_options_without_sense_are_refused(how, said):
    with pytest.raises(DatasetError, match=said):
        RandomSounds(numbered(), **how)


def test_sounds_without_labels_teach_nothing():
    data = numbered()
    data.labels = None
    with pytest.raises(DatasetError, match="numbered has no labels"):
        RandomSounds(data)
