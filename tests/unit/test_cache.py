"""A result is computed once, by one process, and is complete or absent."""

import os
import shutil
import threading

import numpy as np
import pytest

from rarezoo import cache as cache_module
from rarezoo.cache import Cache, code_sha256, kept_array, locked
from rarezoo.errors import OutputError

pytestmark = pytest.mark.unit


def writer(calls, *, name="result"):
    """A ``make`` that writes two files and records its calls."""

    def make(place):
        calls.append(place)
        (place / "part").write_text("a part")
        (place / name).write_text("whole")

    return make


def test_a_result_is_computed_once_and_brought_to_every_target(tmp_path):
    calls, cache = [], Cache(tmp_path / "cache")
    for target in ("a", "b"):
        cache.fetch({"k": 15}, tmp_path / target, last="result", make=writer(calls))
        assert {file.name for file in (tmp_path / target).iterdir()} == {"result", "part"}
    assert len(calls) == 1
    cache.fetch({"k": 50}, tmp_path / "c", last="result", make=writer(calls))
    assert calls[0] != calls[1], "other settings, another result"


def test_a_result_that_a_killed_process_left_unfinished_is_computed_again(tmp_path):
    calls, cache = [], Cache(tmp_path / "cache")

    def killed(place):
        (place / "part").write_text("half a p")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.fetch({"k": 15}, tmp_path / "a", last="result", make=killed)
    assert not (tmp_path / "a" / "part").exists()
    cache.fetch({"k": 15}, tmp_path / "a", last="result", make=writer(calls))
    assert (tmp_path / "a" / "part").read_text() == "a part"


def test_a_target_that_lost_a_file_is_completed_without_computing(tmp_path):
    calls, cache = [], Cache(tmp_path / "cache")
    cache.fetch({}, tmp_path / "a", last="result", make=writer(calls))
    (tmp_path / "a" / "result").unlink()
    cache.fetch({}, tmp_path / "a", last="result", make=writer(calls))
    assert (tmp_path / "a" / "result").read_text() == "whole"
    assert len(calls) == 1


def test_two_processes_wait_for_each_other(tmp_path, caplog):
    calls, begun, go = [], threading.Event(), threading.Event()

    def slow(place):
        begun.set()
        assert go.wait(20)
        writer(calls)(place)

    def fetch(name, make):
        Cache(tmp_path / "cache").fetch({}, tmp_path / name, last="result", make=make)

    first = threading.Thread(target=fetch, args=("a", slow))
    first.start()
    assert begun.wait(20)
    with caplog.at_level("INFO"):
        second = threading.Thread(target=fetch, args=("b", writer(calls)))
        second.start()
        while "waiting" not in caplog.text:
            second.join(0.01)
    assert not (tmp_path / "b" / "result").exists()
    go.set()
    first.join(20)
    second.join(20)
    assert len(calls) == 1
    assert (tmp_path / "b" / "result").read_text() == "whole"


