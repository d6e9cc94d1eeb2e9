"""Stored answers: what the student sees and hears then, and what is refused."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_aip
from bridge.answers import AnswerStore
from bridge.datum.mixing import Mixing, MixingNumbers
from bridge.errors import ConfigError, RunError
from bridge.replay import replay
from keras_aip import Distiller, Teacher
from keras_aip.feed import Stored, _share, feed
from keras_aip.mixing import mix
from keras_aip.stored import answered
from tests.keras_aip.helpers import plain, same

STEPS, BATCH = 3, 8
MIXING = Mixing("both", 1.0, "sample", block=4)


def make_views(seed=0, **options):
    return keras_aip.single_image_dataset(
        "sklearn:china.jpg", image_size=8, batch_size=BATCH, views=STEPS * BATCH, seed=seed, **options
    )  # fmt: skip


def mixed(step):
    return mix(step["views"], MixingNumbers(*step["mixing"]))


@pytest.fixture
def teacher(make_network):
    return Teacher(make_network(seed=1))


def test_every_epoch_shows_the_first_ones_batches_with_their_answers_in_another_order(teacher, tmp_path):
    views, strategy = make_views(), tf.distribute.get_strategy()
    store = answered(tmp_path / "answers", teacher, views, MIXING, 5, STEPS)
    first = [mixed(step).numpy() for step in feed(views, MIXING, 5, 0, strategy).take(STEPS)]
    shown = []
    for step in feed(views, MIXING, 5, 0, strategy, Stored(replay(store, 5), store.read)).take(4 * STEPS):
        images = mixed(step).numpy()
        (number,) = [k for k, one in enumerate(first) if np.allclose(one, images, atol=2e-6)]
        shown.append(number)
        expected = teacher(images).numpy()
        assert np.allclose(step["teacher"], expected, atol=np.abs(expected).max() * 2e-3)
    epochs = np.reshape(shown, (4, STEPS)).tolist()
    assert all(sorted(epoch) == [0, 1, 2] for epoch in epochs) and len({tuple(epoch) for epoch in epochs}) > 1


def test_each_host_hears_the_answers_to_its_own_rows(teacher, tmp_path):
    views = make_views()
    store = answered(tmp_path / "answers", teacher, views, MIXING, 5, STEPS)
    stored = Stored(replay(store, 5), store.read)
    whole = list(feed(views, MIXING, 5, 4, tf.distribute.get_strategy(), stored).take(2))
    for host in (0, 1):
        own = _share(views, MIXING, 5, 4, tf.distribute.InputContext(2, host, 2), stored)
        for a, b in zip(own.take(2), whole):
            assert np.array_equal(a["teacher"], b["teacher"][host * 4 : host * 4 + 4])
            assert np.allclose(a["views"], b["views"][host * 4 : host * 4 + 4], atol=2e-6)


class Counting:
    """A teacher that counts the images it was shown."""

    def __init__(self, model):
        self.model, self.seen = model, tf.Variable(0)

    def __call__(self, images):
        self.seen.assign_add(tf.shape(images)[0])
        return self.model(images, training=False)


def distil(teacher, network, folder, epochs):
    distiller = Distiller(network(seed=2), teacher, mixing=MIXING)
    distiller.compile(keras.optimizers.SGD(0.1))
    distiller.fit(make_views(), epochs=epochs, store_teacher=folder, verbose=0)
    return distiller


def test_the_teacher_answers_each_view_once_for_all_epochs_and_students(make_network, tmp_path):
    counting = Counting(make_network(seed=1))
    teacher = Teacher(counting, classes=3, digest="counting")
    checked = BATCH  # each fit looks at one batch first
    first = distil(teacher, make_network, tmp_path / "answers", epochs=3)
    assert int(counting.seen) == checked + STEPS * BATCH
    second = distil(teacher, make_network, tmp_path / "answers", epochs=3)
    assert int(counting.seen) == 2 * checked + STEPS * BATCH
    assert same(plain(first.student.get_weights()), plain(second.student.get_weights()))


def test_answers_to_something_else_are_refused(teacher, make_network, tmp_path):
    folder = tmp_path / "answers"
    answered(folder, teacher, make_views(), MIXING, 0, STEPS)
    other = Teacher(make_network(seed=7))
    for arguments, named in [
        ((other, make_views(), MIXING, 0, STEPS), "teacher was"),
        ((teacher, make_views(seed=1), MIXING, 0, STEPS), "seed was 0 and is now 1"),
        ((teacher, make_views(recipe="imagenet"), MIXING, 0, STEPS), "recipe was"),
        ((teacher, make_views(), Mixing("cutmix", 1.0, "sample", block=4), 0, STEPS), "mixing.kind was 'both'"),
        ((teacher, make_views(), MIXING, 0, STEPS + 1), "steps was 3 and is now 4"),
    ]:
        with pytest.raises(RunError, match=named):
            answered(folder, *arguments)


def test_an_answering_that_was_cut_short_goes_on_where_it_was(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_aip.stored._SECONDS_BETWEEN_FLUSHES", 0.0)

    class CutShort(Exception):
        pass

    def cut(done):
        if done == 2:
            raise CutShort

    with pytest.raises(CutShort):
        answered(tmp_path / "a", teacher, make_views(), MIXING, 0, STEPS, progress=cut)
    done = []
    store = answered(tmp_path / "a", teacher, make_views(), MIXING, 0, STEPS, progress=done.append)
    assert done == [3]
    whole = answered(tmp_path / "b", teacher, make_views(), MIXING, 0, STEPS)
    assert all(np.array_equal(store.read(k), whole.read(k)) for k in range(STEPS))
    assert isinstance(whole, AnswerStore) and not whole.missing


def test_only_views_that_can_be_drawn_again_can_be_stored(teacher, tmp_path):
    with pytest.raises(ConfigError, match="as it came"):
        answered(tmp_path / "a", teacher, make_views().take(2), MIXING, 0, 2)
    with pytest.raises(ConfigError, match="digest"):
        answered(tmp_path / "a", Teacher(lambda images: images, classes=3), make_views(), MIXING, 0, STEPS)
