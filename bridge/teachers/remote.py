"""A teacher behind an address: plain HTTP, a batch of pictures in, labels or probabilities out.

``GET URL`` describes it, as JSON::

    {"classes": 10, "outputs": "labels", "class_names": ["0", …], "input_size": [32, 32], "dtype": "uint8",
     "max_batch": 64, "digest": "…"}

``classes`` and ``outputs`` (``labels`` or ``probabilities``) must be there. ``dtype`` is ``uint8`` unless it says
``float32`` (pictures in [0, 1]); ``digest`` is any text that changes with the network.

``POST URL`` asks, the body an ``.npy`` file, C order, ``[batch, height, width, 3]``, RGB, of that dtype (Content-Type
``application/x-npy``). The answer is JSON, one entry per picture::

    {"labels": [3, 1, …]}    or    {"probabilities": [[0.1, …], …]}

Another service is asked through a few lines that speak this, or as a function: `bridge.teachers.asking.Asked`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import io
import ipaddress
import json
import os
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import numpy as np

from bridge.errors import ConfigError, TeacherError
from bridge.teachers.asking import DTYPES, Asked, NoAnswer

KEY_VARIABLE = "AIP_ENDPOINT_KEY"
OUTPUTS = ("labels", "probabilities")
NPY = "application/x-npy"
_LARGEST_ANSWER = 1 << 26  # bytes; 64 pictures of 21,841 classes are half of it
_PIECE = 1 << 16
_MAY_PASS = (408, 425, 429)  # beside every 5xx
_FORM = 'expected {"labels": […]} or {"probabilities": [[…], …]} for a POST, a description for a GET'


def is_address(name: object) -> bool:
    """Whether a teacher's name is that of an endpoint."""
    return isinstance(name, str) and name.lower().startswith(("http://", "https://"))


