"""The grammar of the command line: words become the settings of a typed job.

``rarezoo compare A B out=DIR`` has positional words (the things that a command works on) and settings (``key=value``,
as Hydra has them). This module decides which word is which, and writes text so that Hydra's grammar reads it as it was
typed. It also writes ``--help``.
"""

import difflib
import re
import shlex
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from rarezoo import settings
from rarezoo.errors import ConfigError, OutputError

# Name of the schema of a group whose presets all fill in the same dataclass, such as ``logger``.
SCHEMA = "schema"
# Hydra's flags, and those of them that a value follows.
_FLAGS = ("-m", "--multirun", "-r", "--run", "--resolve", "--hydra-help", "--shell-completion", "-sc")
_VALUED = (
    "--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--info",
    "-i", "--experimental-rerun",
)  # fmt: skip
_TEXT = (str, Path)
_CLOSEST = 3


@dataclass(frozen=True)
class Job:
    """A command: the dataclass whose fields are its settings and whose ``run()`` does the work.

    Attributes
    ----------
    target
        ``module:Class`` of the dataclass. It is imported only when the command is used.
    help
        One line for the list of commands.
    heading
        Heading under which the list shows the command.
    groups
        Configuration groups of the command, such as ``data`` for a field ``data`` that holds a survey, or
        ``compress@drawing`` for a field ``drawing`` that holds a compressor. Groups without a field, such as
        ``preset``, have YAML files that set several settings at once.
    folder
        The setting ``out`` is a folder of its own: the log and Hydra's record of the run lie in it, and a multirun
        (``-m``) gives every job such a folder.
    renamed
        Other names of settings, such as former ones and words that Python reserves, and their present names.
    examples
        What a user may type after the name of the command; ``--help`` shows it.
    """

    target: str
    help: str
    heading: str = ""
    groups: tuple[str, ...] = ()
    folder: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)
    examples: tuple[str, ...] = ()

    @property
    def kind(self) -> type[Any]:
        """The dataclass."""
        kind: type[Any] = resolve_name(self.target)
        return kind


class Words(NamedTuple):
    """A command line that has been taken apart.

    Attributes
    ----------
    flags
        Hydra's flags with their values.
    overrides
        Settings in Hydra's grammar, the positional words among them.
    """

    flags: list[str]
    overrides: list[str]


def read_words(command: str, job: Job, words: Sequence[str], *, multirun: bool) -> Words:
    """Take a command line apart.

    Parameters
    ----------
    command
        Name of the command as the user typed it, for messages.
    job
        The command.
    words
        What followed the command.
    multirun
        Commas separate values of a multirun. Otherwise text is taken as it was typed.

    Raises
    ------
    ConfigError
        A word that is neither a setting nor a thing that the command works on, or an option of the old form ``--out``.
    """
    flags, rest = split_flags(words)
    rest = [_present_name(word, job) for word in rest]
    _refuse_options(command, job, flags, rest)
    things = [known for known in fields(job.kind) if known.metadata.get("positional")]
    overrides, positional = [], []
    for word in rest:
        if _is_setting(word, job, positional=bool(things)):
            overrides.append(_override(word, job, multirun=multirun))
        else:
            positional.append(word)
    given = {override.split("=", 1)[0] for override in overrides}
    things = [known for known in things if known.name not in given]
    return Words(flags, [*_positional_overrides(command, job, things, positional), *overrides])


