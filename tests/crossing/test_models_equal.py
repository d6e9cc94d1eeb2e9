"""Keras networks against their PyTorch twins: the same weights and pixels give the same logits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from keras_aip import models

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
DATA = Path(os.environ.get("AIP_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


class SmallCnn(nn.Module):
    def __init__(self, classes: int, width: int, image_size: int) -> None:
        super().__init__()
        channels = 3
        for block, filters in enumerate((width, 2 * width, 2 * width), start=1):
            layers = nn.Module()
            layers.conv = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
            layers.bn = nn.BatchNorm2d(filters)
            self.add_module(f"block{block}", layers)
            channels = filters
        self.fc = nn.Linear(channels * (image_size // 8) ** 2, classes)

    def forward(self, x):
        for block in (self.block1, self.block2, self.block3):
            x = functional.max_pool2d(functional.relu(block.bn(block.conv(x))), 2)
        return self.fc(torch.flatten(x, 1))


class WideBlock(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        if channels != filters:
            self.convShortcut = nn.Conv2d(channels, filters, 1, stride, bias=False)

    def forward(self, x):
        active = functional.relu(self.bn1(x))
        y = self.conv2(functional.relu(self.bn2(self.conv1(active))))
        return y + (self.convShortcut(active) if hasattr(self, "convShortcut") else x)


class WideResNet(nn.Module):
    def __init__(self, depth: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        channels = 16
        for stage in (1, 2, 3):
            filters = 16 * width * 2 ** (stage - 1)
            blocks = nn.Module()
            blocks.layer = nn.Sequential()
            for block in range((depth - 4) // 6):
                blocks.layer.append(WideBlock(channels, filters, 2 if stage > 1 and block == 0 else 1))
                channels = filters
            self.add_module(f"block{stage}", blocks)
        self.bn1 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.conv1(x)
        for stage in (self.block1, self.block2, self.block3):
            x = stage.layer(x)
        return self.fc(functional.relu(self.bn1(x)).mean((2, 3)))


class CifarUnit(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.stride, self.extra = stride, filters - channels

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        half = self.extra // 2
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(functional.pad(x, (0, 0, 0, 0, half, self.extra - half)) + y)


class CifarResNet(nn.Module):
    def __init__(self, depth: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        channels = 16
        for stage, filters in enumerate((16, 32, 64), start=1):
            units = nn.Sequential()
            for unit in range((depth - 2) // 6):
                units.append(CifarUnit(channels, filters, 2 if stage > 1 and unit == 0 else 1))
                channels = filters
            self.add_module(f"layer{stage}", units)
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class Vgg(nn.Module):
    def __init__(self, plan: str, classes: int) -> None:
        super().__init__()
        self.features, channels = nn.Sequential(), 3
        for step in plan.split():
            if step == "M":
                self.features.append(nn.MaxPool2d(2))
                continue
            self.features.append(nn.Conv2d(channels, int(step), 3, padding=1))
            self.features.append(nn.BatchNorm2d(int(step)))
            self.features.append(nn.ReLU())
            channels = int(step)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def torch_logits(network, images: np.ndarray, mean: tuple, std: tuple, train: bool = False) -> np.ndarray:
    """Normalise NHWC images and ask the PyTorch network."""
    x = (torch.from_numpy(images) - torch.tensor(mean)) / torch.tensor(std)
    with torch.no_grad():
        return network.train(train)(x.permute(0, 3, 1, 2)).numpy()


def randomised(network, seed: int = 0):
    """Give weights and running statistics random values, so that swapped or forgotten ones show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.dtype.is_floating_point and value.ndim == 1:
                value.uniform_(0.5, 1.5, generator=generator)
    return network


def pixels(batch: int, size: int) -> np.ndarray:
    return np.random.default_rng(1).random((batch, size, size, 3), dtype=np.float32)


TWINS = {
    "small_cnn": (lambda: SmallCnn(5, 4, 32), {"width": 4}, 32),
    "small_cnn at 20 px": (lambda: SmallCnn(5, 4, 20), {"width": 4}, 20),
    "wrn_10_1": (lambda: WideResNet(10, 1, 5), {}, 32),
    "wrn_16_2 at 13 px": (lambda: WideResNet(16, 2, 5), {}, 13),
    "resnet20": (lambda: CifarResNet(20, 5), {}, 32),
    "resnet32 at 15 px": (lambda: CifarResNet(32, 5), {}, 15),
    "vgg11": (lambda: Vgg("64 M 128 M 256 256 M 512 512 M 512 512 M", 5), {}, 32),
}


@pytest.mark.parametrize("name", TWINS)
def test_logits_equal_those_of_the_pytorch_twin(name: str) -> None:
    make_twin, arguments, size = TWINS[name]
    torch.manual_seed(0)
    twin = randomised(make_twin())
    model = models.build(name.split()[0], classes=5, image_size=size, **IMAGENET, **arguments)
    models.load_state_dict(model, twin.state_dict())
    images = pixels(3, size)
    expected = torch_logits(twin, images, **IMAGENET)
    difference = np.abs(model(images, training=False) - expected).max()
    assert difference < 1e-4 * max(1.0, float(np.abs(expected).max()))
    # Random networks answer all pixels almost alike; the agreement must be finer than that difference.
    assert difference < 0.01 * expected.std(axis=0).max()
    back = models.state_dict(model)
    named = {key: value for key, value in twin.state_dict().items() if "num_batches" not in key}
    assert back.keys() == named.keys()
    for key, value in named.items():
        np.testing.assert_array_equal(back[key], value.numpy())


def test_training_mode_normalises_over_the_batch_as_pytorch_does() -> None:
    torch.manual_seed(0)
    twin = randomised(WideResNet(10, 1, 5))
    model = models.build("wrn_10_1", classes=5, **IMAGENET)
    models.load_state_dict(model, twin.state_dict())
    images = pixels(8, 32)
    logits = model(images, training=True)
    expected = torch_logits(twin, images, **IMAGENET, train=True)
    np.testing.assert_allclose(logits, expected, atol=1e-3 * np.abs(expected).max())
    # Both keep 0.9 of the old mean; the variances differ by n / (n - 1) between Keras versions.
    moved = models.state_dict(model)["block2.layer.0.bn2.running_mean"]
    np.testing.assert_allclose(moved, twin.state_dict()["block2.layer.0.bn2.running_mean"], rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(
    not (DATA / "teachers" / "cifar10_resnet20.pt").is_file(),
    reason=f"no teachers/cifar10_resnet20.pt in {DATA}; set AIP_DATA to the folder that holds it",
)
def test_a_trained_resnet20_answers_as_in_pytorch() -> None:
    arrays = torch.load(DATA / "teachers" / "cifar10_resnet20.pt", map_location="cpu", weights_only=True)
    twin = CifarResNet(20, 10)
    twin.load_state_dict(arrays, strict=False)
    model = models.resnet20(classes=10, **IMAGENET)
    models.load_state_dict(model, arrays)
    images = pixels(16, 32)
    difference = np.abs(model(images, training=False) - torch_logits(twin, images, **IMAGENET)).max()
    assert difference < 1e-4
