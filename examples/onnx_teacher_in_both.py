"""Your own ONNX classifier, in Keras and in PyTorch, with the proof that both say the same.

    python examples/onnx_teacher_in_both.py mine.onnx --range 0 255 --mean 123.7 116.3 103.5 --std 58.4 57.1 57.4

Nothing in the file is executed to load it; see the README for what is refused.
"""

import argparse

import numpy as np
import torch

import keras_aip
import torch_aip
from bridge.teachers.export import export
from bridge.teachers.options import ExportConfig
from bridge.teachers.parity import verify

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="an .onnx file")
parser.add_argument("--range", type=float, nargs=2, default=(0.0, 1.0), help="what the model takes black and white for")
parser.add_argument("--mean", type=float, nargs=3, help="in units of the range")
parser.add_argument("--std", type=float, nargs=3)
parser.add_argument("--outputs", choices=["logits", "probabilities"], default="logits")
parser.add_argument("--image-size", type=int, help="where the model leaves it open")
parser.add_argument("--views", type=int, default=2048)
parser.add_argument("--out", default="runs/onnx-teacher")
arguments = parser.parse_args()

card = export(
    ExportConfig(
        model=arguments.model,
        range=tuple(arguments.range),
        mean=arguments.mean and tuple(arguments.mean),
        std=arguments.std and tuple(arguments.std),
        outputs=arguments.outputs,
        image_size=arguments.image_size,
        out=arguments.out,
    )
)
proof = verify(arguments.out, views=arguments.views)

in_keras, in_torch = keras_aip.load_teacher(arguments.out), torch_aip.load_teacher(arguments.out)
images = np.random.default_rng(0).random((8, *card.input_size, 3), dtype=np.float32)
first = in_keras(images).numpy()  # channels last
second = in_torch(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()  # channels first
largest = np.abs(first).max()
print(f"On 8 images of noise they differ by {np.abs(first - second).max():.1e} of scores up to {largest:.1f}")
for engine, figures in proof["engines"].items():
    if figures:
        print(f"{engine:20s} agrees on {figures['agreement']:.2%} of {arguments.views:,} views")
