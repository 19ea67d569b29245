"""Prototypes of planted populations and of groups that are nothing."""

from dataclasses import replace

import pytest
from PIL import Image

from benchmarks import prototypes
from benchmarks.prototypes import PrototypeNulls
from rarezoo.data.surveys.mock import Mock
from rarezoo.distillation.features import FrozenEncoder
from rarezoo.errors import ConfigError
from tests.unit.distillation.test_distillation import stub_encoder
from tests.unit.distillation.test_prototype import SETTINGS

pytestmark = pytest.mark.unit


@pytest.fixture
def measurement(tmp_path, monkeypatch):
    """Return a measurement of one planted population and two groups that are nothing."""
    monkeypatch.setattr(FrozenEncoder, "open", lambda checkpoint: stub_encoder())
    data = Mock(n=120, side=32, rates={"off_centre_ring": 0.3}, cache=str(tmp_path / "sky"), workers=1)
    return PrototypeNulls(
        data=data, populations=["off_centre_ring"], random=1, clumps=1, members=30, prototype=SETTINGS,
        out=str(tmp_path / "out"),
    )  # fmt: skip


def test_each_group_has_a_row_and_each_population_its_pictures_in_the_figure(measurement, tmp_path, monkeypatch):
    text = measurement.run()
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:]] == [
        "off_centre_ring", "random 100", "clump 100"
    ]  # fmt: skip
    assert (tmp_path / "out" / "board.md").read_text() == text + "\n"
    with Image.open(tmp_path / "out" / "prototypes.webp") as picture:
        # One row of four pictures.
        assert 3.5 < picture.width / picture.height < 4.5

    def refuse(*args, **kwargs):
        raise AssertionError("a finished prototype is made again")

    monkeypatch.setattr(prototypes, "make_prototype", refuse)
    assert measurement.run() == text


def test_a_population_that_was_not_planted_is_refused(measurement):
    with pytest.raises(ConfigError, match=r"rings.*off_centre_ring"):
        replace(measurement, populations=["off_centre_ring", "rings"]).run()
