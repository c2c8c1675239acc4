"""What people do with the page, in a real browser."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Response, expect

from daemon.config import load_settings
from daemon.index.schema import INSERT, open_to_write, put_state, settle
from daemon.models.registry import Registry
from tests.browser.conftest import HOSTILE_NAME, SEVENS, STRANGER, Web, start_web, wait_for_labels
from tests.conftest import Daemon, Digits, wait_until
from tests.index.answers import NOON, record
from tests.index.conftest import bare_settings

VIEWS = ("/", "/review", "/grid?digit=7", "/models", "/models/v0002", "/models/v0002/promote", "/status")
NARROW = {"width": 390, "height": 844}
MILLION = 1_000_000
Open = Callable[..., Page]
in_full = pytest.mark.skipif(os.environ.get("BROWSER") != "full", reason="takes a minute; run with BROWSER=full")


def test_what_is_dropped_appears_by_itself(open_browser: Open, daemon: Daemon, digits: Digits) -> None:
    """The answer is there without anybody's doing, with its thumbnail, above the others."""
    page = open_browser()
    expect(page.locator("#answers .answer").first).to_be_visible()
    daemon.drop("fresh.png", digits.png(500))
    first = page.locator("#answers .answer").first
    expect(first.locator(".name")).to_have_text("fresh.png", timeout=60_000)
    expect(first.locator(".digit")).to_have_text(str(digits.labels[500]))
    wait_until(lambda: first.locator("img").evaluate("image => image.naturalWidth") > 0, "the thumbnail")


def test_ten_reviews_by_keys_alone(open_browser: Open, web: Web) -> None:
    """Each key is a label, the files are there, and u takes the last one back."""
    page = open_browser("/review")
    labelled = []
    for key in "3", "1", "4", "1", "5", "9", "2", "6", "x", "Enter":
        case = page.locator("#cases article:not([hidden])")
        name, read_as = case.get_attribute("data-name"), case.get_attribute("data-read")
        labelled.append(f"{ {'x': 'none', 'Enter': read_as}.get(key, key) }/{name}")
        page.keyboard.press(key)
    assert len({label.partition("/")[2] for label in labelled}) == 10
    wait_for_labels(web, set(labelled))
    page.keyboard.press("u")
    wait_until(lambda: labelled[-1] not in web.labels(), "the last label to be taken back")
    assert set(labelled[:-1]) <= web.labels()
    expect(page.locator("#cases article:not([hidden])")).to_have_attribute("data-name", labelled[-1].partition("/")[2])


def test_the_grid_confirms_all_but_what_was_clicked(open_browser: Open, web: Web) -> None:
    """Two of sixty are clicked, Enter confirms 58; the two are to be reviewed, and it can be undone."""
    page = open_browser("/grid?digit=7")
    boxes = page.locator("form.grid input[type=checkbox]")
    assert boxes.count() == 60
    wrong = [boxes.nth(place).evaluate("box => box.closest('label').title.split(',')[0]") for place in (0, 1)]
    for place in (0, 1):
        page.locator("form.grid li label").nth(place).click()
    page.keyboard.press("Enter")
    expect(page.locator(".done")).to_contain_text("labelled 7")
    sevens = {f"7/seven-{number}.png" for number in range(SEVENS)}
    assert len(sevens & web.labels()) == 58
    assert not {f"7/{name}" for name in wrong} & web.labels()
    expect(page.get_by_role("link", name="Say what the wrong 2 show")).to_be_visible()
    page.keyboard.press("u")
    expect(page.locator(".done")).to_have_count(0)
    assert not sevens & web.labels()


def test_haste_is_no_second_answer(open_browser: Open, web: Web) -> None:
    """A double click and a key that is held are one label, which one u takes back; in the grid likewise."""
    page = open_browser("/review?outcome=accepted&digit=2")
    before = web.labels()
    case = page.locator("#cases article:not([hidden])")
    for press in (
        lambda: case.locator("button[value='4']").dblclick(),
        lambda: (page.keyboard.down("4"), page.keyboard.down("4"), page.keyboard.up("4")),
    ):
        name = case.get_attribute("data-name")
        press()
        wait_for_labels(web, {f"4/{name}"})
        page.keyboard.press("u")
        expect(case).to_have_attribute("data-name", name or "")
        wait_until(lambda: web.labels() == before, "one undo to be enough")
    page.goto(f"{web.origin}/grid?digit=7")
    for press in (
        lambda: page.locator("button.main").dblclick(),
        lambda: page.evaluate("for (const _ of 'ab') dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter'}))"),
    ):
        page.goto(f"{web.origin}/grid?digit=7")
        press()
        expect(page.locator(".done")).to_contain_text("labelled 7")
        assert len(web.labels() - before) == 60
        page.evaluate("for (const _ of 'ab') dispatchEvent(new KeyboardEvent('keydown', {key: 'u'}))")
        expect(page.locator(".done")).to_have_count(0)
        assert web.labels() == before


