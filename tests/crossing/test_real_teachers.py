"""Teachers that other people trained answer alike in Keras and PyTorch; benchmarks/real_teachers.py makes the table."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from tests.crossing.real_teachers import TEACHERS, compare

# Of the first so many of the real test data; what both frameworks must name rightly, counted once.
FIRST = {"resnet20": (500, 469), "mobilenetv2": (40, 32), "dscnn": (240, 218)}


@pytest.mark.data
@pytest.mark.parametrize("name", FIRST)
def test_a_real_teacher_says_the_same_in_both_frameworks(name: str, data_folder: Path, tmp_path: Path) -> None:
    teacher = TEACHERS[name]
    if not all((data_folder / file).exists() for file in teacher.files):
        pytest.skip(f"{', '.join(teacher.files)} not in {data_folder}; set AIP_DATA")
    teacher.export(data_folder, tmp_path / name)
    inputs, labels = teacher.test_data(data_folder)
    n, right = FIRST[name]
    found = compare(tmp_path / name, inputs[:n], labels[:n], batch=40)
    assert found["keras_top1"] * n == found["torch_top1"] * n == pytest.approx(right)
    assert found["agreement"] == 1
    assert found["difference"] < 1e-4 * max(1.0, found["largest"])
