"""``python -m benchmarks atlas``: how fast the atlas opens and moves with many galaxies, in a headless browser.

The galaxies are synthetic; what is measured is the page. Frames are counted while the view pans and zooms with every
frame that the browser asks for, so that 60/s is the most there can be.
"""

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
from PIL import Image

from rarezoo import tables
from rarezoo.data.survey import Galaxies
from rarezoo.errors import ConfigError
from rarezoo.report.pages import write_report
from rarezoo.searches.result import Search
from rarezoo.settings import Settings, setting

PAINTERS = ("pixels", "library")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_CLASSES, _SHARE = 40, 0.05
_ANSWERS = ("smooth-or-featured_smooth", "bar_strong")
_WIDE, _HIGH = 1366, 820
# Size of the picture of one class, and how far its panel is scrolled, px.
_PANEL_WIDE, _PANEL_HIGH, _SCROLLED = 1180, 860, 320
# Time during which frames are counted, ms.
_WATCHED = 4000
_OPENED = """async () => { await rarezooAtlas.drawn(); await new Promise((done) => requestAnimationFrame(done));
  rarezooAtlas.frame(); return performance.now(); }"""
_MOVING = """async (watched) => {
  const { view } = rarezooAtlas, began = performance.now();
  let frames = 0;
  while (performance.now() - began < watched) {
    view.zoom(frames % 40 < 20 ? 1.04 : 1 / 1.04); view.x += frames % 2 ? 3 : -3; rarezooAtlas.redraw();
    await new Promise((done) => requestAnimationFrame(done));
    const ink = document.querySelector(".points").getContext("2d");
    ink && ink.getImageData(0, 0, 1, 1);
    frames++;
  }
  view.fit(); rarezooAtlas.redraw();
  return 1000 * frames / (performance.now() - began);
}"""
_TIMED = """async (doing) => {
  const began = performance.now();
  await ({
    colour: () => rarezooAtlas.colour(window.rarezooMap.columns[0].key),
    class: () => rarezooAtlas.open(window.rarezooMap.classes[0].id),
    lasso: async () => rarezooAtlas.select(await rarezooAtlas.inside([[.2, .2], [.8, .25], [.7, .8], [.3, .7]])),
  })[doing]();
  await rarezooAtlas.drawn(); rarezooAtlas.frame();
  return performance.now() - began;
}"""


def synthetic(folder: Path, galaxies: int, *, seed: int = 0) -> Search:
    """Write an invented search: a round map with classes in it, without images."""
    random = np.random.default_rng(seed)
    inside = random.random(galaxies) < _SHARE
    labels = np.where(inside, random.integers(0, _CLASSES, galaxies), tables.NO_CLASS).astype(np.int32)
    labels[:_CLASSES] = np.arange(_CLASSES)
    centres = random.normal(size=(_CLASSES, 2)) * 3
    spread = np.where(labels >= 0, 0.08, 3.0)[:, None]
    positions = np.where(labels[:, None] >= 0, centres[labels], 0) + random.normal(size=(galaxies, 2)) * spread
    ids = [f"J{row:09d}" for row in range(galaxies)]
    sizes = np.bincount(labels[labels >= 0], minlength=_CLASSES)
    first = [str(ids[int(np.flatnonzero(labels == class_id)[0])]) for class_id in range(_CLASSES)]
    classes = {
        tables.CLASS_ID: np.arange(_CLASSES), tables.NODE: galaxies + 1 + np.arange(_CLASSES), tables.SIZE: sizes,
        tables.FRACTION: sizes / galaxies, tables.BIRTH: np.ones(_CLASSES), tables.DEATH: np.full(_CLASSES, 2.0),
        tables.PERSISTENCE: np.linspace(1, 2, _CLASSES), tables.EXEMPLARS: [[id_str] for id_str in first],
        tables.TOP_ANSWERS: [[]] * _CLASSES, tables.FLAGS: [[]] * _CLASSES,
    }  # fmt: skip
    tree = {
        tables.PARENT: np.full(_CLASSES, galaxies), tables.CHILD: classes[tables.NODE],
        tables.LAMBDA: np.ones(_CLASSES), tables.CHILD_SIZE: sizes,
    }  # fmt: skip
    strengths = random.random((2, galaxies)).astype(np.float32)
    members = {
        tables.ID: ids,
        tables.CLASS_ID: labels,
        tables.PROBABILITY: strengths[0],
        tables.OUTLIER_SCORE: strengths[1],
    }
    fractions = {tables.fraction_column(answer): random.random(galaxies).astype(np.float32) for answer in _ANSWERS}
    declinations = np.degrees(np.arcsin(random.uniform(-1, 1, galaxies)))
    map_2d = pa.table({tables.ID: ids, tables.POSITION: tables.vectors(positions.astype(np.float32))})
    whole = {
        name: pa.array(classes.get(name, [None] * _CLASSES), kind) for name, kind in tables.CLASSES.columns.items()
    }
    catalogue = pa.table({tables.ID: ids, tables.RA: random.uniform(0, 360, galaxies), tables.DEC: declinations})
    origin = dict.fromkeys(("survey", "survey_sha256", "checkpoint", "checkpoint_sha256", "settings"))
    return Search.write(
        folder, {**origin, "title": f"{galaxies:,} synthetic galaxies"},
        {
            "members": pa.table(members), "classes": pa.table(whole), "tree": pa.table(tree), "map": map_2d,
            "map_2d": map_2d,
        },
        free_class_id=_CLASSES, galaxies=cast(Galaxies, SimpleNamespace(catalogue=catalogue, truth=None)), tests={},
        predictions=pa.table({tables.ID: ids, **fractions}),
    )  # fmt: skip


