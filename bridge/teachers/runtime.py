"""onnxruntime: what an ONNX file answers, independent of either framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bridge.errors import TeacherError


class Runtime:
    """An ONNX model of one input and one output on the CPU.

    Args:
        model: A file, or a model in memory (an `onnx.ModelProto`).
        threads: CPU threads; None leaves it to onnxruntime.

    Raises:
        TeacherError: onnxruntime is not installed, or refuses the model.
    """

    def __init__(self, model: str | Path | Any, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise TeacherError(
                "This needs the package onnxruntime: pip install -r requirements/bridge.txt (it is in the TF 2.15 set)."
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # its warnings are about its own optimisations
        # Threads that wait busily take the cores from whatever framework runs in the same process.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        content = str(model) if isinstance(model, (str, Path)) else model.SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common class of their own
            first = str(error).strip().splitlines()[0]
            raise TeacherError(
                f"onnxruntime refuses {model if isinstance(model, (str, Path)) else 'it'}: {first}"
            ) from error
        self._input = self._session.get_inputs()[0]
        self._types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Answer a batch in the layout the file takes; the scores as the file gives them.

        Raises:
            TeacherError: The batch does not fit.
        """
        try:
            answer = self._session.run(None, {self._input.name: x.astype(self._types[self._input.type], copy=False)})
        except Exception as error:
            first = str(error).strip().splitlines()[0]
            raise TeacherError(f"onnxruntime cannot answer a batch of shape {x.shape}: {first}") from error
        return np.asarray(answer[0])

    def random_input(self, batch: int, seed: int = 0) -> np.ndarray:
        """Uniform numbers in [0, 1) of the shape the file takes, float32; ``batch`` rows unless its batch is fixed.

        Raises:
            TeacherError: The file leaves more than the batch open.
        """
        first, *rest = self._input.shape
        if not all(isinstance(side, int) for side in rest):
            raise TeacherError(f"The model's input {self._input.name!r} has open sides: {self._input.shape}.")
        rows = first if isinstance(first, int) else batch
        return np.random.default_rng(seed).random((rows, *rest), dtype=np.float32)
