"""The `export` command: a network from anywhere becomes a teacher folder that both backends load."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bridge.errors import ConfigError, TeacherError
from bridge.facts import FACTS, DatasetFacts
from bridge.names import lookup
from bridge.shell import quiet_start
from bridge.teachers.card import FORMS, RANGES, Card, replacing_folder
from bridge.teachers.front_end import Mfcc
from bridge.teachers.options import ExportConfig
from bridge.teachers.shelf import shelf
from bridge.teachers.sources import Source, arguments_of, made_by_factory, source_of
from bridge.teachers.wrapped import LARGEST_DIFFERENCE


@dataclass
class Network:
    """A network on its way into a folder.

    Attributes:
        onnx: Where its ONNX form lies, as the source gives it.
        answer: The original: its own kind of input, float32 -> scores; None where only the file is there.
        save: Writes the native form and its card into a folder; None where there is none.
        normalised: It takes pixels in [0, 1] already.
        range, mean, std: What its input is, where the source knows better than the options.
        class_names: One per class, where the source knows them.
        image_size: Side in pixels, where the source knows it.
        source, licence: For the card.
    """

    onnx: Path
    answer: Callable[[np.ndarray], np.ndarray] | None = None
    save: Callable[..., Card] | None = None
    normalised: bool = False
    range: tuple[float, float] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    class_names: tuple[str, ...] | None = None
    image_size: int | None = None
    source: str = ""
    licence: str = ""


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
    if (config.mean is None) != (config.std is None):
        raise ConfigError("Give --mean and --std together, or neither where the model normalises by itself.")
    facts = lookup(FACTS, config.dataset, "data set") if config.dataset else None
    if config.measure and facts is None:
        raise ConfigError("--measure needs --dataset, the data set to measure on.")
    source = source_of(config.model, config.trust)
    if config.weights is not None and source.kind in ("onnx", "keras", "tflite", "saved_model", "keras.applications"):
        raise ConfigError(f"--weights is for PyTorch networks; {config.model} has weights of its own.")
    out = place_of(config)
    names = class_names_of(config, facts)
    with tempfile.TemporaryDirectory() as temporary:
        network = READERS[source.kind](config, source, facts, Path(temporary) / "raw.onnx")
        names = names or network.class_names
        model, front_end, kept = _canonical(config, network, facts)
        return _write(out, config, network, model, names, front_end, kept, facts)


def place_of(config: ExportConfig) -> Path:
    """The folder that is written."""
    if config.out:
        return Path(config.out)
    label = source_of(str(config.model), trust=True).label
    return shelf() / (f"{config.dataset}_{label}" if config.dataset else label)


def class_names_of(config: ExportConfig, facts: DatasetFacts | None) -> tuple[str, ...] | None:
    """The names the options give: of `--class-names`, else of `--dataset`."""
    if config.class_names is None:
        return None if facts is None else facts.class_names
    try:
        lines = Path(config.class_names).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--class-names {config.class_names} cannot be read as text ({error}).") from error
    return tuple(line.strip() for line in lines if line.strip())


def _canonical(config: ExportConfig, network: Network, facts: DatasetFacts | None) -> tuple[Any, Mfcc | None, Any]:
    """Bake in what comes before the network, and compare with the original."""
    from bridge.teachers.bake import bake
    from bridge.teachers.onnx_file import read_onnx

    model_name = str(config.model)
    try:
        raw = read_onnx(network.onnx, external=True)
    except TeacherError as error:  # by the name the user knows, not that of our temporary file
        raise TeacherError(str(error).replace(str(network.onnx), model_name)) from error
    if network.answer is not None:
        _compare(network.answer, raw, model_name)
    mean, std = (config.mean, config.std) if config.mean is not None else (network.mean, network.std)
    span = config.range if network.range is None or config.range != (0.0, 1.0) else network.range
    if network.normalised:
        mean, std, span = None, None, (0.0, 1.0)
    front_end = front_end_of(config)
    size = config.image_size or network.image_size
    if size is None and facts is not None and front_end is None and _open_sides(raw):
        size = facts.image_size
    model = bake(
        raw, layout=config.layout, range=span, mean=mean, std=std, outputs=config.outputs, image_size=size,
        output=config.output, front_end=None if front_end is None else front_end.graph(), where=model_name,
    )  # fmt: skip
    return model, front_end, in_unit_range(span, mean, std)


def _open_sides(model: Any) -> bool:
    """Whether an image model leaves height or width open."""
    from bridge.teachers.onnx_graph import dims_of, inputs_of

    dims = dims_of(inputs_of(model.graph)[0])
    return len(dims) == 4 and any(not side for side in dims[1:])


def in_unit_range(
    span: tuple[float, float], mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std of pixels in [0, 1] that do what ``span``, then ``mean`` and ``std``, do; None: nothing to do."""
    low, high = span
    if mean is None or std is None:
        if (low, high) == (0, 1):
            return None
        mean, std = (0.0,) * 3, (1.0,) * 3
    scale = high - low
    return tuple((m - low) / scale for m in mean), tuple(s / scale for s in std)


