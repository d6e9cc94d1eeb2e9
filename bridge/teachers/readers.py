"""Reading a network from wherever it comes, into an ONNX file and, where there is one, its native form."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bridge.audio_facts import AudioFacts
from bridge.errors import ConfigError, TeacherError
from bridge.facts import DatasetFacts, VideoFacts
from bridge.networks import IMAGENET_CLASSES, KINETICS_CLASSES, X3D_PUBLISHED, is_x3d, scaled_resnet
from bridge.teachers.card import Card
from bridge.teachers.front_end import FrontEnd
from bridge.teachers.options import ExportConfig
from bridge.teachers.sources import Source, arguments_of, made_by_factory, needed

Span = tuple[float, float]
Numbers = tuple[float, ...]
AnyFacts = DatasetFacts | VideoFacts | AudioFacts


@dataclass
class Network:
    """A network on its way into a folder.

    Attributes:
        onnx: Where its ONNX form lies, as the source gives it.
        answer: The original: float32 of the shape the ONNX form takes -> scores; None where that file is the original.
        save: Writes the native form and its card into a folder; None where there is none.
        normalised: It takes pixels in [0, 1] already.
        range, mean, std: What its input is, where the source knows better than the options.
        class_names: One per class, where the source knows them.
        accuracy: What its source publishes, as a card has it.
        source, licence: For the card.
    """

    onnx: Path
    answer: Callable[[np.ndarray], np.ndarray] | None = None
    save: Callable[..., Card] | None = None
    normalised: bool = False
    range: Span | None = None
    mean: Numbers | None = None
    std: Numbers | None = None
    class_names: tuple[str, ...] | None = None
    accuracy: dict[str, Any] | None = None
    source: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Wanted:
    """What the options say of the network that is read.

    Attributes:
        config: The options.
        facts: Of the data set it was trained for, if that is named.
        class_names: Given, or the data set's.
        normalisation: Mean and std of pixels in [0, 1]; None: it normalises by itself.
        front_end: What comes before an audio network, if anything.
    """

    config: ExportConfig
    facts: AnyFacts | None
    class_names: tuple[str, ...] | None
    normalisation: tuple[Numbers, Numbers] | None
    front_end: FrontEnd | None

    @property
    def image_size(self) -> int | None:
        """Side in pixels: given, or the data set's; videos are shown to each network as large as it wants them."""
        return self.config.image_size or (self.facts.image_size if isinstance(self.facts, DatasetFacts) else None)


def _from_onnx(wanted: Wanted, source: Source, path: Path) -> Network:
    return Network(Path(source.name), source=f"the ONNX file {Path(source.name).name}")


def _from_architecture(wanted: Wanted, source: Source, path: Path) -> Network:
    """A network `torch_aip.models` builds: one both backends know, X3D, torchvision's or timm's."""
    with needed(("torch",), "requirements/torch.txt"):
        from torch_aip import models
        from torch_aip.export import to_onnx
        from torch_aip.models.library import pretrained
        from torch_aip.teachers import save_teacher

    name = source.name if source.kind == "architecture" else f"{source.kind}/{source.name}"
    weights = wanted.config.weights
    if not models.is_known(name):
        models.build(name, classes=1)  # says which names there are
    if weights is not None:
        model = _built(wanted, name)
        models.load_weights(model, weights)
        known = Network(path, class_names=wanted.class_names, source=f"{name} with {Path(weights).name}")
    elif source.kind == "architecture" and name not in X3D_PUBLISHED:
        raise ConfigError(f"{name} without --weights would be a network that knows nothing. Give its state dict.")
    elif source.kind == "architecture" and wanted.config.dataset not in (None, "k400"):
        raise ConfigError(
            f"{name} without --weights is pytorchvideo's for Kinetics-400, not for {wanted.config.dataset}. Give "
            "--weights, or leave --dataset out."
        )
    elif wanted.normalisation or wanted.config.arguments:
        raise ConfigError(
            f"{name} without --weights is its library's own network, which says itself how it is built and normalised: "
            "leave out --mean, --std, --range and --arguments."
        )
    else:
        model, card = pretrained(name)
        known = Network(
            path, class_names=card.class_names, source=card.source, licence=card.licence, accuracy=card.accuracy
        )
    size = models.input_size_of(model)
    if size is None:
        raise ConfigError(f"{name} does not say which images it takes. Give --image-size, the side in pixels.")
    to_onnx(model, path, input_size=size)
    return dataclasses.replace(
        known, answer=_answer_of_torch(model), save=partial(save_teacher, model), normalised=True
    )  # fmt: skip


