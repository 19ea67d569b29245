"""How long a person waits for the next galaxies."""

import pytest

from benchmarks.rank import RankCost
from rarezoo.errors import ConfigError

pytestmark = pytest.mark.unit


def cells(text, name):
    return [line.split("|")[2:-1] for line in text.splitlines() if line.startswith(f"| {name} ")]


def test_every_ranker_and_what_is_done_once_are_timed_for_every_number_of_galaxies():
    text = RankCost(galaxies=[300, 600], features=5, ratings=20, repeats=2).run()
    assert "300 galaxies, 5 features, 20 ratings" in text
    for name in ("gaussian_process", "logistic", "ridge"):
        assert len(cells(text, name)) == 2
        assert all(float(cell) >= 0 for row in cells(text, name) for cell in row)
    assert len(cells(text, "order of the first galaxies")) == 2


def test_only_the_wanted_rankers_are_timed():
    text = RankCost(galaxies=[200], features=3, ratings=10, repeats=1, rankers=["ridge"], once=False).run()
    assert not cells(text, "logistic")
    assert "once" not in text


def test_an_unknown_ranker_is_refused():
    with pytest.raises(ConfigError, match="guess"):
        RankCost(galaxies=[200], features=3, rankers=["guess"], once=False).run()
