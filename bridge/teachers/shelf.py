"""Where teachers are kept and found by name."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from bridge.errors import MissingTeacherError, TeacherError
from bridge.networks import X3D_PUBLISHED
from bridge.teachers.card import CARD_NAME
from bridge.teachers.sources import LIBRARIES, source_of

FOLDER_VARIABLE = "AIP_TEACHERS"
DEFAULT_FOLDER = "teachers"
STUDENT = "student"
"""The folder of a run that its student is written to."""
PUBLISHED_FOR = ("in1k", "k400")  # what the weights torchvision publishes were trained on: images, videos


def shelf() -> Path:
    """The folder of all teachers that are found by name: ``$AIP_TEACHERS``, by default ``./teachers``."""
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)


def folder_for(dataset: str, architecture: str) -> Path:
    """Where a teacher of an architecture for a data set is kept unless told otherwise, and looked for.

    Args:
        dataset: A name, or a path, of which the last part counts without its suffix.
        architecture: Such as ``wrn_40_4``; of ``torchvision/resnet18`` the last part counts.
    """
    name = Path(dataset).expanduser().absolute().name.strip(".").partition(".")[0]
    return shelf() / f"{name}_{architecture.rpartition('/')[2]}"


def published_as(name: str | Path, dataset: str | None) -> str | None:
    """Return as what a teacher of a bare name, such as ``resnet18``, may have been published.

    The reference code's ``--dataset in1k --teacher resnet18`` and ``--dataset k400 --teacher x3d_xs`` mean it; for any
    other data set no such name does.

    Returns:
        ``x3d_xs``, which pytorchvideo has published; ``torchvision/resnet18`` or, of ``k400``, ``torchvision/r3d_18``,
        of which only torchvision knows whether there is one; None: it does not mean that.
    """
    if dataset not in PUBLISHED_FOR or not re.fullmatch(r"\w+", str(name)):
        return None
    return str(name) if dataset == "k400" and name in X3D_PUBLISHED else f"torchvision/{name}"


def find_folder(
    folder_or_name: str | Path, dataset: str | None = None, *, can_train: bool = False, program: str = "keras_aip"
) -> Path:
    """Find a teacher's folder by its path or name.

    Args:
        folder_or_name: A folder, or its name on the shelf.
        dataset: The data set it is wanted for: of ``wrn_40_4``, the one in ``cifar10_wrn_40_4`` comes first.
        can_train: Whether `train-teacher` knows an architecture of that name.
        program: The backend whose `train-teacher` is meant.

    Raises:
        MissingTeacherError: There is none; it says where was looked and how to come by one.
    """
    given = Path(folder_or_name)
    if given.is_file():
        raise TeacherError(
            f"{given} is a file; expected a folder with {CARD_NAME} in it. Make one of it: python -m bridge export "
            f"--model {given}"
        )
    places = [given, shelf() / given]
    if dataset is not None and len(given.parts) == 1:
        places.insert(1, folder_for(dataset, given.name))
    for place in places:
        if place.is_dir():
            if (place / "run.json").is_file() and (place / STUDENT / CARD_NAME).is_file():
                raise TeacherError(f"{place} is a whole run; give its student: {place / STUDENT}")
            return place
    looked = f"no folder {', '.join(dict.fromkeys(map(str, places)))} (set {FOLDER_VARIABLE} to look elsewhere)."
    if given.name == STUDENT:
        raise MissingTeacherError(
            f"There is no student {str(folder_or_name)!r}: {looked}", _advice_on_student(given, program)
        )
    where = f"There is no teacher {str(folder_or_name)!r}: {looked}"
    if given.as_posix().startswith(LIBRARIES):
        label = source_of(given.as_posix()).label
        raise MissingTeacherError(
            where,
            f"It is a library's name for a network: `python -m bridge export --model {given.as_posix()}` makes a "
            f"teacher folder of that, which is then found as {label}.",
        )
    options = [f"--dataset {dataset or 'DATASET'}"]
    if can_train:
        options.append(f"--architecture {given}")
    out = None
    if dataset is None or len(options) == 1:  # else it is written to where it is looked for first
        out = str(given if len(given.parts) > 1 else shelf() / given)
        options.append(f"--out {out}")
    line = f"python -m {program} train-teacher {' '.join(options)}"
    raise MissingTeacherError(
        where,
        f"Train it with `{line}`, make it from a network you have with `python -m bridge export`, or put a folder with "
        f"{CARD_NAME} and weights there.",
        out,
    )


def _advice_on_student(given: Path, program: str) -> str:
    """How to come by the student of a run: the run is another one, one of a sweep, or has not ended."""
    run = given.parent
    if (run / "run.json").is_file() and (run / "runs").is_dir():
        return f"{run} is a sweep, each of whose runs has a student at its end; {_students(run / 'runs')}."
    if (run / "result.json").is_file():
        return f"{run} is a run that has ended, but its student is not there any more; restore it, or run it again."
    if (run / "run.json").is_file():
        line = f"python -m {_program_of(run) or program} distill --out {run} --resume"
        return f"{run} is a run that has not ended; it writes its student then: `{line}`."
    line = f"python -m {program} distill --out {run}"
    return f"`{line}` would write it there at its end; {_students(run.parent)}."


def _students(folder: Path) -> str:
    """Which runs in a folder have one."""
    found = [str(card.parent) for card in sorted(folder.glob(f"*/{STUDENT}/{CARD_NAME}"))]
    return f"there are {', '.join(found[:3])}{' …' if len(found) > 3 else ''}" if found else f"{folder} holds none yet"


def _program_of(run: Path) -> str | None:
    """What began a run, by the libraries it says it ran with."""
    try:
        libraries = json.loads((run / "run.json").read_text(encoding="utf-8"))["environment"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = {"keras": "keras_aip", "torch": "torch_aip"}
    return next((program for library, program in known.items() if library in libraries), None)
