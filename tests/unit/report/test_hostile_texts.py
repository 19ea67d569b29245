"""Texts that a page, a format, a figure or a terminal could take for something else: they stay texts everywhere."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import hostile
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy.io.votable import parse_single_table, validate
from astropy.table import Table
from hostile import COUNT, HARMLESS, LABELS, search
from made_up import made_up_search, write_report
from markdown_it import MarkdownIt

from rarezoo import tables
from rarezoo.errors import OutputError
from rarezoo.escapes import unescape, visible
from rarezoo.report import exports, notebook
from rarezoo.report.compare import write_comparison
from rarezoo.report.record import search_record
from rarezoo.searches.compare import ComparedSearch, SearchPair
from rarezoo.searches.decisions import Decision, Decisions, apply_decisions
from rarezoo.searches.listing import classes_table
from rarezoo.searches.matching import ClassOverlap, agreement
from rarezoo.studies.leaderboard import write_leaderboard
from rarezoo.track import Tracker
from rarezoo.zoo.cards import model_card

pytestmark = pytest.mark.unit


class Skeleton(HTMLParser):
    """The elements of a page, each with the names of its attributes, its addresses and styles, and everything shown."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.addresses, self.styles, self.values = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, tuple(name for name, _ in attributes)))
        self.values += [value or "" for _, value in attributes]
        self.addresses += [value for name, value in attributes if name in ("href", "src")]
        self.styles += [value for name, value in attributes if name == "style"]

    def handle_data(self, data):
        self.values.append(data)

    def handle_comment(self, data):
        self.elements.append(("comment", ()))

    def handle_decl(self, decl):
        self.elements.append((decl, ()))

    handle_pi = unknown_decl = handle_decl


def assert_same_pages(folder, harmless):
    """Pages with hostile texts have the elements and attributes that pages with harmless texts have."""
    pages = sorted(path.name for path in harmless.glob("*.html"))
    assert pages == sorted(path.name for path in folder.glob("*.html"))
    for name in pages:
        page = Skeleton(folder / name)
        assert page.elements == Skeleton(harmless / name).elements, name
        assert all(visible(value, lines=True) == value for value in page.values), name
        for address in page.addresses:
            assert address == "data:," or re.fullmatch(r"[\w./%#~-]*", address), address
        for style in page.styles:
            assert re.fullmatch(r"([a-z-]+: *(url\([\w./%~-]+\)|var\(--class-\d\)|[\w.% -]+)(; *|$))*", style), style


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_reports_have_no_element_attribute_or_file_that_a_text_made(tmp_path):
    for name, texts in (("hostile", hostile.TEXTS), ("harmless", HARMLESS)):
        write_report(tmp_path / name, **search(texts), thumbnails=COUNT)
    assert_same_pages(tmp_path / "hostile", tmp_path / "harmless")
    assert files_of(tmp_path / "hostile") == files_of(tmp_path / "harmless")
    shown = {value for page in (tmp_path / "hostile").glob("*.html") for value in Skeleton(page).values}
    first = hostile.TEXTS[0]
    assert any(value.startswith(f"{first} · ") for value in shown)
    for script in (tmp_path / "hostile" / "assets").glob("*.js"):
        if not script.name.startswith("atlas"):
            text = script.read_text(encoding="ascii")
            content = text.split("=", 1)[1].strip().removesuffix(";")
            assert json.loads(content) is not None, script.name


def test_the_atlas_holds_every_id_exactly(tmp_path):
    write_report(tmp_path, **search(hostile.TEXTS), thumbnails=0)
    text = (tmp_path / "assets" / "ids.js").read_text()
    assert json.loads(text.removeprefix('rarezooData["ids"]=').removesuffix(";\n")) == hostile.TEXTS


def test_every_page_allows_only_its_own_scripts(tmp_path):
    write_report(tmp_path, **search(HARMLESS), thumbnails=0)
    for page in tmp_path.glob("*.html"):
        policies = [value for value in Skeleton(page).values if value.startswith("default-src 'none'")]
        assert len(policies) == 1
        assert "script-src 'self' file: 'unsafe-eval';" in policies[0]


def compared(letter, name, texts):
    labels = LABELS.astype(np.int64)
    positions = np.random.default_rng(0).random((COUNT, 2)).astype(np.float32)
    return ComparedSearch(
        letter, name, name, COUNT, np.array([0, 1]), labels if letter == "A" else np.roll(labels, 9), positions,
        {0: tuple(texts), 1: tuple(texts)}, Path("/tmp") / texts[0] / "report" / "index.html",
    )  # fmt: skip


