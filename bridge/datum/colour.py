"""Colour jitter as one 3 × 3 matrix and one offset per view.

Brightness, contrast, saturation and a turn of hue in YIQ are linear in RGB once the mean luma of the view is known.
Without the clamps between them they commute, so their order, which torchvision shuffles, does not matter. The YIQ turn
(torchvision turns in HSV), the single clamp at the end and the mean of the *rendered* view are ours.
"""

from __future__ import annotations

import numpy as np

from bridge.datum.recipes import Jitter

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in PIL's grey
_RGB_TO_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)
JITTER_DRAWS = 5
COLOUR_NUMBERS = 10  # a 3 × 3 matrix, row by row, and the factor of the mean luma


UNCHANGED = np.append(np.eye(3), 0.0)
"""The numbers of a view whose colours are left alone, exactly."""


def jitter_numbers(u: np.ndarray, jitter: Jitter) -> np.ndarray:
    """Draw colour jitter.

    Args:
        u: uniforms [JITTER_DRAWS, n].

    Returns:
        float64 [n, 10]: matrix M and factor k of x → clamp(M x + k · (mean luma of x)).
    """
    brightness, contrast = (
        1 + amount * (2 * u[1 + k] - 1) for k, amount in enumerate((jitter.brightness, jitter.contrast))
    )
    saturation = 1 + jitter.saturation * (2 * u[3] - 1)
    hue = jitter.hue * (2 * u[4] - 1)
    applied = u[0] < jitter.probability
    return np.where(applied[:, None], colour_numbers(brightness, contrast, saturation, hue), UNCHANGED)


def colour_numbers(brightness: np.ndarray, contrast: np.ndarray, saturation: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Factors [n] (hue: share of a turn, red towards yellow) → matrix and luma factor, float64 [n, 10]."""
    n = len(brightness)
    turn = 2 * np.pi * hue
    cos, sin = saturation * np.cos(turn), saturation * np.sin(turn)
    chroma = np.zeros((n, 3, 3))
    chroma[:, 0, 0] = 1
    chroma[:, 1, 1], chroma[:, 1, 2] = cos, sin
    chroma[:, 2, 1], chroma[:, 2, 2] = -sin, cos
    matrix = (_YIQ_TO_RGB @ chroma @ _RGB_TO_YIQ) * (brightness * contrast)[:, None, None]
    return np.concatenate([matrix.reshape(n, 9), (brightness * (1 - contrast))[:, None]], axis=1)
