"""What a sweep runs: the options asked for → every combination of the varied ones, each with every seed."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bridge.config import DistillConfig, SweepConfig, ViewOptions
from bridge.config_check import check, updated
from bridge.errors import ConfigError
from bridge.presets import preset_options

LARGEST_GRID = 10_000
"""Runs; a longer list is a slip of the pen."""

_SET_BY_THE_SWEEP = {
    "out": "--out",
    "resume": "--resume",
    "smoke": "--smoke",
    "preset": "--distill-preset",
    "config": "--config",
}
_NOT_VARIED = {**_SET_BY_THE_SWEEP, "seed": "--seeds", "threads": "--threads"}
# What the teacher is asked. A teacher's name may mean another one for another data set, --smoke shrinks batches.
_DECIDE_ANSWERS = tuple(field.name for field in dataclasses.fields(ViewOptions)) + (
    *("teacher", "teacher_dtype", "dataset", "batch_size", "steps_per_epoch", "smoke"),
)
_TYPES = {field.name: str(field.type) for field in dataclasses.fields(DistillConfig)}
_LONGEST_LABEL = 40
_LONGEST_NAME = 150


@dataclass(frozen=True)
class Axis:
    """A varied option.

    Attributes:
        option: its name in `DistillConfig`.
        values: those it takes, in the order given.
        labels: one short text per value, all different.
    """

    option: str
    values: tuple[Any, ...]
    labels: tuple[str, ...]

    @property
    def numeric(self) -> bool:
        """Whether the values lie on a line."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)


@dataclass(frozen=True)
class Run:
    """One distillation of a sweep.

    Attributes:
        name: of its folder: short, readable, unlike all others.
        point: for every axis, which of its values.
        seed: of views, mixing and first weights.
        label: the same in words, such as "temperature=4 loss=kl seed=1".
        config: all its options, but for the folder.
    """

    name: str
    point: tuple[int, ...]
    seed: int
    label: str
    config: DistillConfig


def base_options(config: SweepConfig) -> DistillConfig:
    """The options all runs share: preset, then `distill`, then `--set`, then the sweep's own.

    Raises:
        ConfigError: an option is unknown, of the wrong kind, or said twice.
    """
    base = DistillConfig()
    if config.distill_preset:
        base = updated(base, preset_options(config.distill_preset, "distill"), f"preset {config.distill_preset!r}")
        base = dataclasses.replace(base, preset=config.distill_preset)
    settings = dict(_assignment("--set", text) for text in config.set)
    varied = [_assignment("--vary", text)[0] for text in config.vary]
    for origin, values in (("distill", config.distill), ("--set", settings)):
        for key in map(_plain_key, values):
            if key in _SET_BY_THE_SWEEP:
                raise ConfigError(f"{origin} cannot take {key!r}; use the sweep's own {_SET_BY_THE_SWEEP[key]}.")
        base = updated(base, {key: _typed(_plain_key(key), value) for key, value in values.items()}, origin)
    for key in ("teacher", "image", "audio"):
        given = getattr(config, key)
        if given is not None and key in varied:
            raise ConfigError(f"--{key} {given} and --vary {key}=… contradict each other; leave one out.")
        if given is not None:
            base = dataclasses.replace(base, **{key: given})
    return dataclasses.replace(base, threads=config.threads or base.threads, smoke=config.smoke)


def axes_of(config: SweepConfig) -> list[Axis]:
    """The varied options; of each at most two values, and of all but two options one, if `smoke`.

    Raises:
        ConfigError: nothing is varied, an option is unknown or may not be, or a value stands twice.
    """
    if not config.vary:
        raise ConfigError("What is to vary? Give --vary OPTION=VALUE,VALUE …, such as --vary temperature=1,2,4,8.")
    axes: list[Axis] = []
    for text in config.vary:
        option, given = _assignment("--vary", text)
        if option in _NOT_VARIED:
            raise ConfigError(f"--vary cannot take {option!r}; use the sweep's own {_NOT_VARIED[option]}.")
        if option in (axis.option for axis in axes):
            raise ConfigError(f"--vary names {option} twice; give all its values in one, separated by commas.")
        updated(DistillConfig(), {option: None}, "--vary")  # says which are known
        values = tuple(_typed(option, value) for value in _values(option, given))
        if twice := next((value for number, value in enumerate(values) if value in values[:number]), None):
            raise ConfigError(f"--vary {text}: {twice!r} stands there twice.")
        if config.smoke:
            values = values[: 2 if len(axes) < 2 else 1]
        axes.append(Axis(option, values, _labels(values)))
    return axes


