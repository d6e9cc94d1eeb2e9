"""What a view of an audio clip may be: every range and chance, as frozen dataclasses.

The paper distils from one audio clip without saying how its views are drawn and without code for it, so all that stands
here is ours.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from bridge.datum.recipes import check_chances, digest_of
from bridge.errors import RecipeError
from bridge.names import lookup

RATES = (4_000, 192_000)
"""Samples per second that views may have."""
SAMPLES = (256, 2**18)
"""Samples that a view may have: 16 s at 16 kHz. Positions in longer ones would be rounded too far."""
Pair = tuple[float, float]


@dataclass(frozen=True)
class BaseAudio:
    """One stretch of the source, drawn once for each view of the finite set. Defaults: ours.

    Attributes:
        speed: how many times faster it is read, drawn log-uniformly; moves pitch and tempo together, as a tape does.
        stretch: how many times longer it is made without moving its pitch, drawn log-uniformly.
        stretched: chance of that.
        reverse: chance that it is read backwards.
        mixed: chance that a second stretch of the source sounds along with it, at a speed of its own.
        mixed_snr: how much louder the first is than the second, in dB, drawn uniformly.
    """

    speed: Pair = (0.75, 1.35)
    stretch: Pair = (0.75, 1.35)
    stretched: float = 0.5
    reverse: float = 0.05
    mixed: float = 0.3
    mixed_snr: Pair = (-3.0, 15.0)


@dataclass(frozen=True)
class AudioAugmentation:
    """What is drawn anew each time a base view is heard. Defaults: ours.

    Attributes:
        gain: loudness against the source's own, in dB, drawn uniformly; what then passes ±1 is cut off there.
        shift: how far a view is moved, in seconds, uniform in [−x, x]; silence moves in.
        silence: chance that only a part of the view sounds, with silence before and after it.
        kept: how much of the view that is at least, as a share; drawn uniformly up to all of it.
        noise: chance of noise.
        noise_snr: how much louder the view is than the noise, in dB, drawn uniformly.
        noise_colour: the noise's power falls with frequency to this power, drawn uniformly: −1 blue, 0 white, 1 pink,
            2 brown.
        low_cut: chance that low frequencies are cut off, by a Butterworth filter of fourth order without delay.
        low_corner: where it halves the power, in Hz, drawn log-uniformly.
        high_cut, high_corner: the same for high frequencies; the corner as a share of half the rate.
        room: chance of reverberation.
        decay: after how many seconds the room's echo has fallen by 60 dB, drawn log-uniformly.
        room_ratio: how much louder the sound is than its echo, in dB, drawn uniformly.
    """

    gain: Pair = (-15.0, 6.0)
    shift: float = 0.1
    silence: float = 0.3
    kept: float = 0.3
    noise: float = 0.5
    noise_snr: Pair = (0.0, 40.0)
    noise_colour: Pair = (-0.5, 2.0)
    low_cut: float = 0.2
    low_corner: Pair = (80.0, 800.0)
    high_cut: float = 0.2
    high_corner: Pair = (0.25, 0.9)
    room: float = 0.3
    decay: Pair = (0.1, 1.0)
    room_ratio: Pair = (0.0, 20.0)


@dataclass(frozen=True)
class AudioRecipe:
    """One clip → all its views.

    Attributes:
        rate: samples per second.
        samples: of one view.
        base: how base views are cut.
        augmentation: training-time augmentation, or None.
    """

    rate: int = 16_000
    samples: int = 16_000
    base: BaseAudio = BaseAudio()
    augmentation: AudioAugmentation | None = AudioAugmentation()

    def __post_init__(self) -> None:
        for name, (low, high) in (("rate", RATES), ("samples", SAMPLES)):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise RecipeError(f"{name} (={value!r}) must be a whole number between {low} and {high}.")
        base, extra = self.base, self.augmentation
        check_pair("base.speed", base.speed, 0.25, 4)
        check_pair("base.stretch", base.stretch, 0.25, 4)
        check_pair("base.mixed_snr", base.mixed_snr, -120, 120)
        check_chances("base", base, ("stretched", "reverse", "mixed"))
        if extra is None:
            return
        for name in ("gain", "noise_snr", "room_ratio"):
            check_pair(f"augmentation.{name}", getattr(extra, name), -120, 120)
        check_pair("augmentation.noise_colour", extra.noise_colour, -4, 4)
        check_pair("augmentation.low_corner", extra.low_corner, 1, self.rate / 2)
        check_pair("augmentation.high_corner", extra.high_corner, 0.01, 1)
        check_pair("augmentation.decay", extra.decay, 0.01, 10)
        check_chances("augmentation", extra, ("silence", "kept", "noise", "low_cut", "high_cut", "room"))
        if not 0 <= extra.shift <= self.seconds:
            raise RecipeError(
                f"augmentation.shift (={extra.shift}) must be in [0, {self.seconds:g}] seconds, the length of a view."
            )

    @property
    def seconds(self) -> float:
        """Of one view."""
        return self.samples / self.rate

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one view."""
        return (self.samples,)

    @property
    def pixels(self) -> int:
        """Values of one view; the name is that of the other recipes."""
        return self.samples

    @property
    def hop(self) -> int:
        """Samples from one window to the next in which a view is put together: 32 ms."""
        return min(round(0.032 * self.rate), self.samples)

    @property
    def hops(self) -> int:
        """Of one view, the last cut off where need be."""
        return math.ceil(self.samples / self.hop)

    @property
    def filters(self) -> bool:
        """Whether any view is filtered, echoes or holds noise."""
        extra = self.augmentation
        return extra is not None and any((extra.noise, extra.low_cut, extra.high_cut, extra.room))

    @property
    def transform(self) -> int:
        """Samples of the Fourier transform in which a view is filtered: the next power of two."""
        return 1 << (self.samples - 1).bit_length()

    def without_augmentation(self) -> AudioRecipe:
        """The base views alone."""
        return dataclasses.replace(self, augmentation=None)

    @property
    def digest(self) -> str:
        """SHA-256 over every value, to tell whether a run resumes with the recipe it began with."""
        return digest_of(self)


def audio(rate: int = 16_000, samples: int = 16_000) -> AudioRecipe:
    """All of it (ours)."""
    corners = AudioAugmentation().low_corner
    low = (min(corners[0], rate / 4), min(corners[1], rate / 4))
    shift = min(AudioAugmentation().shift, samples / rate)
    return AudioRecipe(rate, samples, augmentation=AudioAugmentation(low_corner=low, shift=shift))


def crop(rate: int = 16_000, samples: int = 16_000) -> AudioRecipe:
    """Nothing but stretches of the source as they are (ours): to see what the rest is good for."""
    plain = BaseAudio(speed=(1.0, 1.0), stretched=0.0, reverse=0.0, mixed=0.0)
    return AudioRecipe(rate, samples, base=plain, augmentation=None)


AUDIO_RECIPES = {"audio": audio, "crop": crop}


def audio_recipe(name: str | None, rate: int, samples: int) -> AudioRecipe:
    """An audio recipe by name; None takes "audio".

    Raises:
        RecipeError: unknown name.
    """
    return lookup(AUDIO_RECIPES, name or "audio", "audio recipe", RecipeError)(rate, samples)


def check_pair(name: str, pair: Any, low: float, high: float) -> None:
    """A pair of numbers. Raises: RecipeError."""
    if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
        raise RecipeError(f"{name} (={tuple(pair)}) must be a pair low ≤ high within [{low:g}, {high:g}].")
