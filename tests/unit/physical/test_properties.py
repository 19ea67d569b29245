"""Columns become numbers or shares; what cannot be compared is said."""

import numpy as np
import pyarrow as pa
import pytest

from rarezoo.errors import ConfigError, DataError
from rarezoo.physical.properties import properties_of

pytestmark = pytest.mark.unit
COUNT = 100
MASS = np.random.default_rng(0).normal(10, 0.5, COUNT)
IDS = [f"g{row}" for row in range(COUNT)]


def table(**columns):
    return pa.table({"id_str": IDS, **columns})


def test_numbers_yes_and_no_and_few_texts_are_compared():
    kinds = ["strong", "weak", None, "strong"] * 25
    found = properties_of(table(mass=MASS, active=[True, False] * 50, bar=kinds, text=[f"{x:.2f}" for x in MASS]))
    assert [(one.name, one.kind) for one in found] == [
        ("mass", "number"), ("active", "share"), ("bar = strong", "share"), ("bar = weak", "share"),
        ("text", "number"),
    ]  # fmt: skip
    assert np.nanmean(found[2].values) == pytest.approx(2 / 3)


def test_numbers_that_stand_for_unknown_are_unknown(caplog):
    mass = MASS.copy()
    mass[:5] = -9999
    (one,) = properties_of(table(mass=mass))
    assert np.isnan(one.values[:5]).all()
    assert np.isfinite(one.values[5:]).all()
    assert "5 values of -9999" in caplog.text
    (angle,) = properties_of(table(angle=[*np.linspace(-180, 180, 98).tolist(), 99.0, 99.0]))
    assert np.isfinite(angle.values).all()


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"note": [f"note {row}" for row in range(COUNT)]}, "note: its texts"),
        ({"mass": [float("nan")] * COUNT}, "mass: no value"),
        ({"mass": [None] * COUNT}, "mass: no value"),
        ({"mass": [3] * COUNT}, "mass: all values are equal"),
    ],
)
def test_a_column_that_cannot_be_compared_is_named_and_refused_if_it_is_the_only_one(columns, says, caplog):
    with pytest.raises(DataError, match=says):
        properties_of(table(**columns))
    assert len(properties_of(table(**columns, other=MASS))) == 1
    assert says in caplog.text


def test_columns_that_are_named_must_exist_and_something_must_be_left():
    with pytest.raises(ConfigError, match=r"no_such.*mass"):
        properties_of(table(mass=MASS), named=["no_such"])
    with pytest.raises(DataError, match="besides the covariates"):
        properties_of(table(mass=MASS), without=["mass"])
