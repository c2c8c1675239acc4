"""live.py: the model that is live, and swapping it."""

from __future__ import annotations

import platform
import resource
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from daemon.files import file_sha256
from daemon.models.backend import keras
from daemon.models.calibration import softmax
from daemon.models.live import LiveModel, ModelSlot, load
from daemon.models.manifest import Holdout, Manifest
from daemon.models.network import ModelError, as_input, read_model
from daemon.models.registry import Registry
from daemon.models.version import Version
from tests.conftest import REPOSITORY, Digits

PAGE = resource.getpagesize()


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@pytest.fixture(scope="module")
def live() -> LiveModel:
    """The shipped model, live."""
    return load(Registry(REPOSITORY / "models").version("v0001"))


def test_the_shipped_model_reads_digits(live: LiveModel, digits: Digits) -> None:
    """At least 99 of 100 test images are read right."""
    answers = live.predict(digits.images[:1000])[0].argmax(axis=1)
    assert np.mean(answers == digits.labels[:1000]) >= 0.99


@pytest.mark.parametrize("count", [0, 1, 2, 8, 9, 31, 32, 33, 100])
def test_any_number_of_images_is_predicted(live: LiveModel, digits: Digits, count: int) -> None:
    """Padding and parting leave each image its own ten probabilities."""
    probabilities, energies, _ = live.predict(digits.images[:count])
    assert ((count, 10), np.float32) == (probabilities.shape, probabilities.dtype)
    assert ((count,), np.float32) == (energies.shape, energies.dtype)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    alone = [live.predict(digits.images[number : number + 1])[0][0] for number in range(count)]
    np.testing.assert_allclose(probabilities, np.array(alone).reshape(count, 10), atol=1e-5)


def test_no_batch_is_traced_anew(live: LiveModel, digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the start no number of images makes TensorFlow trace again: that would call the Keras model."""
    calls: list[object] = []
    monkeypatch.setattr(type(live._model), "__call__", lambda *given, **_: calls.append(given))
    for count in (1, 3, 8, 20, 32, 50):
        live.predict(digits.images[:count])
    assert calls == []


def test_a_network_is_run_on_few_numbers_of_images(live: LiveModel, digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow keeps kernels for each that it ever saw, and nobody has them wait for many more images than there are."""
    sizes: list[int] = []
    run = live._graph.run
    monkeypatch.setattr(live._graph, "run", lambda batch, weights: sizes.append(len(batch)) or run(batch, weights))
    for count in range(1, 520, 7):
        before = len(sizes)
        assert count == len(live.logits(np.resize(digits.images, (count, 28, 28))))
        assert count <= sum(sizes[before:]) <= count + max(4, count // 7)
    assert {1, 2, 4, 8, 16, 32, 64, 128, 256} >= set(sizes)


def test_a_model_goes_live_without_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoGraph would write one for each model, and a daemon that is killed could not remove them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    load(Registry(REPOSITORY / "models").version("v0001"))
    assert [] == list(tmp_path.iterdir())


def saved(model: keras.Model, folder: Path, name: str = "v0002") -> Version:
    """Save a model as a version that nobody calibrated."""
    path = folder / f"{name}.h5"
    model.save(path, include_optimizer=False)
    holdout = Holdout(images=0, accuracy=0)
    return Version(
        name, path, Manifest(version=name, sha256=file_sha256(path), created_at="", parameters=0, holdout=holdout)
    )


def dense(*, seed: int | None = None, units: tuple[int, ...] = (10,)) -> keras.Model:
    """Dense layers of so many units, the last of which gives probabilities."""
    *hidden, last = units
    layers = [keras.layers.Dense(count) for count in hidden]
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Flatten(), *layers, keras.layers.Dense(last, activation="softmax")]
    )
    return model if seed is None else disturbed(model, seed)


