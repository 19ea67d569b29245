"""A small survey with positions, images and an imported store, which tests of the package explore share."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.embeddings.store import EmbeddingStore

GALAXIES, WIDTH = 16, 6


def vectors_of(galaxies=GALAXIES, width=WIDTH, seed=0):
    return np.random.default_rng(seed).normal(size=(galaxies, width)).astype(np.float32)


def written_survey(folder: Path) -> Catalogue:
    """Write 16 galaxies: g1 is 30 arcsec from g0, g3 has the image of g2, g15 has no position."""
    random = np.random.default_rng(1)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(GALAXIES):
        pixels = random.integers(0, 255, (24, 24, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"g{number}.png")
        ra, dec = 10 + number, 0.5 * number
        if number == 1:
            ra, dec = 10.0, 30 / 3600
        rows.append([f"g{number}", *(["", ""] if number == 15 else [ra, dec]), 0.01 * number if number else ""])
    (folder / "images" / "g3.png").write_bytes((folder / "images" / "g2.png").read_bytes())
    with (folder / "galaxies.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["id_str", "ra", "dec", "redshift"], *rows])
    return Catalogue(table=str(folder / "galaxies.csv"), images=str(folder / "images"))


@pytest.fixture(scope="session")
def sky(tmp_path_factory) -> EmbeddingStore:
    """The store of a survey of 16 galaxies, of which g14 has no embedding. Tests do not change it."""
    folder = tmp_path_factory.mktemp("sky")
    survey = written_survey(folder)
    kept = [number for number in range(GALAXIES) if number != 14]
    fractions = np.linspace(0, 1, GALAXIES)[kept]
    return EmbeddingStore.from_array(
        [f"g{number}" for number in kept], vectors_of()[kept], survey=survey, out=folder / "store", name="net",
        fractions={"bar_strong": fractions, "bar_weak": 0 * fractions, "bar_no": 1 - fractions},
    )  # fmt: skip


@pytest.fixture(scope="session")
def plain_store(tmp_path_factory) -> EmbeddingStore:
    """A store of 300 galaxies without a survey. Tests do not change it."""
    return EmbeddingStore.from_array(
        [f"J{number:04d}" for number in range(300)],
        vectors_of(300, 8),
        out=tmp_path_factory.mktemp("plain"),
        name="net",
    )
