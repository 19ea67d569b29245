"""Ratings in their database, the same on SQLite and PostgreSQL: saved, taken back, counted, handed out, and refused."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, OutputError, StoreError, StoreNotFound
from rarezoo.explore.database import Database
from rarezoo.explore.labels import KINDS, Labels, Rating, survey_key
from tests.postgresql import PASSWORD

pytestmark = pytest.mark.unit

SURVEY = "survey-of-the-tests"
# Rates galaxies until no file may grow any more, and prints how many ratings were acknowledged.
UNTIL_FULL = f"""
import resource, sys
from rarezoo.errors import OutputError
from rarezoo.explore.labels import Labels, Rating
labels, done = Labels.open(sys.argv[1], survey={SURVEY!r}), 0
resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, resource.RLIM_INFINITY))
try:
    while True:
        labels.add([Rating(f"J{{done}}", "ring", 1, "answer", "ann")])
        done += 1
except OutputError as refused:
    print(done, refused)
"""
THEN = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """Where a new database of ratings can be."""
    return tmp_path / "labels.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgresql_schema")


@pytest.fixture
def opened(place):
    """Opens the database once more, as another process would."""
    everything = []

    def again(**changes):
        everything.append(Labels.open(place, **{"survey": SURVEY, "patience": 0.3, **changes}))
        return everything[-1]

    yield again
    for labels in everything:
        labels.close()


@pytest.fixture
def labels(opened):
    return opened(patience=20)


def yes(galaxy, by="ann", label="ring", **more):
    return Rating(galaxy, label, 1, "answer", by, **more)


def grade(galaxy, value, by="ann", label="interesting", **more):
    return Rating(galaxy, label, value, "grade", by, **more)


def artifact(galaxy, value=1, by="ann", **more):
    return Rating(galaxy, "artifact", value, "artifact", by, **more)


def raw(place, statement):
    """Run SQL in the database as a program that knows nothing of rarezoo."""
    url = str(place).replace("postgresql://", "postgresql+psycopg://") if "://" in str(place) else f"sqlite:///{place}"
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            result = connection.exec_driver_sql(statement)
            return result.fetchall() if result.returns_rows else None
    finally:
        engine.dispose()


# --- saving


def test_ratings_come_back_as_they_were_saved(labels, opened):
    said = [
        grade("J1 é,\"'\n", 3.5, why="model", round=4, seconds=1.25, at=THEN),
        Rating("J2", "ring", None, "answer", "Zoë Ångström", why="random"),
        Rating("J3", "dust lane", 1, "tag", "ann"),
        artifact("J4", 0),
    ]
    saved = labels.add(said)
    assert [rating.entry for rating in saved] == [1, 2, 3, 4]
    rows = opened().log().to_pylist()
    for before, after, row in zip(said, saved, rows, strict=True):
        for name in ("id_str", "label", "value", "kind", "by", "why", "round", "seconds", "undoes"):
            assert getattr(before, name) == getattr(after, name) == row[name]
        assert after.at == row["at"]
        assert before.at in (None, row["at"])
    assert rows[0]["at"] == THEN
    assert abs(datetime.now(UTC) - rows[1]["at"]) < timedelta(minutes=1)


def test_the_log_is_a_table_of_labels_also_while_it_is_empty(labels):
    for empty in (labels.log(), labels.current()):
        assert empty.num_rows == 0
        assert list(empty.column_names) == list(tables.LABELS.columns)
    assert (labels.interest("ring"), labels.tags(), labels.people(), labels.agreement("ring")) == ({}, {}, [], None)
    assert labels.undo(by="ann") is None
    assert labels.add([]) == []


def test_a_reader_that_asks_for_what_came_since_misses_nothing(labels, opened):
    reader, seen = opened(), []
    for number in range(5):
        labels.add([yes(f"J{number}"), yes(f"K{number}")])
        seen += reader.log(since=len(seen)).column(tables.ENTRY).to_pylist()
    assert seen == list(range(1, 11))
    assert reader.log(since=10).num_rows == 0


def test_threads_of_one_process_lose_nothing(labels):
    def rate(person):
        return [labels.add([yes(f"J{number}", by=f"p{person}")])[0].entry for number in range(10)]

    with ThreadPoolExecutor(4) as threads:
        numbers = [number for mine in threads.map(rate, range(4)) for number in mine]
    assert sorted(numbers) == list(range(1, 41))
    assert len(labels.ratings("ring")) == 40


def test_names_lose_the_white_space_around_them(labels):
    (saved,) = labels.add([yes("J1", by=" ann ", label="ring\n")])
    assert (saved.by, saved.label) == ("ann", "ring")
    assert labels.people() == ["ann"]


def test_numbers_of_numpy_are_numbers(labels):
    labels.add([grade(np.str_("J1"), np.float32(2.5), round=np.int64(3), seconds=np.float64(1))])
    labels.add([Rating("J2", "ring", np.bool_(True), "answer", "ann")])
    assert [(row["value"], row["round"]) for row in labels.log().to_pylist()] == [(2.5, 3), (1.0, 0)]


def test_times_of_the_log_do_not_go_back_with_the_clock(labels):
    labels.add([yes("J1", at=datetime.now(UTC) + timedelta(minutes=4))])
    (later,) = labels.add([Rating("J1", "ring", 0, "answer", "ann")])
    assert labels.interest("ring") == {"J1": 0.0}, "what was said last holds"
    assert later.at > labels.log().to_pylist()[0]["at"]


def test_a_time_without_a_zone_is_in_utc_and_others_are_converted(labels):
    at = datetime(2026, 3, 1, 14, 30, tzinfo=UTC).astimezone()
    labels.add([yes("J1", at=datetime(2026, 3, 1, 14, 30)), yes("J2", at=at)])
    assert {row["at"] for row in labels.log().to_pylist()} == {datetime(2026, 3, 1, 14, 30, tzinfo=UTC)}


# --- the log is never changed


@pytest.mark.parametrize("change", ["UPDATE rarezoo_ratings SET value = 0", "DELETE FROM rarezoo_ratings"])
def test_the_database_refuses_to_change_or_delete_entries(labels, opened, place, change):
    labels.add([yes("J1")])
    with pytest.raises(sa.exc.DBAPIError, match="never changed"):
        raw(place, change)
    assert opened().interest("ring") == {"J1": 1.0}


def test_undo_appends_an_entry_and_the_rating_before_holds_again(labels, opened):
    labels.add([grade("J1", 1)])
    labels.add([grade("J1", 4)])
    undoing = labels.undo(by="ann")
    assert (undoing.entry, undoing.undoes, undoing.id_str, undoing.value) == (3, 2, "J1", None)
    for reader in (labels, opened()):
        assert reader.log().num_rows == 3
        assert reader.interest() == {"J1": 0.2}
    assert labels.undo(by="ann").undoes == 1
    assert labels.undo(by="ann") is None
    assert labels.interest() == {}


def test_undo_takes_back_the_last_rating_of_this_person_only(labels):
    labels.add([yes("J1"), yes("J2", by="bob")])
    assert labels.undo(by="ann").undoes == 1
    assert labels.interest("ring") == {"J2": 1.0}


def test_a_named_entry_is_taken_back_once_and_that_can_be_taken_back_too(labels):
    labels.add([yes("J1"), yes("J2")])
    undoing = labels.undo(by="ann", entry=1)
    assert labels.undo(by="ann", entry=1) is None
    assert labels.interest("ring") == {"J2": 1.0}
    labels.undo(by="ann", entry=undoing.entry)
    assert labels.interest("ring") == {"J1": 1.0, "J2": 1.0}


@pytest.mark.parametrize(("entry", "what"), [(1, "another person"), (7, "no such entry"), (0, "no such entry")])
def test_entries_of_others_and_unknown_entries_are_not_taken_back(labels, entry, what):
    labels.add([yes("J1", by="bob")])
    with pytest.raises(ConfigError, match=what):
        labels.undo(by="ann", entry=entry)
    assert labels.log().num_rows == 1


# Steps of a history: a rating, an undo of the last rating, or an undo of some entry.
_PEOPLE, _GALAXIES = ["ann", "bob"], ["J1", "J2"]
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["rate", "rate", "undo", "undo entry"]),
        st.sampled_from(_PEOPLE),
        st.sampled_from(_GALAXIES),
        st.sampled_from([0, 1]),
        st.integers(1, 12),
    ),
    max_size=14,
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(_STEPS)
def test_what_holds_is_what_a_replay_of_the_whole_log_gives(tmp_path_factory, steps):
    with Labels.open(tmp_path_factory.mktemp("log") / "labels.sqlite", survey=SURVEY) as labels:
        for step, by, galaxy, value, entry in steps:
            if step == "rate":
                labels.add([Rating(galaxy, "ring", value, "answer", by)])
            elif step == "undo":
                labels.undo(by=by)
            elif any(row["entry"] == entry and row["by"] == by for row in labels.log().to_pylist()):
                labels.undo(by=by, entry=entry)
        log = labels.log().to_pylist()
        undone: set[int] = set()
        for row in reversed(log):
            if row["entry"] not in undone:
                undone.add(row["undoes"])
        in_effect = [row for row in log if row["undoes"] is None and row["entry"] not in undone]
        held = {(row["id_str"], row["by"]): row["entry"] for row in in_effect}
        assert sorted(row["entry"] for row in labels.current().to_pylist()) == sorted(held.values())


# --- what holds now


def test_the_newest_rating_of_each_galaxy_label_and_person_holds(labels):
    labels.add([grade("J1", 1), grade("J1", 5, by="bob"), yes("J1"), grade("J2", 3)])
    labels.add([grade("J1", 4)])
    current = labels.current("interesting").to_pylist()
    assert [(row["id_str"], row["by"], row["value"]) for row in current] == [
        ("J1", "bob", 5), ("J2", "ann", 3), ("J1", "ann", 4),
    ]  # fmt: skip
    assert labels.current(by="bob").num_rows == 1
    assert labels.current().num_rows == 4


def test_an_older_rating_that_is_added_later_replaces_nothing(labels):
    labels.add([grade("J1", 5)])
    labels.add([grade("J1", 0, at=THEN)])
    assert labels.interest() == {"J1": 1.0}


def test_interest_is_the_mean_over_people_and_leaves_out_who_was_unsure(labels):
    labels.add([grade("J1", 4), grade("J1", 5, by="bob"), grade("J2", 0)])
    labels.add([yes("J1"), Rating("J1", "ring", 0, "answer", "bob"), Rating("J2", "ring", None, "answer", "ann")])
    labels.add([Rating("J1", "dusty", 1, "tag", "ann"), Rating("J2", "dusty", 0, "tag", "ann")])
    assert labels.interest() == {"J1": pytest.approx(0.9), "J2": 0.0}
    assert labels.interest("ring") == {"J1": 0.5}
    assert labels.interest("dusty") == {"J1": 1.0, "J2": 0.0}


def test_artifacts_count_as_uninteresting_only_if_asked(labels):
    labels.add([grade("J1", 5), artifact("J2"), artifact("J3", 0), artifact("J4")])
    labels.add([artifact("J1"), grade("J4", 5)])
    assert labels.interest() == {"J1": 1.0, "J4": 1.0}
    assert labels.interest(artifacts=True) == {"J1": 0.0, "J4": 1.0, "J2": 0.0}, "the newer of both counts"
    assert labels.interest("artifact") == {"J2": 1.0, "J3": 0.0, "J4": 1.0, "J1": 1.0}


def test_tags_are_counted_by_galaxies_and_can_be_removed(labels):
    tag = [Rating(galaxy, label, 1, "tag", by) for galaxy, label, by in
           [("J1", "ring", "ann"), ("J1", "ring", "bob"), ("J2", "ring", "ann"), ("J1", "arc", "ann")]]  # fmt: skip
    labels.add([*tag, yes("J9", label="yes-or-no")])
    assert labels.tags() == {"ring": 2, "arc": 1}
    labels.add([Rating("J2", "ring", 0, "tag", "ann"), Rating("J1", "arc", 0, "tag", "ann")])
    assert labels.tags() == {"ring": 1}
    assert labels.people() == ["ann", "bob"]


def test_agreement_is_the_published_alpha_of_krippendorff(labels):
    # Krippendorff (2011), Computing Krippendorff's Alpha-Reliability: A, binary data of two observers, alpha = 0.095.
    meg, owen = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    for by, said in (("meg", meg), ("owen", owen)):
        labels.add([Rating(f"J{unit}", "ring", value, "answer", by) for unit, value in enumerate(said)])
    assert labels.agreement("ring") == pytest.approx(0.095, abs=0.0005)
    # C, four observers with missing data, interval scale: alpha = 0.849.
    said = {"A": "123321412...", "B": "1233224125.3", "C": ".3332342251.", "D": "12332441251."}
    for by, values in said.items():
        labels.add([grade(f"J{unit}", int(value), by=by) for unit, value in enumerate(values) if value != "."])
    assert labels.agreement() == pytest.approx(0.849, abs=0.0005)


def test_agreement_is_unknown_where_nobody_rated_what_another_did_or_all_said_the_same(labels):
    labels.add([yes("J1"), Rating("J2", "ring", 0, "answer", "bob"), Rating("J1", "ring", None, "answer", "bob")])
    assert labels.agreement("ring") is None
    labels.add([yes("J1", by="bob")])
    assert labels.agreement("ring") is None


# --- handing out


def test_nobody_is_handed_what_another_person_holds(labels, opened):
    other = opened()
    assert labels.claim(["J1", "J2", "J1"], by="ann", label="ring") == ["J1", "J2"]
    assert other.claim(["J2", "J3"], by="bob", label="ring") == ["J3"]
    assert other.claim(["J2"], by="bob", label="arc") == ["J2"], "for another label it is free"
    assert labels.claim(["J3", "J2", "J1"], by="ann", label="ring") == ["J2", "J1"], "one's own may be asked for again"


def test_what_others_have_rated_is_not_handed_out_until_they_take_it_back(labels):
    labels.add([yes("J1", by="bob"), Rating("J2", "ring", None, "answer", "bob"), artifact("J3", by="bob"), yes("J4")])
    wanted = ["J1", "J2", "J3", "J4", "J5"]
    assert labels.claim(wanted, by="ann", label="ring") == ["J4", "J5"]
    labels.undo(by="bob")
    assert labels.claim(wanted, by="ann", label="ring") == ["J3", "J4", "J5"]


def test_as_many_galaxies_are_handed_out_as_are_wanted_to_as_many_people(labels):
    wanted = [f"J{number}" for number in range(6)]
    assert labels.claim(wanted, by="ann", label="ring", count=2) == ["J0", "J1"]
    assert labels.claim(wanted, by="bob", label="ring", count=2) == ["J2", "J3"]
    assert labels.claim(wanted, by="eve", label="ring", count=3, people=2) == ["J0", "J1", "J2"]
    assert labels.claim(wanted, by="bob", label="ring", people=2) == ["J2", "J3", "J4", "J5"]
    assert labels.claim(wanted, by="ann", label="ring", count=0) == []


def test_what_is_not_rated_is_free_again_after_some_time_or_when_it_is_given_back(labels):
    labels.claim(["J1"], by="ann", label="ring", seconds=-1)
    assert labels.claim(["J1"], by="bob", label="ring") == ["J1"]
    labels.release(by="bob", label="arc")
    assert labels.claim(["J1"], by="ann", label="ring") == []
    labels.release(by="bob")
    assert labels.claim(["J1"], by="ann", label="ring") == ["J1"]


def test_what_a_person_has_rated_is_held_no_longer(labels):
    labels.claim(["J1"], by="ann", label="ring")
    labels.add([yes("J1")])
    labels.undo(by="ann")
    assert labels.claim(["J1"], by="bob", label="ring") == ["J1"]


def test_threads_are_never_handed_the_same_galaxy(labels, opened):
    wanted, readers = [f"J{number}" for number in range(40)], [opened(patience=20) for _ in range(4)]

    def claim(person):
        return [galaxy for _ in range(3) for galaxy in
                readers[person].claim(wanted, by=f"p{person}", label="ring", count=3 * (_ + 1))]  # fmt: skip

    with ThreadPoolExecutor(4) as threads:
        handed = [set(mine) for mine in threads.map(claim, range(4))]
    assert sum(map(len, handed)) == len(set.union(*handed)) == 36


# --- what is refused


@pytest.mark.parametrize(
    ("rating", "what"),
    [
        (grade("J1", 6), "6"), (grade("J1", -0.5), "-0.5"), (grade("J1", float("nan")), "nan"),
        (grade("J1", None), "none"), (grade("J1", "5"), "5"), (Rating("J1", "ring", 0.5, "answer", "ann"), "0.5"),
        (Rating("J1", "ring", None, "tag", "ann"), "none"), (Rating("J1", "ring", 2, "tag", "ann"), "2"),
        (Rating("J1", "ring", 1, "vote", "ann"), "vote"), (Rating("J1", "ring", 1, "artifact", "ann"), "artifact"),
        (Rating("J1", "artifact", 1, "tag", "ann"), "artifact"), (yes("J1", label=""), "label"),
        (yes("J1", label=" \t"), "label"), (yes("J1", label="r" * 101), "101"), (yes("J1", label="a\x1b[2Jb"), "x1b"),
        (yes("J1", label="a\u202eb"), "u202e"), (yes("J1", label=3), "label"), (yes("J1", by=""), "name"),
        (yes("J1", by="a\nb"), "x0a"), (yes("J1", by="b" * 500), "500"), (yes(""), "id"), (yes("J\0"), "x00"),
        (yes("J\ud800"), "ud800"), (yes("J" * 1001), "id"), (yes(7), "7"), (yes("J1", round=-1), "-1"),
        (yes("J1", round=1.5), "1.5"), (yes("J1", round=2**40), str(2**40)), (yes("J1", seconds=-1), "-1"),
        (yes("J1", seconds=float("inf")), "inf"), (yes("J1", why="w" * 101), "w"),
        (yes("J1", at=datetime(2999, 1, 1)), "2999"), (yes("J1", at=datetime(1, 1, 1)), "1970"),
        (yes("J1", undoes=1), "undo"),
    ],
)  # fmt: skip
def test_a_rating_that_is_not_valid_is_refused_and_nothing_of_its_batch_is_saved(tmp_path, rating, what):
    with Labels.open(tmp_path / "labels.sqlite", survey=SURVEY) as labels:
        with pytest.raises(ConfigError) as refused:
            labels.add([yes("J0"), rating])
        assert what in str(refused.value)
        assert str(refused.value).isprintable()
        assert labels.log().num_rows == 0


def test_galaxies_that_are_not_in_the_survey_are_refused(opened):
    labels = opened(ids=["J1", "J2"])
    with pytest.raises(ConfigError, match="J8, J9") as refused:
        labels.add([yes("J1"), yes("J8"), yes("J9")])
    assert refused.value.ids == ("J8", "J9")
    assert labels.log().num_rows == 0
    assert labels.add([yes("J2")])


def test_another_survey_is_refused_and_nothing_is_lost(labels, opened):
    labels.add([yes("J1")])
    with pytest.raises(StoreError, match="another survey"):
        opened(survey="another")
    assert opened().interest("ring") == {"J1": 1.0}


def test_a_database_of_a_newer_version_is_refused(labels, opened, place):
    labels.add([yes("J1")])
    raw(place, "UPDATE rarezoo_about SET value = '2' WHERE key = 'schema'")
    with pytest.raises(StoreError, match=r"newer .*version 2"):
        opened()
    with pytest.raises(StoreError, match="newer"):
        opened(read_only=True)


def test_a_database_without_its_version_is_refused(labels, opened, place):
    raw(place, "DELETE FROM rarezoo_about")
    with pytest.raises(StoreError, match="damaged"):
        opened()


def test_a_locked_database_is_refused_after_some_patience_and_readers_go_on(labels, opened, place):
    labels.add([yes("J1")])
    impatient = opened(patience=0.2)
    url = str(place).replace("postgresql://", "postgresql+psycopg://") if "://" in str(place) else f"sqlite:///{place}"
    lock = "BEGIN IMMEDIATE" if "sqlite" in url else "LOCK TABLE rarezoo_ratings IN EXCLUSIVE MODE"
    engine = sa.create_engine(url)
    with engine.connect() as other:
        other.exec_driver_sql(lock)
        for write in (lambda: impatient.add([yes("J2")]), lambda: impatient.undo(by="ann")):
            with pytest.raises(OutputError, match="serve") as refused:
                write()
            assert "locked" in str(refused.value)
        assert impatient.interest("ring") == {"J1": 1.0}
    engine.dispose()
    impatient.add([yes("J2")])
    assert opened().interest("ring") == {"J1": 1.0, "J2": 1.0}


def test_nothing_is_written_to_what_is_opened_for_reading(labels, opened):
    labels.add([yes("J1")])
    reader = opened(read_only=True)
    assert reader.read_only
    for write in (lambda: reader.add([yes("J2")]), lambda: reader.undo(by="ann"),
                  lambda: reader.claim(["J2"], by="ann", label="ring")):  # fmt: skip
        with pytest.raises(OutputError, match="reading"):
            write()
    labels.add([yes("J2")])
    assert reader.interest("ring") == {"J1": 1.0, "J2": 1.0}


def test_what_is_opened_for_reading_must_be_there(opened, place):
    with pytest.raises(StoreNotFound, match="no ratings yet"):
        opened(read_only=True)
    opened()
    assert opened(read_only=True).log().num_rows == 0


# --- SQLite


def test_a_file_of_sqlite_has_a_write_ahead_log_and_waits_for_the_disk(tmp_path):
    with Labels.open(tmp_path / "labels.sqlite", survey=SURVEY) as labels:
        labels.add([yes("J1")])
        assert raw(tmp_path / "labels.sqlite", "PRAGMA journal_mode") == [("wal",)]
        database = Database(tmp_path / "labels.sqlite", survey=SURVEY)
        for transaction in (database.reading, database.writing):
            with transaction() as connection:
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2, "FULL"
        database.close()
        # A copy of the file alone, without the log beside it, has everything too.
        (tmp_path / "copy.sqlite").write_bytes((tmp_path / "labels.sqlite").read_bytes())
    with Labels.open(tmp_path / "copy.sqlite", survey=SURVEY, read_only=True) as copy:
        assert copy.interest("ring") == {"J1": 1.0}


def test_a_path_and_its_url_are_the_same_database(tmp_path):
    path = tmp_path / "a b%41#?.sqlite"
    with Labels.open(path, survey=SURVEY) as labels:
        labels.add([yes("J1")])
    assert path.exists()
    with Labels.open(f"sqlite:///{quote(str(path))}", survey=SURVEY) as labels:
        assert labels.interest("ring") == {"J1": 1.0}


def test_many_threads_may_open_a_new_database_at_once(place):
    def rate(person):
        with Labels.open(place, survey=SURVEY) as labels:
            return labels.add([yes("J1", by=f"p{person}")])[0].entry

    with ThreadPoolExecutor(6) as threads:
        assert sorted(threads.map(rate, range(6))) == list(range(1, 7))


@pytest.mark.parametrize(
    "content", [b"id_str,label\nJ1,ring\n", b"\x89PNG\r\n" * 500, b"SQLite format 3\0" + b"x" * 5000]
)
def test_a_file_that_is_no_database_is_refused_and_stays_as_it_is(tmp_path, content):
    path = tmp_path / "labels.sqlite"
    path.write_bytes(content)
    for read_only in (False, True):
        with pytest.raises(StoreError, match="no database of ratings"):
            Labels.open(path, survey=SURVEY, read_only=read_only)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_refused_and_stays_as_it_is(tmp_path):
    path = tmp_path / "places.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="bookmarks"):
        Labels.open(path, survey=SURVEY)
    assert path.read_bytes() == before


def test_a_damaged_database_is_one_message(tmp_path):
    path = tmp_path / "labels.sqlite"
    with Labels.open(path, survey=SURVEY) as labels:
        labels.add([yes(f"J{number}") for number in range(2000)])
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : -4096] = b"\xff" * (len(content) - 4096 - len(content) // 4)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"), Labels.open(path, survey=SURVEY) as labels:
        labels.log()


def test_a_new_database_makes_its_folder(tmp_path):
    with Labels.open(tmp_path / "new" / "deeper" / "labels.sqlite", survey=SURVEY) as labels:
        assert labels.add([yes("J1")])


def test_an_empty_file_becomes_a_database(tmp_path):
    (tmp_path / "labels.sqlite").touch()
    with Labels.open(tmp_path / "labels.sqlite", survey=SURVEY) as labels:
        assert labels.add([yes("J1")])


@pytest.mark.parametrize(
    "where", ["", ".", "mysql://me@host/db", "sqlite://", "sqlite:///:memory:", "postgresql://me@host:port/db"]
)
def test_a_place_that_cannot_be_a_database_is_refused(tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        Labels.open(where, survey=SURVEY)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be"):
        Labels.open(tmp_path / "file" / "labels.sqlite", survey=SURVEY)


def test_a_full_disk_is_one_message_and_what_was_acknowledged_is_kept(tmp_path):
    rated = subprocess.run(
        [sys.executable, "-c", UNTIL_FULL, str(tmp_path / "labels.sqlite")], capture_output=True, text=True, check=True
    )
    done, message = rated.stdout.split(maxsplit=1)
    assert "Free some space" in message
    with Labels.open(tmp_path / "labels.sqlite", survey=SURVEY) as labels:
        assert labels.log().num_rows == int(done) > 1
        labels.add([yes("the next one")])


@pytest.mark.parametrize("replaced", [False, True])
def test_ratings_are_not_written_to_a_file_that_was_removed(tmp_path, replaced):
    path = tmp_path / "labels.sqlite"
    with Labels.open(path, survey=SURVEY) as labels:
        labels.add([yes("J1")])
        kept = path.rename(tmp_path / "moved.sqlite")
        if replaced:
            path.write_bytes(kept.read_bytes())
        with pytest.raises(OutputError, match="removed or replaced"):
            labels.add([yes("J2")])
        kept.rename(path)
        labels.add([yes("J3")])
        assert labels.interest("ring") == {"J1": 1.0, "J3": 1.0}


# --- PostgreSQL


def test_a_server_that_restarts_is_used_again_and_has_everything(postgresql, postgresql_server):
    with Labels.open(postgresql, survey=SURVEY) as labels:
        labels.add([yes("J1")])
        postgresql_server.stop()
        try:
            with pytest.raises(OutputError, match="cannot be reached"):
                labels.add([yes("J2")])
        finally:
            postgresql_server.start()
        labels.add([yes("J3")])
        assert labels.interest("ring") == {"J1": 1.0, "J3": 1.0}


def test_a_server_without_durable_commits_is_asked_for_them(postgresql):
    raw(postgresql, f"ALTER DATABASE {postgresql.rpartition('/')[2]} SET synchronous_commit = off")
    assert raw(postgresql, "SHOW synchronous_commit") == [("off",)]
    database = Database(postgresql, survey=SURVEY)
    with database.writing() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    database.close()


def test_who_may_only_read_cannot_write(postgresql, postgresql_server):
    with Labels.open(postgresql, survey=SURVEY) as labels:
        labels.add([yes("J1")])
    name = postgresql.rpartition("/")[2]
    raw(postgresql, f"CREATE ROLE reader_{name} LOGIN PASSWORD 'only' IN ROLE pg_read_all_data")
    reader = postgresql_server.url(name, user=f"reader_{name}", password="only")
    with Labels.open(reader, survey=SURVEY) as labels:
        assert labels.interest("ring") == {"J1": 1.0}
        with pytest.raises(OutputError, match="cannot be written"):
            labels.add([yes("J2")])


@pytest.mark.parametrize("change", [
    ("/ratings", "/nowhere-ratings"), ("s3cret%2Fword", "s3cret%2Fwrong"), ("s3cret%2Fword", "s3cret@wo:rd"),
    ("127.0.0.1:", "127.0.0.1:1"), ("127.0.0.1:", "127.0.0.1:s3cret"),
    ("127.0.0.1", "no-such-host.invalid"), ("postgres:", "nobody:"),
    ("/ratings", "/x?application=1&password=s3cret/ratings"),
])  # fmt: skip
def test_a_password_is_in_no_message(postgresql_server, change, caplog):
    where = postgresql_server.url("ratings")
    assert where != where.replace(*change)
    with pytest.raises((OutputError, ConfigError)) as refused:
        Labels.open(where.replace(*change), survey=SURVEY)
    assert "s3cret" not in str(refused.value) + repr(refused.value) + caplog.text
    assert str(refused.value).count("\n") == 0


def test_a_password_is_not_shown_by_what_is_open(postgresql_schema):
    with Labels.open(postgresql_schema, survey=SURVEY) as labels:
        assert PASSWORD not in repr(labels) + labels.where
        assert "s3cret" not in repr(labels) + labels.where


# --- of a search


def test_a_store_has_its_ratings_in_its_folder_and_refuses_others(tmp_path):
    random = np.random.default_rng(0)
    store = EmbeddingStore.from_array(["a", "b"], random.normal(size=(2, 3)).astype(np.float32), out=tmp_path / "one")
    with Labels.of(store) as labels:
        labels.add([yes("a")])
        with pytest.raises(ConfigError, match="not in this survey"):
            labels.add([yes("c")])
    assert (store.folder / "labels.sqlite").exists()
    with Labels.of(store.folder, read_only=True) as labels:
        assert labels.interest("ring") == {"a": 1.0}
    other = EmbeddingStore.from_array(["a", "c"], random.normal(size=(2, 3)).astype(np.float32), out=tmp_path / "two")
    with pytest.raises(StoreError, match="another survey"):
        Labels.of(other, store.folder / "labels.sqlite")
    with pytest.raises(StoreNotFound, match="neither"):
        Labels.of(tmp_path)
    assert survey_key(store) == survey_key(["b", "a"])


def test_every_kind_of_rating_has_a_value_that_is_valid(labels):
    labels.add([Rating("J1", "artifact" if kind == "artifact" else "ring", 1, kind, kind) for kind in KINDS])
    assert len(labels.people()) == len(KINDS)


def test_a_rating_that_two_processes_send_at_once_is_kept_once(opened):
    sent = [Rating(f"J{row}", "ring", 1, "answer", "ann", at=THEN + timedelta(seconds=row)) for row in range(20)]
    servers = [opened(patience=20) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        kept = list(pool.map(lambda labels: [labels.add([rating], once=True)[0] for rating in sent], servers))
    assert servers[0].log().num_rows == 20
    assert kept[0] == kept[1] == kept[2] == kept[3]


def test_what_is_sent_once_may_be_there_twice_within_one_request_and_at_another_time(labels):
    rating = Rating("J1", "ring", 1, "answer", "ann", at=THEN)
    saved = labels.add([rating, replace(rating, at=THEN + timedelta(seconds=1)), rating], once=True)
    assert [row.entry for row in saved] == [1, 2, 1]
    timeless = Rating("J1", "ring", 1, "answer", "ann")
    assert [row.entry for row in labels.add([timeless, timeless], once=True)] == [3, 4]
    assert [row.entry for row in labels.add([timeless], once=True)] == [5]
