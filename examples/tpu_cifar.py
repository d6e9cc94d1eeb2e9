"""CIFAR-10 from one photograph, on whatever there is: a processor, several GPUs, several hosts or a TPU VM.

    python examples/tpu_cifar.py city.jpg --teacher teachers/cifar10_wrn_40_4 --strategy tpu

Only the strategy's name changes. The host draws numbers, a few dozen a view; the views themselves are drawn, mixed,
answered and learned from on the device.
"""

import argparse
import functools

import keras

import keras_aip
from keras_aip.hosts import is_first_host

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image")
parser.add_argument("--teacher", default="wrn_40_4")
parser.add_argument("--student", default="wrn_16_4")
parser.add_argument("--dataset", default="cifar10")
parser.add_argument("--strategy", default="auto", help="one_device, mirrored, multi_worker, tpu or auto")
parser.add_argument("--batch-size", type=int, default=512, help="over all devices")
parser.add_argument("--views", type=int, default=51_200)
parser.add_argument("--epochs", type=int, default=1000)
parser.add_argument("--steps-per-execution", type=int, default=50, help="steps between two looks of the host")
parser.add_argument("--out", default="runs/tpu_cifar/student")
arguments = parser.parse_args()

strategy = keras_aip.strategy(arguments.strategy)  # first of all: a TPU is set up before anything is computed
views = keras_aip.single_image_dataset(
    arguments.image, image_size=32, batch_size=arguments.batch_size, views=arguments.views, render="device"
)
load_teacher = functools.partial(keras_aip.load_teacher, arguments.teacher, dataset=arguments.dataset)
with strategy.scope():
    teacher = load_teacher(dtype="bfloat16")
    student = keras_aip.models.build(arguments.student, classes=teacher.classes, dtype="mixed_bfloat16")
    distiller = keras_aip.Distiller(student, teacher, temperature=8.0)
    distiller.compile(keras.optimizers.Adam(1e-3, epsilon=1e-8), steps_per_execution=arguments.steps_per_execution)
distiller.fit(views, epochs=arguments.epochs)

weights = [weight.numpy() for weight in student.weights]  # every host takes part in reading
if is_first_host(strategy):  # a plain float32 network on one device, as whoever uses it will load it
    student = keras_aip.models.build(arguments.student, classes=teacher.classes)
    student.set_weights(weights)
    keras_aip.save_teacher(student, arguments.out, class_names=teacher.class_names)
    result = keras_aip.evaluate(student, arguments.dataset, teacher=load_teacher())
    print(f"teacher {result['teacher_top1']:.1%}, student {result['student_top1']:.1%} of {result['n']} real images")
