"""`python -m tests.bridge.convert_many FOLDER`: each .onnx file there through validation, baking and onnx2tf.

In a process of its own, as every conversion is: importing onnx2tf changes the whole process. Prints one line per file.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import onnx

from bridge.errors import TeacherError
from bridge.teachers.bake import bake
from bridge.teachers.convert_child import ConversionError, convert
from bridge.teachers.onnx_file import read_onnx


def outcome(path: Path) -> str:
    """How a file ends: converted, or in which clean error."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "model.onnx"
            onnx.save(bake(read_onnx(path, external=True)), copy)
            convert(copy, Path(folder) / "saved")
    except (TeacherError, ConversionError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return "converted"


if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
        print(f"{path.name} -> {outcome(path)}", flush=True)
