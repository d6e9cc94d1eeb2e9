"""Captioned pictures side by side, and maps of attention over photographs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bridge.errors import DatumError
from bridge.grids import image_grid, png_bytes
from bridge.insight.neurons import sampler

_SIDES = (96, 192)
"""Smaller pictures are enlarged to about this many pixels, where there are many of them or few; each pixel staying a
sharp square."""
_FEW = 5
_NARROWEST = 130
"""Pixels of a cell, for its captions."""
_LINE = 18
_TEXT = 12
_PAPER, _INK, _GAP = 255, 30, 6
_WIDEST = 1400
"""Pixels of a grid."""
# Red, orange, yellow, white: of heat over a photograph.
_HEAT = np.array([(128, 0, 0), (255, 60, 0), (255, 200, 0), (255, 255, 200)], np.float32)
_COVER = 0.65
"""How much of a photograph the hottest place covers."""


def neuron_grid_for_report(
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]],
    columns: int | None = None,
) -> bytes:
    """A PNG of pictures in columns, those of one network in a row: teacher above student.

    Args:
        rows: for each network its pictures, uint8 [height, width, 3], of any sizes; all rows are as long.
        titles: above each column.
        captions: under each picture.
        columns: beside each other; None: what is still easy to look at. Further ones go below.

    Raises:
        DatumError: there are no pictures, or not as many of one as of the other.
    """
    if not titles or {len(row) for row in (*rows, *captions)} != {len(titles)} or len(rows) != len(captions):
        counts = [len(row) for row in rows]
        raise DatumError(f"Rows of {counts} pictures for {len(titles)} titles; expected as many of each, at least one.")
    side = _SIDES[len(titles) <= _FEW]
    enlarged = [[_enlarged(picture, side) for picture in row] for row in rows]
    height = max(picture.shape[0] for row in enlarged for picture in row)
    width = max(_NARROWEST, *(picture.shape[1] for row in enlarged for picture in row))
    most = columns or max(1, (_WIDEST + _GAP) // (width + _GAP))
    blocks = -(-len(titles) // most)
    columns = -(-len(titles) // blocks)
    cells = []
    for first in range(0, len(titles), columns):
        for row, texts in zip(enlarged, captions):
            part = [
                _cell(picture, height, width, title, text)
                for picture, title, text in zip(row[first:], titles[first:], texts[first : first + columns])
            ]
            cells += part + [np.full_like(part[0], _PAPER)] * (columns - len(part))
    return png_bytes(image_grid(np.stack(cells), columns=columns, gap=_GAP))


def overlaid(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A map over a photograph: grey where nobody looks, red to yellow where it matters.

    Args:
        image: uint8 [height, width, 3].
        heat: float32 [any height, any width], at least 0; the largest is drawn hottest.
    """
    height, width = image.shape[:2]
    warm = sampler(height, heat.shape[0]) @ heat @ sampler(width, heat.shape[1]).T
    warm = np.clip(warm / max(float(warm.max()), 1e-12), 0, 1)
    knots = np.linspace(0, 1, len(_HEAT))
    colour = np.stack([np.interp(warm, knots, channel) for channel in _HEAT.T], axis=-1)
    grey = image.astype(np.float32).mean(axis=-1, keepdims=True)
    cover = _COVER * warm[..., None]
    return np.rint(grey * (1 - cover) + colour * cover).astype(np.uint8)


def _enlarged(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    factor = max(1, round(side / picture.shape[0]))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _cell(picture: NDArray[np.uint8], height: int, width: int, title: str, caption: str) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw, ImageFont

    cell = Image.new("RGB", (width, height + 2 * _LINE), (_PAPER,) * 3)
    left, top = (width - picture.shape[1]) // 2, _LINE + (height - picture.shape[0]) // 2
    cell.paste(Image.fromarray(picture), (left, top))
    draw, font = ImageDraw.Draw(cell), ImageFont.load_default(_TEXT)
    for line, middle in ((title, _LINE / 2), (caption, height + 1.5 * _LINE)):
        text = " ".join(line.split())  # Pillow measures single lines alone
        while draw.textlength(text, font) > width and len(text) > 1:
            text = text.removesuffix("…")[:-1] + "…"
        draw.text((width / 2, middle), text, (_INK,) * 3, font, anchor="mm")
    return np.asarray(cell)
