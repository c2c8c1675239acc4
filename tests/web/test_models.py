"""models.py: the versions, what is known of them, and what is live, chosen on the page."""

from __future__ import annotations

import json
import re
import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from daemon.config import Settings
from daemon.files import file_sha256
from daemon.index.schema import INSERT_LABEL, open_to_write
from daemon.models.adoption import Findings, adopt
from daemon.models.registry import Registry, RegistryError
from daemon.training.labels import write_learnt
from daemon.web.access import Access
from daemon.web.application import make_application
from daemon.web.charts import Span
from daemon.web.pictures import Pictures
from daemon.web.site import Site
from daemon.web.versions import live_spans, running
from tests.conftest import REPOSITORY, as_ordinary_user
from tests.index.conftest import bare_settings
from tests.web.conftest import ORIGIN, TOKEN

NOW = 1_800_000_000.0
HOSTILE = "<script>alert(1)</script>"


def lay_models(settings: Settings) -> Registry:
    """The shipped version, and v0002 that the gate refused for a hostile reason."""
    registry = Registry(settings.folder("models"))
    manifest = json.loads((REPOSITORY / "models" / "v0001.json").read_bytes())
    for name in ("v0001", "v0002"):
        shutil.copy(REPOSITORY / "models" / "v0001.h5", registry.folder / f"{name}.h5")
        manifest |= {"version": name, "sha256": file_sha256(registry.folder / f"{name}.h5")}
        manifest["holdout"]["confusion"] = [[980 if a == b else 3 * (a == b + 1) for a in range(10)] for b in range(10)]
        (registry.folder / f"{name}.json").write_text(json.dumps(manifest))
    registry.make_current("v0001", "for a test")
    registry.ledger.record("made", "v0002", "here", sha256=manifest["sha256"])
    registry.ledger.record("refused", "v0002", f"It is worse. {HOSTILE}", began=NOW)
    return registry


@pytest.fixture
def registry(settings: Settings) -> Registry:
    """Two versions, the first of them current."""
    return lay_models(settings)


def test_the_versions_are_shown_with_their_verdicts(browser: TestClient, registry: Registry) -> None:
    """The newest first, the verdict with its sentence, escaped; a manifest that cannot be read is a sentence too."""
    page = browser.get("/models").text
    assert page.index("/models/v0002") < page.index("/models/v0001")
    assert "It is worse. &lt;script&gt;" in page
    assert HOSTILE not in page
    (registry.folder / "v0003.json").write_text("{}")
    assert "expected a readable manifest" in browser.get("/models").text
    assert browser.get("/models/v0003").status_code == 200
    manifest = json.loads((registry.folder / "v0001.json").read_bytes())
    for wrong in ({"created_at": "in May"}, {"corrections": {"none": {"held_back": 0.5}}}, {"corrections": {"none": 1}}):
        (registry.folder / "v0003.json").write_text(json.dumps(manifest | wrong))
        assert [200, 200] == [browser.get(path).status_code for path in ("/models", "/models/v0003")]


@pytest.mark.usefixtures("registry")
def test_a_version_has_a_page_of_its_own(browser: TestClient, settings: Settings) -> None:
    """Learning curves, where they were kept, with what they say in words; and its confusion matrix as a table."""
    assert "Nobody kept them" in browser.get("/models/v0002").text
    logs = settings.folder("logs") / "training" / "v0002"
    logs.mkdir(parents=True)
    rows = "epoch,accuracy,loss,val_accuracy,val_loss\n0,0.5,1.5,0.8,nan\n1,0.9,0.25,0.95,0.125\nnonsense\n"
    (logs / "history.csv").write_text(rows)
    page = browser.get("/models/v0002").text
    assert re.findall(
        r'aria-label="(Loss|Accuracy) of v0002 by epoch, 3 in all; on validation images ([0-9. %]+) at', page
    ) == [
        ("Loss", "0.125"),
        ("Accuracy", "95 %"),
    ]
    assert page.count('<td class="right ') == 10
    assert "99.69 %" in page
    assert browser.get("/models/v0009").status_code == 404
    assert browser.get("/models/..%2f..%2fetc").status_code == 404


def test_promote_asks_first_and_then_does_what_the_command_does(browser: TestClient, registry: Registry) -> None:
    """The question tells the gate's verdict; the answer changes current.h5, and the ledger says that a person did it."""
    question = browser.get("/models/v0002/promote")
    assert "The gate said refused: It is worse." in question.text
    assert registry.current_name() == "v0001"
    done = browser.post("/models/v0002/promote", data={"instead_of": "v0001"})
    assert (done.status_code, registry.current_name(), registry.previous_name()) == (303, "v0002", "v0001")
    assert "v0002 is current now" in browser.get(done.headers["location"]).text
    assert list(registry.ledger.lines())[-1]["reason"] == "forced by hand: the gate had said refused"
    done = browser.post("/models/rollback", data={"instead_of": "v0002"})
    assert (done.status_code, registry.current_name()) == (303, "v0001")


@pytest.mark.parametrize(
    ("headers", "form", "expected"),
    [
        ({"origin": "http://evil.example"}, {"instead_of": "v0001"}, 403),
        ({"origin": "null"}, {"instead_of": "v0001"}, 403),
        ({"host": "evil.example"}, {"instead_of": "v0001"}, 421),
        ({"cookie": ""}, {"instead_of": "v0001"}, 401),
        ({}, {"instead_of": "v0007"}, 409),
        ({}, {}, 409),
    ],
)
def test_nothing_is_promoted_for_others_or_by_mistake(
    browser: TestClient, registry: Registry, headers: dict[str, str], form: dict[str, str], expected: int
) -> None:
    """From another site, under another name, without the cookie, or where somebody else has chosen since the question."""
    if "cookie" in headers:
        browser.cookies.clear()
    assert browser.post("/models/v0002/promote", data=form, headers=headers).status_code == expected
    assert registry.current_name() == "v0001"


