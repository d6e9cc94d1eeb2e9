"""Crops, rotation, shear and flips as one affine map per view, from output pixels to source pixels.

Coordinates are continuous (x right, y down, the first pixel's centre at 0.5). An affine map is float64 [n, 2, 3].
"""

from __future__ import annotations

import numpy as np

ATTEMPTS = 8  # of the area/aspect crop; each is refused in 13 % of cases, so all eight in one of 10^7
CROP_DRAWS = 2 * ATTEMPTS + 2


def area_crop(
    u: np.ndarray, side: np.ndarray | float, area: tuple[float, float], aspect: tuple[float, float]
) -> np.ndarray:
    """A random crop of a square: the first of `ATTEMPTS` drawn (area, aspect) pairs that fits.

    Area uniform, aspect log-uniform, rejection without a fallback to the centre (reference code); should all
    attempts fail, the last is clipped to the square.

    Args:
        u: uniforms [CROP_DRAWS, n].
        side: side of the square, in pixels.

    Returns:
        float64 [n, 4]: left, top, width, height, in pixels of the square.
    """
    areas = area[0] + (area[1] - area[0]) * u[:ATTEMPTS]
    ratios = np.exp(np.log(aspect[0]) + np.log(aspect[1] / aspect[0]) * u[ATTEMPTS : 2 * ATTEMPTS])
    widths, heights = np.sqrt(areas * ratios), np.sqrt(areas / ratios)
    fits = (widths <= 1) & (heights <= 1)
    first = np.where(fits.any(axis=0), fits.argmax(axis=0), ATTEMPTS - 1)
    columns = np.arange(u.shape[1])
    width = np.minimum(widths[first, columns], 1.0) * side
    height = np.minimum(heights[first, columns], 1.0) * side
    left, top = u[2 * ATTEMPTS] * (side - width), u[2 * ATTEMPTS + 1] * (side - height)
    return np.stack([left, top, width, height], axis=1)


def box_map(box: np.ndarray, size: float) -> np.ndarray:
    """The map that takes a square of `size` pixels onto `box` ([n, 4]: left, top, width, height): [n, 2, 3]."""
    out = np.zeros((len(box), 2, 3))
    out[:, 0, 0], out[:, 1, 1] = box[:, 2] / size, box[:, 3] / size
    out[:, :, 2] = box[:, :2]
    return out


def flip_map(flip: np.ndarray, size: float, axis: int) -> np.ndarray:
    """Mirror a square of `size` pixels along `axis` (0: x, 1: y) where `flip` (bool [n]) says so: [n, 2, 3]."""
    out = np.zeros((len(flip), 2, 3))
    out[:, 0, 0] = out[:, 1, 1] = 1
    out[:, axis, axis] = np.where(flip, -1.0, 1.0)
    out[:, axis, 2] = np.where(flip, size, 0.0)
    return out


def shift_map(shift: np.ndarray) -> np.ndarray:
    """Move by `shift` ([n, 2] pixels): [n, 2, 3]."""
    out = np.zeros((len(shift), 2, 3))
    out[:, 0, 0] = out[:, 1, 1] = 1
    out[:, :, 2] = shift
    return out


def rotation_shear_map(angle: np.ndarray, shear: np.ndarray, size: float) -> np.ndarray:
    """Output → input of a turn and an x-shear about the centre of a square.

    The inverse of torchvision's affine (rotation after shear, shear given as the angle of the y axis), which the
    reference uses.

    Args:
        angle, shear: degrees [n].
        size: side of the square, in pixels.

    Returns:
        [n, 2, 3], determinant 1.
    """
    a, s = np.radians(angle), np.tan(np.radians(shear))
    cos, sin = np.cos(a), np.sin(a)
    out = np.empty((len(a), 2, 3))
    out[:, 0, 0], out[:, 0, 1] = cos - s * sin, sin + s * cos
    out[:, 1, 0], out[:, 1, 1] = -sin, cos
    centre = size / 2
    out[:, :, 2] = centre - out[:, :, :2].sum(axis=2) * centre
    return out


def compose(*maps: np.ndarray) -> np.ndarray:
    """maps[0] ∘ maps[1] ∘ …: the last is applied first. Each [n, 2, 3]."""
    out = maps[-1]
    for outer in reversed(maps[:-1]):
        out = outer[:, :, :2] @ out
        out[:, :, 2] += outer[:, :, 2]
    return out


def scale_of(affine: np.ndarray) -> np.ndarray:
    """How many source pixels one output pixel spans along a side (√|det|): float64 [n]."""
    return np.sqrt(np.abs(affine[:, 0, 0] * affine[:, 1, 1] - affine[:, 0, 1] * affine[:, 1, 0]))
