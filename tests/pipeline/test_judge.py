"""``rarezoo judge`` on two stores of a small mock survey, embedded by networks that have learnt nothing."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from rarezoo.data.surveys.mock import Mock
from rarezoo.data.trees import named_tree
from rarezoo.embeddings.embed import EmbedRun
from rarezoo.embeddings.judge import USUAL, Answer, Judge
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, OutputError, RarezooError, StoreError
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.network import build_network

pytestmark = pytest.mark.pipeline

GALAXIES = 90
NORTH = Answer("north", "dec", -4.0)


def store(home, name, *, seed, galaxies=GALAXIES):
    """Embeddings of a mock survey under an untrained network of its own."""
    encoder, tree = EfficientNetB0(input_size=32, bottleneck=16), named_tree("desi")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(encoder, tree)
    checkpoint = Checkpoint.save(home / f"net-{name}", network=network, encoder=encoder, tree=tree, card={})
    survey = Mock(n=galaxies, side=32, workers=1, cache=str(home / "cache"))
    EmbedRun(data=survey, checkpoint=str(checkpoint.folder), out=str(home / name), workers=0).run()
    return home / name


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("judge")
    for seed, name in enumerate(("one", "other")):
        store(home, name, seed=seed)
    store(home, "fewer", seed=0, galaxies=40)
    return home


def rarezoo(*words, cwd):
    command = [sys.executable, "-c", "from rarezoo.cli import main; main()", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=400, env=environment)


def test_the_command_prints_ranks_and_a_row_per_answer_and_writes_them(home):
    answers = ["--answer", "north=dec>-4", "--answer", "east=ra>20"]
    done = rarezoo("judge", "one", "other", *answers, "--whiten", "4", "--out", "judged", cwd=home)
    assert done.returncode == 0, done.stderr
    first, second, about, head, _, north, east = done.stdout.splitlines()
    assert first.startswith("net-one: effective rank ")
    assert second.startswith("net-other: effective rank ")
    assert f"{GALAXIES} galaxies of mock, split all" in about
    assert all(f"| {name} " in head for name in ("chance", "net-one", "net-one whitened", "net-other whitened"))
    assert north.startswith("| north (dec > -4)")
    assert east.startswith("| east (ra > 20)")
    assert (home / "judged" / "spectra.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((home / "judged" / "judge.json").read_text())
    dimension = told["stores"]["net-one"]["local_dimension"]
    assert first.endswith(f"local dimension {dimension:.1f}")
    assert 1 < dimension < 128
    assert sum(told["stores"]["net-one"]["explained_variance_ratios"]) == pytest.approx(1)
    assert [one["name"] for one in told["answers"]] == ["north", "east"]
    for answer in told["answers"]:
        assert f"{answer['representations']['net-one']['average_precision']['value']:.4f} (" in north + east


def test_numbers_of_a_store_do_not_depend_on_the_others(home):
    together = Judge([home / "one", home / "other"], [NORTH]).run().scores[0]
    alone = Judge([home / "other"], [NORTH]).run().scores[0]
    np.testing.assert_array_equal(together.rankings["net-other"].precisions, alone.rankings["net-other"].precisions)
    np.testing.assert_array_equal(together.baseline.precisions, alone.baseline.precisions)


def test_a_split_is_judged_by_its_own_galaxies(home):
    galaxies = Mock(n=GALAXIES, side=32, workers=1, cache=str(home / "cache")).open()
    rows = galaxies.rows("train")
    score = Judge([home / "one"], [NORTH], split="train").run().scores[0]
    assert score.baseline.galaxies == len(rows)
    assert score.baseline.positives == np.sum(galaxies.catalogue["dec"].to_numpy()[rows] > NORTH.above)


def test_answers_that_are_known_of_some_galaxies_are_judged_by_those(home, monkeypatch):
    from rarezoo.embeddings import judge

    known = np.arange(GALAXIES) % 3 > 0
    values = judge._values
    monkeypatch.setattr(judge, "_values", lambda *given: np.where(known, values(*given), np.nan))
    score = Judge([home / "one"], [NORTH]).run().scores[0]
    assert score.baseline.galaxies == score.rankings["net-one"].galaxies == known.sum()


def test_the_same_command_finds_its_photometry_again_and_another_is_refused(home, tmp_path, monkeypatch):
    out = str(tmp_path / "out")
    first = Judge([home / "one"], [NORTH], out=out).run()
    monkeypatch.setattr("rarezoo.data.photometry.measurements", None)
    again = Judge([home / "one"], [NORTH], out=out).run()
    assert again.content()["answers"] == first.content()["answers"]
    with pytest.raises(OutputError, match="holds a run with other settings"):
        Judge([home / "one"], [NORTH], whiten=3, out=out).run()


def test_stores_under_one_name_are_told_apart_by_their_folders(home, tmp_path):
    (tmp_path / "copy").mkdir()
    for one in (home / "one").iterdir():
        (tmp_path / "copy" / one.name).write_bytes(one.read_bytes())
    spectra = Judge([home / "one", tmp_path / "copy"], [NORTH]).run().spectra
    assert list(spectra) == [f"net-one ({home / 'one'})", f"net-one ({tmp_path / 'copy'})"]


@pytest.mark.parametrize(
    ("answers", "settings", "kind", "told"),
    [
        ([], {}, ConfigError, "no answer to judge by: mock.*--answer NAME=COLUMN>VALUE"),
        ([Answer("north", "dek", 0)], {}, ConfigError, "has no column: dek. Did you mean dec"),
        ([Answer("north", "survey", 0)], {}, ConfigError, "not a column of numbers: survey"),
        ([Answer("pole", "dec", 80)], {}, ConfigError, f"pole cannot be ranked: dec > 80: 0 of {GALAXIES}"),
        ([Answer("sky", "dec", -80)], {}, ConfigError, f"sky cannot be ranked: dec > -80: {GALAXIES} of {GALAXIES}"),
        ([NORTH], {"split": "holdout"}, ConfigError, "unknown split: holdout"),
        ([NORTH], {"whiten": 0}, ConfigError, "too few components to whiten: 0"),
    ],
)
def test_what_cannot_be_judged_is_refused(home, answers, settings, kind, told):
    with pytest.raises(kind, match=told):
        Judge([home / "one"], answers, **settings).run()


def test_stores_of_different_surveys_are_refused_in_one_message(home):
    done = rarezoo("judge", "one", "fewer", "--answer", "north=dec>-4", cwd=home)
    assert done.returncode == 2
    assert done.stderr.startswith("rarezoo: stores of different surveys: one and fewer.")
    assert "Traceback" not in done.stderr


def test_a_survey_that_has_changed_is_refused(home, tmp_path):
    opened = EmbeddingStore.open(home / "one")
    for one in opened.folder.iterdir():
        (tmp_path / one.name).write_bytes(one.read_bytes())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["survey_settings"]["volunteers"] += 1
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="has changed since it was embedded"):
        Judge([tmp_path], [NORTH]).run()


@pytest.mark.parametrize("text", ["ring", "ring=Class8.1", "ring=Class8.1>many", "=Class8.1>0.3", "ring=>0.3"])
def test_an_answer_that_does_not_read_is_refused(text):
    with pytest.raises(RarezooError, match="NAME=COLUMN>VALUE"):
        Answer.parsed(text)


def test_an_answer_reads_name_column_and_threshold():
    assert Answer.parsed("ring=Class8.1>0.3") == USUAL["gz2"][0]
