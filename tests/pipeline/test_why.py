"""cluster.py says why a class may be no discovery: planted causes are named, what votes know is told apart."""

import csv
import io
import tarfile

import hydra
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.special import logit, softmax

from rarezoo import cli as apps
from rarezoo import tables
from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.embeddings.store import EmbeddingStore, Manifest

pytestmark = pytest.mark.pipeline

GALAXIES, MEMBERS, WIDTH = 700, 60, 12
ANSWERS = (
    "smooth-or-featured-gz2_smooth", "smooth-or-featured-gz2_featured-or-disk", "smooth-or-featured-gz2_artifact",
    "disk-edge-on-gz2_yes", "disk-edge-on-gz2_no",
)  # fmt: skip
# Classes planted, in rows of MEMBERS each.
VOTED, HIDDEN, BLURRED, SHREDDED = range(4)
PLANTED = np.repeat([VOTED, HIDDEN, BLURRED, SHREDDED, -1], [MEMBERS] * 4 + [GALAXIES - 4 * MEMBERS])
IDS = [f"g{row:03d}" for row in range(GALAXIES)]
SEARCH = ["compress=none", "compress@drawing=pca", "drawing.n_components=2", "~preset", "clusterer.min_samples=15",
          "clusterer.min_cluster_size=20", "logger=none"]  # fmt: skip


def sky():
    """Embeddings and fractions: the first class is made by its answers, the others by what these do not know."""
    random = np.random.default_rng(0)
    kinds, secrets = random.normal(size=(GALAXIES, 3)), 0.5 * random.normal(size=(GALAXIES, 3))
    kinds[PLANTED == VOTED] = [3, 0, 2] + 0.1 * random.normal(size=(MEMBERS, 3))
    for label, centre in ((HIDDEN, [6, 0, 0]), (BLURRED, [0, 6, 0]), (SHREDDED, [0, 0, 6])):
        secrets[label == PLANTED] = centre + 0.3 * random.normal(size=(MEMBERS, 3))
    fractions = np.hstack([softmax(kinds * [1, 0.5, 0.3], axis=1), softmax(kinds[:, 1:], axis=1)])
    turned = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0]
    seen = np.tanh(logit(fractions) / 2) * 3
    embeddings = np.hstack([seen, secrets, 0.2 * random.normal(size=(GALAXIES, WIDTH - 8))]) @ turned
    return embeddings.astype(np.float32), fractions.astype(np.float32)


def survey(folder):
    """A catalogue whose third class has a broad PSF, and whose fourth is pieces of twenty galaxies; with its images."""
    random = np.random.default_rng(1)
    ra, dec, psf = random.uniform(0, 4, GALAXIES), random.uniform(-2, 2, GALAXIES), random.normal(1.2, 0.1, GALAXIES)
    psf[PLANTED == BLURRED] += 0.3
    pieces = np.flatnonzero(PLANTED == SHREDDED)
    ra[pieces], dec[pieces] = np.repeat(ra[pieces[:20]], 3), dec[pieces[0]] + np.arange(MEMBERS) // 3 * 0.05
    dec[pieces] += np.arange(MEMBERS) % 3 * 4 / 3600
    with (folder / "sky.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id_str", "ra", "dec", "psf"])
        writer.writerows(zip(IDS, ra, dec, psf, strict=True))
    image = io.BytesIO()
    Image.new("RGB", (16, 16), (90, 80, 70)).save(image, "PNG")
    with tarfile.open(folder / "images.tar", "w") as archive:
        for galaxy_id in IDS:
            member = tarfile.TarInfo(f"{galaxy_id}.png")
            member.size = len(image.getvalue())
            archive.addfile(member, io.BytesIO(image.getvalue()))
    return Catalogue(table=str(folder / "sky.csv"), images=str(folder / "images.tar"))


def store(folder, seen, *, embeddings, fractions, checkpoint):
    manifest = Manifest(
        survey="catalogue", survey_sha256=seen.open().sha256, survey_settings=seen.settings(),
        checkpoint=checkpoint, checkpoint_sha256=checkpoint, precision="float32", width=WIDTH, dtype="float32",
        rows=GALAXIES, shard_rows=1000, answers=ANSWERS,
    )  # fmt: skip
    EmbeddingStore.create(folder, manifest).write_shard(0, ids=IDS, embeddings=embeddings, fractions=fractions)


@pytest.fixture(scope="module")
def home(cli, tmp_path_factory):
    """Two networks' stores of one survey, the first of them searched."""
    folder = tmp_path_factory.mktemp("why")
    seen = survey(folder)
    embeddings, fractions = sky()
    store(folder / "store", seen, embeddings=embeddings, fractions=fractions, checkpoint="maxvit_tiny.test")
    edge_on = np.where(PLANTED[:, None] == VOTED, [0.2, 0.7, 0.1, 0.9, 0.1], [0.2, 0.7, 0.1, 0.1, 0.9])
    store(folder / "other", seen, embeddings=embeddings, fractions=edge_on, checkpoint="efficientnet_b0.test")
    cli("cluster.py", "store=store", *SEARCH, "out=found", cwd=folder)
    return folder


