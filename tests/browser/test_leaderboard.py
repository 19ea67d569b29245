"""The page of a multirun in a real browser."""

import json

import pyarrow as pa
import pytest
from PIL import Image

from rarezoo import tables
from rarezoo.studies.failures import note_failure
from rarezoo.studies.leaderboard import write_leaderboard

pytestmark = pytest.mark.browser


def job(folder, verb, *overrides):
    """What hydra leaves in a job's folder."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "hydra.yaml").write_text(f"hydra:\n  job:\n    config_name: {verb}\n")
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(overrides))
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Three searches, of which one failed, and two networks."""
    sweep = tmp_path_factory.mktemp("sweep")
    for samples, stabilities in ((30, [0.9, 0.8, 0.1]), (100, [0.7])):
        folder = job(sweep / f"min_samples={samples}", "cluster", f"clusterer.min_samples={samples}")
        rows = [
            {tables.CLASS_ID: class_id, tables.PERSISTENCE: 1.0 + class_id, tables.STABILITY: stability,
             tables.FLAGS: [], tables.EXEMPLARS: [f"<g{row}>" for row in range(10)]}
            for class_id, stability in enumerate(stabilities)
        ]  # fmt: skip
        table = pa.Table.from_pylist(rows, pa.schema(list(tables.CLASSES.columns.items())))
        tables.write(table, folder / "classes.parquet", tables.CLASSES)
        tables.write_json({"settings": {}, "searched": 1000, "unassigned": 0.9}, folder / "run.json")
        (folder / "report" / "images").mkdir(parents=True)
        (folder / "report" / "index.html").write_text("<!doctype html><title>a report</title>")
        for number in range(len(rows)):
            Image.new("RGB", (260, 130), "teal").save(
                folder / "report" / "images" / f"class-{number:03d}-exemplars.jpg"
            )
    note_failure(job(sweep / "min_samples=5000", "cluster", "clusterer.min_samples=5000"), ValueError("too few"))
    for name, loss in (("b0", 5.0), ("maxvit", 4.0)):
        folder = job(sweep / name, "train", f"model={name}")
        row = {"galaxies": 40, "loss": loss, "mean_loss": 6.0, "rmse": 0.2}
        card = {
            "schema": 1, "name": name, "encoder": {}, "sha256": {}, "width": 128, "weights": 4000,
            "training": {"epochs done": 3}, "data": {"test galaxies": 50}, "metrics": [row],
        }  # fmt: skip
        (folder / "card.json").write_text(json.dumps(card))
        (folder / "README.md").write_text("")
        (folder / "metrics.csv").write_text("epoch,validation/loss\n0,5.0\n1,3.0\n2,4.0\n")
    write_leaderboard(sweep)
    return sweep


def names(page, board):
    """Jobs of a board, from top to bottom."""
    return page.locator(f"#{board} tbody tr").evaluate_all(
        "rows => rows.map((row) => row.cells[0].innerText.split(/\\s/)[0])"
    )


def test_page_opens_without_a_problem_and_fits(tab, sweep, view):
    page = tab(sweep, "leaderboard.html", **view)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("#cluster .cutout").count() == 16


def test_axe_finds_no_serious_fault(tab, sweep, faults, scheme):
    assert not faults(tab(sweep, "leaderboard.html", color_scheme=scheme))


def test_a_heading_sorts_by_click_and_by_key(tab, sweep):
    page = tab(sweep, "leaderboard.html")
    best_first = ["min_samples=30", "min_samples=100", "min_samples=5000"]
    assert names(page, "cluster") == best_first
    head = page.locator("#cluster thead th", has_text="min_samples")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") in ("ascending", "descending")
    first = names(page, "cluster")
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert names(page, "cluster") == first[::-1]
    loss = page.locator("#train thead th", has_text="test loss")
    loss.locator("button").click()
    assert loss.get_attribute("aria-sort") == "descending"
    assert names(page, "train") == ["b0", "maxvit"]


def test_a_row_leads_to_its_report(tab, sweep):
    page = tab(sweep, "leaderboard.html")
    page.locator("#cluster a", has_text="min_samples=30").first.click()
    page.wait_for_url("**/report/index.html")
    assert page.title() == "a report"
