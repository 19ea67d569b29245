"""From the bytes of an image file, or an array, to 8-bit pixels: one rule for each type of pixel.

Every image becomes uint8 (height, width, 3):

    greyscale, palette, CMYK     converted to RGB
    transparency                 laid on black, the colour of empty sky
    8 bits                       as they are
    16 bits                      divided by 257 (65535 → 255): the range of the type is the scale
    other types                  refused, unless the two values that become black and white are given
    FITS, one or two planes      the first plane with an asinh stretch from the 1st to the 99.8th percentile
    FITS, three planes or more   Lupton et al. (2004) RGB of planes 3, 2, 1 (reddest last in the file, as in g, r, z)
    FITS, colours last           (h, w, 3 or 4): a colour picture, with the rules of its type
    no data in FITS              NaN, infinity, BLANK and values beyond ±10³⁰: the lowest value of the plane

The content says what a file is, and its name does not matter. No file makes more than ``MOST_PIXELS`` pixels or is
larger than ``MOST_BYTES`` after decompression, so the memory that one image takes is limited. This holds for the
compressed tiles inside a FITS file too.
"""

import gzip
import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image, UnidentifiedImageError

# The largest image: 8192 x 8192 px. Cutouts of galaxies are a few hundred px wide.
MOST_PIXELS = 2**26
MOST_BYTES = 2**28
SCALE_HINT = "Say which values become black and white: data.pixel_range=[BLACK,WHITE]."
# Others that Pillow knows are left out: some of them start other programs, such as Ghostscript.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000", "PPM")
_PIECE = 2**20
_GZIP, _FITS = b"\x1f\x8b", b"SIMPLE  ="
# Tiles of a compressed FITS image: its rows, as a rule.
_MOST_TILES = 2**18
_NO_DATA = 1e30
_ASINH_PERCENTILES = (1.0, 99.8)
_ASINH_SOFTENING = 0.1


class UnknownScale(ValueError):
    """Pixels of a type that does not say which values are black and white."""


def decoded(content: bytes, *, pixel_range: Sequence[float] = ()) -> UInt8[np.ndarray, "height width 3"]:
    """Return the pixels of an image file.

    Parameters
    ----------
    content
        Bytes of the file.
    pixel_range
        The two values that become black and white; see :func:`rgb`.

    Raises
    ------
    Exception
        The bytes are not an image, or only a part of one. Decoders raise errors of many kinds, so that the caller must
        take every one of them for an unreadable image.

    Examples
    --------
    >>> stream = io.BytesIO()
    >>> Image.new("L", (5, 4)).save(stream, format="PNG")
    >>> decoded(stream.getvalue()).shape
    (4, 5, 3)
    """
    return rgb(stored_pixels(content), pixel_range=pixel_range)


def stored_pixels(content: bytes) -> np.ndarray:
    """Return the pixels of an image file in the type that they have in the file.

    Returns
    -------
    numpy.ndarray
        uint8 (height, width, 3) of a file of 8 bits and of FITS planes, which are stretched; otherwise
        (height, width) or (height, width, channels) of another type. Pillow reads only the upper 8 of 16 bits of
        colour; such pixels are returned as multiples of 257, of type uint16.
    """
    if content.startswith(_GZIP):
        content = _unzipped(content)
    if not content:
        raise ValueError("the file is empty")
    if content.startswith(_FITS):
        # astropy warns of damage; what cannot be read raises.
        with warnings.catch_warnings(action="ignore"):
            return _fits_pixels(content)
    try:
        # Pillow warns of damaged metadata, which do not change the pixels.
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content), formats=_FORMATS) as image,
        ):
            refuse_large(image.size)
            image.load()
            if image.format == "TIFF" and image.mode in ("L", "I", "I;16", "I;16B"):
                return _tiff_pixels(image)
            if image.mode.startswith("I;16") or image.mode == "F":
                return np.asarray(image)
            if image.mode == "I":
                # Pillow keeps the 16 bits of PNG and PPM in 32.
                return np.asarray(image).astype(np.uint16)
            colours = image.convert("RGB") if not _is_transparent(image) else _on_black(image)
            pixels = np.asarray(colours)
            return pixels.astype(np.uint16) * np.uint16(257) if _has_sixteen_bits(image, content) else pixels
    except UnidentifiedImageError as problem:
        raise ValueError("not an image that Pillow knows") from problem


