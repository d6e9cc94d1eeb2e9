"""Measures of a source: what a teacher's answers to its views say, and how dense it is; plain NumPy in float64."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bridge.errors import TeacherError
from bridge.metrics import softmax_log

CONFIDENT = 0.9
GROUP = 64
"""Views whose mean prediction is one draw of `spread`; Wang et al. take 640 images."""
_COMPRESSED = 2**22
"""Of an image, so many are compressed; of larger ones a middle piece."""


@dataclass(frozen=True)
class Measure:
    """What a source is measured by.

    Attributes:
        label: above its column.
        about: one line.
        better: "high" or "low"; "" where neither end is good by itself.
        form: how it is written.
    """

    label: str
    about: str
    better: str = ""
    form: str = ".2f"


MEASURES: dict[str, Measure] = {
    "mutual_information": Measure(
        "information",
        "between view and class, H(mean p) - mean H(p), in nats: sure answers, but different ones",
        "high",
    ),
    "effective_classes": Measure(
        "classes", "exp(H(mean p)): how many classes the answers are spread over", "high", ".1f"
    ),
    "mean_entropy": Measure("H(mean p)", "entropy of the mean prediction, in nats", "high"),
    "confident": Measure("confident", f"share of views with a probability above {CONFIDENT}", "low", ".0%"),
    "view_entropy": Measure("mean H(p)", "mean entropy of a view's prediction, in nats", "high"),
    "spread": Measure(
        "spread",
        f"deviation over groups of {GROUP} views of their mean probability, mean over classes (T. stddev of Wang et "
        "al., arXiv 2012.02909, who compare augmentations: there low is good; of a source that always looks alike it "
        "is lowest, and a higher one is better)",
        "high",
        form=".4f",
    ),
    "density": Measure(
        "density", "JPEG bytes per pixel at quality 95, of sounds FLAC bytes per sample, whatever the teacher"
    ),
}
HEADLINE = "spread"
"""What sources are sorted by; benchmarks/score.py says how well each measure predicts."""


def measures(logits: ArrayLike) -> dict[str, float]:
    """What a teacher's answers to views of one source say about it.

    Args:
        logits: [views, classes], logits or log-probabilities, finite.

    Returns:
        The keys of `MEASURES` but density; spread is NaN of fewer than two groups of views.

    Raises:
        TeacherError: no such answers.
    """
    array = np.asarray(logits)
    if array.ndim != 2 or 0 in array.shape:
        raise TeacherError(f"The teacher's answers have shape {list(array.shape)}; expected [views, classes].")
    if not np.isfinite(array).all():
        raise TeacherError("The teacher answers with NaN or infinity; look at it with `inspect`.")
    log_p = softmax_log(array)
    p = np.exp(log_p)
    of_mean = float(_entropy(p.mean(axis=0)))
    # The mean of p log p, as p log p tends to 0: a probability may be too small for its logarithm.
    of_views = float(-np.where(p > 0, p * log_p, 0.0).sum(axis=1).mean())
    return {
        "mutual_information": max(0.0, of_mean - of_views),
        "effective_classes": math.exp(of_mean),
        "mean_entropy": of_mean,
        "confident": float((p.max(axis=1) > CONFIDENT).mean()),
        "view_entropy": of_views,
        "spread": _spread(p),
    }


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)


def _spread(p: NDArray[np.float64]) -> float:
    groups = len(p) // GROUP
    if groups < 2:
        return math.nan
    means = p[: groups * GROUP].reshape(groups, GROUP, -1).mean(axis=1)
    return float(means.std(axis=0, ddof=1).mean())


def image_density(images: Sequence[NDArray[np.uint8]]) -> float:
    """JPEG bytes per pixel at quality 95 (Pillow's other defaults), over all images of a source together."""
    from PIL import Image

    size = pixels = 0
    for image in images:
        height, width = image.shape[:2]
        rows = max(1, min(height, _COMPRESSED // width))
        first = (height - rows) // 2
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image[first : first + rows])).save(buffer, format="JPEG", quality=95)
        size, pixels = size + buffer.getbuffer().nbytes, pixels + rows * width
    return size / pixels


def sound_density(samples: NDArray[np.float32], rate: int) -> float:
    """FLAC bytes per sample, of 16 bits."""
    import soundfile

    if rate > 655_350:  # FLAC knows no higher one, and the number of bytes does not depend on it
        rate = 48_000
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC", subtype="PCM_16")
    return buffer.getbuffer().nbytes / len(samples)
