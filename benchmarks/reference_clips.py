"""The reference's way to fake clips, by files: what our clips are measured against.

Written once: crop of half the shorter side → colour jitter → two crops by area and aspect, and from one to the other in
8 frames, each resized to 230 px with bicubic → mp4 of 2/3 s (Asano & Saeed 2023, as read in the reference code).
At each reading: decode half of it → AugMix → short side of 183 to 229 px → crop of 160 px → flip.

With Pillow, PyAV and PyTorch. The reference augments tensors with pytorchvideo, which no longer imports; its operations
take as long or longer (by torchvision: 4.8 ms for turning four frames of 230 px, here 3.7; 5 to 9 ms for sharpness,
here 2.3). All by one thread.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from reference_views import _area_crop, _jitter

from bridge.datum.clip_files import encode_clip
from bridge.datum.video_recipes import AugMix, BaseClip, ClipAugmentation, VideoRecipe

WRITTEN_FRAMES, RATE = 8, 12.0
_BASE, _RECIPE, _EXTRA, _MIX = BaseClip(), VideoRecipe(), ClipAugmentation(), AugMix()


def made_with() -> str:
    """Libraries and their versions."""
    return f"Pillow {Image.__version__}, PyAV {av.__version__}, PyTorch {torch.__version__}"


def write_clip(image: Image.Image, path: Path, draw: random.Random) -> None:
    """One fake clip, as FFmpeg's defaults write it."""
    side = int(_BASE.initial_crop * min(image.size))
    left, top = draw.randint(0, image.width - side), draw.randint(0, image.height - side)
    image = image.crop((left, top, left + side, top + side))
    if _BASE.jitter is not None and draw.random() < _BASE.jitter.probability:
        image = _jitter(image, draw)
    ends = np.array([_area_crop(side, draw) for _ in range(2)])
    frames = []
    for moment in np.linspace(0, 1, WRITTEN_FRAMES):
        left, top, width, height = np.rint((1 - moment) * ends[0] + moment * ends[1]).astype(int).tolist()
        seen = image.crop((left, top, left + width, top + height))
        frames.append(np.asarray(seen.resize((_RECIPE.base_size, _RECIPE.base_size), Image.Resampling.BICUBIC)))
    path.write_bytes(encode_clip(np.stack(frames), RATE, options={}))


def read_clip(path: Path, draw: random.Random) -> torch.Tensor:
    """A written clip, augmented for training: float32 [3, frames, size, size] in [0, 1]."""
    frames = round(WRITTEN_FRAMES * _EXTRA.span)
    clip = torch.from_numpy(_augmix(_decoded(path, draw.randint(0, WRITTEN_FRAMES - frames), frames), draw))
    clip = clip.permute(0, 3, 1, 2) / 255
    short = draw.randint(*_EXTRA.short_side)
    clip = torch.nn.functional.interpolate(clip, size=(short, short), mode="bilinear", align_corners=False)
    left, top = draw.randint(0, short - _RECIPE.size), draw.randint(0, short - _RECIPE.size)
    clip = clip[:, :, top : top + _RECIPE.size, left : left + _RECIPE.size].transpose(0, 1)
    return clip.flip(-1) if draw.random() < _EXTRA.flip else clip


def _decoded(path: Path, first: int, frames: int) -> np.ndarray:
    """Some frames, uint8 [frames, height, width, 3]; those before them must be decoded too."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        shown = itertools.islice(container.decode(video=0), first, first + frames)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in shown])


def _augmix(clip: np.ndarray, draw: random.Random) -> np.ndarray:
    """AugMix with the same draws for all frames: uint8 [frames, height, width, 3] → float32 of that shape."""
    shares = np.array([draw.expovariate(1) for _ in range(_MIX.chains)])
    kept = draw.random()
    mixed = clip * np.float32(kept)
    for share in (1 - kept) * shares / shares.sum():
        chain = [Image.fromarray(frame) for frame in clip]
        for _ in range(draw.randint(1, _MIX.depth)):
            operation = _operation(draw)
            chain = [operation(frame) for frame in chain]
        mixed += np.stack([np.asarray(frame) for frame in chain]) * np.float32(share)
    return mixed


def _operation(draw: random.Random) -> Callable[[Image.Image], Image.Image]:
    """One operation of AugMix at a level drawn, each as likely."""
    level, sign = draw.uniform(0.1, _MIX.magnitude) / 10, draw.choice((-1, 1))
    strength, signed = 0.1 + 1.8 * level, sign * level

    def moved(*matrix: float) -> Callable[[Image.Image], Image.Image]:
        return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)

    shift = signed * _RECIPE.base_size / 3
    ways: list[Callable[[Image.Image], Image.Image]] = [
        lambda image: image.rotate(30 * signed, Image.Resampling.BILINEAR),
        moved(1, 0.3 * signed, 0, 0, 1, 0),
        moved(1, 0, 0, 0.3 * signed, 1, 0),
        moved(1, 0, shift, 0, 1, 0),
        moved(1, 0, 0, 0, 1, shift),
        lambda image: ImageEnhance.Color(image).enhance(strength),
        lambda image: ImageEnhance.Contrast(image).enhance(strength),
        lambda image: ImageEnhance.Brightness(image).enhance(strength),
        lambda image: ImageEnhance.Sharpness(image).enhance(strength),
        ImageOps.autocontrast,
        ImageOps.equalize,
        lambda image: ImageOps.posterize(image, 8 - int(4 * level)),
        lambda image: ImageOps.solarize(image, int(256 * (1 - level))),
    ]
    return draw.choice(ways)
