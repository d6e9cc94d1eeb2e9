"""The options of every command as frozen dataclasses, the same for both backends.

Values come from the class's defaults, then `--preset`, then `--config FILE.yaml`, then the command line; the result is
written into the run folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from tyro.conf import Suppress

from bridge.datum.mixing import KINDS, Mixing
from bridge.datum.recipes import ImageRecipe
from bridge.datum.video_recipes import VideoRecipe
from bridge.errors import ConfigError, RecipeError
from bridge.names import hint

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "step", "cosine"]


@dataclass(frozen=True)
class Common:
    """What every command takes."""

    preset: str | None = None
    """Start from a named set of values (see the README)."""
    config: str | None = None
    """YAML file of values, applied after the preset."""
    smoke: bool = False
    """Shrink everything to well under a minute on a CPU, to see that it runs."""
    threads: int | None = None
    """CPU threads; None leaves it to the framework. The last bits of a result depend on it."""


@dataclass(frozen=True)
class ViewOptions:
    """Which views are made of the one image."""

    image: str | None = None
    """An image, a folder of images, "sklearn:china.jpg", "control:noise" or "control:constant"."""
    patches: bool = False
    """The image folder holds ready-made patches: only augment them."""
    frames: int | None = None
    """Frames of a fake clip of the image set in motion; None: those of the teacher, and where it takes images none."""
    motion: Literal["linear", "smooth", "none"] = "linear"
    """Of fake clips: a box straight to another; on a curve, turning (ours); or standing still, a control (ours)."""
    recipe: Literal["cifar", "steady", "imagenet", "video"] | None = None
    """How views are made; "steady" has neither jitter nor black; None: "video" for clips, below 96 pixels "cifar"."""
    image_size: int | None = None
    """Side of a view in pixels; None takes the teacher's (or 32, of clips 160)."""
    views: int | None = 50_000
    """Distinct base views or clips; None never shows the same one twice."""
    seed: int = 0
    """Seed of views, mixing and the student's first weights."""
    mixing: Literal["cutmix", "mixup", "both", "none", "reference_cutmix"] = "cutmix"
    """How views are mixed before the teacher sees them; reference_cutmix cuts clips wrongly, as the reference does."""
    mixing_alpha: float | None = None
    """λ ~ Beta(alpha, alpha); None: 0.25 with the cifar recipe, 1 with the imagenet and video ones (reference code)."""
    mixing_per: Literal["batch", "sample"] = "batch"
    """One box and λ for the whole batch (reference code), or for each sample (ours)."""


@dataclass(frozen=True)
class VideoOptions:
    """How real videos are read, where there are any."""

    clips: int | None = None
    """Clips per video, evenly spread, whose answers are averaged; None: 10 to test, else 1 (Asano & Saeed 2023)."""
    spatial: Literal[1, 3] = 1
    """Squares cut from each clip: the middle one, or three along the longer side, averaged too."""
    stride: float = 12.0
    """Of the frames of a clip; in frames of the usual rate of the data set (Asano & Saeed 2023)."""
    fold: Literal[1, 2, 3] = 1
    """Which of the official splits of UCF101."""


def refuse_video_options(config: Any, taker: str) -> None:
    """Raises: ConfigError: an option of clips is given where there are only images.

    Args:
        config: of a command with some of the options of video.
        taker: what takes images, for the message.
    """
    fields = {
        field.name: field.default for field in (*dataclasses.fields(VideoOptions), *dataclasses.fields(ViewOptions))
    }
    for name in ("frames", "motion", "clips", "spatial", "stride", "fold"):
        if (value := getattr(config, name, fields[name])) != fields[name]:
            raise ConfigError(f"--{name} {value} is of clips, and {taker} takes images; leave it out.")


