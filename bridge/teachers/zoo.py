"""Which teachers can be had by name, and which of them are on this machine. Nothing is fetched to find out."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from bridge.errors import TeacherError
from bridge.networks import X3D, X3D_PUBLISHED
from bridge.teachers.card import Card
from bridge.teachers.shelf import shelf

# Accuracy on ImageNet's validation images, megabytes and side in pixels, as Keras's own list of them gives it.
KERAS_APPLICATIONS = {
    "Xception": (0.790, 88, 299), "VGG16": (0.713, 528, 224), "VGG19": (0.713, 549, 224), "ResNet50": (0.749, 98, 224),
    "ResNet101": (0.764, 171, 224), "ResNet152": (0.766, 232, 224), "ResNet50V2": (0.760, 98, 224),
    "ResNet101V2": (0.772, 171, 224), "ResNet152V2": (0.780, 232, 224), "InceptionV3": (0.779, 92, 299),
    "InceptionResNetV2": (0.803, 215, 299), "MobileNet": (0.704, 16, 224), "MobileNetV2": (0.713, 14, 224),
    "DenseNet121": (0.750, 33, 224), "DenseNet169": (0.762, 57, 224), "DenseNet201": (0.773, 80, 224),
    "NASNetMobile": (0.744, 23, 224), "NASNetLarge": (0.825, 343, 331), "EfficientNetB0": (0.771, 29, 224),
    "EfficientNetB1": (0.791, 31, 240), "EfficientNetB2": (0.801, 36, 260), "EfficientNetB3": (0.816, 48, 300),
    "EfficientNetB4": (0.829, 75, 380), "EfficientNetB5": (0.836, 118, 456), "EfficientNetB6": (0.840, 166, 528),
    "EfficientNetB7": (0.843, 256, 600), "EfficientNetV2B0": (0.787, 29, 224), "EfficientNetV2B1": (0.798, 34, 240),
    "EfficientNetV2B2": (0.805, 42, 260), "EfficientNetV2B3": (0.820, 59, 300), "EfficientNetV2S": (0.839, 88, 384),
    "EfficientNetV2M": (0.853, 220, 480), "EfficientNetV2L": (0.857, 479, 480),
}  # fmt: skip
IMAGENET, KINETICS = "imagenet", "k400"
X3D_PARAMETERS = {"x3d_xs": 3_794_274, "x3d_s": 3_794_274, "x3d_m": 3_794_274, "x3d_l": 6_153_384}


@dataclass(frozen=True)
class Entry:
    """A teacher that can be had by name.

    Attributes:
        name: What `bridge export --model` takes; of torchvision's, timm's and X3D (for k400) also PyTorch's
            `load_teacher`. Of one on the shelf, what `--teacher` and both backends' `load_teacher` take.
        megabytes: Of its weights in float32; None: not known before it is fetched.
        input_size: Side of its images or frames in pixels, or samples of its waveforms; None: any.
        top1: The accuracy its source publishes (of one on the shelf: what was measured), in [0, 1].
        dataset: What it was measured on.
        here: Whether its weights are on this machine.
    """

    name: str
    megabytes: float | None
    input_size: int | None
    top1: float | None
    dataset: str
    here: bool


def entries(find: str = "") -> list[Entry]:
    """All teachers whose name contains ``find``, those on the shelf first; timm's only where ``find`` is given."""
    found = [*_shelved(), *_x3d(), *_torchvision(), *(_timm(find) if find else ()), *_keras_applications()]
    return [entry for entry in found if find.lower() in entry.name.lower()]


def table(find: str = "") -> str:
    """`entries` as text, with where what is missing would be kept.

    Raises:
        TeacherError: Nothing is called so.
    """
    rows = entries(find)
    if not rows:
        raise TeacherError(f"No teacher is called {find!r}. Leave --find out to see all but timm's.")
    width = max(len(row.name) for row in rows)
    lines = [f"{'name':{width}}  {'MB':>5}  {'input':>6}  {'top-1':>6}  measured on     here"]
    for row in rows:
        size, side, top1 = (
            "?" if row.megabytes is None else f"{row.megabytes:.0f}" if row.megabytes >= 10 else f"{row.megabytes:.1f}",
            "any" if row.input_size is None else str(row.input_size),
            "?" if row.top1 is None else f"{row.top1:.1%}",
        )
        here = "yes" if row.here else "no"
        lines.append(f"{row.name:{width}}  {size:>5}  {side:>6}  {top1:>6}  {row.dataset or '?':15} {here}")
    lines += ["", f"Folders are looked for in {shelf()} (set AIP_TEACHERS to look elsewhere)."]
    lines += [f"{library}: {where}" for library, where in _places(find).items()]
    lines.append("A folder out of any of them, fetched if it is not here: python -m bridge export --model NAME")
    return "\n".join(lines)


