"""Views of one audio clip: from the number of a sample to a few dozen numbers, pure NumPy.

As with views of images, a sample's base view is keyed on a permuted index of the finite set, its training-time
augmentation on the sample's own number.

A view is put together of windows that overlap by half (`AudioRecipe.hop`). Each is read from the source at the speed
that gives the pitch; from window to window reading moves on at another speed where the view is stretched. Jumps are
rounded to whole periods of the voice, measured beforehand, so that windows meet in step: a few operations here instead
of a search in the graph. Everything that filters is one product of spectra, and noise is added there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bridge.datum import audio_tables as tables
from bridge.datum.audio_files import SOUNDFILE, Reader
from bridge.datum.audio_recipes import SAMPLES, AudioAugmentation, AudioRecipe, Pair, audio_recipe
from bridge.datum.audio_sources import AudioSource, load_audio
from bridge.datum.counter import shuffled_index, uniforms
from bridge.datum.views import CountedSet
from bridge.errors import RecipeError

FADE = 0.005
"""Seconds in which silence begins and ends."""
_BASE_DRAWS = 9
_AUGMENTATION_DRAWS = 16


class AudioNumbers(NamedTuple):
    """Everything a renderer needs to make a batch of views. A tuple of arrays, so it travels through `tf.data`.

    Positions count values of `AudioSet.sound`, times are in samples of the view.

    Attributes:
        start: int32 [batch, 2]: where reading begins, of the first clip and of the second.
        reads: float32 [batch, hops + 1]: where the first clip is read, from there, at every hop.
        step: float32 [batch, 2]: how far reading moves on per sample; below 0 backwards.
        window: float32 [batch, 2]: where sound begins and where it ends; at both it fades over `FADE` seconds, inside.
        band: float32 [batch, 2]: corners of low and high cut, in Hz.
        room: int32 [batch]: row of `AudioSet.rooms`.
        noise: int32 [batch]: first value of `AudioSet.noise`.
        colour: float32 [batch]: minus half the exponent of the noise's power.
        level: float32 [batch, 4]: amplitude of the second clip against the first's, of the echo against the sound's,
            of the noise against all that, and of the whole.
    """

    start: Any
    reads: Any
    step: Any
    window: Any
    band: Any
    room: Any
    noise: Any
    colour: Any
    level: Any


class AudioSet(CountedSet):
    """All views of one clip.

    Args:
        source: whatever `load_audio` takes, or an `AudioSource`.
        recipe: an `AudioRecipe`.
        views: size of the finite set of base views that every epoch plays again in a new order and freshly augmented;
            None draws new ones for ever.
        seed: 0 ≤ seed < 2**64.

    Attributes:
        source, recipe, views, seed: as given, the source read.
        sound: float32 [values]: the source with `audio_tables.FINER` values per sample.
        rooms: complex64 [rooms, bins]: see `audio_tables.room_spectra`; one row where none is used.
        noise: complex64 [values]: see `audio_tables.noise_values`; as many as a view needs where none is used.

    Raises:
        DatumError: the clip cannot be read, or is shorter than a view. RecipeError: a value is out of range.
    """

    recipe: AudioRecipe

    def __init__(self, source: Any, recipe: AudioRecipe, *, views: int | None = None, seed: int = 0):
        super().__init__(views, seed)
        if not isinstance(source, AudioSource):
            source = load_audio(source, recipe.rate, shortest=recipe.samples)
        source.check(recipe.rate, recipe.samples)
        self.source, self.recipe = source, recipe
        self.sound = tables.finer(source.samples)
        extra, bins = recipe.augmentation or AudioAugmentation(noise=0, room=0), recipe.transform // 2 + 1
        self.rooms = (
            tables.room_spectra(recipe.rate, recipe.transform, extra.decay)
            if extra.room
            else np.zeros((1, bins), np.complex64)
        )
        self.noise = tables.noise_values(bins) if extra.noise else np.zeros(bins, np.complex64)
        stretches = recipe.base.stretched > 0 and recipe.base.stretch != (1, 1)
        self._periods = tables.periods(source.samples, recipe.rate) if stretches else np.zeros(1, np.float32)

    def numbers(self, n: np.ndarray) -> AudioNumbers:
        """The numbers of samples `n` (integers [batch]): see `AudioNumbers`."""
        n = np.asarray(n, dtype=np.int64)
        recipe = self.recipe
        shift, values = self._augmentation(n)
        u = uniforms(self.seed, "base", shuffled_index(self.seed, n, self.views), _BASE_DRAWS)
        base = recipe.base
        speed = np.minimum(_between(u[0], base.speed, log=True), self._fastest)
        stretch = np.where(u[1] < base.stretched, _between(u[2], base.stretch, log=True), 1.0)
        pace = np.minimum(speed / stretch, self._fastest)  # of the reading, in samples of the source per sample
        turned = np.where(u[3] < base.reverse, -1.0, 1.0)
        start, reads = self._reads(u[4], speed * turned, pace * turned, shift)
        second = np.minimum(_between(u[6], base.speed, log=True), self._fastest)
        start2, _ = self._span(u[7], second)
        mixed = np.where(u[5] < base.mixed, _amplitude(-_between(u[8], base.mixed_snr)), 0.0)
        first_of_second = np.floor(start2)
        step = np.stack([speed * turned, second], axis=1) * tables.FINER
        level = np.stack([mixed, *values.pop("level")], axis=1)
        return AudioNumbers(
            start=np.stack([start, first_of_second], axis=1).astype(np.int32),
            reads=reads.astype(np.float32),
            step=step.astype(np.float32),
            level=level.astype(np.float32),
            **values,
        )

    @property
    def _fastest(self) -> float:
        """The highest speed at which a view still fits into the source."""
        return len(self.source.samples) / self.recipe.samples

    def _span(self, u: np.ndarray, pace: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where a view may begin that is read at this pace, and how long it is: both in values of `sound`."""
        extent = np.abs(pace) * self.recipe.samples * tables.FINER
        first = u * np.maximum(len(self.sound) - 1 - extent, 0)
        return np.where(pace < 0, first + extent, first), extent

    def _reads(
        self, u: np.ndarray, speed: np.ndarray, pace: np.ndarray, shift: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where reading begins [n], and where it is at every hop from there [n, hops + 1], in values of `sound`."""
        recipe = self.recipe
        begin, _ = self._span(u, pace)
        start = np.floor(begin)
        times = np.arange(recipe.hops + 1)[:, None] * recipe.hop - shift
        wanted = (begin - start) + pace * times * tables.FINER
        if not recipe.base.stretched:
            return start, wanted.T
        reads, on = np.empty_like(wanted), speed * recipe.hop * tables.FINER
        reads[0] = wanted[0]
        by, last = tables.PITCH_STEP * tables.FINER, len(self._periods) - 1
        for k in range(recipe.hops):
            straight = reads[k] + on
            place = np.clip((start + straight) // by, 0, last).astype(np.int64)
            period = self._periods[place].astype(np.float64) * tables.FINER
            jump = wanted[k + 1] - straight
            in_step = np.rint(jump / np.maximum(period, 1.0)) * period
            reads[k + 1] = straight + np.where(period > 0, in_step, jump)
        return start, reads.T

    def _augmentation(self, n: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Shift [n] in samples, and all of `AudioNumbers` that is not about reading."""
        recipe, extra, count = self.recipe, self.recipe.augmentation, len(n)
        fade, length = FADE * recipe.rate, float(recipe.samples)
        begin, end = np.full(count, -fade), np.full(count, length + fade)
        band, zeros = np.tile([0.0, 1e9], (count, 1)), np.zeros(count)
        room = noise = np.zeros(count, np.int32)
        level, colour, shift = [zeros, zeros, zeros + 1], zeros, zeros
        if extra is not None:
            u = uniforms(self.seed, "augmentation", n, _AUGMENTATION_DRAWS)
            shift = np.rint((2 * u[0] - 1) * extra.shift * recipe.rate)
            kept = (extra.kept + (1 - extra.kept) * u[2]) * length
            part = np.where(u[1] < extra.silence, u[3] * (length - kept), -fade)
            begin = np.maximum(part, np.where(shift > 0, shift, -fade))
            end = np.minimum(np.where(u[1] < extra.silence, part + kept, end), np.where(shift < 0, length + shift, end))
            band[:, 0] = np.where(u[4] < extra.low_cut, _between(u[5], extra.low_corner, log=True), 0.0)
            high = _between(u[7], extra.high_corner, log=True) * recipe.rate / 2
            band[:, 1] = np.where(u[6] < extra.high_cut, high, 1e9)
            echo = np.where(u[8] < extra.room, _amplitude(-_between(u[10], extra.room_ratio)), 0.0)
            loud = np.where(u[11] < extra.noise, _amplitude(-_between(u[12], extra.noise_snr)), 0.0)
            room = (u[9] * len(self.rooms)).astype(np.int32)
            noise = (u[14] * (len(self.noise) - recipe.transform // 2)).astype(np.int32)
            colour = -0.5 * _between(u[13], extra.noise_colour)
            level = [echo, loud, _amplitude(_between(u[15], extra.gain))]
        return shift, {
            "window": np.stack([begin, end], axis=1).astype(np.float32),
            "band": band.astype(np.float32),
            "room": room,
            "noise": noise,
            "colour": colour.astype(np.float32),
            "level": level,
        }


def make_audio_set(
    audio: Any,
    rate: int,
    seconds: float,
    recipe: str | AudioRecipe | None,
    *,
    views: int | None,
    seed: int,
    reader: Reader = SOUNDFILE,
) -> AudioSet:
    """An audio set from options.

    Args:
        audio: whatever `load_audio` takes.
        rate: samples per second of a view.
        seconds: of a view.
        recipe: an `AudioRecipe` of these, the name of one, or None for "audio".
        views, seed: as for `AudioSet`.
        reader: which library decodes files.

    Raises:
        DatumError: the clip cannot be read. RecipeError: a value is out of range.
    """
    samples = samples_of_view(rate, seconds)
    if not isinstance(recipe, AudioRecipe):
        recipe = audio_recipe(recipe, rate, samples)
    if (recipe.rate, recipe.samples) != (rate, samples):
        raise RecipeError(
            f"rate (={rate}) and seconds (={seconds:g}) and the recipe's rate (={recipe.rate}) and samples "
            f"(={recipe.samples}) must be equal."
        )
    source = audio if isinstance(audio, AudioSource) else load_audio(audio, rate, shortest=samples, reader=reader)
    return AudioSet(source, recipe, views=views, seed=seed)


def samples_of_view(rate: int, seconds: float) -> int:
    """Samples of a view so long.

    Raises:
        RecipeError: it would be too short or too long.
    """
    samples = round(rate * seconds) if 0 < seconds < 1e6 else 0
    if not SAMPLES[0] <= samples <= SAMPLES[1]:
        raise RecipeError(
            f"seconds (={seconds:g}), the length of a view, must be between {SAMPLES[0] / rate:g} and "
            f"{SAMPLES[1] / rate:g} at {rate} samples per second."
        )
    return samples


def _between(u: np.ndarray, pair: Pair, log: bool = False) -> np.ndarray:
    """Uniform, or log-uniform, in a range."""
    low, high = np.log(pair) if log else pair
    value = low + (high - low) * u
    return np.exp(value) if log else value


def _amplitude(decibels: np.ndarray) -> np.ndarray:
    return 10.0 ** (decibels / 20)
