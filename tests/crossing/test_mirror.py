"""The two backends offer the same words; each exception stands here with its reason."""

import ast
import inspect

import keras_aip.losses
import keras_aip.mixing
import torch_aip.losses
import torch_aip.mixing
from tests.conftest import ROOT

# Modules of keras_aip that torch_aip does not have.
ONLY_KERAS = {
    "compat": "the two Keras versions differ, PyTorch is one",
    "views": "comes with the PyTorch trainer",
    "distiller": "comes with the PyTorch trainer",
    "teachers": "comes with the bridge between frameworks",
    "models": "comes with the bridge between frameworks",
    "datasets": "comes with the PyTorch trainer",
    "evaluate": "comes with the PyTorch trainer",
    "optimizers": "comes with the PyTorch trainer",
    "strategy": "`launch` comes with the PyTorch trainer",
    "hosts": "`launch` comes with the PyTorch trainer",
    "stream": "tf.data pipelines; PyTorch has loaders",
    "feed": "tf.data pipelines; PyTorch has loaders",
    "stored": "comes with the PyTorch trainer",
    "run": "comes with the PyTorch trainer",
    "distill": "comes with the PyTorch trainer",
    "sweep": "comes with the PyTorch trainer",
    "reference": "the reference code's CIFAR checkpoints are TensorFlow's",
    "train_teacher": "comes with the PyTorch trainer",
    "demo": "one demonstration is enough",
    "cli": "comes with the PyTorch trainer",
    "__main__": "comes with the PyTorch trainer",
}


def modules(package):
    names = {path.stem if path.is_file() else path.name for path in (ROOT / package).iterdir()}
    return names - {"__init__", "__pycache__"}


def public(module):
    tree = ast.parse(inspect.getsource(module))
    return [
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    ]


def test_modules_are_the_same_but_for_named_exceptions():
    assert modules("keras_aip") - modules("torch_aip") == set(ONLY_KERAS)
    assert not modules("torch_aip") - modules("keras_aip")


def test_public_functions_have_the_same_names_order_and_arguments():
    for mine, theirs in ((keras_aip.losses, torch_aip.losses), (keras_aip.mixing, torch_aip.mixing)):
        assert public(mine) == public(theirs)
        for name in public(mine):
            signatures = [inspect.signature(getattr(module, name)) for module in (mine, theirs)]
            assert list(signatures[0].parameters) == list(signatures[1].parameters), name
            for a, b in zip(*(s.parameters.values() for s in signatures)):
                assert a.default == b.default, (name, a.name)
