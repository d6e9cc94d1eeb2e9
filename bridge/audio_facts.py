"""What is known of every evaluation set of sounds."""

from __future__ import annotations

from dataclasses import dataclass

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
SILENCE, UNKNOWN = "_silence_", "_unknown_"
# In the order of TensorFlow's own example and of the keyword spotters made with it; TensorFlow Datasets has the words
# by the alphabet and these two behind them. What is measured is matched by name.
COMMANDS = (SILENCE, UNKNOWN, *WORDS)
"""The twelve classes of Speech Commands."""
_WORDS_30 = """
bed bird cat dog down eight five four go happy house left marvin nine no off on one right seven sheila six stop three
tree two up wow yes zero
"""
_ADDED = "backward follow forward learn visual"


@dataclass(frozen=True)
class AudioFacts:
    """What a model for an evaluation set of sounds has to know.

    Attributes:
        name: how the set is asked for.
        classes: number of classes.
        rate: samples per second when heard by a network (Asano & Saeed 2023).
        seconds: what a network hears at once (Asano & Saeed 2023: about one).
        splits: how many sounds each split has once cut into pieces of that length; None: the files tell.
        class_names: in the order of the labels; None: the files of the set tell.
        source, licence: where the set comes from.
        ours: what is our own about its splits, for reports; empty where they are those of its authors.
    """

    name: str
    classes: int
    rate: int
    seconds: float
    splits: dict[str, int | None]
    class_names: tuple[str, ...] | None
    source: str
    licence: str
    ours: str = ""

    @property
    def names(self) -> list[str] | None:
        """`class_names` as a list."""
        return None if self.class_names is None else list(self.class_names)


_SECOND = {"rate": 16_000, "seconds": 1.0}
_OPEN: dict[str, int | None] = {"train": None, "validation": None, "test": None}
_COMMANDS = {
    **_SECOND,
    "source": "https://arxiv.org/abs/1804.03209 (download.tensorflow.org/data/speech_commands_v0.02.tar.gz)",
    "licence": "CC BY 4.0",
}
AUDIO_FACTS: dict[str, AudioFacts] = {
    "speech_commands": AudioFacts(
        name="speech_commands",
        classes=12,
        # As TensorFlow Datasets has it: 84,843 + 668 pieces of noise, 9,981 + 121, and the archive made for testing.
        splits={"train": 85_511, "validation": 10_102, "test": 4_890},
        class_names=COMMANDS,
        **_COMMANDS,
    ),
    "speech_commands_v0.01": AudioFacts(
        name="speech_commands_v0.01",
        classes=12,
        splits={"train": None, "validation": None, "test": 3_081},
        class_names=COMMANDS,
        **_COMMANDS,
    ),
    "speech_commands_35": AudioFacts(
        name="speech_commands_35",
        classes=35,
        splits={"train": 84_843, "validation": 9_981, "test": 11_005},
        class_names=tuple(sorted((_WORDS_30 + _ADDED).split())),
        **_COMMANDS,
    ),
    "speech_commands_30": AudioFacts(  # version 0.01
        name="speech_commands_30",
        classes=30,
        splits={"train": 51_088, "validation": 6_798, "test": 6_835},
        class_names=tuple(sorted(_WORDS_30.split())),
        **_COMMANDS,
    ),
    "musan": AudioFacts(
        name="musan",
        classes=3,
        **_SECOND,
        splits=_OPEN,
        class_names=("music", "noise", "speech"),
        source="https://www.openslr.org/17",
        licence="CC BY 4.0",
        ours="It comes without splits: of ten files of a class that follow each other by name the ninth is for "
        "validation and the tenth for testing.",
    ),
    "voxforge": AudioFacts(
        name="voxforge",
        classes=6,
        **_SECOND,
        splits=_OPEN,
        class_names=("de", "en", "es", "fr", "it", "ru"),
        source="http://www.voxforge.org",
        licence="GPL",
        ours="It comes without splits: speakers are shuffled and shared out 7 : 1 : 2 by the rule of TensorFlow "
        "Datasets, none on two sides.",
    ),
    "librispeech100": AudioFacts(
        name="librispeech100",
        classes=100,
        **_SECOND,
        splits=_OPEN,
        class_names=None,
        source="https://www.openslr.org/12 (train-clean-100)",
        licence="CC BY 4.0",
        ours="Which 100 of its 251 speakers the paper took is not known: those with the smallest numbers. Of ten "
        "utterances of a speaker that follow each other by name the ninth is for validation and the tenth for testing.",
    ),
}
AUDIO_FACTS["speech_commands_v0.02"] = AUDIO_FACTS["speech_commands"]  # its full name
