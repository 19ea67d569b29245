"""Catalogues are fetched through astroquery and pyvo, which stand-ins replace here: no test needs a network."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from astropy.table import Table

from rarezoo.errors import ConfigError, DataError, MissingDependency
from rarezoo.physical.fetch import fetch, fetch_tap
from rarezoo.physical.join import join

pytestmark = pytest.mark.unit


@pytest.fixture
def archives(monkeypatch):
    """Stand-ins of astroquery and pyvo that note what they were asked."""
    asked = {}

    def query(**words):
        asked.update(words)
        own = words["cat1"]
        return Table({"angDist": [0.1], "RAJ2000": [own["rarezoo_ra"][0]], "DEJ2000": [own["rarezoo_dec"][0]],
                      "Kmag": [12.5]}, units={"Kmag": "mag"})  # fmt: skip

    class Vizier:
        def __init__(self, **words):
            asked.update(words)

        def get_catalogs(self, name):
            return [] if name == "no/such" else [Table({"id_str": ["b"], "bar": [2.0]})]

    def answer(query):
        if "nothing" in query:
            raise OSError("the service is down")
        return SimpleNamespace(to_table=lambda: Table({"id_str": ["a"]}))

    dal = SimpleNamespace(TAPService=lambda service: SimpleNamespace(run_sync=answer), DALAccessError=OSError)
    for name, content in {
        "astroquery": {}, "astroquery.xmatch": {"XMatch": SimpleNamespace(query=query)},
        "astroquery.vizier": {"Vizier": Vizier}, "pyvo": {"dal": dal},
    }.items():  # fmt: skip
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return asked


def test_entries_of_a_cross_match_are_joined_by_position_with_their_units(archives):
    joined = join(["a", "b"], [10.0, 20.0], [0.0, np.nan], ["xmatch:II/246/out"])
    assert joined.table.column("Kmag").to_pylist() == [12.5, None]
    assert joined.units == {"Kmag": "mag"}
    assert archives["cat2"] == "vizier:II/246/out"
    assert len(archives["cat1"]) == 1
    # Entries around the galaxies are fetched too, or nothing would match a shifted catalogue.
    assert archives["max_distance"].to_value("arcsec") > 30


def test_a_whole_catalogue_is_joined_like_a_file(archives):
    joined = join(["a", "b"], None, None, ["vizier:J/A+A/532/A74"])
    assert joined.table.column("bar").to_pylist() == [None, 2.0]
    assert archives["row_limit"] == -1


def test_what_cannot_be_fetched_has_one_message(archives, monkeypatch):
    with pytest.raises(DataError, match="no/such"):
        fetch("vizier:no/such", None, None, 1.0)
    with pytest.raises(ConfigError, match="no positions"):
        fetch("xmatch:II/246/out", None, None, 1.0)
    assert len(fetch_tap("https://archive.example/tap", "select 1")) == 1
    with pytest.raises(DataError, match="the service is down"):
        fetch_tap("https://archive.example/tap", "select nothing")
    for name in ("astroquery", "astroquery.vizier", "astroquery.xmatch", "pyvo"):
        monkeypatch.setitem(sys.modules, name, None)
    for ask in (lambda: fetch("vizier:x", None, None, 1.0), lambda: fetch_tap("x", "y")):
        with pytest.raises(MissingDependency, match=r"rarezoo\[archives\]"):
            ask()
