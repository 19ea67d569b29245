"""Galaxy Zoo question trees: which questions, which answers, and which answer leads to which question.

The published trees are read from zoobot and galaxy-datasets, never retyped. Their answer labels are kept letter for
letter: trees of one campaign carry its suffix (``smooth-or-featured-gz2_smooth``), ``desi``, ``cosmic_dawn`` and
``euclid`` do not, as in the tables their projects publish.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Bool, Float, Float32

from rarezoo.errors import ConfigError

# Our name → zoobot.shared.schemas' name.
_PUBLISHED = {
    "gz2": "gz2_ortho_schema",
    "decals_dr12": "decals_dr12_ortho_schema",
    "decals_dr5": "decals_dr5_ortho_schema",
    "decals_dr8": "decals_dr8_ortho_schema",
    "desi": "desi_schema",
    "hubble": "gz_hubble_ortho_schema",
    "candels": "gz_candels_ortho_schema",
    "cosmic_dawn": "cosmic_dawn_schema",
    "euclid": "euclid_schema",
    "jwst": "gz_jwst_schema",
}


@dataclass(frozen=True)
class Question:
    """A question, the full labels of its answers, and the answer that leads to it (None: asked of every galaxy)."""

    name: str
    answers: tuple[str, ...]
    asked_after: str | None = None


@dataclass(frozen=True)
class QuestionTree:
    """Questions in order; a vote array's last axis runs over ``answers``."""

    name: str
    questions: tuple[Question, ...]

    def __post_init__(self) -> None:
        _refuse_broken_tree(self)

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """Every answer's label, question by question."""
        return tuple(answer for question in self.questions for answer in question.answers)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where each question's answers lie in ``answers``."""
        ends = np.cumsum([len(question.answers) for question in self.questions]).tolist()
        return tuple(slice(end - len(one.answers), end) for one, end in zip(self.questions, ends, strict=True))

    def question_of(self, answer: str) -> Question:
        """The question that an answer belongs to."""
        return next(question for question in self.questions if answer in question.answers)

    def totals(self, votes: Float[np.ndarray, "galaxies answers"]) -> Float[np.ndarray, "galaxies questions"]:
        """Votes per question."""
        return np.stack([votes[:, part].sum(axis=1) for part in self.slices], axis=1)

    def asked(self, votes: Float[np.ndarray, "galaxies answers"]) -> Bool[np.ndarray, "galaxies questions"]:
        """Whether each question got any vote."""
        return self.totals(votes) > 0

    def fractions(self, votes: Float[np.ndarray, "galaxies answers"]) -> Float32[np.ndarray, "galaxies answers"]:
        """Share of each answer among its own question's votes (conditional); NaN where nobody was asked."""
        widths = [len(question.answers) for question in self.questions]
        totals = np.repeat(self.totals(votes), widths, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(totals > 0, votes / totals, np.nan).astype(np.float32)

    def joint_fractions(
        self, fractions: Float[np.ndarray, "galaxies answers"]
    ) -> Float[np.ndarray, "galaxies answers"]:
        """Conditional fractions multiplied down the tree: the share of all volunteers who gave each answer."""
        joint = np.array(fractions, copy=True)
        done: set[str] = set()
        while len(done) < len(self.questions):
            for question, part in zip(self.questions, self.slices, strict=True):
                above = question.asked_after
                if question.name in done or (above and self.question_of(above).name not in done):
                    continue
                if above:
                    joint[:, part] *= joint[:, [self.answers.index(above)]]
                done.add(question.name)
        return joint

    def without(self, questions: Sequence[str]) -> "QuestionTree":
        """The tree less some questions; a question that only they led to is then asked of every galaxy.

        Raises:
            ConfigError: a name is no question of the tree.
        """
        names = [question.name for question in self.questions]
        unknown = sorted(set(questions) - set(names))
        if unknown:
            raise ConfigError(f"tree {self.name} has no question", value=unknown, fix=f"Choose among {names}.")
        kept = [question for question in self.questions if question.name not in questions]
        labels = {answer for question in kept for answer in question.answers}
        return QuestionTree(self.name, tuple(_rooted(question, labels) for question in kept))

    def to_dict(self) -> dict[str, Any]:
        """The tree as JSON knows it; the format of own trees in YAML too."""
        return {
            "name": self.name,
            "questions": [
                {"name": one.name, "answers": list(one.answers), "asked_after": one.asked_after}
                for one in self.questions
            ],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "QuestionTree":
        """The tree from :meth:`to_dict`.

        Raises:
            ConfigError: a key is missing, an answer is doubled, or a question hangs on an answer that is not there.
        """
        try:
            questions = tuple(
                Question(str(one["name"]), tuple(map(str, one["answers"])), one.get("asked_after"))
                for one in content["questions"]
            )
            return cls(str(content["name"]), questions)
        except (KeyError, TypeError, AttributeError) as problem:
            raise ConfigError(
                "a question tree is `name:` and a list `questions:` of name, answers and (optional) asked_after",
                value=problem, fix="Mend the file; docs/reference/question-trees.md has an example.",
            ) from problem  # fmt: skip


def tree_names() -> tuple[str, ...]:
    """Names of the published trees."""
    return tuple(_PUBLISHED)


def campaigns() -> tuple[str, ...]:
    """Suffixes that published trees put behind their questions: ``gz2`` of ``smooth-or-featured-gz2``."""
    endings = [{one.name.rpartition("-")[2] for one in named_tree(name).questions} for name in _PUBLISHED]
    return tuple(sorted({ending for (ending, *others) in endings if not others}))


def named_tree(name: str) -> QuestionTree:
    """A published tree by its name, or an own tree from a YAML file.

    Raises:
        ConfigError: no such name or file, or the file holds no tree.
    """
    if name in _PUBLISHED:
        return _published_tree(name)
    path = Path(name)
    if not path.is_file():
        raise ConfigError(
            "no such question tree", value=name, fix=f"Give a YAML file or one of: {', '.join(_PUBLISHED)}."
        )
    try:
        return QuestionTree.from_dict(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as problem:
        raise ConfigError(f"{path} is not YAML", value=problem, fix="Mend the file.") from problem


def _published_tree(name: str) -> QuestionTree:
    from zoobot.shared import schemas

    schema = getattr(schemas, _PUBLISHED[name])
    return QuestionTree(
        name,
        tuple(
            Question(
                one.text,
                tuple(answer.text for answer in one.answers),
                one.asked_after.text if one.asked_after else None,
            )
            for one in schema.questions
        ),
    )


def _rooted(question: Question, labels: set[str]) -> Question:
    above = question.asked_after if question.asked_after in labels else None
    return Question(question.name, question.answers, above)


def _refuse_broken_tree(tree: QuestionTree) -> None:
    labels = [answer for question in tree.questions for answer in question.answers]
    if not labels:
        raise ConfigError("the question tree has no answers", value=tree.name, fix="Give it at least one question.")
    doubled = sorted({label for label in labels if labels.count(label) > 1})
    if doubled:
        raise ConfigError(f"tree {tree.name}: doubled answers", value=doubled, fix="Give each answer its own label.")
    home = {answer: question.name for question in tree.questions for answer in question.answers}
    above = {question.name: question.asked_after for question in tree.questions}
    lost = sorted(str(one) for one in above.values() if one and one not in home)
    if lost:
        raise ConfigError(f"tree {tree.name}: asked after an answer that is not there", value=lost, fix="Mend it.")
    for start in above:
        seen, at = set(), start
        while (parent := above[at]) is not None:
            at = home[parent]
            if at in seen:
                raise ConfigError(f"tree {tree.name}: questions lead to each other", value=start, fix="Break the loop.")
            seen.add(at)
