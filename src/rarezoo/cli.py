"""The command line. :data:`JOBS` is the table of all commands: a new command is one entry there.

Every command is a dataclass with a ``run()`` method. Its fields are the settings, which Hydra reads from the command
line and from the YAML presets in ``conf/``. Only this module and :mod:`rarezoo.commands` import Hydra.

Exit status: 0 when the result is complete, 2 for a user's mistake (one message on standard error and no traceback),
130 after Ctrl-C, 1 for a bug in rarezoo.
"""

import contextlib
import difflib
import hashlib
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar, NamedTuple

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    GrammarParseError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    ValidationError,
)

from rarezoo import __version__, settings
from rarezoo.commands import (
    SCHEMA,
    Job,
    config_folders,
    group_paths,
    help_text,
    nearest,
    overview,
    positional_words,
    quoted,
    read_words,
    refuse_rewritten_text,
    split_flags,
    types_of,
)
from rarezoo.errors import ConfigError, RarezooError
from rarezoo.escapes import visible, without_passwords
from rarezoo.refused import FolderBefore
from rarezoo.settings import conf_dir
from rarezoo.tables import unwritable

_OWN_LABELS = "Labels of your own"
_PIPELINE, _SEARCHES, _ZOO = "From votes to classes", "What was found", "Checkpoints"
_EXPLORING, _SWEEPS, _MEASURING = "What you look for", "Many runs", "Measurements"
# Part of the examples in the help.
_OWN_SURVEY = "data=catalogue data.table=galaxies.csv data.images=cutouts"
# Commands that have a script at the top of a checkout, such as train.py.
SCRIPTS = ("train", "embed", "cluster")

