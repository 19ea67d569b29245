"""Tables of users: every cell arrives as it was written, or one message says why it cannot."""

import contextlib
import csv
import gzip
import io
import string
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rarezoo.data.reading import ids_of, matched_rows, read_any_table
from rarezoo.errors import DataError, RarezooError

pytestmark = pytest.mark.unit

quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Cells that spreadsheets and libraries like to rewrite, and any other text that is not blank.
LOOKS_LIKE_NUMBERS = ["12e5", "007", "+5", "1_000", "0x1A", "NA", "None", "nan", "null", "TRUE", "1e400", "2024-01-15"]
# A cell without a decimal point: columns of floating-point numbers have a rule of their own.
CELLS = st.one_of(
    st.sampled_from(LOOKS_LIKE_NUMBERS),
    st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="."), min_size=1, max_size=8),
    st.text(string.digits, min_size=1, max_size=22),
)


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def ids(path: Path) -> list[str]:
    return ids_of(read_any_table(path, text=("id_str",)), "id_str", source=path.name)


# ── CSV ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@quick
# An id of white space alone is no id, and is refused.
@given(cells=st.lists(CELLS.filter(str.strip), min_size=1, max_size=12), tabs=st.booleans())
def test_ids_of_a_csv_file_stay_as_they_were_typed(tmp_path, cells, tabs):
    content = io.StringIO()
    rows = csv.writer(content, delimiter="\t" if tabs else ",", lineterminator="\n")
    rows.writerows([["id_str", "mag"], *([cell, 1.5] for cell in cells)])
    path = written(tmp_path / ("own.tsv" if tabs else "own.csv"), content.getvalue())
    assert ids(path) == cells


