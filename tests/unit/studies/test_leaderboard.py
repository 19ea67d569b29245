"""The page of a multirun, from files that its jobs left: finished, failed, killed or unreadable."""

import csv
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pyarrow as pa
import pytest
from PIL import Image

from rarezoo import tables
from rarezoo.errors import StoreError
from rarezoo.studies.failures import note_failure
from rarezoo.studies.leaderboard import jobs_of, write_leaderboard

pytestmark = pytest.mark.unit


def job(folder, verb, *overrides):
    """What hydra leaves in a job's folder before the job begins."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "hydra.yaml").write_text(f"hydra:\n  job:\n    config_name: {verb}\n")
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps([*overrides, "out=sweep", "hydra/launcher=basic"]))
    return folder


def searched(folder, *overrides, stabilities, searched=1000, mosaics=True):
    """A finished search whose classes have these stabilities, and persistences that grow with their ids."""
    job(folder, "cluster", *overrides)
    rows = [
        {
            tables.CLASS_ID: class_id, tables.PERSISTENCE: 1.0 + class_id, tables.STABILITY: stability,
            tables.FLAGS: [], tables.EXEMPLARS: [f"<g{class_id}-{row}>" for row in range(10)],
            tables.CAUSE: "clean" if class_id else "artifact",
        }
        for class_id, stability in enumerate(stabilities)
    ]  # fmt: skip
    classes = pa.Table.from_pylist(rows, pa.schema(list(tables.CLASSES.columns.items())))
    tables.write(classes, folder / "classes.parquet", tables.CLASSES)
    tables.write_json(
        {"settings": {}, "searched": searched, "unassigned": 0.75, "seconds": {"report": 9}}, folder / "run.json"
    )
    images = folder / "report" / "images"
    images.mkdir(parents=True)
    (images.parent / "index.html").write_text("")
    for number in range(len(rows) if mosaics else 0):
        Image.new("RGB", (8, 8)).save(images / f"class-{number:03d}-exemplars.jpg")


def trained(folder, *overrides, loss):
    job(folder, "train", *overrides)
    row = {"galaxies": 40, "loss": loss, "mean_loss": 4.0, "rmse": 0.2}
    other = {"galaxies": 20, "loss": 1.0, "mean_loss": 2.0, "rmse": None}
    card = {
        "schema": 1, "name": folder.name, "encoder": {}, "sha256": {}, "width": 128, "weights": 4000,
        "training": {"epochs done": 3}, "data": {"test galaxies": 50}, "metrics": [row, other],
    }  # fmt: skip
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "README.md").write_text("")
    (folder / "metrics.csv").write_text("epoch,validation/loss\n0,5.0\n1,3.0\n2,4.0\n")


@pytest.fixture
def sweep(tmp_path):
    searched(tmp_path / "min_samples=30,store=a", "store=a", "clusterer.min_samples=30", stabilities=[0.9, 0.2])
    searched(tmp_path / "min_samples=100,store=a", "store=a", "clusterer.min_samples=100", stabilities=[0.5, 0.6, 0.1])
    note_failure(
        job(tmp_path / "min_samples=300,store=a", "cluster", "store=a", "clusterer.min_samples=300"),
        StoreError("too few <b>galaxies</b>", value=3, fix="Take more."),
    )
    job(tmp_path / "min_samples=999,store=a", "cluster", "store=a", "clusterer.min_samples=999")
    (tmp_path / ".submitit").mkdir()
    (tmp_path / "notes").mkdir()
    job(tmp_path / "stored", "embed", "store=a")
    return tmp_path


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.elements, self.rows, self.inside = [], [], False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = self.inside or tag == "table"
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "table"

    def handle_data(self, data):
        if self.inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())


def test_every_job_has_a_row_the_best_first_whatever_became_of_it(sweep):
    head, *rows = Page(write_leaderboard(sweep)).rows
    assert (head[:2], head[-2:]) == (["job", "come back"], ["classes", "clusterer.min_samples"])
    assert [row[0] for row in rows] == [
        "min_samples=100,store=a", "min_samples=30,store=a", "min_samples=300,store=a failed",
        "min_samples=999,store=a not finished",
    ]  # fmt: skip
    best = dict(zip(head[1:-2], rows[0][1:-2], strict=True))
    assert best == {
        "come back": "2", "classes": "3", "clean": "2", "stability": "0.50", "persistence": "3.00",
        "in no class": "0.750", "galaxies": "1,000",
    }  # fmt: skip
    assert rows[2][1] == "too few <b>galaxies</b>: 3. Take more."
    assert rows[3][1:] == ["", "", "999"]


def test_a_job_that_goes_well_at_last_takes_its_word_back(sweep):
    place = sweep / "min_samples=300,store=a"
    note_failure(place, None)
    states = {sweep_job.name: sweep_job.state for sweep_job in jobs_of(sweep)}
    assert states[place.name] == "not finished"
    assert not (place / "failed.json").exists()


def test_links_and_pictures_are_there(sweep):
    page = write_leaderboard(sweep)
    elements = Page(page).elements
    links = [
        attributes["href"] for tag, attributes in elements if tag == "a" and not attributes["href"].startswith("#")
    ]
    pictures = re.findall(r"url\(([^)]+)\)", page.read_text())
    assert len(pictures) == 5, "the three most persistent classes of one search, both of the other"
    assert "class-002-exemplars.jpg" in pictures[0], "the most persistent first"
    for target in (*links, *pictures):
        assert (sweep / unquote(target)).is_file(), target
    assert (
        next(attributes["aria-label"] for _, attributes in elements if "cutout" in attributes.get("class", ""))
        == "Galaxy <g2-0>"
    )
    assert not re.search(r"https?://|@import|\bfetch\(", page.read_text())


def test_page_does_not_depend_on_where_or_when_or_how_long(sweep, tmp_path_factory):
    first = write_leaderboard(sweep).read_bytes()
    other = tmp_path_factory.mktemp("other") / sweep.name
    sweep.rename(other)
    run = other / "min_samples=30,store=a" / "run.json"
    run.write_text(run.read_text().replace('"report": 9', '"report": 99'))
    assert write_leaderboard(other).read_bytes() == first


def test_networks_are_ranked_by_their_loss(tmp_path):
    trained(tmp_path / "b0", "model=efficientnet_b0", "seed=1", loss=3.0)
    trained(tmp_path / "maxvit", "model=maxvit_tiny", "seed=1", loss=2.0)
    head, *rows = Page(write_leaderboard(tmp_path)).rows
    assert (head[:2], head[-2:]) == (["job", "test loss"], ["validation loss", "model"])
    assert [row[0] for row in rows] == ["maxvit", "b0"]
    best = dict(zip(head[1:-2], rows[0][1:-2], strict=True))
    assert best == {
        "test loss": "2.0000", "gain": "0.500", "RMSE": "0.2000", "D": "128", "weights": "4,000", "epochs": "3",
        "test galaxies": "50",
    }  # fmt: skip
    with (tmp_path / "leaderboard.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [(entry["job"], entry["seed"], float(entry["loss"]), entry["weights"]) for entry in table] == [
        ("maxvit", "1", 2.0, "4000"), ("b0", "1", 2.8, "4000"),
    ]  # fmt: skip
    (line,) = {
        attributes["points"] for tag, attributes in Page(tmp_path / "leaderboard.html").elements if tag == "polyline"
    }
    assert line == "0.0,2.0 80.0,42.0 160.0,22.0"


def test_tables_that_cannot_be_read_are_reported_in_their_row(sweep):
    (sweep / "min_samples=30,store=a" / "classes.parquet").write_text("not a table")
    rows = {row[0]: row for row in Page(write_leaderboard(sweep)).rows}
    assert "unreadable classes table" in rows["min_samples=30,store=a unreadable"][1]


def test_jobs_may_lie_deeper(tmp_path):
    trained(tmp_path / "seed=1" / "b0", "seed=1", loss=3.0)
    page = Page(write_leaderboard(tmp_path))
    assert page.rows[1][0] == "seed=1/b0"
    assert {"href": "seed%3D1/b0/README.md"} in [attributes for tag, attributes in page.elements if tag == "a"]


def test_a_folder_without_a_job_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"no search and no training.*cluster.py -m"):
        write_leaderboard(tmp_path)


def test_candidates_are_counted_apart_and_not_shown(tmp_path):
    place = tmp_path / "only"
    searched(place, "store=a", stabilities=[0.9, 0.8, 0.2])
    classes = tables.read(place / "classes.parquet", tables.CLASSES)
    grades = ["candidate", "significant and stable", "significant"]
    for name, values in ((tables.GRADE, grades), (tables.RANK, [3, 1, 2])):
        kind = tables.CLASSES.columns[name]
        classes = classes.set_column(classes.column_names.index(name), name, pa.array(values, kind))
    tables.write(classes, place / "classes.parquet", tables.CLASSES)
    (only,) = jobs_of(tmp_path)
    assert {name: only.numbers[name] for name in ("classes", "candidates", "come_back")} == {
        "classes": 2, "candidates": 1, "come_back": 1,
    }  # fmt: skip
    assert [preview.id for preview in only.shown] == [1, 2]