JOBS: dict[str, Job] = {
    "train": Job(
        "rarezoo.training.fit:TrainRun", "train a network on votes or labels, and write a checkpoint", _PIPELINE,
        groups=("data", "model", "objective", "logger", "machine", "experiment"), folder=True,
        renamed={
            "train.objective": "objective", "train.similarity": "objective.similarity",
            "train.similarity_weight": "objective.weight", "train.projector": "objective.projector",
            "train.jitter": "objective.jitter",
        },
        examples=(
            f"{_OWN_SURVEY} data.votes=desi tag=mine",
            "data=mock model.input_size=64 train.epochs=5 tag=small",
            f"{_OWN_SURVEY} experiment=finetune_frozen objective.labels=labels.csv objective.label=ring "
            "model.start=efficientnet_b0.gz2 out=checkpoints/rings",
        ),
    ),
    "embed": Job(
        "rarezoo.embeddings.embed:EmbedRun", "embed a survey with a checkpoint and write an embedding store", _PIPELINE,
        groups=("data", "engine"), folder=True,
        examples=(
            f"{_OWN_SURVEY} checkpoint=efficientnet_b0.mine out=runs/mine/store",
            "data=mock checkpoint=efficientnet_b0.mock out=runs/mock/store",
            "data=hats data.catalogue=legacy checkpoint=efficientnet_b0.mine engine=dask out=runs/legacy/store",
            "data=mock checkpoint=efficientnet_b0.mock part=3/64 out=runs/mock/store",
        ),
    ),
    "cluster": Job(
        "rarezoo.searches.run:SearchRun", "search an embedding store for rare classes, with a report", _PIPELINE,
        groups=(
            "data", "select", "features", "compress", "compress@drawing", "clusterer", "logger", "engine", "preset",
            "experiment",
        ),
        folder=True,
        examples=(
            "store=runs/mine/store out=runs/mine/search",
            "store=runs/mine/store preset=paper out=runs/mine/paper",
            "store=runs/mine/store features=contrast features.columns=colour,log_mass out=runs/mine/contrast",
            "store=runs/legacy/store engine=dask sample=500000 out=runs/legacy/search",
        ),
    ),
    "classes list": Job(
        "rarezoo.searches.listing:ListRun", "list the classes of a search", _SEARCHES,
        examples=("runs/mine/search", "runs/mine/search column=redshift"),
    ),
    "classes diff": Job(
        "rarezoo.searches.compare:DiffRun", "match the classes of two searches: kept, split, merged, lost", _SEARCHES,
        examples=("runs/old/search runs/new/search out=runs/diff",),
    ),
    "classes apply": Job(
        "rarezoo.searches.decisions:ApplyRun", "drop, merge and name classes as decided in the atlas", _SEARCHES,
        examples=("runs/mine/search decisions.json out=runs/mine/decided",),
    ),
    "compare": Job(
        "rarezoo.searches.compare:CompareRun",
        "compare searches of the same galaxies: which of their classes agree", _SEARCHES,
        folder=True, renamed={"asked": "queries"},
        examples=("runs/a/search runs/b/search out=runs/compared",),
    ),
    "assign": Job(
        "rarezoo.searches.assign:AssignRun", "assign the galaxies of another store to the classes of a search",
        _SEARCHES, folder=True,
        examples=("runs/mine/search runs/new/store out=runs/new/assigned",),
    ),
    "known": Job(
        "rarezoo.physical.known:KnownRun", "say which classes are known kinds of galaxies", _SEARCHES,
        examples=(
            "runs/mine/search list=gz2_hart16.csv kind=gz2",
            "runs/mine/search list=EFIGI.csv,own.csv kind=efigi,table label_column=type out=runs/mine/known",
        ),
    ),
    "report": Job(
        "rarezoo.report.pages:ReportRun", "write the report of a finished search again", _SEARCHES,
        examples=("runs/mine/search", "runs/mine/search images=false"),
    ),
    "export": Job(
        "rarezoo.report.exports:ExportRun",
        "write the members of classes as CSV, FITS, VOTable, DS9 regions or HATS, or send them to TOPCAT",
        _SEARCHES,
        examples=(
            "runs/mine/search out=members.fits format=fits",
            "runs/mine/search out=two.csv classes=3,5 answers=all",
            "runs/mine/search samp=true classes=3",
            "runs/mine/search out=runs/mine/hats format=hats unassigned=true",
        ),
    ),
    "physical": Job(
        "rarezoo.physical.run:PhysicalRun",
        "compare physical properties of the classes with matched controls, in any catalogues", _SEARCHES,
        renamed={"with": "catalogues", "method": "distance"},
        examples=(
            "runs/mine/search with=masses.fits,colours.vot",
            "runs/mine/search with=masses.fits covariates=z,log_mass within=log_mass out=runs/mine/physical",
            "runs/mine/search with=vizier:J/A+A/532/A74 radius=2",
        ),
    ),
    "serve": Job(
        "rarezoo.explore.server:ServeRun", "rate galaxies on a page that learns what you look for", _EXPLORING,
        groups=("ranker", "acquisition"),
        examples=("runs/mine/search", "runs/mine/search port=8800 by=ann open=true"),
    ),
    "rank": Job(
        "rarezoo.explore.rank:RankRun", "rank all galaxies by the ratings of a label", _EXPLORING,
        groups=("ranker", "engine"),
        examples=(
            "runs/mine/search", "runs/mine/search label=ring out=rings.parquet",
            "runs/legacy/search engine=dask first=10000 out=first.parquet",
        ),
    ),
    "classes rated": Job(
        "rarezoo.explore.rated_class:RatedClassesRun", "make classes of what people have rated, with their evidence",
        _EXPLORING, groups=("ranker",),
        examples=("runs/mine/search label=ring out=runs/mine/rings",),
    ),
    "similar": Job(
        "rarezoo.explore.similar_command:SimilarRun",
        "find similar galaxies, starting from examples, an image, a tag, or words", _EXPLORING,
        groups=("engine",),
        examples=(
            "runs/mine/search id=J0001,J0002 k=48", "runs/mine/store id='185.7 15.8' 'where=redshift < 0.1'",
            "runs/mine/store image=galaxy.png out=found", "runs/mine/search words='edge-on with dust lane'",
            "runs/mine/search tag=ring out=rings.fits", "runs/legacy/search id=J0001 engine=dask",
        ),
    ),
    "labels show": Job(
        "rarezoo.explore.labels_commands:LabelsShow", "show how many ratings there are, of what, and by whom",
        _EXPLORING,
        examples=("runs/mine/search", "runs/mine/search labels=postgresql://me@host/ratings"),
    ),
    "labels export": Job(
        "rarezoo.explore.labels_commands:LabelsExport", "write ratings as CSV, Parquet or HATS", _EXPLORING,
        examples=(
            "runs/mine/search out=ratings_hats format=hats",
            "runs/mine/search out=ratings.csv", "runs/mine/search out=ratings.parquet current=true label=ring"),
    ),
    "labels import": Job(
        "rarezoo.explore.labels_commands:LabelsImport", "add the ratings of a table, or those saved from the atlas",
        _EXPLORING,
        examples=(
            "runs/mine/search ratings.csv", "runs/mine/search rings.csv label=ring kind=tag by=me id_column=name",
        ),
    ),
    "demo": Job(
        "rarezoo.demo:DemoRun", "run all steps on a mock survey, in minutes", _PIPELINE, folder=True,
        examples=("out=runs/demo", "galaxies=2000 out=runs/small_demo"),
    ),
    "mock sheet": Job(
        "rarezoo.demo:MockSheet", "draw a picture of mock galaxies, one row for each population", _PIPELINE,
        examples=("sheet.webp",),
    ),
    "mock properties": Job(
        "rarezoo.demo:MockProperties", "write a catalogue of the physical properties of mock galaxies", _PIPELINE,
        examples=("properties.parquet n=4000",),
    ),
    "zoo list": Job(
        "rarezoo.zoo.commands:ListCheckpoints", "list all checkpoints", _ZOO,
        examples=("", "root=runs/checkpoints"),
    ),
    "zoo show": Job(
        "rarezoo.zoo.commands:ShowCheckpoints",
        "show the card of a checkpoint, or several checkpoints side by side", _ZOO,
        examples=("efficientnet_b0.gz2", "efficientnet_b0.gz2 maxvit_tiny.gz2"),
    ),
    "zoo check": Job(
        "rarezoo.zoo.commands:CheckCheckpoints", "check the files and outputs of checkpoints", _ZOO,
        examples=("all",),
    ),
    "zoo worst": Job(
        "rarezoo.training.failures:WorstPredictions", "show the predictions that the votes contradict most", _ZOO,
        groups=("data",),
        examples=("efficientnet_b0.mock", f"efficientnet_b0.mine {_OWN_SURVEY} data.votes=desi out=worst.png"),
    ),
    "zoo export": Job(
        "rarezoo.zoo.commands:ExportCheckpoint", "write a checkpoint as ONNX, torch.export or timm", _ZOO,
        examples=("efficientnet_b0.gz2 format=onnx out=exported",),
    ),
    "zoo push": Job(
        "rarezoo.zoo.commands:PushCheckpoint", "send a checkpoint to a Hugging Face hub", _ZOO,
        examples=("efficientnet_b0.mine repository=USER/efficientnet_b0.mine private=true",),
    ),
    "zoo pull": Job(
        "rarezoo.zoo.commands:PullCheckpoint", "fetch a checkpoint from a Hugging Face hub", _ZOO,
        examples=("USER/efficientnet_b0.mine",),
    ),
    "store import": Job(
        "rarezoo.embeddings.store:ImportStore", "make an embedding store of a table of embeddings", _PIPELINE,
        groups=("data",),
        examples=(
            "embeddings.parquet out=runs/other/store",
            "features.csv id_column=name 'columns=feat_pca_*' out=runs/zoobot/store",
            "catalogues/legacy_hats columns=[embedding] out=runs/legacy/store",
        ),
    ),
    "store export": Job(
        "rarezoo.embeddings.hats:ExportStore", "write an embedding store as a HATS catalogue", _PIPELINE,
        examples=("runs/mine/store out=runs/mine/hats", "runs/other/store out=runs/hats positions=positions.csv"),
    ),
    "crossmatch": Job(
        "rarezoo.data.crossmatch:CrossMatchRun", "match two catalogues by position, with astropy or LSDB", _SEARCHES,
        examples=(
            "members.csv gaia.fits out=matched.parquet", "runs/hats catalogues/gaia out=matched radius=2 by=lsdb",
        ),
    ),
    "store frozen": Job(
        "rarezoo.embeddings.frozen:FrozenStore", "embed a survey with initial weights, without any training", _PIPELINE,
        groups=("data", "model"),
        examples=("data=gz2 model=efficientnet_b0 model.start=imagenet out=runs/frozen",),
    ),
    "leaderboard": Job(
        "rarezoo.studies.leaderboard:LeaderboardRun", "rank the runs of a multirun on a page", _SWEEPS,
        examples=("runs/sweep",),
    ),
    "study": Job(
        "rarezoo.studies.bottleneck:StudyRun", "measure the cost of a narrower embedding, after experiment=bottleneck",
        _SWEEPS,
        examples=("runs/bottleneck",),
    ),
    "sensitivity": Job(
        "rarezoo.studies.sensitivity:SensitivityRun",
        "compare searches under different settings, after experiment=sensitivity", _SWEEPS,
        examples=("runs/sensitivity",),
    ),
    "probe": Job(
        "rarezoo.prediction.probe:ProbeRun",
        "learn a label of your own from an embedding in seconds, and predict it for every galaxy", _OWN_LABELS,
        folder=True,
        examples=(
            "runs/mine/store labels=rings.csv label=ring out=runs/rings",
            "runs/mine/store labels=kinds.csv label=kind kind=classes out=runs/kinds",
            "runs/mine/store labels=runs/mine/search label=ring out=runs/rated",
        ),
    ),
    "predict": Job(
        "rarezoo.prediction.predict:PredictRun",
        "publish what a finetuned network predicts: probabilities, sets, a table and a page", _OWN_LABELS, folder=True,
        examples=("runs/finetuned/store labels=rings.csv label=ring out=runs/rings",),
    ),
    "judge": Job(
        "rarezoo.embeddings.judge:JudgeRun",
        "measure which of some embeddings finds known kinds of galaxies better", _MEASURING,
        groups=("data",), folder=True,
        examples=(
            "runs/mine/store",
            "runs/a/store runs/b/store 'answers=ring=ring_fraction>0.5' out=runs/judged",
            "runs/a/store table=lenses.csv answers=lens=is_lens against=photometry",
        ),
    ),
    "benchmark": Job(
        "rarezoo.benchmark.run:BenchmarkRun",
        "compare methods of searching an embedding, on data whose answers are known",
        _MEASURING, folder=True,
        examples=(
            "vectors seeds=100-101 methods=ours,leaf_10", "answers store=runs/mine/store answers=known.csv",
        ),
    ),
    "distil": Job(
        "rarezoo.distillation.run:DistilRun", "make a few synthetic images that stand for many galaxies", _MEASURING,
        groups=("data", "schedule", "profile", "logger"), folder=True, renamed={"method": "approach"},
        examples=(
            "data=gz2 profile=processor out=runs/stm",
            "data=gz2 method=dm set.side=32 out=runs/dm",
            "data=huggingface data.name=mwalmsley/gz_evo profile=paper dry_run=true out=runs/paper",
        ),
    ),
    "benchmark distil": Job(
        "rarezoo.benchmark.distil:DistilBenchmark",
        "compare distilled images with real ones by the networks that are trained on them", _MEASURING,
        groups=("data", "schedule", "profile"),
        examples=(
            "data=gz2 profile=processor features.checkpoint=efficientnet_b0.gz2_64px out=runs/distil_board",
        ),
    ),
    "benchmark explore": Job(
        "rarezoo.benchmark.explore:ExploreRun",
        "let simulated people rate galaxies, and compare the ways to choose what they see",
        _MEASURING,
        examples=(
            "runs/gz2/store", "runs/mine/store 'answers=ring=ring_fraction>0.5' explorers=ours,random seeds=0-4",
        ),
    ),
    "benchmark few-labels": Job(
        "rarezoo.benchmark.few_labels:FewLabelsRun",
        "measure how many labels of a kind are enough, for several starts and methods", _MEASURING,
        groups=("experiment",), folder=True,
        examples=(
            "runs/gz2/store starts=untrained=runs/random out=runs/few_labels",
            "runs/mine/store table=known.csv answers=lens=is_lens positives=5,13,33 draws=0-9",
        ),
    ),
}  # fmt: skip

