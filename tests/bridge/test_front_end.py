"""The front end of audio teachers: matrix products that equal TensorFlow's own operators, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.errors import TeacherError
from bridge.teachers.front_end import Mfcc
from bridge.teachers.runtime import Runtime


def tensorflows(front_end: Mfcc, waveforms: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    spectrum = tf.raw_ops.AudioSpectrogram(
        input=waveforms.T, window_size=front_end.window, stride=front_end.hop, magnitude_squared=True
    )
    return tf.raw_ops.Mfcc(
        spectrogram=spectrum, sample_rate=front_end.rate, upper_frequency_limit=float(front_end.high),
        lower_frequency_limit=float(front_end.low), filterbank_channel_count=front_end.bands,
        dct_coefficient_count=front_end.coefficients,
    ).numpy()  # fmt: skip


@pytest.mark.parametrize(
    "front_end",
    [
        Mfcc(),
        Mfcc(window=400, hop=160, coefficients=13, low=60.0, high=7600.0),
        Mfcc(rate=8000, samples=4321, window=256, hop=100, bands=24, coefficients=24, low=20, high=4000),
    ],
)
def test_the_graph_gives_what_tensorflows_operators_give(front_end: Mfcc) -> None:
    rng = np.random.default_rng(0)
    waveforms = (rng.standard_normal((4, front_end.samples)) * [[0.001], [0.1], [0.3], [0]]).clip(-1, 1)
    time = np.arange(front_end.samples) / front_end.rate
    waveforms[0] += 0.3 * np.sin(2 * np.pi * (300 + 500 * time) * time)  # a chirp over a little noise
    waveforms = waveforms.astype(np.float32)
    expected = tensorflows(front_end, waveforms)
    found = Runtime(front_end.graph())(waveforms)
    assert found.shape == (4, front_end.frames, front_end.coefficients) == expected.shape
    assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()


def test_a_card_holds_all_that_makes_it_again() -> None:
    front_end = Mfcc(window=400, hop=160)
    assert Mfcc.of(front_end.described()) == front_end
    assert front_end.described()["kind"] == "mfcc"


@pytest.mark.parametrize(
    "values, words",
    [
        ({"window": 0}, "window=0 must be a positive whole number"),
        ({"window": 640.5}, "window=640.5 must be a positive whole number"),
        ({"hop": True}, "hop=True"),
        ({"low": float("nan")}, "low=nan must be a positive number"),
        ({"window": 20_000}, r"window \(=20000\) must not be more than samples \(=16000\)"),
        ({"coefficients": 41}, "coefficients .* bands"),
        ({"low": 5000.0}, "low .* high"),
        ({"high": 9000.0}, "half the rate, 8000 Hz"),
        ({"kind": "mel"}, "unknown kind 'mel'"),
        ({"windows": 3}, "unknown 'windows'.*window"),
        ({"bands": 70_000}, "65536"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict, words: str) -> None:
    with pytest.raises(TeacherError, match=words):
        Mfcc.of(values)


def test_a_range_between_two_bins_is_refused() -> None:
    with pytest.raises(TeacherError, match=r"no bin .* Use a longer window"):
        Mfcc(window=16, hop=16, low=1010.0, high=1900.0).graph()
