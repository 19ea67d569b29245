"""Settings: dataclasses whose fields say what they mean, what they may be, and which choice of a command they are.

One dataclass in one file is one choice on the command line::

    @option("clusterer", "hdbscan")
    @dataclass
    class Hdbscan(Clusterer):
        min_samples: int = setting(300, "neighbours that define a density", unit="galaxies", ge=1)

makes ``clusterer=hdbscan`` known to every command, to ``--help`` and to the conformance tests. Another package adds a
choice of its own by an entry point in one of the groups that :data:`ENTRY_POINTS` lists.
"""

import copy
import difflib
import importlib
import importlib.metadata
import logging
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from rarezoo.errors import ConfigError

log = logging.getLogger(__name__)
T = TypeVar("T")

_OPTIONS: dict[str, dict[str, type]] = {}
# Packages of rarezoo in which a new file is a new option.
_PACKAGES = {
    "data": "rarezoo.data.surveys",
    "model": "rarezoo.zoo.encoders",
    "compress": "rarezoo.searches.compressors",
    "clusterer": "rarezoo.searches.clusterers",
    "objective": "rarezoo.training.objectives",
    "ranker": "rarezoo.explore.rankers",
    "acquisition": "rarezoo.explore.acquisitions",
    "features": "rarezoo.searches.features",
    "engine": "rarezoo.engines",
}
# Entry-point groups through which other packages add options: group on the command line → group of entry points.
ENTRY_POINTS = {
    "data": "rarezoo.surveys",
    "model": "rarezoo.models",
    "compress": "rarezoo.compressors",
    "clusterer": "rarezoo.clusterers",
    "objective": "rarezoo.objectives",
    "scorer": "rarezoo.scorers",
    "ranker": "rarezoo.rankers",
    "acquisition": "rarezoo.acquisitions",
    "text_encoder": "rarezoo.text_encoders",
    "features": "rarezoo.features",
    "engine": "rarezoo.engines",
}
_BOUNDS = {
    "ge": ("at least", lambda value, bound: value >= bound),
    "gt": ("more than", lambda value, bound: value > bound),
    "le": ("at most", lambda value, bound: value <= bound),
    "lt": ("less than", lambda value, bound: value < bound),
}


class Settings:
    """Base of every settings dataclass and every job: a wrong value raises when the object is made.

    Subclasses are dataclasses. They declare constraints on single fields with :func:`setting`, and override
    :meth:`check` for rules that involve several fields.

    Attributes
    ----------
    prefix
        What comes before a field's name in messages, such as ``train`` for ``train.epochs``. The group of a registered
        option is used when it is empty.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(kw_only=True)
    ... class Smoothing(Settings):
    ...     width: float = setting(1.0, "width of the kernel", unit="px", gt=0)
    >>> Smoothing(width=0)
    Traceback (most recent call last):
    rarezoo.errors.ConfigError: width must be more than 0: 0. Choose a value that is more than 0 (unit: px).
    """

    prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Check every declared constraint, then the rules across fields; ``~/`` in texts is the home folder."""
        for known in fields(self):  # type: ignore[arg-type]
            value = getattr(self, known.name)
            if isinstance(value, str):
                setattr(self, known.name, home_path(value))
            elif isinstance(value, list):
                setattr(self, known.name, [home_path(item) if isinstance(item, str) else item for item in value])
            _check_field(known, getattr(self, known.name), key=f"{_prefix_of(type(self))}{known.name}")
        self.check()

    def check(self) -> None:
        """Raise :class:`~rarezoo.errors.ConfigError` if settings do not fit each other; nothing by default."""


def setting(
    default: Any = MISSING,
    help: str = "",
    *,
    unit: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: Sequence[str] | None = None,
    positional: bool = False,
) -> Any:
    """Declare a dataclass field with its meaning, unit and constraints; ``--help`` shows them.

    Parameters
    ----------
    default
        Default value. Lists, dicts and settings dataclasses may be given as they are: each instance gets its own copy.
        A dataclass type stands for its defaults. Without a default the setting must be given.
    help
        Meaning, as a noun phrase in plain English.
    unit
        Unit of the value, such as ``galaxies`` or ``arcsec``.
    ge, gt, le, lt
        Bounds: greater or equal, greater, less or equal, less. In a list they hold for each element. None is not
        compared.
    choices
        The texts that are allowed.
    positional
        On the command line the value is given without its name: ``rarezoo compare A B``.
    """
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    metadata = {
        "help": help,
        "unit": unit,
        "bounds": {name: bound for name, bound in bounds.items() if bound is not None},
        "choices": tuple(choices) if choices is not None else None,
        "positional": positional,
    }
    if default is MISSING:
        return field(metadata=metadata)
    if isinstance(default, type) and is_dataclass(default):
        return field(default_factory=default, metadata=metadata)
    if isinstance(default, (list, dict)) or is_dataclass(default):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def home_path(text: str) -> str:
    """Return a path that begins with ``~/`` in the home folder, as a shell does for a word of its own.

    A folder whose name is ``~`` comes first, if it holds the path.
    """
    return text if not text.startswith("~/") or Path(text).exists() else str(Path(text).expanduser())


def constraint_text(known: Field) -> str:
    """Describe what a field may be, such as ``at least 1, at most 10`` or ``stop or skip``; empty if anything."""
    parts = [f"{_BOUNDS[name][0]} {bound}" for name, bound in known.metadata.get("bounds", {}).items()]
    if known.metadata.get("choices"):
        parts.append(" or ".join(choice or repr(choice) for choice in known.metadata["choices"]))
    return ", ".join(parts)


def _check_field(known: Field, value: Any, *, key: str) -> None:
    # An empty path would be the working folder.
    needed = known.default is MISSING and known.default_factory is MISSING
    if isinstance(value, str) and not value and (needed or (known.name == "out" and known.default)):
        raise ConfigError(f"{key} is empty", value=f"{key}=", fix=f"Give the {known.metadata.get('help', 'value')}.")
    bounds, choices = known.metadata.get("bounds"), known.metadata.get("choices")
    if value is None or not (bounds or choices):
        return
    unit = f" (unit: {known.metadata['unit']})" if known.metadata.get("unit") else ""
    for item in value if isinstance(value, (list, tuple)) else [value]:
        for name, bound in (bounds or {}).items():
            words, holds = _BOUNDS[name]
            try:
                good = bool(holds(item, bound))
            except TypeError:
                good = False
            if not good:
                raise ConfigError(
                    f"{key} must be {words} {bound}",
                    value=item,
                    fix=f"Choose a value that is {constraint_text(known)}{unit}.",
                )
        if choices is not None and item not in choices:
            raise ConfigError(f"{key} has no such choice", value=item, fix=f"Choose {constraint_text(known)}.")


def _prefix_of(kind: type) -> str:
    prefix = getattr(kind, "prefix", "") or next(
        (group for group, known in _OPTIONS.items() if kind in known.values()), ""
    )
    return f"{prefix}." if prefix else ""


def refuse_unknown(
    names: Iterable[str], known: Iterable[str], *, of: str, parts: Mapping[str, Any] | None = None
) -> None:
    """Raise ConfigError for a setting that does not exist; the message names those that are spelled alike.

    Parameters
    ----------
    names
        Settings that a user gave.
    known
        Settings that exist.
    of
        Whose settings they are, for the message: ``a search``.
    parts
        Settings objects by the name of the argument that takes them. If one of them has the setting, the message says
        where to give it.
    """
    known = list(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            for argument, part in (parts or {}).items():
                if name in {field.name for field in fields(part)}:
                    fix = f"It belongs to {argument}: write {argument}={type(part).__name__}({name}=…)."
                    raise ConfigError(f"there is no such setting of {of}", value=name, fix=fix)
            fix = f"Did you mean {' or '.join(near)}?" if near else f"Choose from: {', '.join(known)}."
            raise ConfigError(f"there is no such setting of {of}", value=name, fix=fix)


def conf_dir() -> Path:
    """Return the folder of YAML presets: inside the installed package, or beside ``src/`` in a checkout."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "conf"


