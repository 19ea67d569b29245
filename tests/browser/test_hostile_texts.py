"""Pages full of texts that look like programs: a real browser runs none of them and shows them as they are."""

import hostile
import pytest
from made_up import write_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    search = hostile.search(hostile.TEXTS)
    return write_report(tmp_path_factory.mktemp("hostile") / "report", **search, thumbnails=hostile.COUNT).parent


def was_run(page):
    """Whether one of the texts was run as a program."""
    return page.evaluate(f"window.{hostile.RAN} !== undefined")


@pytest.mark.parametrize("name", ["index.html", "class-000.html", "class-001.html", "atlas.html"])
def test_no_text_of_a_page_is_run(tab, report, name):
    page = tab(report, name)
    page.wait_for_function("window.rarezooAtlas && rarezooAtlas.images.ready()")
    for button in page.locator("button.cutout").all()[:40]:
        button.click()
    page.mouse.move(400, 400)
    assert not was_run(page)


def test_no_text_of_the_atlas_is_run_and_ids_are_shown_as_they_are(tab, report):
    page = tab(report, "atlas.html#class-0")
    page.wait_for_selector("#card .sheet")
    page.evaluate("document.querySelectorAll('details').forEach((block) => { block.open = true; })")
    for row in range(0, hostile.COUNT, 5):
        page.evaluate("(row) => rarezooAtlas.choose(row)", row)
        assert page.evaluate("document.querySelector('#galaxy h2').textContent") == hostile.TEXTS[row]
    for key in page.evaluate("rarezooMap.columns.map((column) => column.key)")[:20]:
        page.evaluate("(key) => rarezooAtlas.colour(key)", key)
    page.evaluate("rarezooAtlas.select([...Array(rarezooMap.points).keys()])")
    page.wait_for_selector("#selected .list li")
    assert page.evaluate(
        "[...document.querySelectorAll('#selected .list button')].map((item) => item.textContent)"
    ) == (hostile.TEXTS)
    assert not was_run(page)


@pytest.mark.parametrize(
    "classes",
    [
        "null", "7", '"text"', "[null, 7]", '[{"class_id": 0, "decision": "merge", "merge_into": 0}]',
        '[{"class_id": 0, "decision": "merge", "merge_into": 1}, '
        '{"class_id": 1, "decision": "merge", "merge_into": 0}]',
        '[{"class_id": "__proto__", "decision": "keep"}]', '[{"class_id": 0, "name": {"a": 1}, "decision": ["keep"]}]',
    ],
)  # fmt: skip
def test_a_file_of_decisions_that_holds_something_else_does_no_harm(tab, report, classes):
    page = tab(report, "atlas.html")
    page.wait_for_function("window.rarezooAtlas && rarezooAtlas.images.ready()")
    text = '{"rarezoo": "decisions", "search": ' + f"{page.evaluate('JSON.stringify(rarezooMap.search)')}, "
    page.evaluate("(text) => rarezooAtlas.decisions.load(text)", text + f'"classes": {classes}}}')
    page.reload()
    page.wait_for_function("window.rarezooAtlas && rarezooAtlas.images.ready()")
    page.evaluate("rarezooAtlas.open(0)")
    page.wait_for_selector("#card .sheet")
    page.click("#keep")
    assert page.evaluate("rarezooAtlas.decisions.of(0).decision") == "keep"


def test_a_script_that_is_not_one_of_the_page_is_not_run(tab, report, tmp_path):
    """The policy of a page is the second line of defence: here the first is taken away."""
    import shutil

    shutil.copytree(report, tmp_path / "report")
    path = tmp_path / "report" / "index.html"
    broken = path.read_text(encoding="utf-8").replace("</h1>", f"</h1><img src=x onerror=window.{hostile.RAN}=1>")
    path.write_text(broken.replace("</main>", f"<script>window.{hostile.RAN}=1</script></main>"), encoding="utf-8")
    page = tab(tmp_path / "report", "index.html", ignore_problems=True)
    page.wait_for_function("window.rarezooAtlas && rarezooAtlas.images.ready()")
    assert not was_run(page)
