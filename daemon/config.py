"""Settings: config.toml and the environment, parsed once into frozen, checked objects.

A key is overridden from the environment as `DIGITD_<TABLE>__<KEY>=value`, with the value written as in TOML
(`DIGITD_HTTP__PORT=9000`, `DIGITD_INBOX__IGNORE='["*.part"]'`); a bare word is taken as a string.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

_PACKAGE = Path(__file__).parent
# What digitd ships: installed, it is in the package; in a checkout, beside it.
SHARE = _PACKAGE / "share" if (_PACKAGE / "share").is_dir() else _PACKAGE.parent

ENVIRONMENT_PREFIX = "DIGITD_"
ENVIRONMENT_CONFIG = "DIGITD_CONFIG"  # names the file itself; every other variable names a key
LIVE = "live"  # marks what SIGHUP puts in force while images walk; all else needs a restart
OPTIMIZERS = Literal[
    "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "ftrl", "lion", "muon", "nadam", "rmsprop", "sgd"
]

LONGEST = 1e8  # seconds: three years, which every clock and timer of the kernel's and Python's takes
LARGEST = 2**31 - 1  # whole number that every library takes
Seconds = Annotated[float, Field(gt=0, le=LONGEST)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(gt=0, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]


class ConfigError(Exception):
    """The configuration cannot be used; the message names the key, what was expected and what was received."""


class Table(BaseModel):
    """One table of config.toml: strict types, finite numbers, no unknown keys, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Paths(Table):
    """Where the folders are; a relative one is below `root`, a relative `root` is below the file's folder."""

    root: str = "."
    inbox: str = "inbox"
    work: str = "work"
    results: str = "results"
    processed: str = "processed"
    rejected: str = "rejected"
    corrections: str = "corrections"
    models: str = "models"
    logs: str = "logs"


class InboxSettings(Table):
    """What is taken from the inbox, and within which limits it is decoded."""

    rescan_seconds: Annotated[Seconds, LIVE] = 5.0
    grace_seconds: Annotated[float, Field(ge=0, le=LONGEST), LIVE] = 5.0
    ignore: Annotated[list[str], LIVE] = [".*", "*.part", "*.partial", "*.crdownload", "*.filepart", "*.tmp", "*~"]
    max_bytes: PositiveInt = 64 * 2**20
    max_pixels: PositiveInt = 50_000_000
    decode_seconds: Seconds = 10.0
    decoder_memory_mb: Annotated[int, Field(ge=512, le=2**20)] = 1024
    workers: Annotated[int, Field(ge=1, le=64)] = 2


class InferenceSettings(Table):
    """How batches are predicted, and when an answer is sent to a person for review."""

    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    review_below: Annotated[Share, LIVE] = 0.9
    not_a_digit_above: Annotated[float, Field(gt=0), LIVE] = 1.02
    sync_seconds: Seconds = 1.0


class Augmentation(Table):
    """Random changes of training images; each value is the largest change in either direction."""

    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.1
    shear: Annotated[float, Field(ge=0, le=1)] = 0.2
    shift_pixels: Annotated[float, Field(ge=0, le=14)] = 1.5
    perspective: Share = 0.05
    elastic_pixels: Annotated[float, Field(ge=0, le=4)] = 0.8
    thickness: Share = 0.5
    coarse_share: Share = 0.1


