"""Finished searches that tests make up from tables, without an embedding store or a survey on disk."""

import pyarrow as pa

from rarezoo import tables
from rarezoo.data.images import ImageSource
from rarezoo.data.survey import Galaxies
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