def test_comparisons_have_no_element_or_attribute_that_a_text_made(tmp_path):
    for kind, texts in (("hostile", hostile.TEXTS), ("harmless", HARMLESS)):
        searches = compared("A", texts[1], texts), compared("B", texts[2], texts)
        overlap = ClassOverlap.of_labels(*(side.labels for side in searches))
        pair = SearchPair(*searches, overlap, agreement(*(side.labels for side in searches)), None)
        ids = np.array(texts, dtype=object)
        write_comparison(tmp_path / kind, ids, searches, (pair,), cutouts=search(texts)["cutouts"])
    assert_same_pages(tmp_path / "hostile", tmp_path / "harmless")
    content = (tmp_path / "hostile" / "assets" / "ids.js").read_text(encoding="ascii")
    assert json.loads(content.split(" = ", 1)[1].removesuffix(";\n")) == hostile.TEXTS


@pytest.mark.parametrize(
    "name", ["javascript:window.x=1", "a) } <b> {", "data:text,x", "50% off?#x", "x'\" y", "é\u202e"]
)
def test_links_and_pictures_of_a_leaderboard_lead_to_the_folders_of_its_jobs(tmp_path, name):
    for sweep, job in (("hostile", name), ("harmless", "job")):
        folder = tmp_path / sweep / job
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "hydra.yaml").write_text("hydra:\n  job:\n    config_name: cluster\n")
        (folder / ".hydra" / "overrides.yaml").write_text(
            json.dumps([f"select.drop={name}" if sweep == "hostile" else "a=b"])
        )
        tables.write(
            search(HARMLESS)["classes"].drop_columns([tables.NAME]), folder / "classes.parquet", tables.CLASSES
        )
        tables.write_json({"settings": {}, "searched": 100, "unassigned": 0.9}, folder / "run.json")
        (folder / "report" / "images").mkdir(parents=True)
        for file in ("index.html", "images/class-000-exemplars.jpg"):
            (folder / "report" / file).touch()
        write_leaderboard(tmp_path / sweep)
    assert_same_pages(tmp_path / "hostile", tmp_path / "harmless")
    page = Skeleton(tmp_path / "hostile" / "leaderboard.html")
    assert f"{name}/report/index.html" in map(unquote, page.addresses)


@pytest.fixture
def members():
    fractions = {f"{text}_fraction": np.ones(COUNT, "f4") for text in hostile.TEXTS if len(text) < 50}
    return pa.table({
        tables.ID: hostile.TEXTS, tables.RA: np.linspace(0, 359, COUNT), tables.DEC: np.linspace(-80, 80, COUNT),
        tables.CLASS_ID: LABELS, tables.PROBABILITY: np.ones(COUNT, "f4"),
        tables.OUTLIER_SCORE: np.zeros(COUNT, "f4"), **fractions,
    })  # fmt: skip


ABOUT = {"survey": "\x1b[2J\n<b>'/x", "checkpoint": hostile.TEXTS[0], "checkpoint_sha256": "ab", "search": "END"}


@pytest.mark.filterwarnings("ignore:It is strongly recommended that column names")
def test_fits_gives_every_text_back(members, tmp_path):
    exported = Table.read(exports.write_fits(tmp_path / "m.fits", members, ABOUT))
    assert [unescape(text) for text in np.char.decode(exported[tables.ID])] == hostile.TEXTS
    assert [unescape(name) for name in exported.colnames] == members.column_names
    keys = {"survey": "SURVEY", "checkpoint": "CHECKPOI", "checkpoint_sha256": "CKPT_SHA", "search": "SEARCH"}
    assert {key: unescape(exported.meta[short]) for key, short in keys.items()} == ABOUT


def test_a_column_name_that_is_too_long_for_fits_is_refused(members, tmp_path):
    longer = members.append_column("x" * 69, pa.array(np.zeros(COUNT)))
    with pytest.raises(OutputError, match=r"68 characters.*format=votable"):
        exports.write_fits(tmp_path / "m.fits", longer, ABOUT)


@pytest.mark.filterwarnings("ignore:.*Implicitly generating an ID")
def test_votable_gives_every_text_back_and_is_valid(members, tmp_path):
    path, said = exports.write_votable(tmp_path / "m.vot", members, ABOUT), io.StringIO()
    exported = parse_single_table(path).to_table(use_names_over_ids=True)
    assert [unescape(text) for text in exported[tables.ID]] == hostile.TEXTS
    assert [unescape(name) for name in exported.colnames] == members.column_names
    assert validate(str(path), output=said), said.getvalue()


def test_csv_gives_every_text_back(members, tmp_path):
    path = exports.write_csv(tmp_path / "m.csv", members)
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row[tables.ID] for row in rows] == hostile.TEXTS
    assert pd.read_csv(path, dtype=str, keep_default_na=False)[tables.ID].to_list() == hostile.TEXTS
    assert list(rows[0]) == members.column_names


def test_hugging_face_gives_every_text_back(members, tmp_path):
    import datasets

    # Arrow itself ends the name of a column at a null character.
    members = members.drop_columns([name for name in members.column_names if "\0" in name])
    folder = exports.write_huggingface(tmp_path / "set", members, ABOUT)
    exported = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert exported[tables.ID][:] == hostile.TEXTS
    assert exported.column_names == members.column_names
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.count("---\n") == 2
    assert "\x1b" not in card
    assert "\n<b>" not in card