def _tiff_pixels(image: Image.Image) -> np.ndarray:
    """Return the pixels of a grey TIFF in the type that its tags say.

    Pillow reads signed numbers of 8 bits and unsigned ones of 32 bits as the other kind, and numbers of 16 bits as
    they are where zero means white.
    """
    tags = getattr(image, "tag_v2", {})
    bits, signed = max(tags.get(258, (1,))), tags.get(339, (1,))[0] == 2
    pixels = np.asarray(image)
    if image.mode == "L" and signed:
        return pixels.view(np.int8)
    if image.mode == "L":
        return np.asarray(image.convert("RGB"))
    if image.mode == "I" and bits == 32 and not signed:
        return pixels.view(np.uint32)
    zero_is_white = image.mode.startswith("I;16") and tags.get(262) == 0
    return np.iinfo(np.uint16).max - pixels if zero_is_white else pixels


def _unzipped(content: bytes, *, most: int = MOST_BYTES) -> bytes:
    pieces, size = [], 0
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
        while piece := stream.read(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise ValueError(f"larger than {most:,} bytes after decompression")
    return b"".join(pieces)


def _is_transparent(image: Image.Image) -> bool:
    return "transparency" in image.info or image.mode in ("RGBA", "LA", "PA")


def _on_black(image: Image.Image) -> Image.Image:
    layered = image.convert("RGBA")
    black = Image.new("RGBA", layered.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, layered).convert("RGB")


def _has_sixteen_bits(image: Image.Image, content: bytes) -> bool:
    """Return whether a picture that Pillow reads with 8 bits has 16 in its file."""
    if image.format == "PNG":
        return content[24] == 16
    return image.format == "TIFF" and max(getattr(image, "tag_v2", {}).get(258, (8,))) == 16


def refuse_large(shape: Sequence[int]) -> None:
    """Raise ValueError for an image that has no pixel, or more values than an image may have."""
    values = math.prod(int(side) for side in shape)
    if values <= 0:
        raise ValueError(f"an image without pixels: {tuple(shape)}")
    if values > MOST_PIXELS:
        raise ValueError(f"claims {' x '.join(map(str, shape))} px; the most is {MOST_PIXELS:,} px")


def rgb(pixels: np.ndarray, *, pixel_range: Sequence[float] = ()) -> UInt8[np.ndarray, "height width 3"]:
    """Return an array as uint8 (height, width, 3).

    Parameters
    ----------
    pixels
        Grey (h, w) or (h, w, 1), colour (h, w, 3 or 4), or channels first (1 or 3, h, w).
    pixel_range
        The two values that become black and white, for pixels that are not uint8, which are taken as they are. Values
        outside become black or white too, and NaN becomes black. If it is empty, the type decides: uint16 is divided
        by 257, and False and True become 0 and 255. No value of an image changes its scale.

    Raises
    ------
    UnknownScale
        The pixels are of another type, and ``pixel_range`` is empty.
    ValueError
        The array has another shape.

    Examples
    --------
    >>> rgb(np.full((4, 5), 0.5), pixel_range=(0, 1))[0, 0]
    array([128, 128, 128], dtype=uint8)
    """
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise ValueError(f"an image has one, three or four channels, not shape {pixels.shape}")
    refuse_large(pixels.shape)
    pixels = _eight_bits(pixels, pixel_range)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3])


def _eight_bits(pixels: np.ndarray, pixel_range: Sequence[float]) -> np.ndarray:
    kind = (pixels.dtype.kind, pixels.dtype.itemsize)
    if kind == ("u", 1):
        return pixels
    if not len(pixel_range) and (kind[0] not in "bu" or kind[1] > 2):
        raise UnknownScale(f"pixels of type {pixels.dtype.name} have no scale")
    black, white = pixel_range if len(pixel_range) else (0, 1 if kind[0] == "b" else 65535)
    with np.errstate(all="ignore"):
        scaled = (pixels.astype(np.float64) - black) / (white - black) * 255
    return np.clip(np.rint(np.nan_to_num(scaled, nan=0, posinf=255, neginf=0)), 0, 255).astype(np.uint8)