def grid(base: DistillConfig, axes: Sequence[Axis], seeds: int) -> list[Run]:
    """Every point of the grid with every seed, the last option changing fastest but for the seed.

    Args:
        base: the options all runs share; its seed is the first one.
        axes: the varied options.
        seeds: how many.

    Raises:
        ConfigError: a combination makes no sense; names it.
    """
    count = math.prod(len(axis.values) for axis in axes) * seeds
    if count > LARGEST_GRID:
        raise ConfigError(f"The grid has {count:,} runs; at most {LARGEST_GRID:,} are taken. Vary less at once.")
    slugs = [_unlike([_slug(label) for label in axis.labels]) for axis in axes]
    runs = []
    for point in itertools.product(*(range(len(axis.values)) for axis in axes)):
        chosen = {axis.option: axis.values[number] for axis, number in zip(axes, point)}
        words = [f"{axis.option}={axis.labels[number]}" for axis, number in zip(axes, point)]
        parts = [f"{axis.option}={slug[number]}" for axis, slug, number in zip(axes, slugs, point)]
        for seed in range(base.seed, base.seed + seeds):
            run = dataclasses.replace(base, **chosen, seed=seed)
            try:
                check(run)
            except ConfigError as error:
                raise ConfigError(f"{' '.join(words)}: {error}") from error
            name = "_".join([*parts, f"seed={seed}"])
            if len(name) > _LONGEST_NAME:
                name = f"{name[: _LONGEST_NAME - 9]}-{_hash(name)}"
            runs.append(Run(name, point, seed, " ".join([*words, f"seed={seed}"]), run))
    return runs


def summary_of(axes: Sequence[Axis], seeds: int) -> str:
    """Such as "temperature 1, 2, 4 × loss kl, dist × 3 seeds"."""
    parts = [f"{axis.option} {', '.join(axis.labels)}" for axis in axes]
    return " × ".join([*parts, f"{seeds} seed{'s' if seeds > 1 else ''}"])


def described(config: DistillConfig) -> Mapping[str, Any]:
    """The options that differ from the defaults: what makes a sweep this sweep, whatever options come later."""
    default = DistillConfig()
    return {
        option: value
        for option, value in dataclasses.asdict(config).items()
        if option not in _NOT_VARIED and value != getattr(default, option)
    }


def store_of(config: DistillConfig) -> str | None:
    """The folder of a run's stored answers, or None for a run that stores none.

    One below `store_teacher`, the same for all runs whose teacher is asked the same: a store takes no other answers.
    """
    if config.store_teacher is None:
        return None
    # Those at their defaults are not named, so that a new option leaves the folders there are.
    default = DistillConfig()
    asked = {name: value for name in _DECIDE_ANSWERS if (value := getattr(config, name)) != getattr(default, name)}
    return str(Path(config.store_teacher) / _hash(json.dumps(asked, sort_keys=True), digits=16))


def _assignment(origin: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{origin} {text!r} must be OPTION=VALUE, without spaces around the =.")
    return _plain_key(key.strip()), value.strip()


def _plain_key(key: Any) -> str:
    return str(key).lstrip("-").replace("-", "_")


def _values(option: str, text: str) -> Sequence[Any]:
    """The list behind --vary OPTION=: separated by commas or, for values with commas in them, a YAML list."""
    if not text.startswith("["):
        values: Any = [piece.strip() for piece in text.split(",")]
    else:
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--vary {option}={text} is no list as YAML writes it: {error}") from error
    if not isinstance(values, list) or not values or "" in values:
        raise ConfigError(f"--vary {option}={text} has an empty value; expected such as {option}=first,second.")
    return values


def _typed(option: str, value: Any) -> Any:
    """A value as the option's type wants it; what does not fit stays as it is, for `check` to name."""
    annotation = _TYPES.get(option, "")
    if isinstance(value, int) and not isinstance(value, bool) and re.search(r"\bfloat\b", annotation):
        return value if re.search(r"\bint\b", annotation) else float(value)
    if not isinstance(value, str):
        return value
    if "None" in annotation and value.lower() in ("none", "null"):
        return None
    if "bool" in annotation:
        return {"true": True, "false": False}.get(value.lower(), value)
    for name, kind in (("int", int), ("float", float)):
        if re.search(rf"\b{name}\b", annotation):
            try:
                return kind(value)
            except ValueError:
                return value
    return value


def _labels(values: Sequence[Any]) -> tuple[str, ...]:
    long = [_text(value) for value in values]
    short = [re.split(r"[/\\]", text.rstrip("/\\"))[-1] or text for text in long]
    return tuple(text if short.count(brief) > 1 else brief for text, brief in zip(long, short))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _slug(label: str) -> str:
    """A label as part of a file name everywhere."""
    slug = re.sub(r"[^A-Za-z0-9.+-]+", "-", label)
    return slug if len(slug) <= _LONGEST_LABEL else f"{slug[: _LONGEST_LABEL - 9]}-{_hash(label)}"


def _unlike(slugs: Sequence[str]) -> list[str]:
    # Without regard to case, as some file systems are.
    lower = [slug.lower() for slug in slugs]
    return [slug if lower.count(slug.lower()) == 1 else f"{slug}-{number}" for number, slug in enumerate(slugs, 1)]


def _hash(text: str, digits: int = 8) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
