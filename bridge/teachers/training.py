"""What `train-teacher` does without a framework: where it writes, what it learns from, and what it begins with."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bridge import audio_sets
from bridge.audio_facts import AUDIO_FACTS
from bridge.clips import LabelledVideos, joined_videos, sampling_of
from bridge.config import TrainTeacherConfig, refuse_options, refuse_sound_options, refuse_video_options
from bridge.datasets import FACTS, Labelled, joined, splits_of, thinned
from bridge.errors import ConfigError, DatasetError, TeacherError
from bridge.facts import VIDEO_FACTS
from bridge.measuring import takes_clips, takes_sounds
from bridge.networks import VIDEO_MEAN, VIDEO_STD, X3D_PUBLISHED, is_audio, is_x3d, scaled_resnet
from bridge.pictures import LARGE
from bridge.sounds import LabelledSounds, joined_sounds
from bridge.teachers.shelf import folder_for
from bridge.teachers.sources import front_end_said

IMAGE_SIZE, IMAGENET_IMAGE_SIZE = 32, 224
AnyData = Labelled | LabelledVideos | LabelledSounds
_OF_IMAGES = ("image_size", "width", "depth", "normalise", "pad", "flip", "cutout")


@dataclass(frozen=True)
class Start:
    """The network a training begins with.

    Attributes:
        architecture: as the backend's `models.build` takes it.
        arguments: what it is built with besides classes and sizes; of a network with weights also mean and std.
        image_size: side of its images or frames in pixels; 0 of a network for sounds.
        frames: of its clips; None: it takes images, or sounds.
        weights: by name, as the backend's `models.state_dict` gives them; None: random ones.
        classes: that these weights tell apart.
        rate: samples per second of its sounds; None: it takes images or clips.
        samples: of a sound.
    """

    architecture: str
    arguments: Mapping[str, Any]
    image_size: int
    frames: int | None = None
    weights: Mapping[str, np.ndarray] | None = None
    classes: int | None = None
    rate: int | None = None
    samples: int | None = None

    @property
    def input_size(self) -> tuple[int, ...]:
        """(height, width), (frames, height, width) of a network for video, or (samples,) of one for sounds."""
        if self.samples is not None:
            return (self.samples,)
        side = self.image_size, self.image_size
        return side if self.frames is None else (self.frames, *side)

    @property
    def made_for(self) -> dict[str, int]:
        """What the backend's `models.build` is told of sizes."""
        if self.rate is not None and self.samples is not None:
            return {"rate": self.rate, "samples": self.samples}
        return {"image_size": self.image_size} | ({} if self.frames is None else {"frames": self.frames})


def start_of(config: TrainTeacherConfig, models: Any, load_model: Callable[..., tuple[Any, Any]]) -> Start:
    """What the options say a training begins with.

    Args:
        config: resolved options.
        models: the backend's networks.
        load_model: the backend's way to a network with weights.

    Raises:
        AipError: `--init` names no network to train on, or other options contradict it.
    """
    if config.init is None and is_audio(config.architecture):
        return _start_for_sounds(config, models)
    if config.init is None:
        refuse_sound_options(config, config.architecture)
        given = {"width": config.width, "depth": config.depth}
        arguments = {name: value for name, value in given.items() if value is not None}
        # Keras has no networks for video, and says so when it is asked for one.
        if getattr(models, "is_video", is_x3d)(config.architecture):
            sizes = {name: value for name in ("image_size", "frames") if (value := getattr(config, name)) is not None}
            made = models.build(config.architecture, classes=2, **sizes, **arguments)
            frames, side, _ = models.input_size_of(made)
            return Start(config.architecture, arguments, side, frames)
        refuse_video_options(config, config.architecture)
        for_imagenet = scaled_resnet(config.architecture) or "/" in config.architecture
        usual = IMAGENET_IMAGE_SIZE if for_imagenet else IMAGE_SIZE
        return Start(config.architecture, arguments, config.image_size or usual)
    # of a bare name what is published is meant, whatever it is trained on now
    model = load_model(config.init, dataset="k400" if config.init in X3D_PUBLISHED else config.dataset)[0]
    described = models.architecture_of(model)
    if described is None:
        raise TeacherError(
            f"--init {config.init} says nothing of its architecture, so its last layer cannot be made anew. Give a "
            "folder with weights.safetensors of a known architecture."
        )
    name, arguments = described["architecture"], dict(described["arguments"])
    given = {"width": config.width, "depth": config.depth}
    other = any(value is not None and value != arguments.get(option) for option, value in given.items())
    if config.architecture not in (TrainTeacherConfig.architecture, name) or other:
        raise ConfigError(f"--init {config.init} is a {name}; leave out --architecture, --width and --depth.")
    weights, classes = models.state_dict(model), arguments.pop("classes")
    if is_audio(name):
        _refuse_image_options(config, name)
        rate, samples = arguments.pop("rate"), arguments.pop("samples")
        usual = TrainTeacherConfig
        other = config.sample_rate not in (usual.sample_rate, rate) or config.front_end is not None
        if other or (config.seconds != usual.seconds and round(config.seconds * rate) != samples):
            raise ConfigError(
                f"--init {config.init} hears {samples} samples at {rate} Hz by a front end of its own; leave out "
                "--sample-rate, --seconds and --front-end."
            )
        return Start(name, arguments, 0, None, weights, classes, rate, samples)
    refuse_sound_options(config, name)
    size, frames = arguments.pop("image_size"), arguments.pop("frames", None)
    if frames is None:
        refuse_video_options(config, name)
    else:
        frames = config.frames or frames
    return Start(name, arguments, config.image_size or size, frames, weights, classes)


