"""X3D against the module whose checkpoints it loads: pytorchvideo's, where it is installed.

It is no requirement, for it is no longer maintained: ``pip install --no-deps pytorchvideo fvcore iopath parameterized
yacs tabulate termcolor portalocker`` beside PyTorch is enough for this.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from tests.torch_aip.helpers import clips
from torch_aip import compat, models

if importlib.util.find_spec("pytorchvideo") is None:
    pytest.skip("pytorchvideo is not installed", allow_module_level=True)
compat.torchvision()  # pytorchvideo imports it
from pytorchvideo.models.x3d import create_x3d  # noqa: E402

# As pytorchvideo's hub builds them, and as the reference code builds its student.
BUILT = {
    "x3d_xs": {"input_clip_length": 4, "input_crop_size": 160},
    "x3d_s": {"input_clip_length": 13, "input_crop_size": 160},
    "x3d_m": {"input_clip_length": 16, "input_crop_size": 224},
    "x3d_l": {"input_clip_length": 16, "input_crop_size": 312, "depth_factor": 5.0},
    "x3d_xs_e": {
        "input_clip_length": 4, "input_crop_size": 160, "width_factor": 5.0, "depth_factor": 3.0, "dropout_rate": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BUILT)
def test_x3d_is_that_of_pytorchvideo(name: str, tmp_path) -> None:
    twin = create_x3d(model_num_class=400, head_activation=None, **BUILT[name])
    model = models.build(name, classes=400)
    state = twin.state_dict()
    assert list(model.state_dict()) == list(state)
    for key, value in state.items():  # as drawn: its first weights have this spread too
        ours = model.state_dict()[key]
        assert ours.shape == value.shape
        if value.numel() > 5000:
            assert abs(float(ours.std() / value.std()) - 1) < 0.1, key
        elif value.is_floating_point() and value.ndim == 1:
            assert torch.equal(ours, value), key
    _disturb(twin)
    torch.save({"model_state": twin.state_dict()}, tmp_path / f"{name}.pyth")  # as the checkpoints are published
    models.load_weights(model.eval(), tmp_path / f"{name}.pyth")
    frames, side, _ = models.input_size_of(model)
    x = clips(1, frames, side)
    with torch.no_grad():
        expected, answer = twin((x - 0.45) / 0.225), model(x)
    assert answer.shape == (1, 400) and expected.std() > 0.1
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-5)


def _disturb(model: nn.Module) -> None:
    """Random scales and statistics, so that forgotten ones show; logits of the size that trained networks give."""
    torch.manual_seed(0)
    for part in model.eval().modules():
        if isinstance(part, nn.BatchNorm3d):
            low = 0.1 if getattr(part, "block_final_bn", False) else 0.5
            nn.init.uniform_(part.weight, low, 3 * low)
            nn.init.uniform_(part.bias, -0.5, 0.5)
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 1.5)
    nn.init.normal_(model.blocks[-1].proj.weight, std=0.1)
    nn.init.uniform_(model.blocks[-1].proj.bias, -0.1, 0.1)
