"""Class-balanced sets of galaxies whose class is sure, with three parts: train, validation and test.

Shape letters: n galaxies, c classes, s side of an image in px.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor
from tqdm.auto import tqdm

from rarezoo import tables
from rarezoo.data.duplicates import fingerprint, near_identical
from rarezoo.data.expressions import evaluate
from rarezoo.data.splits import TEST, TRAIN, VALIDATION
from rarezoo.data.survey import Galaxies
from rarezoo.data.trees import QuestionTree
from rarezoo.errors import ConfigError, DataError
from rarezoo.runs import digest
from rarezoo.settings import Settings, setting
from rarezoo.zoo.views import inference_view

AUTO, POPULATIONS = "auto", "populations"
FRACTIONS, LOWER_BOUND = "fractions", "lower_bound"
STOP, RESIZE = "stop", "resize"
_SMOOTH, _DISK = "`smooth-or-featured_smooth`", "`smooth-or-featured_featured-or-disk`"
_EDGE, _FACE = f"{_DISK} * `disk-edge-on_yes`", f"{_DISK} * `disk-edge-on_no`"
_NINE = {
    "smooth, round": f"{_SMOOTH} * `how-rounded_round`",
    "smooth, in between": f"{_SMOOTH} * `how-rounded_in-between`",
    "smooth, cigar": f"{_SMOOTH} * `how-rounded_cigar`",
    "edge-on, bulge": f"{_EDGE} * (`bulge-shape_round` + `bulge-shape_boxy`)",
    "edge-on, no bulge": f"{_EDGE} * `bulge-shape_no-bulge`",
    "bar, spiral": f"{_FACE} * `bar_yes` * `has-spiral-arms_yes`",
    "bar, no spiral": f"{_FACE} * `bar_yes` * `has-spiral-arms_no`",
    "no bar, spiral": f"{_FACE} * `bar_no` * `has-spiral-arms_yes`",
    "no bar, no spiral": f"{_FACE} * `bar_no` * `has-spiral-arms_no`",
}
# The same classes from the questions of DECaLS and DESI.
_BULGE = {
    "edge-on, bulge": f"{_EDGE} * (`edge-on-bulge_rounded` + `edge-on-bulge_boxy`)",
    "edge-on, no bulge": f"{_EDGE} * `edge-on-bulge_none`",
}
_DESI_NAMES = {
    "`how-rounded_cigar`": "`how-rounded_cigar-shaped`", "`bar_yes`": "(`bar_strong` + `bar_weak`)",
}  # fmt: skip


def _of_desi(expression: str) -> str:
    for ours, theirs in _DESI_NAMES.items():
        expression = expression.replace(ours, theirs)
    return expression


RECIPES: dict[str, dict[str, str]] = {
    "gz2_nine": _NINE,
    "desi_nine": {name: _of_desi(_BULGE.get(name, expression)) for name, expression in _NINE.items()},
    "class5": {
        "round": "`class5_completely-round-smooth`", "in between": "`class5_in-between-smooth`",
        "cigar": "`class5_cigar-shaped-smooth`", "edge-on": "`class5_edge-on`", "spiral": "class5_spiral",
    },
}  # fmt: skip
# An image that competes for galaxies in the recipes of nine classes, and is then dropped.
_DROPPED = {"gz2_nine": "`smooth-or-featured_artifact`", "desi_nine": "`smooth-or-featured_artifact`"}
_DRAWS, _QUANTILE = 200, 0.05


@dataclass(kw_only=True)
class SetSettings(Settings):
    """Which galaxies stand for which class, and how their images are cut.

    Examples
    --------
    >>> SetSettings(train=40, validation=10, test=10, side=32).per_class
    50
    """

    prefix: ClassVar[str] = "set"

    classes: str = setting(
        AUTO, "recipe of the classes; auto: the first whose answers the votes have; populations: those of a mock sky",
        choices=(AUTO, *RECIPES, POPULATIONS),
    )  # fmt: skip
    recipe: list[str] = setting([], "classes of your own: NAME=EXPRESSION of vote fractions, for each class")
    only: list[str] = setting([], "classes that are used; empty: all of the recipe")
    score: str = setting(
        FRACTIONS, "product of the fractions, or its lower 5 % bound, which counts how many people voted",
        choices=(FRACTIONS, LOWER_BOUND),
    )  # fmt: skip
    train: int = setting(450, "galaxies of each class to distil, those of the validation included", ge=2)
    validation: int = setting(60, "galaxies of each class, among those to distil, that choose settings", ge=1)
    test: int = setting(129, "galaxies of each class that are only looked at in the end", ge=1)
    side: int = setting(32, "side of the images", unit="px", ge=8)
    zoom: float = setting(1.415, "the images are the central 1/zoom of the cutouts", ge=1, le=10)
    several_sizes: str = setting(
        STOP, "what cutouts of several sizes cause: stop, or resize all to one side", choices=(STOP, RESIZE)
    )
    seed: int = setting(0, "seed of the parts", ge=0)

    def check(self) -> None:
        """Refuse a validation part that leaves nothing to distil."""
        if self.validation >= self.train:
            raise ConfigError(
                "the validation galaxies are a part of those to distil", value=f"set.validation={self.validation}",
                fix=f"Choose fewer than set.train={self.train}.",
            )  # fmt: skip
        unnamed = [text for text in self.recipe if not text.partition("=")[0].strip() or "=" not in text]
        if unnamed:
            raise ConfigError("not a class", value=f"set.recipe={unnamed[0]}", fix="Write NAME=EXPRESSION.")

    @property
    def own_recipe(self) -> dict[str, str]:
        """Expression of each class of your own."""
        parts = (text.partition("=") for text in self.recipe)
        return {name.strip(): expression.strip() for name, _, expression in parts}

    @property
    def per_class(self) -> int:
        """Galaxies of each class."""
        return self.train + self.test


class GalaxySet:
    """Images of galaxies with their classes, in three parts; the images of a part are read when it is asked for.

    Parameters
    ----------
    galaxies
        The survey.
    rows
        (n,) rows of the survey.
    labels
        (n,) class number of each galaxy.
    parts
        (n,) ``train``, ``validation`` or ``test``.
    names
        Names of the c classes.
    settings
        How the images are cut.
    score
        (n,) score of each galaxy for its class.
    """

    def __init__(
        self,
        galaxies: Galaxies,
        rows: Int64[np.ndarray, " n"],
        labels: Int64[np.ndarray, " n"],
        parts: np.ndarray,
        names: tuple[str, ...],
        settings: SetSettings,
        score: Float[np.ndarray, " n"],
    ) -> None:
        self.galaxies, self.rows, self.labels, self.parts = galaxies, rows, labels, parts
        self.names, self.settings, self.score = names, settings, score
        self._pixels: dict[str, UInt8[Tensor, "m 3 s s"]] = {}

    @property
    def ids(self) -> np.ndarray:
        """Ids of the n galaxies."""
        return self.galaxies.ids[self.rows]

    @property
    def sha256(self) -> str:
        """Hash of what the set is: galaxies, classes, parts, side and field of view."""
        return digest(
            {
                "ids": self.ids.tolist(), "labels": self.labels.tolist(), "parts": self.parts.tolist(),
                "names": list(self.names), "side": self.settings.side, "zoom": self.settings.zoom,
                "survey": self.galaxies.sha256,
            }
        )  # fmt: skip

    def labels_of(self, part: str) -> Int64[Tensor, " m"]:
        """Return the class numbers of a part."""
        return torch.from_numpy(self.labels[self.parts == part])

    def pixels(self, part: str, *, side: int | None = None) -> UInt8[Tensor, "m 3 s s"]:
        """Return the images of a part; they are read when they are asked for the first time.

        Parameters
        ----------
        part
            ``train``, ``validation`` or ``test``.
        side
            Another side than that of the settings, px.
        """
        side = side or self.settings.side
        key = f"{part}-{side}"
        if key not in self._pixels:
            view = inference_view(side, zoom=self.settings.zoom)
            rows = self.rows[self.parts == part]
            images = (torch.from_numpy(self.galaxies.images.cutout(int(row)).copy()) for row in rows)
            self._pixels[key] = torch.stack([view(image.permute(2, 0, 1)) for image in images])
        return self._pixels[key]

    @cached_property
    def scaling(self) -> tuple[Float[Tensor, "3 1 1"], Float[Tensor, "3 1 1"]]:
        """Mean and standard deviation of each channel of the training images, in grey levels (0 to 255)."""
        pixels = self.pixels(TRAIN).float()
        return pixels.mean(dim=(0, 2, 3))[:, None, None], pixels.std(dim=(0, 2, 3))[:, None, None].clamp(min=1.0)

    def scaled(self, part: str) -> Float[Tensor, "m 3 s s"]:
        """Return the images of a part with mean 0 and standard deviation 1 in each channel."""
        centre, spread = self.scaling
        return (self.pixels(part).float() - centre) / spread

    def unscaled(self, images: Float[Tensor, "m 3 s s"]) -> Float32[np.ndarray, "m 3 s s"]:
        """Return scaled images in the grey levels of the survey; values may lie outside 0 to 255."""
        centre, spread = self.scaling
        return np.asarray((images.detach().cpu() * spread + centre).numpy(), dtype=np.float32)

    def summary(self) -> str:
        """Return how many galaxies of each class are in each part, and the lowest score of each class, as text."""
        counts = [f"{part} {int((self.parts == part).sum()) // len(self.names)}" for part in (TRAIN, VALIDATION, TEST)]
        lowest = (f"{name} {self.score[self.labels == k].min():.2f}" for k, name in enumerate(self.names))
        return f"{len(self.names)} classes of {' + '.join(counts)} galaxies; lowest score: {', '.join(lowest)}"


def galaxy_set(galaxies: Galaxies, settings: SetSettings) -> GalaxySet:
    """Choose the surest galaxies of each class, and divide them so that near-identical images are in one part.

    Raises
    ------
    ConfigError
        The survey has no votes for the classes.
    DataError
        A class has too few galaxies, or the cutouts have several sizes.
    """
    names, scores = class_scores(galaxies, settings)
    best = scores.argmax(axis=1)
    rows: list[int] = []
    labels: list[int] = []
    for number, name in enumerate(names):
        members = np.flatnonzero((best == number) & (scores[:, number] > 0))
        if len(members) < settings.per_class:
            raise DataError(
                f"the class {name} has too few galaxies for {settings.train} + {settings.test}", value=len(members),
                fix="Lower set.train and set.test (set.validation must be less than set.train), or leave the class out "
                "with set.only=[…].",
            )  # fmt: skip
        # Equal scores are in an order that depends on the ids alone.
        order = np.lexsort((_places(galaxies.ids[members]), -scores[members, number]))
        rows += members[order[: settings.per_class]].tolist()
        labels += [number] * settings.per_class
    chosen, numbers = np.array(rows), np.array(labels)
    parts = _parts(_groups(galaxies, chosen, settings), numbers, settings, galaxies.ids[chosen])
    kept = parts != ""
    own = scores[chosen, numbers]
    return GalaxySet(galaxies, chosen[kept], numbers[kept], parts[kept], names, settings, own[kept])


def class_scores(galaxies: Galaxies, settings: SetSettings) -> tuple[tuple[str, ...], Float[np.ndarray, "n c"]]:
    """Return the names of the classes, and the score of each galaxy for each; 0 where a question was not asked.

    A score is the product of the fractions along the path of the tree (Guan et al., arXiv 2311.17967), or with
    ``score=lower_bound`` the 5 % quantile of this product under Dirichlet posteriors of the fractions (prior 1).

    Raises
    ------
    ConfigError
        The survey has no votes for the classes, or there is no such class.
    """
    wanted = settings.classes
    if not settings.recipe and (wanted == POPULATIONS or (wanted == AUTO and galaxies.tree is None)):
        if galaxies.truth is None:
            raise ConfigError(
                "the survey has neither votes nor known populations", value=f"set.classes={wanted}",
                fix="Choose a survey with votes (data.votes=…), or a mock sky.",
            )  # fmt: skip
        populations = np.asarray(galaxies.truth.column(tables.POPULATION).to_pylist(), dtype=str)
        known = tuple(settings.only) or tuple(sorted(set(populations)))
        _refuse_unknown(known, sorted(set(populations)))
        return known, np.stack([(populations == name).astype(float) for name in known], axis=1)
    if galaxies.tree is None or galaxies.votes is None:
        raise ConfigError(
            "the survey has no votes", value=f"set.classes={wanted}", fix="Choose a survey with votes: data.votes=…."
        )
    tree, votes = galaxies.tree, galaxies.votes
    recipe, dropped = _recipe(tree, votes, settings)
    _refuse_unknown(settings.only, list(recipe))
    scores = _scores(tree, votes, [*recipe.values(), *dropped], bound=settings.score == LOWER_BOUND)
    # A galaxy that another class or an artifact has a better claim on belongs to none of those that are kept.
    own = scores.max(axis=1, keepdims=True)
    sure = np.where(scores == own, scores, 0.0)[:, : len(recipe)]
    names = tuple(settings.only) or tuple(recipe)
    return names, sure[:, [list(recipe).index(name) for name in names]]


def _refuse_unknown(only: Sequence[str], known: Sequence[str]) -> None:
    absent = sorted(set(only) - set(known))
    if absent:
        raise ConfigError("no such class", value=absent[0], fix=f"Choose from: {', '.join(known)}.")


def _recipe(tree: QuestionTree, votes: Any, settings: SetSettings) -> tuple[Mapping[str, str], list[str]]:
    """Return the expression of each class, and those of what competes and is dropped."""
    if settings.recipe:
        return settings.own_recipe, []
    empty = pa.table({answer: pa.array([1.0]) for answer in tree.answers})
    for name in RECIPES if settings.classes == AUTO else [settings.classes]:
        dropped = [_DROPPED[name]] if name in _DROPPED else []
        try:
            for expression in [*RECIPES[name].values(), *dropped]:
                evaluate(expression, empty, called="recipe of a class")
        except ConfigError:
            if settings.classes != AUTO:
                raise
            continue
        scores = _scores(tree, votes, [*RECIPES[name].values(), *dropped], bound=False)
        counts = np.bincount(scores.argmax(axis=1)[scores.max(axis=1) > 0], minlength=len(RECIPES[name]))
        if settings.classes != AUTO or counts[: len(RECIPES[name])].min() >= settings.per_class:
            return RECIPES[name], dropped
    raise ConfigError(
        "the votes name no classes of a known recipe with enough galaxies",
        value=f"tree {tree.name}, {settings.per_class} galaxies of each class",
        fix="Lower set.train and set.test, or write a recipe: \"set.recipe=['spiral=`has-spiral-arms_yes`']\".",
    )


def _scores(
    tree: QuestionTree, votes: Float32[np.ndarray, "n a"], expressions: list[str], *, bound: bool
) -> Float[np.ndarray, "n k"]:
    """Return the value of expressions of the fractions of each galaxy."""
    fractions = tree.fractions(votes).astype(np.float64)
    if not bound:
        table = pa.table({answer: fractions[:, k] for k, answer in enumerate(tree.answers)})
        return np.nan_to_num(np.stack([evaluate(text, table, called="recipe of a class") for text in expressions], 1))
    random = np.random.default_rng(0)
    drawn = np.empty((_DRAWS, len(votes), len(expressions)), dtype=np.float32)
    for draw in range(_DRAWS):
        weights = random.standard_gamma(votes.astype(np.float64) + 1)
        posterior = np.where(np.isfinite(fractions), tree.fractions(weights), np.nan)
        table = pa.table({answer: posterior[:, k].astype(np.float64) for k, answer in enumerate(tree.answers)})
        drawn[draw] = np.stack([evaluate(text, table, called="recipe of a class") for text in expressions], 1)
    return np.nan_to_num(np.quantile(np.nan_to_num(drawn), _QUANTILE, axis=0))


def _places(ids: np.ndarray) -> Float[np.ndarray, " n"]:
    return np.array([int.from_bytes(hashlib.sha256(str(galaxy).encode()).digest()[:6], "big") for galaxy in ids], float)


def _groups(galaxies: Galaxies, rows: np.ndarray, settings: SetSettings) -> np.ndarray:
    """Return a group number per galaxy, equal for near-identical images; refuse cutouts of several sizes."""
    prints = []
    shapes: dict[tuple[int, ...], str] = {}
    for row in tqdm(rows, desc="looking for near-identical images", unit="galaxy", leave=False):
        cutout = galaxies.images.cutout(int(row))
        shapes.setdefault(cutout.shape[:2], str(galaxies.ids[row]))
        prints.append(fingerprint(cutout))
    if len(shapes) > 1 and settings.several_sizes == STOP:
        sizes = ", ".join(f"{height}×{width} px" for height, width in list(shapes)[:4])
        raise DataError(
            "the images have several sizes", value=sizes,
            fix="Cut them to one size, or resize them all with set.several_sizes=resize.",
            ids=list(shapes.values()),
        )  # fmt: skip
    return near_identical(np.stack(prints))


def _parts(groups: np.ndarray, labels: np.ndarray, settings: SetSettings, ids: np.ndarray) -> np.ndarray:
    """Return the part of each galaxy; groups stay whole, and each class has the same number in each part.

    Groups of a class are taken in a random order until the test part is full, then the validation part, then the
    training part. The galaxies of a group that does not fit are left out, and so is a group of two classes.
    """
    parts = np.full(len(labels), "", dtype=object)
    sizes = {TEST: settings.test, VALIDATION: settings.validation, TRAIN: settings.train - settings.validation}
    random = np.random.default_rng([settings.seed, 21])
    of_several = {group for group in np.unique(groups) if len(set(labels[groups == group])) > 1}
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(ids[members].astype(str), kind="stable")]
        left = dict(sizes)
        for group in random.permutation(np.unique(groups[members])):
            inside = members[groups[members] == group]
            if group in of_several:
                continue
            part = next((part for part, room in left.items() if room >= len(inside)), None)
            if part is not None:
                parts[inside], left[part] = part, left[part] - len(inside)
    fewest = {part: min(int(((parts == part) & (labels == k)).sum()) for k in np.unique(labels)) for part in sizes}
    if min(fewest.values()) < 1:
        raise DataError(
            "nearly all images of a class are copies of each other",
            value=fewest,
            fix="Remove the copies from the table.",
        )
    for part, count in fewest.items():
        for label in np.unique(labels):
            parts[np.flatnonzero((parts == part) & (labels == label))[count:]] = ""
    return parts
