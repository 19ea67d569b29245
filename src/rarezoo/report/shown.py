"""A class as the pages and the atlas show it."""

from dataclasses import dataclass

from rarezoo.report.answers import Question
from rarezoo.report.gallery import Gallery
from rarezoo.report.hierarchy import Group
from rarezoo.report.truth import Share


@dataclass(frozen=True)
class ShownClass:
    """A class as the pages show it.

    Attributes:
        id: number of the class.
        name: given by hand; empty for none.
        node: of the tree; None for classes merged by hand.
        size: members.
        share: of the galaxies searched, 0–1.
        birth, death: λ = 1 / map distance at which it appears and is gone.
        persistence, significance, p_value, false_discovery, isolation, stability: see CLASSES; None if not measured.
        answers: what the network says of it, the most telling first.
        warnings: flags.
        beyond: share of its separation that the predicted answers leave, 0–1; None if not measured.
        beyond_reason: the same in words: verdict, interval, what was measured.
        cause: ``clean``, ``systematics``, ``artifact`` or ``shredded``; None if nothing could be tested.
        cause_reason: what decided it.
        relatives: ids of the classes nearest in the tree.
        group: the smallest that it shares with another class; None if it belongs to none.
        galleries: exemplars, random draw, outskirts, nearest galaxies outside.
        questions: predicted answers against the whole sample.
        populations: what it is made of (mock surveys; else empty).
    """

    id: int
    name: str
    node: int | None
    size: int
    share: float
    birth: float | None
    death: float | None
    persistence: float | None
    significance: float | None
    p_value: float | None
    false_discovery: float | None
    isolation: float | None
    stability: float | None
    answers: tuple[str, ...]
    warnings: tuple[str, ...]
    beyond: float | None
    beyond_reason: str
    cause: str | None
    cause_reason: str
    relatives: tuple[int, ...]
    group: Group | None
    galleries: tuple[Gallery, ...]
    questions: tuple[Question, ...]
    populations: tuple[Share, ...]


def file_name(class_id: int) -> str:
    """Name of a class's files, without ending."""
    return f"class-{class_id:03d}"
