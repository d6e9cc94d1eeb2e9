"""A state holds all that goes on: a resumed run ends with the very bits of one without interruption."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bridge.errors import RunError
from bridge.runs import RunFolder
from tests.torch_aip.helpers import Foreign, a_network
from torch_aip import Distiller, single_image_loader
from torch_aip.optimizers import make_optimizer, schedule_of
from torch_aip.run import SaveRun, restore_arrays, state_arrays

STEPS, BATCH = 3, 8


def make_distiller(optimizer, student=None):
    torch.manual_seed(0)
    student = Foreign() if student is None else student  # with dropout
    student.unused = nn.Parameter(torch.ones(2))  # no loss depends on it: it has no gradient and no state
    distiller = Distiller(student, a_network(seed=1), tau_squared=True)
    distiller.compile(
        make_optimizer(student.parameters(), optimizer, 0.05),
        schedule=schedule_of("cosine", 9), ema=0.9, clip_norm=1.0,
    )  # fmt: skip
    return distiller


def train(folder, optimizer, epochs, resume=False):
    distiller = make_distiller(optimizer)
    with RunFolder.start(folder, {}, {}, {}, resume=resume) as run:
        state = run.load_state()
        step = 0 if state is None else state.step
        if state is not None:
            restore_arrays(distiller, state.arrays)
            distiller.average.steps = state.meta["averaged_steps"]
        views = single_image_loader(
            "sklearn:china.jpg", image_size=8, batch_size=BATCH, views=STEPS * BATCH, start_step=step
        )
        saving = SaveRun(run, distiller, STEPS)
        torch.rand(5 * resume)  # as if something else had drawn from the same generator
        saving.begin(step)
        distiller.fit(views, epochs, initial_epoch=step // STEPS, callbacks=[saving], verbose=False)
        saving.close()
    return state_arrays(distiller)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_resumed_run_ends_with_the_same_bits(optimizer, tmp_path):
    whole = train(tmp_path / "whole", optimizer, 3)
    train(tmp_path / "cut", optimizer, 1)
    resumed = train(tmp_path / "cut", optimizer, 3, resume=True)
    assert {name.partition("/")[0] for name in whole} == {"student", "average", "optimizer"}
    assert set(whole) == set(resumed) and all(np.array_equal(whole[name], resumed[name]) for name in whole)


def test_the_state_of_another_network_or_optimizer_is_refused():
    arrays = state_arrays(make_distiller("adam"))
    for other in (make_distiller("adam", a_network()), make_distiller("adam")):
        other._average = None
        with pytest.raises(RunError, match="does not fit the student and optimizer"):
            restore_arrays(other, arrays)