def front_end_of(config: ExportConfig) -> Mfcc | None:
    """The front end the options describe."""
    if config.front_end is None:
        return None
    kind, _, pairs = config.front_end.partition(":")
    description = arguments_of([pair for pair in pairs.split(",") if pair])
    rate = {} if config.rate is None else {"rate": config.rate}
    return Mfcc.of({"kind": kind, **rate, **description})


def _write(
    out: Path, config: ExportConfig, network: Network, model: Any, names: tuple[str, ...] | None,
    front_end: Mfcc | None, kept: Any, facts: DatasetFacts | None,
) -> Card:  # fmt: skip
    import onnx

    from bridge.teachers.onnx_file import facts_of

    known = facts_of(model)
    # Labels are one number per image: how many classes there are only their names tell.
    classes = None if config.outputs == "labels" else known.classes
    classes = classes or (len(names) if names else None)
    if classes is None:
        raise ConfigError(f"{config.model} does not say how many classes it has. Give --class-names or --dataset.")
    if names is not None and len(names) != classes:
        raise TeacherError(
            f"{config.model} answers for {classes} classes, but {len(names)} class names were given"
            f"{f' by --dataset {facts.name}' if facts and not config.class_names else ''}."
        )
    audio = known.kind == "audio"
    if audio and front_end is None and config.rate is None:
        raise ConfigError(f"{config.model} takes waveforms; say at which rate with --rate 16000 (samples per second).")
    with replacing_folder(out) as beside:
        common: dict[str, Any] = dict(
            class_names=names, outputs=config.outputs, source=config.source or network.source,
            licence=config.licence or network.licence,
        )  # fmt: skip
        if network.save is not None and config.native and not audio:
            card = network.save(beside, **common)
            if kept is not None and card.architecture is None:  # its layers do not normalise; the card says how
                card = dataclasses.replace(card, mean=kept[0], std=kept[1])
        else:
            card = Card(
                classes=classes, input_size=known.input_size, kind=known.kind, range=RANGES[known.kind],
                rate=(front_end.rate if front_end else config.rate) if audio else None,
                front_end=front_end.described() if front_end else None, parameters=known.parameters, **common,
            )  # fmt: skip
        onnx.save(model, beside / FORMS["onnx"])
        if config.measure:
            card = dataclasses.replace(card, accuracy=_measured(config, beside / FORMS["onnx"], card))
        card = dataclasses.replace(card, forms={**card.forms, "onnx": FORMS["onnx"]}).sealed(beside)
        card.save(beside)
    return card


def _measured(config: ExportConfig, path: Path, card: Card) -> dict[str, Any]:
    from bridge.datasets import load
    from bridge.metrics import evaluate_logits
    from bridge.teachers.runtime import Runtime

    if card.kind != "image" or card.input_size is None:
        raise ConfigError("--measure is for networks that take images.")
    data = load(str(config.dataset), image_size=card.input_size[0], data_dir=config.data_dir)
    runtime = Runtime(path)
    scores = np.concatenate(
        [
            runtime(np.ascontiguousarray(data.images[first : first + 256].transpose(0, 3, 1, 2), np.float32) / 255)
            for first in range(0, len(data.images), 256)
        ]
    )
    if card.outputs == "labels":
        return {"top1": float((scores.reshape(-1) == data.labels).mean()), "dataset": data.name, "n": len(data.images)}
    top1 = evaluate_logits(scores, data.labels)["student_top1"]
    return {"top1": top1, "dataset": data.name, "n": len(data.images)}


