"""Galaxy Zoo question trees: the questions, their answers, and the answer that leads to each question.

The published trees are read from zoobot and galaxy-datasets, never copied by hand. Their answer labels are kept
exactly: the trees of one campaign carry its suffix (``smooth-or-featured-gz2_smooth``); ``desi``, ``cosmic_dawn`` and
``euclid`` have none, as in the tables that their projects publish.
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
from rarezoo.settings import refuse_unknown

# Our name → the name in zoobot.shared.schemas. zoobot 2.0.1 has all of them but decals_dr12.
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
# Keys of a question, and how YAML writes that it has no value.
_KEYS = ("name", "answers", "asked_after")
_NO_ANSWER = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Question:
    """A question of a tree.

    Attributes
    ----------
    name
        Name of the question.
    answers
        Full labels of its answers.
    asked_after
        Label of the answer that leads to it; None if every galaxy is asked.
    """

    name: str
    answers: tuple[str, ...]
    asked_after: str | None = None


@dataclass(frozen=True)
class QuestionTree:
    """Questions in order; the last axis of a vote array runs over ``answers``.

    Raises
    ------
    ConfigError
        A question has no answers, a question or an answer is doubled, one is asked after an answer that does not
        exist, or questions lead to each other.

    Examples
    --------
    >>> tree = QuestionTree("small", (
    ...     Question("shape", ("shape_smooth", "shape_disk")),
    ...     Question("bar", ("bar_yes", "bar_no"), asked_after="shape_disk"),
    ... ))
    >>> tree.fractions(np.array([[5.0, 15.0, 3.0, 12.0]]))
    array([[0.25, 0.75, 0.2 , 0.8 ]], dtype=float32)
    """

    name: str
    questions: tuple[Question, ...]

    def __post_init__(self) -> None:
        if not self.answers:
            raise ConfigError("the question tree has no answers", value=self.name, fix="Give it at least one question.")
        names = [question.name for question in self.questions]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ConfigError(
                f"tree {self.name}: doubled questions", value=repeated, fix="Give each question a name of its own."
            )
        empty = [question.name for question in self.questions if not question.answers]
        if empty:
            raise ConfigError(
                f"tree {self.name}: questions without answers", value=empty, fix="Give them answers, or remove them."
            )
        doubled = sorted({label for label in self.answers if self.answers.count(label) > 1})
        if doubled:
            raise ConfigError(
                f"tree {self.name}: doubled answers", value=doubled, fix="Give each answer a label of its own."
            )
        asked_by = {answer: question.name for question in self.questions for answer in question.answers}
        asked_after = {question.name: question.asked_after for question in self.questions}
        lost = sorted(answer for answer in asked_after.values() if answer and answer not in asked_by)
        if lost:
            raise ConfigError(
                f"tree {self.name}: asked after an answer that is not there", value=lost, fix="Correct its label."
            )
        for start in asked_after:
            visited, question = set[str](), start
            while (parent := asked_after[question]) is not None:
                question = asked_by[parent]
                if question in visited:
                    raise ConfigError(
                        f"tree {self.name}: questions lead to each other", value=start, fix="Break the loop."
                    )
                visited.add(question)

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """Labels of all answers, question by question."""
        return tuple(answer for question in self.questions for answer in question.answers)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where the answers of each question are in ``answers``."""
        widths = [len(question.answers) for question in self.questions]
        ends = np.cumsum(widths).tolist()
        return tuple(slice(end - width, end) for width, end in zip(widths, ends, strict=True))

    def question_of(self, answer: str) -> Question:
        """Return the question that an answer belongs to."""
        return next(question for question in self.questions if answer in question.answers)

    def totals(self, votes: Float[np.ndarray, "galaxies answers"]) -> Float[np.ndarray, "galaxies questions"]:
        """Return the number of votes per question."""
        return np.stack([votes[:, part].sum(axis=1) for part in self.slices], axis=1)

    def asked(self, votes: Float[np.ndarray, "galaxies answers"]) -> Bool[np.ndarray, "galaxies questions"]:
        """Return whether each question got any vote."""
        return self.totals(votes) > 0

    def fractions(self, votes: Float[np.ndarray, "galaxies answers"]) -> Float32[np.ndarray, "galaxies answers"]:
        """Return the share of each answer among the votes on its question; NaN where the question was not asked."""
        widths = [len(question.answers) for question in self.questions]
        totals = np.repeat(self.totals(votes), widths, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(totals > 0, votes / totals, np.nan).astype(np.float32)

    def joint_fractions(
        self, fractions: Float[np.ndarray, "galaxies answers"]
    ) -> Float[np.ndarray, "galaxies answers"]:
        """Return conditional fractions multiplied down the tree: the share of all volunteers who gave each answer."""
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
        """Return the tree without some questions; a question that only they led to is then asked of every galaxy.

        Raises
        ------
        ConfigError
            A name is not a question of the tree.
        """
        names = [question.name for question in self.questions]
        unknown = sorted(set(questions) - set(names))
        if unknown:
            raise ConfigError(f"tree {self.name} has no question", value=unknown, fix=f"Choose among {names}.")
        kept = [question for question in self.questions if question.name not in questions]
        labels = {answer for question in kept for answer in question.answers}
        return QuestionTree(
            self.name,
            tuple(
                Question(
                    question.name, question.answers, question.asked_after if question.asked_after in labels else None
                )
                for question in kept
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the tree as JSON and YAML files hold it."""
        return {
            "name": self.name,
            "questions": [
                {"name": question.name, "answers": list(question.answers), "asked_after": question.asked_after}
                for question in self.questions
            ],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "QuestionTree":
        """Return the tree that :meth:`to_dict` described.

        Raises
        ------
        ConfigError
            A key is missing, or the tree is broken.
        """
        try:
            questions = []
            if not isinstance(content["questions"], (list, tuple)):
                raise TypeError("questions is not a list")
            for entry in content["questions"]:
                if not isinstance(entry, Mapping):
                    raise TypeError(f"the question {entry!r} has no name and answers")
                refuse_unknown(entry, _KEYS, of="a question")
                above, answers = entry.get("asked_after"), entry["answers"]
                if not isinstance(answers, (list, tuple)):
                    raise TypeError(f"answers of {entry['name']} are not a list")
                labels = tuple(_label(answer) for answer in answers)
                questions.append(Question(_label(entry["name"]), labels, None if above is None else _label(above)))
            return cls(_label(content["name"]), tuple(questions))
        except (KeyError, TypeError, AttributeError) as problem:
            raise ConfigError(
                "a question tree is `name:` and a list `questions:` of name, answers and (optional) asked_after",
                value=f"no key {problem}" if isinstance(problem, KeyError) else problem,
                fix="Correct the file; docs/reference/question-trees.md has an example.",
            ) from problem  # fmt: skip


def _label(value: object) -> str:
    """Return a name as text. True, 1.5 or a date stand for something else that was written."""
    if not isinstance(value, (str, int)) or isinstance(value, bool) or value == "":
        raise TypeError(f"{value!r} is no text")
    return str(value)


class _AsWritten(yaml.BaseLoader):
    """Loader of YAML that leaves every value as the text that was written: ``no`` is not False, ``1.10`` not 1.1."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping; a key that occurs twice is an error."""
        keys = [self.construct_object(key) for key, _ in node.value]
        doubled = [key for place, key in enumerate(keys) if key in keys[:place]]
        if doubled:
            raise yaml.constructor.ConstructorError(None, None, f"the key {doubled[0]} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _own_tree(path: Path) -> QuestionTree:
    """Return the tree of a YAML file."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_AsWritten)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, OSError) as problem:
        reason = " ".join(str(problem).split())[:200]
        fix = "Save it as UTF-8." if isinstance(problem, UnicodeDecodeError) else "Correct the file."
        raise ConfigError(f"{path} is not YAML", value=reason, fix=fix) from problem
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} holds no question tree", value="nothing" if content is None else f"a {type(content).__name__}",
            fix="Write `name:` and a list `questions:`; docs/reference/question-trees.md has an example.",
        )  # fmt: skip
    for question in content.get("questions", ()):
        if isinstance(question, dict) and question.get("asked_after") in _NO_ANSWER:
            del question["asked_after"]
    return QuestionTree.from_dict(content)


def tree_names() -> tuple[str, ...]:
    """Return the names of the published trees that the installed zoobot has."""
    schemas = _schemas()
    return tuple(name for name, schema in _PUBLISHED.items() if hasattr(schemas, schema))


def campaigns() -> tuple[str, ...]:
    """Return the suffixes that published trees put behind their questions: ``gz2`` of ``smooth-or-featured-gz2``."""
    endings = [{question.name.rpartition("-")[2] for question in named_tree(name).questions} for name in tree_names()]
    return tuple(sorted({ending for (ending, *others) in endings if not others}))


def named_tree(name: str) -> QuestionTree:
    """Return a published tree by its name, or the tree of a YAML file.

    Raises
    ------
    ConfigError
        There is no such name or file, the file holds no tree, or the installed zoobot lacks the tree.
    """
    if name in _PUBLISHED:
        schema = getattr(_schemas(), _PUBLISHED[name], None)
        if schema is None:
            raise ConfigError(
                "the installed zoobot lacks the question tree",
                value=name,
                fix="Install a newer one: pip install -U zoobot.",
            )
        return QuestionTree(
            name,
            tuple(
                Question(
                    question.text,
                    tuple(answer.text for answer in question.answers),
                    question.asked_after.text if question.asked_after else None,
                )
                for question in schema.questions
            ),
        )
    path = Path(name)
    if not path.is_file():
        raise ConfigError(
            "no such question tree", value=name, fix=f"Give a YAML file or one of: {', '.join(_PUBLISHED)}."
        )
    return _own_tree(path)


def _schemas() -> Any:
    """Import zoobot's question trees when they are needed: the import takes most of a second."""
    from zoobot.shared import schemas

    return schemas
