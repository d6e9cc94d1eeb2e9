"""Reading the one datum: from whatever holds a picture to ``uint8 [h, w, 3]`` RGB.

How the less usual kinds get there (ours):

- alpha (also of palette and colour-key images): composited over black, opaque pixels stay exact;
- 16-bit grey: 0..65535 maps linearly onto 0..255, nothing is clipped away;
- floating-point TIFF: its own minimum..maximum maps onto 0..255; an image of one single value becomes black;
- animations and files of several pages: the first frame;
- EXIF orientation is applied.

Memory is bounded: JPEG is decoded at 1/2, 1/4 or 1/8 size where needed, the rest reduced after decoding.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from bridge.errors import DatumError

MAX_PIXELS = 32_000_000
NAMED_SOURCES = ("sklearn:china.jpg", "sklearn:flower.jpg", "control:noise", "control:constant")

_REDUCIBLE_MODES = {"L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F"}
_CONTROL_SHAPE = (512, 512, 3)
# An image's share of a folder never falls below this: ready-made patches would be shrunk to nothing.
_SMALL_IMAGE = 256 * 256
# So that a folder of very many small images ends in a message, not in a killed process.
_FOLDER_LIMIT = 16

_Read = tuple[np.ndarray, str, str]


@dataclass(frozen=True)
class Source:
    """The one datum, decoded.

    Attributes:
        name: short label for reports: the file's or folder's name, or the name of a built-in source.
        images: uint8 [h, w, 3] RGB in 0..255 each, read-only; more than one if the datum is a folder.
        sha256: hash over decoded shapes and pixels, in order: the same pixels in another file hash the same.
    """

    name: str
    images: tuple[np.ndarray, ...]
    sha256: str


def load_source(
    image: str | os.PathLike[str] | np.ndarray | Image.Image,
    *,
    max_pixels: int = MAX_PIXELS,
    min_side: int = 64,
) -> Source:
    """Read the one datum that all views come from.

    Args:
        image: a path to a picture; a folder of pictures (with its sub-folders, sorted by path; files that are
            no usable image are skipped with a warning); an array, uint8 or float in [0, 1], [h, w, 3] or
            [h, w]; a PIL image; or one of ``NAMED_SOURCES``.
        max_pixels: bound on the pixels kept, over all images together. Larger images are reduced by a whole
            factor, with a warning. In a folder, images up to 256 x 256 are never reduced.
        min_side: an image with a shorter side is upscaled (bicubic) to it, with a warning.

    Raises:
        DatumError: the image is missing, unreadable, damaged, empty, hostile or of an unusable kind.
    """
    if min_side < 1 or max_pixels < min_side**2:
        raise DatumError(f"{max_pixels=}, {min_side=}: expected min_side >= 1, max_pixels >= min_side squared.")
    if isinstance(image, np.ndarray):
        name, label, picture = "array", "the array", Image.fromarray(_array_to_uint8(image))
    elif isinstance(image, Image.Image):
        name, label, picture = "PIL image", "the PIL image", image
    elif isinstance(image, str) and image.startswith(("sklearn:", "control:")):
        name, label, picture = image, image, Image.fromarray(_named_source(image))
    elif isinstance(image, (str, os.PathLike)):
        picture = _existing(image)
        name, label = picture.resolve().name, str(picture)
        if picture.is_dir():
            return _make_source(name, _read_folder(picture, max_pixels, min_side))
    else:
        named = ", ".join(NAMED_SOURCES)
        raise DatumError(f"got a {type(image).__name__}: expected a path, array, PIL image or {named}.")
    return _make_source(name, [_read(picture, label, max_pixels, min_side)])


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode one picture file to uint8 [h, w, 3] RGB, reduced by a whole factor if above ``max_pixels``.

    Raises:
        DatumError: the file is missing, not an image, damaged, empty or too large.
    """
    return _decode(_existing(path), str(path), max_pixels)[0]


def list_files(folder: str | os.PathLike[str]) -> list[Path]:
    """All files under a folder in one order everywhere; names that start with a dot are left out.

    Raises:
        DatumError: the folder, or a folder in it, cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise DatumError(f"cannot list {error.filename} ({error.strerror}): check its permissions.")

    found = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def some_names(names: Sequence[object], limit: int = 5) -> str:
    """The first few names, and how many more there are: for messages."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(str(name) for name in names[:limit]) + more


def _existing(given: str | os.PathLike[str]) -> Path:
    if not os.fspath(given):
        raise DatumError("the image path is empty: expected a picture or a folder of pictures.")
    path = Path(given).expanduser()
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatumError(f"{path} does not exist: expected a picture or a folder of pictures.") from error
    except (OSError, ValueError) as error:
        raise DatumError(f"cannot reach {str(path)!r} ({error}): check it and its permissions.") from error
    # Opening a pipe or a device would wait or read for ever.
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DatumError(f"{path} is neither a file nor a folder: save the picture as a file first.")
    return path


