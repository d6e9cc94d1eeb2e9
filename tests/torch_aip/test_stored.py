"""Stored answers: what the student sees and hears then, and what is refused."""

from __future__ import annotations

import pickle
from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bridge.answers import AnswerStore
from bridge.datum.mixing import Mixing
from bridge.errors import ConfigError, RunError
from bridge.replay import replay
from tests.torch_aip.helpers import a_network
from torch_aip import Distiller, Teacher, single_image_loader
from torch_aip.feed import Stored, feed
from torch_aip.mixing import mix
from torch_aip.stored import answered

STEPS, BATCH = 3, 8
MIXING = Mixing("both", 1.0, "sample", block=4)


def make_views(seed=0, **options):
    return single_image_loader(
        "sklearn:china.jpg", image_size=8, batch_size=BATCH, views=STEPS * BATCH, seed=seed, **options
    )


def taken(count, *arguments):
    steps = feed(*arguments)
    try:
        return list(islice(steps, count))
    finally:
        steps.close()


@pytest.fixture
def teacher():
    return Teacher(a_network(seed=1))


def test_every_epoch_shows_the_first_ones_batches_with_their_answers_in_another_order(teacher, tmp_path):
    views = make_views()
    store = answered(tmp_path / "answers", teacher, views, MIXING, 5, STEPS)
    first = [mix(step.views, step.mixing) for step in taken(STEPS, views, MIXING, 5, 0)]
    stored, shown = Stored(replay(store, 5), store.read), []
    for step in taken(4 * STEPS, views, MIXING, 5, 0, (0, 1), stored):
        images = mix(step.views, step.mixing)
        (number,) = [k for k, one in enumerate(first) if torch.allclose(one, images, atol=2e-6)]
        shown.append(number)
        expected = teacher(images)
        assert torch.allclose(step.teacher, expected, atol=float(expected.abs().max()) * 2e-3)
    epochs = np.reshape(shown, (4, STEPS)).tolist()
    assert all(sorted(epoch) == [0, 1, 2] for epoch in epochs) and len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("render", ["host", "device"])
def test_each_process_hears_the_answers_to_its_own_rows(teacher, tmp_path, render):
    views = make_views(render=render)
    store = answered(tmp_path / "answers", teacher, views, MIXING, 5, STEPS)
    stored = Stored(replay(store, 5), store.read)
    whole = taken(2, views, MIXING, 5, 4, (0, 1), stored)
    for process in (0, 1):
        rows = slice(process * 4, process * 4 + 4)
        for own, all_rows in zip(taken(2, views, MIXING, 5, 4, (process, 2), stored), whole):
            assert torch.equal(own.teacher, all_rows.teacher[rows])
            assert all(torch.equal(a, b[rows]) for a, b in zip(own.mixing, all_rows.mixing))
            pairs = zip(own.views, all_rows.views) if render == "device" else [(own.views, all_rows.views)]
            assert all(torch.allclose(a, b[rows], atol=2e-6) for a, b in pairs)


class Counting(nn.Module):
    """A teacher that counts the images it was shown."""

    def __init__(self):
        super().__init__()
        self.model, self.seen = a_network(seed=1), 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return self.model(images)


def distil(teacher, folder, epochs):
    distiller = Distiller(a_network(seed=2), teacher, mixing=MIXING)
    distiller.fit(make_views(), epochs=epochs, store_teacher=folder, verbose=False)
    return distiller.student.state_dict()


def test_the_teacher_answers_each_view_once_for_all_epochs_and_students(tmp_path):
    counting = Counting()
    teacher = Teacher(counting, classes=3, digest="counting")
    checked = BATCH  # each fit looks at one batch first
    first = distil(teacher, tmp_path / "answers", epochs=3)
    assert counting.seen == checked + STEPS * BATCH
    second = distil(teacher, tmp_path / "answers", epochs=3)
    assert counting.seen == 2 * checked + STEPS * BATCH
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_answers_to_something_else_are_refused(teacher, tmp_path):
    folder = tmp_path / "answers"
    answered(folder, teacher, make_views(), MIXING, 0, STEPS)
    other = Teacher(a_network(seed=7))
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
    monkeypatch.setattr("torch_aip.stored._SECONDS_BETWEEN_FLUSHES", 0.0)

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


def test_the_order_can_be_sent_to_processes_that_draw_views(teacher, tmp_path):
    shown = replay(answered(tmp_path / "a", teacher, make_views(), MIXING, 0, STEPS), 5)
    assert np.array_equal(pickle.loads(pickle.dumps(shown))(np.arange(9)), shown(np.arange(9)))


def test_only_views_that_can_be_drawn_again_can_be_stored(teacher, tmp_path):
    with pytest.raises(ConfigError, match="as it came"):
        answered(tmp_path / "a", teacher, list(islice(make_views(), 2)), MIXING, 0, 2)
    with pytest.raises(ConfigError, match="digest"):
        answered(tmp_path / "a", Teacher(lambda images: images, classes=3), make_views(), MIXING, 0, STEPS)
