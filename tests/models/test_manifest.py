"""manifest.py: what a manifest must say, and what becomes of one that does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from daemon.models.calibration import Calibration
from daemon.models.manifest import Holdout, Manifest
from tests.conftest import REPOSITORY

SHIPPED = (REPOSITORY / "models" / "v0001.json").read_bytes()
MADE = "2026-11-23T08:00:00.000000Z"
LEAST = {
    "schema": 1,
    "version": "v0002",
    "sha256": "a" * 64,
    "created_at": MADE,
    "parameters": 7,
    "holdout": {"images": 10, "accuracy": 0.5},
}


def changed(*path: str, to: Any) -> bytes:
    """The shipped manifest with another value at a path; None takes the key out."""
    manifest = json.loads(SHIPPED)
    table = manifest
    for key in path[:-1]:
        table = table[key]
    table.pop(path[-1])
    if to is not None:
        table[path[-1]] = to
    return json.dumps(manifest).encode()


def test_the_shipped_manifest_is_complete() -> None:
    """It tells of what, how and how well the version was trained."""
    manifest = Manifest.parse(SHIPPED)
    assert ("v0001", 10_000) == (manifest.version, manifest.holdout.images)
    assert None not in (manifest.size, manifest.keras, manifest.layers, manifest.calibration, manifest.reference)
    assert manifest.training.dataset_sha256 is not None


def test_a_manifest_is_written_as_it_is_read() -> None:
    """Also the keys that only training knows; what nobody measured is left out."""
    manifest = Manifest.parse(SHIPPED)
    assert manifest == Manifest.parse(manifest.to_json())
    assert json.loads(SHIPPED)["training"]["seconds"] == json.loads(manifest.to_json())["training"]["seconds"]
    holdout = Holdout(images=10, accuracy=0.5)
    least = Manifest(version="v0002", sha256="a" * 64, created_at=MADE, parameters=7, holdout=holdout)
    written = json.loads(least.to_json())
    assert LEAST.items() <= written.items()
    assert "calibration" not in written


def test_a_manifest_of_an_adopted_model_is_enough() -> None:
    """It says nothing of layers, calibration, reference or corrections."""
    manifest = Manifest.parse(json.dumps(LEAST).encode())
    assert (None, None, 0) == (manifest.calibration, manifest.reference, manifest.corrections.training)


def test_what_a_newer_digitd_adds_is_passed_over() -> None:
    """A key that is unknown here changes nothing."""
    added = json.dumps(json.loads(SHIPPED) | {"colour": "blue"}).encode()
    assert Manifest.parse(SHIPPED) == Manifest.parse(added)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed("schema", to=2), r"schema: expected 1\. Received: 2"),
        (changed("sha256", to="abc"), r"sha256: expected .*Received: 'abc'"),
        (changed("sha256", to=None), r"sha256: expected a value\. Received: nothing"),
        (changed("parameters", to="many"), r"parameters: expected a valid integer\. Received: 'many'"),
        (changed("holdout", to=None), "holdout: expected a value"),
        (changed("holdout", "accuracy", to=1.5), r"holdout\.accuracy: expected less than or equal to 1\. Received: 1\.5"),
        (changed("holdout", "accuracy", to=float("nan")), r"holdout\.accuracy: expected a finite number"),
        (changed("calibration", to=[1, 2]), "calibration: expected"),
        (changed("calibration", "temperature", to=0), r"calibration\.temperature: expected greater than or equal to 0\.01"),
        (
            changed("calibration", "temperature", to=1e-310),
            r"calibration\.temperature: expected greater than or equal to 0\.01",
        ),
        (changed("calibration", "temperature", to=1e9), r"calibration\.temperature: expected less than or equal to 100"),
        (changed("calibration", "temperature", to="warm"), r"calibration\.temperature: expected a valid number"),
        (changed("reference", "ink", to={}), r"reference\.ink\.mean: expected a value"),
        (changed("reference", "digits", to=[0.5, 0.5]), r"reference\.digits: .*at least 10"),
        (changed("reference", "confidence", "edges", to=[0.5]), r"reference\.confidence: expected rising edges"),
        (changed("training", to="long"), "training: expected"),
        (b"{", "the whole: .*JSON"),
        (b"[]", "the whole: expected an object"),
        (b"\xff", "the whole: "),
    ],
)
def test_a_bad_manifest_is_refused_in_a_sentence(content: bytes, words: str) -> None:
    """The key, what was expected and what was received."""
    with pytest.raises(ValueError, match=words):
        Manifest.parse(content)


def test_a_calibration_survives_its_manifest() -> None:
    """What is written is what is read."""
    calibration = Calibration(1.25, -9.5, -4.0)
    manifest = Manifest.parse(SHIPPED).model_copy(update={"calibration": calibration})
    assert calibration == Manifest.parse(manifest.to_json()).calibration


@pytest.mark.parametrize("made", ["by hand, in May", "9999-12-31T23:59:59.999999-23:59"])
def test_when_a_version_was_made_is_a_moment(made: str) -> None:
    """Whoever shows it need not ask again; one that no calendar has is none."""
    with pytest.raises(ValueError, match="created_at: expected a moment such as"):
        Manifest.parse(changed("created_at", to=made))


@pytest.mark.parametrize("none", [{"held_back": "most"}, {"held_back": 0.5, "gate": -1}, "all"])
def test_what_shows_no_digit_is_counted_in_numbers(none: object) -> None:
    """So the page can show it."""
    with pytest.raises(ValueError, match=r"corrections\.none"):
        Manifest.parse(json.dumps(LEAST | {"corrections": {"none": none}}).encode())
