"""What `train-teacher` does without a framework: where it writes, what it learns from, and what it begins with."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bridge.config import TrainTeacherConfig
from bridge.datasets import FACTS, Labelled, joined, splits_of, thinned
from bridge.errors import ConfigError, DatasetError, TeacherError
from bridge.networks import scaled_resnet
from bridge.pictures import LARGE
from bridge.teachers.shelf import folder_for

IMAGE_SIZE, IMAGENET_IMAGE_SIZE = 32, 224


@dataclass(frozen=True)
class Start:
    """The network a training begins with.

    Attributes:
        architecture: as the backend's `models.build` takes it.
        arguments: what it is built with besides classes; of a network with weights also mean and std.
        image_size: side of its images in pixels.
        weights: by name, as the backend's `models.state_dict` gives them; None: random ones.
        classes: that these weights tell apart.
    """

    architecture: str
    arguments: Mapping[str, Any]
    image_size: int
    weights: Mapping[str, np.ndarray] | None = None
    classes: int | None = None


def start_of(config: TrainTeacherConfig, models: Any, load_model: Callable[..., tuple[Any, Any]]) -> Start:
    """What the options say a training begins with.

    Args:
        config: resolved options.
        models: the backend's networks.
        load_model: the backend's way to a network with weights.

    Raises:
        AipError: `--init` names no network to train on, or other options contradict it.
    """
    width = {} if config.width is None else {"width": config.width}
    if config.init is None:
        for_imagenet = scaled_resnet(config.architecture) or "/" in config.architecture
        usual = IMAGENET_IMAGE_SIZE if for_imagenet else IMAGE_SIZE
        return Start(config.architecture, width, config.image_size or usual)
    model = load_model(config.init, dataset=config.dataset)[0]
    described = models.architecture_of(model)
    if described is None:
        raise TeacherError(
            f"--init {config.init} says nothing of its architecture, so its last layer cannot be made anew. Give a "
            "folder with weights.safetensors of a known architecture."
        )
    name, arguments = described["architecture"], dict(described["arguments"])
    other_width = config.width is not None and config.width != arguments.get("width")
    if config.architecture not in (TrainTeacherConfig.architecture, name) or other_width:
        raise ConfigError(f"--init {config.init} is a {name}; leave out --architecture and --width.")
    classes, size = arguments.pop("classes"), arguments.pop("image_size")
    return Start(name, arguments, config.image_size or size, models.state_dict(model), classes)


def network(
    config: TrainTeacherConfig, start: Start, train: Labelled, test: Labelled, models: Any, **further: Any
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
        TeacherError: the weights do not fit images of that size.
    """
    assert train.labels is not None and test.labels is not None
    classes = len(train.class_names or ()) or train.classes or int(max(train.labels.max(), test.labels.max())) + 1
    arguments = dict(start.arguments)
    if start.weights is None:
        arguments["mean"], arguments["std"] = _statistics(config, train)
    model = models.build(start.architecture, classes=classes, image_size=start.image_size, **arguments, **further)
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
        raise TeacherError(f"--init {config.init} with --image-size {start.image_size}: {error}") from error
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
    path = Path(config.dataset)
    if splits := splits_of(config.dataset):
        where = {name: (config.dataset, name) for name in splits}
    elif not path.is_dir():
        load(config.dataset)  # says what is wrong with it
        raise DatasetError(
            f"{config.dataset} is one set; a teacher needs train and test: x_train …, or a folder of both."
        )
    else:
        where = {name: (str(path / name), name) for name in ("train", "validation", "test") if (path / name).is_dir()}
        if (path / "val").is_dir():
            where["validation"] = (str(path / "val"), "validation")
        if not {"train", "test"} <= set(where):
            raise DatasetError(
                f"{path} must hold train/ and test/ (and may hold validation/), each with one folder per class."
            )
    held_out = "validation" if "validation" in where and config.hold_out else "test"
    learned = [name for name in ("train", "validation") if name in where and name != held_out]

    def split(name: str, lazy: bool | None = None) -> Labelled:
        source, part = where[name]
        return load(source, split=part, image_size=image_size, data_dir=config.data_dir, lazy=lazy)

    # Of pictures the crops are cut in full size; small images are kept in memory, padded and cropped.
    in_full_size = True if image_size >= LARGE else None
    parts, test = [split(name, in_full_size) for name in learned], split(held_out)
    train = parts[0]
    for part in (*parts, test):
        if part.class_names != train.class_names or part.labels is None:
            raise DatasetError(
                f"{config.dataset}: every split needs the same class folders; train has {train.class_names}, another "
                f"{part.class_names}."
            )
    return joined(parts), test


def steps_of(config: TrainTeacherConfig, train: Labelled) -> int:
    """Steps per epoch: given, or as many as the images fill."""
    return config.steps_per_epoch or max(1, round(len(train.images) / config.batch_size))


def card_of(config: TrainTeacherConfig, train: Labelled, test: Labelled, measured: Mapping[str, Any]) -> dict[str, Any]:
    """What `save_teacher` is told of a trained teacher besides its network."""
    facts = FACTS.get(config.dataset)
    begun = "" if config.init is None else f"{config.init}, then "
    return {
        "class_names": train.class_names,
        "accuracy": {"top1": measured["student_top1"], "dataset": test.name, "n": measured["n"]},
        "source": f"{begun}trained on {train.name} ({len(train.images):,} images, {config.epochs} epochs, seed "
        f"{config.seed})",
        "licence": facts.licence if facts else "",
    }


def summary(architecture: str, measured: Mapping[str, Any], folder: Path) -> str:
    """The line that says what came out."""
    return (
        f"Teacher {architecture}: {measured['student_top1']:.2%} of {measured['n']:,} held-out images right. "
        f"Written to {folder}."
    )


def _statistics(config: TrainTeacherConfig, train: Labelled) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of pixels in [0, 1]."""
    if config.normalise == "half":
        return [0.5] * 3, [0.5] * 3
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
