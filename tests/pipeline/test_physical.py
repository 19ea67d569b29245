"""``rarezoo physical``: from a search and a catalogue to cards on the pages of classes and a table for a paper."""

import re

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from made_up import survey_on_disk

from rarezoo import tables
from rarezoo.data.reading import UNIT
from rarezoo.errors import ConfigError, OutputError
from rarezoo.searches.result import Search

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A search of 320 galaxies with its report, and a FITS catalogue; members of class 1 are 0.8 mag bluer."""
    home = tmp_path_factory.mktemp("physical")
    folder = survey_on_disk(home, galaxies=320)
    search = Search.open(folder)
    search.report(thumbnails=0)
    random = np.random.default_rng(0)
    ra, dec = search.sky
    mass = random.normal(10, 0.5, 320)
    columns = {
        "RAJ2000": ra, "DEJ2000": dec, "z": np.abs(random.normal(0.1, 0.03, 320)), "logmass": mass,
        "colour <b>": mass - 8 + 0.3 * random.normal(size=320) - 0.8 * (search.labels == 1),
        "remark": [f"remark {row}" for row in range(320)], "empty": np.full(320, np.nan),
    }  # fmt: skip
    Table(columns, units={"RAJ2000": "deg", "DEJ2000": "deg", "colour <b>": "mag"}).write(home / "colours.fits")
    return home


@pytest.fixture(scope="module")
def done(cli, home):
    return cli("rarezoo", "physical", "search", "with=colours.fits", "covariates=z,logmass", cwd=home)


def test_the_command_says_what_was_joined_matched_and_found(done):
    assert "colours.fits: 320 of 320 galaxies by position" in done.out
    assert "2 of 2 classes have matched controls" in done.out
    assert "remark: its texts" in done.err
    assert "empty: no value" in done.err


def test_the_planted_difference_is_in_every_table_with_its_unit(home, done):
    folder = home / "search" / "physical"
    found = pq.read_table(folder / "differences.parquet").to_pandas()
    differing = found[found[tables.VERDICT] == "differs"]
    assert differing[[tables.CLASS_ID, tables.PROPERTY]].to_numpy().tolist() == [[1, "colour <b>"]]
    row = differing.iloc[0]
    assert row[tables.DIFFERENCE_LOW] < -0.8 < row[tables.DIFFERENCE_HIGH]
    assert row[tables.UNIT] == "mag"
    for name in ("table.fits", "table.vot"):
        written = Table.read(folder / name)
        assert len(written) == len(found[found[tables.SETS] > 0])
    text = (folder / "table.tex").read_text()
    assert text.count(r"\\") == len(written) + 1
    assert "colour <b> (mag)" in text
    joined = pq.read_table(folder / "joined.parquet")
    assert joined.schema.field("colour <b>").metadata[UNIT] == b"mag"
    controls = pq.read_table(folder / "controls.parquet").to_pandas()
    labels = dict(pq.read_table(home / "search" / "members.parquet").to_pandas()[["id_str", "class_id"]].to_numpy())
    assert {labels[galaxy] for galaxy in controls[tables.CONTROL]} == {-1}


def test_the_card_is_on_the_page_of_its_class_and_written_again_it_is_the_same(home, done):
    page = home / "search" / "report" / "class-001.html"
    shown = page.read_text()
    assert "Love plot" in shown
    assert "colour &lt;b&gt;" in shown
    assert "colour <b>" not in shown
    link = re.search(r'href="([^"]*physical/index.html)#class-001"', shown)[1]
    assert (page.parent / link).is_file()
    Search.open(home / "search").report(thumbnails=0)
    assert page.read_text() == shown


def test_the_same_command_gives_the_same_and_other_settings_need_another_folder(cli, home, done):
    page = (home / "search" / "physical" / "index.html").read_bytes()
    words = ["rarezoo", "physical", "search", "with=colours.fits"]
    cli(*words, "covariates=z,logmass", cwd=home)
    assert (home / "search" / "physical" / "index.html").read_bytes() == page
    refused = cli(*words, "covariates=z", cwd=home, expect=2)
    assert "covariates" in refused.message
    assert "out=DIR" in refused.message


def test_in_python_it_is_a_table_and_writes_only_where_it_is_asked_to(home, tmp_path):
    search = Search.open(home / "search")
    physical = search.physical(
        home / "colours.fits", covariates=["z", "logmass"], properties=["colour <b>"], within="logmass",
        out=tmp_path / "own",
    )  # fmt: skip
    assert set(physical.table.column(tables.WITHIN).to_pylist()) == {"", "logmass"}
    assert physical.table.num_rows == 2 * 4
    assert "colour &lt;b&gt;" in physical._repr_html_()
    assert isinstance(physical.paper([1]), pd.DataFrame)
    assert (tmp_path / "own" / "index.html").exists()
    assert search.crossmatch(home / "colours.fits").match_rate == 1.0
    with pytest.raises(ConfigError, match="controls"):
        search.physical(home / "colours.fits", control=3)
    with pytest.raises(OutputError, match=r"other settings: .*covariates"):
        search.physical(home / "colours.fits", covariates=["z"], out=tmp_path / "own")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["with=nowhere.fits"], "nowhere.fits"),
        (["with=far.csv"], "far.csv.*search covers"),
        (["with=hours.csv"], "hours"),
        (["with=texts.csv", "properties=remark"], "texts have more"),
        (["with=colours.fits,jansky.csv"], "units of column colour <b>"),
        (["with=colours.fits", "covariates=colour"], "covariates: no column"),
        (["with=colours.fits", "within=none"], "within: no column"),
        (["with=colours.fits", "edges=1,2"], "within="),
        (["with=colours.fits", "within=logmass", "edges=nan,1"], "edges must"),
        (["with=colours.fits", "within=logmass", "edges=100,200"], "no member.*logmass is"),
        (["with=colours.fits", "covariates=flat"], "flat"),
        (["with=flat.csv", "covariates=flat"], "same value: flat"),
        (["with=colours.fits,colours.fits"], "twice: colours.fits"),
        (["with=colours.fits", "limit=17"], "limit= needs a magnitude"),
        (["with=far.csv", "ra_column=ra"], "ra_column= and dec_column="),
        (["with=vizier:"], "no name of a catalogue"),
        (["with=colours.fits", "method=magic"], "distance has no such choice: magic"),
        (["covariates=mass", "properties=mass"], "besides the covariates"),
    ],
)
def test_mistakes_end_in_one_message_and_leave_no_folder(cli, home, words, says):
    members = pq.read_table(home / "search" / "members.parquet").to_pandas()
    given = Table.read(home / "colours.fits")
    ids = members["id_str"]
    pd.DataFrame({"ra": given["RAJ2000"], "dec": given["DEJ2000"] - 60, "z": 0.1}).to_csv(home / "far.csv")
    pd.DataFrame({"ra": given["RAJ2000"] / 15, "dec": given["DEJ2000"], "z": 0.1}).to_csv(home / "hours.csv")
    pd.DataFrame({"id_str": ids, "remark": given["remark"]}).to_csv(home / "texts.csv")
    pd.DataFrame({"id_str": ids, "colour <b>": 1.0}).to_csv(home / "jansky.csv")
    pd.DataFrame({"id_str": ids, "flat": 0.1}).to_csv(home / "flat.csv")
    refused = cli("rarezoo", "physical", "search", *words, "out=refused", cwd=home, expect=2)
    assert re.search(says, refused.message), refused.message
    assert not (home / "refused").exists()
