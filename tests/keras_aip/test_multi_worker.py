"""Two hosts, as two processes here: they learn the same, and go on after one is killed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT

# The program itself, which also writes down what this host's student holds after the last epoch, and can kill itself.
HOST = """
import os, signal, sys
import numpy as np
import keras_aip.distill as module
from keras_aip.cli import main

dump, killed_after = sys.argv[1], int(sys.argv[2])

class Watched(module.SaveRun):
    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        np.savez(dump, *[weight.numpy() for weight in self.model.student.weights])
        if epoch == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)

module.SaveRun = Watched
sys.exit(main(sys.argv[3:]))
"""


def two_hosts(teacher, out, *more, killed_after=(-1, -1)):
    """Exit codes, what was said, and the weights of both hosts."""
    line = (
        f"distill --teacher {teacher} --out {out} --image sklearn:china.jpg --student small_cnn --student-width 2 "
        "--views 96 --batch-size 32 --epochs 3 --strategy multi_worker --deterministic --threads 1"
    )
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    addresses = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    hosts = []
    for index in range(2):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {
            **os.environ,
            "TF_CONFIG": json.dumps(task),
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        words = [sys.executable, "-c", HOST, f"{out}-{index}.npz", str(killed_after[index]), *line.split(), *more]
        hosts.append(subprocess.Popen(words, env=environment, stdout=-1, stderr=-1, text=True))
    try:
        said = ["".join(host.communicate(timeout=200)) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    weights = []
    for index in range(2):
        assert os.path.exists(f"{out}-{index}.npz"), said[index]
        with np.load(f"{out}-{index}.npz") as file:
            weights.append(np.concatenate([file[name].ravel() for name in file.files]))
    return [host.returncode for host in hosts], said, weights


@pytest.fixture(scope="module")
def uninterrupted(teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, *two_hosts(teacher, out)


def test_two_hosts_end_with_identical_replicas(uninterrupted):
    out, codes, said, (first, second) = uninterrupted
    assert codes == [0, 0], said
    assert np.array_equal(first, second)
    result = json.loads((out / "result.json").read_text())
    assert result["views"] == 3 * 96 and len(list(out.glob("student/*"))) == 2
    assert "The student saw 288 views" in said[0] and "The student saw" not in said[1]


def test_after_one_host_is_killed_both_go_on_and_end_where_they_would_have(uninterrupted, teacher, tmp_path):
    out = tmp_path / "run"
    codes, said, _ = two_hosts(teacher, out, killed_after=(-1, 1))
    assert codes == [2, -9], said
    assert "Another host was lost" in said[0] and "Traceback" not in said[0] and not (out / "result.json").exists()
    codes, said, (first, second) = two_hosts(teacher, out, "--resume")
    assert codes == [0, 0], said
    assert "Resuming at step" in said[0] and np.array_equal(first, second)
    # Statistics that are kept per host are saved as their mean, which rounds.
    assert np.allclose(first, uninterrupted[3][0], rtol=1e-5, atol=1e-7)
