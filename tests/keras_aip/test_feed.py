"""What each host draws, and that together it is what one would draw."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bridge.datum.mixing import Mixing
from bridge.datum.steps import shard_rows
from bridge.datum.views import ViewSet
from bridge.errors import ConfigError
from keras_aip.datasets import load, training_batches
from keras_aip.feed import _share, feed
from keras_aip.stream import stream
from keras_aip.views import view_dataset

BATCH = 32


@pytest.fixture(scope="module")
def view_set():
    return ViewSet("sklearn:china.jpg", keras_recipe(), views=100, seed=3)


def keras_recipe():
    from bridge.datum.recipes import cifar

    return cifar(8)


@pytest.mark.parametrize("hosts", [2, 4])
def test_views_shard_without_overlap(hosts, view_set):
    whole = view_dataset(view_set, BATCH, render="device")
    shards = [view_dataset(view_set, BATCH, render="device", shard=(host, hosts)) for host in range(hosts)]
    for step, *parts in zip(whole.take(5), *(shard.take(5) for shard in shards)):
        for all_rows, *own in zip(step, *parts):
            assert np.array_equal(all_rows, np.concatenate(own))
    rows = [set(shard_rows(BATCH, (host, hosts)).tolist()) for host in range(hosts)]
    assert set.union(*rows) == set(range(BATCH)) and sum(map(len, rows)) == BATCH


def test_rendered_shards_are_the_rows_of_the_whole(view_set):
    whole = next(iter(view_dataset(view_set, BATCH, start_step=2)))
    parts = [next(iter(view_dataset(view_set, BATCH, start_step=2, shard=(host, 2)))) for host in (0, 1)]
    assert np.allclose(whole, np.concatenate(parts), rtol=0, atol=2e-6)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("per", ["batch", "sample"])
def test_a_host_is_fed_its_rows_of_views_and_mixing_device_by_device(devices, per, view_set):
    mixing, hosts, step = Mixing("both", 1.0, per, block=4), 2, 17
    views = view_dataset(view_set, BATCH, start_step=step, render="device")
    whole = list(feed(views, mixing, 3, step, tf.distribute.get_strategy()).take(3))
    each = BATCH // hosts // devices
    for host in range(hosts):
        context = tf.distribute.InputContext(hosts, host, hosts * devices)
        own = iter(_share(views, mixing, 3, step, context))
        for expected in whole:
            for device in range(devices):
                first = (host * devices + device) * each
                drawn = next(own)
                for a, b in zip(tf.nest.flatten(drawn), tf.nest.flatten(expected)):
                    assert a.shape.is_fully_defined() and np.array_equal(a, b[first : first + each])


@pytest.mark.parametrize("start", [0, 1, 4, 6, 11])
def test_a_stream_begins_at_any_step_with_the_calls_it_would_have_made(start):
    calls = []

    def draw(steps):
        calls.append(steps.tolist())
        return [np.repeat(steps, 3), np.repeat(steps * 2.0, 3)]

    data = stream(draw, 3, start_step=start, at_once=4)
    drawn = [(a.numpy().tolist(), b.numpy().tolist()) for a, b in data.take(6)]
    assert drawn == [([k] * 3, [2.0 * k] * 3) for k in range(start, start + 6)]
    assert all(call[0] % 4 == 0 for call in calls)


def test_uneven_shards_are_refused():
    with pytest.raises(ConfigError, match="multiple of the 3 hosts"):
        shard_rows(32, (0, 3))
    with pytest.raises(ConfigError, match="0 ≤ index < count"):
        shard_rows(32, (2, 2))


def test_no_pipeline_leaves_the_autotuner_on_whose_thread_ending_an_iteration_may_wait_for(view_set):
    labelled = load("digits", split="validation")
    plain = tf.data.Dataset.from_tensor_slices(np.zeros([10, 8, 8, 3], np.float32))
    mixing, one = Mixing("cutmix"), tf.distribute.get_strategy()
    pipelines = [
        view_dataset(view_set, 16),
        feed(view_dataset(view_set, 16), mixing, 0, 0, one),
        feed(plain.batch(5, drop_remainder=True), mixing, 0, 0, one),
        feed(plain.batch(4), mixing, 0, 0, one),
        training_batches(labelled, 16),
    ]
    assert [data.options().autotune.enabled for data in pipelines] == [False] * 5
