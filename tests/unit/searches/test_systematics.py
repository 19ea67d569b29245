"""Planted causes are found, and no other class is flagged."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import mannwhitneyu

from rarezoo import tables
from rarezoo.errors import ConfigError
from rarezoo.searches.systematics import ARTIFACT, CLEAN, SHREDDED, SYSTEMATICS, Systematics, cause_columns

pytestmark = pytest.mark.unit

GALAXIES, CLASSES, MEMBERS = 2000, 6, 60
LABELS = np.repeat(np.arange(-1, CLASSES), [GALAXIES - CLASSES * MEMBERS] + [MEMBERS] * CLASSES).astype(np.int32)
FIRST = LABELS == 0


def columns(seed=0):
    """A survey on four square degrees, in which no class is anything special."""
    random = np.random.default_rng(seed)
    return {
        tables.ID: [f"g{row}" for row in range(GALAXIES)],
        tables.RA: random.uniform(10, 12, GALAXIES),
        tables.DEC: random.uniform(-1, 1, GALAXIES),
        tables.IMAGE: [f"{row}.jpg" for row in range(GALAXIES)],
        tables.SURVEY: random.choice(["north", "south"], GALAXIES),
        tables.SPLIT: random.choice(["train", "test"], GALAXIES),
        "psf": random.lognormal(0.2, 0.15, GALAXIES),
        "field": random.integers(0, 100, GALAXIES),
        "redshift": np.where(random.random(GALAXIES) < 0.2, np.nan, random.gamma(2, 0.05, GALAXIES)),
        "is_artifact": random.random(GALAXIES) < 0.03,
        "objid": np.arange(GALAXIES),
        "name": [f"J{row}" for row in range(GALAXIES)],
        "bar_strong_fraction": random.random(GALAXIES),
        "Class1.3": random.random(GALAXIES),
        "smooth-or-featured-dr5_smooth": random.integers(0, 40, GALAXIES),
    }


def judged(result, *, predictions=None, systematics=None, labels=LABELS, **settings):
    catalogue = pa.table(result)
    systematics = systematics or Systematics()
    tested = systematics.tested(catalogue, votes=["smooth-or-featured-dr5_smooth"])
    return systematics.causes(
        labels, classes=int(labels.max()) + 1, catalogue=catalogue, columns=tested, predictions=predictions, **settings
    )


def changed(result, name, values):
    """The same survey, but for one column of the first class."""
    column = np.array(result[name])
    column[FIRST] = values
    return {**result, name: column}


def test_columns_with_ids_positions_or_votes_are_left_out():
    tested = Systematics().tested(pa.table(columns()), votes=["smooth-or-featured-dr5_smooth"])
    assert tested == ["survey", "psf", "field", "redshift", "is_artifact"]


@pytest.mark.parametrize("seed", range(3))
def test_no_class_is_flagged_without_a_planted_cause(seed):
    result = judged(columns(seed))
    assert [judgement.flag for judgement in result] == [CLEAN] * CLASSES
    assert "psf" in result[0].reason


@pytest.mark.parametrize(
    ("name", "values", "flag", "message"),
    [
        ("psf", np.random.default_rng(7).lognormal(0.5, 0.15, MEMBERS), SYSTEMATICS, "psf: median 1.6"),
        ("field", np.where(np.arange(MEMBERS) < 40, 17, np.arange(MEMBERS)), SYSTEMATICS, "in 17 against"),
        ("dec", np.random.default_rng(7).uniform(0.4, 0.5, MEMBERS), SYSTEMATICS, "declination: "),
        ("survey", "north", SYSTEMATICS, "survey: 100% in north"),
        ("is_artifact", np.arange(MEMBERS) < 40, ARTIFACT, "is_artifact: 67% in true"),
        ("ra", 11 + np.arange(MEMBERS) // 3 / 60, CLEAN, "no large effect"),
    ],
)
def test_a_planted_cause_is_found(name, values, flag, message):
    first, *others = judged(changed(columns(), name, values))
    assert first.flag == flag, first.reason
    assert message in first.reason
    assert [other_run.flag for other_run in others] == [CLEAN] * (CLASSES - 1)


def test_pieces_of_galaxies_are_shredded_even_if_the_other_pieces_were_cut():
    result = columns()
    ordinary = np.flatnonzero(LABELS < 0)[:MEMBERS]
    for name in (tables.RA, tables.DEC):
        result = changed(result, name, result[name][ordinary] + 2 / 3600)
    first, *others = judged(result)
    assert first.flag == SHREDDED
    assert "100% have another catalogue entry within 20 arcsec against" in first.reason
    assert {other_run.flag for other_run in others} == {CLEAN}
    rows = np.setdiff1d(np.arange(GALAXIES), ordinary)
    assert judged(result, labels=LABELS[rows], rows=rows)[0].flag == SHREDDED
    assert judged(result, systematics=Systematics(radius=1.0))[0].flag == CLEAN


def test_a_class_that_the_network_takes_for_artifacts_is_one():
    fractions = np.random.default_rng(0).beta(1, 30, GALAXIES)
    fractions[FIRST] += 0.2
    predictions = pa.table({"smooth-or-featured-gz2_artifact_fraction": fractions})
    without = Systematics().causes(LABELS, classes=CLASSES, predictions=predictions)
    for judgements in (judged(columns(), predictions=predictions), without):
        assert [judgement.flag for judgement in judgements] == [ARTIFACT] + [CLEAN] * (CLASSES - 1)
        assert "predicted smooth-or-featured-gz2_artifact: mean 0.23" in judgements[0].reason


def test_a_tiny_effect_in_a_big_sample_is_no_cause():
    random = np.random.default_rng(0)
    labels = np.repeat(np.array([-1, 0], np.int32), 20_000)
    depth = random.normal(size=40_000) + 0.1 * (labels == 0)
    catalogue = pa.table({tables.RA: [None] * 40_000, tables.DEC: [None] * 40_000, "depth": depth})
    (result,) = Systematics().causes(labels, classes=1, catalogue=catalogue, columns=["depth"])
    assert result.tests[0].q < 1e-6
    assert result.flag == CLEAN


def test_without_anything_to_test_there_is_no_flag():
    result = Systematics().causes(LABELS, classes=CLASSES)
    assert {(judgement.flag, judgement.reason) for judgement in result} == {(None, None)}
    assert set(cause_columns(result)) <= set(tables.CLASSES.columns)
    assert Systematics().tested(None) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": ["seeing"]}, r"no such column: seeing\. Choose among survey, psf"),
        ({"columns": ["psf", "name"]}, "cannot be tested: name"),
        ({"radius": 0.0}, r"systematics\.radius.*: 0\.0"),
    ],
)
def test_settings_that_are_not_valid_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Systematics(**settings).tested(pa.table(columns()))


def test_named_columns_are_the_only_ones_and_need_a_catalogue():
    assert Systematics(columns=["psf"]).tested(pa.table(columns())) == ["psf"]
    with pytest.raises(ConfigError, match=r"need a catalogue: \['psf'\]"):
        Systematics(columns=["psf"]).tested(None)


def test_numbers_are_compared_as_by_scipy():
    random = np.random.default_rng(0)
    values = np.round(random.gamma(2, 3, GALAXIES)) / 2 + FIRST
    catalogue = pa.table({tables.RA: [None] * GALAXIES, tables.DEC: [None] * GALAXIES, "tied": values})
    (test,) = Systematics().causes(LABELS, classes=CLASSES, catalogue=catalogue, columns=["tied"])[0].tests
    wanted = mannwhitneyu(values[FIRST], values[~FIRST], method="asymptotic", use_continuity=False)
    pairs = FIRST.sum() * (~FIRST).sum()
    assert test.effect == pytest.approx(2 * wanted.statistic / pairs - 1)
    assert test.p == pytest.approx(wanted.pvalue)
