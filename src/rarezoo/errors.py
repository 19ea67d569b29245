"""The five kinds of error a user can meet. Anything else that escapes is a bug in rarezoo."""

from collections.abc import Sequence

_IDS_SHOWN = 5


class RarezooError(Exception):
    """A user's mistake: what is wrong, the offending value, and what to do.

    Args:
        what: what is wrong, in one clause.
        value: the offending value, as the user would recognise it.
        fix: what to do about it, in the imperative.
        ids: galaxies concerned, if any; the message names the first few.
    """

    def __init__(self, what: str, *, value: object = None, fix: str, ids: Sequence[str] = ()) -> None:
        self.what, self.value, self.fix, self.ids = what, value, fix, tuple(ids)
        super().__init__(self._message())

    def _message(self) -> str:
        value = "" if self.value is None else f": {self.value}"
        shown = ", ".join(self.ids[:_IDS_SHOWN])
        more = f" and {len(self.ids) - _IDS_SHOWN} more" if len(self.ids) > _IDS_SHOWN else ""
        galaxies = f" [galaxies {shown}{more}]" if self.ids else ""
        return f"{self.what}{value}{galaxies}. {self.fix}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.value, self.fix, self.ids)


def _rebuild(kind: type[RarezooError], what: str, value: object, fix: str, ids: tuple[str, ...]) -> RarezooError:
    """The error again after pickling (multirun jobs raise theirs in another process)."""
    return kind(what, value=value, fix=fix, ids=ids)


class ConfigError(RarezooError):
    """A setting that does not exist, has the wrong type, or does not fit the others."""


class DataError(RarezooError):
    """A catalogue, vote table or image that cannot be used as it is."""


class CheckpointError(RarezooError):
    """A checkpoint folder that is missing, corrupted, or made for something else."""


class StoreError(RarezooError):
    """An embedding store or table that is missing, corrupted, or belongs to something else."""


class OutputError(RarezooError):
    """An output folder that cannot be written, is full, or holds another run."""
