"""Every error a user can cause, under one base class.

A message says what was given, what was expected and how to mend it. The command line prints that message alone
and exits with code 2; from Python all of them are caught by ``except bridge.AipError``.
"""


class AipError(Exception):
    """Base class of all errors this project raises on purpose."""


class DatumError(AipError):
    """The one image, clip or folder cannot be used."""


class RecipeError(AipError):
    """A view recipe or a mixing cannot be built from the values given."""


class ConfigError(AipError):
    """An option, preset or configuration file does not make sense."""


class TeacherError(AipError):
    """A teacher or student cannot be loaded, saved or used as asked."""


class MissingTeacherError(TeacherError):
    """There is no such teacher at all.

    Args:
        where: What was asked for, and where it was looked for.
        advice: How to come by one.
        out: Where one would be found; None: where `train-teacher` writes the architecture asked for by itself.
    """

    def __init__(self, where: str, advice: str, out: str | None = None) -> None:
        super().__init__(f"{where} {advice}")
        self.where = where
        self.out = out


class DatasetError(AipError):
    """An evaluation set is missing, unreadable or does not fit the model."""


class RunError(AipError):
    """A run folder cannot be written, resumed or trusted."""
