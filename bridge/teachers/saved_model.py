"""Writing a function of images as a SavedModel that holds its weights as constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def write_saved_model(answer: Callable[[Any], Any], name: str, shape: Sequence[int | None], folder: Path) -> None:
    """Write ``folder``, whose signature ``serving_default`` takes ``name`` and gives ``scores``.

    Args:
        answer: float32 of ``shape`` -> scores ``[batch, classes]``; what it is made of need not be tracked.
        name: Of the input.
        shape: Of the input; None: any batch.
        folder: To be made.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    given = tf.TensorSpec(shape, tf.float32, name=name)
    concrete = tf.function(answer, input_signature=[given], autograph=False).get_concrete_function()
    # Constants lie on whatever device they are used on: so a strategy has nothing to copy.
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)

    @tf.function(input_signature=[given], autograph=False)
    def serve(x: Any) -> dict[str, Any]:
        scores = frozen(x)
        scores = scores[0] if isinstance(scores, (list, tuple)) else scores
        return {"scores": tf.ensure_shape(tf.cast(scores, tf.float32), [None, None])}

    module = tf.Module()
    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
