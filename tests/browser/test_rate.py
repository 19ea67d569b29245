"""The live page in a real browser: an astronomer rates by keyboard, and nothing that was rated is ever lost."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import hostile
import pytest
import uvicorn
from made_up import survey_on_disk

from rarezoo.explore.app.api import Api
from rarezoo.explore.app.classes import ShownClasses
from rarezoo.explore.app.galaxies import ShownGalaxies
from rarezoo.explore.app.guard import Access
from rarezoo.explore.app.page import application
from rarezoo.explore.labels import Labels
from rarezoo.explore.ranking import RatingSettings
from rarezoo.explore.server import listening
from rarezoo.explore.session import Session
from rarezoo.searches.decisions import Decision, Decisions
from rarezoo.searches.result import Search

pytestmark = pytest.mark.browser

TOKEN = "a-token-that-nobody-guesses"
GALAXIES, RATED = 260, 200
TITLE = "document.getElementById('galaxy-title').textContent"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a search of 260 galaxies and their images."""
    folder = tmp_path_factory.mktemp("rate")
    survey_on_disk(folder, galaxies=GALAXIES)
    return folder


@pytest.fixture(scope="module")
def opened(home):
    """The search, opened once for all tests."""
    search, settings = Search.open(home / "search"), RatingSettings(beside=[], components=0)
    return search, ShownGalaxies(search), settings, settings.features(search.store)


@pytest.fixture
def server(opened, tmp_path):
    """A server in a thread, on a database of its own."""
    with served(opened, tmp_path) as running:
        yield running


@contextmanager
def served(opened, folder, *, read_only=False):
    search, galaxies, settings, features = opened
    labels = Labels.of(search, folder / "labels.sqlite", read_only=read_only)
    classes = ShownClasses(search, survey=galaxies.survey, file=folder / "decisions.json")
    with (
        labels,
        listening("127.0.0.1", 0) as bound,
        Session(search, labels, settings=settings, features=features) as session,
    ):
        api = Api(session, labels, galaxies, read_only=read_only, classes=classes)
        app = application(api, Access(TOKEN, frozenset({"127.0.0.1"}), read_only=read_only))
        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
        thread.start()
        link = f"http://127.0.0.1:{bound.getsockname()[1]}/?token={TOKEN}"
        yield SimpleNamespace(link=link, labels=labels, folder=folder, session=session)
        running.should_exit = True
        thread.join()


