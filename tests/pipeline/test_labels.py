"""Ratings between processes: killed, two at once, on a full disk, without rights; and the commands of ratings."""

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.explore.labels import Labels, Rating

pytestmark = pytest.mark.pipeline

SURVEY = "survey-of-the-tests"
# Rates galaxies for ever, and says of each that it is saved once it is. Everybody wants the same galaxies.
RATE = """
import sys
from rarezoo.explore.labels import Labels, Rating
labels = Labels.open(sys.argv[1], survey="survey-of-the-tests")
print("ready", flush=True)
sys.stdin.readline()
wanted = [f"J{place}" for place in range(5000)]
for number in range(int(sys.argv[3])):
    (galaxy,) = labels.claim(wanted, by=sys.argv[2], label="ring", count=1)
    (saved,) = labels.add([Rating(galaxy, "ring", 1, "answer", sys.argv[2])])
    print(saved.entry, saved.id_str, flush=True)
    wanted.remove(galaxy)
"""
# Rates until something is refused, and then once more after there is space again.
FILL = """
import resource, sys
from rarezoo.errors import OutputError
from rarezoo.explore.labels import Labels, Rating
labels = Labels.open(sys.argv[1], survey="survey-of-the-tests")
labels.add([Rating("J1", "ring", 1, "answer", "ann")])
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
try:
    labels.add([Rating(f"J{number}" * 20, "ring", 1, "answer", "bob") for number in range(5000)])
except OutputError as problem:
    print(problem)
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
labels.add([Rating("J2", "ring", 1, "answer", "ann")])
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """Where a new database of ratings can be."""
    return tmp_path / "labels.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgresql")


@pytest.fixture
def rater():
    """Starts a process that rates galaxies; all are ended with the test."""
    started = []

    def start(place, by, count):
        process = subprocess.Popen(
            [sys.executable, "-c", RATE, str(place), by, str(count)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def begin(*processes):
    """Let processes that were started begin at the same time."""
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.communicate()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def acknowledged(lines):
    """Entries and galaxies that a process said to be saved; its last line may be incomplete."""
    return {int(line.split()[0]): line.split()[1] for line in lines if line.endswith("\n")}


def test_what_was_acknowledged_is_there_after_a_process_is_killed_at_any_moment(place, rater):
    said: dict[int, str] = {}
    processes = [rater(place, f"p{number}", 5000) for number in range(2)]
    for before_the_end, process in zip((2, 17), processes, strict=True):
        begin(process)
        lines = [process.stdout.readline() for _ in range(before_the_end)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        assert process.wait() == -signal.SIGKILL
        said |= acknowledged(lines)
        with Labels.open(place, survey=SURVEY) as labels:
            saved = {row["entry"]: row["id_str"] for row in labels.log().to_pylist()}
        assert said.items() <= saved.items()
        # At most the rating that was about to be acknowledged is there beside them.
        assert len(saved) <= len(said) + 2


def test_two_processes_that_write_at_once_lose_nothing_and_are_never_handed_the_same(place, rater):
    processes = [rater(place, by, 25) for by in ("ann", "bob")]
    begin(*processes)
    said = [acknowledged(process.communicate(timeout=100)[0].splitlines(keepends=True)) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted([*said[0], *said[1]]) == list(range(1, 51))
    assert len({*said[0].values(), *said[1].values()}) == 50, "no galaxy was handed out twice"
    with Labels.open(place, survey=SURVEY) as labels:
        assert {row["entry"]: row["id_str"] for row in labels.log().to_pylist()} == said[0] | said[1]


def test_a_full_disk_is_one_message_and_loses_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FILL, tmp_path / "labels.sqlite"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be saved" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    with Labels.open(tmp_path / "labels.sqlite", survey=SURVEY) as labels:
        assert labels.log().column(tables.ID).to_pylist() == ["J1", "J2"]


@pytest.fixture
def guarded():
    """A folder whose files another user may read and not write; as an ordinary user it is one's own, without rights."""
    folder = Path(tempfile.mkdtemp(prefix="rarezoo-guarded-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


# The superuser may write everywhere, so that it becomes nobody after everything is imported.
READ = """
import os, sys
from rarezoo.errors import OutputError
from rarezoo.explore.labels import Labels, Rating
Labels.open(sys.argv[2], survey="survey-of-the-tests").close()
if not os.getuid():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
with Labels.open(sys.argv[1], survey="survey-of-the-tests", read_only=True) as labels:
    print(labels.interest("ring"))
try:
    Labels.open(sys.argv[1], survey="survey-of-the-tests").add([Rating("J2", "ring", 1, "answer", "ann")])
except OutputError as problem:
    print(problem)
"""


@pytest.mark.parametrize("killed", [False, True])
def test_ratings_in_a_folder_without_the_right_to_write_are_read(guarded, tmp_path, rater, killed):
    path = guarded / "labels.sqlite"
    with Labels.open(path, survey=SURVEY) as labels:
        labels.add([Rating("J1", "ring", 1, "answer", "ann")])
    expected = {"J1": 1.0}
    if killed:
        # What a killed process leaves: ratings that may be in the log beside the file only.
        process = rater(path, "bob", 5000)
        begin(process)
        process.stdout.readline()
        process.kill()
        process.wait()
        with Labels.open(path, survey=SURVEY, read_only=True) as labels:
            expected = labels.interest("ring")
    for file in guarded.iterdir():
        file.chmod(0o444)
    guarded.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", READ, path, tmp_path / "another.sqlite"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    read, message = done.stdout.splitlines()
    assert read == str(expected)
    assert "cannot be written" in message


# --- the commands


@pytest.fixture
def home(tmp_path):
    """A folder with a store of three galaxies, and a table of what somebody said about them."""
    vectors = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    EmbeddingStore.from_array(["J1", "J2", "J3"], vectors, out=tmp_path / "store")
    (tmp_path / "rings.csv").write_text("ID_str,Value\nJ1,yes\nJ2,no\nJ3,unsure\n")
    return tmp_path


def test_ratings_are_imported_shown_and_exported(cli, home):
    said = cli("rarezoo", "labels", "import", "store", "rings.csv", "label=ring", "by=ann", cwd=home)
    assert "3 ratings added, 0 known" in said.out
    assert (home / "store" / "labels.sqlite").exists()
    (home / "bob.csv").write_text("id_str,label,value,by\nJ1,ring,0,bob\nJ2,ring,0,bob\nJ1,interesting,4,bob\n")
    cli("rarezoo", "labels", "import", "store", "bob.csv", cwd=home)
    shown = cli("rarezoo", "labels", "show", "store", cwd=home).out
    assert "6 entries by ann, bob" in shown
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
            for line in shown.splitlines() if line.startswith("|")}  # fmt: skip
    assert rows["ring"] == ["answer", "3", "5", "2", "0.25", "1", "0.00"]
    assert rows["interesting"] == ["grade", "1", "1", "1", "4.00", "0", "–"]
    cli("rarezoo", "labels", "export", "store", "out=all.csv", cwd=home)
    assert len(pd.read_csv(home / "all.csv")) == 6
    said = cli("rarezoo", "labels", "export", "store", "out=ann.parquet", "by=ann", "label=ring", cwd=home).out
    assert "3 ratings: ann.parquet" in said
    assert tables.read(home / "ann.parquet", tables.LABELS).column("value").to_pylist() == [1.0, 0.0, None]
    again = cli("rarezoo", "labels", "import", "store", "all.csv", "labels=other/ratings.sqlite", cwd=home)
    assert "6 ratings added" in again.out


def test_the_ratings_of_a_search_are_in_its_folder(cli, tiny_search, tmp_path):
    galaxy = tables.read(tiny_search / "members.parquet", tables.MEMBERS).column(tables.ID)[0].as_py()
    (tmp_path / "rings.csv").write_text(f"id_str,value\n{galaxy},5\n")
    where = f"labels={tmp_path}/labels.sqlite"
    cli("rarezoo", "labels", "import", tiny_search, tmp_path / "rings.csv", "by=ann", where, cwd=tmp_path)
    assert "interesting" in cli("rarezoo", "labels", "show", tiny_search, where, cwd=tmp_path).out
    assert "no ratings yet" in cli("rarezoo", "labels", "show", tiny_search, cwd=tmp_path, expect=2).message


def test_the_commands_work_on_postgresql_and_show_no_password(cli, home, postgresql, postgresql_server):
    where = f"labels={postgresql}"
    cli("rarezoo", "labels", "import", "store", "rings.csv", "label=ring", "by=ann", where, cwd=home)
    said = [cli("rarezoo", "labels", "show", "store", where, cwd=home)]
    assert "3 entries by ann" in said[0].out
    wrong = where.replace("s3cret", "s3cret-wrong")
    for words in (["show", "store", wrong], ["show", "store", where.replace("labels=", "lables=")],
                  ["show", "store", postgresql], ["export", "store", "out=x.txt", where], ["show", postgresql],
                  ["show", "store", where.replace(f":{postgresql_server.port}", ":port")],
                  ["show", "store", f"labels='{postgresql}"], ["show", "store", f"{where}", "-m"]):  # fmt: skip
        said.append(cli("rarezoo", "labels", *words, cwd=home, expect=2))
    assert "s3cret" not in "".join(finished.text for finished in said)
    assert not (home / "store" / "labels.sqlite").exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["import", "store", "nothing.csv", "by=ann"], "nothing.csv"),
        (["import", "store", "rings.csv"], "by=NAME"),
        (["import", "store", "strangers.csv", "by=ann"], "J9"),
        (["import", "nowhere", "rings.csv", "by=ann"], "neither"),
        (["import", "store", "rings.csv", "by=ann", "labels=rings.csv"], "no database"),
        (["import", "store", "rings.csv", "by=ann", "labels=store"], "folder"),
        (["import", "store", "rings.csv", "by=ann", "kind=vote"], "vote"),
        (["export", "store", "out=ratings.csv"], "no ratings yet"),
        (["export", "store"], "out"),
        (["show", "store"], "no ratings yet"),
    ],
)
def test_a_mistake_is_one_message(cli, home, words, what):
    (home / "strangers.csv").write_text("id_str,value\nJ9,yes\n")
    assert what in cli("rarezoo", "labels", *words, cwd=home, expect=2).message


def test_galaxies_of_other_surveys_can_be_left_out(cli, home):
    (home / "strangers.csv").write_text("id_str,value\nJ9,yes\nJ1,no\n")
    said = cli("rarezoo", "labels", "import", "store", "strangers.csv", "by=ann", "unknown=skip", cwd=home)
    assert "1 ratings added, 0 known already, 1 galaxies" in said.out
