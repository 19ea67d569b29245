"""``rarezoo judge`` on two stores of a small mock survey, embedded by networks that have learnt nothing."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.data.surveys.mock import Mock
from rarezoo.data.trees import named_tree
from rarezoo.embeddings.answers import DEFAULT_CRITERIA, Criterion
from rarezoo.embeddings.embed import EmbedRun
from rarezoo.embeddings.judge import judge
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, OutputError, RarezooError, StoreError
from rarezoo.tables import plain
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.network import build_network

pytestmark = pytest.mark.pipeline

GALAXIES = 90
NORTH = "north=dec>-4"


def store(home, name, *, seed, galaxies=GALAXIES):
    """Embeddings of a mock survey under an untrained network of its own."""
    encoder, tree = EfficientNetB0(input_size=32, bottleneck=16), named_tree("desi")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(encoder, tree)
    checkpoint = Checkpoint.save(home / f"net-{name}", network=network, encoder=encoder, tree=tree, card={})
    survey = Mock(n=galaxies, side=32, workers=1, cache=str(home / "cache"))
    EmbedRun(data=survey, checkpoint=str(checkpoint.folder), out=str(home / name), workers=0).run()
    return home / name


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("judge")
    for seed, name in enumerate(("one", "other")):
        store(home, name, seed=seed)
    store(home, "fewer", seed=0, galaxies=40)
    return home


QUICK = {"measures": ["like_this", "few_labels"], "draws": 3}


def quick(home, *stores, **settings):
    """Judge stores by two measures that take little time."""
    chosen = {"answers": [NORTH], "cache": str(home / "kept"), **QUICK, **settings}
    return judge([home / store for store in stores], **chosen)


def test_the_command_prints_ranks_and_rows_of_each_answer_and_writes_them(cli, home):
    words = ["one", "other", "answers=north=dec>-4,east=ra>20", "whiten=4", "draws=3", "cache=kept", "out=judged"]
    out = cli("rarezoo", "judge", *words, cwd=home).out
    first, second, about, _, head, _, *rows = out.splitlines()
    assert first.startswith("net-one: effective rank ")
    assert second.startswith("net-other: effective rank ")
    assert f"{GALAXIES} galaxies of mock, split all" in about
    names = ("photometry", "net-one", "net-one whitened", "net-other", "net-other whitened")
    assert all(f"| {name} " in head for name in names)
    assert rows[0].startswith("| north (dec > -4): ")
    assert any(row.startswith("| east (ra > 20): ") for row in rows)
    assert (home / "judged" / "spectra.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((home / "judged" / "judge.json").read_text())
    dimension = written["stores"]["net-one"]["local_dimension"]
    assert first.endswith(f"local dimension {dimension:.1f}")
    assert 1 < dimension < 128
    assert sum(written["stores"]["net-one"]["explained_variance_ratios"]) == pytest.approx(1)
    assert [answer["name"] for answer in written["answers"]] == ["north", "east"]
    table = pd.read_csv(home / "judged" / "judge.csv")
    assert set(table["contestant"]) == set(names)
    assert set(table["answer"]) == {"north", "east"}
    assert {"like this", "probe", "nDCG@10, 3 examples", "5 labels: AUC"} <= set(table["measure"])
    assert "north (dec > -4) has too few galaxies for: 10-shot, 13 labels, " in out
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert f"{table.value[0]:.3f} ({table.low[0]:.3f}–{table.high[0]:.3f})" in rows[0]


def test_values_of_a_store_do_not_depend_on_the_others(home):
    together = quick(home, "one", "other").table()
    alone = quick(home, "other", cache=str(home / "nothing kept")).table()
    for name in ("net-other", "photometry"):
        both = [table[table.contestant == name].reset_index(drop=True) for table in (together, alone)]
        pd.testing.assert_frame_equal(*both)


def test_what_was_measured_is_found_again(home, monkeypatch):
    first = quick(home, "one").table()
    monkeypatch.setattr("rarezoo.embeddings.measures.like_this", None)
    monkeypatch.setattr("rarezoo.embeddings.measures.few_labels", None)
    monkeypatch.setattr("rarezoo.data.photometry.measurements", None)
    pd.testing.assert_frame_equal(quick(home, "one").table(), first)


def test_differences_are_paired_and_a_store_does_not_differ_from_itself(home, tmp_path):
    copied = imported(home, tmp_path / "copy", survey=Mock(n=GALAXIES, side=32, workers=1, cache=str(home / "cache")))
    table = quick(home, "one", copied.folder, beside=[]).differences("net-one")
    assert set(table["contestant"]) == {"foreign"}
    assert (table[["value", "low", "high"]].to_numpy() == 0).all()
    assert set(table["verdict"]) == {"not different"}
    summary = quick(home, "one", "other", against="photometry").summary()
    assert "Differences from photometry" in summary
    with pytest.raises(ConfigError, match=r"no such contestant.*net-two.*net-one"):
        quick(home, "one", against="net-two")


def test_a_split_is_judged_by_its_own_galaxies(home):
    galaxies = Mock(n=GALAXIES, side=32, workers=1, cache=str(home / "cache")).open()
    rows = galaxies.rows("train")
    answer = quick(home, "one", split="train").answers[0]
    assert answer.galaxies == len(rows)
    assert answer.positives == np.sum(galaxies.catalogue["dec"].to_numpy()[rows] > -4)


def test_a_table_of_ones_own_holds_answers_of_some_galaxies(cli, home, tmp_path):
    store = EmbeddingStore.open(home / "one")
    known, ring = store.ids[10:70], np.arange(60) % 5 == 0
    pd.DataFrame({"name": known, "ring": ring.astype(int), "kind": np.where(ring, "ring", "none")}).to_csv(
        tmp_path / "mine.csv", index=False
    )
    words = [f"table={tmp_path / 'mine.csv'}", "id_column=name", "measures=like_this", f"cache={tmp_path / 'kept'}"]
    out = cli("rarezoo", "judge", "one", "answers=ring=ring,same=kind==ring", *words, cwd=home).out
    rows = [line.split("|") for line in out.splitlines() if "like this" in line]
    assert rows[0][1].strip() == "ring (ring is 1): 12 of 60"
    assert rows[1][1].strip() == "same (kind is ring): 12 of 60"
    assert rows[0][2:] == rows[1][2:]


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("name,ring\nx1,1\nx2,0\n", {"answers": ["ring=ring"]}, "no id of .*mine.csv is in the store"),
        ("name,ring\nx1,1\nx1,0\n", {"answers": ["ring=ring"]}, "more than once"),
        ("id_str,ring\nx1,1\n", {"answers": ["ring=ring"]}, "name"),
        ("name,ring\nID,1\n", {"answers": []}, "no answers of the table are named.*ring"),
        ("name,ring\nID,0.4\n", {"answers": ["ring=ring"]}, "needs a threshold"),
        ("name,ring\nID,1\n", {"answers": ["ring=ring"]}, "ring .*cannot be measured.*1 of 1"),
        ("name,kind\nID,spiral\n", {"answers": ["ring=kind==ring"]}, "no galaxy has this text.*ring.*spiral"),
        ("name,ring\nID,1\n", {"answers": ["ring=ring", "ring=ring>0.2"]}, "two answers have one name"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(home, tmp_path, content, settings, message):
    galaxy = EmbeddingStore.open(home / "one").ids[0]
    (tmp_path / "mine.csv").write_text(content.replace("ID", galaxy))
    with pytest.raises(RarezooError, match=message):
        judge(home / "one", table=str(tmp_path / "mine.csv"), id_column="name", cache=str(tmp_path), **settings)


def test_populations_of_a_mock_sky_are_its_usual_answers_and_rare_ones_are_left_out(home):
    judgement = quick(home, "one", answers=[], measures=["like_this"])
    populations = Mock(n=GALAXIES, side=32, workers=1, cache=str(home / "cache")).open().truth["population"].to_pylist()
    counts = {name: populations.count(name) for name in set(populations) - {"ordinary"}}
    assert {answer.criterion.name for answer in judgement.answers} == {name for name in counts if counts[name] >= 5}
    assert sum("is left out" in note for note in judgement.notes) == sum(count < 5 for count in counts.values())


def test_predicted_votes_are_a_contestant_and_answers_that_were_trained_on_are_marked(home, tmp_path):
    ids, smooth = EmbeddingStore.open(home / "one").ids, np.random.default_rng(0).random(GALAXIES)
    column = "smooth-or-featured_smooth"
    store = imported(home, tmp_path / "store", fractions={column: smooth, "bar_yes": smooth[::-1]})
    pd.DataFrame({"id_str": ids, column: smooth}).to_csv(tmp_path / "votes.csv", index=False)
    answers = [f"smooth={column}>0.6"]
    judgement = quick(home, store.folder, answers=answers, table=str(tmp_path / "votes.csv"), beside=["votes"])
    assert judgement.in_sample == {("smooth", "foreign"), ("smooth", "votes predicted by foreign")}
    assert "was trained on smooth" in judgement.summary()
    assert " * |" in judgement.summary()
    values = judgement.table().set_index(["measure", "contestant"])["value"]
    # The answer is one of the features.
    assert values["5 labels: AUC", "votes predicted by foreign"] > 0.8


def test_another_command_in_the_same_folder_is_refused(home, tmp_path):
    out = str(tmp_path / "out")
    first = quick(home, "one", out=out)
    assert plain(quick(home, "one", out=out).content()) == plain(first.content())
    with pytest.raises(OutputError, match="holds a run with other settings"):
        quick(home, "one", whiten=3, out=out)


def test_stores_under_one_name_are_told_apart_by_their_folders(home, tmp_path):
    (tmp_path / "copy").mkdir()
    for file in (home / "one").iterdir():
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    spectra = quick(home, "one", tmp_path / "copy").spectra
    assert list(spectra) == [f"net-one ({home / 'one'})", f"net-one ({tmp_path / 'copy'})"]


@pytest.mark.parametrize(
    ("answers", "settings", "parts"),
    [
        (["north=dek>0"], {}, "has no column: dek. Did you mean dec"),
        (["north=survey>0"], {}, "not a column of numbers: survey"),
        (["pole=dec>80"], {}, rf"pole \(dec > 80\) cannot be measured: 0 of {GALAXIES}"),
        (["sky=dec>-80"], {}, rf"sky \(dec > -80\) cannot be measured: {GALAXIES} of {GALAXIES}"),
        ([NORTH], {"split": "holdout"}, "split.*holdout"),
        ([NORTH], {"whiten": -1}, "whiten.*-1"),
        ([NORTH], {"measures": ["best"]}, "measures.*best"),
        ([NORTH], {"beside": ["magic"]}, "beside.*magic"),
        ([NORTH], {"draws": 1}, "draws.*1"),
    ],
)
def test_settings_that_cannot_be_judged_by_are_refused(home, answers, settings, parts):
    with pytest.raises(ConfigError, match=parts):
        judge(home / "one", answers=answers, **settings)


def imported(home, folder, **settings):
    """The embeddings of a store, as somebody else's network would bring them."""
    source = EmbeddingStore.open(home / "one")
    return EmbeddingStore.from_array(source.ids, source.embeddings(), out=folder, name="foreign", **settings)


