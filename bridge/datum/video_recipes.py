"""What a fake clip of one image may be: every range and chance of the recipe, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from bridge.datum.recipes import Jitter, check_base, check_border, check_chances, check_sizes, digest_of
from bridge.errors import RecipeError
from bridge.names import lookup

MOTIONS = {"linear": 2, "smooth": 4, "none": 2}
"""Ways of a clip's box, and by how many boxes each is laid down."""


@dataclass(frozen=True)
class BaseClip:
    """A box that wanders over the source image. Defaults: Asano & Saeed 2023, as read in the reference code.

    Attributes:
        initial_crop: side of the square crop in which the box stays, as a share of the image's shorter side.
        area: a box's area as a share of that crop's, drawn uniformly.
        aspect: its width / height, drawn log-uniformly; a box is stretched to a square.
        motion: "linear": from one box straight to another; "smooth" (ours): along a cubic Bézier curve through four
            boxes, each turned; "none" (ours, a control): a frame of "linear" at any moment, which stands still.
        rotation: largest angle of the boxes of "smooth" in degrees, drawn uniformly in [−rotation, rotation] (ours).
        vertical_flip: chance; of the whole clip. The reference declares flips and never applies them.
        jitter: colour jitter of the whole clip, or None.
    """

    initial_crop: float = 0.5
    area: tuple[float, float] = (1 / 500, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    motion: str = "linear"
    rotation: float = 30.0
    vertical_flip: float = 0.0
    jitter: Jitter | None = field(default_factory=Jitter)


@dataclass(frozen=True)
class AugMix:
    """AugMix of a clip, as far as it fits one sampling: see `bridge.datum.augmix`. Defaults: pytorchvideo's.

    Attributes:
        magnitude: largest level of an operation, out of 10.
        chains: how many chains of operations are mixed.
        depth: length of the longest chain; lengths from 1 on are equally likely.
    """

    magnitude: float = 3.0
    chains: int = 3
    depth: int = 3


@dataclass(frozen=True)
class ClipAugmentation:
    """What is drawn anew each time a base clip is shown, the same for all its frames.

    Attributes:
        span: share of the box's way that the clip shows, from a moment drawn uniformly. The reference writes videos of
            8 frames in 2/3 s and trains with 1/3 s of them.
        augmix: or None.
        short_side: smallest and largest side in pixels to which a frame is scaled before a square of `size` is cut
            from it; integers, uniform.
        flip: chance of a horizontal flip.
    """

    span: float = 0.5
    augmix: AugMix | None = AugMix()
    short_side: tuple[int, int] = (183, 229)
    flip: float = 0.5


@dataclass(frozen=True)
class VideoRecipe:
    """One datum → all clips made of it.

    Attributes:
        size: side of the frames the network sees, in pixels.
        frames: how many it sees.
        base_size: side of a base clip's frames, in pixels.
        base: how the box wanders.
        augmentation: training-time augmentation, or None.
        border: what shows where AugMix turns or moves the frame away: "black" fills with zero outside the box (with
            motion="smooth" outside the initial crop); "extend" lets the photograph go on there (ours).
    """

    size: int = 160
    frames: int = 4
    base_size: int = 230
    base: BaseClip = BaseClip()
    augmentation: ClipAugmentation | None = ClipAugmentation()
    border: str = "black"

    def __post_init__(self) -> None:
        check_border(self.border)
        check_sizes(self)
        if not 1 <= self.frames <= 1024:
            raise RecipeError(f"frames (={self.frames}) must be between 1 and 1024.")
        check_base(self.base)
        lookup(MOTIONS, self.base.motion, "motion", RecipeError)
        if not 0 <= self.base.rotation <= 45:
            raise RecipeError(f"base.rotation (={self.base.rotation}) of a clip must be in [0, 45] degrees.")
        extra = self.augmentation
        if extra is None:
            if self.size != self.base_size:
                raise RecipeError(
                    f"size (={self.size}) and base_size (={self.base_size}) may differ only where there is an "
                    "augmentation; make them equal."
                )
            return
        if not 0 < extra.span <= 1:
            raise RecipeError(f"augmentation.span (={extra.span}) must be in (0, 1].")
        low, high = extra.short_side
        if not self.size <= low <= high <= 2**16:
            raise RecipeError(
                f"augmentation.short_side (={(low, high)}) must be a pair low ≤ high of at least size (={self.size}) "
                "pixels."
            )
        check_chances("augmentation", extra, ("flip",))
        mix = extra.augmix
        if mix is not None and not (0.1 <= mix.magnitude <= 10 and 1 <= mix.chains <= 8 and 1 <= mix.depth <= 8):
            raise RecipeError(
                f"augmentation.augmix (={mix}) must have a magnitude in [0.1, 10], 1 to 8 chains and a depth of 1 to 8."
            )

    @property
    def colour_stages(self) -> int:
        """How many colour stages the renderer runs: 0, 1 or 2."""
        return int(self.base.jitter is not None) + int(
            self.augmentation is not None and self.augmentation.augmix is not None
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one clip: frames, height, width and channels."""
        return self.frames, self.size, self.size, 3

    @property
    def pixels(self) -> int:
        """Of one clip."""
        return self.frames * self.size**2

    @property
    def has_window(self) -> bool:
        """As of an `ImageRecipe`: a clip has no border of its own."""
        return False

    @property
    def has_tone(self) -> bool:
        """As of an `ImageRecipe`: no clip is turned grey or solarised."""
        return False

    def without_augmentation(self) -> VideoRecipe:
        """The base clips alone, at their own size."""
        return dataclasses.replace(self, size=self.base_size, augmentation=None)

    @property
    def digest(self) -> str:
        """SHA-256 over every value, to tell whether a run resumes with the recipe it began with."""
        return digest_of(self)


def video(size: int = 160, frames: int = 4, motion: str = "linear") -> VideoRecipe:
    """The video recipe of Asano & Saeed 2023: 230 px base clips, AugMix, short side 183 to 229, 160 px crop, flip."""
    scaled = [round(size * side / 160) for side in (183, 229, 230)]
    return VideoRecipe(
        size=size, frames=frames, base_size=scaled[2], base=BaseClip(motion=motion),
        augmentation=ClipAugmentation(short_side=(scaled[0], scaled[1])),
    )  # fmt: skip


def steady_video(size: int = 160, frames: int = 4, motion: str = "linear") -> VideoRecipe:
    """`video` in steady light (ours): neither jitter nor AugMix, and the whole of the box's way in every clip."""
    plain = video(size, frames, motion)
    assert plain.augmentation is not None
    return dataclasses.replace(
        plain,
        base=dataclasses.replace(plain.base, jitter=None),
        augmentation=dataclasses.replace(plain.augmentation, augmix=None, span=1.0),
    )


VIDEO_RECIPES = {"video": video, "steady": steady_video}


def video_recipe(name: str | None, size: int, frames: int, motion: str) -> VideoRecipe:
    """A video recipe by name; None takes "video".

    Raises:
        RecipeError: unknown name.
    """
    return lookup(VIDEO_RECIPES, name or "video", "video recipe", RecipeError)(size, frames, motion)
