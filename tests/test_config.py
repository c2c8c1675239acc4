"""config.py: TOML and environment to checked settings."""

import os
import shutil
from pathlib import Path
from typing import get_args

import pytest

from daemon.config import FOLDERS, OPTIMIZERS, ConfigError, Settings, load_settings
from tests.conftest import REPOSITORY

SHIPPED = REPOSITORY / "config.toml"
SMALLEST = '[[training.layers]]\nlayer = "Flatten"\n'


def write(folder: Path, text: str) -> Path:
    """A config.toml with the one table that has no default, and `text` before it."""
    file = folder / "config.toml"
    file.write_text(f"{text}\n{SMALLEST}")
    return file


def refusal(file: Path, environment: dict[str, str] | None = None) -> str:
    """The message with which a configuration is refused."""
    with pytest.raises(ConfigError) as caught:
        load_settings(file, environment or {})
    return str(caught.value)


def test_the_shipped_file_states_the_defaults(tmp_path: Path) -> None:
    """Every value in the shipped config.toml is the default of its key."""
    shipped = load_settings(SHIPPED, {}).model_dump(exclude={"training": {"layers"}})
    assert load_settings(write(tmp_path, ""), {}).model_dump(exclude={"training": {"layers"}}) == shipped


def test_the_shipped_file_holds_every_key_with_a_comment() -> None:
    """Every key of every table is in the shipped config.toml, and its line has a comment."""
    commented = {line.split("=")[0].strip() for line in SHIPPED.read_text().splitlines() if "=" in line and "#" in line}
    tables = {name: field.annotation for name, field in Settings.model_fields.items()}
    expected = {key for table in tables.values() for key in table.model_fields} - {"layers", "augmentation"}
    expected |= set(tables["training"].model_fields["augmentation"].annotation.model_fields)
    assert expected - commented == set()


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_are_below_the_root(tmp_path: Path, name: str) -> None:
    """A relative folder is below the root, a relative root below the file's folder."""
    settings = load_settings(write(tmp_path, f'[paths]\nroot = "deep"\n{name} = "x"'), {})
    assert settings.folder(name) == tmp_path / "deep" / "x"


def test_an_absolute_folder_stays_where_it_is(tmp_path: Path) -> None:
    """An absolute path is taken as it is."""
    settings = load_settings(write(tmp_path, '[paths]\ninbox = "/srv/in"'), {})
    assert settings.folder("inbox") == Path("/srv/in")


