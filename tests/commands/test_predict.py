"""`digitd predict`: images read without a daemon."""

import json
from pathlib import Path

import pytest

from tests.conftest import Digits, Run, encode


def test_predict_prints_a_line_a_file(run: Run, tmp_path: Path, digits: Digits) -> None:
    """Name, digit and confidence."""
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(digits.png(number))
    code, out, err = run("predict", *(tmp_path / f"{number}.png" for number in range(3)))
    assert (0, "") == (code, err)
    expected = [f"{tmp_path / f'{number}.png'}: {digits.labels[number]}" for number in range(3)]
    assert expected == [line.rpartition(" (")[0] for line in out.splitlines()]


def test_predict_gives_json_as_in_results(run: Run, tmp_path: Path, digits: Digits) -> None:
    """With --json a line is a result or a rejection of the contract; a rejection makes the exit code 1."""
    (tmp_path / "a.png").write_bytes(digits.png(0))
    (tmp_path / "b.png").write_bytes(b"text")
    code, out, err = run("predict", "--json", tmp_path / "a.png", tmp_path / "b.png")
    assert (1, "") == (code, err)
    result, rejection = (json.loads(line) for line in out.splitlines())
    assert (str(tmp_path / "a.png"), digits.labels[0], "v0001") == (
        result["file"],
        result["digit"],
        result["model"]["version"],
    )
    assert (str(tmp_path / "b.png"), "not_an_image") == (rejection["file"], rejection["reason"])


def test_predict_goes_on_after_a_bad_file(run: Run, tmp_path: Path, digits: Digits) -> None:
    """Each bad file has its sentence, good ones their answer; the exit code is 1."""
    (tmp_path / "a.png").write_bytes(digits.png(0))
    (tmp_path / "b.png").write_bytes(b"text")
    code, out, err = run("predict", tmp_path / "none.png", tmp_path / "b.png", tmp_path / "a.png")
    assert code == 1
    assert out.startswith(f"{tmp_path / 'a.png'}: {digits.labels[0]} (")
    assert [f"{tmp_path / 'none.png'}: No such file or directory", f"{tmp_path / 'b.png'}: not_an_image: "] == [
        err.splitlines()[0],
        err.splitlines()[1][: len(f"{tmp_path / 'b.png'}: not_an_image: ")],
    ]


def test_predict_marks_what_a_person_should_see(
    run: Run, root: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer of less than the configured confidence says so."""
    monkeypatch.setenv("DIGITD_INFERENCE__REVIEW_BELOW", "1.0")
    monkeypatch.setenv("DIGITD_INFERENCE__NOT_A_DIGIT_ABOVE", "9.0")
    ink = digits.images[0] // 2 + digits.images[1] // 2
    (root / "two.png").write_bytes(encode(ink))
    code, out, _ = run("predict", root / "two.png")
    assert code == 0
    assert out.endswith(", to be reviewed: low_confidence)\n")


def test_predict_without_a_model_exits_with_1(run: Run, root: Path) -> None:
    """It says which file it expected."""
    (root / "models" / "v0001.json").unlink()
    code, out, err = run("predict", root / "a.png")
    assert (1, "") == (code, out)
    assert "expected at least one model version" in err


def test_predict_says_so_where_links_lead_in_a_circle(run: Run, tmp_path: Path, digits: Digits) -> None:
    """And goes on."""
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "b.png").symlink_to("a.png")
    (tmp_path / "c.png").write_bytes(digits.png(0))
    code, out, err = run("predict", tmp_path / "a.png", tmp_path / "c.png")
    assert (1, f"{tmp_path / 'a.png'}: not_a_regular_file") == (code, err.rpartition(": Expected")[0])
    assert out.startswith(f"{tmp_path / 'c.png'}: {digits.labels[0]} (")
