"""What the networks of both backends share: their names, their plans, which values make sense, whose weights fit."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bridge.errors import ConfigError, TeacherError
from bridge.names import hint
from bridge.teachers.front_end import RATE, FrontEnd, LogMel, Mfcc, kind_of_front_end

# He et al.'s own depths. Other 6 n + 2 would work too, but "resnet50" must not quietly be a CIFAR network.
RESNET_DEPTHS = (20, 32, 44, 56, 110)
VGG_FILTERS = (64, 128, 256, 512, 512)
VGG_CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
# He et al. 2016, table 1: blocks per stage. Only PyTorch has these; other backends run them as model.onnx.
IMAGENET_RESNET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
IMAGENET_CLASSES = 1000
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Of the networks for video that come from pytorchvideo, trained on Kinetics-400.
KINETICS_CLASSES = 400
VIDEO_MEAN, VIDEO_STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
# PyTorch counts the batches its BatchNorm has seen; nothing computed depends on it.
IGNORED = "num_batches_tracked"


@dataclass(frozen=True)
class X3dSize:
    """One of the networks called X3D: the clips it is made for, and how far it is expanded.

    Args:
        frames: Frames of a clip.
        image_size: Height and width of a frame in pixels.
        width: Factor of its channels.
        depth: Factor of its blocks.
        dropout: Share of the last features that is dropped in training.
    """

    frames: int
    image_size: int
    width: float = 2.0
    depth: float = 2.2
    dropout: float = 0.5


# As published (Feichtenhofer 2020 in pytorchvideo), and the paper's student. Only PyTorch has these.
X3D = {
    "x3d_xs": X3dSize(4, 160),
    "x3d_s": X3dSize(13, 160),
    "x3d_m": X3dSize(16, 224),
    "x3d_l": X3dSize(16, 312, depth=5.0),
    "x3d_xs_e": X3dSize(4, 160, width=5.0, depth=3.0, dropout=0.0),
}
# What pytorchvideo publishes: file -> top-1 on Kinetics-400, of 10 clips with 3 crops each per video (its model zoo).
X3D_SOURCE = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics"
X3D_PUBLISHED = {
    "x3d_xs": ("X3D_XS.pyth", 0.6912),
    "x3d_s": ("X3D_S.pyth", 0.7333),
    "x3d_m": ("X3D_M.pyth", 0.7594),
    "x3d_l": ("X3D_L.pyth", 0.7744),
}
X3D_ALIASES = {"x3d_s_e": "x3d_xs_e"}  # the reference code has both names for the one network


@dataclass(frozen=True)
class DscnnSize:
    """One of the keyword spotters called DS-CNN.

    Args:
        width: Channels of all its layers.
        blocks: Pairs of a depthwise and a pointwise convolution.
        strides: Of the first convolution, over frames and coefficients, and of the first depthwise one, over both.
    """

    width: int
    blocks: int
    strides: tuple[tuple[int, int], int]


# "Hello Edge" (Zhang et al. 2017); the strides are those of the code published with it. Only Keras has these.
DSCNN = {
    "dscnn_s": DscnnSize(64, 4, ((2, 2), 1)),
    "dscnn_m": DscnnSize(172, 4, ((2, 1), 2)),
    "dscnn_l": DscnnSize(276, 5, ((2, 1), 2)),
}
MEL_RESNETS = {"resnet20_mel": 20, "resnet56_mel": 56}
# About those of the log-mels of spoken words (Speech Commands: -6.0 and 4.4); ours.
MEL_MEAN, MEL_STD = (-6.0,), (4.5,)


@dataclass(frozen=True)
class Plan:
    """What one network was asked to be.

    Args:
        architecture: The name both backends know it by.
        classes: Number of logits.
        smallest: Side in pixels below which the network has nothing left to pool.
        image_size: Height and width of the images in pixels.
        mean: Mean per channel of RGB in [0, 1], subtracted inside the model.
        std: Standard deviation per channel of RGB in [0, 1].
        arguments: Further arguments of the architecture (``width``), recorded with it.
        frames: Frames of a clip, of networks for video; None: it is for images.
        front_end: What makes features of waveforms, of networks for audio, whose mean and std are one number each, of
            these features; None: it is for images or video.

    Raises:
        ConfigError: A value cannot work.
    """

    architecture: str
    classes: int
    smallest: int
    image_size: int = 32
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    std: Sequence[float] = (0.25, 0.25, 0.25)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    frames: int | None = None
    front_end: FrontEnd | None = None

    def __post_init__(self) -> None:
        whole_number("classes", self.classes, at_least=1)
        if self.frames is not None:
            whole_number("frames", self.frames, at_least=1)
        self._check_size()
        channels = 1 if self.front_end else 3
        for name, values in (("mean", self.mean), ("std", self.std)):
            try:
                fits = len(values) == channels and all(math.isfinite(value) for value in values)
            except TypeError:
                fits = False
            if not fits or (name == "std" and min(values) <= 0):
                positive = ", all greater than 0" if name == "std" else ""
                expected = "three finite numbers, for R, G and B in [0, 1]"
                if self.front_end:
                    expected = "one finite number in a list, of the features"
                raise ConfigError(f"{name}={values!r} must be {expected}{positive}.")

    def _check_size(self) -> None:
        if self.front_end:
            frames, features = self.front_end.frames, self.front_end.features
            if min(frames, features) < self.smallest:
                raise ConfigError(
                    f"{frames} frames of {features} features are too few for {self.architecture}, which needs at least "
                    f"{self.smallest} of each. Use longer waveforms, a shorter hop, or more bands."
                )
            return
        whole_number("image_size", self.image_size, at_least=1)
        if self.image_size < self.smallest:
            raise ConfigError(
                f"image_size={self.image_size} is too small for {self.architecture}: its poolings and "
                f"strides need at least {self.smallest} pixels. Use larger images or another architecture."
            )

    def described(self) -> dict[str, Any]:
        """Return ``{"architecture": name, "arguments": {...}}``, as a card records it and `build` takes it."""
        if self.front_end is None:
            made_for = {"image_size": operator.index(self.image_size)}
        else:
            described = self.front_end.described()
            made_for = {name: described.pop(name) for name in ("rate", "samples")} | {"front_end": described}
        arguments = {
            "classes": operator.index(self.classes),
            **made_for,
            **({} if self.frames is None else {"frames": operator.index(self.frames)}),
            "mean": [float(value) for value in self.mean],
            "std": [float(value) for value in self.std],
            **self.arguments,
        }
        return {"architecture": self.architecture, "arguments": arguments}


def size_of(arguments: Mapping[str, Any]) -> tuple[int, ...]:
    """What a network takes by the arguments it was built with.

    Returns:
        (height, width), (frames, height, width), or (samples,).
    """
    if "samples" in arguments:
        return (arguments["samples"],)
    side, frames = arguments["image_size"], arguments.get("frames")
    return (side, side) if frames is None else (frames, side, side)


def whole_number(name: str, value: Any, at_least: int) -> int:
    """Return ``value`` as an int.

    Raises:
        ConfigError: It is not a whole number of at least ``at_least``.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < at_least:
        raise ConfigError(f"{name}={value!r} must be a whole number of at least {at_least}.")
    return number


