"""`python -m torch_aip`: train a teacher, distil it from one image, measure, and look at views."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge.commands import REFERENCE, SMOKE, VIEWS, measure
from bridge.config import DistillConfig, EvaluateConfig, SweepConfig, TrainTeacherConfig
from bridge.insight.options import FidelityConfig, InspectConfig, ScoreConfig, VisualizeConfig
from bridge.shell import Command
from bridge.shell import main as run_program

ABOUT = "Clone or compress an image classifier from a single photograph (PyTorch)."


def _distill(config: DistillConfig) -> None:
    from bridge.distilling import summary_of
    from torch_aip.distill import distill

    result = distill(config)
    if not result or os.environ.get("RANK", "0") != "0":  # the first process says and writes what came out
        return
    print("\n".join(summary_of(result)))
    print(f"Report: {Path(config.out) / 'report.html'}\nStudent: {Path(config.out) / 'student'}")


def _sweep(config: SweepConfig) -> None:
    from torch_aip.sweep import sweep

    sweep(config)


def _train_teacher(config: TrainTeacherConfig) -> None:
    from torch_aip.train_teacher import train_teacher

    train_teacher(config)


def _evaluate(config: EvaluateConfig) -> dict[str, Any]:
    import torch

    from torch_aip.datasets import load, load_audio, load_video
    from torch_aip.evaluate import evaluate
    from torch_aip.run import set_up
    from torch_aip.teachers import load_teacher

    set_up(config.threads, 0)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def load_model(*names: Any, **options: Any) -> Any:
        return load_teacher(*names, **options).to(device)

    return measure(config, load, load_model, evaluate, load_video, load_audio)


def _visualize(config: VisualizeConfig) -> None:
    from torch_aip.visualize import visualize

    print("\n".join(map(str, visualize(config))))


def _score(config: ScoreConfig) -> None:
    from bridge.insight.score_picture import table
    from torch_aip.insight import score_sources

    print(table(score_sources(config)))
    print(f"Picture: {Path(config.out) / 'score.png'}")


def _fidelity(config: FidelityConfig) -> None:
    from bridge.insight.fidelity_page import summary_of
    from torch_aip.fidelity import fidelity

    print("\n".join(summary_of(fidelity(config))))
    print(f"{Path(config.out) / 'fidelity.html'}\n{Path(config.out) / 'fidelity.json'}")


def _inspect(config: InspectConfig) -> None:
    from bridge.insight.preflight import shown
    from torch_aip.insight import inspect_teacher

    print(shown(inspect_teacher(config)))


COMMANDS = {
    "distill": Command(DistillConfig, _distill, smoke=SMOKE["distill"], aliases=REFERENCE),
    "sweep": Command(SweepConfig, _sweep, smoke=SMOKE["sweep"], aliases={}, of_each=DistillConfig),
    "train-teacher": Command(TrainTeacherConfig, _train_teacher, smoke=SMOKE["train-teacher"], aliases={}),
    "evaluate": Command(EvaluateConfig, _evaluate, smoke={}, aliases=REFERENCE, writes_file=True),
    "views": VIEWS,
    "visualize": Command(VisualizeConfig, _visualize, smoke={"steps": 8}, aliases={}),
    "score": Command(ScoreConfig, _score, smoke={"views": 128}, aliases={}),
    "fidelity": Command(FidelityConfig, _fidelity, smoke={}, aliases={}),
    "inspect": Command(InspectConfig, _inspect, smoke={"views": 64}, aliases={}),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The program `torch-aip`; returns its exit code."""
    import torch

    try:
        return run_program("torch-aip", ABOUT, COMMANDS, arguments)
    except torch.OutOfMemoryError as error:
        if os.environ.get("AIP_DEBUG"):
            raise
        print(
            f"torch-aip: PyTorch: {str(error).splitlines()[0]} Make --batch-size smaller, or --accumulate larger.",
            file=sys.stderr,
        )
        return 2
    except RuntimeError as error:
        # gloo reports a lost process as any RuntimeError, by the place in its source
        lost = isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error)
        inexact = "deterministic implementation" in str(error)
        if os.environ.get("AIP_DEBUG") or not (lost or inexact):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = re.sub(r"^\[[^]]*\] ", "", first).partition(". ")[0]
        said = f"another process was lost ({reason}). Start all again, with --resume."
        if inexact:
            said = f"PyTorch: {reason}. Leave out --deterministic on this device, or choose another network."
        print(f"torch-aip: {said}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