def _compare(answer: Callable[[np.ndarray], np.ndarray], raw: Any, name: str) -> None:
    """Refuse an export that does not compute what its source does, on four seeded inputs."""
    from bridge.teachers.runtime import Runtime

    runtime = Runtime(raw)
    x = runtime.random_input(4)
    expected, found = answer(x), runtime(x)
    if expected.shape != found.shape:
        raise TeacherError(f"{name} answers with shape {expected.shape}, its ONNX form with {found.shape}.")
    largest = float(np.abs(expected).max())
    difference = float(np.abs(expected - found).max()) / max(largest, 1e-12)
    if not difference <= LARGEST_DIFFERENCE:
        raise TeacherError(
            f"{name} and its ONNX form differ by {difference:.1e} of the largest score (rounding is at most "
            f"{LARGEST_DIFFERENCE}). The exporter translated it wrongly; is anything random or stateful in the network?"
        )


def _from_onnx(config: ExportConfig, source: Source, facts: DatasetFacts | None, path: Path) -> Network:
    return Network(Path(source.name), source=f"the ONNX file {Path(source.name).name}")


def _from_architecture(config: ExportConfig, source: Source, facts: DatasetFacts | None, path: Path) -> Network:
    """A network `torch_aip.models` builds: one both backends know, torchvision's or timm's."""
    with _needed("torch", "requirements/torch.txt"):
        from torch_aip import models
        from torch_aip.export import to_onnx
        from torch_aip.teachers import load_model, save_teacher

    name = source.name if source.kind == "architecture" else f"{source.kind}/{source.name}"
    if not models.is_known(name):
        models.build(name, classes=1)  # says which names there are
    if config.weights is None and source.kind != "architecture":
        model, card = load_model(name)
        names = card.class_names
    else:
        if config.weights is None:
            raise ConfigError(f"{name} without --weights would be a network that knows nothing. Give its state dict.")
        kept, names = in_unit_range(config.range, config.mean, config.std), class_names_of(config, facts)
        if kept is None:
            raise ConfigError(
                f"{name} normalises its images; with which mean and deviation were its weights trained? Give --mean "
                "and --std (ImageNet's are --mean .485 .456 .406 --std .229 .224 .225)."
            )
        arguments = arguments_of(config.arguments)
        if names is None and "classes" not in arguments:
            raise ConfigError(f"How many classes has {name}? Give --dataset, --class-names or --arguments classes=N.")
        size = config.image_size or (facts.image_size if facts else None)
        sizes = {} if size is None else {"image_size": size}
        model = models.build(
            name, **{"classes": len(names or ()), "mean": kept[0], "std": kept[1], **sizes, **arguments}
        )
        models.load_weights(model, config.weights)
    size = models.input_size_of(model)
    if size is None or len(size) != 2:
        raise ConfigError(f"{name} does not say which images it takes. Give --image-size, the side in pixels.")
    to_onnx(model, path, input_size=(size[0], size[1]))
    weights = f" with {Path(config.weights).name}" if config.weights else ", its library's own weights"
    return Network(
        path, _answer_of_torch(model), lambda folder, **facts: save_teacher(model, folder, **facts),
        normalised=True, class_names=names, image_size=size[0], source=f"{name}{weights}",
    )  # fmt: skip


