"""The `export` command: a network from anywhere becomes a teacher folder that both backends load."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bridge.audio_facts import AUDIO_FACTS, AudioFacts
from bridge.errors import ConfigError, TeacherError
from bridge.facts import FACTS, VIDEO_FACTS
from bridge.names import lookup
from bridge.teachers.accuracy import accuracies
from bridge.teachers.card import CHANNELS_FIRST, FORMS, RANGES, Card, replacing_folder
from bridge.teachers.engines import channels_first
from bridge.teachers.front_end import FrontEnd, front_end_of
from bridge.teachers.options import ExportConfig
from bridge.teachers.readers import READERS, AnyFacts, Network, Numbers, Span, Wanted
from bridge.teachers.runtime import Runtime
from bridge.teachers.shelf import shelf
from bridge.teachers.sources import front_end_said, source_of
from bridge.teachers.wrapped import LARGEST_DIFFERENCE, relative_difference


def export(config: ExportConfig) -> Card:
    """Write the teacher folder of one network.

    Args:
        config: resolved options.

    Returns:
        Its card.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    if config.model is None:
        raise ConfigError("Which network? Give --model, such as mine.onnx, torchvision/resnet18 or resnet56.")
    facts = lookup({**FACTS, **VIDEO_FACTS, **AUDIO_FACTS}, config.dataset, "data set") if config.dataset else None
    if config.measure and facts is None:
        raise ConfigError("--measure needs --dataset, the data set to measure on.")
    source = source_of(config.model, config.trust)
    if config.weights is not None and source.kind in ("onnx", "keras", "tflite", "saved_model", "keras.applications"):
        raise ConfigError(f"--weights is for PyTorch networks; {config.model} has weights of its own.")
    if config.layout is not None and source.kind not in ("onnx", "tflite", "saved_model"):
        raise ConfigError(f"--layout is for ONNX, TFLite and SavedModel files; the layout of {config.model} is known.")
    normalisation = in_unit_range(config.range, config.mean, config.std)
    wanted = Wanted(config, facts, class_names_of(config, facts), normalisation, front_end_asked(config))
    place = place_of(config)
    if place.is_dir() and any(not entry.name.startswith(".") for entry in place.iterdir()):
        raise ConfigError(f"{place} is not empty. Choose another --out, or remove it first.")
    if config.mean is not None and not all(config.range[0] <= mean <= config.range[1] for mean in config.mean):
        warnings.warn(
            f"--mean {' '.join(map(str, config.mean))} lies outside --range {config.range[0]:g} {config.range[1]:g}. "
            "Is --range 0 255 missing?", stacklevel=2,
        )  # fmt: skip
    # The place is taken first: what cannot be written there is said before any work is done.
    with replacing_folder(place) as beside, tempfile.TemporaryDirectory() as temporary:
        network = READERS[source.kind](wanted, source, Path(temporary) / "raw.onnx")
        model, kept = _canonical(wanted, network)
        return _write(beside, wanted, network, model, kept)


def place_of(config: ExportConfig) -> Path:
    """The folder that is written."""
    if config.out:
        return Path(config.out)
    label = source_of(str(config.model), trust=True).label
    return shelf() / (f"{config.dataset}_{label}" if config.dataset else label)


def class_names_of(config: ExportConfig, facts: AnyFacts | None) -> tuple[str, ...] | None:
    """The names the options give: of `--class-names`, else of `--dataset`; None: neither is given.

    Raises:
        ConfigError: The file cannot be read.
    """
    if config.class_names is None:
        return None if facts is None else facts.class_names
    try:
        lines = Path(config.class_names).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--class-names {config.class_names} cannot be read as text ({error}).") from error
    return tuple(line.strip() for line in lines if line.strip())


def _canonical(wanted: Wanted, network: Network) -> tuple[Any, tuple[Numbers, Numbers] | None]:
    """Compare with the original, and bake in what comes before the network; also what was baked in, for the card."""
    from bridge.teachers.bake import bake
    from bridge.teachers.onnx_file import read_onnx

    config, name = wanted.config, str(wanted.config.model)
    try:
        raw = read_onnx(network.onnx, external=True)
    except TeacherError as error:  # by the name the user knows, not that of our temporary file
        raise TeacherError(str(error).replace(str(network.onnx), name)) from error
    if network.answer is not None:
        _compare(network.answer, raw, name)
    span, mean, std = config.range, config.mean, config.std
    if network.normalised:
        span, mean, std = (0.0, 1.0), None, None
    elif wanted.normalisation is None and network.range is not None:
        span, mean, std = network.range, network.mean, network.std
    front_end = wanted.front_end
    model = bake(
        raw, layout=config.layout, range=span, mean=mean, std=std, outputs=config.outputs, output=config.output,
        image_size=_size(wanted, raw), front_end=None if front_end is None else front_end.graph(), where=name,
    )  # fmt: skip
    return model, in_unit_range(span, mean, std)


def _size(wanted: Wanted, model: Any) -> int | tuple[int | None, ...] | None:
    """Of images, clips or waveforms, where the model leaves it open; what is asked for by name, in any case."""
    from bridge.teachers.onnx_graph import dims_of, inputs_of

    dims = dims_of(inputs_of(model.graph)[0])
    if wanted.front_end is not None:
        return None
    if len(dims) not in (4, 5):
        return wanted.config.samples
    side = wanted.image_size if any(not side for side in dims[1:]) else wanted.config.image_size
    return side if len(dims) == 4 else (wanted.config.frames, side, side)


