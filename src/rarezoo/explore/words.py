"""Words such as "edge-on with dust lane" become an expression over predicted vote fractions, without a network.

A word means answers of a question tree. A table of synonyms covers the published trees, and the names of questions and
answers are words too, so that a tree of one's own has its words. Words are read from left to right, and the longest
group of words that has a meaning is taken. Words that are spelled nearly right are corrected.

The score of a galaxy is the share of volunteers who would agree with every word: fractions are multiplied, together
with those of the answers that lead to their questions. "not" and "without" turn a share into one minus it, and "or"
joins two of them.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

from rarezoo import tables
from rarezoo.data.trees import QuestionTree, campaigns, named_tree, tree_names
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, RarezooError
from rarezoo.zoo.cards import find_checkpoint, identity, read_card

# Words, and the answers that they mean: question: answer, answer. Of several questions the first counts that the store
# has. Questions are written without the campaign.
_SYNONYMS = """
smooth | elliptical | early type | spheroidal | featureless    smooth-or-featured: smooth; class5: completely-round-smooth, in-between-smooth, cigar-shaped-smooth
featured | features | disk | disc | late type    smooth-or-featured: featured-or-disk, features
artifact | artefact | problem | bad image | bad data    smooth-or-featured: artifact, problem, star-artifact-zoom
star    problem: star; smooth-or-featured: artifact, star-artifact-zoom
edge on | edgeon | side on | seen from the side    disk-edge-on: yes; class5: edge-on
face on | faceon | not edge on    disk-edge-on: no
spiral | spiral arm | arm | with arms    has-spiral-arms: yes; class5: spiral
no spiral arm | no arm | armless | no spiral    has-spiral-arms: no
bar | barred    bar: yes, strong, weak
strong bar | strongly barred | large bar | long bar    bar: strong; bar: yes
weak bar | weakly barred | small bar | short bar    bar: weak; bar: yes
no bar | unbarred | barless | non barred    bar: no
round | circular | completely round | roundish    how-rounded: round, completely; class5: completely-round-smooth
in between | oval | elongated    how-rounded: in-between; class5: in-between-smooth
cigar | cigar shaped | needle    how-rounded: cigar, cigar-shaped; class5: cigar-shaped-smooth
bulge | central bulge    bulge-size: dominant, large, obvious, moderate, small, just-noticeable
no bulge | bulgeless | pure disk    bulge-size: none, no; edge-on-bulge: none, no; bulge-shape: none, no-bulge
small bulge | tiny bulge | noticeable bulge    bulge-size: small, just-noticeable
moderate bulge | medium bulge | intermediate bulge    bulge-size: moderate; bulge-size: obvious
large bulge | big bulge | prominent bulge | obvious bulge    bulge-size: large, obvious
dominant bulge | huge bulge | bulge dominated    bulge-size: dominant
boxy | boxy bulge | peanut | peanut bulge | x shaped    edge-on-bulge: boxy; bulge-shape: boxy
rounded bulge | round bulge    edge-on-bulge: rounded, yes; bulge-shape: rounded, round
tight | tightly wound | tight arm | tight spiral | tight winding | closely wound    spiral-winding: tight
medium wound | medium winding | moderately wound    spiral-winding: medium
loose | loosely wound | loose arm | loose spiral | loose winding | open arm | open spiral    spiral-winding: loose
1 arm | 1 armed | 1 spiral arm | single arm    spiral-arm-count: 1
2 arm | 2 armed | 2 spiral arm | grand design    spiral-arm-count: 2
3 arm | 3 armed | 3 spiral arm    spiral-arm-count: 3
4 arm | 4 armed | 4 spiral arm    spiral-arm-count: 4
many arm | many armed | more than 4 arm | 5 arm | multiple arm | flocculent    spiral-arm-count: more-than-4, 5-plus
merger | merging | colliding | collision    merging: merger, both; odd-feature: merger
interacting | interaction    merging: merger, both, major-disturbance, tidal-debris; odd-feature: merger, disturbed
disturbed | disturbance    merging: major-disturbance, minor-disturbance, tidal-debris, both; odd-feature: disturbed
major disturbance | strongly disturbed    merging: major-disturbance; odd-feature: disturbed
minor disturbance | slightly disturbed    merging: minor-disturbance; odd-feature: disturbed
tidal | tidal debris | tidal tail | tidal stream | stream | tail    merging: tidal-debris, both; merging: minor-disturbance, major-disturbance
undisturbed | no merger | not merging    merging: none, neither
clump | clumpy    clumps: yes; clumpy-appearance: yes
symmetric | symmetrical    galaxy-symmetrical: yes
asymmetric | asymmetrical | lopsided    galaxy-symmetrical: no
odd | strange | unusual | weird | peculiar | something odd    something-odd: yes
ring | ringed | ring galaxy    odd-feature: ring; ring: yes
lens | arc | lensed | gravitational lens | einstein ring    odd-feature: lens-or-arc; lens: yes
irregular    odd-feature: irregular; irregular: yes
dust lane | dust | dusty | dust band    odd-feature: dust-lane; dust-lane: yes; dust: yes
satellite | satellite trail | trail    artifact: satellite
cosmic ray | ray    artifact: ray
diffraction | diffraction spike    artifact: diffraction
saturated | saturation    artifact: saturation
ghost    artifact: ghost
scattered | scattered light    artifact: scattered
bad zoom | zoomed    problem: zoom, bad-zoom; smooth-or-featured: star-artifact-zoom
"""  # noqa: E501
_NUMBERS = {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "no": "no"}
_NO = {"no", "without", "lacking", "lack", "missing"}
_NOT = {"not", "non", "never", "isnt", "arent"}
_FILLING_TEXT = """
a an and the with of in at as to that this which is are has have having show showing its it galaxy object but very
clearly quite also plus image picture some kind looking look like shape shaped
"""
_FILLING = set(_FILLING_TEXT.split())
# Answers that mean nothing without their question.
_NEED_TEXT = "yes no none other both neither small large medium moderate strong weak tight loose"
_NEED_QUESTION = set(_NEED_TEXT.split())
_LONGEST = 5
# Shortest word that is corrected, and shortest in which two letters may be wrong.
_CORRECTED, _TWICE = 4, 7


@dataclass(frozen=True)
class Term:
    """A group of words and the answers of one question that it means.

    Attributes
    ----------
    words : str
        The words.
    answers : tuple of str
        Labels of the answers, of which any is meant.
    negated : bool
        None of them is meant.
    joined : bool
        The word "or" stands before it.
    """

    words: str
    answers: tuple[str, ...]
    negated: bool = False
    joined: bool = False


@dataclass(frozen=True)
class Understood:
    """What a text means.

    Attributes
    ----------
    expression : str
        The score as an expression over columns of predicted fractions, in the language of
        :func:`rarezoo.data.expressions.evaluate`.
    terms : tuple of Term
        Words that were understood.
    absent : tuple of str
        Words whose meaning is known, for which the store predicts no answer.
    unknown : tuple of str
        Words that were not understood.
    corrected : mapping from str to str
        Words that were read as others.
    conflicts : tuple of str
        Pairs of words that exclude each other in the question tree.
    """

    expression: str
    terms: tuple[Term, ...]
    absent: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    corrected: Mapping[str, str] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what a reader should know about how the words were taken, one sentence each."""
        meant = "; ".join(
            f"{'or ' if term.joined else ''}{'not ' if term.negated else ''}{term.words} = {' or '.join(term.answers)}"
            for term in self.terms
        )
        told = [f"Understood: {meant}."]
        told += [f"Read {word} as {other}." for word, other in self.corrected.items()]
        if self.absent:
            told.append(f"This store predicts no answer for: {', '.join(self.absent)}.")
        if self.unknown:
            told.append(f"Not understood, and not used: {', '.join(self.unknown)}.")
        told += [f"These words exclude each other in the question tree: {pair}." for pair in self.conflicts]
        return told


