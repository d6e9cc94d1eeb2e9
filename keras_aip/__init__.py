"""Distil a classifier from one image, in TensorFlow and Keras."""

import os

from bridge.shell import quiet_start

# Keras 3 chooses its backend when first imported; this package is the TensorFlow one.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

with quiet_start():
    import keras
    import tensorflow as tf

    tf.config.list_physical_devices()  # where a machine without a GPU logs a page about it

from bridge import AipError, __version__
from bridge.datum.audio_recipes import AudioRecipe
from bridge.datum.masks import Masks
from bridge.datum.mixing import Mixing
from bridge.datum.recipes import ImageRecipe
from bridge.errors import ConfigError as _ConfigError

if keras.backend.backend() != "tensorflow":
    raise _ConfigError(
        f"keras_aip needs Keras on TensorFlow, but Keras runs on {keras.backend.backend()!r}; set the environment "
        "variable KERAS_BACKEND=tensorflow before Keras is imported."
    )

from keras_aip import losses, models
from keras_aip.audio import single_audio_dataset
from keras_aip.distiller import Distiller
from keras_aip.evaluate import evaluate
from keras_aip.strategy import strategy
from keras_aip.teacher import Teacher
from keras_aip.teachers import load_model, load_teacher, save_teacher
from keras_aip.views import single_image_dataset

__all__ = [
    "AipError",
    "AudioRecipe",
    "Distiller",
    "ImageRecipe",
    "Masks",
    "Mixing",
    "Teacher",
    "__version__",
    "evaluate",
    "load_model",
    "load_teacher",
    "losses",
    "models",
    "save_teacher",
    "single_audio_dataset",
    "single_image_dataset",
    "strategy",
]
