"""What every page is made of: one file that opens anywhere, without network or script, light and dark, phone and desk.

`page.html.j2` is the frame and the style, `parts.html.j2` what several pages show; every text given to them is escaped.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridge.datum.audio_files import encode_wav
from bridge.errors import RunError
from bridge.files import atomic_write
from bridge.grids import png_bytes


def write_page(path: str | Path, template: str, **values: Any) -> None:
    """Write a page.

    Args:
        path: The file to write; an old one is replaced at once when the new one is whole.
        template: Its name, in this folder.
        values: What it shows.

    Raises:
        RunError: The file cannot be written.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(template).render(**values)
    try:
        atomic_write(Path(path), html)
    except OSError as error:
        raise RunError(
            f"Cannot write the report {path}: {error}. Make its folder writable or free some disk space."
        ) from error


def picture_url(image: NDArray[np.uint8]) -> str:
    """A picture, uint8 ``[height, width, 3]``, as an address that holds it."""
    return png_url(png_bytes(image))


def png_url(picture: bytes) -> str:
    """A PNG, likewise."""
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")


def sound_url(waveform: NDArray[np.floating], rate: int) -> str:
    """A waveform, float ``[samples]`` in [-1, 1], likewise; ``rate`` in samples per second."""
    return "data:audio/wav;base64," + base64.b64encode(encode_wav(waveform, rate)).decode("ascii")


def percent(share: float | None) -> str:
    """ "97.1 %", or a dash for what has no meaning."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.1f} %"


def number(value: float) -> str:
    """ "38 400" or "0.1234"."""
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.4g}"


def flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Options, nested as they are, as rows of a table."""
    rows = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            rows += flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", str(value)))
    return rows
