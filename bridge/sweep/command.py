"""The `sweep` command of every program: check the whole grid, run what is missing, write table and picture."""

from __future__ import annotations

import dataclasses
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from bridge.audio_facts import AUDIO_FACTS
from bridge.child import error_in, last_line, run_child
from bridge.config import DistillConfig, SweepConfig, TrainTeacherConfig
from bridge.config_check import updated
from bridge.datasets import FACTS, load
from bridge.datum.audio_sources import load_audio
from bridge.datum.sources import list_files, load_source
from bridge.errors import ConfigError, MissingTeacherError, RunError, TeacherError
from bridge.files import atomic_write
from bridge.presets import PRESETS
from bridge.runs import RunFolder
from bridge.sweep.grid import Axis, Run, axes_of, base_options, described, grid, store_of, summary_of
from bridge.sweep.plots import picture
from bridge.sweep.results import Outcome, csv_text, line_of, table_text

Inspect = Callable[[DistillConfig], Mapping[str, Any]]


def sweep(config: SweepConfig, module: str, inspect: Inspect) -> list[Outcome]:
    """Run or resume a sweep.

    Args:
        config: resolved options.
        module: the program whose `distill` makes the runs, such as "keras_aip".
        inspect: refuses, before anything runs, what the program can tell will not work (an AipError), and returns
            what must be the same when the sweep is resumed, such as the teacher's hash. A MissingTeacherError gets
            the preset's own way to train one for its advice.

    Returns:
        What became of every run, in the order of the grid.

    Raises:
        ConfigError: the grid makes no sense.
        RunError: the folder cannot be used, holds another sweep, or some runs failed; the others are done then.
    """
    base, axes = base_options(config), axes_of(config)
    runs = grid(base, axes, config.seeds)
    hashes = _inspected(runs, config.distill_preset, module, inspect)
    fingerprint = {
        "program": module,
        **{f"vary {axis.option}": list(axis.values) for axis in axes},
        "seeds": [base.seed + number for number in range(config.seeds)],
        "smoke": base.smoke,
        **described(base),
        **hashes,
    }
    published = PRESETS[config.preset].published if config.preset in PRESETS else {}
    with RunFolder.start(config.out, dataclasses.asdict(config), fingerprint, {}, resume=config.resume) as folder:
        path = folder.path
        (path / "runs").mkdir(exist_ok=True)
        outcomes = [Outcome(run, RunFolder(path / "runs" / run.name).result) for run in runs]
        missing = [number for number, outcome in enumerate(outcomes) if outcome.result is None]
        done = f"; {len(runs) - len(missing)} are finished already" if len(missing) < len(runs) else ""
        print(f"A sweep of {len(runs)} runs into {path}: {summary_of(axes, config.seeds)}{done}.", flush=True)
        took: list[float] = []
        for place, number in enumerate(missing):
            left = f", about {_duration(statistics.mean(took) * (len(missing) - place))} left" if took else ""
            print(f"run {number + 1} of {len(runs)}: {runs[number].label}{left}", file=sys.stderr, flush=True)
            began = time.monotonic()
            outcomes[number] = _made(runs[number], path / "runs", module)
            if outcomes[number].error is None:
                took.append(time.monotonic() - began)
            print(f"  {line_of(outcomes[number])}", file=sys.stderr, flush=True)
            _write(path, axes, outcomes, published)
        table = _write(path, axes, outcomes, published)
        atomic_write(path / "sweep.png", picture(axes, outcomes, published))
    print(f"\n{table}\nTable: {path / 'table.md'}, every run: {path / 'sweep.csv'}, picture: {path / 'sweep.png'}")
    _complain(path, outcomes)
    return outcomes