def _start_for_sounds(config: TrainTeacherConfig, models: Any) -> Start:
    """The beginning of a network for sounds with random weights."""
    _refuse_image_options(config, config.architecture)
    arguments = {} if config.front_end is None else {"front_end": front_end_said(config.front_end)}
    samples = round(config.sample_rate * config.seconds)
    start = Start(config.architecture, arguments, 0, rate=config.sample_rate, samples=samples)
    # What cannot work is said now, as PyTorch says that it has no networks for sounds.
    models.build(config.architecture, classes=2, **start.made_for, **arguments)
    return start


def _refuse_image_options(config: TrainTeacherConfig, taker: str) -> None:
    """Raises: ConfigError: an option of images or clips is given, and what takes sounds is trained."""
    refuse_video_options(config, taker, "sounds")
    refuse_options(config, _OF_IMAGES, "images", f"{taker} takes sounds")


def network(
    config: TrainTeacherConfig, start: Start, train: AnyData, test: AnyData, models: Any, **further: Any
) -> Any:
    """Build the network that is trained.

    Weights of `--init` come with the normalisation they were trained with; where the number of classes differs, the
    last layer begins with random ones.

    Args:
        config: resolved options.
        start: see :func:`start_of`.
        train, test: with labels.
        models: the backend's networks.
        **further: for the backend's `models.build`.

    Raises:
        TeacherError: the weights do not fit images or clips of that size.
    """
    assert train.labels is not None and test.labels is not None
    classes = len(train.class_names or ()) or train.classes or int(max(train.labels.max(), test.labels.max())) + 1
    arguments = dict(start.arguments)
    # Networks for sounds have what suits their usual features; others BatchNorm makes right behind the first layer.
    if start.weights is None and not isinstance(train, LabelledSounds):
        arguments["mean"], arguments["std"] = _statistics(config, train)
    model = models.build(start.architecture, classes=classes, **start.made_for, **arguments, **further)
    if start.weights is None:
        return model
    weights = dict(start.weights)
    if classes != start.classes:
        for name, fresh in models.state_dict(model).items():
            found = weights[name].shape if name in weights else None
            if found == (start.classes, *fresh.shape[1:]) and len(fresh) == classes:
                weights[name] = fresh
    try:
        models.load_state_dict(model, weights)
    except TeacherError as error:
        size = f" with --image-size {start.image_size}" if start.samples is None else ""
        raise TeacherError(f"--init {config.init}{size}: {error}") from error
    return model


