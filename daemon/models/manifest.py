"""The manifest of a version: what `v0001.json` says about `v0001.h5`.

Schema 1. Keys that this version of digitd does not know are passed over, so that an older one can read what a newer one
wrote; a change that would mislead it needs another number. "training", "holdout" and "corrections" may hold more than is
read here, and "measured" anything.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from daemon.config import Share
from daemon.models import CLASSES
from daemon.models.calibration import Calibration

Count = Annotated[int, Field(ge=0)]
Row = Annotated[list[Count], Field(min_length=CLASSES, max_length=CLASSES)]


def _check_moment(text: str) -> str:
    try:
        datetime.fromisoformat(text or "1970-01-01").astimezone()  # "" where nobody knows
    except (ValueError, OverflowError):
        raise ValueError("expected a moment such as 2026-11-23T08:00:00.123456Z") from None
    return text


Moment = Annotated[str, AfterValidator(_check_moment)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="ignore")


class _FreePart(_Part):
    model_config = ConfigDict(extra="allow")


class TrainingFacts(_FreePart):
    """How the version came to be; a training adds its settings and its course.

    Attributes:
        origin: in words.
        dataset_sha256: the digest of the base data set, hold-out included.

    """

    origin: str = ""
    dataset_sha256: str | None = None


class Holdout(_FreePart):
    """How it does on the frozen hold-out.

    Attributes:
        sha256: the digest of its images and labels.
        images: how many.
        accuracy: the share that is read right.
        loss: the mean cross-entropy.
        recall: the share of each digit's images that are read as that digit.
        confusion: how many images of each digit (row) are read as each digit (column).

    """

    sha256: str | None = None
    images: Count
    accuracy: Share
    loss: float | None = None
    recall: Annotated[list[Share], Field(min_length=CLASSES, max_length=CLASSES)] | None = None
    confusion: Annotated[list[Row], Field(min_length=CLASSES, max_length=CLASSES)] | None = None


class NoDigitCounts(_FreePart):
    """Of corrections that show no digit, how many were learnt from, and which share of those for the gate is held back."""

    training: Count = 0
    validation: Count = 0
    gate: Count = 0
    held_back: Share | None = None


class CorrectionCounts(_FreePart):
    """How many corrections were learnt from, and how it does on those that were held back for the gate and show a digit.

    `none` is of those that show no digit, which the first two count as well.
    """

    training: Count = 0
    validation: Count = 0
    gate: Count = 0
    accuracy: Share | None = None
    none: NoDigitCounts | None = None


class Histogram(_Part):
    """Shares of values between edges: one share more than edges."""

    edges: list[float]
    shares: list[Share]

    @model_validator(mode="after")
    def _fits(self) -> Histogram:
        if len(self.shares) != len(self.edges) + 1 or sorted(self.edges) != self.edges:
            raise ValueError("expected rising edges, and one share more than edges")
        return self


class Ink(_Part):
    """The mean value of a picture's pixels, and the share of them that are ink."""

    mean: Histogram
    share: Histogram


class Reference(_Part):
    """The distributions on validation data that drift is measured against, as `drift.describe_reference` gives them."""

    images: Count
    digits: Annotated[list[Share], Field(min_length=CLASSES, max_length=CLASSES)]
    confidence: Histogram
    ink: Ink


class Manifest(_Part):
    """What is known about a version.

    Attributes:
        version: its name, when it was made.
        sha256, size: of the .h5; `size` is "bytes" in the file.
        created_at: as `clock.timestamp` writes it.
        keras, tensorflow: the versions of the libraries that made it.
        parameters: of the network.
        layers: the `[[training.layers]]` that it was built from; None for one that was built elsewhere.
        calibration: what its logits mean; None where nobody measured it.
        training, holdout, reference, corrections: see there.
        measured: anything that it was measured on besides.

    """

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    version: str
    sha256: Sha256
    size: Count | None = Field(default=None, validation_alias="bytes", serialization_alias="bytes")
    created_at: Moment
    keras: str | None = None
    tensorflow: str | None = None
    parameters: Count
    layers: list[dict[str, Any]] | None = None
    calibration: Calibration | None = None
    training: TrainingFacts = TrainingFacts()
    holdout: Holdout
    measured: dict[str, Any] | None = None
    reference: Reference | None = None
    corrections: CorrectionCounts = CorrectionCounts()

    @classmethod
    def parse(cls, content: bytes) -> Manifest:
        """Read the content of a manifest.

        Raises:
            ValueError: it is none; the message names the key, what was expected and what was received.

        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise ValueError("; ".join(_explain(detail) for detail in error.errors()[:3])) from error

    def to_json(self) -> bytes:
        """The content of the file."""
        return self.model_dump_json(indent=2, exclude_none=True).encode() + b"\n"


def _explain(detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"]) or "the whole"
    if detail["type"] == "missing":
        return f"{key}: expected a value. Received: nothing"
    received = repr(detail["input"])
    shown = received if len(received) <= 80 else f"{received[:77]}..."
    expected = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, expected ")
    return f"{key}: expected {expected}. Received: {shown}"
