"""The student learns from the teacher's answers to the mixed pixels, alike in every way of running the step."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import torch_aip
from bridge.datum.mixing import Mixing, MixingNumbers, mixing_numbers
from bridge.errors import ConfigError, DatasetError, TeacherError
from tests.torch_aip.helpers import a_network, pixels
from torch_aip import Distiller, Teacher, losses, single_image_loader
from torch_aip.mixing import mix
from torch_aip.optimizers import make_optimizer, schedule_of, set_learning_rate

SIZE, ROWS = 8, 32
MIXING = Mixing("both", 1.0, "sample", block=8)


class Linear(nn.Module):
    """Without BatchNorm, so that a step is the same however its rows are cut."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.head = nn.Linear(3 * SIZE * SIZE, 3)
        with torch.no_grad():
            self.head.weight.normal_(0, 0.3, generator=generator)
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


def loader(batches: int = 3, rows: int = ROWS) -> list[Tensor]:
    return [pixels(rows, SIZE, seed) for seed in range(batches)]


def weights_of(model: nn.Module) -> np.ndarray:
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in model.parameters()])


def distilled(student: nn.Module, views, epochs: int = 2, mixing=MIXING, fit=None, **options) -> Distiller:
    distiller = Distiller(student, Linear(1), mixing=mixing, tau_squared=True, seed=5)
    optimizer = make_optimizer(student.parameters(), "sgd", 0.1)
    distiller.compile(optimizer, **options)
    distiller.history = distiller.fit(views, epochs, verbose=False, **(fit or {}))
    return distiller


def by_hand(student: nn.Module, batches: list[Tensor], epochs: int = 2) -> nn.Module:
    """The same steps, in the plainest way."""
    teacher, optimizer = Linear(1), torch.optim.SGD(student.parameters(), 0.1, momentum=0.9, nesterov=True)
    for step in range(epochs * len(batches)):
        numbers = mixing_numbers(MIXING, 5, step, ROWS)
        images = mix(batches[step % len(batches)], MixingNumbers(*map(torch.from_numpy, numbers)))
        with torch.no_grad():
            target = (teacher(images) / 8).softmax(-1)
        answer = (student(images) / 8).log_softmax(-1)
        loss = 64 * (target * (target.log() - answer)).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"accumulate": 4}], ids=str)
def test_every_way_of_running_takes_the_same_steps_as_by_hand(options):
    expected = weights_of(by_hand(Linear(2), loader()))
    assert np.allclose(weights_of(distilled(Linear(2), loader(), **options).student), expected, atol=1e-6)


def test_views_rendered_inside_the_step_teach_what_those_of_the_host_do():
    options = dict(image_size=SIZE, batch_size=ROWS, views=96)
    learned = [
        weights_of(distilled(Linear(2), single_image_loader("sklearn:china.jpg", render=where, **options)).student)
        for where in ("host", "device")
    ]
    # OpenCV 4 rounds positions, so pixels differ a little; another photo or other mixing would differ a lot
    assert np.abs(learned[0] - learned[1]).max() < 0.02 * np.abs(learned[0] - weights_of(Linear(2))).max()


def test_teacher_and_student_are_shown_the_mixed_pixels_and_the_teacher_is_left_as_it_was():
    seen: dict[str, list[Tensor]] = {"teacher": [], "student": []}
    teacher, student = a_network(seed=1), a_network(seed=2)
    before = copy.deepcopy(teacher.state_dict())
    for name, model in (("teacher", teacher), ("student", student)):
        model.register_forward_pre_hook(
            lambda _, arguments, name=name: seen[name].append(arguments[0].clone()), prepend=True
        )
    Distiller(student, teacher, mixing=MIXING, seed=5).fit(loader(2), verbose=False)
    for step, batch in enumerate(loader(2)):
        numbers = MixingNumbers(*map(torch.from_numpy, mixing_numbers(MIXING, 5, step, ROWS)))
        mixed = mix(batch, numbers)
        assert not torch.equal(mixed, batch)
        # the first call of each is the look at the first batch
        assert torch.equal(seen["teacher"][step + 1], mixed) and torch.equal(seen["student"][step + 1], mixed)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert not any(weight.requires_grad for weight in teacher.parameters())


