"""Features of a tier's skies, above all those by a network whose votes were shuffled."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from mocksky.populations import BLENDS, PLANTED
from rarezoo.benchmark.harness import TrialFolder, rank_features
from rarezoo.benchmark.methods import FEATURES
from rarezoo.benchmark.planted import planted_vectors
from rarezoo.benchmark.scores import Truth
from rarezoo.benchmark.tiers import (
    ODD,
    KnownAnswers,
    MockGalaxies,
    Shuffled,
    Sky,
    Tier,
    Vectors,
    tier_from,
    with_medians,
)
from rarezoo.data.surveys.mock import Mock
from rarezoo.embeddings.store import EmbeddingStore, Manifest
from rarezoo.errors import ConfigError, DataError, StoreError
from rarezoo.training.objectives.votes import Votes
from rarezoo.training.short import short_training

pytestmark = pytest.mark.unit

IDS = [f"g{row:03d}" for row in range(40)]
VECTORS = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


def written(folder, vectors=VECTORS, ids=IDS):
    manifest = Manifest(
        survey="gz2", survey_sha256="a", survey_settings={}, checkpoint="net", checkpoint_sha256="b",
        precision="float32", width=vectors.shape[1], dtype="float32", rows=len(ids), shard_rows=100, answers=(),
    )  # fmt: skip
    store = EmbeddingStore.create(folder, manifest)
    store.write_shard(0, ids=ids, embeddings=vectors, fractions=np.empty((len(ids), 0)))
    return store


@pytest.fixture
def known(tmp_path):
    written(tmp_path / "store")
    (tmp_path / "known.csv").write_text("id_str,label\ng001,ring\ng002,ring\n")
    return KnownAnswers(store=str(tmp_path / "store"), answers=str(tmp_path / "known.csv"))


def test_a_store_by_shuffled_votes_gives_its_features(tmp_path, known):
    written(tmp_path / "blind", 1 - VECTORS)
    tier = replace(known, shuffled=str(tmp_path / "blind"))
    sky = tier.sky(1, tmp_path / "sky1")
    assert np.array_equal(sky.features("shuffled"), 1 - VECTORS)
    assert sky.is_available("shuffled")
    assert "shuffled" in tier.features


def test_without_such_a_store_there_are_no_such_features(tmp_path, known):
    assert "shuffled" not in known.features
    sky = known.sky(1, tmp_path / "sky1")
    assert not sky.is_available("shuffled")
    with pytest.raises(ConfigError, match=r"shuffled.*shuffled=FOLDER"):
        sky.features("shuffled")


@pytest.mark.parametrize(
    ("ids", "part"), [(IDS[:30], "30 galaxies, 30 of 40 shared"), (IDS[::-1], "40 galaxies, 40 of 40 shared")]
)
def test_a_store_of_other_galaxies_or_in_another_order_is_refused(tmp_path, known, ids, part):
    written(tmp_path / "blind", VECTORS[: len(ids)], ids)
    with pytest.raises(StoreError, match=rf"store=.*{part}.*Embed the survey"):
        replace(known, shuffled=str(tmp_path / "blind")).sky(1, tmp_path / "sky1")


def test_planted_vectors_have_none(tmp_path):
    sky = Vectors(galaxies=300, groups=2, largest=60).sky(0, tmp_path)
    with pytest.raises(ConfigError, match=r"shuffled.*tier galaxies"):
        sky.features("shuffled")


def test_the_network_is_trained_once_and_only_when_it_is_asked_for(tmp_path):
    asked = []

    def learnt():
        asked.append(1)
        return written(tmp_path / "blind")

    blind = Shuffled(tmp_path / "blind", learnt)
    assert not blind.made
    assert not asked
    assert np.array_equal(blind.embeddings(), blind.embeddings())
    assert blind.made
    assert asked == [1]


def test_settings_that_are_not_used_do_not_part_a_tier_from_its_older_results(known):
    assert "shuffled" not in known.settings()
    assert tier_from(known.settings()) == known
    blind = replace(known, shuffled="blind")
    assert blind.settings()["shuffled"] == "blind"
    assert tier_from(blind.settings()) == blind


@dataclass(frozen=True, kw_only=True)
class Alike(Tier):
    """A sky whose shuffled features must not be made for a ranking."""

    store: Path
    learnt: list = field(default_factory=list)

    def sky(self, seed, folder):
        truth = Truth.of_groups(np.repeat([0, -1], 20), names=["group 0"])
        return Sky(truth, VECTORS, None, Shuffled(self.store, partial(self.learnt.append, 1)))

    @property
    def features(self):
        return FEATURES

    @property
    def generation(self):
        return 0


def test_no_network_is_trained_for_a_ranking_and_what_it_made_is_ranked(tmp_path):
    tier = Alike(store=tmp_path / "blind")
    trials = TrialFolder(tmp_path / "trials", tier, {}, limit=1)
    rank_features(trials, 0)
    assert list(trials.ranked(0)) == ["embedding"]
    assert not tier.learnt
    before = trials.ranked(0)
    written(tmp_path / "blind", 1 - VECTORS)
    rank_features(trials, 0)
    assert trials.ranked(0)["embedding"] == before["embedding"]
    assert trials.ranked(0)["shuffled"]["group 0"]["chance"] == before["embedding"]["group 0"]["chance"]


def test_all_features_can_be_tried_on_mock_galaxies():
    assert "shuffled" in MockGalaxies().features


def test_blends_are_planted_for_those_who_ask():
    usual, blended = MockGalaxies(), MockGalaxies(blends=True)
    assert list(usual.rates()) == list(PLANTED)
    assert "blends" not in usual.settings()
    assert tier_from(blended.settings()) == blended
    rates = blended.rates()
    assert list(rates) == [*PLANTED, *BLENDS]
    assert np.allclose(np.diff(np.log(list(rates.values())), n=2), 0)
    assert (rates["one_armed"], rates["clumpy_with_trail"]) == pytest.approx((1 / 20, 20 / 5000))


def test_mock_galaxies_by_other_code_are_another_sky(monkeypatch, known):
    before = MockGalaxies().settings()["generation"]
    monkeypatch.setattr("rarezoo.benchmark.tiers.picture_edition", lambda: "other code")
    assert MockGalaxies().settings()["generation"] == "other code" != before
    # Nobody draws real galaxies.
    assert "generation" not in known.settings()


def test_a_network_with_shuffled_votes_has_learnt_nothing_before(tmp_path):
    usual, blind = (
        short_training(Mock(n=9, cache=str(tmp_path)), tmp_path / "net", epochs=3, seed=4, **shuffled)
        for shuffled in ({}, {"shuffle_votes": True})
    )
    assert not usual.train.shuffle_votes
    assert usual.model.start.endswith("efficientnet_b0.mock")
    # It knows mock galaxies already: its trunk stays as it is, and only votes are learnt.
    assert usual.train.freeze_trunk
    assert usual.objective == Votes()
    assert blind.train.shuffle_votes
    assert not blind.train.freeze_trunk
    assert blind.model.start == "none"
    # Views alone would teach it what galaxies look like.
    assert blind.objective == Votes()
    assert (blind.train.epochs, blind.seed) == (usual.train.epochs, usual.seed) == (3, 4)


def test_a_harder_bulk_is_another_tier_and_the_usual_one_is_as_before(tmp_path):
    usual, harder = (Vectors(galaxies=300, groups=2, largest=60, bulk=bulk) for bulk in ("normal", "mixture"))
    assert "bulk" not in usual.settings()
    assert harder.settings()["bulk"] == "mixture"
    assert [tier_from(tier.settings()) for tier in (usual, harder)] == [usual, harder]
    drawn = [tier.sky(0, tmp_path).embeddings for tier in (usual, harder)]
    assert np.array_equal(drawn[0], planted_vectors(0, galaxies=300, groups=2, largest=60).embeddings)
    assert np.array_equal(drawn[1], planted_vectors(0, galaxies=300, groups=2, largest=60, bulk="mixture").embeddings)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Answers of a survey of forty galaxies, whose catalogue is read from a dictionary of columns."""
    fractions = {f"Class{name}": np.full(40, 0.1) for name in ("6.1", "8.1", "8.3", "8.4", "8.6", "8.7")}
    fractions["Class8.1"][:3] = [0.5, np.nan, 0.3]
    columns = {"id_str": IDS, **fractions}
    galaxies = SimpleNamespace(images=None)
    monkeypatch.setattr("rarezoo.benchmark.tiers.galaxies_of", lambda *_, **__: galaxies)
    written(tmp_path / "store")

    def truth(**more):
        galaxies.catalogue = pa.table({**columns, **more})
        return KnownAnswers(store=str(tmp_path / "store")).sky(0, tmp_path / "sky0").truth

    return truth