def free_folder(config: TrainTeacherConfig, architecture: str) -> Path:
    """The folder to write, where there is nothing yet.

    Raises:
        ConfigError: it is not empty or cannot be written, said now and not after the training; or a value cannot work.
    """
    if config.cutout % 2:
        raise ConfigError(f"--cutout (={config.cutout}) must be even.")
    folder = folder_for(config.dataset, architecture) if config.out is None else Path(config.out)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty; choose another --out or remove it.")
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder.absolute().parent).close()
    except OSError as error:
        raise ConfigError(f"Cannot write {folder}: {error.strerror}. Choose another --out.") from error
    return folder


def load_data(config: TrainTeacherConfig, image_size: int, load: Callable[..., Labelled]) -> tuple[Labelled, Labelled]:
    """What to learn from and what to measure on.

    Args:
        config: resolved options.
        image_size: side in pixels.
        load: the backend's way to labelled images.

    Raises:
        DatasetError: the set is not there, damaged, or lacks labels or parts.
    """
    takes_clips(config.dataset, (image_size, image_size))  # refuses sets of videos by name
    takes_sounds(config.dataset, (image_size, image_size))  # and of sounds
    if splits := splits_of(config.dataset):
        where = {name: (config.dataset, name) for name in splits}
    else:
        where = _parts_in(config.dataset, load)
    learned, held_out = _learned_and_held_out(config, where)

    def split(name: str, lazy: bool | None = None) -> Labelled:
        source, part = where[name]
        return load(source, split=part, image_size=image_size, data_dir=config.data_dir, lazy=lazy)

    # Of pictures the crops are cut in full size; small images are kept in memory, padded and cropped.
    in_full_size = True if image_size >= LARGE else None
    parts, test = [split(name, in_full_size) for name in learned], split(held_out)
    _check_parts(config, [*parts, test])
    return joined(parts), test


def load_videos(
    config: TrainTeacherConfig, start: Start, load_video: Callable[..., LabelledVideos]
) -> tuple[LabelledVideos, LabelledVideos]:
    """What a network for video learns from, a clip per video, and what it is measured on.

    Args:
        config: resolved options.
        start: says how many frames of which size.
        load_video: the backend's way to labelled videos.

    Raises:
        DatasetError: the set is not there, damaged, or lacks labels or parts.
    """
    takes_clips(config.dataset, start.input_size)  # refuses sets of images by name
    if config.dataset in VIDEO_FACTS:
        where = {name: (config.dataset, name) for name in ("train", "validation", "test")}
    else:
        where = _parts_in(config.dataset, load_video)
    learned, held_out = _learned_and_held_out(config, where)
    sampling = sampling_of(config, start.input_size)

    def split(name: str, **further: Any) -> LabelledVideos:
        source, part = where[name]
        return load_video(source, split=part, data_dir=config.data_dir, **{**sampling, **further})

    parts, test = [split(name, clips=1, spatial=1) for name in learned], split(held_out)
    _check_parts(config, [*parts, test])
    return joined_videos(parts), test


def load_sounds(
    config: TrainTeacherConfig, start: Start, load_audio: Callable[..., LabelledSounds]
) -> tuple[LabelledSounds, LabelledSounds]:
    """What a network for sounds learns from, and what it is measured on.

    Where a set has no part for validation, `bridge.audio_sets` makes one of every tenth sound to learn from.

    Args:
        config: resolved options.
        start: says how many samples at which rate.
        load_audio: the backend's way to labelled sounds.

    Raises:
        DatasetError: the set is not there, damaged, or lacks labels or parts.
    """
    assert start.rate is not None and start.samples is not None
    takes_sounds(config.dataset, start.input_size)  # refuses sets of images and videos by name
    seconds = start.samples / start.rate
    load = functools.partial(load_audio, rate=start.rate, seconds=seconds, data_dir=config.data_dir)
    where = {name: (config.dataset, name) for name in audio_sets.splits_of(config.dataset)}
    where = where or _parts_in(config.dataset, load)
    learned, held_out = _learned_and_held_out(config, where)
    if "train" not in where or held_out not in where:
        raise DatasetError(f"{config.dataset} has only parts {', '.join(where)}; a teacher needs train and test.")

    def split(name: str) -> LabelledSounds:
        source, part = where[name]
        return load(source, split=part)

    parts, test = [split(name) for name in learned], split(held_out)
    _check_parts(config, [*parts, test])
    return joined_sounds(parts), test


