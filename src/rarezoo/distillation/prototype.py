"""A prototype of a discovered class: one picture of what a network thinks its members share and other galaxies lack.

The class is set against galaxies that are matched in magnitude, size and colour, so that what remains is the form. The
picture is shown in place of the medoid only if a judge that did not make it says so::

    members and their matched galaxies: 60 % make the picture, 20 % choose settings, 20 % are held out
    judge:   fresh networks (or the encoder of another architecture) that see one picture of each side
    passed:  accuracy on the held-out galaxies − that of the medoids  > 0, and
             accuracy on the held-out galaxies − that of the means    > 0, both with the whole 95 % interval

Shape letters: m members, n galaxies, s side in px, d dimensions of the embedding.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from rarezoo import tables
from rarezoo.data import photometry, structure
from rarezoo.data.duplicates import fingerprint, near_identical
from rarezoo.data.splits import TEST, TRAIN, VALIDATION
from rarezoo.data.survey import Galaxies
from rarezoo.distillation.data import GalaxySet, SetSettings
from rarezoo.distillation.features import (
    FeatureSettings,
    FrozenEncoder,
    companion_of,
    finest_level,
    match_features,
    means_and_scatter,
)
from rarezoo.distillation.judge import JudgeSettings, Verdict, accuracy_interval, judge, paired_difference
from rarezoo.distillation.output import picture, write_fits
from rarezoo.distillation.real_images import MEDOID, medoid
from rarezoo.errors import ConfigError, DataError
from rarezoo.runs import digest
from rarezoo.settings import Settings, setting
from rarezoo.statistics import Interval

if TYPE_CHECKING:
    from rarezoo.searches.result import FoundClass

log = logging.getLogger(__name__)
FOLDER, RECORD = "prototypes", "prototype.json"
NETWORKS = "networks"
# What galaxies are matched in; concentration is left out, because it is a part of the form.
MATCHED = ("colour_red_green", "colour_green_blue", "half_light_radius", "brightness")
_FEWEST = 20
_NAMES = ("other galaxies", "class")
# Candidates for matched galaxies that are measured: for each member, at least, and at most.
_CANDIDATES, _FEWEST_CANDIDATES, _MOST = 10, 2500, 6000


@dataclass(kw_only=True)
class PrototypeSettings(Settings):
    """How a prototype is made and judged.

    Examples
    --------
    >>> PrototypeSettings(side=64).side
    64
    """

    prefix: ClassVar[str] = "prototype"

    features: FeatureSettings = setting(FeatureSettings, "how the picture is made")
    judge: JudgeSettings = setting(JudgeSettings, "how it is judged by fresh networks")
    judged_by: str = setting(
        NETWORKS, "judge: networks (fresh ones, trained on the pictures), or the name of a checkpoint of another "
        "architecture, in whose embedding a galaxy belongs to the nearer picture",
    )  # fmt: skip
    side: int = setting(32, "side of the images that fresh networks see", unit="px", ge=8)
    shares: list[float] = setting(
        [0.6, 0.2], "shares of the members that make the picture, and that choose settings", gt=0
    )
    most: int = setting(600, "most members that are used", unit="galaxies", ge=_FEWEST)
    seed: int = setting(0, "seed", ge=0)


@dataclass(frozen=True, repr=False)
class Prototype:
    """A prototype with the verdict on it.

    Attributes
    ----------
    pixels
        (3, s, s) the picture in grey levels.
    passed
        Whether the judge says that it is worth more than the medoid and the mean.
    over_medoid, over_mean
        Accuracy on held-out galaxies with the prototype, less that with the medoid and with the mean image.
    accuracy
        Accuracy of each contestant.
    held_out
        Number of galaxies that were held out, half of them members.
    judged_by
        The judge.
    encoder
        The checkpoint that made it.
    balance
        Largest difference of the means of class and matched galaxies in what they were matched in, in standard
        deviations.
    measured
        What was measured of the cutouts: for each number the medians of members and matched galaxies, and the values
        of prototype and medoid.
    folder
        Folder of its files; None if it was not written.

    Examples
    --------
    >>> import numpy as np
    >>> none = Interval(0.0, -0.1, 0.1)
    >>> Prototype(np.zeros((3, 8, 8)), False, none, none, {}, 40, "networks", "mine", 0.0, {}).image.size
    (8, 8)
    """

    pixels: Float[np.ndarray, "3 s s"]
    passed: bool
    over_medoid: Interval
    over_mean: Interval
    accuracy: dict[str, Interval]
    held_out: int
    judged_by: str
    encoder: str
    balance: float
    measured: dict[str, dict[str, float]]
    folder: Path | None = None

    @property
    def image(self) -> Image.Image:
        """The picture."""
        return Image.fromarray(picture(self.pixels))

    def __repr__(self) -> str:
        verdict = "passed" if self.passed else "did not pass"
        medoid, mean = self.over_medoid.text("+.3f"), self.over_mean.text("+.3f")
        return f"<prototype, {verdict}: {medoid} over the medoid, {mean} over the mean image, {self.held_out} held out>"

    def summary(self) -> str:
        """Return what a terminal shows."""
        return repr(self)

    def features_it_has(self) -> dict[str, float]:
        """Return how far along the way from matched galaxies to members it lies, for what differs between them.

        Only numbers are listed in which members and matched galaxies differ by half a standard deviation or more: 0
        is the median of the matched galaxies, 1 that of the members.
        """
        return {
            name: (row["prototype"] - row["others"]) / (row["members"] - row["others"])
            for name, row in self.measured.items()
            if abs(row["effect"]) >= 0.5
        }


def prototype_of_class(found: "FoundClass", settings: PrototypeSettings | None = None) -> Prototype:
    """Make the prototype of a class of a search, or read it if it was made with the same settings.

    The files are in ``prototypes/class-ID`` in the folder of the search; its report shows them when it is written
    again.

    Raises
    ------
    DataError
        The class has too few members, or the survey cannot be opened.
    CheckpointError
        The checkpoint that embedded the store cannot be opened.
    """
    search = found.search
    settings = settings or PrototypeSettings()
    if not settings.features.checkpoint:
        name = str(search.about.get("checkpoint") or "")
        settings = replace(settings, features=replace(settings.features, checkpoint=name))
    folder = search.folder / FOLDER / f"class-{found.id:03d}"
    galaxies = search.survey()
    key = digest(
        {"settings": asdict(settings), "labels": search.labels.tolist(), "survey": galaxies.sha256, "class": found.id}
    )
    kept = read_prototype(folder, key=key)
    if kept is not None:
        return kept
    made = make_prototype(
        galaxies, search.ids, _embeddings(search), search.labels == found.id, settings, saved=folder / "state.pt"
    )
    return write_prototype(folder, made, key=key)


def _embeddings(search: Any) -> Float[np.ndarray, "n d"]:
    """Return the embeddings of the galaxies searched, in their order."""
    row_of = {galaxy: row for row, galaxy in enumerate(search.store.ids)}
    rows = np.array([row_of[galaxy] for galaxy in search.ids])
    return np.asarray(search.store.embeddings()[rows], dtype=np.float32)


@dataclass(frozen=True)
class MadePrototype:
    """A prototype before it is written, with its rivals.

    Attributes
    ----------
    prototype
        The prototype.
    rivals
        Medoid and mean image of the class in grey levels, and the picture of the matched galaxies.
    """

    prototype: Prototype
    rivals: dict[str, Float[np.ndarray, "3 s s"]]


def make_prototype(
    galaxies: Galaxies,
    ids: Sequence[str] | np.ndarray,
    embeddings: Float[np.ndarray, "n d"],
    members: np.ndarray,
    settings: PrototypeSettings,
    *,
    saved: Path | None = None,
    encoder: FrozenEncoder | None = None,
) -> MadePrototype:
    """Make and judge the prototype of any group of galaxies, such as a class, or random galaxies for a null test.

    Parameters
    ----------
    galaxies
        The survey.
    ids
        Ids of n galaxies of the survey.
    embeddings
        (n, d) their embeddings by the encoder.
    members
        (n,) whether each belongs to the group.
    settings
        Settings; ``features.checkpoint`` names the encoder.
    saved
        File that keeps the state of the matching.
    encoder
        The encoder, if it is open already.

    Raises
    ------
    DataError
        The group has too few members, or there are too few other galaxies.
    """
    encoder = encoder or FrozenEncoder.open(settings.features.checkpoint)
    if settings.judged_by == encoder.name:
        raise ConfigError(
            "the judge must not be the network that made the picture", value=f"judged_by={settings.judged_by}",
            fix="Name a checkpoint of another architecture, or judged_by=networks.",
        )  # fmt: skip
    row_of = {galaxy: row for row, galaxy in enumerate(galaxies.ids)}
    rows = np.array([row_of[galaxy] for galaxy in ids])
    inside, outside, balance = _matched(galaxies, rows, np.asarray(members, dtype=bool), settings)
    pair_parts = _pair_parts(len(inside), settings)
    of_pairs = np.concatenate([outside, inside])
    chosen = GalaxySet(
        galaxies, rows[of_pairs], np.repeat([0, 1], len(inside)), np.concatenate([pair_parts, pair_parts]), _NAMES,
        SetSettings(side=settings.side, zoom=encoder.zoom), np.ones(2 * len(inside)),
    )  # fmt: skip
    part = torch.from_numpy(np.asarray(embeddings[of_pairs[chosen.parts == TRAIN]], dtype=np.float32))
    labels = chosen.labels_of(TRAIN)
    sides = [torch.nonzero(labels == number).flatten() for number in (0, 1)]
    centres = torch.stack([part[rows].mean(dim=0) for rows in sides])
    spread = torch.from_numpy(np.asarray(embeddings, dtype=np.float32).std(axis=0)).clamp(min=1e-6)
    large = chosen.pixels(TRAIN, side=encoder.side)
    means, scatter = means_and_scatter([large[rows].float() / 255 for rows in sides])
    nearest = [medoid(part, rows) for rows in sides]
    images, _ = match_features(
        encoder, centres, centres.mean(dim=0), spread,
        large[nearest].float() / 255 if settings.features.start == MEDOID else means, scatter, settings.features,
        companion=companion_of(chosen, sides, settings.features),
        finest=finest_level(chosen, settings.features, encoder.side), saved=saved,
    )  # fmt: skip
    contestants = {
        "prototype": images * 255,
        "medoid": large[nearest].float(),
        "mean": means * 255,
    }
    verdicts = {name: _verdict(chosen, pictures, settings) for name, pictures in contestants.items()}
    over = {
        name: paired_difference(verdicts["prototype"].right, verdicts[name].right, draws=settings.judge.draws)
        for name in ("medoid", "mean")
    }
    prototype = Prototype(
        pixels=contestants["prototype"][1].numpy(), passed=all(value.low > 0 for value in over.values()),
        over_medoid=over["medoid"], over_mean=over["mean"],
        accuracy={
            name: accuracy_interval(verdict.right, draws=settings.judge.draws) for name, verdict in verdicts.items()
        },
        held_out=int((chosen.parts == TEST).sum()), judged_by=settings.judged_by, encoder=encoder.name, balance=balance,
        measured=_measured(large.numpy(), labels.numpy(), contestants),
    )  # fmt: skip
    rivals = {name: contestants[name][1].numpy() for name in ("medoid", "mean")}
    return MadePrototype(prototype, {**rivals, "others": contestants["prototype"][0].numpy()})


def _matched(
    galaxies: Galaxies, rows: Int64[np.ndarray, " n"], members: np.ndarray, settings: PrototypeSettings
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"], float]:
    """Return members without copies and a matched galaxy for each, as places among the n galaxies, and the balance."""
    from scipy.optimize import linear_sum_assignment

    random = np.random.default_rng([settings.seed, 31])
    inside = np.flatnonzero(members)
    if len(inside) > settings.most:
        inside = np.sort(random.choice(inside, settings.most, replace=False))
    if len(inside):
        prints = np.stack([fingerprint(galaxies.images.cutout(int(row))) for row in rows[inside]])
        inside = inside[np.sort(np.unique(near_identical(prints), return_index=True)[1])]
    candidates = np.flatnonzero(~members)
    if len(inside) < _FEWEST or len(candidates) < 2 * len(inside):
        raise DataError(
            "too few galaxies for a prototype", value=f"{len(inside)} members, {len(candidates)} other galaxies",
            fix=f"A class needs {_FEWEST} members that are no copies, and twice as many other galaxies.",
        )  # fmt: skip
    drawn = min(len(candidates), _MOST, max(_FEWEST_CANDIDATES, _CANDIDATES * len(inside)))
    candidates = np.sort(random.choice(candidates, drawn, replace=False))
    places = [photometry.COLUMNS.index(name) for name in MATCHED]
    own, others = (photometry.photometry(galaxies.images, rows[part])[:, places] for part in (inside, candidates))
    scale = np.maximum(np.concatenate([own, others]).std(axis=0), 1e-6)
    cost = (((own[:, None, :] - others[None, :, :]) / scale) ** 2).sum(axis=2)
    _, picked = linear_sum_assignment(cost)
    balance = np.abs(own.mean(axis=0) - others[picked].mean(axis=0)) / scale
    return inside, candidates[picked], float(balance.max())


def _pair_parts(pairs: int, settings: PrototypeSettings) -> np.ndarray:
    """Return the part of each pair of a member and its matched galaxy."""
    order = np.random.default_rng([settings.seed, 37]).permutation(pairs)
    first, second = (round(pairs * share) for share in np.cumsum(settings.shares))
    parts = np.full(pairs, TEST, dtype=object)
    parts[order[:second]] = VALIDATION
    parts[order[:first]] = TRAIN
    return parts


def _verdict(chosen: GalaxySet, pictures: Float[Tensor, "2 3 s s"], settings: PrototypeSettings) -> Verdict:
    """Let the judge tell the held-out galaxies of both sides apart by one picture of each."""
    resized = partial(torch.nn.functional.interpolate, mode="bilinear", antialias=True, align_corners=False)
    labels = torch.tensor([0, 1])
    if settings.judged_by == NETWORKS:
        centre, spread = chosen.scaling
        images = (resized(pictures, (settings.side, settings.side)) - centre) / spread
        return judge([(images, labels)], chosen, settings.judge)
    other = FrozenEncoder.open(settings.judged_by)
    with torch.no_grad():
        seen = other(resized(pictures, (other.side, other.side)).clamp(0, 255) / 255)
    known = other.embedded(chosen.pixels(TRAIN, side=other.side))
    spread = known.std(dim=0).clamp(min=1e-6)
    hidden = other.embedded(chosen.pixels(TEST, side=other.side))
    right = torch.cdist(hidden / spread, seen / spread).argmin(dim=1) == chosen.labels_of(TEST)
    return Verdict(right[None, :].numpy(), float("nan"), {})


def _measured(
    large: UInt8[np.ndarray, "k 3 s s"], labels: np.ndarray, contestants: dict[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Measure colour, size, concentration and structure of members, matched galaxies, prototype and medoid."""

    def numbers(pixels: UInt8[np.ndarray, "s s 3"]) -> np.ndarray:
        return np.concatenate([photometry.measurements(pixels), structure.measurements(pixels)])

    values = np.stack([numbers(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in large])
    names = (*photometry.COLUMNS, *structure.COLUMNS)
    own = {name: numbers(picture(contestants[name][1].numpy())) for name in ("prototype", "medoid")}
    result = {}
    for place, name in enumerate(names):
        members, others = values[labels == 1, place], values[labels == 0, place]
        scatter = max(float(np.sqrt((members.var() + others.var()) / 2)), 1e-9)
        result[name] = {
            "members": float(np.median(members)), "others": float(np.median(others)),
            "effect": float((members.mean() - others.mean()) / scatter),
            **{kind: float(found[place]) for kind, found in own.items()},
        }  # fmt: skip
    return result


def write_prototype(folder: Path, made: MadePrototype, *, key: str = "") -> Prototype:
    """Write the record, the pictures and a FITS file of a prototype; return it with its folder."""
    prototype = made.prototype
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"prototype": prototype.pixels, **made.rivals}
    for name, pixels in pictures.items():
        with tables.atomic(folder / f"{name}.png") as temporary:
            Image.fromarray(picture(pixels)).save(temporary, format="PNG")
    write_fits(
        folder / "prototype.fits", {name: pixels[None] for name, pixels in pictures.items()}, encoder=prototype.encoder
    )
    content = {
        "key": key, "passed": prototype.passed, "over_medoid": list(prototype.over_medoid),
        "over_mean": list(prototype.over_mean),
        "accuracy": {name: list(value) for name, value in prototype.accuracy.items()},
        "held_out": prototype.held_out, "judged_by": prototype.judged_by, "encoder": prototype.encoder,
        "balance": prototype.balance, "measured": prototype.measured,
    }  # fmt: skip
    tables.write_json(content, folder / RECORD)
    return replace(prototype, folder=folder)


def read_prototype(folder: Path, *, key: str | None = None) -> Prototype | None:
    """Return a prototype from its folder; None if there is none, or one with another key."""
    from astropy.io import fits

    if not (folder / RECORD).is_file():
        return None
    content = tables.read_json(folder / RECORD, fix="Make the prototype again.")
    if key is not None and content["key"] != key:
        return None
    with fits.open(folder / "prototype.fits") as units:
        # FITS counts rows from below.
        pixels = np.asarray(units[1].data, dtype=np.float32)[0, :, ::-1].copy()
    return Prototype(
        pixels=pixels, passed=bool(content["passed"]), over_medoid=Interval(*content["over_medoid"]),
        over_mean=Interval(*content["over_mean"]),
        accuracy={name: Interval(*value) for name, value in content["accuracy"].items()}, held_out=content["held_out"],
        judged_by=content["judged_by"], encoder=content["encoder"], balance=content["balance"],
        measured=content["measured"], folder=folder,
    )  # fmt: skip
