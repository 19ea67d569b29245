"""Words mean answers of a question tree; what is understood, corrected and left out is said."""

import numpy as np
import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.data.expressions import evaluate
from rarezoo.data.trees import Question, QuestionTree, named_tree, tree_names
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError
from rarezoo.explore.words import tree_of, understand

pytestmark = pytest.mark.unit
DESI = named_tree("desi")
# The fractions of one galaxy, in which every answer has another value.
FRACTIONS = {answer: (number + 1) / 100 for number, answer in enumerate(DESI.answers)}
SMOOTH = FRACTIONS["smooth-or-featured_smooth"]
FEATURED, FACE_ON = FRACTIONS["smooth-or-featured_featured-or-disk"], FRACTIONS["disk-edge-on_no"]


def score(text, tree=DESI, fractions=FRACTIONS):
    understood = understand(text, tree.answers, tree=tree)
    galaxy = pa.table({tables.fraction_column(answer): [value] for answer, value in fractions.items()})
    return float(evaluate(understood.expression, galaxy)[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smooth", SMOOTH),
        ("an elliptical galaxy", SMOOTH),
        ("edge-on", FEATURED * FRACTIONS["disk-edge-on_yes"]),
        ("spiral", FEATURED * FACE_ON * FRACTIONS["has-spiral-arms_yes"]),
        ("barred", FEATURED * FACE_ON * (FRACTIONS["bar_strong"] + FRACTIONS["bar_weak"])),
        ("strongly barred", FEATURED * FACE_ON * FRACTIONS["bar_strong"]),
        (
            "barred spiral",
            FEATURED * FACE_ON * (FRACTIONS["bar_strong"] + FRACTIONS["bar_weak"]) * FRACTIONS["has-spiral-arms_yes"],
        ),
        (
            "two arms, tightly wound",
            FEATURED * FACE_ON * FRACTIONS["has-spiral-arms_yes"] * FRACTIONS["spiral-arm-count_2"]
            * FRACTIONS["spiral-winding_tight"],
        ),
        ("not smooth", 1 - SMOOTH),
        ("not spiral", 1 - FEATURED * FACE_ON * FRACTIONS["has-spiral-arms_yes"]),
        (
            "spiral, not barred",
            FEATURED * FACE_ON * FRACTIONS["has-spiral-arms_yes"]
            * (1 - FRACTIONS["bar_strong"] - FRACTIONS["bar_weak"]),
        ),
        ("unbarred", FEATURED * FACE_ON * FRACTIONS["bar_no"]),
        (
            "two or three arms",
            FEATURED * FACE_ON * FRACTIONS["has-spiral-arms_yes"]
            * (FRACTIONS["spiral-arm-count_2"] + FRACTIONS["spiral-arm-count_3"]),
        ),
        ("merger or smooth", 1 - (1 - FRACTIONS["merging_merger"]) * (1 - SMOOTH)),
        ("smooth and not smooth", SMOOTH * (1 - SMOOTH)),
    ],
)  # fmt: skip
def test_the_score_is_the_share_of_volunteers_who_would_agree(text, expected):
    assert score(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("spirl", "spiral"), ("Spirals", "spiral"), ("brared spiral", "barred spiral"), ("edgeon", "edge-on"),
        ("tigthly wound", "tightly wound"), ("ellipitcal", "elliptical"), ("mergger", "merger"), ("EDGE ON", "edge-on"),
        ("2-armed", "two arms"), ("cigar shaped", "cigar"), ("discs", "disk"), ("artefact", "artifact"),
    ],
)  # fmt: skip
def test_typing_errors_plurals_and_other_spellings_do_not_matter(typed, meant):
    assert score(typed) == score(meant)


def test_what_was_corrected_is_said():
    understood = understand("spirl with strng bar", DESI.answers, tree=DESI)
    assert understood.corrected == {"spirl": "spiral", "strng": "strong"}
    assert "Read spirl as spiral." in understood.lines()