# Former names of commands.
_RENAMED = {
    "mock-sheet": "mock sheet", "cards": "zoo show", "worst": "zoo worst", "zoo verify": "zoo check",
    "classes": "classes list",
}  # fmt: skip
# Measurements for developers, which are run in a checkout.
_MOVED = {name: f"python -m benchmarks {now}" for name, now in (("bench", "throughput"), ("duplicates", "duplicates"))}


class Study(NamedTuple):
    """A multirun whose jobs are compared at its end.

    Attributes
    ----------
    summarise
        ``module:function`` that is called with the multirun's folder at the end, and returns a text.
    after_job
        ``module:function`` that is called with every finished job in the job's own process; empty for none.
    """

    summarise: str
    after_job: str = ""


STUDIES = {
    "bottleneck": Study("rarezoo.studies.bottleneck:write_study", "rarezoo.studies.measurement:measure_job"),
    "sensitivity": Study("rarezoo.studies.sensitivity:write_sensitivity"),
}

# Ending of the name of a preset from which the settings are left out that the chosen options do not have.
_FITTING = "_fitting"
# Longest name of a file in bytes, with some room: file systems take 255.
_LONGEST_NAME = 250


def main(command: str = "") -> None:
    """Run the command line and exit with its status.

    Parameters
    ----------
    command
        Name of the command, for scripts such as ``train.py`` that are one command. Empty: the first words name it.
    """
    words = sys.argv[1:]
    if command:
        sys.exit(exit_status(lambda: run_command(command, words, usage=f"python {command}.py"), command=command))
    if not words or words[0] in ("--help", "-h"):
        sys.exit(exit_status(_print_overview))
    if words[0] == "--version":
        print(f"rarezoo {__version__}")
        sys.exit(0)
    command = next((name for name in _longest_first() if words[: name.count(" ") + 1] == name.split()), "")
    if command:
        rest = words[command.count(" ") + 1 :]
        sys.exit(exit_status(lambda: run_command(command, rest, usage=f"rarezoo {command}"), command=command))
    sys.exit(exit_status(lambda: _other(words)))


