"""The `serve` command: a teacher folder behind an address, to try and to test what `bridge.teachers.remote` asks."""

from __future__ import annotations

import hmac
import json
import math
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from tyro.conf import Positional, arg

from bridge.config import Common
from bridge.errors import ConfigError, TeacherError

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

_LARGEST_QUESTION = 1 << 28  # bytes
_LARGEST_HEADER = 1 << 12  # of an .npy file
_LARGEST_BATCH = 1024
_SECONDS = 60.0
"""A caller that says nothing for so long is left."""


@dataclass(frozen=True)
class ServeConfig(Common):
    """Let a teacher folder answer over HTTP, for trying out how an endpoint is cloned."""

    model: Positional[Annotated[str | None, arg(metavar="FOLDER")]] = None
    """The folder, or its name under $AIP_TEACHERS."""
    outputs: Literal["labels", "probabilities"] = "labels"
    """What it tells: class numbers alone, or probabilities."""
    host: str = "127.0.0.1"
    """The address it listens at; by default only programs of this machine reach it. Others need $AIP_ENDPOINT_KEY."""
    port: int = 8000
    """The port; 0: any that is free."""


def serve(config: ServeConfig) -> None:
    """Answer until it is interrupted; the first line says where. With $AIP_ENDPOINT_KEY set only who sends it.

    Raises:
        AipError: There is no such teacher, nothing here can run it, or the port is taken.
    """
    from bridge.teachers.card import Card
    from bridge.teachers.remote import KEY_VARIABLE, is_here
    from bridge.teachers.shelf import find_folder

    if config.model is None:
        raise ConfigError("Which teacher? python -m bridge serve FOLDER.")
    if not 0 <= config.port < 65536:
        raise ConfigError(f"--port {config.port} must lie between 0 and 65535.")
    if not is_here(config.host) and not os.environ.get(KEY_VARIABLE):
        raise ConfigError(
            f"--host {config.host!r} lets other machines ask. Put a key that they have to send into the environment "
            f"variable {KEY_VARIABLE}, or leave --host out."
        )
    folder = find_folder(config.model)
    card = Card.load(folder)
    if card.kind != "image":
        raise TeacherError(f"{folder} takes {card.kind}; only teachers of images are served.")
    run = _runnable(folder, card)
    description = {
        "classes": card.classes, "class_names": card.class_names, "outputs": config.outputs, "dtype": "uint8",
        "input_size": card.input_size, "max_batch": 64, "digest": card.digest,
    }  # fmt: skip
    try:
        server = server_of(_told(run, card.outputs, config.outputs), description, config.host, config.port)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise TeacherError(f"Cannot listen at {config.host}:{config.port} ({why}). Choose another --port.") from error
    with server:
        print(f"{folder} answers with {config.outputs} at {address_of(server)} (Ctrl-C ends it).", flush=True)
        server.serve_forever(poll_interval=0.1)


def server_of(
    answer: Callable[[np.ndarray], Any], description: Mapping[str, Any], host: str = "127.0.0.1", port: int = 0
) -> ThreadingHTTPServer:
    """A server that lets a function answer as `bridge.teachers.remote` describes; `serve_forever` starts it.

    Args:
        answer: Images uint8 or float32 [batch, height, width, 3], as they were sent → class numbers [batch], or
            probabilities [batch, classes]; called by one caller at a time.
        description: What a GET tells; it adds ``answered``, about how many images.
        host, port: Where to listen; port 0: at any that is free.

    Raises:
        OSError: The port is taken.
    """
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from bridge.teachers.remote import KEY_VARIABLE

    one_at_a_time, counted = threading.Lock(), {"answered": 0}
    key = os.environ.get(KEY_VARIABLE, "")
    largest = _largest(description)

    class Handler(BaseHTTPRequestHandler):
        timeout = _SECONDS

        def do_GET(self) -> None:
            if self._may_ask():
                self._say(200, {**description, "answered": counted["answered"]})

        def do_POST(self) -> None:
            if not self._may_ask():
                return
            size = self._length()
            if size is None or size > largest:
                self._refuse(400, f"a POST says its length, at most {largest:,} bytes")
                return
            try:
                images = images_of(self.rfile.read(size), description.get("input_size"))
            except ValueError as error:
                self._say(400, {"error": str(error)})
                return
            try:
                with one_at_a_time:
                    told = np.asarray(answer(images))
                    counted["answered"] += len(images)
            except Exception as error:  # whatever the network raises
                self._say(500, {"error": f"{type(error).__name__}: {error}"})
                return
            self._say(200, {str(description["outputs"]): told.tolist()})

        def _may_ask(self) -> bool:
            if self.path.rstrip("/"):
                self._refuse(404, "only / answers")
                return False
            given = self.headers.get("Authorization", "")
            if key and not hmac.compare_digest(given.encode("utf-8", "replace"), f"Bearer {key}".encode()):
                self._refuse(401, "a key is needed: Authorization: Bearer …")
                return False
            return True

        def _length(self) -> int | None:
            text = self.headers.get("Content-Length", "")
            return int(text) if text.isdecimal() and len(text) < 20 else None

        def _refuse(self, status: int, why: str) -> None:
            # Behind the question, unkept: who is answered while sending may see a reset connection and no answer.
            left = min(self._length() or 0, _LARGEST_QUESTION)
            while left and (piece := self.rfile.read1(min(left, 1 << 16))):
                left -= len(piece)
            self._say(status, {"error": why})

        def _say(self, status: int, what: dict[str, Any]) -> None:
            content = json.dumps(what).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """A line per question would hide the one that says where."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Callers go away; that is their business."""

    return Server((host, port), Handler)


