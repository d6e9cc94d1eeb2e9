"""CutMix and MixUp as numbers: who is mixed with whom, and how much, from seed and step alone.

The teacher labels the mixed pixels; labels are never mixed. Partners come from fixed blocks of rows, so spreading a
batch over more devices does not change them as long as each device holds whole blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from bridge.datum.counter import uniforms
from bridge.errors import RecipeError

KINDS = ("cutmix", "mixup", "both", "none")
CLIP_KINDS = (*KINDS, "reference_cutmix")
"""What clips may be mixed by; the others are for images as well."""


@dataclass(frozen=True)
class Mixing:
    """How batches are mixed.

    Attributes:
        kind: "cutmix" pastes a box of the partner, into all frames of a clip alike, "mixup" fades to it, "both" tosses
            a fair coin, "none". "reference_cutmix", of clips alone, pastes frames × rows over the whole width, as the
            reference code does by mistake.
        alpha: λ ~ Beta(alpha, alpha), the share that stays. 0.25 for CIFAR, 1 for ImageNet (reference code).
        per: one λ and one box for the whole "batch" (reference code), or for each "sample" (ours).
        block: partners are found within blocks of this many rows (ours).
        on: the "input", which is all there is of images and clips; or of sounds the "spectrogram" (ours).
    """

    kind: str = "cutmix"
    alpha: float = 0.25
    per: str = "batch"
    block: int = 16
    on: str = "input"

    def __post_init__(self) -> None:
        if self.kind not in CLIP_KINDS:
            raise RecipeError(f"mixing (={self.kind!r}) must be one of {', '.join(CLIP_KINDS)}.")
        if self.per not in ("batch", "sample"):
            raise RecipeError(f"mixing per (={self.per!r}) must be 'batch' or 'sample'.")
        if self.on not in ("input", "spectrogram"):
            raise RecipeError(f"mixing on (={self.on!r}) must be 'input' or 'spectrogram'.")
        if not 0 < self.alpha <= 100:
            raise RecipeError(f"mixing alpha (={self.alpha}) must be in (0, 100].")
        if self.block < 2:
            raise RecipeError(f"mixing block (={self.block}) must be at least 2 rows.")


class MixingNumbers(NamedTuple):
    """One batch's mixing.

    Attributes:
        partner: int32 [batch], row of the partner minus the own row.
        box: float32 [batch, 4]: left, top, right, bottom as shares of the image, or of a spectrogram, whose time goes
            from left to right; the partner shows where a pixel's centre lies inside; empty without CutMix. Of waveforms
            left and right are time, and top and bottom 0 and 1. With "reference_cutmix" [batch, 6]: then the first and
            last moment as shares of the clip.
        weight: float32 [batch]: share of the partner outside the box; 0 without MixUp.
    """

    partner: Any
    box: Any
    weight: Any


def mixing_numbers(mixing: Mixing, seed: int, step: int | np.ndarray, batch: int, axes: int = 2) -> MixingNumbers:
    """The mixing of one step, or of several steps one after the other: a pure function of its arguments.

    Args:
        mixing: its settings.
        seed: 0 ≤ seed < 2**64.
        step: number of the step, or int64 [k].
        batch: rows per step.
        axes: along which a box is cut: 2, or 1 of waveforms, where a stretch of time is.

    Returns:
        `MixingNumbers` of k · batch rows; no partner is in another step.
    """
    steps = np.atleast_1d(np.asarray(step, dtype=np.int64))
    rows = np.arange(batch)
    u = uniforms(seed, "mixing", (steps[:, None] * 2**24 + rows).ravel(), 6).reshape(6, len(steps), batch)
    shared = u[:, :, :1] if mixing.per == "batch" else u
    kept = beta_quantile(shared[0], mixing.alpha)
    cut: Any = {"cutmix": True, "reference_cutmix": True, "mixup": False}.get(mixing.kind, shared[1] < 0.5)
    # The box keeps the image's aspect: a share 1 − λ of it before clipping.
    half = np.where(cut, 0.5 * (1 - kept) ** (1 / axes), 0.0)
    box = np.stack([shared[2] - half, shared[3] - half, shared[2] + half, shared[3] + half], axis=-1)
    weight = np.where(cut, 0.0, 1 - kept)
    if axes == 1:
        box[..., 1], box[..., 3] = 0.0, 1.0
    if mixing.kind == "none":
        box, weight = np.zeros_like(box), np.zeros_like(weight)
    if mixing.kind == "reference_cutmix":  # time takes the place of the width
        whole = np.zeros_like(weight)
        box = np.stack([whole, box[..., 1], whole + 1, box[..., 3], box[..., 0], box[..., 2]], axis=-1)
    edges, partner = box.shape[-1], _partners(u[4], mixing.block)
    if mixing.kind == "none":  # nobody else's rows are needed, so a batch may be parted anywhere
        partner = np.zeros_like(partner)
    return MixingNumbers(
        partner.ravel(),
        np.broadcast_to(np.clip(box, 0, 1), (len(steps), batch, edges)).reshape(-1, edges).astype(np.float32),
        np.broadcast_to(weight, (len(steps), batch)).ravel().astype(np.float32),
    )


def clip_frames(shape: Sequence[int], axis: int) -> int:
    """How many frames a batch of clips has, whose frames lie on `axis`.

    Raises:
        RecipeError: these are images, and "reference_cutmix" cuts through time.
    """
    if len(shape) != 5:
        raise RecipeError(
            f"mixing 'reference_cutmix' cuts clips, which have five axes; got a batch of shape {tuple(shape)}. Take "
            "'cutmix' for images."
        )
    return shape[axis]


def _partners(u: np.ndarray, block: int) -> np.ndarray:
    """[steps, batch] uniforms → a random order within each block of rows, as offsets from the own row: int32."""
    steps, batch = u.shape
    rows = np.arange(u.size).reshape(steps, batch)
    blocks = np.arange(steps)[:, None] * batch + np.arange(batch) // block
    order = np.lexsort((u.ravel(), blocks.ravel())).reshape(steps, batch)
    return (order - rows).astype(np.int32)


def beta_quantile(u: np.ndarray, alpha: float) -> np.ndarray:
    """Uniforms in (0, 1) → Beta(alpha, alpha), by a table of quantiles (a gamma sampler does not run on a TPU)."""
    return np.interp(u, np.linspace(0, 1, _TABLE + 1), _beta_table(alpha))


_TABLE = 4096


@lru_cache(maxsize=8)
def _beta_table(alpha: float) -> np.ndarray:
    from scipy.special import betaincinv

    return betaincinv(alpha, alpha, np.linspace(0, 1, _TABLE + 1))
