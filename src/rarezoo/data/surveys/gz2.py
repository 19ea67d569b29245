"""``data=gz2``: Galaxy Zoo 2, SDSS gri cutouts with vote fractions (Willett et al. 2013, MNRAS 435, 2835)."""

import os
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rarezoo import tables
from rarezoo.data.images import TarImages
from rarezoo.data.reading import ids_of, read_any_table
from rarezoo.data.survey import Galaxies, Survey, catalogue_table
from rarezoo.data.trees import Question, QuestionTree, named_tree
from rarezoo.errors import DataError, DataNotFound
from rarezoo.settings import option, setting

FOLDER_VARIABLE = "RAREZOO_GZ2"
CLASS5 = "class5"
# A fraction is at most one, up to rounding.
_ONE = 1.02
# Which of smooth, featured, artifact, odd and not odd is the largest fraction in the full votes; a column of
# measured.csv, which may lie beside the catalogue. Its "odd" is Class6 in other words.
C5, _MEASURED = "c5", "measured.csv"
ODD_FEATURE = "odd-feature-gz2"

# Column of each answer in the challenge of 2013-14, in the order of its own description (Willett et al. 2013, table 2).
_COLUMNS = {
    "smooth-or-featured-gz2": {"smooth": "Class1.1", "featured-or-disk": "Class1.2", "artifact": "Class1.3"},
    "disk-edge-on-gz2": {"yes": "Class2.1", "no": "Class2.2"},
    "bar-gz2": {"yes": "Class3.1", "no": "Class3.2"},
    "has-spiral-arms-gz2": {"yes": "Class4.1", "no": "Class4.2"},
    "bulge-size-gz2": {"no": "Class5.1", "just-noticeable": "Class5.2", "obvious": "Class5.3", "dominant": "Class5.4"},
    "something-odd-gz2": {"yes": "Class6.1", "no": "Class6.2"},
    "how-rounded-gz2": {"round": "Class7.1", "in-between": "Class7.2", "cigar": "Class7.3"},
    "bulge-shape-gz2": {"round": "Class9.1", "boxy": "Class9.2", "no-bulge": "Class9.3"},
    "spiral-winding-gz2": {"tight": "Class10.1", "medium": "Class10.2", "loose": "Class10.3"},
    "spiral-arm-count-gz2": {
        "1": "Class11.1", "2": "Class11.2", "3": "Class11.3",
        "4": "Class11.4", "more-than-4": "Class11.5", "cant-tell": "Class11.6",
    },
    ODD_FEATURE: {
        "ring": "Class8.1", "lens-or-arc": "Class8.2", "disturbed": "Class8.3", "irregular": "Class8.4",
        "other": "Class8.5", "merger": "Class8.6", "dust-lane": "Class8.7",
    },
}  # fmt: skip
_CLASS5_ANSWERS = {
    "completely round smooth": "completely-round-smooth",
    "In between smooth": "in-between-smooth",
    "Cigar-shaped smooth": "cigar-shaped-smooth",
    "edge-on": "edge-on",
    "spiral": "spiral",
}