def test_ds9_has_one_region_per_galaxy_and_nothing_of_a_text_but_a_label(members, tmp_path):
    text = exports.write_ds9(tmp_path / "m.reg", members, ABOUT).read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) == 1 + len(ABOUT) + 2 + COUNT
    for line in lines[-COUNT:]:
        assert re.fullmatch(r"circle\([-\d.,]+\"\) # color=#\w+ text=\{[^{}\[\]$\\;|]*\} tag=\{[a-z0-9 ]+\}", line), (
            line
        )


@pytest.fixture
def hostile_search(tmp_path):
    return made_up_search(tmp_path / "$x^2$ \x1b[2J", **search(hostile.TEXTS))


def test_figures_show_names_that_look_like_formulas(hostile_search, tmp_path):
    figure = notebook.map_figure(hostile_search)
    figure.savefig(tmp_path / "map.png")
    assert figure.axes[0].get_title() == r"\$x^2\$ \x1b[2J"


def test_notebooks_escape_every_text(hostile_search):
    text = hostile_search._repr_html_()
    assert "<script" not in text
    assert "onerror=window" not in re.sub(r"&lt;.*?&gt;", "", text)
    assert "\x1b" not in text


def test_tables_for_terminals_have_one_line_per_row(hostile_search):
    lines = classes_table(hostile_search).split("\n")
    assert len(lines) == 4
    assert all(visible(line) == line for line in lines)
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_decisions_keep_every_name(tmp_path):
    made_up = search(HARMLESS)
    positions = tables.matrix(made_up["map_2d"], tables.POSITION)
    for text in hostile.TEXTS:
        path = tmp_path / "d.json"
        row = {"class_id": 0, "decision": "keep", "name": text, "merge_into": None}
        path.write_text(json.dumps({"rarezoo": "decisions", "schema": 1, "search": "", "classes": [row]}))
        read = Decisions.read(path)
        assert read == Decisions("", (Decision(0, "keep", text.strip()),))
    decided = apply_decisions(read, members=made_up["members"], classes=made_up["classes"], positions=positions)
    assert decided.classes[tables.NAME][0].as_py() == text.strip()


@pytest.mark.parametrize("mode", ["csv", "tensorboard", "offline"])
def test_logs_hold_every_text_and_no_html(hostile_search, tmp_path, mode, caplog):
    out = tmp_path / "log"
    Tracker(mode=mode).log_search(out, lambda: search_record(hostile_search))
    assert not [record for record in caplog.records if record.name.startswith("rarezoo")]
    if mode == "csv":
        classes = pd.read_csv(out / "log" / "classes.csv", keep_default_na=False)
        assert classes[tables.NAME].to_list() == [hostile.TEXTS[0], hostile.TEXTS[2]]
    if mode == "offline":
        (stored,) = out.rglob("class_table*.table.json")
        table = json.loads(stored.read_text())
        assert [row[table["columns"].index(tables.NAME)] for row in table["data"]] == [
            hostile.TEXTS[0],
            hostile.TEXTS[2],
        ]
        assert not list(out.rglob("*.html"))
    if mode == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.plugin_util import markdown_to_safe_html

        events = EventAccumulator(str(out / "tensorboard")).Reload()
        for tag in events.Tags()["tensors"]:
            (event,) = events.Tensors(tag)
            shown = markdown_to_safe_html(event.tensor_proto.string_val[0])
            assert not re.search(r"<(script|img|a|h1|li|code|strong|svg)\b", shown), shown


def test_model_cards_take_no_entry_for_markdown():
    harmless = token_kinds(model_card(card_of("word")))
    for text in filter(str.strip, hostile.TEXTS):
        assert token_kinds(model_card(card_of(text))) == harmless, text
        # This entry is Markdown itself, a list and a table; it may hold no more than that.
        representation = token_kinds(model_card({**card_of("word"), "representation": text}))
        assert not {"link_open", "image", "html_inline", "html_block"} & set(representation), text


def card_of(text):
    return {
        "name": text, "encoder": {"architecture": text, "bottleneck": text}, "width": 8, "weights": 9, "dtype": text,
        "licence": text, "preprocessing": {"view": text, "side": 1, "scale": text}, "known_failures": [text],
        "tree": {"name": text, "questions": [{"name": text}]}, "data": {text: text}, "metrics": [],
        "training": {text: text}, "compute": {text: text},
    }  # fmt: skip


def token_kinds(text):
    """The kinds of everything that Markdown makes of a text, without the text itself."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    tokens = [inner for token in parser.parse(text) for inner in (token, *(token.children or []))]
    return [token.type for token in tokens if token.type not in ("text", "text_special")]


def test_copied_commands_of_a_model_card_are_quoted_for_the_shell():
    text = model_card(card_of("x; rm -rf ~"))
    assert "checkpoint='x; rm -rf ~' " in text
