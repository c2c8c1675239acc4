"""A network as a graph that TensorFlow runs in the thread that asks, and that is handed its weights with each batch."""

from __future__ import annotations

import numpy as np

from daemon.models.backend import CallableOptions, keras, tf
from daemon.models.network import IMAGE_SHAPE

Weights = tuple[np.ndarray, ...]
ALIGNED = 64  # bytes; TensorFlow reads an array in its place where it begins at a multiple of these, and copies others


class Graph:
    """What a Keras model computes, traced once for batches of any size.

    A `tf.function` is run by threads of TensorFlow's: to hand a lone image over, with the Python around that, takes as long
    again as the network. The work of a session can be done by the thread that asks. As the weights are no part of the graph,
    one is enough for all versions of an architecture, and a batch has those of one version, whatever becomes live meanwhile.

    Args:
        model: from (n, 28, 28, 1) float32 to (n, 10).

    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model

        def run(batch: tf.Tensor, *weights: tf.Tensor) -> tf.Tensor:
            count = len(model.trainable_variables)
            return model.stateless_call(weights[:count], weights[count:], batch, training=False)[0]

        variables = [*model.trainable_variables, *model.non_trainable_variables]
        specs = [tf.TensorSpec(variable.shape, variable.dtype) for variable in variables]
        # Without AutoGraph, which writes a Python file for temporary files' folder to keep.
        traced = tf.function(run, autograph=False).get_concrete_function(
            tf.TensorSpec((None, *IMAGE_SHAPE), tf.float32), *specs
        )
        self._constants = traced.captured_inputs  # such as the mean of an adapted Normalization, which is no weight
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(traced.graph.as_graph_def(), name="")
        session = tf.compat.v1.Session(
            graph=graph,
            config=tf.compat.v1.ConfigProto(
                intra_op_parallelism_threads=tf.config.threading.get_intra_op_parallelism_threads(),
                inter_op_parallelism_threads=1,
            ),
        )
        options = CallableOptions(feed=[tensor.name for tensor in traced.inputs], fetch=[traced.outputs[0].name])
        options.run_options.inter_op_thread_pool = -1  # none: the thread that asks
        self._call = session._make_callable_from_options(options)  # noqa: SLF001 -- `run` takes half a millisecond more

    def weights(self) -> Weights:
        """A copy of those that the model has now."""
        variables = [*self._model.trainable_variables, *self._model.non_trainable_variables]
        return tuple(_aligned(np.asarray(array)) for array in (*variables, *self._constants))

    def run(self, batch: np.ndarray, weights: Weights) -> np.ndarray:
        """(n, 28, 28, 1) float32 to (n, 10) float32. Any thread may call this."""
        answers: np.ndarray = self._call(batch, *weights)[0]
        return answers


def _aligned(array: np.ndarray) -> np.ndarray:
    room = np.empty(array.nbytes + ALIGNED, np.uint8)
    start = -room.ctypes.data % ALIGNED
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
