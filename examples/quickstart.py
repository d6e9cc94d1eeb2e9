"""One photograph → a network that reads digits, in Python. Two minutes on a laptop.

    python examples/quickstart.py [--epochs 10] [--out runs/quickstart]

For a teacher of your own pass its folder instead of training one; see `your_own_model.py` for any Keras model.
"""

import argparse
from pathlib import Path

import keras

import keras_aip
from keras_aip.cli import main

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--steps-per-epoch", type=int, default=60)
parser.add_argument("--out", type=Path, default=Path("runs/quickstart"))
arguments = parser.parse_args()

teacher_folder = arguments.out / "teacher"
if not teacher_folder.exists() and main(["train-teacher", "--preset", "fast-digits", "--out", str(teacher_folder)]):
    raise SystemExit(2)

views = keras_aip.single_image_dataset("sklearn:china.jpg", image_size=32, batch_size=64, views=None, seed=0)
teacher = keras_aip.load_teacher(teacher_folder)
student = keras_aip.models.small_cnn(classes=10)
distiller = keras_aip.Distiller(student, teacher, mixing=keras_aip.Mixing("cutmix", alpha=1.0, per="sample"))
steps = arguments.epochs * arguments.steps_per_epoch
distiller.compile(keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(1e-2, steps), epsilon=1e-8))
distiller.fit(views, epochs=arguments.epochs, steps_per_epoch=arguments.steps_per_epoch)

result = keras_aip.evaluate(student, "digits", teacher=teacher)
print(f"teacher {result['teacher_top1']:.1%}, student {result['student_top1']:.1%} of {result['n']} real digits")
keras_aip.save_teacher(student, arguments.out / "student", class_names=[str(k) for k in range(10)])
