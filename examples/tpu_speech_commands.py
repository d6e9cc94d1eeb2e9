"""Speech Commands from one sound, on whatever there is: a processor, several GPUs, several hosts or a TPU.

    python examples/tpu_speech_commands.py speech.flac --teacher teachers/speech_commands_dscnn_l --strategy tpu
    python examples/tpu_speech_commands.py --smoke    # sounds and teacher are made here, to see that it runs

Only the strategy's name changes. The host draws numbers, some fifty for a second of sound; the views themselves are
played, answered and learned from on the device. A teacher's folder, the one above, comes from

    keras-aip train-teacher --preset fast-speech-commands --data-dir FOLDER_WITH_SPEECH_COMMANDS

On a TPU VM, and likewise in a notebook of Colab or Kaggle that has a TPU (there with "!" before each line): clone the
repository, `pip install -r requirements/tpu.txt`, `pip install --no-deps -e .`, then the line above. A TPU that is
elsewhere is named by $TPU_NAME. The batch is that of all cores together: give it more where there are many.
"""

import argparse
import functools
from pathlib import Path

import keras

import keras_aip
from bridge.synthetic_sounds import RATE, SECONDS, babble, write_sounds
from keras_aip.cli import main
from keras_aip.datasets import load_audio
from keras_aip.hosts import is_first_host

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("audio", nargs="?", help="a sound file")
parser.add_argument("--teacher", default="dscnn_l", help="its folder, or its name under $AIP_TEACHERS")
parser.add_argument("--student", default="dscnn_s")
parser.add_argument("--dataset", default="speech_commands", help="or a folder with a folder of sounds per class")
parser.add_argument("--strategy", default="auto", help="one_device, mirrored, multi_worker, tpu or auto")
parser.add_argument("--batch-size", type=int, default=512, help="over all devices")
parser.add_argument("--views", type=int, default=51_200, help="per epoch")
parser.add_argument("--epochs", type=int, default=300)
parser.add_argument("--steps-per-execution", type=int, default=50, help="steps between two looks of the host")
parser.add_argument("--out", type=Path, default=Path("runs/tpu_speech_commands"))
parser.add_argument("--smoke", action="store_true", help="minutes instead of hours, on sounds made by formula")
arguments = parser.parse_args()
if not arguments.smoke and arguments.audio is None:
    parser.error("which sound? Give a file, or --smoke.")

strategy = keras_aip.strategy(arguments.strategy)  # first of all: a TPU is set up before anything is computed
if arguments.smoke:
    arguments.teacher, arguments.dataset = str(arguments.out / "teacher"), str(arguments.out / "sounds.npz")
    arguments.batch_size, arguments.views, arguments.epochs, arguments.steps_per_execution = 32, 320, 2, 5
    if not Path(arguments.teacher).exists():
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_sounds(arguments.dataset, train=512, test=80)
        line = f"train-teacher --architecture dscnn_s --sample-rate {RATE} --seconds {SECONDS} --epochs 2 --no-hold-out"
        if main([*line.split(), "--batch-size", "32", "--dataset", arguments.dataset, "--out", arguments.teacher]):
            raise SystemExit(2)
load_teacher = functools.partial(keras_aip.load_teacher, arguments.teacher, dataset=arguments.dataset)
with strategy.scope():
    teacher = load_teacher(dtype="bfloat16")
    rate, samples = teacher.rate, teacher.input_size[0]
    new_student = functools.partial(keras_aip.models.build, arguments.student, classes=teacher.classes)
    student = new_student(rate=rate, samples=samples, dtype="mixed_bfloat16")
    distiller = keras_aip.Distiller(student, teacher, temperature=4.0, mixing="none")
    steps = arguments.epochs * -(-arguments.views // arguments.batch_size)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, steps), epsilon=1e-8)
    distiller.compile(optimizer, steps_per_execution=arguments.steps_per_execution)
heard = {"rate": rate, "seconds": samples / rate}
views = keras_aip.single_audio_dataset(
    arguments.audio or babble(), **heard, batch_size=arguments.batch_size, views=arguments.views, render="device"
)
distiller.fit(views, epochs=arguments.epochs)

weights = [weight.numpy() for weight in student.weights]  # every host takes part in reading
if is_first_host(strategy):  # a plain float32 network on one device, as whoever uses it will load it
    student = new_student(rate=rate, samples=samples)
    student.set_weights(weights)
    keras_aip.save_teacher(student, arguments.out / "student", class_names=teacher.class_names)
    sounds = load_audio(arguments.dataset, class_names=teacher.class_names, **heard)
    result = keras_aip.evaluate(student, sounds, teacher=load_teacher())
    print(f"teacher {result['teacher_top1']:.1%}, student {result['student_top1']:.1%} of {result['n']} sounds")
