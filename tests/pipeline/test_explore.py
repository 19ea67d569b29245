"""The commands of personalised search: rank, classes rated and benchmark explore, and their answers to mistakes."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.explore.labels import Labels, Rating
from rarezoo.searches.result import Search

pytestmark = pytest.mark.pipeline

# Nothing is measured, so that nothing is written into the stores that all tests share.
PLAIN = ["beside=[]", "ranker=ridge"]


def rated(where, source, liked, *, label="interesting", count=40):
    """Rate some galaxies of a search or a store as somebody who likes those that a function says."""
    store = source.store if isinstance(source, Search) else source
    rows = np.random.default_rng(0).permutation(len(store.ids))
    wanted = np.array([liked(row) for row in rows])
    chosen = [*rows[wanted][: count // 2], *rows[~wanted][: count // 2]]
    with Labels.of(source, where) as labels:
        labels.add([
            Rating(str(store.ids[row]), label, float(liked(row)), "answer", "ann", why="random") for row in chosen
        ])  # fmt: skip
    return where


def first_component(store):
    """Whether each galaxy of a store is in the upper third of its largest direction."""
    vectors = store.embeddings().astype(float)
    direction = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[2][0]
    along = vectors @ direction
    return along > np.quantile(along, 2 / 3)


@pytest.fixture(scope="module")
def sky_store(tiny_survey, tmp_path_factory):
    """The tiny survey with made-up embeddings of three groups, which need no network."""
    survey, random = tiny_survey.mock(), np.random.default_rng(0)
    ids = survey.open().ids
    vectors = 6 * np.eye(6)[np.arange(len(ids)) % 3] + random.normal(size=(len(ids), 6))
    fractions = {"smooth_yes": np.linspace(0, 1, len(ids)), "smooth_no": np.linspace(1, 0, len(ids))}
    folder = tmp_path_factory.mktemp("sky") / "store"
    EmbeddingStore.from_array(ids, vectors.astype(np.float32), survey=survey, fractions=fractions, out=folder)
    return folder


@pytest.fixture(scope="module")
def sky_search(cli, sky_store, tiny_settings):
    folder = sky_store.parent / "search"
    cli("cluster.py", f"store={sky_store}", *tiny_settings.search, f"out={folder}", "seed=1", cwd=sky_store.parent)
    return folder


@pytest.fixture(scope="module")
def search(sky_search):
    return Search.open(sky_search)


@pytest.fixture(scope="module")
def liked(search):
    return first_component(search.store)


@pytest.fixture(scope="module")
def ratings(search, liked, tmp_path_factory):
    """A database with ratings of the search, under two labels; the second has few."""
    where = tmp_path_factory.mktemp("ratings") / "ratings.sqlite"
    rated(where, search, liked.__getitem__)
    rated(where, search, liked.__getitem__, label="ring", count=4)
    return where


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A store of another survey, with a database of its own."""
    folder = tmp_path_factory.mktemp("other")
    vectors = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    store = EmbeddingStore.from_array([f"K{row}" for row in range(30)], vectors, out=folder / "store")
    rated(folder / "store" / "labels.sqlite", store, lambda row: vectors[row, 0] > 0, count=20)
    return folder / "store"


def read(path):
    if path.suffix == ".csv":
        return pd.read_csv(path)
    if path.suffix == ".parquet":
        return tables.read(path, tables.RANKING).to_pandas()
    return Table.read(path).to_pandas()


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".fits", ".vot"])
def test_a_search_is_ranked_and_the_table_is_written(cli, sky_search, ratings, liked, search, tmp_path, ending):
    out = tmp_path / f"ranking{ending}"
    said = cli("rarezoo", "rank", sky_search, f"labels={ratings}", f"out={out}", *PLAIN, cwd=tmp_path).out
    assert "40 of 260 galaxies rated, 20 interesting" in said
    assert "more are left" in said
    assert str(out) in said
    ranking = read(out)
    assert {"id_str", "score", "rank"} <= set(ranking.columns)
    assert ranking["rank"].tolist() == list(range(1, 261))
    names = [name.decode() if isinstance(name, bytes) else name for name in ranking["id_str"]]
    assert sorted(names) == sorted(search.store.ids)
    row_of = {name: row for row, name in enumerate(search.store.ids)}
    assert np.mean([liked[row_of[name]] for name in names[:40]]) > 0.8


