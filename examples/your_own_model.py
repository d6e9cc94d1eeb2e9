"""Your own Keras model, your own photograph.

    python examples/your_own_model.py model.keras photo.jpg --epochs 10 --out runs/my-clone

The model takes images [batch, height, width, 3]; say with --mean and --std how it wants them normalised, and with
--outputs whether it answers with logits or probabilities. Give --data FOLDER (one folder per class) to measure.
"""

import argparse

import keras

import keras_aip
from bridge.teachers.scan import refuse_code

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="a .keras file")
parser.add_argument("photo", help="any picture")
parser.add_argument("--outputs", choices=["logits", "probabilities"], default="logits")
parser.add_argument("--mean", type=float, nargs=3, help="per channel, of pixels in [0, 1]")
parser.add_argument("--std", type=float, nargs=3)
parser.add_argument("--student", default="wrn_16_4")
parser.add_argument("--epochs", type=int, default=100)
parser.add_argument("--views", type=int, default=50_000)
parser.add_argument("--batch-size", type=int, default=512)
parser.add_argument("--data", help="a folder of images to measure on")
parser.add_argument("--out", default="runs/my-clone")
arguments = parser.parse_args()

refuse_code(arguments.model)
model = keras.models.load_model(arguments.model, compile=False, safe_mode=True)
teacher = keras_aip.Teacher(model, outputs=arguments.outputs, mean=arguments.mean, std=arguments.std)
size, classes = teacher.input_size[0], teacher.classes

views = keras_aip.single_image_dataset(
    arguments.photo, image_size=size, batch_size=arguments.batch_size, views=arguments.views
)
student = keras_aip.models.build(arguments.student, classes=classes, image_size=size)
distiller = keras_aip.Distiller(student, teacher)
distiller.fit(views, epochs=arguments.epochs)

if arguments.data:
    print(keras_aip.evaluate(student, arguments.data, teacher=teacher))
card = keras_aip.save_teacher(student, arguments.out, source=f"distilled from {arguments.photo} alone")
print(f"{card.parameters:,} weights written to {arguments.out}")
