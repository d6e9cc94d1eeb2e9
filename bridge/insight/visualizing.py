"""All of `visualize` but the networks: which units, which photographs, and the files that come out."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bridge import wordnet
from bridge.datum.sources import list_files, load_source, read_image, some_names
from bridge.errors import ConfigError, DatumError, TeacherError
from bridge.facts import FACTS
from bridge.files import atomic_write, json_text
from bridge.insight.neuron_grid import neuron_grid_for_report, overlaid
from bridge.insight.neurons import Ascent, Canvas, Unit
from bridge.insight.options import VisualizeConfig
from bridge.names import hint, lookup
from bridge.pictures import fitted
from bridge.progress import progress_bar

_ALL = 20
"""Classes that are drawn without being asked for."""
_MOST_IMAGES = 32
_PIXELS_AT_A_TIME = 2**20
"""Of pictures improved together: of 224 pixels 20."""
_GREY, _QUIET = 0.5, 0.25
"""What pictures and spectrograms begin near, in the range they may take."""


class Found(NamedTuple):
    """What came of maximising units.

    Attributes:
        pictures: uint8 [units, height, width, 3].
        before, after: float32 [units]: what each unit gave for the first picture and gives for the last.
        answers: float32 [units, classes]: logits, or log-probabilities, for the last.
    """

    pictures: NDArray[np.uint8]
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    answers: NDArray[np.float32]


class Inspected(Protocol):
    """A network of either backend that is looked into."""

    name: str
    classes: int
    class_names: Sequence[str] | None
    input_size: tuple[int, ...] | None
    shape: tuple[int, int]
    """Of what is drawn: height and width in pixels, or bands and frames of a spectrogram."""
    sounds: bool

    def layers(self) -> dict[str, int]:
        """How many channels each layer has."""
        ...

    def maximise(self, units: Sequence[Unit], ascent: Ascent, on_step: Callable[[int], None]) -> Found: ...

    def maps(self, images: NDArray[np.uint8], classes: Sequence[int] | None) -> tuple[Any, Any]: ...


def visualize(config: VisualizeConfig, inspect: Callable[[str, str | None], Inspected]) -> list[Path]:
    """Draw units and maps of one or two networks.

    Args:
        config: resolved options.
        inspect: the backend's way to a network, of its folder and the data set.

    Returns:
        The files written: neurons.png, with images maps.png, and visualize.json.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    _check(config)
    networks = [inspect(str(name), config.dataset) for name in (config.model, config.student) if name is not None]
    names = class_names(networks[0], config.dataset)
    units = units_of(config, networks, names)
    images, labels = _photographs(config, networks)
    out, roles = Path(config.out), ("teacher", "student")[: len(networks)] if len(networks) > 1 else ("",)
    maps = _maps(networks, roles, images, labels, names) if images else None  # which says sooner if it cannot be
    found = [maximised(config, network, units) for network in networks]
    grid = neuron_grid_for_report(
        [list(some.pictures) for some in found],
        [unit.label for unit in units],
        [captions(role, some, units) for role, some in zip(roles, found)],
    )
    written = [_write(out / "neurons.png", grid)]
    if maps is not None:
        written.append(_write(out / "maps.png", maps))
    told = {
        "config": dataclasses.asdict(config),
        "units": [
            {**dataclasses.asdict(unit), "networks": [_told(some, k, unit) for some in found]}
            for k, unit in enumerate(units)
        ],
    }
    return [*written, _write(out / "visualize.json", json_text(told).encode())]


def class_names(network: Inspected, dataset: str | None) -> list[str] | None:
    """What the classes of a network are called: by itself, else by the data set; None: nobody knows.

    Raises:
        ConfigError: there is no such data set, or it has another number of classes.
    """
    if network.class_names:
        return wordnet.readable(network.class_names)
    if dataset is None:
        return None
    facts = lookup(FACTS, dataset, "data set")
    names = facts.names or (wordnet.readable(wordnet.imagenet_ids()) if dataset == "in1k" else None)
    if facts.classes != network.classes:
        raise ConfigError(
            f"--dataset {dataset} has {facts.classes} classes, {network.name} answers for {network.classes}. Name the "
            "data set it was trained on, or leave --dataset out."
        )
    return names


def units_of(config: VisualizeConfig, networks: Sequence[Inspected], names: Sequence[str] | None) -> list[Unit]:
    """The units that are asked for.

    Raises:
        ConfigError: one does not exist in every network.
    """
    first = networks[0]
    for other in networks[1:]:
        if other.classes != first.classes:
            raise ConfigError(
                f"{first.name} answers for {first.classes} classes, {other.name} for {other.classes}: no pair that can "
                "be compared. Draw them one by one, without --student."
            )
    if config.units is None and config.channels is None:
        if first.classes > _ALL:
            raise ConfigError(
                f"Which of the {first.classes:,} classes of {first.name}? Give --units, such as --units 0,3,7"
                + (f" or --units {names[0]!r}." if names else ", or --channels LAYER:INDEX.")
            )
        wanted = [str(index) for index in range(first.classes)]
    else:
        wanted = _words(config.units, "--units")
    units = [_class(word, first, names) for word in wanted]
    return units + [_channel(word, networks) for word in _words(config.channels, "--channels")]


