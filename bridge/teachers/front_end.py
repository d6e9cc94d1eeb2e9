"""From a waveform to mel bands or cepstral coefficients, as matrix products that every runtime computes alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from bridge.errors import TeacherError
from bridge.names import hint
from bridge.teachers import spectra
from bridge.teachers.spectra import Bases

SMALLEST_ENERGY = 1e-12
OPSET = 17
RATE = 16_000  # of the defaults
LARGEST = 65_536
Kind = TypeVar("Kind", bound="FrontEnd")


@dataclass(frozen=True)
class FrontEnd:
    """What all front ends have in common: frames of a waveform, a Fourier transform, mel bands, a logarithm.

    Args:
        rate: Samples per second.
        samples: Length of a waveform in samples.
        window: Samples per frame.
        hop: Samples from one frame to the next.
        bands: Mel bands.
        low: Lowest frequency in Hz.
        high: Highest frequency in Hz.

    Raises:
        TeacherError: A value is of the wrong kind, or they do not go together.
    """

    kind: ClassVar[str]

    rate: int
    samples: int
    window: int
    hop: int
    bands: int
    low: float
    high: float

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value <= 0 or (field.type == "int" and not isinstance(value, int)):
                kind = "whole number" if field.type == "int" else "number"
                raise TeacherError(f"front end: {field.name}={value!r} must be a positive {kind}.")
        for smaller, larger in (("window", "samples"), ("low", "high"), *self._ordered()):
            if getattr(self, smaller) > getattr(self, larger):
                raise TeacherError(
                    f"front end: {smaller} (={getattr(self, smaller)}) must not be more than {larger} "
                    f"(={getattr(self, larger)})."
                )
        if self.high > self.rate / 2:
            raise TeacherError(f"front end: high (={self.high}) must not be above half the rate, {self.rate / 2:g} Hz.")
        if max(self.window, self.bands, self.transform) > LARGEST:
            raise TeacherError(
                f"front end: window={self.window}, bands={self.bands}, Fourier transform of {self.transform} samples: "
                f"none may be above {LARGEST}."
            )

    @classmethod
    def of(cls: type[Kind], description: Mapping[str, Any]) -> Kind:
        """Make one from what a card holds: ``{"kind": "mfcc", "window": 640, …}``.

        Raises:
            TeacherError: Another kind, an unknown key, or values that do not go together.
        """
        values = dict(description)
        if values.pop("kind", cls.kind) != cls.kind:
            raise TeacherError(f"front end: unknown kind {description['kind']!r}; known: {cls.kind}.")
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise TeacherError(f"front end: unknown {key!r}; known: {', '.join(known)}.{hint(str(key), known)}")
        return cls(**values)

    @classmethod
    def at(cls: type[Kind], rate: int, samples: int, **values: Any) -> Kind:
        """Make one for another rate: what is not given lasts as long as at 16 kHz, and reaches no higher than it can.

        Raises:
            TeacherError: As `of`.
        """
        defaults: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(cls)}
        scaled: dict[str, Any] = {
            name: max(1, round(defaults[name] * rate / RATE)) for name in ("window", "hop", "fft") if name in defaults
        }
        return cls.of({**scaled, "high": min(defaults["high"], rate / 2), **values, "rate": rate, "samples": samples})

    def described(self) -> dict[str, Any]:
        """What a card holds of it."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    @property
    def frames(self) -> int:
        """Frames in a waveform; samples after the last whole one are left out."""
        return 1 + (self.samples - self.window) // self.hop

    @property
    def features(self) -> int:
        """Values of one frame."""
        raise NotImplementedError

    @property
    def transform(self) -> int:
        """Length of the Fourier transform in samples."""
        raise NotImplementedError

    def bases(self) -> Bases:
        """The arrays it multiplies with.

        Raises:
            TeacherError: No bin of the spectrum lies between `low` and `high`.
        """
        raise NotImplementedError

    def _ordered(self) -> tuple[tuple[str, str], ...]:
        """Names of values of which the first must not be above the second."""
        return ()

    def _refuse_empty(self, bins: int) -> None:
        if bins < 1:
            raise TeacherError(
                f"front end: no bin of the spectrum lies between {self.low} and {self.high} Hz (bins are "
                f"{self.rate / self.transform:g} Hz apart). Use a longer window or a wider range."
            )

    def _corners(self) -> np.ndarray:
        """Where the bands begin, peak and end, in mel: equal steps."""
        low, high = spectra.mel_of(self.low), spectra.mel_of(self.high)
        return low + (high - low) / (self.bands + 1) * np.arange(self.bands + 2)

    def graph(self) -> Any:
        """Return it as an ONNX model: float32 ``waveform`` ``[batch, samples]`` in [-1, 1] -> ``features`` ``[batch,
        frames, features]``, of products, sums, a logarithm and perhaps a square root.
        """
        from onnx import TensorProto, helper, numpy_helper

        bases = self.bases()
        bins = len(bases.mel)
        constants = {
            "unsqueeze_axis": np.array([1], np.int64),
            "fourier": np.ascontiguousarray(bases.fourier.T)[:, None, :],
            "parts": np.array([bins, bins], np.int64),
            "mel": bases.mel,
            "smallest": np.array(bases.smallest, np.float32),
        }
        heard, clipped, last = "magnitude" if bases.root else "power", "floored", "features"
        if bases.largest is not None:
            constants["largest"], clipped = np.array(bases.largest, np.float32), "clipped"
        if bases.cosines is not None:
            constants["cosines"], last = bases.cosines, "logarithm"
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
            ("MatMul", [heard, "mel"], ["energy"], {}),
            ("Max", ["energy", "smallest"], ["floored"], {}),
            ("Min", ["floored", "largest"], ["clipped"], {}),
            ("Log", [clipped], [last], {}),
            ("MatMul", ["logarithm", "cosines"], ["features"], {}),
        ]
        left_out = {"Sqrt": not bases.root, "Min": bases.largest is None}
        if bases.cosines is None:
            steps.pop()
        nodes = [
            helper.make_node(op, given, gives, name=f"front_end_{gives[0]}", **more)
            for op, given, gives, more in steps
            if not left_out.get(op)
        ]
        graph = helper.make_graph(
            nodes,
            self.kind,
            [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", self.samples])],
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", self.frames, self.features])],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


@dataclass(frozen=True)
class Mfcc(FrontEnd):
    """Mel-frequency cepstral coefficients as TensorFlow's ``AudioSpectrogram`` and ``Mfcc`` operators give them.

    Periodic Hann window, FFT of the next power of two, HTK mel scale, triangles over *magnitudes* (not power) that are
    straight in mel, natural logarithm, orthogonal DCT-II without the extra factor for coefficient 0. The defaults are
    those of the keyword spotters of "Hello Edge" (Zhang et al. 2017): 40 ms every 20 ms at 16 kHz.

    Args, besides those of all front ends:
        coefficients: Cepstral coefficients kept.
    """

    kind: ClassVar[str] = "mfcc"

    rate: int = 16_000
    samples: int = 16_000
    window: int = 640
    hop: int = 320
    bands: int = 40
    low: float = 20.0
    high: float = 4000.0
    coefficients: int = 10

    @property
    def features(self) -> int:
        return self.coefficients

    @property
    def transform(self) -> int:
        return 1 << (self.window - 1).bit_length()

    def bases(self) -> Bases:
        hertz = self.rate / self.transform
        # The bins TensorFlow listens to; the first is rounded, not cut.
        first, last = int(1.5 + self.low / hertz), min(int(self.high / hertz), self.transform // 2)
        self._refuse_empty(last - first + 1)
        pitches = spectra.mel_of(np.arange(first, last + 1) * hertz)
        return Bases(
            spectra.fourier(self.window, self.transform, first, last).astype(np.float32),
            spectra.triangles(pitches, self._corners()).astype(np.float32),
            spectra.cosines(self.bands, self.coefficients).astype(np.float32),
            root=True,
            smallest=SMALLEST_ENERGY,
            largest=None,
            first=first,
        )

    def _ordered(self) -> tuple[tuple[str, str], ...]:
        return (("coefficients", "bands"),)


@dataclass(frozen=True)
class LogMel(FrontEnd):
    """The natural logarithm of mel bands of the power spectrum, as librosa defines them (HTK scale, no area norm).

    Periodic Hann window, the frame padded right to the length of the transform, triangles that are straight in Hz. The
    defaults are those of COLA (Saeed et al. 2021), the earlier work of an author of Asano & Saeed 2023, whose own are
    not published: 25 ms every 10 ms at 16 kHz, so 98 frames for a second.

    Args, besides those of all front ends:
        fft: Length of the Fourier transform in samples.
        smallest: What bands are raised to before the logarithm.
        largest: What bands are cut to before the logarithm.
    """

    kind: ClassVar[str] = "log_mel"

    rate: int = 16_000
    samples: int = 16_000
    window: int = 400
    hop: int = 160
    bands: int = 64
    low: float = 60.0
    high: float = 7800.0
    fft: int = 1024
    smallest: float = 1e-5
    largest: float = 1e8

    @property
    def features(self) -> int:
        return self.bands

    @property
    def transform(self) -> int:
        return self.fft

    def bases(self) -> Bases:
        bins = np.arange(self.fft // 2 + 1) * self.rate / self.fft
        mel = spectra.triangles(bins, spectra.hertz_of(self._corners()))
        heard = np.flatnonzero(mel.any(axis=1))
        self._refuse_empty(len(heard))
        first, last = int(heard[0]), int(heard[-1])
        return Bases(
            spectra.fourier(self.window, self.fft, first, last).astype(np.float32),
            mel[first : last + 1].astype(np.float32),
            None,
            root=False,
            smallest=self.smallest,
            largest=self.largest,
            first=first,
        )

    def _ordered(self) -> tuple[tuple[str, str], ...]:
        return (("window", "fft"), ("smallest", "largest"))


KINDS: Mapping[str, type[Mfcc] | type[LogMel]] = {front_end.kind: front_end for front_end in (Mfcc, LogMel)}


def front_end_of(description: Mapping[str, Any]) -> Mfcc | LogMel:
    """Make the front end that a card describes: ``{"kind": "log_mel", "bands": 64, …}``.

    Raises:
        TeacherError: There is no such kind (the nearest is named), an unknown key, or values that do not go together.
    """
    return kind_of_front_end(description.get("kind")).of(description)


def kind_of_front_end(kind: Any) -> type[Mfcc] | type[LogMel]:
    """The front end of a kind: ``mfcc`` or ``log_mel``.

    Raises:
        TeacherError: There is none of that name; the nearest is named.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise TeacherError(f"front end: unknown kind {kind!r}; known: {', '.join(KINDS)}.{hint(str(kind), KINDS)}")
    return KINDS[kind]