def test_a_store_is_ranked_with_what_is_measured_beside_it(cli, sky_store, tmp_path):
    shutil.copytree(sky_store, tmp_path / "store")
    store = EmbeddingStore.open(tmp_path / "store")
    rated(tmp_path / "store" / "labels.sqlite", store, first_component(store).__getitem__)
    said = cli("rarezoo", "rank", "store", "first=5", cwd=tmp_path).out
    assert len([line for line in said.splitlines() if line.startswith("|")]) == 7
    assert len(list((tmp_path / "store" / "features").glob("*.npy"))) == 2
    column = cli("rarezoo", "rank", "store", "beside=[ra,photometry]", cwd=tmp_path).out
    assert "score for interesting" in column


def test_a_store_without_images_is_ranked_and_says_without_what(cli, other, tmp_path):
    said = cli("rarezoo", "rank", other, cwd=tmp_path).out
    assert "ranked without photometry" in said
    assert "20 of 30 galaxies rated" in said


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["{search}", "label=rign"], ["rign", "interesting", "ring"]),
        (["{search}", "ranker=guess"], ["guess"]),
        (["{search}", "choose.few=2"], ["choose.few"]),
        (["{search}", "out=ranking.txt"], ["ranking.txt", ".parquet"]),
        (["{search}", "beside=[redshfit]"], ["redshfit"]),
        (["{search}", "beside=[image]"], ["image", "numbers"]),
        (["{search}", "embedding=false"], ["rank by"]),
        (["{search}", "weight=0"], ["weight"]),
        (["{search}", "first=-1"], ["first"]),
        (["{search}", "labels=nothing.sqlite"], ["nothing.sqlite"]),
        (["{search}", "labels={other}/labels.sqlite"], ["another survey"]),
        (["nowhere"], ["neither", "nowhere"]),
        (["."], ["neither"]),
        ([], ["source"]),
    ],
)
def test_a_mistake_in_a_ranking_is_one_message(cli, sky_search, ratings, other, tmp_path, words, what):
    words = [word.format(search=sky_search, other=other) for word in words]
    if not any(word.startswith("labels=") for word in words) and str(sky_search) in words:
        words.append(f"labels={ratings}")
    if not any(word.startswith("beside=") for word in words):
        words.append("beside=[]")
    message = cli("rarezoo", "rank", *words, cwd=tmp_path, expect=2).message
    assert all(each in message for each in what), message


def test_what_people_rated_becomes_a_class_of_a_search_that_other_commands_open(
    cli, sky_search, ratings, liked, search, tmp_path
):
    before = sorted(path.name for path in sky_search.iterdir())
    said = cli(
        "rarezoo", "classes", "rated", sky_search, f"labels={ratings}", "out=rated", *PLAIN, cwd=tmp_path
    ).out  # fmt: skip
    # The label with few ratings is left out, and is named.
    assert "too few ratings of ring" in said
    after = Search.open(tmp_path / "rated")
    classes = after.table("classes").to_pylist()
    made = next(row for row in classes if row[tables.NAME] == "interesting")
    # What was measured of a class holds for its members of then only.
    was = {row[tables.CLASS_ID]: row for row in search.table("classes").to_pylist()}
    for row in classes:
        if row is not made and row[tables.SIZE] < was[row[tables.CLASS_ID]][tables.SIZE]:
            assert row[tables.SIGNIFICANCE] is row[tables.FALSE_DISCOVERY] is row[tables.GRADE] is None
        elif row is not made:
            assert row[tables.SIGNIFICANCE] == was[row[tables.CLASS_ID]][tables.SIGNIFICANCE]
    assert made[tables.RANK] == 1
    assert 0 < made[tables.P_VALUE] <= 0.05
    assert made[tables.CLASS_ID] not in set(search.table("classes")[tables.CLASS_ID].to_pylist())
    members = after.ids[after.labels == made[tables.CLASS_ID]]
    assert len(members) == made[tables.SIZE] >= 20
    row_of = {name: row for row, name in enumerate(search.store.ids)}
    assert np.mean([liked[row_of[name]] for name in members]) > 0.7
    assert f"| {made[tables.CLASS_ID]} " in cli("rarezoo", "classes", "list", "rated", cwd=tmp_path).out
    assert "interesting" in after.page.read_text(encoding="utf-8") or any(
        "interesting" in path.read_text(encoding="utf-8") for path in after.page.parent.rglob("*.js")
    )
    assert sorted(path.name for path in sky_search.iterdir()) == before
    alone = cli(
        "rarezoo", "classes", "rated", sky_search, "label=interesting", f"labels={ratings}", "keep=false", "out=alone",
        *PLAIN, cwd=tmp_path,
    ).out  # fmt: skip
    assert "too few" not in alone
    assert len(Search.open(tmp_path / "alone").table("classes")) == 1


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["{search}", "label=ring"], ["too few ratings of ring", "2 interesting"]),
        (["{search}", "label=rign"], ["rign"]),
        (["{search}", "labels=nothing.sqlite"], ["nothing.sqlite"]),
        (["{search}", "labels={other}/labels.sqlite"], ["another survey"]),
        (["{search}", "ranker=guess"], ["guess"]),
        (["{search}", "seed=-3"], ["seed"]),
        (["{search}", "ranker.length=1e-30"], ["ranker.length"]),
        (["{search}", "label=nothing"], ["nothing", "interesting"]),
        (["{search}", "purity=2"], ["purity"]),
        (["{search}", "out={search}"], ["overwrite"]),
        (["{other}"], ["search"]),
        (["nowhere"], ["nowhere"]),
    ],
)
def test_a_mistake_in_rated_classes_is_one_message(cli, sky_search, ratings, other, tmp_path, words, what):
    words = [word.format(search=sky_search, other=other) for word in words]
    if not any(word.startswith("labels=") for word in words):
        words.append(f"labels={ratings}")
    message = cli("rarezoo", "classes", "rated", *words, "beside=[]", cwd=tmp_path, expect=2).message
    assert all(each in message for each in what), message
    assert not (tmp_path / "rated").exists()


