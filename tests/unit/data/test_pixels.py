"""One rule for each type of pixel, in every container; whatever bytes come, an image or an error of ours."""

import contextlib
import gzip
import io
import struct
import zlib

import datasets
import h5py
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rarezoo.data.images import FolderImages, Hdf5Images
from rarezoo.data.pixels import UnknownScale, decoded, rgb
from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.data.surveys.huggingface import HuggingFaceImages
from rarezoo.errors import ConfigError, DataError

pytestmark = pytest.mark.unit
GREY = np.exp(-((np.mgrid[:24, :24] - 12) ** 2).sum(0) / 40)
COLOURS = np.dstack([GREY, GREY / 2, GREY / 4])


def saved(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def fits_bytes(unit):
    stream = io.BytesIO()
    unit.writeto(stream)
    return stream.getvalue()


def in_tiff(folder, pixels, pixel_range):
    (folder / "a.tif").write_bytes(saved(Image.fromarray(pixels), "TIFF"))
    return FolderImages(folder, ["a.tif"], ["J1"], pixel_range=pixel_range)


def in_png(folder, pixels, pixel_range):
    (folder / "a.png").write_bytes(saved(Image.fromarray(pixels)))
    return FolderImages(folder, ["a.png"], ["J1"], pixel_range=pixel_range)


def in_hdf5(folder, pixels, pixel_range):
    with h5py.File(folder / "a.h5", "w") as file:
        file["images"], file["id_str"] = pixels[None], ["J1"]
    return Hdf5Images(folder / "a.h5", ["J1"], pixel_range=pixel_range)


def in_fits(folder, pixels, pixel_range):
    """Write a colour picture, because planes are stretched."""
    (folder / "a.fits").write_bytes(fits_bytes(fits.PrimaryHDU(np.repeat(pixels[:, :, None], 3, axis=2))))
    return FolderImages(folder, ["a.fits"], ["J1"], pixel_range=pixel_range)


def in_hugging_face(folder, pixels, pixel_range):
    features = datasets.Features({"image": datasets.Array2D(pixels.shape, pixels.dtype.name)})
    data_set = datasets.Dataset.from_dict({"image": [pixels.tolist()]}, features=features)
    return HuggingFaceImages(data_set, "image", ["J1"], pixel_range=pixel_range)


ARRAYS = [in_hdf5, in_fits, in_hugging_face]
CONTAINERS = {
    "uint8": [in_tiff, in_png, *ARRAYS], "uint16": [in_tiff, in_png, *ARRAYS], "int16": ARRAYS,
    "int32": [in_tiff, *ARRAYS], "float32": [in_tiff, *ARRAYS], "float64": ARRAYS,
}  # fmt: skip
CASES = [(kind, container) for kind, containers in CONTAINERS.items() for container in containers]


@pytest.mark.parametrize(("kind", "container"), CASES)
def test_the_scale_follows_from_the_type_and_never_from_the_values(tmp_path, kind, container):
    """The same values give the same pixels whatever else is in the image; without a scale they are refused."""
    for peak in (1, 1.01, 8, 100, 250, 255, 300, 4000, 30000):
        if peak > 255 and kind == "uint8":
            continue
        pixels = (GREY * peak).astype(kind)
        if kind in ("uint8", "uint16"):
            expected = pixels if kind == "uint8" else np.rint(pixels / 257)
            np.testing.assert_array_equal(container(tmp_path, pixels, ()).cutout(0)[:, :, 1], expected)
        else:
            with pytest.raises(DataError, match=r"have no scale.*data.pixel_range"):
                container(tmp_path, pixels, ()).cutout(0)
        if kind != "uint8":
            scaled = np.clip(np.rint((pixels.astype(float) + 10) / 310 * 255), 0, 255)
            np.testing.assert_array_equal(container(tmp_path, pixels, (-10, 300)).cutout(0)[:, :, 1], scaled)


def test_a_range_for_images_of_eight_bits_is_refused_or_leaves_files_as_they_are(tmp_path):
    pixels = (GREY * 200).astype(np.uint8)
    for container in (in_hdf5, in_hugging_face):
        with pytest.raises(DataError, match="8 bits are taken as they are"):
            container(tmp_path, pixels, (0, 1))
    np.testing.assert_array_equal(in_png(tmp_path, pixels, (0, 1)).cutout(0)[:, :, 0], pixels)


@pytest.mark.parametrize("container", CONTAINERS["int32"])
def test_another_range_is_another_content(tmp_path, container):
    """What was measured of the images under one range is not taken for another one."""
    pixels = (GREY * 200).astype("i4")
    first, other = (container(tmp_path, pixels, bounds) for bounds in ((0, 255), (0, 100)))
    assert first.content(0) != other.content(0)
    assert first.stamp(0) != other.stamp(0) or first.stamp(0) == ""


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [1.0, 0.0], [0.0, float("inf")], [float("nan"), 1.0], [0, 1, 2]])
def test_a_range_that_is_none_is_refused(values):
    with pytest.raises(ConfigError, match="pixel_range"):
        Catalogue("a.csv", images="b", pixel_range=values)


