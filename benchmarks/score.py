"""Which measure of `score` predicts how good a student becomes: one student from each of many sources, all alike.

    python benchmarks/score.py --out runs/score
    python benchmarks/score.py cifar10 --teacher teachers/cifar10_resnet56 --data-dir data --out runs/score-cifar10

Sources are scikit-learn's and scikit-image's photographs, those in $AIP_DATA/source, noise, a constant, and some made
here by formula. Each student is a process of its own on one thread, measured on the validation split. What is finished
in --out is not done again: `--at-most 4` does four more students and stops. When all are there, Spearman's ρ of every
measure goes to benchmarks/results/score_TASK.json, with a confidence interval by bootstrap over the sources, and a
picture of all points beside it.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from against_noise import spent, start
from common import ROOT, data_folder, machine, write_results
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from bridge.datum.sources import load_source
from bridge.insight.measures import MEASURES

TASKS: dict[str, list[str]] = {
    "digits": ["--preset", "fast-digits", "--steps-per-epoch", "100"],
    "cifar10": [
        *("--preset", "fast-cifar10", "--steps-per-epoch", "100"),
        *("--teacher-dtype", "bfloat16", "--student-dtype", "mixed_bfloat16"),
    ],
}
"""Options of `distill`; `--epochs` comes behind them. The recipe of both is said to `score` too."""
RECIPES = {"digits": "steady", "cifar10": "cifar"}
EPOCHS = {"digits": 2, "cifar10": 6}
"""With 6 most photographs give 100 % of the digits."""
PROGRAMS = {"digits": "torch_aip", "cifar10": "keras_aip"}
NAMED = ("sklearn:china.jpg", "sklearn:flower.jpg", "control:noise", "control:constant")
# Those in scikit-image's own folder, which need no download; text and textures among them.
OF_SKIMAGE = (
    "astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png", "rocket.jpg", "grass.png",
    "brick.png", "page.png",
)  # fmt: skip
OF_OURS = ("img_a.jpg", "img_b.jpg", "sf.png")
FEWEST, RESAMPLES = 12, 10_000


def sources(folder: Path) -> dict[str, str]:
    """Name → what `--image` is given."""
    found = {name.partition(":")[2].partition(".")[0]: name for name in NAMED}
    package = importlib.util.find_spec("skimage")
    places: list[tuple[Path, Sequence[str]]] = [(data_folder() / "source", OF_OURS)]
    if package is not None and package.origin:
        places.append((Path(package.origin).parent / "data", OF_SKIMAGE))
    for place, names in places:
        found |= {Path(name).stem: str(place / name) for name in names if (place / name).is_file()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in made().items():
        path = folder / f"{name}.png"
        if not path.is_file():
            Image.fromarray(image).save(path)
        found[name] = str(path)
    if len(found) < FEWEST:
        raise SystemExit(
            f"Only {len(found)} sources are here, {FEWEST} are wanted: install scikit-image, set AIP_DATA."
        )
    return found


def made() -> dict[str, NDArray[np.uint8]]:
    """Sources by formula: uint8 [height, width, 3]."""
    china = Image.fromarray(load_source("sklearn:china.jpg").images[0])
    row, column = np.mgrid[0:512, 0:512]
    board = np.where((row // 32 + column // 32) % 2, 255, 0)
    return {
        "gradient": np.stack([row // 2, column // 2, 255 - row // 2], axis=-1).astype(np.uint8),
        "checkerboard": np.repeat(board[..., None], 3, axis=-1).astype(np.uint8),
        "china_blurred": np.asarray(china.filter(ImageFilter.GaussianBlur(12))),
        "china_piece": np.asarray(china.crop((240, 60, 336, 156))),
    }


def students(
    program: str, task: str, teacher: Path, given: Mapping[str, str], folder: Path, options: Sequence[str], most: int
) -> dict[str, dict[str, Any]]:
    """Distil from every source that has no student yet, at most so many; result and core-seconds by name."""
    notes = folder / "spent.json"
    costs = json.loads(notes.read_text()) if notes.exists() else {}
    rows: dict[str, dict[str, Any]] = {}
    for name, source in given.items():
        out = folder / "students" / name
        if not (out / "result.json").is_file():
            if most == 0:
                continue
            most -= 1
            shutil.rmtree(out, ignore_errors=True)
            line = [*TASKS[task], "--teacher", teacher, "--image", source, "--split", "validation", *options]
            began = time.monotonic()
            process = start(program, "distill", *line, "--out", out, "--threads", 1)
            costs[name] = 60 * spent(process, began)["core_minutes"]
            notes.write_text(json.dumps(costs))
        result = json.loads((out / "result.json").read_text())
        kept = ("student_top1", "teacher_top1", "agreement", "n", "steps", "views")
        rows[name] = {**{key: result[key] for key in kept}, "core_seconds": costs.get(name)}
        print(f"{name:20s} student {result['student_top1']:.2%}  same answer {result['agreement']:.2%}")
    return rows


def predictions(rows: Mapping[str, Mapping[str, Any]], target: str = "student_top1") -> dict[str, dict[str, Any]]:
    """Spearman's ρ of every measure with the accuracy, with its 95 % interval, and whether the best is any better.

    A measure ties with the best where 0 lies within the 95 % interval of the difference of both |ρ| over the same
    resampled sources.
    """
    from scipy.stats import rankdata

    figures = {key: np.array([row[key] for row in rows.values()], float) for key in MEASURES}
    accuracy = np.array([row[target] for row in rows.values()], float)
    rng = np.random.default_rng(0)
    picks = [np.arange(len(rows)), *(rng.integers(0, len(rows), len(rows)) for _ in range(RESAMPLES))]
    rhos = {key: np.empty(len(picks)) for key in figures}
    for k, pick in enumerate(picks):
        ranks = rankdata(accuracy[pick])
        for key, values in figures.items():
            rhos[key][k] = _correlation(rankdata(values[pick]), ranks)
    best = max(rhos, key=lambda key: abs(rhos[key][0]) if np.isfinite(rhos[key][0]) else -1.0)
    found = {}
    for key, values in rhos.items():
        better = np.abs(rhos[best][1:]) - np.abs(values[1:])
        low, high = _interval(values[1:])
        rest = _interval(better)
        found[key] = {
            "rho": float(values[0]), "low": low, "high": high, "n": len(rows),
            "ties_with_best": bool(key == best or rest[0] <= 0 <= rest[1]),
        }  # fmt: skip
    return dict(sorted(found.items(), key=lambda item: -abs(item[1]["rho"])))


def _correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Pearson's of ranks, which is Spearman's ρ; NaN where one never changes."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def picture(rows: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]], title: str) -> bytes:
    """Accuracy over every measure, the best first: a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6.6), layout="constrained", dpi=110)
    panels = figure.subplots(2, 4, sharey=True).ravel()
    for panel, (key, told) in zip(panels, found.items()):
        for name, row in rows.items():
            panel.plot(row[key], 100 * row["student_top1"], "o", color="#0072B2", ms=4)
            panel.annotate(name, (row[key], 100 * row["student_top1"]), (3, 3), textcoords="offset points", fontsize=6)
        tie = " (tie)" if told["ties_with_best"] else ""
        panel.set_title(f"ρ = {told['rho']:.2f} [{told['low']:.2f}, {told['high']:.2f}]{tie}", fontsize=9)
        panel.set_xlabel(MEASURES[key].label, fontsize=9)
        panel.grid(alpha=0.3)
        panel.margins(x=0.18)  # for the names
    for panel in panels[len(found) :]:
        panel.set_axis_off()
    figure.supylabel("student's top-1 accuracy, validation [%]", fontsize=10)
    figure.suptitle(title, fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", default="digits", choices=list(TASKS))
    parser.add_argument("--program", choices=["keras_aip", "torch_aip"], help=f"else {PROGRAMS}")
    parser.add_argument("--teacher", type=Path, help="a folder; of digits trained here if there is none")
    parser.add_argument("--data-dir", type=Path, help="where cifar10 lies")
    parser.add_argument("--student", help="another one than the preset's")
    parser.add_argument("--epochs", type=int, help=f"of 100 steps; else {EPOCHS}")
    parser.add_argument("--views", type=int, default=2048, help="that are scored of each source")
    parser.add_argument("--only", nargs="+", help="names of sources, to try it")
    parser.add_argument("--at-most", type=int, default=-1, help="students in this run")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder")
    arguments = parser.parse_args()
    arguments.program = arguments.program or PROGRAMS[arguments.task]
    arguments.epochs = arguments.epochs or EPOCHS[arguments.task]
    folder = arguments.out.absolute()
    given = sources(folder / "sources")
    if arguments.only:
        given = {name: given[name] for name in arguments.only}
    teacher = arguments.teacher.absolute() if arguments.teacher else folder / "teacher"
    if arguments.teacher is None and not teacher.is_dir():
        if arguments.task != "digits":
            sys.exit("Which teacher? Give --teacher FOLDER.")
        spent(start(arguments.program, "train-teacher", "--preset", "fast-digits", "--out", teacher), time.monotonic())
    options = ["--epochs", str(arguments.epochs)]
    options += ["--data-dir", str(arguments.data_dir.absolute())] if arguments.data_dir else []
    options += ["--student", arguments.student] if arguments.student else []
    rows = students(arguments.program, arguments.task, teacher, given, folder, options, arguments.at_most)
    if missing := [name for name in given if name not in rows]:
        print(f"{len(missing)} of {len(given)} students are missing yet; go on with the same line.")
        return
    told = folder / "score" / "score.json"
    wanted = {"views": arguments.views, "images": list(given.values())}
    config = json.loads(told.read_text())["config"] if told.is_file() else {}
    scoring = None
    if any(config.get(key) != value for key, value in wanted.items()):
        line = ["--teacher", teacher, "--recipe", RECIPES[arguments.task], "--views", arguments.views, "--threads", 1]
        process = start(arguments.program, "score", *line, "--images", *given.values(), "--out", told.parent)
        scoring = 60 * spent(process, time.monotonic())["core_minutes"]
    of_source = {one["given"]: one for one in json.loads(told.read_text())["sources"]}
    for name, source in given.items():
        rows[name] |= {key: of_source[source][key] for key in MEASURES}
    found = predictions(rows)
    for key, one in found.items():
        tie = "  ties with the best" if one["ties_with_best"] else ""
        interval = f"[{one['low']:+.2f}, {one['high']:+.2f}]"
        print(f"{MEASURES[key].label:12s} ρ = {one['rho']:+.2f}  {interval}  n = {one['n']}{tie}")
    seconds = [row["core_seconds"] for row in rows.values() if row["core_seconds"] is not None]
    results = {
        "machine": machine(), "program": arguments.program, "task": arguments.task, "steps": 100 * arguments.epochs,
        "split": "validation", "views_scored": arguments.views, "core_seconds_of_scoring": scoring,
        "core_seconds_per_student": statistics.median(seconds) if seconds else None,
        "spearman": found, "rows": rows,
    }  # fmt: skip
    write_results(arguments.results / f"score_{arguments.task}.json", results)
    title = f"{arguments.task}: {len(rows)} students of {100 * arguments.epochs} steps, each from one source"
    (arguments.results / f"score_{arguments.task}.png").write_bytes(picture(rows, found, title))


if __name__ == "__main__":
    main()
