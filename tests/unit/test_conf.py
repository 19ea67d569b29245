"""The folder ``conf/`` shows every choice that exists, and every choice can be composed."""

from dataclasses import fields, is_dataclass

import hydra
import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from rarezoo import cli, settings
from rarezoo.commands import types_of

pytestmark = pytest.mark.unit
# Command and group of everything that can be chosen.
GROUPS = [(command, group) for command, job in cli.JOBS.items() for group in job.groups]
# Groups of which a choice sets others.
ALONE = ("preset", "experiment")


@pytest.mark.parametrize("group", sorted({group.split("@")[0] for _, group in GROUPS}))
def test_every_option_has_a_file_and_every_file_is_a_choice(group):
    files = {path.stem for path in (cli.conf_dir() / group).glob("*.yaml")}
    own = {name for name, kind in settings.options(group).items() if kind.__module__.startswith("rarezoo.")}
    assert own <= files
    assert files <= set(cli.choices(group))
    assert files


def test_no_setting_has_the_name_of_a_group_of_choices_or_hydra_would_take_it_for_one():
    groups = {path.name for path in cli.conf_dir().iterdir() if path.is_dir()}
    for command, job in cli.JOBS.items():
        others = groups - {group.split("@")[0] for group in job.groups}
        # A field that holds settings of its own is only named with a dot, which no group has.
        named = {known.name for known in fields(job.kind) if not any(map(is_dataclass, types_of(known.name, job)))}
        assert not named & others, command


def test_every_experiment_is_listed_by_the_command_that_its_comment_names():
    listed = [
        set(cli.choices("experiment", command=command)) for command in ("train", "cluster", "benchmark few-labels")
    ]
    assert set.union(*listed) == {path.stem for path in (cli.conf_dir() / "experiment").glob("*.yaml")}
    assert sum(map(len, listed)) == len(set.union(*listed))


def test_a_misspelt_choice_gets_the_nearest_one(capsys):
    words = ["experiment=bottleneck_frozn", "out=nowhere"]
    assert cli.exit_status(lambda: cli.run_command("train", words, usage="train"), command="train") == 2
    assert "no such choice: experiment=bottleneck_frozn. Did you mean experiment=bottleneck_frozen? " in (
        capsys.readouterr().err
    )


def test_a_setting_of_another_choice_names_the_choices_that_have_it(capsys):
    words = ["data=mock", "checkpoint=any", "engine.workers=2", "out=nowhere"]
    assert cli.exit_status(lambda: cli.run_command("embed", words, usage="embed"), command="embed") == 2
    assert "engine=dask and engine=submitit" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted({command for command, _ in GROUPS}))
def test_every_choice_can_be_composed(command):
    cli.register(command)
    groups = cli.JOBS[command].groups
    choices = {group: cli.choices(group, command=command) for group in groups}
    # A preset or an experiment chooses for other groups too. The values of a preset do not fit every other choice.
    alone = [{group: choice} for group in groups if group in ALONE for choice in choices[group]]
    free = ["~preset"] if "preset" in groups else []
    # The first choice of every group together, then the second, and so on.
    others = [group for group in groups if group not in ALONE]
    rounds = range(max((len(choices[group]) for group in others), default=0))
    together = [{group: choices[group][number % len(choices[group])] for group in others} for number in rounds]
    with hydra.initialize_config_dir(str(cli.conf_dir().resolve()), version_base="1.3"):
        for chosen in [*alone, *together]:
            words = [f"{group}={choice}" for group, choice in chosen.items()]
            config = hydra.compose(command.replace(" ", "_"), overrides=[*words, *([] if "preset" in chosen else free)])
            for group, choice in chosen.items():
                kind = settings.options(group.split("@")[0]).get(choice)
                if kind is not None:
                    assert OmegaConf.get_type(OmegaConf.select(config, group.split("@")[-1])) is kind


@pytest.mark.parametrize(
    ("words", "kept", "left_out"),
    [
        (["compress=none"], "clusterer.selection: str = isolated", "compress.n_neighbors"),
        (["compress=pca", "preset=paper_2d"], "compress.n_components: int = 2", "compress.n_neighbors"),
        (["compress=none", "preset=paper_artifacts_uncut"], "select.drop: list[str] = []", "compress.n_neighbors"),
    ],
)
def test_an_option_takes_from_the_preset_what_it_has(words, kept, left_out):
    text = cli.command_help("cluster", words, usage="python cluster.py")
    assert kept in text
    assert left_out not in text
    preset = dict(word.split("=") for word in words).get("preset", "multiscale")
    assert f"(now {preset})" in text


def test_a_setting_that_an_option_does_not_have_is_still_refused():
    with pytest.raises(HydraException, match="n_neighbors"):
        cli.command_help("cluster", ["compress=none", "compress.n_neighbors=5"], usage="python cluster.py")


def test_the_default_choices_are_the_default_search():
    cli.register("cluster")
    with hydra.initialize_config_dir(str(cli.conf_dir().resolve()), version_base="1.3"):
        default = hydra.compose("cluster", return_hydra_config=True)
        shown = OmegaConf.load(cli.conf_dir() / "cluster.yaml").defaults
    listed = {key: value for entry in shown if OmegaConf.is_dict(entry) for key, value in entry.items()}
    chosen = default.hydra.runtime.choices
    for group in ("select", "compress", "compress@drawing", "clusterer"):
        assert listed[group] == chosen[group]
