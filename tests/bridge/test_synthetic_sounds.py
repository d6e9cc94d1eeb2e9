"""Sounds made by formula: eight classes, and babble that is none of them."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.audio_sets import load_audio
from bridge.datum.audio_preview import log_mel
from bridge.sounds import FULL_SCALE
from bridge.synthetic_sounds import _FIRST, CLASSES, RATE, SECONDS, babble, labelled_sounds, write_sounds

EACH = 12


@pytest.fixture(scope="module")
def sounds():
    return labelled_sounds("train", EACH * len(CLASSES))


def test_a_sound_is_known_from_its_number_and_seed_alone(sounds):
    waveforms, labels = sounds
    assert waveforms.dtype == np.float32 and waveforms.shape == (EACH * len(CLASSES), round(RATE * SECONDS))
    assert 0.05 < np.abs(waveforms).max() <= 1 and (labels[:9] == [0, 1, 2, 3, 4, 5, 6, 7, 0]).all()
    fewer, _ = labelled_sounds("train", 9)
    np.testing.assert_array_equal(fewer, waveforms[:9])
    assert not np.array_equal(labelled_sounds("train", 9, seed=1)[0], fewer)


def test_no_sound_comes_twice_in_either_part(sounds):
    waveforms, _ = sounds
    test, _ = labelled_sounds("test", len(waveforms))
    alike = np.abs(np.corrcoef(np.concatenate([waveforms, test]))) - np.eye(2 * len(test))
    assert alike.max() < 0.9
    # what is drawn for one part is drawn nowhere else, however many sounds there are
    assert np.diff(sorted([0, *_FIRST.values()])).min() > 2**50


def test_every_class_is_nearest_to_itself(sounds):
    waveforms, labels = sounds
    pictures = features(waveforms)
    test, true = labelled_sounds("test", len(waveforms))
    means = np.stack([pictures[labels == k].mean(axis=0) for k in range(len(CLASSES))])
    within = (pictures - means[labels]).std(axis=0)
    nearest = (((features(test)[:, None] - means) / within) ** 2).sum(axis=2).argmin(axis=1)
    right = [(nearest[true == k] == k).mean() for k in range(len(CLASSES))]
    assert np.mean(right) > 0.7 and min(right) > 2 / len(CLASSES), dict(zip(CLASSES, right))


def features(waveforms):
    """Wherever it stands and however loud it is: its mean spectrum, and how its pitch moves."""
    decibels = log_mel(waveforms, RATE, bands=24)
    power = 10 ** (decibels / 10)
    loud = power.sum(axis=2)
    there = loud > 0.2 * loud.max(axis=1, keepdims=True)
    spectrum = np.log(np.array([row[keep].mean(axis=0) for row, keep in zip(power, there)]))
    spectrum -= spectrum.mean(axis=1, keepdims=True)
    centre = (power * np.arange(24)).sum(axis=2) / loud
    motion = []
    for row, keep in zip(centre, there):
        place = np.flatnonzero(keep)
        slope = np.polyfit(place / len(keep), row[place], 1)[0]
        motion.append([slope, 20 * np.abs(np.diff(row[place])).mean(), 40 * np.mean(np.diff(place) > 3)])
    return np.concatenate([spectrum, np.array(motion)], axis=1)


def test_babble_is_syllables_shorter_than_any_sound_of_a_class(sounds):
    clip = babble(6.0)
    assert clip.dtype == np.float32 and clip.shape == (6 * RATE,) and 0.1 < np.abs(clip).max() <= 1
    np.testing.assert_array_equal(clip, babble(6.0))
    assert not np.array_equal(clip, babble(6.0, seed=1))
    np.testing.assert_array_equal(clip, babble(7.0)[: len(clip)])
    # its timbre changes several times in the time of a sound, within which that of a sound hardly does
    assert changes(clip.reshape(-1, RATE // 2)) > 2 * changes(sounds[0][np.isin(sounds[1], [4, 5, 6])])
    assert np.abs(clip.reshape(-1, RATE)).max(axis=1).min() > 0.05  # it never stops


def changes(waveforms):
    """How much of a spectrum is another one a tenth of a second later, where there is sound."""
    decibels = log_mel(waveforms, RATE, bands=24)
    shade = np.clip(decibels - decibels.max(axis=(1, 2), keepdims=True) + 40, 0, None)
    now, later = shade[:, :-10], shade[:, 10:]
    both = (now.max(axis=2) > 20) & (later.max(axis=2) > 20)
    return np.abs(now - later).mean(axis=2)[both].mean()


def test_written_ones_are_a_data_set(tmp_path, sounds):
    write_sounds(tmp_path / "sounds.npz", train=40, test=16)
    test = load_audio(tmp_path / "sounds.npz", rate=RATE, seconds=SECONDS)
    assert test.class_names == list(CLASSES) and test.rate == RATE and len(test.waveforms) == 16
    train = load_audio(tmp_path / "sounds.npz", "train", rate=RATE, seconds=SECONDS)
    np.testing.assert_allclose(train.waveforms[:9] / FULL_SCALE, sounds[0][:9], atol=1e-4)
    np.testing.assert_array_equal(train.labels[:9], sounds[1][:9])
