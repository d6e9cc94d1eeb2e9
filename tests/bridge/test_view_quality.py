"""Views show what an exactly averaged view would show, at least as well as the reference's order of operations."""

from __future__ import annotations

import math
import os
import sys
from functools import lru_cache

import cv2
import numpy as np
import pytest
from PIL import Image

from bridge.datum.geometry import scale_of
from bridge.datum.recipes import BaseView, ImageRecipe
from bridge.datum.render import render
from bridge.datum.sources import load_source
from bridge.datum.views import ViewSet
from tests.conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))

from reference_views import exact_map, parameters_of, reference_map, render_reference

ALLOWED_LOSS = 0.5  # dB
# size of a view, minification from, to, views drawn to find some, views compared, samples per pixel along a side
BINS = {
    "32 px, 1-4x": (32, 1, 4, 3500, 100, 8),
    "32 px, 4-10x": (32, 4, 10, 700, 100, 12),
    "32 px, over 10x": (32, 10, 99, 150, 100, 16),
    "224 px, 1-4x": (224, 1, 4, 24, 16, 4),
}
SOURCES = {
    "clouds": BINS,
    "sklearn:china.jpg": ["32 px, 1-4x"],
    "sklearn:flower.jpg": ["32 px, 1-4x"],
    "city": BINS,
}


@lru_cache(maxsize=1)
def pixels_of(source: str) -> np.ndarray:
    return clouds(1920, 2560) if source == "clouds" else load_source(source).images[0]


def clouds(height: int, width: int) -> np.ndarray:
    """Colours whose spectrum falls with frequency as that of photographs does, with hard edges between them."""
    draw = np.random.default_rng(0)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    fall = 1 / np.maximum(np.hypot(fy, fx), 1 / width) ** 1.1
    planes = []
    for _ in range(4):
        plane = np.fft.irfft2(np.fft.rfft2(draw.standard_normal((height, width), np.float32)) * fall, (height, width))
        planes.append(plane / plane.std())
    edge = planes.pop() > 0
    image = 0.5 + 0.15 * np.stack(planes, axis=-1) + 0.2 * np.where(edge, 1, -1)[..., None]
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def truth(pixels: np.ndarray, affine: np.ndarray, size: int, samples: int) -> np.ndarray:
    """Every pixel the mean of samples² looked up in the full image: float32 [size, size, 3] in [0, 1]."""
    fine = affine / [samples, samples, 1]
    fine[:, 2] += 0.5 * (fine[:, 0] + fine[:, 1]) - 0.5  # from pixel centre to pixel centre
    looked_up = cv2.warpAffine(
        pixels, fine, (size * samples, size * samples), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return cv2.resize(looked_up.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) / 255


def well_inside(affine: np.ndarray, crop: tuple[float, float, float, float], size: int) -> np.ndarray:
    """Where a pixel and those around it lie within the crop: bool [size, size]."""
    centre = np.arange(size) + 0.5
    inside = np.ones((size, size), bool)
    for row, low, extent in zip(affine, crop[:2], crop[2:]):
        position = row[0] * centre[None, :] + row[1] * centre[:, None] + row[2]
        reach = 1.5 * (abs(row[0]) + abs(row[1]))
        inside &= (position - reach >= low) & (position + reach <= low + extent)
    return inside


def decibels(image: np.ndarray, exact: np.ndarray, inside: np.ndarray) -> float:
    return -10 * math.log10(np.mean((image[inside] - exact[inside]) ** 2))


@pytest.mark.parametrize(("source", "bin_name"), [(name, b) for name, bins in SOURCES.items() for b in bins])
def test_views_are_as_sharp_and_as_free_of_aliasing_as_the_references(source, bin_name, request, record_property):
    if source == "city":
        source = str(request.getfixturevalue("data_folder") / "source" / "img_b.jpg")
        if not os.path.exists(source):
            pytest.skip(f"{source} is absent; set AIP_DATA to the folder of the real data sets")
    pixels = pixels_of(source)
    size, low, high, drawn, wanted, samples = BINS[bin_name]
    recipe = ImageRecipe(size=size, base_size=size, base=BaseView(jitter=None), augmentation=None)
    views = ViewSet(pixels, recipe, seed=5)
    parameters = parameters_of(views, np.arange(drawn))
    scales = scale_of(np.stack([exact_map(view) for view in parameters]))
    chosen = np.flatnonzero((scales >= low) & (scales < high))[:wanted]
    assert len(chosen) > 0.8 * wanted
    image = Image.fromarray(pixels)
    ours, theirs = [], []
    for n, view in zip(chosen, render(views, chosen)):
        for found, rendered, affine in (
            (ours, view, exact_map(parameters[n])),
            (theirs, render_reference(image, parameters[n]), reference_map(parameters[n])),
        ):
            inside = well_inside(affine, parameters[n].crop, size)
            found.append(decibels(rendered, truth(pixels, affine, size, samples), inside))
    medians = {
        "ours": float(np.median(ours)),
        "the reference's": float(np.median(theirs)),
        "paired difference": float(np.median(np.subtract(ours, theirs))),
    }
    line = ", ".join(f"{who} {value:.2f}" for who, value in medians.items())
    record_property("median PSNR in dB", line)
    print(f"{os.path.basename(source)}, {bin_name}, {len(chosen)} views, median PSNR in dB: {line}")
    assert medians["ours"] >= medians["the reference's"] - ALLOWED_LOSS


def test_a_view_without_the_pyramid_would_be_found_out():
    """The measure must be able to fail: sampling the full image once per pixel aliases."""
    pixels = clouds(960, 1280)
    recipe = ImageRecipe(base=BaseView(jitter=None), augmentation=None)
    views = ViewSet(pixels, recipe, seed=5)
    view = parameters_of(views, np.arange(1))[0]
    affine, inside = exact_map(view), well_inside(exact_map(view), view.crop, 32)
    exact = truth(pixels, affine, 32, 16)
    aliased = decibels(truth(pixels, affine, 32, 1), exact, inside)
    assert aliased < decibels(render(views, np.arange(1))[0], exact, inside) - 3
