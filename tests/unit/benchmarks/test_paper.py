"""The paper's claims as numbers, on labellings whose verdict is known."""

import numpy as np
import pytest

from benchmarks import paper
from benchmarks.paper import Found, findings, found, single_threshold, verdict
from rarezoo.statistics import Interval

pytestmark = pytest.mark.unit

PLANTED = np.repeat([0, 1, 2, 3, -1], [20, 40, 60, 80, 300])


def labelled(*classes):
    labels = np.full(len(PLANTED), -1)
    for class_id, rows in enumerate(classes):
        labels[rows] = class_id
    return labels


def test_every_fate_is_reported():
    # The first is found; the second split in two; the third lies with a crowd; the fourth is in no class.
    result = found(PLANTED, labelled(slice(0, 18), slice(20, 40), slice(40, 60), slice(60, 220), slice(400, 420)))
    assert result.whole.tolist() == [True, False, False, False]
    assert result.fates == ("found", "split", "swallowed", "swallowed")
    assert found(PLANTED, labelled(slice(0, 18))).fates[3] == "dissolved"
    assert result.false == 2
    assert result.recovery == pytest.approx((0.9 + 0.5 + 60 / 160 + 80 / 160) / 4)
    assert result.sizes.tolist() == [18, 20, 20, 160, 20]


def result(whole, fate="split"):
    fates = tuple("found" if is_whole else fate for is_whole in whole)
    return Found(np.array(whole, bool), fates, 0.0, 0, np.array([]))


SMALL = np.array([True, True, False, False])


def test_one_threshold_for_all_loses_nothing():
    single = single_threshold([result([1, 0, 0, 0]), result([1, 1, 1, 1]), result([0, 0, 1, 1])], small=SMALL)
    assert (single.small, single.lost.total(), single.shortfall, single.reachable) == (2, 0, 0, 4)


def test_what_one_threshold_gives_another_takes():
    results = [result([1, 1, 0, 0]), result([1, 0, 1, 0]), result([0, 0, 1, 0], "swallowed")]
    single = single_threshold(results, small=SMALL)
    # The last is found at no threshold, so that none can be blamed for it.
    assert (single.small, dict(single.lost), single.shortfall, single.reachable) == (2, {"split": 1}, 1, 3)


def test_of_two_thresholds_that_find_the_same_small_ones_the_kinder_counts():
    single = single_threshold([result([1, 1, 0, 0]), result([1, 1, 1, 0])], small=SMALL)
    assert (single.lost.total(), single.shortfall) == (0, 0)


@pytest.mark.parametrize(
    ("ends", "message"),
    [((-4, -2), "agrees"), ((-3, 1), "undecided"), ((2, 4), "disagrees"), ((np.nan, np.nan), "undecided")],
)
def test_a_claim_holds_on_the_whole_interval_or_not_at_all(ends, message):
    low, high = ends
    assert verdict(Interval(-3.0, low, high), below=0) == message
    assert verdict(Interval(3.0, -high, -low), above=0) == message
    assert verdict(Interval(4.0, 1 + low, 1 + high), below=1) == message


def sky(**changed):
    names = [f"{map_} {name}" for map_ in ("5-D", "15-D", "densMAP") for name in ("recovery", "found", "false")]
    names += [f"{map_} {name}" for map_ in ("5-D", "densMAP") for name in ("classes", "size")]
    names += [
        f"{kind} {name}"
        for kind in ("lambda", "epsilon")
        for name in ("small", "lost", "shortfall", "reachable", "split", "swallowed", "dissolved")
    ]
    return {**dict.fromkeys(names, 1.0), **changed}


def test_findings_pair_the_maps_of_one_sky():
    """Skies differ by more than maps do; the difference on each is what counts."""
    skies = [
        sky(**{"5-D recovery": level, "15-D recovery": level - 0.05 - level / 100, "densMAP classes": 1.0 - at})
        for at, level in enumerate((0.2, 0.5, 0.9))
    ]
    outcome = {(finding.claim, finding.measure): finding for finding in findings(skies)}
    worse = outcome["15-D worse than 5-D", "recovery, difference"]
    assert worse.verdict == "agrees"
    assert worse.value.value == pytest.approx(-0.0553, abs=1e-3)
    assert outcome["densMAP smoother than UMAP", "classes, difference"].verdict == "undecided"
    assert outcome["no single lambda", "large classes lost"].verdict == "agrees"


@pytest.mark.parametrize(
    ("checkpoint", "generation"),
    [("", "benchmarks.paper.GENERATION"), ("net", "rarezoo.benchmark.tiers.picture_edition")],
)
def test_what_was_measured_on_older_skies_is_measured_again(tmp_path, monkeypatch, checkpoint, generation):
    measured = []
    monkeypatch.setattr(paper, "sky_of", lambda settings, *, seed, folder: seed)
    monkeypatch.setattr(paper, "measured_sky", lambda sky, settings, *, seed: measured.append(sky) or {"found": 1.0})
    settings = paper.SkySettings(galaxies=1000, planted=5, min_samples=10, checkpoint=checkpoint)
    for _ in range(2):
        assert paper._measured(settings, seed=0, folder=tmp_path) == {"found": 1.0}
    assert len(measured) == 1
    monkeypatch.setattr(generation, (lambda: "other code") if checkpoint else 99)
    paper._measured(settings, seed=0, folder=tmp_path)
    assert len(measured) == 2