def _fits_pixels(content: bytes) -> np.ndarray:
    from astropy.io import fits

    with fits.open(io.BytesIO(content), memmap=False, lazy_load_hdus=True) as file:
        number, image = next(((number, unit) for number, unit in enumerate(file) if _is_image(unit)), (-1, None))
        if image is None:
            raise ValueError("no image in the FITS file")
        # The header may claim any size, and a compressed image has its true size only in the header.
        refuse_large(image.shape)
        if isinstance(image, fits.CompImageHDU):
            _refuse_large_tiles(content, number, image)
        blank, zero = image.header.get("BLANK", image.header.get("ZBLANK")), image.header.get("BZERO", 0)
        pixels = np.asarray(image.data)
    # astropy replaces BLANK by NaN only in signed integers.
    if blank is not None and pixels.dtype.kind == "u":
        pixels = np.where(pixels == int(blank) + int(zero), np.nan, pixels.astype(np.float64))
    while pixels.ndim > 2 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim > 3:
        raise ValueError(f"an image has two or three axes, not shape {pixels.shape}")
    if pixels.ndim == 2:
        return _stretched(pixels[None])
    planes, height, width = pixels.shape
    if planes <= 4 or planes <= min(height, width):
        return _stretched(pixels)
    if width == 1:
        return _stretched(pixels[None, :, :, 0])
    if width not in (3, 4):
        raise ValueError(f"neither planes (planes, h, w) nor colours (h, w, 3 or 4): shape {pixels.shape}")
    return pixels.astype(pixels.dtype.newbyteorder("="))


def _refuse_large_tiles(content: bytes, number: int, image: Any) -> None:
    """Raise ValueError if a tile of a compressed image expands to more than its pixels.

    astropy expands each tile that gzip has compressed as a whole, before it looks at its size. The other methods of
    compression stop at the size that the header gives.

    Parameters
    ----------
    content
        Bytes of the file.
    number
        Number of the extension with the image.
    image
        The extension as astropy's ``CompImageHDU``.
    """
    from astropy.io import fits

    sides = [min(side, tile) for side, tile in zip(image.shape, image.tile_shape, strict=True)]
    count = math.prod(-(-side // tile) for side, tile in zip(image.shape, sides, strict=True))
    with fits.open(io.BytesIO(content), memmap=False, disable_image_compression=True) as file:
        table = file[number]
        if not table.header["NAXIS2"] <= count <= _MOST_TILES:
            raise ValueError(f"{table.header['NAXIS2']:,} compressed tiles for the {count:,} of the header")
        zipped = ["GZIP_COMPRESSED_DATA", *["COMPRESSED_DATA"] * image.compression_type.startswith("GZIP")]
        for name in set(zipped) & set(table.columns.names):
            for tile in table.data[name]:
                if len(tile):
                    _unzipped(tile.astype(tile.dtype.newbyteorder(">")).tobytes(), most=8 * math.prod(sides))


def _is_image(unit: Any) -> bool:
    return unit.is_image and len(unit.shape) >= 2


def _stretched(pixels: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
    """Return FITS planes (planes, h, w) as a picture: three or more with Lupton's method, fewer as grey."""
    from astropy.visualization import make_lupton_rgb

    planes = np.stack([_without_gaps(plane) for plane in pixels[: 3 if len(pixels) >= 3 else 1]])
    if len(planes) < 3:
        return rgb(_asinh(planes[0]))
    blue, green, red = planes
    noise = float(np.median(np.abs(green - np.median(green)))) or 1.0
    sky = float(np.median(planes))
    with np.errstate(invalid="ignore", divide="ignore"):  # astropy divides before it masks pixels without light
        return np.asarray(make_lupton_rgb(red, green, blue, minimum=sky, stretch=20 * noise, Q=8))


def _without_gaps(pixels: np.ndarray) -> Float64[np.ndarray, "height width"]:
    plane = pixels.astype(np.float64)
    known = np.abs(plane) < _NO_DATA
    if not known.any():
        raise ValueError("a plane of the FITS file has no finite value")
    return np.where(known, plane, plane[known].min())


def _asinh(plane: Float64[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
    low, high = np.percentile(plane, _ASINH_PERCENTILES)
    scaled = np.clip((plane - low) / max(high - low, np.finfo(float).tiny), 0, 1)
    stretched = np.arcsinh(scaled / _ASINH_SOFTENING) / np.arcsinh(1 / _ASINH_SOFTENING)
    return np.asarray(np.rint(255 * stretched), dtype=np.uint8)
