"""A search of a store that is too large for the memory: ``cluster.py engine=…``.

::

    draw a stratified sample, search it as always                       sample/
    assign every galaxy to its classes, shard by shard                  placed/
    gather galaxies of no class that are far from everything, from all
    shards, and search them, or as many as the sample has, as a survey
    of their own; assign the others of them to its classes              second/
    put both together: an ordinary search, with the counts of all       the folder itself

A class that is too rare for the sample has no members there. If it lies apart from the bulk, its galaxies are far from
everything that was sampled, and there are many of them among the gathered ones. A rare class inside the bulk is not
found so.

The finished folder is an ordinary search over the galaxies that are shown: the sample, the members of all classes, and
the gathered galaxies. Sizes of classes are those among all galaxies. ``placed/`` has a row for every galaxy.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rarezoo import tables
from rarezoo.data.survey import Galaxies, Survey
from rarezoo.data.surveys.selected import Selected, write_selected
from rarezoo.embeddings.parts import lock_if_possible, parts_of_shards
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.engines import Engine, Part
from rarezoo.errors import ConfigError, StoreError, StoreNotFound
from rarezoo.runs import digest, relocated
from rarezoo.searches.assign import ReferenceSet, assigned_table
from rarezoo.searches.assigner import Assigner
from rarezoo.searches.compress import FittedMap
from rarezoo.searches.grades import class_directions, counts, graded
from rarezoo.searches.novelty import ALARM, FAR, find_novelty
from rarezoo.searches.result import FITTED, TABLES, Search
from rarezoo.searches.select import Select
from rarezoo.searches.significance import Significance
from rarezoo.searches.stratified import (
    Counts,
    Strata,
    drawn_rows,
    exact_sample,
    fraction_columns,
    hashes_of,
    kept_rows,
    keys_of,
    refuse_doubled_ids,
)
from rarezoo.track import Tracker

if TYPE_CHECKING:
    from rarezoo.searches.run import SearchRun

log = logging.getLogger(__name__)
SAMPLE, PLACED, SECOND, STORE, LARGE_FILE = "sample", "placed", "second", "store", "large.json"
_LOCKS, _IDS, _MEMBERS = ".locks", "ids", "member.parquet"
SECOND_PASS = "second pass"
# Galaxies of a shard in memory at once while they are placed, and parts into which the shards are divided.
_ROWS, _PARTS = 10_000, 256
# Fewest far galaxies that are searched as a survey of their own.
_FEWEST_FAR = 100
# Galaxies of a sample up to which each new galaxy is compared with all of them.
_EXACT = 20_000
# A class may be a large share of the galaxies that are far from everything; it is rare among all.
_LARGEST = 0.45
_STRATUM, _KEY, _ROW = "stratum", "key", "row"


@dataclass(frozen=True)
class LargeSearch:
    """A search out of core.

    Attributes
    ----------
    run
        The search, with its engine.
    store
        The whole store.
    folder
        Claimed output folder.
    """

    run: "SearchRun"
    store: EmbeddingStore
    folder: Path

    @property
    def engine(self) -> Engine:
        """Where the parts run."""
        assert self.run.engine is not None
        return self.run.engine

    def search(self, inputs: dict[str, Any]) -> Search:
        """Do everything that is not done yet; return the finished search."""
        with lock_if_possible(self.folder / _LOCKS / "search"):
            if (self.folder / "run.json").exists():
                return Search.open(self.folder)
            sample = self._sampled()
            log.info("The sample has %d of %d galaxies. First it is searched alone.", len(sample), len(self.store))
            first = self._search_of(sample.folder, self.folder / SAMPLE / "search", self.run.significance)
            summaries = self._placed(first)
            second = self._second(summaries)
            return self._together(first, second, summaries, inputs)

    def _search_of(self, store: Path, out: Path, significance: Significance) -> Search:
        """Search some galaxies in the memory; cuts were made already, and there is one report at the end."""
        from rarezoo.searches.run import OUT_OF_CORE

        in_memory: dict[str, Any] = {
            known.name: known.default for known in fields(self.run) if known.name in ("engine", *OUT_OF_CORE)
        }
        return replace(
            self.run, **in_memory, store=str(store), out=str(out), significance=significance, data=None, cache=None,
            select=replace(self.run.select, drop=[]), images=False, thumbnails=0, logger=Tracker(mode="none"),
        ).run()  # fmt: skip

    # --- the sample

    def _parts(self, title: str) -> list[Part]:
        return parts_of_shards(range(self.store.manifest.shards), _PARTS, title=title)

    def _survey(self) -> Survey | None:
        """Return the survey of the store, for positions and magnitudes; None if there is none."""
        if self.run.data is not None:
            return self.run.data
        return self.store.survey() if self.store.has_survey else None

    def _sampled(self) -> EmbeddingStore:
        """Return the store of the sample: written already, or drawn now."""
        place = self.folder / SAMPLE / STORE
        written = _whole(place)
        if written is not None:
            return written
        survey = self._survey()
        strata = Strata(self.run.magnitude)
        if survey is None and self.run.magnitude:
            raise ConfigError(
                "the store knows no survey, so that there are no magnitudes", value=f"magnitude={self.run.magnitude}",
                fix="Leave it out, or name the survey: data=….",
            )  # fmt: skip
        rows_of_survey = survey is not None and (self.run.images or survey.in_partitions or bool(self.run.magnitude))
        count = _CountShards(
            self.store, self.run.select, strata, survey if rows_of_survey else None, self.folder / SAMPLE
        )
        total = Counts()
        for counted in self.engine.run(count, self._parts("counted"), title="count"):
            total.add(counted)
        refuse_doubled_ids(sorted((self.folder / SAMPLE / _IDS).glob("*.npy")))
        if not total.kept:
            raise ConfigError("no galaxy is left to search", value=self.run.select.drop, fix="Loosen a cut.")
        allotted = total.allotted(self.run.sample)
        draw = _DrawShards(count, allotted, dict(total.strata), self.run.seed)
        self.engine.run(draw, self._parts("drawn"), title="draw")
        drawn = _concatenated(self.folder / SAMPLE / "drawn")
        chosen = exact_sample(drawn.column(_STRATUM).to_numpy(), drawn.column(_KEY).to_numpy(), allotted)
        drawn = drawn.take(pa.array(chosen))
        store = self._part_store(drawn, place, self.folder / SAMPLE / "selected.parquet")
        tables.write_json(
            {"galaxies": total.galaxies, "kept": total.kept, "strata": len(total.strata), "sample": len(store)},
            self.folder / SAMPLE / "sample.json",
        )
        for name in (_IDS, "drawn"):
            shutil.rmtree(self.folder / SAMPLE / name, ignore_errors=True)
        return store

    def _part_store(self, rows: pa.Table, place: Path, selected: Path) -> EmbeddingStore:
        """Write some galaxies of the store as a store of their own, which knows where their images are."""
        about, survey = self.store.manifest, self._survey()
        # Without images a survey is opened for positions only if that takes no more than reading these rows.
        if survey is not None and not (self.run.images or survey.in_partitions):
            survey = None
        # The survey finds galaxies by their rows.
        rows = rows.sort_by(_ROW)
        ids = rows.column(tables.ID)
        chosen = None
        if survey is not None:
            write_selected(selected, ids, rows.column(_ROW).to_numpy())
            chosen = Selected(str(selected), survey=survey.settings(), on_bad_image="skip")
        fractions = {answer: rows.column(tables.fraction_column(answer)).to_numpy() for answer in about.answers}
        return EmbeddingStore.from_array(
            tables.strings(rows, tables.ID), tables.matrix(rows, tables.EMBEDDING), out=place, name=about.checkpoint,
            fractions=fractions, survey=chosen, network_sha256=about.checkpoint_sha256,
        )  # fmt: skip

    # --- placing

    def _placed(self, first: Search) -> list[dict[str, Any]]:
        """Assign every galaxy to the classes of the first search; return the counts of each shard."""
        task = _PlaceShards(self.store, str(first.folder), self.run.select, self.folder, self.run.level, self.run.seed)
        found: list[list[dict[str, Any]]] = self.engine.run(task, self._parts("placed"), title="place")
        summaries = [summary for part in found for summary in part]
        return sorted(summaries, key=lambda summary: summary["shard"])

    # --- the second pass

    def _second(self, summaries: Sequence[dict[str, Any]]) -> Search | None:
        """Search the galaxies that belong to nothing and are far from everything; None if they are too few."""
        far = sum(summary["far"] for summary in summaries)
        place = self.folder / SECOND
        if not self.run.second_pass or far < _FEWEST_FAR:
            return None
        files = [
            self.folder / PLACED / f"far-{summary['shard']:05d}.parquet" for summary in summaries if summary["far"]
        ]
        # Of more galaxies than a search can hold, each has the same chance.
        share = min(1.0, self.run.sample / far)
        if _whole(place / STORE) is None:
            kept = []
            for file in files:
                rows = _kept_rows(file)
                keys = keys_of(tables.strings(rows, tables.ID), seed=self.run.seed + 1)
                kept.append(rows.filter(pa.array(keys < share)))
            self._part_store(
                pa.concat_tables(kept).replace_schema_metadata(None), place / STORE, place / "selected.parquet"
            )
        significance = replace(self.run.significance, largest=_LARGEST)
        second = self._search_of(place / STORE, place / "search", significance)
        if share < 1 and not (place / _MEMBERS).exists():
            self._place_far(second, files)
        return second

    def _place_far(self, second: Search, files: Sequence[Path]) -> None:
        """Assign the far galaxies that were not searched to classes of the second search; write those in a class."""
        reference, assigner = _reference(str(second.folder), self.run.level, self.run.seed)
        members = []
        for file in files:
            rows = _kept_rows(file)
            features = reference.fitted.features(tables.matrix(rows, tables.EMBEDDING))
            own = reference.rows_of(rows.column(tables.ID), features)
            new = np.flatnonzero(own < 0)
            if not len(new):
                continue
            assigned = assigned_table(
                rows.column(tables.ID).take(pa.array(new)), assigner.assign(features[new], rows=own[new])
            )
            inside = np.flatnonzero(assigned.column(tables.CLASS_ID).to_numpy() != tables.NO_CLASS)
            part = rows.take(pa.array(new[inside]))
            for name in (tables.CLASS_ID, tables.PROBABILITY):
                part = part.append_column(name, assigned.column(name).take(pa.array(inside)))
            members.append(part)
        with tables.atomic(self.folder / SECOND / _MEMBERS) as temporary:
            pq.write_table(pa.concat_tables(members), temporary, compression="zstd")

    # --- both together

    def _together(
        self, first: Search, second: Search | None, summaries: Sequence[dict[str, Any]], inputs: dict[str, Any]
    ) -> Search:
        """Write an ordinary search of the galaxies that are shown, with the sizes of classes among all galaxies."""
        from rarezoo.searches.run import DRAWN_MAP

        shift = max([-1, *first.table("classes").column(tables.CLASS_ID).to_pylist()]) + 1
        second_labels = _second_classes(self.folder, shift)
        store, members = self._shown(first, second, second_labels)
        labels = members.column(tables.CLASS_ID).to_numpy()
        ids, embeddings = store.ids, store.embeddings()
        maps = {}
        for name, folder in (("map", FITTED), ("map_2d", DRAWN_MAP)):
            maps[name] = _extended(FittedMap.open(first.folder / folder), ids, embeddings)
        sizes = self._sizes(first, summaries, second_labels)
        total = sum(summary["galaxies"] for summary in summaries)
        classes = self._classes(first, second, shift, sizes, total)
        features = first.fitted.features(embeddings)
        known = classes.column(tables.CLASS_ID).to_pylist()
        numbers = np.full(len(labels), -1)
        for number, class_id in enumerate(known):
            numbers[labels == class_id] = number
        directions = class_directions(features, numbers, classes=len(known)) if known else None
        classes = graded(classes, level=self.run.significance.level, directions=directions)
        tree = first.table("tree")
        if second is not None:
            tree = pa.concat_tables([tree, _shifted_tree(second.table("tree"), _next_node(tree))])
        others = {"tree": tree, **maps}
        if first.has_table("nodes"):
            others["nodes"] = first.table("nodes")
        if first.has_table("main_groups"):
            others["main_groups"] = first.table("main_groups")
        for name in (FITTED, DRAWN_MAP):
            shutil.copytree(first.folder / name, self.folder / name, dirs_exist_ok=True)
        shutil.copyfile(first.folder / TABLES["linkage"][0], self.folder / TABLES["linkage"][0])
        large = self._summary(first, second, summaries, sizes, shift, total)
        about = {
            **first.about,
            "title": self.store.manifest.title,
            "survey": self.store.manifest.survey, "survey_sha256": store.manifest.survey_sha256,
            "settings": {**self.run.settings(), "store": str(store.folder.resolve())},
            "galaxies": total, "searched": total, "shown": len(ids),
            "classes": classes.num_rows, "grades": counts(classes.column(tables.GRADE).to_pylist()),
            "unassigned": 1 - sum(sizes.values()) / max(total, 1),
            "inputs": {"store": store.identity, "whole store": inputs["store"]}, "folder": str(self.folder.resolve()),
            "large": large,
        }  # fmt: skip
        galaxies = None
        if self.run.images and store.has_survey:
            galaxies = store.galaxies(way_out="Say where its images are now (data=…), or leave them out: images=false.")
        search = Search.write(
            self.folder, about, {**others, "members": members, "classes": classes}, free_class_id=max([-1, *known]) + 1,
            store=store, galaxies=galaxies, predictions=store.read([tables.ID, *fraction_columns(store)]),
        )  # fmt: skip
        search.report(images=galaxies is not None, thumbnails=self.run.thumbnails)
        tables.write_json(large, self.folder / LARGE_FILE)
        search.finish(about)
        search.log(self.run.logger, images=galaxies is not None)
        log.info("%s", large["text"])
        return search

    def _shown(
        self, first: Search, second: Search | None, second_labels: dict[str, int]
    ) -> tuple[EmbeddingStore, pa.Table]:
        """Return the store of the galaxies that are shown, and their members table in its order."""
        place = self.folder / STORE
        names = first.ids.tolist()
        labels = dict(zip(names, first.labels.tolist(), strict=True))
        inside = dict(zip(names, first.table("members").column(tables.PROBABILITY).to_pylist(), strict=True))
        outliers = dict(zip(names, first.table("members").column(tables.OUTLIER_SCORE).to_pylist(), strict=True))
        # A galaxy of the sample keeps what the search says of it, unless the second pass puts it into a class.
        parts = [_without_metadata(first.store.shard(index)) for index in range(first.store.manifest.shards)]
        rows = [_numbered(parts, self.folder / SAMPLE / "selected.parquet")]
        left = max(self.run.drawn - len(names), 0)
        placed = sorted((self.folder / PLACED).glob("member-*.parquet"))
        total = sum(_kept_rows(file, columns=[]).num_rows for file in placed)
        share = min(1.0, left / total) if total else 0.0
        for file in placed:
            part = _kept_rows(file)
            galaxies = tables.strings(part, tables.ID)
            new = np.array([galaxy not in labels for galaxy in galaxies], dtype=bool)
            new &= keys_of(galaxies, seed=self.run.seed + 2) < share if len(galaxies) else new
            part = part.filter(pa.array(new))
            for galaxy, label, probability in zip(
                part.column(tables.ID).to_pylist(), part.column(tables.CLASS_ID).to_pylist(),
                part.column(tables.PROBABILITY).to_pylist(), strict=True,
            ):  # fmt: skip
                labels[galaxy], inside[galaxy], outliers[galaxy] = label, probability, None
            rows.append(part.drop_columns([tables.CLASS_ID, tables.PROBABILITY]))
        if second is not None:
            parts = [_without_metadata(second.store.shard(index)) for index in range(second.store.manifest.shards)]
            part = _numbered(parts, self.folder / SECOND / "selected.parquet")
            galaxies = tables.strings(part, tables.ID)
            part = part.filter(pa.array([galaxy not in labels for galaxy in galaxies], pa.bool_()))
            rows.append(part)
            probability = dict(
                zip(second.ids, second.table("members").column(tables.PROBABILITY).to_pylist(), strict=True)
            )
            for galaxy in galaxies.tolist():
                label = second_labels.get(galaxy, tables.NO_CLASS)
                if galaxy not in labels or label != tables.NO_CLASS:
                    labels[galaxy], inside[galaxy] = label, probability[galaxy]
                    outliers.setdefault(galaxy, None)
            if (self.folder / SECOND / _MEMBERS).exists():
                part = pq.read_table(self.folder / SECOND / _MEMBERS)
                galaxies = tables.strings(part, tables.ID)
                shown = pa.array([galaxy not in labels for galaxy in galaxies], pa.bool_())
                for galaxy, value in zip(galaxies.tolist(), part.column(tables.PROBABILITY).to_pylist(), strict=True):
                    labels[galaxy], inside[galaxy] = second_labels[galaxy], value
                    outliers.setdefault(galaxy, None)
                rows.append(part.filter(shown).drop_columns([tables.CLASS_ID, tables.PROBABILITY]))
        whole = pa.concat_tables(rows, promote_options="default")
        store = _whole(place)
        if store is None:
            store = self._part_store(whole, place, self.folder / "selected.parquet")
        ids = store.ids.tolist()
        columns = {
            tables.ID: ids, tables.CLASS_ID: [labels[galaxy] for galaxy in ids],
            tables.PROBABILITY: [inside[galaxy] for galaxy in ids],
            tables.OUTLIER_SCORE: [outliers[galaxy] for galaxy in ids],
        }  # fmt: skip
        return store, pa.table({name: pa.array(columns[name], kind) for name, kind in tables.MEMBERS.columns.items()})

    def _sizes(
        self, first: Search, summaries: Sequence[dict[str, Any]], second_labels: dict[str, int]
    ) -> dict[int, int]:
        """Return the number of members of each class among all galaxies."""
        sizes = dict.fromkeys(first.table("classes").column(tables.CLASS_ID).to_pylist(), 0)
        for summary in summaries:
            for class_id, count in summary["classes"].items():
                sizes[int(class_id)] = sizes.get(int(class_id), 0) + count
        for class_id in second_labels.values():
            sizes[class_id] = sizes.get(class_id, 0) + 1
        return sizes

    def _classes(self, first: Search, second: Search | None, shift: int, sizes: dict[int, int], total: int) -> pa.Table:
        """Return the classes of both searches, those of the second with ids and nodes of their own."""
        parts = [first.table("classes").select(list(tables.CLASSES.columns))]
        if second is not None and len(second):
            other = second.table("classes").select(list(tables.CLASSES.columns))
            node = _next_node(first.table("tree"))
            changed = {
                tables.CLASS_ID: pc.add(other.column(tables.CLASS_ID), shift),
                tables.NODE: pc.add(other.column(tables.NODE), node),
                tables.GROUP: pc.add(other.column(tables.GROUP), node),
                tables.FLAGS: pa.array(
                    [[*(flags or []), SECOND_PASS] for flags in other.column(tables.FLAGS).to_pylist()],
                    tables.CLASSES.columns[tables.FLAGS],
                ),
            }
            for name, column in changed.items():
                other = other.set_column(
                    other.column_names.index(name), name, column.cast(tables.CLASSES.columns[name])
                )
            parts.append(other)
        classes = pa.concat_tables([part.replace_schema_metadata(None) for part in parts])
        counted = [sizes.get(class_id, 0) for class_id in classes.column(tables.CLASS_ID).to_pylist()]
        for name, values in ((tables.SIZE, counted), (tables.FRACTION, [count / max(total, 1) for count in counted])):
            column = pa.array(values, tables.CLASSES.columns[name])
            classes = classes.set_column(classes.column_names.index(name), name, column)
        return classes

    def _summary(
        self, first: Search, second: Search | None, summaries: Sequence[dict[str, Any]], sizes: dict[int, int],
        shift: int, total: int,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the content of large.json: counts, and the shards in which too many galaxies are far."""
        tested = max(sum(summary["galaxies"] > 0 for summary in summaries), 1)
        alarms = [summary["shard"] for summary in summaries if summary["p_value"] * tested <= ALARM]
        far, bad = (sum(summary[name] for summary in summaries) for name in ("far", "not_finite"))
        classes = len(first) + (len(second) if second is not None else 0)
        text = (
            f"{total:,} galaxies placed from a sample of {len(first.ids):,}: {sum(sizes.values()):,} in {classes} "
            f"classes ({0 if second is None else len(second)} of the second pass, among {far:,} galaxies far from all)."
        )
        if alarms:
            text += f" In {len(alarms)} of {len(summaries)} shards more galaxies are far than expected: {alarms[:6]}."
        if bad:
            text += f" {bad:,} galaxies have embeddings that are not finite and are left out."
        return {
            "text": text, "galaxies": total, "sample": len(first.ids), "far": far, "not_finite": bad, "alarms": alarms,
            "sizes": {str(class_id): count for class_id, count in sorted(sizes.items())}, "second_pass_from": shift,
            "shards": list(summaries), "whole_store": str(self.store.folder.resolve()),
        }  # fmt: skip


