"""What each step of the default search costs."""

import pytest

from benchmarks.cost import SearchCost
from rarezoo.errors import ConfigError

pytestmark = pytest.mark.unit


@pytest.mark.slow
def test_every_step_is_measured():
    text = SearchCost(galaxies=2000, threads=[1]).run()
    head, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "null surveys / map" in head
    assert [row.split("|")[1].strip() for row in rows] == ["1"]
    for row in rows:
        *steps, total, reference, by_reference = [float(cell) for cell in row.split("|")[3:-2]]
        assert steps[0] == 1
        assert total == pytest.approx(sum(steps), abs=0.03)
        # Each of the three is rounded to a hundredth.
        assert total == pytest.approx(by_reference * reference, abs=0.01 * (1 + reference + by_reference))
    assert text.endswith("scores and classes: the same bits")


def test_too_few_galaxies_are_refused():
    with pytest.raises(ConfigError, match=r"galaxies.*1999"):
        SearchCost(galaxies=1999)