def test_who_may_not_write_to_models_may_look(open_path: Path) -> None:
    """There is no button, and no way around it."""
    settings = bare_settings(open_path / "root")
    registry = lay_models(settings)
    for path in (settings.root, *settings.root.rglob("*")):
        path.chmod(0o755)
    site = Site(settings, Pictures(settings))
    client = TestClient(make_application(site, Access(TOKEN, (ORIGIN,))), base_url=ORIGIN)
    client.get("/", params={"token": TOKEN})
    with as_ordinary_user():
        page = client.get("/models").text
        done = client.post("/models/v0002/promote", data={"instead_of": "v0001"}, headers={"origin": ORIGIN})
    assert "/promote" not in page
    assert "sudo -u digitd digitd promote" in page
    assert (done.status_code, registry.current_name()) == (403, "v0001")


def lines(*events: tuple[float, str, str]) -> list[dict[str, Any]]:
    """Lines of a ledger."""
    return [
        {"time": at, "event": event, "version": version, "reason": "a training (a test)"} for at, event, version in events
    ]


def test_what_was_live_when_is_told_in_one_piece() -> None:
    """A daemon that starts again with the same version goes on with it; a clock that was set back makes no negative span."""
    spans = live_spans(lines((1, "live", "v0001"), (2, "live", "v0001"), (9, "live", "v0002"), (5, "live", "v0001")))
    assert spans == [Span("v0001", 1, 9), Span("v0002", 9, 9), Span("v0001", 5, None)]


def test_the_training_that_runs(settings: Settings) -> None:
    """From its beginning to its end; one that was killed long ago does not run."""
    begun = lines((NOW, "begun", "v0002"))
    assert running(settings, [], False, NOW) is None
    assert (found := running(settings, begun, False, NOW + 60)) is not None
    assert found.epoch is None
    logs = settings.folder("logs") / "training" / "v0002"
    logs.mkdir(parents=True)
    (logs / "progress.json").write_text('{"epoch": 3, "epochs": 12, "loss": 0.1}')
    assert (found := running(settings, begun, True, time.time() + 9_000_000)) is not None
    assert (found.epoch, found.epochs) == (3, 12)
    assert running(settings, begun, False, time.time() + 9_000_000) is None
    for end in ("promoted", "refused", "failed", "stopped", "overtaken"):
        assert running(settings, begun + lines((NOW + 9, end, "v0002")), True, NOW + 10) is None


def test_a_model_that_is_taken_in_is_no_training(settings: Settings, tmp_path: Path) -> None:
    """Of `digitd promote own.h5` the page said for half an hour that a training ran, whatever came of it."""
    registry = Registry(settings.folder("models"))
    own = tmp_path / "own.h5"
    own.write_bytes(b"own")
    with pytest.raises(RegistryError):
        adopt(registry, refuse, own)
    assert running(settings, list(registry.ledger.lines()), False, time.time()) is None


def refuse(file: Path, _shown: Path) -> Findings:
    """What a limited process says of a bad model."""
    raise RegistryError(f"{file} is bad")


def test_the_corrections_that_wait_are_counted(browser: TestClient, settings: Settings) -> None:
    """Those in the index that no training has looked at, and that nobody took away or made a link since."""
    corrections = settings.folder("corrections")
    with closing(open_to_write(settings.index, 1.0)) as index:
        for name, digit in (("7/a.png", 7), ("none/b.png", None), ("3/gone.png", 3), ("4/learnt.png", 4), ("5/link.png", 5)):
            (corrections / name).parent.mkdir(parents=True, exist_ok=True)
            if "link" in name:
                (corrections / name).symlink_to("../7/a.png")
            elif "gone" not in name:
                (corrections / name).write_bytes(b"")
            index.execute(INSERT_LABEL, (name.encode().ljust(32), digit, name, NOW))
    settings.folder("logs").mkdir(exist_ok=True)
    write_learnt(settings, [(4, b"4/learnt.png".ljust(32).hex())])
    found = re.search(r"<dt>Corrections that wait</dt><dd>(\d+)", browser.get("/models/training").text)
    assert found is not None
    assert found[1] == "2"


@pytest.mark.usefixtures("registry")
def test_numbers_that_no_chart_has_room_for_are_left_out(browser: TestClient, settings: Settings) -> None:
    """A network that learns nothing may have any loss, and a person may have written into the files."""
    logs = settings.folder("logs") / "training" / "v0002"
    logs.mkdir(parents=True)
    rows = "epoch,accuracy,loss,val_accuracy,val_loss\n0,-1e308,1e308,1e308,-1e308\n1,0.5,1,0.5,1\n"
    (logs / "history.csv").write_text(rows)
    (logs / "progress.json").write_text('{"epoch": Infinity, "epochs": 3}')
    (settings.folder("models") / "ledger.jsonl").write_text(
        '{"time": 1e9, "event": "begun", "version": "v0002", "reason": "a training (by hand)"}\n'
    )
    assert [200, 200] == [browser.get(path).status_code for path in ("/models/v0002", "/models")]