def disturbed(model: keras.Model, seed: int = 1) -> keras.Model:
    """A network whose weights, means and variances all have values of their own."""
    random = np.random.default_rng(seed)
    model.set_weights([random.uniform(0.05, 0.2, weight.shape).astype(np.float32) for weight in model.get_weights()])
    return model


def adapted(digits: Digits) -> keras.layers.Layer:
    """A normalisation that was adapted to the data, whose mean is no weight that can be set."""
    normalisation = keras.layers.Normalization()
    normalisation.adapt(as_input(digits.images[:500]))
    return normalisation


def networks(digits: Digits) -> dict[str, keras.Model]:
    """Networks of many forms, each from (28, 28, 1) to probabilities, or to logits where the name says so."""
    layers, entry = keras.layers, keras.Input((28, 28, 1))
    flat = layers.Flatten()(entry)
    branches = layers.add([layers.Dense(10)(flat), layers.Dense(10, activation="tanh")(flat)])
    soft = partial(layers.Dense, 10, activation="softmax")
    return {
        "adapted normalisation": keras.Sequential([entry, adapted(digits), layers.Flatten(), soft()]),
        "normalisation before a folded layer": keras.Sequential(
            [
                entry,
                adapted(digits),
                layers.Conv2D(4, 3),
                layers.BatchNormalization(),
                layers.Flatten(),
                layers.Dense(10, "softmax"),
            ]
        ),
        "rescaling": keras.Sequential([entry, layers.Rescaling(2.0, -1.0), layers.Flatten(), soft()]),
        "softmax as a layer": keras.Sequential([entry, layers.Flatten(), layers.Dense(10), layers.Softmax()]),
        "softmax as an activation": keras.Sequential(
            [entry, layers.Flatten(), layers.Dense(10), layers.Activation("softmax")]
        ),
        "sigmoid": keras.Sequential([entry, layers.Flatten(), layers.Dense(10, activation="sigmoid")]),
        "functional": keras.Model(entry, layers.Activation("softmax")(branches)),
        "functional, to logits": keras.Model(entry, branches),
        "a model in a model": keras.Sequential([entry, dense()]),
        "dense, to logits": keras.Sequential([entry, layers.Flatten(), layers.Dense(10)]),
    }


NAMES = list(networks(Digits(np.zeros((500, 28, 28), np.uint8), [])))


