"""Prototypes of groups of galaxies: their gate, their null, and where the pages show them."""

from dataclasses import replace

import numpy as np
import pytest

from rarezoo.distillation.features import FeatureSettings
from rarezoo.distillation.judge import JudgeSettings
from rarezoo.distillation.prototype import (
    PrototypeSettings,
    make_prototype,
    prototype_of_class,
    read_prototype,
    write_prototype,
)
from rarezoo.errors import ConfigError, DataError
from rarezoo.report.pages import write_report
from rarezoo.report.prototypes import shown_prototype
from rarezoo.searches.compare import compare
from rarezoo.searches.null_surveys import null_survey
from rarezoo.searches.result import Search
from rarezoo.statistics import Interval
from tests.made_up import survey_on_disk
from tests.unit.distillation.test_distillation import made_up, stub_encoder

pytestmark = pytest.mark.unit
SETTINGS = PrototypeSettings(
    features=FeatureSettings(steps=30, views=2, rate=0.1),
    judge=JudgeSettings(networks=2, steps=30, width=4, depth=2, rates=[0.1, 0.01], draws=200), side=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def galaxies():
    return made_up(count=150)


@pytest.fixture(scope="module")
def embeddings(galaxies):
    import torch
    from torchvision.transforms import v2

    cutouts = torch.stack([torch.from_numpy(galaxies.images.cutout(row)).permute(2, 0, 1) for row in range(150)])
    return stub_encoder().embedded(v2.functional.resize(cutouts, [8, 8], antialias=True)).numpy()


def made(galaxies, embeddings, members, **settings):
    return make_prototype(
        galaxies, galaxies.ids, embeddings, members, replace(SETTINGS, **settings), encoder=stub_encoder()
    )


@pytest.fixture(scope="module")
def parts(galaxies, embeddings):
    return made(galaxies, embeddings, np.arange(150) % 3 == 1)


def test_a_prototype_has_a_picture_its_gate_and_the_two_numbers_behind_it(parts, tmp_path):
    written = write_prototype(tmp_path, parts, key="k")
    assert written.image.size == (8, 8)
    assert written.passed == (written.over_medoid.low > 0 and written.over_mean.low > 0)
    assert written.held_out == 20
    assert written.accuracy.keys() == {"prototype", "medoid", "mean"}
    again = read_prototype(tmp_path, key="k")
    np.testing.assert_allclose(again.pixels, written.pixels, rtol=1e-6)
    assert again.over_medoid == written.over_medoid
    assert read_prototype(tmp_path, key="other") is None
    assert "over the medoid" in repr(again)


def test_prototypes_of_groups_that_are_nothing_stay_at_chance(galaxies, embeddings):
    scores = []
    for seed, kind in enumerate(("random", "clump", "clump")):
        random, places = np.random.default_rng(seed), embeddings
        members = np.isin(np.arange(150), random.permutation(150)[:50])
        if kind == "clump":
            # Neighbours in a structureless survey, whose galaxies have nothing else in common.
            places = null_survey(embeddings, kind="gaussian", random=random)
            members = np.isin(np.arange(150), np.argsort(np.square(places - places[seed]).sum(axis=1))[:50])
        prototype = made(galaxies, places, members, seed=seed).prototype
        assert not prototype.passed
        scores.append(prototype.accuracy["prototype"])
    assert np.mean([score.value for score in scores]) == pytest.approx(0.5, abs=0.2)
    assert sum(score.low <= 0.5 <= score.high for score in scores) >= 2


def test_a_group_that_cannot_have_a_prototype_is_refused(galaxies, embeddings):
    with pytest.raises(DataError, match="5 members"):
        made(galaxies, embeddings, np.arange(150) < 5)
    with pytest.raises(DataError, match="other galaxies"):
        made(galaxies, embeddings, np.arange(150) < 120)
    with pytest.raises(ConfigError, match="judged_by=stub"):
        made(galaxies, embeddings, np.arange(150) % 3 == 1, judged_by="stub")


@pytest.fixture
def search(tmp_path, parts):
    """Return a search on disk whose class 0 has a prototype that passed, and class 1 one that did not."""
    survey_on_disk(tmp_path)
    found = Search.open(tmp_path / "search")
    for class_id, low in ((0, 0.1), (1, -0.1)):
        prototype = replace(
            parts.prototype, passed=low > 0, over_medoid=Interval(0.2, low, 0.3), over_mean=Interval(0.25, low, 0.4)
        )
        folder = tmp_path / "search" / "prototypes" / f"class-{class_id:03d}"
        write_prototype(folder, replace(parts, prototype=prototype))
    return found


def test_the_page_of_a_class_shows_its_prototype_only_if_it_passed(search):
    write_report(search, images=False)
    passed, failed = ((search.folder / "report" / f"class-00{number}.html").read_text() for number in (0, 1))
    assert 'alt="prototype"' in passed
    assert "+0.200 (+0.100–+0.300)" in passed
    assert 'alt="prototype"' not in failed
    assert "did not pass its test" in failed
    assert "+0.250 (-0.100–+0.400)" in failed
    assert shown_prototype(search.folder, 7) is None


def test_the_comparison_shows_the_prototypes_of_both_searches(search, tmp_path):
    compare(search, search, images=False).report(tmp_path / "compared")
    text = (tmp_path / "compared" / "A-B.html").read_text()
    assert text.count('alt="Prototype of a class"') == 4
    assert "did not pass its test" in text


def test_the_comparison_shows_the_prototype_of_a_class_without_a_counterpart(search, tmp_path):
    survey_on_disk(tmp_path / "one_class", classes=1)
    other = Search.open(tmp_path / "one_class" / "search")
    compare(search, other, images=False).report(tmp_path / "compared")
    text = (tmp_path / "compared" / "A-B.html").read_text()
    # Class 0 is in both searches, class 1 in the first alone, and the second has made no prototypes.
    assert "Prototype A 0" in text
    assert "Prototype A 1" in text
    assert text.count('alt="Prototype of a class"') == 2


def test_the_members_of_a_class_of_a_search_must_be_enough(search):
    settings = replace(SETTINGS, features=replace(SETTINGS.features, checkpoint="efficientnet_b0.mock"))
    with pytest.raises(DataError, match="members"):
        prototype_of_class(search[0], settings)