def _print_overview() -> None:
    print(overview(JOBS, version=__version__))
    scripts = ", ".join(f"python {name}.py is rarezoo {name}" for name in SCRIPTS)
    print(f"In a checkout of the repository, three commands are also scripts: {scripts}.")


def _longest_first() -> list[str]:
    return sorted(JOBS, key=lambda name: name.count(" "), reverse=True)


def _other(words: Sequence[str]) -> None:
    """Show the commands of a noun, such as ``zoo``, or refuse a command that does not exist."""
    import difflib

    below = {name: job for name, job in JOBS.items() if name.split()[0] == words[0]}
    if below and (len(words) == 1 or words[1] in ("--help", "-h")):
        print(overview(below, version=__version__))
        return
    asked = " ".join(words[:2] if below else words[:1])
    asked = asked if asked in _RENAMED or words[0] not in _RENAMED else words[0]
    if asked in _MOVED:
        raise ConfigError("this measurement is not installed", value=f"rarezoo {asked}", fix=f"Run: {_MOVED[asked]}")
    if asked in _RENAMED:
        now = shlex.join([*_RENAMED[asked].split(), *words[asked.count(" ") + 1 :]])
        raise ConfigError("this command has a new name", value=f"rarezoo {asked}", fix=f"Run: rarezoo {now}")
    near = difflib.get_close_matches(asked, list(JOBS), n=3)
    overview_of = f"rarezoo {words[0]}" if below else "rarezoo"
    hint = f"Did you mean {' or '.join(near)}?" if near else f"{overview_of} --help lists all commands."
    raise ConfigError("no such command", value=f"rarezoo {asked}", fix=hint)


