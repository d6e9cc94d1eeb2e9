"""A thousand classes from one photograph, in PyTorch; on a processor, a GPU, or several of them:

    python examples/imagenet_one_image.py city.jpg --testdir imagenet/val
    torchrun --nproc-per-node 8 examples/imagenet_one_image.py city.jpg --testdir imagenet/val --batch-size 4096

The paper's ResNet-18 → ResNet-50 has 34.5 % of ImageNet after 10 epochs and 66.2 % after 200 (Asano & Saeed 2023). With
`-m torch_aip distill --preset paper-in1k` in the script's place a run can be stopped and resumed, and ends in a report.
"""

import argparse

import torch

import torch_aip
from torch_aip.launch import launched
from torch_aip.optimizers import make_optimizer
from torch_aip.run import set_up

gpu = torch.cuda.is_available()
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("photo", help="any picture; large and dense ones are best")
parser.add_argument("--teacher", default="torchvision/resnet18", help="a name, or a teacher's folder")
parser.add_argument("--student", default="resnet50" if gpu else "resnet18x0.25")
parser.add_argument("--views", type=int, default=1_281_167, help="of an epoch")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--batch-size", type=int, default=512 if gpu else 64, help="over all GPUs")
parser.add_argument("--testdir", help="a folder with one folder of pictures per class, to measure on")
parser.add_argument("--out", default="runs/imagenet_one_image")
arguments = parser.parse_args()

set_up(threads=None, seed=0)
with launched() as world:  # one process, or one of those torchrun has started
    teacher = torch_aip.load_teacher(arguments.teacher, dtype="bfloat16", dataset="in1k")
    size = teacher.input_size[0]
    views = torch_aip.single_image_loader(
        arguments.photo, image_size=size, batch_size=arguments.batch_size, views=arguments.views,
        render="device" if gpu else "host",
    )  # fmt: skip
    student = torch_aip.models.build(arguments.student, classes=teacher.classes, image_size=size).to(world.device)
    distiller = torch_aip.Distiller(student, teacher, mixing=torch_aip.Mixing("cutmix", alpha=1.0))
    optimizer = make_optimizer(student.parameters(), "adamw", 1e-2, weight_decay=5e-4)
    distiller.compile(optimizer, dtype="bfloat16", jit_compile=gpu)
    distiller.fit(views, epochs=arguments.epochs)
    if world.is_first:
        torch_aip.save_teacher(student, arguments.out, class_names=teacher.class_names)
        if arguments.testdir:
            result = torch_aip.evaluate(student, arguments.testdir, teacher=teacher)
            print(
                f"teacher {result['teacher_top1']:.1%}, student {result['student_top1']:.1%} of {result['n']} pictures"
            )
