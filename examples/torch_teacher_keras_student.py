"""A PyTorch teacher teaches a Keras student from one photograph.

    python examples/torch_teacher_keras_student.py cifar10_resnet56.pt photo.jpg --architecture resnet56

The state dict becomes a teacher folder through ONNX; nothing in it is executed. What the folder says in Keras is
compared with what it says in PyTorch before anything is learned from it.
"""

import argparse
from pathlib import Path

import keras_aip
from bridge.teachers.export import export
from bridge.teachers.options import ExportConfig
from bridge.teachers.parity import verify

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("weights", help="a .pt, .pth or .safetensors state dict")
parser.add_argument("photo", help="any picture")
parser.add_argument("--architecture", default="resnet56", help="resnet20…110, wrn_D_W, vgg11…19, torchvision/NAME")
parser.add_argument("--dataset", default="cifar10", help="what the teacher was trained for")
parser.add_argument("--mean", type=float, nargs=3, default=(0.485, 0.456, 0.406), help="of the teacher's images")
parser.add_argument("--std", type=float, nargs=3, default=(0.229, 0.224, 0.225))
parser.add_argument("--student", default="wrn_16_4")
parser.add_argument("--epochs", type=int, default=100)
parser.add_argument("--views", type=int, default=50_000)
parser.add_argument("--batch-size", type=int, default=512)
parser.add_argument("--out", default="runs/crossed")
arguments = parser.parse_args()

out = Path(arguments.out)
card = export(
    ExportConfig(
        model=arguments.architecture,
        weights=arguments.weights,
        dataset=arguments.dataset,
        mean=tuple(arguments.mean),
        std=tuple(arguments.std),
        out=str(out / "teacher"),
    )
)
proof = verify(out / "teacher", image=arguments.photo, views=256)  # 2,048 for a proof to show around
print("Both frameworks agree on", {name: f"{e['agreement']:.2%}" for name, e in proof["engines"].items() if e})

teacher = keras_aip.load_teacher(out / "teacher")
size = card.input_size[0]
student = keras_aip.models.build(arguments.student, classes=card.classes, image_size=size)
views = keras_aip.single_image_dataset(
    arguments.photo, image_size=size, batch_size=arguments.batch_size, views=arguments.views
)
keras_aip.Distiller(student, teacher).fit(views, epochs=arguments.epochs)
keras_aip.save_teacher(student, out / "student", class_names=card.class_names, source=f"from {arguments.photo} alone")
line = f"python -m keras_aip evaluate --model {out / 'student'} --dataset {arguments.dataset}"
print(f"Student written to {out / 'student'}. Measure it: {line}")
