"""Teachers that are asked: retries, budget, the log that survives a kill, and what a bad endpoint is told."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from bridge.errors import AipError, ConfigError, RunError, TeacherError
from bridge.teachers.answer_log import LOG, AnswerLog
from bridge.teachers.asking import Asked, NoAnswer, check_budget, checked
from bridge.teachers.remote import KEY_VARIABLE, Endpoint, behind
from bridge.teachers.serve import address_of, images_of, server_of
from tests.bridge.test_runs import full_disk
from tests.conftest import ROOT

DESCRIPTION = {"classes": 5, "outputs": "labels", "input_size": [4, 4]}


@contextlib.contextmanager
def running(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield address_of(server)
    finally:
        server.shutdown()
        server.server_close()


def serving(answer, **description):
    return running(server_of(answer, {**DESCRIPTION, **description}))


def brightness(images):
    """The class of an image by its mean, so that every answer is known."""
    return (images.reshape(len(images), -1).mean(-1) * 5 / 256).astype(int)


@contextlib.contextmanager
def saying(*replies, description=None):
    """An endpoint that answers each POST with the next (status, headers, body, seconds), the last one ever again."""
    left = list(replies)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.say(*(description or (200, {}, json.dumps(DESCRIPTION).encode(), 0)))

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.say(*(left.pop(0) if len(left) > 1 else left[0]))

        def say(self, status, headers, body, seconds=0):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                for k in range(0, len(body), 4):  # by drips
                    self.wfile.write(body[k : k + 4] if seconds else body)
                    if not seconds:
                        break
                    time.sleep(seconds)

        def log_message(self, *_):
            pass

    with running(HTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield url


@contextlib.contextmanager
def raw(content, drips=()):
    """An endpoint that sends these bytes, whatever it is asked, and then these others, one after the other."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            with contextlib.suppress(OSError):
                self.request.recv(1 << 16)
                self.wfile.write(content)
                for drip in drips:
                    time.sleep(0.02)
                    self.wfile.write(drip)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    with running(server) as url:
        yield url


def pictures(count, seed=0):
    return np.random.default_rng(seed).random((count, 4, 4, 3), dtype=np.float32)


def one_hot(labels, classes=5):
    return np.eye(classes, dtype=np.float32)[labels]


def test_an_endpoint_answers_as_the_function_behind_it():
    images = pictures(100)
    with serving(brightness, class_names=list("abcde"), max_batch=7) as url:
        asked, about = behind(url)
        assert about["classes"] == 5 and about["input_size"] == (4, 4) and about["outputs"] == "labels"
        assert about["class_names"] == list("abcde") and len(about["digest"]) == 64
        expected = one_hot(brightness(np.rint(images * 255)))
        np.testing.assert_array_equal(asked.scores(images, "labels", 5), expected)
    table = np.random.default_rng(1).dirichlet(np.ones(5), 9)
    with serving(lambda x: table[: len(x)], outputs="probabilities", dtype="float32") as url:
        asked, about = behind(url)
        np.testing.assert_array_equal(asked.scores(pictures(9), "probabilities", 5), table.astype(np.float32))


def test_nothing_is_asked_twice_also_after_a_torn_line(tmp_path):
    seen = []

    def answer(images):
        seen.extend(image.tobytes() for image in images)
        return brightness(images)

    def fresh():
        asked = Asked(answer, dtype="uint8", max_batch=3)
        asked.remember(tmp_path)
        return asked

    images = pictures(10)
    expected = one_hot(brightness(np.rint(images * 255)))
    fresh().scores(images[:6], "labels", 5)
    content = (tmp_path / LOG).read_bytes()
    assert content.count(b"\n") == 6
    twice = np.concatenate([images, images])
    np.testing.assert_array_equal(fresh().scores(twice, "labels", 5), np.concatenate([expected] * 2))
    assert len(seen) == len(set(seen)) == 10
    for cut in (1, 2, 5, 12, 40):  # whatever of the last line reached the disk, only its question is asked again
        (tmp_path / LOG).write_bytes(content[:-cut])
        seen.clear()
        again = fresh()
        np.testing.assert_array_equal(again.scores(images[:6], "labels", 5), expected[:6])
        assert len(seen) == (cut > 1) and again.spent == 6  # a line that lacks its end alone is whole
        assert fresh().spent == 6
    (tmp_path / LOG).write_bytes(content.replace(content[40:42], b"zz", 1))
    assert AnswerLog(tmp_path).answers == 5


