"""Look into a ``.keras`` or ``.h5`` file for code it would run, before Keras opens it.

Keras' own safe mode is not enough: Keras 2.15 runs the Lambda of an ``.h5`` file in spite of it, and follows
a ``.keras`` description to any function of any module.
"""

from __future__ import annotations

import builtins
import json
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from bridge.errors import TeacherError

# Ours: a description of one layer takes about a thousand bytes, and parsing multiplies them in memory.
LARGEST_CONFIG_BYTES = 16 << 20
# Ours: trained weights hardly shrink when zipped; a small file that declares far more wants to fill memory or disk.
LARGEST_RATIO = 20
UNSUSPICIOUS_BYTES = 64 << 20
# A file may be an archive and HDF5 at once. Keras 2.15 goes by the exact suffix, Keras 3 too; what is scanned here
# must be what they open.
BEGINNINGS = {".keras": b"PK\x03\x04", ".h5": b"\x89HDF\r\n\x1a\n", ".hdf5": b"\x89HDF\r\n\x1a\n"}
RUNS_CODE = {
    "Lambda": "a Lambda layer runs Python code stored in the file",
    "__lambda__": "it holds Python code",
    "TFSMLayer": "it opens a SavedModel, which can run any TensorFlow operation",
    "TorchModuleWrapper": "it unpickles a PyTorch module",
    "TensorFlowOpLayer": "it runs any TensorFlow operation",
}
# Operations of TensorFlow that reach outside the graph; arithmetic, common in functional models, does not.
TF_OUTSIDE = re.compile(r"(tf\.|compat\.v1\.|compat\.v2\.)*(io|raw_ops|saved_model|py_function|numpy_function)\b")
# Parts of Keras whose objects only compute. Others (keras.utils, keras.saving) download and load files.
KERAS_PARTS = frozenset(
    [
        "activations",
        "constraints",
        "dtype_policies",
        "engine",
        "initializers",
        "layers",
        "losses",
        "metrics",
        "mixed_precision",
        "models",
        "ops",
        "optimizers",
        "quantizers",
        "random",
        "regularizers",
        "sequential",
        "functional",
        "backend",
    ]
)
KERAS_FUNCTIONS = frozenset(["activations", "constraints", "initializers", "losses", "metrics", "regularizers"])


def refuse_code(path: str | Path, allowed_modules: Collection[str] = ()) -> None:
    """Refuse a Keras file whose description would run code when loaded. Ours.

    Args:
        path: A ``.keras`` (zip), ``.h5`` or ``.hdf5`` file.
        allowed_modules: Python modules whose classes the file may name: the caller has registered them.

    Raises:
        TeacherError: The file holds a Lambda or names a foreign module, or it is damaged, of another kind or not
            named as what it is.
    """
    path = Path(path)
    if not path.is_file():
        raise TeacherError(f"{path} is not a file. Give a .keras or .h5 file.")
    if path.suffix not in BEGINNINGS:
        raise TeacherError(
            f"{path} is refused: the kind of a Keras file is told by its name, and {path.suffix or 'no suffix'!r} is "
            "none of .keras, .h5 and .hdf5 (in small letters). If it is one of these, rename it."
        )
    _check_beginning(path)
    config = read_json_member(path, "config.json") if path.suffix == ".keras" else _h5_config(path)
    for entry in _entries(config):
        reason = _reason_to_refuse(entry, allowed_modules)
        if reason:
            raise TeacherError(
                f"{path} is refused: {reason}. Only descriptions of layers are loaded; replace that layer "
                "by one without code, save only the weights, or export the model to ONNX."
            )


