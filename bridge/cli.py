"""`python -m bridge`: what needs no framework."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence

from bridge.commands import VIEWS
from bridge.config import CardConfig
from bridge.errors import ConfigError
from bridge.shell import Command
from bridge.shell import main as run_program

ABOUT = "Views of one image, and teacher folders that both backends load."


def _card(config: CardConfig) -> None:
    from bridge.teachers.card import Card

    if config.model is None:
        raise ConfigError("Which folder? Give --model FOLDER.")
    card = Card.load(config.model, verify=True)
    print(json.dumps(dataclasses.asdict(card), indent=2))
    print(f"All {len(card.files)} files are as the card says.", file=sys.stderr)


COMMANDS = {"views": VIEWS, "card": Command(CardConfig, _card, smoke={}, aliases={})}


def main(arguments: Sequence[str] | None = None) -> int:
    """The program `aip-bridge`; returns its exit code."""
    return run_program("aip-bridge", ABOUT, COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