def address_of(server: ThreadingHTTPServer) -> str:
    """Where a server listens, such as ``http://127.0.0.1:8000``."""
    host, port = server.server_address[:2]
    return f"http://{host!s}:{port}"


def images_of(body: bytes, input_size: Any = None) -> np.ndarray:
    """The images in a question, uint8 or float32 [batch, height, width, 3].

    Args:
        body: An .npy file.
        input_size: (height, width) they must have; None: any.

    Raises:
        ValueError: It is no such thing, in words.
    """
    import io

    expected = "expected an .npy file, C order, uint8 or float32 [batch, height, width, 3]"
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except Exception as error:  # its parser raises whatever it meets
        raise ValueError(f"the body is no .npy file; {expected}") from error
    if fortran or dtype not in (np.dtype("u1"), np.dtype("<f4")) or len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"the body is {dtype} {list(shape)}; {expected}")
    if not 1 <= shape[0] <= _LARGEST_BATCH or (input_size is not None and tuple(shape[1:3]) != tuple(input_size)):
        sides = "any size" if input_size is None else " × ".join(map(str, input_size))
        raise ValueError(f"the body is {list(shape)}; expected 1 to {_LARGEST_BATCH:,} pictures of {sides}")
    content = body[file.tell() :]
    # Compared before anything of that size is made.
    if len(content) != int(np.prod(shape, dtype=object)) * dtype.itemsize:
        raise ValueError(f"the body has {len(content):,} bytes of pixels, which are not {list(shape)} of {dtype}")
    images = np.frombuffer(content, dtype).reshape(shape)
    if dtype == np.dtype("<f4") and not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise ValueError("float32 pictures must lie in [0, 1]")
    return images


def _largest(description: Mapping[str, Any]) -> int:
    """Bytes that a question can have: float32 pictures, as many at once as may be sent."""
    size = description.get("input_size")
    if size is None:
        return _LARGEST_QUESTION
    pictures = _LARGEST_HEADER + description.get("max_batch", _LARGEST_BATCH) * math.prod(size) * 3 * 4
    return min(_LARGEST_QUESTION, pictures)


def _runnable(folder: Any, card: Any) -> Callable[[np.ndarray], np.ndarray]:
    from bridge.teachers.engines import ENGINES

    reasons = []
    for name in ("onnxruntime", "torch_safetensors", "keras_safetensors", "keras_file"):  # the quickest to start first
        why = ENGINES[name].missing(folder, card)
        if why is None:
            return ENGINES[name].load(folder, card)
        reasons.append(f"{name}: {why}")
    raise TeacherError(f"Nothing here can run {folder} ({'; '.join(reasons)}).")


def _told(run: Callable[[np.ndarray], np.ndarray], outputs: str, wanted: str) -> Callable[[np.ndarray], np.ndarray]:
    """What callers are told of the scores of a network."""
    if outputs == "labels" and wanted != "labels":
        raise ConfigError(f"The teacher gives labels alone; --outputs {wanted} cannot be had of it.")

    def answer(images: np.ndarray) -> np.ndarray:
        pixels = images.astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else images
        scores = np.asarray(run(pixels), np.float64)
        if wanted == "labels":
            return scores.argmax(-1)
        if outputs == "logits":
            scores = np.exp(scores - scores.max(-1, keepdims=True))
        return scores / scores.sum(-1, keepdims=True)

    return answer