def test_files_are_copied_where_they_cannot_be_linked(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    Cache(tmp_path / "cache").fetch({}, tmp_path / "a", last="result", make=writer([]))
    assert (tmp_path / "a" / "result").read_text() == "whole"


@pytest.fixture
def component(tmp_path, monkeypatch):
    """A function that writes the source of a module ``component_under_test``."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source):
        (tmp_path / "component_under_test.py").write_text(source)
        cache_module._module_sha256.cache_clear()

    yield write
    cache_module._module_sha256.cache_clear()


def test_a_result_is_computed_again_when_the_code_that_computes_it_changes(tmp_path, component):
    cache = Cache(tmp_path / "cache")

    def value(number):
        return int(cache.array({}, lambda: np.array(number), code=["component_under_test"]))

    component("x = 1")
    assert value(1) == value(2) == 1
    component("x = 2")
    assert value(3) == 3
    component("x = 1")
    assert value(4) == 1


def test_the_code_of_an_object_is_that_of_its_class_its_base_classes_and_the_modules_it_names(component):
    class Base:
        pass

    class Named(Base):
        computed_by = ("component_under_test",)

    component("x = 1")
    before = code_sha256(Named())
    assert before == code_sha256(Named)
    component("x = 2")
    assert code_sha256(Named()) != before


def test_an_array_is_kept_in_its_file_and_a_damaged_file_is_computed_again(tmp_path, caplog):
    path = tmp_path / "new folder" / "values.npy"
    np.testing.assert_array_equal(kept_array(path, lambda: np.arange(3)), [0, 1, 2])
    np.testing.assert_array_equal(kept_array(path, lambda: np.arange(9)), [0, 1, 2])
    path.write_bytes(path.read_bytes()[:-4])
    np.testing.assert_array_equal(kept_array(path, lambda: np.arange(5)), np.arange(5))
    assert str(path) in caplog.text
    assert [file.name for file in path.parent.iterdir()] == ["values.npy"]


def test_without_a_file_an_array_is_computed_each_time():
    assert kept_array(None, lambda: np.array(1)) == 1


@pytest.mark.parametrize("use", ["array", "fetch"])
def test_a_cache_that_cannot_be_written_names_its_own_setting(tmp_path, use):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "cache")
    ways = {
        "array": lambda: cache.array({"n": 1}, lambda: np.arange(3)),
        "fetch": lambda: cache.fetch({"n": 1}, tmp_path / "target", last="x", make=lambda folder: None),
    }
    with pytest.raises(OutputError, match=r"cannot write .*file/cache. Choose another cache=DIR"):
        ways[use]()


def rows(*values):
    """Blocks of an array with one column."""
    return lambda: [np.full((1, 1), value) for value in values]


def test_an_array_that_stays_on_the_disk_is_written_once_and_not_read_into_memory(tmp_path):
    cache = Cache(tmp_path)
    made = cache.mapped({"a": 1}, shape=(2, 1), blocks=rows(1, 2))
    again = cache.mapped({"a": 1}, shape=(2, 1), blocks=lambda: 1 / 0)
    assert made.tolist() == again.tolist() == [[1], [2]]
    assert made.dtype == np.float32
    assert isinstance(made.base, np.memmap)
    assert cache.mapped({"a": 2}, shape=(1, 1), blocks=rows(3)).tolist() == [[3]]


def test_a_damaged_array_on_the_disk_is_written_again_and_what_a_killed_process_left_is_deleted(tmp_path, caplog):
    cache = Cache(tmp_path)
    cache.mapped({}, shape=(2, 1), blocks=rows(1, 2))
    (path,) = tmp_path.glob("*.npy")
    path.write_bytes(path.read_bytes()[:-4])
    (tmp_path / f".{path.name}.123.partial").write_bytes(b"half")
    assert cache.mapped({}, shape=(2, 1), blocks=rows(3, 4)).tolist() == [[3], [4]]
    assert "damaged" in caplog.text
    assert not list(tmp_path.glob(".*.partial"))


def test_blocks_that_end_too_early_leave_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="1 rows for an array of shape"):
        Cache(tmp_path).mapped({}, shape=(2, 1), blocks=rows(1))
    assert not list(tmp_path.glob("*.npy"))
    assert not list(tmp_path.glob(".*.partial"))


def test_an_array_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(OutputError, match="cannot write"):
        Cache(tmp_path / "cache").mapped({}, shape=(1, 1), blocks=rows(1))


def test_who_waits_for_a_lock_takes_it_also_when_its_folder_is_removed_meanwhile(tmp_path, caplog):
    caplog.set_level("INFO", logger="rarezoo")
    place, taken = tmp_path / "locks" / "part", threading.Event()

    def wait():
        with locked(place):
            taken.set()

    with locked(place):
        waiting = threading.Thread(target=wait)
        waiting.start()
        while "waiting" not in caplog.text:
            waiting.join(0.01)
        shutil.rmtree(place.parent)
    waiting.join(timeout=20)
    assert taken.is_set()
