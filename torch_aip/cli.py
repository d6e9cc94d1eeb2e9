"""`python -m torch_aip`: measure a network, and look at views."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from bridge.commands import VIEWS, measure
from bridge.config import EvaluateConfig
from bridge.shell import Command
from bridge.shell import main as run_program

ABOUT = "Clone or compress an image classifier from a single photograph (PyTorch)."


def _evaluate(config: EvaluateConfig) -> dict[str, Any]:
    import torch

    from bridge.datasets import load
    from torch_aip.evaluate import evaluate
    from torch_aip.teachers import load_teacher

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return measure(config, load, load_teacher, evaluate)


COMMANDS = {
    "evaluate": Command(EvaluateConfig, _evaluate, smoke={}, aliases={}),
    "views": VIEWS,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The program `torch-aip`; returns its exit code."""
    import torch

    try:
        return run_program("torch-aip", ABOUT, COMMANDS, arguments)
    except torch.OutOfMemoryError as error:
        if os.environ.get("AIP_DEBUG"):
            raise
        print(f"torch-aip: PyTorch: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