# ── what workers do ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _CountShards:
    """Count the galaxies of each stratum, and keep the hashes of ids."""

    store: EmbeddingStore
    select: Select
    strata: Strata
    survey: Survey | None
    folder: Path

    def rows(self, index: int) -> tuple[pa.Table, np.ndarray, Galaxies | None]:
        """Return ids and fractions of a shard, its rows in the survey, and its galaxies there."""
        shard = self.store.shard(index, [tables.ID, *fraction_columns(self.store)])
        covered = self.store.manifest.rows_of(index)
        rows = np.arange(covered.start, covered.stop)
        if self.survey is None:
            return shard, rows[: shard.num_rows], None
        galaxies = _rows_of_survey(self.survey, rows)
        if len(rows) != shard.num_rows:
            present = np.flatnonzero(np.isin(galaxies.ids, tables.strings(shard, tables.ID)))
            rows, galaxies = rows[present], galaxies.take(present)
        return shard, rows, galaxies

    def __call__(self, shards: list[int]) -> Counts:
        path = self.folder / _IDS / f"{shards[0]:05d}.npy"
        kept = path.with_suffix(".json")
        if kept.exists() and path.exists():
            about = json.loads(kept.read_text())
            return Counts({int(key): count for key, count in about["strata"].items()}, about["galaxies"], about["kept"])
        total, hashes = Counts(), []
        for index in shards:
            shard, _, galaxies = self.rows(index)
            mask = kept_rows(self.select, shard, None, folder=self.store.folder)
            codes, numbers = np.unique(self.strata.codes(shard, galaxies)[mask], return_counts=True)
            total.add(Counts(dict(zip(codes.tolist(), numbers.tolist(), strict=True)), shard.num_rows, int(mask.sum())))
            hashes.append(hashes_of(tables.strings(shard, tables.ID)))
        with tables.atomic(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.concatenate(hashes))
        tables.write_json(asdict(total), kept)
        return total