def _places(find: str) -> dict[str, str]:
    """Per library where its weights are kept once fetched, or what is missing to see them."""
    places = {"keras.applications": f"kept in {_keras_cache()}"}
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("torchvision") is None:
        places["torchvision"] = "not installed (pip install -r requirements/torch.txt)"
    else:
        places["torchvision, x3d"] = f"kept in {_torch_cache()}"
    if importlib.util.find_spec("timm") is None:
        places["timm"] = "not installed (pip install -r requirements/torch.txt)"
    else:
        places["timm"] = "kept in Hugging Face's cache" if find else "more than a thousand names: add --find PART"
    return places


def _shelved() -> Iterator[Entry]:
    if not shelf().is_dir():
        return
    for folder in sorted(shelf().iterdir()):
        if folder.name.startswith("."):  # being written, or left by a process that was killed
            continue
        try:
            card = Card.load(folder, verify=False)
            if not all((folder / name).is_file() for name in card.files):
                continue
        except TeacherError:
            continue
        measured = card.accuracy or {}
        side = card.input_size[-1] if card.input_size else None
        yield Entry(
            folder.name, card.parameters * 4 / 1e6, side, measured.get("top1"), str(measured.get("dataset", "")), True
        )


def _keras_applications() -> Iterator[Entry]:
    cached = {path.name.lower() for path in _keras_cache().glob("*")} if _keras_cache().is_dir() else set()
    # Weight files are named after the network in lower case; those without the classes end in "notop".
    whole = [file.replace("_", "").replace("-", "") for file in cached if "notop" not in file]
    fitting = [[name for name in KERAS_APPLICATIONS if file.startswith(name.lower())] for file in whole]
    here = {max(names, key=len) for names in fitting if names}  # that of MobileNetV2 also begins as MobileNet does
    for name, (top1, megabytes, side) in KERAS_APPLICATIONS.items():
        yield Entry(f"keras.applications/{name}", megabytes, side, top1, IMAGENET, name in here)


def _torchvision() -> Iterator[Entry]:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("torchvision") is None:
        return
    from torch_aip.compat import torchvision

    models = torchvision().models
    images, videos = (models.list_models(module=module) for module in (models, models.video))
    for name in images + videos:
        weights: Any = models.get_model_weights(name).DEFAULT
        figures, dataset = ("ImageNet-1K", IMAGENET) if name in images else ("Kinetics-400", KINETICS)
        measured = weights.meta.get("_metrics", {}).get(figures, {}).get("acc@1")
        side = getattr(weights.transforms, "keywords", {}).get("crop_size")
        here = (_torch_cache() / Path(urlparse(weights.url).path).name).is_file()
        yield Entry(
            f"torchvision/{name}", weights.meta["num_params"] * 4 / 1e6, side[0] if isinstance(side, tuple) else side,
            None if measured is None else measured / 100, dataset, here,
        )  # fmt: skip


def _x3d() -> Iterator[Entry]:
    if importlib.util.find_spec("torch") is None:
        return
    for name, (file, top1) in X3D_PUBLISHED.items():
        megabytes = X3D_PARAMETERS[name] * 4 / 1e6
        yield Entry(name, megabytes, X3D[name].image_size, top1, KINETICS, (_torch_cache() / file).is_file())


def _timm(find: str) -> Iterator[Entry]:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("timm") is None:
        return
    from torch_aip.compat import torchvision

    torchvision()  # timm imports it
    import timm
    from huggingface_hub import try_to_load_from_cache

    part = find.removeprefix("timm/")
    for name in timm.list_pretrained(f"*{part}*"):
        known: Any = timm.get_pretrained_cfg(name)
        kept = known.hf_hub_id and try_to_load_from_cache(known.hf_hub_id, "model.safetensors")
        # timm publishes its accuracies beside the package, not in it.
        yield Entry(f"timm/{name}", None, known.input_size[-1], None, IMAGENET, isinstance(kept, str))


def _torch_cache() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _keras_cache() -> Path:
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
