"""A teacher folder for the digits that all tests of commands share."""

from __future__ import annotations

import pytest

from tests.torch_aip.helpers import randomised
from torch_aip import models, save_teacher


@pytest.fixture(scope="session")
def teacher(tmp_path_factory) -> str:
    """Folder of an untrained network with a fixed opinion on digits."""
    folder = tmp_path_factory.mktemp("torch_teachers") / "digits_small_cnn"
    network = randomised(models.small_cnn(10, width=2, image_size=32))
    save_teacher(network, folder, class_names=[str(digit) for digit in range(10)])
    return str(folder)