def run_command(command: str, words: Sequence[str], *, usage: str) -> None:
    """Run one command of :data:`JOBS`.

    Parameters
    ----------
    command
        Its name in the table.
    words
        What followed it on the command line.
    usage
        How the user typed it, for messages.
    """
    job = JOBS[command]
    if "--version" in words:
        print(f"rarezoo {__version__}")
        return
    if {"--help", "-h"} & set(words):
        print(command_help(command, [word for word in words if word not in ("--help", "-h")], usage=usage))
        return
    register(command)
    multirun = _is_multirun(command, words)
    if multirun and not job.folder:
        raise ConfigError(
            "this command does not take several values at once",
            value=usage,
            fix="Leave out -m and run it once for each.",
        )
    flags, overrides = read = read_words(usage, job, words, multirun=multirun)
    refuse_rewritten_text(job, read, [conf_dir()])
    overrides = _with_fitting_preset(command, overrides)
    folder = _writes_folder(job, overrides)
    if multirun and not folder:
        raise ConfigError("a multirun needs a folder", value=usage, fix="Name one: out=DIR.")
    if multirun:
        _refuse_shared_folders(command, overrides)
    if not folder:
        overrides += ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=console"]
    _run_hydra(command, [*flags, *overrides])


def _is_multirun(command: str, words: Sequence[str]) -> bool:
    """Return whether the flag ``-m`` or a preset, such as an experiment, asks for a multirun."""
    flags, rest = split_flags(words)
    if {"-m", "--multirun"} & set(flags) or "hydra.mode=MULTIRUN" in rest:
        return True
    with_field = group_paths(JOBS[command])
    presets = [group for group in JOBS[command].groups if group in with_field and not _has_field(command, group)]
    chosen = [word for word in rest if word.split("=", 1)[0] in presets and not word.endswith(("=", "=null"))]
    if not chosen or "hydra.mode=RUN" in rest:
        return False
    own = [quoted(f"file://{folder.absolute()}") for folder in config_folders(flags)]
    return bool(_composed(command, [*chosen, f"hydra.searchpath=[{','.join(own)}]"]).hydra.mode == RunMode.MULTIRUN)


def _has_field(command: str, group: str) -> bool:
    return group.split("@")[-1].split(".")[0] in JOBS[command].kind.__dataclass_fields__


def _writes_folder(job: Job, overrides: Sequence[str]) -> bool:
    """Return whether a single run has a folder of its own, in which its log lies."""
    if not job.folder:
        return False
    given = [override for override in overrides if override.startswith("out=")]
    return bool(given) or bool(getattr(job.kind, "out", "")) or (conf_dir() / f"{_config_name(job)}.yaml").exists()


def _config_name(job: Job) -> str:
    return next(name for name, known in JOBS.items() if known is job).replace(" ", "_")


def _run_hydra(command: str, words: Sequence[str]) -> None:
    """Hand a command line in Hydra's grammar to Hydra, and run the job or the jobs that it describes."""
    # Hydra then hands exceptions on instead of printing them, so that a mistake can be distinguished from a bug here.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    typed = sys.argv
    refused: list[Exception] = []

    def task(config: DictConfig) -> None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            _run_noted(command, config)
            return
        # Lightning starts further processes with the words that the user typed.
        sys.argv = typed
        try:
            _run(command, config)
        except (RarezooError, OmegaConfBaseException, OSError) as problem:
            # Hydra would add a line of its own to the message.
            refused.append(problem)

    sys.argv = [typed[0], *words]
    Folder.before = None
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir().resolve()), config_name=_config_name(JOBS[command]))(
            task
        )()
    except Exception as problem:
        # Jobs that went well are summarised before the failure of another is reported.
        _summarise_sweeps(complete=False)
        _refuse_missing_slurm(problem)
        raise
    finally:
        sys.argv = typed
    if refused:
        if Folder.before is not None:
            Folder.before.put_back()
        raise refused[0]
    _summarise_sweeps(complete=True)


def _run(command: str, config: DictConfig) -> None:
    """Run the job that a composed configuration describes, and print what it returns."""
    job = _job(command, config)
    result = job.run()
    callbacks: Any = HydraConfig.get().callbacks
    study = STUDIES.get((callbacks.get("sweeps") or {}).get("study") or "")
    if study is not None and study.after_job:
        resolve_name(study.after_job)(job)
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        text = result_text(result)
        if text:
            print(visible(text, lines=True))


def result_text(result: object) -> str:
    """Return what a terminal shows of the result of a job: its summary, its path or its text."""
    if result is None:
        return ""
    summary = getattr(result, "summary", None)
    if callable(summary):
        return str(summary())
    if isinstance(result, (str, Path)) or type(result).__str__ is not object.__str__:
        return str(result)
    return str(getattr(result, "folder", ""))


def _run_noted(command: str, config: DictConfig) -> None:
    """Run a job of a multirun; if it fails, its folder says why."""
    from rarezoo.studies.failures import note_failure

    folder = HydraConfig.get().runtime.output_dir
    try:
        _run(command, config)
    except Exception as problem:
        with contextlib.suppress(RarezooError, OSError):
            note_failure(folder, problem)
        raise
    note_failure(folder, None)


