"""What the student will see or hear: base views, augmented views and mixed ones, as pictures and as sounds."""

from __future__ import annotations

import copy
from typing import TypeVar

import numpy as np

from bridge.datum.audio import AudioSet
from bridge.datum.audio_preview import log_mel, pictures_of, spectrogram_pictures
from bridge.datum.mixing import Mixing, MixingNumbers, clip_frames, mixing_numbers
from bridge.datum.render import render
from bridge.datum.video import ClipSet
from bridge.datum.views import CountedSet

Counted = TypeVar("Counted", bound=CountedSet)
_VALUES_AT_ONCE = 2**20
"""Rendered of sounds: what is needed meanwhile takes some 100 bytes for each."""


def previews(view_set: CountedSet, mixing: Mixing, count: int) -> dict[str, np.ndarray]:
    """The first views of a run.

    Returns:
        Caption → uint8 [count, size, size, 3]; of clips [count, size, frames · size, 3], one frame beside the other; of
        sounds their spectrograms [count, bands, frames, 3], time to the right and pitch upwards.
    """
    captions = _captions(view_set, mixing)
    if isinstance(view_set, AudioSet):
        rate = view_set.recipe.rate
        first = _first_sounds(view_set, mixing, count)
        pictures = [spectrogram_pictures(sounds, rate) for sounds in first]
        if mixing.on == "spectrogram":
            mixed = mix(log_mel(first[-1], rate), mixing_numbers(mixing, view_set.seed, 0, len(first[-1])))
            pictures.append(pictures_of(mixed))
        pictures = [some[:count] for some in pictures]
    else:
        n = np.arange(count)
        augmented = render(view_set, n)
        mixed = mix(augmented, mixing_numbers(mixing, view_set.seed, 0, count))
        pictures = [strips(to_bytes(some)) for some in (render(base_views(view_set), n), augmented, mixed)]
    return dict(zip(captions, pictures))


def heard(view_set: AudioSet, mixing: Mixing, count: int) -> dict[str, np.ndarray]:
    """The sounds of the first pictures of `previews`, under the same captions, whatever the count there.

    Returns:
        Caption → float32 [count, samples] in [-1, 1]. Without mixed ones where spectrograms are mixed, which nobody
        can listen to.
    """
    first = _first_sounds(view_set, mixing, count)
    return dict(zip(_captions(view_set, mixing), (sounds[:count] for sounds in first)))


def _first_sounds(view_set: AudioSet, mixing: Mixing, count: int) -> list[np.ndarray]:
    """Base views, augmented and, unless spectrograms are mixed, mixed ones: float32 [rows, samples] each.

    There are `count` rows or more: whole blocks of mixing, so that partners are those of the run.
    """
    n = np.arange(-(-count // mixing.block) * mixing.block)
    at_once = max(1, _VALUES_AT_ONCE // view_set.recipe.samples)
    base, augmented = (
        np.concatenate([render(some, n[k : k + at_once]) for k in range(0, len(n), at_once)])
        for some in (base_views(view_set), view_set)
    )
    if mixing.on == "spectrogram":
        return [base, augmented]
    return [base, augmented, mix(augmented, mixing_numbers(mixing, view_set.seed, 0, len(n), axes=1))]


def _captions(view_set: CountedSet, mixing: Mixing) -> list[str]:
    """Of base views, augmented ones and mixed ones."""
    sounds, clips = isinstance(view_set, AudioSet), isinstance(view_set, ClipSet)
    how = "not mixed" if mixing.kind == "none" else f"mixed ({mixing.kind})"
    how += " as spectrograms" if mixing.on == "spectrogram" and mixing.kind != "none" else ""
    return [
        f"base {'clips' if clips else 'views'}, cut from the one {'clip' if sounds else 'image'}",
        "the same ones, " + ("augmented for training" if view_set.recipe.augmentation else "which are not augmented"),
        f"{how}: what teacher and student {'hear' if sounds else 'are shown'}",
    ]


def strips(clips: np.ndarray) -> np.ndarray:
    """Clips [rows, frames, height, width, 3] → [rows, height, frames · width, 3]; images remain as they are."""
    if clips.ndim == 4:
        return clips
    rows, frames, height, width, channels = clips.shape
    return clips.transpose(0, 2, 1, 3, 4).reshape(rows, height, frames * width, channels)


def base_views(view_set: Counted) -> Counted:
    """The same views before augmentation, in the same order."""
    base = copy.copy(view_set)  # what was made of the source serves both
    base.recipe = view_set.recipe.without_augmentation()
    return base


def mix(images: np.ndarray, numbers: MixingNumbers) -> np.ndarray:
    """`keras_aip.mixing.mix` in NumPy.

    Args:
        images: float32 [batch, height, width, channels] or [batch, frames, height, width, channels]; waveforms [batch,
            samples], with `axes=1`; or spectrograms [batch, frames, bands].
        numbers: of the same rows.

    Returns:
        float32 of the same shape.
    """
    if images.ndim == 2:
        return mix(images[:, None, :, None], numbers)[:, 0, :, 0]
    if images.ndim == 3:  # time is the width
        return mix(images.transpose(0, 2, 1)[..., None], numbers)[..., 0].transpose(0, 2, 1)
    height, width = images.shape[-3:-1]
    each = (-1, *[1] * (images.ndim - 1))
    partners = images[np.arange(len(images)) + numbers.partner]
    left, top, right, bottom, *moments = (edge.reshape(each) for edge in numbers.box.T)
    x = ((np.arange(width, dtype=np.float32) + 0.5) / width)[:, None]
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None, None]
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    if moments:
        frames = clip_frames(images.shape, axis=1)
        t = ((np.arange(frames, dtype=np.float32) + 0.5) / frames)[:, None, None, None]
        inside = inside & (t > moments[0]) & (t < moments[1])
    return np.where(inside, partners, images + numbers.weight.reshape(each) * (partners - images))


def to_bytes(images: np.ndarray) -> np.ndarray:
    """float [0, 1] → uint8."""
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