@dataclass(frozen=True)
class _DrawShards:
    """Write the galaxies that may be in the sample."""

    count: _CountShards
    allotted: dict[int, int]
    strata: dict[int, int]
    seed: int

    def __call__(self, shards: list[int]) -> None:
        path = self.count.folder / "drawn" / f"{shards[0]:05d}.parquet"
        if path.exists():
            return
        parts = []
        for index in shards:
            shard, rows, galaxies = self.count.rows(index)
            codes = self.count.strata.codes(shard, galaxies)
            keys = keys_of(tables.strings(shard, tables.ID), seed=self.seed)
            drawn = drawn_rows(codes, keys, self.allotted, self.strata)
            mask = kept_rows(self.count.select, shard, None, folder=self.count.store.folder)
            drawn = drawn[mask[drawn]]
            whole = _without_metadata(self.count.store.shard(index)).take(pa.array(drawn))
            finite = kept_rows(
                replace(self.count.select, drop=[]), whole, tables.matrix(whole, tables.EMBEDDING),
                folder=self.count.store.folder,
            )  # fmt: skip
            drawn = drawn[finite]
            part = whole.filter(pa.array(finite))
            for name, values in ((_STRATUM, codes[drawn]), (_KEY, keys[drawn]), (_ROW, rows[drawn])):
                part = part.append_column(name, pa.array(values))
            parts.append(part)
        with tables.atomic(path) as temporary:
            pq.write_table(pa.concat_tables(parts), temporary, compression="zstd")


