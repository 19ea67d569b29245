"""Presets of a search by name: the only place where the values of the default search are written.

``conf/preset/NAME.yaml`` holds the same values for the command line; a test compares the two.
"""

import copy
from collections.abc import Mapping
from typing import Any

from rarezoo.errors import ConfigError
from rarezoo.searches.cluster import EOM, ISOLATED, LEAF
from rarezoo.searches.clusterers.fast_hdbscan import FastHdbscan
from rarezoo.searches.clusterers.hdbscan import Hdbscan
from rarezoo.searches.compressors.fast_umap import FastUmap
from rarezoo.searches.compressors.umap import Umap
from rarezoo.searches.select import Select
from rarezoo.searches.stability import Stability

DEFAULT = "multiscale"

# Cuts of Walmsley & Scaife 2023, section 2: probably smooth, edge-on, or an artifact (predicted vote fractions).
_SMOOTH = "`smooth-or-featured_smooth_fraction` >= 0.50"
_EDGE_ON = "`disk-edge-on_yes_fraction` >= 0.30"
_ARTIFACT = "`smooth-or-featured_artifact_fraction` >= 0.30"

# Two dimensions, to draw. Few neighbours, so that small samples can be drawn too.
_DRAWN = {"drawing": Umap(n_neighbors=15, n_components=2)}
# Classes of every size in one run: on each branch of the tree the node that stands apart most.
_MULTISCALE = {
    "compress": FastUmap(whiten=64, whiten_power=0.5, n_neighbors=15, n_components=5, min_dist=0.0),
    "drawing": FastUmap(whiten=64, whiten_power=0.5, n_neighbors=15, n_components=2),
    "clusterer": FastHdbscan(min_samples=10, min_cluster_size=10, selection=ISOLATED),
}
# Walmsley & Scaife 2023: UMAP 50/5, HDBSCAN 300/10, leaf selection, after the cuts. For half a million galaxies; each
# refit would take as long as the search.
_PAPER = {
    **_DRAWN,
    "select": Select(drop=[_SMOOTH, _EDGE_ON, _ARTIFACT], fractions_by="efficientnet_b0"),
    "compress": Umap(n_neighbors=50, n_components=5),
    "clusterer": Hdbscan(min_samples=300, min_cluster_size=10, selection=LEAF),
    "stability": Stability(refits=0),
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    DEFAULT: _MULTISCALE,
    # A few thousand galaxies, and a few ten thousand: min_samples is about half the smallest class worth finding.
    "small": {
        **_DRAWN,
        "compress": Umap(whiten=64, n_neighbors=15, n_components=5),
        "clusterer": Hdbscan(min_samples=20, min_cluster_size=20, selection=LEAF),
    },
    "medium": {
        **_DRAWN,
        "compress": Umap(n_neighbors=30, n_components=5),
        "clusterer": Hdbscan(min_samples=100, min_cluster_size=30, selection=LEAF),
    },
    "paper": _PAPER,
    # The paper's search on maps of 2 and of 15 dimensions, on densMAP, and with the nodes of most excess of mass.
    "paper_2d": {**_PAPER, "compress": Umap(n_neighbors=50, n_components=2)},
    "paper_15d": {**_PAPER, "compress": Umap(n_neighbors=50, n_components=15)},
    "paper_densmap": {**_PAPER, "compress": Umap(n_neighbors=50, n_components=5, densmap=True)},
    "paper_eom": {**_PAPER, "clusterer": Hdbscan(min_samples=300, min_cluster_size=10, selection=EOM)},
    # Figure 2 of the paper: without the cut on artifacts, or without any cut; the paper does not say which it was.
    "paper_artifacts": {**_PAPER, "select": Select(drop=[_SMOOTH, _EDGE_ON], fractions_by="efficientnet_b0")},
    "paper_artifacts_uncut": {**_PAPER, "select": Select()},
}


def preset(name: str = DEFAULT) -> dict[str, Any]:
    """Return the settings of a preset: fields of :class:`~rarezoo.searches.run.SearchRun` with their values.

    Parameters
    ----------
    name : str
        ``multiscale`` (the default search), ``small``, ``medium``, ``paper`` and its variants: see :data:`PRESETS`.

    Raises
    ------
    ConfigError
        There is no such preset.

    Examples
    --------
    >>> preset("medium")["clusterer"].min_samples
    100
    """
    if name not in PRESETS:
        raise ConfigError("unknown preset", value=name, fix=f"Choose one of: {', '.join(PRESETS)}.")
    return copy.deepcopy(dict(PRESETS[name]))
