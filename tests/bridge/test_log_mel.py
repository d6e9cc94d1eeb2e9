"""Log-mels as matrix products: librosa's definition, a formula written out, the card, and refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.signal

from bridge.errors import ConfigError, TeacherError
from bridge.networks import front_end_for, unknown_network
from bridge.teachers.front_end import LogMel, Mfcc, front_end_of, kind_of_front_end
from bridge.teachers.runtime import Runtime

SETTINGS = [
    LogMel(),
    LogMel(window=512, hop=200, fft=512, bands=24, low=20.0, high=8000.0),
    LogMel(rate=8000, samples=4321, window=250, hop=101, fft=300, bands=30, high=3999.0, smallest=1e-3, largest=2.0),
]


def waveforms(front_end: LogMel, seed: int = 0) -> np.ndarray:
    """A chirp over a little noise, loud and soft noise, and silence."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((4, front_end.samples)) * [[0.001], [0.1], [0.3], [0]]
    time = np.arange(front_end.samples) / front_end.rate
    rows[0] += 0.3 * np.sin(2 * np.pi * (300 + 500 * time) * time)
    return rows.clip(-1, 1).astype(np.float32)


def by_fourier(front_end: LogMel, rows: np.ndarray) -> np.ndarray:
    """The definition, with SciPy's window, NumPy's transform and triangles drawn one by one; float64."""
    window = scipy.signal.get_window("hann", front_end.window, fftbins=True)
    starts = range(0, front_end.samples - front_end.window + 1, front_end.hop)
    frames = np.stack([rows[:, start : start + front_end.window] for start in starts], axis=1) * window
    power = np.abs(np.fft.rfft(frames.astype(np.float64), front_end.fft)) ** 2
    hertz = np.fft.rfftfreq(front_end.fft, 1 / front_end.rate)
    low, high = (2595 * np.log10(1 + edge / 700) for edge in (front_end.low, front_end.high))
    corners = 700 * (10 ** (np.linspace(low, high, front_end.bands + 2) / 2595) - 1)
    bands = [np.interp(hertz, corners[band : band + 3], [0, 1, 0]) for band in range(front_end.bands)]
    return np.log((power @ np.stack(bands, axis=1)).clip(front_end.smallest, front_end.largest))


@pytest.mark.parametrize("front_end", SETTINGS)
def test_the_graph_gives_what_the_definition_gives(front_end: LogMel) -> None:
    rows = waveforms(front_end)
    expected = by_fourier(front_end, rows)
    found = Runtime(front_end.graph())(rows)
    assert found.shape == (4, front_end.frames, front_end.bands) == expected.shape
    assert np.abs(found - expected).max() < 1e-3
    assert np.allclose(found[3], np.log(front_end.smallest))  # silence is the floor, and no minus infinity


@pytest.mark.parametrize("front_end", SETTINGS)
def test_librosa_gives_the_same(front_end: LogMel) -> None:
    librosa = pytest.importorskip("librosa", reason="librosa is not installed; it is wanted here only to compare with")
    rows = waveforms(front_end)
    # librosa puts a short window into the middle of its frame, which moves frames but no power.
    before = (front_end.fft - front_end.window) // 2
    padded = np.pad(rows, [(0, 0), (before, front_end.fft - front_end.window - before)])
    mel = librosa.feature.melspectrogram(
        y=padded, sr=front_end.rate, n_fft=front_end.fft, hop_length=front_end.hop, win_length=front_end.window,
        window="hann", center=False, power=2.0, n_mels=front_end.bands, fmin=front_end.low, fmax=front_end.high,
        htk=True, norm=None,
    )  # fmt: skip
    expected = np.log(mel.clip(front_end.smallest, front_end.largest)).transpose(0, 2, 1)
    found = Runtime(front_end.graph())(rows)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-3


def test_a_second_has_98_frames_of_64_bands() -> None:
    assert (LogMel().frames, LogMel().features) == (98, 64)
    bases = LogMel().bases()
    assert bases.cosines is None and not bases.root
    # Each bin between the two outermost peaks is shared out in full: there is no area normalisation.
    assert np.isclose(bases.mel.sum(axis=1)[10:-20], 1).all()


def test_a_card_holds_all_that_makes_it_again() -> None:
    for front_end in (Mfcc(window=400), LogMel(bands=40)):
        assert front_end_of(front_end.described()) == front_end
    assert LogMel().described() == {"kind": "log_mel", **dataclasses.asdict(LogMel())}
    assert kind_of_front_end("log_mel") is LogMel


@pytest.mark.parametrize("kind", [Mfcc, LogMel])
def test_another_rate_keeps_what_frames_last(kind: type[Mfcc] | type[LogMel]) -> None:
    usual, slower = kind(), kind.at(8000, 8000)
    assert (slower.window, slower.hop, slower.transform) == (usual.window // 2, usual.hop // 2, usual.transform // 2)
    assert slower.frames == usual.frames and slower.high == min(usual.high, 4000)
    assert kind.at(16_000, 16_000) == usual
    assert kind.at(16_000, 8_000, hop=100).hop == 100


@pytest.mark.parametrize(
    "values, words",
    [
        ({"kind": "log_mels"}, "unknown kind 'log_mels'.*log_mel"),
        ({"kind": None}, "unknown kind None"),
        ({"kind": "log_mel", "fft": 256}, r"window \(=400\) must not be more than fft \(=256\)"),
        ({"kind": "log_mel", "smallest": 2.0, "largest": 1.0}, "smallest .* largest"),
        ({"kind": "log_mel", "smallest": 0}, "smallest=0 must be a positive number"),
        ({"kind": "log_mel", "fft": 1 << 20}, "Fourier transform of 1048576"),
        ({"kind": "log_mel", "coefficients": 10}, "unknown 'coefficients'"),
        ({"kind": "mfcc", "fft": 1024}, "unknown 'fft'"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict, words: str) -> None:
    with pytest.raises(TeacherError, match=words):
        front_end_of(values)


def test_a_range_between_two_bins_is_refused() -> None:
    with pytest.raises(TeacherError, match=r"no bin .* Use a longer window"):
        LogMel(window=16, hop=16, fft=16, bands=2, low=1010.0, high=1900.0).graph()


def test_each_network_has_its_usual_front_end_until_told_otherwise() -> None:
    assert front_end_for("dscnn_s") == Mfcc()
    assert front_end_for("resnet20_mel") == LogMel()
    assert front_end_for("dscnn_s", front_end={"kind": "log_mel"}) == LogMel()
    assert front_end_for("resnet20_mel", 8000, front_end={"bands": 40}) == LogMel.at(8000, 8000, bands=40)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"rate": 0}, "rate=0"),
        ({"samples": 1.5}, "samples=1.5"),
        ({"samples": 100}, r"window \(=640\) must not be more than samples"),
        ({"front_end": "mfcc"}, "must be a mapping"),
        ({"front_end": {"rate": 8000}}, "rate is an argument of the network"),
        ({"front_end": {"kind": "mel"}}, "unknown kind 'mel'"),
        ({"front_end": {"window": 16, "hop": 16, "low": 1010.0, "high": 1900.0}}, "no bin"),
    ],
)
def test_a_front_end_no_network_can_have_is_refused(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        front_end_for("dscnn_s", **options)


def test_the_backend_without_networks_for_audio_says_how_they_come_to_it() -> None:
    message = str(unknown_network("dscnn_l", ["small_cnn"]))
    assert "Keras's only" in message and "--to onnx" in message
