"""The errors that a user can meet. Any other exception that leaves rarezoo is a bug in rarezoo.

Each error class also derives from the built-in exception that fits it, so that code which knows nothing of rarezoo can
catch it: ``except FileNotFoundError`` works for a missing store, ``except ValueError`` for a wrong setting.
"""

from collections.abc import Sequence

from rarezoo.escapes import visible, without_passwords

_IDS_SHOWN = 5


class RarezooError(Exception):
    """A mistake of the user: what is wrong, the offending value, and what to do about it.

    Parameters
    ----------
    what
        What is wrong, in one clause.
    value
        The offending value, as the user would recognise it.
    fix
        What to do about it, in the imperative.
    ids
        Ids of the galaxies concerned, if any. The message names the first five.

    Examples
    --------
    >>> raise ConfigError("clusterer.min_samples must be at least 1", value=0, fix="Choose 1 or more.")
    Traceback (most recent call last):
    rarezoo.errors.ConfigError: clusterer.min_samples must be at least 1: 0. Choose 1 or more.
    """

    def __init__(self, what: str, *, value: object = None, fix: str, ids: Sequence[str] = ()) -> None:
        self.what, self.value, self.fix, self.ids = what, value, fix, tuple(ids)
        super().__init__(self._message())

    def _message(self) -> str:
        value = "" if self.value is None else f": {self.value}"
        shown = ", ".join(self.ids[:_IDS_SHOWN])
        more = f" and {len(self.ids) - _IDS_SHOWN} more" if len(self.ids) > _IDS_SHOWN else ""
        galaxies = f" [galaxies {shown}{more}]" if self.ids else ""
        # Messages of other packages have several lines.
        what, fix = (" ".join(text.splitlines()) for text in (self.what, self.fix))
        return visible(without_passwords(f"{what}{value}{galaxies}. {fix}"))

    def __str__(self) -> str:
        return self._message()

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.value, self.fix, self.ids)


def _rebuild(kind: type[RarezooError], what: str, value: object, fix: str, ids: tuple[str, ...]) -> RarezooError:
    """Make the error again after pickling, because jobs of a multirun raise theirs in another process."""
    return kind(what, value=value, fix=fix, ids=ids)


class ConfigError(RarezooError, ValueError):
    """A setting does not exist, has the wrong type, or does not fit the other settings."""


class DataError(RarezooError, ValueError):
    """A catalogue, a table of votes or an image cannot be used as it is."""


class DataNotFound(DataError, FileNotFoundError):
    """A catalogue, a table of votes or a folder of images does not exist."""


class CheckpointError(RarezooError, ValueError):
    """A checkpoint folder is corrupted, or was made for something else."""


class CheckpointNotFound(CheckpointError, FileNotFoundError):
    """No checkpoint has this name, or the folder holds none."""


class StoreError(RarezooError, ValueError):
    """An embedding store, a search or a table is corrupted, or belongs to something else."""


class StoreNotFound(StoreError, FileNotFoundError):
    """The folder holds no embedding store, no finished search, or not the table that is needed."""


class OutputError(RarezooError, OSError):
    """An output folder cannot be written, is full, or holds another run."""


class MissingDependency(RarezooError, ImportError):
    """An optional package is needed and not installed.

    Parameters
    ----------
    package
        Name of the package on PyPI.
    extra
        The extra of rarezoo that installs it.
    purpose
        What needs it, as the beginning of a sentence: "The mock sky".

    Examples
    --------
    >>> print(MissingDependency("galsim", extra="mock", purpose="The mock sky"))
    The mock sky needs a package that is not installed: galsim. Install it with: pip install "rarezoo[mock]"
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        self.package, self.extra, self.purpose = package, extra, purpose
        super().__init__(
            f"{purpose} needs a package that is not installed",
            value=package,
            fix=f'Install it with: pip install "rarezoo[{extra}]"',
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _missing, (self.package, self.extra, self.purpose)


def _missing(package: str, extra: str, purpose: str) -> MissingDependency:
    return MissingDependency(package, extra=extra, purpose=purpose)