def browser_path(given: str = "") -> str:
    """Return the path of an installed Chromium.

    Raises
    ------
    ConfigError
        There is none.
    """
    browser = shutil.which(given) if given else next(filter(None, map(shutil.which, _BROWSERS)), None)
    if not browser:
        raise ConfigError(
            "no browser", value=given or ", ".join(_BROWSERS), fix="Install Chromium, or give browser=PATH."
        )
    return browser


def measured(page: Path, *, browser: str, painter: str) -> dict[str, Any]:
    """Return the seconds to the first drawing, the frames per second while moving, and the seconds of each action.

    Parameters
    ----------
    page
        The file atlas.html.
    browser
        Path of Chromium.
    painter
        ``pixels`` needs no graphics card, ``library`` uses WebGL.

    Raises
    ------
    ConfigError
        playwright is not installed.
    """
    with _tab(browser, width=_WIDE, height=_HIGH) as tab:
        tab.goto(f"{page.resolve().as_uri()}?painter={painter}")
        result = {"painter": tab.evaluate("rarezooAtlas.painter"), "opened s": tab.evaluate(_OPENED) / 1000}
        result["frames/s"] = tab.evaluate(_MOVING, _WATCHED)
        for doing in ("colour", "class", "lasso"):
            result[f"{doing} s"] = tab.evaluate(_TIMED, doing) / 1000
        result["heap MB"] = tab.evaluate("performance.memory.usedJSHeapSize / 1e6")
    return result


def draw_class(page: Path, target: Path, *, class_id: int, browser: str = "") -> None:
    """Write a picture of the atlas with the panel of one class.

    Parameters
    ----------
    page
        The file atlas.html.
    target
        WebP file to write.
    class_id
        Class whose panel is open.
    browser
        Path of Chromium; empty: the first one that is installed.

    Raises
    ------
    ConfigError
        playwright or Chromium is not installed.
    """
    with _tab(browser_path(browser), width=_PANEL_WIDE, height=_PANEL_HIGH) as tab:
        tab.goto(f"{page.resolve().as_uri()}?painter=pixels#class-{class_id}")
        tab.wait_for_function("window.rarezooAtlas && rarezooAtlas.images.ready()")
        tab.evaluate("rarezooAtlas.drawn()")
        tab.wait_for_load_state("networkidle")
        # The panel is scrolled until the numbers of the class and its galaxies are both in view.
        tab.mouse.move(0.8 * _PANEL_WIDE, 0.6 * _PANEL_HIGH)
        tab.mouse.wheel(0, _SCROLLED)
        tab.mouse.move(5, 5)
        tab.wait_for_timeout(500)
        picture = Image.open(io.BytesIO(tab.screenshot()))
    with tables.atomic(target) as temporary:
        picture.convert("RGB").save(temporary, format="WEBP", quality=85)


@contextmanager
def _tab(browser: str, *, width: int, height: int) -> Iterator[Any]:
    """Yield a tab of a headless browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as problem:
        raise ConfigError("playwright is not installed", value=problem, fix="Say: pip install playwright.") from problem
    with sync_playwright() as engine:
        opened = engine.chromium.launch(executable_path=browser, args=["--enable-unsafe-swiftshader"])
        tab = opened.new_page(viewport={"width": width, "height": height}, device_scale_factor=1)
        tab.set_default_timeout(300_000)
        yield tab
        opened.close()


@dataclass(kw_only=True)
class AtlasSpeed(Settings):
    """Load time and frames per second of the atlas in a headless browser."""

    galaxies: int = setting(1_000_000, "number of galaxies on the map", unit="galaxies", ge=10 * _CLASSES)
    painters: list[str] = setting(
        list(PAINTERS), "how the map is painted: pixels needs no graphics card, library uses WebGL", choices=PAINTERS
    )
    browser: str = setting("", "path of Chromium; empty: the first one that is installed")
    out: str = setting("runs/benchmark_atlas", "folder of the atlas and of the results")

    def run(self) -> None:
        """Measure, print one line of JSON per painter, and write them into ``out``."""
        browser = browser_path(self.browser)
        folder = Path(self.out) / f"atlas-{self.galaxies}"
        write_report(synthetic(folder / "search", self.galaxies), folder, images=False, survey=True)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
        results = []
        for painter in self.painters:
            timings = measured(folder / "atlas.html", browser=browser, painter=painter)
            results.append({"galaxies": self.galaxies, "folder MB": size, **timings})
            rounded = {
                key: round(value, 2) if isinstance(value, float) else value for key, value in results[-1].items()
            }
            print(json.dumps(rounded), flush=True)
        tables.write_json({"results": results}, Path(self.out) / f"atlas-{self.galaxies}.json")
