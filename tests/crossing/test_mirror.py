"""The two backends offer the same words; each exception stands here with its reason."""

import ast
import importlib
import inspect

import pytest

from tests.conftest import ROOT

# Modules of keras_aip that torch_aip does not have.
ONLY_KERAS = {
    "strategy": "`launch` is PyTorch's: torchrun says who is who",
    "hosts": "as above",
    "reference": "the reference code's CIFAR checkpoints are TensorFlow's",
    "demo": "one demonstration is enough",
    "audio": "audio is TensorFlow's; its networks cross as ONNX",
    "audio_files": "as above",
    "spectrograms": "as above",
    "pair": "as above: a front end that teacher and student share runs once",
    "int8_audio": "TFLite is TensorFlow's",
    "counted": "tf.data sets of images and of sounds are put together alike; PyTorch has loaders",
    "checks": "PyTorch's distiller looks itself",
    "models.front_end": "as above",
    "models.dscnn": "as above",
    "models.mel_resnet": "as above",
    "forms": "TFLite and SavedModel are TensorFlow's",
    "models.precision": "of PyTorch's own precisions autocast takes care, without another copy of the network",
}
# And the other way round.
ONLY_TORCH = {
    "models.library": "torchvision and timm are PyTorch's; keras.applications come by `bridge export`",
    "models.x3d": "video is PyTorch's; its networks cross as ONNX",
    "video": "as above",
    "models.imagenet_resnet": "networks of ImageNet's size are PyTorch's; they cross as ONNX",
    "launch": "`strategy` and `hosts` of TensorFlow in one",
    "ema": "Keras's optimizers have their own",
    "memory": "TensorFlow has allocators of its own",
}
# Public functions and classes of shared modules that only one has.
ONLY_ONE = {
    "export.saved_model_to_onnx": "a form of TensorFlow's",
    "export.tflite_to_onnx": "a form of TensorFlow's",
    "export.keras_file": "a form of Keras's",
    "export.application": "a form of Keras's",
    "teachers.registered_modules": "a .keras file may call for classes, a state dict for none",
    "models.is_video": "Keras has no networks for video",
    "models.layers.Network": "Keras networks are put together layer by layer, PyTorch's are classes",
    "models.layers.TensorflowConvolution": "Keras pads so by itself",
    "models.layers.Head": "as above",
    "models.layers.convolution": "as above",
    "models.layers.batch_norm": "as above",
    "models.layers.finished": "as above",
    "models.layers.normalised": "for the libraries' networks",
    "models.layers.store_channels_last": "Keras keeps them so anyway",
    "datasets.sound_training_batches": "teachers of sounds are trained in TensorFlow",
    "datasets.sounds_from_tfds": "as above",
    "datasets.from_tfds": "TensorFlow Datasets is TensorFlow's",
    "feed.Step": "tf.data hands out dictionaries",
    "feed.mapped": "tf.nest does it",
    "feed.takes_sounds": "sounds are distilled in TensorFlow",
    "evaluate.rate_of": "as above",
    "evaluate.input_side": "PyTorch's models say it in ways of their own",
    "stream.stream": "tf.data pipelines; PyTorch has loaders",
    "stream.Ahead": "tf.data has iterators of its own",
    "views.single_image_dataset": "PyTorch calls it a loader",
    "views.view_dataset": "as above",
    "views.single_image_loader": "as above",
    "views.view_loader": "as above",
    "views.ViewLoader": "as above",
    "optimizers.schedule_of": "a Keras schedule belongs to its optimizer",
    "optimizers.set_learning_rate": "as above",
    "run.ShowProgress": "a callback of Keras; PyTorch's loop is ours",
    "models.from_onnx.Crossed": "of a SavedModel; PyTorch gets a module",
    "models.cnn.SmallCnn": "as above",
    "models.cnn.Block": "as above",
    "models.wrn.WideResNet": "as above",
    "models.wrn.Stage": "as above",
    "models.wrn.Block": "as above",
    "models.resnet.CifarResNet": "as above",
    "models.resnet.residual": "PyTorch has no networks for audio, which are made by it too",
    "models.resnet.Unit": "as above",
    "models.vgg.CifarVgg": "as above",
    "models.state.plain": "torch.compile and DistributedDataParallel wrap a model, Keras does not",
    "models.state.load_weights": "the files people keep PyTorch weights in",
}
# Where arguments differ.
OTHERWISE = {
    "stream.ahead": "of any iterable; tf.data goes two batches ahead",
    "distiller.Distiller": "Keras models have names",
    "feed.feed": "a process knows its share; a strategy shares out",
    "optimizers.make_optimizer": "PyTorch's are made for given weights, and leave schedule and clipping to the step",
    "run.SaveRun": "a callback of Keras knows the distiller",
    "distill.make_distiller": "PyTorch names the device",
    "teachers.save_teacher": "a module does not say for what size of images it was made",
    "export.to_onnx": "Keras models tell the shape of their input",
    "models.build": "l2 and dtype belong to Keras layers; size and normalisation default to what a library wants",
    "models.from_onnx.from_onnx": "a SavedModel does not name its own sides, the card does",
    "models.layers.Normalise": "Keras layers take a name and a dtype",
    "models.layers.PaddedShortcut": "as above",
}
# Nothing in it is the same: what differs between versions of one framework.
APART = {"compat"}


