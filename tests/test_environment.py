"""The pinned sets import together, not just install together."""

import importlib.metadata
import subprocess
import sys

import keras
import pytest

from tests.conftest import ROOT

NINE = {
    "tensorflow": "tensorflow-cpu",
    "keras": "keras",
    "tensorflow_addons": "tensorflow-addons",
    "tensorflow_datasets": "tensorflow-datasets",
    "tensorflow_io": "tensorflow-io",
    "onnx": "onnx",
    "torch": "torch",
    "pytest": "pytest",
    "onnx2tf": "onnx2tf",  # last, for it changes the environment of the process
}
IS_TF215 = keras.__version__.startswith("2.15")


@pytest.mark.skipif(not IS_TF215, reason="the set of all nine packages is the TF 2.15 one")
def test_all_nine_packages_import_in_one_process():
    code = "\n".join(f"import {name}; print({name}.__name__)" for name in NINE)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert set(NINE) <= set(done.stdout.split())


@pytest.mark.skipif(IS_TF215, reason="the default set is the Keras 3 one")
def test_default_set_imports_in_one_process():
    names = [name for name in NINE if name not in ("tensorflow_addons", "tensorflow_io")]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(f"import {name}" for name in names)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_installed_versions_are_the_pinned_ones():
    main = "tf215.txt" if IS_TF215 else "keras3.txt"
    seen = 0
    for file in (main, "common.txt", "tests.txt"):
        for line in (ROOT / "requirements" / file).read_text().splitlines():
            name, _, version = line.split("#")[0].strip().partition("==")
            if version:
                assert importlib.metadata.version(name).partition("+")[0] == version, name  # "+cpu" is a build
                seen += 1
    assert seen > 15
