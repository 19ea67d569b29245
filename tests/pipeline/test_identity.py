"""What a run was made from is known by content, not by path."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rarezoo import tables
from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.embeddings.embed import EmbedRun
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, DataError, OutputError, StoreError
from rarezoo.searches.assign import AssignRun
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.compressors.pca import Pca
from rarezoo.searches.decisions import search_key
from rarezoo.searches.result import Search
from rarezoo.searches.run import SearchRun
from rarezoo.searches.significance import Significance
from rarezoo.searches.stability import Stability
from rarezoo.track import Tracker
from rarezoo.training.fit import TrainRun
from rarezoo.training.module import TrainSettings
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0

pytestmark = pytest.mark.pipeline

GALAXIES, SHARD_ROWS, VECTORS = 24, 8, 220
TREE = "name: small\nquestions:\n- {name: bar, answers: [bar_yes, bar_no]}\n"


# --- a survey in a folder of its own: table, images, question tree


def write_survey(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    lines = ["id_str,bar_yes,bar_no"]
    for row in range(GALAXIES):
        pixels = np.random.default_rng(row).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        # Without compression every image has the same size.
        Image.fromarray(pixels).save(folder / "images" / f"g{row:02d}.bmp")
        lines.append(f"g{row:02d},{row % 7 + 1},{row % 3}")
    (folder / "galaxies.csv").write_text("\n".join(lines) + "\n")
    (folder / "tree.yaml").write_text(TREE)


def survey_in(folder: Path) -> Catalogue:
    return Catalogue(
        str(folder / "galaxies.csv"), images=str(folder / "images"), votes=str(folder / "tree.yaml"),
        group_duplicates=False, validation_share=0.3, test_share=0.2,
    )  # fmt: skip


def training(folder: Path, out: Path, *, start: str = "none") -> TrainRun:
    model = EfficientNetB0(input_size=64, bottleneck="4", start=start)
    settings = TrainSettings(epochs=1, batch_size=8, workers=0)
    return TrainRun(
        data=survey_in(folder), model=model, train=settings, logger=Tracker(mode="none"), out=str(out)
    )  # fmt: skip


def copied(folder: Path, target: Path) -> Path:
    """Copy a folder as ``cp -r`` does: the copies are new files with new times."""
    shutil.copytree(folder, target, copy_function=shutil.copyfile)
    return target


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A survey, a network trained on it from the weights of another one, and its store."""
    home = tmp_path_factory.mktemp("identity")
    write_survey(home / "sky")
    training(home / "sky", home / "first").run()
    training(home / "sky", home / "net", start=str(home / "first")).run()
    EmbedRun(
        data=survey_in(home / "sky"), checkpoint=str(home / "net"), out=str(home / "store"), workers=0,
        shard_rows=SHARD_ROWS,
    ).run()  # fmt: skip
    return home


@pytest.fixture
def world(home, tmp_path) -> Path:
    """A copy of it that a test may change."""
    return copied(home, tmp_path / "world")


def another_image(folder: Path, row: int) -> None:
    """Overwrite an image by another one of the same size in bytes."""
    path = folder / "images" / f"g{row:02d}.bmp"
    size = path.stat().st_size
    Image.new("RGB", (24, 24), (9, 99, 200)).save(path)
    assert path.stat().st_size == size


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# --- training


def test_a_training_is_known_again_wherever_its_inputs_lie(world, tmp_path):
    moved = world.rename(tmp_path / "elsewhere")
    (moved / "first").rename(moved / "renamed")
    before = (moved / "net" / "weights.safetensors").stat().st_mtime_ns
    training(moved / "sky", moved / "net", start=str(moved / "renamed")).run()
    assert (moved / "net" / "weights.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda sky: edited(sky / "galaxies.csv", "g03,4,0", "g03,4,1"), "survey.votes"),
        (lambda sky: edited(sky / "galaxies.csv", "g03,4,0\n", ""), "survey.ids"),
        (lambda sky: edited(sky / "tree.yaml", "name: bar,", "name: barred,"), "survey.question tree"),
        (lambda sky: another_image(sky, 5), "survey.images"),
        (lambda sky: shutil.copy(sky.parent / "net" / "weights.safetensors", sky.parent / "first"), "initial weights"),
    ],
)
def test_a_training_does_not_go_on_with_other_inputs(world, change, named):
    change(world / "sky")
    before = (world / "net" / "card.json").read_bytes()
    with pytest.raises(OutputError, match=rf"made from other inputs: .*{named} .* → .*out=DIR"):
        training(world / "sky", world / "net", start=str(world / "first")).run()
    assert (world / "net" / "card.json").read_bytes() == before