def modules(package):
    files = (path.relative_to(ROOT / package).with_suffix("") for path in (ROOT / package).rglob("*.py"))
    return {".".join(file.parts).removesuffix(".__init__") for file in files} - {"__init__"}


def public(module):
    tree = ast.parse(inspect.getsource(module))
    return [
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    ]


def shared():
    return sorted((modules("keras_aip") & modules("torch_aip")) - APART - {"__main__"})


def both(name):
    return [importlib.import_module(f"{package}.{name}") for package in ("keras_aip", "torch_aip")]


def test_modules_are_the_same_but_for_named_exceptions():
    assert modules("keras_aip") - modules("torch_aip") == set(ONLY_KERAS)
    assert modules("torch_aip") - modules("keras_aip") == set(ONLY_TORCH)


@pytest.mark.parametrize("name", shared())
def test_public_functions_have_the_same_names_order_and_arguments(name):
    words = [[word for word in public(module) if f"{name}.{word}" not in ONLY_ONE] for module in both(name)]
    assert words[0] == words[1]
    for word in words[0]:
        if f"{name}.{word}" in OTHERWISE:
            continue
        signatures = [inspect.signature(getattr(module, word)) for module in both(name)]
        assert list(signatures[0].parameters) == list(signatures[1].parameters), word
        for a, b in zip(*(signature.parameters.values() for signature in signatures)):
            assert (a.default, a.kind) == (b.default, b.kind), (word, a.name)


def test_no_exception_outlives_its_reason():
    words = [{f"{name}.{word}" for name in shared() for word in public(both(name)[side])} for side in (0, 1)]
    assert set(ONLY_ONE) == words[0] ^ words[1]
    assert set(OTHERWISE) <= words[0] & words[1]


def test_what_the_packages_offer_is_the_same():
    import keras_aip
    import torch_aip

    assert set(torch_aip.__all__) - set(keras_aip.__all__) == {"single_image_loader", "single_video_loader"}
    audio = {"single_audio_dataset", "AudioRecipe", "Masks"}
    assert set(keras_aip.__all__) - set(torch_aip.__all__) == {"single_image_dataset", "strategy"} | audio
    audio = {"FrontEnd", "is_audio", "dscnn_s", "dscnn_m", "dscnn_l", "resnet20_mel", "resnet56_mel"}
    assert set(keras_aip.models.__all__) - set(torch_aip.models.__all__) == {"in_bfloat16"} | audio
