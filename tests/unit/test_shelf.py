"""What searches share is made once, and whole."""

import os
import threading

import pytest

from rarezoo.cache import Shelf

pytestmark = pytest.mark.unit


def maker(made, *, name="thing"):
    def make(place):
        made.append(place)
        (place / "part").write_text("a part")
        (place / name).write_text("whole")

    return make


def test_a_thing_is_made_once_and_brought_to_all(tmp_path):
    made, shelf = [], Shelf(tmp_path / "shelf")
    for target in ("a", "b"):
        shelf.fetch({"k": 15}, tmp_path / target, last="thing", make=maker(made))
        assert {one.name for one in (tmp_path / target).iterdir()} == {"thing", "part"}
    assert len(made) == 1
    shelf.fetch({"k": 50}, tmp_path / "c", last="thing", make=maker(made))
    assert made[0] != made[1], "other settings, another thing"


def test_what_a_killed_process_left_is_made_anew(tmp_path):
    made, shelf = [], Shelf(tmp_path / "shelf")

    def killed(place):
        (place / "part").write_text("half a p")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shelf.fetch({"k": 15}, tmp_path / "a", last="thing", make=killed)
    assert not (tmp_path / "a" / "part").exists()
    shelf.fetch({"k": 15}, tmp_path / "a", last="thing", make=maker(made))
    assert (tmp_path / "a" / "part").read_text() == "a part"


def test_a_target_brought_half_is_brought_whole(tmp_path):
    made, shelf = [], Shelf(tmp_path / "shelf")
    shelf.fetch({}, tmp_path / "a", last="thing", make=maker(made))
    (tmp_path / "a" / "thing").unlink()
    shelf.fetch({}, tmp_path / "a", last="thing", make=maker(made))
    assert (tmp_path / "a" / "thing").read_text() == "whole"
    assert len(made) == 1


def test_two_at_once_wait_for_each_other(tmp_path, caplog):
    made, begun, go = [], threading.Event(), threading.Event()

    def slow(place):
        begun.set()
        assert go.wait(20)
        maker(made)(place)

    def fetch(name, make):
        Shelf(tmp_path / "shelf").fetch({}, tmp_path / name, last="thing", make=make)

    first = threading.Thread(target=fetch, args=("a", slow))
    first.start()
    assert begun.wait(20)
    with caplog.at_level("INFO"):
        second = threading.Thread(target=fetch, args=("b", maker(made)))
        second.start()
        while "waiting" not in caplog.text:
            second.join(0.01)
    assert not (tmp_path / "b" / "thing").exists()
    go.set()
    first.join(20)
    second.join(20)
    assert len(made) == 1
    assert (tmp_path / "b" / "thing").read_text() == "whole"


def test_files_are_copied_where_they_cannot_be_linked(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    Shelf(tmp_path / "shelf").fetch({}, tmp_path / "a", last="thing", make=maker([]))
    assert (tmp_path / "a" / "thing").read_text() == "whole"
