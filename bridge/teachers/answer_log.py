"""What a teacher has been asked and has answered, on disk before anybody counts on it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from bridge.files import sync_folder
from bridge.folders import explained

LOG = "asked.log"


class AnswerLog:
    """An append-only file of questions and answers: one line ``KEY ANSWER CRC-32`` for each.

    A line that a kill cut short, or that a disk damaged, does not count; the next one begins behind it.

    Args:
        folder: Where ``asked.log`` is; made with the first answer.

    Raises:
        RunError: The file cannot be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / LOG
        self._places: dict[bytes, tuple[int, int]] = {}
        self.answers = 0
        """Answers in it, those to one question twice included."""
        with self._using():
            if self.path.exists():
                with open(self.path, "rb") as file:
                    place = 0
                    for line in file:
                        self._note(line, place)
                        place += len(line)

    def get(self, key: str) -> str | None:
        """The answer to a question, or None if it has not been asked or its line is damaged by now."""
        name = bytes.fromhex(key)
        place = self._places.get(name)
        if place is None:
            return None
        with self._using(), open(self.path, "rb") as file:
            file.seek(place[0])
            found = _parsed(file.read(place[1]))
        if found is None or found[0] != name:
            del self._places[name]  # the next answer to it counts
            return None
        return found[1]

    def append(self, answered: Iterable[tuple[str, str]]) -> None:
        """Write answers and wait until they are on the disk.

        Args:
            answered: Key, 32 hexadecimal digits, and answer, without spaces.

        Raises:
            RunError: The disk is full or broken.
        """
        lines = []
        for key, answer in answered:
            text = f"{key} {answer}".encode()
            lines.append(text + f" {zlib.crc32(text):08x}\n".encode())
        with self._using():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab+", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0, end - 1))
                torn = file.read(1) not in (b"", b"\n")
                left = memoryview(b"\n" * torn + b"".join(lines))
                while left:
                    left = left[file.write(left) or 0 :]
                # Only now is it known: another process may have appended since the end was looked for.
                place = file.tell() - sum(map(len, lines))
                os.fsync(file.fileno())
            if end == 0:
                sync_folder(self.path.parent)
                sync_folder(self.path.parent.parent)
        for line in lines:
            self._note(line, place)
            place += len(line)

    def _note(self, line: bytes, place: int) -> None:
        found = _parsed(line)
        if found is not None:
            self.answers += 1
            self._places.setdefault(found[0], (place, len(line)))

    def _using(self) -> AbstractContextManager[None]:
        return explained(f"Cannot use {self.path}", "What it holds is kept; free some disk space and start again.")


def _parsed(line: bytes) -> tuple[bytes, str] | None:
    """Key and answer of a line; None: it is not whole."""
    text, _, check = line.rstrip(b"\n").rpartition(b" ")
    key, _, answer = text.partition(b" ")
    try:
        whole = len(check) == 8 and int(check, 16) == zlib.crc32(text)
        return (bytes.fromhex(key.decode()), answer.decode()) if whole else None
    except ValueError:
        return None
