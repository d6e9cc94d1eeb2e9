"""The weights of a network as the state dict both backends share, and out of the files people keep them in."""

from __future__ import annotations

import json
import pickle
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from bridge.errors import TeacherError
from bridge.networks import IGNORED, check_fit
from torch_aip.models.layers import ARCHITECTURE

# Under which keys training programs keep the state dict beside other things, and what they put before its names.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "student", "net")
PREFIXES = ("module.", "_orig_mod.", "student.", "model.")


def plain(model: Any) -> Any:
    """Return the module inside what `torch.compile` or DistributedDataParallel made of it, or the model itself."""
    dynamo = sys.modules.get("torch._dynamo")  # takes a second to load, and nothing is compiled without it
    while True:
        if dynamo is not None and isinstance(model, dynamo.OptimizedModule):
            model = model._orig_mod
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


def state_dict(model: nn.Module) -> dict[str, np.ndarray]:
    """Return the weights under the names and in the layout both backends share.

    Returns:
        ``<layer>.weight``, ``.bias``, ``.running_mean``, ``.running_var`` as float32 (whole numbers as they are);
        convolutions ``[out, in, height, width]``, dense layers ``[out, in]``.
    """
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().contiguous().numpy().copy()
        for name, tensor in _kept(plain(model).state_dict()).items()
    }


def load_state_dict(model: nn.Module, arrays: Mapping[str, Any]) -> None:
    """Set all weights of a model; ``num_batches_tracked`` is passed over.

    Args:
        model: Any module.
        arrays: What :func:`state_dict` of either backend returns, or a PyTorch state dict.

    Raises:
        TeacherError: Names are missing, unknown or have another shape (all are listed; no weight is changed).
    """
    model = plain(model)
    expected, given = _kept(model.state_dict()), _kept(arrays)
    described = getattr(model, ARCHITECTURE, None)
    check_fit(
        json.loads(described)["architecture"] if described else type(model).__name__,
        sum(tensor.numel() for tensor in expected.values()),
        {name: tuple(tensor.shape) for name, tensor in expected.items()},
        {name: tuple(array.shape) for name, array in given.items()},
    )
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(torch.as_tensor(given[name]))


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Set all weights of a model from a ``.safetensors`` file or a PyTorch checkpoint, without executing anything.

    A state dict inside a checkpoint (under ``state_dict``, ``model``, ``student``, …) is found, and what training
    programs put before its names (``module.``, ``_orig_mod.``, ``student.``, ``model.``) is taken off. Of a checkpoint
    that holds a student beside its teacher, the student is taken.

    Args:
        model: Any module.
        path: The file: ``.safetensors``, or ``.pt``, ``.pth``, ``.ckpt`` and whatever else `torch.save` wrote.

    Raises:
        TeacherError: The file cannot be read, would execute code, or does not fit the model (all names are listed).
    """
    path = Path(path)
    arrays = _tensors_of(_read(path), path)
    expected = set(plain(model).state_dict())
    stripped = {name: _stripped(name, expected) for name in arrays}
    if any("student." in name.removesuffix(short) for name, short in stripped.items()):
        stripped = {name: short for name, short in stripped.items() if not short.startswith("teacher.")}
    try:
        load_state_dict(model, {short: arrays[name] for name, short in stripped.items()})
    except TeacherError as error:
        raise TeacherError(f"{path}: {error}") from error


def _kept(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if name.split(".")[-1] != IGNORED}


def _stripped(name: str, expected: set[str]) -> str:
    while name not in expected and name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickles by other protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise TeacherError(f"There is no file {path}; expected .safetensors, .pt, .pth or .ckpt.") from error
    except pickle.UnpicklingError as error:
        # Either it names something that would be called, or it is no pickle at all.
        found = re.search(r"(?:GLOBAL |class |function )`?([\w.]+)", str(error))
        if found is None and "nsupported" not in str(error):
            raise TeacherError(f"{path} is no checkpoint PyTorch can read ({_first(error)}).") from error
        what = f" ({found[1]})" if found else ""
        raise TeacherError(
            f"{path} holds more than weights: to read it, code would have to be run{what}, and that is refused. Where "
            "you trust it, load it yourself and save its state dict alone: torch.save(model.state_dict(), FILE)."
        ) from error
    except Exception as error:  # whatever a damaged archive makes PyTorch, zipfile or safetensors raise
        raise TeacherError(f"{path} is no file of weights that can be read ({_first(error)}).") from error


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a checkpoint holds."""
    while isinstance(content, Mapping) and not _is_state_dict(content):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if isinstance(content, Mapping) and _is_state_dict(content):
        return dict(content)
    found = f"the keys {', '.join(map(str, list(content)[:8]))}" if isinstance(content, Mapping) else type(content)
    raise TeacherError(
        f"{path} holds no state dict: found {found}; expected names with tensors, or such under one of "
        f"{', '.join(WRAPPERS)}."
    )


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
