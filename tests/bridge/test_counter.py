"""The generator gives the published numbers, and any number of any stream without those before it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bridge.datum.counter import STREAMS, permutation, philox4x32, shuffled_index, uniforms

ANY_INDEX = st.integers(0, 2**62)
FULL = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([FULL] * 4, (FULL, FULL), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(counter, key, words):
    counters = np.array([counter, [1, 2, 3, 4]], dtype=np.uint64).T  # the second column must not disturb the first
    assert [int(word) for word in philox4x32(counters, key)[:, 0]] == words


def test_philox_leaves_its_counter_as_it_was():
    counter = np.arange(8, dtype=np.uint64).reshape(4, 2)
    philox4x32(counter, (1, 2))
    assert np.array_equal(counter, np.arange(8).reshape(4, 2))


def test_uniforms_are_uniform_and_uncorrelated():
    u = uniforms(3, "base", np.arange(20_000), 6)
    assert u.shape == (6, 20_000) and u.dtype == np.float64 and u.min() > 0 and u.max() < 1
    for row in u:
        assert stats.kstest(row, "uniform").pvalue > 1e-3
    between_draws = np.corrcoef(u) - np.eye(6)
    between_neighbours = [np.corrcoef(row[:-1], row[1:])[0, 1] for row in u]
    assert np.abs(between_draws).max() < 0.03 and np.abs(between_neighbours).max() < 0.03


@pytest.mark.parametrize("other", [(4, "base"), (3 + 2**32, "base"), (3, "augmentation"), (3, "mixing")])
def test_seeds_and_streams_are_independent(other):
    index = np.arange(10_000)
    one, two = uniforms(3, "base", index, 1)[0], uniforms(*other, index, 1)[0]
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.04
    assert np.intersect1d(one, two).size < 5  # 32-bit numbers: 0.02 expected


def test_every_stream_has_its_own_number():
    assert len(set(STREAMS.values())) == len(STREAMS)
    firsts = {uniforms(0, stream, np.array([0]), 1)[0, 0] for stream in STREAMS}
    assert len(firsts) == len(STREAMS)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**64 - 1), ANY_INDEX, st.integers(1, 40), st.integers(1, 40))
def test_a_number_depends_neither_on_how_many_are_drawn_nor_on_its_neighbours(seed, index, fewer, more):
    alone = uniforms(seed, "base", np.array([index]), fewer)
    among = uniforms(seed, "base", np.array([5, index, 7]), max(fewer, more))
    assert alone.shape == (fewer, 1)
    assert np.array_equal(alone[:, 0], among[:fewer, 1])


def test_indices_above_32_bits_give_numbers_of_their_own():
    index = np.array([1, 1 + 2**32, 1 + 2**33, 1 + 2**62])
    assert np.unique(uniforms(0, "base", index, 4)).size == 16


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_named(seed):
    with pytest.raises(ValueError, match=str(seed)):
        uniforms(seed, "base", np.arange(2), 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(1, 300))
def test_a_permutation_visits_every_view_once(seed, epoch, size):
    assert np.array_equal(np.sort(permutation(seed, epoch, size)), np.arange(size))


def test_the_order_differs_per_epoch_and_seed_and_is_shared_safely():
    orders = [permutation(seed, epoch, 500) for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 2**32), (2**32, 0))]
    for k, one in enumerate(orders):
        assert not one.flags.writeable
        for two in orders[:k]:
            assert np.mean(one == two) < 0.02


def test_orders_are_unbiased():
    first = [permutation(0, epoch, 8)[0] for epoch in range(4000)]
    assert stats.chisquare(np.bincount(first, minlength=8)).pvalue > 1e-3


def test_endless_views_show_each_sample_its_own_number():
    n = np.array([0, 7, 2**40])
    assert np.array_equal(shuffled_index(0, n, None), n)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**35), st.integers(1, 200))
def test_finite_views_are_all_shown_in_each_epoch_wherever_batches_end(views, epoch, batch):
    n = np.arange(epoch * views, (epoch + 2) * views)
    parts = [shuffled_index(9, n[k : k + batch], views) for k in range(0, len(n), batch)]
    shown = np.concatenate(parts).reshape(2, views)
    assert np.array_equal(np.sort(shown, axis=1), np.tile(np.arange(views), (2, 1)))
