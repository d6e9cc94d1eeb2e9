"""What each process is fed with, that together it is what one would get, and that nothing stays behind."""

from __future__ import annotations

import multiprocessing
import threading
import time
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from bridge.datum.mixing import Mixing, mixing_numbers
from bridge.datum.recipes import cifar
from bridge.datum.views import ViewNumbers, ViewSet
from bridge.errors import ConfigError, DatasetError
from tests.torch_aip.helpers import a_network, pixels
from torch_aip import Distiller
from torch_aip.feed import feed, steps_per_epoch
from torch_aip.views import view_loader

BATCH = 32


@pytest.fixture(scope="module")
def view_set():
    return ViewSet("sklearn:china.jpg", cifar(8), views=100, seed=3)


def tensors(step):
    views = step.views if isinstance(step.views, ViewNumbers) else [step.views]
    return [*views, *step.mixing]


@pytest.mark.parametrize("render", ["host", "device"])
@pytest.mark.parametrize("per", ["batch", "sample"])
def test_a_process_is_fed_its_rows_of_views_and_mixing(per, render, view_set):
    mixing, processes, first = Mixing("both", 1.0, per, block=4), 4, 14  # so that mixing is drawn twice
    views = view_loader(view_set, BATCH, start_step=first, render=render)
    whole = list(islice(feed(views, mixing, 3, first), 4))
    each = BATCH // processes
    for process in range(processes):
        own = list(islice(feed(views, mixing, 3, first, (process, processes)), 4))
        for drawn, expected in zip(own, whole):
            rows = slice(process * each, (process + 1) * each)
            for a, b in zip(tensors(drawn), tensors(expected)):
                assert torch.allclose(a, b[rows], rtol=0, atol=2e-6 if render == "host" else 0)
    for number, step in enumerate(whole, start=first):
        expected = mixing_numbers(mixing, 3, number, BATCH)
        assert all(np.array_equal(a, b) for a, b in zip(step.mixing, expected))


def test_another_loader_starts_again_at_its_end_and_gives_each_process_rows_of_its_own():
    batches, mixing = [pixels(8, 8, seed) for seed in range(2)], Mixing("cutmix", 1.0, "sample", block=4)
    for process in (0, 1):
        drawn = list(islice(feed(batches, mixing, 3, 7, (process, 2)), 5))
        for number, step in enumerate(drawn):
            assert step.views is batches[number % 2]
            numbers = mixing_numbers(mixing, 3, 7 + number, 16)
            assert all(np.array_equal(a, b[process * 8 : process * 8 + 8]) for a, b in zip(step.mixing, numbers))


def test_the_parts_of_a_step_are_its_rows_in_order(view_set):
    step = next(feed(view_loader(view_set, BATCH, render="device"), Mixing(), 0, 0))
    parts = [tensors(step.part(number, 4)) for number in range(4)]
    assert all(torch.equal(torch.cat(pieces), whole) for *pieces, whole in zip(*parts, tensors(step)))


def test_how_long_an_epoch_is_is_asked_of_the_loader(view_set):
    assert steps_per_epoch(view_loader(view_set, BATCH)) == 4
    assert steps_per_epoch(DataLoader([pixels(1)[0]] * 10, batch_size=4)) == 3
    with pytest.raises(ConfigError, match="steps_per_epoch"):
        steps_per_epoch(x for x in [])


def test_what_cannot_be_shared_evenly_is_refused(view_set):
    with pytest.raises(ConfigError, match="multiple of the 3 hosts"):
        next(feed(view_loader(view_set, BATCH), Mixing(), 0, 0, (0, 3)))
    distiller = Distiller(a_network(), a_network(seed=1), mixing=Mixing(block=4))
    distiller.compile(accumulate=2)
    with pytest.raises(ConfigError, match=r"got 12 rows.*drop_last"):  # and not some of the rows left out
        distiller.fit([pixels(16), pixels(12)], verbose=False)


def test_what_comes_only_once_is_refused_untouched():
    batches = (pixels() for _ in range(2))
    with pytest.raises(DatasetError, match="a generator, whose batches come only once"):
        Distiller(a_network(), a_network(seed=1)).fit(batches, steps_per_epoch=2, verbose=False)
    assert len(list(batches)) == 2


class Stop(Exception):
    pass


@pytest.mark.parametrize("options", [{}, {"workers": 1}, {"render": "device"}], ids=str)
def test_no_thread_and_no_process_is_left_when_fit_raises(options, view_set):
    def stop(epoch, logs):
        raise Stop

    before = set(threading.enumerate())
    distiller = Distiller(a_network(), a_network(seed=1))
    with pytest.raises(Stop) as caught:  # which keeps the frames, and all that is in them
        distiller.fit(view_loader(view_set, BATCH, **options), callbacks=[stop], verbose=False)
    end = time.monotonic() + 20  # a queue's own thread goes when the system lets it run
    while not set(threading.enumerate()) <= before and time.monotonic() < end:
        time.sleep(0.01)
    assert caught.tb is not None and set(threading.enumerate()) <= before and not multiprocessing.active_children()


def test_a_loader_that_fails_ends_the_thread_and_its_error_arrives():
    class Failing:
        def __len__(self):
            return 4

        def __iter__(self):
            yield pixels()
            raise Stop("at the second batch")

    before = set(threading.enumerate())
    with pytest.raises(Stop, match="second batch"):
        Distiller(a_network(), a_network(seed=1), mixing="none").fit(Failing(), verbose=False)
    assert set(threading.enumerate()) <= before