class Endpoint:
    """Who is asked at an address; see this module for what goes over the line.

    If ``$AIP_ENDPOINT_KEY`` is set it is sent as a bearer token, and never shown.

    Args:
        url: ``http://…`` or ``https://…``; without user, query and fragment, which might be secrets.
        timeout: Seconds for one request.

    Raises:
        ConfigError: The address or the key cannot be used.
    """

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        try:
            parts = urllib.parse.urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host, parts = None, urllib.parse.urlsplit("")
        # Neither part of an unusable address is repeated: it may hold a secret.
        if not host or parts.scheme not in ("http", "https") or not url.isascii() or not url.isprintable():
            raise ConfigError("That is no address of an endpoint; expected one such as http://127.0.0.1:8000.")
        if parts.username or parts.password or parts.query or parts.fragment or " " in url:
            raise ConfigError(
                f"The address of the endpoint at {host} has a user, query or fragment; expected one without. A key "
                f"belongs in the environment variable {KEY_VARIABLE}."
            )
        key = os.environ.get(KEY_VARIABLE, "")
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise ConfigError(f"{KEY_VARIABLE} holds characters that cannot be sent; expected one printable word.")
        if key and parts.scheme == "http" and not is_here(host):
            raise ConfigError(
                f"{KEY_VARIABLE} would travel to {host} for everybody to read. Give the address as https://…, or unset "
                "it."
            )
        self.url, self.timeout = url, timeout
        self._outputs: str | None = None
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._opener = urllib.request.build_opener(
            _NoRedirects, _Http, _Https, *([_NoProxy()] if is_here(host) else [])
        )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Ask about one batch.

        Args:
            images: uint8 or float32 ``[batch, height, width, 3]``.

        Returns:
            Class numbers, or float probabilities ``[batch, classes]``, as they came.

        Raises:
            NoAnswer: It may answer another time.
            TeacherError: It does not speak as agreed.
        """
        body = io.BytesIO()
        np.lib.format.write_array(body, np.ascontiguousarray(images), version=(1, 0), allow_pickle=False)
        answer = self._ask(body.getvalue())
        found = [name for name in OUTPUTS if name in answer]
        if len(found) != 1:
            raise TeacherError(f"{self.url} answers with {_listed(answer)}; {_FORM}.")
        if self._outputs not in (None, found[0]):
            raise TeacherError(f"{self.url} describes its answers as {self._outputs}, and gives {found[0]}.")
        if not isinstance(answer[found[0]], list):
            raise TeacherError(f"{self.url}: {found[0]} is a {type(answer[found[0]]).__name__}; {_FORM}.")
        try:
            values = np.array(answer[found[0]])
        except ValueError:  # rows of several lengths
            values = np.array(None)
        if values.dtype.kind not in "iuf" or values.ndim != (1 if found[0] == "labels" else 2):
            raise TeacherError(f"{self.url}: {found[0]} are no numbers, one per picture (and class); {_FORM}.")
        return values

    def describe(self) -> dict[str, Any]:
        """What the endpoint says of itself, checked; with ``dtype``, ``max_batch`` and ``digest`` in any case.

        Raises:
            TeacherError: It cannot be reached, or says no such thing.
        """
        try:
            said = self._ask(None)
        except NoAnswer as error:
            runs = isinstance(error.__cause__, urllib.error.HTTPError)
            hint = "Start again once it answers." if runs else "Check the address, and that it is running."
            raise TeacherError(f"{self.url} {error}. {hint}") from error
        described = {"dtype": "uint8", "max_batch": 64, "class_names": None, "input_size": None, **said}
        for name in ("classes", "max_batch"):
            self._require(_whole(described.get(name)), name, described.get(name), "a whole number of at least 1")
        for name, choices in (("outputs", OUTPUTS), ("dtype", DTYPES)):
            self._require(described.get(name) in choices, name, described.get(name), f"one of {', '.join(choices)}")
        names, size = described["class_names"], described["input_size"]
        fits = names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))
        fits = fits and (names is None or len(names) == described["classes"])
        self._require(fits, "class_names", names, f"{described['classes']} names")
        fits = size is None or (isinstance(size, list) and len(size) == 2 and all(_whole(side) for side in size))
        self._require(fits, "input_size", size, "[height, width]")
        digest = said.get("digest")
        self._require(digest is None or isinstance(digest, str), "digest", digest, "text")
        if digest is None:
            about = {name: described[name] for name in ("classes", "class_names", "input_size", "dtype")}
            digest = hashlib.sha256(f"{self.url} {json.dumps(about, sort_keys=True)}".encode()).hexdigest()
        self._outputs = described["outputs"]
        return {**described, "digest": digest}

    def _require(self, fits: bool, name: str, value: Any, expected: str) -> None:
        if not fits:
            shown = _shortened(repr(value))
            raise TeacherError(f"{self.url} describes itself with {name} {shown}; expected {expected}.")

    def _ask(self, body: bytes | None) -> dict[str, Any]:
        headers = {"Accept": "application/json", **self._headers, **({"Content-Type": NPY} if body else {})}
        request = urllib.request.Request(self.url, data=body, headers=headers)
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                content = _read(response, _LARGEST_ANSWER)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from error
        except TimeoutError as error:
            raise NoAnswer(f"does not answer within {self.timeout:g} s") from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise NoAnswer(f"does not answer within {self.timeout:g} s") from error
            if isinstance(reason, ssl.SSLCertVerificationError):
                why = reason.verify_message.rstrip(".")
                raise TeacherError(
                    f"{self.url} shows a certificate that is not trusted ({why}). If it is your own, name its file in "
                    "the environment variable SSL_CERT_FILE."
                ) from error
            why = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
            if isinstance(reason, ssl.SSLError) and reason.reason:
                why = f"https failed: {reason.reason}"
            raise NoAnswer(f"cannot be reached ({_shortened(why)})") from error
        except http.client.IncompleteRead as error:
            raise NoAnswer("breaks off in the middle of an answer") from error
        except http.client.HTTPException as error:
            raise NoAnswer(f"answers with what is no HTTP ({_shortened(str(error))})") from error
        except ValueError as error:  # of urllib; unquoted, because where it redirects to may hold a secret
            raise TeacherError(
                f"{self.url} cannot be asked: it, or where it redirects to, is no address of a host. Check the address."
            ) from error
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            shown = _shortened(content[:80].decode("utf-8", "replace"))
            raise TeacherError(f"{self.url} answers with {shown!r}, which is no JSON object; {_FORM}.")
        return answer

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        if 300 <= error.code < 400:
            where = ""
            with contextlib.suppress(ValueError):
                to = urllib.parse.urlsplit(error.headers.get("Location") or "")
                where = f" to {_shortened(f'{to.scheme}://{to.hostname}{to.path}')}" if to.hostname else ""
            return TeacherError(f"{self.url} redirects{where}, where no key is sent unasked; give that address itself.")
        if error.code in (401, 403):
            sent = "does not accept the key in" if self._headers else "wants a key; put it into"
            return TeacherError(f"{self.url} {sent} the environment variable {KEY_VARIABLE} ({error.code}).")
        with contextlib.suppress(
            OSError, http.client.HTTPException, TeacherError, ValueError, TypeError, LookupError, RecursionError
        ):
            said = json.loads(_read(error, _PIECE))["error"]
            said = f": {_shortened(said)}" if isinstance(said, str) else ""
            return self._of_status(error, said)
        return self._of_status(error, "")

    def _of_status(self, error: urllib.error.HTTPError, said: str) -> Exception:
        status = f"{error.code} ({_shortened(str(error.reason))}){said}"
        if error.code in _MAY_PASS or error.code >= 500:
            wait = error.headers.get("Retry-After") or ""
            return NoAnswer(f"answers {status}", float(wait) if wait.isdecimal() else None)
        return TeacherError(f"{self.url} refuses the question with {status}.")


def behind(url: str, dtype: str | None = None, form: str | None = None) -> tuple[Asked, dict[str, Any]]:
    """What a `Teacher` of either backend is made of that answers at an address.

    Args:
        url: As for `Endpoint`.
        dtype, form: As for `load_teacher`: nothing that an endpoint could be asked for.

    Returns:
        Its model, and the other arguments.

    Raises:
        ConfigError, TeacherError: As for `Endpoint`.
    """
    endpoint = Endpoint(url)
    if dtype not in (None, "float32") or form is not None:
        what = f"form={form!r}" if form is not None else f"dtype={dtype!r} (--teacher-dtype)"
        raise TeacherError(f"{url} computes as it does: {what} is for teachers in folders.")
    about = endpoint.describe()
    asked = Asked(endpoint, dtype=about["dtype"], max_batch=min(64, about["max_batch"]), name=url)
    size = about["input_size"]
    return asked, {
        "outputs": about["outputs"], "classes": about["classes"], "class_names": about["class_names"],
        "digest": about["digest"], "input_size": None if size is None else tuple(size),
    }  # fmt: skip


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, and the key go elsewhere."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        """None: what came is an error."""


class _NoProxy(urllib.request.ProxyHandler):
    """What runs on this machine is not asked through another one."""

    def __init__(self) -> None:
        super().__init__({})


class _ReadUntil(io.RawIOBase):
    """What a socket receives, until a point in time; its own timeout begins anew with every byte."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, until: float) -> None:
        self._raw, self._sock, self._until = raw, sock, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """Status line, headers and body are all to come within one time."""

    def __init__(self, sock: socket.socket, *arguments: Any, until: float, **others: Any) -> None:
        super().__init__(sock, *arguments, **others)
        self.fp: Any = io.BufferedReader(_ReadUntil(self.fp.detach(), sock, until))


