"""Settings check themselves when they are made, and name the setting, the value and the way out."""

import pickle
from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest
from omegaconf import OmegaConf

from rarezoo import settings
from rarezoo.errors import (
    CheckpointNotFound,
    ConfigError,
    DataError,
    DataNotFound,
    MissingDependency,
    OutputError,
    StoreError,
    StoreNotFound,
)
from rarezoo.settings import Settings, constraint_text, described, option, options, setting

pytestmark = pytest.mark.unit


@dataclass(kw_only=True)
class Inner(Settings):
    share: float = setting(0.5, "share", ge=0, le=1)


@dataclass(kw_only=True)
class Job(Settings):
    searches: list[str] = setting([], "searches", positional=True)
    size: int = setting(10, "size", unit="galaxies", ge=2)
    mode: str = setting("stop", "what to do", choices=("stop", "skip"))
    shares: list[float] = setting([0.1], "shares", gt=0, lt=1)
    inner: Inner = setting(Inner, "inner settings")
    needed: str = setting(help="text that is needed")

    def check(self) -> None:
        if self.mode == "skip" and self.size == 2:
            raise ConfigError("skip with size 2", value=self.size, fix="Choose 3.")


@pytest.mark.parametrize(
    ("changed", "value", "way_out"),
    [
        ({"size": 1}, "1", "at least 2"),
        ({"size": float("nan")}, "nan", "at least 2"),
        ({"size": "many"}, "many", "galaxies"),
        ({"mode": "go"}, "go", "stop or skip"),
        ({"shares": [0.5, 1.0]}, "1.0", "less than 1"),
        ({"mode": "skip", "size": 2}, "2", "Choose 3"),
    ],
)
def test_a_wrong_value_raises_at_once_with_value_and_way_out(changed, value, way_out):
    with pytest.raises(ConfigError) as problem:
        Job(needed="x", **changed)
    assert value in str(problem.value)
    assert way_out in str(problem.value)
    assert isinstance(problem.value, ValueError)


def test_a_setting_without_default_must_be_given_in_python_and_is_missing_in_a_config():
    with pytest.raises(TypeError, match="needed"):
        Job()
    assert OmegaConf.missing_keys(OmegaConf.structured(Job)) == {"needed"}


def test_a_text_that_must_be_given_is_not_empty():
    with pytest.raises(ConfigError, match=r"needed is empty.*Give the text that is needed"):
        Job(needed="")


def test_a_path_in_the_home_folder_begins_with_a_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    job = Job(needed="~/own.csv", searches=["~/a", "~b", "c/~/d"])
    assert (job.needed, job.searches) == ("/home/somebody/own.csv", ["/home/somebody/a", "~b", "c/~/d"])


def test_a_config_makes_the_checked_object():
    good = OmegaConf.merge(OmegaConf.structured(Job), {"needed": "x", "size": 3})
    assert OmegaConf.to_object(good).size == 3
    with pytest.raises(ConfigError, match="size"):
        OmegaConf.to_object(OmegaConf.merge(good, {"size": 0}))


def test_defaults_are_not_shared_between_objects():
    first, second = Job(needed="a"), Job(needed="b")
    first.searches.append("x")
    assert second.searches == []
    assert first.inner is not second.inner


def test_constraints_are_described_in_words():
    described_fields = {known.name: constraint_text(known) for known in Job.__dataclass_fields__.values()}
    assert described_fields["size"] == "at least 2"
    assert described_fields["mode"] == "stop or skip"
    assert described_fields["needed"] == ""


def test_an_option_is_described_by_its_name_and_settings():
    @option("test_group", "tiny")
    @dataclass
    class Tiny(Settings):
        width: int = setting(3, "width", ge=1)

    assert described(Tiny(width=4)) == {"option": "tiny", "width": 4}
    assert options("test_group") == {"tiny": Tiny}
    with pytest.raises(ConfigError, match=r"test_group\.width"):
        Tiny(width=0)
    settings._OPTIONS.pop("test_group")


@dataclass
class Theirs:
    """An option that another package brings."""

    radius: float = 1.0


def test_entry_points_of_other_packages_add_options_and_a_broken_one_is_left_out(monkeypatch, caplog):
    plugins = [
        EntryPoint("theirs", f"{__name__}:Theirs", "rarezoo.scorers"),
        EntryPoint("broken", "no_such_package:Thing", "rarezoo.scorers"),
    ]
    monkeypatch.setattr(
        settings, "entry_points", lambda group: [p for p in plugins if p.group == group and p.name != "theirs"]
    )
    assert options("scorer") == {}
    assert "no_such_package" in caplog.text
    theirs = EntryPoint("theirs", "dataclasses:dataclass", "rarezoo.scorers")
    monkeypatch.setattr(type(theirs), "load", lambda self: Theirs)
    monkeypatch.setattr(settings, "entry_points", lambda group: [theirs] if group == theirs.group else [])
    assert options("scorer") == {"theirs": Theirs}
    settings._OPTIONS.pop("scorer")


def test_an_object_of_a_plug_in_has_its_name_although_its_group_was_not_loaded(monkeypatch):
    theirs = EntryPoint("radial", f"{Theirs.__module__}:{Theirs.__qualname__}", "rarezoo.scorers")
    monkeypatch.setattr(settings, "entry_points", lambda group: [theirs] if group == theirs.group else [])
    assert described(Theirs(radius=2.0)) == {"option": "radial", "radius": 2.0}
    settings._OPTIONS.pop("scorer")


def test_a_class_that_is_no_option_has_no_name():
    with pytest.raises(TypeError, match="Inner"):
        settings.name_of(Inner)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (ConfigError, ValueError),
        (DataError, ValueError),
        (StoreError, ValueError),
        (OutputError, OSError),
        (StoreNotFound, FileNotFoundError),
        (CheckpointNotFound, FileNotFoundError),
        (DataNotFound, FileNotFoundError),
    ],
)
def test_errors_are_also_built_in_errors_and_survive_pickling(kind, builtin):
    problem = kind("what is wrong", value=3, fix="Do this.", ids=["a"])
    assert isinstance(problem, builtin)
    again = pickle.loads(pickle.dumps(problem))
    assert str(again) == str(problem) == "what is wrong: 3 [galaxies a]. Do this."


def test_a_missing_package_says_how_to_install_it():
    problem = pickle.loads(pickle.dumps(MissingDependency("galsim", extra="mock", purpose="The mock sky")))
    assert isinstance(problem, ImportError)
    assert 'pip install "rarezoo[mock]"' in str(problem)
