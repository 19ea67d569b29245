"""A session: who sees which galaxies, what becomes of ratings, and that nobody waits for a model."""

import threading
from dataclasses import dataclass

import numpy as np
import pytest

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError
from rarezoo.explore.choose import RANDOM, Chooser
from rarezoo.explore.labels import Labels, Rating, survey_key
from rarezoo.explore.ranker import Ranker
from rarezoo.explore.rankers.ridge import Ridge
from rarezoo.explore.ranking import RatingSettings
from rarezoo.explore.session import Session
from rarezoo.settings import choice

pytestmark = pytest.mark.unit

GALAXIES = 200
# Far longer than a fit takes, also on a busy machine.
PATIENCE = 60


def store_of(folder, galaxies=GALAXIES):
    """Galaxies of which the first tenth lies apart."""
    vectors = np.random.default_rng(0).normal(size=(galaxies, 4)).astype(np.float32)
    vectors[: galaxies // 10, 0] += 6
    return EmbeddingStore.from_array([f"J{row:03d}" for row in range(galaxies)], vectors, out=folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return store_of(tmp_path_factory.mktemp("sky"))


def labels_in(folder, store):
    return Labels.open(folder / "labels.sqlite", survey=survey_key(store), ids=store.ids)


def settings(**changes):
    return RatingSettings(**{"beside": [], "ranker": Ridge(), **changes})


@pytest.fixture
def session(store, tmp_path):
    with labels_in(tmp_path, store) as labels, Session(store, labels, settings=settings()) as opened:
        yield opened


def rating(galaxy, value, by="ann", label="interesting", why="model", kind="answer"):
    return Rating(galaxy, label, value, kind, by, why=why)


def artifact(galaxy, by="ann", why="model"):
    return rating(galaxy, 1, by, "artifact", why, "artifact")


def wanted(galaxy):
    return float(int(galaxy[1:]) < GALAXIES // 10)


def ids(shown):
    return [each.id_str for each in shown]


def rate(session, shown, by="ann", label="interesting"):
    return session.rate([
        Rating(each.id_str, label, wanted(each.id_str), "answer", by, why=each.why, round=each.round) for each in shown
    ])  # fmt: skip


def some_ratings(session, label="interesting"):
    """Rate 20 galaxies, half of them wanted, and wait for the model."""
    session.rate([rating(f"J{row:03d}", wanted(f"J{row:03d}"), label=label) for row in [*range(10), *range(50, 60)]])
    session.wait(label)


def test_a_person_is_shown_different_galaxies_with_reasons(session):
    shown = session.next(by="ann", label="interesting", count=12)
    assert len(set(ids(shown))) == 12
    assert {each.why for each in shown} <= {"start", "random"}
    assert all(each.score is None and each.round == 0 and each.nearest_rated is None for each in shown)


def test_after_ratings_the_model_says_what_to_show_and_why(session):
    some_ratings(session)
    shown = [each for each in session.next(by="ann", label="interesting", count=12) if each.why == "model"]
    assert shown
    best = shown[0]
    assert best.round == 1
    assert best.uncertainty > 0
    assert best.nearest_rated in {f"J{row:03d}" for row in range(10)}
    assert np.mean([wanted(galaxy) for galaxy in ids(shown)]) > 0.5
    rated = {f"J{row:03d}" for row in [*range(10), *range(50, 60)]}
    assert not rated & set(ids(shown))


def test_two_people_are_never_shown_the_same_galaxy(session):
    some_ratings(session)
    seen = [ids(session.next(by=by, label="interesting", count=20)) for by in ("ann", "bob", "cem")]
    assert len({galaxy for shown in seen for galaxy in shown}) == 60
    # Another label is another question.
    assert set(ids(session.next(by="bob", label="ring", count=180))) & set(seen[0])


def test_people_who_ask_at_the_same_time_are_shown_different_galaxies(session):
    seen = {}
    people = [f"p{number}" for number in range(6)]
    threads = [
        threading.Thread(target=lambda by=by: seen.update({by: ids(session.next(by=by, label="ring", count=15))}))
        for by in people
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(map(len, seen.values())) == [15] * 6
    assert len({galaxy for shown in seen.values() for galaxy in shown}) == 90


def test_with_overlap_two_people_may_judge_the_same_galaxies(store, tmp_path):
    with labels_in(tmp_path, store) as labels, Session(store, labels, settings=settings(), overlap=True) as session:
        rate(session, session.next(by="ann", label="interesting", count=150))
        again = ids(session.next(by="bob", label="interesting", count=150))
        assert len(again) == 150
        rated = set(labels.interest("interesting"))
        assert rated & set(again)
        assert not rated & set(ids(session.next(by="ann", label="interesting", count=150)))


def test_galaxies_that_are_on_the_screen_are_not_shown_again(session):
    first = ids(session.next(by="ann", label="interesting", count=30))
    assert not set(first) & set(ids(session.next(by="ann", label="interesting", count=30, skip=[*first, "J999"])))


@pytest.mark.parametrize("count", [0, -3])
def test_a_batch_without_galaxies_is_refused(session, count):
    with pytest.raises(ConfigError, match=str(count)):
        session.next(by="ann", label="interesting", count=count)


def test_more_galaxies_than_there_are_are_all_of_them_and_then_none(session):
    shown = session.next(by="ann", label="interesting", count=10 * GALAXIES)
    assert len(set(ids(shown))) == GALAXIES
    rate(session, shown)
    assert session.next(by="ann", label="interesting", count=3) == []
    assert session.progress("interesting").rated == GALAXIES


def test_a_store_of_one_galaxy_is_rated(tmp_path):
    store = store_of(tmp_path / "store", galaxies=1)
    for ranker in ("gaussian_process", "ridge", "logistic"):
        chosen = settings(ranker=choice("ranker", ranker)())
        with labels_in(tmp_path, store) as labels, Session(store, labels, settings=chosen) as session:
            assert ids(session.next(by=ranker, label=ranker, count=12)) == ["J000"]
            session.rate([rating("J000", 1, by=ranker, label=ranker)])
            assert session.next(by=ranker, label=ranker, count=12) == []
            (row,) = session.ranking(ranker).to_pylist()
            assert np.isfinite(row[tables.SCORE])
            assert row[tables.RANK] == 1
            assert session.progress(ranker).rated == 1


def test_undo_takes_the_rating_back_from_the_model_too(session):
    some_ratings(session)
    before = session.ranking("interesting")
    session.rate([rating("J100", 1)])
    session.wait("interesting")
    assert not session.ranking("interesting").equals(before)
    assert session.undo(by="ann").id_str == "J100"
    again = session.ranking("interesting")
    assert again[tables.ID].equals(before[tables.ID])
    np.testing.assert_allclose(again[tables.SCORE].to_numpy(), before[tables.SCORE].to_numpy(), atol=1e-6)
    assert "J100" in ids(session.next(by="ann", label="interesting", count=GALAXIES))


def test_taking_everything_back_leaves_no_ranking(session):
    session.rate([rating("J001", 1)])
    assert len(session.ranking("interesting")) == GALAXIES
    session.undo(by="ann")
    assert len(session.ranking("interesting")) == 0
    assert session.undo(by="ann") is None


def test_an_artifact_counts_as_not_interesting_for_every_label_and_is_not_shown_again(session):
    some_ratings(session)
    some_ratings(session, label="ring")
    place = {row[tables.ID]: row[tables.RANK] for row in session.ranking("ring").to_pylist()}
    bad = [f"J{row:03d}" for row in range(10, 20)]
    session.rate([artifact(galaxy) for galaxy in bad])
    for label in ("interesting", "ring"):
        now = {row[tables.ID]: row for row in session.ranking(label).to_pylist()}
        assert all(now[galaxy][tables.INTEREST] == 0 for galaxy in bad)
        assert not set(bad) & set(ids(session.next(by="ann", label=label, count=GALAXIES)))
    assert np.mean([now[galaxy][tables.RANK] for galaxy in bad]) > np.mean([place[galaxy] for galaxy in bad])
    progress = session.progress("interesting")
    assert (progress.artifacts, progress.interesting, progress.rated) == (10, 10, 30)


def test_an_artifact_that_was_taken_back_can_be_shown_again(session):
    session.rate([artifact("J007")])
    assert "J007" not in ids(session.next(by="ann", label="interesting", count=GALAXIES))
    session.rate([rating("J007", 0, label="artifact", kind="artifact")])
    assert "J007" in ids(session.next(by="ann", label="interesting", count=GALAXIES))


def test_an_unknown_galaxy_is_refused_and_nothing_is_kept(session):
    with pytest.raises(ConfigError, match="J999"):
        session.rate([rating("J001", 1), rating("J999", 1)])
    assert len(session.labels.log()) == 0


def test_a_value_out_of_range_is_refused_and_nothing_is_kept(session):
    with pytest.raises(ConfigError, match="9"):
        session.rate([rating("J001", 1), rating("J002", 9, kind="grade")])
    assert len(session.labels.log()) == 0


def test_ratings_of_galaxies_of_another_part_of_the_survey_do_no_harm(store, tmp_path):
    # The database may have been filled for a search that has more galaxies.
    with Labels.open(tmp_path / "labels.sqlite", survey=survey_key(store)) as labels:
        labels.add([rating("elsewhere", 1), rating("J001", 1), rating("J150", 0)])
        with Session(store, labels, settings=settings()) as session:
            assert len(session.ranking("interesting")) == GALAXIES
            progress = session.progress("interesting")
            assert (progress.rated, progress.interesting) == (2, 1)
            assert len(session.next(by="ann", label="interesting", count=5)) == 5


# --- the model in the background


@dataclass
class Slow(Ranker):
    """A ranker that waits in its second fit until it is told to go on."""

    def __post_init__(self):
        super().__post_init__()
        self.begun, self.go_on, self.fits = threading.Event(), threading.Event(), 0

    def fit(self, features, interest, *, distance, seed):
        self.fits += 1
        if self.fits > 1:
            self.begun.set()
            assert self.go_on.wait(PATIENCE)
        return Ridge().fit(features, interest, distance=distance, seed=seed)


@pytest.fixture
def slow(store, tmp_path):
    """A session whose model has been fitted once, and whose next fit waits."""
    ranker = Slow()
    with labels_in(tmp_path, store) as labels:
        labels.add([rating("J001", 1), rating("J150", 0)])
        with Session(store, labels, settings=settings(ranker=ranker)) as session:
            session.next(by="ann", label="interesting")
            yield session, ranker
            ranker.go_on.set()


def test_nobody_waits_while_the_model_is_fitted(slow):
    session, ranker = slow
    session.rate([rating("J002", 1)])
    assert ranker.begun.wait(PATIENCE)
    # The fit does not end before this test lets it: whatever waited for it would wait for ever.
    assert {each.round for each in session.next(by="bob", label="interesting")} == {1}
    session.rate([rating("J151", 0), rating("J003", 1)])
    assert session.progress("interesting").rated == 5
    assert session.undo(by="ann").id_str == "J003"
    ranker.go_on.set()
    session.wait("interesting")
    assert session.progress("interesting").round > 1
    known = {row[tables.ID] for row in session.ranking("interesting").to_pylist() if row[tables.INTEREST] is not None}
    assert known == {"J001", "J002", "J150", "J151"}


def test_many_ratings_during_a_fit_are_learnt_in_one_more(slow):
    session, ranker = slow
    session.rate([rating("J002", 1)])
    assert ranker.begun.wait(PATIENCE)
    for row in range(100, 110):
        session.rate([rating(f"J{row:03d}", 0)])
        session.next(by="ann", label="interesting", count=1)
    ranker.go_on.set()
    session.wait("interesting")
    assert ranker.fits == 3
    session.next(by="ann", label="interesting")
    session.wait("interesting")
    assert ranker.fits == 3, "without new ratings nothing is fitted"


def test_closing_while_a_model_is_fitted_waits_for_it_and_loses_no_rating(slow):
    session, ranker = slow
    session.rate([rating("J002", 1)])
    assert ranker.begun.wait(PATIENCE)
    session.rate([rating("J003", 1)])
    closing = threading.Thread(target=session.close)
    closing.start()
    ranker.go_on.set()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    # A rating that is on its way when the server ends is kept as well.
    session.rate([rating("J004", 1)])
    session.wait("interesting")
    session.close()
    assert set(session.labels.interest("interesting")) == {"J001", "J150", "J002", "J003", "J004"}


@dataclass
class Failing(Ranker):
    """A ranker that cannot learn from three ratings."""

    def fit(self, features, interest, *, distance, seed):
        if len(interest) == 3:
            raise FloatingPointError("no convergence")
        return Ridge().fit(features, interest, distance=distance, seed=seed)


def test_a_model_that_cannot_be_fitted_leaves_the_one_before_it(store, tmp_path, caplog):
    with labels_in(tmp_path, store) as labels:
        labels.add([rating("J001", 1), rating("J150", 0)])
        with Session(store, labels, settings=settings(ranker=Failing())) as session:
            before = session.ranking("interesting")
            session.rate([rating("J002", 1)])
            session.wait("interesting")
            assert session.ranking("interesting")[tables.SCORE].equals(before[tables.SCORE])
            assert "could not be fitted" in caplog.text
            session.rate([rating("J003", 1)])
            assert not session.ranking("interesting")[tables.SCORE].equals(before[tables.SCORE])


def test_a_session_learns_what_another_process_has_added(store, tmp_path):
    with (
        labels_in(tmp_path, store) as here,
        labels_in(tmp_path, store) as there,
        Session(store, here, settings=settings()) as mine,
        Session(store, there, settings=settings()) as other,
    ):
        mine.next(by="ann", label="interesting")
        some_ratings(other)
        shown = ids(mine.next(by="ann", label="interesting", count=GALAXIES))
        assert not set(shown) & set(there.interest("interesting"))
        mine.wait("interesting")
        assert mine.progress("interesting").round == 1
        assert {each.round for each in mine.next(by="ann", label="interesting")} == {1}
        assert mine.ranking("interesting").equals(other.ranking("interesting"))
        other.undo(by="ann")
        assert mine.ranking("interesting").equals(other.ranking("interesting"))


def test_two_sessions_hand_out_different_galaxies(store, tmp_path):
    with (
        labels_in(tmp_path, store) as here,
        labels_in(tmp_path, store) as there,
        Session(store, here, settings=settings()) as mine,
        Session(store, there, settings=settings()) as other,
    ):
        first = ids(mine.next(by="ann", label="interesting", count=90))
        second = ids(other.next(by="bob", label="interesting", count=90))
        assert len({*first, *second}) == 180


# --- what came of it


def test_the_ranking_holds_every_galaxy_once_and_the_wanted_ones_first(session):
    some_ratings(session)
    ranking = session.ranking("interesting")
    tables.check(ranking, tables.RANKING, source="the ranking")
    assert sorted(ranking[tables.ID].to_pylist()) == sorted(session.ids)
    assert ranking[tables.RANK].to_pylist() == list(range(1, GALAXIES + 1))
    scores = ranking[tables.SCORE].to_numpy()
    assert (np.diff(scores) <= 0).all()
    assert np.mean([wanted(galaxy) for galaxy in ranking[tables.ID].to_pylist()[:20]]) > 0.8
    nearest = {row[tables.ID]: row[tables.NEAREST_RATED] for row in ranking.to_pylist()}
    assert set(nearest.values()) <= {f"J{row:03d}" for row in range(10)}
    assert all(galaxy != near for galaxy, near in nearest.items())
    assert session.ranking("interesting", first=7).equals(ranking.slice(0, 7))


def test_before_any_rating_the_ranking_has_columns_and_no_rows(session):
    assert tables.check(session.ranking("interesting"), tables.RANKING, source="the ranking").num_rows == 0


def test_progress_counts_people_and_says_how_well_they_agree(session):
    session.rate(
        [rating(f"J{row:03d}", wanted(f"J{row:03d}"), by=by) for row in range(15, 25) for by in ("ann", "bob")]
    )
    progress = session.progress("interesting")
    assert (progress.galaxies, progress.rated, progress.interesting) == (GALAXIES, 10, 5)
    assert progress.people == ("ann", "bob")
    assert progress.agreement == 1
    assert progress.left is None


def test_unsure_answers_are_rated_and_neither_interesting_nor_dull(session):
    session.rate([rating("J001", None, why=RANDOM), rating("J002", 1, why=RANDOM)])
    progress = session.progress("interesting")
    assert (progress.rated, progress.interesting) == (2, 1)
    assert progress.left.draws == 1


def test_the_estimate_rests_on_blind_draws_and_artifacts_are_among_them(session):
    # Half of the survey is drawn at random: of 20 wanted galaxies 10 are found.
    drawn = [*range(10), *range(20, 110)]
    session.rate([rating(f"J{row:03d}", wanted(f"J{row:03d}"), why=RANDOM) for row in drawn[:-5]])
    session.rate([artifact(f"J{row:03d}", why=RANDOM) for row in drawn[-5:]])
    left = session.progress("interesting").left
    assert left.draws == 100
    assert left.low <= 10 <= left.high < 40


def test_a_draw_that_is_rated_again_for_another_reason_still_counts_as_a_draw(session):
    session.rate([rating(f"J{row:03d}", 0, why=RANDOM) for row in range(5)])
    session.rate([rating("J003", 1, why="again"), rating("J004", 1, why="again", by="bob")])
    left = session.progress("interesting").left
    assert left.draws == 5
    assert session.progress("interesting").interesting == 1


def test_a_whole_search_finds_most_of_what_is_wanted(store, tmp_path):
    chosen = settings(choose=Chooser(random_share=0.1, diversity=0.3))
    with labels_in(tmp_path, store) as labels, Session(store, labels, settings=chosen) as session:
        for _ in range(10):
            rate(session, session.next(by="ann", label="interesting", count=6))
            session.wait("interesting")
        progress = session.progress("interesting")
        assert progress.rated == 60
        assert progress.interesting >= 16, "20 exist, and 6 would be found by chance"
        assert progress.left.low <= 20 - progress.interesting <= progress.left.high


@dataclass
class NeverFits(Ranker):
    def fit(self, features, interest, *, distance, seed):
        raise FloatingPointError("no numbers")


def test_a_model_that_cannot_be_fitted_is_said_where_the_ranking_is_asked_for(store, tmp_path):
    with labels_in(tmp_path, store) as labels, Session(store, labels, settings=settings(ranker=NeverFits())) as opened:
        opened.rate([rating("J000", 1), rating("J100", 0)])
        with pytest.raises(ConfigError, match="no numbers"):
            opened.ranking("interesting")
        assert len(opened.next(by="ann", label="interesting", count=3)) == 3