@dataclass(frozen=True)
class DistillConfig(VideoOptions, ViewOptions, Common):
    """Distil a teacher into a student from one image."""

    dataset: str = "digits"
    """What both are measured on afterwards: digits, cifar10, cifar100, a folder with a folder per class, or an .npz."""
    data_dir: str | None = None
    """Folder with data sets; None: $AIP_DATA, or ./data."""
    testdir: str | None = None
    """The evaluation set itself, where it is not in the folder with data sets: a folder with a folder per class."""
    split: Literal["test", "validation"] = "test"
    """Of a data set that has splits. Choose recipes on "validation", report "test"."""
    teacher: str | None = None
    """A teacher folder, or its name under $AIP_TEACHERS (default: ./teachers)."""
    student: str = "wrn_16_4"
    """The student's architecture, such as wrn_16_4, resnet20, vgg11, small_cnn or (PyTorch) resnet50."""
    student_width: int | float | None = None
    """Width of small_cnn, resnet18, …, or (PyTorch) of X3D; None takes its default."""
    student_depth: float | None = None
    """Depth of X3D (PyTorch); None takes its default."""
    out: str = "runs/distill"
    """The run folder."""
    resume: bool = False
    """Continue the run in that folder from its last saved state."""
    temperature: float = 8.0
    """τ; the paper uses 8 for images, 5 for video."""
    loss: str = "kl"
    """kl, soft_cross_entropy, logit_mse, l1, jensen_shannon, argmax, dist or dkd."""
    tau_squared: bool = False
    """Multiply the loss by τ²."""
    batch_size: int = 512
    """Views per step over all devices."""
    epochs: int = 1000
    """Passes; a state is saved after each."""
    steps_per_epoch: int | None = None
    """Steps per epoch; None: as many as the views fill."""
    optimizer: Optimizer = "adam"
    """adam, adamw or sgd (with Nesterov momentum 0.9)."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 0.0
    """Decoupled weight decay of adamw."""
    schedule: Schedule = "constant"
    """constant; step: halved at half and again at three quarters of the run (reference code); or cosine to zero."""
    warmup: float = 0.0
    """Share of all steps over which the rate rises linearly from zero (cosine only)."""
    l2: float = 0.0
    """L2 penalty on the student's kernels, added to the loss."""
    clip_norm: float | None = None
    """Largest norm of a step's gradient over all weights; longer ones are shortened to it."""
    ema: float | None = None
    """Decay of a moving average of the student's weights, such as 0.999, which is then what is delivered (PyTorch)."""
    accumulate: int = 1
    """Parts in which a step's batch goes through, one after the other, where it does not fit in memory (PyTorch)."""
    student_dtype: Literal["float32", "mixed_bfloat16"] = "float32"
    """mixed_bfloat16 computes in bfloat16 and keeps weights in float32."""
    teacher_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the frozen teacher."""
    render: Literal["auto", "host", "device"] = "auto"
    """Where views are drawn; auto: on a GPU or TPU where there is one."""
    workers: int | None = None
    """Processes that draw views on the host; 0: a thread; None: by what there is (PyTorch)."""
    store_teacher: str | None = None
    """Folder for the teacher's answers: it answers the first epoch's views once; later epochs, students reuse them."""
    strategy: Literal["one_device", "mirrored", "multi_worker", "tpu", "auto"] = "auto"
    """Over which devices: one, all GPUs, the hosts of $TF_CONFIG, a TPU, or what is there. PyTorch: by torchrun."""
    steps_per_execution: int = 1
    """Steps per call into TensorFlow."""
    jit_compile: bool = False
    """Compile the training step: XLA (slower on a CPU), or torch.compile."""
    deterministic: bool = False
    """Bit-identical reruns on the same machine and threads."""


@dataclass(frozen=True)
class TrainTeacherConfig(VideoOptions, Common):
    """Train a teacher on labelled images or (PyTorch) videos, the ordinary way."""

    dataset: str = "digits"
    """digits, cifar10, cifar100, an .npz with x_train, or a folder with train/ and test/, each with class folders; for
    networks that take clips ucf101, k400, or such a folder of videos."""
    data_dir: str | None = None
    """Folder with data sets; None: $AIP_DATA, or ./data."""
    architecture: str = "small_cnn"
    """Such as small_cnn, wrn_40_4, resnet56, vgg16 or (PyTorch) resnet18, x3d_xs; with --init that of its network."""
    init: str | None = None
    """Start from these weights: a teacher folder, or torchvision/NAME, timm/NAME (PyTorch). They keep their
    normalisation; for other classes the last layer begins anew. It wants a lower --learning-rate, such as 1e-4."""
    width: int | float | None = None
    """Width of small_cnn, or factor of the channels of an X3D (2 of x3d_xs); None takes its default."""
    depth: float | None = None
    """Factor of the blocks of an X3D (2.2 of x3d_xs); None takes its default."""
    hold_out: bool = True
    """Keep the validation split out of training and measure on it; off: learn from it too and measure on the test."""
    out: str | None = None
    """The teacher folder to write; None: DATASET_ARCHITECTURE in $AIP_TEACHERS (or ./teachers), where it is found."""
    image_size: int | None = None
    """Side of the images in pixels; None: that of --init, 224 for ImageNet's networks, else 32; of clips the
    network's own."""
    frames: int | None = None
    """Frames of a clip, of networks for video; None: that of --init, or the network's own."""
    epochs: int = 30
    """Passes over the training images or videos, of each of which a random clip is seen."""
    steps_per_epoch: int | None = None
    """Steps per epoch; None: as many as they fill."""
    batch_size: int = 128
    """Images or clips per step."""
    learning_rate: float = 3e-3
    """Peak rate of AdamW, with a 10 % warm-up, then cosine to zero (ours)."""
    weight_decay: float = 1e-2
    """Decoupled weight decay."""
    l2: float = 0.0
    """L2 penalty on kernels, added to the loss."""
    normalise: Literal["dataset", "half"] = "dataset"
    """By the data set's mean and deviation, or by one half each (ours: keeps photographs in range of dark digits)."""
    pad: int = 4
    """Random crops after so many pixels of border (reference code); not of large pictures and videos."""
    flip: bool = True
    """Random horizontal flips (reference code); wrong for digits, and where left and right are classes."""
    cutout: int = 16
    """Side of a blackened square (reference code), not of large pictures and videos; 0: none."""
    seed: int = 0
    """Seed of weights and augmentation."""