def test_paths_do_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration named by a relative path gives absolute folders."""
    write(tmp_path, "")
    monkeypatch.chdir(tmp_path)
    settings = load_settings(Path("config.toml"), {})
    monkeypatch.chdir("/")
    assert settings.folder("inbox") == tmp_path / "inbox"


def test_settings_are_immutable(settings: Settings) -> None:
    """Nothing can be changed once it is parsed."""
    with pytest.raises(ValueError, match="frozen"):
        settings.http.port = 1  # type: ignore[misc]


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    """An unknown key is named, with its table and the key that was probably meant."""
    message = refusal(write(tmp_path, "[inbox]\nrescan_second = 1.0"))
    assert "[inbox] rescan_second: unknown key" in message
    assert "Did you mean rescan_seconds?" in message


def test_an_unknown_table_is_refused(tmp_path: Path) -> None:
    """An unknown table is named, with those that there are."""
    message = refusal(write(tmp_path, "[inboxes]\nx = 1"))
    assert "inboxes: unknown key. Expected one of: paths, inbox" in message


@pytest.mark.parametrize(
    ("text", "key", "received"),
    [
        ('[http]\nport = "9787"', "[http] port", "'9787' (str)"),
        ("[http]\nport = 70000", "[http] port", "70000 (int)"),
        ("[http]\nport = true", "[http] port", "True (bool)"),
        ("[inbox]\nrescan_seconds = 0", "[inbox] rescan_seconds", "0 (int)"),
        ("[inbox]\nworkers = 1.5", "[inbox] workers", "1.5 (float)"),
        ("[inbox]\nignore = '*.part'", "[inbox] ignore", "'*.part' (str)"),
        ("[inference]\nreview_below = 1.5", "[inference] review_below", "1.5 (float)"),
        ("[training]\nvalidation_share = 0.0", "[training] validation_share", "0.0 (float)"),
        ("[training]\noptimizer = 'adamant'", "[training] optimizer", "'adamant' (str)"),
        ("[training.augmentation]\nzoom = -1.0", "[training.augmentation] zoom", "-1.0 (float)"),
        ("http = 5", "http", "5 (int)"),
        ("[inbox]\ndecode_seconds = inf", "[inbox] decode_seconds", "inf (float)"),
        ("[inbox]\ndecode_seconds = 1e12", "[inbox] decode_seconds", "1000000000000.0 (float)"),
        ("[inbox]\ndecoder_memory_mb = 10000000000000", "[inbox] decoder_memory_mb", "10000000000000 (int)"),
        ("[inbox]\nmax_bytes = 9223372036854775807", "[inbox] max_bytes", "9223372036854775807 (int)"),
        ("[inference]\nthreads = 3000000000", "[inference] threads", "3000000000 (int)"),
        ("[training]\nseed = -1", "[training] seed", "-1 (int)"),
        ("[training]\nbatch_size = 1", "[training] batch_size", "1 (int)"),
        ("[training]\nlearning_rate = inf", "[training] learning_rate", "inf (float)"),
    ],
)
def test_a_wrong_value_is_refused(tmp_path: Path, text: str, key: str, received: str) -> None:
    """A wrong type or range is refused with the file, the key, what was expected and what was received."""
    file = write(tmp_path, text)
    message = refusal(file)
    assert message.startswith(f"{file}: {key}: expected ")
    assert message.endswith(f"Received: {received}.")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ('[paths]\nresults = "inbox"', ("[paths] results", "[paths] inbox")),
        ('[paths]\nwork = "inbox/../inbox/work"', ("[paths] work", "[paths] inbox")),
        ('[stream]\ncheckpoint = "inbox/.spark"', ("[stream] checkpoint", "[paths] inbox")),
        ('[stream]\ncheckpoint = "models"', ("[stream] checkpoint", "[paths] models")),
        ('[stream]\ncheckpoint = "."', ("[stream] checkpoint",)),
        ('[paths]\ninbox = ""', ("[paths] inbox",)),
        ('[retention]\narchive = "processed/old"', ("[retention] archive", "[paths] processed")),
    ],
)
def test_no_folder_is_in_another_one(tmp_path: Path, text: str, keys: tuple[str, ...]) -> None:
    """What one of them is for would be read, or deleted, as what the other one is for."""
    message = refusal(write(tmp_path, text))
    assert all(key in message for key in keys)
    assert "nor below it. Received: " in message


def test_every_wrong_key_is_named_at_once(tmp_path: Path) -> None:
    """Two faults give two lines."""
    message = refusal(write(tmp_path, '[http]\nport = "x"\n[inbox]\nworkers = 0'))
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize("text", ["", "[training]\nepochs = 1\n"])
def test_missing_layers_are_refused(tmp_path: Path, text: str) -> None:
    """A model without layers is no model: it says that they are missing, and where there are some."""
    file = tmp_path / "config.toml"
    file.write_text(text)
    assert refusal(file).startswith(f"{file}: [[training.layers]]: expected the layers of the model, as in ")


def test_a_value_in_the_place_of_a_table_is_refused(tmp_path: Path) -> None:
    """In words of TOML, not of Python."""
    file = write(tmp_path, "http = 5")
    assert refusal(file) == f"{file}: http: expected a table. Received: 5 (int)."


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A missing file is named, with the two ways out."""
    message = refusal(tmp_path / "none.toml")
    assert str(tmp_path / "none.toml") in message
    assert "digitd init" in message


