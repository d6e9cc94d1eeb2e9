"""The command line of all three packages: options from dataclasses, one message for an error, exit code 2."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from bridge.config_check import check, read_yaml, updated
from bridge.errors import AipError, ConfigError
from bridge.names import hint
from bridge.presets import PRESETS, Preset, preset_options

PROGRAMS = {"bridge": "aip-bridge", "keras_aip": "keras-aip", "torch_aip": "torch-aip"}
"""Module → script."""
_FRAMEWORKS = {
    "torch": "`pip install -r requirements/torch.txt`, or `make test`, which installs all",
    "tensorflow": "`pip install -r requirements/keras3.txt`, or `make test`, which installs all",
}


@dataclass(frozen=True)
class Command:
    """A command of a program.

    Attributes:
        config: the dataclass of its options.
        run: the function that takes them.
        smoke: what `--smoke` sets.
        aliases: further spellings of options, such as the reference's; flags that one sets besides stand before it.
        of_each: the dataclass of the options of every run, where this command makes many and takes theirs by `--set`.
        writes_file: `--out` is a file, in a folder that exists; else a folder.
    """

    config: type
    run: Callable[[Any], object]
    smoke: Mapping[str, Any]
    aliases: Mapping[str, str]
    of_each: type | None = None
    writes_file: bool = False


def main(program: str, about: str, commands: Mapping[str, Command], arguments: Sequence[str] | None = None) -> int:
    """Run one command of a program.

    Returns:
        The exit code: 0, 2 after an error the user can mend, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(program, about, commands))
        return 0
    name, *rest = arguments
    if name not in commands:
        return _fail(program, f"unknown command {name!r}; known: {', '.join(commands)}.{hint(name, commands)}")
    shown_before, warnings.showwarning = warnings.showwarning, _Warnings()
    config = None
    try:
        config = parse(program, name, commands[name], rest)
        _check_out(commands[name], config)
        commands[name].run(config)
        sys.stdout.flush()
        return 0
    except AipError as error:
        return _fail(program, str(error))
    except KeyboardInterrupt:
        return _fail(program, " ".join(["interrupted.", *_going_on(config)]), 130)
    except BrokenPipeError:  # the reader of our output went away, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _fail(program, "out of memory. Make --batch-size or --image-size smaller.")
    except OSError as error:
        return _fail(program, f"{error.filename or 'a file'}: {error.strerror or error}.")
    finally:
        warnings.showwarning = shown_before


