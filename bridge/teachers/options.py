"""The options of the commands about teacher folders, as `bridge.config` holds those of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bridge.config import Common


@dataclass(frozen=True)
class CardConfig(Common):
    """Check that a teacher or student folder is whole, and show what it says of itself."""

    model: str | None = None
    """The folder, or its name under $AIP_TEACHERS."""


@dataclass(frozen=True)
class ExportConfig(Common):
    """Make a teacher folder, which both backends load, out of a network from anywhere."""

    model: str | None = None
    """An .onnx, .keras, .h5 or .tflite file, a SavedModel, torchvision/NAME, timm/NAME, keras.applications/NAME, x3d_xs
    (or x3d_s, _m, _l) as published, any other architecture with --weights, torch.hub:OWNER/REPO:ENTRY, FILE.py:FACTORY
    or MODULE:FACTORY."""
    weights: str | None = None
    """A state dict for a PyTorch network: .pt, .pth, .ckpt or .safetensors."""
    arguments: tuple[str, ...] = ()
    """NAME=VALUE for the factory or architecture, such as width=24."""
    trust: bool = False
    """Run code that comes with the model: a factory, torch.hub, a SavedModel."""
    out: str | None = None
    """The teacher folder to write; None: the model's name in $AIP_TEACHERS (or ./teachers), where it is found."""
    dataset: str | None = None
    """What it was trained for, such as cifar10: brings class names and image size."""
    measure: bool = False
    """Measure it on the test split of --dataset and write that into the card."""
    data_dir: str | None = None
    """Folder with data sets; None: $AIP_DATA, or ./data."""
    class_names: str | None = None
    """Text file with one class name per line, in the order of the outputs."""
    image_size: int | None = None
    """Side of the images in pixels, where the model does not say."""
    frames: int | None = None
    """Frames of a clip, of a network for video that does not say."""
    layout: Literal["NCHW", "NHWC"] | None = None
    """How the model takes images, where its shape does not say."""
    range: tuple[float, float] = (0.0, 1.0)
    """What the model's normalisation, or it itself, takes black and white to be, such as 0 255 or -1 1."""
    mean: tuple[float, ...] | None = None
    """Mean per channel (R, G, B) to subtract, in the units of --range; None: the model does so itself."""
    std: tuple[float, ...] | None = None
    """Standard deviation per channel to divide by."""
    front_end: str | None = None
    """Of an audio model that takes features: "mfcc" or "log_mel", or in full "mfcc:window=640,hop=320,bands=40"."""
    rate: int | None = None
    """Of an audio model that takes waveforms: samples per second."""
    samples: int | None = None
    """Of an audio model: samples of one waveform; None: what it says, or one second."""
    outputs: Literal["logits", "probabilities", "labels"] = "logits"
    """What the model answers with."""
    output: str | None = None
    """Of an ONNX model with several outputs: the one to take."""
    native: bool = True
    """Keep the weights beside model.onnx where a backend knows the architecture."""
    source: str = ""
    """Where the network comes from, for the card."""
    licence: str = ""
    """Its licence, for the card."""


@dataclass(frozen=True)
class VerifyConfig(Common):
    """Prove that all forms of a teacher folder answer alike in every framework at hand; writes parity.json."""

    model: str | None = None
    """The folder, or its name under $AIP_TEACHERS."""
    image: str = "sklearn:china.jpg"
    """The image whose views, or fake clips, are asked about."""
    videos: str | None = None
    """Of a network for video: a folder or list of videos whose clips are asked about, in place of the image."""
    audio: str | None = None
    """Of a network for sounds: a clip whose views are asked about; None: synthetic sounds."""
    views: int | None = None
    """How many of them; agreement to 99.9 % wants 2,000. None: 2,048, of video 12."""
    batch_size: int | None = None
    """Views per forward pass, also for the times measured; None: 64, of video 2."""
    seed: int = 0
    """Seed of views and noise."""


@dataclass(frozen=True)
class ConvertConfig(Common):
    """Write another form of a teacher or student, and compare it with the original on views."""

    model: str | None = None
    """The folder, or its name under $AIP_TEACHERS."""
    to: Literal["onnx", "safetensors", "saved_model", "tflite", "tflite_int8"] = "onnx"
    """The form to write."""
    out: str | None = None
    """File or folder to write; None: into the folder (onnx, safetensors), or beside it."""
    image: str = "sklearn:china.jpg"
    """The image whose views calibrate int8 and are compared on."""
    audio: str | None = None
    """Of a network for sounds: the clip whose views calibrate int8 and are compared on; None: synthetic sounds."""
    videos: str | None = None
    """Of a network for video: a folder or list of videos whose clips are compared on, in place of the image."""
    views: int | None = None
    """How many of them, each; None: 512, of video 12."""
    dataset: str | None = None
    """Labelled images or sounds, as for `evaluate`, on whose test split the new form is measured, and the original."""
    data_dir: str | None = None
    """Folder with data sets; None: $AIP_DATA, or ./data."""
    seed: int = 0
    """Seed of the views."""


@dataclass(frozen=True)
class TeachersConfig(Common):
    """List the teachers that can be had by name, and which of them are on this machine."""

    find: str = ""
    """Only names that contain this; timm's, more than a thousand, are listed only so."""