def refuse_rewritten_text(job: Job, words: Words, folders: Sequence[Path]) -> None:
    """Raise ConfigError if a YAML file that was chosen holds a text that YAML reads as something else.

    A setting that is text would otherwise become another text: ``tag: 2024_01_15`` is 20240115 in YAML.

    Parameters
    ----------
    job
        The command.
    words
        Its flags and settings. A flag ``--config-dir`` names a further folder of choices.
    folders
        Folders that hold a folder of YAML files for each group.
    """
    paths = {group: path for path, group in group_paths(job).items()}
    for word in words.overrides:
        group, _, choice = word.lstrip("+").partition("=")
        group = group.split("@")[0]
        if group not in paths:
            continue
        for file in (folder / group / f"{choice}.yaml" for folder in (*config_folders(words.flags), *folders)):
            try:
                content = file.read_text(encoding="utf-8")
                root = yaml.compose(content, Loader=yaml.SafeLoader)
            except (OSError, ValueError, yaml.YAMLError):
                continue  # Hydra says what is wrong with the file, or that there is none.
            top = "" if re.search(r"^#\s*@package\s+_global_", content, re.MULTILINE) else f"{paths[group]}."
            for key, written in _plain_scalars(root, top):
                kinds = types_of(key, job) - {types.NoneType}
                text = kinds and all(kind in _TEXT or set(get_args(kind)) & set(_TEXT) for kind in kinds)
                value = OmegaConf.create(f"value: {written}").value if text else written
                if value is not None and str(value) != written:
                    raise ConfigError(
                        f"{file}: YAML reads {key} as {value!r}", value=written, fix=f"Write it in quotes: '{written}'."
                    )


def config_folders(flags: Sequence[str]) -> list[Path]:
    """Return the folders of YAML files that the flag ``--config-dir`` names."""
    return [Path(value) for flag, value in pairwise(flags) if flag in ("--config-dir", "-cd")]


def _plain_scalars(node: yaml.Node | None, key: str) -> Iterator[tuple[str, str]]:
    """Yield every value of a YAML file that is not in quotes, with its dotted key; those of a list have its key."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _plain_scalars(value, f"{key}{name.value}" + "." * isinstance(value, yaml.MappingNode))
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _plain_scalars(item, key)
    elif isinstance(node, yaml.ScalarNode) and node.style is None and "${" not in node.value:
        yield key, node.value


def _present_name(word: str, job: Job) -> str:
    """Return a setting with its present name if the name before ``=`` is a former one."""
    key, equals, value = word.partition("=")
    return f"{job.renamed[key]}={value}" if equals and key in job.renamed else word


def split_flags(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return Hydra's flags with their values, and all other words."""
    flags, rest, waiting = [], [], list(words)
    while waiting:
        word = waiting.pop(0)
        if word in _FLAGS:
            flags.append(word)
        elif word in _VALUED:
            flags += [word, *waiting[:1]]
            waiting = waiting[1:]
        else:
            rest.append(word)
    return flags, rest


def _is_setting(word: str, job: Job, *, positional: bool) -> bool:
    """Return whether a word is a setting and not a thing that the command works on."""
    key = word.split("=", 1)[0]
    if not positional:
        return "=" in word or word.startswith("~")
    if _is_path(word):
        return False
    if word.startswith("~"):
        return "/" not in word and _top_key(word) in job_keys(job)
    if "=" not in word:
        return False
    known = job_keys(job)
    if key.startswith(("hydra.", "hydra/", "+", "~")) or _top_key(key) in known:
        return True
    # A folder of a sweep may be called seed=1, but a name that is nearly a setting is a slip.
    return key.isidentifier() and bool(difflib.get_close_matches(key, known, n=1, cutoff=0.7))


def _is_path(word: str) -> bool:
    """Return whether there is such a file or folder; a word that is too long for a name is none."""
    try:
        return Path(word).exists()
    except (OSError, ValueError):
        return False


def _top_key(key: str) -> str:
    return key.lstrip("+~").split(".", 1)[0]


def job_keys(job: Job) -> list[str]:
    """Return what may stand before ``=`` or the first dot: the job's fields and its groups."""
    return sorted({known.name for known in fields(job.kind)} | set(job.groups))