def test_a_galaxy_of_two_rated_classes_belongs_to_the_first(cli, sky_search, search, liked, tmp_path):
    where = tmp_path / "twice.sqlite"
    for label in ("first", "second"):
        rated(where, search, liked.__getitem__, label=label)
    said = cli("rarezoo", "classes", "rated", sky_search, f"labels={where}", "out=twice", *PLAIN, cwd=tmp_path).out
    after = Search.open(tmp_path / "twice")
    names = after.table("classes")[tables.NAME].to_pylist()
    assert "first" in names
    assert ("second" in names) != ("second is no class" in said)


EXPLORERS = "explorers=[ours_no_photometry,random]"


def test_simulated_people_search_a_mock_sky_for_what_was_planted(cli, sky_store, tmp_path):
    shutil.copytree(sky_store, tmp_path / "store")
    middle = np.median(EmbeddingStore.open(sky_store).galaxies().catalogue[tables.DEC])
    words = [
        "store",
        EXPLORERS,
        "seeds=0",
        "labels=20",
        "protocols=[yes_no]",
        f"answers=[north=dec>{middle}]",
        "out=results",
    ]
    said = cli("rarezoo", "benchmark", "explore", *words, cwd=tmp_path).out
    assert "random order" in said
    results = pd.read_csv(tmp_path / "results" / "results.csv")
    assert set(results.explorer) == {"ours_no_photometry", "random"}
    (file, *_) = sorted((tmp_path / "results" / "searches").glob("*.json"))
    assert json.loads(file.read_text())["outcomes"]["whole"]["labels"][-1] == 20
    assert (tmp_path / "results" / "results.webp").exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["{store}", "explorers=[oars]"], ["oars", "ours"]),
        (["{store}", EXPLORERS, "answers=[ring=no_such_column>0.3]"], ["no_such_column"]),
        (["{store}", EXPLORERS, "answers=[ring]"], ["ring"]),
        (["{store}", EXPLORERS, "answers=[all=ra>-1000]"], ["all"]),
        (["{store}", EXPLORERS, "answers=[none=ra>1000]"], ["none"]),
        (["{store}", EXPLORERS, "protocols=[maybe]"], ["maybe"]),
        (["{store}", EXPLORERS, "seeds=many"], ["many"]),
        (["{store}", EXPLORERS, "held_out=1"], ["held_out"]),
        (["{other}", EXPLORERS], ["survey"]),
        (["nowhere", EXPLORERS], ["nowhere"]),
    ],
)
def test_a_mistake_in_the_benchmark_is_one_message(cli, sky_store, other, tmp_path, words, what):
    words = [word.format(store=sky_store, other=other) for word in words]
    if not any(word.startswith("protocols=") for word in words):
        words.append("protocols=[yes_no]")
    message = cli("rarezoo", "benchmark", "explore", *words, "labels=10", "out=x", cwd=tmp_path, expect=2).message
    assert all(each in message for each in what), message
