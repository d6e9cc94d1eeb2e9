"""AugMix of a clip (Hendrycks et al. 2020) as one affine map and one colour stage, so that pixels are sampled once.

pytorchvideo's AugMix, which the reference calls, mixes the clip with several chains of operations on it. Here
brightness, contrast and saturation are mixed exactly: they are linear in the pixels once the clip's mean luma is known,
and none of them leaves [0, 1]. Turns, shears and shifts cannot be mixed without sampling once for each chain; one of
the mixed layers, drawn with its weight, gives them to the whole clip (ours). The other five operations (auto-contrast,
equalise, posterise, solarise, sharpness) are drawn and leave the clip as it is (ours).

The reference hands pytorchvideo clips in [0, 255] whose operations take them to lie in [0, 1], so that all but five
operations turn a chain black; that is not repeated.
"""

from __future__ import annotations

import numpy as np

from bridge.datum.colour import colour_numbers
from bridge.datum.geometry import compose, rotation_shear_map
from bridge.datum.video_recipes import AugMix

_LOWEST = 0.1
_OPERATIONS = 13
_ROTATE, _SHEAR_X, _SHEAR_Y, _SHIFT_X, _SHIFT_Y, _SATURATION, _CONTRAST, _BRIGHTNESS = range(8)
# at level 10: degrees, shares of the other side, of the own side
_LARGEST = {_ROTATE: 30.0, _SHEAR_X: 0.3, _SHEAR_Y: 0.3, _SHIFT_X: 1 / 3, _SHIFT_Y: 1 / 3}


def augmix_draws(mix: AugMix) -> int:
    """How many uniforms `augmix_numbers` takes for each clip."""
    return 2 + 2 * mix.chains + 3 * mix.chains * mix.depth


def augmix_numbers(u: np.ndarray, mix: AugMix, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw AugMix.

    Args:
        u: uniforms [augmix_draws(mix), n].
        side: of the frames, in pixels.

    Returns:
        float64 [n, 2, 3], the map from the augmented frames to the frames; and their colour stage [n, 10], as of
        `bridge.datum.colour`.
    """
    n, chains, depth = u.shape[1], mix.chains, mix.depth
    kept, layer = u[0], u[1]  # the clip's own share is Beta(1, 1), the chains' Dirichlet(1, …, 1)
    shares = -np.log(u[2 : 2 + chains])
    shares *= (1 - kept) / shares.sum(axis=0)
    lengths = 1 + np.floor(u[2 + chains : 2 + 2 * chains] * depth)
    kind, level, sign = u[2 + 2 * chains :].reshape(3, chains, depth, n)
    kind = np.floor(kind * _OPERATIONS)
    kind[np.arange(depth)[:, None] >= lengths[:, None]] = _OPERATIONS  # none
    level = (_LOWEST + (mix.magnitude - _LOWEST) * level) / 10
    colour = np.concatenate([np.eye(3).ravel(), [0]]) * kept[:, None]
    for chain in range(chains):
        saturation, contrast, brightness = (
            np.where(kind[chain] == operation, 0.1 + 1.8 * level[chain], 1.0).prod(axis=0)
            for operation in (_SATURATION, _CONTRAST, _BRIGHTNESS)
        )
        colour += shares[chain][:, None] * colour_numbers(brightness, contrast, saturation, np.zeros(n))
    # the layer that shows its geometry; chain number `chains` is the clip itself
    shown = (layer > np.cumsum(shares, axis=0)).sum(axis=0)
    kind = np.concatenate([kind, np.full((1, depth, n), _OPERATIONS)])[shown, :, np.arange(n)]
    own = np.minimum(shown, chains - 1)
    level, sign = level[own, :, np.arange(n)], np.where(sign[own, :, np.arange(n)] < 0.5, -1.0, 1.0)
    return compose(*(_moved(kind[:, k], level[:, k] * sign[:, k], side) for k in range(depth))), colour


def _moved(kind: np.ndarray, amount: np.ndarray, side: float) -> np.ndarray:
    """One operation's map, the identity where `kind` [n] is none that moves pixels: [n, 2, 3]."""
    value = {operation: np.where(kind == operation, largest * amount, 0.0) for operation, largest in _LARGEST.items()}
    out = rotation_shear_map(value[_ROTATE], np.zeros(len(kind)), side)
    out[:, 0, 1] += value[_SHEAR_X]  # about the upper left corner, as in pytorchvideo
    out[:, 1, 0] += value[_SHEAR_Y]
    out[:, 0, 2] += value[_SHIFT_X] * side
    out[:, 1, 2] += value[_SHIFT_Y] * side
    return out
