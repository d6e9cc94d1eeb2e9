"""Does a student learn motion from one still image? Six classes that motion alone tells apart, in PyTorch:

    python examples/motion.py --image city.jpg

Writes videos of procedural textures that move left, right, up or down, or zoom in or out. No single frame tells the
class, and no photograph is among them. A teacher is trained on these videos. One student sees nothing but fake clips of
the image, a box that wanders over it; a second one, the control, the same clips standing still. Then both are measured
on videos whose textures neither they nor the teacher have seen.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from bridge.datum.clip_files import encode_clip

CLASSES = ("left", "right", "up", "down", "in", "out")
SIZE, FRAMES, RATE = 80, 16, 30  # pixels, frames of a video, frames per second
OCTAVES, TILE = 3, 64  # copies of a texture at scales of 1, 2 and 4, each endless by repetition of so many pixels


def tile(random: np.random.Generator) -> np.ndarray:
    """A texture whose left and right, upper and lower edges fit together: float32 [TILE, TILE, 3], mean 0."""
    kind, y, x = random.integers(3), *np.mgrid[:TILE, :TILE] * (2 * np.pi / TILE)
    if kind == 0:  # noise of one band of frequencies
        waves = np.hypot(*np.meshgrid(np.fft.fftfreq(TILE, 1 / TILE), np.fft.fftfreq(TILE, 1 / TILE)))
        band = np.exp(-((waves - random.uniform(2, 5)) ** 2) / 2)
        plane = np.fft.ifft2(np.fft.fft2(random.normal(size=(TILE, TILE))) * band).real
    elif kind == 1:  # two gratings across each other
        u, v = random.integers(1, 4, 2)
        plane = np.sin(u * x + v * y + random.uniform(0, 7)) + np.sin(v * x - u * y + random.uniform(0, 7))
    else:  # blobs
        spots = np.zeros((TILE, TILE))
        spots[tuple(random.integers(0, TILE, (2, 12)))] = random.choice([-1, 1], 12)
        spots = np.tile(spots, (3, 3))
        plane = cv2.GaussianBlur(spots, None, random.uniform(2, 4))[TILE : 2 * TILE, TILE : 2 * TILE]
    plane = (plane - plane.mean()) / plane.std()
    return (plane[..., None] * random.normal(size=3) / 2).astype(np.float32)


def movie(label: int, random: np.random.Generator) -> np.ndarray:
    """One video: uint8 [FRAMES, SIZE, SIZE, 3].

    Each frame has the same distribution whatever the class. Textures are endless and begin anywhere, so moving them
    changes nothing about a frame. To zoom, copies at three scales fade in and out in a circle (as Shepard's tones do),
    and the place in the circle where a video begins is drawn at random too.
    """
    tiles, places = [tile(random) for _ in range(OCTAVES)], random.uniform(0, TILE, (OCTAVES, 2))
    begin, ground, centre = random.uniform(0, OCTAVES), random.uniform(90, 166, 3), random.uniform(0.3, 0.7, 2) * SIZE
    pixels, octaves = random.uniform(0.6, 1.6), random.uniform(0.04, 0.1)  # per frame
    name = CLASSES[label]
    across = {"left": 1, "right": -1}.get(name, 0) * pixels
    down = {"up": 1, "down": -1}.get(name, 0) * pixels
    zoom = {"in": 1, "out": -1}.get(name, 0) * octaves
    out = []
    for time in range(FRAMES):
        frame = np.tile(ground, (SIZE, SIZE, 1))
        for texture, place, octave in zip(tiles, places, range(OCTAVES)):
            turn = (octave + begin + zoom * time) % OCTAVES
            scale = 2 ** (OCTAVES / 2 - turn)  # of a step in the texture: large when it is small
            corner = place - scale * (centre - np.array([across, down]) * time)
            grid = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
            how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            seen = cv2.warpAffine(texture, grid, (SIZE, SIZE), flags=how, borderMode=cv2.BORDER_WRAP)
            visible = np.sin(np.pi * turn / OCTAVES) ** 2
            frame += 40 * visible * seen
        out.append(np.clip(np.rint(frame), 0, 255).astype(np.uint8))
    return np.stack(out)


def write_set(folder: Path, part: str, each: int) -> None:
    """`each` videos per class, in a folder per class; every one has textures of its own."""
    for label, name in enumerate(CLASSES):
        (folder / part / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            random = np.random.default_rng([("train", "test").index(part), label, number])
            (folder / part / name / f"{number:04d}.mp4").write_bytes(encode_clip(movie(label, random), RATE))


def command(*words: object) -> None:
    """What `python -m torch_aip …` does; ends this program if it fails."""
    from torch_aip.cli import main

    if code := main([str(word) for word in words]):
        raise SystemExit(code)


def story(options: argparse.Namespace) -> None:
    """Everything from the videos to the table; what is there already is kept."""
    data, teacher = options.out / "videos", options.out / "teacher"
    if not data.is_dir():
        beside = data.with_name("videos.partly")  # so that what a kill leaves is not taken for the whole
        write_set(beside, "test", max(options.videos // 2, 1))
        write_set(beside, "train", options.videos)
        beside.rename(data)
    # The four frames of a clip span a whole video, so that one clip of it is all there is.
    reading = ("--dataset", data, "--stride", FRAMES / 4, "--clips", 1)
    shared = ("--batch-size", options.batch_size, "--threads", options.threads)
    if not teacher.is_dir():
        command(
            "train-teacher", *reading, "--architecture", "x3d_xs", "--width", 1, "--depth", 1, "--no-flip",
            "--image-size", options.image_size, "--epochs", options.teacher_epochs, "--learning-rate", 3e-3, *shared,
            "--out", teacher,
        )  # fmt: skip
    results = {}
    for motion in ("linear", "none"):
        run = options.out / motion
        if not (run / "result.json").is_file():
            command(
                "distill", *reading, "--image", options.image, "--teacher", teacher, "--motion", motion,
                "--student", "x3d_xs", "--student-width", 1, "--student-depth", 1, "--views", "None",
                "--recipe", "steady", "--temperature", 5, "--mixing-per", "sample", "--steps-per-epoch", options.steps,
                "--epochs", options.epochs, "--optimizer", "adamw", "--learning-rate", 4e-3, "--schedule", "cosine",
                "--warmup", 0.1, *shared, "--out", run,
            )  # fmt: skip
        results[motion] = json.loads((run / "result.json").read_text())
    linear, still = results["linear"], results["none"]
    print(f"\n{'seen in training':<36}{'right of ' + format(linear['n'], ','):>14}")
    for what, share in (
        ("the videos of the training part", linear["teacher_top1"]),
        (f"{linear['source']}, moving", linear["student_top1"]),
        (f"{still['source']}, standing still", still["student_top1"]),
        ("nothing (chance)", 1 / len(CLASSES)),
    ):
        print(f"{what:<36}{share:>14.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="sklearn:china.jpg", help="the one image the students learn from")
    parser.add_argument("--videos", type=int, default=100, help="per class to train on; half as many to measure on")
    parser.add_argument("--image-size", type=int, default=64, help="side of the frames networks see, in pixels")
    parser.add_argument("--teacher-epochs", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=12, help="of the students")
    parser.add_argument("--steps", type=int, default=100, help="of an epoch of the students")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", default="None", help="CPU threads; None leaves it to PyTorch")
    parser.add_argument("--out", type=Path, default=Path("runs/motion"))
    story(parser.parse_args())


if __name__ == "__main__":
    main()
