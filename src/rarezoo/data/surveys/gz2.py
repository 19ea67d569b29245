"""Galaxy Zoo 2: SDSS gri cutouts with volunteers' vote fractions (Willett et al. 2013, MNRAS 435, 2835)."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rarezoo import tables
from rarezoo.data.images import TarImages
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.data.trees import Question, QuestionTree, named_tree
from rarezoo.errors import DataError
from rarezoo.settings import option, setting

FOLDER_VARIABLE = "RAREZOO_GZ2"
CLASS5 = "class5"
ODD_FEATURE = "odd-feature-gz2"

# The 2013-14 challenge's column of each answer, in the order of its own description (Willett et al. 2013, table 2).
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
    """The sample as a folder: catalogue.csv beside images-*.tar, named by ``folder`` or the variable RAREZOO_GZ2.

    Fractions become counts: the table's fractions are multiplied down the tree, so fraction × volunteers is the number
    of volunteers who gave that answer; it is rounded. How many volunteers saw a galaxy is not given; a typical Galaxy
    Zoo 2 galaxy has 40-45. ``class5``, where given, is a question of its own with one vote. Galaxies without votes are
    kept, all their questions masked. What is in ``leave_out`` is not in the tree; its fractions stay in the catalogue,
    so that classes can be asked whether they are rich in answers the network was never told.
    """

    folder: str = setting("", f"folder of catalogue.csv and images-*.tar; empty: the environment's {FOLDER_VARIABLE}")
    volunteers: int = setting(42, "volunteers that a fraction of 1 stands for", unit="votes")
    leave_out: list[str] = setting(
        ["something-odd-gz2", ODD_FEATURE], "questions kept from the network: the honest test of what it finds"
    )

    def _read(self) -> Galaxies:
        folder = self._existing_folder()
        table = _read_catalogue(folder / "catalogue.csv")
        ids = table[tables.ID].to_pylist()
        tree = gz2_tree().without(self.leave_out)
        names = [f"{one}.jpg" for one in ids]
        votes = np.stack([self._answer_counts(table, answer) for answer in tree.answers], axis=1)
        return Galaxies(
            catalogue=_catalogue(table, names),
            images=TarImages(sorted(folder.glob("images-*.tar")), names, ids),
            tree=tree,
            votes=votes,
        )

    def _existing_folder(self) -> Path:
        named = self.folder or os.environ.get(FOLDER_VARIABLE, "")
        if not named or not (Path(named) / "catalogue.csv").is_file():
            raise DataError(
                "no Galaxy Zoo 2 sample", value=named or "(no folder given)",
                fix=f"Say where catalogue.csv and images-*.tar are: data.folder=DIR or {FOLDER_VARIABLE}=DIR.",
            )  # fmt: skip
        # Absolute, so that a store remembers it wherever the next command runs.
        self.folder = str(Path(named).resolve())
        return Path(self.folder)

    def _answer_counts(self, table: pa.Table, answer: str) -> np.ndarray:
        question, short = answer.rsplit("_", 1)
        if question == CLASS5:
            spelled = next(given for given, ours in _CLASS5_ANSWERS.items() if ours == short)
            named = pc.fill_null(pc.equal(table[CLASS5], spelled), False)
            return np.asarray(named.to_numpy(), dtype=np.float32)
        fraction = table[_COLUMNS[question][short]].to_numpy()
        return np.asarray(np.rint(np.nan_to_num(fraction) * self.volunteers), dtype=np.float32)


def gz2_tree() -> QuestionTree:
    """zoobot's Galaxy Zoo 2 tree, with the odd feature (Class8) and class5 that it lacks."""
    published = named_tree("gz2")
    odd = Question(ODD_FEATURE, tuple(f"{ODD_FEATURE}_{one}" for one in _COLUMNS[ODD_FEATURE]), "something-odd-gz2_yes")
    coarse = Question(CLASS5, tuple(f"{CLASS5}_{one}" for one in _CLASS5_ANSWERS.values()))
    return QuestionTree("gz2_sample", (*published.questions, odd, coarse))


def _read_catalogue(path: Path) -> pa.Table:
    numbers = {column: pa.float64() for answers in _COLUMNS.values() for column in answers.values()}
    types = {tables.ID: pa.string(), CLASS5: pa.string(), **numbers}
    options = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=True)
    table = pa.csv.read_csv(path, convert_options=options)
    absent = sorted(set(types) - set(table.column_names))
    if absent:
        raise DataError(f"{path} lacks columns", value=", ".join(absent[:5]), fix="Get the sample's own catalogue.")
    return table


def _catalogue(table: pa.Table, names: list[str]) -> pa.Table:
    """The sample's table with our columns; it gives no positions."""
    unknown = pa.nulls(table.num_rows, pa.float64())
    ours = {
        tables.ID: table[tables.ID],
        tables.RA: unknown,
        tables.DEC: unknown,
        tables.IMAGE: pa.array(names, pa.string()),
        tables.SURVEY: pa.array(["gz2"] * table.num_rows),
        tables.SPLIT: pa.nulls(table.num_rows, pa.string()),
    }
    kept = {name: table[name] for name in table.column_names if name not in ours}
    return tables.check(pa.table({**ours, **kept}), tables.CATALOGUE, source="catalogue.csv")