def test_promote_and_roll_back(open_browser: Open, web: Web, daemon: Daemon) -> None:
    """Nothing happens before the question is answered; then the daemon answers with the other version."""
    registry = Registry(web.settings.folder("models"))
    page = open_browser("/models")
    page.get_by_role("link", name="Promote v0002").click()
    expect(page.get_by_role("heading", name="Promote v0002?")).to_be_visible()
    page.get_by_role("link", name="Leave it as it is").click()
    assert registry.current_name() == "v0001"
    page.goto(f"{web.origin}/models/v0002")
    page.get_by_role("link", name="Promote…").click()
    page.get_by_role("button", name="Promote it").click()
    expect(page.get_by_role("status").filter(has_text="v0002 is current now")).to_be_visible()
    assert registry.current_name() == "v0002"
    wait_until(lambda: 'version="v0002"' in daemon.get("/metrics")[1], "the daemon's swap")
    page.get_by_role("link", name="Roll back…").click()
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("status").filter(has_text="Back to v0001")).to_be_visible()
    assert registry.current_name() == "v0001"


def test_hostile_names_and_pictures_are_harmless(open_browser: Open) -> None:
    """A name that is HTML is read as letters; of what is HTML no picture is made, and none is sent as it came."""
    seen: list[Response] = []
    page = open_browser()
    page.on("response", lambda response: seen.append(response))  # noqa: PLW0108 -- it marks what it is given
    page.goto(page.url)
    expect(page.locator(".name", has_text=HOSTILE_NAME)).to_have_count(1)
    page.locator(".name", has_text=HOSTILE_NAME).click()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("typeof hacked") == "undefined"
    pictures = {response.url for response in seen if "/picture/" in response.url}
    made = {url: page.request.get(url) for url in pictures}
    assert {True, False} == {picture.ok for picture in made.values()}
    for url, picture in made.items():
        if picture.ok:
            assert (picture.headers["content-type"], picture.body()[:8]) == ("image/png", b"\x89PNG\r\n\x1a\n")
            assert b"hacked" not in picture.body()
        else:
            page.goto(url)
            assert page.evaluate("typeof hacked") == "undefined"


