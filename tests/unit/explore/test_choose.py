"""Batches: how many, of whom, how different, and how many of them at random; what comes first; how many are left."""

import numpy as np
import pytest

from rarezoo.errors import ConfigError
from rarezoo.explore.acquisition import State
from rarezoo.explore.acquisitions.from_model import Mean
from rarezoo.explore.acquisitions.unsupervised import Random
from rarezoo.explore.choose import MODEL, RANDOM, START, Chooser
from rarezoo.explore.ranker import Prediction
from rarezoo.explore.remaining import BlindDraw, remaining
from rarezoo.explore.start import start_values

pytestmark = pytest.mark.unit

GALAXIES = 300


def state(features=None, mean=None, *, interest=(0.0, 1.0), seed=0):
    """What is known after the first two galaxies were rated; the mean grows with the row by default."""
    if features is None:
        features = np.random.default_rng(0).normal(size=(GALAXIES, 5))
    count = len(features)
    mean = np.linspace(0, 1, count) if mean is None else mean
    prediction = Prediction(mean.astype(np.float32), np.full(count, 0.1, dtype=np.float32))
    return State(
        features.astype(np.float32), np.arange(len(interest)), np.array(interest), prediction,
        np.linspace(1, 0, count, dtype=np.float32), np.random.default_rng(seed),
    )  # fmt: skip