def wide(architecture: str) -> tuple[int, int] | None:
    """Depth and width of ``wrn_<depth>_<width>``; None for any other name."""
    found = re.fullmatch(r"wrn_(\d{1,4})_(\d{1,4})", str(architecture))
    return (int(found[1]), int(found[2])) if found else None


def wide_blocks(depth: int, width: int, reference: bool) -> int:
    """Return the blocks per stage of a wide ResNet.

    Raises:
        ConfigError: There is no such network.
    """
    width = whole_number("width", width, at_least=1)
    if whole_number("depth", depth, at_least=1) < 10 or (depth - 4) % 6:
        below = max(10, depth - (depth - 4) % 6)
        raise ConfigError(
            f"There is no wide ResNet of depth {depth}: depth must be 6 n + 4 with n of at least 1. "
            f"The nearest are wrn_{below}_{width} and wrn_{below + 6}_{width}."
        )
    if not isinstance(reference, bool):
        raise ConfigError(f"reference={reference!r} must be true or false.")
    return (depth - 4) // 6


def scaled_resnet(architecture: str) -> tuple[int, float] | None:
    """Depth and width of ``resnet50`` (18, 34, 50, 101) or ``resnet50x2``; None for any other name."""
    found = re.fullmatch(r"resnet(\d{1,3})(?:x(\d{1,2}(?:\.\d{1,4})?))?", str(architecture))
    if found is None or int(found[1]) not in IMAGENET_RESNET_BLOCKS:
        return None
    return int(found[1]), float(found[2] or 1)


