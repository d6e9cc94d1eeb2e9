"""The reference's order of operations, one view at a time: what our views are measured against.

Crop of half the shorter side → crop by area and aspect, resized to √2 · size with bicubic → rotation and shear,
bilinear, black outside → centre crop → colour jitter (Asano & Saeed 2023, as read in the reference code), then the
training-time flip and pad-and-crop of its small images. With torchvision where it imports, else with Pillow alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from bridge.datum.geometry import box_map, compose, rotation_shear_map, shift_map
from bridge.datum.recipes import BaseView, Jitter
from bridge.datum.views import ViewSet
from bridge.errors import TeacherError

Transform = Callable[[Image.Image], np.ndarray]

_BASE, _JITTER = BaseView(), Jitter()


def reference_transform(size: int, pad: int, seed: int) -> tuple[str, Transform]:
    """One random view after another, as the reference makes them.

    Args:
        size: side of a view, in pixels.
        pad: of the training-time flip and pad-and-crop; 0 leaves both out.
        seed: of the random numbers.

    Returns:
        What it is made with ("torchvision 0.x on Pillow 1.x" or "Pillow 1.x"), and a function from an RGB image
        to float32 [size, size, 3] in [0, 1].
    """
    pillow = f"Pillow {Image.__version__}"
    torchvision = import_torchvision()
    if torchvision is None:
        return pillow, _pillow_transform(size, pad, random.Random(seed))
    return f"torchvision {torchvision.__version__} on {pillow}", _torchvision_transform(size, pad, seed)


def import_torchvision() -> Any:
    """torchvision, or None where it is missing or does not import."""
    try:
        from torch_aip.compat import torchvision

        return torchvision()
    except (ImportError, TeacherError):
        return None


def _torchvision_transform(size: int, pad: int, seed: int) -> Transform:
    import torch
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    torch.manual_seed(seed)
    torch.set_num_threads(1)

    class ResizedCrop(transforms.RandomResizedCrop):
        @staticmethod
        def get_params(img, scale, ratio):  # type: ignore[override]
            low, high = math.log(ratio[0]), math.log(ratio[1])
            while True:
                area = img.width * img.height * torch.empty(1).uniform_(scale[0], scale[1]).item()
                aspect = math.exp(torch.empty(1).uniform_(low, high).item())
                width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
                if 0 < width <= img.width and 0 < height <= img.height:
                    top = torch.randint(0, img.height - height + 1, size=(1,)).item()
                    left = torch.randint(0, img.width - width + 1, size=(1,)).item()
                    return top, left, height, width

    jitter = transforms.ColorJitter(_JITTER.brightness, _JITTER.contrast, _JITTER.saturation, _JITTER.hue)
    rest = [
        ResizedCrop(_canvas(size), _BASE.area, _BASE.aspect, InterpolationMode.BICUBIC),
        transforms.RandomAffine(_BASE.rotation, shear=_BASE.shear, interpolation=InterpolationMode.BILINEAR, fill=0),
        transforms.CenterCrop(size),
        transforms.RandomApply([jitter], _JITTER.probability),
    ]
    if pad:
        rest += [transforms.RandomHorizontalFlip(), transforms.RandomCrop(size, padding=pad)]

    def transform(image: Image.Image) -> np.ndarray:
        first = transforms.RandomCrop(int(_BASE.initial_crop * min(image.size)))
        return _to_floats(transforms.Compose([first, *rest])(image))

    return transform


def _pillow_transform(size: int, pad: int, draw: random.Random) -> Transform:
    canvas, margin = _canvas(size), _margin(size)

    def transform(image: Image.Image) -> np.ndarray:
        side = int(_BASE.initial_crop * min(image.size))
        left, top = draw.randint(0, image.width - side), draw.randint(0, image.height - side)
        image = image.crop((left, top, left + side, top + side))
        left, top, width, height = _area_crop(side, draw)
        image = image.crop((left, top, left + width, top + height))
        image = image.resize((canvas, canvas), Image.Resampling.BICUBIC)
        angle, shear = (draw.uniform(-limit, limit) for limit in (_BASE.rotation, _BASE.shear))
        image = _turn(image, angle, shear)
        image = image.crop((margin, margin, margin + size, margin + size))
        if draw.random() < _JITTER.probability:
            image = _jitter(image, draw)
        if pad:
            if draw.random() < 0.5:
                image = ImageOps.mirror(image)
            image = ImageOps.expand(image, pad)
            left, top = draw.randint(0, 2 * pad), draw.randint(0, 2 * pad)
            image = image.crop((left, top, left + size, top + size))
        return _to_floats(image)

    return transform


def _area_crop(side: int, draw: random.Random) -> tuple[int, int, int, int]:
    """Left, top, width and height of a crop by area and aspect that fits into a square: drawn until one does."""
    while True:
        area = side * side * draw.uniform(*_BASE.area)
        aspect = math.exp(draw.uniform(math.log(_BASE.aspect[0]), math.log(_BASE.aspect[1])))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= side and 0 < height <= side:
            return draw.randint(0, side - width), draw.randint(0, side - height), width, height


def _jitter(image: Image.Image, draw: random.Random) -> Image.Image:
    """Colour jitter in a random order, as torchvision has it on Pillow images: hue is turned in HSV."""
    enhancers = {
        ImageEnhance.Brightness: _JITTER.brightness,
        ImageEnhance.Contrast: _JITTER.contrast,
        ImageEnhance.Color: _JITTER.saturation,
        None: _JITTER.hue,
    }
    for enhancer in draw.sample(list(enhancers), len(enhancers)):
        amount = enhancers[enhancer]
        if enhancer is not None:
            image = enhancer(image).enhance(draw.uniform(1 - amount, 1 + amount))
            continue
        hue, saturation, value = image.convert("HSV").split()
        turned = np.asarray(hue) + np.uint8(int(draw.uniform(-amount, amount) * 255) % 256)
        image = Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
    return image


def _canvas(size: int) -> int:
    return int(math.sqrt(2) * size)


def _margin(size: int) -> int:
    return round((_canvas(size) - size) / 2)


def _turn(image: Image.Image, angle: float, shear: float) -> Image.Image:
    matrix = rotation_shear_map(np.array([angle]), np.array([shear]), image.width)[0]
    return image.transform(image.size, Image.Transform.AFFINE, tuple(matrix.ravel()), Image.Resampling.BILINEAR)


def _to_floats(image: Image.Image) -> np.ndarray:
    return np.multiply(np.asarray(image), np.float32(1 / 255), dtype=np.float32)


@dataclass(frozen=True)
class ReferenceParameters:
    """What is drawn for the geometry of one view.

    Attributes:
        crop: left, top, width, height in pixels of the source image, not rounded.
        angle, shear: degrees.
        size: side of the view, in pixels.
    """

    crop: tuple[float, float, float, float]
    angle: float
    shear: float
    size: int


def parameters_of(views: ViewSet, n: np.ndarray) -> list[ReferenceParameters]:
    """The draws behind samples `n` (integers [batch]), found again from the numbers of their views.

    Args:
        views: of one image, with the border "black", without vertical flip and without augmentation.
    """
    numbers, size = views.numbers(n), views.recipe.size
    canvas = math.sqrt(2) * size
    found = []
    for affine, frame, level in zip(numbers.affine, numbers.frame, numbers.level):
        grown = 2.0 ** round(
            math.log2(views.atlas.sizes[0, 0] / level[1])
        )  # pixels of the image per pixel of the level
        left, top, right, bottom = (frame.astype(np.float64) + 0.5) * grown
        width, height = right - left, bottom - top
        turn = affine.reshape(2, 3)[:, :2] * grown * canvas / [[width], [height]]
        sin, cos = -turn[1, 0], turn[1, 1]
        shear = math.atan(turn[0, 1] * cos - turn[0, 0] * sin)
        angle = math.atan2(sin, cos)
        found.append(ReferenceParameters((left, top, width, height), math.degrees(angle), math.degrees(shear), size))
    return found


def render_reference(image: Image.Image, parameters: ReferenceParameters) -> np.ndarray:
    """One view with given geometry, in the reference's order, without jitter: float32 [size, size, 3] in [0, 1].

    The crop keeps its fractions of a pixel, which the reference rounds away.
    """
    canvas, margin, size = _canvas(parameters.size), _margin(parameters.size), parameters.size
    left, top, width, height = parameters.crop
    box = (max(left, 0), max(top, 0), min(left + width, image.width), min(top + height, image.height))
    image = image.resize((canvas, canvas), Image.Resampling.BICUBIC, box=box)
    image = _turn(image, parameters.angle, parameters.shear)
    return _to_floats(image.crop((margin, margin, margin + size, margin + size)))


def reference_map(parameters: ReferenceParameters) -> np.ndarray:
    """Where `render_reference` looks: float64 [2, 3], from pixels of the view to pixels of the source.

    Not quite where our renderer does: the canvas of √2 · size pixels and its margin are rounded here.
    """
    return _map(parameters, _canvas(parameters.size), _margin(parameters.size))


def exact_map(parameters: ReferenceParameters) -> np.ndarray:
    """The same without rounding, as our views have it."""
    canvas = math.sqrt(2) * parameters.size
    return _map(parameters, canvas, (canvas - parameters.size) / 2)


def _map(parameters: ReferenceParameters, canvas: float, margin: float) -> np.ndarray:
    turn = rotation_shear_map(np.array([parameters.angle]), np.array([parameters.shear]), canvas)
    return compose(box_map(np.array([parameters.crop]), canvas), turn, shift_map(np.full((1, 2), margin)))[0]
