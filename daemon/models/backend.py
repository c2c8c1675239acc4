"""Keras and TensorFlow, imported without the lines that TensorFlow's C++ code writes to stderr as it starts.

No environment variable silences "Could not find cuda drivers" (TensorFlow 2.21), and a service's log is for its own words.
If the import fails, those lines are shown. The import costs 2 s and 560 MB: nothing that needs no model may import this.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _stderr_kept_back() -> Iterator[None]:
    with tempfile.TemporaryFile() as kept:
        stderr = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(stderr, kept.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextmanager
def _kept_for_good() -> Iterator[None]:
    """Make what stays as long as the process: looking for garbage in 300,000 objects takes a seventh of a start."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a machine without a GPU is no error; what fails raises
# By default for processors with AVX-512 alone; on others too a large batch takes a fifth less, a step of training a third.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras/keras.json says for somebody's other work
sys.stderr.flush()
with _stderr_kept_back(), _kept_for_good():
    import keras
    import tensorflow as tf
    from tensorflow.core.protobuf.config_pb2 import CallableOptions
keras.config.set_floatx("float32")  # of all that it says there
keras.config.set_epsilon(1e-7)
keras.config.set_image_data_format("channels_last")

__all__ = ["CallableOptions", "keras", "tf"]
