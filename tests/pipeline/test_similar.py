"""``rarezoo similar`` on mock galaxies: examples, an image of one's own, filters, and a search with cuts."""

import numpy as np
import pytest
from PIL import Image

from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.compressors.pca import Pca
from rarezoo.searches.result import Search
from rarezoo.searches.run import SearchRun
from rarezoo.searches.select import Select
from rarezoo.searches.significance import Significance

pytestmark = pytest.mark.pipeline


def ids_in(text):
    """Ids in the table that a terminal shows."""
    return [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("| ")][2:]


@pytest.fixture(scope="module")
def store(tiny_store):
    return EmbeddingStore.open(tiny_store)


@pytest.fixture
def cutout(tiny_survey, tmp_path):
    """The image of the eighth mock galaxy as a file, and its id."""
    galaxies = tiny_survey.mock().open()
    Image.fromarray(galaxies.images.cutout(7)).save(tmp_path / "mine.png")
    return tmp_path / "mine.png", str(galaxies.ids[7])


def test_galaxies_of_a_search_come_with_their_classes_and_pictures(cli, tiny_search, tmp_path):
    search = Search.open(tiny_search)
    galaxy = str(search.ids[3])
    frame = search.similar(galaxy, k=6)
    assert {"id_str", "score", "rank", "ra", "dec", "class_id"} <= set(frame)
    classes = dict(zip(search.ids, search.labels, strict=True))
    assert frame["class_id"].tolist() == [classes[other] for other in frame["id_str"]]
    assert frame["score"].is_monotonic_decreasing
    done = cli("rarezoo", "similar", tiny_search, f"id={galaxy}", "k=6", "out=page", cwd=tmp_path)
    assert done.out.splitlines()[-1] == "page/index.html"
    page = (tmp_path / "page" / "index.html").read_text()
    assert all(f". {other}</h3>" in page for other in frame["id_str"])
    assert "legacysurvey.org/viewer?ra=" in page


def test_a_class_of_the_search_is_a_filter(cli, tiny_search, tmp_path):
    search = Search.open(tiny_search)
    galaxy = str(search.ids[np.flatnonzero(search.labels < 0)[0]])
    inside = set(search.ids[search.labels < 0]) - {galaxy}
    words = [f"id={galaxy}", "classes=-1", "k=5", "identical=false", "apart=0", "out=found.csv"]
    cli("rarezoo", "similar", tiny_search, *words, cwd=tmp_path)
    found = [line.split(",")[0].strip('"') for line in (tmp_path / "found.csv").read_text().splitlines()[1:]]
    assert len(found) == 5
    assert set(found) <= inside
    refused = cli("rarezoo", "similar", tiny_search, f"id={galaxy}", "classes=999", cwd=tmp_path, expect=2)
    assert "has no class: 999" in refused.message


def test_a_position_on_the_command_line_is_a_galaxy(cli, store, tmp_path):
    ra, dec = (store.galaxies().catalogue.column(name)[5].as_py() for name in ("ra", "dec"))
    done = cli("rarezoo", "similar", store.folder, f"id={ra:.5f},{dec:.5f}", "k=3", "out=a.csv", cwd=tmp_path)
    assert f"is taken for {store.ids[5]}" in done.out
    away = cli("rarezoo", "similar", store.folder, "id=0.5 -89.5", cwd=tmp_path, expect=2)
    assert "The nearest is" in away.message


def test_an_image_of_ones_own_is_embedded_as_the_survey_was(cli, store, cutout, tiny_checkpoint, tmp_path):
    file, galaxy = cutout
    words = [f"image={file}", f"checkpoint={tiny_checkpoint}", "k=5", "out=page"]
    done = cli("rarezoo", "similar", store.folder, *words, cwd=tmp_path)
    page = (tmp_path / "page" / "index.html").read_text()
    assert f"1. {galaxy}</h3>" in page
    first = (tmp_path / "page" / "similar.csv").read_text().splitlines()[1].split(",")
    assert float(first[1]) == pytest.approx(1, abs=1e-3)
    assert "Warning" not in done.text
    assert (tmp_path / "page" / "images" / "examples.jpg").exists()
    frame = store.similar(file, k=4, checkpoint=str(tiny_checkpoint))
    assert frame["id_str"][0] == galaxy
    with_others = [f"id={galaxy},{store.ids[9]}", f"image={file}", f"checkpoint={tiny_checkpoint}", "k=3", "out=b.csv"]
    assert "3 examples" in cli("rarezoo", "similar", store.folder, *with_others, cwd=tmp_path).out


