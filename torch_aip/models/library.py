"""Classifiers of torchvision and timm by name, random or as published, and X3D as pytorchvideo has published it.

No library is loaded before such a name comes.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import socket
import sys
import urllib.request
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from bridge.errors import ConfigError, TeacherError
from bridge.files import sha256_file
from bridge.names import hint
from bridge.networks import KINETICS_CLASSES, X3D_PUBLISHED, X3D_SOURCE, Plan, size_of, whole_number
from bridge.teachers.card import CHANNELS_FIRST, Card, kind_of
from torch_aip import compat
from torch_aip.models.layers import ARCHITECTURE, finished
from torch_aip.models.state import load_state_dict, load_weights, state_dict
from torch_aip.models.x3d import x3d

# Their published weights want pixels in [-1, 1], whatever torchvision's description of them says: there the network
# itself turns the one into the other. They also have further heads, of use in training only.
_INCEPTION = ("googlenet", "inception_v3")
_FURTHER_HEADS = ("aux1.", "aux2.", "AuxLogits.")


# How many frames a clip has for torchvision's networks for video: those its published figures were measured with.
_FRAMES, _USUAL_FRAMES = {"s3d": 128, "swin3d_t": 32, "swin3d_s": 32, "swin3d_b": 32}, 16


def is_library(architecture: str) -> bool:
    """Whether a name asks for a network of torchvision or timm; whether there is one, only they know."""
    return re.fullmatch(r"(torchvision|timm)/[\w.]+", str(architecture)) is not None


def is_video(architecture: str) -> bool:
    """Whether a network of these libraries takes clips.

    Raises:
        ConfigError: torchvision has no such network.
        TeacherError: It is asked for and not installed.
    """
    library, _, name = architecture.partition("/")
    return library == "torchvision" and name in _video_networks(_torchvision(name))


def build(
    architecture: str,
    classes: int,
    image_size: int | None = None,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.25, 0.25, 0.25),
    frames: int | None = None,
) -> nn.Module:
    """Build ``torchvision/<name>`` or ``timm/<name>`` with random weights.

    Args:
        architecture: The name, which begins with that of its library.
        classes: Number of logits.
        image_size: Height and width of the images in pixels; None: what the library made the network for.
        mean: Mean per channel of RGB in [0, 1], subtracted inside the model.
        std: Standard deviation per channel of RGB in [0, 1].
        frames: Frames of a clip, of networks for video; None: those its published figures were measured with.

    Returns:
        RGB float32 ``[batch, 3, image_size, image_size]`` (of video ``[batch, 3, frames, image_size, image_size]``) in
        [0, 1] -> float32 logits ``[batch, classes]``.

    Raises:
        ConfigError: There is no such network (the nearest is named), or it cannot be built so.
        TeacherError: The library is not installed.
    """
    library, _, name = architecture.partition("/")
    usual = _torchvision_facts(name)[1] if library == "torchvision" else _timm_config(name).input_size[-1]
    size: int = usual if image_size is None else image_size
    plan = Plan(architecture, classes, 1, size, mean, std)
    if is_video(architecture):
        plan = _clip_plan(plan, name, frames)
    try:
        if library == "torchvision":
            options: dict[str, Any] = {"image_size": size} if name.startswith("vit_") else {}
            if name in _INCEPTION:
                options = {"aux_logits": False, "init_weights": True}
            model = _torchvision(name).get_model(name, weights=None, num_classes=classes, **options)
        else:
            options = {"img_size": size} if _timm_config(name).fixed_input_size else {}
            model = _timm().create_model(name, num_classes=classes, **options)
    except (ValueError, RuntimeError, AssertionError, TypeError) as error:
        raise ConfigError(f"{architecture} cannot be built with image_size={size} ({_first(error)}).") from error
    return _finished(plan, model)


def _clip_plan(plan: Plan, name: str, frames: int | None) -> Plan:
    """The plan of a network for video, with the frames of its clips."""
    usual, weights = _FRAMES.get(name, _USUAL_FRAMES), _torchvision_facts(name)[0]
    plan = replace(plan, frames=usual if frames is None else frames, smallest=weights.meta["min_size"][0])
    if name.startswith("mvit_") and size_of(plan.described()["arguments"]) != (usual, plan.smallest, plan.smallest):
        raise ConfigError(  # it has learnt a number for every position
            f"{plan.architecture} takes {usual} frames of {plan.smallest} pixels and no others, not {plan.frames} of "
            f"{plan.image_size}."
        )
    whole_number("frames", plan.frames, at_least=weights.meta.get("min_temporal_size", 1))
    return plan


def pretrained(architecture: str) -> tuple[nn.Module, Card]:
    """Get ``torchvision/<name>``, ``timm/<name>`` or ``x3d_xs`` with its published weights, downloaded the first time.

    Args:
        architecture: The name; of X3D one in `bridge.networks.X3D_PUBLISHED`, trained on Kinetics-400.

    Returns:
        The model, as :func:`build` makes it, and a card with class names, source and published accuracy, where known.

    Raises:
        ConfigError: There is no such network.
        TeacherError: The library is not installed, or the weights are not here and cannot be downloaded.
    """
    if architecture in X3D_PUBLISHED:
        return _pretrained_x3d(architecture)
    library, _, name = architecture.partition("/")
    return _pretrained_torchvision(name) if library == "torchvision" else _pretrained_timm(name)


def _pretrained_x3d(name: str) -> tuple[nn.Module, Card]:
    file, top1 = X3D_PUBLISHED[name]
    url, place = f"{X3D_SOURCE}/{file}", _kept(file)
    model = x3d(name, KINETICS_CLASSES)
    if not place.exists():
        _announce(f"{name}: downloading {url} to {place}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(place), progress=sys.stderr.isatty())
        except Exception as error:  # no network, no disk, a torn download
            raise _not_fetched(f"pytorchvideo's {name}", place, url, error) from error
    try:
        load_weights(model, place)
    except TeacherError as error:
        raise TeacherError(f"{error} If its download was torn, remove it: it is fetched again from {url}.") from error
    accuracy = {"top1": top1, "dataset": "Kinetics-400, as published (10 clips of 3 crops each)", "n": None}
    source = f"{url} (SHA-256 {sha256_file(place)})"  # there is no published one to compare with
    return model, _card(model, _kinetics_classes(), source, "Apache 2.0 (pytorchvideo)", accuracy)


def _kinetics_classes() -> list[str] | None:
    """The classes of Kinetics-400 in alphabetical order, as its networks answer; None without torchvision's list."""
    try:
        with warnings.catch_warnings():  # nothing of it will run
            warnings.simplefilter("ignore")
            models = compat.torchvision().models
    except TeacherError:
        return None
    return models.get_model_weights("r3d_18").DEFAULT.meta["categories"]