def option(group: str, name: str) -> Callable[[type[T]], type[T]]:
    """Register a dataclass as the choice ``group=name``.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @option("example", "mean")
    ... @dataclass
    ... class Mean:
    ...     weight: float = setting(1.0, "weight of the mean")
    >>> choice("example", "mean")().weight
    1.0
    """

    def register(kind: type[T]) -> type[T]:
        if not is_dataclass(kind):
            raise TypeError(f"@option goes above @dataclass: {kind.__name__} is not a dataclass")
        _OPTIONS.setdefault(group, {})[name] = kind
        return kind

    return register


# Looking through all installed packages takes 50 ms, and a command asks for choices twenty times.
_installed_entry_points = cache(importlib.metadata.entry_points)


def entry_points(group: str) -> importlib.metadata.EntryPoints:
    """Return the entry points of a group of all packages that were installed when the process first asked."""
    return _installed_entry_points().select(group=group)


def load_options(group: str) -> None:
    """Import every module that may hold an option of a group: rarezoo's own and those of other packages.

    A plug-in that cannot be imported is reported in the log and left out, so that it does not stop other commands.
    """
    if group in _PACKAGES:
        package = importlib.import_module(_PACKAGES[group])
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for plugin in entry_points(group=ENTRY_POINTS.get(group, f"rarezoo.{group}s")):
        if plugin.name in _OPTIONS.get(group, {}):
            continue
        try:
            kind = plugin.load()
        except Exception as problem:
            log.warning("the plug-in %s (%s) cannot be loaded and is left out: %s", plugin.name, plugin.value, problem)
            continue
        if isinstance(kind, type) and is_dataclass(kind) and kind not in _OPTIONS.get(group, {}).values():
            option(group, plugin.name)(kind)


def options(group: str) -> dict[str, type]:
    """Return the dataclass of every choice in a group by name, sorted by name."""
    load_options(group)
    return dict(sorted(_OPTIONS.get(group, {}).items()))


def choice(group: str, name: str) -> type[Any]:
    """Return the dataclass that is registered as ``group=name``.

    Raises
    ------
    ConfigError
        There is no such choice.
    """
    known = options(group)
    if name not in known:
        raise ConfigError(f"unknown {group}", value=name, fix=f"Choose one of: {', '.join(known)}.")
    return known[name]


def name_of(kind: type) -> str:
    """Return the name under which a dataclass was registered, here or as the entry point of another package."""
    for known in _OPTIONS.values():
        for name, registered in known.items():
            if registered is kind:
                return name
    for group, entry_point_group in ENTRY_POINTS.items():
        for plugin in entry_points(group=entry_point_group):
            if plugin.value == f"{kind.__module__}:{kind.__qualname__}":
                option(group, plugin.name)(kind)
                return plugin.name
    raise TypeError(f"{kind.__name__} is not a registered option")


def described(chosen: Any) -> dict[str, Any]:
    """Return a chosen option as a dictionary: ``option`` (its name) and its settings.

    >>> from dataclasses import dataclass
    >>> @option("example", "median")
    ... @dataclass
    ... class Median:
    ...     window: int = 3
    >>> described(Median())
    {'option': 'median', 'window': 3}
    """
    return {"option": name_of(type(chosen)), **asdict(chosen)}
