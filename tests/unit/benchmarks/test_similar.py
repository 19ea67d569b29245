"""What a search for similar galaxies costs."""

import pytest

from benchmarks.similar import SimilarSpeed
from rarezoo.errors import ConfigError

pytestmark = pytest.mark.unit


def test_every_way_is_measured_and_finds_the_same_galaxies():
    text = SimilarSpeed(galaxies=[300, 2000], width=16, k=5, runs=1).run()
    head, _, *rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    assert [row[0].strip() for row in rows] == ["300", "2,000"]
    assert all(len(row) == len(head) and all(float(cell.replace(",", "")) >= 0 for cell in row) for row in rows)
    assert text.endswith("all ways: the same galaxies")


def test_too_few_galaxies_are_refused():
    with pytest.raises(ConfigError, match=r"galaxies.*99"):
        SimilarSpeed(galaxies=[99])
