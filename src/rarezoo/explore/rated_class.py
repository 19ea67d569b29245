"""What people rated becomes a class, with its predicted members and with evidence of its own.

The members of a rated class are the galaxies that were rated interesting, and the unrated ones that the model ranks as
high as galaxies of which at least a chosen share were interesting. Rankings that are compared with ratings come from
models that had not seen these ratings (cross-validation).

The evidence:

    p_value     share of random sets of ratings of the same sizes that a model tells apart as well: the ratings are
                shuffled among the rated galaxies, and the area under the ROC curve in cross-validation is compared
    stability   mean Jaccard index of the members with those from ratings that are drawn again with replacement
    cause       whether the telescope or the catalogue explains the class, as for any other class
    beyond      what the predicted answers do not explain, as for any other class
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float64, Int64
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from rarezoo import tables
from rarezoo.errors import ConfigError, DataError
from rarezoo.explore.choose import INTERESTING
from rarezoo.explore.features import Features, default_cache
from rarezoo.explore.labels import ARTIFACT, Labels
from rarezoo.explore.ranking import RankingSettings
from rarezoo.searches.classes import nearest_to_medoid, share_in_no_class, top_answers, with_columns
from rarezoo.searches.decisions import COPIED, UNMEASURED
from rarezoo.searches.grades import counts
from rarezoo.searches.metadata import Metadata
from rarezoo.searches.previous import PreviousSearch
from rarezoo.searches.result import TABLES, Search
from rarezoo.searches.systematics import Systematics, cause_columns
from rarezoo.settings import setting

# Fewest interesting and fewest uninteresting galaxies from which a class can be learnt.
FEWEST = 5
_FOLDS = 5
RATED = "rated"


@dataclass(frozen=True, eq=False)
class RatedClass:
    """A class that people have rated.

    Attributes
    ----------
    label : str
    rated : (r,) array of integers
        Rows of the galaxies that were rated interesting.
    predicted : (p,) array of integers
        Rows of the unrated galaxies that the model adds.
    probability : (r + p,) array of floats
        Share of interesting galaxies among rated ones at the rank of each member; 1 for the rated ones.
    auc : float
        Area under the ROC curve in cross-validation.
    p_value : float
        Share of shuffled ratings whose area is at least as large.
    stability : float
        Mean Jaccard index with the members from ratings drawn again.
    """

    label: str
    rated: Int64[np.ndarray, " r"]
    predicted: Int64[np.ndarray, " p"]
    probability: Float64[np.ndarray, " m"]
    auc: float
    p_value: float
    stability: float

    @property
    def members(self) -> Int64[np.ndarray, " m"]:
        """Rows of all members, the rated ones first."""
        return np.concatenate([self.rated, self.predicted])


def rated_class(
    label: str,
    features: Features,
    rated: Int64[np.ndarray, " m"],
    interest: Float[np.ndarray, " m"],
    *,
    settings: RankingSettings,
    purity: float = 0.7,
    shuffles: int = 200,
    refits: int = 20,
) -> RatedClass:
    """Learn a class from ratings.

    Parameters
    ----------
    label : str
        What was judged.
    features : Features
        Features of all galaxies.
    rated : (m,) array of integers
        Rows of the rated galaxies.
    interest : (m,) array of floats
        Interest of each, 0 to 1; more than 0.5 is interesting.
    settings : RankingSettings
        How galaxies are ranked.
    purity : float
        Share of interesting galaxies, among rated ones that rank as high, from which unrated galaxies are members.
    shuffles : int
        Number of shuffled ratings for the p-value.
    refits : int
        Number of times that the ratings are drawn again for the stability.

    Raises
    ------
    DataError
        Fewer than five interesting, or fewer than five other galaxies were rated.

    Examples
    --------
    >>> from rarezoo.explore.features import Part
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.normal(size=(300, 4))
    >>> vectors[:40, 0] += 8
    >>> features, rated = Features.of([Part("embedding", vectors, 1.0)]), np.r_[0:20, 100:140]
    >>> answers = (rated < 40).astype(float)
    >>> learnt = rated_class("ring", features, rated, answers, settings=RankingSettings(), shuffles=20)
    >>> len(set(learnt.members) ^ set(range(40))) < 10, learnt.p_value < 0.06
    (True, True)
    """
    liked = interest > INTERESTING
    fewest = min(int(liked.sum()), int((~liked).sum()))
    if fewest < FEWEST:
        raise DataError(
            f"too few ratings of {label} for a class", value=f"{liked.sum()} interesting, {(~liked).sum()} not",
            fix=f"Rate at least {FEWEST} of both.",
        )  # fmt: skip
    rng = np.random.default_rng(settings.seed)
    held = _cross_validated(features, rated, interest, liked, settings=settings, seed=settings.seed)
    auc = float(roc_auc_score(liked, held))
    better = 0
    for number in range(shuffles):
        order = rng.permutation(len(rated))
        scores = _cross_validated(
            features, rated, interest[order], liked[order], settings=settings, seed=settings.seed + number
        )
        better += roc_auc_score(liked[order], scores) >= auc
    predicted, chances = _added(features, rated, interest, held, liked, settings=settings, purity=purity)
    whole = set(map(int, [*rated[liked], *predicted]))
    shared = []
    for _ in range(refits):
        again = np.concatenate([rng.choice(np.flatnonzero(group), group.sum()) for group in (liked, ~liked)])
        rows, answers = rated[again], interest[again]
        mean = _learnt(features, rows, answers, settings=settings)
        unrated = np.ones(len(mean), dtype=bool)
        unrated[rated] = False
        best = np.flatnonzero(unrated)[np.argsort(-mean[unrated], kind="stable")[: len(predicted)]]
        members = set(map(int, [*rows[answers > INTERESTING], *best]))
        shared.append(len(whole & members) / len(whole | members))
    return RatedClass(
        label, rated[liked], predicted, np.concatenate([np.ones(liked.sum()), chances]), auc,
        (1 + better) / (1 + shuffles), float(np.mean(shared)),
    )  # fmt: skip


def _learnt(
    features: Features, rated: Int64[np.ndarray, " m"], interest: Float[np.ndarray, " m"], *, settings: RankingSettings
) -> Float[np.ndarray, " n"]:
    prediction = settings.learn(features, rated, interest)
    assert prediction is not None  # for the type checker: there are ratings
    return prediction.mean


def _cross_validated(
    features: Features, rated: Int64[np.ndarray, " m"], interest: Float[np.ndarray, " m"],
    liked: Bool[np.ndarray, " m"], *, settings: RankingSettings, seed: int,
) -> Float[np.ndarray, " m"]:  # fmt: skip
    """Return what models that have not seen a rating expect of its galaxy, as a rank among all galaxies of the fold."""
    scores = np.empty(len(rated))
    matrix = features.matrix[rated]
    for learn, test in StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(matrix, liked):
        model = settings.ranker.fit(
            matrix[learn], interest[learn], distance=features.distance, seed=settings.seed
        )  # fmt: skip
        # Models of different folds have different scales: a score counts in units of the scores of what was learnt.
        known = model.predict(matrix[learn]).mean
        scores[test] = (model.predict(matrix[test]).mean - known.mean()) / max(float(known.std()), 1e-9)
    return scores


def _added(
    features: Features, rated: Int64[np.ndarray, " m"], interest: Float[np.ndarray, " m"],
    held: Float[np.ndarray, " m"], liked: Bool[np.ndarray, " m"], *, settings: RankingSettings, purity: float,
) -> tuple[Int64[np.ndarray, " p"], Float64[np.ndarray, " p"]]:  # fmt: skip
    """Return the unrated galaxies that rank as high as rated ones of enough purity, and the purity at their rank."""
    from sklearn.isotonic import IsotonicRegression

    mean = _learnt(features, rated, interest, settings=settings)
    known = mean[rated]
    scaled = (mean - known.mean()) / max(float(known.std()), 1e-9)
    # The share of interesting galaxies grows with the rank.
    share = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(held, liked.astype(float))
    chances = share.predict(scaled)
    chances[rated] = -1
    order = np.argsort(-scaled, kind="stable")
    chosen = order[chances[order] >= purity]
    return chosen.astype(np.int64), chances[chosen]


@dataclass(kw_only=True)
class RatedClassesRun(RankingSettings):
    """Make classes of what people have rated, in a new search beside the classes of the old one.

    A galaxy that belongs to a rated class and to a class of the search goes to the rated class. What was measured of a
    class that loses galaxies in this way, its grade too, no longer holds, and becomes empty.
    """

    prefix: ClassVar[str] = ""

    search: str = setting(help="folder of a finished search", positional=True)
    label: list[str] = setting([], "labels or tags that become classes; empty: all with enough ratings")
    labels: str = setting("", "database of the ratings; empty: labels.sqlite in the folder of the search")
    purity: float = setting(
        0.7, "share of interesting galaxies, among rated ones that rank as high, from which galaxies are added",
        gt=0, le=1,
    )  # fmt: skip
    keep: bool = setting(True, "keep the classes of the search too")
    out: str = setting("", "output folder; empty: the folder rated inside that of the search")

    def run(self) -> "RatedClasses":
        """Learn the classes, and write the new search with its report.

        Raises
        ------
        StoreError
            There is no finished search, or its store or ratings are not there.
        ConfigError, DataError
            There are too few ratings, or the output would overwrite the search.
        """
        search = Search.open(self.search)
        folder = Path(self.out) if self.out else search.folder / RATED
        if folder.resolve() == search.folder.resolve():
            raise ConfigError(
                "the output would overwrite the search itself", value=folder, fix="Choose another folder: out=DIR."
            )
        with Labels.of(search, self.labels, read_only=True) as labels:
            unknown = sorted(set(self.label) - _labels_of(labels))
            if unknown:
                raise DataError(
                    "nothing was rated under this label", value=unknown[0],
                    fix=f"Labels with ratings: {', '.join(sorted(_labels_of(labels))) or 'none'}.",
                )  # fmt: skip
            wanted = self.label or sorted(name for name in _labels_of(labels) if name != ARTIFACT)
            answers = {name: labels.interest(name, artifacts=True) for name in wanted}
        galaxies = search.survey() if search.has_survey else None
        store = search.store
        features = self.features(store, galaxies=galaxies, cache=default_cache(store))
        learnt, too_few = [], []
        row_of = {str(name): row for row, name in enumerate(store.ids)}
        for name, interest in answers.items():
            known = {galaxy: value for galaxy, value in interest.items() if galaxy in row_of}
            rows = np.array([row_of[galaxy] for galaxy in known], dtype=np.int64)
            try:
                learnt.append(
                    rated_class(name, features, rows, np.array(list(known.values())), settings=self, purity=self.purity)
                )
            except DataError as problem:
                if name in self.label:
                    raise
                too_few.append(str(problem))
        if not learnt:
            raise DataError(
                "no label has enough ratings for a class", value="; ".join(too_few) or "nothing is rated",
                fix="Rate more galaxies: rarezoo serve SEARCH.",
            )  # fmt: skip
        after, written = _written(search, learnt, folder, keep=self.keep)
        too_few += [
            f"{item.label} is no class: its galaxies are in another rated class, or were not searched"
            for item in learnt
            if item not in written
        ]
        return RatedClasses(after, tuple(written), tuple(too_few))


def _labels_of(labels: Labels) -> set[str]:
    return set(labels.current()[tables.LABEL].to_pylist())


def _written(
    search: Search, learnt: Sequence[RatedClass], folder: Path, *, keep: bool
) -> tuple[Search, list[RatedClass]]:
    """Write a search that holds the rated classes; return it, and those that have members in it."""
    ids, store = search.ids, search.store
    place = {str(name): at for at, name in enumerate(ids)}
    labels = search.labels.copy() if keep else np.full(len(ids), tables.NO_CLASS, dtype=np.int32)
    probabilities = search.table("members").column(tables.PROBABILITY).to_numpy().copy()
    probabilities[labels == tables.NO_CLASS] = 0
    free = PreviousSearch.read(search.folder).free
    first_free = free + len(learnt)
    numbers = list(range(free, free + len(learnt)))
    for number, item in zip(numbers, learnt, strict=True):
        # A galaxy that the search left out cannot be a member of one of its classes.
        inside = [at for at, row in enumerate(item.members) if str(store.ids[row]) in place]
        # Of two rated classes with the same galaxy, it belongs to the first.
        inside = [at for at in inside if labels[place[str(store.ids[item.members[at]])]] not in numbers]
        rows = np.array([place[str(store.ids[item.members[at]])] for at in inside], dtype=np.int64)
        labels[rows], probabilities[rows] = number, item.probability[inside]
    present = set(labels.tolist())
    kept = [(number, item) for number, item in zip(numbers, learnt, strict=True) if number in present]
    if not kept:
        raise DataError(
            "no member of the rated classes was searched", value=", ".join(item.label for item in learnt),
            fix="Its cuts (select.drop) left them out: search again without these.",
        )  # fmt: skip
    numbers, learnt = [number for number, _ in kept], [item for _, item in kept]
    members = search.table("members")
    for name, values in ((tables.CLASS_ID, labels), (tables.PROBABILITY, probabilities)):
        at = members.column_names.index(name)
        members = members.set_column(at, name, pa.array(values, members.schema.field(at).type))
    classes = _class_rows(search, labels, learnt, numbers, keep=keep)
    about = {
        **search.about,
        "settings": {**search.settings, "store": search.store_folder, "rated": [item.label for item in learnt]},
        "folder": str(folder.resolve()), "classes": classes.num_rows,
        "grades": counts(classes.column(tables.GRADE).to_pylist()),
        "unassigned": share_in_no_class(classes, searched=search.searched),
    }  # fmt: skip
    for file, _ in (TABLES[name] for name in COPIED):
        if (search.folder / file).exists():
            with tables.atomic(folder / file) as temporary:
                shutil.copyfile(search.folder / file, temporary)
    after = Search.write(
        folder, about, {"members": members, "classes": classes}, free_class_id=first_free, store=store,
        galaxies=search.survey() if search.has_survey else None, predictions=search.predictions,
    )  # fmt: skip
    after.report(images=search.has_survey)
    after.finish()
    return after, list(learnt)


def _class_rows(
    search: Search, labels: np.ndarray, learnt: Sequence[RatedClass], numbers: Sequence[int], *, keep: bool
) -> pa.Table:
    """Return the CLASSES table: the rated classes first, then those of the search."""
    before = search.table("classes")
    positions = tables.matrix(
        tables.aligned(search.table("map"), search.ids, source="the map"), tables.POSITION
    ).astype(np.float64)
    predictions, rows = search.predictions, []
    for row in before.to_pylist() if keep else ():
        inside = np.flatnonzero(labels == row[tables.CLASS_ID])
        if not len(inside):
            continue
        lost = int((search.labels == row[tables.CLASS_ID]).sum()) - len(inside)
        changed: dict[str, Any] = {}
        if lost:
            # A search out of core shows only some of the members of a large class.
            size = row[tables.SIZE] - lost
            changed = {
                **{name: None for name in UNMEASURED if name in row},
                tables.SIZE: size, tables.FRACTION: size / search.searched,
                tables.EXEMPLARS: _exemplars(search.ids, positions, inside),
                tables.TOP_ANSWERS: top_answers(predictions, [inside])[0],
            }  # fmt: skip
        rows.append({**row, **changed, tables.RANK: row[tables.RANK] and row[tables.RANK] + len(learnt)})
    metadata = Metadata.of(
        search.survey() if search.has_survey else None,
        systematics=Systematics(**search.settings.get("systematics", {})),
    )
    own = np.full(len(labels), tables.NO_CLASS, dtype=np.int32)
    for at, number in enumerate(numbers):
        own[labels == number] = at
    sample = predictions
    vectors = search.store.embeddings()[_store_rows(search)]
    left = metadata.beyond(sample, vectors, labels=own, classes=len(learnt), seed=0)
    explained = cause_columns(metadata.causes(sample, labels=own, classes=len(learnt)))
    new = []
    for at, (item, number) in enumerate(zip(learnt, numbers, strict=True)):
        inside = np.flatnonzero(own == at)
        new.append({
            **{name: None for name in tables.CLASSES.columns},
            tables.CLASS_ID: number, tables.SIZE: len(inside), tables.FRACTION: len(inside) / search.searched,
            tables.P_VALUE: item.p_value, tables.STABILITY: item.stability, tables.FLAGS: [], tables.RANK: at + 1,
            tables.TOP_ANSWERS: top_answers(sample, [inside])[0],
            tables.EXEMPLARS: _exemplars(search.ids, positions, inside),
            tables.NAME: item.label, tables.DECISION: RATED,
            **{name: values[at] for name, values in explained.items()},
            **{name: values[at] for name, values in left.items()},
        })  # fmt: skip
    extra = [pa.field(name, pa.string()) for name in (tables.NAME, tables.DECISION) if name not in before.column_names]
    schema = pa.schema([*before.schema, *extra], metadata=before.schema.metadata)
    table = pa.Table.from_pylist([*new, *rows], schema)
    ranked = sorted(range(len(table)), key=lambda at: table[tables.RANK][at].as_py() or len(table) + at)
    ranks = np.empty(len(table), dtype=np.int32)
    ranks[ranked] = np.arange(1, len(table) + 1)
    return with_columns(table, {tables.RANK: ranks.tolist()})


def _exemplars(ids: np.ndarray, positions: np.ndarray, rows: np.ndarray) -> list[str]:
    names = ids.astype(str)
    ordered = rows[np.argsort(names[rows], kind="stable")]
    return [str(name) for name in ids[nearest_to_medoid(positions, ordered)]]


def _store_rows(search: Search) -> np.ndarray:
    store = search.store
    return tables.rows_of(search.ids, pa.table({tables.ID: pa.array(store.ids, pa.string())}), source="the store")


@dataclass(frozen=True)
class RatedClasses:
    """A search with rated classes.

    Attributes
    ----------
    search : Search
    classes : tuple of RatedClass
    too_few : tuple of str
        Labels without enough ratings, each with the numbers.
    """

    search: Search
    classes: tuple[RatedClass, ...]
    too_few: tuple[str, ...]

    def summary(self) -> str:
        """Return the text for a terminal."""
        rows = [
            [item.label, str(len(item.rated)), str(len(item.predicted)), f"{item.auc:.2f}", f"{item.p_value:.3f}",
             f"{item.stability:.2f}"]
            for item in self.classes
        ]  # fmt: skip
        head = ["label", "rated interesting", "added by the model", "AUC", "p-value", "stability"]
        return "\n".join([tables.markdown(head, rows), *self.too_few, str(self.search.page)])