@dataclass(frozen=True)
class _PlaceShards:
    """Assign the galaxies of each shard; write ASSIGNED rows, members, and the galaxies that are far."""

    store: EmbeddingStore
    search: str
    select: Select
    folder: Path
    level: float
    seed: int

    def __call__(self, shards: list[int]) -> list[dict[str, Any]]:
        place = self.folder / PLACED
        summaries = []
        for index in shards:
            path = place / f"part-{index:05d}.json"
            written = [place / f"{name}-{index:05d}.parquet" for name in ("part", "member", "far")]
            if path.exists() and all(file.exists() for file in written):
                summaries.append(tables.read_json(path, fix="Delete it and give the same command again."))
                continue
            reference, assigner = _reference(self.search, self.level, self.seed)
            summary = self._place(index, reference, assigner)
            # Last: a shard with this file is placed.
            tables.write_json(summary, path)
            summaries.append(tables.plain(summary))
        return summaries

    def _place(self, index: int, reference: ReferenceSet, assigner: Assigner) -> dict[str, Any]:
        place, shard = self.folder / PLACED, _without_metadata(self.store.shard(index))
        shard = shard.append_column(_ROW, pa.array(present_rows(self.store, index, shard)))
        whole = shard.num_rows
        # Cuts choose what is searched and placed; an embedding that is not finite has no place at all.
        passed = kept_rows(self.select, shard, None, folder=self.store.folder)
        finite = kept_rows(
            replace(self.select, drop=[]), shard, tables.matrix(shard, tables.EMBEDDING), folder=self.store.folder
        )
        shard = shard.filter(pa.array(passed & finite))
        parts = [pa.schema(list(tables.ASSIGNED.columns.items())).empty_table()]
        for start in range(0, shard.num_rows, _ROWS):
            batch = shard.slice(start, _ROWS)
            ids = batch.column(tables.ID)
            features = reference.fitted.features(tables.matrix(batch, tables.EMBEDDING))
            own = reference.rows_of(ids, features)
            part = assigned_table(ids, assigner.assign(features, rows=own))
            # A galaxy of the sample has the class that the search has found.
            known = own >= 0
            labels = np.where(known, reference.labels[own], part.column(tables.CLASS_ID).to_numpy())
            at = part.column_names.index(tables.CLASS_ID)
            parts.append(part.set_column(at, tables.CLASS_ID, pa.array(labels, pa.int32())))
        assigned = pa.concat_tables([part.replace_schema_metadata(None) for part in parts])
        labels = assigned.column(tables.CLASS_ID).to_numpy()
        far = (labels == tables.NO_CLASS) & (assigned.column(tables.P_KNOWN).to_numpy() <= FAR)
        novelty = find_novelty(int(far.sum()), galaxies=len(labels), known=len(assigner.known_distances))
        tables.write(assigned, place / f"part-{index:05d}.parquet", tables.ASSIGNED)
        members = shard.filter(pa.array(labels != tables.NO_CLASS))
        for name in (tables.CLASS_ID, tables.PROBABILITY):
            members = members.append_column(name, assigned.column(name).filter(pa.array(labels != tables.NO_CLASS)))
        for name, rows_written in (("member", members), ("far", shard.filter(pa.array(far)))):
            with tables.atomic(place / f"{name}-{index:05d}.parquet") as temporary:
                pq.write_table(rows_written, temporary, compression="zstd")
        classes, numbers = np.unique(labels[labels != tables.NO_CLASS], return_counts=True)
        return {
            "shard": index, "galaxies": len(labels), "far": int(far.sum()), "expected": novelty.expected,
            "p_value": novelty.p_value, "not_finite": int((~finite).sum()), "cut": int(whole - passed.sum()),
            "classes": {str(class_id): int(number) for class_id, number in zip(classes, numbers, strict=True)},
        }  # fmt: skip