class _Connection(http.client.HTTPConnection):
    def __init__(self, host: str, *, timeout: float = 60.0, **others: Any) -> None:
        super().__init__(host, timeout=timeout, **others)
        self.response_class: Any = functools.partial(_Response, until=time.monotonic() + timeout)


class _SecureConnection(_Connection, http.client.HTTPSConnection):
    pass


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_SecureConnection, req)


def is_here(host: str) -> bool:
    """Whether a host is this machine by its name or number."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(response: Any, largest: int) -> bytes:
    # Its length now, because some versions of Python count it down.
    pieces, size, expected = [], 0, response.length
    if expected is not None and expected > largest:
        raise TeacherError(f"{response.url} answers with {expected:,} bytes; at most {largest:,} are read.")
    while piece := response.read1(_PIECE):
        size += len(piece)
        pieces.append(piece)
        if size > largest:
            raise TeacherError(f"{response.url} answers with more than {largest:,} bytes; no more are read.")
    if expected is not None and size < expected:
        raise http.client.IncompleteRead(b"".join(pieces), expected - size)
    return b"".join(pieces)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _listed(answer: dict[str, Any]) -> str:
    return _shortened(", ".join(map(repr, answer))) or "an empty object"


def _shortened(text: str) -> str:
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= 100 else text[:99] + "…"