class Layer(BaseModel):
    """One Keras layer: its class name and the arguments of its constructor."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    layer: str

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class TrainingSettings(Table):
    """What the model is, and how it is trained from scratch."""

    dataset: str = "datasets/mnist.npz"
    validation_share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    epochs: PositiveInt = 10
    batch_size: Annotated[int, Field(ge=2, le=LARGEST)] = 128  # one for what is base data, one for what is a correction
    optimizer: OPTIMIZERS = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 0.002
    warmup_share: Share = 0.1
    loss: Literal["categorical_crossentropy", "kl_divergence", "categorical_focal_crossentropy"] = "categorical_crossentropy"
    patience: PositiveInt = 8
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    scans: str = "datasets/scans.npz"
    scan_variants: Annotated[int, Field(ge=0, le=100)] = 5
    synthetic_digits: Annotated[int, Field(ge=0, le=1_000_000)] = 20_000
    synthetic_no_digits: Annotated[int, Field(ge=0, le=1_000_000)] = 6_000
    augmentation: Augmentation = Augmentation()
    layers: Annotated[list[Layer], Field(min_length=1)]


class RetrainSettings(Table):
    """When to retrain, and how a champion learns from corrections."""

    cron: str = "0 3 * * *"
    interval_hours: Annotated[float, Field(ge=0, le=LONGEST / 3600)] = 0.0
    after_corrections: Count = 50
    quiet_seconds: Seconds = 60.0
    max_hours: Seconds = 6.0
    steps: PositiveInt = 1200
    learning_rate: Annotated[float, Field(gt=0)] = 0.001
    corrections_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    most_corrections: PositiveInt = 20_000
    patience: PositiveInt = 6


class GateSettings(Table):
    """What a candidate must show before it takes the champion's place."""

    margin: Annotated[float, Field(gt=0, lt=1)] = 0.0025
    review_margin: Share = 0.01
    significance: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    min_corrections: PositiveInt = 5
    recall_floor: Share = 0.97
    canary_accuracy: Share = 0.9


class RetentionSettings(Table):
    """What is kept."""

    versions: Annotated[int, Field(ge=2, le=LARGEST)] = 20
    processed_days: Count = 0
    results_days: Count = 0
    rejected_days: Count = 0
    archive: str = "archive"
    keep_free_mb: Count = 0


class StreamSettings(Table):
    """`digitd stream`: the same walk on Apache Spark."""

    master: str = "local[2,4]"
    checkpoint: str = "checkpoint"
    batch_files: PositiveInt = 8192
    task_files: PositiveInt = 1024
    spark: list[Annotated[str, Field(pattern=r"^spark\.[^=\s]+=")]] = []


class HttpSettings(Table):
    """Where /metrics, /livez and /readyz are served."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9787


class Settings(Table):
    """The whole configuration, as written in `file`."""

    paths: Paths = Paths()
    inbox: InboxSettings = InboxSettings()
    inference: InferenceSettings = InferenceSettings()
    training: Annotated[TrainingSettings, LIVE]
    retrain: Annotated[RetrainSettings, LIVE] = RetrainSettings()
    gate: Annotated[GateSettings, LIVE] = GateSettings()
    retention: Annotated[RetentionSettings, LIVE] = RetentionSettings()
    http: HttpSettings = HttpSettings()
    stream: StreamSettings = StreamSettings()
    _file: Path = PrivateAttr(default=Path("config.toml"))

    def to_text(self) -> str:
        """All of it, for a process of ours: what is in force here, whatever the file says by now.

        But for what is for Spark, which may be a secret: everybody may read a process's command line.
        """
        return json.dumps([str(self._file), self.model_dump_json(exclude={"stream": {"spark"}})])

    @classmethod
    def from_text(cls, text: str) -> Settings:
        """What `to_text` wrote."""
        file, content = json.loads(text)
        return cls.model_validate_json(content).read_from(Path(file))

    def read_from(self, file: Path) -> Settings:
        """Remember the file that these settings came from."""
        self._file = file.absolute()
        return self

    @property
    def file(self) -> Path:
        """The file that these settings came from, absolute."""
        return self._file

    @property
    def root(self) -> Path:
        """The folder that relative paths are below, absolute."""
        return self._file.parent / self.paths.root

    def folder(self, name: str) -> Path:
        """The absolute path of one of the folders in `[paths]`, such as "inbox"."""
        return self.root / str(getattr(self.paths, name))

    @property
    def index(self) -> Path:
        """The index of all answers, absolute."""
        return self.root / "index.sqlite"

    @property
    def checkpoint(self) -> Path:
        """The folder of Spark's notes on the stream, absolute."""
        return self.root / self.stream.checkpoint

    @property
    def archive(self) -> Path | None:
        """The folder of what retention moved out, absolute; None where what is old is deleted."""
        return self.root / self.retention.archive if self.retention.archive else None


FOLDERS = ("inbox", "work", "results", "processed", "rejected", "corrections", "models", "logs")
WRITTEN = ("work", "results", "processed", "rejected", "models", "logs")  # those that a daemon alone writes to
ONE_FILE_SYSTEM = ("inbox", "work", "processed", "rejected")  # files move between them by rename
LOCK, PRESENCE = ".lock", ".daemon.json"  # in work/: one daemon per root, and which one it is
STREAM = ".stream"  # in work/: the folder for what the tasks of a stream claimed
TEMPORARY = ".tmp"  # in results/ and rejected/: the folder for files that are not whole yet


