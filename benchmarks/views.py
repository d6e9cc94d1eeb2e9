"""Views per CPU-second of one thread: the reference's order of operations, ours in OpenCV, TensorFlow and PyTorch.

    python benchmarks/views.py            # a few minutes; writes benchmarks/results/views.json
    python benchmarks/views.py --quick    # a few seconds, to see that it runs; writes nothing unless told where

PyTorch is measured as it is and, with a C++ compiler (and not under --quick), compiled. The host renderer is the same
OpenCV in both backends.

Every figure is the whole way from a view's number to its pixels: drawing included, compilation excluded. All take
turns within one run, so their ratios hold on a busy machine as well; the rates themselves do not.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
import tensorflow as tf
import torch
from common import ROOT, data_folder, machine, rates, summary, write_results
from PIL import Image
from reference_views import reference_transform

from bridge.datum.recipes import ImageRecipe, cifar
from bridge.datum.render import render_numbers
from bridge.datum.sources import Source, load_source
from bridge.datum.views import ViewNumbers, ViewSet
from keras_aip.views import Renderer
from torch_aip.views import Renderer as TorchRenderer

# recipe, views per batch, views of the reference per call, what our renderers must reach over the reference, the aim
CASES = {
    "32 px + jitter": (cifar(32), 512, 64, 150, 350),
    "224 px + jitter": (ImageRecipe(size=224, base_size=224, augmentation=None), 128, 32, 12, 20),
}
REFERENCE, OPENCV, TENSORFLOW = "reference", "OpenCV", "TensorFlow XLA"
PYTORCH, COMPILED = "PyTorch", "PyTorch compiled"


def use_one_thread() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def candidates(source: Source, case: str, quick: bool) -> tuple[str, dict[str, Callable[[], int]]]:
    """What the reference is made with, and one function per renderer that draws a batch of views never drawn before."""
    recipe, batch, few, *_ = CASES[case]
    if quick:
        batch, few = batch // 16, few // 16
    image = Image.fromarray(source.images[0])
    made_with, reference = reference_transform(recipe.size, recipe.augmentation.pad if recipe.augmentation else 0, 0)
    views = ViewSet(source, recipe, seed=0)
    renderer = Renderer(views)
    in_torch: dict[str, Callable[[ViewNumbers], torch.Tensor]] = {PYTORCH: TorchRenderer(views)}
    if not quick and shutil.which(os.environ.get("CXX", "g++")):
        in_torch[COMPILED] = torch.compile(TorchRenderer(views), fullgraph=True, dynamic=False)
    steps = {name: itertools.count() for name in (OPENCV, TENSORFLOW, *in_torch)}

    def numbers(name: str) -> ViewNumbers:
        return views.numbers(next(steps[name]) * batch + np.arange(batch))

    def draw_reference() -> int:
        return len(np.stack([reference(image) for _ in range(few)]))

    def draw_opencv() -> int:
        return len(render_numbers(numbers(OPENCV), views))

    def draw_tensorflow() -> int:
        images = renderer(numbers(TENSORFLOW))
        return len(images) if float(images[-1, 0, 0, 0]) >= 0 else 0  # reading one number waits for all

    def draw_torch(name: str) -> int:
        return len(in_torch[name](ViewNumbers(*map(torch.from_numpy, numbers(name)))))

    return made_with, {
        REFERENCE: draw_reference,
        OPENCV: draw_opencv,
        TENSORFLOW: draw_tensorflow,
        **{name: partial(draw_torch, name) for name in in_torch},
    }


def measure(source: Source, repeats: int, seconds: float, quick: bool) -> tuple[str, dict[str, dict]]:
    """The reference's make and, per case and renderer, rates and ratios to the reference of the same turn."""
    results, made_with = {}, ""
    for case, (_, batch, _, bar, aim) in CASES.items():
        made_with, works = candidates(source, case, quick)
        measured = rates(works, repeats, seconds)
        results[case] = {"batch": batch // 16 if quick else batch, "bar": bar, "aim": aim}
        for name, found in measured.items():
            ratios = [rate / base for rate, base in zip(found, measured[REFERENCE])]
            results[case][name] = {"views per CPU-second": summary(found), "times the reference": summary(ratios)}
    return made_with, results


def print_table(results: dict[str, dict]) -> None:
    print(f"{'':18}{'':18}{'views per CPU-second':>28}{'times the reference':>28}")
    for case, found in results.items():
        for name in (name for name in (REFERENCE, OPENCV, TENSORFLOW, PYTORCH, COMPILED) if name in found):
            rate, ratio = found[name]["views per CPU-second"], found[name]["times the reference"]
            print(
                f"{case:18}{name:18}{rate['median']:>10,.0f} ({rate['min']:,.0f}-{rate['max']:,.0f})".ljust(66)
                + f"{ratio['median']:>8.4g} ({ratio['min']:.4g}-{ratio['max']:.4g})"
            )
        print(f"{'':18}must reach {found['bar']}x, aims at {found['aim']}x")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    city = data_folder() / "source" / "img_b.jpg"
    parser.add_argument("--image", default=str(city) if city.exists() else "sklearn:china.jpg", help="source image")
    parser.add_argument("--repeats", type=int, default=7, help="turns each renderer gets")
    parser.add_argument("--seconds", type=float, default=1.5, help="CPU time per renderer and turn")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.seconds = 2, 0.0
    elif options.out is None:
        options.out = ROOT / "benchmarks" / "results" / "views.json"
    use_one_thread()
    source = load_source(options.image)
    made_with, results = measure(source, options.repeats, options.seconds, options.quick)
    print_table(results)
    if options.out is not None:
        height, width = source.images[0].shape[:2]
        write_results(
            options.out,
            {
                "command": "python benchmarks/views.py" + (" --quick" if options.quick else ""),
                "machine": machine(),
                "threads": 1,
                "source": {"name": source.name, "width": width, "height": height, "sha256": source.sha256},
                "reference": made_with,
                "n": options.repeats,
                "CPU-seconds per renderer and repeat": options.seconds,
                "results": results,
            },
        )
        print(f"written to {options.out}")


if __name__ == "__main__":
    main()