@pytest.mark.filterwarnings("ignore:.*divide by zero:RuntimeWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_live_model_answers_as_it_was_saved(name: str, tmp_path: Path, digits: Digits) -> None:
    """Whatever it is made of: its probabilities are what Keras gives after loading the file, or that of its logits."""
    model = networks(digits)[name]
    version = saved(model, tmp_path)
    images = digits.images[:300]
    given = read_model(version.path).predict(as_input(images), verbose=0)
    expected = softmax(given) if "logits" in name else given / given.sum(axis=1, keepdims=True)
    answers = load(version).predict(images)
    np.testing.assert_allclose(expected, answers.probabilities, atol=1e-4)
    assert np.isfinite(answers.energies).all()


@pytest.mark.parametrize("name", ["adapted normalisation", "functional", "rescaling"])
def test_after_swaps_the_answers_are_those_of_the_file(name: str, tmp_path: Path, digits: Digits) -> None:
    """Also where weights could be filled into a model that is warm, and where they could not."""
    versions = []
    for number in (1, 2, 3):
        shifted = Digits((digits.images[:500] // number).astype(np.uint8), [])
        versions.append(saved(networks(shifted)[name], tmp_path, f"v000{number}"))
    slot = ModelSlot(versions[0])
    for version in (versions[1], versions[2], versions[0]):
        slot.swap(version)
        expected = read_model(version.path).predict(as_input(digits.images[:50]), verbose=0)
        answers = slot.live.predict(digits.images[:50])
        np.testing.assert_allclose(expected, answers.probabilities, atol=1e-4)
        assert version.identity == answers.identity


def test_a_swap_from_probabilities_to_logits_leaves_the_answers_those_of_the_file(tmp_path: Path, digits: Digits) -> None:
    """Of one architecture with a linear end, a version may give the ones and the next the others."""
    model = read_model(REPOSITORY / "models" / "v0001.h5")
    model.layers[-1].activation = keras.activations.linear
    kernel, bias = model.layers[-1].get_weights()
    versions = []
    for name, scale, offset in (("v0001", 0.002, 0.5), ("v0002", 1.0, -1000.0)):
        model.layers[-1].set_weights([kernel * scale, bias * scale + offset])
        versions.append(saved(model, tmp_path, name))
    slot = ModelSlot(versions[0])
    for version in (versions[1], versions[0], versions[1]):
        slot.swap(version)
        answers = slot.live.predict(digits.images[:200])[0].argmax(axis=1)
        assert np.mean(answers == digits.labels[:200]) >= 0.99


def test_a_model_whose_answer_depends_on_the_other_images_is_refused(tmp_path: Path) -> None:
    """It could be vetted together with others, and be wrong about each image that comes alone."""
    entry = keras.Input((28, 28, 1))
    version = saved(keras.Model(entry, keras.layers.UnitNormalization(axis=0)(dense(seed=1)(entry))), tmp_path)
    with pytest.raises(ModelError, match=r"Received: others, in a graph or to one alone\."):
        load(version)


def test_another_version_of_the_architecture_needs_no_trace(tmp_path: Path) -> None:
    """It has the same graph; another architecture has not."""
    one, other = saved(dense(), tmp_path, "v0001"), saved(dense(), tmp_path, "v0002")
    wider = saved(dense(units=(5, 10)), tmp_path, "v0003")
    model = load(one)
    filled = model.other(other)
    assert filled is not None
    assert (one.identity, other.identity) == (model.identity, filled.identity)
    assert model._graph is filled._graph
    assert model.other(wider) is None


def test_weights_that_are_not_finite_change_nothing(tmp_path: Path, digits: Digits) -> None:
    """They are refused, and the answers stay the old ones, under the old name."""
    model = dense()
    good = saved(model, tmp_path, "v0001")
    model.set_weights([np.full(weight.shape, np.nan) for weight in model.get_weights()])
    bad = saved(model, tmp_path, "v0002")
    slot = ModelSlot(good)
    before = slot.live.predict(digits.images[:5])
    with pytest.raises(ModelError, match="expected finite weights"):
        slot.swap(bad)
    after = slot.live.predict(digits.images[:5])
    np.testing.assert_array_equal(before.probabilities, after.probabilities)
    assert good.identity == after.identity


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no other allocator can be asked for it")
def test_a_swap_gives_back_what_the_allocator_keeps_free(tmp_path: Path) -> None:
    """Years of swaps leave no pieces behind; also those that lie between what stays."""
    slot = ModelSlot(saved(dense(), tmp_path, "v0001"))
    other = saved(dense(), tmp_path, "v0002")
    pieces = [bytes(3 * PAGE) for _ in range(5_000)]
    stays = pieces[::10]
    del pieces
    before = resident()
    slot.swap(other)
    assert before - resident() > 5_000 * PAGE
    assert 500 == len(stays)


def test_a_batch_keeps_the_version_that_it_began_with(tmp_path: Path, digits: Digits) -> None:
    """A model that was pinned answers as it did, and names its version, however many became live since."""
    versions = [saved(dense(seed=number), tmp_path, f"v000{number}") for number in (1, 2, 3)]
    slot = ModelSlot(versions[0])
    pinned = slot.live
    before = pinned.predict(digits.images[:5])
    slot.swap(versions[1])
    slot.swap(versions[2])
    after = pinned.predict(digits.images[:5])
    np.testing.assert_array_equal(before.probabilities, after.probabilities)
    assert versions[0].identity == after.identity
