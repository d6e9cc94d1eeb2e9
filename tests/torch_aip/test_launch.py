"""Processes that `torchrun` starts learn what one does alone, and go on after one is killed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from bridge.config import SweepConfig, TrainTeacherConfig
from bridge.errors import ConfigError
from tests.conftest import ROOT
from torch_aip import cli, launch
from torch_aip.sweep import sweep
from torch_aip.train_teacher import train_teacher

# A student without BatchNorm, trained by each of the processes; the first says what came out.
TRAIN = """
import json, os, sys
import numpy as np
import torch
from torch import distributed
from bridge.datum.mixing import Mixing
from tests.torch_aip.helpers import a_network
from tests.torch_aip.test_distiller import Linear, weights_of
from torch_aip import Distiller, single_image_loader
from torch_aip.feed import feed
from torch_aip.launch import launched

torch.set_num_threads(1)
with launched() as world:
    views = single_image_loader("sklearn:china.jpg", image_size=8, batch_size=64, views=192)
    distiller = Distiller(Linear(2), Linear(1), mixing=Mixing("both", 1.0, "sample"), tau_squared=True)
    distiller.compile(torch.optim.SGD(distiller.student.parameters(), 0.1), accumulate=int(sys.argv[2]))
    history = distiller.fit(views, epochs=2, verbose=False)
    steps = feed(views, distiller.mixing, 0, 0, (world.rank, world.size))
    mine = np.stack([next(steps).views.numpy() for _ in range(3)])
    shown = [mine]
    if world.size > 1:
        shown = [None] * world.size
        distributed.all_gather_object(shown, mine)
    normed = Distiller(a_network(seed=2), a_network(seed=1), mixing="none")
    normed.compile(ema=0.9)
    normed.fit(views, verbose=False)
    statistics = [np.concatenate([kept.numpy().ravel() for kept in model.buffers()])
                  for model in (normed.student, normed.averaged)]
    np.savez(f"{sys.argv[1]}-{world.rank}.npz", weights=weights_of(distiller.student), views=np.concatenate(shown, 1),
             statistics=np.stack(statistics))
    if world.is_first:
        print(json.dumps(history))
"""
# The program itself, one of whose processes ends itself with SIGKILL after an epoch.
KILLED = """
import os, signal, sys
import torch_aip.distill as module
from torch_aip.cli import main

class Fatal(module.SaveRun):
    def __call__(self, epoch, logs):
        super().__call__(epoch, logs)
        if (os.environ["RANK"], epoch) == ("1", int(sys.argv[1])):
            os.kill(os.getpid(), signal.SIGKILL)

module.SaveRun = Fatal
sys.exit(main(sys.argv[2:]))
"""


def run(program, processes, *arguments):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words = [sys.executable, *(launcher if processes else []), str(program), *map(str, arguments)]
    import os

    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)


def test_two_processes_learn_what_one_does_and_no_view_is_drawn_twice(tmp_path):
    program = tmp_path / "train.py"
    program.write_text(TRAIN)
    told, learned = {}, {}
    for processes, parts in ((0, 1), (2, 2)):
        out = tmp_path / str(processes)
        done = run(program, processes, out, parts)
        assert done.returncode == 0, done.stderr
        told[processes] = json.loads(done.stdout.splitlines()[-1])
        learned[processes] = [dict(np.load(path)) for path in sorted(tmp_path.glob(f"{processes}-*.npz"))]
    assert len(learned[2]) == 2
    for name in ("weights", "statistics"):  # those of BatchNorm, also of the moving average
        assert np.array_equal(learned[2][0][name], learned[2][1][name])
    alone, together = learned[0][0], learned[2][0]
    assert np.allclose(together["weights"], alone["weights"], atol=1e-6)
    for name in ("loss", "agreement"):
        assert np.allclose(told[2][name], told[0][name], rtol=1e-5)
    assert np.array_equal(together["views"], alone["views"])  # all rows of every step, each once and in its place
    assert len(np.unique(alone["views"].reshape(192, -1), axis=0)) == 192


def test_after_one_process_is_killed_all_go_on_and_end_where_they_would_have(teacher, tmp_path):
    program, module = tmp_path / "killed.py", tmp_path / "main.py"
    program.write_text(KILLED)
    module.write_text("import sys\nfrom torch_aip.cli import main\nsys.exit(main())\n")

    def line(out):
        return (
            f"distill --teacher {teacher} --out {out} --image sklearn:china.jpg --student small_cnn --student-width 2 "
            "--views 96 --batch-size 32 --epochs 3 --deterministic --threads 1"
        ).split()

    whole = run(module, 2, *line(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("The student saw 288 views") == 1
    died = run(program, 2, 1, *line(tmp_path / "killed"))
    assert died.returncode != 0 and not (tmp_path / "killed" / "result.json").exists()
    resumed = run(module, 2, *line(tmp_path / "killed"), "--resume")
    assert resumed.returncode == 0 and resumed.stdout.count("Resuming at step") == 1, resumed.stderr
    from safetensors.numpy import load_file

    first, second = (load_file(tmp_path / name / "student" / "weights.safetensors") for name in ("whole", "killed"))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    refused = run(module, 0, *line(tmp_path / "killed"), "--resume", "--temperature", "2")
    assert refused.returncode == 2 and "world_size was 2 and is now 1" in refused.stderr


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with (
        pytest.raises(ConfigError, match=r"8 processes on this host, which has 2 GPUs.*--nproc-per-node 2"),
        launch.launched(),
    ):
        pass


def test_statistics_of_one_process_alone_stay_as_they_are():
    norm = torch.nn.BatchNorm2d(2)
    norm.running_mean.fill_(3.0)
    launch.average_statistics(torch.nn.Sequential(norm))
    assert norm.running_mean.tolist() == [3.0, 3.0]


@pytest.mark.parametrize("run_command", [lambda: sweep(SweepConfig()), lambda: train_teacher(TrainTeacherConfig())])
def test_what_one_process_does_is_refused_in_several(run_command, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="runs in one process: start it without torchrun"):
        run_command()


@pytest.mark.parametrize(
    ("said", "lost"), [("[/a/gloo/pair.cc:5] Read error: reset. This is", True), ("shapes", False)]
)
def test_only_what_comes_of_a_lost_process_is_called_so(said, lost, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError(said)

    monkeypatch.setattr(cli, "run_program", fail)
    with contextlib.nullcontext() if lost else pytest.raises(RuntimeError, match=said):
        assert cli.main([]) == 2
    assert ("another process was lost (Read error: reset)." in capsys.readouterr().err) == lost