def _from_code(config: ExportConfig, source: Source, facts: DatasetFacts | None, path: Path) -> Network:
    """A factory's network, of either framework, or torch.hub's."""
    arguments = arguments_of(config.arguments)
    if source.kind == "hub":
        with _needed("torch", "requirements/torch.txt"):
            import torch
        repository, _, entry = source.name.rpartition(":")
        try:
            load: Any = torch.hub.load  # whose trust_repo may be a bool, other than it says
            model: Any = load(repository, entry, trust_repo=True, verbose=False, **arguments)
        except Exception as error:  # network, GitHub, the repository's own code
            raise TeacherError(
                f"torch.hub cannot load {entry} of github.com/{repository} into {torch.hub.get_dir()} ({error}). It "
                "needs a network the first time."
            ) from error
    else:
        model = made_by_factory(source.name, arguments)
    # By its class's modules, so that neither framework is loaded only to ask.
    frameworks = {parent.__module__.split(".")[0] for parent in type(model).__mro__}
    if "torch" not in frameworks:
        if not frameworks & {"keras", "tf_keras", "tensorflow"}:
            raise TeacherError(
                f"{source.name} gives a {type(model).__name__}; expected a PyTorch module or Keras model."
            )
        if config.weights is not None:
            raise ConfigError("--weights is for PyTorch networks; let the factory load those of a Keras model.")
        return _keras_network(model, path, source.name, native=False)
    with _needed("torch", "requirements/torch.txt"):
        from torch_aip.export import to_onnx
        from torch_aip.models import load_weights
    if config.weights is not None:
        load_weights(model, config.weights)
    size = config.image_size or (facts.image_size if facts else None)
    front_end = front_end_of(config)
    if front_end is not None:
        to_onnx(model, path, input_size=(front_end.frames, front_end.coefficients), channels=1)
    elif config.rate is not None:
        to_onnx(model, path, samples=config.samples or config.rate)
    elif size is None:
        raise ConfigError(f"{source.name} does not say which images it takes. Give --image-size, the side in pixels.")
    else:
        to_onnx(model, path, input_size=(size, size))
    return Network(path, _answer_of_torch(model), image_size=size, source=source.name)


def _from_keras(config: ExportConfig, source: Source, facts: DatasetFacts | None, path: Path) -> Network:
    with _needed("tensorflow", "requirements/keras3.txt"):
        from keras_aip.export import application, keras_file, saved_model_to_onnx, tflite_to_onnx
    said = f"the {source.kind} file {Path(source.name).name}"
    if source.kind == "keras":
        return _keras_network(keras_file(source.name), path, said, native=True)
    if source.kind == "keras.applications":
        model, known = application(source.name)
        network = _keras_network(model, path, f"keras.applications {source.name}, ImageNet", native=True)
        return dataclasses.replace(network, **known)
    {"saved_model": saved_model_to_onnx, "tflite": tflite_to_onnx}[source.kind](source.name, path)
    return Network(path, source=said)


def _keras_network(model: Any, path: Path, said: str, *, native: bool) -> Network:
    from keras_aip.export import to_onnx
    from keras_aip.teachers import save_teacher

    to_onnx(model, path)
    size = model.input_shape[1] if len(model.input_shape) == 4 and model.input_shape[3] == 3 else None

    def answer(x: np.ndarray) -> np.ndarray:
        # What is exported takes channels first, as all ONNX forms of images do.
        return np.asarray(model(np.moveaxis(x, 1, -1) if x.ndim == 4 else x, training=False))

    save = (lambda folder, **facts: save_teacher(model, folder, **facts)) if native else None
    return Network(path, answer, save, image_size=size, source=said)


def _answer_of_torch(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    def answer(x: np.ndarray) -> np.ndarray:
        was = model.training
        try:
            with torch.inference_mode():
                return model.eval()(torch.from_numpy(x)).numpy()
        finally:
            model.train(was)

    return answer


@contextlib.contextmanager
def _needed(package: str, requirements: str) -> Iterator[None]:
    """Say what to install where a framework is missing."""
    try:
        with quiet_start():
            yield
    except ImportError as error:
        if (error.name or "").split(".")[0] != package:
            raise
        raise TeacherError(f"This source needs the package {package}: pip install -r {requirements}.") from error


READERS: Mapping[str, Callable[[ExportConfig, Source, DatasetFacts | None, Path], Network]] = {
    "onnx": _from_onnx,
    **dict.fromkeys(("architecture", "torchvision", "timm"), _from_architecture),
    **dict.fromkeys(("factory", "hub"), _from_code),
    **dict.fromkeys(("keras", "keras.applications", "saved_model", "tflite"), _from_keras),
}
