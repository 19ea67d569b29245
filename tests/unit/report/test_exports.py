"""Members in the formats of other tools, read back by those tools' own readers."""

import io
import re
import shutil
import subprocess
import threading

import numpy as np
import pyarrow as pa
import pytest
from astropy.io.votable import parse_single_table, validate
from astropy.io.votable.ucd import parse_ucd
from astropy.table import Table
from made_up import made_up_search

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, DataError, OutputError
from rarezoo.report import exports
from rarezoo.searches.result import Search

pytestmark = pytest.mark.unit

ABOUT = {"survey": "mock", "checkpoint": "réseau.test", "search": "found"}
IDS = ["J1", 'é<&"{x}', "J3", "J4"]
FRACTION = tables.fraction_column("disk-edge-on_yes")


@pytest.fixture
def members():
    return pa.table(
        {
            tables.ID: IDS,
            tables.RA: pa.array([150.25, 10.0, None, 359.9], pa.float64()),
            tables.DEC: pa.array([2.5, -80.0, None, 0.0], pa.float64()),
            tables.CLASS_ID: pa.array([0, 0, 1, -1], pa.int32()),
            tables.PROBABILITY: pa.array([1.0, 0.5, 0.25, 0.0], pa.float32()),
            tables.OUTLIER_SCORE: pa.array([0.0, 0.5, 0.75, 1.0], pa.float32()),
            FRACTION: pa.array([0.1, 0.2, float("nan"), 0.4], pa.float32()),
        }
    )


def assert_same(result, members):
    assert result.colnames == members.column_names
    for name in result.colnames[1:]:
        np.testing.assert_array_equal(np.ma.filled(result[name].astype(float), np.nan), members[name].to_numpy())


def test_fits_has_every_number_with_its_unit(members, tmp_path):
    table = Table.read(exports.write_fits(tmp_path / "m.fits", members, ABOUT))
    assert_same(table, members)
    assert table[tables.ID].tolist() == ["J1", '\\xe9<&"{x}', "J3", "J4"]
    assert (str(table[tables.RA].unit), str(table[tables.DEC].unit)) == ("deg", "deg")
    assert (table.meta["SURVEY"], table.meta["CHECKPOI"]) == ("mock", "r\\xe9seau.test")


@pytest.mark.skipif(shutil.which("stilts") is None, reason="needs STILTS, the command line of TOPCAT")
def test_topcat_reads_every_row_of_both_tables(members, tmp_path):
    for table in (
        exports.write_fits(tmp_path / "m.fits", members, ABOUT),
        exports.write_votable(tmp_path / "m.vot", members, ABOUT),
    ):
        read = subprocess.run(
            ["stilts", "tpipe", f"in={table}", "ofmt=csv"], capture_output=True, text=True, check=True, timeout=120
        )
        header, *rows = read.stdout.splitlines()
        assert header.split(",") == members.column_names
        assert len(rows) == len(members)


def test_votable_passes_the_validator_and_knows_the_sky(members, tmp_path):
    path, report = exports.write_votable(tmp_path / "m.vot", members, ABOUT), io.StringIO()
    assert validate(str(path), output=report), report.getvalue()
    assert not re.search(r"\b[WE]\d\d\b", report.getvalue()), report.getvalue()
    table = parse_single_table(path)
    assert_same(table.to_table(), members)
    assert table.to_table()[tables.ID].tolist() == IDS
    ucds = {field.name: field.ucd for field in table.fields}
    assert (ucds[tables.RA], ucds[tables.DEC]) == ("pos.eq.ra;meta.main", "pos.eq.dec;meta.main")
    assert {field.name for field in table.fields if field.ref == "icrs"} == {tables.RA, tables.DEC}
    for ucd in ucds.values():
        parse_ucd(ucd, check_controlled_vocabulary=True)