_REFERENCES: dict[str, tuple[ReferenceSet, Assigner]] = {}


def _reference(search: str, level: float, seed: int) -> tuple[ReferenceSet, Assigner]:
    """Return the classes of a search and what assigns to them; a worker makes them once."""
    about = (Path(search) / "run.json").stat()
    key = digest({"search": search, "level": level, "seed": seed, "written": about.st_mtime_ns})
    if key not in _REFERENCES:
        _REFERENCES.clear()
        reference = ReferenceSet.read(Search.open(search))
        exact = len(reference.labels) <= _EXACT
        _REFERENCES[key] = reference, Assigner(reference.embeddings, reference.labels, level, seed=seed, exact=exact)
    return _REFERENCES[key]


def _rows_of_survey(survey: Survey, rows: np.ndarray) -> Galaxies:
    """Return some galaxies of a survey; one that is not in partitions is kept open by this process."""
    if survey.in_partitions:
        return survey.open_at(rows)
    key = digest(survey.settings())
    if key not in _SURVEYS:
        _SURVEYS.clear()
        _SURVEYS[key] = survey.open()
    return _SURVEYS[key].take(rows)


_SURVEYS: dict[str, Galaxies] = {}


def present_rows(store: EmbeddingStore, index: int, shard: pa.Table) -> np.ndarray:
    """Return the rows in the survey of the galaxies of a shard, of which some may have been skipped."""
    covered = store.manifest.rows_of(index)
    rows = np.arange(covered.start, covered.stop)
    if len(rows) == shard.num_rows or not store.has_survey:
        return rows[: shard.num_rows]
    galaxies = _rows_of_survey(store.survey(), rows)
    return rows[np.isin(galaxies.ids, tables.strings(shard, tables.ID))]