def test_words_without_an_answer_in_the_store_are_told_from_words_without_a_meaning():
    understood = understand("edge-on with dust lane and a blue halo", DESI.answers, tree=DESI)
    assert understood.absent == ("dust lane",)
    assert understood.unknown == ("blue", "halo")
    told = " ".join(understood.lines())
    assert "no answer for: dust lane" in told
    assert "not used: blue, halo" in told
    assert understood.expression == understand("edge-on", DESI.answers, tree=DESI).expression


def test_words_that_exclude_each_other_are_named():
    understood = understand("edge-on spiral", DESI.answers, tree=DESI)
    assert understood.conflicts == ("edge on and spiral",)
    assert "disk-edge-on_yes" in understood.expression
    assert "disk-edge-on_no" not in understood.expression


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blue halo", r"none of these words was understood: blue halo \(blue; halo\).*smooth, featured"),
        ("ring", r"ring \(no answer in this store\)"),
        ("", "none of these words"),
        ("of the galaxies", "none of these words"),
        ("not", "none of these words"),
    ],
)
def test_a_text_of_which_nothing_is_understood_is_refused_with_words_that_can_be_used(text, message):
    with pytest.raises(ConfigError, match=message):
        understand(text, DESI.answers, tree=DESI)


@pytest.mark.parametrize("name", tree_names())
def test_every_published_tree_is_understood(name):
    tree = named_tree(name)
    galaxy = {answer: 0.5 for answer in tree.answers}
    for text in ("smooth", "edge-on", "spiral with two arms", "barred", "tightly wound", "not smooth", "no bulge"):
        understood = understand(text, tree.answers, tree=tree)
        assert not understood.absent, f"{name}: {text}"
        assert not understood.unknown, f"{name}: {text}"
        assert 0 < score(text, tree, galaxy) <= 1


@pytest.mark.parametrize("name", tree_names())
def test_every_answer_can_be_named_by_its_own_words(name):
    tree = named_tree(name)
    for question in tree.questions:
        for answer in question.answers:
            words = answer.removeprefix(question.name).strip("_").replace("-", " ")
            asked = question.name.replace("-", " ")
            text = asked if words == "yes" else f"no {asked}" if words == "no" else f"{asked} {words}"
            for ending in ("gz2", "dr12", "dr5", "dr8", "hubble", "candels", "jwst"):
                text = text.replace(f" {ending}", "")
            understood = understand(text, tree.answers, tree=tree)
            assert any(answer in term.answers for term in understood.terms), f"{name}: {text}"


def test_a_tree_of_ones_own_has_its_words():
    tree = QuestionTree(
        "rings", (
            Question("ring", ("ring_yes", "ring_no")),
            Question("ring-kind", ("ring-kind_nuclear", "ring-kind_dust-lane"), "ring_yes"),
        ),
    )  # fmt: skip
    assert understand("ring", tree.answers, tree=tree).expression == "`ring_yes_fraction`"
    nuclear = understand("nuclear ring", tree.answers, tree=tree)
    assert nuclear.terms[0].answers == ("ring-kind_nuclear",)
    assert sorted(nuclear.expression.split(" * ")) == ["`ring-kind_nuclear_fraction`", "`ring_yes_fraction`"]


def test_without_a_tree_each_answer_stands_for_itself():
    assert (
        understand("barred", ["bar_strong", "bar_weak"]).expression == "(`bar_strong_fraction` + `bar_weak_fraction`)"
    )


def test_the_tree_of_a_store_is_recognised_by_its_answers(tmp_path):
    gz2 = named_tree("gz2")
    store = EmbeddingStore.from_array(
        ["a", "b"], np.eye(2, dtype=np.float32), out=tmp_path, name="net",
        fractions={answer: np.array([0.2, 0.4]) for answer in gz2.answers},
    )  # fmt: skip
    assert tree_of(store).name == "gz2"


def test_a_store_of_another_tree_has_none(tmp_path):
    store = EmbeddingStore.from_array(
        ["a"], np.eye(1, dtype=np.float32), out=tmp_path, name="net", fractions={"colour_red": np.array([0.2])}
    )
    assert tree_of(store) is None
    assert understand("colour red", store.manifest.answers).expression == "`colour_red_fraction`"
