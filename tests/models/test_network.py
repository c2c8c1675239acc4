"""network.py: building the network from the configuration, reading a saved one."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from daemon.config import ConfigError, Layer, load_settings
from daemon.models import backend
from daemon.models.backend import keras
from daemon.models.network import ModelError, as_input, build_model, read_model
from tests.conftest import REPOSITORY

SHIPPED = REPOSITORY / "models" / "v0001.h5"
LAST = Layer(layer="Dense", units=10, activation="softmax")  # type: ignore[call-arg]


def layer(name: str, **arguments: object) -> Layer:
    """One [[training.layers]] table."""
    return Layer(layer=name, **arguments)  # type: ignore[arg-type]


def test_the_configured_network_is_a_sequential() -> None:
    """The shipped configuration gives a Sequential from (28, 28, 1) to 10 probabilities."""
    model = build_model(load_settings(REPOSITORY / "config.toml", {}).training.layers)
    assert isinstance(model, keras.Sequential)
    assert ((None, 28, 28, 1), (None, 10)) == (model.input_shape, model.output_shape)
    assert model.count_params() == 299818


def test_a_dense_network_keeps_its_initializer() -> None:
    """The arguments of a layer reach its constructor."""
    dense = layer("Dense", units=128, kernel_initializer="uniform", activation="relu")
    model = build_model([layer("Flatten"), dense, LAST])
    assert isinstance(model.layers[1].kernel_initializer, keras.initializers.RandomUniform)
    assert (28 * 28 + 1) * 128 + 129 * 10 == model.count_params()


@pytest.mark.parametrize("name", ["Dens", "layers", "__doc__", "deserialize"])
def test_an_unknown_layer_is_refused(name: str) -> None:
    """What is no class of keras.layers is named, with its number."""
    with pytest.raises(ConfigError, match=rf"number 2: layer: expected the name of a class .* Received: '{name}'"):
        build_model([layer("Flatten"), layer(name)])


def test_a_wrong_argument_is_refused() -> None:
    """What Keras refuses is a configuration error that says what Keras said."""
    with pytest.raises(ConfigError, match=r"number 2 \(Dense\): .*Received: \{'unit': 10\}"):
        build_model([layer("Flatten"), layer("Dense", unit=10)])


@pytest.mark.parametrize("layers", [[layer("Flatten")], [layer("Dense", units=10)]])
def test_another_output_is_refused(layers: list[Layer]) -> None:
    """The network must end in 10 probabilities an image."""
    with pytest.raises(ConfigError, match=r"expected an output of shape \(n, 10\)"):
        build_model(layers)


def test_images_become_the_networks_input() -> None:
    """0..255 becomes 0..1, with a channel axis."""
    images = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28)
    given = as_input(images)
    assert ((2, 28, 28, 1), np.float32) == (given.shape, given.dtype)
    np.testing.assert_allclose(given[..., 0], images / 255, rtol=1e-6)


NO_PROBABILITIES = {
    "no activation": [layer("Flatten"), layer("Dense", units=10)],
    "another activation": [layer("Flatten"), layer("Dense", units=10, activation="sigmoid")],
    "something after the softmax": [layer("Flatten"), LAST, layer("BatchNormalization")],
}


@pytest.mark.parametrize("layers", NO_PROBABILITIES.values(), ids=NO_PROBABILITIES.keys())
def test_a_network_that_does_not_end_in_probabilities_is_refused(layers: list[Layer]) -> None:
    """It would be trained to chance without a word; the message says what to do."""
    with pytest.raises(ConfigError, match=rf"number {len(layers)} \({layers[-1].layer}\): .*probabilities.*softmax"):
        build_model(layers)


@pytest.mark.parametrize("last", [layer("Softmax"), layer("Activation", activation="softmax")])
def test_probabilities_may_come_from_any_softmax(last: Layer) -> None:
    """Not only from that of a dense layer."""
    assert build_model([layer("Flatten"), layer("Dense", units=10), last]).output_shape == (None, 10)


def save(model: keras.Model, folder: Path) -> Path:
    """Save a model without the warning that .h5 is an old form."""
    path = folder / "m.h5"
    model.save(path, include_optimizer=False)
    return path


@pytest.mark.parametrize("content", [b"", b"text", SHIPPED.read_bytes()[:100_000]])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    """Half a file and no HDF5 at all: a ModelError that names the file."""
    path = tmp_path / "m.h5"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.h5: expected a Keras model"):
        read_model(path)


def test_a_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    """A network for other images is refused with both shapes."""
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(10)])
    with pytest.raises(ModelError, match=r"Received: \(None, 32, 32, 3\)"):
        read_model(save(model, tmp_path))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    """Keras loads NaN silently; we do not."""
    path = tmp_path / "m.h5"
    path.write_bytes(SHIPPED.read_bytes())
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(lambda name: names.append(name) if name.endswith("kernel") else None)
        file[names[0]][0] = value
    with pytest.raises(ModelError, match="expected finite weights"):
        read_model(path)


def test_a_model_with_code_is_refused(tmp_path: Path) -> None:
    """A Lambda layer, which is code, is not run."""
    marker = tmp_path / "ran"
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
            keras.layers.Lambda(lambda x, path=str(marker): (__import__("pathlib").Path(path).touch(), x)[1]),
        ]
    )
    path = save(model, tmp_path)
    marker.unlink(missing_ok=True)
    with pytest.raises(ModelError):
        read_model(path)
    assert not marker.exists()


def test_what_keras_brings_is_not_looked_through_for_garbage() -> None:
    """300,000 objects that stay; whoever imports it goes on collecting his own."""
    program = "import gc; import daemon.models.backend; print(gc.get_freeze_count() > 250_000, gc.isenabled())"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert ["True", "True"] == told.stdout.split()


def test_what_keras_is_told_for_other_work_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ~/.keras/keras.json may say: the daemon has its own backend, numbers and order of channels."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras.config.set_floatx("float16")
    keras.config.set_image_data_format("channels_first")
    importlib.reload(backend)
    assert "tensorflow" == os.environ["KERAS_BACKEND"]
    assert ("float32", "channels_last") == (keras.config.floatx(), keras.config.image_data_format())
