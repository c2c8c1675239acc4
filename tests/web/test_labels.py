"""labels.py, review.py, grid.py: what a person says of images."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from daemon.commands.correct import correct
from daemon.config import Settings
from daemon.index.filling import fill
from daemon.index.schema import remove
from daemon.web.pictures import Pictures
from daemon.web.site import Site
from tests.conftest import as_ordinary_user, files_below
from tests.index.answers import DAY, NOON, answer
from tests.index.conftest import bare_settings
from tests.web.conftest import handle_of


def cases(text: str) -> list[str]:
    """The names of the images that are to be reviewed, in their order."""
    return re.findall(r'<article .*?data-name="(.*?)"', text)


def label(browser: TestClient, settings: Settings, name: str, digit: str) -> Any:
    """What the page answers to a label."""
    return say(browser, handle_of(settings, name), digit)


def say(browser: TestClient, answer: str, digit: str) -> Any:
    """The same, of an answer's handle."""
    return browser.post("/label", data={"answer": answer, "label": digit}, headers={"accept": "application/json"})


def test_a_label_is_what_digitd_correct_writes(browser: TestClient, settings: Settings) -> None:
    """The same file; and it is undone, once."""
    corrections = settings.folder("corrections")
    answer = label(browser, settings, "batch7/b.png", "2").json()
    written = files_below(corrections)
    assert written == {"2/batch7/b.png"}
    assert correct(settings, "batch7/b.png", "2") == corrections / "2/batch7/b.png"
    assert files_below(corrections) == written
    undone = browser.post("/undo", data={"undo": answer["undo"]}, headers={"accept": "application/json"})
    assert (undone.status_code, files_below(corrections)) == (200, set())
    again = browser.post("/undo", data={"undo": answer["undo"]}, headers={"accept": "application/json"})
    assert (again.status_code, again.json()["said"]) == (409, "")


def test_a_double_click_is_one_label(browser: TestClient, settings: Settings) -> None:
    """Undoing the second leaves the first; no digit has its place, too."""
    label(browser, settings, "a.png", "none")
    second = label(browser, settings, "a.png", "none").json()
    browser.post("/undo", data={"undo": second["undo"]})
    assert files_below(settings.folder("corrections")) == {"none/a.png"}


def test_two_people_move_one_label(browser: TestClient, settings: Settings) -> None:
    """The last one has his way, and the first cannot undo it."""
    first = label(browser, settings, "a.png", "1").json()
    label(browser, settings, "a.png", "9")
    answer = browser.post("/undo", data={"undo": first["undo"]}, headers={"accept": "application/json"})
    assert "stays" in answer.json()["failed"][0]
    assert files_below(settings.folder("corrections")) == {"9/a.png"}


def test_what_is_labelled_is_not_asked_again(browser: TestClient, settings: Settings) -> None:
    """Nor is it in the grid; the list of answers shows the label. No daemon has to run for that."""
    assert cases(browser.get("/review").text) == ["batch7/b.png"]
    assert "a.png" in browser.get("/grid?digit=7").text
    label(browser, settings, "batch7/b.png", "3")
    label(browser, settings, "a.png", "7")
    assert cases(browser.get("/review").text) == []
    assert "a.png" not in browser.get("/grid?digit=7").text
    assert browser.get("/").text.count("tag labelled") == 2


def test_a_form_leads_to_the_next(browser: TestClient) -> None:
    """Without a script the page goes on behind the image, and offers to undo."""
    text = browser.get("/review?outcome=accepted").text
    assert cases(text)[:2] == ["c.png", "&#34;&gt;&lt;img src=x onerror=alert(1)&gt;.png"]
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(.*?)">', text)[:2])
    form = {key: value.replace("&amp;", "&") for key, value in form.items()}
    answer = browser.post("/label", data=form | {"label": "0"})
    assert answer.status_code == 303
    behind = browser.get(answer.headers["location"])
    assert cases(behind.text)[0].startswith("&#34;")
    assert 'name="undo"' in behind.text
    elsewhere = browser.post("/label", data=form | {"label": "0", "back": "//evil.example"})
    assert elsewhere.headers["location"].startswith("/review?")


