"""Published predictions keep what they promise: probabilities, sets, intervals and numbers of galaxies."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from rarezoo import tables
from rarezoo.data.own_labels import OwnLabels
from rarezoo.errors import ConfigError, DataError
from rarezoo.prediction.calibration import Calibration, class_shares, share_draws
from rarezoo.prediction.publish import publish

pytestmark = pytest.mark.unit
N = 6000


@pytest.fixture(scope="module")
def survey():
    """A survey with 5 % rings, of which a person has labelled as many as others; scores are too large by a factor 4."""
    random = np.random.default_rng(1)
    truth = random.random(N) < 0.05
    scores = (12 * truth + random.normal(scale=4, size=N))[:, None]
    labelled = np.concatenate(
        [
            random.choice(np.flatnonzero(truth), 120, replace=False),
            random.choice(np.flatnonzero(~truth), 120, replace=False),
        ]
    )
    values = np.full((N, 1), np.nan, dtype=np.float32)
    values[labelled, 0] = truth[labelled]
    ids = np.array([f"g{row}" for row in range(N)], dtype=object)
    return truth, scores, OwnLabels(ids, "binary", ("ring",), values)


@pytest.fixture(scope="module")
def published(survey):
    _, scores, labels = survey
    return publish(scores, labels, labels.splits(validation=0.5, test=0.49))


def test_probabilities_are_calibrated_for_the_survey_and_not_for_the_labels(survey, published):
    unlabelled = ~survey[2].known
    truth, probability = survey[0][unlabelled], published.predict()["probability"].to_numpy()[unlabelled]
    assert abs(probability.mean() - truth.mean()) < 0.01
    for low, high in ((0.0, 0.2), (0.2, 1.0)):
        inside = (probability >= low) & (probability < high)
        assert abs(truth[inside].mean() - probability[inside].mean()) < 0.15


def test_the_number_of_galaxies_completeness_and_purity_lie_in_their_intervals(survey, published):
    truth, found = survey[0], published.evaluations[0]
    assert found.count.low < truth.sum() < found.count.high
    assert found.adjusted.low < truth.sum() < found.adjusted.high
    assert found.count.high < 3 * truth.sum()
    unlabelled = ~survey[2].known
    truth, above = truth[unlabelled], published.probabilities[unlabelled, 0] >= 0.5
    place = found.at(0.5)
    assert found.completeness[place, 1] < above[truth].mean() < found.completeness[place, 2]
    assert found.purity[place, 1] < truth[above].mean() < found.purity[place, 2]
    assert found.labelled_share == 0.5


def test_the_number_of_galaxies_is_held_although_the_labels_may_lack_what_looks_alike():
    """One galaxy in fifty without the label looks as if it had it; of 150 labelled ones two or three do, or none."""
    random, held = np.random.default_rng(5), []
    for _ in range(60):
        truth, alike = np.arange(4000) < 100, random.random(4000) < 0.02
        scores = np.where(truth | alike, 2.5, 0.0) + random.normal(size=4000)
        labelled = np.concatenate(
            [random.choice(100, 30, replace=False), 100 + random.choice(3900, 150, replace=False)]
        )
        rest = np.setdiff1d(np.arange(4000), labelled)
        shares = share_draws(scores[labelled], truth[labelled], scores[rest], rng=random, draws=100)
        low, high = np.quantile(shares[1:], (0.025, 0.975))
        held.append(low <= truth[rest].mean() <= high)
    assert np.mean(held) > 0.86


def test_two_classes_are_counted_as_a_yes_or_no_label_is(survey):
    _, scores, labels = survey
    one_hot = np.hstack([1 - labels.values, labels.values])
    classes = OwnLabels(labels.ids, "classes", ("other", "ring"), one_hot)
    splits = labels.splits(validation=0.5, test=0.49)
    count = publish(scores, labels, splits).evaluations[0].count
    both = publish(np.hstack([-scores / 2, scores / 2]), classes, splits).evaluations
    assert both[1].count.value == pytest.approx(count.value, rel=0.02)
    assert both[0].count.value + both[1].count.value == pytest.approx(N)


def test_several_classes_are_counted_although_the_labels_mix_them_otherwise_than_the_survey():
    random, shares = np.random.default_rng(3), np.array([0.93, 0.05, 0.02])
    truth = random.choice(3, 5000, p=shares)
    labelled = np.concatenate([random.choice(np.flatnonzero(truth == each), 60, replace=False) for each in range(3)])
    scores = 3 * np.eye(3)[truth] + 1.5 * random.normal(size=(5000, 3))
    values = np.full((5000, 3), np.nan, dtype=np.float32)
    values[labelled] = np.eye(3)[truth[labelled]]
    labels = OwnLabels(np.array([f"g{row}" for row in range(5000)], dtype=object), "classes", ("a", "b", "c"), values)
    found = publish(scores, labels, labels.splits(validation=0.5, test=0.4)).evaluations
    for evaluation, number in zip(found, np.bincount(truth), strict=True):
        assert evaluation.count.low <= number <= evaluation.count.high
        assert evaluation.count.high < number + 500


def test_conformal_sets_hold_both_classes_as_often_as_they_promise(survey, published):
    truth, sets = survey[0], published.predict()["set"]
    assert sets[truth].str.contains(r"(?<!not )ring").mean() > 0.82
    assert sets[~truth].str.contains("not ring").mean() > 0.82
    assert (sets == "not ring").mean() > 0.5


def test_labels_drawn_at_random_say_themselves_how_common_a_class_is(survey):
    truth, scores, labels = survey
    values = np.full_like(labels.values, np.nan)
    values[:600, 0] = truth[:600]
    drawn = OwnLabels(labels.ids, "binary", ("ring",), values)
    found = publish(scores, drawn, drawn.splits(validation=0.5, test=0.49), sampling="random").evaluations[0]
    assert found.share.value == pytest.approx(truth[:600].mean(), abs=0.01)
    assert found.count.low < truth.sum() < found.count.high


def test_a_wrong_label_is_found(survey):
    truth, scores, labels = survey
    values, place = labels.values.copy(), int(np.flatnonzero(np.isfinite(labels.values[:, 0]) & ~truth)[0])
    values[place], scores = 1.0, scores.copy()
    scores[place] = -12.0
    wrong = OwnLabels(labels.ids, "binary", ("ring",), values)
    errors = publish(scores, wrong, wrong.splits(validation=0.5, test=0.49)).errors
    assert place in [error.row for error in errors[:10]]


def test_intervals_of_a_number_hold_the_truth_as_often_as_they_promise(tmp_path):
    random = np.random.default_rng(0)
    truth = random.normal(size=3000)
    values = np.where(np.arange(3000) < 400, truth, np.nan).astype(np.float32)[:, None]
    labels = OwnLabels(np.array([f"g{row}" for row in range(3000)], dtype=object), "number", ("mass",), values)
    splits = labels.splits(validation=0.5, test=0.4)
    published = publish((truth + random.normal(scale=0.3, size=3000))[:, None], labels, splits, coverage=0.8)
    table = published.predict()
    inside = (table["low"] <= truth) & (truth <= table["high"])
    assert abs(inside.mean() - 0.8) < 0.06
    # The page draws the galaxies of the test split, and no other.
    np.testing.assert_array_equal(np.isfinite(published.unseen[:, 0]), splits == "test")
    page = published.write(tmp_path).read_text(encoding="utf-8")
    assert (tmp_path / "images" / "label-0.webp").stat().st_size > 0
    assert "images/label-0.webp" in page


@pytest.mark.parametrize("kind", ["classes", "tags", "counts"])
def test_every_class_tag_and_answer_has_its_column_in_every_part(kind, tmp_path):
    random = np.random.default_rng(0)
    which = random.integers(0, 3, 300)
    values = np.eye(3, dtype=np.float32)[which] * (5 if kind == "counts" else 1)
    values[-80:] = np.nan
    labels = OwnLabels(np.array([f"g{row}" for row in range(300)], dtype=object), kind, ("a", "b", "c"), values)
    scores = 3 * np.eye(3)[which] + random.normal(size=(300, 3))
    published = publish(scores, labels, labels.splits(validation=0.4, test=0.4))
    table = published.predict()
    # A part without any label has the same columns as the others.
    written = tables.write_parts(published.parts(rows=70), tmp_path / "table.parquet", tables.OWN_PREDICTIONS)
    assert pq.read_table(written).equals(published.table())
    tables.write_csv(published.parts(rows=70), tmp_path / "table.csv")
    text = pd.read_csv(tmp_path / "table.csv")
    assert text.columns.tolist() == table.columns.tolist()
    assert text.isna().equals(table.replace("", None).isna())
    ending = "fraction" if kind == "counts" else "probability"
    predicted = table[[f"{name}_{ending}" for name in "abc"]].to_numpy()
    assert (predicted.argmax(axis=1) == which).mean() > 0.8
    # The other labelled classes are not mixed as in the survey, so that purity is not known.
    assert all(np.isnan(found.purity).all() == (kind == "classes") for found in published.evaluations)
    assert any("yes/no" in note for note in published.notes) == (kind == "classes")
    if kind != "tags":
        np.testing.assert_allclose(predicted.sum(axis=1), 1, atol=1e-5)


def test_scores_that_say_nothing_give_everybody_the_same_probability():
    scores, truth = np.linspace(1, 0, 100)[:, None], np.repeat([0.0, 1.0], 50)[:, None]
    assert np.ptp(Calibration.fit(scores, truth, kind="binary").probabilities(scores)) == 0
    assert class_shares(np.full((10, 2), 0.5), before=np.array([0.5, 0.5]))[0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"splits": "validation"}, DataError, ["without positives", "test=0"]),
        ({"splits": "train"}, DataError, ["too few labels", "validation"]),
        ({"scores": np.zeros((N, 2))}, ConfigError, ["(6000, 2)"]),
        ({"scores": np.full((N, 1), np.nan)}, DataError, ["6000 galaxies"]),
        ({"sampling": "some"}, ConfigError, ["some", "random"]),
    ],
)
def test_what_cannot_be_published_is_refused(survey, change, error, message):
    truth, scores, labels = survey
    splits = labels.splits(validation=0.5, test=0.49)
    if change.get("splits") == "train":
        splits = np.where(splits == "", "", "train").astype(object)
    elif change.get("splits"):
        splits = np.where((splits == "test") & truth, "validation", splits).astype(object)
    with pytest.raises(error) as refused:
        publish(change.get("scores", scores), labels, splits, sampling=change.get("sampling", "chosen"))
    assert all(part in str(refused.value) for part in message), refused.value
