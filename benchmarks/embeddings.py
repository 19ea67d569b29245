"""``python -m benchmarks embeddings``: which embedding finds rare galaxies better, as tables of the documentation.

It judges stores as ``rarezoo judge`` does, and writes into ``benchmarks/results``: ``NAME.csv`` (a row per measure and
contestant, a column per answer), for the curve over numbers of labels ``NAME_AUC.csv``, ``NAME_average_precision.csv``
and ``NAME_balanced_accuracy.csv`` (a row per answer and contestant, a column per number of labels), and, with
``against=``, ``NAME_differences.csv``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.documents import RESULTS
from rarezoo import tables
from rarezoo.embeddings.contestants import PHOTOMETRY
from rarezoo.embeddings.judge import Judgement, JudgeRun, texts
from rarezoo.errors import ConfigError
from rarezoo.settings import setting

_CHANCE, _KNOWN = "chance", "galaxies of the kind"


@dataclass(kw_only=True)
class EmbeddingTables(JudgeRun):
    """Judge stores, and write the tables from which the documentation takes its own."""

    name: str = setting(help="name of the tables in benchmarks/results, such as embeddings_gz2")
    names: list[str] = setting([], "names of the stores in the tables; empty: their own")
    results: str = setting(str(RESULTS), "folder of the tables")

    def check(self) -> None:
        """Raise ConfigError if there are other numbers of names and stores, or two rows would have one name."""
        if self.names and len(self.names) != len(self.stores):
            raise ConfigError(
                "one name for each store is needed", value=f"{len(self.names)} names, {len(self.stores)} stores",
                fix="Give names=A,B,… in the order of the stores.",
            )  # fmt: skip
        doubled = sorted({name for name in self.names if [*self.names, PHOTOMETRY, _CHANCE].count(name) > 1})
        if doubled:
            raise ConfigError(
                "a row of the tables needs a name of its own", value=f"names={','.join(doubled)}",
                fix="Give each store a name that no other row has.",
            )  # fmt: skip

    def run(self) -> Judgement:
        """Judge, write the tables, and return the judgement."""
        judgement = super().run()
        renamed = dict(zip(judgement.spectra, self.names or judgement.spectra, strict=True))
        table = judgement.table()
        curve = table["measure"].str.contains(" labels: ")
        _write(by_answer(table[~curve], renamed), Path(self.results) / f"{self.name}.csv")
        for score, part in table[curve].groupby(table["measure"].str.split(": ").str[1]):
            _write(by_labels(part, renamed), Path(self.results) / f"{self.name}_{str(score).replace(' ', '_')}.csv")
        if self.against:
            differences = judgement.differences(self.against)
            differences = differences[~differences["measure"].str.contains(" labels: ")]
            cells = zip(texts(differences, "+.3f"), differences["verdict"], strict=True)
            differences = differences.assign(cell=[f"{text} {verdict}" for text, verdict in cells])
            _write(_wide(differences, renamed), Path(self.results) / f"{self.name}_differences.csv")
        return judgement


def by_answer(table: pd.DataFrame, renamed: dict[str, str]) -> pd.DataFrame:
    """Return values with their intervals as text: a row per measure and contestant, a column per answer.

    The first row says how many galaxies are of each kind, and each measure begins with its chance level.

    Parameters
    ----------
    table : pandas.DataFrame
        See :meth:`rarezoo.embeddings.judge.Judgement.table`.
    renamed : dict
        New names of contestants.
    """
    marks = table["in_sample"].map({True: " *", False: ""})
    shown = table.assign(cell=[text + mark for text, mark in zip(texts(table, ".3f"), marks, strict=True)])
    first = table.drop_duplicates("answer").set_index("answer")
    known = {answer: f"{row.positives} of {row.galaxies}" for answer, row in first.iterrows()}
    chance = table.drop_duplicates(["answer", "measure"])
    chance = chance.assign(contestant=_CHANCE, cell=[f"{value:.3f}" for value in chance["chance"]])
    wide = _wide(pd.concat([chance, shown]), renamed)
    order = list(dict.fromkeys(table["measure"]))
    wide = wide.sort_values("measure", key=lambda measures: measures.map(order.index), kind="stable")
    return pd.concat([pd.DataFrame([{"measure": _KNOWN, "contestant": "", **known}]), wide])[list(wide.columns)]


def by_labels(table: pd.DataFrame, renamed: dict[str, str]) -> pd.DataFrame:
    """Return values with their intervals as text: a row per answer and contestant, a column per number of labels.

    Parameters
    ----------
    table : pandas.DataFrame
        The rows of one score of :meth:`rarezoo.embeddings.judge.Judgement.table`.
    renamed : dict
        New names of contestants.
    """
    shown = table.assign(cell=texts(table, ".3f"), labels=table["measure"].str.split(": ").str[0])
    numbers = list(dict.fromkeys(shown["labels"]))
    wide = shown.pivot_table("cell", ["answer", "contestant"], "labels", aggfunc="first", sort=False)[numbers]
    return wide.fillna("–").reset_index().replace({"contestant": renamed}).rename_axis(columns=None)


def _wide(table: pd.DataFrame, renamed: dict[str, str]) -> pd.DataFrame:
    """Return the column ``cell`` with a column per answer; a dash where something was not measured."""
    answers: Sequence[str] = list(dict.fromkeys(table["answer"]))
    wide = table.pivot_table("cell", ["measure", "contestant"], "answer", aggfunc="first", sort=False)[answers]
    return wide.fillna("–").reset_index().replace({"contestant": renamed}).rename_axis(columns=None)


def _write(table: pd.DataFrame, path: Path) -> None:
    with tables.atomic(path) as temporary:
        table.to_csv(temporary, index=False)