@contextmanager
def _naming(label: str) -> Iterator[None]:
    """Whatever Pillow raises inside becomes a DatumError that names the picture."""
    try:
        if threading.current_thread() is not threading.main_thread():
            yield  # the filters belong to all threads: two that set and reset them would leave them in disorder
            return
        # Images between Pillow's warning and error limits are welcome: they are reduced as soon as decoded.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except DatumError:
        raise
    except UnidentifiedImageError as error:
        expected = "expected JPEG, PNG, TIFF, WebP, ...; save it as PNG"
        raise DatumError(f"{label} is not an image that Pillow can open: {expected}.") from error
    except Image.DecompressionBombError as error:
        mend = "scale it down in an editor, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        raise DatumError(f"{label} is too large to decode safely ({error}): {mend}.") from error
    except PermissionError as error:
        raise DatumError(f"{label} may not be read ({error.strerror}): check its permissions.") from error
    # Pillow's decoders raise almost anything on hostile files: SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise DatumError(
            f"{label} cannot be decoded ({type(error).__name__}: {error}): it is damaged, truncated or of a "
            "kind Pillow cannot read; expected a whole picture. Copy or download it again, or save it as PNG."
        ) from error


def _open(path: Path) -> Image.Image:
    if path.is_dir():
        raise DatumError(f"{path} is a folder: expected a picture file; name one of the files in it.")
    if path.stat().st_size == 0:
        raise DatumError(f"{path} is empty (0 bytes): expected a picture; copy or download it again.")
    return Image.open(path)


def _decode(picture: Path | Image.Image, label: str, max_pixels: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Pixels within the bound, and the (width, height) stored."""
    with _naming(label):
        if isinstance(picture, Image.Image):
            return _to_rgb(picture, label, max_pixels), picture.size
        with _open(picture) as opened:
            size = opened.size
            # draft() changes the image it is called on, so only our own are decoded at a smaller size.
            if opened.format in {"JPEG", "MPO"}:
                factor = _factor(size, max_pixels)
                opened.draft(None, (max(size[0] // factor, 1), max(size[1] // factor, 1)))
            return _to_rgb(opened, label, max_pixels), size


def _to_rgb(image: Image.Image, label: str, max_pixels: int) -> np.ndarray:
    if 0 in image.size:
        raise DatumError(f"{label} has no pixels {image.size}: expected a picture; save it again.")
    image.load()
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        pass  # a good photograph with damaged EXIF data is still a good photograph
    transparent = image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info
    if image.mode not in _REDUCIBLE_MODES or "transparency" in image.info:
        image = _to_common_mode(image, label, transparent)
    if (factor := _factor(image.size, max_pixels)) > 1:
        image = image.reduce(factor)
    if image.mode in {"I", "F"}:
        image = _to_common_mode(image, label, transparent)
    if transparent:
        image = image.convert("RGBA")
        canvas = Image.new("RGB", image.size)
        canvas.paste(image, mask=image.getchannel("A"))
        image = canvas
    return np.array(image.convert("RGB"))


def _to_common_mode(image: Image.Image, label: str, transparent: bool) -> Image.Image:
    """A mode that can be reduced and turned into RGB: 8-bit grey, RGB or RGBA."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if low < 0 or high > 65535:
            raise DatumError(f"{label} holds integers from {low} to {high}: expected 0..65535; scale it first.")
        to_bytes = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)
        return Image.fromarray(to_bytes[values])
    if image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise DatumError(f"{label} holds NaN or infinity: expected finite numbers; replace them first.")
        low, high = float(values.min()), float(values.max())
        scale = 255 / (high - low) if high > low else 0.0
        return Image.fromarray(np.rint((values - low) * scale).astype(np.uint8))
    return image.convert("RGBA" if transparent else "RGB")


def _factor(size: tuple[int, int], max_pixels: int) -> int:
    """The smallest whole factor that brings an image to ``max_pixels`` or fewer."""
    factor = max(math.isqrt(size[0] * size[1] // max_pixels), 1)
    while math.ceil(size[0] / factor) * math.ceil(size[1] / factor) > max_pixels and factor < max(size):
        factor += 1
    return factor


def _array_to_uint8(array: np.ndarray) -> np.ndarray:
    expected = "expected uint8 in 0..255 or float in [0, 1], of shape [h, w, 3] or [h, w]"
    given = f"the array is {array.dtype} of shape {list(array.shape)}"
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)) or array.size == 0:
        raise DatumError(f"{given}: {expected}.")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise DatumError(f"{given}: {expected}; convert it first.")
    low, high = float(array.min()), float(array.max())
    # Written so that NaN, which compares false with everything, is refused too.
    if not (low >= 0.0 and high <= 1.0):
        raise DatumError(f"{given}, values {low:g} to {high:g}: {expected}; divide or clip it first.")
    return np.rint(array.astype(np.float64) * 255).astype(np.uint8)