def test_imported_embeddings_are_judged_by_their_spectrum_and_with_a_survey_by_kinds_of_galaxies(
    home, tmp_path, caplog
):
    store = imported(home, tmp_path / "store")
    alone = judge(store)
    assert (alone.galaxies, alone.answers) == (GALAXIES, ())
    assert "effective rank" in alone.summary()
    assert "answers=" in caplog.text
    with pytest.raises(StoreError, match="data="):
        judge(store, answers=[NORTH])
    survey = Mock(n=GALAXIES, side=32, workers=1, cache=str(home / "cache"))
    table = quick(home, store.folder, "one", data=survey).table().set_index(["contestant", "measure"])
    assert table.value["foreign", "like this"] == table.value["net-one", "like this"]


def test_without_a_survey_a_table_of_answers_is_enough_and_photometry_is_missing(home, tmp_path):
    store = imported(home, tmp_path / "store")
    pd.DataFrame({"id_str": store.ids, "ring": np.arange(GALAXIES) % 4 == 0}).to_csv(tmp_path / "mine.csv", index=False)
    judgement = quick(home, store.folder, answers=["ring=ring"], table=str(tmp_path / "mine.csv"))
    assert judgement.contestants == ["foreign"]
    assert "no photometry" in judgement.summary()


def test_an_import_that_names_its_survey_needs_no_further_words(home, tmp_path):
    survey = Mock(n=GALAXIES, side=32, workers=1, cache=str(home / "cache"))
    store = imported(home, tmp_path / "store", survey=survey)
    assert quick(home, store.folder).answers[0].galaxies == GALAXIES