@quick
@given(numbers=st.lists(st.integers() | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
@example([9007199254740993, 0.0])
@example([9007199254740992, 0.5])
@example([-(2**70), 0.5])
@example([10**308 + 1, 0.5])
@example([int("9" * 400), 0.5])
@example([2**53 + 1, 1])
def test_columns_of_numbers_are_numbers_unless_no_type_holds_them(tmp_path, numbers):
    path = written(tmp_path / "own.csv", "id_str,x\n" + "".join(f"a{row},{x}\n" for row, x in enumerate(numbers)))
    read = read_any_table(path, text=("id_str",)).column("x").to_pylist()
    whole = all(isinstance(number, int) for number in numbers)
    fits = any(low <= min(numbers) and max(numbers) < high for low, high in ((-(2**63), 2**63), (0, 2**64)))
    rounded = not whole and any(
        isinstance(number, int) and (abs(number) >= 10**308 or int(float(number)) != number) for number in numbers
    )
    assert read == ([str(number) for number in numbers] if (whole and not fits) or rounded else numbers)


def test_a_number_that_is_too_large_for_its_type_does_not_become_infinite(tmp_path):
    table = read_any_table(written(tmp_path / "own.csv", "id_str,x,y\na,1e400,inf\nb,2,1.5\n"))
    assert table["x"].to_pylist() == ["1e400", "2"]
    assert table["y"].to_pylist() == [float("inf"), 1.5]


@pytest.mark.parametrize(
    ("content", "kind"),
    [(gzip.compress(b"id_str\n", mtime=0), "gzip"), (b"PK\x03\x04", "spreadsheet"), (b"PAR1", "Parquet")],
)
def test_a_table_of_another_kind_that_is_called_csv_is_named(tmp_path, content, kind):
    with pytest.raises(DataError, match=f"not a text, but a .*{kind}"):
        read_any_table(written(tmp_path / "own.csv", content))


def test_whole_numbers_beside_blank_cells_are_not_rounded(tmp_path):
    path = written(tmp_path / "own.csv", "id_str,objid,n\na,588017702939984047,3\nb,,\n")
    table = read_any_table(path)
    assert table["objid"].to_pylist() == [588017702939984047, None]
    assert table["n"].type == pa.float64()


@pytest.mark.parametrize(
    "content",
    [
        "id_str,ra,m\na,1,x,\nb,2,y,\n",
        "id_str,ra,m,\na,1,x,\nb,2,y,\n",
        "id_str,ra,m,\na,1,x\nb,2,y\n",
        "id_str, ra ,m\r\na, 1 ,x\r\nb,2,y\r\n",
        "# a comment, with a comma\n#\nid_str,ra,m\na,1,x\n\nb,2,y",
        '"id_str","ra","m"\n"a","1","x"\n"b","2","y"\n',
        "id_str,ra,m\ra,1,x\rb,2,y\r",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_csv_file_means_the_same_however_its_lines_are_written(tmp_path, content, encoding):
    table = read_any_table(written(tmp_path / "own.csv", content.encode(encoding)), text=("id_str",))
    assert table.to_pydict() == {"id_str": ["a", "b"], "ra": [1, 2], "m": ["x", "y"]}


def test_a_column_of_row_numbers_keeps_its_place(tmp_path):
    path = tmp_path / "own.csv"
    pd.DataFrame({"id_str": ["a", "b"], "m": [1, 2]}).to_csv(path)
    assert read_any_table(path).to_pydict() == {"Unnamed: 0": [0, 1], "id_str": ["a", "b"], "m": [1, 2]}


def test_cells_with_delimiters_quotes_and_ends_of_line_stay_whole(tmp_path):
    cells = ['a,"b"', "two\nlines", "=1+1", "ü"]
    path = tmp_path / "own.csv"
    pd.DataFrame({"id_str": cells, "m": range(4)}).to_csv(path, index=False)
    assert ids(path) == cells


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("id_str,m\na,1\nb\n", "1 instead of 2 in 'b'"),
        ("id_str,m\na,1\nb,2,3\n", "3 instead of 2"),
        ("id_str,m\n0,a,1\n1,b,2\n", "3 instead of 2"),
        ("id_str,m\na,1\nb,2,\n", "3 instead of 2"),
        ("id_str,m\na,1\n# end\n", "comments stand above"),
        ("id_str,m,m\na,1,2\n", "same name: m"),
        ("id_str,m, m\na,1,2\n", "same name: m"),
        ("id_str,m\nü,1\n".encode("latin-1"), "not UTF-8.*iconv"),
        (b"id_str,m\na\0,1\n", "zero"),
        ('id_str,m\n"a,1\nb,2\n', "own.csv"),
        ('# a "b, "c\nid_str,m\nz,0\na,"5\nb,2\nc,3\n', "below the row 'z,0'"),
        ('id_str,m\na,"5\nb,2\nc,3\n', "quote that is not closed.*written twice"),
        ('id_str,m\na,"5\nb,2\nc,"4\n', "quote that is not closed.*in the first row"),
        ("id_str;m\na;1,5\n", "separated by semicolons"),
        (",".join(map(str, range(20_001))) + "\n", "too many columns: 20,001"),
        ("#\n#\n", "empty"),
        (" \n", "empty"),
    ],
)
def test_a_csv_file_whose_cells_have_no_certain_column_is_refused(tmp_path, content, named):
    with pytest.raises(DataError, match=rf"(?s).*{named}"):
        read_any_table(written(tmp_path / "own.csv", content))


def test_ids_that_a_program_wrote_as_floating_point_numbers(tmp_path):
    assert ids(written(tmp_path / "whole.csv", "id_str\n1.0\n22.0\n")) == ["1", "22"]
    for content in (
        "5.88017702939984e+17\n12.0\n", "5.88018E+17\n12\n", "588017702939984000.0\n12.0\n",
        "5.88017702939984E17\n12.0\n", "5.88017702939984D+17\n12\n",
    ):  # fmt: skip
        with pytest.raises(DataError, match="floating-point"):
            ids(written(tmp_path / "rounded.csv", f"id_str\n{content}"))


def test_ids_that_all_look_rounded_cause_a_warning(tmp_path, caplog):
    exact = [588017702939984047 + 131 * row for row in range(12)]
    of_spreadsheet = [number // 1000 * 1000 for number in exact]
    for numbers, warned in (
        (exact, False), ([int(float(number)) for number in exact], True), (of_spreadsheet, True),
        ([number - 12 for number in of_spreadsheet[:-1]] + of_spreadsheet[-1:], False),
    ):  # fmt: skip
        caplog.clear()
        ids_of(pa.table({"id_str": list(map(str, numbers))}), "id_str", source="votes.csv")
        assert ("rounded" in caplog.text) == warned


# ── other formats ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
        (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array([b"a  ", b"b\0\0"]), ["a", "b"]),
        (pa.array([b"a ", b"bc"], pa.binary(2)), ["a", "bc"]),
        (pa.array([Decimal(588017702939984047), Decimal(1)], pa.decimal128(20, 0)), ["588017702939984047", "1"]),
        (pa.array([Decimal("5.00"), Decimal("1.50")], pa.decimal128(20, 2)), ["5", "1.50"]),
        (pa.array([2**64 - 1, 2], pa.uint64()), ["18446744073709551615", "2"]),
        (pa.array([588017702939984047, 2]), ["588017702939984047", "2"]),
        (pa.array([123.0, 2.0**53 - 1]), ["123", "9007199254740991"]),
        (pa.array([" a ", "NA"]), [" a ", "NA"]),
    ],
)
def test_ids_of_every_type_are_text(tmp_path, column, expected):
    pq.write_table(pa.table({"id_str": column, "beside": column}), tmp_path / "own.parquet")
    assert ids(tmp_path / "own.parquet") == expected


@pytest.mark.parametrize(
    ("column", "named"),
    [
        (pa.array([588017702939984047.0, 1.0]), "floating-point"),
        (pa.array([2.0**53, 1.0]), "floating-point"),
        (pa.array([2.0**24, 1.0], pa.float32()), "floating-point"),
        (pa.array([1.5, 1.0]), "whole numbers: 1.5"),
        (pa.array([np.inf, 1.0]), "inf"),
        (pa.array([["a"], ["b"]]), "list"),
        (pa.nulls(2), "without an id: 2"),
        (pa.array(["a", ""]), "without an id: 1"),
        (pa.array([b"\xff", b"a"]), "UTF-8"),
    ],
)
def test_columns_that_cannot_hold_ids_are_refused(column, named):
    with pytest.raises(DataError, match=named):
        ids_of(pa.table({"id_str": column}), "id_str", source="own.parquet")


@pytest.mark.parametrize("kind", ["fits", "vot", "ecsv"])
def test_tables_of_astronomy_keep_integers_vectors_and_unknown_values(tmp_path, kind):
    path = tmp_path / f"own.{kind}"
    table = Table({"id_str": ["a  ", "bc "], "objid": [588017702939984047, 7], "vector": [[1.0, 2.0], [3.0, 4.0]]})
    table["m"] = np.ma.array([1, 2], mask=[True, False])
    table.write(path, format={"fits": "fits", "vot": "votable", "ecsv": "ascii.ecsv"}[kind])
    assert read_any_table(path).to_pydict() == {
        "id_str": ["a", "bc"], "objid": [588017702939984047, 7], "vector": [[1, 2], [3, 4]], "m": [None, 2],
    }  # fmt: skip


def test_a_folder_of_parquet_files_is_one_table(tmp_path):
    for name, galaxy in (("split=a/0.parquet", "x"), ("split=b/1.parquet", "y"), ("_temporary/2.parquet", "z")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"id_str": [galaxy], "none": pa.nulls(1)}), tmp_path / name)
    (tmp_path / "README.md").write_text("about")
    assert read_any_table(tmp_path).to_pydict() == {"id_str": ["x", "y"], "none": [None, None], "split": ["a", "b"]}
    assert read_any_table(tmp_path, choose=lambda names: names[:1]).column_names == ["id_str"]