def _named_source(name: str) -> np.ndarray:
    if name == "control:constant":
        return np.full(_CONTROL_SHAPE, 128, np.uint8)
    if name == "control:noise":
        # Raw generator words: the one thing NumPy promises never to change.
        words = np.random.PCG64(0).random_raw(math.prod(_CONTROL_SHAPE) // 8)
        return words.astype("<u8").view(np.uint8).reshape(_CONTROL_SHAPE)
    if name not in NAMED_SOURCES:
        raise DatumError(f"unknown named source {name!r}: expected one of {', '.join(NAMED_SOURCES)}.")
    try:
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise DatumError(f"{name} comes with scikit-learn: pip install scikit-learn") from error
    return np.asarray(load_sample_image(name.partition(":")[2]))


def _read(picture: Path | Image.Image, label: str, max_pixels: int, min_side: int) -> _Read:
    """Pixels within both bounds, and what was reduced and what enlarged, for the warnings ("" if nothing)."""
    pixels, (stored_width, stored_height) = _decode(picture, label, max_pixels)
    height, width = pixels.shape[:2]
    reduced = enlarged = ""
    if height * width < stored_width * stored_height:
        reduced = f"{label} ({stored_width} x {stored_height} stored, {width} x {height} used)"
    if (short := min(height, width)) < min_side:
        size = (round(width * min_side / short), round(height * min_side / short))
        # A strip one pixel wide would grow without bound.
        if size[0] * size[1] > max_pixels:
            raise DatumError(f"{label} is too elongated ({width} x {height}): crop it first.")
        pixels = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
        enlarged = f"{label} ({width} x {height} to {size[0]} x {size[1]})"
    return pixels, reduced, enlarged


def _read_folder(folder: Path, max_pixels: int, min_side: int) -> list[_Read]:
    files = list_files(folder)
    sizes: dict[Path, int] = {}
    for path in files:
        try:
            with _naming(str(path)), _open(path) as opened:
                width, height = opened.size
                sizes[path] = math.ceil(width * height * max(min_side / min(width, height), 1.0) ** 2)
        except DatumError:
            continue
    share = max(_share(list(sizes.values()), max_pixels), _SMALL_IMAGE, min_side**2)
    total = sum(min(size, share) for size in sizes.values())
    if total > (limit := _FOLDER_LIMIT * max_pixels):
        held = f"the {len(sizes)} images in {folder} hold {total:,} pixels even when reduced"
        raise DatumError(f"{held}: expected at most {limit:,}; give fewer images or a larger max_pixels.")
    found, skipped = [], [path for path in files if path not in sizes]
    for path in sizes:
        try:
            found.append(_read(path, str(path), share, min_side))
        except DatumError:
            skipped.append(path)
    names = some_names([path.relative_to(folder).as_posix() for path in sorted(skipped)])
    if not found:
        raise DatumError(f"no usable image in {folder}: expected one or more; found {names or 'no files'}.")
    if skipped:
        count = f"{len(skipped)} of {len(files)} files"
        warnings.warn(f"{folder}: skipped {count}, no usable images: {names}", stacklevel=3)
    return found


def _share(sizes: list[int], budget: int) -> int:
    """The largest cap for which the sizes, each cut to it, fit: small images leave theirs to large ones."""
    for position, size in enumerate(sorted(sizes)):
        cap = budget // (len(sizes) - position)
        if size > cap:
            return cap
        budget -= size
    return max(sizes, default=0)


def _make_source(name: str, read: list[_Read]) -> Source:
    if reduced := [done for _, done, _ in read if done]:
        warnings.warn(f"reduced to bound memory (see max_pixels): {some_names(reduced)}", stacklevel=3)
    if enlarged := [done for _, _, done in read if done]:
        warnings.warn(f"very small, so upscaled: {some_names(enlarged)}", stacklevel=3)
    digest = hashlib.sha256()
    for pixels, _, _ in read:
        digest.update(repr(pixels.shape).encode())
        digest.update(pixels.data)
        # The hash vouches for these very pixels.
        pixels.setflags(write=False)
    return Source(name, tuple(pixels for pixels, _, _ in read), digest.hexdigest())
