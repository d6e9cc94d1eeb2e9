"""Tiny videos whose frames say their number, written by the tests themselves."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")
ENCODERS = [name for name in ("mpeg4", "libx264") if name in av.codecs_available]
LOWEST, STEP = 20, 3  # grey of frame 0, and how much brighter the next one is


def grey(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A frame that tells its number, up to 70: uint8 [h, w, 3]."""
    return np.full((height, width, 3), LOWEST + STEP * number, np.uint8)


def number_of(pixels: np.ndarray) -> np.ndarray:
    """The numbers of frames out of their pixels, [..., h, w, 3] → int64 [...]."""
    return np.rint((pixels.mean((-3, -2, -1)) - LOWEST) / STEP).astype(np.int64)


def video(
    path: Path,
    frames: Sequence[np.ndarray] | int,
    *,
    codec: str = "mpeg4",
    rate: int = 30,
    times: Sequence[float] | None = None,
    gop: int = 12,
    sound: float = 0,
    options: dict[str, str] | None = None,
    colours: str | None = None,
    turned: int = 0,
) -> Path:
    """Write a video.

    Args:
        path: its ending says the container.
        frames: uint8 [h, w, 3] each; or how many that tell their number.
        codec: of the picture.
        rate: frames per second.
        times: when each frame is shown, in seconds; None: at the rate.
        gop: a key frame at least so often.
        sound: seconds of silence beside it.
        options: of the container.
        colours: "ITU709" to store and tag that matrix.
        turned: degrees that a player has to turn it counterclockwise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = [grey(number) for number in range(frames)] if isinstance(frames, int) else frames
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate) if shown else None
        audio = container.add_stream("mp2" if path.suffix == ".avi" else "aac", rate=16000) if sound else None
        if stream is not None:
            unit = Fraction(1, rate) if times is None else Fraction(1, 1000)
            stream.height, stream.width = shown[0].shape[:2]
            stream.pix_fmt, stream.gop_size, stream.bit_rate = "yuv420p", gop, 4_000_000
            stream.time_base = stream.codec_context.time_base = unit
            if colours:
                stream.codec_context.colorspace = av.video.reformatter.Colorspace[colours].value
            if turned:
                stream.set_display_rotation(turned)
            for number, pixels in enumerate(shown):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace=colours or "ITU601")
                frame.pts, frame.time_base = number if times is None else round(1000 * times[number]), unit
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, round(16000 * sound)), np.int16), "s16", "mono")
            silence.sample_rate = 16000
            container.mux(audio.encode(silence))
            container.mux(audio.encode())
    return path