def _parts_in(dataset: str, load: Callable[..., Any]) -> dict[str, tuple[str, str]]:
    """The parts of a folder, and what `load` is asked for to get each."""
    path = Path(dataset)
    if not path.is_dir():
        load(dataset)  # says what is wrong with it
        raise DatasetError(
            f"{dataset} is one set; a teacher needs train and test: a folder of both, or of arrays x_train …."
        )
    where = {name: (str(path / name), name) for name in ("train", "validation", "test") if (path / name).is_dir()}
    if (path / "val").is_dir():
        where["validation"] = (str(path / "val"), "validation")
    if not {"train", "test"} <= set(where):
        raise DatasetError(
            f"{path} must hold train/ and test/ (and may hold validation/), each with one folder per class."
        )
    return where


def _learned_and_held_out(config: TrainTeacherConfig, where: Mapping[str, Any]) -> tuple[list[str], str]:
    """The parts to learn from, and the one to measure on."""
    held_out = "validation" if "validation" in where and config.hold_out else "test"
    return [name for name in ("train", "validation") if name in where and name != held_out], held_out


def _check_parts(config: TrainTeacherConfig, parts: Sequence[AnyData]) -> None:
    """Refuse parts without labels, or with other classes than the first."""
    names = parts[0].class_names
    for part in parts:
        if part.class_names != names or part.labels is None:
            raise DatasetError(
                f"{config.dataset}: every split needs the same class folders; train has {names}, another "
                f"{part.class_names}."
            )


def steps_of(config: TrainTeacherConfig, train: AnyData) -> int:
    """Steps per epoch: given, or as many as the images, sounds or videos fill."""
    return config.steps_per_epoch or max(1, round(_size_of(train)[0] / config.batch_size))


def card_of(config: TrainTeacherConfig, train: AnyData, test: AnyData, measured: Mapping[str, Any]) -> dict[str, Any]:
    """What `save_teacher` is told of a trained teacher besides its network."""
    facts, (count, what) = {**FACTS, **VIDEO_FACTS, **AUDIO_FACTS}.get(config.dataset), _size_of(train)
    begun = "" if config.init is None else f"{config.init}, then "
    return {
        "class_names": train.class_names,
        "accuracy": {"top1": measured["student_top1"], "dataset": test.name, "n": measured["n"]},
        "source": f"{begun}trained on {train.name} ({count:,} {what}, {config.epochs} epochs, seed {config.seed})",
        "licence": facts.licence if facts else "",
    }


def summary(architecture: str, measured: Mapping[str, Any], folder: Path, what: str = "images") -> str:
    """The line that says what came out."""
    return (
        f"Teacher {architecture}: {measured['student_top1']:.2%} of {measured['n']:,} held-out {what} right. "
        f"Written to {folder}."
    )


def _size_of(data: AnyData) -> tuple[int, str]:
    """How many of what there are."""
    if isinstance(data, LabelledSounds):
        return len(data.waveforms), "sounds"
    return (len(data.clips.files), "videos") if isinstance(data, LabelledVideos) else (len(data.images), "images")


def _statistics(config: TrainTeacherConfig, train: Labelled | LabelledVideos) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of pixels in [0, 1]."""
    if config.normalise == "half":
        return [0.5] * 3, [0.5] * 3
    if isinstance(train, LabelledVideos):
        return list(VIDEO_MEAN), list(VIDEO_STD)  # as all public networks for video, whatever the set
    if config.dataset in FACTS:
        return list(FACTS[config.dataset].mean), list(FACTS[config.dataset].std)
    values = np.arange(256) / 255
    some = train if isinstance(train.images, np.ndarray) else thinned(train, 1000)  # of files, which take long
    images = np.asarray(some.images)
    # by histogram: floats of all images at once could fill the memory
    shares = [np.bincount(images[..., c].ravel(), minlength=256) / images[..., c].size for c in range(3)]
    means = [float(share @ values) for share in shares]
    spreads = [float(np.sqrt(share @ (values - mean) ** 2)) for share, mean in zip(shares, means)]
    return means, [max(spread, 1e-3) for spread in spreads]