def _whole(place: Path) -> EmbeddingStore | None:
    """Return the store in a folder; None if there is none. What a killed process has left of one is deleted."""
    try:
        return EmbeddingStore.open(place)
    except StoreNotFound:
        return None
    except StoreError as problem:
        log.warning("%s is written again: %s", place, problem)
        shutil.rmtree(place)
        return None


def _without_metadata(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata(None)


def _concatenated(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("*.parquet"))])


def _numbered(parts: Sequence[pa.Table], selected: Path) -> pa.Table:
    """Return the rows of a store with their rows in the survey, which are their places here if there is none."""
    whole = pa.concat_tables(parts)
    if not selected.exists():
        return whole.append_column(_ROW, pa.array(np.zeros(whole.num_rows, dtype=np.int64)))
    listed = tables.aligned(tables.read(selected, tables.SELECTED), whole.column(tables.ID), source=str(selected))
    return whole.append_column(_ROW, listed.column("row"))


def _extended(fitted: FittedMap, ids: np.ndarray, embeddings: np.ndarray) -> pa.Table:
    """Return the MAP table of galaxies of which some were fitted; the others are placed."""
    at = {galaxy: row for row, galaxy in enumerate(fitted.ids.tolist())}
    rows = np.array([at.get(galaxy, -1) for galaxy in ids], dtype=np.int64)
    positions = np.empty((len(ids), fitted.positions.shape[1]), dtype=np.float32)
    positions[rows >= 0] = fitted.positions[rows[rows >= 0]]
    new = np.flatnonzero(rows < 0)
    for start in range(0, len(new), _ROWS):
        part = new[start : start + _ROWS]
        positions[part] = fitted.transform(embeddings[part])
    return pa.table({tables.ID: pa.array(ids, pa.string()), tables.POSITION: tables.vectors(positions)})


