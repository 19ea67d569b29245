"""Finished searches that tests make up from tables, most of them without an embedding store or a survey on disk."""

import csv

import numpy as np
import pyarrow as pa
from PIL import Image

from rarezoo import tables
from rarezoo.data.images import ImageSource
from rarezoo.data.survey import Galaxies
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.report import pages
from rarezoo.searches.result import Search

_ABOUT = ("survey", "survey_sha256", "checkpoint", "checkpoint_sha256", "settings")


class MadeUpImages(ImageSource):
    """The images that a function of ids returns."""

    def __init__(self, ids, cutouts):
        self.ids, self.cutouts = ids, cutouts

    def cutout(self, row):
        return self.cutouts([self.ids[row]])[0]


def made_up_search(
    folder,
    *,
    members,
    classes,
    tree,
    map_2d,
    predictions,
    cutouts=None,
    about,
    truth=None,
    catalogue=None,
    tests=None,
    main_groups=None,
    nodes=None,
):
    """Write a search whose survey is only a catalogue, a truth and a function that returns cutouts."""
    ids = members[tables.ID]
    if catalogue is None and (truth is not None or cutouts is not None):
        unknown = pa.nulls(len(ids), pa.float64())
        catalogue = pa.table({tables.ID: ids, tables.RA: unknown, tables.DEC: unknown})
    galaxies = None
    if catalogue is not None:
        images = MadeUpImages(catalogue[tables.ID].to_pylist(), cutouts)
        galaxies = Galaxies(catalogue=catalogue, images=images, truth=truth)
    return Search.write(
        folder, {**dict.fromkeys(_ABOUT), **about},
        {
            "members": members, "classes": classes, "tree": tree, "map": map_2d, "map_2d": map_2d,
            **({} if main_groups is None else {"main_groups": main_groups}),
            **({} if nodes is None else {"nodes": nodes}),
        },
        free_class_id=classes.num_rows, galaxies=galaxies, tests=tests or {}, predictions=predictions,
    )  # fmt: skip


def write_report(folder, *, thumbnails=pages.THUMBNAILS, seed=0, **parts):
    """Write the report of a made-up search into a folder; the tables of the search go beside it."""
    search = made_up_search(folder.with_name(f"{folder.name}-search"), **parts)
    has_survey = any(parts.get(name) is not None for name in ("catalogue", "truth", "cutouts"))
    return pages.write_report(
        search, folder, images=parts.get("cutouts") is not None, survey=has_survey, thumbnails=thumbnails, seed=seed
    )


def survey_on_disk(folder, *, galaxies=60, side=24, classes=2, seed=0):
    """Write a search with its store and a survey of images, so that it can be opened by its folder.

    The galaxies of each class are alike; those of class 0 are round and those of class 1 are long. The first ids hold
    characters that a page, a link or a path could take for something else.
    """
    from rarezoo.data.surveys.catalogue import Catalogue

    random = np.random.default_rng(seed)
    odd = ["../g é<b>", "g#1?x=2&y", "g\"'%2e/.."]
    ids = [odd[row] if row < len(odd) else f"g{row:04d}" for row in range(galaxies)]
    labels = np.where(np.arange(galaxies) % 4 < classes, np.arange(galaxies) % 4, -1).astype(np.int32)
    (folder / "cutouts").mkdir(parents=True)
    across = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    with (folder / "galaxies.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id_str", "ra", "dec", "image", "mass", "note"])
        for row, galaxy in enumerate(ids):
            light = np.exp(-np.hypot(across[0], across[1] * (3 if labels[row] == 1 else 1)) / 0.3)
            clumps = random.random((side, side)) < 0.1
            pixels = (200 * np.clip(light + 0.5 * clumps, 0, 1)[..., None] * [1, 0.9, 0.8]).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "cutouts" / f"{row}.png")
            # The galaxies of rows 48 and 52 share a picture.
            picture = f"{48 if row == 52 else row}.png"
            writer.writerow([galaxy, row, row / 4 - 10, picture, 9 + row / 100, f"note {row % 3} <i>"])
    survey = Catalogue(table=str(folder / "galaxies.csv"), images=str(folder / "cutouts"))
    vectors = random.normal(size=(galaxies, 6)) + 3 * np.eye(6)[labels + 1]
    answers = {
        "smooth-or-featured_smooth": (labels == 0) * 0.6 + 0.2, "disk-edge-on_yes": (labels == 1) * 0.7 + 0.1,
    }  # fmt: skip
    store = EmbeddingStore.from_array(
        ids, vectors.astype(np.float32), out=folder / "store", name="made_up", survey=survey, fractions=answers
    )
    exemplars = [[galaxy for galaxy, label in zip(ids, labels, strict=True) if label == k] for k in range(classes)]
    rows = [
        {
            tables.CLASS_ID: k, tables.NODE: 1001 + k, tables.SIZE: len(exemplars[k]),
            tables.FRACTION: len(exemplars[k]) / galaxies, tables.BIRTH: 1.0, tables.DEATH: 4.0,
            tables.PERSISTENCE: 1.4, tables.TOP_ANSWERS: [f"answer of {k} <b>"], tables.FLAGS: [],
            tables.EXEMPLARS: exemplars[k][:12], tables.GRADE: "significant" if k == 0 else "candidate",
            tables.RANK: k + 1,
        }
        for k in range(classes)
    ]  # fmt: skip
    about = {
        "title": "made <b>up</b>", "survey": "catalogue", "survey_sha256": store.manifest.survey_sha256,
        "checkpoint": "made_up", "checkpoint_sha256": store.manifest.checkpoint_sha256,
        "settings": {"store": str(store.folder), "seed": 0}, "folder": str((folder / "search").resolve()),
    }  # fmt: skip
    place = pa.table({tables.ID: ids, tables.POSITION: tables.vectors(vectors[:, :2].astype(np.float32))})
    tree = {
        tables.PARENT: [1000] * classes, tables.CHILD: [1001 + k for k in range(classes)],
        tables.LAMBDA: [1.0] * classes, tables.CHILD_SIZE: [len(inside) for inside in exemplars],
    }  # fmt: skip
    strengths = random.random((2, galaxies)).astype(np.float32)
    members = {
        tables.ID: ids, tables.CLASS_ID: labels, tables.PROBABILITY: strengths[0], tables.OUTLIER_SCORE: strengths[1],
    }  # fmt: skip
    search = Search.write(
        folder / "search", about,
        {
            "members": pa.table(members), "map": place, "map_2d": place, "tree": pa.table(tree),
            "classes": pa.Table.from_pylist(rows, pa.schema(list(tables.CLASSES.columns.items()))),
        },
        free_class_id=classes,
    )  # fmt: skip
    search.finish()
    return folder / "search"
