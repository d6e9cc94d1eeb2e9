"""Every recipe by name: a preset is a set of options, with what it gave and, where there is one, the paper's figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.ablations import ABLATIONS
from bridge.config import ViewOptions
from bridge.errors import ConfigError
from bridge.names import lookup


@dataclass(frozen=True)
class Preset:
    """A named set of options.

    Attributes:
        about: one sentence, with the source of the values.
        options: command → option → value; keys are those of `bridge.config`.
        published: the paper's result, if it has one, under the names of `result.json`, fractions in [0, 1] (of a sweep:
            as `Ablation` says); never a result of ours.
    """

    about: str
    options: Mapping[str, Mapping[str, Any]]
    published: Mapping[str, float] = field(default_factory=dict)


def _paper_cifar(dataset: str, student_top1: float) -> Preset:
    # Epochs, batch and optimizer of the paper's teachers were not found: those of "train-teacher" are ours.
    return Preset(
        f"{dataset}, WRN-40-4 → WRN-16-4, one image (reference code; of its teachers only the augmentation is known)",
        {
            "train-teacher": dict(
                dataset=dataset, architecture="wrn_40_4", hold_out=False, image_size=32, flip=True, pad=4, cutout=16,
                epochs=200, batch_size=128, learning_rate=3e-3, weight_decay=1e-2,
            ),
            "distill": dict(
                dataset=dataset, teacher="wrn_40_4", student="wrn_16_4", image_size=32, recipe="cifar", views=50_000,
                mixing="cutmix", mixing_alpha=0.25, mixing_per="batch", temperature=8.0, tau_squared=False, loss="kl",
                batch_size=512, epochs=1000, optimizer="adam", learning_rate=1e-3, schedule="constant",
            ),
        },
        {"student_top1": student_top1},
    )  # fmt: skip


def _paper_large(dataset: str, student_top1: float, about: str = "") -> Preset:
    # Of the sets beside ImageNet only teacher and student are known; what was not found is as for ImageNet.
    return Preset(
        f"{dataset}, ResNet-18 → ResNet-{50 if dataset == 'in1k' else 18}, one image (reference code{about})",
        {
            "train-teacher": dict(
                dataset=dataset, architecture="resnet18", init="torchvision/resnet18", hold_out=False, image_size=224,
                flip=True, pad=0, cutout=0, epochs=30, batch_size=128, learning_rate=1e-3, weight_decay=1e-2,
            ),
            "distill": dict(
                dataset=dataset, teacher="resnet18", student="resnet50" if dataset == "in1k" else "resnet18",
                image_size=224, recipe="imagenet", views=1_281_167, mixing="cutmix", mixing_alpha=1.0,
                mixing_per="batch", temperature=8.0, tau_squared=False, loss="kl", batch_size=512, epochs=200,
                optimizer="adamw", learning_rate=1e-2, weight_decay=5e-4, schedule="constant",
            ),
        },
        {"student_top1": student_top1},
    )  # fmt: skip


def _paper_video(dataset: str, student_top1: float) -> Preset:
    # How the teacher of UCF101 was trained was not found: that is ours. One epoch is 200,000 clips.
    training = dict(
        dataset=dataset, architecture="x3d_xs", init="x3d_xs", hold_out=False, flip=True, epochs=30, batch_size=64,
        learning_rate=1e-4, weight_decay=1e-2,
    )  # fmt: skip
    return Preset(
        f"{dataset}, X3D-XS → X3D-XS of width 5 and depth 3, one image set in motion (reference code)",
        {
            **({"train-teacher": training} if dataset == "ucf101" else {}),  # Kinetics has a public one
            "distill": dict(
                dataset=dataset, teacher="x3d_xs", student="x3d_xs_e", recipe="video", motion="linear", views=200_000,
                mixing="cutmix", mixing_alpha=1.0, mixing_per="batch", temperature=5.0, tau_squared=False, loss="kl",
                batch_size=128, epochs=400, optimizer="adamw", learning_rate=1e-3, weight_decay=0.0, schedule="cosine",
                warmup=5 / 400,
            ),
        },
        {"student_top1": student_top1},
    )  # fmt: skip


def _paper_audio(dataset: str, student_top1: float, teacher_top1: float) -> Preset:
    # Of the paper's audio only the figures are published (those of its better clip): networks and options are ours.
    return Preset(
        f"{dataset}, ResNet-56 → ResNet-20 on log-mels, one sound (networks, recipe and options are ours)",
        {
            "train-teacher": dict(
                dataset=dataset, architecture="resnet56_mel", hold_out=False, epochs=60, batch_size=128,
                learning_rate=3e-3, weight_decay=1e-2, spec_augment=2,
            ),
            "distill": dict(
                dataset=dataset, teacher="resnet56_mel", student="resnet20_mel", recipe="audio", views=50_000,
                mixing="cutmix", mixing_alpha=1.0, mixing_per="batch", temperature=8.0, tau_squared=False, loss="kl",
                batch_size=512, epochs=1000, optimizer="adam", learning_rate=1e-3, schedule="constant",
            ),
        },
        {"student_top1": student_top1, "teacher_top1": teacher_top1},
    )  # fmt: skip


PRESETS: dict[str, Preset] = {
    "fast-digits": Preset(
        "scikit-learn's handwritten digits from one photograph, in seconds on a CPU (ours; chosen on validation)",
        {
            "train-teacher": dict(
                dataset="digits", architecture="small_cnn", width=32, epochs=30, batch_size=32, normalise="half",
                hold_out=False, pad=2, flip=False, cutout=0,
            ),
            "distill": dict(
                dataset="digits", image="sklearn:china.jpg", student="small_cnn", student_width=24, views=None,
                recipe="steady", mixing_alpha=1.0, mixing_per="sample", batch_size=32, epochs=26,
                steps_per_epoch=100, steps_per_execution=20, tau_squared=True, optimizer="adamw", learning_rate=1e-2,
                weight_decay=1e-4, schedule="cosine", warmup=0.1,
            ),
        },
    ),
    "fast-cifar10": Preset(
        "CIFAR-10 from one photograph within an hour on two processor cores, WRN-10-2 → WRN-10-2 (ours)",
        {
            "train-teacher": dict(
                dataset="cifar10", architecture="wrn_10_2", epochs=12, hold_out=False, pad=4, flip=True, cutout=0,
            ),
            "distill": dict(
                dataset="cifar10", teacher="wrn_10_2", student="wrn_10_2", recipe="cifar", views=None,
                batch_size=128, epochs=60, steps_per_epoch=100, steps_per_execution=20, tau_squared=True,
                optimizer="adamw", learning_rate=3e-3, weight_decay=1e-4, schedule="cosine", warmup=0.1,
            ),
        },
    ),
    "fast-speech-commands": Preset(
        "Speech Commands from minutes of speech within an hour on one processor core, DS-CNN-L → DS-CNN-S (ours; "
        "chosen by agreement with the teacher on views of another part of the clip)",
        {
            "train-teacher": dict(
                dataset="speech_commands", architecture="dscnn_l", epochs=30, hold_out=False, batch_size=128,
            ),
            "distill": dict(
                dataset="speech_commands", teacher="dscnn_l", student="dscnn_s", recipe="audio", views=None,
                mixing="none", temperature=4.0, batch_size=32, epochs=100, steps_per_epoch=700, steps_per_execution=50,
                optimizer="adam", learning_rate=1e-2, schedule="cosine", warmup=0.1,
            ),
        },
    ),
    "paper-cifar10": _paper_cifar("cifar10", 0.9414),
    "paper-cifar100": _paper_cifar("cifar100", 0.7380),
    "paper-in1k": _paper_large("in1k", 0.662),
    "paper-in100": _paper_large("in100", 0.844, "; epochs and views assumed"),
    "paper-places365": _paper_large("places365", 0.503, "; epochs and views assumed"),
    "paper-flowers102": _paper_large("flowers102", 0.815, "; epochs and views assumed"),
    "paper-pets37": _paper_large("pets37", 0.768, "; epochs and views assumed"),
    "paper-stl10": _paper_large("stl10", 0.939, "; epochs and views assumed"),
    "paper-k400": _paper_video("k400", 0.518),
    "paper-ucf101": _paper_video("ucf101", 0.752),
    "paper-speech-commands": _paper_audio("speech_commands", 0.8419, 0.9515),
    "paper-musan": _paper_audio("musan", 0.9628, 0.9876),
    "paper-voxforge": _paper_audio("voxforge", 0.7847, 0.9113),
    "paper-librispeech": _paper_audio("librispeech100", 0.8412, 0.9989),
    **{
        name: Preset(
            one.about, {"sweep": dict(distill_preset=one.base, vary=one.vary, distill=one.distill)}, one.published
        )
        for name, one in ABLATIONS.items()
    },
}  # fmt: skip


def preset_options(name: str, command: str) -> Mapping[str, Any]:
    """The options a preset sets for a command.

    Raises:
        ConfigError: unknown preset, or one that says nothing about this command.
    """
    options = lookup(PRESETS, name, "preset").options
    if command == "views" and "distill" in options:  # to look at what the preset trains on
        known = {field.name for field in dataclasses.fields(ViewOptions)}
        return {key: value for key, value in options["distill"].items() if key in known}
    if command == "sweep" and "sweep" not in options and "distill" in options:  # to vary what the preset trains with
        return {"distill_preset": name}
    if command not in options:
        raise ConfigError(f"Preset {name!r} is for {', '.join(options)}, not for {command}.")
    return options[command]