def all_but_rated(known):
    allowed = np.ones(len(known), dtype=bool)
    allowed[known.rated] = False
    return allowed


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("diversity", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("count", [1, 7, 48])
def test_a_batch_has_as_many_allowed_galaxies_as_wanted_and_none_twice(share, diversity, count):
    chooser, known = Chooser(random_share=share, diversity=diversity), state()
    allowed = all_but_rated(known)
    allowed[::3] = False
    for _ in range(20):
        rows, why = chooser.choose(known, Mean(), count, allowed=allowed)
        assert len(rows) == len(why) == len(set(rows)) == count
        assert allowed[rows].all()
        assert set(why) <= {MODEL, RANDOM}


@pytest.mark.parametrize("left", [0, 1, 4])
def test_if_fewer_galaxies_are_left_than_wanted_all_of_them_come(left):
    known = state()
    allowed = np.zeros(GALAXIES, dtype=bool)
    allowed[100 : 100 + left] = True
    for share in (0.0, 0.3, 1.0):
        rows, why = Chooser(random_share=share).choose(known, Mean(), 12, allowed=allowed)
        assert sorted(rows) == list(range(100, 100 + left))
        assert len(why) == left


def test_a_single_galaxy_can_be_chosen():
    known = state(np.zeros((1, 3)), np.zeros(1), interest=())
    rows, _ = Chooser().choose(known, Mean(), 12, allowed=np.ones(1, dtype=bool))
    assert rows.tolist() == [0]


@pytest.mark.parametrize("count", [4, 10, 13])
def test_the_share_of_random_galaxies_is_right_on_average_and_so_are_their_places(count):
    chooser, known = Chooser(random_share=0.15), state()
    allowed = all_but_rated(known)
    batches = np.array([
        [why == RANDOM for why in chooser.choose(known, Mean(), count, allowed=allowed).why] for _ in range(500)
    ])  # fmt: skip
    assert batches.mean() == pytest.approx(0.15, abs=0.02)
    np.testing.assert_allclose(batches.mean(axis=0), 0.15, atol=0.06)
    # Batches differ by at most one.
    assert np.ptp(batches.sum(axis=1)) <= 1


def test_what_is_drawn_blindly_is_as_often_what_the_model_likes_as_its_share_of_all_that_are_left():
    # The estimate of how many are left rests on this: nothing that the model would choose later is kept out of it.
    chooser, known = Chooser(random_share=0.5, diversity=0.0), state()
    allowed = all_but_rated(known)
    liked, expected, draws = 0, 0.0, 0
    for _ in range(300):
        rows, why = chooser.choose(known, Mean(), 10, allowed=allowed)
        for place, (row, reason) in enumerate(zip(rows, why, strict=True)):
            if reason == RANDOM:
                best_left = 10 - np.sum(rows[:place] >= 290)
                expected += best_left / (allowed.sum() - place)
                liked, draws = liked + (row >= 290), draws + 1
    assert liked / draws == pytest.approx(expected / draws, abs=4 * np.sqrt(expected) / draws)


def test_without_diversity_and_chance_the_best_come_in_order():
    rows, why = Chooser(random_share=0, diversity=0).choose(state(), Mean(), 5, allowed=np.arange(GALAXIES) < 200)
    assert rows.tolist() == [199, 198, 197, 196, 195]
    assert set(why) == {MODEL}


def test_diversity_makes_a_batch_less_alike_and_keeps_the_best_one():
    # Five kinds of galaxies; most of the best ones are of the same kind.
    random = np.random.default_rng(0)
    kind = np.arange(GALAXIES) // 60
    features = 5 * np.eye(5)[kind] + 0.3 * random.normal(size=(GALAXIES, 5))
    mean = np.where(kind == 0, 0.3, 0) + random.random(GALAXIES)

    def batch(diversity):
        known = state(features, mean)
        return Chooser(random_share=0, diversity=diversity).choose(
            known, Mean(), 20, allowed=np.ones(GALAXIES, dtype=bool)
        )[0]

    def likeness(rows):
        directions = features[rows] / np.linalg.norm(features[rows], axis=1, keepdims=True)
        return (directions @ directions.T)[np.triu_indices(len(rows), 1)].mean()

    plain, different = batch(0.0), batch(0.9)
    assert np.mean(kind[plain] == 0) > np.mean(kind[different] == 0)
    assert likeness(different) < likeness(plain) - 0.05
    assert different[0] == plain[0] == mean.argmax()


def test_equal_values_are_in_a_random_order():
    known = state(mean=np.zeros(GALAXIES))
    chooser = Chooser(random_share=0, diversity=0)
    first = {int(chooser.choose(known, Mean(), 1, allowed=all_but_rated(known)).rows[0]) for _ in range(40)}
    assert len(first) > 20


@pytest.mark.parametrize("interest", [(), (0.0, 0.0, 0.0), (1.0,)])
def test_while_ratings_tell_nothing_the_first_galaxies_are_those_to_start_with(interest):
    known = state(interest=interest)
    rows, why = Chooser(random_share=0, diversity=0).choose(known, Mean(), 3, allowed=all_but_rated(known))
    assert rows.tolist() == [len(interest) + place for place in range(3)]
    assert set(why) == {START}


def test_an_acquisition_without_a_model_needs_no_start():
    known = state(interest=())
    assert set(Chooser(random_share=0).choose(known, Random(), 3, allowed=all_but_rated(known)).why) == {MODEL}


@pytest.mark.parametrize("wrong", [{"random_share": 1.2}, {"random_share": -0.1}, {"diversity": 2}])
def test_shares_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Chooser(**wrong)


@pytest.mark.parametrize("count", [1, 3, 290])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_random_galaxies_do_not_make_a_batch_longer_and_no_galaxy_comes_twice(count, share):
    known = state()
    rows, why = Chooser(random_share=share).choose(known, Mean(), count, allowed=all_but_rated(known))
    assert len(rows) == len(set(rows)) == len(why) == count


def test_from_the_first_two_different_answers_on_the_model_chooses():
    known = state(interest=(0.0, 1.0))
    chosen = Chooser(random_share=0, diversity=0).choose(known, Mean(), 5, allowed=all_but_rated(known))
    assert set(chosen.why) == {MODEL}


# --- the start


def test_a_small_kind_is_among_the_first_and_typical_galaxies_come_before_others_of_their_kind():
    random = np.random.default_rng(0)
    features = random.normal(size=(1000, 4))
    features[40:52] += 30
    values = start_values(features.astype(np.float32))
    order = np.argsort(-values)
    # 100 pieces, and a random galaxy after each.
    assert np.isin(order[:200], np.arange(40, 52)).any()
    assert sorted(values.tolist()) == pytest.approx(np.linspace(0, 1, 1000).tolist())


def test_half_of_the_first_galaxies_are_drawn_at_random():
    random = np.random.default_rng(0)
    # A twentieth of the survey is apart, and has a piece of its own among the smallest.
    features = np.concatenate([random.normal(size=(1900, 4)), random.normal(size=(100, 4)) + 30]).astype(np.float32)
    orders = [np.argsort(-start_values(features, seed=seed))[:60] for seed in range(20)]
    typical, drawn = ([np.mean(order[first::2] >= 1900) for order in orders] for first in (0, 1))
    # A galaxy that both orders have stands once, so that the turns are not exact.
    assert 0.02 < np.mean(drawn) < 0.15
    assert np.mean(typical) > 0.3


@pytest.mark.parametrize("count", [1, 2, 9, 25])
def test_few_galaxies_have_an_order_too(count):
    features = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    values = start_values(features)
    assert len(set(values.tolist())) == count
    np.testing.assert_array_equal(values, start_values(features))


# --- how many are left


def one_search(seed, galaxies=300, wanted=30, ratings=80, share=0.3):
    """Draws of a search whose model finds wanted galaxies five times as often as chance; and how many are left."""
    random = np.random.default_rng(seed)
    is_wanted = np.zeros(galaxies, dtype=bool)
    is_wanted[random.choice(galaxies, wanted, replace=False)] = True
    unrated, known, draws = np.ones(galaxies, dtype=bool), 0, []
    for _ in range(ratings):
        blindly = random.random() < share
        weights = unrated * (1.0 if blindly else np.where(is_wanted, 5.0, 1.0))
        row = random.choice(galaxies, p=weights / weights.sum())
        if blindly:
            draws.append(BlindDraw(int(unrated.sum()), known, bool(is_wanted[row])))
        unrated[row] = False
        known += int(is_wanted[row])
    return draws, int(unrated.sum()), known, wanted - known


def test_the_interval_holds_the_truth_in_as_many_searches_as_it_says():
    held, widths = [], []
    for seed in range(150):
        draws, unrated, known, truth = one_search(seed)
        left = remaining(draws, unrated=unrated, known=known)
        held.append(left.low <= truth <= left.high)
        widths.append(left.high - left.low)
        assert left.low <= left.estimate <= left.high
    assert np.mean(held) >= 0.85
    # An interval that holds everything would hold the truth too.
    assert np.median(widths) < 100


def test_more_draws_and_less_coverage_make_the_interval_narrower():
    few, many = (
        [BlindDraw(1000 - number, 0, False) for number in range(draws)] for draws in (30, 300)
    )  # fmt: skip
    wide, narrow = (remaining(draws, unrated=700, known=0) for draws in (few, many))
    assert narrow.high < wide.high
    assert remaining(few, unrated=700, known=0, coverage=0.5).high < wide.high
    assert (wide.draws, narrow.draws) == (30, 300)


def test_without_a_blind_draw_nothing_is_estimated():
    assert remaining([], unrated=100, known=5) is None


def test_if_everything_is_rated_nothing_is_left():
    draws = [BlindDraw(10 - number, 0, False) for number in range(10)]
    assert remaining(draws, unrated=0, known=0)[:3] == (0, 0, 0)


def test_one_galaxy_is_enough():
    assert remaining([BlindDraw(1, 0, True)], unrated=0, known=1)[:3] == (0, 0, 0)
    left = remaining([BlindDraw(2, 0, True)], unrated=1, known=1)
    assert 0 <= left.low <= left.high <= 1


def test_no_more_are_left_than_are_unrated_even_if_every_draw_was_interesting():
    draws = [BlindDraw(20 - number, number, True) for number in range(15)]
    left = remaining(draws, unrated=5, known=15)
    assert left.high <= 5
    assert left.estimate >= 3


def test_draws_that_contradict_each_other_are_refused():
    # Five interesting ones were found after two galaxies were left, none of which is unrated.
    with pytest.raises(ConfigError, match="interesting"):
        remaining([BlindDraw(2, 0, True)], unrated=0, known=5)


def test_a_survey_of_a_million_galaxies_is_estimated_from_few_draws():
    draws = [BlindDraw(1_000_000 - number, 0, number % 50 == 0) for number in range(200)]
    left = remaining(draws, unrated=999_800, known=4)
    assert left.low < 20_000 < left.high
    assert left.high < 60_000