def photographs(given: Sequence[str]) -> list[tuple[str, NDArray[np.uint8]]]:
    """Name and uint8 [height, width, 3] of each picture: of files, folders and "sklearn:china.jpg".

    Raises:
        DatumError: a folder without pictures, or a file that is none.
    """
    found: list[tuple[str, NDArray[np.uint8]]] = []
    for name in given:
        if name.startswith(("sklearn:", "control:")):
            found.append((name.partition(":")[2], load_source(name).images[0]))
            continue
        path = Path(name).expanduser()
        if not path.is_dir():
            found.append((path.stem, read_image(path)))
            continue
        unusable, before = [], len(found)
        for file in list_files(path):
            if len(found) > _MOST_IMAGES:
                break
            try:
                found.append((file.stem, read_image(file)))
            except DatumError:
                unusable.append(file.name)
        if len(found) == before:
            raise DatumError(f"--images {name} is a folder without pictures: expected JPEG, PNG, … in it.")
        if unusable:
            warnings.warn(f"{path}: no usable pictures, left out: {some_names(unusable)}", stacklevel=2)
    if len(found) > _MOST_IMAGES:
        warnings.warn(f"--images: only the first {_MOST_IMAGES} are drawn.", stacklevel=2)
    return found[:_MOST_IMAGES]


def _check(config: VisualizeConfig) -> None:
    if config.model is None:
        raise ConfigError("Which network? Give --model FOLDER, such as runs/distill/student.")
    if config.steps < 1:
        raise ConfigError(f"--steps (={config.steps}) must be at least 1; 256 make a clear picture.")
    for name, largest in (("jitter", 0.5), ("scaling", 1.0), ("decay", 4.0)):
        if not 0 <= (value := getattr(config, name)) <= largest:
            raise ConfigError(f"--{name} (={value}) must be between 0 and {largest:g}.")


def _words(given: str | None, flag: str) -> list[str]:
    words = [] if given is None else [word.strip() for word in given.split(",")]
    if given is not None and not all(words):
        raise ConfigError(f"{flag} {given!r} has an empty part; write them with single commas between, such as 0,3,7.")
    return list(dict.fromkeys(words))


def _class(word: str, network: Inspected, names: Sequence[str] | None) -> Unit:
    known = [_folded(name) for name in names or ()]
    if re.fullmatch(r"-?\d+", word):
        index = int(word)
        if not 0 <= index < network.classes:
            raise ConfigError(
                f"--units {word}: {network.name} has no such class; it has {network.classes:,}, 0 to "
                f"{network.classes - 1}."
            )
    elif word in (names or ()):
        index = list(names or ()).index(word)
    elif _folded(word) in known:
        index = known.index(_folded(word))
    else:
        told = hint(_folded(word), known) if names else " Its names are unknown here: give numbers, or --dataset."
        raise ConfigError(
            f"--units {word!r} is no class of {network.name}, which has {network.classes:,} (0 to "
            f"{network.classes - 1}).{told}"
        )
    return class_unit(index, names)


def class_unit(index: int, names: Sequence[str] | None) -> Unit:
    """A class, under its name as it is given, or its number."""
    return Unit(index, None, names[index] if names else f"class {index}")


def _folded(name: str) -> str:
    return name.replace("_", " ").strip().lower()


def _channel(word: str, networks: Sequence[Inspected]) -> Unit:
    layer, colon, number = word.rpartition(":")
    if not colon or not number.isdecimal():
        raise ConfigError(f"--channels {word!r} must be LAYER:INDEX, such as layer3.0.conv1:5.")
    for network in networks:
        layers = network.layers()
        if not layers:
            raise ConfigError(
                f"--channels {word}: {network.name} shows no layers here: networks out of ONNX show them to PyTorch "
                "alone. Try `python -m torch_aip visualize`, or a folder with weights.safetensors."
            )
        if layer not in layers:
            raise ConfigError(
                f"--channels {word}: {network.name} has no layer {layer!r}; it has {_listed(layers)}."
                f"{hint(layer, layers)}"
            )
        if int(number) >= layers[layer]:
            raise ConfigError(
                f"--channels {word}: {layer} of {network.name} has {layers[layer]} channels, 0 to {layers[layer] - 1}."
            )
    return Unit(int(number), layer, word)


def _listed(layers: Mapping[str, int]) -> str:
    names = list(layers)
    return ", ".join(names if len(names) <= 24 else [*names[:12], f"… {len(names) - 24} more …", *names[-12:]])