def imagenet_resnet_channels(depth: int, width: float) -> int:
    """Return the channels of an ImageNet ResNet's first layer: 64 times its width; all others are multiples of them.

    Raises:
        ConfigError: They are no whole number, and so there is no such network.
    """
    number = isinstance(width, (int, float)) and not isinstance(width, bool) and math.isfinite(width)
    channels = 64 * width if number else 0
    if channels < 1 or channels != int(channels):
        raise ConfigError(
            f"There is no resnet{depth} of width {width!r}: its layers have 64, 128, … channels times the width, which "
            "must be whole numbers, as with 0.25, 0.5, 1.5 or 2."
        )
    return int(channels)


def is_x3d(architecture: str) -> bool:
    """Whether a name is that of an X3D."""
    return architecture in X3D or architecture in X3D_ALIASES


def is_audio(architecture: str) -> bool:
    """Whether a name is that of a network that takes waveforms."""
    return architecture in DSCNN or architecture in MEL_RESNETS


def front_end_for(
    architecture: str,
    rate: int = RATE,
    samples: int | None = None,
    front_end: Mapping[str, Any] | None = None,
) -> FrontEnd:
    """What comes before a network for audio.

    Args:
        architecture: Its name, which says what is usual: MFCC of a DS-CNN, log-mels of a residual network.
        rate: Samples per second.
        samples: Of a waveform; None: a second.
        front_end: ``{"kind": "log_mel", "bands": 40, …}``; what is left out is usual at that rate.

    Raises:
        ConfigError: There is no such front end.
    """
    rate = whole_number("rate", rate, at_least=1)
    samples = rate if samples is None else whole_number("samples", samples, at_least=1)
    usual = Mfcc if architecture in DSCNN else LogMel
    if front_end is not None and not isinstance(front_end, Mapping):
        raise ConfigError(f"front_end={front_end!r} must be a mapping, such as {{'kind': 'log_mel', 'bands': 40}}.")
    given = {"kind": usual.kind, **(front_end or {})}
    again = [name for name in ("rate", "samples") if name in given]
    if again:
        raise ConfigError(f"front_end: {again[0]} is an argument of the network. Give it there.")
    try:
        made = kind_of_front_end(given["kind"]).at(rate, samples, **given)
        made.bases()  # says so where no band hears anything
    except TeacherError as error:
        raise ConfigError(str(error)) from error
    return made


def check_x3d(name: str, width: float | None, depth: float | None, dropout: float | None) -> X3dSize:
    """Return what is asked of an X3D; None stands for what that name means.

    Raises:
        ConfigError: There is no such network.
    """
    if name not in X3D:
        raise ConfigError(f"There is no X3D {name!r}: choose one of {', '.join(X3D)}.{hint(name, X3D)}")
    given = {"width": width, "depth": depth, "dropout": dropout}
    for factor, value in given.items():
        if value is None:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not (0 <= value < 1 if factor == "dropout" else value > 0):
            expected = "at least 0 and below 1" if factor == "dropout" else "above 0"
            raise ConfigError(f"{factor}={value!r} must be a number {expected}.")
    return replace(X3D[name], **{factor: float(value) for factor, value in given.items() if value is not None})


