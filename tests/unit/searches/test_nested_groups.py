"""Which of nested groups are chosen, which galaxies are members of one, and in which order classes are looked at."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarezoo.searches.grades import class_directions, looking_order
from rarezoo.searches.isolation import NodeTree
from rarezoo.searches.null_surveys import NullSurveys
from rarezoo.searches.significance import Significance, TreeScores, strongest_nodes

pytestmark = pytest.mark.unit

GALAXIES, NEIGHBOURS = 2000, 20


@st.composite
def trees(draw):
    """Parents of up to nine nodes, and their evidence; whole numbers, so that sums are exact."""
    size = draw(st.integers(1, 9))
    parents = [-1, *(draw(st.integers(0, node - 1)) for node in range(1, size))]
    evidence = draw(st.lists(st.integers(0, 5), min_size=size, max_size=size))
    return np.array(parents), np.array(evidence, dtype=float)


def apart(parents, nodes):
    """Whether none of the nodes holds another."""
    for node in nodes:
        around = parents[node]
        while around >= 0:
            if around in nodes:
                return False
            around = parents[around]
    return True


@given(trees())
def test_the_chosen_nodes_have_the_largest_sum_of_all_that_do_not_hold_each_other(tree):
    parents, evidence = tree
    chosen = strongest_nodes(parents, evidence).tolist()
    assert apart(parents, chosen)
    assert all(evidence[chosen] > 0)
    possible = [
        nodes
        for count in range(len(parents) + 1)
        for nodes in combinations(range(len(parents)), count)
        if apart(parents, nodes)
    ]
    assert evidence[chosen].sum() == max(evidence[list(nodes)].sum() for nodes in possible)


def null_surveys_of(*, count=20, each=100):
    """Null nodes of all sizes that hold a tenth of the neighbours of their members."""
    random = np.random.default_rng(0)
    surveys = []
    for _ in range(count):
        sizes = np.exp(random.uniform(np.log(10), np.log(140), each)).astype(int)
        surveys.append(np.stack([np.full(each, -1.0), sizes, 1 / (1 + np.exp(2.2 - 0.3 * random.normal(size=each)))]))
    return NullSurveys.of(GALAXIES, surveys)


def scored(parents, own, isolated, *, densities=None):
    """Scores of a tree whose nodes hold some galaxies of their own.

    Args:
        parents: of each node, the root first.
        own: galaxies of each node that are in no node inside it.
        isolated: share of the neighbours of a galaxy in each node that lie in this node; the others lie anywhere.
    """
    random = np.random.default_rng(1)
    homes = np.repeat(np.arange(len(parents)), [GALAXIES - sum(own[1:]), *own[1:]])
    tree = NodeTree(np.array(parents), homes)
    members = [tree.members(node) for node in range(len(parents))]
    graph = random.integers(0, GALAXIES, (GALAXIES, NEIGHBOURS)).astype(np.int32)
    for galaxy, home in enumerate(homes):
        node, free = home, np.arange(NEIGHBOURS)
        while node > 0 and len(free):
            taken = free[: round(isolated[node] * len(free))]
            graph[galaxy, taken] = random.choice(members[node], len(taken))
            free, node = free[len(taken) :], parents[node]
    densities = np.ones(GALAXIES) if densities is None else densities(homes)
    return TreeScores(tree, densities, graph, null_surveys_of(), Significance())


def test_two_kinds_that_touch_are_two_classes():
    """The node around them is as isolated as they are; together they have more evidence than it has."""
    scores = scored([-1, 0, 1, 1], [0, 4, 50, 60], [0, 0.6, 0.8, 0.8])
    assert sorted(scores.significant) == [2, 3]


def test_two_halves_of_one_kind_are_one_class():
    """The neighbours of a galaxy lie in the other half as often as in its own."""
    scores = scored([-1, 0, 1, 1], [0, 4, 50, 60], [0, 0.9, 0.0, 0.0])
    assert scores.significant.tolist() == [1]


def test_without_evidence_the_highest_score_is_the_candidate():
    scores = scored([-1, 0, 1, 1], [0, 4, 50, 60], [0, 0.0, 0.02, 0.0])
    assert not len(scores.significant)
    for node in scores.candidates:
        others = [other for other in (1, 2, 3) if not apart(scores.tree.parents, [node, other])]
        assert all(scores.scores[node] >= scores.scores[other] for other in others)


def test_galaxies_at_the_edge_that_blur_a_class_are_left_out():
    """Sixty galaxies stand apart; forty of the surroundings were joined with them at a lower density."""

    def densities(homes):
        return np.where(homes == 2, 9.0, np.where(homes == 1, 2.0, 1.0))

    scores = scored([-1, 0, 1], [0, 40, 60], [0, 0.0, 0.9], densities=densities)
    core = scores.core(GALAXIES + 1)
    inner = scores.tree.members(2)
    assert np.isin(inner, core).all()
    assert len(core) <= len(inner) * 1.2


def test_a_class_without_an_edge_keeps_all_its_galaxies_and_no_class_loses_more_than_half():
    whole = scored([-1, 0], [0, 80], [0, 0.9])
    assert np.array_equal(whole.core(GALAXIES + 1), whole.tree.members(1))
    random = np.random.default_rng(3)
    loose = scored([-1, 0], [0, 80], [0, 0.0], densities=lambda homes: random.random(len(homes)))
    assert 40 <= len(loose.core(GALAXIES + 1)) <= 80


def test_the_members_of_a_class_are_no_reason_for_its_grade():
    """What is left out of a class changes neither its score nor its false discovery rate."""
    densities = lambda homes: np.where(homes == 2, 9.0, 1.0)  # noqa: E731
    scores, other = (scored([-1, 0, 1], [0, 40, 60], [0, 0, 0.9], densities=way) for way in (densities, None))
    for name, values in scores.columns(np.array([GALAXIES + 1])).items():
        assert values == other.columns(np.array([GALAXIES + 1]))[name]


# --- the order of the list


def test_a_class_like_one_above_it_comes_later_and_every_class_comes_once():
    directions = np.array([[1, 0, 0], [0.99, 0.14, 0], [0, 1, 0], [0, 0, 1.0], [0, -1, 0]])
    scores = np.array([10.0, 9.0, 4.0, 3.0, 1.0])
    assert looking_order([0] * 5, scores, directions) == [0, 2, 3, 1, 4]
    assert looking_order([0] * 5, scores) == [0, 1, 2, 3, 4]


def test_no_class_of_a_later_section_comes_before_one_of_an_earlier():
    random = np.random.default_rng(0)
    sections = random.integers(0, 3, 40)
    directions = random.normal(size=(40, 5))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    order = looking_order(sections.tolist(), random.normal(size=40), directions)
    assert sorted(order) == list(range(40))
    assert np.all(np.diff(sections[order]) >= 0)


def test_an_empty_list_has_an_order():
    assert looking_order([], np.empty(0), np.empty((0, 4))) == []
    assert class_directions(np.ones((5, 4), np.float32), np.full(5, -1), classes=0).shape == (0, 4)


def test_the_direction_of_a_class_points_from_the_mean_galaxy_to_its_mean_member():
    features = np.array([[0, 0], [0, 0], [4, 0], [0, 8]], dtype=np.float32)
    directions = class_directions(features, np.array([-1, -1, 0, 1]), classes=2)
    expected = np.array([[3, -2], [-1, 6]]) / np.sqrt([[13], [37]])
    np.testing.assert_allclose(directions, expected)


# --- the threshold


@pytest.mark.parametrize("number", [0.02, 0.05, 1.0, 20.0])
def test_the_threshold_is_the_score_that_null_surveys_show_that_often(number):
    null, asked = null_surveys_of(), {"galaxies": GALAXIES, "shares": (0, 0.07)}
    threshold = null.threshold(number, **asked)
    above, below = null.expected(np.array([threshold, threshold - 1e-3]), **asked)
    assert above <= number <= below + 1 / null.count


def test_what_else_a_survey_holds_does_not_change_which_of_nested_groups_is_chosen():
    """A faint group elsewhere that only just stands out is no reason to split another one."""
    alone = scored([-1, 0, 1, 1], [0, 4, 50, 60], [0, 0.3, 0.4, 0.4])
    beside = scored([-1, 0, 1, 1, 0], [0, 4, 50, 60, 30], [0, 0.3, 0.4, 0.4, 0.25])
    assert alone.scores[1] > alone.scores[2:].max()
    assert sorted(alone.significant) == sorted(set(beside.significant) - {4}) == [2, 3]
