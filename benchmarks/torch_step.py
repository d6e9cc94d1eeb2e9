"""Images per second of the whole distillation loop in PyTorch, against the reference's own way, in one run.

    python benchmarks/torch_step.py [--quick]

The reference's way: 256 px patches of the image lie ready in a folder as JPEG files; torchvision's transforms augment
them one by one in as many processes as there are cores; teacher and student compute in float32, channels first, not
compiled, and the loss is read in every step (Asano & Saeed 2023, as read in the reference code). Ours is what the
`distill` command runs: it draws the view numbers, renders, mixes, asks the teacher and trains the student. Networks,
batch, loss and optimizer are the same. What the input side costs is seen against the same loop on one constant batch.

Each mode is a process of its own, as typed in a shell; modes take turns, so that a noisy machine is noisy for all. On
CUDA compiled modes come beside, with views rendered by the host and on the device. Writing the patches is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, data_folder, machine, summary, write_results

REFERENCE, MATMUL, CONSTANT = "reference", "matmul", ", constant batch"
COMPILED = {"dtype": "bfloat16", "jit_compile": True}
MODES: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16" + CONSTANT: {"dtype": "bfloat16"},
}
CUDA_MODES: dict[str, dict[str, Any]] = {
    "compiled": COMPILED,
    "compiled, rendered there": {**COMPILED, "render": "device"},
    "compiled" + CONSTANT: COMPILED,
}
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
CLASSES = 1000
OPTIMIZER: dict[str, Any] = {"weight_decay": 5e-4}
LEARNING_RATE, TEMPERATURE = 1e-2, 8.0


class Enough(Exception):
    """Thrown out of a loop that has been measured."""


class Laps:
    """Times a loop, lap by lap of `items`: a first one that compiles, some that fill the buffers, some that count.

    Raises Enough out of the loop after `seconds`.
    """

    def __init__(self, items: int, seconds: float):
        self._items, self._seconds = items, seconds
        self._since: float | None = None
        self._from: tuple[float, float] | None = None
        self._counted = 0
        self.found: dict[str, float] = {}

    def __call__(self, *_: object) -> None:
        now = time.perf_counter()
        if self._since is None:
            self._since = now
        elif self._from is None:
            if now - self._since >= self._seconds / 2:
                self._from = now, core_seconds()
        else:
            self._counted += self._items
            if now - self._from[0] >= self._seconds:
                self.found = {
                    "per_second": self._counted / (now - self._from[0]),
                    "core_milliseconds": 1000 * (core_seconds() - self._from[1]) / self._counted,
                }
                raise Enough


def core_seconds() -> float:
    """What this process and those that work for it have spent, over all their threads."""
    spent, ticks = time.process_time(), os.sysconf("SC_CLK_TCK")
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        spent += (int(fields[11]) + int(fields[12])) / ticks
    return spent


def write_patches(options: argparse.Namespace, folder: Path) -> None:
    """What the reference needs beforehand: base views of 256 px (at 224) as JPEG files, a thousand to a folder."""
    from bridge.datum.export import write_views
    from bridge.datum.preview import base_views, to_bytes
    from bridge.datum.render import render
    from bridge.datum.views import make_view_set

    view_set = make_view_set(options.image, options.image_size, "imagenet", patches=False, views=None, seed=0)
    views = base_views(view_set)
    write_views(
        lambda n: to_bytes(render(views, n)), options.patches, folder, image_format="jpg", batch=64,
        manifest={"source": views.source.name}, progress=False,
    )  # fmt: skip


def reference_batches(options: argparse.Namespace) -> Iterator[torch.Tensor]:
    """Endless batches of augmented patches, normalised, channels first."""
    from bridge.networks import IMAGENET_MEAN, IMAGENET_STD
    from torch_aip.compat import torchvision

    torchvision()
    from torchvision import datasets, transforms

    augment = transforms.Compose(
        [
            transforms.RandomResizedCrop(options.image_size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.4)], p=0.8),
            transforms.RandomGrayscale(0.2),
            transforms.RandomSolarize(128, 0.2),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    patches = datasets.ImageFolder(options.folder, augment)
    # An epoch is 1,281,167 patches long, so none ends while we look; these few stand for them, read from memory.
    order = torch.utils.data.RandomSampler(patches, replacement=True, num_samples=10**9)
    loader = torch.utils.data.DataLoader(
        patches, options.batch_size, sampler=order, num_workers=os.cpu_count() or 1, pin_memory=CUDA, drop_last=True
    )
    return (images for images, _ in loader)


def run_reference(options: argparse.Namespace, laps: Laps) -> None:
    """The loop everyone writes."""
    from torch.nn import functional

    from torch_aip import models
    from torch_aip.models.layers import NORMALISE

    batches = iter(reference_batches(options))
    torch.backends.cudnn.benchmark = True
    teacher, student = (
        models.build(name, classes=CLASSES, image_size=options.image_size).to(DEVICE)
        for name in (options.teacher, options.student)
    )
    for network in (teacher, student):
        network.add_module(NORMALISE, torch.nn.Identity())  # the transforms have done it
    teacher.eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE, **OPTIMIZER)
    for step in itertools.count(1):
        images = next(batches).to(DEVICE, non_blocking=True)
        share = np.random.beta(1.0, 1.0)
        height, width = images.shape[2:]
        half_height, half_width = (int(side * np.sqrt(1 - share)) // 2 for side in (height, width))
        y, x = np.random.randint(height), np.random.randint(width)
        top, bottom = np.clip([y - half_height, y + half_height], 0, height)
        left, right = np.clip([x - half_width, x + half_width], 0, width)
        order = torch.randperm(len(images), device=DEVICE)
        images[:, :, top:bottom, left:right] = images[order, :, top:bottom, left:right]
        with torch.no_grad():
            answers = functional.softmax(teacher(images) / TEMPERATURE, dim=1)
        said = functional.log_softmax(student(images) / TEMPERATURE, dim=1)
        loss = functional.kl_div(said, answers, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # it is printed
        if step % options.steps == 0:
            laps()


def run_ours(options: argparse.Namespace, laps: Laps) -> None:
    """What `distill` runs; a lap is an epoch."""
    import torch_aip
    from torch_aip import models
    from torch_aip.optimizers import make_optimizer
    from torch_aip.run import set_up

    mode = (MODES | CUDA_MODES)[options.mode]
    set_up(None, seed=0)
    teacher, student = (
        models.build(name, classes=CLASSES, image_size=options.image_size).to(DEVICE)
        for name in (options.teacher, options.student)
    )
    dtype = mode.get("dtype", "float32")
    distiller = torch_aip.Distiller(
        student, torch_aip.Teacher(teacher, dtype=dtype), TEMPERATURE, mixing=torch_aip.Mixing("cutmix", alpha=1.0)
    )
    distiller.compile(
        make_optimizer(student.parameters(), "adamw", LEARNING_RATE, **OPTIMIZER),
        dtype=dtype, jit_compile=mode.get("jit_compile", False),
    )  # fmt: skip
    views: Any = torch_aip.single_image_loader(
        options.image, image_size=options.image_size, batch_size=options.batch_size, recipe="imagenet",
        render=mode.get("render", "host"),
    )  # fmt: skip
    if options.mode.endswith(CONSTANT):
        views = Constant(next(iter(views)).to(DEVICE))
    distiller.fit(views, epochs=10**6, steps_per_epoch=options.steps, callbacks=[laps], verbose=False)


class Constant:
    """One batch for ever, and what is asked of a loader."""

    def __init__(self, batch: torch.Tensor):
        self._batch = batch

    def __iter__(self) -> Iterator[torch.Tensor]:
        return itertools.repeat(self._batch)


def run_matmul(options: argparse.Namespace, laps: Laps) -> None:
    """Large products in bfloat16 and nothing else: what the device can do."""
    a, b = (torch.randn(options.side, options.side, device=DEVICE).bfloat16() for _ in range(2))
    while True:
        for _ in range(options.steps):
            a @ b
        if CUDA:
            torch.cuda.synchronize()
        laps()


def run_mode(options: argparse.Namespace) -> dict[str, float]:
    """Measure one mode in this process."""
    loops: dict[str, Callable[[argparse.Namespace, Laps], None]] = {REFERENCE: run_reference, MATMUL: run_matmul}
    laps = Laps(
        options.steps * (2 * options.side**3 if options.mode == MATMUL else options.batch_size), options.seconds
    )
    torch.manual_seed(0)
    with contextlib.suppress(Enough):
        loops.get(options.mode, run_ours)(options, laps)
    if options.mode == MATMUL:
        return {"tflops": laps.found["per_second"] / 1e12}
    peak = torch.cuda.max_memory_allocated() if CUDA else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {**laps.found, "peak_gib": peak / 2**30}


def gflop_per_image(options: argparse.Namespace) -> float:
    """Of the teacher's answer and the student's step: two for every product that is added up."""
    from torch.utils.flop_counter import FlopCounterMode

    from torch_aip import models

    teacher, student = (
        models.build(name, classes=CLASSES, image_size=options.image_size)
        for name in (options.teacher, options.student)
    )
    images = torch.rand(2, 3, options.image_size, options.image_size)
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            teacher(images)
        student(images).sum().backward()
    return counter.get_total_flops() / len(images) / 1e9


def in_its_process(options: argparse.Namespace, mode: str, folder: str) -> dict[str, float]:
    """Measure one mode where no other one has changed anything; but here, where all is only tried."""
    if options.quick:
        return run_mode(argparse.Namespace(**{**vars(options), "mode": mode, "folder": folder}))
    line = [sys.executable, __file__, *options.words, "--mode", mode, "--folder", folder]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"failed: {mode}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All modes in turns, each a process; a table and the results."""
    modes = [REFERENCE, *MODES, *(CUDA_MODES if CUDA and not options.quick else ())]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (MATMUL, *modes)}
    with tempfile.TemporaryDirectory() as folder:
        write_patches(options, Path(folder))
        for turn in range(options.rounds):
            for name in found:
                found[name].append(in_its_process(options, name, folder))
                told = ", ".join(f"{key} {value:.4g}" for key, value in found[name][-1].items())
                print(f"turn {turn + 1}: {name}: {told}", file=sys.stderr, flush=True)

    def of(name: str, key: str) -> list[float]:
        return [values[key] for values in found[name]]

    work, peak = gflop_per_image(options), statistics.median(of(MATMUL, "tflops"))
    results: dict[str, Any] = {
        "teacher": options.teacher, "student": options.student, "image_size": options.image_size,
        "batch": options.batch_size, "n": options.rounds, "seconds": options.seconds, "gflop_per_image": work,
        "bfloat16_matmul_tflops": summary(of(MATMUL, "tflops")), "modes": {}, "input_side": {},
    }  # fmt: skip
    if CUDA:
        results["gpu"] = torch.cuda.get_device_name()
    for name in modes:
        rates, base = of(name, "per_second"), of(REFERENCE, "per_second")
        results["modes"][name] = row = {
            "images_per_second": summary(rates),
            "times_the_reference": summary([rate / other for rate, other in zip(rates, base)]),
            "core_milliseconds_per_image": summary(of(name, "core_milliseconds")),
            "share_of_matmul_peak": statistics.median(rates) * work / 1000 / peak,
            "peak_gib": max(of(name, "peak_gib")),
        }
        ratio = row["times_the_reference"]
        print(
            f"{name:36s} {row['images_per_second']['median']:8.1f} images/s   {ratio['median']:.2f}× "
            f"({ratio['min']:.2f}–{ratio['max']:.2f})   {row['share_of_matmul_peak']:.0%} of the matmul peak   "
            f"{row['core_milliseconds_per_image']['median']:.3g} core-ms per image   {row['peak_gib']:.1f} GiB"
        )
    for name in modes:
        constant = name.partition(",")[0] + CONSTANT
        if name == constant or constant not in found:
            continue
        pairs = list(zip(found[name], found[constant]))
        cost = [1 - whole["per_second"] / bare["per_second"] for whole, bare in pairs]
        results["input_side"][name] = summary(cost)
        print(f"{name:36s} input side: {statistics.median(cost):.1%} of the time of a step")
    return results


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    city = data_folder() / "source" / "img_b.jpg"
    parser.add_argument("--image", default=str(city) if city.exists() else "sklearn:china.jpg", help="source image")
    parser.add_argument("--teacher", default="resnet18" if CUDA else "resnet18x0.5")
    parser.add_argument("--student", default="resnet50" if CUDA else "resnet18x0.25")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=512 if CUDA else 64)
    parser.add_argument("--patches", type=int, default=2000, help="how many the reference's folder holds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="measured per mode and turn")
    parser.add_argument("--steps", type=int, default=20 if CUDA else 2, help="of a lap, between two looks at the clock")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument(
        "--mode",
        choices=(MATMUL, REFERENCE, *MODES, *CUDA_MODES),
        help="measure this one alone, here, and print it as JSON",
    )
    parser.add_argument("--folder", help="of the patches, for --mode")
    options = parser.parse_args()
    options.words, options.side = sys.argv[1:], 8192 if CUDA else 2048
    if options.quick:
        options.teacher = options.student = "resnet18x0.125"
        options.image_size, options.batch_size, options.patches = 64, 8, 16
        options.rounds, options.seconds, options.steps, options.side = 1, 0.1, 1, 256
    elif options.out is None:
        options.out = ROOT / "benchmarks" / "results" / "torch_step.json"
    if options.mode:
        print(json.dumps(run_mode(options)))
        return
    results = measure(options)
    if options.out is not None:
        # a GPU's results and a CPU's stand beside each other
        kept = json.loads(options.out.read_text()) if options.out.exists() else {}
        write_results(options.out, {**kept, DEVICE.type: {"machine": machine(), **results}})
        print(f"written to {options.out}")


if __name__ == "__main__":
    main()
