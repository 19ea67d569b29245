"""Cuts say what they drop, NaN included, and run nothing but comparisons."""

import numpy as np
import pyarrow as pa
import pytest

from rarezoo import tables
from rarezoo.embeddings.store import EmbeddingStore, Manifest
from rarezoo.errors import ConfigError, StoreError
from rarezoo.searches.select import Select

pytestmark = pytest.mark.unit

NAN = float("nan")
SAMPLE = pa.table(
    {
        tables.ID: list("abcdef"),
        "smooth-or-featured_smooth_fraction": [0.1, 0.5, 0.9, NAN, 0.2, 0.3],
        "edge_fraction": pa.array([0.0, 0.0, 0.0, 0.9, NAN, 0.4], pa.float32()),
        "size": [1, 2, 3, 4, 5, 6],
        "survey": ["x", "x", "y", "y", None, "x"],
        tables.EMBEDDING: tables.vectors(np.zeros((6, 2), dtype=np.float32)),
    }
)
SMOOTH = "`smooth-or-featured_smooth_fraction`"


def kept(*cuts, **settings):
    selection = Select(drop=list(cuts), **settings).kept(SAMPLE)
    return "".join(np.array(list("abcdef"))[selection.mask])


@pytest.mark.parametrize(
    ("cut", "left"),
    [
        (f"{SMOOTH} >= 0.5", "adef"),
        (f"not ({SMOOTH} < 0.5)", "adef"),
        (f"0.2 <= {SMOOTH} <= 0.5", "acd"),
        (f"{SMOOTH} >= 0.5 or edge_fraction > 0.3", "ae"),
        (f"{SMOOTH} >= 0.5 and edge_fraction > 0.3", "abcdef"),
        ("size * 2 - 1 > 6 / 2", "ab"),
        ("-size < -4", "abcd"),
        ("survey == 'x'", "cde"),
        ("survey != 'x'", "abef"),
        ("0 / (size - 1) >= 0", "a"),
    ],
)
def test_galaxies_for_which_a_cut_is_true_are_dropped(cut, left):
    assert kept(cut) == left


@pytest.mark.parametrize(
    ("cut", "left"),
    [
        (f"{SMOOTH} >= 0.5", "aef"),
        (f"not ({SMOOTH} < 0.5)", "aef"),
        (f"{SMOOTH} >= 0.5 or edge_fraction > 0.3", "a"),
        (f"{SMOOTH} >= 0.5 and edge_fraction > 0.3", "abcef"),
    ],
)
def test_what_nan_leaves_open_can_be_dropped_instead(cut, left):
    assert kept(cut, nan="drop") == left


def test_each_cut_tells_its_own_toll():
    _, cuts = Select(drop=[f"{SMOOTH} >= 0.5", "edge_fraction > 0.3"], nan="drop").kept(SAMPLE)
    assert [(cut.dropped, cut.undecided) for cut in cuts] == [(3, 1), (3, 1)]
    assert str(cuts[0]) == f"{SMOOTH} >= 0.5 drops 3 (1 undecided by NaN)"


def test_a_cut_over_several_chunks_is_the_same():
    chunked = pa.concat_tables([SAMPLE.slice(0, 2), SAMPLE.slice(2)])
    assert Select(drop=["size > 3"]).kept(chunked).mask.tolist() == [True] * 3 + [False] * 3


def test_a_random_subset_is_seeded_and_does_not_depend_on_the_order_of_the_rows():
    select = Select(drop=["size == 1"], sample=3)
    ids = np.array(SAMPLE[tables.ID].to_pylist())
    backwards = SAMPLE.take(np.arange(6)[::-1])
    chosen = [set(ids[select.kept(SAMPLE, seed=seed).mask]) for seed in range(6)]
    assert all(len(subset) == 3 and "a" not in subset for subset in chosen)
    assert len(set(map(frozenset, chosen))) > 1
    assert set(ids[::-1][select.kept(backwards, seed=2).mask]) == chosen[2]
    assert select.kept(SAMPLE.slice(0, 3)).mask.sum() == 2


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ("smooth >= 0.5", "unknown column: smooth. Columns are: id_str, smooth-or-featured_smooth_fraction"),
        ("edge_fractions >= 0.5", "unknown column: edge_fractions. Did you mean edge_fraction. Columns are"),
        ("embedding > 1", "unknown column: embedding"),
        ("edge_fraction >", "unreadable cut: edge_fraction >"),
        ("`edge_fraction > 1", "unreadable cut"),
        ("__import__('os').system('true')", "may not hold: __import__"),
        ("size.real > 1", "may not hold: size.real"),
        ("size[0] > 1", "may not hold"),
        ("@size > 1", "unreadable cut"),
        ("size > 10 ** 9", "may not hold: 10 \\*\\* 9"),
        ("[one for one in size]", "may not hold"),
        ("(x := 3) > 2", "may not hold"),
        ("round(`edge_fraction`) > 0", r"may not hold: round\(`edge_fraction`\)"),
        ("size + 1", "must be true or false"),
        ("1 > 0", "must be true or false"),
        ("survey > 3", "mixes kinds"),
        ("size and True", "mixes kinds"),
    ],
)
def test_anything_else_is_refused_with_the_offending_text(cut, message):
    with pytest.raises(ConfigError, match=message):
        kept(cut)


