"""Augmented clips per CPU-second of one thread: ours in TensorFlow (XLA and not) and NumPy, and a library's.

    pip install audiomentations           # the best kept library; without it ours are measured alone
    python benchmarks/audio.py            # about two minutes; writes benchmarks/results/audio.json
    python benchmarks/audio.py --quick    # a few seconds, to see that it runs; writes nothing unless told where

Both chains do the same, with the same chances and ranges: a random stretch of the clip at a random speed, time
stretch, reversal, a second stretch mixed in, shift, silence, low and high cut, echo, coloured noise, gain. The
library's chain is a `Compose` of its own transforms, fed with a stretch cut from the clip in memory.

Every figure is the whole way from a view's number to its samples: drawing included, compilation excluded. All take
turns within one run, so their ratios hold on a busy machine as well; the rates themselves do not.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import os
import random
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from common import ROOT, data_folder, machine, rates, summary, write_results

from bridge.datum.audio import AudioNumbers, AudioSet
from bridge.datum.audio_files import encode_wav
from bridge.datum.audio_recipes import audio
from bridge.datum.audio_render import render_audio_numbers
from bridge.datum.audio_sources import AudioSource, load_audio
from keras_aip.audio import AudioRenderer

RATE = 16_000
BAR, AIM = 5, 1_500
"""What ours must reach over the library, and in clips per CPU-second."""
LIBRARY, NUMPY, PLAIN, XLA = "audiomentations", "NumPy", "TensorFlow", "TensorFlow XLA"


def use_one_thread() -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def library_chain(source: AudioSource, folder: Path) -> tuple[str, Callable[[], np.ndarray]]:
    """The library's version, and a function that makes one view with it.

    Args:
        source: the clip.
        folder: for files that the library wants to read: the clip, and echoes like ours.

    Raises:
        ImportError: it is not installed.
    """
    import audiomentations as a

    recipe = audio(RATE, RATE)
    base, extra = recipe.base, recipe.augmentation
    assert extra is not None
    (folder / "clip").mkdir()
    (folder / "rooms").mkdir()
    (folder / "clip" / "clip.wav").write_bytes(encode_wav(source.samples, RATE))
    views = AudioSet(source, recipe)
    for k, echo in enumerate(np.fft.irfft(views.rooms)[::4]):
        response = 0.5 * 10 ** (-random.uniform(*extra.room_ratio) / 20) * echo / np.abs(echo).max()
        response[0] = 0.5
        (folder / "rooms" / f"{k}.wav").write_bytes(encode_wav(response, RATE))
    tilt = [-3.01 * value for value in extra.noise_colour]
    chain = a.Compose(
        [
            # Fewer samples for the same sound, played at the old rate: faster.
            a.Resample(int(RATE / base.speed[1]), int(RATE / base.speed[0]), p=1.0),
            a.TimeStretch(1 / base.stretch[1], 1 / base.stretch[0], leave_length_unchanged=False, p=base.stretched),
            a.Reverse(p=base.reverse),
            a.AdjustDuration(duration_samples=RATE, p=1.0),
            a.AddBackgroundNoise(folder / "clip", *base.mixed_snr, p=base.mixed),
            a.Shift(-extra.shift, extra.shift, shift_unit="seconds", rollover=False, p=1.0),
            a.TimeMask(0.0, 1 - extra.kept, p=extra.silence),
            a.HighPassFilter(*extra.low_corner, min_rolloff=24, max_rolloff=24, p=extra.low_cut),
            a.LowPassFilter(
                *(share * RATE / 2 for share in extra.high_corner), min_rolloff=24, max_rolloff=24, p=extra.high_cut
            ),
            a.ApplyImpulseResponse(folder / "rooms", p=extra.room),
            a.AddColorNoise(*extra.noise_snr, min(tilt), max(tilt), p=extra.noise),
            a.Gain(*extra.gain, p=1.0),
        ]
    )
    longest = int(RATE * base.speed[1] / base.stretch[0]) + 1

    def draw() -> np.ndarray:
        first = random.randrange(len(source.samples) - longest)
        return np.clip(chain(source.samples[first : first + longest], RATE), -1, 1)

    if draw().shape != (RATE,):
        raise SystemExit("the library gives views of another length than ours: the chains are not equal.")
    return f"audiomentations {importlib.metadata.version('audiomentations')}", draw


def candidates(
    source: AudioSource, batch: int, few: int, folder: Path
) -> tuple[str | None, dict[str, Callable[[], int]]]:
    """What the library is, if it is there, and one function per way that makes views never made before."""
    works: dict[str, Callable[[], int]] = {}
    try:
        made_with, draw = library_chain(source, folder)
        works[LIBRARY] = lambda: len([draw() for _ in range(few)])
    except ImportError:
        made_with = None
    views = AudioSet(source, audio(RATE, RATE))
    renderers = {PLAIN: AudioRenderer(views, jit_compile=False), XLA: AudioRenderer(views, jit_compile=True)}
    steps = {name: itertools.count() for name in (NUMPY, *renderers)}

    def numbers(name: str, rows: int) -> AudioNumbers:
        return views.numbers(next(steps[name]) * rows + np.arange(rows))

    def draw_tensorflow(name: str) -> int:
        return len(renderers[name](numbers(name, batch)).numpy())

    works[NUMPY] = lambda: len(render_audio_numbers(numbers(NUMPY, min(batch, 16)), views))
    return made_with, works | {name: partial(draw_tensorflow, name) for name in renderers}


def print_table(results: dict[str, dict], made_with: str | None) -> None:
    print(f"{'':18}{'clips per CPU-second':>28}{'times the library':>28}")
    for name, found in results.items():
        rate, ratio = found["clips per CPU-second"], found.get("times the library")
        line = f"{name:18}{rate['median']:>10,.0f} ({rate['min']:,.0f}-{rate['max']:,.0f})".ljust(48)
        print(line + (f"{ratio['median']:>8.4g} ({ratio['min']:.4g}-{ratio['max']:.4g})" if ratio else ""))
    compared = f"must reach {BAR}x {made_with}" if made_with else "audiomentations is not installed: nothing to compare"
    print(f"{'':18}aims at {AIM:,} per CPU-second; {compared}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    speech = data_folder() / "source" / "librivox_sonnets_1-3_16k.flac"
    parser.add_argument("--audio", default=str(speech) if speech.exists() else "control:noise", help="source clip")
    parser.add_argument("--repeats", type=int, default=7, help="turns each gets")
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time for each and turn")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    batch, few = 64, 32
    if options.quick:
        options.repeats, options.seconds, batch, few = 2, 0.0, 8, 2
    elif options.out is None:
        options.out = ROOT / "benchmarks" / "results" / "audio.json"
    use_one_thread()
    random.seed(0)
    source = load_audio(options.audio, RATE)
    with tempfile.TemporaryDirectory() as folder:
        made_with, works = candidates(source, batch, few, Path(folder))
        measured = rates(works, options.repeats, options.seconds)
    results: dict[str, dict] = {}
    for name, found in measured.items():
        results[name] = {"clips per CPU-second": summary(found)}
        if LIBRARY in measured:
            ratios = [rate / base for rate, base in zip(found, measured[LIBRARY])]
            results[name]["times the library"] = summary(ratios)
    print_table(results, made_with)
    if options.out is not None:
        write_results(
            options.out,
            {
                "command": "python benchmarks/audio.py" + (" --quick" if options.quick else ""),
                "machine": machine(),
                "threads": 1,
                "source": {"name": source.name, "seconds": round(source.seconds, 2), "sha256": source.sha256},
                "library": made_with,
                "n": options.repeats,
                "CPU-seconds for each and repeat": options.seconds,
                "samples per clip": RATE,
                "batch": batch,
                "bar": BAR,
                "aim": AIM,
                "results": results,
            },
        )
        print(f"written to {options.out}")


if __name__ == "__main__":
    main()
