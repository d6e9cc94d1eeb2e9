"""The ranking as a table and as one picture: any name, and what is not known of sounds."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from bridge.insight.measures import MEASURES
from bridge.insight.score_picture import NOT_OF_SOUNDS, Scored, picture, table


def some(sound: bool, *names: str) -> list[Scored]:
    tile = np.full((32, 32, 3), 90, np.uint8)
    return [Scored(name, name, {key: 0.5 + k for key in MEASURES}, tile, sound) for k, name in enumerate(names)]


def test_of_sounds_table_and_picture_say_that_the_order_was_not_measured(monkeypatch) -> None:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    written: list[str] = []
    for of, name, place in ((Axes, "text", 3), (Figure, "supxlabel", 1)):
        genuine = getattr(of, name)

        def kept(*args, _genuine=genuine, _place=place, **options):
            written.append(args[_place])
            return _genuine(*args, **options)

        monkeypatch.setattr(of, name, kept)
    for sound in (False, True):
        written.clear()
        found = some(sound, "a.wav", "b.wav")
        assert (table(found).splitlines()[-1] == NOT_OF_SOUNDS) == sound
        assert Image.open(io.BytesIO(picture(found, "title"))).width > 1000
        assert (NOT_OF_SOUNDS in written) == sound and ("higher is better" in written) != sound


@pytest.mark.parametrize("name", ["$x.png", "$\\\\frac$", "a_b^c$", "<b>", ""])
def test_names_are_no_formulas(name: str) -> None:
    assert Image.open(io.BytesIO(picture(some(False, name), f"Sources for {name}"))).height > 100
