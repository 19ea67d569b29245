"""Headless Chromium for tests. Without it they are skipped, or fail where ``RAREZOO_REQUIRE_BROWSER`` is set."""

import os
import shutil
from pathlib import Path

import pytest

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LAPTOP = {"viewport": {"width": 1366, "height": 820}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
VIEWS = {"light": {"color_scheme": "light"}, "dark": {"color_scheme": "dark"}, "phone": PHONE}


def cannot_run(reason):
    """Skip a test for a missing program, or fail it where all tests in a browser must run."""
    if os.environ.get("RAREZOO_REQUIRE_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        cannot_run("NO BROWSER TEST: no Chromium is installed")
    try:
        import playwright.sync_api as playwright
    except ImportError:
        cannot_run("NO BROWSER TEST: playwright is not installed")
    with playwright.sync_playwright() as engine:
        opened = engine.chromium.launch(executable_path=CHROMIUM, args=["--enable-unsafe-swiftshader"])
        yield opened
        opened.close()


@pytest.fixture
def tab(browser):
    """Opens a page of a folder, ``#`` and ``?`` allowed; a test fails if the browser's console told of any problem."""
    problems, contexts = [], []

    def opened(folder, name, *, ignore_problems=False, **settings):
        contexts.append(browser.new_context(**{**LAPTOP, **settings}, accept_downloads=True))
        page = contexts[-1].new_page()
        if ignore_problems:
            page.goto(f"{folder.as_uri()}/{name}")
            return page
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda problem: problems.append(str(problem)))
        page.on("requestfailed", lambda asked: problems.append(f"{asked.url} failed"))
        page.goto(f"{folder.as_uri()}/{name}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not problems


@pytest.fixture(params=list(VIEWS))
def view(request):
    """How a page is looked at: in light or dark, or on a phone."""
    return VIEWS[request.param]


@pytest.fixture(params=["light", "dark"])
def scheme(request):
    """Colours of a page."""
    return request.param


@pytest.fixture
def faults():
    """Serious accessibility faults of a page."""
    if not AXE.is_file():
        cannot_run("NO ACCESSIBILITY TEST: axe-core is not installed; run npm ci in web/")

    def faults_of(page):
        # The policy of the pages forbids to add it as a script.
        page.evaluate(AXE.read_text(encoding="utf-8"))
        violations = page.evaluate("axe.run({ preload: false }).then((found) => found.violations)")
        return [
            (violation["id"], violation["nodes"][0]["html"], violation["nodes"][0]["failureSummary"])
            for violation in violations
            if violation["impact"] in ("serious", "critical")
        ]

    return faults_of
