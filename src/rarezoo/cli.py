"""The command line: three doors (train, embed, cluster) and ``rarezoo VERB``. The only file that imports hydra.

A door turns the command line into one typed job and runs it. Exit status: 0 when the result is whole, 2 for a user's
mistake (one message on standard error, no traceback), 130 after Ctrl-C, 1 for a bug in rarezoo.
"""

import contextlib
import difflib
import hashlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar, get_args

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rarezoo import __version__
from rarezoo import settings as registry
from rarezoo.errors import ConfigError, RarezooError
from rarezoo.tables import unwritable

_VERBS = {
    "train": "votes and images → a checkpoint folder",
    "embed": "survey × checkpoint → an embedding store",
    "cluster": "embedding store → classes and their report",
}
# File systems take 255 bytes.
_LONGEST_NAME = 250
_GROUPS = {"train": ("data", "model"), "embed": ("data",), "cluster": ("data", "compress", "clusterer")}
# Who adds the verbs beyond. Only what was asked for is imported: torch, Lightning and timm take seconds to.
_ADDERS = {
    "classes": "rarezoo.searches.compare:add_classes_verb",
    "compare": "rarezoo.searches.compare:add_compare_verb",
    "export": "rarezoo.report.exporting:add_export_verb",
    "assign": "rarezoo.searches.assign:add_assign_verb",
    "demo": "rarezoo.demo:add_demo_verbs",
    "mock-sheet": "rarezoo.demo:add_demo_verbs",
    "benchmark": "rarezoo.cli:_add_benchmarks",
    "worst": "rarezoo.training.failures:add_worst_verb",
    "cards": "rarezoo.cli:_add_cards_verb",
    "judge": "rarezoo.embeddings.judge:add_judge_verb",
    "leaderboard": "rarezoo.studies.leaderboard:add_leaderboard_verb",
    "zoo": "rarezoo.zoo.commands:add_zoo_verbs",
    "study": "rarezoo.studies.bottleneck:add_study_verb",
    "sensitivity": "rarezoo.studies.sweeps:add_sensitivity_verb",
}


def _job_kind(verb: str) -> type:
    """The typed job of a door."""
    if verb == "train":
        from rarezoo.training.job import TrainJob

        return TrainJob
    if verb == "embed":
        from rarezoo.embeddings.embed import EmbedRun

        return EmbedRun
    from rarezoo.searches.job import ClusterJob

    return ClusterJob


class Sweeps(Callback):
    """Notes the folders that Hydra sweeps, in the process that the user started, whatever the launcher."""

    folders: ClassVar[list[Path]] = []
    studies: ClassVar[list[tuple[Callable[[Path], str], Path]]] = []

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called before any job."""
        folder = Path(config.hydra.sweep.dir)
        self.folders.append(folder)
        if config.get("study"):
            from rarezoo.studies.bottleneck import write_study

            self.studies.append((write_study, folder))
        if config.get("sensitivity"):
            from rarezoo.studies.sweeps import write_sensitivity

            self.studies.append((write_sensitivity, folder))


def conf_dir() -> Path:
    """The folder of YAML presets: inside the installed package, or beside src/ in a checkout."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "conf"


def register(*verbs: str) -> None:
    """Tell Hydra the options and schemas of these doors; of all, if none is named."""
    store = ConfigStore.instance()
    for verb in verbs or _VERBS:
        for group in _GROUPS[verb]:
            for name, kind in registry.options(group).items():
                store.store(group=group, name=name, node=kind)
        for group, name, kind in _fixed_groups(verb):
            store.store(group=group, name=name, node=kind)
        store.store(name=f"{verb}_schema", node=_job_kind(verb))


def _fixed_groups(verb: str) -> Iterator[tuple[str, str, type]]:
    """Groups of a door with one schema, which only presets fill in."""
    if verb == "cluster":
        from rarezoo.searches.select import Select

        yield "select", "cuts", Select
    if verb != "embed":
        from rarezoo.track import Tracker

        yield "logger", "tracker", Tracker


def _file_name(text: str) -> str:
    """A sweep job's overrides as one folder name, what it varies without brackets; cut, with a hash, if too long."""
    varied = re.sub(r"vary=\[(.*?)\]", lambda found: found[1] or "centre", text)
    name = varied.replace("\\:", "=").replace("/", "_") or "job"
    whole = name.encode()
    if len(whole) <= _LONGEST_NAME:
        return name
    begin, end = (part.decode(errors="ignore") for part in (whole[:140], whole[-80:]))
    return f"{begin}~{end}-{hashlib.sha256(whole).hexdigest()[:8]}"


# Not in register(): launchers that start processes of their own import this file there and no more.
OmegaConf.register_new_resolver("file_name", _file_name, replace=True)


def train() -> None:
    """Door of ``train.py``."""
    sys.exit(_door("train", lambda job: job.launch()))


def embed() -> None:
    """Door of ``embed.py``."""
    sys.exit(_door("embed", lambda job: job.run()))