@pytest.fixture
def visit(browser):
    """Opens the page by its link as somebody; a test fails if the browser's console told of any problem."""
    problems, contexts = [], []

    def opened(link, by="ann", *, expected="", **settings):
        def said(text):
            if not expected or expected not in text:
                problems.append(text)

        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **settings}))
        page = contexts[-1].new_page()
        page.on("console", lambda line: said(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda problem: problems.append(str(problem)))
        page.goto(link)
        if by:
            page.fill("#person-name", by)
            page.keyboard.press("Enter")
            page.wait_for_selector("#cells li")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not problems


def until(page, expression, *, seconds=60):
    """Wait until an expression is true. The policy of the page forbids Playwright's own way, which makes functions."""
    end = time.monotonic() + seconds
    while not (value := page.evaluate(expression)):
        assert time.monotonic() < end, f"not true within {seconds} s: {expression}"
        page.wait_for_timeout(15)
    return value


def current(page):
    return page.evaluate(TITLE)


def until_shown(page, galaxy):
    until(page, f"{TITLE} === {json.dumps(galaxy)}")


def survey_ids(server):
    return [str(galaxy) for galaxy in server.session.ids]


def until_another(page, galaxy):
    return until(page, f"{TITLE} === {json.dumps(galaxy)} ? '' : {TITLE}")


def press(page, key):
    """Rate the current galaxy; return its id when the next one is shown."""
    galaxy = current(page)
    page.keyboard.press(key)
    until_another(page, galaxy)
    return galaxy


def until_saved(page):
    until(
        page,
        "rarezooRate.then(({ queue }) => !queue.waiting.length && !document.getElementById('waiting').textContent)",
    )


def until_says(page, name, text):
    until(page, f"document.getElementById({json.dumps(name)}).textContent.includes({json.dumps(text)})")


# --- the astronomer


def started(home, port):
    """The server as a process, when it answers."""
    words = ["serve", "search", f"port={port}", f"token={TOKEN}", "beside=[]", "components=0", "labels=kill.sqlite"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from rarezoo.cli import main; main()", *words], cwd=home, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    while "Ctrl-C" not in (line := process.stdout.readline()):
        assert line, process.stderr.read()
    return process


def test_an_astronomer_rates_200_galaxies_and_the_server_is_killed_in_between(home, visit):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = started(home, port)
    try:
        page = visit(f"http://127.0.0.1:{port}/?token={TOKEN}", expected="Failed to load resource",
                     viewport={"width": 1000, "height": 640})  # fmt: skip
        keys, rated = "012345ynux", {}

        def rate(number):
            galaxy = current(page)
            for _ in range(number):
                key = keys[len(rated) % len(keys)]
                page.keyboard.press(key)
                rated[galaxy] = key
                galaxy = until_another(page, galaxy)

        # More than half of the fourth page is rated, so that the fifth is there before it is asked for.
        rate(90)
        until_saved(page)
        until(page, "rarezooRate.then(({ state }) => state().feed.pages.length - state().feed.at > 1)")
        process.kill()
        process.wait()
        rate(29)
        until(page, "/^29 ratings wait/.test(document.getElementById('waiting').textContent)")
        assert page.locator(".mark-of", has_text="✓").count() == 0
        shown = current(page)
        # The browser is closed and opened again, in vain: it keeps what was not sent.
        process = started(home, port)
        page.reload()
        page.wait_for_selector("#cells li")
        assert current(page) == shown
        until_saved(page)
        assert page.locator(".mark-of", has_text="✓").count() == 23
        rate(RATED - len(rated))
        until_saved(page)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
    finally:
        process.kill()
        process.communicate()
    with Labels.of(home / "search", home / "kill.sqlite", read_only=True) as labels:
        rows = labels.log().to_pylist()
    assert len(rows) == RATED == len({row["id_str"] for row in rows})
    said = {key: ("grade", float(key)) for key in "012345"}
    said |= {"y": ("answer", 1.0), "n": ("answer", 0.0), "u": ("answer", None), "x": ("artifact", 1.0)}
    assert {row["id_str"]: (row["kind"], row["value"]) for row in rows} == {
        galaxy: said[key] for galaxy, key in rated.items()
    }
    assert {row["by"] for row in rows} == {"ann"}
    assert all(0 <= row["seconds"] < 60 for row in rows)
    assert "random" in {row["why"] for row in rows}
    assert max(row["round"] for row in rows) > 1
    assert f"{RATED} ratings are kept" in out


# --- the page


def test_buttons_stay_where_they_are_and_arrows_only_move(server, visit):
    page = visit(server.link, expected="status of 400")
    buttons = "[...document.querySelectorAll('#bar button, #cells li')]"
    places = f"{buttons}.map((one) => JSON.stringify(one.getBoundingClientRect()))"
    before, first = page.evaluate(places), current(page)
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "End", "Home"):
        page.keyboard.press(key)
    assert current(page) == first
    for key in "4x0uy":
        press(page, key)
    until_saved(page)
    assert page.evaluate(places) == before
    page.fill("#wanted", "a word that nobody knows " * 20)
    page.press("#wanted", "Enter")
    until_says(page, "message", "nobody knows")
    assert page.evaluate(places) == before
    assert server.labels.log().num_rows == 5
    assert page.locator(".cells [aria-current=true]").count() == 1


def test_a_button_does_what_its_key_does(server, visit):
    page = visit(server.link)
    for name in ("Grade 3", "no", "artifact"):
        galaxy = current(page)
        page.get_by_role("toolbar").get_by_role("button", name=re.compile(f"^{name}")).click()
        until_another(page, galaxy)
    until_saved(page)
    assert [(row.kind, row.value) for row in server.labels.ratings()] == [
        ("grade", 3.0), ("answer", 0.0), ("artifact", 1.0),
    ]  # fmt: skip


def test_undo_goes_back_to_the_galaxy_and_is_an_entry_too(server, visit):
    page = visit(server.link)
    first = press(page, "5")
    second = press(page, "1")
    until_saved(page)
    page.keyboard.press("z")
    assert current(page) == second
    assert "Not rated" in page.inner_text("#galaxy-rated")
    press(page, "2")
    until_saved(page)
    assert {row.id_str: row.value for row in server.labels.ratings()} == {first: 5, second: 2}
    page.reload()
    page.wait_for_selector("#cells li")
    page.keyboard.press("z")
    until_shown(page, second)
    page.keyboard.press("z")
    until_shown(page, first)
    until_saved(page)
    assert server.labels.ratings() == []
    assert sum(row["undoes"] is not None for row in server.labels.log().to_pylist()) == 3


def test_a_tag_is_given_without_leaving_the_galaxy_and_searched_for(server, visit):
    page = visit(server.link)
    galaxy = current(page)
    page.keyboard.press("t")
    page.keyboard.type("beads")
    page.keyboard.press("Enter")
    page.wait_for_selector("#galaxy-tags button")
    assert current(page) == galaxy
    until_saved(page)
    assert server.labels.tags() == {"beads": 1}
    page.keyboard.press("/")
    page.keyboard.type("beads")
    page.keyboard.press("Enter")
    until_says(page, "list-title", "beads")
    assert current(page) == galaxy
    page.locator("#cells .cutout").first.focus()
    page.locator("#galaxy-tags button").click()
    until_saved(page)
    assert server.labels.tags() == {}


def test_another_label_is_judged_on_its_own(server, visit):
    page = visit(server.link)
    rated = press(page, "4")
    page.select_option("#label", label="new label …")
    page.fill("#tagging-name", "ring")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('list-title').textContent.endsWith('ring')")
    press(page, "y")
    until_saved(page)
    assert {(row.label, row.kind) for row in server.labels.ratings()} == {("interesting", "grade"), ("ring", "answer")}
    page.select_option("#show", "mine")
    until(page, "document.querySelectorAll('#cells li').length === 1")
    page.select_option("#label", "interesting")
    page.select_option("#show", "mine")
    until_shown(page, rated)


def test_more_like_this_and_the_search_box_show_lists_that_can_be_rated(server, visit):
    page = visit(server.link, expected="status of 400")
    first = current(page)
    page.keyboard.press("m")
    page.wait_for_selector("#back:not([hidden])")
    assert current(page) == first
    press(page, "3")
    liked = press(page, "3")
    until_saved(page)
    assert {row.id_str: row.why for row in server.labels.ratings()} == {first: "example", liked: "similar"}
    for text, galaxy in (("g0123", "g0123"), ("123 20.75", "g0123"), ("g\"'%2e/..", "g\"'%2e/..")):
        page.fill("#wanted", text)
        page.press("#wanted", "Enter")
        until_shown(page, galaxy)
    until(page, "document.querySelectorAll('#galaxy-links a').length === 3")
    page.fill("#wanted", "xyzzy")
    page.press("#wanted", "Enter")
    until_says(page, "message", "xyzzy")
    page.click("#back")
    until(page, "document.getElementById('list-title').textContent === 'Galaxies to rate'")


def test_what_others_said_is_shown_after_the_own_rating(server, visit):
    one, other = visit(server.link, "ann"), visit(server.link, "ben")
    galaxy = press(one, "5")
    until_saved(one)
    shown = "rarezooRate.then((page) => page.state().feed.page.map((one) => one.id_str))"
    assert not set(one.evaluate(shown)) & set(other.evaluate(shown))
    other.fill("#wanted", galaxy)
    other.press("#wanted", "Enter")
    until_shown(other, galaxy)
    until(other, "document.querySelectorAll('#galaxy-links a').length === 3")
    assert "ann" not in other.inner_text("#galaxy-rated")
    other.locator("#cells .cutout").first.focus()
    other.keyboard.press("1")
    until_says(other, "galaxy-rated", "ann: 5")
    until_saved(other)
    until_says(other, "progress", "2 people")


def test_a_person_may_rate_one_large_galaxy_at_a_time_and_turn_pages(server, visit):
    page = visit(server.link)
    page.select_option("#count", "12")
    until(page, "document.querySelectorAll('#cells li').length === 12")
    page.locator("#count").blur()
    page.keyboard.press("g")
    assert page.is_visible("#single .cutout")
    assert not page.is_visible("#cells")
    first = current(page)
    for _ in range(12):
        press(page, "2")
    assert current(page) != first
    page.keyboard.press("PageUp")
    until_shown(page, first)
    assert "rated 2" in page.inner_text("#single")
    page.keyboard.press("PageDown")
    until_another(page, first)
    until_saved(page)
    assert len(server.labels.ratings()) == 12


def test_keys_can_be_turned_off_and_do_nothing_while_somebody_types(server, visit):
    page = visit(server.link)
    page.keyboard.press("/")
    page.keyboard.type("yn5zx")
    assert page.input_value("#wanted") == "yn5zx"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.wait_for_selector("#keys[open]")
    page.keyboard.press("5")
    page.uncheck("#shortcuts")
    page.keyboard.press("Escape")
    page.keyboard.press("5")
    page.keyboard.press("z")
    assert server.labels.log().num_rows == 0


def test_classes_are_decided_by_keyboard_and_their_galaxies_rated(server, visit):
    page = visit(server.link)
    page.click("#tab-classes")
    page.wait_for_selector("#class-list li")
    page.locator("#class-list a").first.blur()
    page.keyboard.press("]")
    page.wait_for_selector("#card .sheet")
    page.keyboard.press("k")
    until_says(page, "decided", "keep, saved")
    page.keyboard.press("n")
    page.keyboard.type("round <b>ones</b>")
    page.keyboard.press("Enter")
    until_says(page, "class-title", "round <b>ones</b>")
    page.locator("#name").blur()
    page.keyboard.press("]")
    until(page, "document.getElementById('class-title').textContent === 'Class 1'")
    page.keyboard.press("d")
    until_says(page, "decided", "drop, saved")
    decisions = Decisions.read(server.folder / "decisions.json")
    assert decisions.items == (Decision(0, "keep", "round <b>ones</b>"), Decision(1, "drop"))
    page.keyboard.press("u")
    until_says(page, "decided", "Class 1: undecided")
    assert len(Decisions.read(server.folder / "decisions.json").items) == 1
    page.wait_for_selector("#card .sheet")
    page.click("#rate-class")
    until(page, "document.getElementById('list-title').textContent === 'Members of class 1'")
    galaxy = press(page, "4")
    until_saved(page)
    (rating,) = server.labels.ratings()
    assert (rating.id_str, rating.why) == (galaxy, "class")


def test_a_read_only_page_shows_and_changes_nothing(opened, tmp_path, visit):
    with served(opened, tmp_path):
        pass
    with served(opened, tmp_path, read_only=True) as server:
        page = visit(server.link, by="")
        page.wait_for_selector("#nothing:not([hidden])")
        page.keyboard.press("/")
        page.keyboard.type("g0042")
        page.keyboard.press("Enter")
        page.wait_for_selector("#cells li")
        page.locator("#cells .cutout").first.focus()
        page.keyboard.press("4")
        assert page.locator("#bar button:disabled").count() >= 10
        page.click("#tab-classes")
        page.locator("#class-list a").first.click()
        page.wait_for_selector("#card .sheet")
        assert page.is_disabled("#keep")
        page.close()
    assert not (tmp_path / "decisions.json").exists()


def test_the_link_leaves_no_token_in_the_address_and_the_page_opens_again_without_it(server, visit):
    page = visit(server.link)
    assert "token" not in page.url
    page.goto(server.link.partition("?")[0])
    page.wait_for_selector("#cells li")
    assert page.inner_text("#who").endswith("ann")
    assert page.evaluate("document.cookie") == ""


def test_the_page_fits_and_axe_finds_no_serious_fault(server, visit, faults, view):
    page = visit(server.link, **view)
    fits = "document.documentElement.scrollWidth <= window.innerWidth"
    for value in ("3", "5"):
        page.locator(f'#bar [data-rate=grade][data-value="{value}"]').click()
    until_saved(page)
    until(page, "document.querySelectorAll('#galaxy-links a').length === 3")
    assert page.evaluate(fits)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert not faults(page)
    page.click("#help")
    assert not faults(page)
    page.keyboard.press("Escape")
    page.click("#tab-classes")
    page.locator("#class-list a").first.click()
    page.wait_for_selector("#card .sheet")
    assert page.evaluate(fits)
    assert not faults(page)


def test_no_text_of_the_page_is_run_and_all_are_shown_as_they_are(server, visit):
    person, label, tag, name = hostile.HTML[0], hostile.HTML[2], hostile.HTML[6], hostile.HTML[8]
    page = visit(server.link, by=person)
    assert person in page.inner_text("#who")
    for galaxy in survey_ids(server)[:3]:
        page.fill("#wanted", galaxy)
        page.press("#wanted", "Enter")
        until_shown(page, galaxy)
        page.locator("#cells .cutout").first.focus()
        page.keyboard.press("t")
        page.fill("#tagging-name", tag)
        page.keyboard.press("Enter")
        until_says(page, "galaxy-tags", tag)
    page.select_option("#label", label="new label …")
    page.fill("#tagging-name", label)
    page.keyboard.press("Enter")
    until_says(page, "list-title", label)
    press(page, "y")
    until_saved(page)
    assert {row.label for row in server.labels.ratings()} == {tag, label}
    page.click("#tab-classes")
    page.locator("#class-list a").first.click()
    page.wait_for_selector("#card .sheet")
    page.fill("#name", name)
    page.press("#name", "Enter")
    until_says(page, "class-title", name)
    page.reload()
    page.wait_for_selector("#cells li")
    assert not page.evaluate(f"window.{hostile.RAN}")


def test_the_page_fits_the_narrowest_phone(server, visit):
    page = visit(server.link, viewport={"width": 320, "height": 640}, is_mobile=True, has_touch=True)
    page.tap('#bar [data-rate=grade][data-value="5"]')
    until_saved(page)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    box = page.locator("#bar").bounding_box()
    assert box["y"] + box["height"] <= 640
    for button in page.locator("#bar button").all():
        assert button.bounding_box()["height"] >= 40
