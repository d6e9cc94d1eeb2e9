"""Masks over spectrograms: from seed, step and row alone, distributed as SpecAugment's are, within the spectrogram."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from bridge.datum.masks import Masks, mask_numbers, masked
from bridge.errors import RecipeError


def spectrograms(batch: int, frames: int = 50, bands: int = 40) -> np.ndarray:
    return np.random.default_rng(0).normal(-6, 4, (batch, frames, bands)).astype(np.float32)


def test_seed_step_and_row_give_the_numbers_whatever_was_drawn_before():
    masks = Masks(2)
    first = mask_numbers(masks, 5, 7, 32)
    for step in (3, 123_456, 0):
        mask_numbers(masks, 6, step, 48)
    again, fewer = mask_numbers(masks, 5, 7, 32), mask_numbers(Masks(1), 5, 7, 20)
    for edges, same, part in zip(first, again, fewer):
        assert edges.shape == (32, 2, 2) and edges.dtype == np.float32 and np.array_equal(edges, same)
        assert np.array_equal(edges[:20, :1], part)  # neither rows nor masks depend on how many there are
    other = mask_numbers(masks, 6, 7, 32), mask_numbers(masks, 5, 8, 32)
    assert not any(np.array_equal(first.time, numbers.time) for numbers in other)


def test_several_steps_at_once_are_the_steps_one_after_the_other():
    masks = Masks(3, 0.5, 0.1)
    together = mask_numbers(masks, 1, np.array([4, 9, 2]), 5)
    for edges, *each in zip(together, *(mask_numbers(masks, 1, step, 5) for step in (4, 9, 2))):
        assert np.array_equal(edges, np.concatenate(each))


@pytest.mark.parametrize(("time", "frequency"), [(0.2, 0.2), (0.5, 0.05), (1.0, 0.0)])
def test_widths_and_places_are_uniform_and_inside(time, frequency):
    for edges, most in zip(mask_numbers(Masks(2, time, frequency), 0, np.arange(50), 20), (time, frequency)):
        begin, width = edges[..., 0].ravel(), (edges[..., 1] - edges[..., 0]).ravel()
        assert begin.min() >= 0 and edges.max() <= 1 and width.min() >= 0 and width.max() <= most + 1e-6
        if most:
            assert stats.kstest(width / most, "uniform").pvalue > 1e-3
            assert stats.kstest(begin / (1 - width), "uniform").pvalue > 1e-3


def test_what_is_hidden_takes_the_mean_of_its_own_spectrogram_and_the_rest_stays():
    x = spectrograms(64)
    y = masked(x, mask_numbers(Masks(1, 0.3, 0.3), 2, 0, 64))
    assert y.dtype == np.float32 and y.shape == x.shape
    hidden = y != x
    means = np.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape)
    assert np.allclose(y[hidden], means[hidden], atol=1e-5)
    whole_frames, whole_bands = hidden.all(axis=2), hidden.all(axis=1)
    assert np.array_equal(hidden, whole_frames[:, :, None] | whole_bands[:, None, :])
    for lines, most in ((whole_frames, 0.3), (whole_bands, 0.3)):  # one stretch each, about half of the most on average
        assert (np.abs(np.diff(lines.astype(int), axis=1)).sum(axis=1) <= 2).all()
        shares = lines.mean(axis=1)
        assert shares.max() <= most + 1 / lines.shape[1] and 0.1 < shares.mean() < 0.2


@pytest.mark.parametrize("masks", [Masks(0), Masks(2, 0, 0)])
def test_without_masks_nothing_changes(masks):
    numbers, x = mask_numbers(masks, 0, 3, 8), spectrograms(8)
    assert numbers.time.shape == (8, masks.count, 2) and np.array_equal(masked(x, numbers), x)


def test_settings_that_make_no_sense_are_refused():
    cases: Any = ({"count": -1}, "count"), ({"count": 1.5}, "count"), ({"time": 1.1}, "time"), (
        {"frequency": float("nan")}, "frequency"), ({"time": "much"}, "time")  # fmt: skip
    for settings, said in cases:
        with pytest.raises(RecipeError, match=f"masks {said} "):
            Masks(**settings)
