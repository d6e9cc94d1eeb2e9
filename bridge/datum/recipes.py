"""What an image view may be: every range and chance of the recipe, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from bridge.errors import RecipeError
from bridge.names import lookup


@dataclass(frozen=True)
class Jitter:
    """Colour jitter. Factors are uniform in [1 − x, 1 + x], the hue turn in [−hue, hue] of a full circle."""

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    probability: float = 0.5


@dataclass(frozen=True)
class BaseView:
    """One patch cut from the source image. Defaults: Asano & Saeed 2023, as read in the reference code.

    Attributes:
        initial_crop: side of the first square crop as a share of the image's shorter side.
        area: the second crop's area as a share of the first's, drawn uniformly.
        aspect: its width / height, drawn log-uniformly.
        rotation, shear: largest angle in degrees; both are uniform in [−x, x], shear along x only.
        vertical_flip: chance.
        jitter: colour jitter of the patch, or None.
    """

    initial_crop: float = 0.5
    area: tuple[float, float] = (1 / 500, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    rotation: float = 30.0
    shear: float = 30.0
    vertical_flip: float = 0.0
    jitter: Jitter | None = Jitter()


@dataclass(frozen=True)
class Augmentation:
    """What is drawn anew each time a base view is shown.

    Attributes:
        flip: chance of a horizontal flip.
        pad: pixels of border around the base view before a random crop of the output size (0: none).
        area, aspect: a resized crop of the base view instead (torchvision's RandomResizedCrop), or None.
        jitter: second colour jitter, or None.
        grey, solarise: chances; solarising inverts what is brighter than one half.
    """

    flip: float = 0.5
    pad: int = 0
    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    jitter: Jitter | None = None
    grey: float = 0.0
    solarise: float = 0.0


@dataclass(frozen=True)
class ImageRecipe:
    """One datum → all its views.

    Attributes:
        size: side of the square the network sees, in pixels.
        base_size: side of the base view, in pixels.
        base: how the base view is cut, or None where the source already is a folder of patches.
        augmentation: training-time augmentation, or None.
        border: "black" fills with zero outside the rotated frame and the padded view, as the reference does;
            "extend" lets the photograph go on there (ours).
    """

    size: int = 32
    base_size: int = 32
    base: BaseView | None = BaseView()
    augmentation: Augmentation | None = Augmentation(pad=4)
    border: str = "black"

    def __post_init__(self) -> None:
        check_border(self.border)
        check_sizes(self)
        if self.base is not None:
            check_base(self.base)
            if not 0 <= self.base.rotation <= 180 or not 0 <= self.base.shear < 90:
                raise RecipeError(
                    f"base.rotation (={self.base.rotation}) must be in [0, 180] and base.shear (={self.base.shear}) "
                    "in [0, 90) degrees."
                )
        extra = self.augmentation
        if extra is not None:
            if extra.area is not None:
                check_range("augmentation.area", extra.area, 0, 1)
                check_range("augmentation.aspect", extra.aspect, 0, 100)
            if extra.area is not None and extra.pad:
                raise RecipeError("augmentation: give either pad or area, not both.")
            if not 0 <= extra.pad < self.base_size:
                raise RecipeError(f"augmentation.pad (={extra.pad}) must be in [0, base_size={self.base_size}).")
            check_chances("augmentation", extra, ("flip", "grey", "solarise"))
            check_jitter("augmentation.jitter", extra.jitter)
        if (extra is None or extra.area is None) and self.size != self.base_size:
            raise RecipeError(
                f"size (={self.size}) and base_size (={self.base_size}) may differ only where the augmentation crops "
                "by area; make them equal or set augmentation.area."
            )

    @property
    def colour_stages(self) -> int:
        """How many colour stages the renderer runs: 0, 1 or 2."""
        return len([j for j in self.jitters if j is not None])

    @property
    def jitters(self) -> tuple[Jitter | None, Jitter | None]:
        """The base view's jitter and the augmentation's."""
        return (self.base.jitter if self.base else None, self.augmentation.jitter if self.augmentation else None)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one view: height, width and channels."""
        return self.size, self.size, 3

    @property
    def pixels(self) -> int:
        """Of one view."""
        return self.size**2

    @property
    def has_window(self) -> bool:
        """Whether a view may have a black border of its own."""
        return self.augmentation is not None and self.augmentation.pad > 0

    @property
    def has_tone(self) -> bool:
        """Whether any view may be turned grey or solarised."""
        return self.augmentation is not None and (self.augmentation.grey > 0 or self.augmentation.solarise > 0)

    def for_patches(self) -> ImageRecipe:
        """The same recipe for ready-made patches: they are the base views, so only the augmentation stays."""
        return dataclasses.replace(self, base=None)

    def without_augmentation(self) -> ImageRecipe:
        """The base views alone, at their own size."""
        return dataclasses.replace(self, size=self.base_size, augmentation=None)

    @property
    def digest(self) -> str:
        """SHA-256 over every value, to tell whether a run resumes with the recipe it began with."""
        return digest_of(self)


def cifar(size: int = 32) -> ImageRecipe:
    """The small-image recipe of Asano & Saeed 2023: base views, then flip and pad-4 crop."""
    return ImageRecipe(size=size, base_size=size, augmentation=Augmentation(flip=0.5, pad=round(size / 8)))


def steady(size: int = 32) -> ImageRecipe:
    """`cifar` in steady light and without black (ours): no jitter, and the photograph goes on beyond a view's frame.

    A source without content then stays without content: boxes of differently lit grey and black frames, from which a
    student learns something of digits even without a photograph, are gone.
    """
    small = cifar(size)
    return dataclasses.replace(small, base=BaseView(jitter=None), border="extend")


def imagenet(size: int = 224) -> ImageRecipe:
    """The ImageNet recipe of Asano & Saeed 2023: 256 px base views, resized crop, jitter, grey, solarise, flip."""
    return ImageRecipe(
        size=size,
        base_size=round(size * 256 / 224),
        augmentation=Augmentation(
            flip=0.5, area=(0.08, 1.0), jitter=Jitter(hue=0.4, probability=0.8), grey=0.2, solarise=0.2
        ),
    )


RECIPES = {"cifar": cifar, "steady": steady, "imagenet": imagenet}


def recipe(name: str | None, size: int) -> ImageRecipe:
    """A recipe by name; None takes "cifar" below 96 pixels and "imagenet" from there on (ours).

    Raises:
        RecipeError: unknown name.
    """
    if name is None:
        name = "cifar" if size < 96 else "imagenet"
    return lookup(RECIPES, name, "view recipe", RecipeError)(size)


def digest_of(recipe: Any) -> str:
    """SHA-256 over every value of a recipe."""
    return hashlib.sha256(json.dumps(dataclasses.asdict(recipe), sort_keys=True).encode()).hexdigest()


def check_border(border: str) -> None:
    """As do all checks: Raises: RecipeError."""
    if border not in ("black", "extend"):
        raise RecipeError(f"border (={border!r}) must be 'black' or 'extend'.")


def check_sizes(recipe: Any) -> None:
    """Sides of views and of base views."""
    for name in ("size", "base_size"):
        if not 1 <= getattr(recipe, name) <= 4096:
            raise RecipeError(f"{name} (={getattr(recipe, name)}) must be between 1 and 4096 pixels.")


def check_base(base: Any) -> None:
    """What base views and base clips have in common."""
    check_range("base.area", base.area, 0, 1)
    check_range("base.aspect", base.aspect, 0, 100)
    if not 0 < base.initial_crop <= 1:
        raise RecipeError(f"base.initial_crop (={base.initial_crop}) must be in (0, 1].")
    check_chances("base", base, ("vertical_flip",))
    check_jitter("base.jitter", base.jitter)


def check_range(name: str, pair: tuple[float, float], low: float, high: float) -> None:
    """A pair of numbers."""
    if len(pair) != 2 or not low < pair[0] <= pair[1] <= high:
        raise RecipeError(f"{name} (={tuple(pair)}) must be a pair low ≤ high within ({low}, {high}].")


def check_chances(where: str, part: Any, names: tuple[str, ...]) -> None:
    """Attributes of a part of a recipe that are chances."""
    for name in names:
        if not 0 <= getattr(part, name) <= 1:
            raise RecipeError(f"{where}.{name} (={getattr(part, name)}) is a chance and must be in [0, 1].")


def check_jitter(name: str, jitter: Jitter | None) -> None:
    """Its amounts and its chance."""
    if jitter is None:
        return
    for field in dataclasses.fields(jitter):
        value = getattr(jitter, field.name)
        top = 0.5 if field.name == "hue" else 1.0
        if not 0 <= value <= top:
            raise RecipeError(f"{name}.{field.name} (={value}) must be in [0, {top}].")