def test_folders_of_parquet_files_are_walked_through_links(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    pq.write_table(pa.table({"id_str": ["x"]}), tmp_path / "elsewhere" / "0.parquet")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "split=a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "elsewhere" / "itself").symlink_to("itself")
    assert read_any_table(tmp_path / "set").to_pydict() == {"id_str": ["x"], "split": ["a"]}


@pytest.mark.parametrize("other", [{"id_str": [1.5]}, {"id_str": ["x"], "m": [1]}])
def test_a_folder_of_files_that_do_not_fit_is_refused(tmp_path, other):
    pq.write_table(pa.table({"id_str": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table(other), tmp_path / "1.parquet")
    with pytest.raises(DataError, match="different"):
        read_any_table(tmp_path)


def test_a_folder_without_parquet_files_is_refused(tmp_path):
    with pytest.raises(DataError, match="without Parquet files"):
        read_any_table(tmp_path)


def test_compressed_files_are_bounded_and_must_be_complete(tmp_path):
    whole = gzip.compress(b"id_str\n" + b"".join(b"%d\n" % row for row in range(999)))
    assert len(ids(written(tmp_path / "own.csv.gz", whole))) == 999
    for content in (whole[:-9], b"id_str\na\n", gzip.compress(bytes(2**26 + 1), compresslevel=1)):
        with pytest.raises(DataError, match=r"own\.csv\.gz"):
            read_any_table(written(tmp_path / "own.csv.gz", content))


def test_a_parquet_file_that_describes_too_many_columns_is_refused_unread(tmp_path):
    with (tmp_path / "own.parquet").open("wb") as stream:
        stream.write(b"PAR1")
        stream.seek(2**28)  # a file with a hole, which takes no place on the disk
        stream.write((2**28 - 99).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(DataError, match="too many columns"):
        read_any_table(tmp_path / "own.parquet")


def test_a_fits_file_that_claims_more_rows_than_it_has_is_refused_unread(tmp_path):
    path = tmp_path / "own.fits"
    Table({"id_str": ["a", "b"]}).write(path)
    content = path.read_bytes()
    start = content.index(b"NAXIS2")
    claimed = b"NAXIS2  = " + b"20000000000".rjust(20)
    with pytest.raises(DataError, match="not complete"):
        read_any_table(written(path, content[:start] + claimed + content[start + len(claimed) :]))


@quick
@given(
    suffix=st.sampled_from(
        [".csv", ".tsv", ".txt", ".parquet", ".fits", ".vot", ".xml", ".ecsv", ".csv.gz", ".fits.gz"]
    ),
    content=st.binary(max_size=300) | st.text(max_size=100).map(str.encode),
)
def test_any_bytes_are_a_table_or_one_message(tmp_path, suffix, content):
    path = written(tmp_path / f"own{suffix}", content)
    with contextlib.suppress(RarezooError):
        ids_of(read_any_table(path), "id_str", source="own")


@pytest.mark.parametrize("suffix", [".parquet", ".fits", ".vot", ".ecsv", ".csv"])
def test_damaged_tables_are_refused_or_read(tmp_path, suffix):
    table = pa.table({"id_str": [f"g{row}" for row in range(50)], "ra": np.arange(50.0)})
    path = tmp_path / f"own{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    elif suffix == ".csv":
        table.to_pandas().to_csv(path, index=False)
    else:
        formats = {".fits": "fits", ".vot": "votable", ".ecsv": "ascii.ecsv"}
        Table.from_pandas(table.to_pandas()).write(path, format=formats[suffix])
    content, random = path.read_bytes(), np.random.default_rng(0)
    for cut in random.integers(0, len(content), 15):
        damaged = bytearray(content)
        damaged[cut] ^= 0xFF
        for changed in (content[:cut], bytes(damaged)):
            with contextlib.suppress(RarezooError):
                read_any_table(written(path, changed))


# ── joins by id ─────────────────────────────────────────────────────────────────────────────────────────────────────


@quick
@given(ids=st.sets(CELLS, max_size=9), others=st.sets(CELLS, max_size=9))
def test_rows_are_matched_by_equal_text_only(ids, others):
    ids, others = list(ids), list(others)
    try:
        rows = matched_rows(ids, others, source="a", other_source="b", fix="Check them.")
    except DataError:
        assert not set(ids) & set(others)
    else:
        assert [others[row] if row >= 0 else None for row in rows] == [x if x in others else None for x in ids]


def test_how_many_ids_match_is_reported_and_few_are_refused(caplog):
    caplog.set_level("INFO")
    few, many = [str(row) for row in range(30)], [str(row) for row in range(27, 300)]
    assert np.sum(matched_rows(few, many, source="own.csv", other_source="votes.csv", fix="") >= 0) == 3
    assert "3 of 30 ids of own.csv and of 273 ids of votes.csv match" in caplog.text
    with pytest.raises(DataError, match="only 3 of 30 ids"):
        matched_rows(few, many, source="own.csv", other_source="votes.csv", least=0.2, fix="")


@pytest.mark.parametrize(
    ("ids", "others", "hint"),
    [
        (["a"], [" a "], "spaces"),
        (["7"], ["007"], "zeros"),
        (["J1A"], ["j1a"], "case"),
        (["7"], ["7.0"], "“.0”"),
        (["caf\u00e9"], ["cafe\u0301"], "Unicode"),
    ],
)
def test_ids_that_differ_in_spelling_get_a_hint(ids, others, hint):
    with pytest.raises(DataError, match=hint):
        matched_rows(ids, others, source="a", other_source="b", fix="")


def test_values_in_the_names_of_folders_are_read_as_hive_writes_them(tmp_path):
    for name in ("kind=a%2Fb", "kind=__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / "set" / name).mkdir(parents=True)
        pq.write_table(pa.table({"id_str": [name[:7]]}), tmp_path / "set" / name / "0.parquet")
    assert sorted(read_any_table(tmp_path / "set")["kind"].to_pylist(), key=str) == [None, "a/b"]
    (tmp_path / "set/_delta_log").mkdir()
    with pytest.raises(DataError, match=r"Delta table.*Export"):
        read_any_table(tmp_path / "set")


def test_a_parquet_file_whose_end_is_damaged_is_called_so(tmp_path):
    with pytest.raises(DataError, match="damaged or incomplete"):
        read_any_table(written(tmp_path / "own.parquet", b"PAR1junkjunkPAR1"))


def test_an_id_of_spaces_is_no_id(tmp_path):
    with pytest.raises(DataError, match=r"without an id.*1, row 1"):
        ids(written(tmp_path / "own.csv", 'id_str\na\n"  "\n'))
