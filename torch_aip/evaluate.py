"""Measuring a student: against labels, against its teacher, or both."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bridge.batches import slices
from bridge.clips import Clips
from bridge.errors import DatasetError
from bridge.measuring import check_kind, rows_at_once, scored, takes_clips, takes_sounds
from bridge.metrics import mean_over_views
from bridge.pictures import Pictures
from bridge.sounds import Sounds, floats
from torch_aip import models
from torch_aip.datasets import Labelled, LabelledSounds, LabelledVideos, load, load_audio, load_video
from torch_aip.teacher import Teacher


def predict(model: Any, images: np.ndarray | Pictures | Clips | Sounds, batch_size: int = 256) -> np.ndarray:
    """Logits of a module, or log-space answers of a `Teacher`, in inference mode.

    Args:
        model: takes float32 [batch, 3, h, w], or clips [batch, 3, frames, h, w], in [0, 1]; or waveforms
            [batch, samples] in [-1, 1].
        images: uint8 [n, h, w, 3] or [n, frames, h, w, 3]; or `Clips`; or sounds, int16 [n, samples]. What cannot be
            decoded is black or silent, see `readable_rows`, `readable_videos` and `readable_sounds`.
        batch_size: images, clips or sounds per forward pass; of clips that would fill the memory fewer.

    Returns:
        float32 [n, classes]; of `Clips` [videos, classes], the logarithm of the mean softmax over the clips of each.
    """
    return predict_all([model], images, batch_size)[0]


def predict_all(
    judged: Sequence[Any], images: np.ndarray | Pictures | Clips | Sounds, batch_size: int = 256
) -> list[np.ndarray]:
    """`predict` of several models, each picture, video or sound decoded once."""
    answers: list[list[np.ndarray]] = [[] for _ in judged]
    with contextlib.ExitStack() as stack:
        for model in judged:
            stack.enter_context(_in_inference_mode(model))
        stack.enter_context(torch.inference_mode())
        at_once, sounds = rows_at_once(batch_size, images.shape), images.dtype == np.int16
        unit = "sounds" if sounds else "clips" if images.ndim == 5 else "images"
        for rows in slices(len(images), at_once, unit=unit):
            given = torch.from_numpy(floats(images[rows]) if sounds else np.ascontiguousarray(images[rows]))
            for model, of_model in zip(judged, answers):
                batch = given.to(_device_of(model))
                if not sounds:
                    # Moved only in name: the channels stay last in memory, which convolutions like.
                    batch = batch.movedim(-1, 1).float() / 255
                of_model.append(model(batch).float().cpu().numpy())
    together = [np.concatenate(of_model) for of_model in answers]
    if isinstance(images, Clips):
        return [mean_over_views(of_model, images.views).astype(np.float32) for of_model in together]
    return together


def evaluate(
    model: nn.Module | Teacher,
    dataset: str | os.PathLike[str] | Labelled | LabelledVideos | LabelledSounds,
    *,
    teacher: Teacher | None = None,
    split: str = "test",
    batch_size: int = 256,
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Measure a model, on images or, if it takes clips, on videos; on sounds if it takes waveforms.

    Args:
        model: a module from float32 [batch, 3, h, w], or clips [batch, 3, frames, h, w], in [0, 1] to logits, or a
            `Teacher`, also one that takes waveforms float32 [batch, samples] in [-1, 1].
        dataset: a name in `FACTS`, such as "cifar10" or "in1k", a folder with one folder per class, a flat folder of
            images without labels, an .npz file, or a `Labelled`. Of videos: "k400", "ucf101", a folder, a list, or what
            `load_video` gives, which knows more ways to read them. Of sounds: "speech_commands", a folder, an .npz, or
            what `load_audio` gives.
        teacher: for agreement and KL, and to be measured too.
        split: of a named data set.
        batch_size: images, clips or sounds per forward pass; of clips that would fill the memory fewer.
        data_dir: where named sets are looked for; None: $AIP_DATA, or ./data.

    Returns:
        teacher_top1, student_top1, teacher_top5, student_top5, agreement, kl (nats, τ = 1), ece (15 bins), dataset, n.
        Fractions lie in [0, 1]; what has no meaning is None. Pictures, videos and sounds that cannot be decoded are
        left out of all of them and of n, with a warning.

    Raises:
        DatasetError: the data cannot be read or do not fit the model.
    """
    size = _input_size(model)
    names = next((judged.class_names for judged in (model, teacher) if isinstance(judged, Teacher)), None)
    if isinstance(dataset, (Labelled, LabelledVideos, LabelledSounds)):
        data = dataset
    elif takes_sounds(dataset, size):
        assert size is not None
        rate = _rate_of(model)
        if rate is None:
            raise DatasetError(
                f"the model takes {size[0]} samples and does not say at which rate: load the sounds by load_audio, and "
                "give them."
            )
        data = load_audio(dataset, split, rate=rate, seconds=size[0] / rate, class_names=names, data_dir=data_dir)
    elif takes_clips(dataset, size):
        assert size is not None
        data = load_video(dataset, split, frames=size[0], crop=size[1], class_names=names, data_dir=data_dir)
    else:
        data = load(dataset, split=split, image_size=input_side(model), data_dir=data_dir)
    if isinstance(data, LabelledSounds):
        inputs = data.waveforms
    else:
        inputs = data.clips if isinstance(data, LabelledVideos) else data.images
    for who, judged in (("model", model), ("teacher", teacher)):
        expected, found = _input_size(judged), inputs.shape[1:-1]
        check_kind(data, who, expected)
        if isinstance(data, LabelledSounds):
            if expected is not None:
                data.check(who, _rate_of(judged) or data.rate, expected[0])
        elif expected is not None and expected != found:
            what, frames = ("clips", f"frames={expected[0]}, crop") if len(expected) == 3 else ("images", "image_size")
            raise DatasetError(
                f"{data.name} has {what} of {list(found)} pixels, the {who} wants {list(expected)}; load it with "
                f"{frames}={expected[-1]}."
            )
    answers = predict_all([model] if teacher is None else [model, teacher], inputs, batch_size)
    return scored(data, *answers, teacher_labels=teacher is not None and teacher.outputs == "labels")