def test_stores_of_different_surveys_are_refused_in_one_message(cli, home):
    refused = cli("rarezoo", "judge", "one", "fewer", "answers=north=dec>-4", cwd=home, expect=2)
    assert "one and fewer" in refused.message


def test_a_store_that_is_named_twice_is_refused(home):
    with pytest.raises(ConfigError, match="named twice"):
        quick(home, "one", "one")


def test_a_survey_that_has_changed_is_refused(home, tmp_path):
    opened = EmbeddingStore.open(home / "one")
    for file in opened.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["survey_settings"]["volunteers"] += 1
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="has changed since it was embedded"):
        judge(tmp_path, answers=[NORTH])


@pytest.mark.parametrize("text", ["ring", "ring=Class8.1>many", "=Class8.1>0.3", "ring=>0.3", "ring=a=b"])
def test_an_answer_that_does_not_read_is_refused(text):
    with pytest.raises(RarezooError, match="NAME=COLUMN>VALUE"):
        Criterion.parsed(text)


def test_an_answer_reads_name_column_and_threshold():
    assert Criterion.parsed("ring=Class8.1>0.3") == DEFAULT_CRITERIA["gz2"][0]


def catalogue_store(folder, *, galaxies=40, rare=8):
    """Embeddings of a survey in files, of which some are bright."""
    (folder / "images").mkdir()
    lines = ["id_str,bright"]
    for row in range(galaxies):
        level = 200 - row if row < rare else 90 + row
        Image.new("L", (12, 12), level).save(folder / "images" / f"g{row:02d}.png")
        lines.append(f"g{row:02d},{int(row < rare)}")
    (folder / "galaxies.csv").write_text("\n".join(lines) + "\n")
    survey = Catalogue(str(folder / "galaxies.csv"), images=str(folder / "images"))
    vectors = np.random.default_rng(0).normal(size=(galaxies, 3))
    ids = [f"g{row:02d}" for row in range(galaxies)]
    return EmbeddingStore.from_array(ids, vectors, out=folder / "store", name="foreign", survey=survey)