@pytest.mark.parametrize("content", [b"[http\n", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    """Broken TOML and other bytes are a configuration error, not a traceback."""
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    assert "expected a readable TOML file" in refusal(file)


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    """A folder where the file should be is a configuration error."""
    assert f"{tmp_path}: expected a readable TOML file. Received: Is a directory." == refusal(tmp_path)


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("DIGITD_HTTP__PORT", "9000", 9000),
        ("DIGITD_HTTP__HOST", "::1", "::1"),
        ("DIGITD_HTTP__HOST", '"::1"', "::1"),
        ("DIGITD_INBOX__IGNORE", '["*.x", ".*"]', ["*.x", ".*"]),
        ("DIGITD_INBOX__RESCAN_SECONDS", "0.5", 0.5),
        ("DIGITD_TRAINING__AUGMENTATION__ZOOM", "0.5", 0.5),
        ("DIGITD_PATHS__ROOT", "/srv/my digits", "/srv/my digits"),
    ],
)
def test_the_environment_overrides_a_key(tmp_path: Path, variable: str, text: str, expected: object) -> None:
    """DIGITD_<TABLE>__<KEY> overrides the file, written as in TOML; a bare word is a string."""
    value: object = load_settings(write(tmp_path, "[http]\nport = 1"), {variable: text})
    for name in variable.removeprefix("DIGITD_").lower().split("__"):
        value = getattr(value, name)
    assert expected == value


def test_the_environment_is_read_when_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument it is the process's own environment."""
    monkeypatch.setenv("DIGITD_HTTP__PORT", "9001")
    assert load_settings(write(tmp_path, "")).http.port == 9001


@pytest.mark.parametrize(
    ("variable", "text", "key"),
    [
        ("DIGITD_HTTP__PORT", "many", "[http] port"),
        ("DIGITD_HTTP__PROT", "1", "[http] prot"),
        ("DIGITD_HTTP", "1", "http"),
        ("DIGITD_VERBOSE", "1", "verbose"),
        ("DIGITD_HTTTP__PORT", "1", "htttp"),
        ("DIGITD_INBOX__IGNORE", "[1]", "[inbox.ignore] 0"),
    ],
)
def test_a_wrong_override_names_its_variable(tmp_path: Path, variable: str, text: str, key: str) -> None:
    """A wrong value from the environment is blamed on its variable, not on the file."""
    assert refusal(write(tmp_path, ""), {variable: text}).startswith(f"environment variable {variable}: {key}: ")


def test_a_variable_with_one_underscore_is_told_of_two(tmp_path: Path) -> None:
    """It names a table that there is none of, and a likely one as its mend would mislead."""
    said = refusal(write(tmp_path, ""), {"DIGITD_HTTP_PORT": "9"})
    assert said.startswith("environment variable DIGITD_HTTP_PORT: http_port: unknown key. Expected one of: paths, ")
    assert said.endswith(" Between table and key two underscores are needed, as in DIGITD_HTTP__PORT.")


def test_other_variables_are_left_alone(tmp_path: Path) -> None:
    """DIGITD_CONFIG and what others call their variables are no keys."""
    assert load_settings(write(tmp_path, ""), {"DIGITD_CONFIG": "x", "HOME": "y"}).http.port == 9787


def test_a_layer_keeps_its_arguments(tmp_path: Path) -> None:
    """A layer's keys besides its name are the arguments of its constructor."""
    file = write(tmp_path, '[[training.layers]]\nlayer = "Dense"\nunits = 128\nkernel_initializer = "uniform"')
    first = load_settings(file, {}).training.layers[0]
    assert ("Dense", {"units": 128, "kernel_initializer": "uniform"}) == (first.layer, first.arguments)


def test_keras_knows_every_optimizer_that_may_be_configured() -> None:
    """By these names, and with a learning rate of ours."""
    from daemon.models.backend import keras

    for name in get_args(OPTIMIZERS):
        assert name == type(type(keras.optimizers.get(name))(learning_rate=0.1)).__name__.lower()


def test_a_path_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    """It goes into JSON and onto pages: the daemon ended over its index a moment after its start."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    shutil.copy(REPOSITORY / "config.toml", folder)
    with pytest.raises(ConfigError, match=r"caf\\udce9/config.toml': expected a path in UTF-8"):
        load_settings(folder / "config.toml", {})