@contextlib.contextmanager
def recalibrated(model: nn.Module, image_batches: Iterable[Tensor]) -> Iterator[nn.Module]:
    """Inside the context, BatchNorm statistics are those of the given images; afterwards the old ones are back.

    The student's statistics come from mixed views. This asks what they would give on unmixed ones, and never takes
    test images.

    Args:
        model: with or without BatchNorm.
        image_batches: float32 [batch, 3, h, w], or clips [batch, 3, frames, h, w], in [0, 1] each; every batch counts
            the same.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    before = [({name: kept.clone() for name, kept in layer.named_buffers()}, layer.momentum) for layer in norms]
    modes = {module: module.training for module in model.modules()}
    try:
        model.train()
        for layer in norms:
            layer.reset_running_stats()
            layer.momentum = None  # the running mean over all batches so far
        with torch.no_grad():
            for images in image_batches:
                model(images)
        _set_modes(modes)
        yield model
    finally:
        _set_modes(modes)
        for layer, (buffers, momentum) in zip(norms, before):
            layer.momentum = momentum
            for name, kept in layer.named_buffers():
                kept.copy_(buffers[name])


def input_side(model: Any) -> int | None:
    """Side of the images or frames a model was built for in pixels, None where it takes any or hears sounds."""
    size = _input_size(model)
    return None if size is None or len(size) == 1 else size[-1]


def _input_size(model: Any) -> tuple[int, ...] | None:
    """Height and width in pixels, of clips frames before them, or samples; None: any, or the model does not say."""
    return model.input_size if isinstance(model, Teacher) else models.input_size_of(model)


def _rate_of(model: Any) -> int | None:
    """Samples per second of what it hears, where it says so."""
    return model.rate if isinstance(model, Teacher) else None


def _device_of(model: Any) -> torch.device:
    if isinstance(model, Teacher):
        return model.device
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


@contextlib.contextmanager
def _in_inference_mode(model: Any) -> Iterator[None]:
    """Every part of a module as it was, afterwards."""
    modes = {module: module.training for module in model.modules()} if isinstance(model, nn.Module) else {}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        _set_modes(modes)


def _set_modes(modes: dict[nn.Module, bool]) -> None:
    for module, training in modes.items():
        module.training = training