def _job(command: str, config: DictConfig) -> Any:
    """Return the typed job that a composed configuration describes; each job of a multirun has its own folder."""
    _vary(config, JOBS[command])
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        things = {known.name: text for known, text in positional_words(JOBS[command])}
        fix = f"Write: rarezoo {command} {' '.join(things.values())}" if missing[0] in things else ""
        raise ConfigError("a setting must be given", value=", ".join(missing), fix=fix or f"Add {missing[0]}=VALUE.")
    job: Any = OmegaConf.to_object(config)
    if hasattr(job, "given"):
        words = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
        job.given = frozenset(word.key_or_group for word in words)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        job.out = HydraConfig.get().runtime.output_dir
        if hasattr(job, "check_multirun"):
            job.check_multirun()
    return job


def _vary(config: DictConfig, job: Job) -> None:
    """Apply the settings that one job of a multirun changes together.

    Raises
    ------
    ConfigError
        A setting that does not exist, or of another type.
    """
    for key, value in (config.get("vary") or {}).items():
        kinds = types_of(key, job)
        try:
            # Hydra reads 12 as a number; a setting that is a text takes it as a text.
            OmegaConf.update(config, key, str(value) if kinds and all(kind in (str, Path) for kind in kinds) else value)
        except OmegaConfBaseException as problem:
            reason = str(problem).splitlines()[0]
            fix = "See --help for what can be set."
            raise ConfigError(f"vary ({reason})", value=f"{key}:{value}", fix=fix) from problem


class Folder(Callback):
    """Note what the output folder of a single run holds before Hydra writes into it."""

    before: ClassVar[FolderBefore | None] = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note it; a command without a folder of its own has no record."""
        if config.hydra.output_subdir is not None:
            Folder.before = FolderBefore.of(config.hydra.run.dir)


# ── multiruns ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Sweeps(Callback):
    """Note the folders that Hydra sweeps, in the process that the user started, whatever the launcher.

    Parameters
    ----------
    study
        Name of the study in :data:`STUDIES` that the multirun is; empty if it is none. An experiment sets it as
        ``hydra.callbacks.sweeps.study``.
    """

    folders: ClassVar[list[Path]] = []
    studies: ClassVar[list[tuple[Callable[[Path], str], Path]]] = []

    def __init__(self, study: str = "") -> None:
        self.study = study

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the folder before any job starts."""
        folder = Path(config.hydra.sweep.dir)
        self.folders.append(folder)
        if self.study:
            self.studies.append((resolve_name(STUDIES[self.study].summarise), folder))


def _summarise_sweeps(*, complete: bool) -> None:
    """Write the leaderboard of a multirun, and the summary of one that was a study, from the files of its jobs.

    Parameters
    ----------
    complete
        Every job went well. If not, a study that cannot be summarised is not reported as a second failure.
    """
    while Sweeps.folders:
        from rarezoo.studies.leaderboard import write_leaderboard

        try:
            print(visible(f"leaderboard: {write_leaderboard(Sweeps.folders.pop())}"), file=sys.stderr)
        except RarezooError as problem:
            print(f"no leaderboard: {problem}", file=sys.stderr)
    with contextlib.nullcontext() if complete else contextlib.suppress(RarezooError):
        while Sweeps.studies:
            summary, folder = Sweeps.studies.pop()
            print(visible(summary(folder), lines=True))


def _file_name(text: str) -> str:
    """Return the overrides of a sweep's job as the name of its folder; a long one is cut and gets a hash."""
    varied = re.sub(r"vary=\{(.*?)\}", lambda match: match[1] or "centre", text)
    name = visible(varied.replace(_FITTING, "").replace("\\:", "=").replace("/", "_").replace("'", "")) or "job"
    if not name.strip("."):
        name = f"job{name}"
    encoded = name.encode()
    if len(encoded) <= _LONGEST_NAME:
        return name
    begin, end = (part.decode(errors="ignore") for part in (encoded[:140], encoded[-80:]))
    return f"{begin}~{end}-{hashlib.sha256(encoded).hexdigest()[:8]}"


def _refuse_shared_folders(command: str, overrides: Sequence[str]) -> None:
    """Raise ConfigError if two jobs of a multirun would have the same folder.

    Their folders are named after their settings, with some characters replaced, and some settings are left out.
    """
    read = OverridesParser.create().parse_overrides(list(overrides))
    if any(override.key_or_group == "hydra.sweep.subdir" for override in read):
        return
    plain = [word for word, override in zip(overrides, read, strict=True) if not override.is_sweep_override()]
    left_out = _composed(command, plain).hydra.job.config.override_dirname.exclude_keys
    for override in read:
        if not override.is_choice_sweep():
            continue
        key, jobs = override.get_key_element(), dict[str, str]()
        for value in override.sweep_string_iterator():
            job = f"{key}={value}"
            name = "" if key in left_out else _file_name(job)
            if name in jobs:
                raise ConfigError(
                    "two jobs of this multirun would share a folder", value=f"{jobs[name]} and {job}",
                    fix="Leave one out, or run it alone with an out= of its own.",
                )  # fmt: skip
            jobs[name] = job


