"""What holds for every choice that is one file: it can be named, made, configured and explained."""

from dataclasses import MISSING, asdict, fields

import pytest
from omegaconf import OmegaConf

from rarezoo import settings as registry
from rarezoo.errors import ConfigError

pytestmark = pytest.mark.unit

GROUPS = ("data", "model", "compress", "clusterer", "objective")
OPTIONS = [
    pytest.param(kind, id=f"{group}={name}") for group in GROUPS for name, kind in registry.options(group).items()
]


@pytest.mark.parametrize("kind", OPTIONS)
def test_every_setting_says_what_it_is(kind):
    assert kind.__doc__
    assert [setting.name for setting in fields(kind) if not setting.metadata.get("help")] == []


@pytest.mark.parametrize("kind", OPTIONS)
def test_it_comes_back_from_its_own_configuration(kind):
    required = [known.name for known in fields(kind) if known.default is known.default_factory is MISSING]
    made = kind(**dict.fromkeys(required, "given"))
    config = OmegaConf.merge(OmegaConf.structured(kind), asdict(made))
    assert OmegaConf.to_object(config) == made
    assert kind(**asdict(made)) == made


@pytest.mark.parametrize("kind", OPTIONS)
def test_it_has_the_name_of_its_file(kind):
    assert registry.name_of(kind) == kind.__module__.rsplit(".", 1)[-1]


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_has_a_choice_and_names_them_when_another_is_asked_for(group):
    known = list(registry.options(group))
    assert known
    with pytest.raises(ConfigError, match=f"unknown {group}: no_such. Choose one of: {known[0]}"):
        registry.choice(group, "no_such")


def test_a_sweeps_folder_is_named_after_what_varies_and_never_too_long():
    from rarezoo.cli import _file_name

    assert _file_name("vary={compress.min_dist\\:0.3},seed=1") == "compress.min_dist=0.3,seed=1"
    assert _file_name("vary={}") == "centre"
    long = [_file_name(",".join(f"compress.setting_{number}={value}" for number in range(20))) for value in "äb"]
    assert all(len(name.encode()) <= 255 for name in long)
    alike = [_file_name("a" * 300 + end + "a" * 100) for end in "xy"]
    assert alike[0] != alike[1]
    assert _file_name("a" * 300 + ",seed=7").rsplit("-", 1)[0].endswith(",seed=7")
