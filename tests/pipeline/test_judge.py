"""``rarezoo judge`` on two stores of a small mock survey, embedded by networks that have learnt nothing."""

import json

import numpy as np
import pytest
import torch

from rarezoo.data.surveys.mock import Mock
from rarezoo.data.trees import named_tree
from rarezoo.embeddings.embed import EmbedRun
from rarezoo.embeddings.judge import DEFAULT_CRITERIA, Criterion, JudgeRun
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, OutputError, RarezooError, StoreError
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.network import build_network

pytestmark = pytest.mark.pipeline

GALAXIES = 90
NORTH = "north=dec>-4"


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


def test_the_command_prints_ranks_and_a_row_per_answer_and_writes_them(cli, home):
    words = ["one", "other", "answers=north=dec>-4,east=ra>20", "whiten=4", "out=judged"]
    out = cli("rarezoo", "judge", *words, cwd=home).out
    first, second, about, head, _, north, east = out.splitlines()
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
    together = JudgeRun(stores=[str(home / "one"), str(home / "other")], answers=[NORTH]).run().scores[0]
    alone = JudgeRun(stores=[str(home / "other")], answers=[NORTH]).run().scores[0]
    np.testing.assert_array_equal(together.rankings["net-other"].precisions, alone.rankings["net-other"].precisions)
    np.testing.assert_array_equal(together.baseline.precisions, alone.baseline.precisions)


def test_a_split_is_judged_by_its_own_galaxies(home):
    galaxies = Mock(n=GALAXIES, side=32, workers=1, cache=str(home / "cache")).open()
    rows = galaxies.rows("train")
    score = JudgeRun(stores=[str(home / "one")], answers=[NORTH], split="train").run().scores[0]
    assert score.baseline.galaxies == len(rows)
    assert score.baseline.positives == np.sum(galaxies.catalogue["dec"].to_numpy()[rows] > -4)


def test_answers_that_are_known_of_some_galaxies_are_judged_by_those(home, monkeypatch):
    known = np.arange(GALAXIES) % 3 > 0
    values = Criterion.values
    monkeypatch.setattr(Criterion, "values", lambda *arguments: np.where(known, values(*arguments), np.nan))
    score = JudgeRun(stores=[str(home / "one")], answers=[NORTH]).run().scores[0]
    assert score.baseline.galaxies == score.rankings["net-one"].galaxies == known.sum()


def test_the_same_command_finds_its_photometry_again_and_another_is_refused(home, tmp_path, monkeypatch):
    out = str(tmp_path / "out")
    first = JudgeRun(stores=[str(home / "one")], answers=[NORTH], out=out).run()
    monkeypatch.setattr("rarezoo.data.photometry.measurements", None)
    again = JudgeRun(stores=[str(home / "one")], answers=[NORTH], out=out).run()
    assert again.content()["answers"] == first.content()["answers"]
    with pytest.raises(OutputError, match="holds a run with other settings"):
        JudgeRun(stores=[str(home / "one")], answers=[NORTH], whiten=3, out=out).run()


def test_stores_under_one_name_are_told_apart_by_their_folders(home, tmp_path):
    (tmp_path / "copy").mkdir()
    for one in (home / "one").iterdir():
        (tmp_path / "copy" / one.name).write_bytes(one.read_bytes())
    spectra = JudgeRun(stores=[str(home / "one"), str(tmp_path / "copy")], answers=[NORTH]).run().spectra
    assert list(spectra) == [f"net-one ({home / 'one'})", f"net-one ({tmp_path / 'copy'})"]


@pytest.mark.parametrize(
    ("answers", "settings", "parts"),
    [
        (["north=dek>0"], {}, "has no column: dek. Did you mean dec"),
        (["north=survey>0"], {}, "not a column of numbers: survey"),
        (["pole=dec>80"], {}, f"pole cannot be ranked: dec > 80: 0 of {GALAXIES}"),
        (["sky=dec>-80"], {}, f"sky cannot be ranked: dec > -80: {GALAXIES} of {GALAXIES}"),
        ([NORTH], {"split": "holdout"}, "split.*holdout"),
        ([NORTH], {"whiten": 0}, "whiten.*0"),
    ],
)
def test_settings_that_cannot_be_judged_by_are_refused(home, answers, settings, parts):
    with pytest.raises(ConfigError, match=parts):
        JudgeRun(stores=[str(home / "one")], answers=answers, **settings).run()


def test_without_kinds_of_galaxies_only_the_spectrum_is_measured(home, caplog):
    judgement = JudgeRun(stores=[str(home / "one")]).run()
    assert judgement.scores == ()
    assert "effective rank" in judgement.summary()
    assert "answers=" in caplog.text


def imported(home, folder, **settings):
    """The embeddings of a store, as somebody else's network would bring them."""
    source = EmbeddingStore.open(home / "one")
    return EmbeddingStore.from_array(source.ids, source.embeddings(), out=folder, name="foreign", **settings)


def test_imported_embeddings_are_judged_by_their_spectrum_and_with_a_survey_by_kinds_of_galaxies(home, tmp_path):
    store = imported(home, tmp_path / "store")
    alone = JudgeRun(stores=[str(store.folder)]).run()
    assert (alone.galaxies, alone.scores) == (GALAXIES, ())
    with pytest.raises(StoreError, match="data="):
        JudgeRun(stores=[str(store.folder)], answers=[NORTH]).run()
    survey = Mock(n=GALAXIES, side=32, workers=1, cache=str(home / "cache"))
    both = JudgeRun(stores=[str(store.folder), str(home / "one")], answers=[NORTH], data=survey).run()
    precisions = [both.scores[0].rankings[name].precisions for name in ("foreign", "net-one")]
    np.testing.assert_array_equal(*precisions)


def test_an_import_that_names_its_survey_needs_no_further_words(home, tmp_path):
    survey = Mock(n=GALAXIES, side=32, workers=1, cache=str(home / "cache"))
    store = imported(home, tmp_path / "store", survey=survey)
    assert JudgeRun(stores=[str(store.folder)], answers=[NORTH]).run().scores[0].baseline.galaxies == GALAXIES


def test_stores_of_different_surveys_are_refused_in_one_message(cli, home):
    refused = cli("rarezoo", "judge", "one", "fewer", "answers=north=dec>-4", cwd=home, expect=2)
    assert "one and fewer" in refused.message


def test_a_survey_that_has_changed_is_refused(home, tmp_path):
    opened = EmbeddingStore.open(home / "one")
    for one in opened.folder.iterdir():
        (tmp_path / one.name).write_bytes(one.read_bytes())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["survey_settings"]["volunteers"] += 1
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="has changed since it was embedded"):
        JudgeRun(stores=[str(tmp_path)], answers=[NORTH]).run()


@pytest.mark.parametrize("text", ["ring", "ring=Class8.1", "ring=Class8.1>many", "=Class8.1>0.3", "ring=>0.3"])
def test_an_answer_that_does_not_read_is_refused(text):
    with pytest.raises(RarezooError, match="NAME=COLUMN>VALUE"):
        Criterion.parsed(text)


def test_an_answer_reads_name_column_and_threshold():
    assert Criterion.parsed("ring=Class8.1>0.3") == DEFAULT_CRITERIA["gz2"][0]
