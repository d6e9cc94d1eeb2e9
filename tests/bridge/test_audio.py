"""Views of one clip: cut, sped up, stretched, mixed, filtered and noisy as asked, known from their number."""

from __future__ import annotations

import dataclasses
import io
import warnings

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from bridge.datum import audio_tables as tables
from bridge.datum.audio import AudioNumbers, AudioSet, make_audio_set
from bridge.datum.audio_files import encode_wav, resample
from bridge.datum.audio_preview import log_mel, spectrogram_pictures
from bridge.datum.audio_recipes import AUDIO_RECIPES, AudioAugmentation, AudioRecipe, BaseAudio, audio, audio_recipe
from bridge.datum.audio_render import render_audio, render_audio_numbers
from bridge.datum.audio_sources import AudioSource, load_audio
from bridge.errors import DatumError, RecipeError

RATE = 8_000
LENGTH = 4_000  # half a second
PLAIN = BaseAudio(speed=(1.0, 1.0), stretched=0.0, reverse=0.0, mixed=0.0)
NOTHING = AudioAugmentation(gain=(0.0, 0.0), shift=0.0, silence=0.0, noise=0.0, low_cut=0.0, high_cut=0.0, room=0.0)


def source(samples: np.ndarray, rate: int = RATE) -> AudioSource:
    return AudioSource("made", samples.astype(np.float32), rate, "")


def recipe(base: dict | None = None, **extra) -> AudioRecipe:
    """A recipe of whose parts only those given do anything."""
    augmentation = dataclasses.replace(NOTHING, **extra) if extra else None
    return AudioRecipe(RATE, LENGTH, dataclasses.replace(PLAIN, **(base or {})), augmentation)


def tone(hertz: float, seconds: float = 4) -> AudioSource:
    return source(0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE))


def white(seconds: float = 4) -> AudioSource:
    return source(0.2 * np.clip(np.random.default_rng(0).standard_normal(int(seconds * RATE)), -3, 3))


def voice(seconds: float = 4) -> AudioSource:
    """Something like a vowel that is sung up and down."""
    time = np.arange(int(seconds * RATE)) / RATE
    phase = np.cumsum(2 * np.pi * (140 + 40 * np.sin(2 * np.pi * 0.7 * time)) / RATE)
    return source(0.1 * sum(np.sin(k * phase) / k for k in range(1, 8)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)))


def play(sound: AudioSource, how: AudioRecipe, count: int = 16, seed: int = 3) -> np.ndarray:
    return render_audio(AudioSet(sound, how, views=100, seed=seed), np.arange(count))


def pitch(waves: np.ndarray) -> np.ndarray:
    """The strongest frequency of each, in Hz, to a tenth."""
    spectrum = np.abs(np.fft.rfft(waves * np.hanning(waves.shape[1]), 80_000))
    return spectrum.argmax(axis=1) * RATE / 80_000


