"""The single checks of a teacher: what its answers to a few views tell for certain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bridge.insight.measures import measures
from bridge.insight.score import Ask
from bridge.metrics import softmax_log
from bridge.teachers.wrapped import SMALLEST_PROBABILITY

TEMPERATURES = (1, 2, 4, 8, 16)
VARIED = 64
"""Views asked about in other colours and ranges."""
_COMPANY = 16
"""Views that are asked about twice."""
_DIFFERENT = 1e-3
"""Relative to the largest score: between two answers to one view. Rounding stays far below."""
_FLOOR = np.log(SMALLEST_PROBABILITY) + 1e-3
"""Of what is said to be probabilities or labels the logarithm was taken, of nothing below 1e-7."""
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_COLLAPSED, _ALIVE = 1.3, 2.5
"""Effective number of classes named: as good as one, and more than two (ours)."""
# How torchvision, timm and people call weights that were trained with MixUp, CutMix, label smoothing or RandAugment.
_STRONG = re.compile(
    r"IMAGENET1K_V2|\b(?:mixup|cutmix|rand-?augment|trivial-?augment|auto-?augment|augmix|augreg)\b|label.smoothing"
    r"|\.(?:a1h?|a2|a3|b1k|b2k|c1|c2|d1|d2|e1|ra|ra2|ra3|ra4|ram|ah|bt|am|augreg\d?|sw)_", re.I,
)  # fmt: skip


class Finding(NamedTuple):
    """What was found.

    Attributes:
        level: "ok"; "note", nothing wrong; "warning", probably wrong; "error", nothing can be learned from it.
        text: one or two sentences.
    """

    level: Literal["ok", "note", "warning", "error"]
    text: str


@dataclass(frozen=True)
class Facts:
    """What is said about a teacher, and so can be compared with what it does.

    Attributes:
        name: for messages.
        outputs: "logits", "probabilities" or "labels".
        source: where the weights come from, in words; their published name, if they have one.
        mean, std: that the network takes away and divides by itself, per channel; None: not known.
        temperature: that the distillation will use; None: not known.
        costs: each question counts, as those to a service do: nothing is asked that is not needed.
    """

    name: str = "the teacher"
    outputs: str = "logits"
    source: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    temperature: float | None = None
    costs: bool = False


def finite(logits: NDArray[np.float32], facts: Facts) -> Finding:
    """Whether all answers are numbers; the other checks need that."""
    bad = np.logical_not(np.isfinite(logits).all(axis=1))
    if np.any(bad):
        return Finding(
            "error",
            f"{facts.name} answers {np.sum(bad)} of {len(logits)} views with NaN or infinity. Check its weights, and "
            "that it takes inputs in the range its card says.",
        )
    return Finding("ok", f"All answers to {len(logits)} views are finite, of {logits.shape[1]} classes.")


def outputs(logits: NDArray[np.float32], facts: Facts) -> list[Finding]:
    """Logits, probabilities or labels: what they look like against what is said."""
    raw = logits.astype(np.float64)
    raw = raw if facts.outputs == "logits" else np.where(logits <= _FLOOR, 0, np.exp(raw))
    looks = _kind(raw)
    mend = f'outputs says "{facts.outputs}" of {facts.name}, but its answers '
    if looks == facts.outputs:
        return [Finding("ok", f"Its answers are {looks}, as is said.")]
    if facts.outputs == "logits" and looks == "log-probabilities":
        return [Finding("ok", "Its answers are log-probabilities, which do as logits.")]
    if facts.outputs == "probabilities" and looks == "labels":
        return [Finding("note", "All probabilities are 0 or 1: these are labels; a temperature changes nothing.")]
    if looks in ("probabilities", "labels"):
        rows = "sum to one" if looks == "probabilities" else "are all 0 but for a 1"
        twice = " A softmax would be taken twice." if facts.outputs == "logits" and looks == "probabilities" else ""
        return [Finding("warning", f'{mend}{rows}, as {looks} do.{twice} Say outputs="{looks}".')]
    if looks == "shares":
        return [
            Finding(
                "warning",
                f"{facts.name} answers between 0 and 1, and rows do not sum to one: sigmoids of several labels? The "
                "loss compares softmaxes; give the scores before the sigmoid.",
            )
        ]
    if facts.outputs == "probabilities":
        return [Finding("warning", f'{mend}are no probabilities (rows do not sum to one). Say outputs="logits".')]
    return [Finding("warning", f"{mend}are not labels.")]


def _kind(raw: NDArray[np.float64]) -> str:
    """What scores look like: labels, probabilities, shares (0 to 1, summing to anything), log-probabilities, logits."""
    in_range = raw.min() >= -1e-4 and raw.max() <= 1 + 1e-4
    sums = np.abs(raw.sum(axis=1) - 1).max() < 1e-2
    if in_range and sums:
        return "labels" if np.minimum(np.abs(raw), np.abs(raw - 1)).max() < 1e-4 else "probabilities"
    if in_range and raw.shape[1] > 1:
        return "shares"
    if raw.max() <= 1e-3 and np.abs(np.exp(raw).sum(axis=1) - 1).max() < 1e-3:
        return "log-probabilities"
    return "logits"


def company(ask: Ask, shown: NDArray[np.float32], rows: int, facts: Facts) -> list[Finding]:
    """The same views again, and then among others, in batches of the same size."""
    half = min(_COMPANY, rows, len(shown)) // 2
    if half < 1:
        return []
    some = shown[: 2 * half]
    others = np.concatenate([some[:half], _noise(some[half:])])
    once, again, among = (np.asarray(ask(batch), np.float64)[:half] for batch in (some, some, others))
    scale = max(float(np.abs(once).max()), 1e-6)
    random, social = (float(np.abs(other - once).max()) / scale for other in (again, among))
    if random > _DIFFERENT:
        return [
            Finding(
                "warning",
                f"{facts.name} answers the same views differently when asked again (by {random:.1%}): dropout, or "
                "noise. Put it in inference mode.",
            )
        ]
    if social > _DIFFERENT:
        return [
            Finding(
                "warning",
                f"The answers of {facts.name} depend on what else is in the batch (by {social:.1%}): its BatchNorm is "
                "in training mode. Put it in inference mode: model.eval(), or training=False.",
            )
        ]
    return [Finding("ok", "It answers a view alike in any company: BatchNorm and dropout are in inference mode.")]


def alive(ask: Ask, shown: NDArray[np.float32], logits: NDArray[np.float32], rows: int, facts: Facts) -> list[Finding]:
    """Whether answers change with the input at all, those to noise among them."""
    every = np.concatenate([logits, np.asarray(ask(_noise(shown[: min(8, rows)])), np.float32)]).astype(np.float64)
    scale = max(float(np.abs(every).max()), 1e-6)
    still = np.ptp(every, axis=0) <= 1e-6 * scale
    named = len(np.unique(every.argmax(axis=1)))
    if facts.outputs == "labels":
        if named == 1:
            said = f"{facts.name} gives every view, and noise, the same label: there is nothing to learn from it."
            return [Finding("warning", said)]
        return [Finding("ok", f"It names {named} of {every.shape[1]} classes on these views.")]
    if still.all():
        return [
            Finding(
                "error",
                f"{facts.name} gives every view, and noise, the same answer: there is nothing to learn from it. Check "
                "its weights, and that it takes inputs in the range its card says.",
            )
        ]
    if facts.outputs == "probabilities":
        still &= every.max(axis=0) > _FLOOR  # below it a score may well change
    found = []
    if still.any():
        some = ", ".join(map(str, np.flatnonzero(still)[:5])) + (", …" if still.sum() > 5 else "")
        said = (
            f"{still.sum()} of {len(still)} classes of {facts.name} have the same score for every input ({some}): dead."
        )
        found.append(Finding("warning", said))
    silent = every.shape[1] - named
    if silent and every.shape[1] <= 20:
        found.append(Finding("note", f"{silent} of {every.shape[1]} classes are never the first guess on these views."))
    return found or [Finding("ok", "Every class's score changes with the input.")]


def _noise(like: NDArray[np.float32]) -> NDArray[np.float32]:
    """White noise of the shape and range of views."""
    low, high = (-1.0, 1.0) if like.ndim == 2 else (0.0, 1.0)
    return np.random.default_rng(0).uniform(low, high, like.shape).astype(np.float32)


def normalisation(
    ask: Ask, shown: NDArray[np.float32], logits: NDArray[np.float32], rows: int, facts: Facts
) -> list[Finding]:
    """Views in wrong ranges and orders; a warning only where those as they should be are all one class to it.

    Confidence alone proves nothing: a larger input makes any network of ReLUs surer.
    """
    some = shown[:VARIED]
    mean, std = (np.array(values, np.float32) for values in (facts.mean or _IMAGENET[0], facts.std or _IMAGENET[1]))
    whose = "its" if facts.mean else "ImageNet's"
    if len(mean) not in (1, some.shape[-1]):
        return []
    variants = {
        "in [0, 255]": 255 * some,
        f"normalised beforehand by {whose} mean and deviation": (some - mean) / std,
        "with red and blue exchanged": np.ascontiguousarray(some[..., ::-1]),
    }
    if facts.mean:
        variants["as if it did not normalise"] = some * std + mean
    told, best, right = [], ("", 0.0), _named(logits[: len(some)])
    for what, views in variants.items():
        answers = np.concatenate([np.asarray(ask(views[k : k + rows]), np.float32) for k in range(0, len(views), rows)])
        if not np.isfinite(answers).all():
            continue
        number = _named(answers)
        told.append(f"{what} {_sureness(answers)} and {number:.1f}")
        if number > best[1] and not what.startswith("with red"):
            best = (what, number)
    found = [
        Finding(
            "note",
            f"On views in [0, 1] its mean confidence is {_sureness(logits[: len(some)])}, and it names effectively "
            f"{right:.1f} classes; {'; '.join(told)}.",
        )
    ]
    if right < _COLLAPSED and best[1] > _ALIVE:
        found.append(
            Finding(
                "warning",
                f"{facts.name} takes nearly all views for one class, and those {best[0]} for effectively "
                f"{best[1]:.1f}: it seems to expect its inputs so. Give it the mean and std that turn [0, 1] into "
                "that.",
            )
        )
    return found


def _named(logits: NDArray[np.float32]) -> float:
    """Effective number of first guesses, exp of the entropy of their shares."""
    shares = np.bincount(logits.argmax(axis=1)) / len(logits)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _sureness(logits: NDArray[np.float32]) -> str:
    return f"{np.exp(softmax_log(logits).max(axis=1)).mean():.0%}"


def soft_label_entropies(logits: NDArray[Any], temperatures: Sequence[float] = TEMPERATURES) -> dict[float, float]:
    """Mean entropy of labels softened by each τ, as a share of log(classes), which uniform ones have."""
    most = np.log(max(2, logits.shape[1]))
    found = {}
    for temperature in temperatures:
        log_p = softmax_log(logits / temperature)
        found[temperature] = float(-(np.exp(log_p) * log_p).sum(axis=1).mean() / most)
    return found


def recommended_temperature(entropies: dict[float, float]) -> float:
    """The τ whose labels have nearest to half of the largest entropy.

    A rule of thumb (ours, unproven): far below, labels say little more than the first guess; far above, all views have
    nearly the same label, whose differences drown in the student's rounding and noise.
    """
    return min(entropies, key=lambda temperature: (abs(entropies[temperature] - 0.5), temperature))


def soft_labels(logits: NDArray[np.float32], facts: Facts) -> list[Finding]:
    """How soft the labels are at each τ, and at the distillation's."""
    if facts.outputs == "labels":
        return [Finding("note", "Of labels no temperature makes soft ones; more views, and --loss argmax, are needed.")]
    entropies = soft_label_entropies(logits)
    listed = ", ".join(f"τ={temperature:g}: {share:.0%}" for temperature, share in entropies.items())
    best = recommended_temperature(entropies)
    found = [
        Finding(
            "note",
            f"Entropy of its soft labels, of the most there can be: {listed}. By a rule of thumb of ours (nearest to "
            f"half) τ={best:g}; the paper uses 8 for images, 5 for video.",
        )
    ]
    if facts.temperature is not None:
        share = soft_label_entropies(logits, [facts.temperature])[facts.temperature]
        if share < 0.02:
            found.append(
                Finding(
                    "warning",
                    f"At τ={facts.temperature:g} the labels of {facts.name} are as good as hard (entropy {share:.1%} "
                    f"of the most there can be): a higher --temperature, such as {best:g}, tells the student more.",
                )
            )
    return found


def augmented(logits: NDArray[np.float32], facts: Facts) -> list[Finding]:
    """The known bad case: teachers trained with strong augmentation."""
    found = _STRONG.search(facts.source)
    if found:
        return [
            Finding(
                "warning",
                f"{facts.name} was trained with strong augmentation, by its name ({found.group().strip('._')}). Such a "
                "ResNet-50 taught a ResNet-50 6.6 % of ImageNet in 20 epochs, a plainly trained one 34.0 % (Asano & "
                "Saeed 2023): take plainly trained weights, such as torchvision's IMAGENET1K_V1.",
            )
        ]
    confident = measures(logits)["confident"]
    if facts.outputs != "labels" and confident == 0 and len(logits) >= 128:
        said = (
            "No view gets a probability above 0.9. Either they are unlike anything it knows, or it was trained with "
            "label smoothing, MixUp or CutMix; such teachers are known to teach badly this way (Asano & Saeed 2023)."
        )
        return [Finding("note", said)]
    return []