def cluster() -> None:
    """Door of ``cluster.py``."""
    sys.exit(_door("cluster", lambda job: job.run()))


def _door(verb: str, launch: Callable[[Any], object]) -> int:
    """Exit status of one command, its arguments taken from ``sys.argv``."""
    arguments = sys.argv[1:]
    if {"--help", "-h"} & set(arguments):
        return exit_status(lambda: print(help_text(verb, [word for word in arguments if "=" in word])), verb=verb)
    # Hydra then hands exceptions on instead of printing them, so that they are told from bugs here, once.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    failed: list[RarezooError] = []

    def task(config: DictConfig) -> None:
        try:
            _noted(launch, config)
        except RarezooError as problem:
            # In a single run Hydra would add a line of its own to the message; in a sweep it must know of the failure.
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                from rarezoo.studies.sweeps import FAILED

                (Path(HydraConfig.get().runtime.output_dir) / FAILED).write_text(f"{problem}\n")
                raise
            failed.append(problem)

    def run() -> None:
        register(verb)
        try:
            hydra.main(version_base="1.3", config_path=str(conf_dir().resolve()), config_name=verb)(task)()
        except Exception as problem:
            # Jobs that went well are summarised before the failure of another is told.
            _summarise_sweeps(whole=False)
            _refuse_missing_slurm(problem)
            raise
        if failed:
            raise failed[0]
        _summarise_sweeps(whole=True)

    return exit_status(run, verb=verb)


def _refuse_missing_slurm(problem: Exception) -> None:
    """Raise the user's mistake that submitit's error stands for, which has no kind of its own."""
    if isinstance(problem, RuntimeError) and "slurm cluster" in str(problem):
        raise ConfigError(
            "no SLURM here", value="srun", fix="Start it on the cluster, or leave machine= out."
        ) from problem


def _noted(launch: Callable[[Any], object], config: DictConfig) -> None:
    """Run a job; in a sweep it leaves word in its folder if it fails."""
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        launch(_job(config))
        return
    from rarezoo.studies.leaderboard import note_failure

    folder = HydraConfig.get().runtime.output_dir
    try:
        launch(_job(config))
    except Exception as problem:
        with contextlib.suppress(RarezooError, OSError):
            note_failure(folder, problem)
        raise
    note_failure(folder, None)


def _summarise_sweeps(*, whole: bool) -> None:
    """The leaderboard of a sweep, and the summary of one that was a study, from the files of its jobs.

    Args:
        whole: every job went well; if not, a study that cannot be summarised is no second failure.
    """
    while Sweeps.folders:
        from rarezoo.studies.leaderboard import write_leaderboard

        try:
            print(f"leaderboard: {write_leaderboard(Sweeps.folders.pop())}", file=sys.stderr)
        except RarezooError as problem:
            print(f"no leaderboard: {problem}", file=sys.stderr)
    with contextlib.nullcontext() if whole else contextlib.suppress(RarezooError):
        while Sweeps.studies:
            summary, folder = Sweeps.studies.pop()
            print(summary(folder))


def _job(config: DictConfig) -> Any:
    """The typed job that a composed config describes; a sweep's jobs each get a folder of their own."""
    _vary(config)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError("a setting must be given", value=", ".join(missing), fix=f"Add {missing[0]}=VALUE.")
    job: Any = OmegaConf.to_object(config)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        job.out = HydraConfig.get().runtime.output_dir
        if hasattr(job, "refuse_children"):
            job.refuse_children()
    return job


def _vary(config: DictConfig) -> None:
    """Apply what a job of a sweep changes.

    Raises:
        ConfigError: a setting that does not exist, or of another type.
    """
    for change in config.get("vary", []):
        try:
            config.merge_with_dotlist([change.replace(":", "=", 1)])
        except OmegaConfBaseException as problem:
            told = str(problem).splitlines()[0]
            raise ConfigError(f"vary ({told})", value=change, fix="See --help for what can be set.") from problem


def exit_status(run: Callable[[], object], *, verb: str = "") -> int:
    """Run something, a door's verb or another, and say how it went: 0, 2 with one message, 130 or 1."""
    try:
        run()
    except RarezooError as problem:
        return _told(str(problem))
    except (HydraException, OmegaConfBaseException) as problem:
        return _told(_config_message(problem, verb))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output (head, say) has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as problem:
        if problem.filename is None and problem.errno is None:
            traceback.print_exc()
            return 1
        return _told(str(unwritable(Path(str(problem.filename or "output")), problem)))
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _told(message: str) -> int:
    print(f"rarezoo: {message}", file=sys.stderr)
    return 2