def _override(word: str, job: Job, *, multirun: bool) -> str:
    """Return a setting in Hydra's grammar: text as it was typed, lists with or without brackets."""
    key, equals, value = word.partition("=")
    if key in job.groups and value in ("null", ""):
        return f"~{key}"
    if not equals or key.startswith(("+", "~", "hydra")) or key in job.groups:
        return word
    if key == "out" and job.folder:
        if not value:
            raise OutputError("no output folder", value="out=", fix="Name one: out=DIR.")
        # All jobs of a multirun lie in one folder, so that commas belong to its name.
        return f"out={_as_typed(settings.home_path(value), optional=False)}"
    kinds = types_of(key, job)
    optional = types.NoneType in kinds
    kinds -= {types.NoneType}
    if kinds and all(get_origin(kind) is list for kind in kinds):
        text = all(get_args(kind) and get_args(kind)[0] in _TEXT for kind in kinds)
        if (optional and value == "null") or ((multirun or value.startswith("[")) and _parses(word)):
            return word
        bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        parts = bare.split(",") if bare else []
        plain = [_is_quoted(part) or (not text and _parses(f"key={part}")) for part in parts]
        typed = [part if as_it_is else quoted(part) for part, as_it_is in zip(parts, plain, strict=True)]
        return f"{key}=[{','.join(typed)}]"
    if not kinds or not all(kind in _TEXT for kind in kinds):
        # In quotes, Hydra says what is wrong with a value of another type instead of refusing its characters.
        return word if _parses(word) else f"{key}={quoted(value)}"
    if not multirun:
        return f"{key}={_as_typed(value, optional=optional)}"
    if re.search(r"[\[\](){}'\"]", value) and _parses(word):
        return word
    return f"{key}={','.join(_as_typed(part, optional=optional) for part in value.split(','))}"


def _is_quoted(text: str) -> bool:
    """Return whether a text is in quotes from beginning to end, so that Hydra's grammar takes it as one text."""
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" and _parses(f"key={text}")


def _as_typed(text: str, *, optional: bool) -> str:
    """Return a text in Hydra's grammar, in quotes where that would read something else without them."""
    if _is_quoted(text):
        return text
    text = _literal_path(text)
    if optional and text in ("null", ""):
        return text and "null"
    try:
        read = OverridesParser.create().parse_override(f"key={text}")
        if not read.is_sweep_override() and text == text.strip() and str(read.value()) == text != "None":
            return text
    except HydraException:
        pass
    return quoted(text)


def _literal_path(text: str) -> str:
    """Return a text in which ``${`` means these two characters if there is a file or folder of exactly this name."""
    if "${" not in text or not Path(text).exists():
        return text
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)


def quoted(text: str) -> str:
    """Return a text in single quotes of Hydra's grammar."""
    inner = re.sub(r"(\\*)'", lambda match: match[1] * 2 + r"\'", text)
    trailing = len(inner) - len(inner.rstrip("\\"))
    return f"'{inner}{inner[len(inner) - trailing :]}'"


