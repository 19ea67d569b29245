"""A user's own table and images: every kind of table, ids of every type, and a message for every mistake."""

import shutil
import sys
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from astropy.table import Table
from PIL import Image

from rarezoo.data.images import FolderImages
from rarezoo.data.survey import Galaxies, Survey, catalogue_table, open_survey
from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.data.trees import named_tree
from rarezoo.errors import ConfigError, DataError, MissingDependency
from rarezoo.runs import claim
from rarezoo.settings import _OPTIONS, setting

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
    opened = survey(home, "own.csv", id_column="objid", image_column="file", ra_column="RA").open()
    assert opened.ids.tolist() == ["001", "003"]
    assert opened.catalogue["ra"].to_pylist() == [1.0, 2.0]
    direct = survey(home).open()
    np.testing.assert_array_equal(opened.images.cutout(0), direct.images.cutout(2))


def test_ids_are_ints_in_one_table_and_strings_in_the_other(home):
    for name in ("001.jpg", "002.PNG", "003.jpeg"):
        path = home / "images" / name
        path.rename(path.with_name(name.lstrip("0")))
    pd.DataFrame({"id_str": [1, 2, 3]}).to_parquet(home / "ints.parquet")
    pd.DataFrame({"id_str": ["3", "1"], "smooth-or-featured_smooth": [7, 9]}).to_parquet(home / "votes.parquet")
    opened = survey(home, "ints.parquet", votes="desi", votes_table=str(home / "votes.parquet")).open()
    assert opened.votes[:, 0].tolist() == [9, 0, 7]


def test_vote_table_of_other_galaxies_is_refused(home):
    pd.DataFrame({"id_str": ["x"], "smooth-or-featured_smooth": [7]}).to_parquet(home / "votes.parquet")
    with pytest.raises(DataError, match=r"no id of .*votes.parquet"):
        survey(home, votes="desi", votes_table=str(home / "votes.parquet")).open()


def test_votes_of_few_of_the_galaxies_are_refused_or_accepted_on_request(home):
    """Votes and galaxies have 30 ids each, of which one is in both."""
    galaxies = ["001", *(f"g{row}" for row in range(29))]
    pd.DataFrame({"id_str": galaxies, "image": "001.jpg"}).to_csv(home / "many.csv", index=False)
    voted = ["001", *(f"v{row}" for row in range(29))]
    pd.DataFrame({"id_str": voted, "smooth-or-featured_smooth": 9}).to_csv(home / "votes.csv", index=False)
    settings = {"votes": "desi", "votes_table": str(home / "votes.csv")}
    with pytest.raises(DataError, match=r"only 1 of 30 ids.*data.least_matched"):
        survey(home, "many.csv", **settings).open()
    assert survey(home, "many.csv", least_matched=0.0, **settings).open().votes[:, 0].tolist() == [9, *[0] * 29]


def test_positions_of_the_table_become_those_of_the_galaxies(home):
    frame = pd.DataFrame(
        {"id_str": ["001", "002"], "RA": ["12:22:54.9", "-10"], " dec": [1.5, -2.0], "mag": [1.0, 2.0]}
    )
    frame.to_csv(home / "own.csv", index=False)
    catalogue = survey(home, "own.csv").open().catalogue
    assert catalogue["ra"].to_pylist() == pytest.approx([185.72875, 350.0], rel=1e-12)
    assert catalogue["dec"].to_pylist() == [1.5, -2.0]
    assert catalogue.column_names == ["id_str", "ra", "dec", "image", "survey", "split", "mag"]


def test_tar_and_hdf5_hold_the_same_images_as_the_folder(home):
    direct = survey(home).open()
    with tarfile.open(home / "images.tar", "w") as archive:
        archive.add(home / "images", arcname=".")
    with h5py.File(home / "images.h5", "w") as file:
        file["images"] = np.stack([direct.images.cutout(row) for row in range(3)])
        file["id_str"] = list(direct.ids)
    for images in ("images.tar", "images.h5"):
        np.testing.assert_array_equal(survey(home, images=images).open().images.cutout(1), direct.images.cutout(1))


def test_surveys_whose_ids_hold_a_newline_have_other_hashes():
    images = SimpleNamespace()
    hashes = {
        Galaxies(catalogue_table(ids, ["1", "2"], survey="own", source="own"), images).sha256
        for ids in (["a\nb", "c"], ["a", "b\nc"])
    }
    assert len(hashes) == 2