def understand(text: str, answers: Sequence[str], *, tree: QuestionTree | None = None) -> Understood:
    """Turn words into an expression over the fractions of some answers.

    Parameters
    ----------
    text : str
        What a person types.
    answers : sequence of str
        Labels of the answers whose fractions are predicted.
    tree : QuestionTree, optional
        The tree that they belong to; it says which answers lead to a question.

    Raises
    ------
    ConfigError
        No word was understood; the message names words that can be used.

    Examples
    --------
    >>> tree = named_tree("desi")
    >>> edge_on = understand("edge-on with dust lane", tree.answers, tree=tree)
    >>> edge_on.expression
    '`smooth-or-featured_featured-or-disk_fraction` * `disk-edge-on_yes_fraction`'
    >>> edge_on.absent
    ('dust lane',)
    >>> understand("not smoth", tree.answers, tree=tree).expression
    '(1 - `smooth-or-featured_smooth_fraction`)'
    """
    vocabulary = Vocabulary(tuple(answers), tree)
    tokens, corrected = vocabulary.tokens(text)
    terms: list[Term] = []
    absent: list[str] = []
    unknown: list[str] = []
    negated = joined = False
    place = 0
    while place < len(tokens):
        length, meaning = vocabulary.longest(tokens[place:])
        words = " ".join(tokens[place : place + max(length, 1)])
        place += max(length, 1)
        if not length and words in _FILLING:
            continue
        if not length and words in {"or", *_NO, *_NOT}:
            joined, negated = joined or words == "or", negated != (words != "or")
            continue
        if meaning:
            terms.append(Term(words, meaning, negated, joined and bool(terms)))
        else:
            (absent if length else unknown).append(words)
        negated = joined = False
    if not terms:
        missed = [*(f"{words} (no answer in this store)" for words in absent), *unknown]
        raise ConfigError(
            "none of these words was understood", value=f"{text} ({'; '.join(missed)})" if missed else text,
            fix=f"Words that this store has answers for: {', '.join(vocabulary.examples())}.",
        )  # fmt: skip
    expression, conflicts = _Score(vocabulary, _merged(terms)).written()
    return Understood(
        expression, tuple(terms), tuple(dict.fromkeys(absent)), tuple(dict.fromkeys(unknown)), corrected, conflicts
    )


