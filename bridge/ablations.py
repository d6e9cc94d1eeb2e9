"""The paper's ablations as presets of `sweep`: on the digits for a processor, on CIFAR and ImageNet for a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Ablation(NamedTuple):
    """What is varied.

    Attributes:
        about: one sentence.
        base: the preset all runs start from.
        vary: option → values.
        distill: options that are other than the preset's, the same in all runs.
        published: the paper's accuracies, fractions in [0, 1], under the value's label; of two options both labels with
            " × " between them.
    """

    about: str
    base: str
    vary: Mapping[str, list[Any]]
    distill: Mapping[str, Any] = {}
    published: Mapping[str, float] = {}


_CIFAR_SOURCES = ["control:noise", "sf.png", "img_b.jpg", "img_a.jpg"]
_LOSSES = ["kl", "soft_cross_entropy", "logit_mse", "l1", "jensen_shannon", "argmax", "dist", "dkd"]
_TEMPERATURES = [1, 2, 4, 8, 16]
_MIXINGS = ["cutmix", "mixup", "both", "none"]
_WITHOUT = [None, "zoom", "aspect", "rotation", "shear", "crop", "flip", "jitter", "all"]
"""Of the cifar recipe, one by one."""
_WITHOUT_LARGE = [None, "zoom", "aspect", "rotation", "shear", "crop", "flip", "jitter", "grey", "solarise", "all"]

ABLATIONS: dict[str, Ablation] = {
    "sweep-sources": Ablation(
        "which source: photographs, noise or a constant, on the digits (ours, after the paper's ablation by image)",
        "fast-digits",
        dict(image=["sklearn:china.jpg", "sklearn:flower.jpg", "control:noise", "control:constant"]),
    ),
    "sweep-augmentations": Ablation(
        "the paper's augmentations left out one by one, on the digits (ours; the paper's own figures were not found)",
        "fast-digits", dict(without=_WITHOUT), dict(recipe="cifar"),
    ),
    "sweep-mixings": Ablation(
        "which mixing of views, on the digits (ours; the paper uses cutmix)", "fast-digits", dict(mixing=_MIXINGS),
    ),
    "sweep-losses": Ablation(
        "which loss, on the digits (ours; the paper uses kl)", "fast-digits", dict(loss=_LOSSES),
    ),
    "sweep-temperatures": Ablation(
        "which temperature, on the digits (ours; the paper uses 8)", "fast-digits", dict(temperature=_TEMPERATURES),
    ),
    "sweep-widths": Ablation(
        "how wide a student, on the digits (ours)", "fast-digits", dict(student_width=[4, 8, 16, 24, 48]),
    ),
    "sweep-depths": Ablation(
        "how deep a student, on the digits (ours)", "fast-digits",
        dict(student=["wrn_10_1", "wrn_16_1", "wrn_22_1", "wrn_28_1"]), dict(student_width=None),
    ),
    "sweep-pairs": Ablation(
        "which student for which teacher, on the digits (ours)", "fast-digits",
        dict(teacher=["small_cnn", "wrn_10_1"], student=["small_cnn", "wrn_10_1", "resnet20"]),
        dict(student_width=None),
    ),
    "sweep-sources-cifar10": Ablation(
        "the paper's ablation by source image; sf.png, img_b.jpg and img_a.jpg are those of its repository, here",
        "paper-cifar10", dict(image=_CIFAR_SOURCES), {},
        {"control:noise": 0.6930, "sf.png": 0.9224, "img_b.jpg": 0.9313, "img_a.jpg": 0.9328},
    ),
    "sweep-sources-cifar100": Ablation(
        "the same for CIFAR-100 (the paper trained shorter than its preset; how long is not known)",
        "paper-cifar100", dict(image=_CIFAR_SOURCES), {},
        {"control:noise": 0.1950, "sf.png": 0.5787, "img_b.jpg": 0.6485, "img_a.jpg": 0.6612},
    ),
    "sweep-augmentations-cifar10": Ablation(
        "the paper's augmentations left out one by one (the paper's own figures were not found)",
        "paper-cifar10", dict(without=_WITHOUT),
    ),
    "sweep-mixings-cifar10": Ablation("which mixing of views (ours)", "paper-cifar10", dict(mixing=_MIXINGS)),
    "sweep-losses-cifar10": Ablation("which loss (ours)", "paper-cifar10", dict(loss=_LOSSES)),
    "sweep-temperatures-cifar10": Ablation(
        "which temperature (ours)", "paper-cifar10", dict(temperature=_TEMPERATURES),
    ),
    "sweep-widths-cifar10": Ablation(
        "how wide a student (ours)", "paper-cifar10",
        dict(student=["wrn_16_1", "wrn_16_2", "wrn_16_4", "wrn_16_8"]), {}, {"wrn_16_4": 0.9414},
    ),
    "sweep-depths-cifar10": Ablation(
        "how deep a student (ours)", "paper-cifar10",
        dict(student=["wrn_10_4", "wrn_16_4", "wrn_22_4", "wrn_40_4"]), {}, {"wrn_16_4": 0.9414},
    ),
    "sweep-pairs-cifar10": Ablation(
        "which student for which teacher (ours)", "paper-cifar10",
        dict(teacher=["wrn_40_4", "wrn_16_4", "resnet56"], student=["wrn_16_4", "wrn_40_2", "resnet20", "vgg11"]), {},
        {"wrn_40_4 × wrn_16_4": 0.9414},
    ),
    "sweep-sources-in1k": Ablation(
        "the paper's ablation by source image, 30 epochs; sf.png is its Bridge, img_b.jpg its City (PyTorch)",
        "paper-in1k", dict(image=["control:noise", "sf.png", "img_b.jpg"]), dict(epochs=30),
        {"control:noise": 0.001, "sf.png": 0.400, "img_b.jpg": 0.522},
    ),
    "sweep-augmentations-in1k": Ablation(
        "the paper's augmentations left out one by one, 30 epochs (PyTorch; the paper's own figures were not found)",
        "paper-in1k", dict(without=_WITHOUT_LARGE), dict(epochs=30),
    ),
    "sweep-losses-in1k": Ablation(
        "soft answers or labels alone, to a student twice as wide (PyTorch)",
        "paper-in1k", dict(loss=["kl", "argmax"]), dict(student="resnet50x2"), {"kl": 0.690, "argmax": 0.438},
    ),
    "sweep-pairs-in1k": Ablation(
        "which student for which teacher (PyTorch)", "paper-in1k",
        dict(teacher=["resnet18", "resnet50"], student=["resnet50", "resnet50x2"]), {},
        {"resnet18 × resnet50": 0.662, "resnet50 × resnet50": 0.555, "resnet18 × resnet50x2": 0.690},
    ),
}  # fmt: skip
