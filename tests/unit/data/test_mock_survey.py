"""``data=mock``: the survey around the mock sky."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from mocksky.populations import ORDINARY, PLANTED
from rarezoo import tables
from rarezoo.data.survey import open_survey
from rarezoo.data.surveys.mock import Mock, write_mock_sheet
from rarezoo.errors import ConfigError, DataError, MissingDependency, OutputError

pytestmark = pytest.mark.unit


def mock(cache, **settings):
    return Mock(**{"n": 7, "side": 16, "workers": 1, "cache": str(cache), **settings})


def pixels(galaxies):
    return np.stack([galaxies.images.cutout(row) for row in range(len(galaxies))])


def test_a_survey_has_images_votes_truth_and_splits(tmp_path):
    galaxies = mock(tmp_path).open()
    assert len(galaxies) == 7
    assert pixels(galaxies).shape == (7, 16, 16, 3)
    assert galaxies.votes.shape == (7, len(galaxies.tree.answers))
    assert galaxies.votes.flags.writeable
    assert tables.strings(galaxies.truth, tables.ID).tolist() == galaxies.ids.tolist()
    assert set(tables.strings(galaxies.truth, tables.POPULATION)) <= {ORDINARY, *PLANTED}
    tables.check(galaxies.catalogue, tables.CATALOGUE)
    assert galaxies.catalogue.column(tables.SPLIT).null_count == 0
    ra, dec = (np.array(galaxies.catalogue.column(name)) for name in (tables.RA, tables.DEC))
    assert np.all((ra >= 16) & (ra <= 24) & (dec >= -9) & (dec <= -1))


def test_a_galaxy_does_not_depend_on_the_size_of_the_survey(tmp_path):
    few, many = mock(tmp_path / "few", n=4).open(), mock(tmp_path / "many", n=7).open()
    assert np.array_equal(pixels(few), pixels(many)[:4])
    assert np.array_equal(few.votes, many.votes[:4])
    assert few.truth.equals(many.truth.slice(0, 4))


@pytest.mark.parametrize("change", [{"seed": 1}, {"rates": {"ghost": 1.0}}])
def test_another_sky_is_another_survey(tmp_path, change):
    first, other = mock(tmp_path, n=3).open(), mock(tmp_path, n=3, **change).open()
    assert first.sha256 != other.sha256
    assert not np.array_equal(pixels(first), pixels(other))


def test_volunteers_do_not_change_the_pictures(tmp_path):
    first, other = mock(tmp_path, n=3).open(), mock(tmp_path, n=3, volunteers=200).open()
    assert other.votes.sum() > 2 * first.votes.sum()
    assert [path.name for path in tmp_path.glob("mock-*")] == [first.images.cutouts.folder.name]


@pytest.mark.parametrize("change", [{"volunteers": 200}, {"seed": 1}, {"rates": {"ghost": 1.0}}])
def test_other_records_are_kept_apart(tmp_path, change):
    first, other = mock(tmp_path).open(), mock(tmp_path, **change).open()
    assert len(list(tmp_path.glob("records-*"))) == 2
    assert mock(tmp_path).open().sha256 == first.sha256 != other.sha256


def test_limit_renders_no_more_than_it_says(tmp_path):
    assert len(mock(tmp_path, n=5000, limit=2).open()) == 2
    (block,) = tmp_path.glob("mock-*/*.npy")
    assert np.load(block).shape == (2, 16, 16, 3)


def test_settings_open_the_same_survey_again(tmp_path):
    survey = mock(tmp_path, n=3)
    assert open_survey(survey.settings()).open().sha256 == survey.open().sha256


def test_pictures_travel_to_other_processes_without_their_pixels(tmp_path):
    images = mock(tmp_path, n=3).open().images
    images.cutout(0)
    sent = pickle.dumps(images)
    assert len(sent) < 2000
    assert np.array_equal(pickle.loads(sent).cutout(2), images.cutout(2))


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"rubbish")])
def test_a_damaged_block_is_named_with_its_galaxy(tmp_path, damage):
    images = mock(tmp_path, n=3).open().images
    damage(next(tmp_path.glob("mock-*/*.npy")))
    with pytest.raises(DataError, match=r"unreadable block of mock cutouts.*mock-0000002.*Delete it"):
        images.cutout(2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, r"data\.n .*at least 1: 0"),
        ({"volunteers": 0}, r"data\.volunteers .*at least 1: 0"),
        ({"workers": -1}, r"data\.workers .*: -1"),
        ({"seed": -1}, r"data\.seed .*: -1"),
        ({"side": 8}, r"data\.side .*at least 16: 8"),
        (
            {"rates": {"unicorns": 0.1}},
            "unknown planted population.*unicorns.*one_armed, .*the blends one_armed_merging, ",
        ),
        ({"rates": {"ghost": -0.1}}, "shares that add up to 1"),
        ({"rates": {"ghost": 0.7, "bleed": 0.7}}, "shares that add up to 1"),
    ],
)
def test_wrong_settings_raise_when_the_survey_is_made(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        mock(tmp_path, **settings)


def test_damaged_records_are_named(tmp_path):
    mock(tmp_path).open()
    (path,) = tmp_path.glob("records-*/*.parquet")
    path.write_bytes(b"rubbish")
    with pytest.raises(DataError, match=rf"unreadable records.*{path.name}. Delete it; the next run draws it"):
        mock(tmp_path).open()


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file.*Choose another data\.cache=DIR"):
        mock(tmp_path / "file", n=1).open()


def test_a_contact_sheet_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("mocksky.sheet.contact_sheet", lambda **_: np.zeros((8, 8, 3), dtype=np.uint8))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write .*sheet\.webp"):
        write_mock_sheet(tmp_path / "file" / "sheet.webp")


def test_recorded_settings_open_the_same_survey_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    survey = Mock(n=2, side=16, workers=1, cache="sky")
    galaxies, recorded = survey.open(), survey.settings()
    assert survey.cache == "sky"
    assert recorded["cache"] == str(tmp_path / "sky")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert open_survey(recorded).open().sha256 == galaxies.sha256
    assert not list((tmp_path / "elsewhere").iterdir())


def test_without_galsim_the_message_names_the_extra(tmp_path):
    """In a process of its own, because this one has imported GalSim already."""
    script = f"""
import sys
sys.modules["galsim"] = None
from rarezoo.data.surveys.mock import Mock
from rarezoo.errors import MissingDependency
try:
    Mock(n=1, side=16, cache={str(tmp_path)!r}).open()
except MissingDependency as problem:
    print(problem)
"""
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "rarezoo[mock]" in printed
    assert issubclass(MissingDependency, ImportError)
