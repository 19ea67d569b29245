"""The command for similar galaxies: what it shows, writes and refuses."""

import csv
import shutil

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.votable import parse_single_table

from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, OutputError
from rarezoo.explore.labels import Labels, Rating
from rarezoo.explore.similar_command import SimilarRun

pytestmark = pytest.mark.unit


def run(store, **settings):
    return SimilarRun(search_or_store=str(store.folder), **settings).run()


def ids_in(text):
    """Ids in the table that a terminal shows."""
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    return [row[2].strip() for row in rows[2:]]


def ids_of(path):
    with path.open(newline="") as stream:
        return [row["id_str"] for row in csv.DictReader(stream)]


@pytest.fixture
def own_sky(sky, tmp_path):
    """A copy of the store of the small sky, beside which a test may write."""
    shutil.copytree(sky.folder, tmp_path / "own")
    return EmbeddingStore.open(tmp_path / "own")


def test_without_a_file_a_table_is_shown_and_a_page_written(own_sky):
    text = run(own_sky, id="g0", k=3)
    assert ids_in(text) == own_sky.similar("g0", k=3)["id_str"].tolist()
    assert "1 example, 1 entry within 1.7 arcmin of an example" in text or "entries within" in text
    page = own_sky.folder / "similar"
    (index,) = page.glob("g0-*/index.html")
    assert text.splitlines()[-1] == str(index)
    assert ids_of(index.with_name("similar.csv")) == ids_in(text)


def test_without_images_only_a_table_is_shown(plain_store):
    text = run(plain_store, id="J0001", k=3)
    assert len(ids_in(text)) == 3
    assert not (plain_store.folder / "similar").exists()
    assert "Positions on the sky are not known" in text


def test_the_page_shows_the_query_the_galaxies_and_what_was_left_out(sky, tmp_path):
    text = run(sky, id="g0,g2", k=11, out=str(tmp_path / "page"))
    page = (tmp_path / "page" / "index.html").read_text()
    assert text.splitlines()[-1] == str(tmp_path / "page" / "index.html")
    for galaxy in ids_of(tmp_path / "page" / "similar.csv"):
        assert f". {galaxy}</h3>" in page
    assert "<h3>g0</h3>" in page
    assert "within 1.7 arcmin of g0" in page
    assert "near-identical image of g2" in page
    assert "https://www.legacysurvey.org/viewer?ra=15.000000&amp;dec=2.500000" in page
    assert "simbad.cds.unistra.fr" in page
    assert {path.name for path in (tmp_path / "page" / "images").iterdir()} == {"examples.jpg", "galaxies.jpg"}


def test_a_page_is_written_again_into_its_folder_but_not_into_another_one(sky, tmp_path):
    run(sky, id="g0", k=2, out=str(tmp_path / "page"))
    run(sky, id="g5", k=2, out=str(tmp_path / "page"))
    assert "<h3>g5</h3>" in (tmp_path / "page" / "index.html").read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(OutputError, match="holds something else"):
        run(sky, id="g0", out=str(tmp_path / "other"))
    with pytest.raises(OutputError, match="output path is a file"):
        run(sky, id="g0", out=str(tmp_path / "other" / "thesis.tex"), format="page")
    with pytest.raises(OutputError, match="output path is a folder"):
        run(sky, id="g0", out=str(tmp_path / "other"), format="fits")


@pytest.mark.parametrize(("name", "format"), [("a.csv", ""), ("a.fits", ""), ("a.vot", ""), ("table", "fits")])
def test_files_of_other_tools_hold_the_same_galaxies(sky, tmp_path, name, format):
    run(sky, id="g0", k=10, out=str(tmp_path / name), format=format)
    expected = sky.similar("g0", k=10)
    path = tmp_path / name
    if name.endswith("csv"):
        assert ids_of(path) == expected["id_str"].tolist()
        return
    if name.endswith("vot"):
        table = parse_single_table(path)
        rows, unit = table.to_table(), str(table.get_field_by_id_or_name("distance_arcsec").unit)
        assert table.get_field_by_id_or_name("score").ucd == "stat.value"
    else:
        with fits.open(path) as file:
            rows, unit = file[1].data.copy(), file[1].columns["distance_arcsec"].unit
            assert file[1].header["RANKING"].startswith("probe: cosine with the example")
    assert [str(galaxy).strip() for galaxy in rows["id_str"]] == expected["id_str"].tolist()
    assert unit == "arcsec"
    np.testing.assert_allclose(np.asarray(rows["score"]), expected["score"])
    np.testing.assert_allclose(np.ma.filled(rows["ra"], np.nan), expected["ra"])