def _reason_to_refuse(entry: dict[str, Any], allowed_modules: Collection[str]) -> str | None:
    name = entry.get("class_name")
    if not isinstance(name, str):
        return None
    short = name.split(">")[-1]
    if short in RUNS_CODE:
        return f"it contains {short!r}, and {RUNS_CODE[short]}"
    config = entry.get("config")
    if short == "TFOpLambda" and isinstance(config, dict) and TF_OUTSIDE.match(str(config.get("function"))):
        return f"it calls the TensorFlow operation {config['function']!r}"
    module = entry.get("module")
    if module is None or module in allowed_modules:
        return None
    is_function = short == "function"
    named = str(config) if is_function else short
    if module == "builtins":
        return f"it names Python's own {named!r}" if hasattr(builtins, named) else None
    parts = str(module).split(".")
    while parts and parts[0] in (
        "tensorflow",
        "tf_keras",
        "keras",
        "src",
        "api",
        "_tf_keras",
        "_v2",
        "python",
    ):
        parts = parts[1:]
    foreign = len(parts) == len(str(module).split("."))
    if foreign:
        return f"it names {named!r} of the module {module!r}, which is not part of Keras"
    permitted = KERAS_FUNCTIONS if is_function else KERAS_PARTS
    if parts and parts[0] not in permitted:
        return f"it names {named!r} of the module {module!r}, which does more than describe layers"
    # Keras also returns a plain function named as if it were a class; its classes all start with a capital.
    if is_function != (not short[:1].isupper()) or (is_function and not parts):
        return f"it names the function {named!r} of the module {module!r}"
    return None


def _entries(node: Any) -> Iterator[dict[str, Any]]:
    # A list of what is left to do, not recursion: a hostile file may nest deeper than Python's stack.
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _check_beginning(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            begins_so = file.read(len(BEGINNINGS[path.suffix])) == BEGINNINGS[path.suffix]
    except OSError as error:
        raise TeacherError(f"{path} cannot be read ({error}).") from error
    if not begins_so:
        kind = ".keras" if path.suffix == ".keras" else ".h5"
        raise TeacherError(
            f"{path} is not a readable {kind} file: it does not begin as one. It may be damaged or of another kind: "
            "save or fetch it again."
        )


def read_json_member(path: Path, member: str) -> Any:
    """Return one JSON file from inside a ``.keras`` file.

    Raises:
        TeacherError: The file is no zip archive, is truncated, lacks the member, or unpacks to far more than it holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # Reading a member stops at the size it declares, so what is declared bounds what is unpacked.
            declared = sum(info.file_size for info in archive.infolist())
            held = path.stat().st_size
            if declared > max(UNSUSPICIOUS_BYTES, LARGEST_RATIO * held):
                raise TeacherError(
                    f"{path} has {held:,} bytes and would unpack to {declared:,}, which no network does; it is refused."
                )
            with archive.open(member) as file:
                content = file.read(LARGEST_CONFIG_BYTES + 1)
    except KeyError as error:
        raise TeacherError(f"{path} holds no {member}, so it is not a .keras model.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, ValueError) as error:
        raise TeacherError(
            f"{path} is not a readable .keras file ({error}). It may be truncated: save or fetch it again."
        ) from error
    return _parsed(path, content)


def _h5_config(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise TeacherError(f"Reading {path} needs the package h5py, which comes with Keras.") from error
    try:
        with h5py.File(path, "r") as file:
            content = file.attrs.get("model_config")
    except (OSError, ValueError, RuntimeError) as error:
        raise TeacherError(
            f"{path} is not a readable .h5 file ({error}). It may be truncated; save or fetch it again."
        ) from error
    if content is None:
        raise TeacherError(f"{path} holds weights without a model. Save the whole model instead.")
    return _parsed(path, content if isinstance(content, bytes) else str(content).encode())


def _parsed(path: Path, content: bytes) -> Any:
    if len(content) > LARGEST_CONFIG_BYTES:
        raise TeacherError(f"The description inside {path} has more than {LARGEST_CONFIG_BYTES:,} bytes.")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise TeacherError(f"The description inside {path} is not valid JSON ({error}).") from error
