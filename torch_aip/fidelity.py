"""How faithful a student is to its teacher, on any files."""

from __future__ import annotations

from typing import Any

import torch

from bridge.insight import comparing
from bridge.insight.options import FidelityConfig
from torch_aip.datasets import load, load_audio, load_video
from torch_aip.evaluate import predict_all
from torch_aip.run import set_up
from torch_aip.teachers import load_teacher


def fidelity(config: FidelityConfig) -> dict[str, Any]:
    """Compare a student with its teacher, and write what came out as fidelity.html and fidelity.json.

    Returns:
        What fidelity.json holds; `bridge.insight.fidelity.compare` says what its figures mean.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    set_up(config.threads, 0)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def load_model(*names: Any, **options: Any) -> Any:
        return load_teacher(*names, **options).to(device)

    return comparing.fidelity(config, load, load_model, predict_all, load_video, load_audio)