def _config_message(problem: BaseException, verb: str) -> str:
    """One message for a mistake on the command line, with the keys that come nearest to an unknown one."""
    lines = str(problem).strip().splitlines()
    cause = problem.__cause__
    detail = str(cause).strip().splitlines()[0] if cause is not None and str(cause).strip() else ""
    unknown = getattr(cause, "key", None) or getattr(problem, "key", None)
    near = difflib.get_close_matches(str(unknown), _known_keys(verb), n=3) if unknown and verb else []
    hint = f"Did you mean {' or '.join(near)}?" if near else "See --help for what can be set."
    return " ".join(part for part in (" ".join(lines[:8]), detail, hint) if part)


def _known_keys(verb: str) -> list[str]:
    kinds = [_job_kind(verb), *(kind for group in _GROUPS[verb] for kind in registry.options(group).values())]
    return sorted({one.name for kind in kinds for one in fields(kind)})


def help_text(verb: str, overrides: Sequence[str]) -> str:
    """What a command can be told: every choice, then every setting with type, value, unit and meaning."""
    register(verb)
    with hydra.initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
        config = hydra.compose(verb, overrides=list(overrides), return_hydra_config=True)
    chosen = {key: value for key, value in config.hydra.runtime.choices.items() if not key.startswith("hydra/")}
    choices = [
        f"  {group}={'|'.join(_choices(group))}  (now {now})" for group, now in chosen.items() if _choices(group)
    ]
    settings = [f"  {line}" for line in _setting_lines(config)]
    return "\n".join(
        [
            f"python {verb}.py KEY=VALUE …   {_VERBS[verb]}",
            f"Several values make a multirun: python {verb}.py -m KEY=A,B",
            "",
            "Choices (settings below are those of what is chosen; add a choice to see its own):",
            *choices,
            "",
            "Settings:",
            *settings,
        ]
    )


def _choices(group: str) -> list[str]:
    """Every name that ``group=`` takes: presets in conf/ and registered options."""
    group = group.split("@")[0]
    presets = {path.stem for path in (conf_dir() / group).glob("*.yaml")}
    return sorted(presets | set(registry.options(group)))


def _setting_lines(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """One line per setting: key, type, value (interpolations as written), unit and meaning."""
    kind = OmegaConf.get_type(config)
    known = {one.name: one for one in fields(kind)} if is_dataclass(kind) else {}
    for key in map(str, config.keys()):
        if key == "hydra":
            continue
        node = config._get_node(key)
        if isinstance(node, DictConfig) and is_dataclass(OmegaConf.get_type(node)) and not node._is_missing():
            yield from _setting_lines(node, f"{prefix}{key}.")
            continue
        yield f"{prefix}{key}: {_described(known.get(key), node)}".rstrip()


def _described(known: Any, node: Any) -> str:
    """Type, value (interpolations as written), unit and meaning of one setting."""
    value = OmegaConf.to_container(node) if OmegaConf.is_config(node) and not node._is_none() else node._value()
    shown = "(must be given)" if value == "???" else value
    if known is None:
        return f"any = {shown}"
    unit = f" [{known.metadata['unit']}]" if known.metadata.get("unit") else ""
    return f"{_type_name(known.type)} = {shown}{unit}  {known.metadata.get('help', '')}"


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def main() -> None:
    """Door of the ``rarezoo`` command: the three doors under one name, and the verbs beyond them."""
    # Lightning starts the further processes of `rarezoo train …` by the same words less the verb, gone by then.
    if "LOCAL_RANK" in os.environ and sys.argv[1:2] != ["train"]:
        sys.argv.insert(1, "train")
    if len(sys.argv) > 1 and sys.argv[1] in _VERBS:
        verb = sys.argv.pop(1)
        {"train": train, "embed": embed, "cluster": cluster}[verb]()
    sys.exit(exit_status(lambda: _verb(sys.argv[1:])))


def _verb(arguments: Sequence[str]) -> None:
    import argparse

    parser = argparse.ArgumentParser(prog="rarezoo", description="Rare galaxy classes, with the evidence for each.")
    parser.add_argument("--version", action="version", version=f"rarezoo {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, about in _VERBS.items():
        verbs.add_parser(verb, help=f"{about} (as python {verb}.py)", add_help=False)
    asked = [_ADDERS[word] for word in arguments[:1] if word in _ADDERS]
    for adder in asked or dict.fromkeys(_ADDERS.values()):
        resolve_name(adder)(verbs)
    options = parser.parse_args(arguments)
    options.run(options)


def _add_cards_verb(verbs: Any) -> None:
    from rarezoo.report.cards import cards_table

    cards = verbs.add_parser("cards", help="checkpoints side by side: loss and RMSE per question")
    cards.add_argument("folders", nargs="+", help="checkpoint folders")
    cards.set_defaults(run=lambda options: print(cards_table(options.folders)))


def _add_benchmarks(verbs: Any) -> None:
    from rarezoo.benchmark.board import add_classes_benchmark

    group = verbs.add_parser("benchmark", help="compare methods that search an embedding")
    kinds = group.add_subparsers(dest="benchmark", required=True, metavar="WHAT")
    add_classes_benchmark(kinds, conf=conf_dir())
