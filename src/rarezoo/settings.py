"""One dataclass in one file is one choice on the command line.

    @option("clusterer", "hdbscan")
    @dataclass
    class Hdbscan(Clusterer): ...

makes ``clusterer=hdbscan`` known to every command, to ``--help`` and to the conformance tests.
"""

import copy
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import field, is_dataclass
from typing import Any, TypeVar

from rarezoo.errors import ConfigError

T = TypeVar("T")

_OPTIONS: dict[str, dict[str, type]] = {}
# Packages in which a new file is a new option.
_PACKAGES = {
    "data": "rarezoo.data.surveys",
    "model": "rarezoo.zoo.encoders",
    "compress": "rarezoo.searches.compressors",
    "clusterer": "rarezoo.searches.clusterers",
}


def option(group: str, name: str) -> Callable[[type[T]], type[T]]:
    """Register a dataclass as the choice ``group=name``."""

    def register(kind: type[T]) -> type[T]:
        if not is_dataclass(kind):
            raise TypeError(f"@option goes above @dataclass: {kind.__name__} is not a dataclass")
        _OPTIONS.setdefault(group, {})[name] = kind
        return kind

    return register


def load_options(group: str) -> None:
    """Import every file that may hold an option of a group; idempotent."""
    package = importlib.import_module(_PACKAGES[group])
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def options(group: str) -> dict[str, type]:
    """Name → dataclass of every choice in a group, sorted by name."""
    if group in _PACKAGES:
        load_options(group)
    return dict(sorted(_OPTIONS.get(group, {}).items()))


def choice(group: str, name: str) -> type[Any]:
    """The dataclass registered as ``group=name``.

    Raises:
        ConfigError: no such choice.
    """
    known = options(group)
    if name not in known:
        raise ConfigError(f"unknown {group}", value=name, fix=f"Choose one of: {', '.join(known)}.")
    return known[name]


def name_of(kind: type) -> str:
    """The name under which a dataclass was registered."""
    names = [name for group in _OPTIONS.values() for name, known in group.items() if known is kind]
    if not names:
        raise TypeError(f"{kind.__name__} is not a registered option")
    return names[0]


def setting(default: Any, about: str, *, unit: str = "") -> Any:
    """A dataclass field whose meaning and unit ``--help`` shows.

    Lists and dicts may be given as they are; each instance gets its own copy.
    """
    metadata = {"about": about, "unit": unit}
    if isinstance(default, (list, dict)) or is_dataclass(default):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)
