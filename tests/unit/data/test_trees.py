"""Question trees: read from zoobot, not retyped; fractions go down the tree."""

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rarezoo.data.trees import Question, QuestionTree, campaigns, named_tree, tree_names
from rarezoo.errors import ConfigError

pytestmark = pytest.mark.unit

SMALL = QuestionTree(
    "small",
    (
        Question("shape", ("shape_smooth", "shape_disk")),
        Question("edge", ("edge_yes", "edge_no"), "shape_disk"),
        Question("arms", ("arms_one", "arms_two", "arms_many"), "edge_no"),
    ),
)


@pytest.mark.parametrize("name", tree_names())
def test_published_trees_agree_with_zoobots_own_label_order(name):
    from zoobot.shared import schemas

    from rarezoo.data.trees import _PUBLISHED

    tree, schema = named_tree(name), getattr(schemas, _PUBLISHED[name])
    assert list(tree.answers) == list(schema.label_cols)
    assert tree.questions[0].asked_after is None


def test_the_tree_of_decals_dr5_has_10_questions_and_34_answers():
    tree = named_tree("decals_dr5")
    assert (len(tree.questions), len(tree.answers)) == (10, 34)
    assert tree.questions[2].asked_after == "disk-edge-on-dr5_no"


def test_fractions_are_conditional_and_nan_where_no_volunteer_was_asked():
    votes = np.array([[2, 8, 2, 6, 3, 3, 0], [10, 0, 0, 0, 0, 0, 0]], dtype=np.float32)
    fractions = SMALL.fractions(votes)
    np.testing.assert_allclose(fractions[0], [0.2, 0.8, 0.25, 0.75, 0.5, 0.5, 0], atol=1e-6)
    assert np.isnan(fractions[1, 2:]).all()
    np.testing.assert_array_equal(SMALL.asked(votes), [[True, True, True], [True, False, False]])


def test_joint_fractions_multiply_down_the_tree_whatever_the_order_of_questions():
    fractions = np.array([[0.2, 0.8, 0.25, 0.75, 0.5, 0.5, 0.0]])
    np.testing.assert_allclose(SMALL.joint_fractions(fractions)[0, 4], 0.8 * 0.75 * 0.5)
    backwards = QuestionTree("backwards", SMALL.questions[::-1])
    reordered = fractions[:, [4, 5, 6, 2, 3, 0, 1]]
    np.testing.assert_allclose(backwards.joint_fractions(reordered)[0, 0], 0.8 * 0.75 * 0.5)


def test_without_makes_orphans_roots():
    tree = SMALL.without(["edge"])
    assert tree.answers == ("shape_smooth", "shape_disk", "arms_one", "arms_two", "arms_many")
    assert tree.questions[1].asked_after is None
    with pytest.raises(ConfigError, match="no question: \\['bar'\\]"):
        SMALL.without(["bar"])


def test_own_tree_comes_from_yaml_and_goes_through_json_unchanged(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(SMALL.to_dict()))
    assert named_tree(str(path)) == SMALL == QuestionTree.from_dict(SMALL.to_dict())


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ([], "no answers"),
        ([{"name": "a", "answers": ["a_x", "a_x"]}], "doubled answers"),
        ([{"name": "a", "answers": ["a_x"], "asked_after": "b_y"}], "not there"),
        (
            [
                {"name": "a", "answers": ["a_x"], "asked_after": "b_y"},
                {"name": "b", "answers": ["b_y"], "asked_after": "a_x"},
            ],
            "lead to each other",
        ),
        ([{"answers": ["a_x"]}], "no key 'name'"),
        ([{"name": "a", "answers": ["a_x"]}, {"name": "a", "answers": ["a_y"]}], r"doubled questions: \['a'\]"),
        ([{"name": "a", "answers": ["a_x"]}, {"name": "b", "answers": []}], r"without answers: \['b'\]"),
        (["a"], "the question 'a' has no name"),
        ({"a": ["a_x"]}, "questions is not a list"),
    ],
)
def test_broken_trees_are_refused(questions, message):
    with pytest.raises(ConfigError, match=message):
        QuestionTree.from_dict({"name": "broken", "questions": questions})


LABELS = [
    "yes",
    "no",
    "on",
    "off",
    "true",
    "null",
    "1",
    "1.10",
    "1e3",
    "0x1A",
    "1_000",
    "012",
    "2024-01-15",
    "12:30:00",
]


@given(labels=st.lists(st.sampled_from(LABELS), min_size=1, unique=True), quote=st.sampled_from(["", "'", '"']))
def test_answers_of_a_yaml_file_are_the_texts_that_were_written(tmp_path_factory, labels, quote):
    path = tmp_path_factory.mktemp("tree") / "own.yaml"
    answers = ", ".join(f"{quote}{label}{quote}" for label in labels)
    path.write_text(f"name: 2024\nquestions:\n- name: off\n  answers: [{answers}]\n  asked_after: null\n")
    tree = named_tree(str(path))
    assert (tree.name, tree.answers) == ("2024", tuple(labels))
    assert tree.questions[0] == Question("off", tuple(labels))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: a\nquestions: [{name: b, answers: yes}]", "not a list"),
        ("name: a\nquestions: [{name: b, answers: [[c]]}]", "no text"),
        ("name: a\nquestions: [{name: b, answers: [{c: d}]}]", "no text"),
        ("name: a\nquestions: [{name: b, answers: [c, '']}]", "no text"),
        ("name: a\nquestions: [{name: b, answers: [c], answers: [d]}]", "answers occurs twice"),
        ("name: a\nquestions: [{name: b, answers: [c], askedafter: d}]", "Did you mean asked_after"),
        ("name: a\nquestions: yes", "question"),
        ("- name: a", "question"),
        ("", "no question tree: nothing"),
        ("name: [", "not YAML"),
        ("[" * 3000, "not YAML"),
        ("!!python/object:os.system {}", "not YAML|question"),
        (b"name: g\xfc", "not YAML.*UTF-8"),
        (b"name: \0", "not YAML"),
    ],
)
def test_other_files_are_refused_with_one_message(tmp_path, content, message):
    path = tmp_path / "own.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=message):
        named_tree(str(path))


@pytest.mark.parametrize("answer", [True, None, 1.1, ["a"]])
def test_a_tree_from_python_needs_text(answer):
    with pytest.raises(ConfigError, match="no text"):
        QuestionTree.from_dict({"name": "a", "questions": [{"name": "b", "answers": [answer]}]})


def test_a_tree_that_an_older_zoobot_lacks_is_named(monkeypatch):
    from zoobot.shared import schemas

    monkeypatch.delattr(schemas, "decals_dr12_ortho_schema", raising=False)
    assert "decals_dr12" not in tree_names()
    with pytest.raises(ConfigError, match=r"decals_dr12.*pip install -U zoobot"):
        named_tree("decals_dr12")
    assert "gz2" in campaigns()


def test_unknown_name_lists_the_names_there_are():
    with pytest.raises(ConfigError, match="decals_dr8"):
        named_tree("decals_dr9")