def in_unit_range(span: Span, mean: Numbers | None, std: Numbers | None) -> tuple[Numbers, Numbers] | None:
    """Mean and std of pixels in [0, 1] that do what ``span``, then ``mean`` and ``std``, do.

    Args:
        span: What black and white are before mean and std.
        mean: One number for all channels or one for each; None: none.
        std: As ``mean``, given together with it.

    Returns:
        One number per channel each; None where there is nothing to do.

    Raises:
        ConfigError: They do not go together.
    """
    low, high = span
    if (mean is None) != (std is None):
        raise ConfigError("Give --mean and --std together, or neither where the model normalises by itself.")
    for name, values in (("--mean", mean), ("--std", std)):
        if values is not None and (len(values) not in (1, 3) or not all(map(math.isfinite, values))):
            raise ConfigError(f"{name} {' '.join(map(str, values))}: expected one number, or three, for R, G and B.")
    if low >= high or (std is not None and min(std) <= 0):
        raise ConfigError(f"--range {low} {high} must rise, and every --std must be above 0.")
    if mean is None or std is None:
        if (low, high) == (0, 1):
            return None
        mean, std = (0.0,) * 3, (1.0,) * 3
    mean, std = (values * 3 if len(values) == 1 else values for values in (mean, std))
    scale = high - low
    return tuple((m - low) / scale for m in mean), tuple(s / scale for s in std)


def front_end_asked(config: ExportConfig) -> FrontEnd | None:
    """The front end the options describe; None where they describe none.

    Raises:
        AipError: It makes no sense.
    """
    if config.front_end is None:
        return None
    given = {name: value for name in ("rate", "samples") if (value := getattr(config, name)) is not None}
    return front_end_of({**given, **front_end_said(config.front_end)})


def _write(beside: Path, wanted: Wanted, network: Network, model: Any, kept: tuple[Numbers, Numbers] | None) -> Card:
    import onnx

    from bridge.teachers.onnx_file import facts_of

    config, known, front_end = wanted.config, facts_of(model), wanted.front_end
    names = wanted.class_names or network.class_names
    # Labels are one number per image: how many classes there are only their names tell.
    classes = (None if config.outputs == "labels" else known.classes) or (len(names) if names else None)
    if classes is None:
        raise ConfigError(f"{config.model} does not say how many classes it has. Give --class-names or --dataset.")
    if names is not None and len(names) != classes:
        given = f" by --dataset {config.dataset}" if config.dataset and not config.class_names else ""
        raise TeacherError(
            f"{config.model} answers for {classes} classes, but {len(names)} class names were given{given}."
        )
    audio = known.kind == "audio"
    rate = config.rate or (wanted.facts.rate if isinstance(wanted.facts, AudioFacts) else None)
    if audio and front_end is None and rate is None:
        raise ConfigError(f"{config.model} takes waveforms; say at which rate with --rate 16000 (samples per second).")
    baked = "" if kept is None else f"; pixels in [0, 1] normalised by mean {_listed(kept[0])}, std {_listed(kept[1])}"
    said: dict[str, Any] = dict(
        class_names=names, outputs=config.outputs, accuracy=network.accuracy,
        source=(config.source or network.source) + baked,
        licence=config.licence or network.licence,
    )  # fmt: skip
    if network.save is not None and config.native and not audio:
        card = network.save(beside, **said)
        card = dataclasses.replace(card, input_size=card.input_size or known.input_size)
        if kept is not None and card.architecture is None:  # its layers do not normalise; the card says how
            card = dataclasses.replace(card, mean=kept[0], std=kept[1])
    else:
        card = Card(
            classes=classes, input_size=known.input_size, kind=known.kind, range=RANGES[known.kind],
            **({"layout": CHANNELS_FIRST["video"]} if known.kind == "video" else {}),
            rate=(front_end.rate if front_end else rate) if audio else None,
            front_end=front_end.described() if front_end else None, parameters=known.parameters, **said,
        )  # fmt: skip
    onnx.save(model, beside / FORMS["onnx"])
    if config.measure:
        runtime = Runtime(beside / FORMS["onnx"])
        runs = [lambda x: runtime(channels_first(x))]
        (found,) = accuracies(runs, card, str(config.dataset), config.data_dir)
        card = dataclasses.replace(card, accuracy=found)
    card = dataclasses.replace(card, forms={**card.forms, "onnx": FORMS["onnx"]}).sealed(beside)
    card.save(beside)
    return card


def _listed(numbers: Numbers) -> str:
    return " ".join(f"{number:.4g}" for number in numbers)


def _compare(answer: Callable[[np.ndarray], np.ndarray], raw: Any, name: str) -> None:
    """Refuse an export that does not compute what its source does, on four seeded inputs."""
    runtime = Runtime(raw)
    x = runtime.random_input(4)
    expected, found = answer(x), runtime(x)
    if expected.shape != found.shape:
        raise TeacherError(f"{name} answers with shape {expected.shape}, its ONNX form with {found.shape}.")
    difference = relative_difference(expected, found)
    if not difference <= LARGEST_DIFFERENCE:
        raise TeacherError(
            f"{name} and its ONNX form differ by {difference:.1e} of the largest score (rounding is at most "
            f"{LARGEST_DIFFERENCE}). The exporter translated it wrongly; is anything random or stateful in the network?"
        )