def classes(folder):
    """Planted class → row of CLASSES for the class found that holds most of it."""
    members = pq.read_table(folder / "members.parquet")
    place = {galaxy_id: row for row, galaxy_id in enumerate(IDS)}
    planted = PLANTED[[place[galaxy_id] for galaxy_id in members[tables.ID].to_pylist()]]
    rows = pq.read_table(folder / "classes.parquet").to_pylist()
    labels = members[tables.CLASS_ID].to_numpy()
    inside = {label: labels[(planted == label) & (labels >= 0)] for label in np.unique(planted[planted >= 0])}
    return {
        label: rows[np.bincount(class_ids).argmax()]
        for label, class_ids in inside.items()
        if len(class_ids) > MEMBERS / 2
    }


def test_every_planted_class_is_recognised(home):
    result = classes(home / "found")
    assert sorted(result) == [VOTED, HIDDEN, BLURRED, SHREDDED]
    verdicts = {label: row[tables.BEYOND_VERDICT] for label, row in result.items()}
    assert verdicts == {VOTED: "named by the votes", **dict.fromkeys((HIDDEN, BLURRED, SHREDDED), "beyond")}
    causes = {label: row[tables.CAUSE] for label, row in result.items()}
    assert causes == {VOTED: "clean", HIDDEN: "clean", BLURRED: "systematics", SHREDDED: "shredded"}
    assert "psf: median 1.5" in result[BLURRED][tables.CAUSE_REASON]
    page = (home / "found" / "report" / "index.html").read_text()
    assert page.count("Systematics: psf: median 1.5") == 1
    assert page.count("Shredded: neighbours: ") == 1


def test_the_terminal_tells_it_too(cli, home):
    out = cli("rarezoo", "classes", "list", "found", cwd=home).out
    assert "systematics (psf: median 1.5" in out
    assert "| beyond |" in out


def test_without_images_or_answers_less_is_measured(cli, home):
    cli("cluster.py", "store=store", *SEARCH, "images=false", "beyond=false", "out=blind", cwd=home)
    rows = classes(home / "blind").values()
    assert {row[tables.CAUSE] for row in rows} == {"clean"}
    assert all("declination" not in row[tables.CAUSE_REASON] for row in rows)
    assert {row[tables.BEYOND] for row in rows} == {None}


def test_the_papers_cuts_go_by_the_other_network(cli, home):
    paper = [*SEARCH, "select=paper_cuts"]
    refused = cli("cluster.py", "store=store", *paper, "out=own", cwd=home, expect=2)
    assert "efficientnet_b0" in refused.message
    assert "maxvit_tiny.test" in refused.message
    cli("cluster.py", "store=store", *paper, "select.fractions_from=other", "out=cut", cwd=home)
    members = pq.read_table(home / "cut" / "members.parquet")
    assert members[tables.ID].to_pylist() == IDS[MEMBERS:]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["out=x1", "systematics.columns=[seeing]"], "seeing. Choose among psf"),
        (["out=x2", "images=false", "systematics.columns=[psf]"], "catalogue"),
        (["out=x3", "clusterer.selection=lambda"], "clusterer.threshold"),
    ],
    ids=["a column that does not exist", "a column without a catalogue", "a selection without its threshold"],
)
def test_a_mistake_is_refused_before_the_search_begins(cli, home, words, named):
    assert named in cli("cluster.py", "store=store", *SEARCH, *words, cwd=home, expect=2).message


def test_another_threshold_is_read_from_the_saved_linkage(cli, home):
    words = ["clusterer.selection=lambda", "clusterer.threshold=0.35", "beyond=false", "reuse=found"]
    cli("cluster.py", "store=store", *SEARCH, *words, "out=cut-at-one-density", cwd=home)
    assert not (home / "cut-at-one-density" / "linkage.parquet").exists()
    result = classes(home / "cut-at-one-density")
    assert {label for label, row in result.items() if row[tables.CAUSE] != "clean"} == {BLURRED, SHREDDED}


@pytest.mark.parametrize(
    ("preset", "changed"),
    [
        ("paper", {}),
        ("paper_2d", {"compress.n_components": 2}),
        ("paper_15d", {"compress.n_components": 15}),
        ("paper_densmap", {"compress.densmap": True}),
        ("paper_eom", {"clusterer.selection": "eom"}),
        ("paper_artifacts", {"select.drop": 2}),
        ("paper_artifacts_uncut", {"select.drop": 0, "select.fractions_by": ""}),
    ],
)
def test_presets_change_one_thing_of_the_papers(preset, changed):
    apps.register()
    with hydra.initialize_config_dir(str(apps.conf_dir().resolve()), version_base="1.3"):
        config = hydra.compose("cluster", overrides=["store=somewhere", f"preset={preset}"])
    result = {
        "compress.n_components": config.compress.n_components, "compress.densmap": config.compress.densmap,
        "compress.n_neighbors": config.compress.n_neighbors, "clusterer.min_samples": config.clusterer.min_samples,
        "clusterer.min_cluster_size": config.clusterer.min_cluster_size,
        "clusterer.selection": config.clusterer.selection, "select.drop": len(config.select.drop),
        "select.fractions_by": config.select.fractions_by,
    }  # fmt: skip
    paper = {
        "compress.n_components": 5, "compress.densmap": False, "compress.n_neighbors": 50,
        "clusterer.min_samples": 300, "clusterer.min_cluster_size": 10, "clusterer.selection": "leaf",
        "select.drop": 3, "select.fractions_by": "efficientnet_b0",
    }  # fmt: skip
    assert result == {**paper, **changed}
    assert preset != "paper_artifacts" or "artifact" not in "".join(config.select.drop)
