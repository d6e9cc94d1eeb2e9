"""A Keras teacher, asked from PyTorch.

    python examples/keras_teacher_in_torch.py model.keras --range 0 255 --outputs probabilities

A .keras or .h5 file (or a teacher folder of `train-teacher`) becomes a folder that holds model.onnx, with whatever
comes before the network baked in; `torch_aip.load_teacher` turns that into a frozen PyTorch module.
"""

import argparse
from pathlib import Path

import torch

import torch_aip
from bridge.teachers.export import export
from bridge.teachers.forms import convert
from bridge.teachers.options import ConvertConfig, ExportConfig

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="a .keras or .h5 file, or a folder with card.json")
parser.add_argument("--range", type=float, nargs=2, default=(0.0, 1.0), help="what the model takes black and white for")
parser.add_argument("--outputs", choices=["logits", "probabilities"], default="logits")
parser.add_argument("--out", default="runs/keras-teacher")
arguments = parser.parse_args()

folder = Path(arguments.model)
if (folder / "card.json").is_file():
    convert(ConvertConfig(model=str(folder), to="onnx"))
else:
    folder = Path(arguments.out)
    export(
        ExportConfig(
            model=arguments.model, range=tuple(arguments.range), outputs=arguments.outputs, out=str(folder)
        )
    )  # fmt: skip

teacher = torch_aip.load_teacher(folder, form="onnx")
height, width = teacher.input_size
images = torch.rand(4, 3, height, width)  # RGB in [0, 1], channels first: the teacher does all the rest itself
with torch.inference_mode():
    answers = teacher(images)
print(f"{folder}: {teacher.classes} classes, images of {height} × {width}; answers {list(answers.shape)} in log space")