def tree_of(store: EmbeddingStore, answers: Sequence[str] | None = None) -> QuestionTree | None:
    """Return the question tree of answers: that of the store's checkpoint if it is here, else the published one.

    Parameters
    ----------
    store : EmbeddingStore
        The store.
    answers : sequence of str, optional
        Labels of the answers; by default those that the store predicts.
    """
    about = store.manifest
    known = set(about.answers if answers is None else answers)
    try:
        card = read_card(find_checkpoint(about.checkpoint))
        tree = QuestionTree.from_dict(card["tree"])
        if identity(card) == about.checkpoint_sha256 and known & set(tree.answers):
            return tree
    except (RarezooError, KeyError, TypeError):
        pass
    trees = [named_tree(name) for name in tree_names()]
    best = max(trees, key=lambda tree: (len(known & set(tree.answers)), -len(tree.answers)), default=None)
    return best if best is not None and known & set(best.answers) else None


@dataclass(frozen=True)
class Vocabulary:
    """The words that can be used for some answers.

    Attributes
    ----------
    answers : tuple of str
        Labels of the answers.
    tree : QuestionTree or None
        The tree that they belong to.
    """

    answers: tuple[str, ...]
    tree: QuestionTree | None = None

    def question_of(self, answer: str) -> str:
        """Return the name of the question of an answer, as the tree has it."""
        if self.tree is not None and answer in self.tree.answers:
            return self.tree.question_of(answer).name
        return answer.partition("_")[0]

    def leading_to(self, answer: str) -> list[str]:
        """Return the answers that lead to the question of an answer, the first one first."""
        if self.tree is None or answer not in self.tree.answers:
            return []
        above = self.tree.question_of(answer).asked_after
        # A published tree may have answers that this store does not predict.
        return [*self.leading_to(above), above] if above and above in self.answers else []

    @cached_property
    def phrases(self) -> dict[tuple[str, ...], tuple[str, ...]]:
        """The answers that each group of words means; empty for words that mean answers of another tree."""
        by_question: dict[str, dict[str, str]] = {}
        own: dict[tuple[str, ...], tuple[str, ...]] = {}
        for label in self.answers:
            question = self.question_of(label)
            answer = label.removeprefix(question).removeprefix("_") or label
            question = _without_campaign(question)
            by_question.setdefault(question, {})[answer] = label
            for words in _own_words(question, answer):
                own.setdefault(words, (label,))
        meant: dict[tuple[str, ...], tuple[str, ...]] = {}
        for words, meanings in _synonyms().items():
            each = [
                tuple(
                    by_question.get(question, {})[answer]
                    for answer in wanted
                    if answer in by_question.get(question, {})
                )
                for question, wanted in meanings
            ]
            meant[words] = next(filter(None, each), ())
        return {**own, **{words: labels for words, labels in meant.items() if labels or words not in own}}

    @cached_property
    def known(self) -> set[str]:
        """Every single word that is part of a group."""
        return {word for words in self.phrases for word in words} | _FILLING | _NO | _NOT | {"or"}

    def tokens(self, text: str) -> tuple[list[str], dict[str, str]]:
        """Return the words of a text in the form of the vocabulary, and those that were corrected."""
        tokens, corrected = [], {}
        for word, plain in _words(text):
            other = plain if plain in self.known else self._corrected(plain)
            if other != plain:
                corrected[word] = other
            tokens.append(other)
        # "2 or 3 arms" stands for "2 arms or 3 arms".
        for place in range(len(tokens) - 3, -1, -1):
            first, middle, second = tokens[place : place + 3]
            if first.isdigit() and middle == "or" and second.isdigit():
                tokens.insert(place + 1, tokens[place + 3])
        return tokens, corrected

    def _corrected(self, word: str) -> str:
        """Return the known word that a word is probably meant to be, or the word itself."""
        from rapidfuzz.distance import OSA

        if len(word) < _CORRECTED or not word.isalpha():
            return word
        most = 1 if len(word) < _TWICE else 2
        # The first letter is rarely wrong, but may have changed places with the second.
        others = [other for other in self.known if len(other) >= _CORRECTED and other[0] in word[:2]]
        near = [(OSA.distance(word, other), other) for other in others]
        distance, best = min(near, default=(most + 1, word))
        return best if distance <= most else word

    def longest(self, tokens: Sequence[str]) -> tuple[int, tuple[str, ...]]:
        """Return how many of the first words belong together, and the answers that they mean; 0 for no meaning."""
        for length in range(min(_LONGEST, len(tokens)), 0, -1):
            if tuple(tokens[:length]) in self.phrases:
                return length, self.phrases[tuple(tokens[:length])]
        return 0, ()

    def examples(self, most: int = 12) -> list[str]:
        """Return some words that have a meaning here, each with another one."""
        seen: dict[tuple[str, ...], str] = {}
        for words in [*_synonyms(), *self.phrases]:
            if self.phrases.get(words):
                seen.setdefault(self.phrases[words], " ".join(words))
        return list(seen.values())[:most]


