"""Fake clips and real videos per CPU-second of one thread, against the reference's way and OpenCV's reader.

    python benchmarks/video.py            # some minutes; writes benchmarks/results/video.json
    python benchmarks/video.py --quick    # half a minute, to see that it runs; writes nothing unless told where

Fake clips of 4 frames of 160 px, from a clip's number to a batch of float32 [batch, 3, 4, 160, 160] as training sees
it. The reference writes each of its clips to a file once and reads it in every epoch (the paper: 200,000 clips, 400
epochs). Both are shown: a clip written and read once, which is what it takes to see a new clip as ours always are; and
reading alone, to which a long training comes close.

Real videos: every frame of each file as RGB; and the 10 clips of 4 frames of a test, scaled and cropped. OpenCV chooses
the same frames, and converts only those.

Everything that is compared takes turns within one run, so the ratios hold on a busy machine as well; the rates
themselves do not. Compilation is excluded.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from common import ROOT, data_folder, machine, rates, summary, write_results
from PIL import Image
from reference_clips import RATE, WRITTEN_FRAMES, made_with, read_clip, write_clip

from bridge.datum.render import render_numbers
from bridge.datum.sources import Source, load_source
from bridge.datum.video import ClipNumbers, ClipSet
from bridge.datum.video_recipes import VideoRecipe
from bridge.errors import DatumError
from bridge.videos import Sampling, read_clips, read_frames
from torch_aip.video import ClipRenderer

WRITTEN, READ = "reference, written and read once", "reference, read alone"
OPENCV, PYTORCH, COMPILED = "OpenCV", "PyTorch", "PyTorch compiled"
BAR = 20
"""Times the reference, written and read once, that our host renderer must reach."""
CLIPS = 200_000
SAMPLING = Sampling(clips=10)
KINDS = {"every frame": "frames", "10 clips": "frames shown"}

Work = Callable[[], int]


def use_one_thread() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


# --- fake clips ------------------------------------------------------------------------------------------------------


def makers(source: Source, folder: Path, quick: bool) -> dict[str, Work]:
    """One function per way that makes a batch of clips and returns how many."""
    image, draw = Image.fromarray(source.images[0]), random.Random(0)
    batch, few, kept = (4, 1, 2) if quick else (32, 4, 64)
    files = [folder / f"{number}.mp4" for number in range(kept)]
    for file in files:
        write_clip(image, file, draw)
    again, new = itertools.cycle(files), folder / "new.mp4"
    clips = ClipSet(source, VideoRecipe(), views=CLIPS)
    in_torch: dict[str, Callable[[ClipNumbers], torch.Tensor]] = {PYTORCH: ClipRenderer(clips)}
    if not quick and shutil.which(os.environ.get("CXX", "g++")):
        in_torch[COMPILED] = torch.compile(ClipRenderer(clips), fullgraph=True, dynamic=False)
    steps = {name: itertools.count() for name in (OPENCV, *in_torch)}

    def numbers(name: str) -> ClipNumbers:
        return clips.numbers(next(steps[name]) * batch + np.arange(batch))

    def write_and_read() -> torch.Tensor:
        write_clip(image, new, draw)
        return read_clip(new, draw)

    def draw_opencv() -> int:
        return len(torch.from_numpy(render_numbers(numbers(OPENCV), clips)).movedim(-1, 1))

    def draw_torch(name: str) -> int:
        return len(in_torch[name](ClipNumbers(*map(torch.from_numpy, numbers(name)))))

    return {
        WRITTEN: lambda: len(torch.stack([write_and_read() for _ in range(few)])),
        READ: lambda: len(torch.stack([read_clip(next(again), draw) for _ in range(few)])),
        OPENCV: draw_opencv,
        **{name: partial(draw_torch, name) for name in in_torch},
    }


def measure_clips(source: Source, repeats: int, seconds: float, quick: bool) -> dict[str, Any]:
    """Rates, and ratios to both ways of the reference in the same turn."""
    with tempfile.TemporaryDirectory() as folder:
        measured = rates(makers(source, Path(folder), quick), repeats, seconds)
    return {
        name: {
            "clips per CPU-second": summary(found),
            f"times the {WRITTEN}": summary([rate / base for rate, base in zip(found, measured[WRITTEN])]),
            f"times the {READ}": summary([rate / base for rate, base in zip(found, measured[READ])]),
        }
        for name, found in measured.items()
    }


# --- real videos -----------------------------------------------------------------------------------------------------


def read_every_frame(path: Path) -> int:
    return len(read_frames(path, lambda times: np.arange(len(times)), lambda frame: frame))


def read_ten_clips(path: Path) -> int:
    return int(np.prod(read_clips(path, SAMPLING).shape[:2]))


def opencv_every_frame(path: Path) -> int:
    reader, frames = _opened(path), []
    while (read := reader.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return len(np.stack(frames))


def opencv_ten_clips(path: Path) -> int:
    reader = _opened(path)
    count, rate = reader.get(cv2.CAP_PROP_FRAME_COUNT), reader.get(cv2.CAP_PROP_FPS)
    wanted = SAMPLING.chosen(np.arange(int(count)) / rate)
    needed, seen = set(wanted.ravel().tolist()), {}
    for number in range(wanted.max() + 1):
        if not reader.grab():
            raise DatumError("cut off")
        if number in needed:
            seen[number] = SAMPLING.fitted(cv2.cvtColor(reader.retrieve()[1], cv2.COLOR_BGR2RGB))
    return int(np.prod(np.stack([seen[number] for number in wanted.ravel().tolist()]).shape[:2]))


def _opened(path: Path) -> Any:
    return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])


READERS: dict[str, dict[str, Callable[[Path], int]]] = {
    "every frame": {"ours": read_every_frame, "OpenCV": opencv_every_frame},
    "10 clips": {"ours": read_ten_clips, "OpenCV": opencv_ten_clips},
}


def readable(folder: Path, quick: bool) -> list[Path]:
    """The files that all readers take; of few enough bytes to be quick."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    files = sorted(files, key=lambda path: path.stat().st_size)[:2] if quick else files
    return [
        path for path in files if all(_reads(reader, path) for ways in READERS.values() for reader in ways.values())
    ]