def test_without_compile_it_is_adam_with_a_small_epsilon_and_a_student_learns_to_agree():
    distiller = Distiller(Linear(2), Linear(1), mixing="none", tau_squared=True)
    history = distiller.fit(loader(8), epochs=10, verbose=False)
    assert isinstance(distiller.optimizer, torch.optim.Adam) and distiller.optimizer.defaults["eps"] == 1e-8
    assert set(history) == {"loss", "agreement"} and len(history["loss"]) == 10
    assert history["loss"][-1] < 0.5 * history["loss"][0] and history["agreement"][-1] > history["agreement"][0]


def test_bfloat16_computes_less_exactly_and_keeps_weights_in_float32():
    exact, rough = (distilled(Linear(2), loader(), dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert {weight.dtype for weight in rough.student.parameters()} == {torch.float32}
    difference = np.abs(weights_of(exact.student) - weights_of(rough.student)).max()
    assert 0 < difference < 0.05


def test_a_longest_gradient_is_kept():
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(torch.stack([p.grad.norm() for group in self.param_groups for p in group["params"]]).norm())
            super().step()

    for clip in (None, 0.01):
        student = Linear(2)
        distiller = Distiller(student, Linear(1), tau_squared=True)
        distiller.compile(Watched(student.parameters(), 0.1), clip_norm=clip)
        distiller.fit(loader(), verbose=False)
    assert max(seen[:3]) > 0.02 and max(seen[3:]) < 0.0101


def test_the_moving_average_is_what_its_formula_says_and_is_delivered():
    student, kept = Linear(2), weights_of(Linear(2)).astype(np.float64)
    trail = []
    distiller = Distiller(student, Linear(1), tau_squared=True)
    distiller.compile(make_optimizer(student.parameters(), "sgd", 0.1), ema=0.9)
    distiller.fit(
        loader(1), epochs=30, verbose=False, callbacks=[lambda epoch, logs: trail.append(weights_of(student).copy())]
    )
    for step, weights in enumerate(trail):
        decay = min(0.9, (1 + step) / (10 + step))
        kept = decay * kept + (1 - decay) * weights
    assert distiller.averaged is not student and np.allclose(weights_of(distiller.averaged), kept, atol=1e-6)
    assert not np.allclose(weights_of(student), kept, atol=1e-4)


def test_the_l2_penalty_pulls_kernels_to_zero_and_leaves_biases():
    class Silent(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.zeros(len(images), 3)

    student = Linear(2)
    before = student.head.weight.detach().clone()
    distiller = Distiller(student, Silent(), 1e6, "l1")  # so hot that the loss is flat
    distiller.compile(torch.optim.SGD(student.parameters(), 0.1), l2=0.5)
    distiller.fit(loader(1), verbose=False)
    assert torch.allclose(student.head.weight, before * (1 - 0.1 * 2 * 0.5), atol=1e-4)


@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
def test_schedules_are_those_of_keras(name):
    keras_optimizers = pytest.importorskip("keras_aip.optimizers")
    for steps, warmup in ((40, 0.0), (40, 0.25 if name == "cosine" else 0.0)):
        rate = keras_optimizers.make_optimizer("adam", 0.5, schedule=name, steps=steps, warmup=warmup)._learning_rate
        ours = [0.5 * schedule_of(name, steps, warmup)(step) for step in range(steps)]
        theirs = [float(rate(step)) if callable(rate) else float(np.asarray(rate)) for step in range(steps)]
        assert np.allclose(ours, theirs, atol=1e-6)


def test_the_schedule_sets_the_rate_of_each_step():
    student = Linear(2)
    optimizer = make_optimizer(student.parameters(), "sgd", 0.5)
    distiller = Distiller(student, Linear(1))
    rates = []
    distiller.compile(optimizer, schedule=lambda step: 1 / (step + 1))
    distiller.fit(loader(1), epochs=3, verbose=False, callbacks=[lambda e, logs: rates.append(logs["learning_rate"])])
    assert np.allclose(rates, [0.5 / 2, 0.5 / 3, 0.5 / 4]) and optimizer.param_groups[0]["lr"] == pytest.approx(0.5 / 3)
    set_learning_rate(optimizer, 1.0)
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("name", list(losses.LOSSES))
def test_the_loss_asked_for_is_the_one_used(name):
    batch = pixels(ROWS, SIZE)
    student, teacher = Linear(2), Linear(1)
    history = Distiller(student, teacher, 4.0, name, "none").fit([batch], verbose=False)
    expected = losses.LOSSES[name](teacher(batch), Linear(2)(batch), 4.0)
    assert history["loss"][0] == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)


class Operations(TorchDispatchMode):
    """Keeps in mind which operations were called, those of the backward pass among them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        self.names.add(operation.overloadpacket.__name__)
        return operation(*arguments, **(options or {}))


@pytest.mark.parametrize("name", list(losses.LOSSES))
def test_in_a_step_the_host_never_waits_for_the_device(name, monkeypatch):
    student, seen = a_network(seed=2), Operations()
    distiller = Distiller(student, a_network(seed=1), loss=name, mixing=MIXING)
    distiller.compile(clip_norm=1.0, ema=0.9, accumulate=2, l2=1e-4, dtype="bfloat16")
    step = distiller._step

    def watched(*arguments):
        with seen:
            return step(*arguments)

    monkeypatch.setattr(distiller, "_step", watched)
    options = dict(image_size=SIZE, batch_size=ROWS, views=ROWS)
    distiller.fit(single_image_loader("sklearn:china.jpg", render="device", **options), verbose=False)
    assert "convolution_backward" in seen.names
    # what becomes a number of Python's, or has a shape that depends on numbers
    assert not seen.names & {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2"}


def test_resuming_goes_on_with_the_mixing_of_the_step_reached():
    whole = distilled(Linear(2), loader(), epochs=4)
    halves = Linear(2)
    first = distilled(halves, loader(), epochs=2)
    first.fit(loader(), epochs=4, initial_epoch=2, verbose=False)
    assert np.array_equal(weights_of(whole.student), weights_of(halves))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_compiled_step_learns_the_same():
    try:
        compiled = distilled(Linear(2), loader(), jit_compile=True)
    except Exception as error:
        if "compiler" in str(error).lower():
            pytest.skip("torch.compile needs a C++ compiler, and none is here")
        raise
    assert np.allclose(weights_of(compiled.student), weights_of(distilled(Linear(2), loader()).student), atol=1e-5)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(4, 3, 8, 8), "a Tensor; it takes a loader"),
        ([], "empty"),
        ([torch.zeros(4, 3, 8, 8, dtype=torch.uint8)], "got torch.uint8"),
        ([torch.full((4, 3, 8, 8), 255.0)], r"in \[0, 1\]; got values from 255"),
        ([(torch.zeros(4, 3, 8, 8), torch.zeros(4))], "batches of 2 parts"),
        ([torch.zeros(4, 3, 8)], r"got torch.float32 \[4, 3, 8\]"),
    ],
)
def test_data_that_are_no_batches_of_images_are_named(data, message):
    with pytest.raises((DatasetError, ConfigError), match=message):
        Distiller(Linear(), Linear(1), mixing="none").fit(data, steps_per_epoch=1, verbose=False)


def test_what_does_not_fit_together_is_named_before_the_first_step():
    small, network = loader(1), a_network(seed=1)
    with pytest.raises(TeacherError, match=r"views \[16, 16\], teacher \[8, 8\], student \[8, 8\]"):
        Distiller(a_network(), network).fit([pixels(4, 16)], verbose=False)
    with pytest.raises(TeacherError, match=r"\[32, 5\].*\[32, 3\]"):
        Distiller(a_network(), a_network(classes=5)).fit(small, verbose=False)
    poisoned = Linear(1)
    with torch.no_grad():
        poisoned.head.bias[0] = torch.nan
    with pytest.raises(TeacherError, match="NaN or infinity"):
        Distiller(Linear(), poisoned).fit(small, verbose=False)
    with pytest.raises(ConfigError, match="multiple of 64"):
        distilled(Linear(), loader(1, rows=96), accumulate=4, mixing=Mixing(block=16))
    with pytest.raises(ConfigError, match="steps_per_epoch"):
        views = single_image_loader("sklearn:china.jpg", image_size=8, batch_size=32, views=None)
        Distiller(Linear(), Linear(1)).fit(views, verbose=False)


def test_wrong_settings_are_refused():
    for temperature in (0, -1, float("nan")):
        with pytest.raises(ConfigError, match="temperature"):
            Distiller(Linear(), Linear(1), temperature)
    with pytest.raises(ConfigError, match="argmax"):
        Distiller(Linear(), Teacher(Linear(1), outputs="labels", classes=3))
    with pytest.raises(ConfigError, match="bfloat16"):
        Distiller(Linear().half(), Linear(1))
    for wrong in ({"dtype": "float16"}, {"accumulate": 0}, {"ema": 1.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Distiller(Linear(), Linear(1)).compile(**wrong)
    assert torch_aip.Distiller is Distiller