def test_probabilities_come_back_from_the_log_bit_for_bit(tmp_path):
    table = np.random.default_rng(1).dirichlet(np.ones(5), 4).astype(np.float32)
    asked = Asked(lambda x: table[: len(x)])
    asked.remember(tmp_path / "new" / "folder")
    first = asked.scores(pictures(4), "probabilities", 5)
    later = Asked(lambda x: pytest.fail("asked again"))
    later.remember(tmp_path / "new" / "folder")
    np.testing.assert_array_equal(later.scores(pictures(4), "probabilities", 5), first)
    np.testing.assert_array_equal(first, table)


def test_a_full_disk_is_said_and_what_was_answered_is_kept(tmp_path):
    log = AnswerLog(tmp_path)
    log.append([("ab" * 16, "3")])
    with full_disk(len((tmp_path / LOG).read_bytes()) + 60), pytest.raises(RunError, match="free some disk space"):
        log.append((f"{k:032x}", "1") for k in range(100))
    after = AnswerLog(tmp_path)
    assert after.get("ab" * 16) == "3" and after.answers < 5
    after.append([("cd" * 16, "4")])
    assert AnswerLog(tmp_path).get("cd" * 16) == "4"


def test_a_killed_writer_leaves_whole_answers(tmp_path):
    program = (
        "import sys, numpy as np\n"
        "from bridge.teachers.answer_log import AnswerLog\n"
        "log = AnswerLog(sys.argv[1])\n"
        "for k in range(10**6):\n"
        "    log.append((f'{8 * k + j:032x}', '7') for j in range(8))\n"
        "    print(8 * k + 8, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, tmp_path], cwd=ROOT, stdout=subprocess.PIPE)
    for _ in range(20):
        writer.stdout.readline()
    writer.kill()
    said = [int(line) for line in writer.stdout.read().split()] or [160]
    writer.wait()
    log = AnswerLog(tmp_path)
    assert log.answers >= said[-1] and all(log.get(f"{k:032x}") == "7" for k in range(said[-1]))


def test_two_writers_of_one_log_never_read_each_others_answers(tmp_path):
    logs = [AnswerLog(tmp_path) for _ in range(2)]

    def write(log, first):
        for k in range(first, 200, 2):
            log.append([(f"{k:032x}", f"{k}")])

    threads = [threading.Thread(target=write, args=(log, first)) for first, log in enumerate(logs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for first, log in enumerate(logs):
        assert all(log.get(f"{k:032x}") == f"{k}" for k in range(first, 200, 2))
    assert AnswerLog(tmp_path).answers == 200


def test_an_answer_is_checked_when_it_is_read(tmp_path):
    log = AnswerLog(tmp_path)
    log.append([("ab" * 16, "3"), ("cd" * 16, "4")])
    first, second = (tmp_path / LOG).read_bytes().splitlines(keepends=True)
    (tmp_path / LOG).write_bytes(second + first.replace(b" 3 ", b" 2 "))
    assert log.get("ab" * 16) is None and log.get("cd" * 16) is None  # of another key, damaged
    log.append([("ab" * 16, "3")])
    assert log.get("ab" * 16) == "3"


def test_the_name_of_a_new_log_is_on_the_disk_with_its_first_answer(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("bridge.teachers.answer_log.sync_folder", synced.append)
    log = AnswerLog(tmp_path / "new")
    log.append([("ab" * 16, "3")])
    assert synced == [tmp_path / "new", tmp_path]
    log.append([("cd" * 16, "3")])
    assert len(synced) == 2


def test_it_is_asked_again_with_longer_waits_and_then_given_up():
    waits, calls = [], []

    def answer(images):
        calls.append(len(images))
        if len(calls) < 4:
            raise ConnectionResetError("reset")
        return brightness(images * 255)

    asked = Asked(answer, wait=1.0, longest_wait=3.0, sleep=waits.append, seed=3)
    with pytest.warns(RuntimeWarning, match="failed .ConnectionResetError: reset.; asking again"):
        asked.scores(pictures(2), "labels", 5)
    assert calls == [2] * 4 and 0.5 <= waits[0] <= 1 <= waits[1] <= 2 and 1.5 <= waits[2] <= 3
    same = []
    calls.clear()
    with pytest.warns(RuntimeWarning):
        Asked(answer, wait=1.0, longest_wait=3.0, sleep=same.append, seed=3).scores(pictures(2), "labels", 5)
    assert same == waits

    def never(images):
        raise NoAnswer("answers 503 (Service Unavailable)", 2.5)

    waits.clear()
    with pytest.warns(RuntimeWarning), pytest.raises(TeacherError, match=r"answers 503.*asked 3 times.*is kept"):
        Asked(never, attempts=3, wait=0.1, sleep=waits.append).scores(pictures(1), "labels", 5)
    assert waits == [2.5, 2.5]
    with pytest.raises(TeacherError, match=r"failed .ZeroDivisionError"):
        Asked(lambda x: 1 // 0, sleep=pytest.fail).scores(pictures(1), "labels", 5)


def test_the_budget_counts_answers_and_never_those_in_the_log(tmp_path):
    asked = Asked(lambda x: brightness(x * 255), budget=5)
    asked.remember(tmp_path)
    asked.scores(pictures(4), "labels", 5)
    asked.scores(pictures(4), "labels", 5)
    with pytest.raises(TeacherError, match=r"has answered 4 of the 5 images .* 2 more .*--query-budget 6"):
        asked.scores(pictures(6), "labels", 5)
    assert asked.spent == 4
    check_budget(None, 10, 32)
    check_budget(320, 10, 32)
    with pytest.raises(ConfigError, match=r"320 views .10 steps of 32.; the query budget is 100.*budget of 320, or 3 "):
        check_budget(100, 10, 32)
    with pytest.raises(ConfigError, match=r"and 50 images .* 370 in all.*--query-budget 370, or --views 32\."):
        check_budget(100, 10, 32, 50, "--views")
    with pytest.raises(ConfigError, match="or a smaller batch size"):
        check_budget(20, 10, 32, 0, "--steps-per-epoch")


BAD = {
    "HTML": (b"<html><body>Welcome!</body></html>", "answers with '<html><body>Welcome!.*no JSON object"),
    "a list": (b"[1, 2]", "no JSON object"),
    "other words": (b'{"result": [1, 2]}', "answers with 'result'.*expected"),
    "words": (b'{"labels": ["cat", "dog"]}', "no numbers"),
    "ragged rows": (b'{"labels": [[1], [0, 1]]}', "no numbers"),
    "another kind": (
        b'{"probabilities": [[1, 0], [0, 1]]}',
        "describes its answers as labels, and gives probabilities",
    ),
    "no number": (b'{"labels": [NaN, 1]}', "the label nan"),
    "too many": (b'{"labels": [1, 2, 3]}', r"shape \[3\] for 2 images"),
    "beyond 64 bits": (b'{"labels": [1%0100d, 1]}' % 0, "no numbers"),
    "too few": (b'{"labels": [1]}', r"shape \[1\] for 2 images"),
    "out of range": (b'{"labels": [1, 5]}', "the label 5; it has 5 classes, numbered from 0 to 4"),
    "negative": (b'{"labels": [-1, 0]}', "the label -1"),
    "between": (b'{"labels": [0.5, 0]}', "the label 0.5"),
    "deep": (b"[" * 100_000, "no JSON object"),
    "bytes": (bytes(range(128, 256)), "no JSON object"),
}


@pytest.mark.parametrize("what", BAD)
def test_nonsense_is_refused_in_one_sentence_and_never_asked_again(what):
    body, message = BAD[what]
    with saying((200, {}, body)) as url:
        asked, about = behind(url)
        with pytest.raises(TeacherError, match=message) as caught:
            asked.scores(pictures(2), about["outputs"], about["classes"])
        assert url in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]], r"shape \[2, 3\] for 2 images; expected \[2, 2\].*classes have changed"),
        ([[float("nan"), 1], [0, 1]], "NaN"),
        ([[3.0, -2.0], [0, 1]], "Are they logits"),
        ([[0.5, 0.9], [0, 1]], "sum to 1.4"),
    ],
)
def test_probabilities_must_be_such(rows, message):
    with saying((200, {}, json.dumps({"probabilities": rows}).encode())) as url:
        endpoint = Endpoint(url)
        with pytest.raises(TeacherError, match=message):
            checked(endpoint(pictures(2)), 2, "probabilities", 2, "it")


