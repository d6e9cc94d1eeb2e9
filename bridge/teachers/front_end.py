"""From a waveform to cepstral coefficients, as matrix products that every runtime computes alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridge.errors import TeacherError
from bridge.names import hint

SMALLEST_ENERGY = 1e-12
OPSET = 17


@dataclass(frozen=True)
class Mfcc:
    """Mel-frequency cepstral coefficients as TensorFlow's ``AudioSpectrogram`` and ``Mfcc`` operators give them.

    Periodic Hann window, FFT of the next power of two, HTK mel scale, triangles over *magnitudes* (not power), natural
    logarithm, orthogonal DCT-II without the extra factor for coefficient 0. The defaults are those of the keyword
    spotters of "Hello Edge" (Zhang et al. 2017): 40 ms every 20 ms at 16 kHz.

    Args:
        rate: Samples per second.
        samples: Length of a waveform in samples.
        window: Samples per frame.
        hop: Samples from one frame to the next.
        bands: Mel bands.
        coefficients: Cepstral coefficients kept.
        low: Lowest frequency in Hz.
        high: Highest frequency in Hz.

    Raises:
        TeacherError: A value is of the wrong kind, or they do not go together.
    """

    rate: int = 16_000
    samples: int = 16_000
    window: int = 640
    hop: int = 320
    bands: int = 40
    coefficients: int = 10
    low: float = 20.0
    high: float = 4000.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value <= 0 or (field.type == "int" and not isinstance(value, int)):
                kind = "whole number" if field.type == "int" else "number"
                raise TeacherError(f"front end: {field.name}={value!r} must be a positive {kind}.")
        for smaller, larger in (("window", "samples"), ("coefficients", "bands"), ("low", "high")):
            if getattr(self, smaller) > getattr(self, larger):
                raise TeacherError(
                    f"front end: {smaller} (={getattr(self, smaller)}) must not be more than {larger} "
                    f"(={getattr(self, larger)})."
                )
        if self.high > self.rate / 2:
            raise TeacherError(f"front end: high (={self.high}) must not be above half the rate, {self.rate / 2:g} Hz.")
        if max(self.window, self.bands) > 65_536:
            raise TeacherError(f"front end: window={self.window}, bands={self.bands}: neither may be above 65536.")

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Mfcc:
        """Make one from what a card holds: ``{"kind": "mfcc", "window": 640, …}``.

        Raises:
            TeacherError: Another kind, an unknown key, or values that do not go together.
        """
        values = dict(description)
        if values.pop("kind", "mfcc") != "mfcc":
            raise TeacherError(f"front end: unknown kind {description['kind']!r}; known: mfcc.")
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise TeacherError(f"front end: unknown {key!r}; known: {', '.join(known)}.{hint(str(key), known)}")
        return cls(**values)

    def described(self) -> dict[str, Any]:
        """What a card holds of it."""
        return {"kind": "mfcc", **dataclasses.asdict(self)}

    @property
    def frames(self) -> int:
        """Frames in a waveform; samples after the last whole one are left out."""
        return 1 + (self.samples - self.window) // self.hop

    def graph(self) -> Any:
        """Return it as an ONNX model: float32 ``waveform`` ``[batch, samples]`` in [-1, 1] -> ``features`` ``[batch,
        frames, coefficients]``, of products, sums, one square root and one logarithm.
        """
        from onnx import TensorProto, helper, numpy_helper

        bins, fourier, mel = self._spectrum(), self._fourier(), self._mel()
        constants = {
            "unsqueeze_axis": np.array([1], np.int64),
            "fourier": fourier.astype(np.float32)[:, None, :],
            "parts": np.array([bins, bins], np.int64),
            "mel": mel.astype(np.float32),
            "smallest": np.array(SMALLEST_ENERGY, np.float32),
            "cosines": self._cosines().astype(np.float32),
        }
        steps = [
            ("Unsqueeze", ["waveform", "unsqueeze_axis"], ["channel"], {}),
            # A convolution is the product of every frame with the windowed cosines and sines.
            ("Conv", ["channel", "fourier"], ["both"], {"strides": [self.hop], "kernel_shape": [self.window]}),
            ("Transpose", ["both"], ["rows"], {"perm": [0, 2, 1]}),
            ("Split", ["rows", "parts"], ["real", "imaginary"], {"axis": 2}),
            ("Mul", ["real", "real"], ["real2"], {}),
            ("Mul", ["imaginary", "imaginary"], ["imaginary2"], {}),
            ("Add", ["real2", "imaginary2"], ["power"], {}),
            ("Sqrt", ["power"], ["magnitude"], {}),
            ("MatMul", ["magnitude", "mel"], ["energy"], {}),
            ("Max", ["energy", "smallest"], ["floored"], {}),
            ("Log", ["floored"], ["logarithm"], {}),
            ("MatMul", ["logarithm", "cosines"], ["features"], {}),
        ]
        nodes = [helper.make_node(op, i, o, name=f"front_end_{o[0]}", **more) for op, i, o, more in steps]
        graph = helper.make_graph(
            nodes,
            "mfcc",
            [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", self.samples])],
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", self.frames, self.coefficients])],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)

    def _fft(self) -> int:
        return 1 << (self.window - 1).bit_length()

    def _edges(self) -> tuple[int, int]:
        """First and last bin of the spectrum that any band hears."""
        hertz = self.rate / self._fft()
        return int(1.5 + self.low / hertz), min(int(self.high / hertz), self._fft() // 2)

    def _spectrum(self) -> int:
        first, last = self._edges()
        if last < first:
            raise TeacherError(
                f"front end: no bin of the spectrum lies between {self.low} and {self.high} Hz (bins are "
                f"{self.rate / self._fft():g} Hz apart). Use a longer window or a wider range."
            )
        return last - first + 1

    def _fourier(self) -> np.ndarray:
        """The windowed cosines, then sines, of the bins heard: ``[2 bins, window]``."""
        first, last = self._edges()
        time = np.arange(self.window)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * time / self.window)
        angle = 2 * np.pi * np.outer(np.arange(first, last + 1), time) / self._fft()
        return np.concatenate([np.cos(angle), np.sin(angle)]) * hann

    def _mel(self) -> np.ndarray:
        """Share of each bin in each band, ``[bins, bands]``: two neighbouring triangles share a bin."""
        first, last = self._edges()
        low, high = _mel_of(self.low), _mel_of(self.high)
        centres = low + (high - low) / (self.bands + 1) * np.arange(1, self.bands + 2)
        weights = np.zeros((last - first + 1, self.bands + 2))
        for row, frequency in enumerate(np.arange(first, last + 1) * self.rate / self._fft()):
            pitch = _mel_of(frequency)
            band = int(np.searchsorted(centres, pitch)) - 1  # the last centre below
            below = centres[band] if band >= 0 else low
            share = (centres[band + 1] - pitch) / (centres[band + 1] - below)
            weights[row, band + 1 : band + 3] = share, 1 - share
        return weights[:, 1 : self.bands + 1]  # what falls to the edges is heard by nobody

    def _cosines(self) -> np.ndarray:
        """The DCT, ``[bands, coefficients]``."""
        angle = np.pi / self.bands * np.outer(np.arange(self.bands) + 0.5, np.arange(self.coefficients))
        return math.sqrt(2 / self.bands) * np.cos(angle)


def _mel_of(hertz: float) -> float:
    """HTK's mel scale."""
    return 1127.0 * math.log1p(hertz / 700.0)
