"""The options of every command as frozen dataclasses, the same for both backends.

Values come from the class's defaults, then `--preset`, then `--config FILE.yaml`, then the command line; the result is
written into the run folder.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tyro.conf import Suppress

from bridge.errors import ConfigError

_OF_SOUNDS = ("audio", "spec_augment", "sample_rate", "seconds", "front_end", "shift", "noisy")
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
    audio: str | None = None
    """For teachers that take sounds: a sound file (wav, flac, ogg, mp3), "control:noise" or "control:constant"."""
    patches: bool = False
    """The image folder holds ready-made patches: only augment them."""
    frames: int | None = None
    """Frames of a fake clip of the image set in motion; None: those of the teacher, and where it takes images none."""
    motion: Literal["linear", "smooth", "none"] = "linear"
    """Of fake clips: a box straight to another; on a curve, turning (ours); or standing still, a control (ours)."""
    recipe: Literal["cifar", "steady", "imagenet", "video", "audio", "crop"] | None = None
    """How views are made; "steady" has neither jitter nor black; None: "video" for clips, below 96 pixels "cifar"; of
    sounds "audio", or "crop": nothing but pieces of the clip."""
    without: str | None = None
    """Augmentations of the recipe to leave out, such as jitter or rotation+shear, or all; a wrong name lists them."""
    image_size: int | None = None
    """Side of a view in pixels; None takes the teacher's (or 32, of clips 160)."""
    views: int | None = 50_000
    """Distinct base views or clips; None never shows the same one twice."""
    seed: int = 0
    """Seed of views, mixing and the student's first weights."""
    mixing: Literal["cutmix", "mixup", "both", "none", "reference_cutmix"] = "cutmix"
    """How views are mixed before the teacher sees them; reference_cutmix cuts clips wrongly, as the reference does."""
    mixing_alpha: float | None = None
    """λ ~ Beta(alpha, alpha); None: 0.25 with the cifar recipe, 1 with the imagenet and video ones (reference code),
    and with sounds (ours)."""
    mixing_per: Literal["batch", "sample"] = "batch"
    """One box and λ for the whole batch (reference code), or for each sample (ours)."""
    mixing_on: Literal["input", "spectrogram"] = "input"
    """Of sounds: mixes waveforms, or spectrograms, where teacher and student share a front end."""


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


def refuse_video_options(config: Any, taker: str, what: str = "images") -> None:
    """Raises: ConfigError: an option of clips is given where there are only images or sounds.

    Args:
        config: of a command with some of the options of video.
        taker: what takes them, for the message.
        what: it takes.
    """
    fields = {
        field.name: field.default for field in (*dataclasses.fields(VideoOptions), *dataclasses.fields(ViewOptions))
    }
    for name in ("frames", "motion", "clips", "spatial", "stride", "fold"):
        if (value := getattr(config, name, fields[name])) != fields[name]:
            raise ConfigError(f"--{name} {value} is of clips, and {taker} takes {what}; leave it out.")


def refuse_sound_options(config: Any, taker: str) -> None:
    """Raises: ConfigError: an option of sounds is given where there are only images or clips; as above."""
    refuse_options(config, _OF_SOUNDS, "sounds", f"{taker} takes none")


def refuse_options(config: Any, names: Sequence[str], what: str, why: str) -> None:
    """Raises: ConfigError: one of these options has another value than its default.

    Args:
        config: of a command with some of them.
        names: of options.
        what: they are of.
        why: they do not go here.
    """
    for field in dataclasses.fields(config):
        if field.name in names and (value := getattr(config, field.name)) != field.default:
            flag = field.name.replace("_", "-")
            given = f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag} {value}"
            raise ConfigError(f"{given} is of {what}, and {why}; leave it out.")


@dataclass(frozen=True)
class DistillConfig(VideoOptions, ViewOptions, Common):
    """Distil a teacher into a student from one image, or from one sound."""

    dataset: str = "digits"
    """What both are measured on afterwards: digits, cifar10, cifar100, speech_commands (in place of digits where the
    teacher takes sounds), a folder with a folder per class, or an .npz."""
    data_dir: str | None = None
    """Folder with data sets; None: $AIP_DATA, or ./data."""
    testdir: str | None = None
    """The evaluation set itself, where it is not in the folder with data sets: a folder with a folder per class."""
    split: Literal["test", "validation"] = "test"
    """Of a data set that has splits. Choose recipes on "validation", report "test"."""
    teacher: str | None = None
    """A teacher folder, or its name under $AIP_TEACHERS (default: ./teachers)."""
    student: str = "wrn_16_4"
    """The student's architecture, such as wrn_16_4, resnet20, vgg11, small_cnn, (PyTorch) resnet50 or (Keras, of
    sounds) dscnn_s."""
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
    spec_augment: int = 0
    """Of sounds: masks of time and as many of frequency in each spectrogram (Park et al. 2019), which the teacher is
    shown too; where teacher and student share a front end."""
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
    query_budget: int | None = None
    """Of a teacher behind an address: images it may be asked about in all, over all runs with that --store-teacher."""
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
    """Train a teacher on labelled images, (Keras) sounds or (PyTorch) videos, the ordinary way."""

    dataset: str = "digits"
    """digits, cifar10, cifar100, an .npz with x_train, or a folder with train/ and test/, each with class folders; for
    networks that take clips ucf101, k400, or such a folder of videos; for sounds speech_commands, or such a folder."""
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
    sample_rate: int = 16_000
    """Of sounds: samples per second; files at another rate are resampled."""
    seconds: float = 1.0
    """Of sounds: length; longer files are cut into pieces, shorter ones get silence behind them."""
    front_end: str | None = None
    """Of networks for sounds: mfcc or log_mel, with settings as log_mel:bands=40,hop=160; None: the network's own."""
    shift: float = 0.1
    """Of sounds: by how many seconds at most they are shifted either way (TensorFlow's example)."""
    noisy: float = 0.8
    """Of sounds: to which share of them background noise is added (TensorFlow's example)."""
    spec_augment: int = 1
    """Of sounds: masks of time and as many of frequency in each spectrogram (Park et al. 2019; the number is ours)."""
    epochs: int = 30
    """Passes over the training images, sounds or videos, of each of which a random clip is seen."""
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
    networks that take clips k400, ucf101, such a folder of videos, or their official lists; for sounds speech_commands,
    or such a folder of sounds."""
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
    """Look at the views or fake clips of one image, or at those of one sound, or write them to disk."""

    out: str = "runs/views"
    """Folder for the picture and, with --count, the views."""
    grid: int = 8
    """The picture shows grid × grid views of each kind, or so many clips, one below the other."""
    count: int = 0
    """How many views or clips to write as files; 0 writes only the picture."""
    layout: Literal["folder", "tar"] = "folder"
    """Folders of 1,000 files, or tar shards."""
    image_format: Literal["png", "jpg", "mp4", "wav"] | None = None
    """File type: png or jpg of views, mp4 of clips, wav of sounds; None: by what they are."""
    sample_rate: int = 16_000
    """Of sounds: samples per second."""
    seconds: float = 1.0
    """Of sounds: length of a view."""
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
    audio: str | None = None
    """The sound of all runs, as for `distill`."""
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


@dataclass(frozen=True)
class DemoAudioConfig(Common):
    """Train a teacher on sounds made by formula, distil it from babble, and measure what the student learned."""

    audio: str | None = None
    """The one clip to learn from: a sound file, or "control:noise"; None: half a minute of babble, made by formula."""
    out: str = "runs/demo-audio"
    """Where everything is written."""
    seed: int = 0
    """Seed of the student and its views."""
