"""Does a student learn motion from one still image? Six classes that motion alone tells apart, in PyTorch:

    python examples/motion.py --image city.jpg

Writes videos of procedural textures that move left, right, up or down, or zoom in or out; no frame tells the class, and
no photograph is among them. A teacher is trained on these videos. One student sees nothing but fake clips of the image,
a box that wanders over it; a second one, the control, sees the same clips standing still.
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
    """`each` videos per class, in a folder per class; no texture is in two of them."""
    for label, name in enumerate(CLASSES):
        for number in range(each):
            random = np.random.default_rng([("train", "test").index(part), label, number])
            path = folder / part / name / f"{number:04d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_clip(movie(label, random), RATE))