def test_before_a_training_has_a_state_its_inputs_may_change(world):
    table, out = world / "sky" / "galaxies.csv", world / "new"
    votes = table.read_text()
    table.write_text("id_str,bar_yes,bar_no\n" + "".join(f"g{row:02d},0,0\n" for row in range(GALAXIES)))
    with pytest.raises(DataError, match="no galaxy with votes"):
        training(world / "sky", out).run()
    table.write_text(votes)
    assert training(world / "sky", out).run().card["data"]["galaxies"] == GALAXIES


# --- embedding


def embedding(world: Path) -> EmbedRun:
    return EmbedRun(
        data=survey_in(world / "sky"), checkpoint=str(world / "net"), out=str(world / "store"), workers=0,
        shard_rows=SHARD_ROWS,
    )  # fmt: skip


def killed_before_the_last_shard(world: Path) -> Path:
    last = world / "store" / "shard-00002.parquet"
    last.unlink()
    return last


def test_a_killed_embedding_goes_on_with_the_same_images_elsewhere(world, tmp_path):
    killed_before_the_last_shard(world)
    whole = world.rename(tmp_path / "elsewhere")
    (whole / "net").rename(whole / "renamed")
    run = embedding(whole)
    run.checkpoint = str(whole / "renamed")
    assert len(run.run()) == GALAXIES


def test_a_killed_embedding_does_not_go_on_with_other_images(world):
    last = killed_before_the_last_shard(world)
    another_image(world / "sky", 3)
    with pytest.raises(StoreError, match=r"images have changed .* 1 of 3 shards.*shard-00000.parquet"):
        embedding(world).run()
    assert not last.exists()
    (world / "store" / "shard-00000.parquet").unlink()
    assert len(embedding(world).run()) == GALAXIES


def test_images_that_are_not_embedded_yet_may_change(world):
    killed_before_the_last_shard(world)
    another_image(world / "sky", 20)
    assert len(embedding(world).run()) == GALAXIES


@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_shard_that_a_power_failure_has_cut_off_is_embedded_again(world, kept):
    shard = world / "store" / "shard-00001.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(StoreError, match="1 of 3 shards missing or damaged"):
        EmbeddingStore.open(world / "store")
    assert list(embedding(world).run().ids) == [f"g{row:02d}" for row in range(GALAXIES)]


