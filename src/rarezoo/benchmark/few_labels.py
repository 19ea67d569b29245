"""``rarezoo benchmark few-labels``: how many labels of one's own are enough, and what learns best from them.

For each kind of galaxy whose answer is known, N galaxies of the kind and five times as many others are drawn, every
contestant learns from them, and all other galaxies are predicted. Draws are the unit of every interval, and all
contestants get the same draws.

A contestant is a file in ``conf/contestant``: a method, and the store whose embedding it uses. Methods that
see images are in :mod:`rarezoo.benchmark.finetuned`.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar, Protocol

import numpy as np
import yaml
from jaxtyping import Float64
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score
from tqdm.auto import tqdm

from rarezoo import tables
from rarezoo.benchmark.run import seeds_of
from rarezoo.data.own_labels import BINARY, OwnLabels
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.embeddings.answers import Answer, Criterion, read_answers
from rarezoo.embeddings.judge import usual_criteria, with_populations
from rarezoo.embeddings.measures import FEWEST
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, DataError
from rarezoo.prediction.calibration import Calibration, as_classes, shifted
from rarezoo.prediction.models import candidates, chosen_model
from rarezoo.prediction.space import Space
from rarezoo.runs import digest
from rarezoo.settings import Settings, conf_dir, setting

log = logging.getLogger(__name__)
OURS = "ours"
# Methods by the name in a contestant's file.
METHODS = {
    "probe": "rarezoo.benchmark.few_labels:ProbeContestant",
    "votes": "rarezoo.benchmark.few_labels:VotesContestant",
    "finetuned": "rarezoo.benchmark.finetuned:Finetuned",
    "zoobot": "rarezoo.benchmark.finetuned:ZoobotClassifier",
}
_EVEN = np.array([0.5, 0.5])


@dataclass(frozen=True)
class Task:
    """A yes/no label of some galaxies of a survey, and others to predict.

    Attributes
    ----------
    labels : OwnLabels
        Labels of the galaxies that may be used.
    wanted : (m,) array of str
        Ids of the galaxies to predict.
    seed : int
        Seed of the training.
    survey : Survey or None
        The survey, for methods that see images.
    scratch : Path
        Folder for what is computed on the way.
    """

    labels: OwnLabels
    wanted: np.ndarray
    seed: int
    survey: Survey | None
    scratch: Path


class Method(Protocol):
    """A way to learn from a few labelled galaxies."""

    def probabilities(self, task: Task) -> Float64[np.ndarray, " m"]:
        """Return the probability of the galaxies that are wanted, as if half of all galaxies were of the kind."""


@dataclass(frozen=True)
class ProbeContestant:
    """What ``rarezoo probe`` does, on the embedding of a store.

    Attributes
    ----------
    space : Space
        The features of all galaxies.
    method : str
        ``auto``, ``linear`` or ``kernel``.
    """

    space: Space
    method: str = "auto"

    def probabilities(self, task: Task) -> Float64[np.ndarray, " m"]:
        """Learn and predict."""
        place = self._place
        learnt = np.array([place[galaxy] for galaxy in task.labels.ids])
        wanted = np.array([place[galaxy] for galaxy in task.wanted])
        matrix, distance = self._matrix, self.space.distance
        strength, held, _ = chosen_model(
            candidates(self.method), matrix[learnt], task.labels, distance=distance, seed=task.seed
        )
        model = strength.model.fit(matrix[learnt], task.labels.values, kind=BINARY, distance=distance)
        calibration = Calibration.fit(held, task.labels.values.astype(np.float64), kind=BINARY)
        if not calibration.slopes[0]:
            # Too few labels to calibrate with: the order of the scores still counts.
            calibration = Calibration(BINARY, np.ones(1), -np.median(held, axis=0))
        found = as_classes(calibration.probabilities(model.scores(matrix[wanted])), kind=BINARY)
        share = float(task.labels.values.mean())
        return shifted(found, before=np.array([1 - share, share]), now=_EVEN)[:, 1]

    @cached_property
    def _place(self) -> dict[str, int]:
        return {galaxy: row for row, galaxy in enumerate(self.space.store.ids)}

    @cached_property
    def _matrix(self) -> np.ndarray:
        return self.space.rows(np.arange(len(self.space.store.ids)))


class VotesContestant(ProbeContestant):
    """A probe on the predicted vote fractions of a store, in the place of its embedding."""


@dataclass(frozen=True)
class Contestant:
    """A start and a way to learn from labels.

    Attributes
    ----------
    name : str
        Name of its file in ``conf/contestant``.
    about : str
        Description for the table.
    method : str
        Name in :data:`METHODS`.
    store : str
        Name of the store whose embedding it uses; empty for methods that see images.
    settings : dict
        Settings of the method.
    """

    name: str
    about: str
    method: str
    store: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


def read_contestants(folder: Path, wanted: Sequence[str] = ()) -> list[Contestant]:
    """Read contestants from YAML files; all of a folder if none are named.

    Raises
    ------
    ConfigError
        There is no such file, or its method does not exist.
    """
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ConfigError("no such contestant", value=missing[0], fix=f"Choose from: {', '.join(known)}.")
    found = []
    for name in wanted or known:
        content = yaml.safe_load(known[name].read_text(encoding="utf-8")) or {}
        method = content.pop("method", "probe")
        if method not in METHODS:
            raise ConfigError(
                f"the contestant {name} has no such method", value=method, fix=f"Choose from: {', '.join(METHODS)}."
            )
        found.append(Contestant(name, content.pop("about", name), method, content.pop("store", ""), content))
    return found


@dataclass(frozen=True)
class FewLabelOutcome:
    """How well the other galaxies were ranked after one draw of labels.

    Attributes
    ----------
    auc, average_precision : float
    accuracy : float
        Accuracy on a balanced sample of the other galaxies: the mean of the shares of right ones of both kinds.
    """

    auc: float
    average_precision: float
    accuracy: float


@dataclass(kw_only=True)
class FewLabelsRun(Settings):
    """Draw a few labels of known kinds, let every contestant learn from them, and compare what they predict.

    Each result is kept in ``out``, so that the same command continues where it was stopped.
    """

    prefix: ClassVar[str] = ""

    store: str = setting(
        help="embedding store of a survey whose answers are known: the start that is called ours", positional=True
    )
    starts: list[str] = setting(
        [], "stores of the same galaxies from other starts, NAME=FOLDER: imagenet_last, imagenet_inner, untrained, …"
    )
    answers: list[str] = setting(
        [], "kinds, NAME=COLUMN>VALUE, NAME=COLUMN==TEXT or NAME=COLUMN; empty: those of Galaxy Zoo 2 or a mock sky"
    )
    table: str = setting("", "table of your own that holds the columns of the answers; empty: the survey's catalogue")
    contestants: list[str] = setting([], "names of files in conf/contestant; empty: all whose start is given")
    images: bool = setting(False, "let contestants that see images take part, which takes long")
    positives: list[int] = setting([2, 5, 13, 33, 79, 197], "galaxies of the kind that are learnt from", ge=2)
    others: int = setting(5, "other galaxies that are learnt from, for each of the kind", ge=1)
    draws: str = setting("0-4", "draws of labels: a range such as 0-4, or a list")
    tested: int = setting(
        0,
        "other galaxies that are predicted beside all of the kind; 0: all. For contestants that see images",
        unit="galaxies",
        ge=0,
    )
    out: str = setting("runs/few_labels", "folder of the results")

    def run(self) -> str:
        """Learn what is missing, write the tables and the figure, and return the tables as text."""
        from rarezoo.benchmark.few_labels_results import write_few_labels

        stores = {OURS: EmbeddingStore.open(self.store)}
        for text in self.starts:
            name, equals, place_of_store = text.partition("=")
            if not equals:
                raise ConfigError("a start reads NAME=FOLDER", value=text, fix="For example untrained=runs/random.")
            stores[name.strip()] = EmbeddingStore.open(place_of_store)
        galaxies = stores[OURS].galaxies() if stores[OURS].has_survey else None
        kinds = self._kinds(stores[OURS], galaxies)
        contestants = self._contestants(stores)
        draws, folder = seeds_of(self.draws), Path(self.out)
        outcomes: dict[tuple[str, str, int, int], FewLabelOutcome] = {}
        with tqdm(
            total=len(contestants) * len(kinds) * len(self.positives) * len(draws), desc="few labels"
        ) as progress:
            for contestant in contestants:
                method: Method | None = None
                for (kind, answer), number, draw in (
                    (kind, number, draw) for kind in kinds.items() for number in self.positives for draw in draws
                ):
                    progress.update()
                    if (
                        answer.positives < number + FEWEST
                        or answer.galaxies - answer.positives < self.others * number + FEWEST
                    ):
                        continue
                    place = folder / "draws" / self._name(contestant, stores, answer, number, draw)
                    kept = _kept(place)
                    if kept is None:
                        method = method or self._method(contestant, stores, galaxies)
                        kept = self._outcome(method, stores[OURS], answer, number, draw, folder)
                        tables.write_json(
                            {
                                "contestant": contestant.name,
                                "kind": kind,
                                "positives": number,
                                "draw": draw,
                                **asdict(kept),
                            },
                            place,
                        )
                    outcomes[kind, contestant.name, number, draw] = kept
        return write_few_labels(folder, outcomes, contestants, kinds, draws, others=self.others)

    def _kinds(self, store: EmbeddingStore, galaxies: Galaxies | None) -> dict[str, Answer]:
        """Return the kinds, among the galaxies of the store."""
        if self.table:
            table = read_answers(self.table, store.ids)
        elif galaxies is None:
            raise DataError("a store without a survey has no answers", value=store.folder, fix="Name a table: table=….")
        else:
            table = tables.aligned(with_populations(galaxies), store.ids, source="the survey")
        criteria = tuple(Criterion.parsed(text) for text in self.answers) or usual_criteria(
            table, survey=store.manifest.survey
        )
        kinds = {criterion.name: Answer.of(criterion, criterion.values(table)) for criterion in criteria}
        few = [name for name, answer in kinds.items() if answer.positives < min(self.positives) + FEWEST]
        for name in few:
            log.warning("%s has only %d galaxies and is left out", name, kinds.pop(name).positives)
        if not kinds:
            raise DataError(
                "no kind of galaxies is known",
                value=self.table or store.manifest.survey,
                fix=f"Name some with answers=NAME=COLUMN>VALUE; each needs {min(self.positives) + FEWEST} galaxies.",
            )
        return kinds

    def _contestants(self, stores: Mapping[str, EmbeddingStore]) -> list[Contestant]:
        found = read_contestants(conf_dir() / "contestant", self.contestants)
        if self.contestants:
            absent = [each.store for each in found if each.store and each.store not in stores]
            if absent:
                raise ConfigError("a start that is not given", value=absent[0], fix=f"Give starts={absent[0]}=FOLDER.")
            return found
        return [each for each in found if (each.store in stores if each.store else self.images)]

    def _method(
        self, contestant: Contestant, stores: Mapping[str, EmbeddingStore], galaxies: Galaxies | None
    ) -> Method:
        """Make a contestant ready: measure its features, or name the network that it finetunes."""
        kind, settings = resolve_name(METHODS[contestant.method]), dict(contestant.settings)
        if not issubclass(kind, ProbeContestant):
            made: Method = kind(**settings)
            return made
        method = settings.pop("learner", "auto")
        store = stores[contestant.store]
        space = Space.of(store, galaxies=galaxies, **{"beside": (), **settings})
        if issubclass(kind, VotesContestant):
            space = _of_votes(store, space)
        return kind(space, method)

    def _outcome(
        self, method: Method, store: EmbeddingStore, answer: Answer, number: int, draw: int, folder: Path
    ) -> FewLabelOutcome:
        """Let a contestant learn from one draw of labels, and measure how it ranks the rest."""
        known = np.flatnonzero(answer.known)
        random = np.random.default_rng([draw, number, self.others * number])
        members, rest = np.flatnonzero(answer.positive), np.flatnonzero(~answer.positive)
        learnt = np.concatenate(
            [random.choice(members, number, replace=False), random.choice(rest, self.others * number, replace=False)]
        )
        asked = np.delete(np.arange(len(known)), learnt)
        if self.tested:
            plain = asked[~answer.positive[asked]]
            kept = np.random.default_rng(draw).choice(plain, min(self.tested, len(plain)), replace=False)
            asked = np.sort(np.concatenate([asked[answer.positive[asked]], kept]))
        ids = store.ids[known]
        labels = OwnLabels(
            ids[learnt], BINARY, (answer.criterion.name,), answer.positive[learnt].astype(np.float32)[:, None]
        )
        survey = store.survey() if store.has_survey else None
        scratch = folder / "scratch"
        found = method.probabilities(Task(labels, ids[asked], draw, survey, scratch))
        truth = answer.positive[asked]
        return FewLabelOutcome(
            float(roc_auc_score(truth, found)),
            float(average_precision_score(truth, found)),
            float(balanced_accuracy_score(truth, found >= 0.5)),
        )

    def _name(
        self, contestant: Contestant, stores: Mapping[str, EmbeddingStore], answer: Answer, number: int, draw: int
    ) -> str:
        """Return the name of the file of one result: by all that it depends on."""
        about = {
            "method": contestant.method,
            "settings": contestant.settings,
            "tested": self.tested,
            "store": stores[contestant.store].identity if contestant.store else None,
            "ours": stores[OURS].identity,
            "kind": str(answer.criterion),
            "table": answer.positive.tolist() if self.table else None,
            "positives": number,
            "others": self.others,
            "draw": draw,
        }
        return f"{digest(tables.plain(about))[:24]}.json"


def _of_votes(store: EmbeddingStore, space: Space) -> Space:
    """Return the predicted vote fractions of a store as features."""
    from rarezoo.explore.features import standardised

    answers = store.manifest.answers
    if not answers:
        raise ConfigError("a store without predicted votes", value=store.folder, fix="Leave the contestant votes out.")
    columns = store.read([tables.ID, *map(tables.fraction_column, answers)])
    votes = np.column_stack([columns[tables.fraction_column(answer)].to_numpy() for answer in answers])
    return replace(space, mean=np.zeros(0), scale=np.ones(0), beside=standardised(votes), names=("votes",))


def _kept(place: Path) -> FewLabelOutcome | None:
    if not place.exists():
        return None
    try:
        content = json.loads(place.read_text())
        return FewLabelOutcome(**{name: float(content[name]) for name in ("auc", "average_precision", "accuracy")})
    except (ValueError, KeyError, TypeError) as problem:
        log.warning("%s is damaged and is computed again: %s", place, problem)
        return None