def _next_node(tree: pa.Table) -> int:
    columns = [tree.column(name) for name in (tables.PARENT, tables.CHILD)]
    return max([0, *(pc.max(column).as_py() or 0 for column in columns)]) + 1


def _shifted_tree(tree: pa.Table, shift: int) -> pa.Table:
    """Return the branches of a tree with other numbers, without its galaxies."""
    tree = tree.filter(pc.greater(tree.column(tables.CHILD_SIZE), 1)).replace_schema_metadata(None)
    for name in (tables.PARENT, tables.CHILD):
        tree = tree.set_column(tree.column_names.index(name), name, pc.add(tree.column(name), shift))
    return tree


def whole_store(search: Search) -> EmbeddingStore:
    """Return the store that a search out of core has searched, also if both were moved together.

    Raises
    ------
    StoreNotFound
        It is no longer there.
    """
    about = search.about
    return EmbeddingStore.open(
        relocated(about["large"]["whole_store"], recorded_in=str(about.get("folder", "")), folder=search.folder)
    )


def _kept_rows(file: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows that an earlier step has written, or some columns; StoreError if the file is damaged."""
    try:
        return pq.read_table(file, columns=columns).replace_schema_metadata(None)
    except (OSError, pa.ArrowException) as problem:
        raise tables.damaged(
            file, fix="Delete it and give the same command again; the other parts are kept."
        ) from problem


def _second_classes(folder: Path, shift: int) -> dict[str, int]:
    """Return the classes of the galaxies of the second pass: of those that were searched, and of those placed later."""
    if not (folder / SECOND / "search" / "run.json").exists():
        return {}
    second = Search.open(folder / SECOND / "search")
    classes = dict(zip(second.ids.tolist(), second.labels.tolist(), strict=True))
    if (folder / SECOND / _MEMBERS).exists():
        later = _kept_rows(folder / SECOND / _MEMBERS, columns=[tables.ID, tables.CLASS_ID])
        classes |= dict(zip(*(column.to_pylist() for column in later.columns), strict=True))
    return {galaxy: label + shift for galaxy, label in classes.items() if label != tables.NO_CLASS}


def placed_tables(search: Search) -> Iterator[pa.Table]:
    """Yield the ASSIGNED rows of every galaxy of a large search, shard by shard, with the classes of both passes."""
    second = _second_classes(search.folder, int(search.about["large"]["second_pass_from"]))
    names, labels = pa.array(list(second), pa.string()), np.array(list(second.values()), dtype=np.int64)
    for shard in search.about["large"]["shards"]:
        file = search.folder / PLACED / f"part-{shard['shard']:05d}.parquet"
        if not file.exists():
            raise StoreError(
                "a part of the placed galaxies is missing", value=file,
                fix="Bring it back, or give the command of the search again with another folder (out=).",
            )  # fmt: skip
        part = tables.read(file, tables.ASSIGNED).replace_schema_metadata(None)
        if len(labels):
            rows = pc.fill_null(pc.index_in(part.column(tables.ID), value_set=names), -1).to_numpy()
            merged = np.where(rows >= 0, labels[rows], part.column(tables.CLASS_ID).to_numpy())
            at = part.column_names.index(tables.CLASS_ID)
            part = part.set_column(at, tables.CLASS_ID, pa.array(merged, pa.int32()))
        yield part
