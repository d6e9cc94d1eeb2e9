"""A teacher as a folder that any backend can load: its card, and what may be inside its files."""

from bridge.teachers.card import Card
from bridge.teachers.scan import refuse_code

__all__ = ["Card", "refuse_code"]