def _inspected(runs: Sequence[Run], preset: str | None, module: str, inspect: Inspect) -> dict[str, Any]:
    """Refuse what cannot work; hashes of what the runs are made from."""
    hashes: dict[str, Any] = {}
    for run in runs:
        image, sound, teacher, dataset = run.config.image, run.config.audio, run.config.teacher, run.config.dataset
        if image is None and sound is None:
            raise ConfigError(
                "Which image? Give --image FILE (any photograph), or several: --vary image=FILE,FILE; for teachers of "
                "sounds --audio FILE, or --vary audio=FILE,FILE."
            )
        if teacher is None:
            raise ConfigError(f"Which teacher? Give --teacher FOLDER.{_how_to_train(preset, module, run.config, None)}")
        if image is not None and f"image {image}" not in hashes:
            hashes[f"image {image}"] = _hash_of(image)
        if sound is not None and f"audio {sound}" not in hashes:
            hashes[f"audio {sound}"] = load_audio(sound).sha256
        if dataset not in FACTS and dataset not in AUDIO_FACTS and not Path(dataset).exists():
            load(dataset)  # says what is wrong with it
        try:
            hashes |= inspect(run.config)
        except MissingTeacherError as error:
            advice = _how_to_train(preset, module, run.config, error.out)
            if not advice:
                raise
            raise TeacherError(f"{error.where}{advice}") from error
    return hashes


def _how_to_train(preset: str | None, module: str, run: DistillConfig, out: str | None) -> str:
    """The line that trains the preset's teacher to where the run finds it; "" if another teacher is asked for."""
    options = PRESETS[preset].options.get("train-teacher") if preset else None
    if options is None:
        return ""
    trained = updated(TrainTeacherConfig(), options, f"preset {preset!r}")
    if trained.dataset != run.dataset:
        return ""
    line = f"python -m {module} train-teacher --preset {preset}" + (f" --out {shlex.quote(out)}" if out else "")
    if out is None and run.teacher not in (None, trained.architecture):  # a known network, found where it is written
        line += f" --architecture {run.teacher}" + (" --width None" if trained.width is not None else "")
    found = f", which `--teacher {trained.architecture}` finds" if run.teacher is None else ""
    return f" For {preset}, `{line}` makes one{found}."


def _hash_of(image: str) -> str:
    # Of a folder, which may hold a million files, only the names; each run looks closer.
    folder = Path(image).expanduser()
    return f"{len(list_files(folder))} files" if folder.is_dir() else load_source(image).sha256


def _made(run: Run, folder: Path, module: str) -> Outcome:
    """One run to its end, begun or taken up where it stopped."""
    path, log, options = (folder / f"{run.name}{ending}" for ending in ("", ".log", ".yaml"))
    values = dataclasses.asdict(run.config)
    for key in ("out", "resume", "config"):
        del values[key]
    values["store_teacher"] = store_of(run.config)
    atomic_write(options, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    words = ["distill", "--config", str(options), "--out", str(path)]
    # One that was killed before this file was written has nothing to resume.
    words += ["--resume"] if (path / "run.json").is_file() else []
    since = log.stat().st_size if log.exists() else 0  # before it stands what earlier attempts said
    with _showing(log, since) as show:
        code = run_child(module, words, log, show)
    result = RunFolder(path).result
    if code == 0 and result is not None:
        return Outcome(run, result)
    if code < 0:
        memory = "; perhaps the memory was full" if code == -9 else ""
        return Outcome(run, error=f"ended by signal {-code}{memory} (log: {log})")
    return Outcome(run, error=f"{error_in(log, since, module.replace('_', '-'))} (log: {log})")


@contextmanager
def _showing(log: Path, since: int) -> Iterator[Callable[[], None]]:
    """On a terminal, the last line the run wrote, kept up to date."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield lambda: None
        return
    with console.status("starting") as status:
        yield lambda: status.update(Text(last_line(log, since), no_wrap=True, overflow="ellipsis"))


def _write(path: Path, axes: Sequence[Axis], outcomes: Sequence[Outcome], published: Mapping[str, float]) -> str:
    table = table_text(axes, outcomes, published)
    atomic_write(path / "sweep.csv", csv_text(axes, outcomes))
    atomic_write(path / "table.md", table)
    return table


def _complain(path: Path, outcomes: Sequence[Outcome]) -> None:
    failed = [outcome.run.name for outcome in outcomes if outcome.error]
    if failed:
        raise RunError(
            f"{len(failed)} of {len(outcomes)} runs failed: {', '.join(failed)}. {path / 'table.md'} says why; "
            "--resume tries them again."
        )


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