def _reads(reader: Callable[[Path], int], path: Path) -> bool:
    try:
        return reader(path) > 0
    except (DatumError, cv2.error, ValueError, ZeroDivisionError):
        return False


def measure_reading(files: Sequence[Path], repeats: int, seconds: float) -> dict[str, Any]:
    """Frames per CPU-second of both readers, and ratios in the same turn."""

    def read(reader: Callable[[Path], int]) -> int:
        return sum(map(reader, files))

    names = {(kind, name): reader for kind, ways in READERS.items() for name, reader in ways.items()}
    measured = rates({str(key): partial(read, reader) for key, reader in names.items()}, repeats, seconds)
    results: dict[str, Any] = {}
    for kind, name in names:
        found, base = measured[str((kind, name))], measured[str((kind, "OpenCV"))]
        results.setdefault(kind, {})[name] = {
            f"{KINDS[kind]} per CPU-second": summary(found),
            "times OpenCV": summary([rate / other for rate, other in zip(found, base)]),
        }
    return results


# --- what came out ---------------------------------------------------------------------------------------------------


def print_table(rows: dict[str, dict[str, dict[str, float]]]) -> None:
    heads = list(next(iter(rows.values())))
    print(" " * 34 + "".join(f"{head:>46}" for head in heads))
    for name, row in rows.items():
        cells = (f"{v['median']:,.4g} ({v['min']:,.4g} to {v['max']:,.4g})" for v in row.values())
        print(f"{name:34}" + "".join(f"{cell:>46}" for cell in cells))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    city = data_folder() / "source" / "img_b.jpg"
    parser.add_argument("--image", default=str(city) if city.exists() else "sklearn:china.jpg", help="source image")
    parser.add_argument("--videos", type=Path, default=data_folder() / "video", help="folder of real videos")
    parser.add_argument("--repeats", type=int, default=7, help="turns each way gets")
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU time per way and turn")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.seconds = 2, 0.0
    elif options.out is None:
        options.out = ROOT / "benchmarks" / "results" / "video.json"
    use_one_thread()
    source = load_source(options.image)
    clips = measure_clips(source, options.repeats, options.seconds, options.quick)
    print_table(clips)
    reached = clips[OPENCV][f"times the {WRITTEN}"]["median"]
    print(f"{OPENCV} must reach {BAR} times the {WRITTEN}: {reached:.4g}")
    files = readable(options.videos, options.quick)
    reading = measure_reading(files, options.repeats, options.seconds) if files else {}
    if not files:
        print(f"no videos in {options.videos} that all readers take: name a folder with --videos")
    for kind, rows in reading.items():
        print(f"\n{kind} of {len(files)} videos")
        print_table(rows)
    if options.out is not None:
        height, width = source.images[0].shape[:2]
        write_results(
            options.out,
            {
                "command": "python benchmarks/video.py" + (" --quick" if options.quick else ""),
                "machine": machine(),
                "threads": 1,
                "source": {"name": source.name, "width": width, "height": height, "sha256": source.sha256},
                "reference": f"{made_with()}; mp4 of {WRITTEN_FRAMES} frames at {RATE:g} per second",
                "n": options.repeats,
                "CPU-seconds per way and repeat": options.seconds,
                "bar": {OPENCV: f"{BAR} times the {WRITTEN}"},
                "clips": clips,
                "videos": {
                    "files": len(files), "frames": sum(map(read_every_frame, files)), "read": reading,
                },
            },
        )  # fmt: skip
        print(f"written to {options.out}")


if __name__ == "__main__":
    main()