def survey_of(folder, images):
    for name, content in images.items():
        (folder / name).write_bytes(content)
    (folder / "table.csv").write_text("id_str,image\n" + "".join(f"{name},{name}\n" for name in images))
    return str(folder / "table.csv")


def test_sixteen_bits_that_would_be_black_are_refused_when_the_survey_is_opened(tmp_path):
    dark = {f"{peak}.png": saved(Image.fromarray((GREY * peak).astype(np.uint16))) for peak in (250, 300, 4000)}
    table = survey_of(tmp_path, dark)
    with pytest.raises(DataError, match=r"would be black.*4000.*pixel_range"):
        Catalogue(table, images=str(tmp_path)).open()
    twelve_bits = Catalogue(table, images=str(tmp_path), pixel_range=[0, 4000]).open()
    assert [twelve_bits.images.cutout(row).max() for row in range(3)] == [16, 19, 255]
    table = survey_of(tmp_path, {**dark, "bright.png": saved(Image.fromarray((GREY * 60000).astype(np.uint16)))})
    assert [Catalogue(table, images=str(tmp_path)).open().images.cutout(row).max() for row in (0, 3)] == [1, 233]


def test_colour_of_sixteen_bits_is_held_to_the_same_rule(tmp_path):
    bright, dark = (rgb16_png((COLOURS * peak).astype(np.uint16)) for peak in (65535, 255))
    np.testing.assert_array_equal(decoded(bright), (COLOURS * 65535).astype(np.uint16) // 256)
    with pytest.raises(DataError, match="would be black"):
        Catalogue(survey_of(tmp_path, {"a.png": dark}), images=str(tmp_path)).open()


def rgb16_png(pixels):
    """Write a PNG file with 16 bits per colour, which Pillow reads and does not write."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in [*parts, (b"IEND", b"")])


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_floating_point_images_are_refused_when_the_survey_is_opened_also_if_bad_images_are_skipped(tmp_path):
    table = survey_of(tmp_path, {"a.tif": saved(Image.fromarray(GREY.astype("f4")), "TIFF")})
    with pytest.raises(DataError, match=r"float32 have no scale.*pixel_range"):
        Catalogue(table, images=str(tmp_path), on_bad_image="skip").open()
    assert Catalogue(table, images=str(tmp_path), pixel_range=[0.0, 1.0]).open().images.cutout(0).max() == 255


@given(
    kind=st.sampled_from(["u1", "u2", "i2", "i4", "u8", "f2", "f4", "f8", "?"]),
    shape=st.lists(st.integers(0, 6), min_size=0, max_size=4).map(tuple),
    bounds=st.sampled_from([(), (0, 1), (-5, 1e6)]),
)
def test_any_array_becomes_a_picture_or_a_value_error(kind, shape, bounds):
    pixels = (np.random.default_rng(0).random(shape) * 200).astype(kind)
    try:
        picture = rgb(pixels, pixel_range=bounds)
    except ValueError:
        return
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert set(shape) >= set(picture.shape[:2])


def test_values_that_are_no_numbers_become_black_and_white():
    odd = np.array([[np.nan, -np.inf, np.inf, 0.5]])
    assert rgb(odd, pixel_range=(0, 1))[0, :, 0].tolist() == [0, 0, 255, 128]


PLANES = np.random.default_rng(0).normal(100, 5, (3, 24, 24)).astype("f4") + 400 * GREY.astype("f4")
WHOLE = {
    "one plane": fits_bytes(fits.PrimaryHDU(PLANES[0])),
    "three planes": fits_bytes(fits.PrimaryHDU(PLANES)),
    "extension": fits_bytes(fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(PLANES)])),
    "compressed": fits_bytes(fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU((PLANES[0] * 9).astype("i4"))])),
    "gzip": gzip.compress(fits_bytes(fits.PrimaryHDU(PLANES))),
    "colours": fits_bytes(fits.PrimaryHDU((COLOURS * 200).astype("u1"))),
    "JPEG": saved(Image.fromarray((COLOURS * 255).astype("u1")), "JPEG"),
    "PNG": saved(Image.fromarray((COLOURS * 255).astype("u1"))),
    "TIFF": saved(Image.fromarray((COLOURS * 255).astype("u1")), "TIFF", compression="tiff_lzw"),
    "WebP": saved(Image.fromarray((COLOURS * 255).astype("u1")), "WEBP"),
    "GIF": saved(Image.fromarray((GREY * 255).astype("u1")), "GIF"),
    "16 bits": saved(Image.fromarray((GREY * 65535).astype("u2"))),
    "palette": saved(Image.fromarray((GREY * 255).astype("u1")).convert("P")),
}


@pytest.fixture
def read(tmp_path):
    def pixels(content, name="J1"):
        (tmp_path / name).write_bytes(content)
        return FolderImages(tmp_path, [name], ["J1"]).cutout(0)

    return pixels


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_ends_anywhere_is_whole_or_unreadable(read, kind):
    content = WHOLE[kind]
    whole = read(content)
    assert whole.std() > 0
    for end in np.unique(np.linspace(0, len(content) - 1, 60).astype(int)):
        with contextlib.suppress(DataError):
            pixels = read(content[:end])
            assert pixels.shape == whole.shape
            # Only padding was lost. Pillow fills the rest of some pictures, whose format has no length, with black.
            assert np.array_equal(pixels, whole) or kind in ("GIF", "palette", "JPEG")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(WHOLE)), at=st.floats(0, 1), change=st.binary(min_size=1, max_size=24))
@pytest.mark.filterwarnings("ignore")
def test_changed_bytes_give_an_image_or_an_error_of_ours(read, kind, at, change):
    content = bytearray(WHOLE[kind])
    place = int(at * (len(content) - 1))
    content[place : place + len(change)] = change
    with contextlib.suppress(DataError):
        assert read(bytes(content)).dtype == np.uint8


@pytest.mark.parametrize("name", ["a.fits", "a.jpg", "a", "a.png", "a.fits.gz", "a.dat"])
@pytest.mark.parametrize("kind", ["three planes", "gzip", "JPEG"])
def test_the_content_says_what_a_file_is_and_its_name_does_not(read, kind, name):
    np.testing.assert_array_equal(read(WHOLE[kind], name), read(WHOLE[kind], "other"))
    np.testing.assert_array_equal(read(WHOLE["gzip"], name), read(WHOLE["three planes"], name))


@pytest.mark.parametrize("channels", [3, 4])
def test_fits_with_colours_last_is_a_colour_picture(channels):
    pixels = np.dstack([(COLOURS * 200).astype("u1"), np.full((24, 24), 255, "u1")])[:, :, :channels]
    np.testing.assert_array_equal(decoded(fits_bytes(fits.PrimaryHDU(pixels))), pixels[:, :, :3])
    scaled = decoded(fits_bytes(fits.PrimaryHDU(pixels.astype("f4"))), pixel_range=(0, 255))
    np.testing.assert_array_equal(scaled, pixels[:, :, :3])
    with pytest.raises(UnknownScale):
        decoded(fits_bytes(fits.PrimaryHDU(pixels.astype("f4"))))


@pytest.mark.parametrize("shape", [(24, 24, 2), (24, 24, 5), (24, 20, 7), (2, 3, 24, 24), (30, 24, 24)])
def test_fits_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        decoded(fits_bytes(fits.PrimaryHDU(np.ones(shape, "f4"))))


@pytest.mark.parametrize("shape", [(24, 24), (1, 24, 24), (24, 24, 1), (1, 1, 24, 24), (2, 24, 24)])
def test_fits_of_one_plane_in_any_shape_is_the_same_picture(shape):
    planes = np.broadcast_to(PLANES[0].reshape((1,) * (len(shape) - 3) + (24, 24, 1)), shape) if shape[-1] == 1 else (
        np.broadcast_to(PLANES[0], shape)
    )  # fmt: skip
    np.testing.assert_array_equal(decoded(fits_bytes(fits.PrimaryHDU(planes.copy()))), decoded(WHOLE["one plane"]))


@pytest.mark.parametrize("gap", [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, "BLANK"])
def test_gaps_in_fits_become_the_lowest_value(gap):
    plane = (PLANES[0] * 10).astype("i2")
    plane[0, 0] = plane.min()
    expected = decoded(fits_bytes(fits.PrimaryHDU(plane)))
    if gap == "BLANK":
        plane[0, 0] = -32768
        unit = fits.PrimaryHDU(plane)
        unit.header["BLANK"] = -32768
    else:
        plane = plane.astype("f4")
        plane[0, 0] = gap
        unit = fits.PrimaryHDU(plane)
    np.testing.assert_array_equal(decoded(fits_bytes(unit)), expected)


@pytest.mark.filterwarnings("ignore")
def test_pictures_that_claim_to_be_huge_are_refused_before_they_are_decoded(read):
    claim = struct.pack(">II", 60000, 60000)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", claim + b"\x08\x02\0\0\0") + chunk(b"IDAT", zlib.compress(bytes(99)))
    tiff = bytearray(saved(Image.new("L", (8, 8)), "TIFF"))
    for tag in (256, 257):
        place = tiff.index(
            struct.pack("<HH", tag, 4) if struct.pack("<HH", tag, 4) in tiff else struct.pack("<HH", tag, 3)
        )
        tiff[place + 2 : place + 12] = struct.pack("<HII", 4, 1, 60000)
    header = fits.Header({"SIMPLE": True, "BITPIX": -64, "NAXIS": 2, "NAXIS1": 60000, "NAXIS2": 60000})
    packed = fits.CompImageHDU(np.zeros((8, 8), "i4"))
    content = fits_bytes(fits.HDUList([fits.PrimaryHDU(), packed]))
    for axis in (b"ZNAXIS1 ", b"ZNAXIS2 "):
        place = content.index(axis)
        content = content[: place + 10] + b"%20d" % 60000 + content[place + 30 :]
    for bomb in (png, bytes(tiff), header.tostring().encode() + bytes(2880), content):
        with pytest.raises(DataError, match=r"unreadable image.*(60000|pixels)"):
            read(bomb)


def test_a_compressed_file_that_grows_without_end_is_refused(read):
    bomb = gzip.compress(bytes(2**24)) * 17
    assert len(bomb) < 2**20
    with pytest.raises(DataError, match="after decompression"):
        read(bomb)


def tiled(tiles, *, column="COMPRESSED_DATA", method="GZIP_1"):
    """A compressed FITS image of 8 x 8 pixels in one tile, whose tiles hold the given bytes."""
    cells = {"COMPRESSED_DATA": [b""] * len(tiles), column: tiles}
    columns = []
    for name, parts in cells.items():
        values = np.empty(len(parts), dtype=object)
        values[:] = [np.frombuffer(part, "u1") for part in parts]
        columns.append(fits.Column(name, "1PB()", array=values))
    table = fits.BinTableHDU.from_columns(columns)
    claims = {"ZNAXIS": 2, "ZNAXIS1": 8, "ZNAXIS2": 8, "ZTILE1": 8, "ZTILE2": 8, "ZPCOUNT": 0, "ZGCOUNT": 1}
    table.header.update({"ZIMAGE": True, "ZTENSION": "IMAGE", "ZBITPIX": 16, "ZCMPTYPE": method, **claims})
    return fits_bytes(fits.HDUList([fits.PrimaryHDU(), table]))


@pytest.mark.parametrize(
    ("column", "method"),
    [("COMPRESSED_DATA", "GZIP_1"), ("COMPRESSED_DATA", "GZIP_2"), ("GZIP_COMPRESSED_DATA", "RICE_1")],
)
def test_a_tile_of_a_compressed_fits_image_may_not_expand_to_more_than_its_pixels(read, column, method):
    sound = gzip.compress(np.arange(64, dtype=">i2").tobytes())
    assert read(tiled([sound])).shape == (8, 8, 3)
    for tiles, message in (([gzip.compress(bytes(2**20))], "after decompression"), ([sound, sound], "2 compressed")):
        with pytest.raises(DataError, match=message):
            read(tiled(tiles, column=column, method=method))


@pytest.mark.parametrize(
    ("method", "tile"),
    [("GZIP_1", (1, 30)), ("GZIP_2", (7, 9)), ("RICE_1", (7, 9)), ("GZIP_1", (100, 100)), ("HCOMPRESS_1", (8, 10))],
)
def test_compressed_fits_images_have_the_pixels_of_ordinary_ones(read, method, tile):
    plane = np.random.default_rng(3).integers(0, 3000, (24, 30)).astype("i4")
    packed = fits.CompImageHDU(plane, compression_type=method, tile_shape=tile)
    expected = read(fits_bytes(fits.PrimaryHDU(plane)))
    np.testing.assert_array_equal(read(fits_bytes(fits.HDUList([fits.PrimaryHDU(), packed]))), expected)


def test_programs_are_never_started_for_a_picture(read):
    """Pillow would call Ghostscript for PostScript."""
    with pytest.raises(DataError, match="not an image"):
        read(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")


def tiff(pixels, *, kind, photometric=1):
    """A grey TIFF in which a tag says what kind of number a pixel is: 1 unsigned, 2 signed."""
    content, bits = pixels.tobytes(), 8 * pixels.dtype.itemsize
    tags = {256: pixels.shape[1], 257: pixels.shape[0], 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: pixels.shape[0], 279: len(content), 339: kind}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(content)) + content + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_tags_of_a_tiff_say_what_its_numbers_are():
    ramp = np.linspace(0, 200, 64).reshape(8, 8)
    with pytest.raises(UnknownScale, match="int8"):
        decoded(tiff((ramp - 100).astype("i1"), kind=2))
    signed = decoded(tiff((ramp - 100).astype("i1"), kind=2), pixel_range=(-100, 155))
    np.testing.assert_array_equal(signed[:, :, 0], (ramp - 100).astype("i1").astype(int) + 100)
    large = decoded(tiff((ramp * 2**24).astype("<u4"), kind=1), pixel_range=(0, 255 * 2**24))
    np.testing.assert_allclose(large[:, :, 0], ramp, atol=1)
    for name, step in (("u1", 1), ("<u2", 257)):
        pixels = (ramp.astype("u1") * np.uint16(step)).astype(name)
        black, white = (decoded(tiff(pixels, kind=1, photometric=kind))[:, :, 0] for kind in (1, 0))
        np.testing.assert_array_equal(black, ramp.astype("u1"))
        np.testing.assert_array_equal(white, 255 - black)


def test_blank_of_unsigned_numbers_in_fits_becomes_the_lowest_value():
    plane = (PLANES[0] * 10).astype("u2")
    plane[0, 0] = plane.min()
    expected = decoded(fits_bytes(fits.PrimaryHDU(plane)))
    plane[0, 0] = 65535
    unit = fits.PrimaryHDU(plane)
    unit.header["BLANK"] = 32767  # the number in the file, which BZERO = 32768 is added to
    np.testing.assert_array_equal(decoded(fits_bytes(unit)), expected)
