"""``rarezoo serve``: what it refuses before it serves, and that a process of it answers and ends as it should."""

import json
import shutil
import signal
import socket
import sqlite3
import urllib.error
import urllib.request

import pytest
from made_up import survey_on_disk

from rarezoo.explore.labels import Labels

pytestmark = pytest.mark.pipeline

QUICK = ["beside=[]", "components=0", "port=0"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a search, its store and the images of its survey."""
    folder = tmp_path_factory.mktemp("serve")
    survey_on_disk(folder)
    return folder


@pytest.fixture
def moved(home, tmp_path):
    """A copy in which something may be missing."""
    return shutil.copytree(home, tmp_path / "moved") and tmp_path / "moved"


def refused(cli, *words, cwd):
    return cli("rarezoo", "serve", *words, cwd=cwd, expect=2).message


def test_what_is_no_search_is_refused(cli, home):
    assert "cutouts" in refused(cli, "cutouts", cwd=home)
    assert "nowhere" in refused(cli, "nowhere", cwd=home)
    assert "galaxies.csv" in refused(cli, "galaxies.csv", cwd=home)


def test_a_port_in_use_is_refused_with_a_way_out(cli, home):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        message = refused(cli, "search", *QUICK[:2], f"port={port}", cwd=home)
    assert str(port) in message
    assert "port=0" in message


@pytest.mark.parametrize(("words", "named"), [
    (["host=192.0.2.1"], "192.0.2.1"), (["host=no such host"], "no such host"), (["port=70000"], "70000"),
    (["token=short"], "token"), (["token=with a space in it"], "token"), (["ranker=magic"], "magic"),
    (["labels=galaxies.csv"], "galaxies.csv"), (["labels=nowhere/labels.sqlite", "read_only=true"], "nowhere"),
])  # fmt: skip
def test_settings_that_cannot_be_served_are_refused(cli, home, words, named):
    assert named in refused(cli, "search", *QUICK, *words, cwd=home)


def test_a_search_whose_store_has_moved_is_refused(cli, moved, home, tmp_path):
    (home / "store").rename(home / "elsewhere")
    try:
        shutil.rmtree(moved / "store")
        assert "store" in refused(cli, "search", *QUICK, cwd=moved)
    finally:
        (home / "elsewhere").rename(home / "store")


def test_images_that_have_moved_are_refused_with_a_way_out(cli, home):
    (home / "cutouts").rename(home / "elsewhere")
    try:
        message = refused(cli, "search", *QUICK, cwd=home)
        assert "cutouts" in message
        assert "images=false" in message
    finally:
        (home / "elsewhere").rename(home / "cutouts")


def test_images_that_were_all_deleted_are_refused(cli, home, tmp_path):
    (tmp_path / "kept").mkdir()
    files = list((home / "cutouts").iterdir())
    for file in files:
        file.rename(tmp_path / "kept" / file.name)
    try:
        assert "images=false" in refused(cli, "search", *QUICK, cwd=home)
    finally:
        for file in files:
            (tmp_path / "kept" / file.name).rename(file)


def test_ratings_of_another_survey_are_refused(cli, home):
    Labels.open(home / "other.sqlite", survey="another survey").close()
    assert "other.sqlite" in refused(cli, "search", *QUICK, "labels=other.sqlite", cwd=home)


def test_a_database_of_a_newer_version_is_refused(cli, home):
    Labels.of(home / "search", home / "newer.sqlite").close()
    with sqlite3.connect(home / "newer.sqlite") as database:
        database.execute("UPDATE rarezoo_about SET value = '99' WHERE key = 'schema'")
    database.close()
    assert "newer" in refused(cli, "search", *QUICK, "labels=newer.sqlite", cwd=home)


class Served:
    """A server in a process of its own."""

    def __init__(self, start_process, home, *words):
        self.process = start_process("rarezoo", "serve", *words, *QUICK, cwd=home)

    def wait(self):
        """Wait for the link that it prints."""
        self.said = ""
        while "Ctrl-C" not in self.said:
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            self.said += line
        self.link = next(line.removeprefix("Open ").strip() for line in self.said.splitlines() if line[:5] == "Open ")
        self.base, _, self.token = self.link.partition("/?token=")
        return self

    def ask(self, path, body=None):
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.base}/api/{path}", content, headers)) as answer:
            return json.load(answer)

    def end(self, ended, how=signal.SIGINT):
        self.process.send_signal(how)
        finished = ended(self.process)
        assert "Traceback" not in finished.err
        assert self.token not in finished.err
        return finished


def rating(galaxy, value, second):
    return {
        "id_str": galaxy, "label": "interesting", "kind": "grade", "value": value, "by": "ann",
        "at": f"2026-01-31T12:00:{second:02d}Z",
    }  # fmt: skip


def test_two_servers_on_one_file_answer_their_links_and_lose_nothing(start_process, ended, home):
    servers = [Served(start_process, home, "search", "labels=both.sqlite", "by=ann") for _ in range(2)]
    first, second = (server.wait() for server in servers)
    assert first.token != second.token
    assert len(first.token) >= 32
    assert first.base.startswith("http://127.0.0.1:")
    assert "ssh -L" in first.said
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{first.base}/api/about")
    with urllib.request.urlopen(first.link) as page:
        assert b"/assets/rate.js" in page.read()
    for number in range(10):
        servers[number % 2].ask("ratings", [rating(f"g{number + 5:04d}", number % 6, number)])
    assert {server.ask("progress")["rated"] for server in servers} == {10}
    first.process.kill()
    first.process.communicate()
    second.ask("ratings", [rating("g0020", 1, 30)])
    assert "11 ratings are kept" in second.end(ended).out
    with Labels.of(home / "search", home / "both.sqlite") as labels:
        assert len(labels.ratings()) == 11


def test_a_store_is_served_to_others_with_a_warning(start_process, ended, home):
    server = Served(start_process, home, "store", "host=0.0.0.0").wait()
    assert server.ask("about")["classes"] is None
    server.process.send_signal(signal.SIGTERM)
    finished = ended(server.process)
    assert "not encrypted" in finished.err
    assert "Traceback" not in finished.err
    assert (home / "store" / "labels.sqlite").exists()
