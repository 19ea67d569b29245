"""A new population is reported; a new draw of the old survey is not."""

import numpy as np
import pytest

from rarezoo.searches.assigner import Assigner
from rarezoo.searches.novelty import FAR, REACH, Novelty, find_clumps, find_novelty

pytestmark = pytest.mark.unit

WIDTH, KNOWN = 5, 1500
GROUP = np.array([6.0, 0, 0, 0, 0])


@pytest.fixture(scope="module")
def assigner():
    known = np.random.default_rng(0).normal(size=(KNOWN, WIDTH)).astype(np.float32)
    return Assigner(known, np.full(KNOWN, -1))


def clumps_of(assigner, vectors):
    """Clumps among the far of some new galaxies, and the rows of the far."""
    vectors = vectors.astype(np.float32)
    far = np.flatnonzero(assigner.assign(vectors).p_known <= FAR)
    reaches = assigner.reaches(vectors[far], rows=np.full(len(far), -1), neighbours=REACH)
    result, p_value = find_clumps(vectors[far], reaches, known=KNOWN, galaxies=len(vectors))
    return result, p_value, far


def test_new_draws_of_the_old_survey_have_no_clump(assigner):
    alarms = [clumps_of(assigner, np.random.default_rng(seed).normal(size=(KNOWN, WIDTH)))[0] for seed in range(1, 13)]
    assert alarms == [()] * 12


@pytest.mark.parametrize("size", [25, 60])
def test_a_planted_group_is_reported_with_its_size(assigner, size):
    random = np.random.default_rng(20)
    group = random.normal(GROUP, 0.3, (size, WIDTH))
    result, p_value, far = clumps_of(assigner, np.concatenate([random.normal(size=(KNOWN, WIDTH)), group]))
    assert len(result) == 1
    assert result[0].size == pytest.approx(size, abs=2)
    assert far[result[0].middle] >= KNOWN, "a galaxy of the group is in the middle"
    assert p_value < 1e-3


def test_two_planted_groups_are_two_clumps(assigner):
    random = np.random.default_rng(21)
    groups = [random.normal(sign * GROUP, 0.3, (size, WIDTH)) for sign, size in ((1, 20), (-1, 40))]
    result, _, _ = clumps_of(assigner, np.concatenate([random.normal(size=(500, WIDTH)), *groups]))
    assert [clump.size for clump in result] == [pytest.approx(40, abs=2), pytest.approx(20, abs=2)]


def test_a_broader_survey_is_new_but_not_one_population():
    novelty = find_novelty(120, galaxies=1500, known=KNOWN)
    assert novelty.p_value < 1e-6
    assert not novelty.appeared
    assert novelty.sentence().startswith("Something is new, but it is not one population: 120 of 1,500")


def test_as_many_far_galaxies_as_expected_are_not_new():
    novelty = find_novelty(15, galaxies=1500, known=KNOWN)
    assert novelty.expected == pytest.approx(15, abs=0.1)
    assert 0.3 < novelty.p_value < 0.7
    assert novelty.sentence().startswith("No new population")


def test_too_few_known_galaxies_cannot_tell():
    assert find_novelty(3, galaxies=100, known=50).sentence().startswith("Too few galaxies were searched")


def test_the_sentence_names_the_galaxy_in_the_middle(assigner):
    random = np.random.default_rng(22)
    group = random.normal(GROUP, 0.3, (30, WIDTH))
    together, p_clump, far = clumps_of(assigner, np.concatenate([random.normal(size=(500, WIDTH)), group]))
    novelty = Novelty(530, len(far), 5.3, 1e-9, together, p_clump)
    names = np.array([f"g{row}" for row in far])
    assert novelty.appeared
    assert novelty.sentence(names).startswith("A new population has appeared")
    assert f"lie together around galaxy {names[together[0].middle]}" in novelty.sentence(names)


def test_one_far_galaxy_is_no_clump():
    assert find_clumps(np.zeros((1, 2)), np.ones(1), known=10, galaxies=10.0) == ((), 1.0)
