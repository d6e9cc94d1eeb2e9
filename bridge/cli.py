"""`python -m bridge`: what needs no framework."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Sequence

from bridge.commands import VIEWS
from bridge.errors import ConfigError
from bridge.shell import Command, quiet_start
from bridge.shell import main as run_program
from bridge.teachers.options import CardConfig, ConvertConfig, ExportConfig, TeachersConfig, VerifyConfig
from bridge.teachers.serve import ServeConfig, serve

ABOUT = "Views of one image, and teacher folders that both backends load."


def _card(config: CardConfig) -> None:
    from bridge.teachers.card import Card
    from bridge.teachers.parity import said_of_proof
    from bridge.teachers.shelf import find_folder

    if config.model is None:
        raise ConfigError("Which folder? Give --model FOLDER.")
    folder = find_folder(config.model)
    card = Card.load(folder, verify=True)
    print(json.dumps(dataclasses.asdict(card), indent=2))
    print(f"As the card says: {', '.join(card.files)}.", file=sys.stderr)
    print(said_of_proof(folder), file=sys.stderr)


def _export(config: ExportConfig) -> None:
    from bridge.teachers.export import export, place_of

    card = export(config)
    out = place_of(config)
    size = "any size" if card.input_size is None else " × ".join(map(str, card.input_size))
    size += {"image": " pixels", "audio": " samples", "video": " (frames, height, width)"}[card.kind]
    if card.rate and card.input_size:
        size += f" ({card.input_size[0] / card.rate:g} s at {card.rate:,} Hz)"
    print(f"{card.kind} teacher, {size}, {card.classes} classes, {card.parameters:,} parameters. Written to {out}.")
    if card.accuracy:
        count = f"{n:,} of " if (n := card.accuracy.get("n")) else ""
        print(f"Measured: top-1 {card.accuracy['top1']:.2%} on {count}{card.accuracy['dataset']}.")
    print(f"Prove that both frameworks agree: python -m bridge verify --model {out}")


def _import_quietly() -> None:
    """Import TensorFlow, if it is here, without what its native code logs meanwhile."""
    if importlib.util.find_spec("tensorflow"):
        with quiet_start():
            import keras_aip  # noqa: F401


def _verify(config: VerifyConfig) -> None:
    from bridge.progress import progress_bar
    from bridge.teachers.card import Card
    from bridge.teachers.parity import verify
    from bridge.teachers.probes import batch_of, noise_of, views_of
    from bridge.teachers.shelf import find_folder

    if config.model is None:
        raise ConfigError("Which folder? Give --model FOLDER.")
    folder = find_folder(config.model)
    card = Card.load(folder)  # what is wrong with it is said before any framework is imported
    _import_quietly()
    views, batch_size = views_of(card, config.views, 2048), batch_of(card, config.batch_size)
    with progress_bar("asking", "inputs", views + noise_of(card)) as advance:
        found = verify(
            folder, image=config.image, views=views, seed=config.seed, batch_size=batch_size, videos=config.videos,
            audio=config.audio, on_progress=advance,
        )  # fmt: skip
    agreement = f"agreement on {views:,} {'clips' if card.kind == 'video' else 'views'}"
    print(f"{'':20s}  largest difference  {agreement}  ms per {batch_size}")
    columns = (("relative", ".1e"), ("ms_per_batch", ".1f"))
    for name, figures in found["engines"].items():
        if figures is None:
            print(f"{name:20s}  not here: {found['missing'][name]}")
        else:
            largest, time = ("-" if figures[key] is None else format(figures[key], kind) for key, kind in columns)
            same = f"{figures['agreement']:.2%}".rjust(len(agreement))
            print(f"{name:20s}  {largest:>18s}  {same}  {time}")
    print(f"All answer alike; compared with {found['reference']}. Written to {folder / 'parity.json'}.")


def _convert(config: ConvertConfig) -> None:
    from bridge.teachers.forms import convert

    _import_quietly()
    for line in convert(config):
        print(line)


def _teachers(config: TeachersConfig) -> None:
    from bridge.teachers.zoo import table

    print(table(config.find))


COMMANDS = {
    "views": VIEWS,
    "export": Command(ExportConfig, _export, smoke={}, aliases={}),
    "verify": Command(VerifyConfig, _verify, smoke={"views": 64}, aliases={}),
    "convert": Command(ConvertConfig, _convert, smoke={"views": 64}, aliases={}),
    "teachers": Command(TeachersConfig, _teachers, smoke={}, aliases={}),
    "serve": Command(ServeConfig, serve, smoke={}, aliases={}),
    "card": Command(CardConfig, _card, smoke={}, aliases={}),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The program `aip-bridge`; returns its exit code."""
    return run_program("aip-bridge", ABOUT, COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
