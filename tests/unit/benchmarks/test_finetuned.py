"""The tables of finetuned networks: means and intervals over draws, and over the populations of a mock sky."""

import json

import pytest

import rarezoo as rz
from benchmarks.finetuned import FinetunedFewLabels

pytestmark = pytest.mark.unit


def trial(folder, contestant, draw, kind, auc):
    row = {"auc": auc, "average_precision": auc, "balanced_accuracy": auc, "seconds": 1}
    row |= {"contestant": contestant, "n": 33, "draw": draw, "kind": kind}
    (folder / f"{contestant}-33-{draw}-{kind}.json").write_text(json.dumps(row))


def tables_of(folder):
    job = FinetunedFewLabels(data=rz.Mock(n=20), numbers=[33], draws="0-1", measure=False, out=str(folder))
    return [line for line in job.run().splitlines() if "_frozen " in line or "_frozen − " in line]


def test_draws_of_one_kind_are_the_unit_of_its_intervals(tmp_path):
    for draw, auc in enumerate((0.7, 0.9)):
        trial(tmp_path, "ours_frozen", draw, "", auc)
        trial(tmp_path, "imagenet_frozen", draw, "", auc - 0.1)
    ours, imagenet, difference = tables_of(tmp_path)
    assert "| 2     | 0.800 (" in ours
    assert "| 0.700 (" in imagenet
    assert "+0.100 (+0.100–+0.100)" in difference


def test_each_population_counts_once_however_many_draws_it_has(tmp_path):
    for draw, kind, auc in ((0, "shells", 0.6), (1, "shells", 0.8), (0, "ghost", 0.9)):
        trial(tmp_path, "ours_frozen", draw, kind, auc)
    (ours,) = tables_of(tmp_path)
    # The mean of 0.7 (shells) and 0.9 (ghost), and not that of the three trials.
    assert "0.800 (" in ours
    assert [cell.strip() for cell in ours.split("|")[3:5]] == ["2", "2"], "draws and populations"
