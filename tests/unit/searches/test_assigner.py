"""The guarantees of assignments hold on galaxies that were held out, among planted classes."""

import numpy as np
import pytest

from rarezoo.errors import ConfigError
from rarezoo.searches.assigner import Assigner, p_values

pytestmark = pytest.mark.unit

WIDTH, CLASSES, MEMBERS = 6, 3, 80


def survey(seed, *, bulk=1500, classes=CLASSES):
    """A bulk, and classes at its edge that overlap with it; vectors and labels."""
    random = np.random.default_rng(seed)
    middles = 2.4 * np.eye(WIDTH)[:classes]
    parts = [random.normal(size=(bulk, WIDTH)), *(random.normal(middle, 0.35, (MEMBERS, WIDTH)) for middle in middles)]
    labels = np.repeat([-1, *range(classes)], [bulk, *[MEMBERS] * classes])
    return np.concatenate(parts).astype(np.float32), labels


@pytest.fixture(scope="module")
def assigner():
    return Assigner(*survey(0))


@pytest.mark.parametrize("level", [0.01, 0.05])
def test_no_more_unassigned_galaxies_get_a_class_than_guaranteed(level):
    assigner = Assigner(*survey(0), level)
    vectors, labels = survey(1, bulk=4000)
    result = assigner.assign(vectors).class_ids
    false = np.mean(result[labels == -1] != -1)
    assert 0 < false <= level + 3 * np.sqrt(level / 1500)
    wrong, of = assigner.check.falsely_assigned
    assert false == pytest.approx(wrong / of, abs=4 * np.sqrt(max(wrong, 1)) / of), "the check predicts it"


def test_members_get_their_class_back_as_often_as_the_check_says(assigner):
    vectors, labels = survey(2)
    result = assigner.assign(vectors).class_ids
    inside = labels != -1
    right, of = assigner.check.recovered()
    assert np.mean(result[inside] == labels[inside]) == pytest.approx(right / of, abs=0.08)
    assert right / of > 0.8
    assert assigner.check.misplaced == 0


def test_probabilities_are_shares_of_correct_assignments(assigner):
    vectors, labels = survey(3)
    result = assigner.assign(vectors)
    assigned = result.class_ids != -1
    for part in (assigned, ~assigned):
        right = result.class_ids[part] == labels[part]
        assert result.probabilities[part].mean() == pytest.approx(right.mean(), abs=0.06)


def test_p_values_of_a_new_draw_are_uniform(assigner):
    vectors, labels = survey(4)
    result = assigner.assign(vectors)
    for p in (result.p_known, result.p_class[(labels == 0) & (result.nearest == 0)]):
        assert np.mean(p <= 0.1) <= 0.1 + 3 * np.sqrt(0.09 / len(p))
        assert p.mean() == pytest.approx(0.5, abs=0.1)


def test_a_galaxy_far_from_everything_gets_no_class(assigner):
    far = np.full((5, WIDTH), 30, dtype=np.float32)
    result = assigner.assign(far)
    assert (result.class_ids == -1).all()
    assert (result.p_known <= 1 / 1500).all()


def test_a_searched_galaxy_is_not_its_own_neighbour(assigner):
    rows = np.array([0, 1600])
    own = assigner.neighbourhood(assigner.positions[rows], rows=rows)
    assert (own.distances > 0).all()
    seen = assigner.reaches(assigner.positions[rows], rows=np.array([-1, -1]), neighbours=1)
    np.testing.assert_allclose(seen, 0, atol=1e-3)
    assert (assigner.reaches(assigner.positions[rows], rows=rows, neighbours=1) > 0.01).all()


def test_a_search_without_classes_assigns_no_class():
    vectors, _ = survey(0, classes=0)
    result = Assigner(vectors, np.full(len(vectors), -1)).assign(vectors[:20])
    assert (result.class_ids == -1).all()
    assert (result.nearest == -1).all()


def test_assigning_no_galaxies_gives_an_empty_result(assigner):
    assert len(assigner.assign(np.empty((0, WIDTH), dtype=np.float32)).class_ids) == 0


@pytest.mark.parametrize(
    ("labels", "level", "message"),
    [
        ([-1] * 30, 0.0, "level must be a share: 0"),
        ([0] * 29 + [-1], 0.05, r"only 1 galaxies.*0\.05.*Choose 0\.5 or more"),
        ([-1], 0.9, "too few searched galaxies.*: 1"),
    ],
)
def test_levels_that_cannot_be_guaranteed_are_refused(labels, level, message):
    with pytest.raises(ConfigError, match=message):
        Assigner(np.zeros((len(labels), 2), dtype=np.float32), np.array(labels), level)


def test_p_values_count_the_galaxy_itself():
    calibration = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(p_values(calibration, np.array([0.5, 2.0, 9.0])), [1, 3 / 4, 1 / 4])
    np.testing.assert_allclose(p_values(calibration, np.array([1.0, 3.0]), own=True), [1, 1 / 3])