def test_ds9_draws_every_galaxy_with_a_position_in_its_class(members, tmp_path, caplog):
    lines = exports.write_ds9(tmp_path / "m.reg", members, ABOUT, radius=7.5).read_text().splitlines()
    assert lines[0] == "# Region file format: DS9 version 4.1"
    circles = lines[lines.index("icrs") + 1 :]
    pattern = r'circle\(([\d.]+),(-?[\d.]+),7.5"\) # color=(#[0-9a-f]{6}) text=\{([^{}]*)\} tag=\{([^{}]*)\}'
    result = [re.fullmatch(pattern, circle).groups() for circle in circles]
    assert [(float(ra), float(dec)) for ra, dec, *_ in result] == [(150.25, 2.5), (10, -80), (359.9, 0)]
    assert [(text, tag) for *_, text, tag in result] == [
        ("J1", "class 0"), ('é<&" x ', "class 0"), ("J4", "no class"),
    ]  # fmt: skip
    assert result[0][2] == result[1][2] != result[2][2]
    assert "1 galaxies without a position are left out" in caplog.text


def test_ds9_without_any_position_says_where_to_take_them_from(members, tmp_path):
    with pytest.raises(DataError, match=r"no galaxy has a position.*positions="):
        exports.write_ds9(tmp_path / "m.reg", members.slice(2, 1), ABOUT)
    assert not list(tmp_path.iterdir())


def test_csv_leaves_what_is_unknown_empty(members, tmp_path):
    lines = exports.write_csv(tmp_path / "m.csv", members, ABOUT).read_text(encoding="utf-8").splitlines()
    assert lines[0] == ",".join(f'"{column}"' for column in members.column_names)
    assert lines[3].startswith('"J3",,,1,0.25,0.75')


@pytest.mark.parametrize("images", [True, False])
def test_hugging_face_folder_is_read_by_datasets(members, tmp_path, images):
    import datasets

    cutouts = (
        (lambda ids: [np.full((6, 5, 3), IDS.index(galaxy_id) * 20, np.uint8) for galaxy_id in ids]) if images else None
    )
    folder = exports.write_huggingface(tmp_path / "set", members, ABOUT, cutouts=cutouts, rows_per_file=3)
    data_set = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert data_set[tables.ID][:] == IDS
    assert data_set[tables.CLASS_ID][:] == [0, 0, 1, -1]
    assert data_set[tables.RA][:] == [150.25, 10.0, None, 359.9]
    assert ("image" in data_set.column_names) is images
    if images:
        np.testing.assert_array_equal(np.asarray(data_set[3]["image"]), np.full((6, 5, 3), 60))
    with pytest.raises(OutputError, match="not empty"):
        exports.write_huggingface(folder, members, ABOUT)


def test_images_are_asked_for_together_so_that_one_warning_names_those_that_cannot_be_read(tmp_path, members):
    asked = []

    def together(ids):
        asked.append(len(ids))
        return [np.zeros((6, 5, 3), np.uint8) for _ in ids]

    exports.write_huggingface(tmp_path / "set", members, ABOUT, cutouts=together)
    assert asked == [members.num_rows]