def check_depth(what: str, depth: int, depths: Iterable[int]) -> None:
    """Refuse a depth that is not there.

    Raises:
        ConfigError: naming those that are.
    """
    if depth not in depths:
        raise ConfigError(f"There is no {what} of depth {depth}: choose one of {', '.join(map(str, depths))}.")


def check_arguments(architecture: str, arguments: Iterable[str], common: Iterable[str], own: Iterable[str]) -> None:
    """Refuse arguments an architecture does not take.

    Args:
        architecture: Its name.
        arguments: The names given beside the common ones.
        common: What every architecture takes.
        own: What this one takes besides.

    Raises:
        ConfigError: naming the nearest.
    """
    unknown = [name for name in arguments if name not in tuple(own)]
    if unknown:
        everything = (*common, *own)
        raise ConfigError(
            f"{architecture} takes {', '.join(everything)}, not {', '.join(unknown)}.{hint(unknown[0], everything)}"
            + (
                " A preset's width goes by --student-width None, of a teacher --width None."
                if "width" in unknown
                else ""
            )
        )


def own_arguments(architecture: str) -> tuple[str, ...]:
    """What an architecture takes besides classes, mean, std and, of images and clips, image_size."""
    if wide(architecture):
        return ("reference",)
    if is_x3d(architecture):
        return ("frames", "width", "depth", "dropout")
    if is_audio(architecture):
        return ("rate", "samples", "front_end")
    free = architecture == "small_cnn" or (scaled_resnet(architecture) is not None and "x" not in architecture)
    return ("width",) if free else ()


def unknown_network(architecture: str, known: Iterable[str], more: str = "") -> ConfigError:
    """The error for a name nobody knows, or only PyTorch does; with the nearest one."""
    known = list(known)
    if is_audio(architecture):
        return ConfigError(
            f"Unknown network {architecture!r} here: the networks for audio are Keras's only. Build and train it with "
            "keras_aip; as a folder with model.onnx (`python -m bridge convert --model FOLDER --to onnx`) it answers "
            f"here too. Known here: {', '.join(known)} and wrn_<depth>_<width>."
        )
    if scaled_resnet(architecture) or is_x3d(architecture):
        what = "networks for video" if is_x3d(architecture) else "ResNets for ImageNet"
        return ConfigError(
            f"Unknown network {architecture!r} here: the {what} are PyTorch's only. Build and train it "
            "with torch_aip; as a folder with model.onnx (`python -m bridge convert --model FOLDER --to onnx`) it "
            f"answers here too. Known here: {', '.join(known)} and wrn_<depth>_<width>."
        )
    return ConfigError(
        f"Unknown network {architecture!r}; known: {', '.join(known)} and wrn_<depth>_<width>{more}."
        f"{hint(architecture, known)}"
    )


def check_fit(
    name: str, parameters: int, expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse weights that are not those of a network.

    Args:
        name: Of the network.
        parameters: How many it has.
        expected: Name of each of its weights -> shape, as in a PyTorch state dict.
        given: The same of the weights that shall go there.

    Raises:
        TeacherError: Names are missing, unknown or have another shape; all are listed.
    """
    missing = [key for key in expected if key not in given]
    extra = [key for key in given if key not in expected]
    shapes = [
        f"{key} (given {given[key]}, expected {expected[key]})"
        for key in sorted(expected.keys() & given.keys())
        if given[key] != expected[key]
    ]
    problems = (("missing", missing), ("not in the model", extra), ("of another shape", shapes))
    if any(names for _, names in problems):
        listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems if names)
        raise TeacherError(
            f"These weights do not fit {name} with {parameters:,} parameters. {listed}. "
            "Check the architecture, its width and the number of classes."
        )