def parse(program: str, name: str, command: Command, arguments: Sequence[str]) -> Any:
    """Command-line arguments → the resolved config.

    Raises:
        ConfigError: a preset, file or value makes no sense.
        SystemExit: with code 2 for a wrong option, 0 after `--help`.
    """
    import tyro

    arguments = [word for argument in arguments for word in _plain_spelling(argument, command.aliases)]
    config = command.config()
    if command.of_each is not None:
        _refuse_options_of_each(name, arguments, config, command.of_each)
    for field in fields(config):  # the parser would quietly keep the last list
        option = "--" + field.name.replace("_", "-")
        if "tuple" in str(field.type) and sum(a.partition("=")[0] == option for a in arguments) > 1:
            raise ConfigError(f"{option} is given twice; give it once, with its values side by side.")
    preset, file = _value_of("--preset", arguments), _value_of("--config", arguments)
    values = read_yaml(file) if file else {}
    if "--resume" in arguments and not preset and not file:
        # a run goes on with the options it began with; only where it is must be said
        kept = Path(_value_of("--out", arguments) or config.out) / "config.yaml"
        file = str(kept) if kept.is_file() else None
        values = read_yaml(kept) if file else {}
    preset = preset or values.get("preset")
    if preset:
        config = updated(config, preset_options(preset, name), f"preset {preset!r}")
    if file:
        config = updated(config, values, file)
    check(config, whole=False)
    config = tyro.cli(command.config, prog=f"{program} {name}", args=arguments, default=config)
    check(config)
    return replace(config, **command.smoke) if config.smoke else config


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """When one of our programs runs, hide what a framework's native code logs while it is imported or compiles.

    From then on Ctrl-C, or a framework that is missing, ends the program without a traceback also where `main` is not
    there yet to catch it.

    Those lines (missing drivers, instruction sets) are written past Python and its log levels, before anything can be
    set. If the import fails they are shown; with AIP_DEBUG set, always. In a user's own process nothing is hidden.
    """
    program = _program()
    if program is None or os.environ.get("AIP_DEBUG"):
        yield
        return
    _quiet_end(program)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException:
            log.seek(0)
            os.write(kept, log.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _quiet_end(program: str) -> None:
    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        framework = error.name if isinstance(error, ModuleNotFoundError) else None
        if framework in _FRAMEWORKS:
            print(f"{program}: {framework} is not installed here: {_FRAMEWORKS[framework]}.", file=sys.stderr)
            sys.exit(2)
        if not issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        print(f"{program}: interrupted.", file=sys.stderr)
        sys.exit(130)

    sys.excepthook = hook


def _program() -> str | None:
    """Which of our programs this process is, if any."""
    if "-m" in sys.orig_argv[1:2]:
        return PROGRAMS.get(sys.orig_argv[2])
    script = os.path.basename(sys.argv[0])
    return script if script in PROGRAMS.values() else None


def _check_out(command: Command, config: Any) -> None:
    """Raises: ConfigError: what is to come out could not be written, said now and not when all is computed."""
    out = getattr(config, "out", None)
    if out is None:
        return
    path = Path(out).absolute()
    # Not for `convert`, which writes the one or the other, as its --to says, and refuses the wrong one itself.
    if path.exists() and path.is_dir() == command.writes_file and not hasattr(config, "to"):
        kinds = "a folder; expected a file" if command.writes_file else "a file; expected a folder"
        raise ConfigError(f"--out {out} is {kinds}, or a name that is free. Choose another --out.")
    if command.writes_file and not path.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {Path(out).parent}. Make it, or choose another --out.")
    place = next(place for place in (path, *path.parents) if os.path.exists(place))
    place = path.parent if place == path and not path.is_dir() else place
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise ConfigError(
            f"--out {out} cannot be written: nothing can be made in {place} ({error.strerror}). Choose another --out."
        ) from error


def _going_on(config: Any) -> list[str]:
    """How to go on with what was interrupted; nothing of a command that cannot."""
    if not hasattr(config, "resume"):
        return []
    from bridge.runs import saved_in

    return [saved_in(config.out, config.resume)]


def _refuse_options_of_each(name: str, arguments: Sequence[str], config: Any, of_each: type) -> None:
    """Raises: ConfigError: an option of the runs is given as if it were one of the command that makes them."""
    own = {field.name for field in fields(config)}
    for argument in arguments:
        option = argument.partition("=")[0]
        key = option[2:].replace("-", "_")
        if option.startswith("--") and key not in own and key in {field.name for field in fields(of_each)}:
            value = _value_of(option, arguments)
            value = "VALUE" if value is None or value.startswith("--") else value
            ways = (
                f"--set {key}={value} for all of them, or --vary {key}={value},… to try several. Both take more "
                "options, side by side."
            )
            if key == "seed":  # which --vary refuses
                ways = f"--seeds COUNT for several, and --set seed={value} if they are not to begin at 0."
            raise ConfigError(f"{option} is an option of the runs, not of {name}: give {ways}")


def _plain_spelling(argument: str, aliases: Mapping[str, str]) -> list[str]:
    """--Some_option=x → --some-option=x; the reference's own spellings → ours."""
    if not argument.startswith("--"):
        return [argument]
    option, equals, value = argument.partition("=")
    option = option.replace("_", "-")
    *flags, option = aliases.get(option, option).split()
    return [*flags, option + equals + value]


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    for position, argument in enumerate(arguments):
        if argument == option and position + 1 < len(arguments):
            value = arguments[position + 1]
            return None if value == "None" else value
        if argument.startswith(option + "="):
            return argument.partition("=")[2]
    return None


def _usage(program: str, about: str, commands: Mapping[str, Command]) -> str:
    width = max(map(len, commands))
    lines = [f"  {name:<{width}}  {(command.config.__doc__ or '').strip()}" for name, command in commands.items()]
    width = max(map(len, PRESETS))
    presets = [f"  {name:<{width}}  {_with_published(preset)}" for name, preset in PRESETS.items()]
    usage = [about, "", f"usage: {program} COMMAND [OPTIONS]", "", *lines, "", "--preset NAME:", *presets]
    return "\n".join([*usage, "", f"{program} COMMAND --help"])


def _with_published(preset: Preset) -> str:
    figure = preset.published.get("student_top1")
    return preset.about if figure is None else f"{preset.about}; the paper: {figure:.2%}"


class _Warnings:
    """Ours and users' warnings as one line, each once; the libraries' deprecations are nothing the user can mend."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, (UserWarning, RuntimeWarning)) and str(message) not in self._said:
            self._said.add(str(message))
            print(f"warning: {message}", file=sys.stderr)


def _fail(program: str, message: str, code: int = 2) -> int:
    sys.stdout.flush()
    if os.environ.get("AIP_DEBUG"):
        traceback.print_exc()
    print(f"{program}: {message}", file=sys.stderr)
    return code
