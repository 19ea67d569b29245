"""Presets: the same values in Python and on the command line."""

from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import OmegaConf, open_dict

from rarezoo import cli
from rarezoo.errors import ConfigError
from rarezoo.searches.presets import DEFAULT, PRESETS, preset
from rarezoo.searches.run import SearchRun

pytestmark = pytest.mark.unit


def command_line(*words):
    """The job of a command line."""
    config = cli._composed("cluster", ["store=s", *words])
    with open_dict(config):
        config.pop("hydra")
    return OmegaConf.to_object(config)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_same_on_the_command_line_and_in_python(name):
    typed, written = command_line(f"preset={name}"), SearchRun(store="s", **preset(name))
    assert asdict(typed) == asdict(written)
    assert typed.settings() == written.settings()


def test_every_preset_of_the_command_line_exists_in_python():
    assert {path.stem for path in (Path(cli.conf_dir()) / "preset").glob("*.yaml")} == set(PRESETS)


def test_the_default_search_is_the_default_everywhere():
    assert asdict(command_line()) == asdict(SearchRun(store="s")) == asdict(SearchRun(store="s", **preset(DEFAULT)))


def test_changing_a_preset_changes_no_other_search():
    preset()["compress"].n_neighbors = 99
    SearchRun(store="s").clusterer.min_samples = 99
    assert asdict(SearchRun(store="s")) == asdict(SearchRun(store="s", **preset(DEFAULT)))
    assert preset()["compress"].n_neighbors != 99


def test_an_unknown_preset_is_refused_with_those_that_exist():
    with pytest.raises(ConfigError, match=r"huge\. Choose one of: multiscale"):
        preset("huge")
