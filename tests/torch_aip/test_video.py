"""Fake clips in PyTorch: both renderers draw the same, loaders keep their promises, clips are mixed in space."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from bridge.datum import preview
from bridge.datum.mixing import CLIP_KINDS, Mixing, MixingNumbers, mixing_numbers
from bridge.datum.recipes import Jitter
from bridge.datum.render import render, render_numbers
from bridge.datum.sources import Source, load_source
from bridge.datum.video import ClipNumbers, ClipSet
from bridge.datum.video_recipes import MOTIONS, VideoRecipe, steady_video, video
from bridge.errors import ConfigError, RecipeError
from torch_aip.feed import feed
from torch_aip.mixing import mix
from torch_aip.video import ClipRenderer, clip_loader, single_video_loader

BATCH = 8
PHOTO = load_source("sklearn:china.jpg")
FOLDER = Source("folder", (PHOTO.images[0], PHOTO.images[0][:70, :90]), "")
SMALL: dict[str, Any] = {"frames": 3, "image_size": 24, "batch_size": BATCH, "clips": 50, "seed": 6}
ALWAYS = dataclasses.replace(video(24, 5).base, jitter=Jitter(probability=1.0))
RECIPES = {
    **{motion: (PHOTO, video(32, 4, motion)) for motion in MOTIONS},
    "steady": (PHOTO, steady_video(32, 3, "smooth")),
    "jitter": (PHOTO, dataclasses.replace(video(24, 5), base=ALWAYS)),
    "extended border": (PHOTO, dataclasses.replace(video(24, 5, "smooth"), border="extend")),
    "base clips": (PHOTO, video(24, 2).without_augmentation()),
    "several images": (FOLDER, video(29, 3)),
    "one frame": (PHOTO, video(24, 1)),
    "large": (PHOTO, video(160, 4)),
}
ALIKE = 0.999 if int(cv2.__version__.split(".")[0]) >= 5 else 0.997  # OpenCV 4 rounds positions to 1/32 of a pixel


@pytest.fixture(scope="module")
def clip_set():
    return ClipSet(PHOTO, video(16, 3), views=50, seed=6)


def taken(loader, steps):
    return [item for item, _ in zip(loader, range(steps))]


def tensors(numbers: ClipNumbers) -> ClipNumbers:
    return ClipNumbers(*map(torch.from_numpy, numbers))


@pytest.mark.parametrize("name", RECIPES)
def test_pytorch_draws_what_the_host_draws(name):
    clips = ClipSet(*RECIPES[name], views=40, seed=2)
    numbers = clips.numbers(np.arange(30, 36 if name == "large" else 54))
    host = render_numbers(numbers, clips)
    ours = ClipRenderer(clips)(tensors(numbers))
    size, frames = clips.recipe.size, clips.recipe.frames
    assert ours.shape == (len(host), 3, frames, size, size) and ours.dtype == torch.float32
    assert ours.is_contiguous(memory_format=torch.channels_last_3d)
    ours = ours.permute(0, 2, 3, 4, 1).numpy()
    assert ours.shape == host.shape and host.dtype == np.float32 and host.std() > 0.05
    assert min(ours.min(), host.min()) >= 0 and max(ours.max(), host.max()) <= 1
    assert (np.abs(ours - host).max(axis=-1) <= 3 / 255).mean() >= ALIKE
    assert np.abs(ours - host).mean() < 1 / 255


def test_the_renderer_is_one_graph_and_draws_many_clips_as_it_draws_each(clip_set):
    renderer, numbers = ClipRenderer(clip_set), tensors(clip_set.numbers(np.arange(100)))
    assert not renderer.state_dict() and not list(renderer.parameters())
    each = torch.cat([renderer(ClipNumbers(*(part[k : k + 1] for part in numbers))) for k in range(100)])
    whole = renderer(numbers)
    assert torch.allclose(whole, each, rtol=0, atol=1e-5)
    graph = torch.compile(renderer, fullgraph=True, dynamic=False, backend="eager")
    assert torch.allclose(graph(numbers), whole, rtol=0, atol=1e-5)


# --- loaders ---------------------------------------------------------------------------------------------------------


def test_a_loader_shows_clips_in_the_order_of_their_numbers():
    loader = single_video_loader("sklearn:china.jpg", **SMALL)
    assert loader.steps_per_epoch == 7  # 50 clips in batches of 8: nothing is dropped
    assert (loader.start_step, loader.batch_size, loader.render, loader.workers) == (0, BATCH, "host", 0)
    clips = ClipSet(PHOTO, video(24, 3), views=50, seed=6)
    for step, batch in enumerate(taken(loader, 12)):
        assert batch.shape == (BATCH, 3, 3, 24, 24) and batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last_3d)
        assert np.array_equal(batch.permute(0, 2, 3, 4, 1), render(clips, step * BATCH + np.arange(BATCH)))


def test_endless_clips_have_no_epoch():
    assert single_video_loader("sklearn:china.jpg", batch_size=4, clips=None).steps_per_epoch is None


def test_the_defaults_are_those_of_the_paper():
    loader = single_video_loader("sklearn:china.jpg")
    assert loader.view_set.recipe == VideoRecipe() and loader.view_set.views == 200_000
    assert (loader.batch_size, loader.steps_per_epoch) == (128, 1563)


def test_numbers_drawn_on_the_device_are_the_clips_of_the_host():
    clips = single_video_loader("sklearn:china.jpg", motion="smooth", **SMALL)
    numbers = single_video_loader("sklearn:china.jpg", motion="smooth", render="device", **SMALL)
    for batch, drawn in zip(taken(clips, 3), taken(numbers, 3)):
        assert isinstance(drawn, ClipNumbers) and all(len(part) == BATCH for part in drawn)
        ours = numbers.renderer(drawn)
        assert ours.shape == batch.shape and (ours - batch).abs().mean() < 1 / 255
    assert numbers.renderer is numbers.renderer


@pytest.mark.parametrize("kind", ["host", "device"])
@pytest.mark.parametrize("start", [1, 63])
def test_starting_at_a_step_is_skipping_those_before_it(clip_set, kind, start):
    skipped = taken(clip_loader(clip_set, BATCH, render=kind), start + 2)[start:]
    started = clip_loader(clip_set, BATCH, render=kind, start_step=start)
    for again in range(2):  # iterating anew begins anew
        for one, two in zip(skipped, taken(started, 2), strict=True):
            for left, right in zip(one, two, strict=True):
                assert torch.equal(left, right), again


@pytest.mark.parametrize("kind", ["host", "device"])
def test_shards_are_together_the_rows_of_the_whole(kind):
    clips = ClipSet(PHOTO, video(16, 3), views=50, seed=6)
    whole = taken(clip_loader(clips, BATCH, start_step=3, render=kind), 3)
    shards = [taken(clip_loader(clips, BATCH, start_step=3, render=kind, shard=(k, 2)), 3) for k in range(2)]
    for step, *parts in zip(whole, *shards, strict=True):
        if kind == "host":
            assert torch.equal(step, torch.cat(parts))
        else:
            assert all(torch.equal(table, torch.cat(own)) for table, *own in zip(step, *parts, strict=True))


def test_a_large_step_is_drawn_piece_by_piece_and_by_workers_alike(clip_set, monkeypatch):
    from torch_aip import views

    plain = taken(clip_loader(clip_set, 32, start_step=2), 2)
    monkeypatch.setattr(views, "_PIECE", 5 * 3 * 16**2)
    monkeypatch.setattr(views, "steps_at_once", lambda rows, pixels: 1)
    for workers in (0, 1):
        for one, two in zip(plain, taken(clip_loader(clip_set, 32, start_step=2, workers=workers), 2), strict=True):
            assert torch.equal(one, two) and one.stride() == two.stride()


@pytest.mark.parametrize("kind", ["host", "device"])
def test_each_process_is_fed_its_own_clips(clip_set, kind):
    loader = clip_loader(clip_set, 32, render=kind)
    whole = next(iter(feed(loader, Mixing(block=4), 1, 0)))
    shares = [next(iter(feed(loader, Mixing(block=4), 1, 0, (k, 2)))) for k in range(2)]
    parts = zip(whole.views, *(share.views for share in shares)) if kind == "device" else [
        (whole.views, *(share.views for share in shares))
    ]  # fmt: skip
    assert all(torch.equal(all_, torch.cat(own)) for all_, *own in parts)
    assert torch.equal(whole.mixing.partner, torch.cat([share.mixing.partner for share in shares]))


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"batch_size": 0}, RecipeError, "batch_size"),
        ({"render": "gpu"}, RecipeError, "gpu"),
        ({"frames": 0}, RecipeError, "frames"),
        ({"motion": "wild"}, RecipeError, "wild"),
        ({"clips": 0}, RecipeError, "clips"),
        ({"recipe": "sharp"}, RecipeError, "sharp"),
        ({"image_size": 0}, RecipeError, "size"),
        ({"workers": -1}, ConfigError, "workers"),
    ],
)
def test_impossible_options_are_named(options, error, named):
    with pytest.raises(error, match=named):
        single_video_loader("sklearn:china.jpg", **options)


# --- mixing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def noise() -> torch.Tensor:
    """Five axes of five lengths, so that none can stand for another."""
    return torch.rand((8, 3, 4, 6, 10), generator=torch.Generator().manual_seed(0))


def drawn(kind: str, step: int) -> MixingNumbers:
    return mixing_numbers(Mixing(kind, 1.0, "sample", block=4), 1, step, 8)


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_clips_are_mixed_as_numpy_mixes_them(noise, kind):
    for step in range(4):
        numbers = drawn(kind, step)
        ours = mix(noise, MixingNumbers(*map(torch.from_numpy, numbers)))
        theirs = preview.mix(noise.permute(0, 2, 3, 4, 1).numpy(), numbers)
        assert np.allclose(ours.permute(0, 2, 3, 4, 1), theirs, atol=1e-6)
        assert kind == "none" or not torch.equal(ours, noise)


@pytest.mark.parametrize("kind", ["cutmix", "mixup", "both"])
def test_every_frame_of_a_clip_is_mixed_as_an_image_would_be(noise, kind):
    numbers = MixingNumbers(*map(torch.from_numpy, drawn(kind, 3)))
    mixed = mix(noise, numbers)
    for frame in range(4):
        assert torch.equal(mixed[:, :, frame], mix(noise[:, :, frame], numbers))


def test_the_references_cutmix_pastes_rows_of_some_frames(noise):
    pasted = 0
    for step in range(8):
        numbers = drawn("reference_cutmix", step)
        mixed = mix(noise, MixingNumbers(*map(torch.from_numpy, numbers)))
        for row, (left, top, right, bottom, first, last) in enumerate(numbers.box):
            assert (left, right) == (0, 1)
            for frame in range(4):
                for y in range(6):
                    inside = first < (frame + 0.5) / 4 < last and top < (y + 0.5) / 6 < bottom
                    pasted += inside
                    source = row + numbers.partner[row] if inside else row
                    assert torch.equal(mixed[row, :, frame, y], noise[source, :, frame, y])
    assert 0 < pasted < 8 * 8 * 24
    spatial = drawn("cutmix", 2)
    assert np.array_equal(drawn("reference_cutmix", 2).box[:, [4, 1, 5, 3]], spatial.box)


def test_the_references_cutmix_is_refused_for_images(noise):
    numbers = MixingNumbers(*map(torch.from_numpy, drawn("reference_cutmix", 0)))
    with pytest.raises(RecipeError, match="cutmix"):
        mix(noise[:, :, 0], numbers)