def load_settings(file: Path, environment: dict[str, str] | None = None) -> Settings:
    """Read and check a configuration.

    Args:
        file: the config.toml.
        environment: variables that may override keys; the process's own unless given.

    Raises:
        ConfigError: the file is missing or no TOML, or a key is unknown or has a wrong value.

    """
    try:
        str(file.absolute()).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{str(file)!r}: expected a path in UTF-8, for what is below it goes into JSON and pages."
        ) from None
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"No configuration: expected a file {file}. Name one with --config FILE, or make a new root with "
            f"`digitd init DIR`."
        ) from None
    except OSError as error:
        raise ConfigError(f"{file}: expected a readable TOML file. Received: {error.strerror}.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: expected a readable TOML file. Received: {error}.") from error
    overridden = _override(tables, dict(os.environ) if environment is None else environment)
    try:
        settings = Settings.model_validate(tables)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(file, overridden, detail) for detail in error.errors())) from error
    _refuse_overlaps(settings)
    return settings.read_from(file)


def _refuse_overlaps(settings: Settings) -> None:
    """One folder inside another would have the daemon read, or somebody delete, what it writes."""
    folders = {f"[paths] {name}": str(getattr(settings.paths, name)) for name in FOLDERS}
    folders |= {"[stream] checkpoint": settings.stream.checkpoint}
    if settings.retention.archive:
        folders |= {"[retention] archive": settings.retention.archive}
    root = Path(settings.paths.root)
    places = {key: Path(os.path.normpath(root / folder)) for key, folder in folders.items()}
    for key, place in places.items():
        for other, below in places.items():
            if key != other and below.is_relative_to(place):
                raise ConfigError(
                    f"{other}: expected a folder that is not that of {key} nor below it. Received: {below} and {place}."
                )


def _override(tables: dict[str, Any], environment: dict[str, str]) -> dict[tuple[str, ...], str]:
    """Put the environment's values into `tables`; return which key came from which variable."""
    sources = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == ENVIRONMENT_CONFIG:
            continue
        key = tuple(variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        table: Any = tables
        for part in key[:-1]:
            table = table.setdefault(part, {}) if isinstance(table, dict) else {}
        if isinstance(table, dict):
            table[key[-1]] = value
        sources[key] = variable
    return sources


def _explain(file: Path, overridden: dict[tuple[str, ...], str], detail: Any) -> str:
    """One sentence for one of pydantic's findings."""
    location = tuple(str(part) for part in detail["loc"])
    variable = next((overridden[head] for n in range(1, len(location) + 1) if (head := location[:n]) in overridden), None)
    if detail["type"] == "extra_forbidden" and not variable:  # of a table that there is none of, it names a key
        variable = next((overridden[key] for key in overridden if key[: len(location)] == location), None)
    where = f"environment variable {variable}" if variable else str(file)
    key = f"[{'.'.join(location[:-1])}] {location[-1]}" if len(location) > 1 else ".".join(location)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        if location in overridden and len(location) == 1:
            hint = f" Between table and key two underscores are needed, as in {ENVIRONMENT_PREFIX}HTTP__PORT."
        return f"{where}: {key}: unknown key. Expected one of: {', '.join(known)}.{hint}"
    if detail["type"] == "missing" and location in (("training",), ("training", "layers")):
        return (
            f"{where}: [[training.layers]]: expected the layers of the model, as in the config.toml that `digitd init DIR` "
            f"makes. Received: nothing."
        )
    if detail["type"] == "missing":
        return f"{where}: {key}: expected a value. Received: nothing."
    expected = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    expected = "a table" if detail["type"] == "model_type" else expected
    received = detail["input"]
    shown = repr(received) if isinstance(received, (str, int, float, bool, list)) else type(received).__name__
    return f"{where}: {key}: expected {expected}. Received: {shown} ({type(received).__name__})."


def _known_keys(location: tuple[str, ...]) -> list[str]:
    model: Any = Settings
    for part in location:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