def test_a_store_finds_its_survey_after_both_were_moved(world, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        EmbedRun(
            data=Catalogue("sky/galaxies.csv", images="sky/images", votes="sky/tree.yaml"), checkpoint="net",
            out="relative", workers=0,
        ).run()  # fmt: skip
    assert len(EmbeddingStore.open(world / "relative").galaxies()) == GALAXIES
    moved = world.rename(tmp_path / "moved")
    galaxies = EmbeddingStore.open(moved / "relative").galaxies()
    assert galaxies.images.cutout(3).shape == (24, 24, 3)


# --- searches


def vectors(seed: int) -> np.ndarray:
    """Two tight groups of thirty among galaxies that are scattered; which ones, the seed decides."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(VECTORS, 6)) * 4
    values[:30] = 8 + random.normal(size=(30, 6)) / 4
    values[30:60] = -8 + random.normal(size=(30, 6)) / 4
    return np.roll(values, 5 * seed, axis=0).astype(np.float32)


IDS = [f"v{row:03d}" for row in range(VECTORS)]


def imported(folder: Path, *, seed: int = 0, name: str = "network_a") -> EmbeddingStore:
    """A store of vectors, which replaces the one that is there."""
    shutil.rmtree(folder, ignore_errors=True)
    return EmbeddingStore.from_array(IDS, vectors(seed), out=folder, name=name)


def searching(store: Path, out: Path, **settings) -> SearchRun:
    settings = {"significance": Significance(surveys=0), "stability": Stability(refits=0), **settings}
    return SearchRun(
        store=str(store), compress=Pca(n_components=3), drawing=Pca(n_components=2),
        clusterer=Hdbscan(min_samples=5, min_cluster_size=10, selection="leaf"), logger=Tracker(mode="none"),
        images=False, out=str(out), **settings,
    )  # fmt: skip


def unfinished(out: Path) -> None:
    (out / "run.json").unlink()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_finished_search_is_not_the_search_of_another_store_at_the_same_path(tmp_path, seed):
    store, out = tmp_path / "store", tmp_path / "search"
    imported(store)
    searching(store, out).run()
    imported(store, seed=seed, name="network_b")
    with pytest.raises(OutputError, match=r"made from other inputs: .*store\.checkpoint"):
        searching(store, out).run()
    with pytest.raises(StoreError, match="the store that was searched has changed"):
        _ = Search.open(out).store


def test_a_killed_search_does_not_go_on_with_the_map_of_another_network(tmp_path):
    store, out = tmp_path / "store", tmp_path / "search"
    imported(store)
    before = searching(store, out).run().table("members")
    unfinished(out)
    imported(store, seed=1)
    with pytest.raises(OutputError, match=r"made from other inputs: store\.embeddings"):
        searching(store, out).run()
    imported(store, seed=0)
    assert searching(store, out).run().table("members").equals(before)


def test_before_a_search_has_a_map_its_store_may_change(tmp_path):
    store, out = tmp_path / "store", tmp_path / "search"
    imported(store)
    searching(store, out).run()
    shutil.copy(out / "settings.json", tmp_path / "settings.json")
    shutil.rmtree(out)
    out.mkdir()
    shutil.move(tmp_path / "settings.json", out / "settings.json")
    imported(store, seed=1)
    assert searching(store, out).run().store.identity == EmbeddingStore.open(store).identity


def test_a_search_does_not_reuse_the_map_of_another_network(tmp_path):
    imported(tmp_path / "a")
    imported(tmp_path / "b", seed=1)
    searching(tmp_path / "a", tmp_path / "search_a").run()
    with pytest.raises(ConfigError, match=r"map of reuse= was made from other embeddings.*search_a"):
        searching(tmp_path / "b", tmp_path / "search_b", reuse=str(tmp_path / "search_a")).run()
    shutil.copytree(tmp_path / "a", tmp_path / "same")
    searching(tmp_path / "same", tmp_path / "again", reuse=str(tmp_path / "search_a")).run()
    assert (tmp_path / "again" / "run.json").exists()


def test_a_search_that_has_its_map_already_reuses_no_null_surveys_of_another_network(tmp_path):
    imported(tmp_path / "a")
    imported(tmp_path / "b", seed=1)
    null = {"significance": Significance(surveys=5)}
    searching(tmp_path / "b", tmp_path / "search_b", **null).run()
    alone = searching(tmp_path / "a", tmp_path / "alone", **null).run()
    searching(tmp_path / "a", tmp_path / "search_a", **null).run()
    unfinished(tmp_path / "search_a")
    shutil.rmtree(tmp_path / "search_a" / "null_surveys")
    shutil.rmtree(tmp_path / "search_a" / "drawn_map")
    with pytest.raises(ConfigError, match="map of reuse= was made from other embeddings"):
        searching(tmp_path / "a", tmp_path / "search_a", reuse=str(tmp_path / "search_b"), **null).run()
    search = searching(tmp_path / "a", tmp_path / "search_a", **null).run()
    assert search.table("classes")["significance"].equals(alone.table("classes")["significance"])


def test_a_copied_or_renamed_search_is_the_same_search(tmp_path):
    imported(tmp_path / "tree" / "store")
    searching(tmp_path / "tree" / "store", tmp_path / "tree" / "search").run()
    moved = (tmp_path / "tree").rename(tmp_path / "moved")
    assert len(Search.open(moved / "search").store) == VECTORS
    (moved / "store").rename(moved / "renamed")
    result = searching(moved / "renamed", moved / "search").run()
    assert result.store.folder == moved / "renamed"
    assert Search.open(moved / "search").store.folder == moved / "renamed"
    copy = copied(moved, tmp_path / "copy")
    shutil.rmtree(moved)
    assert Search.open(copy / "search").store.folder.resolve() == (copy / "renamed").resolve()
    assert searching(copy / "renamed", copy / "search").run().store.folder == copy / "renamed"


def with_previous(home: Path, seed: int) -> dict:
    """An earlier search whose classes depend on the seed."""
    shutil.rmtree(home / "other", ignore_errors=True)
    searching(imported(home / "earlier", seed=seed).folder, home / "other").run()
    return {"previous": str(home / "other")}


def with_decisions(home: Path, seed: int) -> dict:
    members = searching(home / "store", home / "undecided").run().table("members")
    key = search_key(members["id_str"].to_pylist(), members["class_id"].to_numpy())
    content = {"rarezoo": "decisions", "schema": 1, "search": key, "classes": [{"class_id": 0, "name": f"seed {seed}"}]}
    (home / "decisions.json").write_text(json.dumps(content))
    return {"decisions": str(home / "decisions.json")}


def with_null_store(home: Path, seed: int) -> dict:
    other = str(imported(home / "other", seed=seed + 2, name="another_network").folder)
    return {"significance": Significance(surveys=5, kind="store", store=other)}


def with_another_network(home: Path, seed: int) -> dict:
    other = str(imported(home / "other", seed=seed + 2, name="another_network").folder)
    return {"stability": Stability(refits=0, stores=[other])}


@pytest.mark.parametrize("another", [with_previous, with_decisions, with_null_store, with_another_network])
def test_every_input_of_a_search_counts_by_its_content(tmp_path, another):
    store, out = imported(tmp_path / "store").folder, tmp_path / "search"
    searching(store, out, **another(tmp_path, 0)).run()
    unfinished(out)
    with pytest.raises(OutputError, match="made from other inputs"):
        searching(store, out, **another(tmp_path, 3)).run()
    searching(store, out, **another(tmp_path, 0)).run()


def test_an_assignment_does_not_go_on_with_another_store_or_search(tmp_path):
    imported(tmp_path / "store")
    imported(tmp_path / "more", seed=5)
    searching(tmp_path / "store", tmp_path / "search").run()

    def job():
        return AssignRun(
            search=str(tmp_path / "search"), store=str(tmp_path / "more"), out=str(tmp_path / "out"), level=1.0
        )

    before = job().run().table
    shutil.move(tmp_path / "more", tmp_path / "renamed")
    shutil.copytree(tmp_path / "renamed", tmp_path / "more")
    assert job().run().table.equals(before)
    imported(tmp_path / "more", seed=6)
    with pytest.raises(OutputError, match=r"made from other inputs: store\.embeddings"):
        job().run()


# --- files that a power failure has left empty or cut off


@pytest.mark.parametrize("kept", [0, 0.5])
@pytest.mark.parametrize(
    "name",
    ["run.json", "fitted_map/map.json", "fitted_map/map.parquet", "fitted_map/state.npz", "linkage.parquet",
     "drawn_map/map.json", "drawn_map/state.npz", "classes.parquet", "members.parquet"],
)  # fmt: skip
def test_a_file_of_a_search_that_was_cut_off_is_made_again(tmp_path, name, kept):
    imported(tmp_path / "store")
    out = tmp_path / "search"
    members = searching(tmp_path / "store", out).run().table("members")
    if name != "run.json":
        unfinished(out)
    content = (out / name).read_bytes()
    (out / name).write_bytes(content[: int(kept * len(content))])
    again = searching(tmp_path / "store", out).run()
    assert again.table("members").equals(members)
    assert Search.open(out).table("members").equals(tables.check(members, tables.MEMBERS))


def test_a_search_whose_record_of_settings_was_deleted_is_not_taken_for_another_one(tmp_path):
    imported(tmp_path / "store")
    out = tmp_path / "search"
    searching(tmp_path / "store", out).run()
    (out / "settings.json").unlink()
    imported(tmp_path / "store", seed=1)
    with pytest.raises(OutputError, match=r"made from other inputs: store\.embeddings"):
        searching(tmp_path / "store", out).run()


@pytest.mark.parametrize("kept", [0, 0.5])
@pytest.mark.parametrize("part", ["map.json", "map.parquet", "state.npz", "linkage.parquet"])
def test_a_damaged_file_in_the_cache_is_made_again(tmp_path, part, kept):
    imported(tmp_path / "store")
    cache = str(tmp_path / "cache")
    members = searching(tmp_path / "store", tmp_path / "a", cache=cache).run().table("members")
    damaged = [path for path in (tmp_path / "cache").rglob(part)]
    assert damaged
    for path in damaged:
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content))])
    assert searching(tmp_path / "store", tmp_path / "b", cache=cache).run().table("members").equals(members)


@pytest.mark.parametrize("content", ["", '{"verb": "clus', "{}"])
def test_a_damaged_record_of_settings_is_one_message_that_says_what_to_delete(tmp_path, content):
    imported(tmp_path / "store")
    out = tmp_path / "search"
    searching(tmp_path / "store", out).run()
    (out / "settings.json").write_text(content)
    with pytest.raises(OutputError, match=r"cannot be known .* damaged file .*settings.json.* delete that folder"):
        searching(tmp_path / "store", out).run()
    for path in out.iterdir():
        if path.name != "settings.json":
            shutil.rmtree(path) if path.is_dir() else os.unlink(path)
    searching(tmp_path / "store", out).run()