def test_recorded_settings_open_the_same_survey_from_another_folder(home, monkeypatch):
    monkeypatch.chdir(home)
    shutil.copy("galaxies.csv", "votes.csv")
    survey = Catalogue("galaxies.csv", images="images", votes="desi", votes_table="votes.csv")
    galaxies, recorded = survey.open(), survey.settings()
    monkeypatch.chdir("/")
    assert open_survey(recorded).open().sha256 == galaxies.sha256
    np.testing.assert_array_equal(galaxies.images.cutout(1), open_survey(recorded).open().images.cutout(1))


def test_an_own_question_tree_is_found_from_another_folder(home, monkeypatch):
    monkeypatch.chdir(home)
    (home / "own.yaml").write_text(yaml.safe_dump(named_tree("desi").to_dict()))
    recorded = Catalogue("galaxies.csv", images="images", votes="own.yaml").settings()
    monkeypatch.chdir("/")
    assert open_survey(recorded).open().votes.shape == (3, len(named_tree("desi").answers))


def test_opening_a_survey_changes_nothing_in_it(home, monkeypatch):
    monkeypatch.chdir(home)
    survey = Catalogue("galaxies.csv", images="images")
    before = asdict(survey)
    hashes = {survey.open().sha256 for _ in range(2)}
    assert asdict(survey) == before
    assert len(hashes) == 1


def test_a_run_claims_the_same_settings_twice(home, monkeypatch):
    """The folder of a run is claimed before the survey is opened, and again when the same object runs a second time."""
    monkeypatch.chdir(home)
    survey = Catalogue("galaxies.csv", images="images")
    for _ in range(2):
        claim(home / "run", verb="train", settings={"data": survey.settings(), "typed": asdict(survey)})
        survey.open()


def test_the_table_is_given_by_position_and_required(home):
    assert Catalogue("galaxies.csv", images="cutouts").table == "galaxies.csv"
    with pytest.raises(TypeError, match="table"):
        Catalogue(images="cutouts")
    with pytest.raises(TypeError, match="images"):
        Catalogue("galaxies.csv")


def test_columns_whose_names_are_taken_are_kept_under_another_name(home):
    frame = pd.DataFrame({"objid": ["001", "002"], "id_str": ["x", "y"], "split": ["a", "b"], "survey": ["s", "t"]})
    frame.to_csv(home / "own.csv", index=False)
    catalogue = survey(home, "own.csv", id_column="objid").open().catalogue
    kept = {name: catalogue[name].to_pylist() for name in catalogue.column_names if name.endswith("_given")}
    assert kept == {"id_str_given": ["x", "y"], "split_given": ["a", "b"], "survey_given": ["s", "t"]}


@pytest.mark.parametrize("settings", [{"on_bad_image": "drop"}, {"limit": -1}, {"votes_scale": -1.0}])
def test_wrong_settings_raise_when_the_survey_is_made(home, settings):
    with pytest.raises(ConfigError, match=f"data.{next(iter(settings))} .*{next(iter(settings.values()))}"):
        survey(home, **settings)


def test_a_missing_table_is_also_a_missing_file(home):
    with pytest.raises(FileNotFoundError):
        survey(home, "absent.csv").open()


def test_without_h5py_the_message_names_the_extra(home, monkeypatch):
    (home / "images.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependency, match=r"rarezoo\[hdf5\]"):
        survey(home, images="images.h5").open()


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
def test_mistakes_in_the_table_are_named(home, content, settings, message):
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
def test_missing_files_are_named(home, table, images, message):
    with pytest.raises(DataError, match=message):
        survey(home, table, images).open()


def test_broken_parquet_is_named(home):
    (home / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="unreadable table"):
        survey(home, "broken.parquet").open()


def test_another_package_adds_a_survey_by_an_entry_point(home, monkeypatch):
    @dataclass(kw_only=True)
    class Pairs(Survey):
        """Every galaxy of a folder twice."""

        folder: str = setting(help="folder of images")
        path_settings = ("folder",)

        def _read(self):
            names = sorted(path.name for path in Path(self.folder).iterdir()) * 2
            ids = [f"{row}" for row in range(len(names))]
            return Galaxies(
                catalogue=catalogue_table(ids, names, survey="pairs", source=self.folder),
                images=FolderImages(Path(self.folder), names, ids),
            )

    plugin = SimpleNamespace(name="pairs", value="theirs:Pairs", load=lambda: Pairs)
    monkeypatch.setattr("rarezoo.settings.entry_points", lambda group: [plugin] if group == "rarezoo.surveys" else [])
    monkeypatch.setitem(_OPTIONS, "data", dict(_OPTIONS["data"]))
    survey = open_survey({"option": "pairs", "folder": str(home / "images")})
    assert len(survey.open()) == 6
    assert open_survey(survey.settings()) == survey
