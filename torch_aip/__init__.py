"""Distil a classifier of images or videos from one image, in PyTorch; the same words as in `keras_aip`."""

from bridge.shell import quiet_start

with quiet_start():
    import numpy  # noqa: F401  # else torch's native code imports it, and loses a Ctrl-C
    import torch  # noqa: F401

from bridge import AipError, __version__
from bridge.datum.mixing import Mixing
from bridge.datum.recipes import ImageRecipe
from torch_aip import losses, models
from torch_aip.distiller import Distiller
from torch_aip.evaluate import evaluate
from torch_aip.teacher import Teacher
from torch_aip.teachers import load_model, load_teacher, save_teacher
from torch_aip.video import single_video_loader
from torch_aip.views import single_image_loader

__all__ = [
    "AipError",
    "Distiller",
    "ImageRecipe",
    "Mixing",
    "Teacher",
    "__version__",
    "evaluate",
    "load_model",
    "load_teacher",
    "losses",
    "models",
    "save_teacher",
    "single_image_loader",
    "single_video_loader",
]