@option("data", "gz2")
@dataclass
class Gz2(Survey):
    """The Galaxy Zoo 2 sample as a folder: catalogue.csv beside images-*.tar.

    Fractions become counts: the fractions in the table are multiplied down the tree, so fraction × volunteers is the
    number of volunteers who gave that answer; it is rounded. The table does not say how many volunteers saw a galaxy;
    a typical Galaxy Zoo 2 galaxy has 40-45. ``class5``, where given, is a question of its own with one vote. Galaxies
    without votes are kept, all their questions masked. Questions in ``leave_out`` are not in the tree; their fractions
    stay in the catalogue, so that a class can be checked for answers that the network never saw.
    """

    path_settings = ("folder",)

    folder: str = setting(
        "", f"folder of catalogue.csv and images-*.tar; empty: the environment variable {FOLDER_VARIABLE}",
        positional=True,
    )  # fmt: skip
    _: KW_ONLY
    volunteers: int = setting(42, "number of volunteers that a fraction of 1 stands for", unit="votes", ge=1)
    voted: bool = setting(False, "whether only the galaxies with vote fractions are used: one in seven of the sample")
    leave_out: list[str] = setting(
        ["something-odd-gz2", ODD_FEATURE],
        "questions that the network is not trained on, so that finding such galaxies is a fair test",
    )

    def _absolute_paths(self) -> dict[str, str]:
        folder = self.folder or os.environ.get(FOLDER_VARIABLE, "")
        return {"folder": str(Path(folder).resolve())} if folder else {}

    def _read(self) -> Galaxies:
        folder = Path(self._absolute_paths().get("folder", ""))
        if folder == Path() or not (folder / "catalogue.csv").is_file():
            raise DataNotFound(
                "no Galaxy Zoo 2 sample", value=self.folder or "(no folder given)",
                fix=f"Say where catalogue.csv and images-*.tar are: data.folder=DIR or {FOLDER_VARIABLE}=DIR.",
            )  # fmt: skip
        table = _read_catalogue(folder / "catalogue.csv")
        if (folder / _MEASURED).is_file():
            table = _with_c5(table, folder / _MEASURED)
        if self.voted:
            table = table.filter(pc.is_valid(table["Class1.1"]))
        ids = table[tables.ID].to_pylist()
        tree = gz2_tree().without(self.leave_out)
        names = [f"{galaxy}.jpg" for galaxy in ids]
        return Galaxies(
            # The sample gives no positions.
            catalogue=catalogue_table(
                ids, names, survey="gz2", source="catalogue.csv", columns=table.drop_columns([tables.ID])
            ),
            images=TarImages(sorted(folder.glob("images-*.tar")), names, ids, skip_absent=self.on_bad_image == "skip"),
            tree=tree,
            votes=np.stack([self._answer_counts(table, answer) for answer in tree.answers], axis=1),
        )

    def _answer_counts(self, table: pa.Table, answer: str) -> np.ndarray:
        question, label = answer.rsplit("_", 1)
        if question == CLASS5:
            spelled = next(text for text, short in _CLASS5_ANSWERS.items() if short == label)
            matches = pc.fill_null(pc.equal(table[CLASS5], spelled), False)
            return np.asarray(matches.to_numpy(), dtype=np.float32)
        fraction = table[_COLUMNS[question][label]].to_numpy()
        return np.asarray(np.rint(np.nan_to_num(fraction) * self.volunteers), dtype=np.float32)


def question_of(column: str) -> str | None:
    """Return the question that a column of the sample answers; None for other columns.

    >>> question_of("Class6.1"), question_of("ra")
    ('something-odd-gz2', None)
    """
    if column == C5:
        return "something-odd-gz2"
    return next((question for question, answers in _COLUMNS.items() if column in answers.values()), None)


def gz2_tree() -> QuestionTree:
    """Return zoobot's Galaxy Zoo 2 tree with two questions that it lacks: the odd feature (Class8) and class5."""
    published = named_tree("gz2")
    odd = Question(
        ODD_FEATURE, tuple(f"{ODD_FEATURE}_{label}" for label in _COLUMNS[ODD_FEATURE]), "something-odd-gz2_yes"
    )
    coarse = Question(CLASS5, tuple(f"{CLASS5}_{label}" for label in _CLASS5_ANSWERS.values()))
    return QuestionTree("gz2_sample", (*published.questions, odd, coarse))


def _read_catalogue(path: Path) -> pa.Table:
    table = read_any_table(path, text=(tables.ID, CLASS5))
    fractions = [column for answers in _COLUMNS.values() for column in answers.values()]
    absent = sorted({tables.ID, CLASS5, *fractions} - set(table.column_names))
    if absent:
        raise DataError(
            f"{path} lacks columns", value=", ".join(absent[:5]), fix="Use the catalogue that came with the sample."
        )
    for column in fractions:
        try:
            numbers = table[column].cast(pa.float64())
        except pa.ArrowInvalid as problem:
            raise DataError(f"{path}: {column} holds no numbers", value=problem, fix="Correct the file.") from problem
        smallest, largest = pc.min_max(numbers).as_py().values()
        if numbers.null_count < len(numbers) and not 0 <= smallest <= largest <= _ONE:
            raise DataError(
                f"{path}: {column} must hold fractions from 0 to 1", value=f"{smallest} to {largest}",
                fix="Use the catalogue that came with the sample.",
            )  # fmt: skip
        table = table.set_column(table.column_names.index(column), column, numbers)
    galaxies = pa.array(ids_of(table, tables.ID, source=str(path)), pa.string())
    return table.set_column(table.column_names.index(tables.ID), tables.ID, galaxies)


def _with_c5(catalogue: pa.Table, path: Path) -> pa.Table:
    """Return the catalogue with the column c5 of the table of measurements, null where that has no row or no entry."""
    measured = read_any_table(path, text=(tables.ID, C5))
    if C5 not in measured.column_names:
        raise DataError(f"{path} lacks a column", value=C5, fix="Use the table that came with the sample.")
    galaxies = ids_of(measured, tables.ID, source=str(path))
    rows = pc.index_in(catalogue[tables.ID], value_set=pa.array(galaxies, pa.string()))
    return catalogue.append_column(C5, measured[C5].take(rows))