def test_galaxies_whose_image_was_damaged_are_left_out_of_all_contestants(tmp_path, caplog):
    opened = catalogue_store(tmp_path)
    settings = {"answers": ["bright=bright"], "cache": str(tmp_path / "kept"), "measures": ["like_this"]}
    whole = judge(opened, **settings)
    assert (whole.answers[0].positives, whole.answers[0].galaxies) == (8, 40)
    for name in ("g00.png", "g30.png"):
        (tmp_path / "images" / name).write_bytes(b"\x89PNG damaged")
    left = judge(opened, **settings)
    assert (left.answers[0].positives, left.answers[0].galaxies) == (7, 38)
    assert left.contestants == ["photometry", "foreign"]
    assert np.isfinite(left.table()["value"]).all()
    assert "2 of 40 galaxies have an unreadable image, such as g00" in left.summary()
    assert "2 of 40 galaxies have an unreadable image" in caplog.text
    alone = judge(opened, **settings, beside=[])
    before = whole.table()
    pd.testing.assert_frame_equal(alone.table(), before[before.contestant == "foreign"].reset_index(drop=True))
    for row in range(4):
        (tmp_path / "images" / f"g{row:02d}.png").write_bytes(b"")
    few = judge(opened, **settings)
    assert few.contestants == ["foreign"]
    assert "no photometry: 5 of 40" in few.summary()
    pd.testing.assert_frame_equal(few.table(), alone.table())


@pytest.mark.parametrize("name", ["photometry", "answer", "a whitened"])
def test_a_store_whose_name_is_that_of_something_else_in_the_table_is_told_apart(tmp_path, name):
    ids, vectors = [f"g{row}" for row in range(40)], np.random.default_rng(0).normal(size=(40, 3))
    first = EmbeddingStore.from_array(ids, vectors, out=tmp_path / "first", name="a")
    other = EmbeddingStore.from_array(ids, -vectors[::-1], out=tmp_path / "other", name=name)
    pd.DataFrame({"id_str": ids, "ring": np.arange(40) % 4 == 0}).to_csv(tmp_path / "mine.csv", index=False)
    settings = {"table": str(tmp_path / "mine.csv"), "cache": str(tmp_path / "kept"), "measures": ["like_this"]}
    judgement = judge([first, other], answers=["ring=ring"], whiten=2, against="a", **settings)
    theirs = f"{name} ({tmp_path / 'other'})"
    assert judgement.contestants == ["a", "a whitened", theirs, f"{theirs} whitened"]
    assert theirs in judgement.summary()


def test_a_store_without_a_survey_is_judged_on_the_survey_of_another_store(tmp_path):
    opened = catalogue_store(tmp_path)
    foreign = EmbeddingStore.from_array(opened.ids[::-1], opened.embeddings()[::-1], out=tmp_path / "own", name="own")
    settings = {"answers": ["bright=bright"], "cache": str(tmp_path / "kept"), "measures": ["like_this"]}
    table = judge([foreign, opened], **settings).table().set_index("contestant")
    assert table.value["own"] == table.value["foreign"]