def test_hugging_face_folder_killed_halfway_is_written_again(members, tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    written = []

    def write_one(table, path):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        path.write_text("half")

    with monkeypatch.context() as patched:
        patched.setattr("pyarrow.parquet.write_table", write_one)
        with pytest.raises(KeyboardInterrupt):
            exports.write_huggingface(tmp_path / "set", members, ABOUT, rows_per_file=2)
    assert not list((tmp_path / "set").iterdir())
    exports.write_huggingface(tmp_path / "set", members, ABOUT)
    assert [path.name for path in (tmp_path / "set" / "data").iterdir()] == ["train-00000-of-00001.parquet"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_data_set_of_the_users_own_is_never_deleted_by_an_export(members, tmp_path):
    own = tmp_path / "set" / "data" / "train-00000-of-00009.parquet"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        exports.write_huggingface(tmp_path / "set", members, ABOUT)
    assert own.read_text() == "mine"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A SAMP hub of this test's own."""
    samp = exports.samp_package()

    monkeypatch.delenv("SAMP_HUB", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with samp.conf.set_temp("use_internet", False):
        server = samp.SAMPHubServer(web_profile=False, pool_size=8)
        server.start()
        yield server
        server.stop()


def viewer(hub, name, *, answer):
    """A program that takes tables, as TOPCAT does: what it got, and itself."""
    client, got = exports.samp_package().SAMPIntegratedClient(name=name, metadata={"samp.name": name}), []

    def load(key, sender, message_id, mtype, parameters, extra):
        path = parameters["url"].removeprefix("file://")
        got.append((parameters["name"], parse_single_table(path).to_table()[tables.ID].tolist()))
        client.reply(message_id, answer)

    client.connect(hub=hub)
    client.bind_receive_call("table.load.votable", load)
    return client, got


def test_samp_hands_the_table_to_every_program_that_takes_tables(hub, members, tmp_path):
    well = {"samp.status": "samp.ok", "samp.result": {}}
    ill = {"samp.status": "samp.error", "samp.result": {}, "samp.error": {"samp.errortxt": "no room"}}
    viewers = [viewer(hub, name, answer=answer) for name, answer in (("TOPCAT", well), ("Aladin", ill))]
    path = exports.write_votable(tmp_path / "m.vot", members, ABOUT)
    assert exports.send_votable(path, name="found class 0") == ["TOPCAT"]
    assert [got for _, got in viewers] == [[("found class 0", IDS)]] * 2
    viewers[0][0].disconnect()
    with pytest.raises(OutputError, match="Aladin: no room"):
        exports.send_votable(path, name="again")
    viewers[1][0].disconnect()
    with pytest.raises(OutputError, match=r"takes tables.*TOPCAT"):
        exports.send_votable(path, name="again")


def test_samp_without_a_hub_says_what_to_start(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{tmp_path / 'none'}")
    before = threading.active_count()
    with pytest.raises(OutputError, match="Start TOPCAT or Aladin first"):
        exports.send_votable(tmp_path / "m.vot", name="x")
    assert threading.active_count() == before


@pytest.mark.parametrize("settings", [{}, {"out": "x", "format": "xlsx"}, {"out": "x", "format": "ds9", "radius": 0}])
def test_settings_that_cannot_be_exported_are_refused_at_once(settings):
    with pytest.raises(ConfigError):
        exports.ExportRun(search="found", **settings)


@pytest.fixture
def search(tmp_path, members):
    """A finished search of the four galaxies, with their positions in its catalogue."""
    rows = [{tables.CLASS_ID: class_id, tables.SIZE: size} for class_id, size in ((0, 2), (1, 1))]
    return made_up_search(
        tmp_path / "found",
        members=members.select([tables.ID, tables.CLASS_ID, tables.PROBABILITY, tables.OUTLIER_SCORE]),
        classes=pa.Table.from_pylist(rows, pa.schema(list(tables.CLASSES.columns.items()))),
        tree=pa.Table.from_pylist([], pa.schema(list(tables.TREE.columns.items()))),
        map_2d=pa.table({tables.ID: IDS, tables.POSITION: tables.vectors(np.eye(4, 2, dtype="f4"))}),
        predictions=members.select([tables.ID]),
        catalogue=members.select([tables.ID, tables.RA, tables.DEC]).take([3, 2, 1, 0]),
        about={"survey": "mock", "checkpoint": "b0", "checkpoint_sha256": "abc"},
    )


@pytest.mark.parametrize(
    ("settings", "ids"),
    [({}, IDS[:3]), ({"classes": [1]}, ["J3"]), ({"unassigned": True}, ["J4", *IDS[:3]])],
)
def test_members_of_the_chosen_classes_leave_with_their_positions(search, tmp_path, settings, ids):
    path = search.export(tmp_path / "m.vot", format="votable", **settings)
    table = parse_single_table(path).to_table()
    assert table[tables.ID].tolist() == ids
    assert dict(zip(table[tables.ID], table[tables.RA], strict=True)).get("J1", 150.25) == 150.25


@pytest.fixture
def graded(search, tmp_path):
    """The same search, whose classes have grades."""
    classes = search.table("classes")
    for name, values in ((tables.GRADE, ["candidate", "significant"]), (tables.RANK, [2, 1])):
        kind = tables.CLASSES.columns[name]
        classes = classes.set_column(classes.column_names.index(name), name, pa.array(values, kind))
    tables.write(classes, search.folder / "classes.parquet", tables.CLASSES)
    search._tables["classes"] = classes
    return search


@pytest.mark.parametrize("format", ["csv", "fits", "votable"])
def test_grade_and_rank_of_the_class_leave_with_each_member(graded, tmp_path, format):
    path = graded.export(tmp_path / "m", format=format, unassigned=True)
    reader = {"csv": "ascii.csv", "fits": "fits", "votable": "votable"}[format]
    table = Table.read(path, format=reader)
    assert table.colnames[3:6] == [tables.CLASS_ID, tables.GRADE, tables.RANK]
    assert table[tables.CLASS_ID].tolist() == [-1, 0, 0, 1]
    assert [str(grade or "") for grade in table[tables.GRADE].tolist()] == ["", "candidate", "candidate", "significant"]
    assert table[tables.RANK].tolist() == [None, 2, 2, 1]


def test_a_search_without_grades_has_no_columns_of_them(search, tmp_path):
    search.export(tmp_path / "m.csv")
    assert not {tables.GRADE, tables.RANK} & set(Table.read(tmp_path / "m.csv").colnames)


def test_ds9_and_hugging_face_know_the_grade(graded, tmp_path):
    import datasets

    lines = (tmp_path / "m.reg", graded.export(tmp_path / "m.reg", format="ds9"))[0].read_text().splitlines()
    assert lines[-1].endswith("tag={class 0} tag={candidate}")
    folder = graded.export(tmp_path / "set", format="huggingface", images=False, unassigned=True)
    data_set = datasets.load_dataset(folder, split="train", cache_dir=str(tmp_path / "cache"))
    assert data_set[tables.GRADE][:] == [None, "candidate", "candidate", "significant"]
    assert data_set[tables.RANK][:] == [None, 2, 2, 1]


def test_a_class_that_does_not_exist_is_refused_with_those_that_do(search, tmp_path):
    with pytest.raises(ConfigError, match=r"99.*0, 1"):
        search.export(tmp_path / "m.csv", classes=[99])
    assert not (tmp_path / "m.csv").exists()


def test_a_table_of_positions_may_replace_the_catalogue(search, tmp_path):
    (tmp_path / "p.csv").write_text("id_str,ra,dec\nJ1,1,2\n" + '"é<&""{x}",3,4\n')
    search.export(tmp_path / "m.csv", classes=[0], positions=str(tmp_path / "p.csv"))
    assert Table.read(tmp_path / "m.csv")[tables.RA].tolist() == [1, 3]


def test_imported_embeddings_without_a_survey_are_exported_without_positions(search, tmp_path):
    store = EmbeddingStore.from_array(IDS, np.eye(4, 2), out=tmp_path / "store")
    result = {name: search.table(name) for name in ("members", "classes", "tree", "map", "map_2d")}
    imported = Search.write(tmp_path / "imported", search.about, result, free_class_id=2, store=store)
    imported.export(tmp_path / "m.csv")
    written = Table.read(tmp_path / "m.csv")
    assert written[tables.ID].tolist() == IDS[:3]
    assert written[tables.RA].mask.all()
    with pytest.raises(DataError, match=r"positions=FILE"):
        imported.export(tmp_path / "m.reg", format="ds9")


@pytest.mark.parametrize("format", ["csv", "fits", "votable", "ds9"])
def test_an_export_replaces_an_earlier_one_and_nothing_else(search, tmp_path, format):
    path = tmp_path / "members"
    for _ in range(2):
        search.export(path, format=format)
    (tmp_path / "mine").write_text("# my own regions\ncircle(1, 2, 3)\n")
    for other in (tmp_path / "mine", search.folder / "classes.parquet", search.folder / "members.parquet"):
        before = other.read_bytes()
        with pytest.raises(OutputError, match="another file is there already"):
            search.export(other, format=format)
        assert other.read_bytes() == before