def _built(wanted: Wanted, name: str) -> Any:
    from torch_aip import models

    arguments = arguments_of(wanted.config.arguments)
    options: dict[str, Any] = {} if wanted.facts is None else {"classes": wanted.facts.classes}
    if wanted.class_names is not None:
        options["classes"] = len(wanted.class_names)
    # Their normalisation and classes are ImageNet's, or Kinetics', unless told otherwise.
    usual = IMAGENET_CLASSES if scaled_resnet(name) else KINETICS_CLASSES if is_x3d(name) else None
    if wanted.normalisation is not None:
        options["mean"], options["std"] = wanted.normalisation
    elif usual is None:
        raise ConfigError(
            f"{name} normalises its images; with which mean and deviation were its weights trained? Give --mean "
            "and --std (ImageNet's are --mean .485 .456 .406 --std .229 .224 .225)."
        )
    if usual is not None:
        options.setdefault("classes", usual)
    elif "classes" not in (options | arguments):
        raise ConfigError(f"How many classes has {name}? Give --dataset, --class-names or --arguments classes=N.")
    for option, value in (("image_size", wanted.image_size), ("frames", wanted.config.frames)):
        if value is not None:
            options[option] = value
    return models.build(name, **{**options, **arguments})


def _from_code(wanted: Wanted, source: Source, path: Path) -> Network:
    """A factory's network, of either framework, or torch.hub's."""
    arguments = arguments_of(wanted.config.arguments)
    if source.kind == "hub":
        with needed(("torch",), "requirements/torch.txt"):
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
        if wanted.config.weights is not None:
            raise ConfigError("--weights is for PyTorch networks; let the factory load those of a Keras model.")
        return _keras_network(wanted, model, path, source.name, native=False)
    with needed(("torch",), "requirements/torch.txt"):
        from torch_aip.export import to_onnx
        from torch_aip.models import load_weights
    if wanted.config.weights is not None:
        load_weights(model, wanted.config.weights)
    front_end, rate, size = wanted.front_end, wanted.config.rate, wanted.image_size
    if front_end is not None:
        to_onnx(model, path, input_size=(front_end.frames, front_end.features), channels=1)
    elif rate is not None:
        to_onnx(model, path, samples=wanted.config.samples or rate)
    elif size is None:
        raise ConfigError(f"{source.name} does not say which images it takes. Give --image-size, the side in pixels.")
    else:
        frames = () if wanted.config.frames is None else (wanted.config.frames,)
        to_onnx(model, path, input_size=(*frames, size, size))
    return Network(path, _answer_of_torch(model), source=source.name)


def _from_keras(wanted: Wanted, source: Source, path: Path) -> Network:
    with needed(("keras", "tensorflow"), "requirements/keras3.txt"):
        from keras_aip.export import application, keras_file, saved_model_to_onnx, tflite_to_onnx
    said = f"the {source.kind} file {Path(source.name).name}"
    if source.kind == "keras":
        return _keras_network(wanted, keras_file(source.name), path, said, native=True)
    if source.kind == "keras.applications":
        model, known = application(source.name)
        network = _keras_network(wanted, model, path, f"keras.applications {source.name}, ImageNet", native=True)
        return dataclasses.replace(network, **known)
    answer = {"saved_model": saved_model_to_onnx, "tflite": tflite_to_onnx}[source.kind](source.name, path)
    return Network(path, answer, source=said)


def _keras_network(wanted: Wanted, model: Any, path: Path, said: str, *, native: bool) -> Network:
    from keras_aip.export import to_onnx
    from keras_aip.teachers import save_teacher

    to_onnx(model, path, image_size=wanted.image_size)

    def answer(x: np.ndarray) -> np.ndarray:
        # What is exported takes channels first, as all ONNX forms of images do.
        return np.asarray(model(np.moveaxis(x, 1, -1) if x.ndim > 3 else x, training=False))

    return Network(path, answer, partial(save_teacher, model) if native else None, source=said)


def _answer_of_torch(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    from torch_aip.models import plain

    twin = copy.deepcopy(plain(model)).cpu().float().eval()  # as it is exported

    def answer(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return twin(torch.from_numpy(x)).numpy()

    return answer


READERS: Mapping[str, Callable[[Wanted, Source, Path], Network]] = {
    "onnx": _from_onnx,
    **dict.fromkeys(("architecture", "torchvision", "timm"), _from_architecture),
    **dict.fromkeys(("factory", "hub"), _from_code),
    **dict.fromkeys(("keras", "keras.applications", "saved_model", "tflite"), _from_keras),
}
