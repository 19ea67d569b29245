"""What a person means by a galaxy: an id, a position on the sky, a link to a page about it, or an image file.

A text may be one of these::

    gz2_417063                              id of a galaxy
    185.7 15.8     185.7, 15.8              right ascension and declination in degrees (ICRS)
    12:22:54.9 +15:49:21                    in hours and degrees
    12h22m54.9s +15d49m21s                  the same
    SDSS J122254.92+154921.1                a name that is a position
    https://www.legacysurvey.org/viewer?ra=185.7&dec=15.8
    https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=185.7%2015.8
    galaxy.png                              path of an image file

Several of them are separated by commas. An id comes first: a text that is the id of a galaxy is that galaxy, whatever
else it could mean.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import numpy as np
from jaxtyping import Float64

from rarezoo.data.positions import on_sphere
from rarezoo.errors import ConfigError, DataError

_ARCSEC = 3600.0
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_DEGREES = re.compile(rf"({_NUMBER})\s*[\s,]\s*({_NUMBER})")
# Letters, signs and digits of a position that is written in hours, minutes and seconds.
_SEXAGESIMAL = re.compile(r"[\d\s:.,+°º'\"′″ʰᵐˢ-]*(?:(?:deg|[hmsd])[\d\s:.,+°º'\"′″ʰᵐˢ-]*)*", re.IGNORECASE)
_NAMED_BY_POSITION = re.compile(r"(?:[^\W_][\w-]*\s+)?(J\d{4,}(?:\.\d+)?[-+]\d{4,}(?:\.\d+)?)")
# Signs that people and pages write for a minus.
_MINUS = str.maketrans({"−": "-", "–": "-", "‐": "-"})
_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".fits", ".fit", ".fits.gz", ".fz", ".webp", ".bmp", ".gif")
# A link that goes on behind a comma: the Legacy Survey viewer marks a place as mark=RA,DEC.
_GOES_ON = re.compile(rf"[?&#](?:mark|coord|target|radec)=[^&#]*{_NUMBER}", re.IGNORECASE)
_OTHER_FRAMES = {"gal": "galactic", "sgal": "supergalactic", "fk4": "fk4"}


class Position(NamedTuple):
    """A position on the sky.

    Attributes
    ----------
    ra, dec : float
        Right ascension, 0 to 360, and declination in degrees (ICRS).
    """

    ra: float
    dec: float

    def __str__(self) -> str:
        return f"{self.ra:.5f} {self.dec:+.5f}"


def read_targets(text: str, *, is_id: Callable[[str], bool]) -> list[str | Position | Path]:
    """Return what a text names: ids, positions and image files, in their order.

    Parameters
    ----------
    text : str
        One or several targets, with commas between them.
    is_id : callable
        Whether a text is the id of a galaxy.

    Returns
    -------
    list of str, Position or Path
        A text that is nothing else is returned as it is, as an id that is perhaps unknown.

    Raises
    ------
    ConfigError
        A position is impossible, or a link holds none.

    Examples
    --------
    >>> read_targets("a1, 185.7 15.8", is_id=lambda text: text == "a1")
    ['a1', Position(ra=185.7, dec=15.8)]
    >>> read_targets("185.7,15.8", is_id=lambda text: False)
    [Position(ra=185.7, dec=15.8)]
    """
    whole = text.strip()
    if not whole:
        return []
    if is_id(text) or is_id(whole):
        return [text if is_id(text) else whole]
    parts = _parts(whole)
    if len(parts) > 1 and all(map(is_id, parts)):
        return list(parts)
    several = len(parts) > 1 and all(map(_DEGREES.fullmatch, parts))
    place = None if several else _read_one(whole)
    if place is not None:
        return [place]
    if len(parts) == 1:
        return [whole]
    return [part if is_id(part) else _read_one(part) or part for part in parts]


def read_position(text: str) -> Position | None:
    """Return the position that a text gives, or None if it is no position.

    Raises
    ------
    ConfigError
        The text is written as a position, but there is no such place; or it is a link without a position.

    Examples
    --------
    >>> read_position("12:22:54.9 +15:49:21")
    Position(ra=185.72875, dec=15.8225)
    >>> read_position("https://www.legacysurvey.org/viewer?ra=185.7&dec=15.8&layer=ls-dr10")
    Position(ra=185.7, dec=15.8)
    >>> read_position("NGC 1052") is None
    True
    """
    plain = text.strip().translate(_MINUS)
    if "://" in plain or plain.startswith("www."):
        return _position_in(plain)
    degrees = _DEGREES.fullmatch(plain)
    if degrees:
        return _checked(float(degrees[1]), float(degrees[2]), text)
    named = _NAMED_BY_POSITION.fullmatch(plain)
    if named:
        return _read_by_astropy(named[1], text)
    # Numbers with a - between them, without a space, are an id rather than a position.
    parted = re.search(r"[\s:°ʰhd]", plain) and len(re.findall(_NUMBER, plain)) > 1
    if parted and _SEXAGESIMAL.fullmatch(plain):
        return _read_by_astropy(" ".join(plain.replace(",", " ").split()), text)
    return None


def separations(
    ra: Float64[np.ndarray, " n"], dec: Float64[np.ndarray, " n"], position: Position
) -> Float64[np.ndarray, " n"]:
    """Return the distances of galaxies from a position on the sphere, arcsec; NaN where a position is unknown.

    Parameters
    ----------
    ra, dec : (n,) arrays of floats
        Degrees.
    position : Position
        Where distances are measured from.

    Examples
    --------
    >>> separations(np.array([359.999, 0.001]), np.array([60.0, 60.0]), Position(0.0, 60.0)).round(3).tolist()
    [1.8, 1.8]
    """
    from astropy.coordinates import angular_separation

    here = np.radians(position.ra), np.radians(position.dec)
    return np.asarray(np.degrees(angular_separation(np.radians(ra), np.radians(dec), *here)) * _ARCSEC)


def distance_text(arcsec: float) -> str:
    """Write a distance on the sky in the unit in which it is read most easily.

    >>> [distance_text(value) for value in (3.21, 150, 90_000)]
    ['3.2 arcsec', '2.5 arcmin', '25 degrees']
    """
    if arcsec < 100:
        return f"{arcsec:.1f} arcsec"
    return f"{arcsec / 60:.1f} arcmin" if arcsec < _ARCSEC else f"{arcsec / _ARCSEC:.3g} degrees"


def _parts(text: str) -> list[str]:
    """Cut a text at its commas, but not inside a link."""
    parts: list[str] = []
    for part in text.split(","):
        inside = (
            parts and "://" in parts[-1] and _GOES_ON.search(parts[-1]) and re.fullmatch(rf"{_NUMBER}(?:&.*)?", part)
        )
        if inside:
            parts[-1] = f"{parts[-1]},{part}"
        else:
            parts.append(part)
    return [part.strip() for part in parts if part.strip()]


def _read_one(text: str) -> Position | Path | None:
    """Return the position or the image file that a text names, or None."""
    if "://" not in text:
        path = Path(text).expanduser()
        # A name that no file can have, such as one that is too long, raises.
        try:
            if path.is_file():
                return path
        except (OSError, ValueError):
            return None
        if text.lower().endswith(_IMAGE_ENDINGS):
            raise ConfigError("there is no such image file", value=text, fix="Correct the path.")
    elif len(_parts(text)) > 1:
        return None
    return read_position(text)


def _read_by_astropy(text: str, given: str) -> Position:
    from astropy import units
    from astropy.coordinates import SkyCoord

    try:
        place = SkyCoord(text, unit=(units.hourangle, units.deg))
    except (ValueError, TypeError, units.UnitsError) as problem:
        raise ConfigError(
            "this looks like a position on the sky, but there is none like it", value=given,
            fix="Write right ascension and declination, such as '185.7 15.8' or '12:22:54.9 +15:49:21'.",
        ) from problem  # fmt: skip
    return _checked(float(place.ra.deg), float(place.dec.deg), given)


def _checked(ra: float, dec: float, given: str) -> Position:
    try:
        (right,), (north,) = on_sphere(np.array([ra]), np.array([dec]), ids=[given], source="the position")
    except DataError as problem:
        raise ConfigError(
            "there is no such position on the sky", value=given,
            fix="Right ascension comes first, from 0 to 360 degrees, then declination, from −90 to 90 degrees.",
        ) from problem  # fmt: skip
    return Position(float(right), float(north))


def _position_in(link: str) -> Position:
    """Return the position that a link holds; ConfigError if it holds none."""
    try:
        parts = urlsplit(link if "://" in link else f"https://{link}")
    except ValueError as problem:
        raise ConfigError("not a link", value=link, fix="Copy it once more from the browser.") from problem
    given: dict[str, str] = {}
    for values in (parts.query, parts.fragment):
        given = {key.lower(): texts[0] for key, texts in parse_qs(values.lstrip("?")).items()} | given
    coordinates = f"{given['ra']} {given['dec']}" if {"ra", "dec"} <= set(given) else ""
    coordinates = coordinates or given.get("coord") or given.get("target") or ""
    frame = given.get("cooframe", "icrs").lower()
    if coordinates and frame in _OTHER_FRAMES:
        return _in_frame(coordinates, _OTHER_FRAMES[frame], link)
    position = read_position(coordinates) if coordinates and "://" not in coordinates else None
    if position is not None:
        return position
    name = given.get("ident") or given.get("name") or given.get("objname") or coordinates
    what = (
        f"the link names an object ({name}), which cannot be looked up here" if name else "the link holds no position"
    )
    raise ConfigError(
        what, value=link,
        fix="Give its coordinates, such as '185.7 15.8', or a link that holds them.",
    )  # fmt: skip


def _in_frame(coordinates: str, frame: str, given: str) -> Position:
    from astropy import units
    from astropy.coordinates import SkyCoord

    try:
        place = SkyCoord(coordinates, frame=frame, unit=(units.deg, units.deg)).icrs
    except (ValueError, TypeError, units.UnitsError) as problem:
        raise ConfigError(
            f"the link holds no {frame} position that can be read", value=given,
            fix="Give right ascension and declination, such as '185.7 15.8'.",
        ) from problem  # fmt: skip
    return _checked(float(place.ra.deg), float(place.dec.deg), given)


def nearest(
    position: Position,
    ra: Float64[np.ndarray, " n"],
    dec: Float64[np.ndarray, " n"],
    *,
    ids: Sequence[str] | np.ndarray,
    radius: float,
) -> tuple[int, float]:
    """Return the row of the galaxy that is nearest to a position, and its distance in arcsec.

    Parameters
    ----------
    position : Position
        Where to look.
    ra, dec : (n,) arrays of floats
        Degrees; NaN where they are unknown.
    ids : sequence of n ids
        For the message.
    radius : float
        Largest distance, arcsec.

    Raises
    ------
    ConfigError
        No galaxy is that near, or no position is known.

    Examples
    --------
    >>> nearest(Position(10.0, 0.0), np.array([10.001, 11.0]), np.array([0.0, 0.0]), ids=["a", "b"], radius=20)[0]
    0
    """
    distances = separations(ra, dec, position)
    if not np.isfinite(distances).any():
        raise ConfigError(
            "the positions of the galaxies are not known", value=str(position), fix="Give the id of a galaxy."
        )
    row = int(np.nanargmin(distances))
    if distances[row] > radius:
        raise ConfigError(
            f"no galaxy of the survey is within {distance_text(radius)} of this position", value=str(position),
            fix=f"The nearest is {ids[row]}, {distance_text(distances[row])} away. Correct the position, name a galaxy "
            "by its id, or allow a larger distance: radius=ARCSEC.",
        )  # fmt: skip
    return row, float(distances[row])
