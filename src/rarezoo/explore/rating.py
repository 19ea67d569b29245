"""A rating: what one person said about one galaxy, and what makes it valid."""

import math
import unicodedata
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from numbers import Integral, Real

import numpy as np

from rarezoo import tables
from rarezoo.errors import ConfigError
from rarezoo.escapes import visible

GRADE, ANSWER, TAG, ARTIFACT = KINDS = ("grade", "answer", "tag", "artifact")
# What is judged if no other label is named.
INTERESTING = "interesting"
BEST_GRADE = 5
# Why an entry that takes back another one was made, and one that was imported without a reason.
UNDO, IMPORT = "undo", "import"
_VALUES = {
    GRADE: "0 to 5",
    ANSWER: "1 (yes), 0 (no) or none (unsure)",
    TAG: "1, or 0 (removed)",
    ARTIFACT: "1, or 0 (removed)",
}
_MEANING = {tables.LABEL: "label", tables.BY: "name of a person"}
_LONGEST_ID, _LONGEST_NAME, _MOST_ROUNDS = 1000, 100, 2**31
# Clocks differ; a rating that is later than this is a mistake, such as a local time that is taken for UTC.
_FUTURE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Rating:
    """What one person said about one galaxy.

    Attributes
    ----------
    id_str
        Id of the galaxy.
    label
        What is judged: ``interesting``, a tag such as ``ring``, or ``artifact``.
    value
        For the kind ``grade`` 0 to 5; for ``answer`` 1 (yes), 0 (no) or None (unsure); for ``tag`` and ``artifact`` 1,
        or 0 (removed). None for an entry that takes back another one.
    kind
        ``grade``, ``answer``, ``tag`` or ``artifact``. The label ``artifact`` has the kind ``artifact``, and no other
        label has.
    by
        The person.
    at
        When, in UTC; None: when it is saved.
    why
        Why the galaxy was shown: ``model``, ``explore``, ``random``, ``start``, ``example``, ``similar``, ``class``,
        ``again``, ``import``, or any other word.
    round
        Round of the model when it was shown; 0 before the first.
    seconds
        How long the person looked; None if it is not known.
    entry
        Number of the entry in the log, from 1; None until it is saved.
    undoes
        The entry that this entry takes back; None for a rating.

    Examples
    --------
    >>> Rating("J1", "ring", 4, "grade", "ann").interest
    0.8
    """

    id_str: str
    label: str
    value: float | None
    kind: str
    by: str
    at: datetime | None = None
    why: str = ""
    round: int = 0
    seconds: float | None = None
    entry: int | None = None
    undoes: int | None = None

    @property
    def interest(self) -> float | None:
        """The value as a number from 0 to 1; None if the person was unsure."""
        return self.value / BEST_GRADE if self.kind == GRADE and self.value is not None else self.value

    @property
    def order(self) -> tuple[datetime, int]:
        """Sort key of saved ratings: the newest is the last. What is imported later may be older."""
        assert self.at is not None
        assert self.entry is not None
        return self.at, self.entry


FIELDS = tuple(known.name for known in fields(Rating))


