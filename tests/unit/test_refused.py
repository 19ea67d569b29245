"""A command that is refused leaves its output folder as it was; a result and its log stay."""

import os

import pytest

from rarezoo.refused import FolderBefore

pytestmark = pytest.mark.unit


@pytest.fixture
def held(tmp_path):
    """A folder that holds a finished run."""
    folder = tmp_path / "held"
    (folder / ".hydra").mkdir(parents=True)
    for name in ("config.yaml", "overrides.yaml"):
        (folder / ".hydra" / name).write_text("- seed=1\n")
    for name in ("run.log", "settings.json", "classes.parquet"):
        (folder / name).write_text(name)
        os.utime(folder / name, (1, 1))
    return folder


def begin(folder):
    """Do what Hydra does before a command looks at its settings."""
    before = FolderBefore.of(folder)
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    for name in ("config.yaml", "overrides.yaml"):
        (folder / ".hydra" / name).write_text("- seed=2\n")
    with (folder / "run.log").open("a") as log:
        log.write("refused")
    return before


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_new_folder_and_new_ones_above_it_are_removed(tmp_path):
    before = begin(tmp_path / "runs" / "mine")
    (tmp_path / "runs" / "mine" / "settings.json").write_text("{}")
    before.put_back()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_held_a_run_has_its_own_log_and_record_again(held):
    earlier = content(held)
    begin(held).put_back()
    assert content(held) == earlier


def test_a_folder_of_the_user_without_a_run_keeps_what_it_held(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    os.utime(tmp_path / "notes.txt", (1, 1))
    before = begin(tmp_path)
    (tmp_path / "settings.json").write_text("{}")
    before.put_back()
    assert content(tmp_path) == {"notes.txt": "mine"}


@pytest.mark.parametrize("name", ["held", "new"])
def test_what_was_computed_stays_with_its_log(held, name):
    folder = held.parent / name
    before = begin(folder)
    (folder / "fitted").mkdir()
    (folder / "fitted" / "map.npy").write_text("computed")
    before.put_back()
    found = content(folder)
    assert found["fitted/map.npy"] == "computed"
    assert found["run.log"].endswith("refused")
    assert "seed=2" in found[".hydra/overrides.yaml"]
