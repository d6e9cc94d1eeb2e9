"""Who may import whom: the bridge loads no framework, and neither backend loads the other."""

import ast
import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FRAMEWORKS = {"tensorflow", "keras", "torch", "torchvision"}


def loaded_after(statement: str) -> set[str]:
    code = f"import sys, json; {statement}; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(out.stdout.strip().splitlines()[-1]))


def modules_below(package: str) -> list[str]:
    files = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def imports_of(module: str, top_level_only: bool = False) -> set[str]:
    path = ROOT / (module.replace(".", "/") + ".py")
    tree = ast.parse((path if path.exists() else ROOT / module.replace(".", "/") / "__init__.py").read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return found | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_no_module_of_the_bridge_loads_a_framework():
    everything = "; ".join(f"import {module}" for module in modules_below("bridge"))
    assert not loaded_after(everything) & FRAMEWORKS


def test_keras_aip_loads_no_pytorch():
    loaded = loaded_after("import keras_aip, keras_aip.cli, keras_aip.distill")
    assert "tensorflow" in loaded and not loaded & {"torch", "torchvision"}


def test_torch_aip_loads_neither_tensorflow_nor_torchvision():
    loaded = loaded_after("import torch_aip")
    assert "torch" in loaded and not loaded & {"tensorflow", "keras", "torchvision"}


@pytest.mark.parametrize("package, other", [("keras_aip", "torch_aip"), ("torch_aip", "keras_aip")])
def test_no_line_of_a_backend_imports_the_other(package, other):
    for module in modules_below(package):
        assert not any(name.split(".")[0] == other for name in imports_of(module)), module


def test_views_runs_reports_and_metrics_never_import_teachers():
    for module in modules_below("bridge"):
        if module.startswith(("bridge.datum", "bridge.runs", "bridge.report", "bridge.metrics")):
            assert not any(name.startswith("bridge.teachers") for name in imports_of(module)), module


def test_data_flows_one_way_within_keras_aip():
    order = [
        "views", "mixing", "losses", "teacher", "teachers", "distiller", "evaluate", "run", "distill", "demo", "cli"
    ]  # fmt: skip
    for place, name in enumerate(order):
        later = {f"keras_aip.{other}" for other in order[place + 1 :]}
        assert not imports_of(f"keras_aip.{name}", top_level_only=True) & later, name


def test_backend_other_than_tensorflow_is_refused_with_a_hint():
    code = "import os; os.environ['KERAS_BACKEND'] = 'torch'; import keras_aip"
    import keras

    if keras.__version__.startswith("2"):
        pytest.skip("Keras 2 has TensorFlow as its only backend")
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode and "KERAS_BACKEND=tensorflow" in out.stderr