def test_trouble_that_passes_costs_time_alone():
    fine = (200, {}, b'{"labels": [1, 2]}')
    waits = []
    with saying((500, {}, b""), (503, {"Retry-After": "2"}, b""), (429, {}, b'{"error": "slow down"}'), fine) as url:
        asked = Asked(Endpoint(url), name=url, wait=0.1, sleep=waits.append)
        with pytest.warns(RuntimeWarning) as warned:
            np.testing.assert_array_equal(asked.scores(pictures(2), "labels", 5), one_hot([1, 2]))
    assert (
        len(waits) == 3 and waits[1] == 2 and "429" in str(warned[2].message) and "slow down" in str(warned[2].message)
    )


def test_the_slow_and_the_absent_are_told_apart():
    drips = (200, {}, b'{"labels": [1, 2]}', 0.1)  # each in time
    with saying(drips) as url, pytest.raises(NoAnswer, match=r"does not answer within 0\.2 s"):
        Endpoint(url, timeout=0.2)(pictures(2))
    with pytest.raises(TeacherError, match=r"cannot be reached .*[Rr]efused.*Check the address"):
        behind(url)
    asked = Asked(Endpoint(url), name=url, attempts=2, wait=0.01)
    with pytest.warns(RuntimeWarning), pytest.raises(TeacherError, match=r"cannot be reached.*asked 2 times"):
        asked.scores(pictures(1), "labels", 5)


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b'{"detail": "no"}', b'{"error": {"code": 1}}', b"[" * 60_000, bytes(99_999)], ids=len
)
def test_whatever_an_error_holds_its_status_is_told(body):
    with saying((502, {}, body)) as url, pytest.raises(NoAnswer, match=r"^answers 502 \(Bad Gateway\)$"):
        Endpoint(url)(pictures(2))
    with saying((404, {}, body)) as url, pytest.raises(TeacherError, match=r"with 404 \(Not Found\)\.$"):
        Endpoint(url)(pictures(2))