def _pretrained_torchvision(name: str) -> tuple[nn.Module, Card]:
    weights, size, mean, std = _torchvision_facts(name)
    architecture = f"torchvision/{name}"
    categories = weights.meta["categories"]
    model = build(architecture, len(categories), size, mean, std)
    place = _kept(weights.url.rpartition("/")[2])
    if not place.exists():
        _announce(f"{architecture}: downloading {weights.url} ({weights.meta['_file_size']:.0f} MB) to {place}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # where it would say the same again
            arrays = weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True)
    except Exception as error:  # no network, no disk, a torn download, a damaged file
        raise _not_fetched(architecture, place, weights.url, error) from error
    load_state_dict(model, {key: value for key, value in arrays.items() if not key.startswith(_FURTHER_HEADS)})
    accuracy = None
    for dataset, n in (("ImageNet-1K", 50_000), ("Kinetics-400", None)):  # of how many videos they do not say
        top1 = weights.meta.get("_metrics", {}).get(dataset, {}).get("acc@1")
        if top1 is not None:
            accuracy = {"top1": top1 / 100, "dataset": f"{dataset}, as published", "n": n}
    return model, _card(model, categories, weights.url, "BSD 3-Clause (torchvision)", accuracy)


def _pretrained_timm(name: str) -> tuple[nn.Module, Card]:
    timm, config, architecture = _timm(), _timm_config(name), f"timm/{name}"
    source = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
    if not source:
        known = timm.list_pretrained(f"{name.partition('.')[0]}*")[:8]
        raise TeacherError(f"timm has no weights for {name}; it has them for {', '.join(known) or 'others'}.")
    place, host = _hub()
    is_here = (place / f"models--{str(config.hf_hub_id).replace('/', '--')}").is_dir()
    if not is_here:
        _announce(f"{architecture}: downloading {source} to {place}")
    quiet = logging.getLogger("huggingface_hub"), logging.getLogger("timm")
    levels = [logger.level for logger in quiet]
    try:
        for logger in quiet:
            logger.setLevel(logging.ERROR)
        if not is_here and not urllib.request.getproxies():
            # The hub's own client tries again for most of a minute before it says so.
            socket.create_connection((host, 443), timeout=10).close()
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # each layer below raises its own kind when there is no network
        raise TeacherError(
            f"The weights of {architecture} are not in {place} and cannot be fetched from {source} ({_first(error)}). "
            "Fetch them where there is a network and copy the cache; $HF_HOME says where it is."
        ) from error
    finally:
        for logger, level in zip(quiet, levels):
            logger.setLevel(level)
    plan = Plan(architecture, config.num_classes, 1, config.input_size[-1], config.mean, config.std)
    return _finished(plan, model), _card(model, _timm_classes(model), source, config.license or "", None)


