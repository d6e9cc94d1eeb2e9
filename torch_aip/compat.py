"""What differs between the builds of PyTorch and its companions, in one place."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType

import torch

from bridge.errors import TeacherError

# Declared where torchvision's compiled operators do not load: it describes them further while it is imported.
_OPERATORS = ("nms", "qnms")
_declared: torch.library.Library | None = None  # kept: the declarations live no longer than it does


def torchvision() -> ModuleType:
    """Import torchvision, also one that was built for another PyTorch (for CUDA, beside a PyTorch for the CPU).

    Such a one misses its compiled operators (non-maximum suppression and the like), and says so by an error while it is
    imported; models and transforms need none of them.

    Raises:
        TeacherError: It is not installed, or does not run.
    """
    global _declared
    if "torchvision" not in sys.modules and _declared is None and not _compiled_operators_load():
        _declared = torch.library.Library("torchvision", "DEF")
        for name in _OPERATORS:
            _declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        warnings.warn(
            "torchvision was built for another PyTorch: its compiled operators are missing, its models run",
            stacklevel=2,
        )
    try:
        return importlib.import_module("torchvision")
    except ImportError as error:
        raise TeacherError(f"torchvision is needed here ({error}). Install it: pip install torchvision") from error
    except RuntimeError as error:
        raise TeacherError(
            f"torchvision does not run with PyTorch {torch.__version__} ({error}). Install the one made for it."
        ) from error


def _compiled_operators_load() -> bool:
    """Whether they do, or torchvision is not there at all."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return True
    for library in Path(found.origin).parent.glob("_C.*"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return False
    return True