def checked(rating: Rating) -> Rating:
    """Return a rating as it is saved: names without white space around them, numbers and times in one form.

    Raises
    ------
    ConfigError
        A value is out of range, or a text is empty, too long, or holds characters that cannot be shown.

    Examples
    --------
    >>> checked(Rating("J1", " ring ", 1, "tag", "ann")).label
    'ring'
    >>> checked(Rating("J1", "ring", 7, "grade", "ann"))
    Traceback (most recent call last):
    rarezoo.errors.ConfigError: the grade of J1 is out of range: 7. Choose 0 to 5.
    """
    if rating.kind not in KINDS:
        raise ConfigError("no such kind of rating", value=rating.kind, fix=f"Choose one of: {', '.join(KINDS)}.")
    label = checked_name(tables.LABEL, rating.label)
    if (rating.kind == ARTIFACT) != (label == ARTIFACT):
        raise ConfigError(
            f"the label {ARTIFACT} and the kind {ARTIFACT} belong together",
            value=f"label {label}, kind {rating.kind}",
            fix="Choose another label, or make both artifact.",
        )
    if not isinstance(rating.round, Integral) or not 0 <= rating.round < _MOST_ROUNDS:
        raise ConfigError("the round of a rating is not valid", value=rating.round, fix="Choose 0 or more.")
    return replace(
        rating,
        id_str=_id(rating.id_str),
        label=label,
        value=_value(rating),
        by=checked_name(tables.BY, rating.by),
        at=_time(rating.at),
        why=_why(rating.why),
        round=int(rating.round),
        seconds=_seconds(rating.seconds),
    )


def checked_name(field: str, text: str) -> str:
    """Return a label (field ``label``) or the name of a person (field ``by``), without the white space around it.

    Raises
    ------
    ConfigError
        It is empty, too long, or holds characters that cannot be shown.
    """
    meaning = _MEANING[field]
    name = unicodedata.normalize("NFC", text.strip()) if isinstance(text, str) else ""
    if not name:
        raise ConfigError(f"a rating needs the {meaning}", value=f"{field}={text!r}", fix="Give one.")
    if len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"the {meaning} has {len(name):,} characters", value=f"{name[:40]}…",
            fix=f"Use {_LONGEST_NAME} characters at most.",
        )  # fmt: skip
    if visible(name) != name:
        raise ConfigError(f"the {meaning} holds characters that cannot be shown", value=name, fix="Leave them out.")
    return name


def _id(text: str) -> str:
    """Return an id. A survey may use any characters; only what no database can hold is refused."""
    good = isinstance(text, str) and bool(text.strip()) and len(text) <= _LONGEST_ID
    if not good or "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ConfigError("no id of a galaxy", value=repr(text)[:80], fix="Give the id as the survey has it.")
    return str(text)


def _value(rating: Rating) -> float | None:
    value = rating.value
    if value is None and (rating.kind == ANSWER or rating.undoes is not None):
        return None
    number = float(value) if isinstance(value, (Real, np.bool_)) else math.nan
    if not (0 <= number <= BEST_GRADE if rating.kind == GRADE else number in (0, 1)):
        raise ConfigError(
            f"the {rating.kind} of {rating.id_str} is out of range", value="none" if value is None else value,
            fix=f"Choose {_VALUES[rating.kind]}.",
        )  # fmt: skip
    return number


def _time(at: datetime | None) -> datetime | None:
    """Return a time in UTC; one without a time zone is in UTC already."""
    if at is None:
        return None
    try:
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (OverflowError, ValueError):
        at = datetime.min.replace(tzinfo=UTC)
    if not datetime(1970, 1, 1, tzinfo=UTC) <= at <= datetime.now(UTC) + _FUTURE:
        raise ConfigError(
            "the time of a rating is in the future, or before 1970", value=at.isoformat(),
            fix="Give it in UTC, or with its time zone.",
        )  # fmt: skip
    # A time of pandas has nanoseconds, which no database keeps.
    return datetime.combine(at.date(), at.timetz())


def _why(text: str) -> str:
    if not isinstance(text, str) or len(text) > _LONGEST_NAME or visible(text) != text:
        raise ConfigError(
            "the reason why a galaxy was shown is too long, or cannot be shown", value=repr(text)[:80],
            fix="Use one word.",
        )  # fmt: skip
    return text


def _seconds(seconds: float | None) -> float | None:
    if seconds is None:
        return None
    if not isinstance(seconds, Real) or not math.isfinite(seconds) or seconds < 0:
        raise ConfigError(
            "the seconds of a rating are not valid", value=seconds, fix="Choose 0 or more, or leave them out."
        )
    return float(seconds)
