"""A keyword spotter distilled from one recording: DS-CNN-L → DS-CNN-S from all of it, from half, and from white noise.

    python benchmarks/speech.py --out runs/speech

wants $AIP_DATA with teachers/dscnn_l_weights.npz (the published DS-CNN-L), speech/ (1,440 clips of Speech Commands) and
the recording. Then the same teacher in PyTorch, and the student as TensorFlow Lite, float and int8 behind a front end.
Results go to benchmarks/results/speech.json; what is finished in --out is not done again.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from against_noise import against_noise
from common import ROOT, data_folder, machine, write_results

RECORDING = "librivox_sonnets_1-3_16k.flac"
OPTIONS = ("--preset", "fast-speech-commands")
# Makes the teacher's folder in a process of its own, whose memory is free again afterwards.
TEACHER = """
import sys
import numpy as np
from keras_aip import models, save_teacher

arrays, labels = np.load(sys.argv[1]), np.load(sys.argv[2])
model = models.build("dscnn_l", classes=12)
for layer in model.layers:
    if layer.weights:
        layer.set_weights([arrays[f"{layer.name}/{number}"] for number in range(len(layer.weights))])
names = [str(name) for name in labels["class_names"]]
source = "github.com/ARM-software/ML-KWS-for-MCU, DS-CNN-L"
save_teacher(model, sys.argv[3], class_names=names, source=source, licence="Apache-2.0")
"""


def prepared(data: Path, out: Path) -> tuple[Path, Path, Path]:
    """The teacher's folder, the labelled sounds as one file, and the first half of the recording."""
    out.mkdir(parents=True, exist_ok=True)
    teacher, sounds, half = out / "dscnn_l", out / "speech.npz", out / "librivox_first_half.flac"
    meta = next((data / "speech").glob("*_meta.npz"))
    if not teacher.exists():
        weights = data / "teachers" / "dscnn_l_weights.npz"
        subprocess.run([sys.executable, "-c", TEACHER, str(weights), str(meta), str(teacher)], cwd=ROOT, check=True)
    if not sounds.exists():
        samples, rate = soundfile.read(next((data / "speech").glob("*.flac")), dtype="int16")
        with np.load(meta) as known:
            labels, names = known["labels"].astype(np.int64), known["class_names"]
        waveforms = samples.reshape(len(labels), -1)
        np.savez(sounds, waveforms=waveforms, labels=labels, class_names=names, rate=rate)
    if not half.exists():
        samples, rate = soundfile.read(data / "source" / RECORDING, dtype="int16")
        soundfile.write(half, samples[: len(samples) // 2], rate)
    return teacher, sounds, half


def said(*words: object) -> dict[str, Any]:
    """What `python -m` these words writes to the --out they end with."""
    subprocess.run([sys.executable, "-m", *map(str, words)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return json.loads(Path(str(words[-1])).read_text())


def as_tflite(student: Path, sounds: Path, recording: Path, out: Path) -> dict[str, Any]:
    """The student as TensorFlow Lite, float and int8: accuracy and bytes by form."""
    rows = {}
    for form in ("tflite", "tflite_int8"):
        target = out / f"student_{form}.tflite"
        for old in (target, out / f"{target.stem}_front_end.tflite"):
            old.unlink(missing_ok=True)
        words = ("convert", "--model", student, "--to", form, "--audio", recording, "--dataset", sounds)
        done = subprocess.run(
            [sys.executable, "-m", "bridge", *map(str, words), "--out", str(target)], cwd=ROOT, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        # Names of files alone: where they lie is nobody's business.
        lines = re.sub(r"\S+/", "", done.stdout).splitlines()
        print(*lines, sep="\n")
        files = [target, *out.glob(f"{target.stem}_front_end.tflite")]
        rows[form] = {"said": lines, "bytes": {path.name: path.stat().st_size for path in files}}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    data, out = data_folder(), arguments.out.absolute()
    teacher, sounds, half = prepared(data, out)
    recording = data / "source" / RECORDING
    options = (*OPTIONS, "--dataset", sounds, "--teacher", teacher)
    rows = against_noise("keras_aip", "audio", [str(recording), str(half)], out, options)
    measured = {
        program: said(program, "evaluate", "--model", teacher, "--dataset", sounds, "--out", out / f"{program}.json")
        for program in ("keras_aip", "torch_aip")
    }
    for program, result in measured.items():
        print(f"teacher by {program}: {result['student_top1']:.2%} of {result['n']}")
    lite = as_tflite(out / recording.stem / "student", sounds, recording, out)
    results = {"machine": machine(), "options": list(OPTIONS), "rows": rows, "teacher": measured, "tflite": lite}
    write_results(ROOT / "benchmarks" / "results" / "speech.json", results)


if __name__ == "__main__":
    main()
