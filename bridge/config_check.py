"""Options from YAML, and refusing values that cannot work before anything is loaded."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bridge.config import DistillConfig, Optimizer, Schedule
from bridge.errors import ConfigError
from bridge.names import hint

Config = TypeVar("Config")


def updated(config: Config, values: Mapping[str, Any], origin: str) -> Config:
    """Replace fields of a config, converting plain YAML values.

    Raises:
        ConfigError: an unknown key, naming the nearest known one.
    """
    known = {field.name: field.type for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    clean = {str(key).replace("-", "_"): value for key, value in values.items()}
    for key in clean:
        if key not in known:
            raise ConfigError(
                f"{origin} has an unknown key {key!r}; known: {', '.join(sorted(known))}.{hint(key, known)}"
            )
        if isinstance(value := clean[key], str) and "float" in str(known[key]):  # YAML reads 1e-3 as text
            with contextlib.suppress(ValueError):
                clean[key] = float(value)
        if isinstance(value, Mapping) and isinstance(before := getattr(config, key), Mapping):
            clean[key] = {**before, **value}
    return dataclasses.replace(config, **clean)  # type: ignore[type-var]


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file of options as a dictionary.

    Raises:
        ConfigError: the file is missing, unreadable or no mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {path}: {error.strerror or error}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold 'option: value' lines; it holds {type(values).__name__}.")
    return values


def check(config: Any, whole: bool = True) -> None:
    """Refuse numbers that cannot work, before anything is loaded.

    Args:
        config: of any command.
        whole: all options are there; else those that depend on each other are not compared yet.

    Raises:
        ConfigError: naming the option, its value and what is allowed.
    """
    positive = ("batch_size", "epochs", "steps_per_epoch", "views", "image_size", "temperature", "learning_rate")
    positive += ("steps_per_execution", "threads", "grid", "mixing_alpha", "student_width", "width", "seeds")
    positive += ("clip_norm", "accumulate", "frames", "clips", "stride", "rate", "depth", "student_depth")
    positive += ("sample_rate", "seconds", "query_budget")
    not_negative = ("weight_decay", "l2", "seed", "count", "cutout", "pad", "workers", "spec_augment", "shift", "noisy")
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        flag = "--" + field.name.replace("_", "-")
        annotation = _ALIASES.get(str(field.type), str(field.type))
        if not _is_of(value, annotation):
            raise ConfigError(f"{flag} (={value!r}) must be {annotation.replace('typing.', '')}.")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if not math.isfinite(value) or (field.name in positive and value <= 0):
                raise ConfigError(f"{flag} (={value}) must be a positive number.")
            if field.name in not_negative and value < 0:
                raise ConfigError(f"{flag} (={value}) must not be negative.")
            if field.name == "seed" and value >= 2**64:
                raise ConfigError(f"--seed (={value}) must be below 2**64.")
            if field.name == "noisy" and value > 1:
                raise ConfigError(f"--noisy (={value}) is a share of the sounds and must be in [0, 1].")
            if field.name == "spec_augment" and value > 100:
                raise ConfigError(f"--spec-augment (={value}) is a number of masks and must be at most 100.")
            if field.name == "warmup" and not 0 <= value < 1:
                raise ConfigError(f"--warmup (={value}) is a share of all steps and must be in [0, 1).")
            if field.name == "ema" and not 0 < value < 1:
                raise ConfigError(f"--ema (={value}) is a decay per step and must lie between 0 and 1, such as 0.999.")
    if whole and isinstance(config, DistillConfig):
        _check_steps(config)
    if getattr(config, "warmup", 0) and getattr(config, "schedule", "") != "cosine":
        raise ConfigError(f"--warmup (={config.warmup}) needs --schedule cosine.")
    if hasattr(config, "optimizer") and config.weight_decay and config.optimizer != "adamw":
        raise ConfigError(f"--weight-decay (={config.weight_decay}) needs --optimizer adamw.")


def _check_steps(config: DistillConfig) -> None:
    if config.steps_per_epoch is None and config.views is None and not config.patches:
        raise ConfigError("Endless views (--views None) need --steps-per-epoch.")
    if config.steps_per_epoch is None and (config.patches or config.views is None):
        return  # as many as there are patches
    steps = config.steps_per_epoch or -(-(config.views or 0) // config.batch_size)
    if steps % config.steps_per_execution and not config.smoke:
        raise ConfigError(
            f"--steps-per-epoch (={steps}{'' if config.steps_per_epoch else ', as many as the views fill'}) must be a "
            f"multiple of --steps-per-execution (={config.steps_per_execution})."
        )


def _is_of(value: Any, annotation: str) -> bool:
    """Whether a value fits an annotation such as "int | None" or "Literal['a', 'b']"; YAML brings anything."""
    if value is None:
        return "None" in annotation
    if "Literal" in annotation:
        return re.search(rf"[\[ ]{re.escape(repr(value))}[,\]]", annotation.replace('"', "'")) is not None
    if isinstance(value, bool):
        return "bool" in annotation
    if isinstance(value, int):
        return "int" in annotation or "float" in annotation
    if isinstance(value, float):
        return "float" in annotation
    if isinstance(value, tuple | Mapping):
        return ("tuple" if isinstance(value, tuple) else "Mapping") in annotation
    return isinstance(value, str) and "str" in annotation


_ALIASES = {"Optimizer": str(Optimizer), "Schedule": str(Schedule)}
