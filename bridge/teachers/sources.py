"""What `bridge export --model …` names: a file, a library's network, an architecture, or code. Nothing is run here."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bridge.errors import ConfigError, TeacherError
from bridge.names import hint
from bridge.networks import scaled_resnet
from bridge.shell import quiet_start
from bridge.teachers.card import CARD_NAME

LIBRARIES = ("torchvision/", "timm/", "keras.applications/")
HUB = "torch.hub:"
FILES = {".onnx": "onnx", ".keras": "keras", ".h5": "keras", ".hdf5": "keras", ".tflite": "tflite"}
STATE_DICTS = (".pt", ".pth", ".ckpt", ".safetensors")
# What brings code with it, and so runs only with --trust.
CODE = {"hub": "a torch.hub repository", "factory": "a Python factory", "saved_model": "a SavedModel"}


@dataclass(frozen=True)
class Source:
    """What a model's name means.

    Attributes:
        kind: ``onnx``, ``keras``, ``tflite``, ``saved_model`` (paths), ``torchvision``, ``timm``,
            ``keras.applications``, ``hub``, ``factory`` or ``architecture``.
        name: The path, or the name within its library.
        label: A short name for the folder and for messages.
    """

    kind: str
    name: str
    label: str


def source_of(model: str, trust: bool = False) -> Source:
    """Find out what a model's name means.

    Args:
        model: As in `bridge export --model`.
        trust: Whether code that comes with the model may be run.

    Raises:
        ConfigError: Nothing of that name, or it brings code and is not trusted.
    """
    source = _source_of(model)
    if source.kind in CODE and not trust:
        raise ConfigError(
            f"{model} is {CODE[source.kind]}, which runs code when it is loaded. If you trust where it comes from, "
            "say so with --trust; else have it exported to ONNX by somebody you trust."
        )
    return source


def _source_of(model: str) -> Source:
    path = Path(model)
    for library in LIBRARIES:
        if model.startswith(library):
            name = model.removeprefix(library)
            return Source(library.rstrip("/"), name, f"{library.split('.')[0].rstrip('/')}_{_slug(name)}")
    if model.startswith(HUB):
        name = model.removeprefix(HUB)
        if not re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?:\w+", name):
            raise ConfigError(f"{model} must be {HUB}OWNER/REPO:ENTRY, or {HUB}OWNER/REPO:TAG:ENTRY.")
        return Source("hub", name, _slug(name.rpartition(":")[2]))
    if path.is_dir():
        if (path / CARD_NAME).is_file():
            raise ConfigError(
                f"{model} is a teacher folder already; `python -m bridge convert --model {model} --to onnx` adds "
                "model.onnx to it."
            )
        if (path / "saved_model.pb").is_file():
            return Source("saved_model", model, _slug(path.absolute().name))
        raise ConfigError(f"{model} is a folder, but holds neither {CARD_NAME} nor saved_model.pb.")
    if path.suffix in FILES:
        if not path.is_file():
            raise ConfigError(f"There is no file {model}.")
        return Source(FILES[path.suffix], model, _slug(path.stem))
    if path.suffix.lower() in FILES:  # Keras goes by the exact ending, and so does the search for code in its files
        raise ConfigError(f"Rename {model} to end in {path.suffix.lower()}.")
    if path.suffix.lower() in STATE_DICTS:
        raise ConfigError(
            f"{model} holds weights without a network. Give the network with --model, such as resnet56, "
            f"torchvision/resnet18 or FILE.py:FACTORY, and this file with --weights."
        )
    before, colon, entry = model.rpartition(":")
    if colon and entry.isidentifier():
        if before.endswith(".py") and not Path(before).is_file():
            raise ConfigError(f"There is no file {before}.")
        return Source("factory", model, _slug(Path(before).stem if before.endswith(".py") else before))
    if re.fullmatch(r"\w+", model) or scaled_resnet(model):  # a width has a point in it
        return Source("architecture", model, model)
    known = ("a file ending in " + ", ".join(FILES), *(f"{library}NAME" for library in LIBRARIES), f"{HUB}…", "CODE:…")
    raise ConfigError(
        f"--model {model}: there is no such file, and it is no name either; expected {', '.join(known)}, or an "
        f"architecture such as resnet56.{hint(model.split('/')[0] + '/', LIBRARIES)}"
    )


def arguments_of(pairs: Sequence[str], option: str = "--arguments") -> dict[str, Any]:
    """Turn ``("width=24", …)`` into keyword arguments; values are read as YAML.

    Args:
        pairs: NAME=VALUE each.
        option: Where they were given.

    Raises:
        ConfigError: A pair is not NAME=VALUE, or a name stands twice.
    """
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"{option} {pair}: expected NAME=VALUE, such as width=24.")
        if name in arguments:
            raise ConfigError(f"{option}: {name} is given twice.")
        try:
            arguments[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{option} {pair}: {value!r} is no value ({error}).") from error
    return arguments


def front_end_said(text: str) -> dict[str, Any]:
    """Turn ``"log_mel:bands=40,hop=160"`` into what describes a front end: ``{"kind": "log_mel", "bands": 40, …}``.

    Raises:
        ConfigError: As `arguments_of`.
    """
    kind, _, pairs = text.partition(":")
    return {"kind": kind, **arguments_of([pair for pair in pairs.split(",") if pair], "--front-end")}


def made_by_factory(name: str, arguments: Mapping[str, Any]) -> Any:
    """Run the user's own factory: ``FILE.py:FACTORY`` or ``MODULE:FACTORY``.

    Returns:
        What it gives: a PyTorch module or a Keras model.

    Raises:
        TeacherError: It cannot be imported, is not there, or fails.
    """
    where, _, entry = name.rpartition(":")
    # As if it were run: what lies beside it can be imported by it, then and when its factory is called.
    beside = [str(Path(where).absolute().parent)] if where.endswith(".py") else []
    sys.path[:0] = beside
    try:
        module = _module_of(where)
        factory: Callable[..., Any] | None = getattr(module, entry, None)
        if factory is None:
            offered = [public for public in vars(module) if not public.startswith("_")]
            raise TeacherError(f"{where} has no {entry!r}.{hint(entry, offered)}")
        try:
            return factory(**arguments)
        except Exception as error:  # whatever the user's code raises
            given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            raise TeacherError(f"{entry}({given}) failed ({type(error).__name__}: {error}).") from error
    finally:
        for path in beside:
            sys.path.remove(path)


def _module_of(where: str) -> Any:
    try:
        if not where.endswith(".py"):
            return importlib.import_module(where)
        path = Path(where).absolute()
        spec = importlib.util.spec_from_file_location(f"_factory_{_slug(path.stem)}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look for the types they name
        with quiet_start():  # it may import TensorFlow
            spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        raise TeacherError(f"{where} cannot be imported ({type(error).__name__}: {error}).") from error
    return module


@contextlib.contextmanager
def needed(packages: Sequence[str], requirements: str) -> Iterator[None]:
    """Say what to install where one of the packages imported within is missing; hide what they log meanwhile.

    Raises:
        TeacherError: One of them cannot be imported.
    """
    try:
        with quiet_start():
            yield
    except ImportError as error:
        if (error.name or "").split(".")[0] not in packages:
            raise
        raise TeacherError(
            f"This needs the package {' and '.join(packages)}: pip install -r {requirements} (of the source; it is in "
            "the TF 2.15 set)."
        ) from error


def _slug(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_") or "teacher"
