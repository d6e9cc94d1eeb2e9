"""What is known of every evaluation set, and how labelled images are held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bridge.pictures import Pictures

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# The last tenth of the training part in file order, so that recipes can be chosen without the test set. Ours.
_CIFAR_SPLITS: dict[str, int] = {"train": 45_000, "validation": 5_000, "test": 10_000}
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
_PETS = """
Abyssinian, American Bulldog, American Pit Bull Terrier, Basset Hound, Beagle, Bengal, Birman, Bombay, Boxer,
British Shorthair, Chihuahua, Egyptian Mau, English Cocker Spaniel, English Setter, German Shorthaired, Great Pyrenees,
Havanese, Japanese Chin, Keeshond, Leonberger, Maine Coon, Miniature Pinscher, Newfoundland, Persian, Pomeranian, Pug,
Ragdoll, Russian Blue, Saint Bernard, Samoyed, Scottish Terrier, Shiba Inu, Siamese, Sphynx,
Staffordshire Bull Terrier, Wheaten Terrier, Yorkshire Terrier
"""
_UCF101 = """
ApplyEyeMakeup ApplyLipstick Archery BabyCrawling BalanceBeam BandMarching BaseballPitch Basketball BasketballDunk
BenchPress Biking Billiards BlowDryHair BlowingCandles BodyWeightSquats Bowling BoxingPunchingBag BoxingSpeedBag
BreastStroke BrushingTeeth CleanAndJerk CliffDiving CricketBowling CricketShot CuttingInKitchen Diving Drumming Fencing
FieldHockeyPenalty FloorGymnastics FrisbeeCatch FrontCrawl GolfSwing Haircut Hammering HammerThrow HandstandPushups
HandstandWalking HeadMassage HighJump HorseRace HorseRiding HulaHoop IceDancing JavelinThrow JugglingBalls JumpingJack
JumpRope Kayaking Knitting LongJump Lunges MilitaryParade Mixing MoppingFloor Nunchucks ParallelBars PizzaTossing
PlayingCello PlayingDaf PlayingDhol PlayingFlute PlayingGuitar PlayingPiano PlayingSitar PlayingTabla PlayingViolin
PoleVault PommelHorse PullUps Punch PushUps Rafting RockClimbingIndoor RopeClimbing Rowing SalsaSpin ShavingBeard
Shotput SkateBoarding Skiing Skijet SkyDiving SoccerJuggling SoccerPenalty StillRings SumoWrestling Surfing Swing
TableTennisShot TaiChi TennisSwing ThrowDiscus TrampolineJumping Typing UnevenBars VolleyballSpiking WalkingWithDog
WallPushups WritingOnBoard YoYo
"""


@dataclass(frozen=True)
class DatasetFacts:
    """What a model for an evaluation set has to know.

    Attributes:
        name: how the set is asked for.
        classes: number of classes.
        image_size: side in pixels when shown to a network.
        channels: always 3; grey sets are repeated.
        mean, std: per channel, red first, of pixels in [0, 1]; over the training split, of CIFAR over all 50,000;
            ImageNet's for all sets of photographs from 96 pixels on.
        splits: images per split.
        class_names: in the order of the labels; None: the files of the set tell.
        source, licence: where the set comes from.
    """

    name: str
    classes: int
    image_size: int
    channels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    splits: dict[str, int]
    class_names: tuple[str, ...] | None
    source: str
    licence: str

    @property
    def names(self) -> list[str] | None:
        """`class_names` as a list, as `Labelled` holds them."""
        return None if self.class_names is None else list(self.class_names)


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
    "in1k": DatasetFacts(
        name="in1k",
        classes=1000,
        image_size=224,
        channels=3,
        **_IMAGENET,
        # Nobody has the labels of the test images: what is tested on is called validation by its authors.
        splits={"train": 1_271_158, "validation": 10_009, "test": 50_000},
        class_names=None,
        source="https://www.image-net.org (ILSVRC 2012)",
        licence="ImageNet's terms of access: non-commercial research and teaching",
    ),
    "in100": DatasetFacts(
        name="in100",
        classes=100,
        image_size=224,
        channels=3,
        **_IMAGENET,
        splits={"train": 116_132, "validation": 10_557, "test": 5_000},  # of the classes Tian et al. 2020 chose
        class_names=None,
        source="100 classes of https://www.image-net.org (ILSVRC 2012)",
        licence="ImageNet's terms of access: non-commercial research and teaching",
    ),
    "places365": DatasetFacts(
        name="places365",
        classes=365,
        image_size=224,
        channels=3,
        **_IMAGENET,
        splits={"train": 1_793_441, "validation": 10_019, "test": 36_500},
        class_names=None,
        source="http://places2.csail.mit.edu (Places365-Standard)",
        licence="the terms of its page: research and teaching",
    ),
    "flowers102": DatasetFacts(
        name="flowers102",
        classes=102,
        image_size=224,
        channels=3,
        **_IMAGENET,
        splits={"train": 1_020, "validation": 1_020, "test": 6_149},
        class_names=None,
        source="https://www.robots.ox.ac.uk/~vgg/data/flowers/102",
        licence="none stated by its authors",
    ),
    "pets37": DatasetFacts(
        name="pets37",
        classes=37,
        image_size=224,
        channels=3,
        **_IMAGENET,
        splits={"train": 3_312, "validation": 368, "test": 3_669},
        class_names=tuple(name.strip() for name in _PETS.split(",")),
        source="https://www.robots.ox.ac.uk/~vgg/data/pets",
        licence="CC BY-SA 4.0",
    ),
    "stl10": DatasetFacts(
        name="stl10",
        classes=10,
        image_size=96,
        channels=3,
        **_IMAGENET,
        splits={"train": 4_500, "validation": 500, "test": 8_000},
        class_names=tuple(["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]),
        source="https://cs.stanford.edu/~acoates/stl10",
        licence="none stated by its authors; images out of ImageNet",
    ),
}
FACTS["flowers101"] = FACTS["flowers102"]  # under which it goes, too


@dataclass(frozen=True)
class VideoFacts:
    """What a model for an evaluation set of videos has to know.

    Attributes:
        name: how the set is asked for.
        classes: number of classes.
        rate: frames per second in which strides are counted (reference code).
        class_names: in the order of the labels; None: the files of the set tell.
        source, licence: where the set comes from.
    """

    name: str
    classes: int
    rate: float
    class_names: tuple[str, ...] | None
    source: str
    licence: str

    @property
    def names(self) -> list[str] | None:
        """`class_names` as a list."""
        return None if self.class_names is None else list(self.class_names)


VIDEO_FACTS: dict[str, VideoFacts] = {
    "k400": VideoFacts(
        name="k400",
        classes=400,
        rate=30.0,
        class_names=None,
        source="https://github.com/cvdfoundation/kinetics-dataset (Kinetics-400)",
        licence="CC BY 4.0 for the lists; the videos remain their authors'",
    ),
    "ucf101": VideoFacts(
        name="ucf101",
        classes=101,
        rate=25.0,
        class_names=tuple(_UCF101.split()),
        source="https://www.crcv.ucf.edu/data/UCF101.php",
        licence="none stated by its authors",
    ),
}


@dataclass
class Labelled:
    """Images with their labels.

    Attributes:
        images: uint8 [n, h, w, 3] RGB in 0..255, in memory; or `Pictures`, decoded as they are used.
        labels: int64 [n], or None if there are none: then only agreement with a teacher can be measured.
        class_names: in the order of the labels, if known; of ImageNet WordNet ids, which `bridge.wordnet.readable`
            says in English.
        name: the evaluation set, for reports.
        classes: their number, where it is known without names.
    """

    images: np.ndarray | Pictures
    labels: np.ndarray | None
    class_names: list[str] | None
    name: str
    classes: int | None = None
