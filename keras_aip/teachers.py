"""The folders that teachers and students are kept in: written, and loaded by path or name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import safetensors
import safetensors.numpy

from bridge.errors import ConfigError, TeacherError
from bridge.names import hint
from bridge.teachers.card import CARD_NAME, FORMS, RANGES, Card, kind_of, replacing_folder
from bridge.teachers.remote import behind, is_address
from bridge.teachers.scan import read_json_member, refuse_code
from bridge.teachers.shelf import find_folder
from keras_aip import models
from keras_aip.models.from_onnx import from_onnx
from keras_aip.teacher import Teacher


def save_teacher(
    model: keras.Model,
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    accuracy: dict[str, Any] | None = None,
    source: str = "",
    licence: str = "",
    outputs: str = "logits",
    rate: int | None = None,
) -> Card:
    """Write a trained network, teacher or student, as a folder; an older one in its place is replaced.

    Networks of ``keras_aip.models`` become ``weights.safetensors``, which both backends read; others
    ``model.keras``. The folder is written beside and renamed, so a kill never leaves half of it.

    Args:
        model: A functional or sequential model that takes RGB float32 in [0, 1] and normalises by itself, or waveforms
            ``[batch, samples]`` in [-1, 1], with its front end inside.
        folder: Where to write it.
        class_names: One name per class.
        accuracy: What was measured: ``{"top1": fraction, "dataset": name, "n": images}``.
        source: Where the network comes from.
        licence: Its licence.
        outputs: ``logits``, ``probabilities`` or ``labels``.
        rate: Samples per second of the waveforms; None: what a network of ``keras_aip.models`` was built for.

    Raises:
        TeacherError: The folder holds something else or cannot be written, or nobody could load the model.
    """
    folder = Path(folder)
    shape = getattr(model, "output_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[1] is None:
        raise TeacherError(f"{model.name} has output shape {shape}; expected [batch, classes].")
    described = models.architecture_of(model) or {}
    form = "safetensors" if described else "keras"
    card = Card(
        classes=shape[1],
        **_listens(model, described.get("arguments", {}), rate),
        architecture=described.get("architecture"),
        arguments=described.get("arguments", {}),
        class_names=None if class_names is None else tuple(class_names),
        outputs=outputs,
        parameters=model.count_params(),
        accuracy=accuracy,
        source=source,
        licence=licence,
        forms={form: FORMS[form]},
    )
    with replacing_folder(folder) as beside:
        path = beside / FORMS[form]
        if form == "safetensors":
            # not save_file, whose files only their owner may read
            path.write_bytes(safetensors.numpy.save(models.state_dict(model)))
        else:
            model.save(path)
            # Before it is moved into place: a folder that could not be loaded again is not written.
            refuse_code(path, registered_modules())
        card = card.sealed(beside)
        card.save(beside)
    return card


def _listens(model: keras.Model, arguments: dict[str, Any], rate: int | None) -> dict[str, Any]:
    """What a card says of what a model takes."""
    size = models.input_size_of(model)
    if size is None or kind_of(size) != "audio":
        if rate is not None:
            raise TeacherError(f"{model.name} takes images; rate={rate} is for networks that take waveforms.")
        return {"input_size": size}
    known = arguments.get("rate", rate)
    if known is None or rate not in (None, known):
        raise TeacherError(
            f"{model.name} takes waveforms of {size[0]} samples"
            + (", but how many are a second? Give rate, such as rate=16000." if known is None else "")
            + (f" at {known} samples per second; rate={rate} was given. Leave rate out." if known is not None else "")
        )
    front_end = arguments.get("front_end")
    if front_end is not None:
        front_end = {**front_end, "rate": known, "samples": size[0]}
    return {"input_size": size, "kind": "audio", "range": RANGES["audio"], "rate": known, "front_end": front_end}


def load_model(folder: str | Path, dataset: str | None = None) -> tuple[keras.Model, Card]:
    """Load the network of a folder (or of a teacher's name), trainable, with its card.

    Args:
        folder: A folder with ``card.json``, or its name, as for :func:`load_teacher`.
        dataset: The data set it is wanted for.

    Raises:
        TeacherError: There is no such teacher, or its files are damaged, foreign or refused.
    """
    if is_address(folder):
        raise TeacherError(f"{folder} answers, but has no weights to load; a folder has.")
    folder = find_folder(folder, dataset, can_train=models.is_known(str(folder)))
    card = Card.load(folder)
    form = _form_of(folder, card)
    if form == "onnx":
        raise TeacherError(
            f"{folder} has only {card.forms[form]} for this backend: a frozen teacher (load_teacher), not a network to "
            "train. Export it with weights.safetensors of a known architecture or as model.keras."
        )
    return _native(folder, card, form), card


def load_teacher(
    folder_or_name: str | Path, dtype: str | None = None, dataset: str | None = None, form: str | None = None
) -> Teacher:
    """Load a teacher from a folder, or by the name of a folder in ``$AIP_TEACHERS`` (default ``./teachers``).

    Args:
        folder_or_name: A folder with ``card.json``, or its name; or the address of an endpoint, such as
            ``http://127.0.0.1:8000``, that speaks as `bridge.teachers.remote` describes.
        dtype: ``"bfloat16"`` for a faster, less precise one; of native forms only.
        dataset: The data set it is wanted for: of ``wrn_40_4``, the one in ``cifar10_wrn_40_4`` comes first.
        form: ``"safetensors"``, ``"keras"`` or ``"onnx"``; None: a native one of this backend, else through ONNX (which
            is converted on the first time, in about 20 s, and cached).

    Raises:
        TeacherError: There is no such teacher or form, or its files are damaged, foreign or refused.
    """
    if is_address(folder_or_name):
        asked, about = behind(str(folder_or_name), dtype, form)
        return Teacher(asked, **about)
    folder = find_folder(folder_or_name, dataset, can_train=models.is_known(str(folder_or_name)))
    card = Card.load(folder)
    form = _form_of(folder, card, form)
    if form != "onnx":
        model = _native(folder, card, form)
    elif dtype in (None, "float32"):
        model = from_onnx(folder / card.forms[form], card)
    else:
        raise TeacherError(
            f"dtype={dtype!r} needs a native form, whose weights can be made again in it; of {folder} this backend "
            f"loads {card.forms[form]}, which computes in float32. Leave dtype (--teacher-dtype) out."
        )
    return Teacher(
        model, outputs=card.outputs, class_names=card.class_names, dtype=dtype, digest=card.digest,
        classes=card.classes, input_size=card.input_size, rate=card.rate,
    )  # fmt: skip


def _form_of(folder: Path, card: Card, form: str | None = None) -> str:
    """The form to load: the one asked for, else the first that this backend can."""
    if form is not None and form not in FORMS:
        raise TeacherError(f"form={form!r} must be one of {', '.join(FORMS)}.{hint(form, FORMS)}")
    if form is not None and form not in card.forms:
        raise TeacherError(f"{folder} has no form {form!r}: its card names {', '.join(card.forms) or 'none'}.")
    if form is not None:
        return form
    elsewhere = "onnx" in card.forms
    # Without another way the native form is tried all the same: its error says what is wrong with it.
    if "safetensors" in card.forms and card.architecture and (models.is_known(card.architecture) or not elsewhere):
        return "safetensors"
    if "keras" in card.forms and (not elsewhere or _is_ours(_made_with(folder / card.forms["keras"]))):
        return "keras"
    if elsewhere:
        return "onnx"
    raise TeacherError(
        f"{folder} has no form this backend loads: its card names {', '.join(card.forms) or 'none'}; "
        "expected weights.safetensors with a known architecture, model.keras or model.onnx."
    )


def _native(folder: Path, card: Card, form: str) -> keras.Model:
    path = folder / card.forms[form]
    model = _from_safetensors(path, card) if form == "safetensors" else _from_keras_file(path, card)
    shape = getattr(model, "output_shape", None)
    if isinstance(shape, tuple) and shape[-1] not in (None, card.classes):
        raise TeacherError(f"The model in {folder} answers for {shape[-1]} classes, its card says {card.classes}.")
    return model


def _from_safetensors(path: Path, card: Card) -> keras.Model:
    arguments = card.arguments
    try:
        model = models.build(str(card.architecture), **{"classes": card.classes, **arguments})
    except (ConfigError, TypeError) as error:
        raise TeacherError(f"{path.parent / CARD_NAME} describes no network that can be built: {error}") from error
    try:
        arrays = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise TeacherError(f"{path} is not a readable safetensors file ({error}). Fetch it again.") from error
    models.load_state_dict(model, arrays)
    return model


def _from_keras_file(path: Path, card: Card) -> keras.Model:
    refuse_code(path, registered_modules())
    made_with = _made_with(path)
    if not _is_ours(made_with):
        raise TeacherError(
            f"{path} was saved by Keras {made_with}, this is Keras {keras.__version__}: the two do not read "
            "each other's files. Load it in an environment with its own Keras, or build the network with "
            "keras_aip.models there and save it with save_teacher as safetensors, which both read."
        )
    try:
        model: Any = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras lets through whatever its layers, h5py and TensorFlow raise.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TeacherError(
            f"{path} cannot be loaded ({first}). If it has layers of your own, import the code that "
            "registers them with keras.saving.register_keras_serializable first."
        ) from error
    if card.mean is not None and card.std is not None:
        inputs = keras.Input(model.input_shape[1:], dtype="float32")
        normalise = models.Normalise(card.mean, card.std, dtype="float32", name="card_normalise")
        model = keras.Model(inputs, model(normalise(inputs)), name=model.name)
    return model


def _made_with(path: Path) -> str:
    """The version of Keras that wrote a ``.keras`` file."""
    metadata = read_json_member(path, "metadata.json")
    return str(metadata.get("keras_version")) if isinstance(metadata, dict) else "unknown"


def _is_ours(version: str) -> bool:
    return version.split(".")[0] == keras.__version__.split(".")[0]


def registered_modules() -> set[str]:
    """Return the modules of all classes registered in this process: running them is the user's own doing."""
    registered = keras.saving.get_custom_objects().values()
    return {getattr(thing, "__module__", "") for thing in registered} - {"builtins", ""}
