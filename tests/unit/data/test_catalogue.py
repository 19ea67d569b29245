"""A user's own table and images: every kind of table, ids of every type, and a message for every mistake."""

import tarfile

import h5py
import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from PIL import Image

from rarezoo.data.survey import open_survey
from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.errors import DataError

pytestmark = pytest.mark.unit
ROWS = {"id_str": ["001", "002", "003"], "ra": [10.0, 20.0, 30.0], "dec": [-1.0, 0.0, 1.0], "mag": [17.5, 18.0, np.nan]}
VOTES = {"smooth-or-featured_smooth": [30, 2, 0], "smooth-or-featured_featured-or-disk": [5, 33, 0]}


@pytest.fixture
def home(tmp_path):
    """images/001.jpg, 002.PNG, 003.jpeg and a table galaxies.csv."""
    (tmp_path / "images").mkdir()
    for index, name in enumerate(["001.jpg", "002.PNG", "003.jpeg"]):
        pixels = np.random.default_rng(index).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    pd.DataFrame({**ROWS, **VOTES}).to_csv(tmp_path / "galaxies.csv", index=False)
    return tmp_path


def survey(home, table="galaxies.csv", images="images", **settings):
    return Catalogue(table=str(home / table), images=str(home / images), **settings)


def write_table(home, kind):
    frame = pd.DataFrame({**ROWS, **VOTES})
    path = home / f"galaxies{kind}"
    if kind == ".parquet":
        frame.set_index("mag", drop=False).to_parquet(path)
    elif kind == ".csv.gz":
        frame.to_csv(path, index=False)
    else:
        formats = {".fits": "fits", ".vot": "votable", ".ecsv": "ascii.ecsv"}
        Table.from_pandas(frame).write(path, format=formats[kind])
    return path.name


@pytest.mark.parametrize("kind", [".parquet", ".csv.gz", ".fits", ".vot", ".ecsv"])
def test_every_kind_of_table_gives_the_same_galaxies(home, kind):
    galaxies = survey(home, write_table(home, kind), votes="desi").open()
    assert galaxies.ids.tolist() == ["001", "002", "003"]
    assert galaxies.catalogue["ra"].to_pylist() == [10.0, 20.0, 30.0]
    assert "mag" in galaxies.catalogue.column_names
    assert galaxies.votes[:, :2].tolist() == [[30, 5], [2, 33], [0, 0]]
    assert galaxies.images.cutout(1).shape == (20, 20, 3)


def test_leading_zeros_survive_csv_and_columns_can_be_named(home):
    frame = pd.DataFrame({"objid": ["001", "003"], "file": ["003.jpeg", "001.jpg"], "RA": [1, 2]})
    frame.to_csv(home / "own.csv", index=False)
    found = survey(home, "own.csv", id_column="objid", image_column="file", ra_column="RA").open()
    assert found.ids.tolist() == ["001", "003"]
    assert found.catalogue["ra"].to_pylist() == [1.0, 2.0]
    direct = survey(home).open()
    np.testing.assert_array_equal(found.images.cutout(0), direct.images.cutout(2))


def test_ids_are_ints_in_one_table_and_strings_in_the_other(home):
    for name in ("001.jpg", "002.PNG", "003.jpeg"):
        path = home / "images" / name
        path.rename(path.with_name(name.lstrip("0")))
    pd.DataFrame({"id_str": [1, 2, 3]}).to_parquet(home / "ints.parquet")
    pd.DataFrame({"id_str": ["3", "1"], "smooth-or-featured_smooth": [7, 9]}).to_parquet(home / "votes.parquet")
    found = survey(home, "ints.parquet", votes="desi", votes_table=str(home / "votes.parquet")).open()
    assert found.votes[:, 0].tolist() == [9, 0, 7]


def test_vote_table_of_other_galaxies_is_refused(home):
    pd.DataFrame({"id_str": ["x"], "smooth-or-featured_smooth": [7]}).to_parquet(home / "votes.parquet")
    with pytest.raises(DataError, match=r"no id of .*votes.parquet"):
        survey(home, votes="desi", votes_table=str(home / "votes.parquet")).open()


def test_tar_and_hdf5_hold_the_same_images_as_the_folder(home):
    direct = survey(home).open()
    with tarfile.open(home / "images.tar", "w") as archive:
        archive.add(home / "images", arcname=".")
    with h5py.File(home / "images.h5", "w") as file:
        file["images"] = np.stack([direct.images.cutout(row) for row in range(3)])
        file["id_str"] = list(direct.ids)
    for images in ("images.tar", "images.h5"):
        np.testing.assert_array_equal(survey(home, images=images).open().images.cutout(1), direct.images.cutout(1))


def test_recorded_settings_open_the_same_survey_again(home, monkeypatch):
    monkeypatch.chdir(home)
    first = Catalogue(table="galaxies.csv", images="images")
    galaxies = first.open()
    monkeypatch.chdir("/")
    assert open_survey(first.settings()).open().sha256 == galaxies.sha256


def test_missing_images_are_named_before_the_work_begins(home):
    (home / "images" / "002.PNG").unlink()
    with pytest.raises(DataError, match=r"1 galaxies have no image.*galaxies 002.*on_bad_image=skip"):
        survey(home).open()
    skipping = survey(home, on_bad_image="skip").open()
    with pytest.raises(DataError, match="unreadable image"):
        skipping.images.cutout(1)


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("", {}, "catalogue is empty"),
        ("id_str\n", {}, "catalogue is empty"),
        ("id_str\n001\n002\n001\n", {}, r"more than once.*galaxies 001"),
        ("id_str,ra\n001,1\n,2\n", {}, "rows without an id"),
        ("name\n001\n", {}, r"no column: id_str.*there are: name"),
        ("id_str\n001\n", {"image_column": "file"}, "no column: file"),
        ("id_str,bar_maybe\n001,3\n", {"votes": "desi"}, "no column of tree desi"),
        ("id_str,bar_no,bar_maybe\n001,3,1\n", {"votes": "desi"}, "tree desi lacks: bar_maybe"),
    ],
)
def test_mistakes_in_the_table_are_told(home, content, settings, message):
    (home / "bad.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        survey(home, "bad.csv", **settings).open()


@pytest.mark.parametrize(
    ("table", "images", "message"),
    [
        ("absent.csv", "images", "no such table"),
        ("images/001.jpg", "images", "unknown kind of table"),
        ("galaxies.csv", "pictures", "no images"),
    ],
)
def test_missing_files_are_told(home, table, images, message):
    with pytest.raises(DataError, match=message):
        survey(home, table, images).open()


def test_broken_parquet_is_told(home):
    (home / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="unreadable table"):
        survey(home, "broken.parquet").open()