def _merged(terms: Sequence[Term]) -> list[list[Term]]:
    """Return terms in groups that "or" joins."""
    groups: list[list[Term]] = []
    for term in terms:
        if term.joined and groups:
            groups[-1].append(term)
        else:
            groups.append([term])
    return groups


@dataclass(frozen=True)
class _Score:
    """The expression for groups of terms: every group must hold, and in a group at least one term."""

    vocabulary: Vocabulary
    groups: Sequence[Sequence[Term]]

    def written(self) -> tuple[str, tuple[str, ...]]:
        """Return the expression, and pairs of words that exclude each other."""
        question_of = self.vocabulary.question_of
        named: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        others = []
        for group in self.groups:
            questions = {question_of(term.answers[0]) for term in group}
            if any(term.negated for term in group) or len(questions) > 1:
                others.append(group)
                continue
            answers = tuple(dict.fromkeys(answer for term in group for answer in term.answers))
            named.setdefault(questions.pop(), []).append((" or ".join(term.words for term in group), answers))
        conflicts = [
            f"{first} and {second}"
            for (first, mine), (second, theirs) in (pair for several in named.values() for pair in _pairs(several))
            if not set(mine) & set(theirs)
        ]
        factors: dict[tuple[str, ...], None] = {}
        for several in named.values():
            for words, answers in several:
                for above in self.vocabulary.leading_to(answers[0]):
                    said = named.get(question_of(above), [])
                    conflicts += [f"{other} and {words}" for other, theirs in said if above not in theirs]
                    # What the words say about a question counts, and not what leads from it to another one.
                    if not said:
                        factors[above,] = None
                factors[answers] = None
        given = {answer for answers in factors for answer in answers}
        parts = [_sum(answers) for answers in factors] + [self._joined(group, given) for group in others]
        return " * ".join(parts), tuple(dict.fromkeys(conflicts))

    def _joined(self, group: Sequence[Term], given: set[str]) -> str:
        """Return the share for which a negated term holds, or at least one of several terms."""
        shares = []
        for term in group:
            leading = [above for above in self.vocabulary.leading_to(term.answers[0]) if above not in given]
            shares.append((" * ".join([*(_sum((above,)) for above in leading), _sum(term.answers)]), term.negated))
        if len(shares) == 1:
            return f"(1 - {shares[0][0]})"
        missed = " * ".join(share if negated else f"(1 - {share})" for share, negated in shares)
        return f"(1 - {missed})"


