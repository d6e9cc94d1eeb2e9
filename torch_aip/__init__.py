"""Distil a classifier from one image, in PyTorch. So far: losses and mixing, equal to those of `keras_aip`."""

from bridge import AipError, __version__
from bridge.datum.mixing import Mixing
from bridge.datum.recipes import ImageRecipe
from torch_aip import losses

__all__ = ["AipError", "ImageRecipe", "Mixing", "__version__", "losses"]
