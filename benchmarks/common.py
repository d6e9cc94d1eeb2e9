"""What every benchmark shares: the machine in words, interleaved repeats in CPU time, a results file."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bridge.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "tensorflow", "keras", "torch", "torchvision")


def data_folder() -> Path:
    """Where the real data lie: the environment variable AIP_DATA, else `shared/data` beside the project."""
    return Path(os.environ.get("AIP_DATA") or ROOT.parent / "shared" / "data")


def machine() -> dict[str, Any]:
    """Processor, number of cores, Python and library versions: nothing that tells one machine from its like."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
    }


def _version(name: str) -> str | None:
    for distribution in (name, f"{name}-cpu"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def rates(candidates: dict[str, Callable[[], int]], repeats: int, seconds: float) -> dict[str, list[float]]:
    """Items per second of process CPU time, the candidates taking turns so that all meet the same machine.

    Args:
        candidates: name → function that does some work and returns how many items it made. It is called once
            beforehand, for compilation and caches.
        repeats: turns.
        seconds: CPU time each candidate gets per turn; it is always called at least once.

    Returns:
        Name → one rate per turn.
    """
    for work in candidates.values():
        work()
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, work in candidates.items():
            items, start = 0, time.process_time()
            while (spent := time.process_time() - start) < seconds or not items:
                items += work()
            found[name].append(items / spent)
    return found


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest, to four digits."""
    spread = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in spread.items()}


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(results, indent=2) + "\n")