def _pairs(several: Sequence[tuple[str, tuple[str, ...]]]) -> list[tuple[tuple[str, tuple[str, ...]], ...]]:
    return [(several[i], several[j]) for i in range(len(several)) for j in range(i + 1, len(several))]


def _sum(answers: Sequence[str]) -> str:
    columns = [f"`{tables.fraction_column(answer)}`" for answer in answers]
    return columns[0] if len(columns) == 1 else f"({' + '.join(columns)})"


@cache
def _synonyms() -> dict[tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...]]:
    """Return the table of synonyms: for each group of words, questions with the answers that are meant."""
    known = {}
    for line in _SYNONYMS.strip().splitlines():
        words, meanings = line.split("    ")
        meant = []
        for meaning in meanings.split(";"):
            question, answers = meaning.split(":")
            meant.append((question.strip(), tuple(answer.strip() for answer in answers.split(","))))
        for group in words.split("|"):
            known[tuple(plain for _, plain in _words(group))] = tuple(meant)
    return known


def _own_words(question: str, answer: str) -> list[tuple[str, ...]]:
    """Return the groups of words that name an answer by the words of its question and its own."""
    asked, said = ([plain for _, plain in _words(text)] for text in (question, answer))
    if answer == "yes":
        groups = [asked]
    elif answer == "no":
        groups = [["no", *asked]]
    else:
        groups = [[*said, *asked], [*asked, *said]]
        if not set(said) <= _NEED_QUESTION and not "".join(said).isdigit():
            groups.append(said)
    return [tuple(group) for group in groups if 0 < len(group) <= _LONGEST]


@cache
def _campaigns() -> tuple[str, ...]:
    return campaigns()


def _without_campaign(question: str) -> str:
    start, dash, end = question.rpartition("-")
    return start if dash and end in _campaigns() else question


def _words(text: str) -> list[tuple[str, str]]:
    """Return the words of a text as they are written and in the form of the vocabulary: lower case and singular."""
    plain = unicodedata.normalize("NFKC", text).lower().replace("'", "").replace("’", "")
    return [(word, _NUMBERS.get(word, _singular(word))) for word in re.findall(r"[^\W_]+", plain)]


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")) else word