def test_rare_answers_of_galaxy_zoo_2_are_known_of_some_galaxies(asked):
    truth = asked(c5=["odd", None, "smooth", "not_odd", *["featured"] * 36])
    assert truth.names == ("ring", "merger", "irregular", "odd", "disturbed", "dust lane", "odd (c5)")
    ring, odd = 0, truth.names.index(ODD.name)
    assert truth.members[:4, ring].tolist() == [True, False, False, False]
    assert truth.known[:4, ring].tolist() == [True, False, True, True]
    assert truth.members[:4, odd].tolist() == [True, False, False, False]
    assert truth.known[:4, odd].tolist() == [True, False, True, True]


def test_without_the_full_votes_there_are_the_other_kinds(asked):
    assert ODD.name not in asked().names
    assert len(asked().names) == 6


def test_results_with_other_rare_answers_are_not_used(known):
    assert KnownAnswers(store="store").settings()["generation"] == 2
    assert tier_from(KnownAnswers(store="store").settings()) == KnownAnswers(store="store")
    assert "generation" not in known.settings()


def test_galaxies_whose_image_cannot_be_read_get_the_median_features(caplog):
    features = np.array([[1.0, 0], [3, 0], [np.nan, np.nan], [2, 5]], dtype=np.float32)
    filled = with_medians(features, np.array(["a", "b", "c", "d"]))
    np.testing.assert_array_equal(filled, [[1, 0], [3, 0], [2, 0], [2, 5]])
    assert "1 of 4 images cannot be read; these galaxies get the median features: c" in caplog.text


def test_without_any_readable_image_there_are_no_features():
    with pytest.raises(DataError, match="no image can be read: 3 galaxies"):
        with_medians(np.full((3, 2), np.nan, dtype=np.float32), np.array(["a", "b", "c"]))