def _kept(file: str) -> Path:
    """Where PyTorch keeps a file of published weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / file


def _not_fetched(what: str, place: Path, url: str, error: Exception) -> TeacherError:
    return TeacherError(
        f"The weights of {what} are not at {place} and cannot be fetched ({_first(error)}). Where there is a network, "
        f"download {url} and put it there; $TORCH_HOME says where the cache is."
    )


def _card(
    model: nn.Module, class_names: Sequence[str] | None, source: str, licence: str, accuracy: dict[str, Any] | None
) -> Card:
    described = json.loads(getattr(model, ARCHITECTURE))
    size, classes = size_of(described["arguments"]), described["arguments"]["classes"]
    kind = kind_of(size)
    return Card(
        classes=classes,
        input_size=size,
        kind=kind,
        architecture=described["architecture"],
        arguments=described["arguments"],
        class_names=tuple(class_names) if class_names and len(class_names) == classes else None,
        layout=CHANNELS_FIRST[kind],
        parameters=sum(array.size for array in state_dict(model).values()),
        accuracy=accuracy,
        source=source,
        licence=licence,
    )


def _finished(plan: Plan, model: nn.Module) -> nn.Module:
    model.register_forward_hook(_in_float32)
    return finished(plan, model)


def _in_float32(model: nn.Module, arguments: Any, answer: Any) -> Any:
    del model, arguments
    return answer.float() if isinstance(answer, Tensor) else answer


def _torchvision(name: str) -> Any:
    """torchvision's models, if there is a classifier of that name."""
    models = compat.torchvision().models
    known = models.list_models(module=models) + _video_networks(models)
    if name not in known:
        raise ConfigError(f"torchvision has no classifier {name!r}.{hint(name, known)}")
    return models


def _video_networks(models: Any) -> list[str]:
    return models.list_models(module=models.video)


def _torchvision_facts(name: str) -> tuple[Any, int, Sequence[float], Sequence[float]]:
    """The published weights, and the size, mean and deviation of the images or frames they want."""
    weights = _torchvision(name).get_model_weights(name).DEFAULT
    wanted = weights.transforms()
    mean, std = ((0.5,) * 3, (0.5,) * 3) if name in _INCEPTION else (wanted.mean, wanted.std)
    return weights, wanted.crop_size[0], mean, std


def _timm() -> Any:
    compat.torchvision()  # timm imports it
    try:
        import timm
    except ImportError as error:
        raise TeacherError(f"timm is needed here ({error}). Install it: pip install timm") from error
    return timm


def _timm_config(name: str) -> Any:
    """What timm knows of a network: input size, normalisation, where its weights are."""
    timm = _timm()
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        known = timm.list_models()
        raise ConfigError(f"timm has no network {name!r}.{hint(base, known)}")
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = [entry.partition(".")[2] for entry in timm.list_pretrained(f"{base}.*")]
        raise ConfigError(
            f"timm has no weights {tag!r} of {base}; known: {', '.join(known) or 'none'}.{hint(tag, known)}"
        ) from error


def _timm_classes(model: Any) -> list[str] | None:
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(model)
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return [info.index_to_description(index) for index in range(info.num_classes())]


def _hub() -> tuple[Path, str]:
    """Where the hub's files are cached, and its host."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE), urlsplit(constants.ENDPOINT).hostname or ""


def _announce(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
