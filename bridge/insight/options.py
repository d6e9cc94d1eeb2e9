"""The options of looking into networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bridge.config import Common, VideoOptions


@dataclass(frozen=True)
class VisualizeConfig(Common):
    """Draw what classes or channels of a network like best, teacher beside student, and what both look at."""

    model: str | None = None
    """The network: its folder, or its name under $AIP_TEACHERS."""
    student: str | None = None
    """The folder of a second one, drawn beside it."""
    units: str | None = None
    """Classes by number or name: 388, or 0,3,7, or cat,dog; None: all, where there are at most 20 and no --channels."""
    channels: str | None = None
    """Hidden channels: LAYER:INDEX, or several with commas between, such as layer2.0.conv1:3,layer3.0.conv1:5."""
    dataset: str | None = None
    """Whose names the classes have, where the network does not say: cifar10, in1k, …"""
    steps: int = 256
    """Of gradient ascent."""
    learning_rate: float = 0.05
    """Of Adam, on the parametrised picture (Olah et al. 2017)."""
    image_size: int | None = None
    """Side of the picture in pixels; None: as the network takes it, into which another size is resized."""
    jitter: float = 0.06
    """The network sees the picture moved by up to this share of its side, anew in each step; of spectrograms in time
    (ours)."""
    scaling: float = 0.1
    """And smaller or larger by up to this share (ours)."""
    decay: float = 1.0
    """How a picture's frequencies are weighted: by 1 / frequency to this power; higher is smoother."""
    seed: int = 0
    """Of the noise that a picture begins as, and of its moves."""
    images: tuple[str, ...] = ()
    """Pictures or a folder of them: where both networks look for the teacher's answer is drawn too (Grad-CAM)."""
    out: str = "runs/visualize"
    """Folder for neurons.png, maps.png and visualize.json."""

    def __post_init__(self) -> None:
        # YAML says [0, 3, 7], or 388
        if isinstance(self.images, list | str):
            object.__setattr__(self, "images", (self.images,) if isinstance(self.images, str) else tuple(self.images))
        for name in ("units", "channels"):
            value = getattr(self, name)
            if isinstance(value, list | tuple | int) and not isinstance(value, bool):
                words = [value] if isinstance(value, int) else value
                object.__setattr__(self, name, ",".join(map(str, words)))


@dataclass(frozen=True)
class ScoreConfig(Common):
    """Rank images, or sounds, as sources to distil a teacher from: in minutes, without training and without labels."""

    teacher: str | None = None
    """A teacher folder, or its name under $AIP_TEACHERS (default: ./teachers)."""
    images: tuple[str, ...] = ()
    """The sources: image files, "sklearn:china.jpg", "control:noise", or folders, each of them one source."""
    audio: tuple[str, ...] = ()
    """Of a teacher that takes sounds: sound files, "control:noise" or "control:constant"."""
    dataset: str | None = None
    """The data set the teacher is wanted for, where its name alone does not tell: cifar10, in1k, …"""
    recipe: Literal["cifar", "steady", "imagenet", "video", "audio", "crop"] | None = None
    """How views are made, as for `distill`; they are scored unmixed."""
    without: str | None = None
    """Augmentations left out, as for `distill`."""
    image_size: int | None = None
    """Side of a view in pixels; None takes the teacher's."""
    views: int = 2048
    """Of each source."""
    batch_size: int = 256
    """Views per forward pass; of large clips fewer."""
    seed: int = 0
    """Of the views."""
    out: str = "runs/score"
    """Folder for the picture, score.png, and the figures, score.json."""

    def __post_init__(self) -> None:
        for name in ("images", "audio"):  # YAML says [a.jpg, b.jpg], or a.jpg
            if isinstance(value := getattr(self, name), list | str):
                object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))


@dataclass(frozen=True)
class InspectConfig(Common):
    """Look a teacher over before hours are spent on it: its outputs, normalisation, soft labels. Takes seconds."""

    teacher: str | None = None
    """A teacher folder, or its name under $AIP_TEACHERS (default: ./teachers)."""
    image: str | None = None
    """What it is asked about: views of this image; None: of "sklearn:china.jpg"."""
    audio: str | None = None
    """Of a teacher that takes sounds; None: "control:noise"."""
    dataset: str | None = None
    """The data set the teacher is wanted for, where its name alone does not tell: cifar10, in1k, …"""
    recipe: Literal["cifar", "steady", "imagenet", "video", "audio", "crop"] | None = None
    """How views are made, as for `distill`."""
    without: str | None = None
    """Augmentations left out, as for `distill`."""
    image_size: int | None = None
    """Side of a view in pixels; None takes the teacher's."""
    views: int = 256
    """How many it is asked about."""
    seed: int = 0
    """Of the views."""


@dataclass(frozen=True)
class FidelityConfig(VideoOptions, Common):
    """Hold a student against its teacher on any files: agreement, KL, calibration, and where the two part."""

    model: str | None = None
    """The student: its folder, such as runs/distill/student."""
    teacher: str | None = None
    """Its teacher: a folder, or a name under $AIP_TEACHERS."""
    dataset: str | None = None
    """What both are asked about: a folder of images, videos or sounds without labels, or with a folder per class; an
    .npz, a list of videos, or a data set by name, such as cifar10."""
    data_dir: str | None = None
    """Folder with data sets; None: $AIP_DATA, or ./data."""
    split: Literal["train", "validation", "test"] = "test"
    """Of a data set that has splits."""
    count: int | None = None
    """Ask about at most so many samples, evenly spaced; None: all."""
    examples: int = 24
    """How many of the samples on which they part most are shown; 0: none."""
    batch_size: int = 256
    """Images, clips or sounds per forward pass; of large clips fewer."""
    out: str = "runs/fidelity"
    """Folder for fidelity.html and fidelity.json."""
