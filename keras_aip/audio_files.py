"""How this environment reads sound: TensorFlow I/O decodes and resamples where it runs, else libsndfile and SciPy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import tensorflow as tf

from bridge.datum import audio_files
from bridge.datum.audio_files import SOUNDFILE, Decoded, Reader
from keras_aip.compat import HAS_IO

# It takes 32-bit integers for floating-point numbers, and knows no other kinds.
_KNOWN = {
    "WAV": ("PCM_U8", "PCM_16", "PCM_24", "FLOAT"),
    "WAVEX": ("PCM_U8", "PCM_16", "PCM_24", "FLOAT"),
    "FLAC": ("PCM_16", "PCM_24"),
    "OGG": ("VORBIS",),
    "MP3": ("MPEG_LAYER_III",),
}
_FULL_SCALE = {"uint8": (128, 128), "int16": (0, 2**15), "int32": (0, 2**31), "float32": (0, 1)}


def decode(path: Path, seconds: float) -> Decoded:
    """With TensorFlow I/O, what it reads right; all else, also what is damaged, with libsndfile."""
    import soundfile
    import tensorflow_io as tfio

    about = soundfile.info(path)
    if about.subtype not in _KNOWN.get(about.format, ()):
        return audio_files.decode(path, seconds)
    try:
        file = tfio.audio.AudioIOTensor(str(path.resolve()))
        length = int(file.shape[0])
        read = file[: min(length, audio_files.at_most(seconds, about.samplerate, about.channels))].numpy()
    except tf.errors.OpError:
        return audio_files.decode(path, seconds)
    zero, scale = _FULL_SCALE[read.dtype.name]
    return Decoded((read.astype(np.float32) - zero) / scale, int(file.rate), length)


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """`bridge.datum.audio_files.resample` with TensorFlow I/O, whose delay is taken out again."""
    import tensorflow_io as tfio

    if rate == wanted:
        return samples
    period = rate // math.gcd(rate, wanted)
    length = 64 if wanted > rate else -(-(64 * rate // wanted) // 8) * 8
    # Speex begins half a filter late; so much more in front that this is a whole number of samples at the new rate.
    before = -(length // 2) % period
    late = (length // 2 + before) * wanted // rate
    padded = np.pad(samples, (before, length + period))[:, None]
    return tfio.audio.resample(padded, rate, wanted).numpy()[late : late - (-len(samples) * wanted // rate), 0]


READER = Reader(decode, resample) if HAS_IO else SOUNDFILE