@dataclass(frozen=True)
class EvaluateConfig(VideoOptions, Common):
    """Measure a trained network, against labels or against its teacher alone."""

    model: str | None = None
    """The folder of the network to measure (a run folder's student/, or a teacher folder)."""
    dataset: str = "digits"
    """digits, cifar10, cifar100, a folder with a folder per class, a flat folder of unlabelled images, or an .npz; for
    networks that take clips k400, ucf101, such a folder of videos, or their official lists."""
    data_dir: str | None = None
    """Folder with data sets; None: $AIP_DATA, or ./data."""
    testdir: str | None = None
    """The set itself, where it is not in the folder with data sets: a folder with a folder per class."""
    split: Literal["train", "validation", "test"] = "test"
    """Of a data set that has splits."""
    teacher: str | None = None
    """Teacher folder to compare with: agreement and KL."""
    batch_size: int = 256
    """Images or clips per forward pass; of large clips fewer."""
    out: str | None = None
    """JSON file to write the result to."""


@dataclass(frozen=True)
class ViewsConfig(ViewOptions, Common):
    """Look at the views or fake clips of one image, or write them to disk."""

    out: str = "runs/views"
    """Folder for the picture and, with --count, the views."""
    grid: int = 8
    """The picture shows grid × grid views of each kind, or so many clips, one below the other."""
    count: int = 0
    """How many views or clips to write as files; 0 writes only the picture."""
    layout: Literal["folder", "tar"] = "folder"
    """Folders of 1,000 files, or tar shards."""
    image_format: Literal["png", "jpg", "mp4"] | None = None
    """File type: png or jpg of views, mp4 of clips; None: png or mp4."""
    rate: float = 12.0
    """Frames per second of written clips; the reference shows 8 frames in 2/3 s."""
    kind: Literal["base", "augmented"] = "base"
    """Write base views, to be augmented in training (as the reference stores them), or augmented ones."""


