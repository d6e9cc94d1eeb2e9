"""Looking things up by name, with a hint for those who mistype."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from bridge.errors import AipError, ConfigError

Value = TypeVar("Value")


def hint(name: str, known: Iterable[str]) -> str:
    """ " Did you mean 'x'?", with a space before it, or nothing where no known name is near."""
    near = get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def lookup(table: Mapping[str, Value], name: str, what: str, error: type[AipError] = ConfigError) -> Value:
    """The entry of a table.

    Raises:
        error: there is none of that name; names the known ones and the nearest.
    """
    if name not in table:
        raise error(f"Unknown {what} {name!r}; known: {', '.join(table)}.{hint(name, table)}")
    return table[name]
