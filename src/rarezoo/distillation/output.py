"""What a distillation leaves: pictures, a FITS file, a page and a card.

distilled.npz       images (n, 3, s, s) in grey levels, class numbers, names, the learnt rate
distilled.fits      a cube per class, in grey levels
images/*.png        the same as pictures, with medoid and mean of each class
curve.png           what was measured on the way
card.md             what it was made from
index.html          the page
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from rarezoo import __version__, tables
from rarezoo.distillation.data import GalaxySet
from rarezoo.distillation.matching import Distilled
from rarezoo.distillation.real_images import real_images
from rarezoo.report import palette
from rarezoo.report.compare import asset
from rarezoo.report.pages import environment

RESULT = "distilled.npz"


def picture(image: Float[np.ndarray, "3 s s"]) -> UInt8[np.ndarray, "s s 3"]:
    """Return an image in grey levels as a picture; values outside 0 to 255 are cut off."""
    return np.asarray(np.rint(np.clip(image, 0, 255)), dtype=np.uint8).transpose(1, 2, 0)


def write_fits(path: Path, cubes: Mapping[str, Float[np.ndarray, "n 3 s s"]], **header: Any) -> Path:
    """Write images in grey levels as a FITS file with an extension for each class.

    The axes are column, row, channel (red, green, blue) and image. Rows are counted from below, as FITS does.
    """
    from astropy.io import fits

    units: list[Any] = [fits.PrimaryHDU()]
    for key, value in {"origin": "rarezoo", **header}.items():
        units[0].header[key[:8].upper()] = value
    for number, (name, images) in enumerate(cubes.items()):
        unit = fits.ImageHDU(np.ascontiguousarray(images[:, :, ::-1]).astype(np.float32), name=f"CLASS{number}")
        unit.header["CLASS"] = name
        unit.header["BUNIT"] = "grey level"
        units.append(unit)
    with tables.atomic(path) as temporary:
        fits.HDUList(units).writeto(temporary, overwrite=True)
    return path


@dataclass(frozen=True)
class Distillation:
    """A finished distillation.

    Attributes
    ----------
    folder
        Its folder.
    images
        (n, 3, s, s) images in grey levels of the survey.
    labels
        (n,) class numbers.
    names
        Names of the classes.
    rate
        Learning rate that the student learnt; NaN if the method has none.

    Examples
    --------
    >>> Distillation.open("runs/never_made")
    Traceback (most recent call last):
    rarezoo.errors.StoreNotFound: no finished distillation: runs/never_made. Run rarezoo distil … out=DIR first.
    """

    folder: Path
    images: Float[np.ndarray, "n 3 s s"]
    labels: np.ndarray
    names: tuple[str, ...]
    rate: float

    @classmethod
    def open(cls, folder: Path | str) -> "Distillation":
        """Open a finished distillation.

        Raises
        ------
        StoreNotFound
            There is none.
        """
        from rarezoo.errors import StoreNotFound

        path = Path(folder) / RESULT
        if not path.is_file():
            raise StoreNotFound("no finished distillation", value=folder, fix="Run rarezoo distil … out=DIR first.")
        with np.load(path, allow_pickle=False) as content:
            names = tuple(content["names"].astype(str).tolist())
            return cls(Path(folder), content["images"], content["labels"], names, float(content["rate"]))

    def summary(self) -> str:
        """Return what a terminal shows."""
        return f"{len(self.images)} images of {len(self.names)} classes; {self.folder / 'index.html'}"


def write_distillation(
    folder: Path, galaxies: GalaxySet, found: Distilled, *, method: str, facts: Mapping[str, Any]
) -> Distillation:
    """Write all files of a distillation; the page is written last.

    Parameters
    ----------
    folder
        Where.
    galaxies
        The set that was distilled; only its training images are read.
    found
        The images.
    method
        The method in words.
    facts
        What the card lists.
    """
    images, labels = galaxies.unscaled(found.images), found.labels.numpy()
    per_class = int((labels == 0).sum())
    beside = {kind: real_images(galaxies, kind, per_class=1)[0] for kind in ("medoid", "mean")}
    shown = {"distilled": images, **{kind: galaxies.unscaled(part) for kind, part in beside.items()}}
    rows = []
    for number, name in enumerate(galaxies.names):
        cells = []
        for kind, part in shown.items():
            of_class = part[labels == number] if kind == "distilled" else part[number : number + 1]
            files = [f"images/{kind}-{number}-{place}.png" for place in range(len(of_class))]
            for file, image in zip(files, of_class, strict=True):
                _save(picture(image), folder / file)
            cells.append(files)
        rows.append({"name": name, "cells": cells})
    cubes = {name: images[labels == number] for number, name in enumerate(galaxies.names)}
    write_fits(folder / "distilled.fits", cubes, method=method[:60], zoom=galaxies.settings.zoom)
    card = {"galaxies": galaxies.summary(), "images per class": per_class, **facts}
    with tables.atomic(folder / "card.md") as temporary:
        lines = [f"# Distilled images, rarezoo {__version__}", "", f"Made by {method}.", ""]
        temporary.write_text("\n".join([*lines, *(f"- {key}: {value}" for key, value in card.items())]) + "\n")
    curve = write_curve(folder / "curve.png", found.curve)
    with tables.atomic(folder / RESULT) as temporary, temporary.open("wb") as opened:
        np.savez(opened, images=images, labels=labels, names=np.array(galaxies.names), rate=found.rate)
    page = environment("rarezoo.report").overlay(loader=_loader())
    text = page.get_template("distilled.html.jinja").render(
        title=f"{per_class} image{'s' if per_class > 1 else ''} for each of {len(galaxies.names)} classes",
        lead=galaxies.summary(), method=method, columns=["distilled", "medoid", "mean"], rows=rows, facts=card.items(),
        curve=curve, curve_about=_curve_about(found.curve), about={"version": __version__}, palette=palette,
        style=asset("style.css"),
    )  # fmt: skip
    with tables.atomic(folder / "index.html") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Distillation(folder, images, labels, galaxies.names, found.rate)


def _loader() -> Any:
    import jinja2

    return jinja2.ChoiceLoader([jinja2.PackageLoader("rarezoo.distillation"), jinja2.PackageLoader("rarezoo.report")])


def _save(pixels: UInt8[np.ndarray, "s s 3"], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tables.atomic(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def _curve_about(curve: Sequence[Mapping[str, float]]) -> str:
    if curve and "train_accuracy" in curve[0]:
        return (
            "The accuracy of fresh networks that were trained on the images, on the real training galaxies, which "
            "chooses the images that are kept, and the loss of matching. The test galaxies were not looked at."
        )
    return "The loss of matching."


def write_curve(path: Path, curve: Sequence[Mapping[str, float]]) -> str:
    """Draw what was measured on the way; return the name of the file, empty if there is nothing to draw."""
    if not curve:
        return ""
    from matplotlib.figure import Figure

    names = [name for name in ("train_accuracy", "loss") if name in curve[0]]
    figure = Figure(figsize=(4.2 * len(names), 3), layout="constrained")
    for number, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), number + 1)
        axes.plot([row["iteration"] for row in curve], [row[name] for row in curve], color="#3b6ea5")
        axes.set_xlabel("iteration")
        axes.set_ylabel(name.replace("_", " "))
    with tables.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path.name


def as_tensor(images: Float[np.ndarray, "n 3 s s"], galaxies: GalaxySet) -> torch.Tensor:
    """Return images in grey levels with the scaling of a set."""
    centre, spread = galaxies.scaling
    return (torch.from_numpy(np.asarray(images, dtype=np.float32)) - centre) / spread
