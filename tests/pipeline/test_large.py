"""A search out of core: every galaxy is placed, and a class too rare for the sample is found by the second pass."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

import rarezoo as rz
from rarezoo import tables
from rarezoo.data.hats import HatsCatalogue, write_hats
from rarezoo.engines import PartsFailed
from rarezoo.engines.local import Local
from rarezoo.errors import ConfigError, OutputError, StoreError
from rarezoo.explore.labels import Labels, Rating
from rarezoo.explore.rank import RankRun
from rarezoo.explore.rated_class import RatedClassesRun
from rarezoo.searches.clusterers.fast_hdbscan import FastHdbscan
from rarezoo.searches.compressors.none import NoCompression
from rarezoo.searches.compressors.pca import Pca
from rarezoo.searches.decisions import Decision, Decisions, apply_decisions
from rarezoo.searches.large import placed_tables
from rarezoo.searches.result import Search
from rarezoo.searches.select import Select
from rarezoo.searches.significance import Significance
from rarezoo.searches.stability import Stability

pytestmark = pytest.mark.pipeline
GALAXIES, COMMON, RARE, WIDTH = 12_000, 600, 60, 6
SETTINGS = {
    "compress": NoCompression(), "drawing": Pca(n_components=2), "stability": Stability(refits=0), "images": False,
    "clusterer": FastHdbscan(min_samples=10, min_cluster_size=10, selection="isolated"), "beyond": False,
    "significance": Significance(surveys=5), "sample": 1200, "engine": Local(),
}  # fmt: skip


def vectors():
    random = np.random.default_rng(4)
    values = random.normal(size=(GALAXIES, WIDTH))
    values[:COMMON] = 5 + 0.2 * random.normal(size=(COMMON, WIDTH))
    values[-RARE:] = -9 + 0.2 * random.normal(size=(RARE, WIDTH))
    return values.astype(np.float32)


IDS = [f"g{row:05d}" for row in range(GALAXIES)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    # The last shard holds one galaxy.
    return rz.EmbeddingStore.from_array(
        IDS, vectors(), out=tmp_path_factory.mktemp("large") / "store", name="made_up", shard_rows=(GALAXIES - 1) // 3
    )


@pytest.fixture(scope="module")
def found(store, tmp_path_factory):
    return rz.search(store, out=tmp_path_factory.mktemp("large") / "search", **SETTINGS)


def test_every_galaxy_is_placed_and_the_rare_class_is_found_by_the_second_pass(found):
    placed = pa.concat_tables(placed_tables(found))
    assert placed.column(tables.ID).to_pylist() == IDS
    labels = placed.column(tables.CLASS_ID).to_numpy()
    common, rare = (np.bincount(part[part >= 0]).argmax() for part in (labels[:COMMON], labels[-RARE:]))
    assert np.mean(labels[:COMMON] == common) > 0.85
    assert np.mean(labels[-RARE:] == rare) > 0.85
    assert rare >= found.about["large"]["second_pass_from"] > common
    # Few of the others get a class.
    assert np.mean(labels[COMMON:-RARE] >= 0) < 0.1


def test_the_result_is_an_ordinary_search_with_the_sizes_of_the_whole_survey(found):
    assert found.page.exists()
    labels = pa.concat_tables(placed_tables(found)).column(tables.CLASS_ID).to_numpy()
    for known in found:
        assert known.size == np.sum(labels == known.id)
    assert found.about["galaxies"] == GALAXIES
    assert len(found.ids) < GALAXIES / 3
    assert Search.open(found.folder).store.manifest.checkpoint == "made_up"
    assert len(found.export(found.folder / "members.csv")) > 0


def test_every_count_is_that_of_all_galaxies_and_not_of_those_that_are_shown(found):
    page = found.page.read_text()
    assert f"{GALAXIES:,} galaxies that were placed from a sample of {SETTINGS['sample']:,}" in page
    assert f"of which {SETTINGS['sample']:,} were searched" in page
    # The members of classes would be most of a random draw of what is shown.
    assert f"of {SETTINGS['sample']:,} galaxies of the sample, drawn at random" in page
    known = found.table("classes").to_pylist()
    assert all(row["fraction"] == pytest.approx(row["size"] / GALAXIES) for row in known)
    assert found.about["unassigned"] == pytest.approx(1 - sum(row["size"] for row in known) / GALAXIES)
    assert f"of the {GALAXIES:,} placed" in (found.page.parent / "class-000.html").read_text()


@pytest.mark.parametrize("ending", ["csv", "fits", "votable"])
def test_every_galaxy_leaves_with_its_class_in_every_table_format(found, tmp_path, ending):
    out = tmp_path / f"all.{ending}"
    found.export(out, format=ending, unassigned=True)
    table = Table.read(out, format="ascii.csv" if ending == "csv" else ending)
    assert len(table) == GALAXIES
    placed = pa.concat_tables(placed_tables(found))
    expected = dict(zip(placed.column(tables.ID).to_pylist(), placed.column(tables.CLASS_ID).to_pylist(), strict=True))
    assert dict(zip(table["id_str"].astype(str).tolist(), table["class_id"].tolist(), strict=True)) == expected
    if ending != "csv":
        assert "vote fraction" not in "".join(table[name].description for name in table.colnames)


@pytest.mark.parametrize("settings", [{"format": "huggingface"}, {"answers": ["bar_strong"]}])
def test_what_is_known_of_shown_galaxies_only_is_refused_for_all(found, tmp_path, settings):
    with pytest.raises(ConfigError, match="unassigned=true writes all galaxies of a search out of core"):
        found.export(tmp_path / "out", unassigned=True, **settings)


def test_merged_classes_have_the_sizes_of_their_parts_among_all_galaxies(found, tmp_path):
    first, second, *_ = found.table("classes").to_pylist()
    members = found.table("members")
    # One of two members is not shown, as after drawn=.
    shown = members.take(pa.array(range(0, members.num_rows, 2)))
    decisions = Decisions("", (Decision(second["class_id"], "merge", merge_into=first["class_id"]),))
    applied = apply_decisions(
        decisions, members=shown, classes=found.table("classes"), positions=np.zeros((shown.num_rows, 2))
    )
    row = {row["class_id"]: row for row in applied.classes.to_pylist()}[first["class_id"]]
    assert row["size"] == first["size"] + second["size"]
    assert row["fraction"] == pytest.approx(row["size"] / GALAXIES)


def test_a_missing_part_of_the_placed_galaxies_is_named(found, tmp_path):
    copy = Search.open(shutil.copytree(found.folder, tmp_path / "copy"))
    (copy.folder / "placed" / "part-00001.parquet").unlink()
    with pytest.raises(StoreError, match=r"placed galaxies is missing.*part-00001"):
        copy.export(tmp_path / "all.csv", unassigned=True)


@pytest.mark.parametrize("name", ["member-00001.parquet", "far-00001.parquet"])
def test_a_part_that_a_fault_of_the_disk_has_cut_off_is_named_and_made_again(found, store, tmp_path, name):
    out = shutil.copytree(found.folder, tmp_path / "search")
    (out / "run.json").unlink()
    shutil.rmtree(out / "second")
    damaged = out / "placed" / name
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(StoreError, match=rf"damaged file .200 bytes.: .*{name}.*Delete it"):
        rz.search(store, out=out, **SETTINGS)
    damaged.unlink()
    again = rz.search(store, out=out, **SETTINGS)
    assert [known.size for known in again] == [known.size for known in found]


def test_a_rated_class_changes_no_share_but_those_of_classes_that_lose_galaxies(found, tmp_path):
    common = found[int(np.bincount(found.labels[found.labels >= 0]).argmax())]
    inside, outside = found.ids[found.labels == common.id][:20], found.ids[found.labels < 0][:40]
    where = str(tmp_path / "labels.sqlite")
    with Labels.of(found, where) as labels:
        for ids, value in ((inside, 1.0), (outside, 0.0)):
            labels.add([Rating(name, "common", value, "answer", "ada", why="model") for name in ids])
    settings = {"label": ["common"], "labels": where, "out": str(tmp_path / "rated"), "beside": []}
    after = RatedClassesRun(search=str(found.folder), **settings).run().search
    was = {row["class_id"]: row for row in found.table("classes").to_pylist()}
    now = {row["class_id"]: row for row in after.table("classes").to_pylist()}
    made = next(row for row in now.values() if row["name"] == "common")
    assert made["fraction"] == pytest.approx(made["size"] / GALAXIES)
    changed = {class_id for class_id, row in was.items() if class_id not in now or now[class_id]["size"] < row["size"]}
    assert common.id in changed
    for class_id in was.keys() - changed:
        assert now[class_id]["fraction"] == was[class_id]["fraction"]
    assert after.about["unassigned"] == pytest.approx(1 - sum(row["size"] for row in now.values()) / GALAXIES)


def test_no_estimate_of_what_is_left_is_made_of_draws_among_the_shown_galaxies(found, tmp_path):
    where = str(tmp_path / "labels.sqlite")
    with Labels.of(found, where) as labels:
        for row, name in enumerate(found.ids[:60]):
            labels.add([Rating(name, "odd", float(row < 5), "answer", "ada", why="random")])
    settings = {"source": str(found.folder), "label": "odd", "labels": where, "first": 50}
    assert "are left" in RankRun(**settings).run().summary()
    everywhere = RankRun(**settings, engine=Local()).run()
    assert everywhere.progress.left is None
    assert "are left" not in everywhere.summary()


def test_the_same_search_again_is_the_finished_one_and_another_is_refused(found, store):
    before = (found.folder / "run.json").stat().st_mtime_ns
    again = rz.search(store, out=found.folder, **SETTINGS)
    assert again.labels.tolist() == found.labels.tolist()
    assert (found.folder / "run.json").stat().st_mtime_ns == before
    with pytest.raises(OutputError, match=r"large\.sample"):
        rz.search(store, out=found.folder, **{**SETTINGS, "sample": 1300})


def test_settings_that_need_the_whole_store_are_refused(store, tmp_path):
    with pytest.raises(ConfigError, match=r"select\.sample.*engine="):
        rz.search(store, out=tmp_path, **{**SETTINGS, "select": Select(sample=50)})


def test_far_galaxies_that_the_second_pass_has_not_searched_are_placed_in_its_classes(tmp_path):
    many, sample = 4 * GALAXIES, 200
    values = np.random.default_rng(5).normal(size=(many, WIDTH)).astype(np.float32)
    values[-RARE:] = vectors()[-RARE:]
    ids = [f"g{row:05d}" for row in range(many)]
    store = rz.EmbeddingStore.from_array(ids, values, out=tmp_path / "store", shard_rows=many // 4)
    found = rz.search(store, out=tmp_path / "search", **{**SETTINGS, "sample": sample})
    assert found.about["large"]["far"] > 1.2 * sample
    labels = pa.concat_tables(placed_tables(found)).column(tables.CLASS_ID).to_numpy()
    rare = np.bincount(labels[-RARE:][labels[-RARE:] >= 0]).argmax()
    assert np.mean(labels[-RARE:] == rare) > 0.8
    assert found[int(rare)].size == np.sum(labels == rare)
    # Those that were placed later are shown too.
    assert {ids[row] for row in np.flatnonzero(labels == rare)} <= {*found.ids}


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"engine": None}, r"sample=1200.*engine=local"), ({"magnitude": "mag"}, r"magnitude=mag.*data=")],
)
def test_settings_that_would_do_nothing_are_refused(store, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        rz.search(store, out=tmp_path, **{**SETTINGS, **settings})


def test_an_id_in_two_shards_is_refused(tmp_path):
    store = rz.EmbeddingStore.from_array(IDS[:300], vectors()[:300], out=tmp_path / "store", shard_rows=100)
    ids = [*IDS[100:199], IDS[0]]
    store.write_shard(1, ids=ids, embeddings=vectors()[100:200], fractions=np.empty((100, 0), np.float32))
    with pytest.raises(StoreError, match=r"more than once.*\[0, 1\]"):
        rz.search(store, out=tmp_path / "search", **{**SETTINGS, "sample": 100})


def test_a_shard_without_a_galaxy_and_embeddings_that_are_not_finite_are_left_out(tmp_path):
    few = 900
    store = rz.EmbeddingStore.from_array(IDS[:few], vectors()[:few], out=tmp_path / "store", shard_rows=300)
    store.write_shard(
        1, ids=[], embeddings=np.empty((0, WIDTH), np.float32), fractions=np.empty((0, 0), np.float32),
        skipped=IDS[300:600],
    )  # fmt: skip
    file = tmp_path / "store" / "shard-00002.parquet"
    shard = pq.read_table(file)
    values = tables.matrix(shard, tables.EMBEDDING).copy()
    values[7, 0] = np.nan
    at = shard.column_names.index(tables.EMBEDDING)
    changed = shard.set_column(at, shard.schema.field(at), tables.vectors(values))
    pq.write_table(changed.replace_schema_metadata(shard.schema.metadata), file)
    store, settings = rz.EmbeddingStore.open(tmp_path / "store"), {**SETTINGS, "sample": 300}
    with pytest.raises(PartsFailed, match=rf"not finite.*{IDS[607]}.*select\.not_finite=drop"):
        rz.search(store, out=tmp_path / "refused", **settings)
    found = rz.search(store, out=tmp_path / "search", **settings, select=Select(not_finite="drop"))
    ids = pa.concat_tables(placed_tables(found)).column(tables.ID).to_pylist()
    assert ids == [*IDS[:300], *IDS[600:607], *IDS[608:few]]
    assert found.about["large"]["not_finite"] == 1


# ── minutes ─────────────────────────────────────────────────────────────────────────────────────────────────────────

WORDS = [
    "compress=none", "compress@drawing=pca", "drawing.n_components=2", "preset=null", "clusterer.min_samples=10",
    "clusterer.min_cluster_size=10", "clusterer.selection=isolated",
    "significance.surveys=5", "stability.refits=0", "images=false", "logger=none", "beyond=false", "sample=1200",
]  # fmt: skip


def placed(folder):
    return pa.concat_tables(placed_tables(Search.open(folder))).to_pydict()


@pytest.mark.slow
@pytest.mark.parametrize(
    "begun", ["sample/ids/*.npy", "sample/store/manifest.json", "placed/part-00000.json", "second/store/manifest.json"]
)
def test_a_search_that_is_killed_in_any_stage_goes_on_to_the_same_result(found, store, tmp_path, begun):
    out = tmp_path / "search"
    command = [sys.executable, "cluster.py", f"store={store.folder}", f"out={out}", *WORDS, "engine=dask"]
    run = subprocess.Popen([*command, "engine.workers=2"])
    while not list(out.glob(begun)) and run.poll() is None:
        time.sleep(0.01)
    assert run.poll() is None
    # The scheduler is a part of this process.
    run.kill()
    run.wait()
    assert not (out / "run.json").exists()
    subprocess.run([*command, "engine.workers=2"], check=True)
    assert placed(out) == placed(found.folder)


@pytest.mark.slow
def test_the_whole_way_in_python_is_as_the_how_to_page_says(tmp_path):
    pytest.importorskip("lsdb")
    random = np.random.default_rng(0)
    ra, dec = random.uniform(0, 360, GALAXIES), np.degrees(np.arcsin(random.uniform(-1, 1, GALAXIES)))
    places = {tables.RA: ra, tables.DEC: dec}
    whole = pa.table({tables.ID: IDS, **places, tables.EMBEDDING: tables.vectors(vectors())})
    write_hats(iter([whole]), tmp_path / "surveys" / "vectors", partition_rows=3000)
    other = pa.table({"number": range(0, GALAXIES, 10), **{name: values[::10] for name, values in places.items()}})
    write_hats(iter([other]), tmp_path / "catalogues" / "other", partition_rows=3000)
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "large-surveys.md").read_text()
    script = page.split("The whole way in Python")[1].split("```python\n")[1].split("```")[0]
    # The settings of these tests, for a smaller survey.
    script = script.replace("images=False, sample=500_000", '**{**SETTINGS, "engine": Dask(workers=2)}')
    script = script.replace("engine=Dask(workers=2), ", "")
    script = f"import sys\nsys.path.append({str(Path(__file__).parent)!r})\nfrom test_large import SETTINGS\n{script}"
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True)
    assert f"{GALAXIES // 10:,} pairs" in done.stdout
    folder = tmp_path / "runs" / "vectors"
    exported = HatsCatalogue.open(folder / "classes" / "members").take(
        np.arange(GALAXIES), [tables.ID, tables.CLASS_ID]
    )
    labels = dict(zip(*(exported[name].to_pylist() for name in (tables.ID, tables.CLASS_ID)), strict=True))
    known = placed(folder / "search")
    assert labels == dict(zip(known[tables.ID], known[tables.CLASS_ID], strict=True))
    assert labels[IDS[-1]] >= Search.open(folder / "search").about["large"]["second_pass_from"]


@pytest.mark.slow
def test_the_same_command_given_twice_at_once_gives_one_result(found, store, tmp_path):
    command = [sys.executable, "cluster.py", f"store={store.folder}", f"out={tmp_path / 'search'}", *WORDS]
    runs = [subprocess.Popen([*command, "engine=local"]) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert placed(tmp_path / "search") == placed(found.folder)


@pytest.mark.slow
@pytest.mark.parametrize("begun", ["sample/ids/*.json", "sample/drawn/*.parquet", "placed/part-*.json"])
def test_a_worker_that_is_killed_while_shards_are_counted_drawn_or_placed_is_replaced(found, store, tmp_path, begun):
    out = tmp_path / "search"
    command = [sys.executable, "cluster.py", f"store={store.folder}", f"out={out}", *WORDS, "engine=dask"]
    run = subprocess.Popen([*command, "engine.workers=1"])
    while not list(out.glob(begun)) and run.poll() is None:
        time.sleep(0.01)
    for child in psutil.Process(run.pid).children(recursive=True):
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()
    assert run.wait() == 0
    assert placed(out) == placed(found.folder)


@pytest.mark.slow
def test_a_scheduler_that_is_killed_is_one_message_and_nothing_is_lost(found, store, tmp_path):
    out = tmp_path / "search"
    programs = [
        subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "18786", "--no-dashboard"]),
        subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", "tcp://127.0.0.1:18786", "--no-dashboard"]
        ),
    ]
    try:
        command = [sys.executable, "cluster.py", f"store={store.folder}", f"out={out}", *WORDS]
        run = subprocess.Popen(
            [*command, "engine=dask", "engine.address=tcp://127.0.0.1:18786"], stderr=subprocess.PIPE, text=True
        )
        while not list(out.glob("placed/part-*.json")) and run.poll() is None:
            time.sleep(0.01)
        programs[0].kill()
        message = run.communicate()[1]
        assert run.returncode == 2, message
        assert "scheduler of the Dask cluster is gone" in message
        assert "Traceback" not in message
    finally:
        for program in programs:
            program.kill()
            program.wait()
    subprocess.run([*command, "engine=local"], check=True)
    assert placed(out) == placed(found.folder)
