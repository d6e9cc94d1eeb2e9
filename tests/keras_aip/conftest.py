"""Tiny networks and images: a few hundred parameters at 8 px."""

from __future__ import annotations

import socket
from collections.abc import Callable

import keras
import numpy as np
import pytest

SIZE = 8
CLASSES = 3


@pytest.fixture
def no_network(tmp_path, monkeypatch) -> None:
    """No host can be reached, and TensorFlow Datasets has nothing prepared: so that no test downloads anything."""

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


@pytest.fixture(scope="session")
def make_images() -> Callable[..., np.ndarray]:
    """Images that differ in colour, so that there is something to tell them apart by."""

    def make(count: int = 32, size: int = SIZE, seed: int = 0) -> np.ndarray:
        """float32 [count, size, size, 3] in [0, 1]."""
        generator = np.random.default_rng(seed)
        colours = generator.random((count, 1, 1, 3))
        noise = generator.normal(0, 0.1, (count, size, size, 3))
        return np.clip(colours + noise, 0, 1).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def make_network() -> Callable[..., keras.Model]:
    """Networks that are different for every seed and the same for the same one, BatchNorm statistics included."""

    def make(
        classes: int = CLASSES, *, size: int = SIZE, batch_norm: bool = True, l2: float = 0.0, seed: int = 0
    ) -> keras.Model:
        """float32 [batch, size, size, 3] in [0, 1] → logits [batch, classes]."""
        penalty = keras.regularizers.L2(l2) if l2 else None
        layers = [
            keras.Input((size, size, 3)),
            keras.layers.Conv2D(4, 3, 2, padding="same", use_bias=not batch_norm, kernel_regularizer=penalty),
            *([keras.layers.BatchNormalization(momentum=0.9)] if batch_norm else []),
            keras.layers.ReLU(),
            keras.layers.AveragePooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, kernel_regularizer=penalty),
        ]
        model = keras.Sequential(layers)
        generator = np.random.default_rng(seed)
        model.set_weights(
            [
                generator.normal(0, 0.4, weight.shape)
                if len(weight.shape) > 1
                else generator.uniform(0.5, 1, weight.shape)
                for weight in model.weights
            ]
        )
        return model

    return make


@pytest.fixture(scope="session")
def make_colour_teacher() -> Callable[..., keras.Model]:
    """A teacher that names the strongest colour, sure of itself: something a tiny student can learn in a second."""

    def make() -> keras.Model:
        model = keras.Sequential(
            [keras.Input((SIZE, SIZE, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(CLASSES)]
        )
        model.set_weights([20 * np.eye(CLASSES), np.zeros(CLASSES)])
        return model

    return make


@pytest.fixture(scope="session")
def teacher(tmp_path_factory) -> str:
    """The folder of a tiny teacher of the digits that knows nothing."""
    import keras_aip

    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("teachers") / "tiny"
    keras_aip.save_teacher(keras_aip.models.small_cnn(classes=10, width=2), folder)
    return str(folder)