def test_when_nothing_is_left_every_cut_tells_its_toll():
    with pytest.raises(ConfigError, match=r"none of 6 galaxies.*size > 2 drops 4.*size < 3 drops 2"):
        kept("size > 2", "size < 3")


@pytest.mark.parametrize("settings", [{"nan": "maybe"}, {"sample": -1}])
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ConfigError, match=r"select\.\w+ (must be|has no such choice)"):
        kept(**settings)


def test_an_answer_may_be_named_without_its_campaign():
    fractions = [0.1, 0.5, 0.9, NAN, 0.2, 0.3]
    suffixed = SAMPLE.rename_columns(
        [name.replace("featured_smooth", "featured-gz2_smooth") for name in SAMPLE.column_names]
    )
    assert Select(drop=[f"{SMOOTH} >= 0.5"]).kept(suffixed).mask.tolist() == [True, False, False, True, True, True]
    both = suffixed.append_column("smooth-or-featured-dr5_smooth_fraction", pa.array(fractions))
    with pytest.raises(
        ConfigError, match=r"fits several columns: smooth.*Name one: smooth-or-featured-gz2_smooth_fract"
    ):
        Select(drop=[f"{SMOOTH} >= 0.5"]).kept(both)
    own = both.append_column("smooth-or-featured_smooth_fraction", pa.array([1.0] * 5 + [0.0]))
    assert Select(drop=[f"{SMOOTH} >= 0.5"]).kept(own).mask.tolist() == [False] * 5 + [True]
    longer = SAMPLE.rename_columns(
        [name.replace("featured_smooth", "featured-or_smooth") for name in SAMPLE.column_names]
    )
    with pytest.raises(ConfigError, match="unknown column: smooth-or-featured_smooth_fraction"):
        Select(drop=[f"{SMOOTH} >= 0.5"]).kept(longer)


def store(folder, ids, *, fractions, checkpoint, survey="sky", limit=0):
    """A whole store of galaxies with their fractions that are smooth."""
    manifest = Manifest(
        survey="mock", survey_sha256=f"{survey}-{limit}", survey_settings={"option": survey, "limit": limit},
        checkpoint=checkpoint, checkpoint_sha256=checkpoint, precision="float32", width=2, dtype="float32",
        rows=len(ids), shard_rows=100, answers=("smooth-or-featured_smooth",),
    )  # fmt: skip
    made = EmbeddingStore.create(folder, manifest)
    values = np.array(fractions, dtype=np.float32)[:, None]
    made.write_shard(0, ids=ids, embeddings=np.zeros((len(ids), 2), np.float32), fractions=values)
    return made


def test_cuts_go_by_another_networks_fractions_joined_by_id(tmp_path):
    ours = store(tmp_path / "ours", list("abc"), fractions=[0.9, 0.9, 0.1], checkpoint="maxvit_tiny.x", limit=3)
    store(tmp_path / "theirs", list("dcba"), fractions=[0.5, 0.8, 0.2, 0.1], checkpoint="efficientnet_b0.x")
    select = Select(drop=[f"{SMOOTH} >= 0.5"], fractions_from=str(tmp_path / "theirs"), fractions_by="efficientnet_b0")
    judged = select.judged(ours.read(), store=ours)
    assert judged[tables.ID].to_pylist() == list("abc")
    assert judged["smooth-or-featured_smooth_fraction"].to_pylist() == pytest.approx([0.1, 0.2, 0.8])
    assert judged.column_names == ours.read().column_names
    assert select.kept(judged).mask.tolist() == [True, True, False]
    assert Select().judged(ours.read(), store=ours).equals(ours.read())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": list("ab")}, r"theirs \(select\.fractions_from\) lacks .*1 of 3 \[galaxies c\]"),
        ({"survey": "other"}, "is a store of another survey"),
        ({"checkpoint": "convnext_nano.x"}, "that efficientnet_b0 predicts.*: convnext_nano.x"),
    ],
)
def test_fractions_of_something_else_are_refused(tmp_path, changes, message):
    ours = store(tmp_path / "ours", list("abc"), fractions=[0.9, 0.9, 0.1], checkpoint="maxvit_tiny.x")
    theirs = {"ids": list("abc"), "checkpoint": "efficientnet_b0.x", **changes}
    store(tmp_path / "theirs", theirs.pop("ids"), fractions=[0.5] * len(changes.get("ids", "abc")), **theirs)
    select = Select(fractions_from=str(tmp_path / "theirs"), fractions_by="efficientnet_b0")
    with pytest.raises((ConfigError, StoreError), match=message):
        select.judged(ours.read(), store=ours)
    with pytest.raises(ConfigError, match=r"maxvit_tiny\.x\. Give select\.fractions_from=STORE"):
        Select(fractions_by="efficientnet_b0").judged(ours.read(), store=ours)