def maximised(
    config: VisualizeConfig,
    network: Inspected,
    units: Sequence[Unit],
    on_step: Callable[[int], None] = lambda done: None,
) -> Found:
    """Draw units of a network, those of one layer together.

    Args:
        config: how.
        network: looked into.
        units: of it.
        on_step: told how many steps are done.

    Raises:
        AipError: no gradient comes through, it fails, or what it gives is no number.
    """
    height, width = network.shape
    if config.image_size is not None:
        if network.sounds:
            raise ConfigError(f"--image-size {config.image_size} is of images; {network.name} takes sounds.")
        height = width = config.image_size
    channels, level = (1, _QUIET) if network.sounds else (3, _GREY)
    canvas = Canvas(height, width, channels, config.decay, level)
    ascent = Ascent(
        config.steps, config.learning_rate, config.jitter, config.scaling, config.seed, canvas, network.shape,
        moves_up=not network.sounds,
    )  # fmt: skip
    at_once = max(1, _PIXELS_AT_A_TIME // (height * width))
    groups: dict[str | None, list[int]] = {}
    for place, unit in enumerate(units):
        groups.setdefault(unit.layer, []).append(place)
    parts = [some[k : k + at_once] for some in groups.values() for k in range(0, len(some), at_once)]
    found: list[Any] = [None] * len(units)
    with progress_bar(f"drawing {Path(network.name).name}", "steps", config.steps * len(parts)) as advance:

        def stepped(done: int) -> None:
            advance(done)
            on_step(done)

        for places in parts:
            some = network.maximise([units[place] for place in places], ascent, stepped)
            if not np.isfinite(some.after).all():
                raise TeacherError(
                    f"{network.name} gives what is no number for the picture drawn; `visualize` with a lower "
                    f"--learning-rate than {config.learning_rate} may, or check it with `python -m bridge verify`."
                )
            for k, place in enumerate(places):
                found[place] = [values[k] for values in some]
    return Found(*(np.stack(values) for values in zip(*found)))


def captions(role: str, found: Found, units: Sequence[Unit]) -> list[str]:
    """Whose pictures these are, what each unit gives for its own, and of classes the probability."""
    texts = []
    for k, unit in enumerate(units):
        reached = f"{found.after[k]:.3g}"
        if unit.layer is None:
            reached += f" ({_softmax(found.answers[k])[unit.index]:.0%})"
        texts.append(f"{role} {reached}".strip())
    return texts


def _told(found: Found, k: int, unit: Unit) -> dict[str, Any]:
    share = float(_softmax(found.answers[k])[unit.index]) if unit.layer is None else None
    return {"before": float(found.before[k]), "after": float(found.after[k]), "probability": share}


def _photographs(config: VisualizeConfig, networks: Sequence[Inspected]) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """Read before anything long begins."""
    if not config.images:
        return [], []
    if sounds := next((network for network in networks if network.sounds), None):
        raise ConfigError(f"--images are pictures, and {sounds.name} takes sounds; leave them out.")
    found = photographs(config.images)
    return [pixels for _, pixels in found], [name for name, _ in found]


def _maps(
    networks: Sequence[Inspected],
    roles: Sequence[str],
    images: Sequence[NDArray[np.uint8]],
    labels: Sequence[str],
    names: Sequence[str] | None,
) -> bytes:
    shown = [np.stack([_fitted(image, network.shape) for image in images]) for network in networks]
    rows, captions = [list(shown[0])], [["" for _ in images]]
    wanted: list[int] = []
    for network, role, pixels in zip(networks, roles, shown):
        heat, answers = network.maps(pixels, wanted or None)
        wanted = wanted or answers.argmax(axis=1).tolist()
        shares = [_softmax(row)[k] for row, k in zip(answers, wanted)]
        rows.append([overlaid(image, warm) for image, warm in zip(pixels, heat)])
        called = [class_unit(k, names).label for k in wanted]
        captions.append([f"{role} {name} {share:.0%}".strip() for name, share in zip(called, shares)])
    return neuron_grid_for_report(rows, labels, captions)


def _fitted(image: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    from PIL import Image

    square = fitted(image, shape[0])
    if shape[0] == shape[1]:
        return square
    return np.asarray(Image.fromarray(square).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def _softmax(answers: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(answers - answers.max())
    return powers / powers.sum()


def _write(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
    except OSError as error:
        raise DatumError(f"Cannot write {path}: {error.strerror}. Choose another --out.") from error
    return path


def no_places(name: str) -> TeacherError:
    """Of a network without a layer that a map could be drawn of."""
    return TeacherError(
        f"No layer of {name} is known to have places, so no map of it can be drawn. Networks out of ONNX show their "
        "layers to PyTorch alone: try `python -m torch_aip visualize`, or leave --images out."
    )


def cannot_draw(name: str, said: str) -> TeacherError:
    """Of a network that fails, or needs more memory than there is, while it is drawn of."""
    first = (said.strip().splitlines() or ["it does not say why"])[0]
    return TeacherError(f"Nothing can be drawn of {name}: {first}")


def no_gradient(name: str, program: str) -> TeacherError:
    """Of a network through which nothing tells how pixels change the answer."""
    other = "torch_aip" if program == "keras_aip" else "keras_aip"
    return TeacherError(
        f"No gradient comes through {name} here, so nothing can be drawn: it answers in labels, is a service, answers "
        f"all greyish noise alike, or what it was converted from has none. Try `python -m {other} visualize`, or a "
        "folder with weights.safetensors."
    )
