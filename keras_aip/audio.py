"""Views of one audio clip in TensorFlow: the renderer and `single_audio_dataset`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from bridge.datum import audio_tables as tables
from bridge.datum.audio import FADE, AudioNumbers, AudioSet, make_audio_set
from bridge.datum.audio_recipes import AudioRecipe
from bridge.datum.audio_render import QUIET
from keras_aip.audio_files import READER
from keras_aip.compat import XLA_TRANSFORMS
from keras_aip.counted import counted_dataset
from keras_aip.strategy import on_other_devices


class AudioRenderer:
    """Plays audio numbers as waveforms, on whatever device the graph it is called in runs on.

    Two XLA programs: reading, then everything else. In a single one reading would be fused into the sums that loudness
    needs and done again. All shapes are static.

    Args:
        audio_set: whose source and recipe the numbers belong to.
        jit_compile: with XLA, or as ordinary operations; None chooses what is fast here.
    """

    numbers = AudioNumbers

    def __init__(self, audio_set: AudioSet, jit_compile: bool | None = None):
        self.recipe = recipe = audio_set.recipe
        self._sound, self._rooms, self._noise = map(tf.constant, (audio_set.sound, audio_set.rooms, audio_set.noise))
        self._hertz = tables.frequencies(recipe.rate, recipe.transform)
        read, shape = (True, XLA_TRANSFORMS) if jit_compile is None else (jit_compile, jit_compile)
        self._read = tf.function(self._read_plain, jit_compile=read or None)
        self._shape = tf.function(self._shape_plain, jit_compile=shape or None)

    def place(self, strategy: tf.distribute.Strategy) -> None:
        """Keep the source on the devices of a strategy, as variables; constants would be sent there every step."""
        if on_other_devices(strategy) and isinstance(self._sound, tf.Tensor):
            with strategy.scope():
                self._sound, self._rooms, self._noise = (
                    tf.Variable(table, trainable=False) for table in (self._sound, self._rooms, self._noise)
                )

    def __call__(self, numbers: AudioNumbers) -> tf.Tensor:
        """Numbers of one batch → float32 [batch, samples] in [-1, 1]."""
        numbers = AudioNumbers(*numbers)
        sound, rooms, noise = map(tf.convert_to_tensor, (self._sound, self._rooms, self._noise))
        first, second = self._read(sound, numbers.start, numbers.reads, numbers.step)
        return self._shape(first, second, rooms, noise, *numbers[3:])

    def _read_plain(
        self, sound: tf.Tensor, start: tf.Tensor, reads: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Both clips: float32 [batch, samples] each; where none is mixed, the first again."""
        recipe = self.recipe
        start1, start2 = tf.split(start, 2, axis=1)
        step1, step2 = tf.split(step, 2, axis=1)
        begin, ahead_by = tf.expand_dims(start1, -1), tf.expand_dims(step1, -1)
        since = tf.range(recipe.hop, dtype=tf.float32) * ahead_by
        first = _between_values(sound, begin, tf.expand_dims(reads[:, :-1], -1) + since)
        if recipe.base.stretched:
            before = since - float(recipe.hop) * ahead_by
            rising = _between_values(sound, begin, tf.expand_dims(reads[:, 1:], -1) + before)
            first += tables.edges(recipe.hop) * (rising - first)
        first = tf.reshape(first, [-1, recipe.hops * recipe.hop])[:, : recipe.samples]
        if not recipe.base.mixed:
            return first, first
        return first, _between_values(sound, start2, tf.range(recipe.samples, dtype=tf.float32) * step2)

    def _shape_plain(
        self,
        sound: tf.Tensor,
        other: tf.Tensor,
        rooms: tf.Tensor,
        noises: tf.Tensor,
        window: tf.Tensor,
        band: tf.Tensor,
        room: tf.Tensor,
        noise: tf.Tensor,
        colour: tf.Tensor,
        level: tf.Tensor,
    ) -> tf.Tensor:
        """Mixing, silence, filters, echo, noise and loudness."""
        recipe = self.recipe
        second, echo, loud, gain = tf.split(level, 4, axis=1)
        if recipe.base.mixed:
            sound += second * tf.sqrt(_sum(sound**2) / tf.maximum(_sum(other**2), QUIET**2 * recipe.samples)) * other
        if recipe.augmentation is None:
            return tf.clip_by_value(sound, -1.0, 1.0)
        begin, end = tf.split(window, 2, axis=1)
        time, fade = tf.range(recipe.samples, dtype=tf.float32), FADE * recipe.rate
        sound *= tf.clip_by_value((time - begin) / fade, 0.0, 1.0) * tf.clip_by_value((end - time) / fade, 0.0, 1.0)
        if recipe.filters:
            spectrum = self._filtered(tf.signal.rfft(sound, [recipe.transform]), rooms, room, band, echo)
            if recipe.augmentation.noise:
                spectrum += self._scaled_noise(spectrum, noises, noise, colour, loud)
            sound = tf.signal.irfft(spectrum, [recipe.transform])[:, : recipe.samples]
        return tf.clip_by_value(gain * sound, -1.0, 1.0)

    def _filtered(
        self, spectrum: tf.Tensor, rooms: tf.Tensor, room: tf.Tensor, band: tf.Tensor, echo: tf.Tensor
    ) -> tf.Tensor:
        low, high = tf.split(band, 2, axis=1)
        cut = _fourth(tf.square(low / self._hertz)), _fourth(tf.square(self._hertz / high))
        passed = tf.math.rsqrt((1 + cut[0]) * (1 + cut[1]) * (1 + echo**2))
        echoed = tf.gather(rooms, room)
        real, imaginary = passed * (1 + echo * tf.math.real(echoed)), passed * echo * tf.math.imag(echoed)
        return spectrum * tf.complex(real, imaginary)

    def _scaled_noise(
        self, spectrum: tf.Tensor, noises: tf.Tensor, first: tf.Tensor, colour: tf.Tensor, loud: tf.Tensor
    ) -> tf.Tensor:
        place = tf.expand_dims(first, 1) + tf.range(len(self._hertz))
        logarithm = np.log(self._hertz / tables.PIVOT)
        white = tf.gather(noises, place)
        tilt = tables.heard(self._hertz) * tf.exp(tf.expand_dims(colour, 1) * logarithm)
        real, imaginary = tilt * tf.math.real(white), tilt * tf.math.imag(white)
        scale = loud * tf.sqrt(_energy(spectrum) / tf.maximum(_sum(real**2 + imaginary**2), QUIET))
        return tf.complex(scale * real, scale * imaginary)