def test_the_grid_confirms_all_but_the_wrong_ones(browser: TestClient, settings: Settings) -> None:
    """With one form, which one step undoes; the wrong ones are a link to the review."""
    right, wrong = (handle_of(settings, name) for name in ("a.png", '"><img src=x onerror=alert(1)>.png'))
    form = {"answer": [right, wrong], "label": "7", "wrong": wrong, "back": "/grid?digit=7"}
    answer = browser.post("/label", data=form)
    assert files_below(settings.folder("corrections")) == {"7/a.png"}
    page = browser.get(answer.headers["location"]).text
    assert f"/review?id={wrong}" in page
    assert cases(browser.get(f"/review?id={wrong}").text) == ["&#34;&gt;&lt;img src=x onerror=alert(1)&gt;.png"]


def test_what_is_gone_is_told(browser: TestClient, settings: Settings) -> None:
    """As is an image that has another's name by now, and an answer that never was."""
    original = settings.folder("processed") / "a.png"
    content = original.read_bytes()
    original.write_bytes(b"another")
    assert "not there any more" in label(browser, settings, "a.png", "7").json()["failed"][0]
    original.write_bytes(content)
    known = handle_of(settings, "a.png")
    id_, digest, name = known.split(".")
    for other in (f"{id_}.{digest}.00000000", f"{id_}.{'0' * 16}.{name}", f"{id_}..{name}", id_, "x", f"{10**30}.{digest}"):
        assert say(browser, other, "7").status_code == 409
    assert say(browser, known, "12").status_code == 400
    assert say(browser, known, "../x").status_code == 400
    assert files_below(settings.folder("corrections")) == set()


def test_an_index_made_anew_costs_nothing(browser: TestClient, settings: Settings) -> None:
    """A page that was opened before it shows the picture and labels the answer, though that has another number now."""
    named = handle_of(settings, "a.png")
    remove(settings.index)
    for number in range(3):
        answer(settings.root, f"0-{number}.png", f"{number}".encode(), NOON - DAY)
    fill(settings.index, settings)
    assert handle_of(settings, "a.png").partition(".")[0] != named.partition(".")[0]
    assert browser.get(f"/picture/{named}/small.png").status_code == 200
    assert cases(browser.get(f"/review?id={named}").text) == ["a.png"]
    assert say(browser, named, "7").json()["said"] == "Labelled 7."
    assert files_below(settings.folder("corrections")) == {"7/a.png"}


def test_a_label_lists_no_folder(browser: TestClient, settings: Settings) -> None:
    """However many labels there are; and yet one that the index knows moves, as does that of another name of the image."""
    corrections = settings.folder("corrections")
    content = (settings.folder("processed") / "a.png").read_bytes()
    answer(settings.root, "again.png", content, NOON + 5)
    (corrections / "5").mkdir()
    (corrections / "5" / "by-hand.png").write_bytes(content)
    remove(settings.index)
    fill(settings.index, settings)
    listed: list[str] = []
    is_on = True

    def hear(event: str, _arguments: tuple[object, ...]) -> None:
        if is_on and event in ("os.scandir", "os.listdir"):
            listed.append(event)

    sys.addaudithook(hear)
    assert label(browser, settings, "a.png", "1").json()["said"] == "Labelled 1."
    assert label(browser, settings, "again.png", "2").json()["said"] == "Labelled 2."
    is_on = False
    assert (files_below(corrections), listed) == ({"2/again.png"}, [])


def test_a_person_who_may_only_look_is_told(open_path: Path) -> None:
    """A sentence, and buttons that are off."""
    settings = bare_settings(open_path / "root")
    corrections = settings.folder("corrections")
    corrections.chmod(0o555)
    with as_ordinary_user():
        site = Site(settings, Pictures(settings))
        assert not site.may_label
        assert f"You may look, and not label: writing to {corrections} is for others." in site.notices()
