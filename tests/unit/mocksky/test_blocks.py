"""Cutouts and records of the mock sky on disk: drawn once, in blocks, by any number of processes."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mocksky import cutouts, edition, records, sheet
from mocksky.blocks import Blocks, CacheError, DamagedBlockError, whole_file
from mocksky.cutouts import SkyCutouts
from mocksky.populations import ORDINARY, PLANTED
from mocksky.records import SkyRecords
from rarezoo.data.trees import named_tree

pytestmark = pytest.mark.unit
RATES = dict.fromkeys(PLANTED, 0.016)


def sky_cutouts(cache, **settings):
    return SkyCutouts(cache, **{"galaxies": 7, "side": 16, "seed": 0, "rates": RATES, "block": 3, **settings})


def sky_records(cache, **settings):
    settings = {"galaxies": 7, "seed": 0, "rates": RATES, "volunteers": 40, "block": 3, **settings}
    return SkyRecords(cache, tree=named_tree("desi"), **settings)


def pixels(drawn):
    return np.stack([drawn.cutout(row) for row in range(drawn.galaxies)])


def test_missing_blocks_alone_are_drawn(tmp_path):
    whole = pixels(sky_cutouts(tmp_path).complete(workers=1))
    first, second, third = sorted(tmp_path.glob("mock-*/*.npy"))
    kept = first.stat().st_mtime_ns, third.stat().st_mtime_ns
    second.unlink()
    assert np.array_equal(pixels(sky_cutouts(tmp_path).complete(workers=1)), whole)
    assert (first.stat().st_mtime_ns, third.stat().st_mtime_ns) == kept


def test_missing_records_alone_are_drawn(tmp_path):
    whole = sky_records(tmp_path).complete(workers=1)
    paths = sorted(tmp_path.glob("records-*/*.parquet"))
    kept = [path.stat().st_mtime_ns for path in paths]
    paths[1].unlink()
    again = sky_records(tmp_path).complete(workers=1)
    changed = [path.stat().st_mtime_ns != before for path, before in zip(paths, kept, strict=True)]
    assert changed == [False, True, False]
    assert again.table.equals(whole.table)


def test_the_size_of_blocks_changes_nothing(tmp_path):
    small, large = (sky_records(tmp_path / str(block), block=block).complete(workers=1) for block in (3, 100))
    assert small.table.combine_chunks().equals(large.table.combine_chunks())
    small, large = (sky_cutouts(tmp_path / str(block), block=block).complete(workers=1) for block in (3, 100))
    assert np.array_equal(pixels(small), pixels(large))


@pytest.mark.parametrize("change", [{"side": 17}, {"seed": 1}, {"rates": {"ghost": 1.0}}])
def test_other_settings_have_another_folder(tmp_path, change):
    assert sky_cutouts(tmp_path).folder != replace(sky_cutouts(tmp_path), **change).folder


@pytest.mark.parametrize("module", [cutouts, records])
def test_other_code_has_another_folder(tmp_path, monkeypatch, module):
    drawn = sky_cutouts(tmp_path) if module is cutouts else sky_records(tmp_path)
    before = drawn.folder
    name = "picture_edition" if module is cutouts else "record_edition"
    monkeypatch.setattr(module, name, lambda: "other code")
    assert drawn.folder != before


def test_docstrings_and_comments_do_not_change_the_edition(tmp_path, monkeypatch):
    monkeypatch.setattr(edition, "__file__", str(tmp_path / "edition.py"))
    hashes = []
    for code in ('"""One."""\nx = 1\n', '"""Two."""\n# A comment.\nx = 1\n', "x = 2\n"):
        (tmp_path / "arms.py").write_text(code)
        hashes.append(edition.code_sha256("arms"))
    assert hashes[0] == hashes[1] != hashes[2]


def test_damaged_and_missing_files_are_named(tmp_path):
    drawn = sky_cutouts(tmp_path).complete(workers=1)
    path = drawn.blocks.path(range(3, 6))
    path.unlink()
    with pytest.raises(DamagedBlockError, match=path.name) as caught:
        drawn.cutout(4)
    assert caught.value.path == path
    sky_records(tmp_path).complete(workers=1)
    path = sky_records(tmp_path).blocks.path(range(3))
    path.write_bytes(b"rubbish")
    with pytest.raises(DamagedBlockError, match=path.name):
        sky_records(tmp_path).complete(workers=1)


def test_a_file_is_whole_or_absent(tmp_path):
    def fail(path):
        path.write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        whole_file(fail, tmp_path / "new" / "file.txt")
    assert not list((tmp_path / "new").iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    blocks = Blocks(tmp_path / "file" / "sky", name="a", suffix=".txt", galaxies=2, size=1)
    with pytest.raises(CacheError) as caught:
        blocks.complete(lambda block, path: path.write_text("a"), workers=1, progress="test")
    assert "file" in str(caught.value.filename)
    assert isinstance(caught.value, OSError)


def test_a_contact_sheet_has_a_row_per_population():
    rows = ["ordinary", "ghost"]
    picture = sheet.contact_sheet(rows=rows, columns=2, side=16)
    assert picture.shape[0] == len(rows) * 18
    assert not np.array_equal(picture, sheet.contact_sheet(rows=rows, columns=2, side=16, seed=1))
    assert sheet.sheet_rows(ordinary=1) == [ORDINARY, *PLANTED]


def test_a_contact_sheet_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "contact_sheet", lambda **_: np.full((8, 8, 3), 128, dtype=np.uint8))
    with Image.open(sheet.write_contact_sheet(tmp_path / "new" / "sheet.webp")) as picture:
        assert (picture.format, picture.size) == ("WEBP", (8, 8))
