"""What the demo finds on several skies: finished demos are kept, and the table counts what they say."""

import subprocess

import pandas as pd
import pytest

from benchmarks import demo
from benchmarks.demo import DemoSeeds
from rarezoo import tables
from rarezoo.demo import RECORD
from rarezoo.errors import ConfigError

pytestmark = pytest.mark.unit


def record(*, found, candidate, missed, minutes=2.0):
    """The record of a demo, with populations of these names."""
    populations = [
        {"population": name, "found": name in found, "shown": name not in missed}
        for name in (*found, *candidate, *missed)
    ]
    return {
        "planted": len(populations), "planted_found": len(found), "planted_shown": len(found) + len(candidate),
        "populations": populations, "seconds": {"survey": 60 * minutes - 30, "search": 30},
    }  # fmt: skip


RECORDS = {
    11: record(found=["ring", "shells"], candidate=["bleed"], missed=[], minutes=3),
    12: record(found=["ring"], candidate=[], missed=["bleed", "shells"], minutes=4),
}


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A folder in which the demos of both seeds are finished; none may be run again."""
    monkeypatch.setattr(demo.subprocess, "run", lambda *_, **__: pytest.fail("a finished demo was run again"))
    for seed, content in RECORDS.items():
        tables.write_json(content, tmp_path / f"seed{seed}" / RECORD)
    return tmp_path


def test_the_table_counts_what_finished_demos_found(finished):
    text = DemoSeeds(seeds="11-12", out=str(finished)).run()
    rows = pd.read_csv(finished / "results.csv", dtype=str).set_index("sky")
    assert rows.loc["11", ["found", "as a candidate", "missed", "minutes"]].tolist() == ["2 of 3", "1", "–", "3.0"]
    assert rows.loc["12", ["found", "as a candidate", "missed"]].tolist() == ["1 of 3", "0", "bleed, shells"]
    assert rows.loc["mean", "found"] == "1.5 (1.0–2.0)"
    assert rows.loc["mean", ["as a candidate", "minutes"]].tolist() == ["0.5", "3.5"]
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in text.splitlines() if "of 2" in line]
    assert cells == [["ring", "2 of 2"], ["shells", "1 of 2"], ["bleed", "0 of 2"]]


def test_a_demo_that_is_missing_is_run_with_its_seed_and_folder(tmp_path, monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        tables.write_json(RECORDS[11], tmp_path / "seed11" / RECORD)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(demo.subprocess, "run", run)
    DemoSeeds(seeds="11", galaxies=500, out=str(tmp_path)).run()
    assert commands[0][-4:] == ["demo", "seed=11", "galaxies=500", f"out={tmp_path / 'seed11'}"]


def test_a_demo_that_fails_is_one_message_with_its_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(demo.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, -9))
    with pytest.raises(ConfigError, match=r"a demo failed: seed 13, status -9"):
        DemoSeeds(seeds="13", out=str(tmp_path)).run()