def test_ids_of_any_text_are_shown_as_they_are(tmp_path):
    ids = ["<b>a</b>", 'x", "y', "e\u0301 ", "=1+1"]
    store = EmbeddingStore.from_array(ids, np.eye(4, dtype=np.float32), out=tmp_path / "store", name="net")
    names = list(map(str, store.ids))
    run(store, id=names[3], out=str(tmp_path / "page"))
    page = (tmp_path / "page" / "index.html").read_text()
    assert "<b>a</b>" not in page
    assert "&lt;b&gt;a&lt;/b&gt;" in page
    assert sorted([*ids_of(tmp_path / "page" / "similar.csv"), names[3]]) == sorted(names)


def test_words_rank_by_predicted_fractions_and_say_what_was_understood(sky):
    text = run(sky, words="strongly barred, with a halo", k=3)
    assert ids_in(text) == ["g15", "g13", "g12"]
    assert "Understood: strongly barred = bar_strong." in text
    assert "Not understood, and not used: halo." in text
    assert "`bar_strong_fraction`" in text


@pytest.fixture
def rate(own_sky):
    """Rate galaxies of the small sky in the database beside its store."""

    def rated(label, **values):
        with Labels.of(own_sky) as labels:
            labels.add([Rating(galaxy, label, value, "tag", "ann") for galaxy, value in values.items()])

    return rated


def test_a_tag_of_several_galaxies_is_looked_for_by_a_probe(own_sky, rate):
    rate("ring", g0=1, g4=1, g5=0)
    text = run(own_sky, tag="ring", k=4)
    assert "probe" in text
    assert "the mean direction of 2 examples, less 0.2 × the counter-example" in text
    assert not {"g0", "g4", "g5"} & set(ids_in(text))


def test_a_tag_of_one_galaxy_is_looked_for_by_similarity(own_sky, rate):
    rate("ring", g4=1, g5=0)
    text = run(own_sky, tag="ring", k=3)
    assert "less 0.2 × the counter-example" in text
    assert ids_in(text) == own_sky.similar("g4", k=3, against="g5")["id_str"].tolist()
    by_cosine = run(own_sky, tag="ring", k=3, by="cosine")
    expected = [galaxy for galaxy in own_sky.similar("g4", k=6, by="cosine")["id_str"] if galaxy != "g5"]
    assert ids_in(by_cosine) == expected[:3]


def test_a_tag_that_nobody_gave_is_refused_with_those_that_there_are(own_sky, rate):
    rate("ring", g4=1)
    with pytest.raises(ConfigError, match=r"no galaxy has this tag: rnig. Tags and other labels are: ring"):
        run(own_sky, tag="rnig")


def test_a_survey_without_ratings_has_no_tags(own_sky):
    with pytest.raises(FileNotFoundError, match="ratings"):
        run(own_sky, tag="ring")
    assert not (own_sky.folder / "labels.sqlite").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing to look for"),
        ({"id": " "}, "nothing to look for"),
        ({"id": ", ,"}, "nothing to look for"),
        ({"id": "g0", "words": "smooth"}, "only one of these.*words=, id="),
        ({"words": "smooth", "against": "g0"}, "cannot be combined with words="),
        ({"id": "g0", "format": "fits"}, "format=fits needs a file"),
        ({"id": "g0", "k": 0}, "k must be at least 1"),
        ({"id": "g0", "by": "magic"}, "by has no such choice: magic"),
        ({"id": "g0", "apart": -1}, "apart must be at least 0"),
        ({"id": "g0", "format": "xls"}, "format has no such choice"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        SimilarRun(search_or_store="runs/mine", **settings)


def test_words_need_predicted_fractions(plain_store):
    with pytest.raises(ConfigError, match="no predicted fractions"):
        run(plain_store, words="smooth")


@pytest.mark.parametrize("settings", [{"image": "page.png"}, {"id": "page.png"}])
def test_an_image_needs_a_store_that_rarezoo_embedded(sky, tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.png").write_bytes(sky.survey().open().images.content(0))
    with pytest.raises(ConfigError, match=r"embeddings of this store were imported.*: net"):
        run(sky, **settings)


def test_an_image_that_does_not_exist_is_refused(sky):
    with pytest.raises(ConfigError, match=r"no such image file: gone\.png"):
        run(sky, image="gone.png")


def test_a_file_of_something_else_is_not_replaced(own_sky, tmp_path):
    (tmp_path / "catalogue.csv").write_text("id_str,magnitude\ng0,17\n")
    with pytest.raises(OutputError, match=r"another file is there already: .*catalogue\.csv"):
        run(own_sky, id="g0", k=3, out=str(tmp_path / "catalogue.csv"))
    assert (tmp_path / "catalogue.csv").read_text() == "id_str,magnitude\ng0,17\n"
    for k in (3, 2):
        run(own_sky, id="g0", k=k, out=str(tmp_path / "like_g0.csv"))
        assert len(ids_of(tmp_path / "like_g0.csv")) == k