def _between_values(sound: tf.Tensor, start: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """The sound at these positions, by straight lines between its values; its ends go on."""
    values: Any = sound.shape[0]
    whole = tf.floor(position)
    index = tf.clip_by_value(start + tf.cast(whole, tf.int32), 0, values - 2)
    here, after = tf.gather(sound, index), tf.gather(sound, index + 1)
    return here + (position - whole) * (after - here)


def _fourth(square: tf.Tensor) -> tf.Tensor:
    return tf.square(tf.square(square))


def _energy(spectrum: tf.Tensor) -> tf.Tensor:
    return _sum(tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum)))


def _sum(row: tf.Tensor) -> tf.Tensor:
    """[batch, values] → [batch, 1]. Strips are added up first: one long sum would wait at every step."""
    values: Any = row.shape[1]
    lanes = 64
    whole = values - values % lanes
    strips = tf.reduce_sum(tf.reshape(row[:, :whole], [-1, whole // lanes, lanes]), axis=1)
    total = tf.reduce_sum(strips, axis=1, keepdims=True)
    return total if whole == values else total + tf.reduce_sum(row[:, whole:], axis=1, keepdims=True)


def single_audio_dataset(
    audio: Any,
    *,
    rate: int = 16_000,
    seconds: float = 1.0,
    batch_size: int = 512,
    views: int | None = 50_000,
    seed: int = 0,
    recipe: str | AudioRecipe | None = None,
    start_step: int = 0,
    render: str = "host",
) -> tf.data.Dataset:
    """An endless data set of batches of views of one audio clip. The paper does not say how it draws them: all defaults
    are ours.

    Args:
        audio: path of a sound file (wav, flac, ogg, mp3); an array at `rate`, float in [-1, 1] or int16, [samples] or
            [samples, channels]; or "control:noise", "control:constant".
        rate: samples per second of a view; a clip at another rate is resampled.
        seconds: of a view.
        batch_size: rows per step over all devices and hosts.
        views: how many base views one epoch plays; later epochs play the same ones in another order, freshly augmented.
            None: never the same view twice.
        seed: 0 ≤ seed < 2**64.
        recipe: an `AudioRecipe`, "audio", "crop" or None for "audio".
        start_step: begin with this step, as if all before had been drawn.
        render: "host" yields waveforms; "device" yields `AudioNumbers`, to be rendered inside the training step.

    Returns:
        A `tf.data.Dataset` of float32 [batch_size, samples] in [-1, 1], or of `AudioNumbers`, with the attributes
        `steps_per_epoch` (None if `views` is None), `start_step`, `view_set` and `renderer`.

    Raises:
        DatumError: the clip cannot be read or is shorter than a view. RecipeError: a value is out of range.
    """
    return audio_dataset(
        load_audio_set(audio, rate, seconds, recipe, views=views, seed=seed),
        batch_size,
        start_step=start_step,
        render=render,
    )


def load_audio_set(
    audio: Any, rate: int, seconds: float, recipe: str | AudioRecipe | None, *, views: int | None, seed: int
) -> AudioSet:
    """`make_audio_set`, the clip read as this environment reads sound: by TensorFlow I/O where it runs."""
    return make_audio_set(audio, rate, seconds, recipe, views=views, seed=seed, reader=READER)


def audio_dataset(audio_set: AudioSet, batch_size: int, **options: Any) -> tf.data.Dataset:
    """`single_audio_dataset` for an `AudioSet` that exists already; options as of `counted_dataset`."""
    return counted_dataset(audio_set, AudioRenderer, batch_size, **options)