def test_what_is_no_image_or_has_no_network_is_one_message(cli, store, cutout, two_networks, tmp_path):
    file, _ = cutout
    (tmp_path / "letter.png").write_text("Dear all,")
    Image.fromarray(np.zeros((40, 40), dtype=np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(50))

    def message(*words):
        return cli("rarezoo", "similar", store.folder, *words, cwd=tmp_path, expect=2).message

    assert "this file is no image that can be read" in message("image=letter.png")
    assert "this file is no image that can be read" in message("image=cut.jpg")
    assert "an image without a scale" in message("image=float.tif")
    assert "no such image file: none.png" in message("image=none.png")
    assert "network that embedded this store is not here" in message(f"image={file}", "checkpoint=nowhere")
    other = message(f"image={file}", f"checkpoint={two_networks / 'net-a'}")
    assert "not the network that embedded the store" in other
    assert "checkpoint=DIR" in other


def test_an_image_unlike_every_galaxy_is_warned_of(cli, store, tiny_checkpoint, tmp_path):
    striped = np.zeros((48, 48, 3), dtype=np.uint8)
    striped[::2] = 255
    Image.fromarray(striped).save(tmp_path / "stripes.png")
    words = ["image=stripes.png", f"checkpoint={tiny_checkpoint}", "k=3", "out=page"]
    done = cli("rarezoo", "similar", store.folder, *words, cwd=tmp_path)
    assert "No galaxy of this survey looks like it" in done.out
    assert "No galaxy of this survey looks like it" in (tmp_path / "page" / "index.html").read_text()


def test_words_rank_by_the_answers_of_the_network(cli, store, tmp_path):
    done = cli(
        "rarezoo", "similar", store.folder, "words=smoth, round, with dust lanes", "k=4", "out=a.csv", cwd=tmp_path
    )
    assert "Read smoth as smooth." in done.out
    assert "no answer for: dust lane" in done.out
    table = store.read(["smooth-or-featured_smooth_fraction", "how-rounded_round_fraction"]).to_pandas().prod(axis=1)
    found = [line.split(",")[0].strip('"') for line in (tmp_path / "a.csv").read_text().splitlines()[1:]]
    assert found[0] == store.ids[int(table.argmax())]


def test_a_search_with_cuts_finds_only_what_it_searched(tmp_path):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(150, 6)).astype(np.float32)
    store = EmbeddingStore.from_array(
        [f"g{row}" for row in range(150)], vectors, out=tmp_path / "store", name="net",
        fractions={"bar_yes": np.linspace(0, 1, 150)},
    )  # fmt: skip
    search = SearchRun(
        store=str(store.folder), select=Select(drop=["bar_yes_fraction > 0.5"]), compress=Pca(n_components=2),
        drawing=Pca(n_components=2), clusterer=Hdbscan(min_samples=5, min_cluster_size=10, selection="leaf"),
        significance=Significance(surveys=0), out=str(tmp_path / "search"),
    ).run()  # fmt: skip
    searched = set(search.ids)
    assert len(searched) == 75
    frame = search.similar("g149", k=75)
    assert set(frame["id_str"]) == searched
    whole = store.similar("g149", k=149)
    expected = [galaxy for galaxy in whole["id_str"] if galaxy in searched]
    assert frame["id_str"].tolist() == expected


def test_torch_is_imported_only_for_an_image(start_process, ended, store, tmp_path):
    code = (
        "import sys; from rarezoo.embeddings.store import EmbeddingStore; "
        f"store = EmbeddingStore.open({str(store.folder)!r}); store.similar(str(store.ids[0]), k=3); "
        "import rarezoo.explore.similar_command, rarezoo.explore.own_image, rarezoo.explore.words; "
        "print('torch' in sys.modules)"
    )
    assert ended(start_process("-c", code, cwd=tmp_path)).out.strip().endswith("False")
