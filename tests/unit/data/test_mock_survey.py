"""``data=mock``: the survey around the mock sky."""

import pickle

import numpy as np
import pytest
from PIL import Image

from mocksky import records, rendering, sheet
from mocksky.populations import ORDINARY, PLANTED
from rarezoo import tables
from rarezoo.data.survey import open_survey
from rarezoo.data.surveys.mock import Mock
from rarezoo.errors import ConfigError, DataError, OutputError, StoreError

pytestmark = pytest.mark.unit


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(rendering, "_BLOCK", 3)
    monkeypatch.setattr(records, "_BLOCK", 3)


def mock(cache, **settings):
    return Mock(**{"n": 7, "side": 16, "workers": 1, "cache": str(cache), **settings})


def pixels(galaxies):
    return np.stack([galaxies.images.cutout(row) for row in range(len(galaxies))])


def test_a_survey_is_whole(tmp_path, small_blocks):
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


def test_a_galaxy_does_not_depend_on_the_size_of_the_survey(tmp_path, small_blocks):
    few, many = mock(tmp_path / "few", n=4).open(), mock(tmp_path / "many", n=7).open()
    assert np.array_equal(pixels(few), pixels(many)[:4])
    assert np.array_equal(few.votes, many.votes[:4])
    assert few.truth.equals(many.truth.slice(0, 4))


@pytest.mark.parametrize("change", [{"seed": 1}, {"rates": {"ghost": 1.0}}])
def test_another_sky_is_another_survey(tmp_path, change):
    one, other = mock(tmp_path, n=3).open(), mock(tmp_path, n=3, **change).open()
    assert one.sha256 != other.sha256
    assert not np.array_equal(pixels(one), pixels(other))


def test_volunteers_do_not_change_the_pictures(tmp_path):
    one, other = mock(tmp_path, n=3).open(), mock(tmp_path, n=3, volunteers=200).open()
    assert other.votes.sum() > 2 * one.votes.sum()
    assert [path.name for path in tmp_path.glob("mock-*")] == [one.images.rendering.folder.name]


def test_a_rendering_goes_on_where_it_stopped(tmp_path, small_blocks):
    whole = pixels(mock(tmp_path).open())
    first, second, third = sorted(tmp_path.glob("mock-*/*.npy"))
    kept = first.stat().st_mtime_ns, third.stat().st_mtime_ns
    second.unlink()
    assert np.array_equal(pixels(mock(tmp_path).open()), whole)
    assert (first.stat().st_mtime_ns, third.stat().st_mtime_ns) == kept


def test_votes_and_truth_are_drawn_once_and_what_was_killed_goes_on(tmp_path, small_blocks, monkeypatch):
    whole = mock(tmp_path).open()
    sorted(tmp_path.glob("records-*/*.parquet"))[1].unlink()
    drawn = []
    draw = records._drawn_block
    monkeypatch.setattr(records, "_drawn_block", lambda one, block: drawn.append(block) or draw(one, block))
    again = mock(tmp_path).open()
    assert drawn == [range(3, 6)]
    assert again.sha256 == whole.sha256
    assert again.truth.equals(whole.truth)


@pytest.mark.parametrize("change", [{"volunteers": 200}, {"seed": 1}, {"rates": {"ghost": 1.0}}])
def test_other_records_are_kept_apart(tmp_path, change):
    one, other = mock(tmp_path).open(), mock(tmp_path, **change).open()
    assert len(list(tmp_path.glob("records-*"))) == 2
    assert mock(tmp_path).open().sha256 == one.sha256 != other.sha256


def test_records_by_other_code_are_drawn_anew(tmp_path, monkeypatch):
    mock(tmp_path).open()
    monkeypatch.setattr(records, "_votes_edition", lambda: "other code")
    mock(tmp_path).open()
    assert len(list(tmp_path.glob("records-*"))) == 2


def test_damaged_records_are_named(tmp_path):
    mock(tmp_path).open()
    (path,) = tmp_path.glob("records-*/*.parquet")
    path.write_bytes(b"rubbish")
    with pytest.raises(
        StoreError, match=rf"unreadable mock records table: .*{path.name}. Delete it; the next run draws it"
    ):
        mock(tmp_path).open()


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


def test_other_code_draws_another_rendering(tmp_path, monkeypatch):
    settings = {"galaxies": 1, "side": 16, "seed": 0, "rates": {}}
    before = rendering.Rendering.under(tmp_path, **settings)
    monkeypatch.setattr(rendering, "edition", lambda: "other code")
    assert rendering.Rendering.under(tmp_path, **settings).folder != before.folder


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"rubbish")])
def test_a_damaged_block_is_named_with_its_galaxy(tmp_path, damage):
    images = mock(tmp_path, n=3).open().images
    damage(next(tmp_path.glob("mock-*/*.npy")))
    with pytest.raises(DataError, match=r"unreadable block of mock cutouts.*mock-0000002.*Delete it"):
        images.cutout(2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "data.n and data.volunteers must be 1 or more"),
        ({"volunteers": 0}, "volunteers=0"),
        ({"workers": -1}, "workers=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"side": 8}, "data.side is out of range: 8"),
        (
            {"rates": {"unicorns": 0.1}},
            "unknown planted population: .*unicorns.*one_armed, .*the blends one_armed_merging, ",
        ),
        ({"rates": {"ghost": -0.1}}, "shares that add up to 1"),
        ({"rates": {"ghost": 0.7, "bleed": 0.7}}, "shares that add up to 1"),
    ],
)
def test_nonsense_is_refused_before_anything_is_drawn(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        mock(tmp_path, **settings).open()
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file.*Choose another data\.cache=DIR"):
        mock(tmp_path / "file", n=1).open()


def test_a_contact_sheet_has_a_row_per_population():
    rows = ["ordinary", "ghost"]
    picture = sheet.contact_sheet(rows=rows, columns=2, side=16)
    assert picture.shape == (len(rows) * 18, sheet._MARGIN + 2 * 18, 3)
    assert not np.array_equal(picture, sheet.contact_sheet(rows=rows, columns=2, side=16, seed=1))
    assert sheet.sheet_rows(ordinary=1) == [ORDINARY, *PLANTED]


def test_a_contact_sheet_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "contact_sheet", lambda *, seed: np.full((8, 8, 3), 128, dtype=np.uint8))
    with Image.open(sheet.write_contact_sheet(tmp_path / "new" / "sheet.webp")) as picture:
        assert (picture.format, picture.size) == ("WEBP", (8, 8))


def test_throughput_is_a_rate():
    assert sheet.mock_throughput(galaxies=2, side=16) > 0
