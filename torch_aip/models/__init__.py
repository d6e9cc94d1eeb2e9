"""Networks by name: small CNN, wide ResNets, CIFAR ResNets, VGGs; ImageNet ResNets; X3D; torchvision's and timm's.

All take RGB float32 ``[batch, 3, image_size, image_size]`` in [0, 1] (those for video ``[batch, 3, frames, image_size,
image_size]``), normalise inside and give float32 logits. The state dicts of our own are those of their Keras twins, so
weights cross by name; those without have torchvision's (the ImageNet ResNets) and pytorchvideo's (X3D).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from bridge.networks import check_arguments, is_x3d, own_arguments, scaled_resnet, size_of, unknown_network, wide
from torch_aip.models import library
from torch_aip.models.cnn import small_cnn
from torch_aip.models.imagenet_resnet import imagenet_resnet, resnet18, resnet34, resnet50, resnet101
from torch_aip.models.layers import ARCHITECTURE, SIZE, Normalise, normalised
from torch_aip.models.library import is_library
from torch_aip.models.resnet import resnet20, resnet32, resnet44, resnet56, resnet110
from torch_aip.models.state import load_state_dict, load_weights, plain, state_dict
from torch_aip.models.vgg import vgg11, vgg13, vgg16, vgg19
from torch_aip.models.wrn import wrn, wrn_16_4, wrn_40_4
from torch_aip.models.x3d import x3d_l, x3d_m, x3d_s, x3d_s_e, x3d_xs, x3d_xs_e

__all__ = [
    "Normalise",
    "architecture_of",
    "build",
    "input_size_of",
    "is_known",
    "is_library",
    "is_video",
    "load_state_dict",
    "load_weights",
    "names",
    "normalised",
    "plain",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet101",
    "resnet110",
    "small_cnn",
    "state_dict",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "wrn",
    "wrn_16_4",
    "wrn_40_4",
    "x3d_l",
    "x3d_m",
    "x3d_s",
    "x3d_s_e",
    "x3d_xs",
    "x3d_xs_e",
]

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    builder.__name__: builder
    for builder in (
        small_cnn,
        wrn_16_4,
        wrn_40_4,
        *(resnet20, resnet32, resnet44, resnet56, resnet110),
        *(vgg11, vgg13, vgg16, vgg19),
        *(resnet18, resnet34, resnet50, resnet101),
        *(x3d_xs, x3d_s, x3d_m, x3d_l, x3d_xs_e, x3d_s_e),
    )
}


def is_known(architecture: str) -> bool:
    """Whether :func:`build` knows an architecture of that name; of torchvision and timm, whether it would ask them."""
    ours = architecture in _BUILDERS or wide(architecture) is not None or scaled_resnet(architecture) is not None
    return ours or is_library(architecture)


def is_video(architecture: str) -> bool:
    """Whether an architecture takes clips.

    Raises:
        ConfigError: torchvision has no such network.
        TeacherError: It is asked for and not installed.
    """
    return is_x3d(architecture) or (is_library(architecture) and library.is_video(architecture))


def names() -> list[str]:
    """Return the names :func:`build` knows, besides ``wrn_<depth>_<width>``, ``resnet50x2`` and the libraries'."""
    return list(_BUILDERS)


def build(
    architecture: str,
    *,
    classes: int,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **arguments: Any,
) -> nn.Module:
    """Build a randomly initialised network by its name.

    Args:
        architecture: ``small_cnn``, ``wrn_16_4`` (any depth and width), ``resnet20``, ``vgg16``, …; for ImageNet
            ``resnet50``, ``resnet50x2``, ``resnet18x0.25`` (of depth 18, 34, 50, 101 and any width), …; for video
            ``x3d_xs``, …, ``x3d_xs_e``; or ``torchvision/resnet50``, ``torchvision/r3d_18`` (video),
            ``timm/convnext_tiny``, …: classifiers of these libraries, where installed.
        classes: Number of logits.
        image_size: Height and width of the images in pixels; None: 32, of networks for ImageNet 224, or what the
            network was made for.
        mean: Mean per channel of RGB in [0, 1], subtracted inside the model; None: 0.5, of ``resnet50`` ImageNet's, of
            ``x3d_xs`` 0.45.
        std: Standard deviation per channel of RGB in [0, 1], divided by inside the model; None: 0.25, or ImageNet's, of
            ``x3d_xs`` 0.225.
        **arguments: Further arguments of the architecture: ``width`` of ``small_cnn`` and ``resnet50``, ``reference``
            of wide ResNets; ``frames`` of a clip of networks for video (None: what the network was made for), and of
            X3D also ``width``, ``depth`` and ``dropout``.

    Raises:
        ConfigError: The name is unknown (the nearest are given), or a value cannot work.
        TeacherError: The library is not installed.

    Example:
        >>> student = build("wrn_16_4", classes=10)  # doctest: +SKIP
    """
    builder = _builder(architecture)
    common = ("classes", "image_size", "mean", "std")
    own = own_arguments(architecture)
    if is_library(architecture) and is_video(architecture):
        own = ("frames",)
    check_arguments(architecture, arguments, common, own)
    options = {"image_size": image_size, "mean": mean, "std": std}
    given = {name: value for name, value in options.items() if value is not None}
    return builder(classes=classes, **given, **arguments)


def architecture_of(model: Any) -> dict[str, Any] | None:
    """Return ``{"architecture": name, "arguments": {...}}``, from which :func:`build` makes the like again.

    Returns:
        None for a model that was not made here.
    """
    described = getattr(plain(model), ARCHITECTURE, None)
    return json.loads(described) if isinstance(described, str) else None


def input_size_of(model: Any) -> tuple[int, ...] | None:
    """What a model was made for; None: nobody knows.

    Returns:
        (height, width) of images in pixels, (frames, height, width) of clips, or (samples,) of waveforms.
    """
    described = architecture_of(model)
    if described is not None:
        return size_of(described["arguments"])
    return getattr(plain(model), SIZE, None)


def _builder(architecture: str) -> Callable[..., nn.Module]:
    if architecture in _BUILDERS:
        return _BUILDERS[architecture]
    if asked := wide(architecture):
        return lambda **options: wrn(*asked, **options)
    if scaled := scaled_resnet(architecture):
        depth, width = scaled
        return lambda **options: imagenet_resnet(depth, width=width, **options)
    if is_library(architecture):
        return lambda **options: library.build(architecture, **options)
    raise unknown_network(architecture, _BUILDERS, ", resnet50x<width>, torchvision/<name> and timm/<name>")