def test_an_error_that_drips_holds_nobody_up():
    with saying((500, {}, b'{"error": "' + bytes(400), 0.05)) as url:
        began = time.monotonic()
        with pytest.raises(NoAnswer, match="answers 500"):
            Endpoint(url, timeout=0.2)(pictures(2))
        assert time.monotonic() - began < 3


DRIPPING = {
    "a status line": (b"HTTP/1.1 2", b"0"),
    "a header": (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
    "nothing but Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "the size of a piece": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
}


@pytest.mark.parametrize("what", DRIPPING)
def test_whatever_drips_ends_with_the_timeout(what):
    first, drip = DRIPPING[what]
    with raw(first, [drip] * 75) as url:
        began = time.monotonic()
        with pytest.raises(NoAnswer, match=r"does not answer within 0\.2 s"):
            Endpoint(url, timeout=0.2)(pictures(2))
        assert time.monotonic() - began < 1


@pytest.mark.parametrize("status", [b"404", b"503"])
def test_the_words_of_a_status_are_shown_short_and_plain(status):
    reason = b"\x1b[31mNo\x07 " + b"w" * 60_000
    words = rf"{status.decode()} \(\[31mNo www"
    with (
        raw(b"HTTP/1.1 " + status + b" " + reason + b"\r\nContent-Length: 0\r\n\r\n") as url,
        pytest.raises((NoAnswer, TeacherError), match=words) as caught,
    ):
        Endpoint(url)(pictures(2))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_who_is_busy_at_first_is_not_taken_for_a_wrong_address():
    busy = (429, {"Retry-After": "7"}, b'{"error": "slow\\ndown"}')
    with saying(busy, description=busy) as url, pytest.raises(TeacherError) as caught:
        behind(url)
    assert str(caught.value) == f"{url} answers 429 (Too Many Requests): slow down. Start again once it answers."


@pytest.mark.parametrize("length", [True, False])
def test_a_huge_answer_is_not_read(length, monkeypatch):
    monkeypatch.setattr("bridge.teachers.remote._LARGEST_ANSWER", 100_000)
    body = b'{"labels": [0' + b",0" * 100_000 + b"]}"
    with raw(
        b"HTTP/1.0 200 OK\r\n" + (b"Content-Length: %d\r\n" % len(body) if length else b"") + b"\r\n" + body
    ) as url:
        words = "answers with 200,015 bytes; at most 100,000" if length else "answers with more than 100,000 bytes"
        with pytest.raises(TeacherError, match=words):
            Endpoint(url)(pictures(2))


@pytest.mark.parametrize(
    "what",
    [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x00\xff" * 50 + b"\r\n\r\n", b"HTTP/1.0 200 OK\r\nX: " + b"a" * 99_999],
    ids=len,
)
def test_what_speaks_no_http_is_told_apart_from_who_is_absent(what):
    with (
        raw(what) as url,
        pytest.raises(TeacherError, match=r"answers with what is no HTTP .* Check the address") as caught,
    ):
        behind(url)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_that_nobody_signed_is_named_at_once(tmp_path, monkeypatch):
    own = tmp_path / "own.pem"
    line = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 -subj /CN=127.0.0.1"
    line += f" -addext subjectAltName=IP:127.0.0.1 -keyout {own} -out {tmp_path / 'part.pem'}"
    subprocess.run(line.split(), check=True, capture_output=True)
    own.write_text(own.read_text() + (tmp_path / "part.pem").read_text())
    server = server_of(brightness, DESCRIPTION)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(brightness) as plain, pytest.raises(TeacherError, match="https failed: WRONG_VERSION_NUMBER"):
        behind(plain.replace("http://", "https://"))
    with running(server) as plain:
        url = plain.replace("http://", "https://")
        with pytest.raises(TeacherError, match=r"certificate that is not trusted .*self.signed.*SSL_CERT_FILE"):
            behind(url)
        with pytest.raises(TeacherError, match="Check the address"):
            behind(plain)
        monkeypatch.setenv("SSL_CERT_FILE", str(own))
        assert behind(url)[0].scores(pictures(1), "labels", 5).shape == (1, 5)


def test_an_answer_that_is_cut_short_may_come_another_time():
    fine = b'{"labels": [1, 2]}'
    # The first length is a lie: the connection ends before.
    with saying((200, {"Content-Length": "30"}, fine), (200, {}, fine)) as url:
        asked = Asked(Endpoint(url), name=url, wait=0.01)
        with pytest.warns(RuntimeWarning, match="breaks off in the middle of an answer"):
            np.testing.assert_array_equal(asked.scores(pictures(2), "labels", 5), one_hot([1, 2]))


@pytest.mark.parametrize("code", [300, 302])
def test_an_address_that_only_the_network_finds_wrong_is_said(code):
    with pytest.raises(TeacherError, match="Check the address"):
        behind("http://a..b:8000")
    broken = (code, {"Location": "http://[secret"}, b"")
    with saying(broken, description=broken) as url, pytest.raises(TeacherError, match="redirects") as caught:
        behind(url)
    assert "secret" not in str(caught.value)


def test_redirects_are_named_and_not_followed():
    elsewhere = (307, {"Location": "http://elsewhere.test/x?token=secret"}, b"")
    words = r"redirects to http://elsewhere\.test/x,"
    with saying(elsewhere) as url, pytest.raises(TeacherError, match=words) as caught:
        behind(url)[0].scores(pictures(1), "labels", 5)
    assert "secret" not in str(caught.value)
    login = (302, {"Location": "/login"}, b"")
    with saying(login, description=login) as url, pytest.raises(TeacherError, match="redirects"):
        behind(url)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"outputs": "labels"}, "classes None"),
        ({"classes": True, "outputs": "labels"}, "classes True"),
        ({"classes": 3, "outputs": "logits"}, "outputs 'logits'; expected one of labels, probabilities"),
        ({"classes": 3, "outputs": "labels", "class_names": ["a"]}, "expected 3 names"),
        ({"classes": 3, "outputs": "labels", "input_size": [4]}, "input_size"),
        ({"classes": 3, "outputs": "labels", "dtype": "int8"}, "dtype 'int8'"),
        ({"classes": 3, "outputs": "labels", "max_batch": 0}, "max_batch 0"),
        ({"classes": 3, "outputs": "labels", "digest": 7}, "digest 7"),
    ],
)
def test_a_description_must_make_sense(said, message):
    description = (200, {}, json.dumps(said).encode())
    with saying(description, description=description) as url, pytest.raises(TeacherError, match=message):
        behind(url)


