"""The figure of the rule by which classes are chosen."""

import pytest
from PIL import Image

from benchmarks.rule import RuleFigure

pytestmark = pytest.mark.unit


def test_the_rule_is_drawn_and_its_classes_are_printed(tmp_path):
    out = tmp_path / "rule.webp"
    figure = RuleFigure(galaxies=500, groups=1, surveys=5, kept=str(tmp_path / "kept"), out=str(out), seed=1)
    text = figure.run()
    assert text.splitlines()[-1].startswith("planted groups: 1; candidates: ")
    assert len(list((tmp_path / "kept").rglob("*.npy"))) == 5
    with Image.open(out) as picture:
        assert picture.width > 900
