"""Views in PyTorch: what a loader yields, however it is drawn, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from bridge.datum.recipes import cifar, imagenet
from bridge.datum.render import render
from bridge.datum.sources import load_source
from bridge.datum.views import ViewNumbers, ViewSet
from bridge.errors import AipError, ConfigError, DatumError, RecipeError, RunError
from tests.conftest import ROOT
from torch_aip import views as module
from torch_aip.stream import ahead
from torch_aip.views import Renderer, single_image_loader, view_loader

BATCH = 24
PHOTO = load_source("sklearn:china.jpg")
SMALL: dict[str, Any] = {"image_size": 32, "batch_size": BATCH, "views": 50, "seed": 6}


@pytest.fixture(scope="module")
def view_set():
    return ViewSet(PHOTO, cifar(16), views=50, seed=6)


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    yield
    assert not threads_ahead()
    assert not multiprocessing.active_children()


def threads_ahead():
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


def taken(loader, steps):
    return [item for item, _ in zip(loader, range(steps))]


def test_a_loader_shows_samples_in_the_order_of_their_numbers():
    loader = single_image_loader("sklearn:china.jpg", **SMALL)
    assert loader.steps_per_epoch == 3  # 50 views in batches of 24: nothing is dropped
    assert (loader.start_step, loader.batch_size, loader.render, loader.workers) == (0, BATCH, "host", 0)
    views = ViewSet(PHOTO, cifar(32), views=50, seed=6)
    for step, image in enumerate(taken(loader, 25)):  # more than are drawn at once
        assert image.shape == (BATCH, 3, 32, 32) and image.dtype == torch.float32
        assert image.is_contiguous(memory_format=torch.channels_last)
        expected = render(views, step * BATCH + np.arange(BATCH))
        assert np.array_equal(image.permute(0, 2, 3, 1), expected)


def test_endless_views_have_no_epoch():
    assert single_image_loader("sklearn:china.jpg", batch_size=4, views=None).steps_per_epoch is None


def test_numbers_drawn_on_the_device_are_the_images_of_the_host():
    images = single_image_loader("sklearn:china.jpg", **SMALL)
    numbers = single_image_loader("sklearn:china.jpg", render="device", **SMALL)
    for image, drawn in zip(taken(images, 3), taken(numbers, 3)):
        assert isinstance(drawn, ViewNumbers) and all(len(part) == BATCH for part in drawn)
        ours = numbers.renderer(drawn)
        assert ours.shape == image.shape and ours.is_contiguous(memory_format=torch.channels_last)
        assert ours.min() >= 0 and ours.max() <= 1
        assert (ours - image).abs().mean() < 1 / 255
    assert numbers.renderer is numbers.renderer


@pytest.mark.parametrize("render", ["host", "device"])
@pytest.mark.parametrize("start", [1, 21, 22, 45])
def test_starting_at_a_step_is_skipping_those_before_it(view_set, render, start):
    skipped = taken(view_loader(view_set, BATCH, render=render), start + 2)[start:]
    started = view_loader(view_set, BATCH, render=render, start_step=start)
    for again in range(2):  # iterating anew begins anew
        for one, two in zip(skipped, taken(started, 2), strict=True):
            for left, right in zip(one, two, strict=True):
                assert torch.equal(left, right), again


@pytest.mark.parametrize(("render", "piece"), [("device", None), ("host", None), ("host", 5 * 16**2)])
def test_shards_are_together_the_rows_of_the_whole(view_set, monkeypatch, render, piece):
    if piece:  # large steps are drawn piece by piece
        monkeypatch.setattr(module, "_PIECE", piece)
        monkeypatch.setattr(module, "steps_at_once", lambda rows, size: 1)
    whole = taken(view_loader(view_set, BATCH, start_step=3, render=render), 4)
    shards = [taken(view_loader(view_set, BATCH, start_step=3, render=render, shard=(k, 2)), 4) for k in range(2)]
    for step, *parts in zip(whole, *shards, strict=True):
        if render == "host":
            assert torch.equal(step, torch.cat(parts))
        else:
            for table, *own in zip(step, *parts, strict=True):
                assert torch.equal(table, torch.cat(own))


def test_other_steps_may_be_shown(view_set):
    plain = taken(view_loader(view_set, BATCH), 3)
    other = taken(view_loader(view_set, BATCH, shown=lambda steps: 2 - steps % 3), 5)
    for step, image in enumerate(other):
        assert torch.equal(image, plain[2 - step % 3])


@pytest.mark.parametrize("start", [0, 3])
def test_workers_draw_the_same_images(view_set, monkeypatch, start):
    options = {"start_step": start, "shard": (1, 2)}
    monkeypatch.setattr(module, "_PIECE", 5 * 16**2)
    random_state = torch.get_rng_state()
    for at_once in (None, 1):
        if at_once:
            monkeypatch.setattr(module, "steps_at_once", lambda rows, size: 1)
        one, two = (view_loader(view_set, BATCH, workers=workers, **options) for workers in (0, 2))
        for here, there in zip(taken(one, 5), taken(two, 5), strict=True):
            assert torch.equal(here, there) and here.stride() == there.stride()
    assert torch.equal(torch.get_rng_state(), random_state)  # nothing else depends on who draws


@pytest.mark.parametrize("workers", [0, 1])
def test_what_goes_wrong_in_a_worker_arrives_as_it_was(view_set, workers):
    def refuses(steps: np.ndarray) -> np.ndarray:
        raise DatumError(f"nothing is stored for steps {steps[0]} to {steps[-1]}.")

    steps = iter(view_loader(view_set, 512, shown=refuses, workers=workers))
    with pytest.raises(DatumError, match=r"^nothing is stored for steps 0 to 0\.$"):
        next(steps)
    assert not list(steps)


def test_a_killed_worker_is_reported(view_set, monkeypatch):
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.3,))  # seconds between looks

    def dies(steps: np.ndarray) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)
        return steps

    with pytest.raises(RunError, match=r"(?s)process that draws views.*fewer workers \(=1\)"):
        next(iter(view_loader(view_set, BATCH, shown=dies, workers=1)))


TRAINS = """
import multiprocessing, time
from torch_aip.views import single_image_loader

