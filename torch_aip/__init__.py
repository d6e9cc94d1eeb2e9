"""Distil a classifier from one image, in PyTorch. So far: networks, teachers, losses and mixing, as in `keras_aip`."""

from bridge import AipError, __version__
from bridge.datum.mixing import Mixing
from bridge.datum.recipes import ImageRecipe
from torch_aip import losses, models
from torch_aip.evaluate import evaluate
from torch_aip.teachers import Teacher, load_model, load_teacher, save_teacher

__all__ = [
    "AipError",
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
]
