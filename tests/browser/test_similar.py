"""The page of similar galaxies in a real browser: it fits, it can be read by everybody, and its pictures are shown."""

import csv

import numpy as np
import pytest
from PIL import Image

from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.explore.similar_command import SimilarRun

pytestmark = pytest.mark.browser
GALAXIES = 30
# An id that would be HTML, and one that is too long for a line.
IDS = [f"g{row:02d}" for row in range(GALAXIES - 2)] + ['<script>alert("x")</script>', "J" * 90]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The page of the galaxies like g00, of which g01 is near on the sky and g03 is a copy of g02."""
    folder = tmp_path_factory.mktemp("similar")
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    colours = random.integers(60, 255, (GALAXIES, 1, 1, 3))
    colours[3] = colours[2]
    rows = []
    for row, galaxy in enumerate(IDS):
        pattern = np.random.default_rng(2 if row == 3 else row).uniform(0.2, 1, (20, 20, 1))
        Image.fromarray((colours[row] * pattern).astype(np.uint8)).save(folder / "images" / f"{row}.png")
        rows.append([galaxy, 10.001 if row == 1 else 10 + row, 0, f"{row}.png"])
    with (folder / "galaxies.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["id_str", "ra", "dec", "image"], *rows])
    survey = Catalogue(table=str(folder / "galaxies.csv"), images=str(folder / "images"))
    vectors = random.normal(size=(GALAXIES, 8)).astype(np.float32)
    store = EmbeddingStore.from_array(IDS, vectors, survey=survey, out=folder / "store", name="net")
    SimilarRun(
        search_or_store=str(store.folder), id="g00", against=IDS[-1], k=26, where="ra > 0", out=str(folder / "page")
    ).run()
    return folder / "page"


def test_the_page_opens_without_a_problem_and_fits(tab, folder, view):
    page = tab(folder, "index.html", **view)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("#galaxies .card").count() == 26


def test_axe_finds_no_serious_fault(tab, faults, folder, scheme):
    assert not faults(tab(folder, "index.html", color_scheme=scheme))


def test_each_galaxy_has_its_own_picture(tab, folder):
    page = tab(folder, "index.html")
    card = page.locator("#galaxies .card").first
    number = IDS.index(card.locator("h3").inner_text().split(". ", 1)[1])
    image = card.locator(".cutout")
    image.scroll_into_view_if_needed()
    with Image.open(folder.parent / "images" / f"{number}.png") as file:
        expected = np.asarray(file.convert("RGB")).mean(axis=(0, 1))
    shot = folder.parent / "card.png"
    image.screenshot(path=shot)
    with Image.open(shot) as file:
        shown = np.asarray(file.convert("RGB"))
    inner = shown[10:-10, 10:-10].mean(axis=(0, 1))
    assert np.abs(inner - expected).max() < 12


def test_a_galaxy_links_to_maps_of_its_place_and_says_why_others_are_missing(tab, folder):
    page = tab(folder, "index.html")
    links = page.locator("#query .card").first.locator("a")
    assert [link.get_attribute("rel") for link in links.all()] == ["noopener"] * 3
    assert "ra=10.000000&dec=0.000000" in links.first.get_attribute("href")
    left_out = page.locator("#left-out").inner_text()
    assert "within 1.7 arcmin of g00" in left_out
    assert "near-identical image of g0" in left_out
    assert IDS[-2] in page.locator("#galaxies").inner_text(), "an id is shown as it is, and never run"