for step, images in enumerate(single_image_loader("sklearn:china.jpg", image_size=32, batch_size=64, workers=2)):
    if step == 1:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
"""


def test_ctrl_c_leaves_no_process_behind():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINS], env=environment, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert training.stdout is not None
        workers = [int(pid) for pid in training.stdout.readline().split()]
        assert len(workers) == 2 and all(alive(pid) for pid in workers)
        os.killpg(training.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, said = training.communicate(timeout=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(training.pid, signal.SIGKILL)
    assert training.returncode == -signal.SIGINT and said.count("Traceback") == 1, said
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"batch_size": 0}, RecipeError, "batch_size"),
        ({"render": "gpu"}, RecipeError, "gpu"),
        ({"recipe": cifar(48)}, RecipeError, "48"),
        ({"recipe": "sharp"}, RecipeError, "sharp"),
        ({"views": 0}, RecipeError, "views"),
        ({"seed": -1}, RecipeError, "seed"),
        ({"image_size": 0}, RecipeError, "size"),
        ({"workers": -1}, ConfigError, "workers"),
    ],
)
def test_impossible_options_are_named(options, error, named):
    with pytest.raises(error, match=named):
        single_image_loader("sklearn:china.jpg", **options)


def test_rows_that_cannot_be_shared_out_are_refused(view_set):
    with pytest.raises(ConfigError, match="multiple of the 3 hosts"):
        view_loader(view_set, 32, shard=(0, 3))


def test_the_renderer_is_one_graph_and_keeps_its_image_out_of_checkpoints():
    views = ViewSet(PHOTO, imagenet(24), views=40, seed=2)
    renderer = Renderer(views)
    assert not renderer.state_dict() and not list(renderer.parameters())
    numbers = ViewNumbers(*map(torch.from_numpy, views.numbers(np.arange(8))))
    # this backend needs no C++ compiler; fullgraph refuses whatever would wait for the device
    graph = torch.compile(renderer, fullgraph=True, dynamic=False, backend="eager")
    assert torch.allclose(graph(numbers), renderer(numbers), rtol=0, atol=1e-5)


def test_the_renderer_draws_many_views_as_it_draws_each():
    views = ViewSet(PHOTO, imagenet(64), views=400, seed=2)
    renderer = Renderer(views)
    numbers = ViewNumbers(*map(torch.from_numpy, views.numbers(np.arange(70))))  # more than fit the cache
    each = torch.cat([renderer(ViewNumbers(*(part[k : k + 1] for part in numbers))) for k in range(70)])
    assert torch.allclose(renderer(numbers), each, rtol=0, atol=1e-5)


def test_the_renderer_is_not_touched_by_autocast():
    views = ViewSet(PHOTO, imagenet(24), seed=2)
    renderer, numbers = Renderer(views), ViewNumbers(*map(torch.from_numpy, views.numbers(np.arange(4))))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(renderer(numbers), renderer(numbers).float()) and renderer(numbers).dtype == torch.float32
        inside = renderer(numbers)
    assert torch.equal(inside, renderer(numbers))


def test_ahead_keeps_the_order_and_no_more_than_asked_for():
    made = []

    def items():
        for item in range(6):
            made.append(item)
            yield item

    stream = ahead(items(), depth=2)
    deadline = time.monotonic() + 5
    while len(made) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1]
    assert list(stream) == list(range(6))
    assert not list(stream)  # over once, over for good


def test_ahead_passes_errors_on_where_they_came():
    def items():
        yield 1
        raise AipError("no more.")

    stream = ahead(items())
    assert next(stream) == 1
    with pytest.raises(AipError, match=r"^no more\.$"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.parametrize("how", ["close", "drop"])
def test_ahead_ends_its_thread_and_the_generator_in_it(how):
    ended = []

    def items():
        try:
            while True:
                yield 0
        finally:
            ended.append(threading.current_thread() is not threading.main_thread())

    stream = ahead(items())
    next(stream)
    assert len(threads_ahead()) == 1
    if how == "close":
        stream.close()
    del stream
    assert ended == [True] and not threads_ahead()