@dataclass(frozen=True)
class SweepConfig(Common):
    """Distil over a grid of options, and write a table and a picture of what came out."""

    vary: tuple[str, ...] = ()
    """What to vary: OPTION=VALUE,VALUE,… for one or more options of `distill`, such as temperature=1,2,4,8."""
    set: tuple[str, ...] = ()
    """OPTION=VALUE for options of `distill` that are the same in all runs, such as epochs=3."""
    distill: Suppress[Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """What `set` is on the command line, for presets and --config files."""
    distill_preset: str | None = None
    """The preset all runs start from."""
    image: str | None = None
    """The image of all runs, as for `distill`."""
    teacher: str | None = None
    """The teacher of all runs, as for `distill`."""
    seeds: int = 3
    """Runs per combination, each with a seed of its own (from 0 on, or from --set seed=…)."""
    out: str = "runs/sweep"
    """Folder of the runs, the table (table.md, sweep.csv) and the picture (sweep.png)."""
    resume: bool = False
    """Go on with the sweep in that folder: finished runs stay, failed ones are tried again."""

    def __post_init__(self) -> None:
        # YAML and presets say {option: [values]}; JSON keeps commas inside a value.
        if isinstance(self.vary, Mapping):
            lists = {key: value if isinstance(value, list | tuple) else [value] for key, value in self.vary.items()}
            texts = [f"{key}={json.dumps(list(values), ensure_ascii=False)}" for key, values in lists.items()]
            object.__setattr__(self, "vary", tuple(texts))
        for name in ("vary", "set"):
            value = getattr(self, name)
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                object.__setattr__(self, name, tuple(value))


@dataclass(frozen=True)
class ImportReferenceConfig(Common):
    """Make a teacher folder out of the reference code's own TensorFlow checkpoint of a wide ResNet."""

    checkpoint: str | None = None
    """What its files begin with, such as cifar_wrn_40_4.tf (there are …tf.index and …tf.data-00000-of-00001)."""
    dataset: str = "cifar10"
    """The data set it was trained on: cifar10 or cifar100."""
    out: str | None = None
    """The teacher folder to write; None: DATASET_ARCHITECTURE in $AIP_TEACHERS (or ./teachers), where it is found."""


@dataclass(frozen=True)
class DemoConfig(Common):
    """Train a teacher on handwritten digits, distil it from one photograph, and measure what the student learned."""

    image: str = "sklearn:china.jpg"
    """The one image to learn from."""
    out: str = "runs/demo"
    """Where everything is written."""
    seed: int = 0
    """Seed of the student and its views."""


Config = TypeVar("Config")


def updated(config: Config, values: Mapping[str, Any], origin: str) -> Config:
    """Replace fields of a config, converting plain YAML values.

    Raises:
        ConfigError: an unknown key, naming the nearest known one.
    """
    known = {field.name: field.type for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    clean = {str(key).replace("-", "_"): value for key, value in values.items()}
    for key in clean:
        if key not in known:
            raise ConfigError(
                f"{origin} has an unknown key {key!r}; known: {', '.join(sorted(known))}.{hint(key, known)}"
            )
        if isinstance(value := clean[key], str) and "float" in str(known[key]):  # YAML reads 1e-3 as text
            with contextlib.suppress(ValueError):
                clean[key] = float(value)
        if isinstance(value, Mapping) and isinstance(before := getattr(config, key), Mapping):
            clean[key] = {**before, **value}
    return dataclasses.replace(config, **clean)  # type: ignore[type-var]


def mixing_of(options: ViewOptions, recipe: ImageRecipe | VideoRecipe) -> Mixing:
    """The mixing the options ask for, with the reference's λ for the recipe where none is given.

    Raises:
        RecipeError: a mixing of clips for a recipe of images.
    """
    alpha, of_clips = options.mixing_alpha, isinstance(recipe, VideoRecipe)
    if alpha is None:
        by_area = of_clips or (recipe.augmentation is not None and recipe.augmentation.area is not None)
        alpha = 1.0 if by_area else 0.25
    mixing = Mixing(options.mixing, alpha, options.mixing_per)
    if mixing.kind not in KINDS and not of_clips:
        raise RecipeError(f"--mixing {mixing.kind} cuts frames, and images have none; use one of {', '.join(KINDS)}.")
    return mixing


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file of options as a dictionary.

    Raises:
        ConfigError: the file is missing, unreadable or no mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {path}: {error.strerror or error}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold 'option: value' lines; it holds {type(values).__name__}.")
    return values


def check(config: Any, whole: bool = True) -> None:
    """Refuse numbers that cannot work, before anything is loaded.

    Args:
        config: of any command.
        whole: all options are there; else those that depend on each other are not compared yet.

    Raises:
        ConfigError: naming the option, its value and what is allowed.
    """
    positive = ("batch_size", "epochs", "steps_per_epoch", "views", "image_size", "temperature", "learning_rate")
    positive += ("steps_per_execution", "threads", "grid", "mixing_alpha", "student_width", "width", "seeds")
    positive += ("clip_norm", "accumulate", "frames", "clips", "stride", "rate", "depth", "student_depth")
    not_negative = ("weight_decay", "l2", "seed", "count", "cutout", "pad", "workers")
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        flag = "--" + field.name.replace("_", "-")
        annotation = _ALIASES.get(str(field.type), str(field.type))
        if not _is_of(value, annotation):
            raise ConfigError(f"{flag} (={value!r}) must be {annotation.replace('typing.', '')}.")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if not math.isfinite(value) or (field.name in positive and value <= 0):
                raise ConfigError(f"{flag} (={value}) must be a positive number.")
            if field.name in not_negative and value < 0:
                raise ConfigError(f"{flag} (={value}) must not be negative.")
            if field.name == "seed" and value >= 2**64:
                raise ConfigError(f"--seed (={value}) must be below 2**64.")
            if field.name == "warmup" and not 0 <= value < 1:
                raise ConfigError(f"--warmup (={value}) is a share of all steps and must be in [0, 1).")
            if field.name == "ema" and not 0 < value < 1:
                raise ConfigError(f"--ema (={value}) is a decay per step and must lie between 0 and 1, such as 0.999.")
    if whole and isinstance(config, DistillConfig):
        _check_steps(config)
    if getattr(config, "warmup", 0) and getattr(config, "schedule", "") != "cosine":
        raise ConfigError(f"--warmup (={config.warmup}) needs --schedule cosine.")
    if hasattr(config, "optimizer") and config.weight_decay and config.optimizer != "adamw":
        raise ConfigError(f"--weight-decay (={config.weight_decay}) needs --optimizer adamw.")


def _check_steps(config: DistillConfig) -> None:
    if config.steps_per_epoch is None and config.views is None and not config.patches:
        raise ConfigError("Endless views (--views None) need --steps-per-epoch.")
    if config.steps_per_epoch is None and (config.patches or config.views is None):
        return  # as many as there are patches
    steps = config.steps_per_epoch or -(-(config.views or 0) // config.batch_size)
    if steps % config.steps_per_execution and not config.smoke:
        raise ConfigError(
            f"--steps-per-epoch (={steps}{'' if config.steps_per_epoch else ', as many as the views fill'}) must be a "
            f"multiple of --steps-per-execution (={config.steps_per_execution})."
        )


def _is_of(value: Any, annotation: str) -> bool:
    """Whether a value fits an annotation such as "int | None" or "Literal['a', 'b']"; YAML brings anything."""
    if value is None:
        return "None" in annotation
    if "Literal" in annotation:
        return re.search(rf"[\[ ]{re.escape(repr(value))}[,\]]", annotation.replace('"', "'")) is not None
    if isinstance(value, bool):
        return "bool" in annotation
    if isinstance(value, int):
        return "int" in annotation or "float" in annotation
    if isinstance(value, float):
        return "float" in annotation
    if isinstance(value, tuple | Mapping):
        return ("tuple" if isinstance(value, tuple) else "Mapping") in annotation
    return isinstance(value, str) and "str" in annotation


_ALIASES = {"Optimizer": str(Optimizer), "Schedule": str(Schedule)}