# Not in register(): launchers that start processes of their own import this module there and do nothing more.
OmegaConf.register_new_resolver("file_name", _file_name, replace=True)


# ── configuration ───────────────────────────────────────────────────────────────────────────────────────────────────


def register(*commands: str) -> None:
    """Give Hydra the schemas and the choices of these commands; of all commands if none is named."""
    store = ConfigStore.instance()
    for command in commands or JOBS:
        job, name = JOBS[command], _config_name(JOBS[command])
        store.store(name=f"{name}_schema", node=_schema(job))
        for path, group in group_paths(job).items():
            known = settings.options(group)
            for choice, kind in known.items():
                store.store(group=group, name=f"{choice}_{SCHEMA}", node=_open_dictionaries(OmegaConf.structured(kind)))
                if not (conf_dir() / group / f"{choice}.yaml").exists():
                    store.store(group=group, name=choice, node=kind)
            if not known and path in job.kind.__dataclass_fields__:
                store.store(group=group, name=SCHEMA, node=job.kind.__dataclass_fields__[path].type)
        if not (conf_dir() / f"{name}.yaml").exists():
            defaults: list[Any] = [f"{name}_schema", "hydra_defaults", *({group: None} for group in job.groups)]
            # A folder of a multirun is named after what varies.
            names = ["out", *(known.name for known, _ in positional_words(job))]
            hydra_part = {"job": {"config": {"override_dirname": {"exclude_keys": names}}}}
            store.store(name=name, node={"defaults": [*defaults, "_self_"], "hydra": hydra_part})


def _schema(job: Job) -> Any:
    """Return the typed schema of a job; what a group chooses comes from the group, not from a default in Python."""
    schema = OmegaConf.structured(job.kind)
    for path, group in group_paths(job).items():
        if settings.options(group) and schema.get(path) is not None:
            schema[path] = "???"
    return _open_dictionaries(schema)


def _open_dictionaries(schema: Any) -> Any:
    """Let settings that are dictionaries, such as vary, take any keys; they are checked where they are used."""
    for name in schema:
        if not OmegaConf.is_missing(schema, name) and OmegaConf.is_dict(schema[name]) and schema[name] == {}:
            OmegaConf.set_struct(schema[name], False)
    return schema


def _composed(command: str, overrides: Sequence[str]) -> Any:
    """Return the configuration of a command, with Hydra's own part."""
    register(command)
    with hydra.initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
        return hydra.compose(_config_name(JOBS[command]), overrides=list(overrides), return_hydra_config=True)


def _with_fitting_preset(command: str, overrides: Sequence[str]) -> list[str]:
    """Leave out of the preset the settings that a chosen option does not have.

    The default preset sets ``compress.n_neighbors``, which ``compress=none`` does not have; Hydra would refuse the two
    together. The settings that the chosen option does have, such as ``compress.n_components`` of ``compress=pca``, are
    still those of the preset. Several options at once, as a multirun has them, are left to Hydra.
    """
    job = JOBS[command]
    chosen = {
        word.split("=", 1)[0]: word.split("=", 1)[1]
        for word in overrides
        if word.split("=", 1)[0] in job.groups and "," not in word
    }
    several = any(word.startswith("preset=") and "," in word for word in overrides)
    if "preset" not in job.groups or "~preset" in overrides or several or not chosen:
        return list(overrides)
    default = next(entry["preset"] for entry in _yaml(f"{command}.yaml")["defaults"] if "preset" in entry)
    name = chosen.pop("preset", default)
    preset, left_out = _preset_content(name), False
    for group, option in chosen.items():
        part = preset.get(group.split("@")[-1], {})
        for key in set(part) - _settings_of(group.split("@")[0], option):
            left_out = True
            del part[key]
    if not left_out:
        return list(overrides)
    ConfigStore.instance().store(group="preset", name=f"{name}{_FITTING}", node=preset, package="_global_")
    return [*(word for word in overrides if not word.startswith("preset=")), f"preset={name}{_FITTING}"]


def _yaml(path: str) -> dict[str, Any]:
    """Return the content of a file below ``conf/``; empty if there is none."""
    file = conf_dir() / path
    content: Any = OmegaConf.to_container(OmegaConf.load(file)) if file.exists() else {}
    return dict(content)


def _preset_content(name: str) -> dict[str, Any]:
    """Return the content of ``conf/preset/NAME.yaml``, merged into that of the preset that it is based on."""
    content = _yaml(f"preset/{name}.yaml")
    values: dict[str, Any] = {}
    options: dict[str, str] = {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, str):
            base = _preset_content(entry)
            options |= {group: option for known in base.pop("defaults") for group, option in known.items()}
            values = base
        else:
            options |= entry
    merged: Any = OmegaConf.to_container(OmegaConf.merge(values, content))
    return {"defaults": [{group: option} for group, option in options.items()], **merged}