def _parses(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def _positional_overrides(command: str, job: Job, things: Sequence[Field], words: Sequence[str]) -> list[str]:
    """Give positional words to the fields that take them, in order; a list takes all that no later field needs."""
    hints, waiting, overrides = get_type_hints(job.kind), list(words), []
    for place, known in enumerate(things):
        if not waiting:
            break
        kind = _without_none(hints[known.name])
        if get_origin(kind) is list:
            after = sum(1 for later in things[place + 1 :] if _required(later))
            taken, waiting = waiting[: len(waiting) - after], waiting[len(waiting) - after :]
            text = get_args(kind)[0] in _TEXT
            overrides.append(
                f"{known.name}=[{','.join(quoted(_literal_path(word)) if text else word for word in taken)}]"
            )
        else:
            word = waiting.pop(0)
            overrides.append(f"{known.name}={_as_typed(word, optional=False) if kind in _TEXT else word}")
    if waiting:
        near = difflib.get_close_matches(waiting[0], job_keys(job), n=1)
        fix = f"Settings are written key=value, such as {near[0]}=…; " if near else "Settings are written key=value; "
        raise ConfigError(f"{command} does not take this word", value=waiting[0], fix=f"{fix}--help lists them.")
    return overrides


def _refuse_options(command: str, job: Job, flags: Sequence[str], words: Sequence[str]) -> None:
    """Raise ConfigError for options of the old form, with the command as it is written now."""
    if not any(re.match(r"--?[a-zA-Z]", word) for word in words):
        return
    known, hints = job_keys(job), get_type_hints(job.kind)
    now, changed, waiting = list(flags), [], list(words)
    while waiting:
        word = waiting.pop(0)
        if not re.match(r"--?[a-zA-Z]", word):
            now.append(shlex.quote(word))
            continue
        name, equals, value = word.lstrip("-").replace("-", "_", word.count("-")).partition("=")
        negated = name.startswith("no_") and name not in known
        name = name.removeprefix("no_") if negated else name
        key = next(iter([name] if name in known else difflib.get_close_matches(name, known, n=1, cutoff=0.5)), name)
        kind = _without_none(hints.get(key, str))
        values = [value] if equals else []
        if kind is bool:
            values = values or ["false" if negated else "true"]
        elif not equals:
            many = get_origin(kind) is list
            while waiting and not re.match(r"--?[a-zA-Z]", waiting[0]) and (many or not values):
                values.append(waiting.pop(0))
        setting = f"{key}={shlex.quote(','.join(values)) if values else '…'}"
        changed.append(f"{word} is now {setting}")
        now.append(setting)
    raise ConfigError("settings are written key=value", value="; ".join(changed), fix=f"Run: {command} {' '.join(now)}")


def _required(known: Field) -> bool:
    return known.default is MISSING and known.default_factory is MISSING


def _without_none(kind: Any) -> Any:
    """Return ``X`` for ``X | None``, and any other type as it is."""
    if get_origin(kind) in (Union, types.UnionType):
        others = [part for part in get_args(kind) if part is not types.NoneType]
        return others[0] if len(others) == 1 else kind
    return kind


def group_paths(job: Job) -> dict[str, str]:
    """Return where in the job each group's choice goes: dotted path → name of the group."""
    return {group.split("@")[-1]: group.split("@")[0] for group in job.groups}


def types_of(key: str, job: Job) -> set[Any]:
    """Return the types that a setting may have, those of every choice of a group; empty if nothing is known of it."""
    kinds: list[Any] = [job.kind]
    path: list[str] = []
    for part in key.split("."):
        path.append(part)
        hints = [_hints(kind) for kind in kinds if isinstance(kind, type) and is_dataclass(kind)]
        kinds = [kind for known in hints if part in known for kind in _parts(known[part])]
        group = group_paths(job).get(".".join(path))
        if group:
            kinds += settings.options(group).values()
    return set(kinds)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _parts(kind: Any) -> list[Any]:
    return list(get_args(kind)) if get_origin(kind) in (Union, types.UnionType) else [kind]


def all_keys(job: Job) -> list[str]:
    """Return every setting of a job under every choice, as dotted keys, and its groups."""
    paths = group_paths(job)

    def walk(kind: Any, prefix: str) -> Iterator[str]:
        for name, hint in _hints(kind).items() if isinstance(kind, type) and is_dataclass(kind) else ():
            key = f"{prefix}{name}"
            yield key
            choices = settings.options(paths[key]).values() if key in paths else ()
            for part in (*_parts(hint), *choices):
                yield from walk(part, f"{key}.")

    return sorted({*walk(job.kind, ""), *job.groups})


def nearest(key: str, job: Job) -> str:
    """Return a hint: the choices that have a setting, or the settings that come nearest to one that no choice has."""
    for path, group in group_paths(job).items():
        if key.startswith(f"{path}."):
            first = key.removeprefix(f"{path}.").split(".")[0]
            have = [f"{path}={name}" for name, kind in settings.options(group).items() if first in _hints(kind)]
            if have:
                return f"It is a setting of {' and '.join(have)}: choose that, or leave the setting out."
    keys = all_keys(job)
    last = {known.rsplit(".", 1)[-1]: known for known in keys}
    near = difflib.get_close_matches(key, keys, n=_CLOSEST)
    near += [last[name] for name in difflib.get_close_matches(key.rsplit(".", 1)[-1], last, n=_CLOSEST)]
    names = list(dict.fromkeys(near))[:_CLOSEST]
    return f"Did you mean {' or '.join(names)}? --help lists all settings." if names else "--help lists all settings."


# ── help ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def overview(jobs: Mapping[str, Job], *, version: str) -> str:
    """Return the list of all commands, under their headings."""
    headings = list(dict.fromkeys(job.heading for job in jobs.values()))
    wide = max(map(len, jobs))
    lines = [f"rarezoo {version}: rare classes of galaxies, with the evidence for each", ""]
    lines += ["rarezoo COMMAND THINGS… KEY=VALUE…", ""]
    lines += ["THINGS are what the command works on, such as the folder of a search; KEY=VALUE are settings.", ""]
    for heading in headings:
        lines.append(f"{heading}:")
        lines += [f"  {name:<{wide}}  {job.help}" for name, job in jobs.items() if job.heading == heading]
        lines.append("")
    return "\n".join([*lines, "rarezoo COMMAND --help lists the settings of a command."])


def help_text(
    usage: str,
    job: Job,
    config: Any,
    choices: Mapping[str, Sequence[str]],
    chosen: Mapping[str, str],
    *,
    same_as: str = "",
) -> str:
    """Return the help of a command.

    Parameters
    ----------
    usage
        The command as it is typed, such as ``python train.py``.
    job
        The command.
    config
        The composed configuration with the choices that the user has made.
    choices
        Every choice of each group.
    chosen
        The present choice of each group.
    same_as
        Another way to type the same command, such as ``rarezoo train``; empty if there is none.
    """
    things = positional_words(job)
    words = [text for _, text in things]
    lines = [" ".join([usage, *words, "KEY=VALUE…"]) + f"   {job.help}"]
    if same_as:
        lines.append(f"The same command: {same_as}")
    if job.folder:
        lines.append(
            f"Several values run it once for each (a multirun): {' '.join([usage, *words])} -m KEY=A,B out=DIR"
        )
    if job.examples:
        lines += ["", "Examples:", *(f"  {usage} {example}".rstrip() for example in job.examples)]
    lines += [""] * bool(things) + [f"  {text}: {known.metadata.get('help', '')}" for known, text in things]
    if choices:
        lines += ["", "Choices (the settings below are those of what is chosen; add a choice to see its own):"]
        lines += [
            f"  {group}={'|'.join(names)}  (now {chosen.get(group) or 'none'})" for group, names in choices.items()
        ]
    names = {known.name for known, _ in things}
    shown = [f"  {line}" for line in _setting_lines(config) if line.split(":", 1)[0] not in names]
    if shown:
        lines += ["", "Settings:", *shown]
    if any(": list[" in line for line in shown):
        brackets = "; in a multirun KEY=[A,B,C]" if job.folder else ""
        lines += ["", f"A list is written KEY=A,B,C{brackets}."]
    return "\n".join(lines)


def positional_words(job: Job) -> list[tuple[Field, str]]:
    """Return the fields that take positional words, each with its place in the usage: ``SEARCH``, ``SEARCH…``."""
    hints, words = get_type_hints(job.kind), []
    for known in fields(job.kind):
        if known.metadata.get("positional"):
            many = get_origin(_without_none(hints[known.name])) is list
            name = known.name.upper()
            name = re.sub(r"(?<=CH|SS)ES$|S$", "", name) + "…" if many else name
            words.append((known, name if _required(known) else f"[{name}]"))
    return words


def _setting_lines(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield a line per setting: key, type, value (references as they are written), unit, constraint and meaning."""
    kind = OmegaConf.get_type(config)
    known = {field.name: field for field in fields(kind)} if is_dataclass(kind) else {}
    values: Any = OmegaConf.to_container(config, resolve=False)
    for key in map(str, values):
        if key == "hydra":
            continue
        if isinstance(values[key], dict) and is_dataclass(OmegaConf.get_type(config, key)):
            yield from _setting_lines(config[key], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}: {_described(known.get(key), values[key])}".rstrip()


def _described(known: Field | None, value: Any) -> str:
    shown = "(must be given)" if value == "???" else value
    if known is None:
        return f"any = {shown}"
    kind = known.type
    name = kind.__name__ if isinstance(kind, type) and not get_args(kind) else re.sub(r"\b(?:\w+\.)+", "", str(kind))
    about = known.metadata
    unit = f" [{about['unit']}]" if about.get("unit") else ""
    limits = settings.constraint_text(known)
    limits = f" ({limits})" if limits else ""
    return f"{name} = {shown}{unit}{limits}  {about.get('help', '')}"