def decibels(signal: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How much louder one is than the other, row by row."""
    return 10 * np.log10((signal.astype(np.float64) ** 2).mean(axis=1) / (other.astype(np.float64) ** 2).mean(axis=1))


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_plain_view_is_a_stretch_of_the_source():
    """Straight lines between twice as many values: low tones come out nearly exactly."""
    sound = voice()
    views = AudioSet(sound, recipe(), seed=1)
    numbers = views.numbers(np.arange(8))
    begin = (numbers.start[:, 0] + numbers.reads[:, 0]) / tables.FINER
    for wave, first in zip(render_audio_numbers(numbers, views), begin):
        exact = np.interp(first + np.arange(LENGTH), np.arange(len(sound.samples)), sound.samples)
        assert wave.shape == (LENGTH,) and np.abs(wave - exact).max() < 0.02
    assert begin.min() >= 0 and begin.max() <= len(sound.samples) - LENGTH and np.ptp(begin) > LENGTH


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_speed_moves_a_tone_by_its_factor(speed):
    assert np.abs(pitch(play(tone(440), recipe({"speed": (speed, speed)}))) / 440 - speed).max() < 2e-3


@pytest.mark.parametrize("stretch", [0.7, 1.0, 1.4])
def test_stretching_keeps_a_tones_pitch_and_loudness(stretch):
    for hertz in (110, 440, 1234):
        waves = play(tone(hertz), recipe({"stretch": (stretch, stretch), "stretched": 1.0}))
        assert np.abs(pitch(waves) / hertz - 1).max() < 5e-3
        assert np.abs(np.sqrt((waves**2).mean(axis=1)) / (0.5 / np.sqrt(2)) - 1).max() < 0.05


@pytest.mark.parametrize("stretch", [0.75, 1.0, 1.333])
def test_stretching_makes_a_sound_longer_by_its_factor(stretch):
    """Bursts of noise every tenth of a second come every tenth times the factor."""
    noise = white(6).samples.copy()
    noise *= (np.arange(len(noise)) % 800) < 400
    waves = play(source(noise), recipe({"stretch": (stretch, stretch), "stretched": 1.0}), 40)
    loud = np.abs(waves) - np.abs(waves).mean(axis=1, keepdims=True)
    spectrum = (np.abs(np.fft.rfft(loud, 80_000)) ** 2).mean(axis=0)
    assert (np.argmax(spectrum[50:300]) + 50) / 10 == pytest.approx(10 / stretch, rel=0.04)  # bursts per second


def test_read_backwards_a_rising_tone_falls():
    time = np.arange(4 * RATE) / RATE
    rising = source(0.5 * signal.chirp(time, 200, 4, 2000))
    halves = [play(rising, recipe({"reverse": chance})).reshape(16, 2, -1) for chance in (0.0, 1.0)]
    assert (pitch(halves[0][:, 1]) > pitch(halves[0][:, 0])).all()
    assert (pitch(halves[1][:, 1]) < pitch(halves[1][:, 0])).all()


def test_the_second_clip_is_as_loud_as_asked():
    alone = play(voice(), recipe())
    for snr in (-5.0, 10.0):
        mixed = play(voice(), recipe({"mixed": 1.0, "mixed_snr": (snr, snr)}))
        kept = np.abs(mixed).max(axis=1) < 1  # nothing cut off
        assert kept.sum() > 8
        assert np.abs(decibels(alone, mixed - alone)[kept] - snr).max() < 0.01


def test_windows_meet_in_step():
    """Put together of the same voice at another pace, harmonics stay as clear as they were."""
    plain, stretched = (
        play(voice(), recipe({"stretch": (1.3, 1.3), "stretched": chance}), 32) for chance in (0.0, 1.0)
    )
    assert np.abs(decibels(stretched, plain)).mean() < 1.5
    found = tables.periods(voice().samples, RATE)
    assert (found > 0).mean() > 0.9
    assert np.median(tables.periods(tone(440).samples, RATE)[5:-5] % (RATE / 440) / (RATE / 440) % 0.99) < 0.05
    assert (tables.periods(white().samples, RATE) > 0).mean() < 0.02


# --- augmentation -----------------------------------------------------------------------------------------------------


def test_gain_is_as_asked_and_never_leaves_the_range():
    base = play(voice(), recipe())
    for gain in (-12.0, 4.0):
        assert np.abs(decibels(play(voice(), recipe(gain=(gain, gain))), base) - gain).max() < 1e-3
    loud = play(voice(), recipe(gain=(60.0, 60.0)))
    assert np.abs(loud).max() == 1


def test_a_shifted_view_is_the_base_view_moved_with_silence_behind_it():
    base = play(voice(), recipe())
    views = AudioSet(voice(), recipe(shift=0.1), views=100, seed=3)
    moved, begin = render_audio(views, np.arange(16)), views.numbers(np.arange(16)).window
    shifts = np.where(begin[:, 0] > 0, begin[:, 0], np.minimum(begin[:, 1] - LENGTH, 0)).astype(int)
    assert shifts.min() < -200 and shifts.max() > 200
    for wave, old, shift in zip(moved, base, shifts):
        inside = slice(max(shift, 0) + 50, LENGTH + min(shift, 0) - 50)
        assert np.allclose(wave[inside], old[inside.start - shift : inside.stop - shift], atol=2e-3)
        assert not wave[: max(shift, 0)].any() and not wave[LENGTH + min(shift, 0) :].any()


def test_silence_leaves_at_least_the_part_asked_for_and_fades():
    waves = play(white(), recipe(silence=1.0, kept=0.4), 200)
    sounds = waves != 0
    first, last = sounds.argmax(axis=1), LENGTH - sounds[:, ::-1].argmax(axis=1)
    assert (last - first).min() > 0.39 * LENGTH and (last - first).max() > 0.95 * LENGTH
    assert (sounds.sum(axis=1) > 0.99 * (last - first) - 2).all()  # one piece
    assert all(abs(wave[k]) < 0.05 for wave, k in zip(waves, first))


@pytest.mark.parametrize("colour", [-1.0, 0.0, 1.0, 2.0])
def test_noise_is_as_loud_and_of_the_colour_asked_for(colour):
    base = play(voice(), recipe())
    noise = play(voice(), recipe(noise=1.0, noise_snr=(12.0, 12.0), noise_colour=(colour, colour)), 64)[:16] - base
    assert np.abs(decibels(base, noise) - 12).max() < 0.5
    hertz, power = signal.welch(noise, RATE, nperseg=512)
    kept = (hertz > 100) & (hertz < 3500)
    slope = np.polyfit(np.log(hertz[kept]), np.log(power.mean(axis=0)[kept]), 1)[0]
    assert slope == pytest.approx(-colour, abs=0.15)
    assert len({wave.tobytes() for wave in noise}) == 16 and abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 0.2


def test_filters_weaken_what_lies_outside_and_keep_what_lies_inside():
    base = play(white(), recipe())
    low = play(white(), recipe(low_cut=1.0, low_corner=(1000.0, 1000.0)))
    high = play(white(), recipe(high_cut=1.0, high_corner=(0.25, 0.25)))  # of 4 kHz
    hertz, power = signal.welch(np.stack([base, low, high]), RATE, nperseg=512)
    change = 10 * np.log10(power.mean(axis=1) / power.mean(axis=1)[0])
    assert (np.abs(change[1, hertz > 2500]) < 0.3).all() and (change[1, (hertz > 50) & (hertz < 300)] < -35).all()
    assert (np.abs(change[2, (hertz > 50) & (hertz < 400)]) < 0.3).all() and (change[2, hertz > 3400] < -35).all()
    for k in (1, 2):
        assert change[k, np.abs(hertz - 1000) < 20].mean() == pytest.approx(-3, abs=0.7)


def test_rooms_echo_as_long_and_as_loud_as_asked():
    clicks = np.zeros(4 * RATE)
    clicks[::LENGTH] = 0.9  # one in every view
    base = play(source(clicks), recipe())
    waves = play(source(clicks), recipe(room=1.0, decay=(0.3, 0.3), room_ratio=(3.0, 3.0)))
    echo = waves * np.sqrt(1 + 10**-0.3) - base
    assert np.median(decibels(base, echo)) == pytest.approx(3, abs=0.2)
    turned = np.stack([np.roll(row, -np.abs(one).argmax()) for row, one in zip(echo, base)])[:, 8:2400]
    loud = 10 * np.log10((turned**2).mean(axis=0).reshape(-1, 184).mean(axis=1))
    assert np.polyfit(np.arange(len(loud)) * 184 / RATE, loud, 1)[0] == pytest.approx(-60 / 0.3, rel=0.1)


def test_silence_stays_silence():
    half = white(8).samples.copy()
    half[2 * RATE :] = 0
    how = dataclasses.replace(audio(RATE, LENGTH), augmentation=AudioAugmentation(noise=1.0, room=1.0, gain=(6, 6)))
    how = dataclasses.replace(how, base=PLAIN)
    views = AudioSet(source(half), how, views=50)
    numbers = views.numbers(np.arange(50))
    quiet = numbers.start[:, 0] > (2 * RATE + 1000) * tables.FINER
    waves = render_audio_numbers(numbers, views)
    assert 10 < quiet.sum() < 50 and np.isfinite(waves).all()
    assert not np.abs(waves[quiet]).max() > 1e-6 and np.abs(waves[~quiet]).max(axis=1).min() > 0


# --- numbers ----------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(4100, 40_000), st.sampled_from(list(AUDIO_RECIPES))
)
def test_every_view_has_its_length_and_range_and_reads_inside_the_source(seed, first, samples, name):
    sound = source(np.sin(np.arange(samples) * 0.3) * 0.9)
    views = AudioSet(sound, audio_recipe(name, RATE, LENGTH), seed=seed)
    numbers = views.numbers(np.arange(first, first + 4))
    waves = render_audio_numbers(numbers, views)
    assert waves.shape == (4, LENGTH) and waves.dtype == np.float32
    assert np.isfinite(waves).all() and np.abs(waves).max() <= 1
    slack = (0.1 * RATE + 0.04 * RATE) * 2 * 3  # shifts and jumps to the next period; silent or the end held on
    places = numbers.start[:, :1] + numbers.reads
    assert places.min() >= -slack and places.max() <= len(views.sound) + slack


def test_numbers_are_those_of_the_sample_whatever_its_company():
    views = AudioSet(voice(), audio(RATE, LENGTH), views=30, seed=5)
    together = views.numbers(np.arange(40, 60))
    for k in (0, 7, 19):
        for one, many in zip(views.numbers(np.array([40 + k])), together):
            assert np.array_equal(one[0], many[k])
    again = AudioSet(voice(), audio(RATE, LENGTH), views=30, seed=5).numbers(np.arange(40, 60))
    assert all(np.array_equal(one, other) for one, other in zip(together, again))
    other = AudioSet(voice(), audio(RATE, LENGTH), views=30, seed=6).numbers(np.arange(40, 60))
    assert not np.array_equal(together.start, other.start)
    kinds = {name: part.dtype for name, part in AudioNumbers._asdict(together).items()}
    assert {name for name, kind in kinds.items() if kind == np.int32} == {"start", "room", "noise"}
    assert all(kind in (np.int32, np.float32) for kind in kinds.values())
    assert sum(part[0].size for part in together) < 50


def test_every_epoch_plays_the_same_base_views_in_another_order_freshly_augmented():
    how = audio(RATE, LENGTH)
    base = AudioSet(voice(), how.without_augmentation(), views=20, seed=1)
    first, second = ([row.tobytes() for row in render_audio(base, n)] for n in (np.arange(20), np.arange(20, 40)))
    assert len(set(first)) == 20 and set(first) == set(second) and first != second
    full = AudioSet(voice(), how, views=20, seed=1)
    rows = {row.tobytes() for row in render_audio(full, np.arange(40))}
    assert len(rows) > 38
    endless = AudioSet(voice(), how.without_augmentation(), seed=1)
    assert len({row.tobytes() for row in render_audio(endless, np.arange(100))}) == 100


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"rate": 100}, "rate"),
        ({"samples": 10}, "samples"),
        ({"base": BaseAudio(speed=(2.0, 1.0))}, "base.speed"),
        ({"base": BaseAudio(mixed=1.5)}, "base.mixed"),
        ({"augmentation": AudioAugmentation(low_corner=(10.0, 20_000.0))}, "low_corner"),
        ({"augmentation": AudioAugmentation(shift=3.0)}, "shift"),
        ({"augmentation": AudioAugmentation(noise=-0.1)}, "noise"),
    ],
)
def test_impossible_recipes_are_named(values, named):
    with pytest.raises(RecipeError, match=named):
        AudioRecipe(**values)


def test_recipes_by_name_and_their_digests():
    assert audio_recipe(None, 16_000, 16_000) == AudioRecipe()
    assert audio_recipe("audio", 4_000, 300).augmentation is not None  # short views at a low rate fit as well
    assert AudioRecipe().digest != AudioRecipe(base=BaseAudio(reverse=0.06)).digest
    with pytest.raises(RecipeError, match="crop"):
        audio_recipe("crops", 16_000, 16_000)
    with pytest.raises(RecipeError, match="seconds"):
        make_audio_set("control:noise", 16_000, 0.0, None, views=None, seed=0)
    with pytest.raises(RecipeError, match="equal"):
        make_audio_set("control:noise", 8_000, 1.0, AudioRecipe(), views=None, seed=0)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "subtype", "worst"),
    [
        ("a.wav", "PCM_U8", 0.01),
        ("a.wav", "PCM_16", 1e-4),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "PCM_32", 1e-6),
        ("a.wav", "FLOAT", 1e-6),
        ("a.flac", "PCM_16", 1e-4),
        ("a.ogg", "VORBIS", 0.03),
        ("a.mp3", "MPEG_LAYER_III", 0.03),
    ],
)
def test_files_of_any_kind_are_read(tmp_path, name, subtype, worst):
    sound = voice(2).samples
    soundfile.write(tmp_path / name, sound, RATE, subtype=subtype)
    found = load_audio(tmp_path / name, RATE)
    assert found.name == name and found.rate == RATE and found.seconds == pytest.approx(2)
    assert not found.samples.flags.writeable and found.samples.dtype == np.float32
    assert np.abs(found.samples - (sound - sound.mean())).max() < worst


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (48_000, 8), (192_000, 1)])
def test_other_rates_and_channels_become_one_waveform_at_the_rate_of_the_views(tmp_path, rate, channels):
    time = np.arange(2 * rate) / rate
    soundfile.write(tmp_path / "a.wav", np.stack([0.5 * np.sin(2 * np.pi * 440 * time)] * channels, axis=1), rate)
    if rate < 16_000:
        with pytest.warns(UserWarning, match="nothing above 4000 Hz"):
            found = load_audio(tmp_path / "a.wav", 16_000)
    else:
        found = load_audio(tmp_path / "a.wav", 16_000)
    assert len(found.samples) == 32_000
    exact = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    assert np.abs(found.samples - exact)[100:-100].max() < 2e-3


def test_resampling_lets_nothing_fold_back():
    time = np.arange(48_000) / 48_000
    folded = resample(np.sin(2 * np.pi * 11_000 * time).astype(np.float32), 48_000, 16_000)
    assert np.abs(folded)[100:-100].max() < 1e-3


FILES = {
    "empty.wav": (b"", "is empty"),
    "text.wav": (b"once upon a time\n" * 20, "is a text file"),
    "video.mp4": (b"\x00\x00\x00\x18ftypmp42" + bytes(100), "is a video"),
    "video.mkv": (b"\x1a\x45\xdf\xa3" + bytes(100), "is a video"),
    "sound.m4a": (b"\x00\x00\x00\x18ftypM4A " + bytes(100), "AAC"),
    "picture.png": (b"\x89PNG\r\n\x1a\n" + bytes(50), "is a picture"),
    "junk.wav": (bytes(range(128, 256)) * 9, "cannot be decoded"),
    "head.wav": (b"RIFF\x24\x00\x00\x00WAVEfmt ", "cannot be decoded"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_sound_is_named(tmp_path, name):
    content, said = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatumError, match=said) as error:
        load_audio(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_missing_files_folders_and_empty_paths_are_named(tmp_path):
    for path, said in ((tmp_path / "no.wav", "does not exist"), (tmp_path, "is a folder"), ("", "empty")):
        with pytest.raises(DatumError, match=said):
            load_audio(path)
    with pytest.raises(DatumError, match="control:noise"):
        load_audio("control:nosie")


def write(path, samples, rate=RATE):
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def test_sound_that_cannot_be_used_is_named(tmp_path):
    sound = voice(2).samples.copy()
    silent, broken, short = np.zeros(RATE), sound.copy(), sound[:100]
    broken[500] = np.nan
    cancelling = np.stack([sound, -sound], axis=1)
    for samples, said in (
        (silent, "silent"), (silent + 0.3, "silent"), (broken, "NaN"), (short, "lasts"), (cancelling, "cancel"),
        (np.zeros((0,)), "no samples"),
    ):  # fmt: skip
        with warnings.catch_warnings(), pytest.raises(DatumError, match=said):
            warnings.simplefilter("ignore")  # of the offset
            load_audio(write(tmp_path / "a.wav", samples), RATE, shortest=LENGTH)
    with pytest.raises(DatumError, match=r"lasts 0\.5 s"):
        AudioSet(source(sound[: LENGTH - 1]), recipe())
    assert np.abs(play(source(sound[:LENGTH]), recipe(), 2)[1] - sound[:LENGTH]).max() < 0.02  # the whole of it


def test_doubtful_sound_is_used_with_a_warning(tmp_path):
    sound = voice(2).samples
    for samples, said in (
        (sound + 0.2, "constant offset"),
        (np.clip(8 * sound, -1, 1), "clipped"),
        (9 * sound, "full"),
    ):
        with pytest.warns(UserWarning, match=said):
            found = load_audio(write(tmp_path / "a.wav", samples), RATE)
        assert abs(found.samples.mean()) < 1e-3 and np.abs(found.samples).max() <= 1


def test_of_a_long_clip_the_beginning_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr("bridge.datum.audio_sources.MAX_SAMPLES", RATE)
    for clip in (voice(3).samples, write(tmp_path / "a.wav", voice(3).samples)):
        with pytest.warns(UserWarning, match="lasts 3 s: the first 1 s are used"):
            assert load_audio(clip, RATE).seconds == 1


def test_arrays_and_controls_are_clips_too():
    sound = voice(2).samples
    found = load_audio(sound, RATE)
    whole = load_audio((sound * 32767).astype(np.int16)[:, None], RATE)
    assert np.abs(found.samples - whole.samples).max() < 1e-4 and found.sha256 != whole.sha256
    assert found.sha256 == load_audio(sound.copy(), RATE).sha256
    for array, said in (
        (sound * 20, "values to"),
        (np.zeros(9, np.int64), "int64"),
        (np.zeros((2, 2, 2)), "shape"),
    ):
        with pytest.raises(DatumError, match=said):
            load_audio(array, RATE)
    noise, constant = load_audio("control:noise", RATE), load_audio("control:constant", RATE)
    flatness = signal.welch(noise.samples, RATE, nperseg=256)[1][3:-3]
    assert flatness.max() / flatness.min() < 1.5 and 0.1 < noise.samples.std() < 0.5
    assert pitch(constant.samples[None, :RATE])[0] == pytest.approx(440, abs=0.2)


# --- for people -------------------------------------------------------------------------------------------------------


def test_wav_files_hold_the_waveform():
    wave = np.linspace(-1.2, 1.2, 999)
    content = encode_wav(wave, 22_050)
    found, rate = soundfile.read(io.BytesIO(content))
    assert rate == 22_050 and soundfile.info(io.BytesIO(content)).subtype == "PCM_16"
    assert np.abs(found - np.clip(wave, -1, 1)).max() < 1e-4 and encode_wav(wave, 22_050) == content
    assert soundfile.read(io.BytesIO(encode_wav(np.zeros((50, 2)), 8_000)))[0].shape == (50, 2)
    for wrong in (np.zeros(5, np.int16), np.zeros((1, 1, 1)), np.array([np.nan])):
        with pytest.raises(DatumError):
            encode_wav(wrong, 8_000)


def test_pictures_show_where_the_sound_is():
    waves = np.stack([tone(440).samples, tone(2000).samples, np.zeros(4 * RATE, np.float32)])[:, :RATE]
    pictures = spectrogram_pictures(waves, RATE, bands=40)
    assert pictures.shape == (3, 40, 98, 3) and pictures.dtype == np.uint8
    rows = pictures[:2].sum(axis=(2, 3)).argmax(axis=1)
    assert rows[1] < rows[0]  # higher up
    assert (pictures[2] == pictures[2, 0, 0]).all() and pictures[0].max() > 200
    grey = spectrogram_pictures(waves, RATE, colour=False, together=True)
    assert (grey[..., 0] == grey[..., 1]).all() and grey[2].max() == 0
    mel = log_mel(tone(1000).samples[None], RATE)
    assert mel.shape[2] == 64 and mel[0, 5].argmax() == mel[0, 50].argmax()