def test_who_has_no_right_gets_nothing(chromium: Browser, open_browser: Open, web: Web) -> None:
    """Neither without the token, nor with a wrong one, nor under another name, nor by a form on another site."""
    with closing(chromium.new_context()) as stranger:
        page = stranger.new_page()
        port = web.origin.rpartition(":")[2]
        for address, expected in (
            (f"{web.origin}/", 401),
            (f"{web.origin}/?token={'x' * 43}", 401),
            (f"{web.origin}/models/v0002/promote", 401),
            (f"http://{STRANGER}:{port}/?token={web.token}", 421),
        ):
            response = page.goto(address)
            assert response is not None
            assert (response.status, "seven-" in page.content()) == (expected, False)
    page = open_browser()
    form = f'<form method="post" action="{web.origin}/models/v0002/promote"><button>Win</button></form>'
    page.route("http://win.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto("http://win.example/")
    with page.expect_navigation() as navigation:
        page.get_by_role("button").click()
    assert navigation.value.status == 403
    assert Registry(web.settings.folder("models")).current_name() in (None, "v0001")


def test_the_keyboard_is_enough(open_browser: Open, web: Web) -> None:
    """To the content, through it, to a question and back, and always seen where one is."""
    page = open_browser("/models")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("Tab")
        where = page.evaluate(
            "({text: document.activeElement.textContent, ring: getComputedStyle(document.activeElement).outlineStyle})"
        )
        assert where["ring"] != "none", where
        if where["text"].startswith("Promote v0002"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Promote v0002?")).to_be_visible()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Leave it as it is":
            break
    page.keyboard.press("Enter")
    page.wait_for_url(f"{web.origin}/models")


def test_a_narrow_screen_shows_all_of_it(open_browser: Open) -> None:
    """No view is wider than a telephone, and the number pad is there without scrolling, under the thumb."""
    page = open_browser(viewport=NARROW, has_touch=True, is_mobile=True)
    for view in VIEWS:
        page.goto(page.url.split("/", 3)[0] + "//" + page.url.split("/", 3)[2] + view)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= NARROW["width"], view
        if view == "/review":
            for button in page.locator("article:not([hidden]) .pad button").all():
                box = button.bounding_box()
                assert box is not None
                assert box["y"] + box["height"] <= NARROW["height"]
                assert min(box["width"], box["height"]) >= 40


@pytest.mark.usefixtures("daemon")
def test_it_works_without_javascript(open_browser: Open, web: Web) -> None:
    """Lists are there, and a label is a button."""
    page = open_browser("/review", java_script_enabled=False)
    name = page.locator("article").first.get_attribute("data-name")
    page.locator("article").first.get_by_role("button", name="8", exact=True).click()
    wait_for_labels(web, {f"8/{name}"})
    page.goto(f"{web.origin}/status")
    expect(page.get_by_role("heading", name="Ready")).to_be_visible()


def grave(axe: Axe, page: Page, **options: Any) -> list[str]:
    """What an accessibility checker finds worse than minor."""
    found = axe.run(page, options={"resultTypes": ["violations"], "preload": False, **options}).response["violations"]
    return [
        f"{problem['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for problem in found
        for node in problem["nodes"]
        if problem["impact"] != "minor"
    ]


def test_nothing_is_in_the_way_of_anybody(open_browser: Open, web: Web) -> None:
    """axe-core finds nothing but what is minor on any view; in the dark it looks at the colours again."""
    page, axe = open_browser(color_scheme="light"), Axe()
    for view in VIEWS:
        page.goto(web.origin + view)
        assert grave(axe, page) == [], view
        if view not in ("/grid?digit=7", "/models/v0002/promote"):  # they have no colours that the others have not
            page.emulate_media(color_scheme="dark")
            assert grave(axe, page, runOnly=["color-contrast"]) == [], f"{view}, dark"
            page.emulate_media(color_scheme="light")


def cpu_seconds(pid: int) -> float:
    """What a process has spent."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@in_full
def test_a_million_answers_are_no_more_than_sixty(chromium: Browser, tmp_path: Path) -> None:
    """The server takes 0.1 s of CPU for the first page, 0.3 s for a filter; on a quiet machine that is the time, too."""
    settings = bare_settings(tmp_path / "root")
    with closing(open_to_write(settings.index, 1.0)) as index:
        index.execute("BEGIN")
        rows = (
            record(
                f"batch/{n}.png", str(n).encode(), NOON + n, digit=n % 10, outcome="review" if n % 997 == 0 else "accepted"
            )
            for n in range(MILLION)
        )
        index.executemany(INSERT, rows)
        settle(index)
        put_state(index, since=None, clean=1)
        index.execute("COMMIT")
    web = start_web(load_settings(settings.file).root)
    try:
        with closing(chromium.new_context()) as context:
            page = context.new_page()
            page.goto(web.address)
            views = (("/", 0.1), ("/?outcome=review", 0.3), ("/?digit=7", 0.3), ("/?name=99999", 0.3), ("/review", 0.3))
            for view, limit in views:
                times = []
                for address in ("/static/icon.svg", view) * 3:
                    began, spent = time.monotonic(), cpu_seconds(web.process.pid)
                    page.goto(web.origin + address, wait_until="commit")
                    times.append((time.monotonic() - began, cpu_seconds(web.process.pid) - spent))
                bare, took = (statistics.median(seconds for seconds, _ in times[place::2]) for place in (0, 1))
                cpu = statistics.median(seconds for _, seconds in times[1::2])
                print(f"{view}: {took:.3f} s, of which CPU {cpu:.2f}; a bare page {bare:.3f} s")
                assert page.locator(".answer, article.case").count() > 0
                assert cpu <= limit
    finally:
        web.process.terminate()
        web.process.communicate(timeout=30)
