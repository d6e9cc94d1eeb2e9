"""How faithful a student is to its teacher, on any files."""

from __future__ import annotations

from typing import Any

from bridge.insight import comparing
from bridge.insight.options import FidelityConfig
from keras_aip.datasets import load, load_audio
from keras_aip.evaluate import predict_all
from keras_aip.run import set_up
from keras_aip.teachers import load_teacher


def fidelity(config: FidelityConfig) -> dict[str, Any]:
    """Compare a student with its teacher, and write what came out as fidelity.html and fidelity.json.

    Returns:
        What fidelity.json holds; `bridge.insight.fidelity.compare` says what its figures mean.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    set_up(config.threads, 0)
    return comparing.fidelity(config, load, load_teacher, predict_all, load_audio=load_audio)