def _settings_of(group: str, option: str) -> set[str]:
    """Return the names of the settings of a choice; the file of one may be based on another."""
    kinds = settings.options(group)
    while option not in kinds:
        bases = [base for base in _yaml(f"{group}/{option}.yaml").get("defaults", []) if base != "_self_"]
        if not bases or not isinstance(bases[0], str):
            break
        option = bases[0]
    return set(settings.choice(group, option).__dataclass_fields__) if option in kinds else set()


def choices(group: str, *, command: str = "") -> list[str]:
    """Return every name that ``group=`` takes: presets in ``conf/`` and registered options.

    An experiment is one of the command that its comment names: ``python train.py …`` or ``rarezoo … experiment=…``.
    """
    group = group.split("@")[0]
    files = sorted((conf_dir() / group).glob("*.yaml"))
    if group == "experiment" and command:
        ways = (f"python {command}.py", f"rarezoo {command} experiment=")
        files = [path for path in files if any(way in path.read_text() for way in ways)]
    return sorted({path.stem for path in files} | set(settings.options(group)))


def command_help(command: str, words: Sequence[str], *, usage: str) -> str:
    """Return the help of a command under the choices that the words make."""
    job = JOBS[command]
    overrides = read_words(usage, job, [word for word in words if "=" in word], multirun=False).overrides
    config = _composed(command, _with_fitting_preset(command, overrides))
    names = {group: choices(group, command=command) for group in job.groups}
    chosen = {group: str(name).removesuffix(_FITTING) for group, name in config.hydra.runtime.choices.items() if name}
    same_as = ""
    if command in SCRIPTS:
        script, installed = f"python {command}.py", f"rarezoo {command}"
        same_as = f"{script} (in a checkout)" if usage == installed else f"{installed} (everywhere)"
    return help_text(usage, job, config, names, chosen, same_as=same_as)


# ── exit status and messages ────────────────────────────────────────────────────────────────────────────────────────


def exit_status(run: Callable[[], object], *, command: str = "") -> int:
    """Run something and return the exit status: 0, 2 with one message, 130 or 1."""
    try:
        run()
        # A program that has ended before it read everything is noticed here, and not when Python ends.
        if sys.stdout is not None:
            sys.stdout.flush()
    except RarezooError as problem:
        return _refused(str(problem))
    except (HydraException, OmegaConfBaseException) as problem:
        return _refused(str(_config_error(problem, command)))
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # The program that reads our output, such as head, has ended.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as problem:
        if problem.filename is None and problem.errno is None:
            traceback.print_exc()
            return 1
        return _refused(str(unwritable(Path(str(problem.filename or "output")), problem)))
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _refused(message: str) -> int:
    print(visible(without_passwords(f"rarezoo: {message}")), file=sys.stderr)
    return 2


def _config_error(problem: Exception, command: str) -> str:
    """Return one message for a mistake that Hydra found on the command line."""
    chain = list(_causes(problem))
    for cause in chain:
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            group, _, name = cause.missing_cfg_file.rpartition("/")
            if group:
                known = choices(group, command=command)
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {group}={near[0]}? " if near else ""
                return f"no such choice: {group}={name}. {hint}Choose one of: {', '.join(known)}."
    for cause in chain:
        key = str(getattr(cause, "full_key", None) or getattr(cause, "key", None) or "")
        if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and key and command:
            hint = nearest(key, JOBS[command])
            if "In 'preset/" in str(problem):
                hint = "The preset sets it, but what you chose does not have it: add preset=null."
            return f"no such setting: {key}. {hint}"
        if isinstance(cause, ValidationError) and key:
            return f"{key}: {str(cause).splitlines()[0]}. --help shows the type of every setting."
    unresolved = [cause for cause in chain if isinstance(cause, (InterpolationResolutionError, GrammarParseError))]
    if unresolved:
        reason = " ".join(str(unresolved[0]).splitlines()[:1]).rstrip(".")
        typed = [word for word in sys.argv[1:] if "${" in word]
        return (
            f"cannot tell what ${{…}} stands for ({reason}): {' '.join(typed)}. ${{NAME}} stands for another setting; "
            "write \\${ for these two characters themselves."
        )
    lines = [line for cause in chain[:2] for line in str(cause).strip().splitlines()[:8]]
    if any("override_grammar" in line for line in lines):
        word = next((text.partition(":")[2].strip() for text in lines if "Exception" in text), lines[0])
        return (
            f"cannot read this word: {word}. Put the value in quotes, and the word in those of the shell: \"key='x'\"."
        )
    return " ".join([*dict.fromkeys(lines), "--help lists what can be set."])


def _causes(problem: BaseException | None) -> Iterator[BaseException]:
    while problem is not None:
        yield problem
        problem = problem.__cause__ or problem.__context__


def _refuse_missing_slurm(problem: Exception) -> None:
    """Raise ConfigError for submitit's error about a missing SLURM, which has no class of its own."""
    if isinstance(problem, RuntimeError) and "slurm cluster" in str(problem):
        raise ConfigError(
            "no SLURM here", value="srun", fix="Start it on the cluster, or leave machine= out."
        ) from problem