def test_keys_travel_to_the_endpoint_and_nowhere_else(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "s3cret-key")
    with serving(brightness) as url:
        assert behind(url)[0].scores(pictures(1), "labels", 5).shape == (1, 5)
        monkeypatch.setenv(KEY_VARIABLE, "another")
        with pytest.raises(TeacherError, match=f"does not accept the key in .*{KEY_VARIABLE}") as caught:
            behind(url)
        assert "another" not in str(caught.value)
        monkeypatch.delenv(KEY_VARIABLE)
        with pytest.raises(TeacherError, match=f"wants a key; put it into .*{KEY_VARIABLE}"):
            behind(url)
    monkeypatch.setenv(KEY_VARIABLE, "s3cret-key")
    for url in ("http://example.test/x", "https://me:s3cret-key@example.test", "https://example.test/?key=s3cret-key"):
        with pytest.raises(ConfigError) as caught:
            Endpoint(url)
        assert "s3cret" not in str(caught.value)
    monkeypatch.setenv(KEY_VARIABLE, "s3cret\nkey")
    with pytest.raises(ConfigError) as caught:
        Endpoint("http://127.0.0.1:1")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:99999", "http://[::1", "http://127.0.0.1/a b", "ftp://x"])
def test_addresses_that_are_none_are_refused(url):
    with pytest.raises(AipError):
        Endpoint(url)


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def test_the_server_answers_a_wrong_question_with_400_and_words():
    good = npy(np.zeros((2, 4, 4, 3), np.uint8))
    wrong = {
        b"no picture": "no .npy file",
        good[:-1]: "bytes of pixels",
        npy(np.zeros((2, 4, 4), np.uint8)): "expected an .npy",
        npy(np.zeros((2, 4, 4, 3))): "float64",
        npy(np.zeros((2, 5, 4, 3), np.uint8)): "4 × 4",
        npy(np.full((2, 4, 4, 3), 2, np.float32)): r"in [0, 1]",
        npy(np.array([[[[{}, 1, 2]]]]), allow_pickle=True): "expected an .npy",
        good.replace(b"(2, 4, 4, 3)", b"(9**9**9)   "): "no .npy file",
    }
    with serving(brightness) as url:
        for body, words in wrong.items():
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=5)
            with caught.value as error:
                assert error.code == 400 and words in json.load(error)["error"], body
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{url}/elsewhere", timeout=5)
        assert caught.value.code == 404
        caught.value.close()
        with urllib.request.urlopen(urllib.request.Request(url, data=good), timeout=5) as response:
            assert json.load(response) == {"labels": [0, 0]}
    np.testing.assert_array_equal(images_of(good), np.zeros((2, 4, 4, 3)))


def test_who_sends_much_is_refused_with_words_and_no_reset(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "s3cret-key")
    much = bytes(1 << 23)
    with serving(brightness, max_batch=7) as url:
        for path, headers, code in (
            ("", {}, 401),
            ("/elsewhere", {}, 404),
            ("", {"Authorization": "Bearer s3cret-key"}, 400),
        ):
            request = urllib.request.Request(url + path, data=much, headers=headers)
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=5)
            with caught.value as error:
                assert error.code == code
                assert code != 400 or "at most 5,440 bytes" in json.load(error)["error"]


def test_serve_refuses_in_one_message(tmp_path, monkeypatch):
    def said(*arguments):
        environment = {**os.environ, "AIP_TEACHERS": str(tmp_path)}
        line = [sys.executable, "-m", "bridge", "serve", *arguments]
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        return done.stderr

    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert "There is no teacher 'nobody'" in said("nobody")
    assert KEY_VARIABLE in said("nobody", "--host", "0.0.0.0")
    monkeypatch.setenv(KEY_VARIABLE, "s3cret-key")
    assert "There is no teacher 'nobody'" in said("nobody", "--host", "0.0.0.0")
