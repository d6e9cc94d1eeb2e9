"""What is known of every evaluation set, and how labelled images are held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The last tenth of the training part in file order, so that recipes can be chosen without the test set. Ours.
_CIFAR_SPLITS = {"train": 45_000, "validation": 5_000, "test": 10_000}
_CIFAR_SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_CIFAR_LICENCE = "none stated by its authors"
_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


@dataclass(frozen=True)
class DatasetFacts:
    """What a model for an evaluation set has to know.

    Attributes:
        name: how the set is asked for.
        classes: number of classes.
        image_size: side in pixels when shown to a network.
        channels: always 3; grey sets are repeated.
        mean, std: per channel, red first, of pixels in [0, 1]; over the training split, of CIFAR over all 50,000.
        splits: images per split.
        class_names: in the order of the labels.
        source, licence: where the set comes from.
    """

    name: str
    classes: int
    image_size: int
    channels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    splits: dict[str, int]
    class_names: tuple[str, ...]
    source: str
    licence: str


FACTS: dict[str, DatasetFacts] = {
    "digits": DatasetFacts(
        name="digits",
        classes=10,
        image_size=32,
        channels=3,
        mean=(0.3071, 0.3071, 0.3071),
        std=(0.3241, 0.3241, 0.3241),
        splits={"train": 1000, "validation": 297, "test": 500},
        class_names=tuple("0123456789"),
        source="scikit-learn load_digits, the test part of UCI Optical Recognition of Handwritten Digits",
        licence="CC BY 4.0",
    ),
    "cifar10": DatasetFacts(
        name="cifar10",
        classes=10,
        image_size=32,
        channels=3,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        splits=_CIFAR_SPLITS,
        class_names=tuple(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]),
        source=_CIFAR_SOURCE,
        licence=_CIFAR_LICENCE,
    ),
    "cifar100": DatasetFacts(
        name="cifar100",
        classes=100,
        image_size=32,
        channels=3,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        splits=_CIFAR_SPLITS,
        class_names=tuple(_CIFAR100_CLASSES.split()),
        source=_CIFAR_SOURCE,
        licence=_CIFAR_LICENCE,
    ),
}


@dataclass
class Labelled:
    """Images with their labels, in memory.

    Attributes:
        images: uint8 [n, h, w, 3] RGB in 0..255.
        labels: int64 [n], or None if there are none: then only agreement with a teacher can be measured.
        class_names: in the order of the labels, if known.
        name: the evaluation set, for reports.
    """

    images: np.ndarray
    labels: np.ndarray | None
    class_names: list[str] | None
    name: str
